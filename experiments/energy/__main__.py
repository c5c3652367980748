"""Who should solve an energy allocation by a learned solver: what is its certified gap worth in CPU time?

``python -m experiments.energy [--family seed|dispatch --size 10x10 --rules sgd meta_sgd gated learned --shots 0 1 3 5
--steps 0 10 30]``. ``summary.json`` holds ``goals`` (certified gaps of new sites by steps) and ``front``; ``report.md``
begins with the front of certified gap against CPU time an instance, every method and rival on it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from experiments.harness.study import Study, main


def _report(*arguments: Any) -> None:
    from experiments.energy import sections

    sections.write(*arguments)


def study() -> Study[Any]:
    """The study, for :func:`experiments.harness.study.main`."""
    from experiments.energy import plan
    from experiments.energy.configuration import PRESETS

    question = (__doc__ or "").split("\n\n")[0]
    functions = (plan.check, plan.parts, plan.announce, plan.summary, _report)
    return Study("energy", question, PRESETS, *functions, cpu_devices=lambda config: 1)


def command(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m experiments.energy``."""
    return main(study, arguments)


if __name__ == "__main__":
    sys.exit(command())
