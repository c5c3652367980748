"""A warehouse of several levels, run by a team of agents, one a level, who all act at once and share the cost.

Level ``i`` holds ``x_i`` in ``0..cap_i`` units. Its agent moves ``a_i`` units in; goods are in place at once and leave
``y``; the level's own customers take ``D_i ~ Poisson(rate_i)`` from it, what they do not find is lost:
``x' = (y - D)^+``. The cost of a period [money] is expected over that demand:

    f(x, a) = sum_i c_i a_i + K_i 1[a_i > 0] + h_i E(y_i - D_i)^+ + p_i E(D_i - y_i)^+.

* ``independent``: every level buys outside, ``y = x + a <= cap``.
* ``chain``: level 1 buys outside, level ``i + 1`` takes from level ``i`` what lay there *before* that level's own
  receipt: ``a_{i+1} <= x_i``, ``y_i = x_i + a_i - a_{i+1} <= cap_i``.

The document this model comes from has lost its formulas and does not say whether its "order cost" is paid by the unit
or by the order, nor who supplies whom. So that is a setting (:data:`READINGS`) and every result names it.

Everything here is NumPy in float64; :mod:`envs_jax.references.warehouse` solves the model exactly.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

SUPPLIES = ("independent", "chain")


class Reading(tuple[str, str]):
    """``(supply, what the order cost is)``; the latter ``unit``, ``order`` or ``first`` (a unit, at level 1 only)."""

    __slots__ = ()


READINGS: dict[str, Reading] = {
    "R1": Reading(("independent", "unit")),
    "R2": Reading(("chain", "unit")),
    "R2b": Reading(("chain", "first")),
    "R4": Reading(("independent", "order")),
    "R5": Reading(("chain", "order")),
}
"""What may be meant by "order cost": supply, and cost a unit or an order."""

EXAMPLES = ("ex1", "ex2", "chain")


@dataclasses.dataclass(frozen=True)
class Warehouse:
    """The parameters of a warehouse of ``n`` levels; level 1 is entry 0.

    Attributes:
      caps: largest stock of every level [units], at least 1.
      rates: mean demand of every level [units/period], at least 0.
      holding: ``h`` [money/unit/period], paid on what is left after the demand.
      shortage: ``p`` [money/unit], paid on lost sales.
      unit_cost: ``c`` [money/unit moved in].
      order_cost: ``K`` [money/order].
      supply: ``independent`` or ``chain``.

    Raises:
      ValueError: lists of unequal length, a cap below 1, a negative or infinite number, an unknown supply. The message
        names the field, its value and what is allowed.
    """

    caps: tuple[int, ...]
    rates: tuple[float, ...]
    holding: tuple[float, ...]
    shortage: tuple[float, ...]
    unit_cost: tuple[float, ...]
    order_cost: tuple[float, ...]
    supply: str = "independent"

    def __post_init__(self) -> None:
        if self.supply not in SUPPLIES:
            raise ValueError(f"supply = {self.supply!r}: allowed are {', '.join(SUPPLIES)}")
        if not self.caps:
            raise ValueError("caps = (): at least one level is needed")
        for cap in self.caps:
            if isinstance(cap, bool) or cap != int(cap) or cap < 1:
                raise ValueError(f"caps = {self.caps}: every cap must be a whole number of at least 1")
        for field in ("rates", "holding", "shortage", "unit_cost", "order_cost"):
            values = getattr(self, field)
            if len(values) != len(self.caps):
                raise ValueError(f"{field} = {values}: {len(values)} values for {len(self.caps)} levels (caps)")
            if not all(math.isfinite(value) and value >= 0 for value in values):
                raise ValueError(f"{field} = {values}: every value must be a finite number of at least 0")
            object.__setattr__(self, field, tuple(float(value) for value in values))
        object.__setattr__(self, "caps", tuple(int(cap) for cap in self.caps))

    @property
    def num_levels(self) -> int:
        """Number of levels, which is the number of agents."""
        return len(self.caps)

    @property
    def is_chain(self) -> bool:
        """Whether levels supply each other."""
        return self.supply == "chain"

    @property
    def num_states(self) -> int:
        """Number of joint stocks."""
        return math.prod(cap + 1 for cap in self.caps)

    @property
    def side(self) -> int:
        """Stocks a level in the padded tables: the largest cap plus one, for all levels."""
        return max(self.caps) + 1

    @property
    def is_ragged(self) -> bool:
        """Whether caps differ, so that the padded tables hold entries that are no states."""
        return len(set(self.caps)) > 1

    def levels(self) -> list[Warehouse]:
        """The levels as warehouses of their own. Only if independent is the whole their sum."""
        return [self.take([i]) for i in range(self.num_levels)]

    def take(self, order: list[int]) -> Warehouse:
        """The levels ``order`` (entries may be left out or permuted) as a warehouse."""
        lists = (self.caps, self.rates, self.holding, self.shortage, self.unit_cost, self.order_cost)
        return Warehouse(*(tuple(values[i] for i in order) for values in lists), supply=self.supply)  # type: ignore[arg-type]


def make(example: str, reading: str, num_levels: int | None = None) -> Warehouse:
    """One of the examples under a reading.

    Args:
      example: ``ex1`` (2 levels, caps 20 and 16), ``ex2`` (5 levels, caps 6) or ``chain`` (``num_levels`` equal levels,
        cap 6, demand 1, h 1, p 9, order cost 3; ours, because only coupled levels refute that what is best for each
        level is best for the team; coupled under the readings R2, R2b and R5).
      reading: a key of :data:`READINGS`.
      num_levels: for ``chain``, at least 1 (3 if None); of ``ex1`` and ``ex2`` the first ``num_levels``.

    Raises:
      ValueError: naming the unknown example or reading, or a number of levels that the example does not have.
    """
    if reading not in READINGS:
        raise ValueError(f"reading = {reading!r}: allowed are {', '.join(READINGS)}")
    if example not in EXAMPLES:
        raise ValueError(f"example = {example!r}: allowed are {', '.join(EXAMPLES)}")
    if num_levels is not None and num_levels < 1:
        raise ValueError(f"levels = {num_levels}: at least 1")
    caps: tuple[int, ...]
    rates: tuple[float, ...]
    holding: tuple[float, ...]
    shortage: tuple[float, ...]
    order: tuple[float, ...]
    if example == "ex1":
        caps, rates, holding, shortage, order = (20, 16), (4.0, 4.0), (10.0, 10.0), (20.0, 20.0), (10.0, 10.0)
    elif example == "ex2":
        caps, rates, holding = (6,) * 5, (2.0, 3.0, 1.0, 2.0, 3.0), (5.0, 3.0, 4.0, 2.0, 3.0)
        shortage, order = (6.0, 8.0, 7.0, 8.0, 9.0), (2.0, 3.0, 5.0, 3.0, 6.0)
    else:
        n = 3 if num_levels is None else num_levels
        caps, rates, holding, shortage, order = (6,) * n, (1.0,) * n, (1.0,) * n, (9.0,) * n, (3.0,) * n
    n = len(caps) if num_levels is None else num_levels
    if n > len(caps):
        raise ValueError(f"levels = {n}: {example} has {len(caps)}")
    supply, meaning = READINGS[reading]
    none = (0.0,) * n
    first = tuple(cost if i == 0 else 0.0 for i, cost in enumerate(order[:n]))
    unit = {"unit": order[:n], "first": first, "order": none}[meaning]
    fixed = order[:n] if meaning == "order" else none
    return Warehouse(caps[:n], rates[:n], holding[:n], shortage[:n], unit, fixed, supply)


def demand_masses(rate: float, size: int) -> np.ndarray:
    """``P(D = k)`` of a Poisson law for ``k = 0..size-1``: ``f64[size]``, each from the last."""
    masses = np.empty(size)
    masses[0] = math.exp(-rate)
    for k in range(1, size):
        masses[k] = masses[k - 1] * rate / k
    return masses


def tables(warehouse: Warehouse) -> tuple[np.ndarray, np.ndarray]:
    """What a level does to its stock after orders ``y``: the next stock's law, and the cost of holding and shortage.

    Exact, whatever the demand's tail: ``P(x' = 0) = P(D >= y)`` and ``E(D - y)^+ = rate - y + E(y - D)^+``.

    Returns:
      ``f64[n, side, side]`` with rows ``y`` and columns ``x'`` (rows sum to 1), and ``f64[n, side]`` [money/period].
      Rows above a level's cap are filled like the others; nothing feasible reads them.
    """
    side = warehouse.side
    law = np.zeros((warehouse.num_levels, side, side))
    cost = np.zeros((warehouse.num_levels, side))
    for i, rate in enumerate(warehouse.rates):
        mass = demand_masses(rate, side)
        for y in range(side):
            law[i, y, 1 : y + 1] = mass[:y][::-1]
            law[i, y, 0] = 1.0 - mass[:y].sum()
            left = float(np.arange(y, 0, -1) @ mass[:y])
            lost = warehouse.rates[i] - y + left
            cost[i, y] = warehouse.holding[i] * left + warehouse.shortage[i] * max(lost, 0.0)
    return law, cost


def states(warehouse: Warehouse) -> np.ndarray:
    """All joint stocks ``i32[|X|, n]``, level ``n`` fastest."""
    return np.indices([cap + 1 for cap in warehouse.caps], dtype=np.int32).reshape(warehouse.num_levels, -1).T


def padded_index(warehouse: Warehouse) -> np.ndarray:
    """Where :func:`states` lie in the padded tables of ``side ** n`` entries: ``i64[|X|]``."""
    return states(warehouse).astype(np.int64) @ strides(warehouse)


def strides(warehouse: Warehouse) -> np.ndarray:
    """What one unit at every level adds to an index of the padded tables: ``i64[n]``."""
    return warehouse.side ** np.arange(warehouse.num_levels - 1, -1, -1, dtype=np.int64)


def after_orders(warehouse: Warehouse, stock: np.ndarray, flows: np.ndarray) -> np.ndarray:
    """Stock ``y`` after the flows ``a`` have arrived: ``i32[..., n]`` from two arrays of that shape, unchecked."""
    y = stock + flows
    if warehouse.is_chain:
        y[..., :-1] -= flows[..., 1:]
    return y


def is_feasible(warehouse: Warehouse, stock: np.ndarray, flows: np.ndarray) -> np.ndarray:
    """Whether all levels can do ``flows`` at once at ``stock`` (``i32[..., n]`` both): ``bool[...]``."""
    y = after_orders(warehouse, stock, flows)
    good = np.all(flows >= 0, axis=-1) & np.all(y <= np.asarray(warehouse.caps), axis=-1)
    if warehouse.is_chain:
        good = good & np.all(flows[..., 1:] <= stock[..., :-1], axis=-1)
    return np.asarray(good)


def order_costs(warehouse: Warehouse, flows: np.ndarray) -> np.ndarray:
    """``sum_i c_i a_i + K_i 1[a_i > 0]`` [money] of ``i32[..., n]`` flows: ``f64[...]``."""
    return flows @ np.asarray(warehouse.unit_cost) + (flows > 0) @ np.asarray(warehouse.order_cost)


def joint_flows(warehouse: Warehouse) -> np.ndarray:
    """All joint flows ``i32[A, n]`` that are feasible somewhere, level 1 fastest: ties go to the first."""
    grid = np.indices([cap + 1 for cap in reversed(warehouse.caps)], dtype=np.int32)
    return grid.reshape(warehouse.num_levels, -1)[::-1].T


def count_pairs(warehouse: Warehouse) -> int:
    """Number of feasible joint state-action pairs.

    Independent: a product over levels. In the chain: a product of matrices, level by level (the flow from level ``i``
    to ``i + 1`` is all that the two share).
    """
    if not warehouse.is_chain:
        return math.prod((cap + 1) * (cap + 2) // 2 for cap in warehouse.caps)
    # ways[b]: ways to choose the levels from i + 1 on, given that level i + 1 receives b.
    ways = [1]
    for i in reversed(range(warehouse.num_levels)):
        cap = warehouse.caps[i]
        most = warehouse.caps[max(i - 1, 0)]  # a level receives no more than its supplier holds, level 1 than its cap
        ways = [
            sum(
                count
                for stock in range(cap + 1)
                for given, count in enumerate(ways)
                if given <= stock and stock + received - given <= cap
            )
            for received in range(most + 1)
        ]
    return sum(ways)
