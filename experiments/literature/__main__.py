"""Does a learner of this suite reach, by the same code, what was published of it on a task of the literature?

``python -m experiments.literature --learner NAME --task NAME``. Tasks: cartpole, acrobot, catch, bandit-10x5,
bandit-100x5, navigation, gridnavi; sine, whose learners are inner loops (maml, fomaml, meta_sgd, gated, learned).
``summary.json`` holds ``figure``, its ``interval`` over seeds, what was published and whether the run passes;
``report.md`` the learning curve. One seed is computed after another; a run that was killed goes on with the next.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from experiments.harness.study import Study, main


def _report(*arguments: Any) -> None:
    from experiments.literature import sections

    sections.write(*arguments)


def study() -> Study[Any]:
    """The study, for :func:`experiments.harness.study.main`."""
    from experiments.literature import plan
    from experiments.literature.configuration import PRESETS

    question = (__doc__ or "").split("\n\n")[0]
    functions = (plan.check, plan.parts, plan.announce, plan.summary, _report)
    return Study("literature", question, PRESETS, *functions, cpu_devices=lambda config: 1)


def command(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m experiments.literature``."""
    return main(study, arguments)


if __name__ == "__main__":
    sys.exit(command())
