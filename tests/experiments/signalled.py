"""A command that sends itself a signal when a phase begins: ``python -m tests.experiments.signalled PHASE SIGNAL ...``.

``fake`` as the third argument runs an experiment that only pretends to compute; what follows is the command line.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from experiments.harness import main as harness
from experiments.harness import stopping
from experiments.transfer.__main__ import experiment


def _carry_out(config: Any, plan: Any, folder: Any, signals: stopping.Signals) -> Any:
    """All phases without computing; training is twenty intervals, of which the last finished is on disk."""
    from experiments.harness.errors import Interrupted

    for phase in ("loading", "building", "compiling"):
        signals.enter(phase)  # type: ignore[arg-type]
    for i in range(20):
        folder.write_json("intervals.json", i)
        if signals.training():
            raise Interrupted
        time.sleep(0.01)
    signals.enter("testing")
    return None


def _fake() -> harness.Experiment[Any]:
    import dataclasses

    from experiments.harness import returns

    returns.store = lambda *arguments: None
    return dataclasses.replace(experiment(), carry_out=_carry_out, report=lambda *arguments: None)


def main() -> int:
    """Runs the command; the signal is sent at most once."""
    asked, name, *arguments = sys.argv[1:]
    pretend = arguments[:1] == ["fake"]
    waiting = [signal.Signals[name]]

    def on_phase(phase: str) -> None:
        if phase == asked and waiting:
            os.kill(os.getpid(), waiting.pop())
            (sent := time.monotonic())
            while current.received == 0 and time.monotonic() - sent < 60:
                time.sleep(0.005)  # at once in most phases: the process ends here

    class Signals(stopping.Signals):
        def __enter__(self) -> stopping.Signals:
            global current
            current = self
            return super().__enter__()

    harness.Signals = Signals  # type: ignore[misc]
    return harness.main(_fake if pretend else experiment, arguments[pretend:], on_phase)


current: stopping.Signals

if __name__ == "__main__":
    sys.exit(main())
