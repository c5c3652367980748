"""Which learner adapts best to new tasks of fields that it was trained in, all given the same?

    python -m experiments.compare [--preset cpu|smoke] [--learners a,b,c] [--arms reference rl-only]
    python -m experiments.compare --resume [RUN]
    python -m experiments.compare --report [RUN]

Trains one agent of every learner on all domains and tests it on new tasks of each, with K support episodes, with
another task's, and with their rewards zeroed. One table with the reference's choices as labels, one from reward alone;
they are never mixed. What may not differ is checked before anything is trained; what differs stands beside.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from experiments.harness.main import Experiment, main


def _report(*arguments: Any) -> None:
    from experiments.compare import sections

    sections.write(*arguments)


def experiment() -> Experiment[Any]:
    """The experiment, for :func:`experiments.harness.main.main`."""
    from experiments.compare.configuration import PRESETS
    from experiments.compare.plan import announce, plan, resolve

    question = (__doc__ or "").split("\n\n")[0]
    return Experiment("compare", question, PRESETS, plan, announce, _report, resolve=resolve)


def command(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m experiments.compare``."""
    return main(experiment, arguments)


if __name__ == "__main__":
    sys.exit(command())
