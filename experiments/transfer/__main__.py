"""Does an agent that learned in one field adapt to another within a few episodes?

    python -m experiments.transfer [--preset cpu|three|smoke|gpu] [--learner NAME] [--protocol both|pairs|leave-out]
    python -m experiments.transfer --resume [RUN]
    python -m experiments.transfer --report [RUN]

Trains an agent on each domain, and agents on all domains but a few; adapts them to new tasks of every domain, or of
those left out, with a few support episodes; and sets the scores beside controls: random weights, no adaptation, another
task's support, support without rewards, a multitask agent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from experiments.harness.main import Experiment, main


def _report(*arguments: Any) -> None:
    from experiments.transfer import sections

    sections.write(*arguments)


def experiment() -> Experiment[Any]:
    """The experiment, for :func:`experiments.harness.main.main`."""
    from experiments.transfer.configuration import PRESETS
    from experiments.transfer.plan import announce, plan

    question = (__doc__ or "").split("\n\n")[0]
    return Experiment("transfer", question, PRESETS, plan, announce, _report)


def command(arguments: Sequence[str] | None = None) -> int:
    """The console script ``metarl-transfer``."""
    return main(experiment, arguments)


if __name__ == "__main__":
    sys.exit(command())
