"""What are general games worth to agents under every value operator, and do the same operators learn it?

``python -m experiments.games [--game soccer|grid1|grid2|.. --operators minimax nash ..]``. ``summary.json`` holds
``values``: by operator the agents' exact values of the first state (of soccer, with the ball at A); ``report.md`` holds
learning curves, exploitability, and games won beside the published.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from experiments.harness.study import Study, main


def _report(*arguments: Any) -> None:
    from experiments.games import sections

    sections.write(*arguments)


def study() -> Study[Any]:
    """The study, for :func:`experiments.harness.study.main`."""
    from experiments.games import plan
    from experiments.games.configuration import PRESETS

    question = (__doc__ or "").split("\n\n")[0]
    return Study("games", question, PRESETS, plan.check, plan.parts, plan.announce, plan.summary, _report)


def command(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m experiments.games``."""
    return main(study, arguments)


if __name__ == "__main__":
    sys.exit(command())
