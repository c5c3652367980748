"""Does a team that rolls out on average-cost potentials, exact or estimated, run a warehouse as well as can be done?

``python -m experiments.rollout [--example ex1|ex2|chain --levels N --reading R5 --improve joint|agents --potentials
exact|path|network --devices H]``. ``summary.json`` holds ``optimum`` (the smallest gain) and ``gains`` (the exact gains
of successive policies from "order nothing"); ``report.md`` everything else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from experiments.harness.study import Study, main


def _report(*arguments: Any) -> None:
    from experiments.rollout import sections

    sections.write(*arguments)


def study() -> Study[Any]:
    """The study, for :func:`experiments.harness.study.main`."""
    from experiments.rollout import plan
    from experiments.rollout.configuration import PRESETS

    question = (__doc__ or "").split("\n\n")[0]
    return Study(
        *("rollout", question, PRESETS, plan.check, plan.parts, plan.announce, plan.summary, _report),
        cpu_devices=plan.cpu_devices,
    )


def command(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m experiments.rollout``."""
    return main(study, arguments)


if __name__ == "__main__":
    sys.exit(command())
