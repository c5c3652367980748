"""Console scripts of the installed package, which no other package or folder called ``experiments`` can hide.

``python -m experiments.transfer`` takes the first ``experiments`` on the path, and the working directory comes first. A
console script starts without the working directory; and this module, whose name is nobody else's, looks first where it
lies itself, so that neither PYTHONPATH can put another package in between.
"""

from __future__ import annotations

import pathlib
import sys


def transfer() -> int:
    """``metarl-transfer``: the command ``python -m experiments.transfer``, whatever else is called ``experiments``."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    from experiments.transfer.__main__ import command

    return command()
