"""A warehouse of several levels in a chain, run by a team: the levels act in turn, the cost is everybody's.

Level ``i`` holds ``x_i`` in ``0..cap`` units and takes ``a_i`` from level ``i - 1`` (level 1 buys outside); goods are
in place at once and leave ``y``. The level's own customers take ``D_i ~ Poisson(lam_i)``, what they do not find is
lost:

    y_i = x_i + a_i - a_{i+1},   a_{i+1} <= x_i,   y_i <= cap,   x_i' = (y_i - D_i)^+                 units
    R   = -sum_i [K_i 1(a_i > 0) + h_i (y_i - D_i)^+ + p_i (D_i - y_i)^+]                             money

The last level takes first, level 1 last: every choice then meets exactly the stocks that bound it, and any feasible
joint order can be reached. Demand rates, shortage and order costs are the task's secret; holding costs are known.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.heuristics import warehouse as ledger
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import warehouse_sweep as sweep

RATE_RANGE = (0.1, 2.5)
"""Demand rate of a task's level [units/period], log-uniform: slow movers and fast ones."""
SHORTAGE_RANGE = (1.0, 30.0)
"""Cost of a lost sale [money/unit], log-uniform: from goods that any shop has to spare parts for what stands still."""
ORDER_COST_RANGE = (0.0, 12.0)
"""Cost of an order [money/order], uniform."""
HOLDING_RANGE = (0.5, 1.5)
"""Holding cost [money/unit/period], uniform."""
NOMINAL_RATE = (RATE_RANGE[1] - RATE_RANGE[0]) / math.log(RATE_RANGE[1] / RATE_RANGE[0])
"""Demand rate that is expected before any is seen [units/period]. Public."""
DEMANDS = 32
"""Tabulated demands: at rate 2.5 the mass beyond is below float32's resolution."""
REWARD_SCALE = 0.05
"""Of rewards in an observation [1 / money]."""
MOST_STOCKS = 4096
"""Joint stocks that the reference tabulates at most, by period and turn."""


@struct.dataclass
class WarehouseState(EnvState):
    """Attributes:
    stock: ``i32[N]`` units at every level, after the flows of this period so far.
    flow: ``i32[N]`` a, units moved into every level this period.
    sales: ``i32[N]`` units sold last period.
    """

    stock: chex.Array
    flow: chex.Array
    sales: chex.Array


@struct.dataclass
class WarehouseParams(EnvParams):
    """Attributes:
    holding: ``f32[N]`` h [money/unit/period].
    rates: ``f32[N]`` lam [units/period]. Hidden.
    shortage: ``f32[N]`` p [money/unit]. Hidden.
    order_cost: ``f32[N]`` K [money/order]. Hidden.
    """

    holding: chex.Array
    rates: chex.Array
    shortage: chex.Array
    order_cost: chex.Array


class Warehouse(ResourceEnv[WarehouseState, WarehouseParams]):
    """N levels, N turns a period: turn t moves units into level N - t.

    Action k moves k units into the level whose turn it is; more than its supplier holds or it has room for is illegal.

    ===== =========== ==================================================================================
    token column      quantity
    ===== =========== ==================================================================================
    level urgency     units short of the nominal demand of a period, max(.746 - y, 0); p is hidden
    level slack       y [cap]
    level level       y [cap]
    level capacity    cap
    level outflow     sales of the last period [cap]
    level unit_cost   h [10 money/unit/period]
    level is_turn     1 if its flow is being chosen
    level decided     a, what has been moved in in this period [cap]
    level private_a   its place in the chain, 0 at level 1 to 1 at level N
    level private_b   what its supplier holds [cap], 1 at level 1
    all   progress    share of the episode gone
    all   last_reward R of the last period [20 money]
    ===== =========== ==================================================================================

    Roles: level ``store``. Action k has ``amount`` and ``signed`` k / cap, its target is the level in turn; moving
    nothing is the no-op.

    Shown: stocks, sales, h. Hidden: lam, p, K. Sales tell the rates where stock lasts, rewards the costs.

    Key figures in ``info``: ``expected_reward`` with the demand averaged; ``ordering``, ``holding``, ``shortage``
    [money]; ``sales``, ``lost``, ``bought`` [units].

    Invariants: bought less sales is the change of the whole stock; ``0 <= x <= cap``; rewards are never positive;
    all costs doubled double the reward.

    Source: the model of X.-R. Cao's performance potentials, Stochastic Learning and Optimization, Springer 2007
    (recalled), as the document of :mod:`envs_jax.games.warehouse` has it, reading R5.

    Usage::

        env, params = envs_jax.make("warehouse")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_levels: N, 1 to 4.
      cap: largest stock of a level [units], 1 to 31; the reference tabulates ``(cap + 1) ** N`` joint stocks.
      num_periods: P.
    """

    name = "warehouse"
    hidden = ("rates", "shortage", "order_cost")
    ingredients = ()
    reward_unit = "money"
    reference_kind = "optimal"
    rule: ClassVar[ledger.WarehouseRule] = ledger.WarehouseRule(
        shortage=5.4, shortage_spread=8.7, order_cost=5.4, order_cost_spread=4.2, least_shortage=1.0
    )

    def __init__(self, num_levels: int = 3, cap: int = 6, num_periods: int = 24) -> None:
        num_levels, cap, num_periods = checks.whole_numbers(
            self.name, num_levels=(num_levels, 1, 4), cap=(cap, 1, 31), num_periods=(num_periods, 1, 10_000)
        )
        if (cap + 1) ** num_levels > MOST_STOCKS:
            got = f"{cap + 1} ** {num_levels} = {(cap + 1) ** num_levels}"
            raise checks.refusal(self.name, "(cap + 1) ** num_levels", f"at most {MOST_STOCKS}", got)
        self.num_levels = num_levels
        self.cap = cap
        self.num_turns = num_levels
        self.num_periods = num_periods
        self.num_tokens = num_levels
        self.num_actions = cap + 1
        self.num_uniforms = num_levels
        self.num_reset_uniforms = num_levels
        self._demand = ledger.demand_tables(np.geomspace(*RATE_RANGE, ledger.NUM_RATES), cap)

    # ---- tasks ----------------------------------------------------------------------------------------------------

    def instance(
        self, rates: chex.Array, holding: chex.Array, shortage: chex.Array, order_cost: chex.Array
    ) -> WarehouseParams:
        """A task with these rates [units/period] and costs [money], each ``f32[N]``, level 1 first.

        Raises:
          ValueError: for values that are no such quantities, or a demand that does not fit the table.
        """
        levels = functools.partial(checks.numbers, self.name, low=0.0, shape=(self.num_levels,), per="one a level")
        checks.poisson_table(self.name, "rates", levels("rates", rates), DEMANDS - 1, "DEMANDS - 1")
        for field, value in (("holding", holding), ("shortage", shortage), ("order_cost", order_cost)):
            levels(field, value)
        return WarehouseParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            holding=jnp.asarray(holding, jnp.float32),
            rates=jnp.asarray(rates, jnp.float32),
            shortage=jnp.asarray(shortage, jnp.float32),
            order_cost=jnp.asarray(order_cost, jnp.float32),
        )

    @property
    def default_params(self) -> WarehouseParams:
        """CHAIN(N): lam 1, h 1, p 9, K 3 at every level."""
        ones = jnp.ones((self.num_levels,), jnp.float32)
        return self.instance(ones, ones, 9.0 * ones, 3.0 * ones)

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> WarehouseParams:
        """One task, each level by itself.

        lam from .1 to 2.5 and p from 1 to 30 log-uniform, K ~ U(0, 12), h ~ U(.5, 1.5).
        """
        draws = self.task_uniforms(key, split, 4 * self.num_levels).reshape(4, self.num_levels)
        rates, shortage = (
            low * (high / low) ** u for (low, high), u in zip((RATE_RANGE, SHORTAGE_RANGE), draws[:2], strict=True)
        )
        order_cost, holding = (
            low + (high - low) * u for (low, high), u in zip((ORDER_COST_RANGE, HOLDING_RANGE), draws[2:], strict=True)
        )
        return self.instance(rates, holding, shortage, order_cost)

    # ---- dynamics -------------------------------------------------------------------------------------------------

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: WarehouseParams) -> WarehouseState:
        """Stocks uniform on ``0..cap``."""
        del params
        zeros = jnp.zeros((self.num_levels,), jnp.int32)
        return WarehouseState(
            **self.clock(key), stock=sampling.integers(uniforms, 0, self.cap), flow=zeros, sales=zeros
        )

    def _level(self, turn: chex.Array) -> chex.Array:
        return self.num_levels - 1 - turn

    def _joint(self, stock: chex.Array) -> chex.Array:
        """Number ``i32[]`` of joint stocks ``i32[N]``, level 1's the most significant digit."""
        stride = jnp.asarray([(self.cap + 1) ** i for i in reversed(range(self.num_levels))], jnp.int32)
        return jnp.sum(stock * stride, dtype=jnp.int32)

    def _most(self, state: WarehouseState, level: chex.Array) -> chex.Array:
        """Units that may be moved into a level."""
        room = self.cap - state.stock[level]
        return jnp.where(level > 0, jnp.minimum(room, state.stock[jnp.maximum(level - 1, 0)]), room)

    def choose(
        self, state: WarehouseState, turn: chex.Array, action: chex.Array, params: WarehouseParams
    ) -> WarehouseState:
        """Moves units into the level whose turn it is; more than possible moves what is possible."""
        del params
        level = self._level(turn)
        amount = jnp.clip(action, 0, self._most(state, level))
        index = jnp.arange(self.num_levels, dtype=jnp.int32)
        own, supplier = ((index == i).astype(jnp.int32) for i in (level, level - 1))
        return state.replace(stock=state.stock + amount * (own - supplier), flow=state.flow + amount * own)

    def advance(
        self, state: WarehouseState, uniforms: chex.Array, params: WarehouseParams
    ) -> tuple[WarehouseState, chex.Array, dict[str, chex.Array]]:
        """Customers come; the uniforms draw their demands."""
        demand = sampling.categorical(uniforms, sampling.poisson_cdf(params.rates, DEMANDS))
        sales = jnp.minimum(state.stock, demand)
        left, lost = state.stock - sales, demand - sales
        ordering = jnp.sum(params.order_cost * (state.flow > 0).astype(jnp.float32))
        holding = jnp.sum(params.holding * left.astype(jnp.float32))
        shortage = jnp.sum(params.shortage * lost.astype(jnp.float32))
        _, cost = self._tables(params)
        expected = jnp.take_along_axis(cost, state.stock[:, None], axis=-1)[:, 0]
        info = {
            "expected_reward": -ordering - jnp.sum(expected),
            "ordering": ordering,
            "holding": holding,
            "shortage": shortage,
            "sales": jnp.sum(sales).astype(jnp.float32),
            "lost": jnp.sum(lost).astype(jnp.float32),
            "bought": state.flow[0].astype(jnp.float32),
        }
        reward = -(ordering + holding + shortage)
        return state.replace(stock=left, flow=jnp.zeros_like(state.flow), sales=sales), reward, info

    def _tables(self, params: WarehouseParams) -> tuple[chex.Array, chex.Array]:
        """Laws of the next stock ``f32[N, cap + 1, cap + 1]`` and expected cost of holding and shortage by stock."""
        side = self.cap + 1
        cdf = sampling.poisson_cdf(params.rates, side)
        mass = jnp.diff(cdf, axis=-1, prepend=jnp.zeros_like(cdf[:, :1]))
        stock = jnp.arange(side, dtype=jnp.int32)
        sold = stock[:, None] - stock[None, :]
        possible = (sold >= 0) & (stock[None, :] > 0)
        reached = jnp.where(possible[None], mass[:, jnp.maximum(sold, 0)], 0.0)
        law = reached.at[..., 0].set(1.0 - reached.sum(-1))
        # E(y - D)^+ is the sum of the distribution function below y.
        left = jnp.pad(jnp.cumsum(cdf, axis=-1)[:, :-1], ((0, 0), (1, 0)))
        lost = jnp.maximum(params.rates[:, None] - stock.astype(jnp.float32)[None, :] + left, 0.0)
        return law, params.holding[:, None] * left + params.shortage[:, None] * lost

    # ---- observation ----------------------------------------------------------------------------------------------

    def observation(self, state: WarehouseState, params: WarehouseParams) -> Observation:
        """See the class docstring for the columns."""
        n, level = self.num_levels, self._level(self.turn(state))
        share = state.stock.astype(jnp.float32) / self.cap
        levels = {
            "urgency": jnp.maximum(NOMINAL_RATE - state.stock.astype(jnp.float32), 0.0),
            "slack": share,
            "level": share,
            "capacity": self.cap,
            "outflow": state.sales.astype(jnp.float32) / self.cap,
            "unit_cost": bounded(0.1 * params.holding),
            "is_turn": jnp.arange(n, dtype=jnp.int32) == level,
            "decided": state.flow.astype(jnp.float32) / self.cap,
            "private_a": jnp.arange(n, dtype=jnp.float32) / max(n - 1, 1),
            "private_b": jnp.concatenate([jnp.ones(1, jnp.float32), share[:-1]]),
            "progress": self.progress(state),
            "last_reward": bounded(REWARD_SCALE * state.last_reward),
        }
        amount = jnp.arange(self.num_actions, dtype=jnp.int32)
        moved = amount.astype(jnp.float32) / self.cap
        return make_observation(
            tokens=[("store", n, levels)],
            actions={"is_noop": amount == 0, "amount": moved, "signed": moved},
            action_target=jnp.broadcast_to(level, (self.num_actions,)).astype(jnp.int32),
            action_mask=amount <= self._most(state, level),
        )

    # ---- policies -------------------------------------------------------------------------------------------------

    def solve(self, params: WarehouseParams) -> chex.Array:
        """The optimal flow ``i8[P, N, (cap + 1) ** N]`` by period, level and the stocks it meets in its turn."""
        law, cost = self._tables(params)
        tables = sweep.Tables(law, cost, jnp.zeros_like(params.order_cost), params.order_cost, None)
        return sweep.finite_horizon(tables, self.num_periods, is_chain=True)[1]

    def reference_action(
        self, plan: chex.Array, state: WarehouseState, params: WarehouseParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The exact optimum of the episode given lam, p and K, also after other choices than its own."""
        del params, key
        period = jnp.minimum(self.period(state), self.num_periods - 1)
        return plan[period, self._level(self.turn(state)), self._joint(state.stock)].astype(jnp.int32)

    def heuristic_start(self) -> ledger.WarehouseMemory:
        """Nothing sold and nothing billed yet."""
        return ledger.start(self.rule, self.num_levels)

    def heuristic_step(
        self, memory: ledger.WarehouseMemory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, ledger.WarehouseMemory]:
        """See :meth:`heuristic_by`, with the constants of ``rule``."""
        return self.heuristic_by(self.rule, memory, observation, key)

    def heuristic_by(
        self, rule: ledger.WarehouseRule, memory: ledger.WarehouseMemory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, ledger.WarehouseMemory]:
        """Plans with demand and costs as the episode has shown them: see :mod:`envs_jax.heuristics.warehouse`."""
        del key
        column, n = observation.column, self.num_levels
        stock, sales = (jnp.round(self.cap * column(name)) for name in ("level", "outflow"))
        holding = 10.0 * column("unit_cost")
        time = jnp.round(column("progress")[0] * self.horizon).astype(jnp.int32)
        period, turn = time // n, time % n
        memory = jax.tree.map(lambda new, old: jnp.where(time > 0, old, new), ledger.start(rule, n), memory)
        cost = -column("last_reward")[0] / REWARD_SCALE
        seen = ledger.remember(self._demand, memory, holding, stock, sales, cost, period > 0)
        memory = jax.tree.map(lambda new, old: jnp.where(turn == 0, new, old), seen, memory)
        flows = ledger.flows(rule, self._demand, memory, holding, self.num_periods - period)
        wanted = flows[self._level(turn), self._joint(stock.astype(jnp.int32))].astype(jnp.int32)
        return jnp.minimum(wanted, jnp.sum(observation.action_mask, dtype=jnp.int32) - 1), memory
