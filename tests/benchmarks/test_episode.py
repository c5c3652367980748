"""The picture shows what was played."""

import numpy as np
import pytest

from benchmarks.quality import episode
from tests.envs_jax.toys import Toy


@pytest.fixture(scope="module")
def played():
    return Toy(), episode.play(Toy(), seed=0)


def test_every_policy_plays_a_whole_episode(played):
    env, episodes = played
    assert set(episodes) == {"random", "noop", "heuristic", "reference"}
    for one in episodes.values():
        assert one.earned.shape == (env.num_periods,)
        assert all(one.tables[row].shape == (env.num_tokens, env.num_periods) for row in episode.ROWS)
    assert not episodes["noop"].tables["decision"].any()
    assert episodes["reference"].earned[-1] >= episodes["noop"].earned[-1]


def test_the_picture_shows_earnings_and_tables_of_both(played):
    env, episodes = played
    top, *tables = episode.draw(env, episodes).axes
    lines = {line.get_label(): line.get_ydata() for line in top.lines}
    for name, one in episodes.items():
        np.testing.assert_array_equal(lines[name], one.earned)
    shown = {axes.get_title(): axes.images[0].get_array() for axes in tables if axes.get_title()}
    assert set(shown) == {f"{row}, {name}" for row in episode.ROWS for name in episode.SHOWN}
    np.testing.assert_array_equal(shown["decision, reference"], episodes["reference"].tables["decision"])
    low, high = top.get_ylim()
    assert low < episodes["heuristic"].earned.min() <= episodes["reference"].earned.max() < high


def test_an_unknown_domain_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        episode.main(["--domains", "atlantis", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "atlantis" in capsys.readouterr().err
