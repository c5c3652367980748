"""Values of stage games: what a table of payoffs is worth to each agent under a solution concept.

A stage game is ``payoff f64[N, A_1, .., A_N]``: what agent ``i`` gets for every joint action. A *value operator* takes
it to an :class:`Outcome`: the agents' values, the joint strategy they follow from, and a certificate. Operators are
pure and vmappable; they are the one thing in which equilibrium learners differ
(:mod:`metarl_jax.equilibrium_q`). For two agents unless said otherwise:

=================  ====================================================================================================
``team``           any ``N``: the joint action of the largest sum (all pull together)
``friend``         any ``N``: each agent's best entry (each trusts the others to serve it)
``foe``            each agent's maximin value of its own payoffs; of a zero-sum game its value
``nash``           a Nash equilibrium: the largest sum, then the first agent's payoff (:data:`NASH_CHOICES`)
``ce-utilitarian`` the correlated equilibrium of the largest sum
``ce-egalitarian`` .. of the largest smallest payoff
``ce-republican``  .. of the largest largest payoff
``ce-libertarian`` each agent's own best correlated equilibrium: values of different equilibria, not one point
=================  ====================================================================================================

Ties are broken everywhere by the largest sum, then the first agent's payoff, then the first in the list. 2 x 2 maximin
is a closed form; other linear programmes go to a lexicographic simplex method; Nash equilibria come from *all* vertices
of the best-response polytopes, so that degenerate games lose none: the equilibria of a bimatrix game are a union of
products of their faces, and a payoff that is linear in each strategy is largest at a vertex. Every answer carries its
exploitability or regret, and :func:`check` raises above a tolerance. float64: single precision solves some games wrong
without a sign of it.

Sources (recalled): M. Littman, ICML 1994 and 2001; J. Hu and M. Wellman, JMLR 4 (2003); A. Greenwald and K. Hall, ICML
2003; D. Avis et al., Economic Theory 42 (2010) on vertex enumeration.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

CORRELATED = ("utilitarian", "egalitarian", "republican", "libertarian")
NASH_CHOICES = ("sum", "first", "second", "coordination", "adversarial")

TOLERANCE = 1e-6
"""Largest exploitability, relative to the spread of the payoffs, that :func:`check` lets pass."""

_PIVOT = 1e-9  # smaller entries of a tableau are rounding
_TIE = 1e-9


class Outcome(NamedTuple):
    """What a stage game is worth.

    Attributes:
      value: ``f64[N]``.
      joint: ``f64[A_1, .., A_N]`` probabilities of joint actions. Of ``friend``, ``foe`` and ``ce-libertarian`` the
        product of what each agent plays; of ``ce-libertarian`` from the marginals of its own equilibrium.
      gap: ``f64[]`` certificate, relative to the spread of the payoffs: what an agent can gain by leaving the solution,
        or 0 where nothing needs proof; ``inf`` if the wanted equilibrium does not exist.
    """

    value: chex.Array
    joint: chex.Array
    gap: chex.Array


Operator = Callable[[chex.Array], Outcome]


class NoEquilibriumError(ArithmeticError):
    """A stage game without an equilibrium of the wanted kind, or one that was solved too inexactly."""


def check(gap: chex.Array, what: str, tolerance: float = TOLERANCE) -> None:
    """Raises :class:`NoEquilibriumError` at the first state whose certificate exceeds ``tolerance``.

    Args:
      gap: ``f64[S]`` of :class:`Outcome`.
      what: the operator's name.
      tolerance: the largest gap allowed.
    """
    gaps = np.asarray(gap)
    bad = np.argwhere(~(gaps <= tolerance))
    if bad.size:
        state, worst = tuple(bad[0].tolist()), float(gaps[tuple(bad[0])])
        why = "no equilibrium of the wanted kind" if np.isinf(worst) else f"gap {worst:.1e} above {tolerance:.1e}"
        raise NoEquilibriumError(f"{what}: {why} at state {', '.join(map(str, state)) or 0} ({len(bad)} in all)")


def _spread(payoff: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Least entry and range; at least a millionth of the entries' size, below which differences are rounding."""
    low, high = payoff.min(), payoff.max()
    spread = jnp.maximum(high - low, 1e-6 * jnp.maximum(jnp.abs(low), jnp.abs(high)))
    return low, jnp.where(spread > 0, spread, 1.0)


# --- linear programmes -----------------------------------------------------------------------------------------------


class Programme(NamedTuple):
    """A solved linear programme.

    Attributes:
      x: ``f64[V]`` primal solution.
      dual: ``f64[C]`` dual solution for the first objective.
      gap: ``f64[]`` largest infeasibility of either; ``inf`` if unbounded or out of pivots.
      pivots: ``i32[]``.
    """

    x: chex.Array
    dual: chex.Array
    gap: chex.Array
    pivots: chex.Array


def simplex(constraints: chex.Array, bound: chex.Array, objectives: chex.Array, max_pivots: int = 0) -> Programme:
    """Maximises ``objectives[0] @ x``, among ties ``objectives[1] @ x`` and so on, with ``constraints @ x <= bound``.

    A dense tableau from the slack basis. The column of the steepest objective enters; after a while Bland's rule, which
    cannot cycle, takes over. Once an objective is optimal only columns of zero reduced cost may enter for the next.

    Args:
      constraints: ``f64[C, V]``.
      bound: ``f64[C]``, all at least 0; ``x >= 0`` is understood.
      objectives: ``f64[K, V]``.
      max_pivots: gives up beyond (static); ``50 (C + V)`` if 0.
    """
    (rows, columns), depth = constraints.shape, objectives.shape[0]
    max_pivots = max_pivots or 50 * (rows + columns)
    body = jnp.concatenate([constraints, jnp.eye(rows, dtype=constraints.dtype), bound[:, None]], axis=1)
    costs = jnp.pad(-objectives, ((0, 0), (0, rows + 1)))

    def candidates(tableau: chex.Array) -> tuple[chex.Array, chex.Array]:
        """Which columns may enter, and how steep they are, for the first objective that is not optimal."""
        allowed = jnp.ones(rows + columns, bool)
        entering, steep = jnp.zeros_like(allowed), jnp.zeros(rows + columns, tableau.dtype)
        for k in range(depth):
            reduced = tableau[rows + k, :-1]
            useful = allowed & (reduced < -_PIVOT)
            first = ~entering.any()
            steep = jnp.where(first, reduced, steep)
            entering = jnp.where(first, useful, entering)
            allowed &= reduced <= _PIVOT
        return entering, steep

    def pivot(carry: tuple[chex.Array, ...]) -> tuple[chex.Array, ...]:
        tableau, basis, count, _ = carry
        entering, steep = candidates(tableau)
        by_rule = jnp.where(count < max_pivots // 4, jnp.argmin(jnp.where(entering, steep, jnp.inf)), 0)
        column = jnp.where(count < max_pivots // 4, by_rule, jnp.argmax(entering))
        entries = tableau[:rows, column]
        usable = entries > _PIVOT * jnp.maximum(1.0, jnp.abs(entries).max())  # smaller ones are rounding here
        ratio = jnp.where(usable, tableau[:rows, -1] / jnp.where(usable, entries, 1.0), jnp.inf)
        # Among ties the largest entry, for the sake of rounding; under Bland's rule the first variable.
        tied = usable & (ratio <= ratio.min() + _PIVOT * 1e-3)
        bland = jnp.argmin(jnp.where(tied, basis, rows + columns))
        row = jnp.where(count < max_pivots // 4, jnp.argmax(jnp.where(tied, entries, -jnp.inf)), bland)
        scaled = tableau[row] / tableau[row, column]
        after = tableau - tableau[:, column][:, None] * scaled[None]
        after = after.at[row].set(scaled)
        # A row too flat to be a pivot may fall below 0 by rounding; left there, a later pivot would blow it up.
        after = after.at[:rows, -1].max(0.0)
        unbounded = ~usable.any()
        return jnp.where(unbounded, tableau, after), basis.at[row].set(column), count + 1, unbounded

    def unfinished(carry: tuple[chex.Array, ...]) -> chex.Array:
        tableau, _, count, unbounded = carry
        return candidates(tableau)[0].any() & (count < max_pivots) & ~unbounded

    start = (jnp.concatenate([body, costs]), columns + jnp.arange(rows), jnp.int32(0), jnp.bool_(False))
    tableau, basis, count, unbounded = jax.lax.while_loop(unfinished, pivot, start)
    x = jnp.zeros(columns + rows, tableau.dtype).at[basis].set(tableau[:rows, -1])[:columns]
    dual = tableau[rows, columns:-1]
    infeasible = jnp.maximum((constraints @ x - bound).max(), -x.min())
    suboptimal = jnp.maximum((objectives[0] - dual @ constraints).max(), -dual.min())
    gap = jnp.maximum(jnp.maximum(infeasible, suboptimal), jnp.abs(objectives[0] @ x - dual @ bound))
    failed = unbounded | candidates(tableau)[0].any()
    return Programme(x, dual, jnp.where(failed, jnp.inf, jnp.maximum(gap, 0.0)), count)


def _better(attempt: Callable[[chex.Array], Any], payoff: chex.Array) -> Any:
    """The best of three attempts, by the last thing they return: at payoffs in [1, 2], and at 26 and 20 bits of them.

    Where payoffs span ten orders of magnitude, as in tables that have just begun to be learned, pivots on the smallest
    differences lose the rest; without these the answer is as good as the bits that are kept. Elsewhere the first
    attempt is the best one, and exact.
    """
    grids = (2.0**26, 2.0**20)
    tried = jax.vmap(attempt)(jnp.stack([payoff, *(jnp.round(payoff * grid) / grid for grid in grids)]))
    # What rounding may have cost counts as well, or an attempt that is exact for rounded payoffs would win.
    gap = tried[-1] + jnp.asarray([0.0, *(2.0 / grid for grid in grids)], payoff.dtype)
    gap = jnp.where(jnp.isnan(gap), jnp.inf, gap)
    best = jnp.argmin(gap)
    return jax.tree.map(lambda leaf: leaf[best], (*tried[:-1], gap))


def zero_sum(payoff: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array, chex.Array]:
    """Value and optimal strategies of a matrix game; rows maximise.

    Args:
      payoff: ``f64[A, B]`` to the row player.

    Returns:
      The value ``f64[]``, strategies ``f64[A]`` and ``f64[B]``, and their exploitability ``max(A y) - min(x A)``
      relative to the spread of the payoffs.
    """
    low, spread = _spread(payoff)
    if payoff.shape == (2, 2):
        rows, columns = _two_by_two(payoff)
    else:
        ones = jnp.ones(payoff.shape[1], payoff.dtype)

        def attempt(positive: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
            solved = simplex(positive, jnp.ones(payoff.shape[0], payoff.dtype), ones[None])
            columns, rows = jnp.maximum(solved.x, 0.0), jnp.maximum(solved.dual, 0.0)
            columns, rows = columns / columns.sum(), rows / rows.sum()
            return rows, columns, ((payoff @ columns).max() - (rows @ payoff).min()) / spread

        rows, columns, _ = _better(attempt, 1.0 + (payoff - low) / spread)
    above, below = (payoff @ columns).max(), (rows @ payoff).min()
    return (above + below) / 2, rows, columns, (above - below) / spread


def _two_by_two(payoff: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Closed form: a saddle point, the first in the list, or the strategies that make the other player indifferent."""
    (a, b), (c, d) = payoff
    saddle = (payoff >= payoff.max(0)[None]) & (payoff <= payoff.min(1)[:, None])
    pure = jnp.argmax(saddle.reshape(-1))
    mixed = a - b - c + d
    mixed = jnp.where(mixed == 0.0, 1.0, mixed)  # without a saddle point it is not 0
    row, column = (d - c) / mixed, (d - b) / mixed
    any_pure = saddle.any()
    row = jnp.where(any_pure, 1.0 - pure // 2, row)
    column = jnp.where(any_pure, 1.0 - pure % 2, column)
    return jnp.stack([row, 1.0 - row]), jnp.stack([column, 1.0 - column])


# --- operators -------------------------------------------------------------------------------------------------------


def team(payoff: chex.Array) -> Outcome:
    """The joint action of the largest sum, the first among ties."""
    shape = payoff.shape[1:]
    flat = payoff.reshape(payoff.shape[0], -1)
    best = jnp.argmax(flat.sum(0))
    joint = jnp.zeros_like(flat[0]).at[best].set(1.0).reshape(shape)
    return Outcome(flat[:, best], joint, jnp.zeros((), payoff.dtype))


def friend(payoff: chex.Array) -> Outcome:
    """Each agent's best entry; played: every agent its own part of its favourite joint action."""
    agents, shape = payoff.shape[0], payoff.shape[1:]
    flat = payoff.reshape(agents, -1)
    joint = jnp.ones(shape, payoff.dtype)
    for i in range(agents):
        own = jnp.unravel_index(jnp.argmax(flat[i]), shape)[i]
        axes = [shape[i] if k == i else 1 for k in range(agents)]
        joint = joint * jax.nn.one_hot(own, shape[i], dtype=payoff.dtype).reshape(axes)
    return Outcome(flat.max(1), joint, jnp.zeros((), payoff.dtype))


def foe(payoff: chex.Array) -> Outcome:
    """Each agent's maximin value."""
    _two_agents(payoff, "foe")
    value, rows, _, gap = zero_sum(payoff[0])
    other, columns, _, other_gap = zero_sum(payoff[1].T)
    return Outcome(jnp.stack([value, other]), rows[:, None] * columns[None], jnp.maximum(gap, other_gap))


def minimax(payoff: chex.Array) -> Outcome:
    """Of a zero-sum game (``payoff[1] = -payoff[0]``, not looked at) its value and both players' strategies."""
    _two_agents(payoff, "minimax")
    value, rows, columns, gap = zero_sum(payoff[0])
    return Outcome(jnp.stack([value, -value]), rows[:, None] * columns[None], gap)


def _two_agents(payoff: chex.Array, name: str) -> None:
    if payoff.shape[0] != 2 or payoff.ndim != 3:
        raise ValueError(f"{name}: payoff of shape {payoff.shape}; two agents only, [2, A, B]")


@functools.cache
def _bases(actions: int, against: int) -> np.ndarray:
    """All ways to make ``actions`` of ``actions + against`` inequalities tight: ``i32[C, actions]``."""
    return np.array(list(itertools.combinations(range(actions + against), actions)), np.int32)


def _eliminate(systems: chex.Array, sides: chex.Array) -> chex.Array:
    """Gauss-Jordan elimination of small systems ``f64[C, m, m]`` side by side; singular ones get some finite answer.

    Several times faster than one LAPACK call after the other, which is what ``jnp.linalg.solve`` does on a CPU.
    """
    size = systems.shape[-1]
    table = jnp.concatenate([systems, sides[..., None]], axis=-1)
    level = jnp.arange(size)

    def column(k: chex.Array, table: chex.Array) -> chex.Array:
        entries = jnp.where(level >= k, jnp.abs(table[..., k]), -1.0)
        pivot = jnp.argmax(entries, axis=-1, keepdims=True)
        chosen = jnp.sum(jnp.where((level == pivot)[..., None], table, 0.0), axis=-2)
        other = table[..., k, :]
        lead = chosen[..., k]
        chosen = chosen / jnp.where(jnp.abs(lead) > 1e-12, lead, 1.0)[..., None]
        table = jnp.where((level == pivot)[..., None], other[..., None, :], table)
        table = table - table[..., k, None] * chosen[..., None, :]
        return jnp.where((level == k)[:, None], chosen[..., None, :], table)

    return jax.lax.fori_loop(0, size, column, table)[..., -1]


def _vertices(payoff: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Vertices of ``{u >= 0, u @ payoff <= 1}`` as strategies.

    Args:
      payoff: ``f64[A, B]`` to the other player, positive.

    Returns:
      ``f64[C, A]`` strategies and ``bool[C]`` which of the ``C`` bases are vertices other than 0.
    """
    actions, against = payoff.shape
    bases = _bases(actions, against)
    left = jnp.concatenate([jnp.eye(actions, dtype=payoff.dtype), payoff.T])
    right = jnp.concatenate([jnp.zeros(actions, payoff.dtype), jnp.ones(against, payoff.dtype)])
    systems, sides = left[bases], right[bases]
    solved = _eliminate(systems, sides)
    exact = jnp.abs(jnp.einsum("cij,cj->ci", systems, solved) - sides).max(-1) <= _TIE
    inside = (solved >= -_TIE).all(-1) & (solved @ payoff <= 1.0 + _TIE).all(-1) & exact
    weights = jnp.where(inside[:, None], jnp.maximum(solved, 0.0), 0.0)
    total = weights.sum(-1)
    good = inside & (total > _TIE)
    return weights / jnp.where(good, total, 1.0)[:, None], good


class Equilibria(NamedTuple):
    """All pairs of vertices of a two-agent game, and which of them are Nash equilibria.

    Attributes:
      rows: ``f64[C, A]`` strategies of the first agent.
      columns: ``f64[D, B]`` of the second.
      value: ``f64[2, C, D]`` payoffs of the pairs.
      gap: ``f64[C, D]`` exploitability relative to the spread of the payoffs.
      found: ``bool[C, D]`` which pairs are equilibria.
    """

    rows: chex.Array
    columns: chex.Array
    value: chex.Array
    gap: chex.Array
    found: chex.Array


def extreme_equilibria(payoff: chex.Array) -> Equilibria:
    """All extreme Nash equilibria of ``payoff f64[2, A, B]``, degenerate or not, some of them several times."""
    _two_agents(payoff, "nash")
    scaled = jnp.stack([1.0 + (own - _spread(own)[0]) / _spread(own)[1] for own in payoff])
    rows, good_rows = _vertices(scaled[1])
    columns, good_columns = _vertices(scaled[0].T)
    to_rows = scaled[0] @ columns.T  # [A, D]: what the first agent's actions earn
    to_columns = rows @ scaled[1]  # [C, B]
    earned = jnp.stack([rows @ to_rows, to_columns @ columns.T])
    regret = jnp.maximum(to_rows.max(0)[None] - earned[0], to_columns.max(1)[:, None] - earned[1])
    gap = jnp.where(good_rows[:, None] & good_columns[None], jnp.maximum(regret, 0.0), jnp.inf)
    value = jnp.stack([rows @ payoff[i] @ columns.T for i in range(2)])
    return Equilibria(rows, columns, value, gap, gap <= TOLERANCE / 10)


def nash_weighted(payoff: chex.Array, weight: chex.Array) -> Outcome:
    """The Nash equilibrium of the largest ``weight f64[2] @ value``, among ties as :func:`nash`."""
    every = extreme_equilibria(payoff)
    return _pick(every, [jnp.tensordot(weight, every.value, 1), every.value.sum(0), every.value[0]], payoff)


def _pick(every: Equilibria, keys: Sequence[chex.Array], payoff: chex.Array) -> Outcome:
    """The first equilibrium that is largest by the first key, among ties by the second, and so on."""
    scale, found = _spread(payoff)[1], every.found
    for key in keys:
        found &= key >= jnp.where(found, key, -jnp.inf).max() - _TIE * scale
    pick = jnp.unravel_index(jnp.argmax(found), found.shape)
    joint = every.rows[pick[0]][:, None] * every.columns[pick[1]][None]
    gap = jnp.where(found.any(), every.gap[pick], jnp.inf)
    return Outcome(every.value[:, pick[0], pick[1]], joint, gap)


def nash(payoff: chex.Array, choice: str = "sum") -> Outcome:
    """A Nash equilibrium.

    Args:
      payoff: ``f64[2, A, B]``.
      choice: ``sum``: the largest sum, then the first agent's payoff; ``first`` or ``second``: the largest payoff of
        that agent, then the sum; ``coordination``: both get their largest entry; ``adversarial``: neither is hurt if
        the other deviates. The last two need not exist: ``gap`` is then ``inf``.

    Raises:
      ValueError: unknown ``choice``.
    """
    if choice not in NASH_CHOICES:
        raise ValueError(f"choice = {choice!r}: allowed are {', '.join(NASH_CHOICES)}")
    every = extreme_equilibria(payoff)
    scale = _spread(payoff)[1]
    found, total = every.found, every.value.sum(0)
    if choice == "coordination":
        best = payoff.reshape(2, -1).max(1)
        found &= (every.value >= best[:, None, None] - _TIE * scale).all(0)
    if choice == "adversarial":
        least = jnp.stack(
            [
                jnp.broadcast_to((every.rows @ payoff[0]).min(1)[:, None], found.shape),
                jnp.broadcast_to((payoff[1] @ every.columns.T).min(0)[None], found.shape),
            ]
        )
        found &= (every.value <= least + _TIE * scale).all(0)
    order = {"first": [every.value[0], total], "second": [every.value[1], total]}
    return _pick(every._replace(found=found), order.get(choice, [total, every.value[0]]), payoff)


def correlated(payoff: chex.Array, kind: str = "utilitarian") -> Outcome:
    """A correlated equilibrium: a lottery over joint actions whose advice no agent gains by ignoring.

    Args:
      payoff: ``f64[2, A, B]``.
      kind: one of :data:`CORRELATED`.

    Raises:
      ValueError: unknown ``kind``.
    """
    _two_agents(payoff, "correlated")
    if kind not in CORRELATED:
        raise ValueError(f"kind = {kind!r}: allowed are {', '.join(CORRELATED)}")
    low, scale = _spread(payoff)
    scaled = 1.0 + (payoff - low) / scale  # one scale for both: the kinds compare agents
    _, actions, against = payoff.shape
    truth = _deviations(scaled)
    own = payoff.reshape(2, -1)

    def solve(scaled: chex.Array, kind: str, agent: int = 0) -> tuple[chex.Array, chex.Array]:
        """The lottery ``f64[A B]`` and its certificate."""
        flat = scaled.reshape(2, -1)
        # Sums to at most 1; payoffs are positive, so it will be 1, and the slack basis is feasible at once.
        rows = jnp.concatenate([_deviations(scaled), jnp.ones((1, actions * against), payoff.dtype)])
        bound = jnp.zeros(rows.shape[0], payoff.dtype).at[-1].set(1.0)
        ties = [flat.sum(0), flat[0]]
        if kind != "egalitarian":
            objective = flat.sum(0) if kind == "utilitarian" else flat[agent]
            solved = simplex(rows, bound, jnp.stack([objective, *ties]))
            return _lottery(solved.x, truth, solved.gap)
        # One more variable, the smallest payoff.
        wide = jnp.pad(rows, ((0, 2), (0, 1))).at[-2:].set(jnp.pad(-flat, ((0, 0), (0, 1)), constant_values=1.0))
        least = jnp.zeros(wide.shape[1], payoff.dtype).at[-1].set(1.0)
        solved = simplex(wide, jnp.pad(bound, (0, 2)), jnp.stack([least, *(jnp.pad(tie, (0, 1)) for tie in ties)]))
        return _lottery(solved.x[:-1], truth, solved.gap)

    if kind in ("utilitarian", "egalitarian"):
        lottery, gap = _better(lambda scaled: solve(scaled, kind), scaled)
        return Outcome(own @ lottery, lottery.reshape(actions, against), gap)
    each = [_better(functools.partial(solve, kind=kind, agent=i), scaled) for i in range(2)]
    value = jnp.stack([own[i] @ each[i][0] for i in range(2)])
    gap = jnp.maximum(each[0][1], each[1][1])
    if kind == "libertarian":
        tables = [lottery.reshape(actions, against) for lottery, _ in each]
        return Outcome(value, tables[0].sum(1)[:, None] * tables[1].sum(0)[None], gap)
    lottery = jnp.where(value[0] >= value[1] - _TIE * scale, each[0][0], each[1][0])
    return Outcome(own @ lottery, lottery.reshape(actions, against), gap)


def _deviations(payoff: chex.Array) -> chex.Array:
    """``f64[A (A-1) + B (B-1), A B]``: what agent ``i`` gains in expectation by playing ``k`` when told ``j``."""
    _, actions, against = payoff.shape
    rows = []
    for told, done in itertools.permutations(range(actions), 2):
        table = jnp.zeros((actions, against), payoff.dtype).at[told].set(payoff[0, done] - payoff[0, told])
        rows.append(table.reshape(-1))
    for told, done in itertools.permutations(range(against), 2):
        table = jnp.zeros((actions, against), payoff.dtype).at[:, told].set(payoff[1, :, done] - payoff[1, :, told])
        rows.append(table.reshape(-1))
    return jnp.stack(rows) if rows else jnp.zeros((0, actions * against), payoff.dtype)


def _lottery(x: chex.Array, deviations: chex.Array, gap: chex.Array) -> tuple[chex.Array, chex.Array]:
    """A lottery out of a programme's solution, and its certificate: regret, optimality, total."""
    weights = jnp.maximum(x, 0.0)
    total = weights.sum()
    lottery = weights / jnp.where(total > 0, total, 1.0)
    regret = (deviations @ lottery).max(initial=0.0)
    return lottery, jnp.maximum(jnp.maximum(gap, regret), jnp.abs(total - 1.0))


OPERATORS: dict[str, Operator] = {
    "team": team,
    "friend": friend,
    "foe": foe,
    "minimax": minimax,
    "nash": nash,
    **{f"nash-{choice}": functools.partial(nash, choice=choice) for choice in NASH_CHOICES[1:]},
    **{f"ce-{kind}": functools.partial(correlated, kind=kind) for kind in CORRELATED},
}
"""Value operators by name."""


def get(name: str) -> Operator:
    """The operator called ``name``, or ``ValueError`` with the names there are."""
    if name not in OPERATORS:
        raise ValueError(f"operator = {name!r}: allowed are {', '.join(OPERATORS)}")
    return OPERATORS[name]
