"""Energy trading: hour-ahead bid pairs for storage devices at one node of a real-time electricity market.

Every hour the operator places, device by device, a pair of bids (buy at or below ``lo``, sell at or above ``hi``)
before the next hour's price is known. Then the price clears and each device trades by its own pair, as far as its
charge goes.

Source: D. R. Jiang and W. B. Powell, "Optimal hour-ahead bidding in the real-time electricity market with battery
storage using approximate dynamic programming", INFORMS J. Computing 27(3), 2015 (abstract read, the rest recalled, not
re-read). The side on which losses fall and the zero salvage value are those of Powell's teaching model EnergyStorage_I,
whose PJM price record is a named instance here; docs/domains/energy_trading.md compares its prices with the tasks'.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, sampling
from envs_jax.arrays import vary_like
from envs_jax.data import readers
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.heuristics import energy_trading as planner
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import backward_dp

LEVELS = (0.45, 0.67, 0.88, 1.09, 1.30)
"""Bid levels relative to the reference price, rounded to whole dollars: 15, 22, 29, 36, 43 $/MWh at 33 $/MWh."""
PAIRS = ((0, 6), *((lo, hi) for lo in range(6) for hi in range(lo + 1, 7) if (lo, hi) != (0, 6)))
"""The 21 bid pairs ``lo < hi`` as level numbers: 0 is "never buy", 6 "never sell", so pair 0 is to hold."""

TWO_PEAK = (-8, -10, -11, -12, -11, -8, -4, 0, 1, 3, 4, 4, 3, 3, 2, 2, 3, 6, 9, 8, 7, 3, -2, -5)
"""Diurnal deviation of the canonical market, $/MWh by hour of the day: a morning and an evening peak."""
SOLAR = (5, 3, 2, 2, 3, 6, 8, 5, -1, -6, -10, -13, -14, -14, -12, -8, -1, 8, 14, 14, 11, 8, 7, 3)
"""The same for a node with much solar power behind it: a belly at noon and a steep evening (design choice)."""
MARKET_HOURS = 8
"""Hours of published prices in an observation, the present one included."""
PRICE_SCALE = 50.0
"""$/MWh that one unit of a price feature stands for."""
MAX_POWER = 4
"""Largest power, units per hour: the scale of power and flow features."""
_SPAN = 4.0  # the residual's grid covers this many stationary standard deviations either side

_LOW = np.array([-np.inf, *LEVELS], np.float32)[[lo for lo, _ in PAIRS]]
_HIGH = np.array([*LEVELS, np.inf], np.float32)[[hi - 1 for _, hi in PAIRS]]
_EAGER_BUY = np.array([lo / 5 for lo, _ in PAIRS], np.float32)
_EAGER_SELL = np.array([(6 - hi) / 5 for _, hi in PAIRS], np.float32)
_SIN, _COS = (wave(2 * np.pi * np.arange(24) / 24).astype(np.float32) for wave in (np.sin, np.cos))


@struct.dataclass
class EnergyTradingState(EnvState):
    """State of the devices and of the market.

    Attributes:
      charge: ``i32[D]`` state of charge ``R``, units of ``u`` MWh.
      bids: ``i32[D]`` bid pair placed for the coming hour, 0 (hold) until placed.
      moved: ``i32[D]`` energy that entered (+) or left (-) storage in the last hour, units.
      settled: ``f32[D]`` what each device earned in the last hour, wear deducted, $.
      residual: ``i32[]`` grid index of the price residual ``X``; the middle is 0 $/MWh.
      spike: ``f32[]`` 1 if the last price carried a spike.
      price: ``f32[]`` last cleared price, $/MWh (the reference price before the first hour).
      previous_price: ``f32[]`` the one before.
      mean_price: ``f32[]`` mean of the prices shown so far, the opening reference price among them, $/MWh.
    """

    charge: chex.Array
    bids: chex.Array
    moved: chex.Array
    settled: chex.Array
    residual: chex.Array
    spike: chex.Array
    price: chex.Array
    previous_price: chex.Array
    mean_price: chex.Array


@struct.dataclass
class EnergyTradingParams(EnvParams):
    """A task: devices and a market. Hidden fields are marked.

    Attributes:
      capacity: ``i32[D]`` storage capacity ``n``, units.
      power: ``i32[D]`` most units moved in an hour, ``k``.
      initial_charge: ``i32[D]`` charge at the start of an episode, units.
      reference_price: ``f32[]`` public reference price that the bid levels are multiples of, $/MWh.
      day_ahead: ``f32[C]`` published day-ahead price by hour of the cycle, $/MWh.
      profile: ``f32[C]`` hidden: mean price at the node by hour of the cycle, ``f``, $/MWh.
      persistence: ``f32[]`` hidden: ``phi`` of the hourly price residual, in (-1, 1).
      innovation_sd: ``f32[]`` hidden: standard deviation of its innovations, $/MWh.
      spike_probability: ``f32[]`` hidden: chance of a price spike in an hour.
      spike_size: ``f32[]`` hidden: its height, $/MWh.
      efficiency: ``f32[D]`` hidden: one-way efficiency ``eta``, in (0, 1].
      wear_cost: ``f32[D]`` hidden: wear per unit moved, ``c``, $ per unit.
    """

    capacity: chex.Array
    power: chex.Array
    initial_charge: chex.Array
    reference_price: chex.Array
    day_ahead: chex.Array
    profile: chex.Array
    persistence: chex.Array
    innovation_sd: chex.Array
    spike_probability: chex.Array
    spike_size: chex.Array
    efficiency: chex.Array
    wear_cost: chex.Array


class EnergyTrading(ResourceEnv[EnergyTradingState, EnergyTradingParams]):
    """Storage devices that bid an hour ahead.

    In period ``t``, turns ``d = 0..D-1`` place the pairs ``(lo_d, hi_d)`` for the hour that follows, multiples of the
    public reference price rounded to whole dollars. Then, with ``h = (t + 1) mod C``,

        X'  = grid point nearest to phi X + eps,  eps ~ N(0, sd^2)   residual, $/MWh; Z points within 4 stationary sd
        J'  ~ Bernoulli(p)                                          price spike
        P   = f_h + X' + b J'                                       price, $/MWh; may be negative
        if P <= lo_d: buys  m = min(k_d, n_d - R_d) units           pays  P m / eta_d + c_d m  $
        if P >= hi_d: sells m = min(k_d, R_d) units                 earns P m eta_d - c_d m  $
        R_d' = R_d + bought - sold,  0 <= R_d <= n_d                charge, units of u MWh
        reward = sum_d (sales - purchases - wear)                   $ per u; charge left at the end is worth nothing

    The residual lives on a grid, so the reference (backward DP over hour, residual and charge) is exact; and devices
    take prices as given and share no limit, so it is one small DP a device.

    Hidden: the node's mean prices ``f``, ``phi``, ``sd``, ``p``, ``b``, each device's efficiency ``eta``, wear ``c``.
    Shown: devices' sizes, the reference price, and the day-ahead prices of the *hub*, which are wrong for the node in
    level, height and phase. Prices, trades and each device's settlement, hour by hour, identify what is hidden.

    Storing is for selling: energy that waits in a store loses by waiting while the price is above the mean ``M`` of the
    prices shown so far, and wholly once too few hours are left. What the coming hour can sell is ``s = min(k, R)``; of
    it ``q = min(s, max(R - k (hours left - 1), 0))`` cannot be sold later.

    ====== =========== ============================================================================================
    token  column      quantity
    ====== =========== ============================================================================================
    store  urgency     max(P - M, 0) (s - q) + max(P, 0) q, P the last price: the loss if prices go back to M
    store  slack       how far P is below M, in reference prices, at most 1; 0 once q > 0
    store  level       R / n
    store  capacity    n
    store  outflow     units sold in the last hour [4]
    store  waiting     R [max_capacity]
    store  unit_cost   reference price [50 $/MWh]
    store  unit_value  own settlement of the last hour [50 k $]
    store  is_turn     1 if its bids are being placed
    store  decided     eagerness to sell minus to buy of its pair
    store  cycle_sin   time of day of hour ``t``
    store  cycle_cos   time of day of hour ``t``
    store  private_a   n [max_capacity]
    store  private_b   k [4]
    store  private_c   units bought in the last hour [4]
    store  private_d   last change of the price [50 $/MWh]
    store  private_e   day-ahead price of hour ``t + 1`` minus reference price [50 $/MWh]
    store  private_f   P minus reference price [50 $/MWh]
    hour   unit_cost   reference price [50 $/MWh]
    hour   unit_value  P [50 $/MWh] (``j = 0``)
    hour   cycle_sin   time of day of hour ``t + j``
    hour   cycle_cos   time of day of hour ``t + j``
    hour   private_a   j [8]
    hour   private_b   1 if the last price had a spike (``j = 0``)
    hour   private_d   last change of the price [50 $/MWh] (``j = 0``)
    hour   private_e   day-ahead price of hour ``t + j`` minus reference price [50 $/MWh]
    all    progress    share of the episode gone
    all    last_reward reward of the last hour [reference price x sum of k]
    ====== =========== ============================================================================================

    Roles: store ``store``, one a device; published hour ``t + j``, ``j = 0..7``, ``market``. Features without bounds
    are cut at 10.

    Actions: the 21 pairs ``lo < hi`` of {never, l1..l5} and {l1..l5, never}; 0 is (never, never), to hold. The target
    is the store in turn, which selling relieves and buying loads.

    ====== =========== ============================================================================================
    action column      quantity
    ====== =========== ============================================================================================
    all    is_noop     1 for (never, never)
    all    amount      eagerness (rank of the level / 5) to sell plus to buy
    all    signed      eagerness to sell minus to buy
    all    private_a   lo [reference price], 0 for never
    all    private_b   hi [reference price], 0 for never
    ====== =========== ============================================================================================

    Key figures: ``price`` $/MWh, ``spike`` 0/1, ``units_bought``, ``units_sold``, ``purchases``, ``sales``, ``wear`` $.
    Invariants: ``0 <= R <= n``; bought minus sold is the change of charge; reward is sales minus purchases minus wear;
    no device both buys and sells in an hour; permuting devices permutes their tokens and changes no total.

    >>> env, params = envs_jax.make("energy_trading")
    >>> task = env.sample_params(jax.random.key(0))
    >>> seen, state = env.reset_env(jax.random.key(1), task)
    >>> plan = jax.jit(env.solve)(task)
    >>> action = env.reference_action(plan, state, task, jax.random.key(2))
    >>> seen, state, reward, terminated, info = env.step_env(state.key, state, action, task)
    """

    name = "energy_trading"
    hidden = ("profile", "persistence", "innovation_sd", "spike_probability", "spike_size", "efficiency", "wear_cost")
    reward_unit = "$ per unit of u MWh"
    reference_kind = "optimal"
    num_actions = len(PAIRS)
    num_uniforms = 2
    noop_action = 0
    discount_factor = 0.99
    data_files = ("prices",)
    rule: ClassVar[planner.EnergyTradingRule] = planner.EnergyTradingRule()

    def __init__(
        self,
        num_periods: int = 48,
        num_devices: int = 3,
        max_capacity: int = 16,
        num_prices: int = 31,
        cycle_hours: int | None = None,
        prices: str | os.PathLike[str] | None = None,
    ) -> None:
        """Static shapes, and a file.

        Args:
          num_periods: hours P.
          num_devices: D.
          max_capacity: largest capacity [units].
          num_prices: grid points Z, odd.
          cycle_hours: hours C of the price cycle. By default 24, or all of ``prices``; fewer are its first.
          prices: path of a CSV of hourly prices [$/MWh] (docs/own_data.md): period t of the default task clears at the
            t-th. Sampled tasks replay them from one of their days on, at another level and height, with noise.
        """
        self._record = None
        if prices is not None:
            self._record = readers.load(self.name, "prices", prices, readers.series.parse_prices)
            most = len(self._record)
            cycle_hours = checks.whole_number(
                self.name, "cycle_hours", most if cycle_hours is None else cycle_hours, 2, most
            )
            self._record = self._record[:cycle_hours]
        cycle_hours = 24 if cycle_hours is None else cycle_hours
        self.num_periods, self.num_devices, self.max_capacity, self.num_prices, self.cycle_hours = checks.whole_numbers(
            self.name,
            num_periods=(num_periods, 1, 99_999),
            num_devices=(num_devices, 1, 24),
            max_capacity=(max_capacity, 1, 999),
            num_prices=(num_prices, 3, 999),
            cycle_hours=(cycle_hours, 1, 99_999),
        )
        if self.num_prices % 2 == 0:
            raise checks.refusal(self.name, "num_prices", "odd, for a price in the middle", str(self.num_prices))
        # The reference's plan holds a byte for each of these.
        entries = ("num_periods", "num_devices", "max_capacity", "num_prices")
        checks.product(self.name, {name: getattr(self, name) for name in entries}, 2**30)
        self.num_turns = self.num_devices
        self.num_tokens = self.num_devices + MARKET_HOURS

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> EnergyTradingParams:
        """Equal lossy devices without wear in the file's market, or in the canonical one, day-ahead prices perfect."""
        canonical = self._canonical()
        return canonical if self._record is None else self._replay(canonical, self._record)

    def _canonical(self) -> EnergyTradingParams:
        d = self.num_devices
        profile = 33.0 + jnp.asarray(TWO_PEAK, jnp.float32)[jnp.arange(self.cycle_hours, dtype=jnp.int32) % 24]
        full = min(10, self.max_capacity)
        return EnergyTradingParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            capacity=jnp.full((d,), full, jnp.int32),
            power=jnp.full((d,), min(3, full), jnp.int32),
            initial_charge=jnp.zeros((d,), jnp.int32),
            reference_price=jnp.float32(33.0),
            day_ahead=profile,
            profile=profile,
            persistence=jnp.float32(0.64),
            innovation_sd=jnp.float32(13.0),
            spike_probability=jnp.float32(0.02),
            spike_size=jnp.float32(80.0),
            efficiency=jnp.full((d,), 0.9, jnp.float32),
            wear_cost=jnp.zeros((d,), jnp.float32),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> EnergyTradingParams:
        """Draws devices and a node. Public: devices, the hub's prices. Hidden: the node's own prices, losses, wear."""
        d, hours = self.num_devices, jnp.arange(self.cycle_hours, dtype=jnp.int32)
        u = self.task_uniforms(key, split, 9 + 4 * d + self.cycle_hours)
        one, per_device, by_hour = iter(u[:9]), iter(u[9 : 9 + 4 * d].reshape(4, d)), u[9 + 4 * d :]

        def between(uniform: chex.Array, low: float, high: float) -> chex.Array:
            return low + (high - low) * uniform

        capacity = jnp.minimum(jnp.array([6, 10, 16], jnp.int32), self.max_capacity)[
            sampling.integers(next(per_device), 0, 2)
        ]
        power = jnp.minimum(sampling.integers(next(per_device), 1, MAX_POWER), capacity)
        reference_price = between(next(one), 25.0, 45.0)
        two_peak, solar = jnp.asarray(TWO_PEAK, jnp.float32), jnp.asarray(SOLAR, jnp.float32)
        day_ahead = reference_price + two_peak[hours % 24] + 5.0 * sampling.normal(by_hour)
        share = next(one)
        shape = ((1.0 - share) * two_peak + share * solar)[(hours + sampling.integers(next(one), -8, 8)) % 24]
        drawn = EnergyTradingParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            capacity=capacity,
            power=power,
            initial_charge=jnp.zeros_like(capacity),
            reference_price=reference_price,
            day_ahead=day_ahead,
            profile=reference_price * between(next(one), 0.5, 1.5) + between(next(one), 1.0, 3.0) * shape,
            persistence=between(next(one), 0.4, 0.9),
            innovation_sd=between(next(one), 2.0, 8.0),
            spike_probability=between(next(one), 0.0, 0.04),
            spike_size=between(next(one), 40.0, 120.0),
            efficiency=between(next(per_device), 0.70, 0.97),
            wear_cost=between(next(per_device), 0.0, 12.0),
        )
        return drawn if self._record is None else self._node(drawn, u[:9])

    def _node(self, drawn: EnergyTradingParams, uniforms: chex.Array) -> EnergyTradingParams:
        """A sampled task in the record's market: another day to begin with, level x U(.5, 1.5), height x U(.5, 1.5)."""
        own = self.default_params
        start = 24 * sampling.integers(uniforms[2], 0, max(self.cycle_hours // 24, 1) - 1)
        mean, days = own.reference_price, jnp.roll(own.profile, -start)
        profile = mean * (0.5 + uniforms[3]) + (0.5 + uniforms[4]) * (days - mean)
        return drawn.replace(reference_price=mean, day_ahead=own.day_ahead, profile=profile)

    def replay_params(self, prices: Sequence[float]) -> EnergyTradingParams:
        """A record such as :func:`envs_jax.data.pjm_prices` as a task: period ``t`` clears at ``prices[t]``.

        The default's devices; the record's mean as reference and day-ahead price. ``len(prices)`` is ``cycle_hours``.

        Raises:
          ValueError: for prices that are not so many finite numbers [$/MWh].
        """
        checks.numbers(self.name, "prices", prices, shape=(self.cycle_hours,), per="one an hour of cycle_hours")
        return self._replay(self._canonical(), prices)

    def _replay(self, params: EnergyTradingParams, prices: Sequence[float] | np.ndarray) -> EnergyTradingParams:
        record = np.asarray(prices, np.float32)
        mean = jnp.float32(record.mean())
        zero, profile = jnp.float32(0.0), jnp.asarray(np.roll(record, 1))  # period t clears hour t + 1 of the cycle
        certain = params.replace(profile=profile, innovation_sd=zero, spike_probability=zero)
        return certain.replace(reference_price=mean, day_ahead=jnp.full_like(profile, mean))

    # ---- the world ------------------------------------------------------------------------------------------------

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: EnergyTradingParams) -> EnergyTradingState:
        """Devices as the task says; the market opens at its public reference price, which tells nothing of the node."""
        del uniforms
        none = jnp.zeros_like(params.initial_charge)
        return EnergyTradingState(
            **self.clock(key),
            charge=params.initial_charge,
            bids=none,
            moved=none,
            settled=none.astype(jnp.float32),
            residual=jnp.int32(self.num_prices // 2),
            spike=jnp.float32(0.0),
            price=params.reference_price,
            previous_price=params.reference_price,
            mean_price=params.reference_price,
        )

    def choose(
        self, state: EnergyTradingState, turn: chex.Array, action: chex.Array, params: EnergyTradingParams
    ) -> EnergyTradingState:
        """Places the pair of the device whose turn it is."""
        del params
        return state.replace(bids=jnp.where(jnp.arange(self.num_devices, dtype=jnp.int32) == turn, action, state.bids))

    def advance(
        self, state: EnergyTradingState, uniforms: chex.Array, params: EnergyTradingParams
    ) -> tuple[EnergyTradingState, chex.Array, dict[str, chex.Array]]:
        """Clears one hour from the uniforms of the residual and of the spike."""
        middle, step = self.num_prices // 2, 2.0 * _SPAN / (self.num_prices - 1)
        phi = params.persistence
        scatter = jnp.sqrt(1.0 - phi**2)  # innovation's share of the residual's stationary standard deviation
        ahead = phi * (state.residual - middle).astype(jnp.float32) + scatter / step * sampling.normal(uniforms[0])
        residual = jnp.clip(jnp.round(ahead).astype(jnp.int32), -middle, middle)
        spike = (uniforms[1] < params.spike_probability).astype(jnp.float32)
        mean = params.profile[(self.period(state) + 1) % self.cycle_hours]
        price = (
            mean + residual.astype(jnp.float32) * (step / scatter) * params.innovation_sd + params.spike_size * spike
        )

        low, high = (jnp.round(params.reference_price * jnp.asarray(side)[state.bids]) for side in (_LOW, _HIGH))
        bought = jnp.where(price <= low, jnp.minimum(params.power, params.capacity - state.charge), 0)
        sold = jnp.where(price >= high, jnp.minimum(params.power, state.charge), 0)
        trades = {
            "units_bought": bought,
            "units_sold": sold,
            "purchases": price * bought.astype(jnp.float32) / params.efficiency,
            "sales": price * sold.astype(jnp.float32) * params.efficiency,
            "wear": params.wear_cost * (bought + sold).astype(jnp.float32),
        }
        settled = trades["sales"] - trades["purchases"] - trades["wear"]
        totals = {name: jnp.sum(x.astype(jnp.float32)) for name, x in trades.items()}
        shown = (self.period(state) + 2).astype(jnp.float32)  # prices, the opening one and this one included
        state = state.replace(
            charge=state.charge + bought - sold,
            bids=jnp.zeros_like(state.bids),
            moved=bought - sold,
            settled=settled,
            residual=residual + middle,
            spike=spike,
            price=price,
            previous_price=state.price,
            mean_price=state.mean_price + (price - state.mean_price) / shown,
        )
        return state, jnp.sum(settled), {"price": price, "spike": spike, **totals}

    # ---- what an agent sees ---------------------------------------------------------------------------------------

    def observation(self, state: EnergyTradingState, params: EnergyTradingParams) -> Observation:
        """Device tokens, then the published prices of the present and the next seven hours."""
        turn, ahead = self.turn(state), self.period(state) + jnp.arange(MARKET_HOURS, dtype=jnp.int32)
        sin, cos = jnp.asarray(_SIN)[ahead % 24], jnp.asarray(_COS)[ahead % 24]
        reference = params.reference_price
        premium = params.day_ahead[ahead % self.cycle_hours] - reference
        change = bounded((state.price - state.previous_price) / PRICE_SCALE)
        # What the coming hour can sell, and what of it finds no later hour in which to be sold.
        sellable, hours_left = jnp.minimum(params.power, state.charge), self.num_periods - self.period(state)
        last_chance = jnp.clip(state.charge - params.power * (hours_left - 1), 0, sellable)
        premium_lost = jnp.maximum(state.price - state.mean_price, 0.0) * (sellable - last_chance).astype(jnp.float32)
        all_lost = jnp.maximum(state.price, 0.0) * last_chance.astype(jnp.float32)
        below_mean = jnp.clip((state.mean_price - state.price) / reference, 0.0, 1.0)
        everywhere = {
            "unit_cost": reference / PRICE_SCALE,
            "progress": self.progress(state),
            "last_reward": bounded(
                state.last_reward / (reference * jnp.sum(params.power, dtype=jnp.int32).astype(jnp.float32))
            ),
        }
        stores = dict(
            urgency=premium_lost + all_lost,
            slack=jnp.where(last_chance > 0, 0.0, below_mean),
            level=state.charge / params.capacity,
            capacity=params.capacity,
            outflow=jnp.maximum(-state.moved, 0) / MAX_POWER,
            waiting=state.charge / self.max_capacity,
            unit_value=bounded(state.settled / (PRICE_SCALE * params.power.astype(jnp.float32))),
            is_turn=jnp.arange(self.num_devices, dtype=jnp.int32) == turn,
            decided=jnp.asarray(_EAGER_SELL - _EAGER_BUY)[state.bids],
            cycle_sin=sin[0],
            cycle_cos=cos[0],
            private_a=params.capacity / self.max_capacity,
            private_b=params.power / MAX_POWER,
            private_c=jnp.maximum(state.moved, 0) / MAX_POWER,
            private_d=change,
            private_e=bounded(premium[1] / PRICE_SCALE),
            private_f=bounded((state.price - reference) / PRICE_SCALE),
            **everywhere,
        )
        now = (jnp.arange(MARKET_HOURS, dtype=jnp.int32) == 0).astype(jnp.float32)
        hours = dict(
            unit_value=now * bounded(state.price / PRICE_SCALE),
            cycle_sin=sin,
            cycle_cos=cos,
            private_a=jnp.arange(MARKET_HOURS, dtype=jnp.int32) / MARKET_HOURS,
            private_b=now * state.spike,
            private_d=now * change,
            private_e=bounded(premium / PRICE_SCALE),
            **everywhere,
        )
        return make_observation(
            tokens=[("store", self.num_devices, stores), ("market", MARKET_HOURS, hours)],
            actions={
                "is_noop": np.arange(self.num_actions) == self.noop_action,
                "amount": _EAGER_SELL + _EAGER_BUY,
                "signed": _EAGER_SELL - _EAGER_BUY,
                "private_a": np.where(np.isfinite(_LOW), _LOW, 0.0),
                "private_b": np.where(np.isfinite(_HIGH), _HIGH, 0.0),
            },
            action_target=jnp.broadcast_to(turn, (self.num_actions,)).astype(jnp.int32),
            action_mask=jnp.ones((self.num_actions,), jnp.bool_),
        )

    # ---- what is best ---------------------------------------------------------------------------------------------

    def solve(self, params: EnergyTradingParams) -> backward_dp.Plan:
        """Optimal bids of every device: ``value f32[D, Z, S]`` in $ and ``actions i8[D, P, Z, S]``.

        Devices take prices as given and share no limit, so the optimum of all is the sum of the optima of each.
        """
        levels = jnp.round(params.reference_price * jnp.asarray(LEVELS, jnp.float32))
        grid, transition = backward_dp.tauchen(params.persistence, self.num_prices, _SPAN)
        residual = grid * params.innovation_sd / jnp.sqrt(1.0 - params.persistence**2)
        chance = jnp.stack([1.0 - params.spike_probability, params.spike_probability])
        charge = jnp.arange(self.max_capacity + 1, dtype=jnp.int32)
        lows, highs = (np.array(side) for side in zip(*PAIRS, strict=True))

        def device(capacity: chex.Array, power: chex.Array, eta: chex.Array, wear: chex.Array) -> backward_dp.Plan:
            bought, sold = jnp.clip(capacity - charge, 0, power), jnp.minimum(power, charge)
            buy = backward_dp.Move(
                charge + bought, (-bought).astype(jnp.float32) / eta, -wear * bought.astype(jnp.float32)
            )
            sell = backward_dp.Move(charge - sold, sold.astype(jnp.float32) * eta, -wear * sold.astype(jnp.float32))

            def stage(t: chex.Array, value: chex.Array) -> chex.Array:
                mean = params.profile[(t + 1) % self.cycle_hours]
                price = mean + residual[:, None] + params.spike_size * jnp.arange(2, dtype=jnp.float32)[None, :]
                hold, buying, selling = backward_dp.orders(transition, price, chance, levels, value, buy, sell)
                return hold[..., None] + buying[..., lows] + selling[..., highs - 1]

            salvage = vary_like(jnp.zeros((self.num_prices, self.max_capacity + 1), jnp.float32), params)
            return backward_dp.solve(stage, salvage, self.num_periods)

        return jax.vmap(device)(params.capacity, params.power, params.efficiency, params.wear_cost)

    def reference_action(
        self, plan: backward_dp.Plan, state: EnergyTradingState, params: EnergyTradingParams, key: chex.PRNGKey
    ) -> chex.Array:
        """Looks up the optimal pair of the device whose turn it is: ``i32[]``."""
        del params, key
        turn, hour = self.turn(state), jnp.minimum(self.period(state), self.num_periods - 1)
        return plan.actions[turn, hour, state.residual, state.charge[turn]].astype(jnp.int32)

    def _public(self) -> planner.Public:
        low, high = (np.array(side, np.int32) for side in zip(*PAIRS, strict=True))
        return planner.Public(
            levels=np.array(LEVELS, np.float32),
            low=low,
            high=high,
            curves=np.array([TWO_PEAK, SOLAR], np.float32),
            devices=self.num_devices,
            periods=self.num_periods,
            max_capacity=self.max_capacity,
            price=PRICE_SCALE,
            power=float(MAX_POWER),
        )

    def heuristic_start(self) -> planner.EnergyTradingMemory:
        """Nothing seen yet."""
        return planner.start(self._public())

    def heuristic_step(
        self, memory: planner.EnergyTradingMemory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, planner.EnergyTradingMemory]:
        """See :meth:`heuristic_by`, with the constants of ``rule``."""
        return self.heuristic_by(self.rule, memory, observation, key)

    def heuristic_by(
        self,
        rule: planner.EnergyTradingRule,
        memory: planner.EnergyTradingMemory,
        observation: Observation,
        key: chex.PRNGKey,
    ) -> tuple[chex.Array, planner.EnergyTradingMemory]:
        """Plans with running estimates of prices and devices: see :mod:`envs_jax.heuristics.energy_trading`."""
        del key
        return planner.choose(self._public(), rule, memory, observation)
