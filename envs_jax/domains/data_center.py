"""Energy-aware dispatching to servers that switch off when empty (Hyytia, Righter & Aalto 2014; Gandhi et al. 2010).

Jobs arrive at a farm of N servers and each is sent to one of them at once. A server works through its own queue, first
come, first served, and is off as soon as that is empty; a job that meets an off server first waits for its setup. Jobs
in the system cost money, and so does the energy of setup and work, times what it takes to cool the server's zone.
"""

from __future__ import annotations

from typing import ClassVar

import chex
import jax.numpy as jnp
from flax import struct

from envs_jax import checks
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import setup_queue
from envs_jax.references.setup_queue import Servers


@struct.dataclass
class DataCenterState(EnvState):
    """Attributes:
    remaining: ``f32[N, Q]`` time until each job's completion, 0 in unused places [s]. A job keeps its place.
    sent: ``i32[N]`` jobs sent to each server so far; the next one's place is ``sent % Q``.
    setup: ``f32[N]`` time until the setup is done, 0 if there is none [s].
    age: ``f32[N]`` time since the server was last switched on, 0 if it is off [s].
    choice: ``i32[]`` where the last job went; -1 before the first.
    gap: ``f32[]`` time between the last two arrivals [s].
    finished: ``i32[N]`` jobs that left in that time.
    power: ``f32[]`` mean power of the whole farm in that time, cooling included [100 W].
    """

    remaining: chex.Array
    sent: chex.Array
    setup: chex.Array
    age: chex.Array
    choice: chex.Array
    gap: chex.Array
    finished: chex.Array
    power: chex.Array


@struct.dataclass
class DataCenterParams(EnvParams):
    """Attributes:
    delay_price: ``f32[]`` w_T, of a job in the system for a second.
    energy_price: ``f32[]`` w_E, of 100 W for a second.
    zone: ``i32[N]`` 0 or 1, the cooling zone of each server.
    arrival_rate: ``f32[]`` lambda [1/s]. Hidden.
    speed: ``f32[N]`` mu [1/s]. Hidden.
    setup_rate: ``f32[N]`` delta [1/s]. Hidden.
    busy_power: ``f32[N]`` P_b [100 W]. Hidden.
    setup_power: ``f32[N]`` P_s [100 W]. Hidden.
    cooling: ``f32[N]`` kappa, watts drawn per watt of a server's, the same within a zone. Hidden.
    """

    delay_price: chex.Array
    energy_price: chex.Array
    zone: chex.Array
    arrival_rate: chex.Array
    speed: chex.Array
    setup_rate: chex.Array
    busy_power: chex.Array
    setup_power: chex.Array
    cooling: chex.Array


SPEED, SETUP_RATE, POWER, LOAD, PRICE = (0.4, 2.4), (0.05, 1.0), (0.5, 4.0), (0.15, 0.6), (0.5, 4.0)
"""Ranges of ``sample_params``: mu [1/s], delta [1/s], P [100 W], lambda / sum mu, w_E."""


class DataCenter(ResourceEnv[DataCenterState, DataCenterParams]):
    """A farm of N servers with setup times; period k = 0..P-1 begins with the arrival of job k, which is sent at once.

    With independent tau, x, d ~ Exp(1), the job sent to server a brings work X = x seconds at unit speed:

        a is off:      setup D = d / delta_a [s] begins;  the job completes at C = now + D + X / mu_a
        a is not off:  C = (completion of the job before it at a) + X / mu_a
        now += tau / lambda, to the next arrival (after the last job: until the farm is empty)
        a server without jobs is off at once and draws nothing ("InstantOff")
        reward = - w_T (integral of jobs in the system) - w_E sum_i kappa_i (P_s,i setup seconds + P_b,i busy seconds)

    over the time that has passed. Over an episode this adds up to what all jobs pay: w_T times their responses, and
    the energy of their work and of the setups they cause. Service is first come, first served, and no job is moved.
    A server that has Q jobs passes a further one on to the emptiest server (ties: the first).

    Hidden: lambda, mu, delta, P_b, P_s, kappa. Shown: queues, modes, what left, the farm's power meter and the prices.
    Remembering what was sent where identifies speeds (departures while on), setups (how long they last) and powers
    (the meter against which servers were on); one look says little. kappa and P only matter through their product.

    ======= ============ =================================================================================
    token   column       quantity
    ======= ============ =================================================================================
    server  urgency      w_T times the jobs there that are not in service
    server  slack        1 - jobs there / Q while it is on; off 0: a job would wait for the setup
    server  level        jobs there [8]
    server  capacity     1
    server  outflow      jobs finished since the last arrival [4]
    server  waiting      jobs there not in service [8]
    server  age          time since it was switched on [16 s], at most 10
    server  private_a    1 in setup
    server  private_b    1 while it works
    server  private_c    -1, 1 for zone 0, 1
    server  private_d    1 if the last job went there
    job     urgency      w_T: one job waits
    job     level        mean power of the farm since the last arrival [1.6 kW], at most 10
    job     outflow      jobs finished by all servers since the last arrival [8], at most 10
    job     waiting      jobs of all servers not in service [16]
    job     age          time since the last arrival [s], at most 10
    job     unit_cost    w_E [4]
    job     unit_value   w_T
    job     is_turn      1
    all     progress     share of the episode gone
    all     last_reward  reward of the last period [10]
    ======= ============ =================================================================================

    Roles: server ``supplier``, the job to be sent (and the farm) ``demand``, last. Features stay within [-10, 10].
    Action a sends the job to server a, which it loads: ``signed`` is -1. Every job has to go
    somewhere, so there is no real no-op; the contract's is the first server.

    Key figures: ``delay`` [job-seconds], ``energy`` [100 W s], ``setups`` begun, ``in_system`` jobs after the arrival,
    ``gap`` [s]; ``expected_reward`` given queues and modes (all laws are exponential, so the past says no more).

    Invariants: jobs are conserved, and none is left at the end; completions at a server are in order of arrival; a
    server with work does not idle; permuting servers permutes everything; without setups, faster servers never hold
    a job longer; rewards are linear in the prices, which change nothing else.

    Source: E. Hyytia, R. Righter, S. Aalto, "Task assignment in a heterogeneous server farm with switching delays and
    general energy-aware cost structure", Performance Evaluation 75-76, 2014; A. Gandhi, M. Harchol-Balter, I. Adan,
    "Server farms with setup costs", Performance Evaluation 67, 2010 (abstracts read). Exponential setups and InstantOff
    as in M. Gebrehiwot, S. Aalto, P. Lassila, Performance Evaluation 135, 2019 (abstract read).

    Usage::

        env, params = envs_jax.make("data_center")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        action = env.reference_action(env.solve(task), state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_servers: N, at most 1024; N Q is at most 2^20.
      num_periods: P, jobs of an episode, at most N Q.
      queue: Q, most jobs of a server, the one in service included.
    """

    name: ClassVar[str] = "data_center"
    hidden: ClassVar[tuple[str, ...]] = (
        "arrival_rate",
        "speed",
        "setup_rate",
        "busy_power",
        "setup_power",
        "cooling",
    )
    reward_unit: ClassVar[str] = "delay and energy cost"
    reference_kind: ClassVar[str] = "heuristic"

    def __init__(self, num_servers: int = 6, num_periods: int = 128, queue: int = 24) -> None:
        super().__init__()
        num_servers, num_periods, queue = checks.whole_numbers(
            self.name, num_servers=(num_servers, 1, 1024), num_periods=(num_periods, 1, 2**20), queue=(queue, 1, 2**20)
        )
        room = {"num_servers": num_servers, "queue": queue}
        checks.product(self.name, room, 2**20)
        if num_servers * queue < num_periods:
            allowed = f"at least num_periods = {num_periods}, to hold the jobs of an episode"
            got = f"{num_servers} x {queue} = {num_servers * queue}"
            raise checks.refusal(self.name, " x ".join(room), allowed, got)
        self.num_servers, self.num_periods, self.queue = num_servers, num_periods, queue
        self.num_turns = 1
        self.num_tokens = num_servers + 1
        self.num_actions = num_servers
        self.num_uniforms = 3

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> DataCenterParams:
        """Equal servers: M/M/1 queues with setup, mu = 1, delta = .2, and lambda = .5 each if jobs are split evenly.

        There the published closed forms give 3.5 jobs a server, and setup in .3571 of the time. Power 240 W, on or in
        setup, no cooling, w_T = w_E = 1.
        """
        n = self.num_servers
        ones = jnp.ones((n,), jnp.float32)
        return DataCenterParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            delay_price=jnp.float32(1.0),
            energy_price=jnp.float32(1.0),
            zone=(2 * jnp.arange(n, dtype=jnp.int32) // max(n, 2)).astype(jnp.int32),
            arrival_rate=jnp.float32(0.5 * n),
            speed=ones,
            setup_rate=0.2 * ones,
            busy_power=2.4 * ones,
            setup_power=2.4 * ones,
            cooling=ones,
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> DataCenterParams:
        """One task: servers of several generations in two rooms.

        mu ~ logU(.4, 2.4), delta ~ logU(.05, 1), P_b = P_s ~ U(.5, 4), lambda ~ U(.15, .6) sum mu, w_E ~ logU(.5, 4),
        w_T = 1; kappa = 1 + 1 / COP at supply temperatures U(15, 25) C of the two zones.
        """
        n = self.num_servers
        u = self.task_uniforms(key, split, 4 + 3 * n)
        speed, setup_rate, power = u[4:].reshape(3, n)
        between = lambda bounds, x: bounds[0] + (bounds[1] - bounds[0]) * x  # noqa: E731
        log_between = lambda bounds, x: bounds[0] * (bounds[1] / bounds[0]) ** x  # noqa: E731
        speed, power = log_between(SPEED, speed), between(POWER, power)
        default = self.default_params
        cooling = cooling_factor(between((15.0, 25.0), u[2:4]))
        return default.replace(
            energy_price=log_between(PRICE, u[0]),
            arrival_rate=between(LOAD, u[1]) * jnp.sum(speed),
            speed=speed,
            setup_rate=log_between(SETUP_RATE, setup_rate),
            busy_power=power,
            setup_power=power,
            cooling=jnp.where(default.zone == 0, cooling[0], cooling[1]),
        )

    # ---- the world ------------------------------------------------------------------------------------------------

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: DataCenterParams) -> DataCenterState:
        """All servers off; the first job has just arrived."""
        del uniforms, params
        n = self.num_servers
        none, zeros, zero = jnp.zeros((n,), jnp.int32), jnp.zeros((n,), jnp.float32), jnp.float32(0.0)
        return DataCenterState(
            **self.clock(key),
            remaining=jnp.zeros((n, self.queue), jnp.float32),
            sent=none,
            setup=zeros,
            age=zeros,
            choice=jnp.int32(-1),
            gap=zero,
            finished=none,
            power=zero,
        )

    def choose(
        self, state: DataCenterState, turn: chex.Array, action: chex.Array, params: DataCenterParams
    ) -> DataCenterState:
        """Notes where the job goes: to the emptiest server if the chosen one has Q jobs."""
        del turn, params
        jobs = _count(state)
        full = jnp.any((jnp.arange(self.num_servers, dtype=jnp.int32) == action) & (jobs >= self.queue))
        return state.replace(choice=jnp.where(full, jnp.argmin(jobs).astype(jnp.int32), action))

    def advance(
        self, state: DataCenterState, uniforms: chex.Array, params: DataCenterParams
    ) -> tuple[DataCenterState, chex.Array, dict[str, chex.Array]]:
        """The job joins, and time goes on to the next arrival (after the last one: until the farm is empty)."""
        gap, size, setup = -jnp.log(uniforms)
        gap = gap / params.arrival_rate
        # The job joins its server's queue.
        chosen = jnp.arange(self.num_servers, dtype=jnp.int32) == state.choice
        free = jnp.max(state.remaining, axis=-1)  # in FIFO order the last job leaves last
        starts = chosen & (free <= 0.0)
        setup = jnp.where(starts, setup / params.setup_rate, state.setup)
        leaves = jnp.where(starts, setup, free) + size / params.speed
        place = chosen[:, None] & (
            jnp.arange(self.queue, dtype=jnp.int32)[None, :] == (state.sent % self.queue)[:, None]
        )
        remaining = jnp.where(place, leaves[:, None], state.remaining)
        on = jnp.where(chosen, leaves, free)  # time until off
        jobs = jnp.sum(remaining > 0.0, axis=-1, dtype=jnp.int32)
        # Time goes on.
        last = self.period(state) == self.num_periods - 1
        gap = jnp.where(last, jnp.max(on), gap)
        job_seconds = jnp.sum(jnp.minimum(remaining, gap))
        setup_seconds, on_seconds = jnp.minimum(setup, gap), jnp.minimum(on, gap)
        setup_watts, busy_watts = params.cooling * params.setup_power, params.cooling * params.busy_power
        energy = jnp.sum(setup_watts * setup_seconds + busy_watts * (on_seconds - setup_seconds))
        reward = -(params.delay_price * job_seconds + params.energy_price * energy)
        # What is left.
        remaining = jnp.maximum(remaining - gap, 0.0)
        left = jnp.sum(remaining > 0.0, axis=-1, dtype=jnp.int32)
        servers = self.servers(params)
        then = [
            jnp.where(last, end, more)
            for end, more in zip(
                setup_queue.until_empty(servers, jobs, setup > 0.0),
                setup_queue.until_next_arrival(servers, params.arrival_rate, jobs, setup > 0.0),
                strict=True,
            )
        ]
        info = {
            "expected_reward": -jnp.sum(
                servers.holding * then[0] + servers.setup_cost * then[1] + servers.busy_cost * then[2]
            ),
            "delay": job_seconds,
            "energy": energy,
            "setups": jnp.sum(starts, dtype=jnp.int32).astype(jnp.float32),
            "in_system": jnp.sum(jobs, dtype=jnp.int32).astype(jnp.float32),
            "gap": gap,
        }
        state = state.replace(
            remaining=remaining,
            sent=state.sent + chosen.astype(jnp.int32),
            setup=jnp.maximum(setup - gap, 0.0),
            age=jnp.where(left > 0, state.age + gap, 0.0),
            gap=gap,
            finished=jobs - left,
            power=energy / gap,
        )
        return state, reward, info

    def servers(self, params: DataCenterParams) -> Servers:
        """The servers with what they cost a second."""
        price = params.energy_price * params.cooling
        return Servers(
            speed=params.speed,
            setup_rate=params.setup_rate,
            busy_cost=price * params.busy_power,
            setup_cost=price * params.setup_power,
            holding=jnp.broadcast_to(params.delay_price, params.speed.shape),
        )

    # ---- what an agent sees ---------------------------------------------------------------------------------------

    def observation(self, state: DataCenterState, params: DataCenterParams) -> Observation:
        """See the class docstring for the columns."""
        n = self.num_servers
        jobs = _count(state)
        in_setup = state.setup > 0.0
        busy = (jobs > 0) & ~in_setup
        waiting = jobs - busy.astype(jnp.int32)
        everywhere = {
            "progress": self.progress(state),
            "last_reward": bounded(0.1 * state.last_reward),
        }
        servers = dict(
            urgency=params.delay_price * waiting.astype(jnp.float32),
            slack=jnp.where(jobs > 0, 1.0 - jobs.astype(jnp.float32) / self.queue, 0.0),
            level=jobs.astype(jnp.float32) / 8.0,
            capacity=1.0,
            outflow=state.finished.astype(jnp.float32) / 4.0,
            waiting=waiting.astype(jnp.float32) / 8.0,
            age=jnp.minimum(state.age / 16.0, 10.0),
            private_a=in_setup,
            private_b=busy,
            private_c=2.0 * params.zone.astype(jnp.float32) - 1.0,
            private_d=jnp.arange(n, dtype=jnp.int32) == state.choice,
            **everywhere,
        )
        job = dict(
            urgency=params.delay_price,
            level=jnp.minimum(state.power / 16.0, 10.0),
            outflow=jnp.minimum(jnp.sum(state.finished, dtype=jnp.int32).astype(jnp.float32) / 8.0, 10.0),
            waiting=jnp.sum(waiting, dtype=jnp.int32).astype(jnp.float32) / 16.0,
            age=jnp.minimum(state.gap, 10.0),
            unit_cost=jnp.minimum(0.25 * params.energy_price, 10.0),
            unit_value=jnp.minimum(params.delay_price, 10.0),
            is_turn=1.0,
            **everywhere,
        )
        return make_observation(
            tokens=[("supplier", n, servers), ("demand", 1, job)],
            actions={"amount": 1.0, "signed": -1.0},  # a job loads the server that it is sent to
            action_target=jnp.arange(n, dtype=jnp.int32),
            action_mask=jnp.ones((n,), bool),
        )

    # ---- what is best ---------------------------------------------------------------------------------------------

    def solve(self, params: DataCenterParams) -> chex.Array:
        """Arrival rates ``f32[N]`` of the servers under the best split by chance, from which FPI starts [1/s]."""
        return setup_queue.split(self.servers(params), params.arrival_rate)

    def reference_action(
        self, plan: chex.Array, state: DataCenterState, params: DataCenterParams, key: chex.PRNGKey
    ) -> chex.Array:
        """First policy iteration: where one more job costs least if later ones are split by chance as in ``plan``."""
        del key
        costs = setup_queue.marginal_costs(self.servers(params), plan, _count(state), state.setup > 0.0)
        return jnp.argmin(costs).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Joins a short queue of a running server that has just finished a job; wakes another only when that is long.

        The dearer energy is, the longer the queue. Form and constants are the best that a search over ten coefficients
        found on the tasks of ``sample_params``; it cannot know that one server is faster or thriftier than another.
        """
        del key
        farm, column = self.num_servers, observation.column
        level, in_setup, age, left = (column(c)[:farm] for c in ("level", "private_a", "age", "outflow"))
        jobs = 8.0 * level
        join = jobs + 0.18 * jobs**2 + in_setup * (2.5 + 0.44 * jobs) - 6.0 * left + 1.23 * age * (1.0 - in_setup)
        wake = 4.5 + 7.3 * column("unit_cost")[farm] + 4.0 * column("waiting")[farm]
        return jnp.argmin(jnp.where(jobs > 0, join, wake)).astype(jnp.int32)


def _count(state: DataCenterState) -> chex.Array:
    """Jobs at each server, ``i32[N]``."""
    return jnp.sum(state.remaining > 0.0, axis=-1, dtype=jnp.int32)


def cooling_factor(supply: chex.Numeric) -> chex.Array:
    """Watts per watt, kappa = 1 + 1 / COP, cold air at ``supply`` [C]; curve of Moore et al. 2005 (recalled)."""
    return 1.0 + 1.0 / (0.0068 * supply**2 + 0.0008 * supply + 0.458)
