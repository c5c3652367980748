"""Aircraft landing: in which order the arrivals of a bank land, under wake separation (Beasley et al. 2000).

A bank of n aircraft approaches. The controller fixes the landing order; landing times follow, as cheap as the order
allows. With E, T, L earliest, target and latest time [slots], h cost per slot late, g = early_ratio h, class c:

    c_i(t) = h_i max(t - T_i, 0) + g_i max(T_i - t, 0) + 9 h_i max(t - L_i, 0),   t >= E_i          cost [cost units]
    t_k >= t_{k-1} + round(phi S[c_{k-1}, c_k])      consecutive landings of one runway             separation [slots]
    charge = sum_i m_i c_i(t_i),   m_i = exp(sigma z_i - sigma^2 / 2),  z_i ~ N(0, 1)               what airlines report

Reward of a period is ``-charge / cost_scale``. What an airline's slot of delay costs, h_i = w_q of its airline q, and
the separation that pilots and weather really need, phi, are the task's secret; the timetable is public.
"""

from __future__ import annotations

import math
import os
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, data, sampling
from envs_jax.data import readers
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import aircraft_landing

SLOT = 10.0
"""Seconds of a slot of the sampled tasks."""
SEPARATION = ((96.0, 157.0, 196.0), (60.0, 69.0, 131.0), (60.0, 69.0, 82.0))
"""Seconds from a landing (row) to the next (column); classes heavy, large, small."""
DELAY = 24
"""Slots after a bank's last target in which the reference's search may still land aircraft."""
CLASS_MIX = (0.3, 0.5, 0.2)
WEIGHTS = (1.0, 30.0)
"""Range of w, cost units per slot late; log-uniform."""
INFLATION = (0.8, 1.4)
"""Range of phi; uniform."""
_MEAN_SEPARATION = float(np.array(CLASS_MIX) @ np.array(SEPARATION) @ np.array(CLASS_MIX)) / SLOT
_MEAN_WEIGHT = (WEIGHTS[1] - WEIGHTS[0]) / float(np.log(WEIGHTS[1] / WEIGHTS[0]))
# The heuristic's constants, the first tuned: trust in the last bank's charges; weight and separation expected without.
_TRUST, _PRIOR_WEIGHT, _PRIOR_INFLATION = 0.5, 5.0, 1.1


@struct.dataclass
class AirTrafficState(EnvState):
    """Attributes:
    position: ``i32[n]`` place of an aircraft in the landing order of this bank, -1 while it waits for one.
    runway: ``i32[n]`` runway it was given; 0 while it waits.
    airline_charge: ``f32[Q]`` what an airline's aircraft of the last bank were charged [cost units].
    airline_deviation: ``f32[Q]`` their late-equivalent slots, late + early_ratio early + 9 past-latest [slots].
    tightness: ``f32[]`` least ratio of time between landings to published separation in the last bank; 0 before.
    """

    position: chex.Array
    runway: chex.Array
    airline_charge: chex.Array
    airline_deviation: chex.Array
    tightness: chex.Array


@struct.dataclass
class AirTrafficParams(EnvParams):
    """The timetable, ``[P, n]``, each bank in the order of its targets, and what delay and separation come to.

    Attributes:
      earliest: ``f32[P, n]`` E, target: T, latest: L [slots]; whole numbers, else the reference is not exact.
      target: see ``earliest``.
      latest: see ``earliest``.
      wake: ``i32[P, n]`` class, an index of ``separation``.
      airline: ``i32[P, n]`` q.
      separation: ``f32[3, 3]`` S, published separation from a landing (row) to the next [slots].
      early_ratio: ``f32[]`` g / h.
      charge_noise: ``f32[]`` sigma.
      time_scale: ``f32[]`` slots that one unit of a time feature stands for.
      cost_scale: ``f32[]`` cost units that one unit of reward stands for.
      weight: ``f32[Q]`` w [cost units / slot late]. Hidden.
      inflation: ``f32[]`` phi. Hidden.
    """

    earliest: chex.Array
    target: chex.Array
    latest: chex.Array
    wake: chex.Array
    airline: chex.Array
    separation: chex.Array
    early_ratio: chex.Array
    charge_noise: chex.Array
    time_scale: chex.Array
    cost_scale: chex.Array
    weight: chex.Array
    inflation: chex.Array


class AirTraffic(ResourceEnv[AirTrafficState, AirTrafficParams]):
    """P banks of n arrivals; n turns, each appending one aircraft to the landing order, make a period.

    Action ``k R + r`` gives the k-th (from 0) of the waiting aircraft, in target order, the next landing on runway r.
    Only the first W waiting ones may be next, so action 0 for ever is first come, first served. After the last turn the
    bank lands, at the cheapest times of its order, and the reward is paid; on other turns it is 0.

    Tokens: n aircraft, then Q airlines, then the tower. With t_0 the bank's first target, T_w the first target of those
    that wait, and r of an airline what it was charged per late-equivalent slot in the last bank:

    ======== ============ ===============================================================================
    token    column       quantity
    ======== ============ ===============================================================================
    aircraft urgency      while it waits: slots late if it waited a bank's time more, T_w + ``time_scale`` - T
    aircraft slack        while it waits: T - T_w [``time_scale``], at most 1; then 1
    aircraft waiting      1 until it has a place in the order
    aircraft unit_value   its airline's log(1 + r) / log 31; 0 if that was on time
    aircraft decided      place in the order / n, 0 while it waits
    aircraft private_a    its airline, from -1 to 1
    aircraft private_b    T - t_0 [``time_scale``]
    aircraft private_c    T - E, how much earlier it could land [``time_scale``]
    aircraft private_d    while it waits: L - T_w [2 ``time_scale``], in [0, 1]
    aircraft private_e    class: heavy 1, large 2/3, small 1/3
    aircraft private_f    runway it was given, from 0 to 1; 0 while it waits; 0 by default, of one runway
    airline  waiting      share of the waiting aircraft that are its
    airline  unit_value   log(1 + r) / log 31; 0 if it was on time
    airline  private_a    which, from -1 to 1
    airline  private_b    late-equivalent slots of its aircraft in the last bank [``time_scale``]
    airline  private_c    what they were charged in the last bank [``cost_scale``]
    tower    level        share of the bank that has its place
    tower    unit_cost    early_ratio
    tower    is_turn      1
    tower    private_a    ``tightness``: observed / published separation, 0 before the first landing
    tower    private_b    charge_noise
    all      progress     share of the episode gone
    all      last_reward  charge of the last bank, negative [``cost_scale``], within [-10, 10]
    ======== ============ ===============================================================================

    Roles: aircraft ``demand``, airline ``market``, tower ``clock``. Features without bounds are clipped to [-10, 10].
    What an airline's slot costs is hidden, so urgency counts every slot alike. Every action serves its target, an
    aircraft, so that ``amount`` and ``signed`` are 1; there is no real no-op, the contract's is the first aircraft.

    ====== ============ =================================================================================
    action column       quantity
    ====== ============ =================================================================================
    all    private_a    k / W, the places it moves up
    all    private_b    runway, from 0 to 1; 0 by default, of one runway
    ====== ============ =================================================================================

    Shown: timetable, classes, airlines, early_ratio, sigma, published separations (through the classes). Hidden: w,
    which an airline's ``unit_value`` shows after a bank in which it was late, but for the noise; phi, which the
    ``tightness`` bounds.

    Key figures in ``info``: ``expected_reward`` with every m = 1; ``cost`` sum c_i (cost units); ``delay``,
    ``earliness`` (slots, summed over the bank); ``makespan`` last landing - t_0 (slots); ``position_shift`` mean
    distance between place in the order and place in the timetable.

    Invariants: every aircraft lands once, not before E; separations hold between consecutive landings; cost is linear
    in w and does not fall with phi for the same order; a second runway cannot cost more; aircraft may be renamed.

    Source: see ``envs_jax.references.aircraft_landing``; the class separations are those of H. Balakrishnan and
    B. Chandran, Operations Research 58(6), 2010 (as recorded in a public repository; paper not re-read). Airlines, the
    look-ahead window, banks and all ranges are choices made here.

    Usage::

        env, params = envs_jax.make("air_traffic")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_aircraft: n of a bank, 2 to 20; the reference needs at most 12. By default 8, with ``instance`` all of the
        file's; fewer are its first in the order of targets.
      num_periods: P, banks.
      num_airlines: Q, at least 2. By default 3, with ``instance`` more if it has more different costs per unit late.
      num_runways: R; the reference needs 1.
      window: W, at most n; ``num_aircraft`` is no limit. By default 6, or n if that is less.
      num_slots: H, slots after a bank's earliest E over which the reference searches; by default as many as banks of
        the tasks need, at least 176.
      instance: path of an OR-Library file (docs/own_data.md), which is every bank of the default task. Sampled tasks
        keep all that is shown and draw what is hidden.
    """

    name: ClassVar[str] = "air_traffic"
    hidden: ClassVar[tuple[str, ...]] = ("weight", "inflation")
    reward_unit: ClassVar[str] = "scaled delay cost"
    reference_kind: ClassVar[str] = "optimal"
    data_files: ClassVar[tuple[str, ...]] = ("instance",)

    def __init__(
        self,
        num_aircraft: int | None = None,
        num_periods: int = 8,
        num_airlines: int | None = None,
        num_runways: int = 1,
        window: int | None = None,
        num_slots: int | None = None,
        instance: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        record = None if instance is None else readers.load(self.name, "instance", instance, readers.landing.read)
        if record is None:
            num_aircraft = 8 if num_aircraft is None else num_aircraft
            num_airlines = 3 if num_airlines is None else num_airlines
        else:
            num_aircraft, num_airlines = record.sizes(self.name, num_aircraft, num_airlines)
        num_aircraft, num_periods, num_airlines, num_runways = checks.whole_numbers(
            self.name,
            num_aircraft=(num_aircraft, 2, 20),
            num_periods=(num_periods, 1, 10_000),
            num_airlines=(num_airlines, 2, 100),
            num_runways=(num_runways, 1, 20),
        )
        window = min(6, num_aircraft) if window is None else window
        window = checks.whole_number(self.name, "window", window, 2, num_aircraft)
        # A bank's targets are at most 12 slots after its first E and 20 apart; the rest is room for delay.
        needed = 12 + 20 * (num_aircraft - 1) + DELAY
        if record is not None:
            needed = max(needed, record.slots(num_aircraft, INFLATION[1]))
        if num_slots is None:
            num_slots = max(176, needed)
        num_slots = checks.whole_number(self.name, "num_slots", num_slots, needed, 4096)
        self.num_airlines = num_airlines
        self.num_runways = num_runways
        self.window = window
        self.num_slots = num_slots
        self.num_turns = num_aircraft
        self.num_periods = num_periods
        self.num_tokens = num_aircraft + num_airlines + 1
        self.num_actions = window * num_runways
        self.num_uniforms = num_aircraft
        self._record = record
        # What the heuristic takes for published, in units of a time feature.
        self._usual_separation = np.array(SEPARATION) / (SLOT * num_aircraft * _MEAN_SEPARATION)
        if record is not None:
            self._usual_separation = record.by_class()[1] / (num_aircraft * record.mean_separation)

    @property
    def default_params(self) -> AirTrafficParams:
        """The file's instance, or the first n aircraft of airland1 (n <= 10) or airland3; every bank the same."""
        if self._record is not None:
            return self._timetable(self._record)
        return self.instance(1 if self.num_turns <= 10 else 3)

    def instance(self, number: int) -> AirTrafficParams:
        """OR-Library's airland1 to airland4, its first n aircraft in target order, in every bank.

        An aircraft's class and its penalty (early = late) are one and the same thing in these files: 30 for the class
        with separation 8, 10 for the one with separation 3. They are the weights of the first two airlines.

        Raises:
          ValueError: for another number, too few aircraft in the file, or targets beyond ``num_slots``.
        """
        record = readers.landing.Landing(**data.airland(checks.whole_number(self.name, "number", number, 1, 4)))
        n = self.num_turns
        if n > len(record.target):
            allowed = f"at most {len(record.target)}, all aircraft of airland{number}"
            raise checks.refusal(self.name, "num_aircraft", allowed, str(n))
        span = math.ceil(record.target[:n].max() - record.earliest[:n].min())
        if span + DELAY > self.num_slots:
            allowed = f"at least {span + DELAY}, for the targets of airland{number}"
            raise checks.refusal(self.name, "num_slots", allowed, str(self.num_slots))
        return self._timetable(record)

    def _timetable(self, record: readers.landing.Landing) -> AirTrafficParams:
        """The first n aircraft of a record in every bank; each cost per unit late, from the highest on, an airline."""
        n = self.num_turns
        wake, separation = record.by_class()
        costs = np.unique(record.late)[::-1]
        weight = np.resize(costs[-1], self.num_airlines)
        weight[: len(costs)] = costs
        airline = np.searchsorted(-costs, -record.late)

        def banks(row: np.ndarray, dtype: jnp.dtype) -> chex.Array:
            return jnp.asarray(np.broadcast_to(row[:n], (self.num_periods, n)), dtype)

        return AirTrafficParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            earliest=banks(record.earliest, jnp.float32),
            target=banks(record.target, jnp.float32),
            latest=banks(record.latest, jnp.float32),
            wake=banks(wake, jnp.int32),
            airline=banks(airline, jnp.int32),
            separation=jnp.asarray(separation, jnp.float32),
            early_ratio=jnp.float32((record.early / record.late)[0]),
            charge_noise=jnp.float32(0.0),
            time_scale=jnp.float32(n * record.mean_separation),
            cost_scale=jnp.float32(n * record.mean_separation * record.late.mean()),
            weight=jnp.asarray(weight, jnp.float32),
            inflation=jnp.float32(1.0),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> AirTrafficParams:
        """One task: a timetable of P banks, airlines of very different cost, and a separation (docs give the reasons).

        Load rho ~ U(1, 2); gaps between targets ~ Exp(mean S / rho), at most 20; T - E ~ U{3..12}, L - T ~ U{60..120}
        slots; class mix .3, .5, .2; airlines equally likely; w ~ logU(1, 30) each; phi ~ U(.8, 1.4); g / h = .45,
        sigma = 1. With a file w and phi alone are drawn: the timetable is the file's.
        """
        p, n, q = self.num_periods, self.num_turns, self.num_airlines
        u = self.task_uniforms(key, split, 2 + q + 5 * p * n)
        rows = u[2 + q :].reshape(5, p, n)
        load = 1.0 + u[0]
        # A gap of 20 slots sets two aircraft apart anyhow; the cap bounds the grid that the reference searches.
        gaps = jnp.minimum(jnp.round(-jnp.log(rows[0]) * (_MEAN_SEPARATION / load)), 20.0).at[:, 0].set(0.0)
        target = 12.0 + jnp.cumsum(gaps, axis=-1)
        low, high = WEIGHTS
        drawn = AirTrafficParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            earliest=target - sampling.integers(rows[1], 3, 12).astype(jnp.float32),
            target=target,
            latest=target + sampling.integers(rows[2], 60, 120).astype(jnp.float32),
            wake=sampling.categorical(rows[3], jnp.cumsum(jnp.asarray(CLASS_MIX, jnp.float32))),
            airline=sampling.integers(rows[4], 0, q - 1),
            separation=jnp.asarray(SEPARATION, jnp.float32) / SLOT,
            early_ratio=jnp.float32(0.45),
            charge_noise=jnp.float32(1.0),
            time_scale=jnp.float32(n * _MEAN_SEPARATION),
            cost_scale=jnp.float32(n * _MEAN_SEPARATION * _MEAN_WEIGHT),
            weight=low * (high / low) ** u[2 : 2 + q],
            inflation=INFLATION[0] + (INFLATION[1] - INFLATION[0]) * u[1],
        )
        if self._record is None:
            return drawn
        kept = self.default_params.replace(charge_noise=drawn.charge_noise)
        return kept.replace(**{name: getattr(drawn, name) for name in self.hidden})

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: AirTrafficParams) -> AirTrafficState:
        """Everybody waits, nothing has been seen."""
        del uniforms, params
        n, q = self.num_turns, self.num_airlines
        return AirTrafficState(
            **self.clock(key),
            position=jnp.full((n,), -1, jnp.int32),
            runway=jnp.zeros((n,), jnp.int32),
            airline_charge=jnp.zeros((q,), jnp.float32),
            airline_deviation=jnp.zeros((q,), jnp.float32),
            tightness=jnp.float32(0.0),
        )

    def _bank(self, state: AirTrafficState) -> chex.Array:
        return jnp.minimum(self.period(state), self.num_periods - 1)

    def choose(
        self, state: AirTrafficState, turn: chex.Array, action: chex.Array, params: AirTrafficParams
    ) -> AirTrafficState:
        """Gives the next place in the order; of fewer waiting aircraft than asked for, the last takes it."""
        del params
        waiting = state.position < 0
        ahead = jnp.minimum(action // self.num_runways, self.num_turns - 1 - turn)
        chosen = waiting & (_rank(waiting) == ahead)
        return state.replace(
            position=jnp.where(chosen, turn, state.position),
            runway=jnp.where(chosen, action % self.num_runways, state.runway),
        )

    def _land(
        self, state: AirTrafficState, params: AirTrafficParams
    ) -> tuple[chex.Array, chex.Array, chex.Array, chex.Array]:
        """Landing times ``f32[n]`` and sums over the bank of the given order, by aircraft in the order of landing.

        Returns times, late-equivalent slots, aircraft numbers ``i32[n]``, and the tightness.
        """
        n, bank = self.num_turns, self._bank(state)
        at = state.position[None, :] == jnp.arange(n, dtype=jnp.int32)[:, None]
        order = jnp.argmax(at, axis=-1).astype(jnp.int32)
        earliest, target, latest, wake, airline = (
            x[bank][order] for x in (params.earliest, params.target, params.latest, params.wake, params.airline)
        )
        needed = jnp.round(params.inflation * params.separation)
        place = jnp.arange(n, dtype=jnp.int32)

        def on(runway: chex.Array) -> tuple[chex.Array, chex.Array]:
            here = state.runway[order] == runway
            before = jnp.max(jnp.where(here[None, :] & (place[None, :] < place[:, None]), place, -1), axis=-1)
            follows = here & (before >= 0)
            pair = wake[before], wake
            gap = jnp.where(follows, needed[pair], 0.0)
            late = jnp.where(here, params.weight[airline], 0.0)
            time, _ = aircraft_landing.landing_times(earliest, target, latest, late, params.early_ratio, gap)
            ratio = jnp.where(follows, (time - time[before]) / params.separation[pair], jnp.inf)
            return jnp.where(here, time, 0.0), jnp.min(ratio)

        times, ratios = jax.vmap(on)(jnp.arange(self.num_runways, dtype=jnp.int32))
        time = times.sum(0)
        deviation = aircraft_landing.deviation(time, target, latest, params.early_ratio)
        return time, deviation, order, jnp.minimum(jnp.min(ratios), 3.0)

    def advance(
        self, state: AirTrafficState, uniforms: chex.Array, params: AirTrafficParams
    ) -> tuple[AirTrafficState, chex.Array, dict[str, chex.Array]]:
        """The bank lands; uniform k drives what the k-th landing is charged; the next bank approaches."""
        time, deviation, order, tightness = self._land(state, params)
        bank = self._bank(state)
        airline, target = params.airline[bank][order], params.target[bank]
        cost = params.weight[airline] * deviation
        sigma = params.charge_noise
        charge = cost * jnp.exp(sigma * sampling.normal(uniforms) - 0.5 * sigma**2)
        whose = airline[None, :] == jnp.arange(self.num_airlines, dtype=jnp.int32)[:, None]
        late = time - target[order]
        reward = -jnp.sum(charge) / params.cost_scale
        info = {
            "expected_reward": -jnp.sum(cost) / params.cost_scale,
            "cost": jnp.sum(cost),
            "delay": jnp.sum(jnp.maximum(late, 0.0)),
            "earliness": jnp.sum(jnp.maximum(-late, 0.0)),
            "makespan": jnp.max(time) - target[0],
            "position_shift": jnp.mean(
                jnp.abs(order - jnp.arange(self.num_turns, dtype=jnp.int32)).astype(jnp.float32)
            ),
        }
        state = state.replace(
            position=jnp.full_like(state.position, -1),
            runway=jnp.zeros_like(state.runway),
            airline_charge=jnp.sum(whose.astype(jnp.float32) * charge[None, :], axis=-1),
            airline_deviation=jnp.sum(whose.astype(jnp.float32) * deviation[None, :], axis=-1),
            tightness=tightness,
        )
        return state, reward, info

    def observation(self, state: AirTrafficState, params: AirTrafficParams) -> Observation:
        """See the class docstring for the columns."""
        n, q, r, bank = self.num_turns, self.num_airlines, self.num_runways, self._bank(state)
        earliest, target, latest, wake, airline = (
            x[bank] for x in (params.earliest, params.target, params.latest, params.wake, params.airline)
        )
        waiting = state.position < 0
        rank = _rank(waiting)
        remaining = jnp.sum(waiting, dtype=jnp.int32)
        head = jnp.min(jnp.where(waiting, target, jnp.inf))
        unit = 1.0 / params.time_scale

        observed = state.airline_charge / jnp.maximum(state.airline_deviation, 1e-6)
        rate = bounded(jnp.log1p(observed) * jnp.float32(1.0 / np.log1p(WEIGHTS[1])))
        whose = airline[:, None] == jnp.arange(q, dtype=jnp.int32)[None, :]  # [n, Q]
        code = jnp.arange(q, dtype=jnp.float32) * (2.0 / (q - 1)) - 1.0
        runway_unit = 1.0 / max(r - 1, 1)
        common = {
            "progress": self.progress(state),
            "last_reward": bounded(state.last_reward),
        }
        away = jnp.clip((target - head) * unit, 0.0, 1.0)
        aircraft = {
            # A unit of time is what a bank takes to land.
            "urgency": jnp.where(waiting, 1.0 - away, 0.0),
            "slack": jnp.where(waiting, away, 1.0),
            "waiting": waiting,
            "unit_value": rate[airline],
            "decided": (state.position + 1).astype(jnp.float32) * (1.0 / n),
            "private_a": code[airline],
            "private_b": bounded((target - target[0]) * unit),
            "private_c": bounded((target - earliest) * unit),
            "private_d": jnp.where(waiting, jnp.clip(0.5 * (latest - head) * unit, 0.0, 1.0), 0.0),
            "private_e": 1.0 - wake.astype(jnp.float32) / 3.0,
            "private_f": state.runway.astype(jnp.float32) * runway_unit,
        }
        airlines = {
            "waiting": jnp.sum(whose & waiting[:, None], axis=0, dtype=jnp.int32) / jnp.maximum(remaining, 1),
            "unit_value": rate,
            "private_a": code,
            "private_b": bounded(state.airline_deviation * unit),
            "private_c": bounded(state.airline_charge / params.cost_scale),
        }
        tower = {
            "level": 1.0 - remaining / n,
            "unit_cost": params.early_ratio,
            "is_turn": 1.0,
            "private_a": state.tightness,
            "private_b": params.charge_noise,
        }
        ahead = jnp.repeat(jnp.arange(self.window, dtype=jnp.int32), r)
        legal = ahead < remaining
        which = waiting[None, :] & (rank[None, :] == ahead[:, None])
        onto = jnp.tile(jnp.arange(r, dtype=jnp.int32), self.window)
        return make_observation(
            tokens=[("demand", n, aircraft | common), ("market", q, airlines | common), ("clock", 1, tower | common)],
            actions={
                "amount": 1.0,
                "signed": 1.0,
                "private_a": ahead / self.window,
                "private_b": onto.astype(jnp.float32) * runway_unit,
            },
            action_target=jnp.where(legal, jnp.argmax(which, axis=-1).astype(jnp.int32), -1).astype(jnp.int32),
            action_mask=legal,
        )

    def solve(self, params: AirTrafficParams) -> chex.Array:
        """The optimal landing order of every bank, ``i32[P, n]`` place of each aircraft.

        Raises:
          ValueError: for several runways or more than 12 aircraft, for which no exact search is offered.
        """
        if self.num_runways > 1 or self.num_turns > 12:
            raise ValueError(
                f"num_runways = {self.num_runways}, num_aircraft = {self.num_turns}: the exact order is searched for "
                "with 1 runway and at most 12 aircraft"
            )
        needed = jnp.round(params.inflation * params.separation).astype(jnp.int32)

        def one(bank: tuple[chex.Array, ...]) -> chex.Array:
            earliest, target, latest, wake, airline = bank
            time = jnp.min(earliest) + jnp.arange(self.num_slots, dtype=jnp.float32)
            deviation = aircraft_landing.deviation(time, target[:, None], latest[:, None], params.early_ratio)
            cost = jnp.where(time[None, :] < earliest[:, None], jnp.inf, params.weight[airline][:, None] * deviation)
            order, _ = aircraft_landing.best_sequence(cost, wake, needed, self.window)
            return jnp.argsort(order).astype(jnp.int32)

        # One bank after another: the table of a bank is hundreds of kilobytes.
        return jax.lax.map(one, (params.earliest, params.target, params.latest, params.wake, params.airline))

    def reference_action(
        self, plan: chex.Array, state: AirTrafficState, params: AirTrafficParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The waiting aircraft that comes first in the optimal order, of those that may be next."""
        del params, key
        waiting = state.position < 0
        rank = _rank(waiting)
        place = jnp.where(waiting & (rank < self.window), plan[self._bank(state)], self.num_turns)
        return rank[jnp.argmin(place).astype(jnp.int32)].astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Roll-out of first come, first served: each candidate next, the rest in target order; the cheapest is taken.

        Landing times of the trial orders are exact for what the last bank suggests: an airline's weight is its observed
        charge per slot, drawn towards what is usual; separations are the published ones times the tightness observed.
        """
        del key
        n, column = self.num_turns, observation.column
        observed = jnp.expm1(column("unit_value")[:n] * jnp.float32(np.log1p(WEIGHTS[1])))
        trusted = _PRIOR_WEIGHT ** (1.0 - _TRUST) * jnp.maximum(observed, 0.1) ** _TRUST
        weight = jnp.where(observed > 0, trusted, _PRIOR_WEIGHT)
        tightness, early_ratio = column("private_a")[-1], column("unit_cost")[-1]
        inflation = jnp.where(tightness > 0, jnp.clip(tightness, *INFLATION), _PRIOR_INFLATION)
        needed = inflation * jnp.asarray(self._usual_separation, jnp.float32)
        due, early, place = (column(name)[:n] for name in ("private_b", "private_c", "decided"))
        wake = jnp.round(3.0 * (1.0 - column("private_e")[:n])).astype(jnp.int32)
        waiting = column("waiting")[:n] > 0
        rank = _rank(waiting)

        def trial(ahead: chex.Array) -> chex.Array:
            # Landed ones by place, then the candidate, then the others by target.
            sort_key = jnp.where(waiting, jnp.where(rank == ahead, 2.0, 3.0 + rank.astype(jnp.float32)), place)
            order = jnp.argsort(sort_key)
            gap = needed[wake[order][:-1], wake[order][1:]]
            target = due[order]
            _, cost = aircraft_landing.landing_times(
                target - early[order],
                target,
                target + 1e3,
                weight[order],
                early_ratio,
                jnp.concatenate([jnp.zeros((1,), jnp.float32), gap]),
            )
            return cost

        cost = jax.vmap(trial)(jnp.arange(self.window, dtype=jnp.int32))
        legal = observation.action_mask[:: self.num_runways]
        return (jnp.argmin(jnp.where(legal, cost, jnp.inf)).astype(jnp.int32) * self.num_runways).astype(jnp.int32)


def _rank(waiting: chex.Array) -> chex.Array:
    """How many waiting ones stand before each, ``i32[n]``."""
    return jnp.cumsum(waiting.astype(jnp.int32), dtype=jnp.int32) - waiting.astype(jnp.int32)
