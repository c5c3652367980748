"""Keeping schedules: a better value or a better bound replaces what is there, anything else does not."""

from benchmarks.studies import job_shop_optimum
from benchmarks.studies.job_shop_optimum import Schedule


def test_the_better_schedule_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(job_shop_optimum, "STORED", tmp_path / "kept.json")
    assert job_shop_optimum.stored() == {}

    def offer(value, bound, start):
        job_shop_optimum.store("ft06 makespan", Schedule(value, bound, "FEASIBLE", [[start]], 1.2))
        kept = job_shop_optimum.stored()["ft06 makespan"]
        return kept["value"], kept["bound"], kept["start"], kept["seconds"]

    assert offer(60.0, 50.0, 1) == (60.0, 50.0, [[1]], 1)
    assert offer(61.0, 55.0, 2) == (60.0, 50.0, [[1]], 1)
    assert offer(60.0, 52.0, 3) == (60.0, 52.0, [[3]], 1)
    assert offer(58.0, 40.0, 4) == (58.0, 40.0, [[4]], 1)
    job_shop_optimum.store("ft06 tardiness", Schedule(52.0, 52.0, "OPTIMAL", [[0]], 0.4))
    assert list(job_shop_optimum.stored()) == ["ft06 makespan", "ft06 tardiness"]
