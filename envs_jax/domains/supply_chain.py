"""Supply chain: a serial multi-echelon inventory system with backlogged customers (Clark and Scarf 1960).

Stage 0 serves customers, stage ``i`` is supplied by stage ``i + 1``, the last stage buys from ample supply. Each
period every stage decides, customers' end first, how much to pull from its supplier; then demand comes and is paid for.

Equations (units; money per unit and period; ``N`` stages, lead times ``L_i >= 1`` periods):

    q_i <= on_{i+1}(t), i < N - 1                  an order ships at once, from what the supplier had at the start
    q_i(t) arrives in period t + L_i - 1           L_i = 1: in this one, before demand is served
    D(t) ~ Poisson(demand_mean)                    the only noise: one uniform a period, by table
    served = min(B(t) + D(t), on_0 + arriving_0)   what is left unserved is the new backlog B
    reward = -(sum_i h_i on_i + sum_{i < N-1} h_{i+1} moving_i + b B)     at the end of the period [money]

Units moving to ``i`` cost their supplier's rate (those bought outside nothing until they arrive), which is the same as
echelon accounting and makes long-run simulation equal theory for every lead time. What arrives at a stage in a period
can be shipped on only in the next one.
"""

from __future__ import annotations

import functools
import math
import os

import chex
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, sampling
from envs_jax.data import readers
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import base_stock, tilted_law

DEMAND_RANGE = (0.75, 6.0)
"""Mean demand of a task [units/period], log-uniform."""
BACKLOG_COST_RANGE = (2.0, 40.0)
"""Backlog cost of a task [money/unit/period], log-uniform."""
ECHELON_COST_RANGE = (0.1, 0.5)
"""Echelon holding cost of each stage of a task [money/unit/period], uniform."""
NOMINAL_DEMAND = 2.25
"""What the trade expects before it has seen a task: near the median demand (2.12) [units/period]. Public."""

FLOW_SCALE = 10.0
"""Units that the observation shows as 1."""
COST_SCALE = 100.0
"""Cost of a period [money] that ``last_reward`` shows as -1."""
UNLIMITED = 2**20  # the outside supplier's stock [units]
MAX_GRID = 1024
"""Largest grid of the reference that a long demand table may ask for; the tasks' own demand may ask for more."""
# Standard deviations from the largest mean of a task to the end of the default table.
_TABLE_SPREAD = (31 - DEMAND_RANGE[1]) / math.sqrt(DEMAND_RANGE[1])


@struct.dataclass
class SupplyChainState(EnvState):
    """Attributes, with units.

    on_hand: ``i32[N]`` units on the shelf.
    backlog: ``i32[]`` customers' units owed.
    pipe: ``i32[N, max_lead_time]`` units moving to each stage; slot k arrives in the k-th period from now.
    orders: ``i32[N]`` units ordered so far in this period.
    last_demand: ``i32[]`` units asked for in the last period.
    shipped: ``i32[N]`` units that left each stage in the last period.
    """

    on_hand: chex.Array
    backlog: chex.Array
    pipe: chex.Array
    orders: chex.Array
    last_demand: chex.Array
    shipped: chex.Array


@struct.dataclass
class SupplyChainParams(EnvParams):
    """Attributes, with units.

    lead_time: ``i32[N]`` periods, in ``[1, max_lead_time]``. Shown.
    holding_cost: ``f32[N]`` local rate ``h_i``, the sum of echelon rates from ``i`` up [money/unit/period]. Shown.
    nominal_demand: ``f32[]`` the demand expected before any is seen [units/period]. Shown.
    start_low, start_high: ``i32[N]`` stock at the start is uniform between them [units]. Not shown, not informative.
    backlog_cost: ``f32[]`` money/unit/period. Hidden; felt in the reward of every period with a backlog.
    demand_mean: ``f32[]`` units/period. Hidden; felt in the demand of every period.
    demand_cdf: ``f32[max_demand + 1]`` the law of demand. Hidden, derived from ``demand_mean``.
    """

    lead_time: chex.Array
    holding_cost: chex.Array
    nominal_demand: chex.Array
    start_low: chex.Array
    start_high: chex.Array
    backlog_cost: chex.Array
    demand_mean: chex.Array
    demand_cdf: chex.Array


class SupplyChain(ResourceEnv[SupplyChainState, SupplyChainParams]):
    """N stages, each one order a period, customers' end first; N turns make a period.

    Action k orders ``q = last_demand + x``, ``x = k - max_adjustment``, of the stage whose turn it is: the "d + x" rule
    of beer-game studies. The no-op ``x = 0`` passes demand on, which holds every echelon's position. Orders are cut to
    ``[0, supplier's stock]``; an ``x`` that would be cut is illegal, but for the no-op.

    Tokens: N stages, the customers, the clock. The *position* of stage i is all stock at and below it, moving units and
    this period's orders included, less the backlog; its *lead* is ``L_0 + .. + L_i``; its *need* is
    ``f lead + 2 sqrt(f lead)`` with ``f`` the mean of nominal and last demand, all public. A unit that is missing costs
    b a period, which is hidden: urgencies are the units.

    ========= =========== =============================================================================
    token     column      quantity
    ========= =========== =============================================================================
    stage     urgency     units that the position lacks, max(need - position, 0)
    stage     slack       max(position - need, 0) / need, at most 1
    stage     level       on hand [10 units]
    stage     inflow      arrives in this period, ordered before it [10 units]
    stage     outflow     left in the last period [10 units]
    stage     waiting     backlog of the customers, whom every echelon serves [10 units]
    stage     unit_cost   h_i [2 money/unit/period]
    stage     is_turn     1 if its order is being chosen
    stage     decided     ordered so far in this period [10 units]
    stage     private_a   arrives later [10 units]
    stage     private_b   L_i [max_lead_time]
    stage     private_c   lead [N max_lead_time]
    stage     private_d   position / lead [10 units/period]
    stage     private_e   last demand [10 units]
    stage     private_f   max(need - position, 0) / need, at most 1
    customers urgency     backlog, units that wait
    customers slack       served in the last period / (backlog + served); 1 without a backlog
    customers inflow      nominal demand [10 units/period]
    customers outflow     served in the last period [10 units]
    customers waiting     backlog [10 units]
    customers private_e   last demand [10 units]
    all       progress    share of the episode gone
    all       last_reward reward of the last period [100 money]
    ========= =========== =============================================================================

    Roles: stage ``store``, customers ``demand``, clock ``clock``. Features without bounds are cut at 10. Every action
    concerns the stage in turn. The no-op orders, so no action is described as doing nothing.

    ====== ========= ===========================================================================
    action column    quantity
    ====== ========= ===========================================================================
    all    amount    q, the largest of the menu being 1 [last demand + max_adjustment]
    all    signed    the same: an order relieves its stage
    all    private_a x [max_adjustment]
    all    private_b private_f of the supplier, 0 outside
    all    private_c slack of the supplier, 1 outside
    all    private_d what the supplier has on hand [10 units], 10 outside
    ====== ========= ===========================================================================

    Hidden: mean demand (its samples are ``private_e``) and backlog cost (``last_reward`` less the holding costs, which
    follow from what is shown, per unit of ``waiting``).

    Invariants: bought = served + change of (on hand + moving); backlog and stage-0 stock are never both positive after
    serving; q_i is at most the supplier's stock at the period's start; cost is not negative; with no demand and no
    orders it is constant; the optimal levels rise with the backlog cost.

    Reference: echelon base stock for the finite horizon, optimal but for the ends of the menu; hence "heuristic".

    Sources: A. J. Clark, H. Scarf, Management Science 6(4), 1960 (model, optimality); F. Chen, Y.-S. Zheng, Management
    Science 40(11), 1994 (recursion); K. H. Shang, J.-S. Song, Management Science 49(5), 2003 (closed form); A.
    Oroojlooyjadid et al., "A Deep Q-Network for the Beer Game" ("d + x" menu). All recalled, not re-read; figures were
    checked against ones recorded from stockpyl 1.0.2. Task ranges are choices made here.

    Usage::

        env, params = envs_jax.make("supply_chain")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_stages: N.
      num_periods: P.
      max_lead_time: longest lead time [periods]; tasks draw from 1 up to it.
      max_adjustment: largest |x| [units].
      max_demand: end of the demand table [units]; the law is rescaled to it. It also sizes the reference's grid, for
        mean demands whose table is about as roomy as the default one is for the busiest task. By default 31, or the
        largest of ``demand``.
      demand: path of a CSV of units asked for by period (docs/own_data.md). How often each number occurs is the default
        task's law of demand. That of a sampled task is the same, tilted exponentially to another mean.
    """

    name = "supply_chain"
    hidden = ("backlog_cost", "demand_mean", "demand_cdf")
    ingredients = ("demand_mean",)
    reward_unit = "money"
    reference_kind = "heuristic"
    data_files = ("demand",)

    def __init__(
        self,
        num_stages: int = 4,
        num_periods: int = 32,
        max_lead_time: int = 3,
        max_adjustment: int = 6,
        max_demand: int | None = None,
        demand: str | os.PathLike[str] | None = None,
    ):
        observed = None if demand is None else readers.load(self.name, "demand", demand, readers.series.parse_counts)
        largest = 31 if observed is None else int(observed.max())
        least = checks.poisson_quantile(DEMAND_RANGE[1], 1.0 - checks.TAIL) if observed is None else largest
        num_stages, num_periods, max_lead_time, max_adjustment, max_demand = checks.whole_numbers(
            self.name,
            num_stages=(num_stages, 1, 8),
            num_periods=(num_periods, 1, 10_000),
            max_lead_time=(max_lead_time, 1, 8),
            max_adjustment=(max_adjustment, 1, 15),
            max_demand=(largest if max_demand is None else max_demand, least, 127),
        )
        self.num_turns = num_stages
        self.num_periods = num_periods
        self.num_tokens = num_stages + 2
        self.num_actions = 2 * max_adjustment + 1
        self.num_uniforms = 1
        self.num_reset_uniforms = num_stages
        self.noop_action = max_adjustment
        self.max_lead_time = max_lead_time
        self.max_adjustment = max_adjustment
        self.max_demand = max_demand
        # Room for the highest level a task can need: mean demand over all lead times and six standard deviations. The
        # largest mean is that of a task, or what a longer table is for; with a grid beyond MAX_GRID, what fits it.
        longest = num_stages * max_lead_time
        roomy = round((math.sqrt(_TABLE_SPREAD**2 / 4.0 + max_demand) - _TABLE_SPREAD / 2.0) ** 2, 6)
        fitting = (math.sqrt(9.0 + MAX_GRID) - 3.0) ** 2
        mean = max(DEMAND_RANGE[1] * longest, min(roomy * longest, fitting))
        self.grid_size = math.ceil(mean + 6.0 * math.sqrt(mean))
        self.nominal_demand, self.demand_range = NOMINAL_DEMAND, DEMAND_RANGE
        self._observed = None
        if observed is not None:
            self._observed = np.bincount(observed, minlength=max_demand + 1) / len(observed)
            self.nominal_demand = float(observed.mean())
            self.demand_range = _range(observed)
            mean = self.demand_range[1] * longest
            deviation = tilted_law.spread(self._observed, self.demand_range[1]) * math.sqrt(longest)
            self.grid_size = math.ceil(mean + 6.0 * deviation) + 3
            if self.grid_size > MAX_GRID:
                allowed = (
                    f"small enough for levels of at most {MAX_GRID} over {longest} periods (count in larger units)"
                )
                got = f"a mean of {self.nominal_demand:g}, which needs {self.grid_size}"
                raise checks.refusal(self.name, "demand", allowed, got)

    # ---- tasks ----------------------------------------------------------------------------------------------------

    def instance(
        self,
        demand_mean: chex.Numeric,
        echelon_cost: chex.Array,
        lead_time: chex.Array,
        backlog_cost: chex.Numeric,
        nominal_demand: chex.Numeric = 5.0,
        start: tuple[float, float] = (0.0, 2.0),
    ) -> SupplyChainParams:
        """A published instance; initial stocks within ``start``, in units of ``ceil(nominal_demand * lead_time)``.

        Raises:
          ValueError: for values that are no such quantities, a demand that does not fit the table of ``max_demand``, or
            optimal levels that do not fit the reference's grid.
        """
        self._check_instance(demand_mean, echelon_cost, lead_time, backlog_cost, nominal_demand, start)
        lead_time = jnp.asarray(lead_time, jnp.int32)
        echelon_cost = jnp.asarray(echelon_cost, jnp.float32)
        nominal_demand = jnp.asarray(nominal_demand, jnp.float32)
        normal_stock = jnp.ceil(nominal_demand * lead_time.astype(jnp.float32))
        return SupplyChainParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            lead_time=lead_time,
            holding_cost=jnp.cumsum(echelon_cost[::-1])[::-1],
            nominal_demand=nominal_demand,
            start_low=jnp.floor(start[0] * normal_stock).astype(jnp.int32),
            start_high=jnp.floor(start[1] * normal_stock).astype(jnp.int32),
            backlog_cost=jnp.asarray(backlog_cost, jnp.float32),
            demand_mean=jnp.asarray(demand_mean, jnp.float32),
            demand_cdf=self._law(demand_mean),
        )

    def _check_instance(
        self,
        demand_mean: object,
        echelon_cost: object,
        lead_time: object,
        backlog_cost: object,
        nominal_demand: object,
        start: object,
    ) -> None:
        """Refuses what is no instance, and what tables and grid of this environment would cut."""
        stages = functools.partial(checks.numbers, self.name, shape=(self.num_turns,), per="one a stage")
        mean = checks.number(self.name, "demand_mean", demand_mean, 0.0, 1e3)
        echelon = stages("echelon_cost", echelon_cost, 0.0)
        lead = stages("lead_time", lead_time, 1, self.max_lead_time, whole=True)
        backlog = checks.number(self.name, "backlog_cost", backlog_cost, 0.0)
        checks.number(self.name, "nominal_demand", nominal_demand, 0.0, 1e3, above=True)
        stock = checks.numbers(self.name, "start", start, 0.0, 1e3, shape=(2,), per="lowest and highest")
        if stock is not None and stock[0] > stock[1]:
            raise checks.refusal(self.name, "start", "increasing", checks.shown(start))
        if self._observed is not None:
            checks.number(self.name, "demand_mean", demand_mean, *self.demand_range)
            return
        checks.poisson_table(self.name, "demand_mean", mean, self.max_demand, "max_demand")
        if mean is None or echelon is None or lead is None or backlog is None:
            return
        # No level is above this quantile of the demand over a stage's own and all lower lead times (Shang and Song).
        upstream = backlog + echelon.sum() - np.cumsum(echelon)
        ratios = upstream / np.maximum(upstream + echelon, 1e-30)
        means = mean * np.cumsum(lead)
        needed = max(map(checks.poisson_quantile, means.tolist(), ratios.tolist()))
        if needed > self.grid_size - 3:
            allowed = f"small enough for order-up-to levels of at most {self.grid_size - 3} (max_demand sizes the grid)"
            got = f"{mean:g} x {lead.astype(int).tolist()} periods, which needs levels of up to {needed}"
            raise checks.refusal(self.name, "demand_mean x lead_time", allowed, got)

    def _law(self, demand_mean: chex.Numeric) -> chex.Array:
        if self._observed is None:
            cdf = sampling.poisson_cdf(demand_mean, self.max_demand + 1)
        else:
            cdf = jnp.cumsum(tilted_law.tilted(self._observed, demand_mean))
        return cdf / cdf[..., -1:]

    @property
    def default_params(self) -> SupplyChainParams:
        """Poisson(5) or the file's law, echelon holding cost 0.25 and lead time 1 at every stage, backlog cost 9."""
        n = self.num_turns
        stages = jnp.full((n,), 0.25, jnp.float32), jnp.ones((n,), jnp.int32)
        if self._observed is None:
            return self.instance(5.0, *stages, 9.0)
        task = self.instance(self.nominal_demand, *stages, 9.0, self.nominal_demand)
        return task.replace(demand_cdf=jnp.asarray(np.cumsum(self._observed), jnp.float32))

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> SupplyChainParams:
        """Draws demand, backlog cost (both hidden), holding costs and lead times."""
        n = self.num_turns
        u = self.task_uniforms(key, split, 2 + 2 * n)
        low, high = jnp.log(jnp.asarray((self.demand_range, BACKLOG_COST_RANGE), jnp.float32)).T
        mean, cost = jnp.exp(low + (high - low) * u[:2])
        low, high = ECHELON_COST_RANGE
        return self.instance(
            mean,
            low + (high - low) * u[2 : 2 + n],
            sampling.integers(u[2 + n :], 1, self.max_lead_time),
            cost,
            self.nominal_demand,
            (2.0, 3.0),
        )

    def average_task(self, params: SupplyChainParams, population: SupplyChainParams) -> SupplyChainParams:
        """Mean hidden parameters, with the law of demand rebuilt from the mean (not averaged)."""
        params = super().average_task(params, population)
        return params.replace(demand_cdf=self._law(params.demand_mean))

    # ---- dynamics -------------------------------------------------------------------------------------------------

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: SupplyChainParams) -> SupplyChainState:
        """Stocks within the task's bounds, nothing moving, nothing owed."""
        n = self.num_turns
        return SupplyChainState(
            **self.clock(key),
            on_hand=sampling.integers(uniforms, params.start_low, params.start_high),
            backlog=jnp.int32(0),
            pipe=jnp.zeros((n, self.max_lead_time), jnp.int32),
            orders=jnp.zeros((n,), jnp.int32),
            last_demand=jnp.round(params.nominal_demand).astype(jnp.int32),
            shipped=jnp.zeros((n,), jnp.int32),
        )

    def _limits(self, state: SupplyChainState) -> chex.Array:
        """Most that each stage may order, ``i32[N]``: its supplier's stock at the start of the period."""
        return jnp.append(state.on_hand[1:], UNLIMITED)

    def choose(
        self, state: SupplyChainState, turn: chex.Array, action: chex.Array, params: SupplyChainParams
    ) -> SupplyChainState:
        """Orders ``last_demand + x``, cut to what the supplier has."""
        del params
        order = state.last_demand + action - self.max_adjustment
        return state.replace(orders=state.orders.at[turn].set(jnp.clip(order, 0, self._limits(state)[turn])))

    def advance(
        self, state: SupplyChainState, uniforms: chex.Array, params: SupplyChainParams
    ) -> tuple[SupplyChainState, chex.Array, dict[str, chex.Array]]:
        """Ships, receives, serves and charges.

        Key figures of the period: ``demand``, ``served``, ``bought`` (outside) and, at its end, ``backlog``,
        ``on_hand``, ``moving`` [units]; ``holding_cost``, ``backlog_cost``, ``expected_reward`` (mean over demand)
        [money]; ``fill_rate`` [1], served over wanted, backlog included.
        """
        n, slots = self.num_turns, jnp.arange(self.max_lead_time, dtype=jnp.int32)
        demand = sampling.categorical(uniforms[0], params.demand_cdf)
        pipe = state.pipe + state.orders[:, None] * (slots[None, :] == params.lead_time[:, None] - 1).astype(jnp.int32)
        sent = jnp.append(0, state.orders[:-1])
        stock = state.on_hand - sent + pipe[:, 0]
        pipe = jnp.concatenate([pipe[:, 1:], jnp.zeros((n, 1), jnp.int32)], axis=1)
        wanted = state.backlog + demand
        served = jnp.minimum(wanted, stock[0])
        backlog = wanted - served
        moving = pipe.sum(axis=1, dtype=jnp.int32)
        on_hand = stock.at[0].add(-served)
        # What a stage pays for: its own shelf and what is on the way from it.
        held = on_hand + jnp.append(0, moving[:-1])
        holding = jnp.dot(params.holding_cost, held.astype(jnp.float32))
        owed = params.backlog_cost * backlog.astype(jnp.float32)
        # E (x - D)^+ is the sum of the distribution function below x; E D is the sum of its complement.
        x = stock[0] - state.backlog
        below = jnp.arange(params.demand_cdf.shape[-1], dtype=jnp.int32) < x
        left = jnp.sum(jnp.where(below, params.demand_cdf, 0.0)) + jnp.maximum(
            x - params.demand_cdf.shape[-1], 0
        ).astype(jnp.float32)
        short = left - x.astype(jnp.float32) + jnp.sum(1.0 - params.demand_cdf)
        expected = (
            holding + params.holding_cost[0] * (left - on_hand[0].astype(jnp.float32)) + params.backlog_cost * short
        )
        following = state.replace(
            on_hand=on_hand,
            backlog=backlog,
            pipe=pipe,
            orders=jnp.zeros_like(state.orders),
            last_demand=demand,
            shipped=sent.at[0].set(served),
        )
        figures = {
            "demand": demand,
            "served": served,
            "bought": state.orders[-1],
            "backlog": backlog,
            "on_hand": on_hand.sum(dtype=jnp.int32),
            "moving": moving.sum(dtype=jnp.int32),
            "holding_cost": holding,
            "backlog_cost": owed,
            "fill_rate": served / jnp.maximum(wanted, 1),
            "expected_reward": -expected,
        }
        return following, -(holding + owed), {name: jnp.float32(value) for name, value in figures.items()}

    # ---- observation ----------------------------------------------------------------------------------------------

    def _position(self, state: SupplyChainState) -> chex.Array:
        """Echelon inventory positions ``i32[N]`` [units]; what lower stages order only moves within the echelon."""
        return (
            jnp.cumsum(state.on_hand + state.pipe.sum(axis=1, dtype=jnp.int32), dtype=jnp.int32)
            + state.orders
            - state.backlog
        )

    def observation(self, state: SupplyChainState, params: SupplyChainParams) -> Observation:
        """See the class's table."""
        n, turn = self.num_turns, self.turn(state)
        lead = jnp.cumsum(params.lead_time, dtype=jnp.int32).astype(jnp.float32)
        position = self._position(state)
        need = _need(0.5 * (state.last_demand.astype(jnp.float32) + params.nominal_demand), lead)
        lacking = need - position.astype(jnp.float32)
        missing, slack = jnp.clip(lacking / need, 0.0, 1.0), jnp.clip(-lacking / need, 0.0, 1.0)
        stock = bounded(state.on_hand.astype(jnp.float32) / FLOW_SCALE)
        served = bounded(state.shipped[0].astype(jnp.float32) / FLOW_SCALE)
        common = {"progress": self.progress(state), "last_reward": bounded(state.last_reward / COST_SCALE)}
        # Backlog and last demand concern every stage, so every row has them.
        public = {
            "waiting": bounded(state.backlog.astype(jnp.float32) / FLOW_SCALE),
            "private_e": bounded(state.last_demand.astype(jnp.float32) / FLOW_SCALE),
        }
        unserved = state.backlog / jnp.maximum(state.backlog + state.shipped[0], 1)
        stages = dict(
            urgency=jnp.maximum(lacking, 0.0),
            slack=slack,
            level=stock,
            inflow=bounded(state.pipe[:, 0].astype(jnp.float32) / FLOW_SCALE),
            outflow=bounded(state.shipped.astype(jnp.float32) / FLOW_SCALE),
            unit_cost=bounded(params.holding_cost / 2),
            is_turn=jnp.arange(n, dtype=jnp.int32) == turn,
            decided=bounded(state.orders.astype(jnp.float32) / FLOW_SCALE),
            private_a=bounded(state.pipe[:, 1:].sum(axis=1, dtype=jnp.int32).astype(jnp.float32) / FLOW_SCALE),
            private_b=params.lead_time / self.max_lead_time,
            private_c=lead / (n * self.max_lead_time),
            private_d=bounded(position.astype(jnp.float32) / lead / FLOW_SCALE),
            private_f=missing,
            **public,
            **common,
        )
        customers = dict(
            urgency=state.backlog,
            slack=1.0 - unserved,
            inflow=bounded(params.nominal_demand / FLOW_SCALE),
            outflow=served,
            **public,
            **common,
        )

        adjustment = jnp.arange(self.num_actions, dtype=jnp.int32) - self.max_adjustment
        order = state.last_demand + adjustment
        limit = self._limits(state)[turn]
        share = jnp.clip(order, 0, limit).astype(jnp.float32) / order[-1].astype(jnp.float32)
        outside = turn == n - 1
        supplier = jnp.minimum(turn + 1, n - 1)
        return make_observation(
            tokens=[("store", n, stages), ("demand", 1, customers), ("clock", 1, common)],
            actions={
                "amount": share,
                "signed": share,
                "private_a": adjustment / self.max_adjustment,
                "private_b": jnp.where(outside, 0.0, missing[supplier]),
                "private_c": jnp.where(outside, 1.0, slack[supplier]),
                "private_d": bounded(limit.astype(jnp.float32) / FLOW_SCALE),
            },
            action_target=jnp.broadcast_to(turn, (self.num_actions,)).astype(jnp.int32),
            action_mask=((order >= 0) & (order <= limit)) | (adjustment == 0),
        )

    # ---- reference policies ---------------------------------------------------------------------------------------

    def solve(self, params: SupplyChainParams) -> chex.Array:
        """Optimal order-up-to levels ``i32[P, N]`` [units] of the episode's periods."""
        echelon_cost = params.holding_cost - jnp.append(params.holding_cost[1:], 0.0)
        instance = (params.demand_cdf, echelon_cost, params.backlog_cost, params.lead_time)
        plan = base_stock.finite_horizon(*instance, self.max_lead_time, self.grid_size, self.num_periods)
        return plan.levels

    def reference_action(
        self, plan: chex.Array, state: SupplyChainState, params: SupplyChainParams, key: chex.PRNGKey
    ) -> chex.Array:
        """Up to the period's level, as far as the supplier's stock and the menu allow."""
        del params, key
        turn = self.turn(state)
        limit = self._limits(state)[turn]
        order = plan[jnp.minimum(self.period(state), self.num_periods - 1), turn] - self._position(state)[turn]
        action = self._action(jnp.clip(order, 0, limit) - state.last_demand)
        # Where even the lowest entry of the menu is more than there is, the no-op takes what there is.
        return jnp.where(action - self.noop_action + state.last_demand > limit, self.noop_action, action)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Echelon base stock for a demand forecast of 0.4 nominal + 0.6 last demand, two standard deviations safe."""
        del key
        column, stage = observation.column, observation.action_target[0]
        lead = column("private_c")[stage] * (self.num_turns * self.max_lead_time)
        nominal, last = FLOW_SCALE * column("inflow")[-2], FLOW_SCALE * column("private_e")[stage]
        level = _need(0.4 * nominal + 0.6 * last, lead)
        order = jnp.maximum(level - FLOW_SCALE * column("private_d")[stage] * lead, 0.0)
        wanted = self._action(jnp.round(order - last))
        # The nearest legal action; the no-op always is one, and takes all there is if that is little.
        distance = jnp.abs(jnp.arange(self.num_actions, dtype=jnp.int32) - wanted)
        return jnp.argmin(jnp.where(observation.action_mask, distance, self.num_actions)).astype(jnp.int32)

    def _action(self, adjustment: chex.Array) -> chex.Array:
        """Index of the menu's entry nearest to ``adjustment`` [units]."""
        return jnp.clip(adjustment + self.max_adjustment, 0, self.num_actions - 1).astype(jnp.int32)


def _need(rate: chex.Array, lead: chex.Array) -> chex.Array:
    """Stock that covers ``lead`` periods of demand at ``rate`` with two standard deviations of safety [units]."""
    mean = rate * lead
    return mean + 2.0 * jnp.sqrt(mean)


def _range(observed: np.ndarray) -> tuple[float, float]:
    """Mean demands of tasks: half to twice the observed one, a tenth of the way off the ends of what occurs."""
    mean = float(observed.mean())
    low, high = (end + 0.1 * (mean - end) for end in (float(observed.min()), float(observed.max())))
    return max(0.5 * mean, low), min(2.0 * mean, high)
