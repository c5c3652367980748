"""Smart city: coordinated traffic signals on a 2 x 2 grid (store-and-forward queues, Varaiya 2013).

Every slot of ten seconds each of four intersections gives green to one of four phases; queues discharge at their
saturation flow, vehicles turn, leave the grid or join the next queue, and new ones arrive from outside.

Equations (units; ``m`` a movement, i.e. the queue of one approach for one turning lane; slots t = 0, 1, ..):

    c_m = floor(s_m (1 - lost [phase switched]) + U)       capacity of a green movement [vehicles/slot], U uniform
    served_m = min(x_m, c_m) if m is green, else 0         [vehicles]
    right ~ Bin(served, right_share)                       of a through lane; the others go straight, left lanes left
    left ~ Bin(joining, left_share)                        of those who join an approach; also of arrivals from outside
    arrivals ~ Poisson(demand of the side)                 at each of the eight approaches from outside [vehicles/slot]
    x_m' = x_m - served_m + joined_m + arrived_m           nobody passes two intersections in a slot
    reward = -(1/32) sum_m o_m x_m'                        persons waiting per movement [person-slots]

By Little's law the sum of queues is the delay. With occupancy ``o = 1`` it is that of vehicles (the faithful instance);
otherwise that of persons, as in occupancy-weighted max-pressure control.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, sampling
from envs_jax.arrays import vary_like
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import grid, max_pressure

GRID, PHASES, MOVEMENTS = 4, 4, 32
"""Intersections, phases of each, movements of all."""
PLAN = (0, 0, 0, 1, 2, 2, 2, 3)
"""The fixed-time plan: phase by slot of its cycle. Odd intersections run half a cycle later (north-south in step)."""
QUEUE_SCALE = 20.0
"""Vehicles that the observation shows as 1."""
FLOW_SCALE = 10.0
"""Vehicles per slot that the observation shows as 1."""
REWARD_SCALE = 8.0
"""Person-slots per movement that ``last_reward`` shows as 1."""
HALF_SLACK = 10.0
"""Vehicles waiting at which a phase's ``slack`` is one half."""
RED_SCALE = 16.0
"""Slots without green that ``age`` shows as 1."""
NOMINAL_SATURATION, NOMINAL_LOST = 4.75, 0.4  # what the heuristic assumes: the middle of the tasks' ranges
HEURISTIC = max_pressure.Rule(exponent=0.5, downstream=0.0, hysteresis=0.3, look_ahead=1.0, fixed=0.0)
CANDIDATES = (
    (0.0, 0.0, 0.0, 0.0, 1.0),
    *((1.0, 1.0, hysteresis, 0.0, 0.0) for hysteresis in (0.3, 1.0, 2.0)),
    *((exponent, downstream, 0.3, 1.0, 0.0) for exponent in (0.5, 1.0) for downstream in (0.0, 0.5, 1.0)),
)
"""Rules that the reference chooses from: the plan, max-pressure with hysteresis, look-ahead rules."""
_PLANNING_SEED, _PLANNING_EPISODES = 20130, 6  # the simulations that choose; no episode's key is made like theirs
MOST_ARRIVALS, MOST_SERVED = 14, 8  # ends of the inversions: arrivals of a movement in a slot, vehicles that turn

_OFFSET = np.array([0, len(PLAN) // 2] * 2)
_CYCLE = 2.0 * np.pi * np.arange(len(PLAN)) / len(PLAN)


@struct.dataclass
class SmartCityState(EnvState):
    """Intersections ``i`` and sides ``r`` are numbered clockwise, see :class:`SmartCity`.

    Attributes:
      queue: ``i32[4, 4, 2]`` vehicles waiting at intersection, side and lane (0 through and right, 1 left).
      green: ``i32[4]`` phase that was green in the last slot.
      chosen: ``i32[4]`` phase chosen for this slot; ``green`` until chosen.
      red: ``i32[4, 4]`` slots since each phase was last green.
      served: ``i32[4, 4]`` vehicles that each phase let pass in the last slot.
      joined: ``i32[4, 4]`` vehicles that joined the queues of each phase in the last slot.
    """

    queue: chex.Array
    green: chex.Array
    chosen: chex.Array
    red: chex.Array
    served: chex.Array
    joined: chex.Array


@struct.dataclass
class SmartCityParams(EnvParams):
    """A task.

    Attributes:
      start_queue: ``i32[]`` each queue starts uniform on 0 .. this [vehicles]. Not shown, not informative.
      demand: ``f32[4]`` arrivals at each of a side's two approaches, by side N, E, S, W [vehicles/slot]. Hidden.
      left_share: ``f32[]`` share of vehicles that turn left, in (0, 1). Hidden.
      right_share: ``f32[]`` share of a through lane that turns right, in (0, 1). Hidden.
      saturation: ``f32[4, 4]`` discharge of a lane by intersection and phase, at most 7 [vehicles/slot]. Hidden.
      lost: ``f32[]`` share of a slot without discharge after a switch, in [0, 1]. Hidden.
      occupancy: ``f32[4, 4]`` persons per vehicle by intersection and phase (bus lines). Hidden.
    """

    start_queue: chex.Array
    demand: chex.Array
    left_share: chex.Array
    right_share: chex.Array
    saturation: chex.Array
    lost: chex.Array
    occupancy: chex.Array


def poisson(uniform: chex.Array, rate: chex.Array) -> chex.Array:
    """Poisson draws by inversion, elementwise ``i32``; the law is cut off at ``MOST_ARRIVALS``."""
    mass = below = jnp.exp(-rate)
    draw = jnp.zeros(uniform.shape, jnp.int32)
    for k in range(1, MOST_ARRIVALS + 1):
        draw = draw + (uniform > below).astype(jnp.int32)
        mass = mass * rate / k
        below = below + mass
    return draw


def binomial(uniform: chex.Array, trials: chex.Array, probability: chex.Array) -> chex.Array:
    """Binomial draws by inversion, elementwise ``i32``, for at most ``MOST_SERVED`` trials and probability below 1."""
    odds = probability / (1.0 - probability)
    mass = below = jnp.exp(trials.astype(jnp.float32) * jnp.log1p(-probability))
    draw = jnp.zeros(uniform.shape, jnp.int32)
    for k in range(1, MOST_SERVED + 1):
        draw = draw + (uniform > below).astype(jnp.int32)
        mass = mass * jnp.maximum(trials - k + 1, 0).astype(jnp.float32) * odds / k
        below = below + mass
    return jnp.minimum(draw, trials)  # the last entry's rounding


class SmartCity(ResourceEnv[SmartCityState, SmartCityParams]):
    """Four signals, one phase each per slot; four turns make a slot.

    **Numbering.** Intersections 0..3 are NW, NE, SE, SW. The sides of intersection i are counted clockwise from its own
    first outer side: side r = 0..3 is the compass side (i + r) mod 4 of N, E, S, W. So sides 0 and 3 face outside, side
    1 the intersection i + 1, side 2 the intersection i - 1 (mod 4), and turning the city by 90 degrees adds 1 to i.
    Phases of each intersection: 0 the through (and right) lanes of sides 0 and 2, 1 their left lanes, 2 and 3 the same
    of sides 1 and 3. At NW and SE phases 0, 1 are north-south, at NE and SW east-west.

    **Actions.** k gives green to phase (plan + k) mod 4 of the intersection in turn, where plan is what the fixed-time
    plan 3:1:3:1 shows in this slot; the contract's no-op k = 0 lets the plan run. Reward is 0 but on the slot's last
    turn.

    ===== =========== =============================================================================================
    token column      quantity
    ===== =========== =============================================================================================
    phase urgency     vehicles waiting on its two lanes; what one costs is hidden
    phase slack       10 / (10 + vehicles waiting)
    phase level       1 if it was green in the last slot
    phase inflow      joined its lanes in the last slot [10 vehicles], as a guess at the next
    phase outflow     passed in the last slot [10 vehicles]
    phase waiting     vehicles waiting [20]
    phase age         slots since it was last green [16], at most 1
    phase is_turn     1 for what is green now at the intersection in turn
    phase decided     1 if chosen for this slot, -1 if its intersection has chosen another phase
    phase cycle_sin   sine of the phase of the plan's cycle
    phase cycle_cos   cosine of it
    phase private_a   queues of the roads straight on (lefts: to the left) of its two lanes [20 vehicles]
    phase private_b   waiting on its first side less those on its second [20 vehicles]
    all   progress    share of the episode gone
    all   last_reward reward of the last slot [8 person-slots per movement]
    ===== =========== =============================================================================================

    Roles: 16 phases ``demand``, those of intersection 0 first. Unbounded features are cut at 10.

    ====== =========== ============================================================================================
    action column      quantity
    ====== =========== ============================================================================================
    all    amount      1
    all    signed      1: green relieves who waits there
    all    private_a   1 if the plan shows the phase
    all    private_b   ``waiting`` of what is green now
    all    private_c   1 if it is green now
    ====== =========== ============================================================================================

    The target is the phase. Some phase is always green, so that there is no real no-op.

    Hidden: demand, turning shares, saturation, lost time, occupancies. All but the last follow from ``inflow`` and
    ``outflow``; the reward is minus the occupancies times ``waiting``, so 16 slots of any play determine them.

    Key figures in ``info``: ``queue``, ``arrived``, ``exited`` [vehicles]; ``persons`` waiting; ``switches``.

    Invariants: change of the total queue = arrived - exited; queues are not negative; only green movements are served,
    and at most s + 1; a phase kept green loses no time; turning the city by 90 degrees rolls everything.

    Reference: of max-pressure rules with hysteresis, look-ahead rules and the fixed plan the one that does best in
    simulations of the task (:mod:`envs_jax.references.max_pressure`): strong, not proven optimal.

    Sources: P. Varaiya, "Max pressure control of a network of signalized intersections", Transportation Research C 36,
    2013 (model; recalled). T. Ahmed, H. Liu, V. V. Gayah, "OCC-MP", 2024, arXiv 2406.19269 (occupancy weights; abstract
    read). Slot, lanes and lost time follow LightSim's scenario figures. Task ranges are choices made here.

    Usage::

        env, params = envs_jax.make("smart_city")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_periods: slots of an episode.
    """

    name = "smart_city"
    hidden = ("demand", "left_share", "right_share", "saturation", "lost", "occupancy")
    reward_unit = "person-slots per movement"
    reference_kind = "heuristic"
    num_turns = GRID
    num_tokens = GRID * PHASES
    num_actions = PHASES
    num_uniforms = 40
    num_reset_uniforms = MOVEMENTS
    noop_action = 0

    def __init__(self, num_periods: int = 48) -> None:
        super().__init__()
        self.num_periods = checks.whole_number(self.name, "num_periods", num_periods, 1, 100_000)

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> SmartCityParams:
        """Vehicles count alike: 1 vehicle a slot from every side, 5 vehicles/slot a lane, 4 s lost, empty at first."""
        return SmartCityParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            start_queue=jnp.int32(0),
            demand=jnp.ones((GRID,), jnp.float32),
            left_share=jnp.float32(0.2),
            right_share=jnp.float32(0.2),
            saturation=jnp.full((GRID, PHASES), 5.0, jnp.float32),
            lost=jnp.float32(0.4),
            occupancy=jnp.ones((GRID, PHASES), jnp.float32),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> SmartCityParams:
        """One task.

        demand ~ U(.6, 1.6) by side, left ~ U(.1, .35), right ~ U(.1, .3), saturation ~ U(3.5, 6) by phase, lost ~
        U(.2, .6); each phase carries bus lines with probability .3: occupancy ~ U(6, 16), and U(1, 2) otherwise.
        Queues start on 0 .. 4 vehicles.
        """
        u = self.task_uniforms(key, split, 7 + 3 * self.num_tokens)
        saturation, buses, persons = u[7:].reshape(3, GRID, PHASES)
        return self.default_params.replace(
            start_queue=jnp.int32(4),
            demand=0.6 + 1.0 * u[:4],
            left_share=0.1 + 0.25 * u[4],
            right_share=0.1 + 0.2 * u[5],
            lost=0.2 + 0.4 * u[6],
            saturation=3.5 + 2.5 * saturation,
            occupancy=jnp.where(buses < 0.3, 6.0 + 10.0 * persons, 1.0 + persons),
        )

    # ---- the world ------------------------------------------------------------------------------------------------

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: SmartCityParams) -> SmartCityState:
        """Random queues; the plan's first phases have been green."""
        green = self.planned(jnp.int32(0))
        none = jnp.zeros((GRID, PHASES), jnp.int32)
        return SmartCityState(
            **self.clock(key),
            queue=sampling.integers(uniforms.reshape(GRID, 4, 2), 0, params.start_queue),
            green=green,
            chosen=green,
            red=none,
            served=none,
            joined=none,
        )

    def planned(self, period: chex.Array) -> chex.Array:
        """What the fixed-time plan shows in a slot: ``i32[4]``."""
        return jnp.asarray(PLAN, jnp.int32)[(period + jnp.asarray(_OFFSET, jnp.int32)) % len(PLAN)]

    def choose(
        self, state: SmartCityState, turn: chex.Array, action: chex.Array, params: SmartCityParams
    ) -> SmartCityState:
        """Sets the phase of the intersection in turn."""
        del params
        phase = (self.planned(self.period(state)) + action) % PHASES
        return state.replace(chosen=jnp.where(jnp.arange(GRID, dtype=jnp.int32) == turn, phase, state.chosen))

    def advance(
        self, state: SmartCityState, uniforms: chex.Array, params: SmartCityParams
    ) -> tuple[SmartCityState, chex.Array, dict[str, chex.Array]]:
        """One slot. Uniforms: 8 capacities, 8 right turns, 8 lanes of those from inside, 16 arrivals."""
        switched = state.chosen != state.green
        is_green = state.chosen[:, None] == jnp.arange(PHASES, dtype=jnp.int32)[None, :]
        rate = params.saturation * (1.0 - params.lost * switched.astype(jnp.float32))[:, None]
        # Two lanes of an intersection are green at a time, on opposite sides: sides 0, 1 share a draw, and 2, 3.
        capacity, turning = jnp.repeat(uniforms[:16].reshape(2, GRID, 2), 2, axis=-1)
        most = jnp.floor(grid.by_movement(rate) + capacity[..., None]).astype(jnp.int32)
        served = jnp.where(grid.by_movement(is_green), jnp.minimum(state.queue, most), 0)
        right = binomial(turning, served[..., 0], params.right_share)
        leaving = grid.exits(served[..., 0] - right, right, served[..., 1])
        entering = grid.between(leaving)
        to_left = binomial(uniforms[16:24].reshape(GRID, 2), entering, params.left_share)
        inside = jnp.stack([entering - to_left, to_left], axis=-1)  # [i, side 1 and 2, lane]
        sides = jnp.stack([params.demand, jnp.roll(params.demand, 1)], axis=-1)  # of sides 0 and 3
        by_lane = sides[..., None] * jnp.stack([1.0 - params.left_share, params.left_share])[None, None, :]
        outside = poisson(uniforms[24:].reshape(GRID, 2, 2), by_lane)
        joined = jnp.concatenate([outside[:, :1], inside, outside[:, 1:]], axis=1)
        queue = state.queue - served + joined
        waiting = grid.by_phase(queue)
        persons = jnp.sum(params.occupancy * waiting.astype(jnp.float32))
        figures = {
            "queue": queue.sum(dtype=jnp.int32),
            "persons": persons,
            "arrived": outside.sum(dtype=jnp.int32),
            "exited": leaving[:, 0].sum(dtype=jnp.int32) + leaving[:, 3].sum(dtype=jnp.int32),
            "switches": switched.sum(dtype=jnp.int32),
        }
        state = state.replace(
            queue=queue,
            green=state.chosen,
            red=jnp.where(is_green, 0, state.red + 1),
            served=grid.by_phase(served),
            joined=grid.by_phase(joined),
        )
        return state, -persons / MOVEMENTS, {name: jnp.float32(value) for name, value in figures.items()}

    # ---- what an agent sees ---------------------------------------------------------------------------------------

    def observation(self, state: SmartCityState, params: SmartCityParams) -> Observation:
        """See the class docstring for the columns."""
        del params
        turn, period = self.turn(state), self.period(state)
        phases = jnp.arange(PHASES, dtype=jnp.int32)
        waiting = grid.by_phase(state.queue).astype(jnp.float32)
        in_turn = jnp.arange(GRID, dtype=jnp.int32) == turn
        is_green = state.green[:, None] == phases[None, :]
        plan = self.planned(period)
        has_chosen = (jnp.arange(GRID, dtype=jnp.int32) < turn).astype(jnp.float32)
        decided = jnp.where(state.chosen[:, None] == phases[None, :], 1.0, -1.0) * has_chosen[:, None]
        # With these shares, and twice the queues, a mean over the lanes of the next road is their sum.
        roads = grid.by_phase(grid.ahead(2.0 * state.queue.astype(jnp.float32), 0.5, 0.0))
        first = (state.queue[:, :2] - state.queue[:, 2:]).reshape(GRID, PHASES)
        shown = bounded(waiting / QUEUE_SCALE)
        column = {
            "urgency": waiting,
            "slack": HALF_SLACK / (waiting + HALF_SLACK),
            "level": is_green,
            "inflow": bounded(state.joined.astype(jnp.float32) / FLOW_SCALE),
            "outflow": bounded(state.served.astype(jnp.float32) / FLOW_SCALE),
            "waiting": shown,
            "age": jnp.minimum(state.red.astype(jnp.float32) / RED_SCALE, 1.0),
            "is_turn": is_green & in_turn[:, None],
            "decided": decided,
            "private_a": bounded(roads / QUEUE_SCALE),
            "private_b": bounded(first.astype(jnp.float32) / QUEUE_SCALE),
        }
        common = {
            "cycle_sin": jnp.asarray(np.sin(_CYCLE), jnp.float32)[period % len(PLAN)],
            "cycle_cos": jnp.asarray(np.cos(_CYCLE), jnp.float32)[period % len(PLAN)],
            "progress": self.progress(state),
            "last_reward": bounded(state.last_reward / REWARD_SCALE),
        }
        tokens = {name: value.reshape(-1) for name, value in column.items()} | common
        phase, green = (plan[turn] + phases) % PHASES, state.green[turn]
        return make_observation(
            tokens=[("demand", self.num_tokens, tokens)],
            actions={
                "amount": 1.0,
                "signed": 1.0,
                "private_a": np.arange(PHASES) == self.noop_action,
                "private_b": shown[turn, green],
                "private_c": phase == green,
            },
            action_target=(PHASES * turn + phase).astype(jnp.int32),
            action_mask=jnp.ones((PHASES,), jnp.bool_),
        )

    # ---- reference policies ---------------------------------------------------------------------------------------

    def index(self, state: SmartCityState, params: SmartCityParams, rule: max_pressure.Rule) -> chex.Array:
        """Index of every phase ``f32[4, 4]`` under a rule that knows the task."""
        queue = state.queue.astype(jnp.float32)
        value = max_pressure.value(queue, grid.by_movement(params.occupancy), rule.exponent)
        next_value = grid.ahead(value, params.left_share, params.right_share)
        weight = jnp.maximum(value - rule.downstream * next_value, 0.0)
        saturation = grid.by_movement(params.saturation)
        delay = grid.by_movement(
            params.lost * (state.green[:, None] != jnp.arange(PHASES, dtype=jnp.int32)[None, :]).astype(jnp.float32)
        )
        return max_pressure.index(rule, weight, queue, saturation, delay, grid.by_phase)

    def phases(self, state: SmartCityState, params: SmartCityParams, rule: max_pressure.Rule) -> chex.Array:
        """What a rule shows at the four intersections in this slot: ``i32[4]``."""
        chosen = max_pressure.hold_or_switch(self.index(state, params, rule), state.green, rule.hysteresis)
        return jnp.where(rule.fixed > 0, self.planned(self.period(state)), chosen)

    def evaluate(
        self, params: SmartCityParams, rules: max_pressure.Rule, key: chex.PRNGKey, episodes: int
    ) -> chex.Array:
        """Mean return ``f32[R]`` of stacked rules over simulated episodes; the same noise for every rule."""

        def play(rule: max_pressure.Rule, key: chex.PRNGKey) -> chex.Array:
            _, start = self.reset_env(key, params)
            start = vary_like(start, rule)

            def slot(state: SmartCityState, period: chex.Array) -> tuple[SmartCityState, chex.Array]:
                state = state.replace(time=period * GRID)
                state = state.replace(chosen=self.phases(state, params, rule))
                state, reward, _ = self.advance(state, sampling.uniforms(key, period, self.num_uniforms), params)
                return vary_like(state, start), reward

            return jax.lax.scan(slot, start, jnp.arange(self.num_periods, dtype=jnp.int32))[1].sum()

        keys = jax.random.split(key, episodes)
        return jax.vmap(lambda rule: jax.vmap(lambda key: play(rule, key))(keys).mean())(rules)

    def solve(self, params: SmartCityParams) -> max_pressure.Rule:
        """The rule of :data:`CANDIDATES` that earns most in simulations of the task, on noise of their own."""
        rules = max_pressure.rules(*CANDIDATES)
        returns = self.evaluate(params, rules, jax.random.key(_PLANNING_SEED), _PLANNING_EPISODES)
        return jax.tree.map(lambda leaf: leaf[jnp.argmax(returns).astype(jnp.int32)], rules)

    def reference_action(
        self, plan: max_pressure.Rule, state: SmartCityState, params: SmartCityParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The chosen rule's phase for the intersection in turn, as its distance from the plan's phase: ``i32[]``."""
        del key
        wanted = self.phases(state, params, plan) - self.planned(self.period(state))
        return (wanted[self.turn(state)] % PHASES).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """The look-ahead rule on what is seen, with nominal saturation and lost time, every vehicle counted alike.

        Exponent and hysteresis were tuned on tasks of :meth:`sample_params`; plain max-pressure does worse.
        """
        del key
        first = jnp.argmax(observation.column("is_candidate")).astype(jnp.int32)
        waiting, apart, is_green = (
            jax.lax.dynamic_slice_in_dim(observation.column(name), first, PHASES)
            for name in ("waiting", "private_b", "level")
        )
        total, difference = QUEUE_SCALE * waiting, QUEUE_SCALE * apart
        lanes = jnp.stack([total + difference, total - difference], axis=-1) / 2.0
        delay = NOMINAL_LOST * (1.0 - is_green)[:, None]
        weight = max_pressure.value(lanes, 1.0, HEURISTIC.exponent)
        index = max_pressure.index(HEURISTIC, weight, lanes, NOMINAL_SATURATION, delay, lambda x: x.sum(axis=-1))
        phase = max_pressure.hold_or_switch(index, jnp.argmax(is_green).astype(jnp.int32), HEURISTIC.hysteresis)
        return jnp.argmax(observation.action_target == first + phase).astype(jnp.int32)
