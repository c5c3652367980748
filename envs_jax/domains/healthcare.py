"""Hospital ward overflow: which waiting patients to place in another specialty's ward (Dai and Shi 2019).

A hospital has W wards and W classes of patients; ward ``w`` is class ``w``'s own. A period is an *epoch*, E of them a
day. Patients of class j in ward w form ``X_jw``, waiting ones ``Q_j``. At the start of each epoch e, in this order:

    D_jw ~ Bin(X_jw, min(1, m_jw f_e)),  m_jw = mu_j if j = w else mu_j / kappa     discharges [patients]
    A_j  ~ Poisson(lambda_j g_e)                                                    arrivals [patients]
    k_j  = min(Q_j, free_j),   free_w = N_w - sum_j X_jw                            own beds never idle [patients]

Then W turns: ward w may take 1, 2 or 4 waiting patients of one other class, if it has beds. Then costs are charged:

    reward = -(sum_j h_j Q_j + sum_jw b_jw moved_jw)                                [cost units]

One unit is what a patient of weight h = 1 costs by waiting for one epoch. A patient moved has a bed at once, but takes
it from the ward's own patients of tomorrow, and stays longer there (kappa >= 1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.heuristics import healthcare as learning
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import bed_pools

BATCH = (1, 2, 4)  # patients that one choice can move
# Shares of a day by 3-hour epoch from midnight: discharges cluster from noon to six.
DISCHARGE_PROFILE = (0.0, 0.0, 0.05, 0.15, 0.35, 0.30, 0.10, 0.05)
ARRIVAL_PROFILE = (0.06, 0.05, 0.08, 0.15, 0.19, 0.18, 0.16, 0.13)

# Ranges of tasks, see docs/domains/healthcare.md for where they come from.
BEDS_RANGE = (8, 20)
STAY_RANGE = (3.6, 5.0)  # 1 / mu [days]
LOAD_RANGE = (0.7, 1.3)  # lambda / (N mu)
HOLDING_RANGE = (0.5, 2.0)  # h
OVERFLOW_RANGE = (2.0, 40.0)  # b, log-uniform
OFF_SERVICE = (1.0, 1.2)  # kappa, one of the two
PROFILE_JITTER = 0.3  # sd of the log of a task's profiles around the two above
START_LOAD = 0.9  # of the beds, public

MAX_WAITING = 63  # patients of a class; more are turned away
POOL_QUEUE = 28  # waiting patients up to which a pool's value is computed, more in long episodes; then it is constant
MOVES = 8  # later moves of the same epoch that the reference reckons with
# What the observation shows as 1: patients, b, h, cost of an epoch.
PATIENTS, OVERFLOW_SCALE, HOLDING_SCALE, REWARD_SCALE = 8.0, 40.0, 2.0, 10.0


@struct.dataclass
class HealthcareState(EnvState):
    """Attributes:
    waiting: ``i32[W]`` Q [patients].
    in_ward: ``i32[W, W]`` X, class by ward [patients].
    moved: ``i32[W, W]`` placed in another ward so far in this epoch, class by ward [patients].
    arrived: ``i32[W]`` A of this epoch [patients].
    discharged: ``i32[W, W]`` D of this epoch, class by ward [patients].
    moved_before: ``i32[W, W]`` placed in another ward in the last epoch [patients].
    charged: ``f32[W, W]`` what that cost [cost units].
    """

    waiting: chex.Array
    in_ward: chex.Array
    moved: chex.Array
    arrived: chex.Array
    discharged: chex.Array
    moved_before: chex.Array
    charged: chex.Array


@struct.dataclass
class HealthcareParams(EnvParams):
    """Attributes:
    beds: ``i32[W]`` N, at most ``max_beds``.
    start_census: ``f32[W]`` patients expected at the start; their number is Poisson, at most N.
    holding_cost: ``f32[W]`` h [cost per waiting patient and epoch].
    overflow_cost: ``f32[W, W]`` b, class by ward [cost per patient]; diagonal 0. Hidden, felt in the charges.
    arrival_rate: ``f32[W]`` lambda [patients/day]. Hidden.
    discharge_rate: ``f32[W]`` mu, one over the mean stay in the own ward [1/day]. Hidden.
    off_service: ``f32[]`` kappa, how much longer patients stay in another ward. Hidden.
    discharge_profile: ``f32[E]`` f, share of a day's discharges in each epoch. Hidden.
    arrival_profile: ``f32[E]`` g, share of a day's arrivals in each epoch. Hidden.
    arrival_cdf: ``f32[E, W, max_arrivals + 1]`` law of A. Hidden, derived.
    """

    beds: chex.Array
    start_census: chex.Array
    holding_cost: chex.Array
    overflow_cost: chex.Array
    arrival_rate: chex.Array
    discharge_rate: chex.Array
    off_service: chex.Array
    discharge_profile: chex.Array
    arrival_profile: chex.Array
    arrival_cdf: chex.Array


class Healthcare(ResourceEnv[HealthcareState, HealthcareParams]):
    """W wards; on turn w ward w takes patients of one other class, or none.

    Action 0 takes nobody; action ``1 + 3 j + a`` moves (1, 2, 4)[a] waiting patients of class j into the ward in turn.
    Illegal: its own class (admitted by itself), more patients than wait, more than it has free beds.

    Patients are shown in units of 8.

    ====== =========== ===========================================================================================
    token  column      quantity
    ====== =========== ===========================================================================================
    class  urgency     h Q: what the waiting patients of the class cost per epoch
    class  slack       free beds of its own ward / N
    class  level       patients of the class in any bed / N of its own ward
    class  outflow     patients of the class discharged at the start of this epoch [8]
    class  waiting     Q, patients of the class waiting [8]
    class  unit_cost   overflow cost per patient sent in the last epoch, 0 if none [40 cost units]
    class  unit_value  h: what a waiting patient costs per epoch [2 cost units]
    class  decided     patients sent so far in this epoch [8]
    class  private_a   N of its own ward [max_beds]
    class  private_b   arrivals at the start of this epoch [8]
    ward   slack       free beds / N
    ward   level       occupied beds / N
    ward   capacity    N
    ward   outflow     patients discharged from it at the start of this epoch [8]
    ward   waiting     patients of its own class waiting [8]
    ward   unit_cost   overflow cost per patient received in the last epoch, 0 if none [40 cost units]
    ward   unit_value  h of its own class [2 cost units]
    ward   is_turn     1 if its choice is being made
    ward   decided     minus patients received so far in this epoch [8]
    ward   private_a   N [max_beds]
    ward   private_b   arrivals of its own class at the start of this epoch [8]
    ward   private_c   beds occupied by patients of other classes / N
    all    cycle_sin   time of day
    all    cycle_cos   time of day
    all    progress    share of the episode gone
    all    last_reward cost of the last epoch [-10 cost units]
    ====== =========== ===========================================================================================

    Roles: W classes ``demand``, W wards ``supplier``, then the clock ``clock``. Features without bounds are cut at 10.
    A move's target is the class, whose wait it ends; the target of taking nobody is the ward in turn.

    ====== =========== ===========================================================================================
    action column      quantity
    ====== =========== ===========================================================================================
    all    is_noop     1 for taking nobody
    all    amount      patients moved [4]
    all    signed      the same
    all    private_a   own patients that wait for the ward in turn [8], at most 1
    all    private_b   its free beds / N
    ====== =========== ===========================================================================================

    Shown: N, h, all patients. Hidden: b, felt in ``unit_cost`` of the two tokens concerned and in the reward; arrivals
    (``private_b``) and discharges (``outflow``) with their profiles over the day; kappa (``outflow`` against
    ``private_c``).

    Invariants: patients are conserved; ward w holds at most N_w; an own patient never waits beside a free bed; moving
    adds no patient; permuting the pairs (class, ward) permutes the tokens.

    Sources: J. G. Dai, P. Shi, "Inpatient overflow: an approximate dynamic programming approach", M&SOM 21(4), 2019
    (model; recalled, not re-read); J. Sun, P. Shi, J. G. Dai, "Inpatient Overflow Management with Proximal Policy
    Optimization", arXiv 2410.13767 (one placement after another; abstract read).

    Args:
      num_wards: W, from 1 (no decision, a single queue) to 10.
      num_days: days of an episode.
      epochs_per_day: E.
      max_beds: most beds of a ward.
      max_arrivals: end of the tables of arrivals [patients/epoch]; by default 15 or what the busiest task needs.
    """

    name: ClassVar[str] = "healthcare"
    hidden: ClassVar[tuple[str, ...]] = (
        "overflow_cost",
        "arrival_rate",
        "discharge_rate",
        "off_service",
        "discharge_profile",
        "arrival_profile",
        "arrival_cdf",
    )
    ingredients: ClassVar[tuple[str, ...]] = ("arrival_rate", "arrival_profile")
    reward_unit: ClassVar[str] = "patient-epochs of waiting"
    reference_kind: ClassVar[str] = "heuristic"
    rule: ClassVar[learning.Rule] = learning.Rule(assumed=13.0, curiosity=0.5, saving=0.95, burden=1.3)
    exceptions: ClassVar[Mapping[str, str]] = {
        "serving_the_urgent_pays": "A placement costs 2 to 40, a wait .5 to 2 an epoch: random placements cost more "
        "than the waits that they end.",
        "the_reference_serves_the_urgent": "The reference places few patients, and by hidden costs; chance, whose "
        "choices grow with the queue, places most of the longest.",
    }

    def __init__(
        self,
        num_wards: int = 4,
        num_days: int = 4,
        epochs_per_day: int = 8,
        max_beds: int = 20,
        max_arrivals: int | None = None,
    ) -> None:
        super().__init__()
        num_wards, num_days, epochs_per_day, max_beds = checks.whole_numbers(
            self.name,
            num_wards=(num_wards, 1, 10),
            num_days=(num_days, 1, 10_000),
            epochs_per_day=(epochs_per_day, 1, 1440),
            max_beds=(max_beds, 1, 64),
        )
        # The busiest ward of a task: arrivals a day, and at most in an epoch with a profile that peaks by four standard
        # deviations of its jitter.
        busiest = LOAD_RANGE[1] * min(max_beds, BEDS_RANGE[1]) / STAY_RANGE[0]
        peak = max(ARRIVAL_PROFILE) if epochs_per_day == len(ARRIVAL_PROFILE) else 1.0 / epochs_per_day
        peak *= math.exp(4.0 * PROFILE_JITTER)
        peak /= peak + 1.0 - peak * math.exp(-4.0 * PROFILE_JITTER)
        fewest = checks.poisson_quantile(busiest * peak, 1.0 - checks.TAIL)
        if max_arrivals is None:
            max_arrivals = max(15, fewest)
        max_arrivals = checks.whole_number(self.name, "max_arrivals", max_arrivals, fewest, 63)
        # Queues that a task's reference looks at: those of a short episode, or what a longer one at the largest load
        # lets grow, three and a half standard deviations included.
        surplus = busiest * (1.0 - 1.0 / LOAD_RANGE[1]) * num_days
        grown = math.ceil(surplus + 3.5 * math.sqrt(busiest * num_days))
        self.pool_size = max_beds + min(max(POOL_QUEUE, grown), MAX_WAITING + 1)
        epochs = {"num_days": num_days, "epochs_per_day": epochs_per_day, "num_wards": num_wards}
        checks.product(self.name, epochs | {"censuses": self.pool_size}, 2**28)
        self.num_wards = self.num_turns = self.num_reset_uniforms = num_wards
        self.epochs_per_day, self.max_beds, self.max_arrivals = epochs_per_day, max_beds, max_arrivals
        self.num_periods = num_days * epochs_per_day
        self.num_tokens = 2 * num_wards + 1
        self.num_actions = 1 + len(BATCH) * num_wards
        self.num_uniforms = num_wards * num_wards + num_wards
        # Class and number of patients of each action; action 0 moves nobody.
        self.sender = np.append(0, np.repeat(np.arange(num_wards), len(BATCH))).astype(np.int32)
        self.size = np.append(0, np.tile(BATCH, num_wards)).astype(np.int32)

    def instance(self, **fields: chex.Numeric) -> HealthcareParams:
        """The nominal hospital with other values of some fields; a scalar stands for all wards or epochs.

        Nominal: equal wards at load .9, a mean stay of 4.3 days, the middle of the ranges; overflow costs 15.

        Raises:
          ValueError: for an unknown field, values that are no such quantities, or arrivals that do not fit the tables
            of ``max_arrivals``.
        """
        self._check_instance(fields)
        w, e = self.num_wards, self.epochs_per_day
        profiles = (DISCHARGE_PROFILE, ARRIVAL_PROFILE) if e == len(DISCHARGE_PROFILE) else ((1.0 / e,) * e,) * 2
        beds = jnp.broadcast_to(jnp.asarray(fields.get("beds", min(14, self.max_beds)), jnp.int32), (w,))
        nominal = {
            "beds": beds,
            "start_census": START_LOAD * beds.astype(jnp.float32),
            "holding_cost": jnp.ones((w,), jnp.float32),
            "overflow_cost": jnp.full((w, w), 15.0, jnp.float32),
            "arrival_rate": 0.9 * beds.astype(jnp.float32) / 4.3,
            "discharge_rate": jnp.full((w,), 1.0 / 4.3, jnp.float32),
            "off_service": jnp.float32(1.1),
            "discharge_profile": jnp.asarray(profiles[0], jnp.float32),
            "arrival_profile": jnp.asarray(profiles[1], jnp.float32),
        }
        given = {
            name: jnp.broadcast_to(jnp.asarray(fields.get(name, value), value.dtype), value.shape)
            for name, value in nominal.items()
        }
        given["overflow_cost"] *= 1.0 - jnp.eye(w, dtype=jnp.float32)
        law = self._law(given["arrival_rate"], given["arrival_profile"])
        return HealthcareParams(max_steps_in_episode=jnp.int32(self.horizon), arrival_cdf=law, **given)

    def _check_instance(self, fields: Mapping[str, object]) -> None:
        """Refuses what is no hospital, and arrivals that the tables of this environment would cut."""
        w, e = (self.num_wards,), (self.epochs_per_day,)
        wards = {"shape": w, "per": "one a ward", "scalar": True}
        epochs = {"shape": e, "per": "one an epoch of a day", "scalar": True}
        allowed: dict[str, dict[str, Any]] = {
            "beds": {"low": 1, "high": self.max_beds, "whole": True, **wards},
            "start_census": {"low": 0.0, "high": 1e3, **wards},
            "holding_cost": {"low": 0.0, **wards},
            "overflow_cost": {"low": 0.0, "shape": w * 2, "per": "by class and ward", "scalar": True},
            "arrival_rate": {"low": 0.0, "high": 1e4, **wards},
            "discharge_rate": {"low": 0.0, "above": True, **wards},
            "off_service": {"low": 0.0, "above": True},
            "discharge_profile": {"low": 0.0, "high": 1.0, **epochs},
            "arrival_profile": {"low": 0.0, "high": 1.0, **epochs},
        }
        checks.known(f"{self.name}.instance", fields, allowed)
        found = {name: checks.numbers(self.name, name, value, **allowed[name]) for name, value in fields.items()}
        beds = found.get("beds", np.asarray(min(14.0, self.max_beds)))
        usual = None if beds is None else np.asarray(0.9 * beds / 4.3)
        rate = found.get("arrival_rate", usual)
        nominal = max(ARRIVAL_PROFILE) if e == (len(ARRIVAL_PROFILE),) else 1.0 / e[0]
        share = found.get("arrival_profile", np.asarray(nominal))
        if rate is not None and share is not None:
            peak = float(rate.max() * share.max())
            checks.poisson_table(self.name, "arrival_rate x arrival_profile", peak, self.max_arrivals, "max_arrivals")

    def _law(self, rate: chex.Array, profile: chex.Array) -> chex.Array:
        return sampling.poisson_cdf(profile[:, None] * rate[None, :], self.max_arrivals + 1)

    @property
    def default_params(self) -> HealthcareParams:
        """The nominal hospital."""
        return self.instance()

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> HealthcareParams:
        """One task; all draws independent and uniform, profiles log-normal around the nominal ones."""
        w, e = self.num_wards, self.epochs_per_day
        u = self.task_uniforms(key, split, 4 * w + w * w + 1 + 2 * e)
        by_ward, pairs, rest = u[: 4 * w].reshape(4, w), u[4 * w : 4 * w + w * w], u[4 * w + w * w :]

        def between(limits: tuple[float, float], uniform: chex.Array) -> chex.Array:
            return limits[0] + (limits[1] - limits[0]) * uniform

        nominal, low, high = self.default_params, *OVERFLOW_RANGE
        beds = jnp.minimum(sampling.integers(by_ward[0], *BEDS_RANGE), self.max_beds)
        discharge_rate = 1.0 / between(STAY_RANGE, by_ward[1])
        jitter = jnp.exp(PROFILE_JITTER * sampling.normal(rest[1:])).reshape(2, e)
        profiles = jnp.stack([nominal.discharge_profile, nominal.arrival_profile]) * jitter
        discharge, arrive = profiles / profiles.sum(1, keepdims=True)
        return self.instance(
            beds=beds,
            holding_cost=between(HOLDING_RANGE, by_ward[3]),
            overflow_cost=jnp.exp(between((math.log(low), math.log(high)), pairs)).reshape(w, w),
            arrival_rate=between(LOAD_RANGE, by_ward[2]) * beds.astype(jnp.float32) * discharge_rate,
            discharge_rate=discharge_rate,
            off_service=jnp.where(rest[0] < 0.5, *OFF_SERVICE),
            discharge_profile=discharge,
            arrival_profile=arrive,
        )

    def average_task(self, params: HealthcareParams, population: HealthcareParams) -> HealthcareParams:
        """Means; arrivals at the mean *load* of the beds shown, a better guess than the mean arrivals."""
        load = jnp.mean(population.arrival_rate / (population.beds.astype(jnp.float32) * population.discharge_rate))
        params = super().average_task(params, population)
        rate = load * params.beds.astype(jnp.float32) * params.discharge_rate
        return params.replace(arrival_rate=rate, arrival_cdf=self._law(rate, params.arrival_profile))

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: HealthcareParams) -> HealthcareState:
        """Midnight: own patients in the beds, nobody waits."""
        w = self.num_wards
        law = sampling.poisson_cdf(params.start_census, self.max_beds + 1)
        census = jnp.minimum(sampling.categorical(uniforms, law), params.beds)
        none = jnp.zeros((w, w), jnp.int32)
        return HealthcareState(
            **self.clock(key),
            waiting=jnp.zeros((w,), jnp.int32),
            in_ward=census[:, None] * jnp.eye(w, dtype=jnp.int32),
            moved=none,
            arrived=jnp.zeros((w,), jnp.int32),
            discharged=none,
            moved_before=none,
            charged=jnp.zeros((w, w), jnp.float32),
        )

    def choose(
        self, state: HealthcareState, turn: chex.Array, action: chex.Array, params: HealthcareParams
    ) -> HealthcareState:
        """Moves patients into the ward in turn, as many as wait and find a bed."""
        wards = jnp.arange(self.num_wards, dtype=jnp.int32)
        patients, ward = jnp.asarray(self.sender)[action], (wards == turn).astype(jnp.int32)
        sender = ((wards == patients) & (wards != turn)).astype(jnp.int32)
        free = jnp.sum(ward * (params.beds - state.in_ward.sum(0, dtype=jnp.int32)), dtype=jnp.int32)
        number = jnp.minimum(
            jnp.asarray(self.size)[action], jnp.minimum(jnp.sum(sender * state.waiting, dtype=jnp.int32), free)
        )
        moved = number * sender[:, None] * ward[None, :]
        return state.replace(
            waiting=state.waiting - number * sender, in_ward=state.in_ward + moved, moved=state.moved + moved
        )

    def advance(
        self, state: HealthcareState, uniforms: chex.Array, params: HealthcareParams
    ) -> tuple[HealthcareState, chex.Array, dict[str, chex.Array]]:
        """Charges, then the next epoch starts. W*W uniforms drive discharges (class by ward), the other W arrivals.

        Key figures: ``waiting`` (after the decisions), ``overflowed``, ``in_beds``, ``off_service`` (in another ward's
        beds), ``free_beds``; ``arrived``, ``discharged``, ``dropped`` at the start of the next epoch [patients];
        ``holding_cost``, ``overflow_cost`` [cost units].
        """
        w = self.num_wards
        holding = jnp.sum(params.holding_cost * state.waiting.astype(jnp.float32))
        charged = params.overflow_cost * state.moved.astype(jnp.float32)
        overflow = jnp.sum(charged)
        epoch = (self.period(state) + 1) % self.epochs_per_day
        chance = jnp.minimum(self._leaving(params) * params.discharge_profile[epoch], 1.0)
        discharged = sampling.binomial(uniforms[: w * w].reshape(w, w), state.in_ward, chance, self.max_beds)
        arrived = sampling.categorical(uniforms[w * w :], params.arrival_cdf[epoch])
        stayed = state.in_ward - discharged
        asking = state.waiting + arrived
        admitted = jnp.minimum(asking, params.beds - stayed.sum(0, dtype=jnp.int32))
        left = asking - admitted
        waiting = jnp.minimum(left, MAX_WAITING)
        total = state.in_ward.sum(dtype=jnp.int32)
        figures = {
            "waiting": state.waiting.sum(dtype=jnp.int32),
            "overflowed": state.moved.sum(dtype=jnp.int32),
            "in_beds": total,
            "off_service": total - jnp.trace(state.in_ward, dtype=jnp.int32),
            "free_beds": params.beds.sum(dtype=jnp.int32) - total,
            "arrived": arrived.sum(dtype=jnp.int32),
            "discharged": discharged.sum(dtype=jnp.int32),
            "dropped": jnp.sum(left - waiting, dtype=jnp.int32),
            "holding_cost": holding,
            "overflow_cost": overflow,
        }
        following = state.replace(
            waiting=waiting,
            in_ward=stayed + admitted[:, None] * jnp.eye(w, dtype=jnp.int32),
            moved=jnp.zeros_like(state.moved),
            arrived=arrived,
            discharged=discharged,
            moved_before=state.moved,
            charged=charged,
        )
        return following, -(holding + overflow), {name: jnp.float32(value) for name, value in figures.items()}

    def _leaving(self, params: HealthcareParams) -> chex.Array:
        """Discharge rates ``f32[W, W]`` m, class by ward [1/day]."""
        return params.discharge_rate[:, None] / jnp.where(jnp.eye(self.num_wards, dtype=bool), 1.0, params.off_service)

    def observation(self, state: HealthcareState, params: HealthcareParams) -> Observation:
        """See the class docstring for the columns."""
        w, turn = self.num_wards, self.turn(state)
        wards = jnp.arange(w, dtype=jnp.int32)
        occupied = state.in_ward.sum(0, dtype=jnp.int32)
        free = params.beds - occupied
        phase = 2.0 * jnp.pi * (self.period(state) % self.epochs_per_day).astype(jnp.float32) / self.epochs_per_day
        common = {
            "cycle_sin": jnp.sin(phase),
            "cycle_cos": jnp.cos(phase),
            "progress": self.progress(state),
            "last_reward": bounded(state.last_reward / REWARD_SCALE),
        }
        waiting = bounded(state.waiting.astype(jnp.float32) / PATIENTS)
        slack = free / params.beds
        both = {
            "slack": slack,
            "waiting": waiting,
            "unit_value": bounded(params.holding_cost / HOLDING_SCALE),
            "private_a": params.beds / self.max_beds,
            "private_b": bounded(state.arrived.astype(jnp.float32) / PATIENTS),
            **common,
        }

        def flows(axis: int, sign: float) -> dict[str, chex.Array]:
            """Of the classes (axis 1, over wards; relieved) or of the wards (axis 0, over classes; loaded)."""
            charged, moved = state.charged.sum(axis), state.moved_before.sum(axis, dtype=jnp.int32)
            return {
                "outflow": bounded(state.discharged.sum(axis, dtype=jnp.int32).astype(jnp.float32) / PATIENTS),
                "unit_cost": bounded(charged / jnp.maximum(moved, 1).astype(jnp.float32) / OVERFLOW_SCALE),
                "decided": bounded(sign * state.moved.sum(axis, dtype=jnp.int32).astype(jnp.float32) / PATIENTS),
            }

        patients = {
            **both,
            **flows(1, 1.0),
            "urgency": params.holding_cost * state.waiting.astype(jnp.float32),
            "level": bounded(state.in_ward.sum(1, dtype=jnp.int32) / params.beds),
        }
        rooms = {
            **both,
            **flows(0, -1.0),
            "level": occupied / params.beds,
            "capacity": params.beds,
            "is_turn": wards == turn,
            "private_c": (occupied - jnp.diagonal(state.in_ward)) / params.beds,
        }
        amount = self.size / max(BATCH)
        moving = self.size > 0
        return make_observation(
            tokens=[("demand", w, patients), ("supplier", w, rooms), ("clock", 1, common)],
            actions={
                "is_noop": ~moving,
                "amount": amount,
                "signed": amount,
                "private_a": jnp.minimum(waiting[turn], 1.0),
                "private_b": slack[turn],
            },
            action_target=jnp.where(moving, self.sender, w + turn).astype(jnp.int32),
            action_mask=self.legal(turn, state.waiting, free[turn]),
        )

    def solve(self, params: HealthcareParams) -> chex.Array:
        """Cost to go ``f32[P, W, S]`` of each ward and its class by period and census, were nobody moved."""
        chance = jnp.minimum(params.discharge_profile[:, None] * params.discharge_rate[None, :], 1.0)
        arrivals = params.arrival_profile[:, None] * params.arrival_rate[None, :]
        pools = bed_pools.Pools(params.beds, chance, arrivals, params.holding_cost)
        return bed_pools.values(pools, self.num_periods, self.pool_size, self.max_beds)

    def reference_action(
        self, plan: chex.Array, state: HealthcareState, params: HealthcareParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The choice after which the wards still to come can do best, on the values of the separate pools."""
        del key
        turn = self.turn(state)
        value = plan[jnp.minimum(self.period(state), self.num_periods - 1)]
        burden = params.discharge_rate[None, :] / self._leaving(params)
        occupied = state.in_ward.sum(0, dtype=jnp.int32)
        free = params.beds - occupied
        later = jnp.where(jnp.arange(self.num_wards, dtype=jnp.int32) > turn, free, 0)
        world = (state.waiting, later, state.waiting + occupied, params.overflow_cost, burden)
        choices = (jnp.asarray(self.sender), turn, jnp.asarray(self.size))
        cost = bed_pools.placement_costs(value, *world, choices, MOVES)
        legal = self.legal(turn, state.waiting, free[turn])
        return jnp.argmin(jnp.where(legal, cost, jnp.inf)).astype(jnp.int32)

    @functools.cached_property
    def _usual_values(self) -> np.ndarray:
        """Values of pools of all sizes in the average hospital, see :func:`learning.pool_values`."""
        load, stay = sum(LOAD_RANGE) / 2.0, sum(STAY_RANGE) / 2.0
        profiles = (np.asarray(DISCHARGE_PROFILE), np.asarray(ARRIVAL_PROFILE))
        if self.epochs_per_day != len(DISCHARGE_PROFILE):
            profiles = (np.full(self.epochs_per_day, 1.0 / self.epochs_per_day),) * 2
        num_days = self.num_periods // self.epochs_per_day
        return learning.pool_values(load, stay, profiles, num_days, self.pool_size, self.max_beds)

    def heuristic_start(self) -> learning.Memory:
        """No overflow cost is known."""
        return learning.start(self.num_wards)

    def heuristic_step(
        self, memory: learning.Memory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, learning.Memory]:
        """The rule of :mod:`envs_jax.heuristics.healthcare`, which learns the overflow costs from charges."""
        return self.heuristic_by(self.rule, memory, observation, key)

    def heuristic_by(
        self, rule: learning.Rule, memory: learning.Memory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, learning.Memory]:
        """:meth:`heuristic_step` with other constants."""
        del key
        column, w = observation.column, self.num_wards

        def whole(x: chex.Array) -> chex.Array:
            return jnp.round(x).astype(jnp.int32)

        beds, waiting = whole(self.max_beds * column("private_a")[:w]), whole(PATIENTS * column("waiting")[:w])
        free = whole(column("slack")[w : 2 * w] * beds.astype(jnp.float32))
        turn = jnp.argmax(column("is_turn")[w : 2 * w]).astype(jnp.int32)
        progress, wards = column("progress")[0], jnp.arange(w, dtype=jnp.int32)
        period = jnp.floor(progress * self.num_periods + 0.5 / w).astype(jnp.int32)
        seen = learning.epoch_seen(memory, OVERFLOW_SCALE * column("unit_cost")[w : 2 * w])
        memory = jax.tree.map(lambda new, old: jnp.where(turn == 0, new, old), seen, memory)
        value = learning.value_now(self._usual_values, period, self.num_periods, self.epochs_per_day, beds)
        value *= HOLDING_SCALE * column("unit_value")[:w, None]
        world = (turn, waiting, jnp.where(wards > turn, free, 0), waiting + beds - free)
        choices = (jnp.asarray(self.sender), jnp.asarray(self.size))
        legal = observation.action_mask
        action = learning.choice(rule, memory, value, world, legal, 1.0 - progress, choices, OVERFLOW_RANGE, MOVES)
        patients = jnp.where(choices[1] > 0, choices[0], -1)[action]
        return action, learning.placed(memory, turn, patients)

    def legal(self, turn: chex.Array, waiting: chex.Array, free: chex.Array) -> chex.Array:
        """Which actions are: nobody, or patients of another class as far as they wait and find beds. ``bool[A]``."""
        possible = jnp.minimum(waiting, free)[self.sender]
        return (self.size == 0) | ((self.sender != turn) & (self.size <= possible))
