"""What constructors and factories of tasks refuse, said in one form: ``owner.field must be <allowed>, got <value>``.

All checks run on the host, before anything is traced or compiled, and raise ``ValueError``, also where the type is
wrong. A bool is no number, NaN and infinity are none either; NumPy's and JAX's integers are as good as Python's. Values
under a JAX trace (a factory called inside ``jit`` or ``vmap``) have no number yet: their shape alone is checked.

Standard library and NumPy only, so that a command line can use it before JAX is loaded.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

TAIL = 1e-4
"""Probability that a table of a Poisson law may leave out beyond its end."""
_LONGEST = 80  # characters of a refused value that are shown


def shown(value: object) -> str:
    """``repr`` on one line, shortened; never raises."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a repr may fail in any way: integers of more than 4300 digits do
        text = f"something of type {type(value).__name__} that cannot be printed"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def refusal(owner: str, field: str, allowed: str, got: str) -> ValueError:
    """The error of a refused field; ``got`` is the value as it is to be read."""
    return ValueError(f"{owner}.{field} must be {allowed}, got {got}")


def whole_number(owner: str, field: str, value: object, low: int, high: int) -> int:
    """``value`` as an ``int`` in ``[low, high]``.

    Raises:
      ValueError: for anything else, a bool and 3.0 included.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # what has no index raises
        if low <= number <= high:
            return number
    except TypeError:
        pass
    raise refusal(owner, field, f"a whole number from {low} to {high}", shown(value))


def whole_numbers(owner: str, **fields: tuple[object, int, int]) -> tuple[int, ...]:
    """:func:`whole_number` of several fields, each given as ``field=(value, low, high)``; in that order."""
    return tuple(whole_number(owner, field, *bounds) for field, bounds in fields.items())


def whole_sequence(
    owner: str, field: str, value: object, low: int, high: int, count: tuple[int, int]
) -> tuple[int, ...]:
    """``value`` as a tuple of whole numbers in ``[low, high]``, from ``count[0]`` to ``count[1]`` of them.

    Raises:
      ValueError: for anything else, a string included.
    """
    least, most = count
    allowed = f"{least} to {most} whole numbers from {low} to {high}"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refusal(owner, field, allowed, shown(value))
    entries = tuple(value)
    if not least <= len(entries) <= most:
        raise refusal(owner, field, allowed, f"{len(entries)}: {shown(entries)}")
    return tuple(whole_number(owner, f"{field}[{i}]", entry, low, high) for i, entry in enumerate(entries))


def flag(owner: str, field: str, value: object) -> bool:
    """``value`` as a ``bool``.

    Raises:
      ValueError: for anything else, 0 and 1 included.
    """
    if not isinstance(value, bool | np.bool_):
        raise refusal(owner, field, "True or False", shown(value))
    return bool(value)


def near(name: object, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` if one of ``allowed`` looks like ``name``, else nothing."""
    import difflib  # on the way to an error only

    found = difflib.get_close_matches(name, list(allowed), 1) if isinstance(name, str) else []
    return f"; did you mean {found[0]!r}?" if found else ""


def one_of(owner: str, field: str, value: object, allowed: Iterable[str]) -> str:
    """``value``, one of the strings ``allowed``.

    Raises:
      ValueError: for anything else; names what is allowed and the nearest of it.
    """
    names = tuple(allowed)
    if isinstance(value, str) and value in names:
        return value
    raise refusal(owner, field, f"one of {', '.join(names)}", shown(value) + near(value, names))


def known(owner: str, given: Mapping[str, object], allowed: Iterable[str]) -> None:
    """Refuses keyword arguments that ``owner`` does not have.

    Raises:
      ValueError: for the first unknown one; names what is allowed and the nearest of it.
    """
    names = tuple(allowed)
    for name, value in given.items():
        if name not in names:
            raise ValueError(
                f"{owner} has no argument {name!r} (got {name}={shown(value)}): must be one of {', '.join(names)}"
                f"{near(name, names)}"
            )


def product(owner: str, sizes: Mapping[str, int], high: int) -> None:
    """Refuses sizes that are allowed one by one but not together: their product is at most ``high``.

    Raises:
      ValueError: if it is more.
    """
    total = math.prod(sizes.values())
    if total > high:
        factors = " x ".join(map(str, sizes.values()))
        raise refusal(owner, " x ".join(sizes), f"at most {high}", f"{factors} = {total}")


def numbers(
    owner: str,
    field: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    shape: tuple[int, ...] = (),
    per: str = "",
    above: bool = False,
    whole: bool = False,
    scalar: bool = False,
) -> np.ndarray | None:
    """``value`` as an array of finite numbers in ``[low, high]``, of a given shape.

    Args:
      owner: who refuses.
      field: the argument's name.
      value: a number, nested sequences of numbers, or an array of NumPy or JAX.
      low: least value allowed; with ``above`` not itself.
      high: largest value allowed.
      shape: that is wanted; ``()`` is one number.
      per: what the last axis counts, as in "one a stage".
      above: whether ``low`` itself is refused.
      whole: whether every number must be whole.
      scalar: whether shapes that broadcast to ``shape`` are taken as well.

    Returns:
      The numbers, ``f64`` (not broadcast); None under a JAX trace, where values are not known.

    Raises:
      ValueError: for a value that is no number, not finite in single precision, out of bounds, or of another shape.
    """
    allowed = _allowed(low, high, shape, per, above, whole, scalar)
    try:
        got = tuple(np.shape(value))
    except ValueError:  # rows of different lengths
        raise refusal(owner, field, allowed, shown(value)) from None
    if got != shape and not (scalar and _broadcasts(got, shape)):
        size = f"{got[0]} values" if len(got) == 1 else f"shape {got}" if got else "one value"
        raise refusal(owner, field, allowed, f"{size}, {shown(value)}")
    if _traced(value):
        return None
    array = np.asarray(value)
    # bfloat16 and its like are of kind V; bools among numbers would pass as 0 and 1.
    if array.dtype.kind not in "iufV" or _holds_bool(value):
        raise refusal(owner, field, allowed, shown(value))
    array = array.astype(np.float64)
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(array.astype(np.float32)) | (array < low) | (array > high)
    if above:
        wrong |= array <= low
    if whole:
        wrong |= array != np.round(array)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f" at {list(at)}" if at else ""
        raise refusal(owner, field, allowed, f"{array[at]:g}{where}")
    return array


def number(
    owner: str, field: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False
) -> float | None:
    """One finite number in ``[low, high]`` as a ``float``; None under a JAX trace. Arguments of :func:`numbers`."""
    found = numbers(owner, field, value, low, high, above=above)
    return None if found is None else float(found)


def poisson_table(owner: str, field: str, rate: np.ndarray | float | None, most: int, table: str) -> None:
    """Refuses Poisson means whose law does not fit into a table of ``0..most``: more than :data:`TAIL` lies beyond.

    Args:
      owner: who refuses.
      field: the argument that gives the mean.
      rate: mean counts, any shape; None (under a trace) passes.
      most: the table's last count.
      table: the argument that sets ``most``.

    Raises:
      ValueError: names both arguments, and the table's end that would do.
    """
    if rate is None or np.size(rate) == 0:
        return
    largest = float(np.max(rate))
    if poisson_tail(largest, most) > TAIL:
        allowed = f"small enough for a table that ends at {table}={most}"
        enough = poisson_quantile(largest, 1.0 - TAIL)
        raise refusal(owner, field, allowed, f"a mean of {largest:g}, which needs {table} of {enough} or more")


def _poisson_cdf(rate: float, most: int) -> np.ndarray:
    """``P(D <= k)`` for ``k = 0..most``, ``f64[most + 1]``."""
    if rate <= 0.0:
        return np.ones(most + 1)
    counts = np.arange(most + 1)
    log_factorial = np.cumsum(np.log(np.maximum(counts, 1)))
    return np.cumsum(np.exp(counts * math.log(rate) - rate - log_factorial))


def poisson_tail(rate: float, most: int) -> float:
    """Probability that a Poisson count exceeds ``most``."""
    return max(1.0 - float(_poisson_cdf(rate, most)[-1]), 0.0)


def poisson_quantile(rate: float, share: float) -> int:
    """Least count that a Poisson law exceeds with probability at most ``1 - share``, for ``share`` up to 1 - 1e-9."""
    most = math.ceil(rate + 12.0 * math.sqrt(rate) + 24.0)
    return int(np.searchsorted(_poisson_cdf(rate, most), min(share, 1.0 - 1e-9)))


def _allowed(low: float, high: float, shape: tuple[int, ...], per: str, above: bool, whole: bool, scalar: bool) -> str:
    """What :func:`numbers` wants, in words."""
    kind = "whole number" if whole else "number"
    if math.isinf(low) and math.isinf(high):
        one, many = (kind, f"{kind}s") if whole else (f"finite {kind}", f"finite {kind}s")
    else:
        least = f"above {low:g}" if above else f"of {low:g} or more"
        both = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        ends = least if math.isinf(high) else f"of at most {high:g}" if math.isinf(low) else both
        one, many = f"{kind} {ends}", f"{kind}s {ends}"
    if not shape:
        return f"a {one}"
    text = f"{shape[0]} {many}" if len(shape) == 1 else f"an array of shape {shape} of {many}"
    text += f", {per}" if per else ""
    return f"a {one}, or {text}" if scalar else text


def _broadcasts(got: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(got, shape) == shape
    except ValueError:
        return False


def _traced(value: object) -> bool:
    """Whether ``value`` is, or holds, a JAX tracer; found by name, so that JAX need not be loaded."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any(map(_traced, value))
    return any(cls.__name__ == "Tracer" for cls in type(value).__mro__)


def _holds_bool(value: object) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any(map(_holds_bool, value))
    return isinstance(value, bool | np.bool_)
