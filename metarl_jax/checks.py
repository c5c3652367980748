"""Bounds of numeric configuration fields, stated where they are declared. Free of jax: refusals come at once."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


def number(default: Any, low: float, high: float, *, open_low: bool = False) -> Any:
    """A dataclass field that holds a number in ``[low, high]``, or ``(low, high]`` if ``open_low``.

    Whether it is a whole number follows from the default.
    """
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "open_low": open_low})


def check_fields(config: Any, prefix: str = "") -> None:
    """Checks every field of a dataclass that was declared with :func:`number`.

    Args:
      config: the dataclass.
      prefix: put before a field's name, with a dot.

    Raises:
      ValueError: naming the first field that is out of bounds, its value and what is allowed.
    """
    for field in dataclasses.fields(config):
        if "low" not in field.metadata:
            continue
        value, low, high = getattr(config, field.name), field.metadata["low"], field.metadata["high"]
        whole = isinstance(field.default, int)
        name = f"{prefix}.{field.name}" if prefix else field.name
        above = "above" if field.metadata["open_low"] else "at least"
        what = f"{'a whole number' if whole else 'a number'} {above} {low:g} and at most {high:g}"
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        inside = right and math.isfinite(value) and low <= value <= high
        if not inside or (field.metadata["open_low"] and value == low):
            raise ValueError(f"{name} must be {what}, got {value!r}")
