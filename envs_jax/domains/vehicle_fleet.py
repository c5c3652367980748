"""Rebalancing a fleet of autonomous taxis between the regions of a city (autonomous mobility on demand).

Every few minutes the operator decides, region after region, how many idle vehicles to send empty to another region.
Then vehicles arrive, customers ask for trips, the best-paying trips that there are vehicles for are served, and other
requests are lost. Where customers appear, where they go and what they pay differs from city to city.

Source: D. Gammelli, K. Yang, J. Harrison, F. Rodrigues, F. Pereira, M. Pavone, "Graph Meta-Reinforcement Learning for
Transferable Autonomous Mobility-on-Demand", KDD 2022 (abstract and public code read). Its order of events is followed;
docs/domains/vehicle_fleet.md says what was checked, and names the fluid model of Pavone et al. behind the reference.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, sampling
from envs_jax.data import AmodCity, readers
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import fluid_fleet

SMOOTHING = 0.3
"""Weight of the latest requests in the running averages that are shown."""
TIME_SCALE = 10.0
"""Periods of driving that one unit of ``private_b`` stands for."""
VEHICLE_SCALE = 20.0
"""Vehicles a region that one unit of the city's ``private_f`` stands for."""


@struct.dataclass
class VehicleFleetState(EnvState):
    """Where the vehicles are, and what happened in the last period.

    Attributes:
      idle: ``i32[N]`` vehicles that stand in each region.
      arriving: ``i32[L, N]`` vehicles that reach each region ``l`` periods ahead, with customers or empty.
      moved: ``i32[N]`` vehicles sent to, less those sent from each region so far in this period.
      driven: ``i32[]`` vehicles sent so far in this period, times the periods that they drive.
      requests: ``i32[N]`` trips asked for from each region in the last period.
      served: ``i32[N]`` those that were served.
      fare: ``f32[N]`` mean fare of each region's trips when some were last served, $.
      average: ``f32[2, N]`` running averages of trips asked for from (0) and to (1) each region.
    """

    idle: chex.Array
    arriving: chex.Array
    moved: chex.Array
    driven: chex.Array
    requests: chex.Array
    served: chex.Array
    fare: chex.Array
    average: chex.Array


@struct.dataclass
class VehicleFleetParams(EnvParams):
    """A task: a city and its fleet.

    Attributes:
      initial: ``i32[N]`` vehicles in each region at the start.
      move_time: ``i32[N, N]`` periods that an empty vehicle drives, 1 or more.
      trip_time: ``i32[P, N, N]`` periods that a trip takes, 1 or more, by the period in which it starts.
      cost: ``f32[]`` of driving, $ per vehicle and period.
      price_scale: ``f32[]`` public mean fare of the city, $.
      rate: ``f32[P, N, N]`` mean number of trips asked for from i to j in each period. Hidden.
      price: ``f32[P, N, N]`` fare, $. Hidden.
    """

    initial: chex.Array
    move_time: chex.Array
    trip_time: chex.Array
    cost: chex.Array
    price_scale: chex.Array
    rate: chex.Array
    price: chex.Array


class VehicleFleet(ResourceEnv[VehicleFleetState, VehicleFleetParams]):
    """N regions, one choice each per period; N turns make a period.

    Action 0 keeps the vehicles of the region whose turn it is; action ``1 + f (N-1) + k`` sends the share
    ``fractions[f]`` of its idle ones, rounded down, to the k-th of the other regions. A share that amounts to no more
    than the next smaller one is illegal. Later regions see what earlier ones did. On the last turn

        idle += arriving[0];  d_ij ~ Poisson(rate_ij);  f_ij = min(d_ij, idle_i - what trips of higher fare took)
        reward = sum_ij f_ij (price_ij - cost trip_time_ij) - cost sum_ij moved_ij move_time_ij             [$]

    A vehicle sent in period t takes part in the matching of ``t + move_time``, one that starts a trip in that of
    ``t + trip_time + 1``. Serving fares from the highest down is the exact optimum of the matching linear programme
    (most revenue; its only coupling is a region's number of vehicles), ties go to the region of lower number.

    Tokens: N regions, then the city. [fleet] is the mean fleet per region, [fare] the public mean fare.

    ====== =========== ==========================================================================
    token  column      quantity
    ====== =========== ==========================================================================
    region urgency     max(average requests - idle - arriving, 0) x fare: $ missed in a period
    region slack       idle / (idle + average requests)
    region level       idle vehicles [fleet]
    region inflow      vehicles that arrive before the next matching [fleet]
    region outflow     trips served from here in the last period [fleet]
    region unit_cost   cost of driving here from the region in turn [fare]
    region unit_value  mean fare of the trips last served from here [fare]; 1 before any was
    region is_turn     1 if the choice is this region's
    region decided     vehicles sent here less vehicles sent away so far in this period [fleet]
    region private_a   vehicles that arrive later [fleet]
    region private_b   driving time from the region in turn [TIME_SCALE periods]
    region private_c   average requests: running average of trips asked for from here [fleet]
    region private_d   running average of trips asked for to here [fleet]
    region private_e   requests lost in the last period [fleet]
    city   level       idle vehicles, mean over regions [fleet]
    city   inflow      mean over regions [fleet]
    city   outflow     mean over regions [fleet]
    city   unit_cost   cost of driving for one period [fare]
    city   private_a   vehicles that arrive later, mean over regions [fleet]
    city   private_e   requests lost in the last period, mean over regions [fleet]
    city   private_f   fleet per region [VEHICLE_SCALE vehicles]
    all    progress    share of the episode gone
    all    last_reward reward of the last period [tenth of fleet x mean fare]
    ====== =========== ==========================================================================

    Roles: region ``place``, city ``clock``. Features without bounds are cut at 10. An action's ``amount`` and
    ``signed`` are the share sent, its target the region that gets the vehicles; action 0 keeps them, the no-op.

    Shown: vehicles, travel times, cost. Hidden: ``rate`` and ``price``, and so the change of ``rate`` during the
    episode. Requests from and to each region show in ``private_c`` and ``private_d``, fares in ``unit_value``.

    Key figures in ``info``: ``revenue``, ``trip_cost``, ``rebalancing_cost`` [$]; ``requests``, ``served`` [trips];
    ``driven`` empty [vehicle periods]; ``idle`` after the matching [vehicles].

    Invariants: idle plus arriving vehicles are the fleet after every choice; no count is negative; trips are at most
    min(requests, vehicles); relabelling regions relabels everything; doubling fares and cost doubles rewards.

    Usage::

        env, params = envs_jax.make("vehicle_fleet")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      rows: of the grid of regions; generated tasks have Manhattan distances on it. N = rows x columns, 2 or more.
      columns: of the grid.
      num_periods: P. By default 20, or all of ``demand``; fewer are its first.
      fractions: increasing shares in (0, 1] that can be sent; at most 32 actions in all.
      max_travel_time: longest travel time [periods], L - 1; by default that of generated tasks, twice the diameter.
      max_requests: trips asked for between two regions in a period are fewer; the Poisson law is cut off there. By
        default 48, or as many as the tasks of ``demand`` need.
      vehicles: of each region at the start of the default task.
      driving_cost: of the default task, $ per vehicle and period.
      demand: path of a CSV of trips (docs/own_data.md), the default task's city in place of a grid. Sampled tasks keep
        what is shown; their demand and fares are the file's, times a factor of each region (1/2 to 3/2), of each pair.
      driving: path of a CSV of the periods that empty vehicles drive; by default the shortest way over recorded trips.
    """

    name: ClassVar[str] = "vehicle_fleet"
    hidden: ClassVar[tuple[str, ...]] = ("rate", "price")
    reward_unit: ClassVar[str] = "$"
    reference_kind: ClassVar[str] = "heuristic"
    data_files: ClassVar[tuple[str, ...]] = ("demand", "driving")

    def __init__(
        self,
        rows: int = 2,
        columns: int = 3,
        num_periods: int | None = None,
        fractions: Sequence[float] = (0.5, 1.0),
        max_travel_time: int | None = None,
        max_requests: int | None = None,
        vehicles: int = 15,
        driving_cost: float = 0.6,
        demand: str | os.PathLike[str] | None = None,
        driving: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self._city = None
        self._vehicles = checks.whole_number(self.name, "vehicles", vehicles, 0, 2**16)
        self._driving_cost = checks.number(self.name, "driving_cost", driving_cost, 0.0)
        if demand is not None:
            self._city = readers.trips.city(self.name, demand, driving, num_periods, self._vehicles, self._driving_cost)
            if (rows, columns) != (2, 3):
                raise checks.refusal(self.name, "rows, columns", "left out with demand", f"{rows}, {columns}")
            rows, columns, num_periods = 1, len(self._city.move_time), len(self._city.requests)
        elif driving is not None:
            raise checks.refusal(self.name, "driving", "left out without demand", checks.shown(driving))
        num_periods = 20 if num_periods is None else num_periods
        busiest = 0.0 if self._city is None else 2.25 * float(self._city.requests.max())  # of what a task may ask for
        if max_requests is None:
            max_requests = min(max(48, checks.poisson_quantile(busiest, 1.0 - checks.TAIL) + 1), 128)
        rows, columns, num_periods, max_requests = checks.whole_numbers(
            self.name,
            rows=(rows, 1, 32),
            columns=(columns, 1, 32),
            num_periods=(num_periods, 1, 10_000),
            max_requests=(max_requests, 2, 128),
        )
        n, longest = rows * columns, 2 * (rows + columns - 2)
        if self._city is not None:
            longest = int(max(self._city.trip_time.max(), self._city.move_time.max()))
        if n < 2:
            raise checks.refusal(self.name, "rows x columns", "at least 2 regions", f"{rows} x {columns} = {n}")
        count = len(fractions) if isinstance(fractions, list | tuple) or getattr(fractions, "ndim", 0) == 1 else 0
        increasing = checks.refusal(self.name, "fractions", "numbers that increase in (0, 1]", checks.shown(fractions))
        if not count:
            raise increasing
        given = checks.numbers(self.name, "fractions", fractions, 0.0, 1.0, shape=(count,), above=True)
        if given is None or (np.diff(given) <= 0).any():
            raise increasing
        actions, shares = 1 + count * (n - 1), given.astype(np.float32)
        if actions > 32:
            allowed = "at most 31 (choices beside the no-op)"
            got = f"{count} x {n - 1} = {actions - 1}"
            raise checks.refusal(self.name, "fractions x (rows x columns - 1)", allowed, got)
        travel = longest
        if max_travel_time is not None:
            travel = checks.whole_number(self.name, "max_travel_time", max_travel_time, longest, 1000)
        self.num_regions, self.num_turns, self.num_periods, self.num_uniforms = n, n, num_periods, n * n
        self.num_tokens, self.num_actions, self.fractions = n + 1, actions, tuple(given.tolist())
        self.max_travel_time, self.max_requests = travel, max_requests
        row, column = np.divmod(np.arange(n), columns)
        self._distance = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
        self._away = 1.0 - np.eye(n, dtype=np.float32)
        self._share = np.concatenate([[0.0], np.repeat(shares, n - 1)]).astype(np.float32)
        self._other = np.concatenate([[0], np.tile(np.arange(n - 1), len(shares))])
        self._is_noop = np.arange(actions) == self.noop_action
        checks.poisson_table(self.name, "demand", busiest, max_requests - 1, "max_requests - 1")

    # ---- tasks ----------------------------------------------------------------------------------------------------

    def _task(self, **fields: chex.Numeric) -> VehicleFleetParams:
        """Typed and repeated for all periods; trips take as long as empty drives, all pairs count for the mean fare."""
        pairs, whole = (self.num_regions, self.num_regions), ("initial", "move_time", "trip_time")
        shapes = {"initial": pairs[:1], "move_time": pairs, "cost": (), "price_scale": ()}
        scale = jnp.sum(fields["price"] * self._away) / self._away.sum()
        arrays = {
            name: jnp.broadcast_to(
                jnp.asarray(value, jnp.int32 if name in whole else jnp.float32),
                shapes.get(name, (self.num_periods, *pairs)),
            )
            for name, value in ({"trip_time": fields["move_time"], "price_scale": scale} | fields).items()
        }
        return VehicleFleetParams(max_steps_in_episode=jnp.int32(self.horizon), **arrays)

    @property
    def default_params(self) -> VehicleFleetParams:
        """The source's synthetic city: a grid, one period a block, and a preference of .25 per period for short trips.

        Its draws are fixed: the regions' demand alternates between the ends of 1 -+ .2, fares are the mean of U(1, 3)
        times (time + 1). Driving costs .2 $ a minute, a period is three. There are 15 vehicles a region; demand keeps
        three quarters of them on trips. With a file it is the file's city.
        """
        if self._city is not None:
            return self.city_params(self._city)
        time = np.maximum(self._distance, 1)
        law = self._away * np.exp(-0.25 * time)
        law = np.where(np.arange(self.num_regions) % 2 == 0, 0.8, 1.2)[:, None] * law / law.sum(1, keepdims=True)
        rate = 0.75 * 15 * self.num_regions * law / np.sum(law * time)
        fleet = {"initial": self._vehicles, "cost": self._driving_cost}
        return self._task(**fleet, rate=rate, price=2.0 * (time + 1.0), move_time=time)

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> VehicleFleetParams:
        """Draws a city. Public: grid, vehicles, driving cost. Hidden: demand, when and how it changes, fares.

        Trips start and end by independent laws that are uniform on the simplex; both are drawn anew at two periods, of
        {4..9} and {10..15}. Demand would keep a share U(.5, 1) of the 10, 15 or 20 vehicles a region on trips. Fares
        are U(1, 3) times (time + 1), a block takes 1 or 2 periods, a period of driving costs U(.3, 1.5).
        """
        n = self.num_regions
        u = self.task_uniforms(key, split, 6 + 6 * n + n * n)
        one, by_end, by_pair = u[:6], u[6 : 6 + 6 * n].reshape(3, 2, n), u[6 + 6 * n :].reshape(n, n)
        if self._city is not None:
            own, (start, end) = self.default_params, 0.5 + by_end[0]
            rate = own.rate * start[None, :, None] * end[None, None, :]
            return own.replace(rate=rate, price=own.price * (0.5 + by_pair)[None])
        per_region = 10 + 5 * sampling.integers(one[0], 0, 2)
        time = jnp.maximum(sampling.integers(one[1], 1, 2) * self._distance.astype(jnp.int32), 1)
        laws = -jnp.log(by_end)  # normalised, Dirichlet(1)
        laws = laws / laws.sum(-1, keepdims=True)
        pairs = laws[:, 0, :, None] * laws[:, 1, None, :] * self._away[None, :, :]
        busy = jnp.sum(pairs * time[None, :, :].astype(jnp.float32), axis=(1, 2), keepdims=True)
        rate = (0.5 + 0.5 * one[2]) * n * per_region.astype(jnp.float32) * pairs / busy
        changes = jnp.stack([sampling.integers(one[3], 4, 9), sampling.integers(one[4], 10, 15)])
        price = (1.0 + 2.0 * by_pair) * (time + 1).astype(jnp.float32)
        cost = 0.3 + 1.2 * one[5]
        law_now = jnp.sum(
            jnp.arange(self.num_periods, dtype=jnp.int32)[:, None] >= changes[None, :], axis=1, dtype=jnp.int32
        )
        return self._task(initial=per_region, cost=cost, rate=rate[law_now], price=price, move_time=time)

    def city_params(self, city: AmodCity) -> VehicleFleetParams:
        """A recorded city as a task; the source rebalances after the first matching only, here that is period 1.

        Raises:
          ValueError: for tables that do not fit this environment's periods, regions, longest travel time or most
            requests, or that hold no such quantities.
        """
        pairs = (self.num_regions, self.num_regions)
        table = functools.partial(
            checks.numbers, self.name, shape=(self.num_periods, *pairs), per="by period, from and to"
        )
        requests = table("city.requests", city.requests, 0.0)
        checks.poisson_table(self.name, "city.requests", requests, self.max_requests - 1, "max_requests - 1")
        table("city.price", city.price, 0.0)
        table("city.trip_time", city.trip_time, 1, self.max_travel_time, whole=True)
        table("city.move_time", city.move_time, 1, self.max_travel_time, whole=True, shape=pairs, per="by from and to")
        checks.numbers(self.name, "city.vehicles", city.vehicles, 0, 2**20, shape=pairs[:1], whole=True, scalar=True)
        checks.number(self.name, "city.driving_cost", city.driving_cost, 0.0)
        return self._task(
            initial=city.vehicles,
            cost=city.driving_cost,
            rate=city.requests,
            price=city.price,
            move_time=city.move_time,
            trip_time=city.trip_time,
            price_scale=np.average(city.price, weights=city.requests),
        )

    def _capacity(self, params: VehicleFleetParams) -> chex.Array:
        """Trips a period that would keep the whole fleet busy if all pairs were alike (Little's law): ``f32[...]``."""
        away = jnp.expand_dims(self._away, range(params.move_time.ndim - 2))
        mean_time = jnp.sum(away * params.move_time.astype(jnp.float32), axis=(-2, -1)) / self._away.sum()
        return jnp.sum(params.initial, axis=-1, dtype=jnp.int32).astype(jnp.float32) / mean_time

    def average_task(self, params: VehicleFleetParams, population: VehicleFleetParams) -> VehicleFleetParams:
        """Mean demand relative to what the fleet could serve, and mean fare relative to the trip's time."""
        load = jnp.mean(population.rate / self._capacity(population)[:, None, None, None], axis=0)
        fare = jnp.mean(population.price / (population.trip_time.astype(jnp.float32) + 1.0), axis=0)
        return params.replace(
            rate=load * self._capacity(params), price=fare * (params.trip_time.astype(jnp.float32) + 1.0)
        )

    # ---- the world ------------------------------------------------------------------------------------------------

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: VehicleFleetParams) -> VehicleFleetState:
        """All vehicles idle; averages start at three quarters of the fleet's capacity, the same everywhere."""
        del uniforms
        n = self.num_regions
        none = jnp.zeros((n,), jnp.int32)
        return VehicleFleetState(
            **self.clock(key),
            idle=params.initial,
            arriving=jnp.zeros((self.max_travel_time + 1, n), jnp.int32),
            **{"moved": none, "requests": none, "served": none, "driven": jnp.int32(0)},
            fare=jnp.broadcast_to(params.price_scale, (n,)),
            average=jnp.broadcast_to(0.75 / n * self._capacity(params), (2, n)),
        )

    def _destinations(self, turn: chex.Array) -> chex.Array:
        """Region that each action sends to, ``i32[A]``: those from the deciding one on are one further."""
        other = jnp.asarray(self._other, jnp.int32)
        return jnp.where(self._is_noop, turn, other + (other >= turn).astype(jnp.int32))

    def _amounts(self, idle: chex.Array) -> chex.Array:
        """Vehicles that each action sends, ``i32[A]``."""
        return jnp.floor(self._share * idle.astype(jnp.float32)).astype(jnp.int32)

    def _legal(self, amounts: chex.Array) -> chex.Array:
        width = self.num_regions - 1
        smaller = jnp.concatenate([jnp.zeros((1 + width,), jnp.int32), amounts[1:-width]])
        return (amounts > smaller) | self._is_noop

    def choose(
        self, state: VehicleFleetState, turn: chex.Array, action: chex.Array, params: VehicleFleetParams
    ) -> VehicleFleetState:
        """Sends vehicles off from the region whose turn it is."""
        regions = jnp.arange(self.num_regions, dtype=jnp.int32)
        here, there = regions == turn, regions == self._destinations(turn)[action]
        amount = self._amounts(jnp.sum(jnp.where(here, state.idle, 0), dtype=jnp.int32))[action]
        time = jnp.sum(jnp.where(here[:, None] & there[None, :], params.move_time, 0), dtype=jnp.int32)
        due = jnp.arange(self.max_travel_time + 1, dtype=jnp.int32)[:, None] == time
        gain, loss = jnp.where(there, amount, 0), jnp.where(here, amount, 0)
        return state.replace(
            idle=state.idle - loss,
            arriving=state.arriving + jnp.where(due, gain, 0),
            moved=state.moved + gain - loss,
            driven=state.driven + amount * time,
        )

    def advance(
        self, state: VehicleFleetState, uniforms: chex.Array, params: VehicleFleetParams
    ) -> tuple[VehicleFleetState, chex.Array, dict[str, chex.Array]]:
        """Vehicles arrive, trips are asked for (a uniform for each pair, row by row), matched and paid."""
        n, period = self.num_regions, jnp.minimum(self.period(state), self.num_periods - 1)
        rate, price, time = (table[period] for table in (params.rate, params.price, params.trip_time))
        vehicles = state.idle + state.arriving[0]
        requests = sampling.poisson(uniforms.reshape(n, n), rate, self.max_requests)
        trips = fluid_fleet.match(vehicles, requests, price)
        asked, served = jnp.sum(requests, axis=1, dtype=jnp.int32), jnp.sum(trips, axis=1, dtype=jnp.int32)
        due = jnp.arange(self.max_travel_time + 1, dtype=jnp.int32)[:, None, None] == time[None, :, :]
        started = jnp.sum(jnp.where(due, trips, 0), axis=1, dtype=jnp.int32)
        earned = jnp.sum(trips.astype(jnp.float32) * price, axis=1)
        idle = vehicles - served
        info = {
            "revenue": jnp.sum(earned),
            "trip_cost": params.cost * jnp.sum(trips * time, dtype=jnp.int32).astype(jnp.float32),
        }
        info["rebalancing_cost"] = params.cost * state.driven.astype(jnp.float32)
        counts = {"requests": asked, "served": served, "driven": state.driven, "idle": idle}
        info |= {name: jnp.sum(count, dtype=jnp.int32).astype(jnp.float32) for name, count in counts.items()}
        latest = jnp.stack([asked, jnp.sum(requests, axis=0, dtype=jnp.int32)]).astype(jnp.float32)
        state = state.replace(
            idle=idle,
            arriving=jnp.concatenate([state.arriving[1:], jnp.zeros((1, n), jnp.int32)]) + started,
            **{"moved": jnp.zeros_like(idle), "driven": jnp.int32(0), "requests": asked, "served": served},
            fare=jnp.where(served > 0, earned / jnp.maximum(served, 1).astype(jnp.float32), state.fare),
            average=state.average + SMOOTHING * (latest - state.average),
        )
        return state, info["revenue"] - info["trip_cost"] - info["rebalancing_cost"], info

    # ---- what an agent sees ---------------------------------------------------------------------------------------

    def observation(self, state: VehicleFleetState, params: VehicleFleetParams) -> Observation:
        """See the class docstring for the columns."""
        n, turn = self.num_regions, self.turn(state)
        here = jnp.arange(n, dtype=jnp.int32) == turn
        own_idle = jnp.sum(jnp.where(here, state.idle, 0), dtype=jnp.int32)
        fleet = jnp.maximum(jnp.sum(params.initial, dtype=jnp.int32), 1).astype(jnp.float32)
        distance = jnp.sum(jnp.where(here[:, None] & (~here)[None, :], params.move_time, 0), axis=0, dtype=jnp.int32)
        driving = params.cost / params.price_scale
        idle, soon, asked = state.idle.astype(jnp.float32), state.idle + state.arriving[0], state.average[0]
        lost, later = state.requests - state.served, jnp.sum(state.arriving[1:], axis=0, dtype=jnp.int32)
        counts = {"level": state.idle, "inflow": state.arriving[0], "outflow": state.served}
        counts |= {"private_a": later, "private_e": lost}
        everywhere = {
            "progress": self.progress(state),
            "last_reward": bounded(10.0 * state.last_reward / (fleet * params.price_scale)),
        }
        regions = dict(
            urgency=jnp.maximum(asked - soon.astype(jnp.float32), 0.0) * state.fare,
            slack=idle / jnp.maximum(idle + asked, 1.0),
            unit_cost=bounded(driving * distance.astype(jnp.float32)),
            unit_value=bounded(state.fare / params.price_scale),
            is_turn=here,
            decided=bounded((state.moved * n).astype(jnp.float32) / fleet),
            private_b=bounded(distance.astype(jnp.float32) / TIME_SCALE),
            private_c=bounded(asked * n / fleet),
            private_d=bounded(state.average[1] * n / fleet),
            **{name: bounded((count * n).astype(jnp.float32) / fleet) for name, count in counts.items()},
            **everywhere,
        )
        city = dict(
            unit_cost=bounded(driving),
            private_f=bounded(fleet / (n * VEHICLE_SCALE)),
            **{
                name: bounded(jnp.sum(count, dtype=jnp.int32).astype(jnp.float32) / fleet)
                for name, count in counts.items()
            },
            **everywhere,
        )
        return make_observation(
            tokens=[("place", n, regions), ("clock", 1, city)],
            actions={"is_noop": self._is_noop, "amount": self._share, "signed": self._share},
            action_target=self._destinations(turn),
            action_mask=self._legal(self._amounts(own_idle)),
        )

    # ---- what is best ---------------------------------------------------------------------------------------------

    def solve(self, params: VehicleFleetParams) -> fluid_fleet.Forecast:
        """A fluid forecast of the episode and a base policy fitted to it, in units of the mean fare."""
        price, cost = params.price / params.price_scale, params.cost / params.price_scale
        forecast = fluid_fleet.forecast(params.rate, price, params.trip_time, params.move_time, cost)
        return fluid_fleet.base_policy(forecast, params.initial.astype(jnp.float32), self.max_travel_time)

    def reference_action(
        self, plan: fluid_fleet.Forecast, state: VehicleFleetState, params: VehicleFleetParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The action after which the forecast is best if the base policy decides all that follows: ``i32[]``."""
        del key
        turn = self.turn(state)
        window = plan.window(jnp.minimum(self.period(state), self.num_periods - 1))
        to_come = (jnp.arange(self.num_regions, dtype=jnp.int32) > turn).astype(jnp.float32)

        def worth(action: chex.Array) -> chex.Array:
            after = self.choose(state, turn, action, params)
            idle, arriving = after.idle.astype(jnp.float32), after.arriving.astype(jnp.float32)
            paid = params.cost / params.price_scale * (after.driven - state.driven).astype(jnp.float32)
            return fluid_fleet.profit(window, idle, arriving, to_come) - paid

        values = jax.vmap(worth)(jnp.arange(self.num_actions, dtype=jnp.int32))
        legal = self._legal(self._amounts(state.idle[turn]))
        return jnp.argmax(jnp.where(legal, values, -jnp.inf)).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Fills the smoothed shortage of vehicles against a target where that is worth the drive.

        A region's target grows with its recent requests, its weight with its recent fares. The constants were tuned on
        tasks of :meth:`sample_params`; with a target that is the same everywhere it would be the field's
        equal-distribution rule.
        """
        del key
        column = lambda name: observation.column(name)[: self.num_regions]  # noqa: E731
        level, here = column("level"), column("is_turn")
        left = (1.0 - column("progress")) * self.num_periods
        target = jnp.minimum(_TARGET_PERIODS, left) * column("private_c") + _TARGET_FLOOR
        position = level + column("inflow") + _PIPELINE_WEIGHT * column("private_a")
        regions = jnp.arange(self.num_regions, dtype=jnp.int32)
        to = (regions[None, :] == observation.action_target[:, None]).astype(jnp.float32)
        amount = observation.action_column("amount") * jnp.sum(level * here)
        missing = target[None, :] - (position[None, :] + amount[:, None] * (to - here[None, :]))
        price = (column("unit_value") ** _FARE_POWER)[None, :]
        shortage = 0.5 * (missing + jnp.sqrt(missing**2 + _SOFTNESS**2)) * price
        drive = to @ (_COST_WEIGHT * column("unit_cost") + _TIME_WEIGHT * column("private_b"))
        loss = jnp.sum(shortage, axis=1) + amount * drive
        return jnp.argmin(jnp.where(observation.action_mask, loss, jnp.inf)).astype(jnp.int32)


# The heuristic's tuned constants.
_TARGET_PERIODS, _TARGET_FLOOR, _PIPELINE_WEIGHT, _SOFTNESS = 2.1, 0.17, 0.42, 0.43
_FARE_POWER, _COST_WEIGHT, _TIME_WEIGHT = 0.21, 1.5, 1.0
