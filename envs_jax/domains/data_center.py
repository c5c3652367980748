"""Energy-aware dispatching to servers that switch off when empty (Hyytia, Righter & Aalto 2014; Gandhi et al. 2010).

Jobs arrive at a farm of N servers and each is sent to one of them at once. A server works through its own queue, first
come, first served, and is off as soon as that is empty; a job that meets an off server first waits for its setup. Jobs
in the system cost money, and so does the energy of setup and work, times what it takes to cool the server's zone.
"""

from __future__ import annotations

from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import ACTION_COLUMNS, TOKEN_COLUMNS, Observation, action_rows, token_table
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


class DataCenter(ResourceEnv[DataCenterState, DataCenterParams]):
    """DOC."""

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
        for field, value in (("num_servers", num_servers), ("num_periods", num_periods), ("queue", queue)):
            if value < 1:
                raise ValueError(f"{field} = {value}: must be at least 1")
        if num_servers * queue < num_periods:
            raise ValueError(f"{num_servers} queues of {queue} cannot hold the {num_periods} jobs of an episode")
        self.num_servers, self.num_periods, self.queue = num_servers, num_periods, queue
        self.num_turns = 1
        self.num_tokens = num_servers + 1
        self.num_actions = num_servers
        self.num_uniforms = 3

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> DataCenterParams:
        """Equal servers."""
        n = self.num_servers
        ones = jnp.ones((n,), jnp.float32)
        return DataCenterParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            delay_price=jnp.float32(1.0),
            energy_price=jnp.float32(1.0),
            zone=(2 * jnp.arange(n) // max(n, 2)).astype(jnp.int32),
            arrival_rate=jnp.float32(0.5 * n),
            speed=ones,
            setup_rate=0.2 * ones,
            busy_power=2.4 * ones,
            setup_power=2.4 * ones,
            cooling=ones,
        )

    def sample_params(self, key: chex.PRNGKey) -> DataCenterParams:
        """One task."""
        n = self.num_servers
        u = sampling.uniforms(key, 0, 4 + 3 * n)
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
        full = jnp.any((jnp.arange(self.num_servers) == action) & (jobs >= self.queue))
        return state.replace(choice=jnp.where(full, jnp.argmin(jobs).astype(jnp.int32), action))

    def advance(
        self, state: DataCenterState, uniforms: chex.Array, params: DataCenterParams
    ) -> tuple[DataCenterState, chex.Array, dict[str, chex.Array]]:
        """The job joins, and time goes on to the next arrival (after the last one: until the farm is empty)."""
        gap, size, setup = -jnp.log(uniforms)
        gap = gap / params.arrival_rate
        # The job joins its server's queue.
        chosen = jnp.arange(self.num_servers) == state.choice
        free = jnp.max(state.remaining, axis=-1)  # in FIFO order the last job leaves last
        starts = chosen & (free <= 0.0)
        setup = jnp.where(starts, setup / params.setup_rate, state.setup)
        leaves = jnp.where(starts, setup, free) + size / params.speed
        place = chosen[:, None] & (jnp.arange(self.queue) == (state.sent % self.queue)[:, None])
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
            "setups": jnp.sum(starts).astype(jnp.float32),
            "in_system": jnp.sum(jobs).astype(jnp.float32),
            "gap": gap,
        }
        state = state.replace(
            remaining=remaining,
            sent=state.sent + chosen,
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
        waiting = jobs - busy
        everywhere = {
            "progress": self.progress(state),
            "last_reward": jnp.clip(0.1 * state.last_reward, -10.0, 10.0),
        }
        servers = dict(
            urgency=jnp.minimum(waiting / 4.0, 1.0),
            slack=1.0 / (1.0 + jobs),
            level=jobs / 8.0,
            capacity=1.0,
            pipeline=in_setup,
            outflow=state.finished / 4.0,
            waiting=waiting / 8.0,
            age=jnp.minimum(state.age / 16.0, 10.0),
            signal_a=busy,
            signal_b=2.0 * params.zone - 1.0,
            decided=jnp.arange(n) == state.choice,
            **everywhere,
        )
        job = dict(
            urgency=jnp.minimum(jnp.sum(waiting) / 16.0, 1.0),
            level=jnp.minimum(state.power / 16.0, 10.0),
            outflow=jnp.sum(state.finished) / 8.0,
            waiting=jnp.sum(waiting) / 16.0,
            age=jnp.minimum(state.gap, 10.0),
            unit_cost=jnp.minimum(0.25 * params.energy_price, 10.0),
            unit_value=jnp.minimum(params.delay_price, 10.0),
            is_turn=1.0,
            **everywhere,
        )
        return Observation(
            tokens=token_table(("supplier", n, servers), ("demand", 1, job)),
            token_mask=jnp.ones((self.num_tokens,), bool),
            actions=action_rows(n, amount=1.0, signed=1.0, second_level=jobs / 8.0),
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
        """First policy iteration."""
        del key
        costs = setup_queue.marginal_costs(self.servers(params), plan, _count(state), state.setup > 0.0)
        return jnp.argmin(costs).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """TODO."""
        del key
        column = {name: observation.tokens[: self.num_servers, i] for i, name in enumerate(TOKEN_COLUMNS)}
        cost = 8 * column["level"] + 3.0 * (column["level"] == 0) + column["pipeline"]
        return jnp.argmin(cost).astype(jnp.int32)


def _count(state: DataCenterState) -> chex.Array:
    """Jobs at each server, ``i32[N]``."""
    return jnp.sum(state.remaining > 0.0, axis=-1, dtype=jnp.int32)


def cooling_factor(supply: chex.Numeric) -> chex.Array:
    """kappa = 1 + 1 / COP at the temperature ``supply`` of the cold air [C]: chilled water, Moore et al. 2005."""
    return 1.0 + 1.0 / (0.0068 * supply**2 + 0.0008 * supply + 0.458)
