"""Every run states the version of the worlds, and a resumed one is told if it has changed."""

import envs_jax
from benchmarks import command
from experiments.harness import execution, machine


class Folder:
    """Of a run, in memory."""

    def __init__(self, versions=None):
        self.versions, self.told = versions, []

    def read_json(self, name):
        return self.versions

    def write_json(self, name, content):
        self.versions = content

    def notify(self, line):
        self.told.append(line)


def test_versions_of_a_run_state_that_of_the_worlds():
    found = machine.versions(())
    assert found["worlds"] == envs_jax.VERSION == command.version()
    folder = Folder()
    execution.note_versions(folder, found)
    assert folder.versions == found
    assert folder.told == []


def test_a_run_resumed_in_other_worlds_is_told_so():
    now = machine.versions(())
    folder = Folder({name: value for name, value in now.items() if name != "worlds"})
    execution.note_versions(folder, now)
    assert folder.told[-1] == (
        f"observations or rewards are those of worlds {envs_jax.VERSION}, not 1.0: start a new run"
    )
    assert "worlds" not in folder.versions
