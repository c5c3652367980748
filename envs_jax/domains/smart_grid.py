"""Smart grid: storages on a DC network whose thermal units are dispatched at least cost every hour.

Every hour the operator lets each storage charge, idle or discharge by one quantum. Then five thermal units serve what
load is left over by wind and sun, at least cost, and the flows that result load the lines of the IEEE 14-bus network.

Source: the IEEE 14-bus network with the costs of MATPOWER's ``case14`` (read, as PYPOWER 5.1.21 ships it) and the line
ratings of PGLib-OPF v17.08 ``case14_ieee`` (read); daily load shapes of the IEEE Reliability Test System, 1979, table 3
(read in public copies, see docs/domains/smart_grid.md); economic dispatch after Wood and Wollenberg (recalled).
Storages, wind, sun and the tasks are choices made here.
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
from envs_jax.arrays import aligned
from envs_jax.data import ieee14, readers
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.heuristics import smart_grid as planner
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import backward_dp, dc_network, economic_dispatch, storage_lattice
from envs_jax.references.storage_lattice import MOVES

FLAT = 1e-4
"""$/MW^2h, least slope of a unit's costs: of units of constant incremental cost, where the model needs a slope."""
SHED_COST, OVERLOAD_COST = 1000.0, 100.0
"""$ per MWh of load not served, and per MWh above a line's rating."""
_HOURS = np.arange(24)
RATING_RANGE = (0.3, 0.9)
"""What is left of a line's published rating in a task, of every line by itself; uniform."""
SUN = np.maximum(np.sin(np.pi * (_HOURS - 6) / 12), 0.0).astype(np.float32)
"""Clear-sky output by hour of the day, relative to capacity."""
_SIN, _COS = (wave(2 * np.pi * _HOURS / 24).astype(np.float32) for wave in (np.sin, np.cos))
PERSISTENCE = 0.9
"""Of the wind index and of the cloud index from hour to hour."""
_PRICE, _REWARD, _POWER, _STORE, _SIZE = 100.0, 10.0, 100.0, 20.0, 80.0  # $/MWh, 100 $, MW, MW, MWh of a feature 1
_LOAD = 300.0  # MW


@struct.dataclass
class SmartGridState(EnvState):
    """Storages, weather, and what the control room saw in the last hour (zeros before the first).

    Attributes:
      charge: ``i32[D]`` quanta stored.
      move: ``i32[D]`` quanta each storage is told to add this hour; 0 until chosen.
      wind: ``i32[]`` index of this hour's wind on its grid.
      cloud: ``i32[]`` index of this hour's clearness of the sky on its grid.
      load: ``f32[]`` [MW].
      green: ``f32[2]`` wind and solar power that was available [MW].
      output: ``f32[5]`` thermal units [MW].
      drawn: ``f32[D]`` what each storage drew from the grid, negative if it fed in [MW].
      loading: ``f32[]`` flow over rating of the line loaded most.
      price: ``f32[]`` lambda [$/MWh].
      prices: ``f32[3]`` mean, lowest and highest lambda so far [$/MWh].
      local_price: ``f32[D]`` lambda and marginal cost of congestion at each storage's bus [$/MWh].
    """

    charge: chex.Array
    move: chex.Array
    wind: chex.Array
    cloud: chex.Array
    load: chex.Array
    green: chex.Array
    output: chex.Array
    drawn: chex.Array
    loading: chex.Array
    price: chex.Array
    prices: chex.Array
    local_price: chex.Array


@struct.dataclass
class SmartGridParams(EnvParams):
    """A task.

    Attributes:
      capacity: ``f32[D]`` of the storages [MWh].
      initial_charge: ``i32[D]`` [quanta].
      profile: ``f32[24]`` load by hour of the day relative to the network's 259 MW. Hidden.
      fuel: ``f32[5]`` factors on the units' costs, positive. Hidden.
      wind_capacity: ``f32[]`` [MW]. Hidden.
      solar_capacity: ``f32[]`` [MW]. Hidden.
      clearness: ``f32[]`` mean clearness of the sky, in [0, 1]. Hidden.
      available: ``f32[5]`` share of each thermal unit's capacity that is not out of service, in (0, 1]. Hidden.
      efficiency: ``f32[D]`` one-way efficiency eta, in (0, 1]. Hidden.
      rating: ``f32[L]`` factor on each line's rating, positive. Hidden.
      supply_price, supply_output, supply_total, supply_slope, supply_response: the tables of the thermal units'
        :class:`~envs_jax.references.economic_dispatch.Supply` with ``fuel`` and ``available``, made once a task and not
        every hour. Hidden, derived: see :meth:`SmartGrid.with_supply`.
    """

    capacity: chex.Array
    initial_charge: chex.Array
    profile: chex.Array
    fuel: chex.Array
    wind_capacity: chex.Array
    solar_capacity: chex.Array
    clearness: chex.Array
    available: chex.Array
    efficiency: chex.Array
    rating: chex.Array
    supply_price: chex.Array
    supply_output: chex.Array
    supply_total: chex.Array
    supply_slope: chex.Array
    supply_response: chex.Array


class SmartGrid(ResourceEnv[SmartGridState, SmartGridParams]):
    """D storages on the IEEE 14-bus network; D turns make an hour.

    In hour ``h`` storage ``d`` of ``q_d = capacity / (levels - 1)`` MWh a quantum moves ``m_d`` in {0, +1, -1} quanta.
    Losses fall on the grid's side, so the charge stays on its lattice. With wind ``z`` and cloud ``y`` of the hour

        draw_d = q_d / eta_d (charging), -q_d eta_d (discharging)                                   MW
        load   = 259 profile[h],  wind = W / (1 + exp(.5 - 1.2 z)),
        solar  = S max(0, sin(pi (h - 6) / 12)) clip(clearness + .2 y, 0, 1)                        MW
        net    = load - wind - solar + sum_d draw_d                                                 MW
        P      = argmin sum_i fuel_i (a_i P_i^2 + b_i P_i)  s.t.  sum P = net, 0 <= P_i <= A_i Pmax_i
        flow   = H (injections),  overload = sum_l max(|flow_l| - rating_l * published_l, 0)             MW
        C      = fuel cost + 1000 unserved + 100 overload                                           $
        reward = (C if all storages were idle - C) / 100                                            100 $
        charge' = charge + m;   z', y' by their chains

    ``H`` are the DC transfer factors. ``net < 0`` is curtailed from wind and sun alike; ``net`` beyond the units is
    shed everywhere alike. Lines do not restrain the dispatch, they make it dear. ``z`` and ``y`` move on
    Rouwenhorst's grids (variance 1, autocorrelation .9), so the reference, a backward dynamic programme over hour,
    weather and the charge of all storages, is exact. What is stored at the end is worth nothing.

    Hidden: the load's profile, fuel factors ``fuel``, what is in service of the units ``A``, wind and solar capacity
    ``W`` and ``S`` (plants behind the meter), clearness, each storage's ``eta``, the factor ``rating`` on each line's
    rating. Shown: charge, this hour's weather, and all that the control room measured in the last hour.

    ====== =========== ====================================================================================
    token  column      quantity
    ====== =========== ====================================================================================
    store  urgency     $ that keeping a quantum now loses if power goes back to its mean price, see below
    store  slack       how far the local price is below mean lambda [mean lambda]; 0 once hours are short
    store  level       charge [full]
    store  capacity    MWh
    store  outflow     fed in in the last hour [20 MW]
    store  waiting     charge [80 MWh]
    store  unit_value  local price [100 $/MWh]
    store  is_turn     1 if its move is being chosen
    store  decided     m
    store  private_a   size [80 MWh]
    store  private_b   drawn in the last hour [20 MW]
    unit   slack       1 - P / Pmax
    unit   level       P / Pmax
    unit   capacity    Pmax [MW]
    plant  level       wind, clear sky: output now [capacity]
    plant  private_c   weather now: z / 2 of the wind, y / 2 of the sun
    plant  private_d   power that was available in the last hour [100 MW]
    line   urgency     $ that the last hour's overload of a line of 100 MW would cost again
    line   slack       loading below 1
    line   level       loading
    market level       load [300 MW]
    market unit_value  lambda [100 $/MWh]
    market private_e   mean lambda so far [100 $/MWh]
    market private_f   highest minus lowest lambda so far [100 $/MWh]
    all    cycle_sin   time of day, with cycle_cos
    all    cycle_cos   see cycle_sin
    all    progress    share of the episode gone
    all    last_reward reward of the last period [1000 $]
    ====== =========== ====================================================================================

    Roles: store ``store``, one a storage; five units and two plants, wind and sun, ``supplier``; the line loaded most
    ``carrier``; the system ``market``. The local price is lambda plus the marginal cost of congestion at the storage's
    bus: the derivative of C in what it draws.

    What waits in a store is energy to be fed in: an empty one needs nothing. A quantum kept loses what the local price
    is above mean lambda so far, and all of it if it has no later hour in which to be fed in, one an hour.

    Actions: 0 idle, the no-op, 1 charge, 2 discharge by one quantum; not beyond empty and full. ``signed`` is -m:
    feeding in relieves the store, charging loads it.

    Key figures: ``price`` lambda $/MWh, ``net_load`` MW, ``fuel_cost`` $ (with shedding), ``overload``, ``curtailed``,
    ``unserved`` MW.

    Invariants: sum P + wind + solar fed + fed from storage = load served + drawn by storage; the change of charge is
    the action; flows balance at every bus; units off their limits share lambda; C is convex and non-decreasing in net
    load; idle earns exactly 0; a round trip without losses at a flat price earns 0; ``0 <= charge <= full``.

    Args:
      num_periods: hours P.
      storage_buses: bus of each storage, by number; one to four storages.
      levels: charges a storage can have, full and empty included. Periods x weather x joint charges of all storages
        are at most 2^30.
      num_wind, num_cloud: grid points of the weather's two indices, at most 99.
      wind_bus, solar_bus: where wind and sun feed in.
      case: path of a MATPOWER case (docs/own_data.md) in place of the 14-bus network. Its buses are those that the
        three arguments above name. Storages, wind and sun are as many times larger as its load is.
      demand: path of a CSV of hourly loads [MW], whole days from midnight; their mean by hour of the day is the default
        task's profile, and the shape of sampled ones.
    """

    name = "smart_grid"
    hidden = (
        *("profile", "fuel", "available", "wind_capacity", "solar_capacity", "clearness", "efficiency", "rating"),
        *("supply_price", "supply_output", "supply_total", "supply_slope", "supply_response"),
    )
    ingredients = ("fuel", "available")
    reward_unit = "100 $"
    reference_kind = "optimal"
    num_actions = 3
    num_uniforms = num_reset_uniforms = 2
    noop_action = 0
    discount_factor = 0.99
    data_files = ("case", "demand")
    rule: ClassVar[planner.SmartGridRule] = planner.SmartGridRule()

    def __init__(
        self,
        num_periods: int = 24,
        storage_buses: Sequence[int] = (3, 9, 14),
        levels: int = 5,
        num_wind: int = 5,
        num_cloud: int = 3,
        wind_bus: int = 6,
        solar_bus: int = 9,
        case: str | os.PathLike[str] | None = None,
        demand: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        num_periods, levels, num_wind, num_cloud = checks.whole_numbers(
            self.name,
            num_periods=(num_periods, 1, 100_000),
            levels=(levels, 2, 1000),
            num_wind=(num_wind, 1, 99),
            num_cloud=(num_cloud, 1, 99),
        )
        read = readers.matpower
        self.grid = read.shipped() if case is None else readers.load(self.name, "case", case, read.parse)
        buses = checks.whole_sequence(self.name, "storage_buses", storage_buses, 1, int(self.grid.bus.max()), (1, 4))
        named = {f"storage_buses[{i}]": bus for i, bus in enumerate(buses)}
        at = self.grid.places(self.name, named | {"wind_bus": wind_bus, "solar_bus": solar_bus})
        # The reference's plan holds a byte for each of these.
        entries = {"num_periods": num_periods, "num_wind": num_wind, "num_cloud": num_cloud}
        checks.product(self.name, entries | {f"levels^{len(buses)}": levels ** len(buses)}, 2**30)
        self.num_periods, self.storage_buses, self.levels = num_periods, buses, levels
        self.num_turns = len(buses)
        self.num_units = len(self.grid.unit_bus)
        self.num_tokens = self.num_turns + self.num_units + 4
        if self.num_tokens > 32:
            allowed = f"with at most {28 - self.num_turns} units beside {self.num_turns} storages"
            raise checks.refusal(self.name, "case", allowed, f"{self.num_units} units in service")
        self.network = dc_network.network(
            self.grid.lines, self.grid.reactance, self.grid.unit_bus, at[-2:], self.grid.load, at[:-2]
        )
        # The two largest units are those that tasks take out of service in part; the others' fuel is dear.
        self._large = np.isin(np.arange(self.num_units), np.argsort(-self.grid.unit_max, kind="stable")[:2])
        self.size = float(self.grid.load.sum() / ieee14.BUS_LOAD.sum())
        self.shapes = ieee14.LOAD_SHAPES / 100.0
        if demand is not None:
            day = readers.load(self.name, "demand", demand, readers.series.parse_days)
            if day.max() > (most := self.grid.unit_max.sum()):
                raise checks.refusal(self.name, "demand", f"at most {most:g} MW, what all units give", f"{day.max():g}")
            self.shapes = day[None] / self.grid.load.sum()
        self.wind, self.cloud = (backward_dp.rouwenhorst(PERSISTENCE, size) for size in (num_wind, num_cloud))
        self._wind_factor = (1.0 / (1.0 + np.exp(0.5 - 1.2 * self.wind.grid))).astype(np.float32)
        self._public = planner.Public(
            network=self.network,
            load=float(self.grid.load.sum()),
            shapes=self.shapes,
            unit_max=self.grid.unit_max,
            unit_cost=self.grid.unit_cost,
            large=self._large,
            rating=self.grid.rating,
            sun=SUN,
            persistence=PERSISTENCE,
            toll=OVERLOAD_COST,
            units=planner.Units(_PRICE, *(self.size * scale for scale in (_POWER, _STORE, _SIZE, _LOAD))),
        )

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> SmartGridParams:
        """The network as published or in the file, a winter weekday of the RTS or the file's load, no wind, no sun."""
        ones = jnp.ones((self.num_units,), jnp.float32)
        return SmartGridParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            capacity=self.size * jnp.asarray([80.0 if bus == 3 else 40.0 for bus in self.storage_buses], jnp.float32),
            initial_charge=jnp.zeros((self.num_turns,), jnp.int32),
            profile=jnp.asarray(self.shapes[0], jnp.float32),
            fuel=ones,
            available=ones,
            wind_capacity=jnp.float32(0.0),
            solar_capacity=jnp.float32(0.0),
            clearness=jnp.float32(0.7),
            efficiency=jnp.full((self.num_turns,), 0.9, jnp.float32),
            rating=jnp.ones((len(self.grid.rating),), jnp.float32),
            **self._supply(ones, ones),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> SmartGridParams:
        """One task; every draw is uniform (docs/domains/smart_grid.md says why these ranges).

        A season and a day of the RTS, peak .9 to 1.3 of 259 MW; fuel factors of units 1-2 .8 to 1.2, of units 3-5 1 to
        4 each; units 1 and 2 at .3 to .7 and .3 to 1 of their capacity; 0 to 160 MW of wind, 0 to 240 MW of sun with
        clearness .4 to 1; efficiencies .8 to .97; ratings .3 to .9 of the published, of every line by itself.
        """
        n, lines = self.num_units, len(self.grid.rating)
        u = self.task_uniforms(key, split, 7 + n + self.num_turns + lines)
        fuel, (first, second, *plants) = u[2 : 2 + n], u[2 + n : 7 + n]
        efficiency, rating = u[7 + n : 7 + n + self.num_turns], u[7 + n + self.num_turns :]
        shape = jnp.asarray(self.shapes / self.shapes.max(-1, keepdims=True), jnp.float32)
        large = jnp.asarray(self._large)
        in_service = jnp.where(jnp.cumsum(large, dtype=jnp.int32) == 1, 0.3 + 0.4 * first, 0.3 + 0.7 * second)
        params = self.default_params.replace(
            profile=(0.9 + 0.4 * u[1]) * shape[sampling.integers(u[0], 0, len(self.shapes) - 1)],
            fuel=jnp.where(large, 0.8 + 0.4 * fuel, 1.0 + 3.0 * fuel),
            available=jnp.where(large, in_service, 1.0),
            wind_capacity=self.size * 160.0 * plants[0],
            solar_capacity=self.size * 240.0 * plants[1],
            clearness=0.4 + 0.6 * plants[2],
            rating=RATING_RANGE[0] + (RATING_RANGE[1] - RATING_RANGE[0]) * rating,
            efficiency=0.8 + 0.17 * efficiency,
        )
        return self.with_supply(params)

    def with_supply(self, params: SmartGridParams) -> SmartGridParams:
        """``params`` with the supply curve of its ``fuel`` and ``available``: call it after replacing either."""
        return params.replace(**self._supply(params.fuel, params.available))

    def _supply(self, fuel: chex.Array, available: chex.Array) -> dict[str, chex.Array]:
        """The derived fields of :class:`SmartGridParams`."""
        slopes = np.stack([np.maximum(self.grid.unit_cost[:, 0], FLAT), self.grid.unit_cost[:, 1]])
        quadratic, linear = (fuel * jnp.asarray(side, jnp.float32) for side in slopes)
        high = available * jnp.asarray(self.grid.unit_max, jnp.float32)
        curve = economic_dispatch.merit_order(quadratic, linear, jnp.zeros_like(high), high)
        return {f"supply_{name}": table for name, table in curve._asdict().items()}

    def average_task(self, params: SmartGridParams, population: SmartGridParams) -> SmartGridParams:
        """Mean hidden parameters, with the supply curve rebuilt from the means (not averaged)."""
        return self.with_supply(super().average_task(params, population))

    def supply(self, params: SmartGridParams) -> economic_dispatch.Supply:
        """The least-cost supply curve of what is in service of the thermal units."""
        return economic_dispatch.Supply(
            *(getattr(params, f"supply_{name}") for name in economic_dispatch.Supply._fields)
        )

    # ---- the world ------------------------------------------------------------------------------------------------

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: SmartGridParams) -> SmartGridState:
        """Storages as the task says, weather from its stationary law, nothing measured yet."""
        zeros = jnp.zeros((self.num_turns,), jnp.float32)
        return SmartGridState(
            **self.clock(key),
            **dict.fromkeys(("load", "loading", "price"), jnp.float32(0.0)),
            charge=params.initial_charge,
            move=jnp.zeros_like(params.initial_charge),
            wind=sampling.categorical(uniforms[0], jnp.asarray(self.wind.law)),
            cloud=sampling.categorical(uniforms[1], jnp.asarray(self.cloud.law)),
            green=jnp.zeros((2,), jnp.float32),
            output=jnp.zeros((self.num_units,), jnp.float32),
            drawn=zeros,
            prices=jnp.zeros((3,), jnp.float32),
            local_price=zeros,
        )

    def choose(
        self, state: SmartGridState, turn: chex.Array, action: chex.Array, params: SmartGridParams
    ) -> SmartGridState:
        """Tells the storage whose turn it is what to do; it stops at empty and at full."""
        del params
        move = jnp.where(jnp.arange(self.num_turns, dtype=jnp.int32) == turn, jnp.asarray(MOVES)[action], state.move)
        return state.replace(move=jnp.clip(state.charge + move, 0, self.levels - 1) - state.charge)

    def conditions(
        self, params: SmartGridParams, hour: chex.Array, wind: chex.Array, cloud: chex.Array
    ) -> tuple[chex.Array, chex.Array]:
        """Load ``f32[]``, and wind and solar power ``f32[2]`` [MW], in an hour with weather of these indices."""
        sky = jnp.clip(params.clearness + 0.2 * jnp.asarray(self.cloud.grid)[cloud], 0.0, 1.0)
        sun = params.solar_capacity * jnp.asarray(SUN)[hour % 24] * sky
        blown = params.wind_capacity * jnp.asarray(self._wind_factor)[wind]
        return jnp.float32(self.grid.load.sum()) * params.profile[hour % 24], jnp.stack([blown, sun])

    def draw(self, params: SmartGridParams, move: chex.Array) -> chex.Array:
        """What moves ``i32[..., D]`` draw from the grid, ``f32[..., D]`` [MW]."""
        move, capacity, efficiency = aligned(move, params.capacity, params.efficiency)
        loss = jnp.where(move > 0, 1.0 / efficiency, efficiency)
        return capacity / (self.levels - 1) * loss * move.astype(jnp.float32)

    def savings(
        self, params: SmartGridParams, load: chex.Array, green: chex.Array, draws: chex.Array
    ) -> tuple[chex.Array, dc_network.Hour]:
        """Rewards ``f32[A]`` [100 $] of alternative ``draws f32[A, D]`` in one hour, and the hours that they make."""
        rating = params.rating * jnp.asarray(self.grid.rating, jnp.float32)
        saved, hours = dc_network.compare(
            self.network, self.supply(params), load, green, draws, rating, SHED_COST, OVERLOAD_COST
        )
        return saved / 100.0, hours

    def advance(
        self, state: SmartGridState, uniforms: chex.Array, params: SmartGridParams
    ) -> tuple[SmartGridState, chex.Array, dict[str, chex.Array]]:
        """Operates the hour as it is; then the weather moves. Given state and task the reward holds no noise."""
        period = self.period(state)
        load, green = self.conditions(params, period, state.wind, state.cloud)
        draw = self.draw(params, state.move)
        rewards, hours = self.savings(params, load, green, draw[None])
        reward, hour = jax.tree.map(lambda x: x[0], (rewards, hours))
        price = hour.dispatch.price
        mean, lowest, highest = state.prices
        mean = mean + (price - mean) / (period + 1).astype(jnp.float32)
        lowest = jnp.where(period == 0, price, jnp.minimum(price, lowest))
        info = {
            "price": price,
            "net_load": hour.net,
            "fuel_cost": hour.fuel_cost,
            "overload": jnp.sum(hour.overload),
            "curtailed": jnp.maximum(-hour.net, 0.0),
            "unserved": hour.unserved,
        }
        state = state.replace(
            charge=state.charge + state.move,
            move=jnp.zeros_like(state.move),
            wind=sampling.categorical(uniforms[0], jnp.asarray(self.wind.rows)[state.wind]),
            cloud=sampling.categorical(uniforms[1], jnp.asarray(self.cloud.rows)[state.cloud]),
            load=load,
            green=green,
            output=hour.dispatch.output,
            drawn=draw,
            loading=jnp.max(jnp.abs(hour.flow) / (params.rating * jnp.asarray(self.grid.rating, jnp.float32))),
            price=price,
            prices=jnp.stack([mean, lowest, jnp.maximum(price, highest)]),
            local_price=price + dc_network.congestion_price(self.network, hour, OVERLOAD_COST),
        )
        return state, reward, info

    # ---- what an agent sees ---------------------------------------------------------------------------------------

    def observation(self, state: SmartGridState, params: SmartGridParams) -> Observation:
        """See the class docstring for the columns."""
        turn, hour = self.turn(state), self.period(state) % 24

        def scaled(value: chex.Array, scale: float) -> chex.Array:
            return bounded(value / scale)

        share = state.output / jnp.asarray(self.grid.unit_max, jnp.float32)
        everywhere = {
            "cycle_sin": jnp.asarray(_SIN)[hour],
            "cycle_cos": jnp.asarray(_COS)[hour],
            "progress": self.progress(state),
            "last_reward": scaled(state.last_reward, _REWARD * self.size),
        }
        mean, local, size = state.prices[0], state.local_price, params.capacity
        charge, hours = state.charge.astype(jnp.float32), self.num_periods - self.period(state)
        # Quanta that could be fed in in this hour, and those of them that no later hour has room for.
        ready = jnp.minimum(state.charge, 1)
        last = jnp.clip(state.charge - (hours - 1), 0, ready)
        lost = jnp.where(last > 0, jnp.maximum(local, 0.0), jnp.maximum(local - mean, 0.0))
        below = jnp.clip(1.0 - local / jnp.where(mean > 0.0, mean, 1.0), 0.0, 1.0)
        stores = {
            "urgency": size / (self.levels - 1) * jnp.where(ready > 0, lost, 0.0),
            "slack": jnp.where((last > 0) | (mean <= 0.0), 0.0, below),
            "level": charge / jnp.float32(self.levels - 1),
            "capacity": size,
            "outflow": scaled(jnp.maximum(-state.drawn, 0.0), _STORE * self.size),
            "waiting": scaled(charge / jnp.float32(self.levels - 1) * size, _SIZE * self.size),
            "unit_value": scaled(state.local_price, _PRICE),
            "is_turn": jnp.arange(self.num_turns, dtype=jnp.int32) == turn,
            "decided": state.move,
            "private_a": scaled(size, _SIZE * self.size),
            "private_b": scaled(jnp.maximum(state.drawn, 0.0), _STORE * self.size),
        }
        units = {"slack": 1.0 - share, "level": share, "capacity": self.grid.unit_max}
        plants = {
            "level": jnp.stack([jnp.asarray(self._wind_factor)[state.wind], jnp.asarray(SUN)[hour]]),
            "private_c": jnp.stack([jnp.asarray(self.wind.grid)[state.wind], jnp.asarray(self.cloud.grid)[state.cloud]])
            / 2.0,
            "private_d": scaled(state.green, _POWER * self.size),
        }
        line = {
            "urgency": OVERLOAD_COST * _POWER * self.size * jnp.maximum(state.loading - 1.0, 0.0),
            "slack": jnp.clip(1.0 - state.loading, 0.0, 1.0),
            "level": scaled(state.loading, 1.0),
        }
        market = {
            "level": scaled(state.load, _LOAD * self.size),
            "unit_value": scaled(state.price, _PRICE),
            "private_e": scaled(mean, _PRICE),
            "private_f": scaled(state.prices[2] - state.prices[1], _PRICE),
        }
        suppliers = (("supplier", self.num_units, units), ("supplier", 2, plants))
        blocks = (("store", self.num_turns, stores), *suppliers, ("carrier", 1, line), ("market", 1, market))
        held = state.charge[turn]
        return make_observation(
            tokens=[(role, rows, values | everywhere) for role, rows, values in blocks],
            actions={"is_noop": MOVES == 0, "amount": np.abs(MOVES), "signed": -MOVES},
            action_target=jnp.full((self.num_actions,), turn, jnp.int32),
            action_mask=jnp.stack([jnp.bool_(True), held < self.levels - 1, held > 0]),
        )

    # ---- what is best ---------------------------------------------------------------------------------------------

    def rewards(self, params: SmartGridParams, load: chex.Array, green: chex.Array) -> chex.Array:
        """Rewards ``f32[..., A]`` of all joint moves under conditions ``f32[...]``, ``f32[..., 2]``."""
        draws = self.draw(params, jnp.asarray(storage_lattice.joint_moves(self.num_turns)))
        hour = lambda load, green: self.savings(params, load, green, draws)[0]  # noqa: E731
        return jnp.vectorize(hour, signature="(),(g)->(a)")(load, green)

    def solve(self, params: SmartGridParams) -> backward_dp.Plan:
        """Optimal joint moves: ``value f32[Z, S]`` and ``actions i8[P, Z, S]``, Z weathers, S joint charges."""
        hour, wind, cloud = np.indices((24, self.wind.grid.size, self.cloud.grid.size)).reshape(3, 24, -1)
        load, green = jax.vmap(jax.vmap(self.conditions, (None, 0, 0, 0)), (None, 0, 0, 0))(params, hour, wind, cloud)
        rewards = self.rewards(params, load, green)
        weather = jnp.asarray(np.kron(self.wind.transition, self.cloud.transition), jnp.float32)
        return storage_lattice.plan(rewards, weather, self.num_turns, self.levels, self.num_periods)

    def foresight(self, params: SmartGridParams, key: chex.PRNGKey) -> chex.Array:
        """Return ``f32[]`` of the optimum for somebody who knows the weather of the whole episode ``key``.

        No policy earns more in that episode.
        """

        def hour(state: SmartGridState, period: chex.Array) -> tuple[SmartGridState, tuple[chex.Array, chex.Array]]:
            now = self.conditions(params, period, state.wind, state.cloud)
            uniforms = sampling.uniforms(key, period, self.num_uniforms)
            return self.advance(state, uniforms, params)[0], now

        _, state = self.reset_env(key, params)
        _, (load, green) = jax.lax.scan(hour, state, jnp.arange(self.num_periods, dtype=jnp.int32))
        rewards, certain = self.rewards(params, load, green)[:, None], jnp.ones((1, 1), jnp.float32)
        plan = storage_lattice.plan(rewards, certain, self.num_turns, self.levels, self.num_periods)
        return plan.value[0, storage_lattice.index(params.initial_charge, self.levels)]

    def reference_action(
        self, plan: backward_dp.Plan, state: SmartGridState, params: SmartGridParams, key: chex.PRNGKey
    ) -> chex.Array:
        """Looks up the optimal joint move and takes the part of the storage whose turn it is: ``i32[]``."""
        del params, key
        hour = jnp.minimum(self.period(state), self.num_periods - 1)
        weather = state.wind * self.cloud.grid.size + state.cloud
        joint = plan.actions[hour, weather, storage_lattice.index(state.charge, self.levels)]
        return storage_lattice.part(joint, self.turn(state), self.num_turns)

    def heuristic_start(self) -> planner.SmartGridMemory:
        """Nothing measured yet."""
        return planner.start(self._public, self.num_turns)

    def heuristic_step(
        self, memory: planner.SmartGridMemory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, planner.SmartGridMemory]:
        """See :meth:`heuristic_by`, with the constants of ``rule``."""
        return self.heuristic_by(self.rule, memory, observation, key)

    def heuristic_by(
        self, rule: planner.SmartGridRule, memory: planner.SmartGridMemory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, planner.SmartGridMemory]:
        """Model-predictive control with what has been measured so far: see :mod:`envs_jax.heuristics.smart_grid`."""
        del key
        return planner.choose(self, self._public, rule, memory, observation)
