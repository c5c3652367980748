"""What a configuration's fields may hold, declared beside them and checked in one place. Free of jax.

A field says its bounds where it is declared, and ``__post_init__`` checks all of them by one call::

    @dataclasses.dataclass(frozen=True)
    class TrainingConfig:
        iterations: int = whole(200, 1, 10_000_000)
        learning_rate: float = number(2e-3, 0.0, 10.0, open_low=True)
        order: Order = choice("second", get_args(Order))

        def __post_init__(self) -> None:
            check_fields(self, "training.")

NaN and infinity are in no interval, and ``True`` is not a number: all are refused by name, value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any

LONGEST = 80
"""Characters of a refused value that a message repeats; a message is one line that can be read."""

_ALLOWED = "allowed"
"""Key of a field's metadata."""


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What one field may hold.

    Attributes:
      low: smallest value.
      high: largest value.
      whole: whole numbers only.
      open_low: ``low`` itself is not allowed.
      open_high: ``high`` itself is not allowed.
      values: the only values allowed; ``low`` and ``high`` then say nothing.
      many: the field is a tuple of such values.
      distinct: ... of which none is repeated.
      fewest: ... and of which there are at least so many.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    open_low: bool = False
    open_high: bool = False
    values: tuple[Hashable, ...] = ()
    many: bool = False
    distinct: bool = False
    fewest: int = 1

    def __str__(self) -> str:
        if self.values:
            return f"one of {', '.join(map(str, self.values))}"
        kind = "a whole number" if self.whole else "a finite number"
        low = "" if self.low == -math.inf else f"{'above' if self.open_low else 'at least'} {_plain(self.low)}"
        high = "" if self.high == math.inf else f"{'below' if self.open_high else 'at most'} {_plain(self.high)}"
        return " ".join(part for part in (kind, " and ".join(part for part in (low, high) if part)) if part)

    def holds(self, value: Any) -> bool:
        """Whether one value is allowed."""
        if self.values:
            return value in self.values
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)


def _plain(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else f"{bound:g}"


def _field(default: Any, allowed: Allowed) -> Any:
    return dataclasses.field(default=default, metadata={_ALLOWED: allowed})


def number(
    default: float, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> Any:
    """A field that holds a finite number in ``[low, high]``, without an end that is open."""
    return _field(default, Allowed(low, high, open_low=open_low, open_high=open_high))


def whole(default: int, low: float, high: float) -> Any:
    """A field that holds a whole number in ``[low, high]``."""
    return _field(default, Allowed(low, high, whole=True))


def choice(default: Hashable, values: Sequence[Hashable]) -> Any:
    """A field that holds one of ``values``."""
    return _field(default, Allowed(values=tuple(values)))


def numbers(
    default: Sequence[float], low: float = -math.inf, high: float = math.inf, *, open_low: bool = False,
    distinct: bool = False, fewest: int = 1,
) -> Any:  # fmt: skip
    """A field that holds a tuple of finite numbers in ``[low, high]``."""
    return _field(tuple(default), Allowed(low, high, open_low=open_low, many=True, distinct=distinct, fewest=fewest))


def wholes(default: Sequence[int], low: float, high: float, *, distinct: bool = True, fewest: int = 1) -> Any:
    """A field that holds a tuple of whole numbers in ``[low, high]``."""
    return _field(tuple(default), Allowed(low, high, whole=True, many=True, distinct=distinct, fewest=fewest))


def choices(default: Sequence[Hashable], values: Sequence[Hashable], *, fewest: int = 1) -> Any:
    """A field that holds a tuple of different ones of ``values``."""
    allowed = Allowed(values=tuple(values), many=True, distinct=True, fewest=fewest)
    return _field(tuple(default), allowed)


def allowed(field: dataclasses.Field[Any]) -> Allowed | None:
    """What a field may hold; None where nothing was declared."""
    return field.metadata.get(_ALLOWED)


def shown(value: object) -> str:
    """A value as a message repeats it: one line, of at most :data:`LONGEST` characters."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"  # Python refuses to write the longest ones
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def check_fields(config: Any, prefix: str = "") -> None:
    """Checks every field of a dataclass that was declared by a function of this module.

    Args:
      config: an instance.
      prefix: written before the field's name, for instance ``"training."``.

    Raises:
      ValueError: names the first field that holds what is not allowed, its value, and what is allowed.
    """
    for field in dataclasses.fields(config):
        bounds = allowed(field)
        if bounds is None:
            continue
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if not bounds.many:
            if not bounds.holds(value):
                raise ValueError(f"{name} must be {bounds}, got {shown(value)}")
            continue
        if not isinstance(value, tuple):
            raise ValueError(f"{name} must be a list, each {bounds}, got {shown(value)}")
        for item in value:
            if not bounds.holds(item):
                raise ValueError(f"{name} must be a list, each {bounds}, got {shown(item)}")
        if len(value) < bounds.fewest:
            raise ValueError(f"{name} must hold at least {bounds.fewest}, got {len(value)}")
        if bounds.distinct and len(set(value)) != len(value):
            raise ValueError(f"{name} must not repeat a value, got {shown(' '.join(map(str, value)))}")
