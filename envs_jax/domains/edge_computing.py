"""Edge computing: offloading the tasks of an application to servers whose speeds are not known (MRLCO, 2021).

A mobile device runs one application after another. An application is a graph of n dependent tasks; each is computed on
the device, or sent over a radio link to one of S edge servers, computed there, and its result sent back. Sending takes
turns on a link, computing takes turns on a processor, and a task needs its parents' results where it runs
(:mod:`envs_jax.references.offloading` has the equations). The device wants the results of all tasks early. How fast the
links and processors are is the task's secret.

A period is one application: n turns, one a task in descending upward rank, each choosing a place; clocks are seen to
move as tasks are placed. Then the application is paid for and the next one comes.
"""

from __future__ import annotations

from typing import ClassVar

import chex
import jax.numpy as jnp
from flax import struct

from envs_jax import checks, sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import offloading
from envs_jax.references.offloading import Graph, Rates, Schedule

MEBIBYTE_PER_MEGABIT = 1 / 8
"""The published code counts 2^20 bits as a megabit."""
NOMINAL_LINK, NOMINAL_SERVER, NOMINAL_DEVICE = 7.0, 10.0, 1.0
"""The published rates [Mbit/s, MiB/s, MiB/s]: public; they order the tasks and scale the reward."""
LINK_RANGE = (3.0, 17.0)
"""Link rates of a task [Mbit/s], uniform."""
SERVER_RANGE = (2.0, 20.0)
"""Server speeds of a task [MiB/s], log-uniform."""
DEVICE_RANGE = (0.5, 2.0)
"""Device speeds of a task [MiB/s], uniform."""
RESULT_RANGE = (5.0, 50.0)
"""Size of a task's result [MiB], uniform, as in the headers of the published graphs."""

SIZE_SCALE = 100.0
"""MiB that the observation shows as 1."""
TIME_SCALE = 250.0
"""Seconds that the observation shows as 1."""
GRAPH_DRAWS, NOISE_DRAWS = 4, 3


@struct.dataclass
class EdgeComputingState(EnvState):
    """Attributes:
    graph: the application, tasks in descending upward rank.
    rank: ``f32[n]`` upward ranks at nominal rates [s], descending.
    noise: ``f32[n, 3]`` factors on a task's upload, work and download wherever it is placed; not seen beforehand.
    schedule: what has been placed, with the times that came out.
    link_busy: ``f32[S]`` time that each link spent sending in the last application [s].
    work_busy: ``f32[1 + S]`` time that device and servers spent computing in the last application [s].
    """

    graph: Graph
    rank: chex.Array
    noise: chex.Array
    schedule: Schedule
    link_busy: chex.Array
    work_busy: chex.Array


@struct.dataclass
class EdgeComputingParams(EnvParams):
    """Attributes:
    result_ratio: ``f32[]`` result / input of every task (daggen's ``ccr``).
    fat: ``f32[]`` a level of the graph has about ``n^fat`` tasks.
    density: ``f32[]`` a task has 1 to ``1 + density * width of the level before`` parents.
    noise_sd: ``f32[]`` standard deviation of the log of a factor.
    link_rate: ``f32[S]`` of each server [Mbit/s]. Hidden.
    server_speed: ``f32[S]`` [MiB/s]. Hidden.
    device_speed: ``f32[]`` [MiB/s]. Hidden.
    """

    result_ratio: chex.Array
    fat: chex.Array
    density: chex.Array
    noise_sd: chex.Array
    link_rate: chex.Array
    server_speed: chex.Array
    device_speed: chex.Array


class EdgeComputing(ResourceEnv[EdgeComputingState, EdgeComputingParams]):
    """n tasks, one place each; n turns make a period.

    Action 0 keeps the task on the device, action k sends it to server k. All are always legal. The reward of a
    period is ``-makespan / T``, ``T = sum_i s_i / 1 MiB/s`` the nominal time of computing everything on the device.

    Tokens: the device, S servers, the next ``window`` tasks (the current one first; absent after the last), the
    application. Times are relative to the makespan so far, so that what is above 0 delays the end.

    =========== ============ ===========================================================================
    token       column       quantity
    =========== ============ ===========================================================================
    device      slack        share of the makespan so far that passes before it could start, from 1
    device      capacity     nominal speed [MiB/s]
    device      private_a    when the current task could start here [250 s]
    device      private_b    the same
    device      private_d    time it computed in the last application [1000 s]
    server      slack        share of the makespan so far that passes before its link could send, from 1
    server      capacity     nominal speed [MiB/s]
    server      private_a    when the current task could be sent here [250 s]
    server      private_b    when the current task could run here, were its input there [250 s]
    server      private_c    time its link was sending in the last application [1000 s]
    server      private_d    time it computed in the last application [1000 s]
    task        urgency      upward rank: makespan added if it waits until all that is placed is done [s]
    task        slack        1 - upward rank / the highest of the application
    task        level        size [100 MiB]
    task        inflow       result that comes back [100 MiB]
    task        is_turn      1 for the current one
    task        private_a    parents [10]
    task        private_b    children [10]
    task        private_c    upward rank [1000 s]
    application waiting      share of its size not placed yet
    application age          makespan so far [1000 s]
    application decided      share of its tasks placed
    all         progress     share of the episode gone
    all         last_reward  reward of the last period
    =========== ============ ===========================================================================

    Roles: device ``place``, server ``supplier``, task ``demand``, application ``clock``. Features without bounds are
    clipped to [-10, 10]. An action's target is the resource, which the task loads: every place computes it, so that
    there is no real no-op; the contract's is the device.

    ====== ============ ================================================================================
    action column       quantity
    ====== ============ ================================================================================
    all    amount       size of the current task [200 MiB], at most 1; ``signed`` is minus that
    all    private_a    its upward rank / the highest of the application
    ====== ============ ================================================================================

    Shown: the graph, clocks, busy times. Hidden: ``link_rate``, ``server_speed``, ``device_speed``. What an agent sent
    somewhere (its own choices, with their amounts) over the time it took is the rate there.

    Key figures in ``info``: ``makespan``, ``all_local`` (T), ``link_busy`` (all links) [s]; ``sent`` [MiB];
    ``offloaded`` (share of tasks) [1].

    Invariants: no task starts before its parents' results are where it runs; no link or processor serves two tasks at
    once; the makespan is at least the longest path at the fastest rates, and never falls as tasks are placed; without
    noise, all-local takes ``sum s_i / f_0`` exactly, sizes times c take c times as long and so do all rates over c;
    permuting servers permutes tokens and actions.

    Reference: roll-out of the earliest-finish-time rule, with true rates; a heuristic. On an application without noise
    it is within a few percent of simulated annealing (docs/domains/edge_computing.md).

    Source: J. Wang, J. Hu, G. Min, A. Y. Zomaya, N. Georgalas, "Fast Adaptive Task Offloading in Edge Computing Based
    on Meta Reinforcement Learning", IEEE TPDS 32(1), 2021 (code read, paper not). One server there; S
    servers, noise and the hidden ranges are choices made here, and a fault of its code is not copied (docs).

    Usage::

        env, params = envs_jax.make("edge_computing")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_tasks: n, of an application.
      num_servers: S; 1 is the published model.
      num_periods: P, applications of an episode.
      window: how many of the next tasks are seen, at most n.
    """

    name: ClassVar[str] = "edge_computing"
    hidden: ClassVar[tuple[str, ...]] = ("link_rate", "server_speed", "device_speed")
    reward_unit: ClassVar[str] = "nominal all-local times"
    reference_kind: ClassVar[str] = "heuristic"

    def __init__(self, num_tasks: int = 20, num_servers: int = 3, num_periods: int = 5, window: int = 6) -> None:
        super().__init__()
        num_tasks, num_servers, num_periods = checks.whole_numbers(
            self.name,
            num_tasks=(num_tasks, 1, 64),
            num_servers=(num_servers, 1, 8),
            num_periods=(num_periods, 1, 10_000),
        )
        window = checks.whole_number(self.name, "window", window, 1, min(num_tasks, 30 - num_servers))
        self.num_servers = num_servers
        self.window = window
        self.num_turns = num_tasks
        self.num_periods = num_periods
        self.num_tokens = 1 + num_servers + window + 1
        self.num_actions = 1 + num_servers
        self.num_uniforms = self.num_reset_uniforms = num_tasks * (GRAPH_DRAWS + NOISE_DRAWS)

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> EdgeComputingParams:
        """The published constants: 7 Mbit/s, 10 and 1 MiB/s, no noise; graphs like those of its set 4 of n = 20."""
        return EdgeComputingParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            result_ratio=jnp.float32(0.3),
            fat=jnp.float32(0.5),
            density=jnp.float32(0.7),
            noise_sd=jnp.float32(0.0),
            link_rate=jnp.full((self.num_servers,), NOMINAL_LINK, jnp.float32),
            server_speed=jnp.full((self.num_servers,), NOMINAL_SERVER, jnp.float32),
            device_speed=jnp.float32(NOMINAL_DEVICE),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> EdgeComputingParams:
        """One task: hidden rates of the stated ranges; the kind of graph is one of the published combinations' values.

        ccr from {.3, .4, .5}, fat and density from {.4, .5, .6, .7, .8}; noise_sd .1.
        """
        s = self.num_servers
        u = self.task_uniforms(key, split, 4 + 2 * s)
        tenths = (
            sampling.integers(u[:3], jnp.asarray((3, 4, 4), jnp.int32), jnp.asarray((5, 8, 8), jnp.int32)).astype(
                jnp.float32
            )
            / 10.0
        )
        low, high = SERVER_RANGE
        return self.default_params.replace(
            result_ratio=tenths[0],
            fat=tenths[1],
            density=tenths[2],
            noise_sd=jnp.float32(0.1),
            link_rate=LINK_RANGE[0] + (LINK_RANGE[1] - LINK_RANGE[0]) * u[4 : 4 + s],
            server_speed=low * (high / low) ** u[4 + s :],
            device_speed=DEVICE_RANGE[0] + (DEVICE_RANGE[1] - DEVICE_RANGE[0]) * u[3],
        )

    def application(self, uniforms: chex.Array, params: EdgeComputingParams) -> tuple[Graph, chex.Array]:
        """An application, tasks in descending upward rank, and these ranks ``f32[n]`` [s], from ``f32[n, 4]``.

        The recipe of daggen (as its code was read): levels of ``w ~ U{m/2 .. 3m/2}`` tasks, ``m = floor(n^fat)``, until
        there are n; a task has ``min(1 + floor(U(0, density w)), w)`` parents, all in the level before, of width w.
        Here they stand side by side from a random one on, around the end; daggen picks each at random.
        """
        n, index = self.num_turns, jnp.arange(self.num_turns, dtype=jnp.int32)
        mean = jnp.floor(n**params.fat)
        width = jnp.maximum(jnp.floor(mean * (0.5 + uniforms[:, 0])), 1.0).astype(jnp.int32)
        end = jnp.cumsum(width, dtype=jnp.int32)
        level = jnp.sum(end[None, :] <= index[:, None], axis=-1, dtype=jnp.int32)
        before = jnp.maximum(level - 1, 0)
        first, wide = end[before] - width[before], width[before]
        count = jnp.minimum(
            1 + jnp.floor(uniforms[:, 1] * params.density * wide.astype(jnp.float32)).astype(jnp.int32), wide
        )
        offset = sampling.integers(uniforms[:, 2], 0, wide - 1)
        from_first = (index[None, :] - first[:, None] - offset[:, None]) % wide[:, None]
        parents = (level[None, :] == level[:, None] - 1) & (from_first < count[:, None])
        low, high = RESULT_RANGE
        result = low + (high - low) * uniforms[:, 3]
        size = result / params.result_ratio
        link = NOMINAL_LINK * MEBIBYTE_PER_MEGABIT
        remote = size / link + size / NOMINAL_SERVER + result / link
        rank = offloading.upward_rank(jnp.minimum(size / NOMINAL_DEVICE, remote), parents)
        order = jnp.argsort(-rank)
        return Graph(size=size[order], result=result[order], parents=parents[order][:, order]), rank[order]

    def rates(self, params: EdgeComputingParams) -> Rates:
        """The task's rates, all in MiB/s."""
        return Rates(
            link=params.link_rate * MEBIBYTE_PER_MEGABIT, server=params.server_speed, device=params.device_speed
        )

    # ---- dynamics -------------------------------------------------------------------------------------------------

    def _begin(self, uniforms: chex.Array, params: EdgeComputingParams) -> dict[str, chex.ArrayTree]:
        """A new application before its first task is placed."""
        draws = uniforms.reshape(self.num_turns, GRAPH_DRAWS + NOISE_DRAWS)
        graph, rank = self.application(draws[:, :GRAPH_DRAWS], params)
        return {
            "graph": graph,
            "rank": rank,
            "noise": jnp.exp(params.noise_sd * sampling.normal(draws[:, GRAPH_DRAWS:])),
            "schedule": offloading.empty(self.num_turns, self.num_servers),
        }

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: EdgeComputingParams) -> EdgeComputingState:
        """The first application; nothing has been seen of the resources."""
        return EdgeComputingState(
            **self.clock(key),
            **self._begin(uniforms, params),
            link_busy=jnp.zeros((self.num_servers,), jnp.float32),
            work_busy=jnp.zeros((1 + self.num_servers,), jnp.float32),
        )

    def choose(
        self, state: EdgeComputingState, turn: chex.Array, action: chex.Array, params: EdgeComputingParams
    ) -> EdgeComputingState:
        """Places the current task; how long it takes was drawn with the application, whoever runs it."""
        times = offloading.options(state.graph, state.schedule, turn, self.rates(params), state.noise[turn])
        return state.replace(schedule=offloading.place(state.schedule, turn, action, times))

    def advance(
        self, state: EdgeComputingState, uniforms: chex.Array, params: EdgeComputingParams
    ) -> tuple[EdgeComputingState, chex.Array, dict[str, chex.Array]]:
        """Pays for the application and draws the next."""
        graph, rates, place = state.graph, self.rates(params), state.schedule.place
        makespan, all_local = state.schedule.makespan, jnp.sum(graph.size) / NOMINAL_DEVICE
        on = place[:, None] == jnp.arange(1 + self.num_servers, dtype=jnp.int32)[None, :]
        upload, work = (
            jnp.sum(on.astype(jnp.float32) * (state.noise[:, i] * graph.size)[:, None], axis=0) for i in (0, 1)
        )
        link_busy = upload[1:] / rates.link
        reward = -makespan / all_local
        info = {
            "makespan": makespan,
            "all_local": all_local,
            "link_busy": jnp.sum(link_busy),
            "sent": jnp.sum(jnp.where(place > 0, graph.size, 0.0)),
            "offloaded": jnp.mean((place > 0).astype(jnp.float32)),
        }
        state = state.replace(
            **self._begin(uniforms, params),
            link_busy=link_busy,
            work_busy=work / jnp.append(rates.device, rates.server),
        )
        return state, reward, info

    def observation(self, state: EdgeComputingState, params: EdgeComputingParams) -> Observation:
        """See the class docstring for the columns."""
        del params
        n, graph, span = self.num_turns, state.graph, state.schedule.makespan
        turn = self.turn(state)
        device, send, run = offloading.ready(graph, state.schedule, turn)
        start, go = jnp.append(device, send), jnp.append(device, run)
        resources = {
            "slack": jnp.clip(1.0 - start / jnp.maximum(span, 1e-6), 0.0, 1.0),
            "capacity": jnp.append(NOMINAL_DEVICE, jnp.full((self.num_servers,), NOMINAL_SERVER)),
            "private_a": bounded((start - span) / TIME_SCALE),
            "private_b": bounded((go - span) / TIME_SCALE),
            "private_c": bounded(jnp.append(0.0, state.link_busy) / (4 * TIME_SCALE)),
            "private_d": bounded(state.work_busy / (4 * TIME_SCALE)),
        }
        upcoming = turn + jnp.arange(self.window, dtype=jnp.int32)
        present = upcoming < n
        task = jnp.minimum(upcoming, n - 1)
        rank, size = state.rank[task], graph.size[task]
        share = rank / state.rank[0]
        tasks = {
            "urgency": rank,
            "slack": 1.0 - share,
            "level": size / SIZE_SCALE,
            "inflow": graph.result[task] / SIZE_SCALE,
            "is_turn": upcoming == turn,
            "private_a": jnp.sum(graph.parents[task], axis=1, dtype=jnp.int32).astype(jnp.float32) / 10.0,
            "private_b": jnp.sum(graph.parents[:, task], axis=0, dtype=jnp.int32).astype(jnp.float32) / 10.0,
            "private_c": bounded(rank / (4 * TIME_SCALE)),
        }
        left = jnp.sum(jnp.where(jnp.arange(n, dtype=jnp.int32) >= turn, graph.size, 0.0)) / jnp.sum(graph.size)
        application = {
            "waiting": left,
            "age": bounded(span / (4 * TIME_SCALE)),
            "decided": turn / n,
        }
        common = {"progress": self.progress(state), "last_reward": bounded(state.last_reward)}
        places = jnp.arange(self.num_actions, dtype=jnp.int32)
        amount = jnp.minimum(size[0] / (2 * SIZE_SCALE), 1.0)
        return make_observation(
            tokens=[
                ("place", 1, {k: v[:1] for k, v in resources.items()} | common),
                ("supplier", self.num_servers, {k: v[1:] for k, v in resources.items()} | common),
                ("demand", self.window, tasks | common),
                ("clock", 1, application | common),
            ],
            actions={"amount": amount, "signed": -amount, "private_a": share[0]},
            action_target=places,
            action_mask=jnp.ones((self.num_actions,), bool),
            token_mask=jnp.concatenate([jnp.ones((1 + self.num_servers,), bool), present, jnp.ones((1,), bool)]),
        )

    # ---- policies -------------------------------------------------------------------------------------------------

    def solve(self, params: EdgeComputingParams) -> Rates:
        """The rates to plan with; the applications are not known before they come."""
        return self.rates(params)

    def reference_action(
        self, plan: Rates, state: EdgeComputingState, params: EdgeComputingParams, key: chex.PRNGKey
    ) -> chex.Array:
        """Roll-out of the earliest-finish-time rule from the clocks as they are, at the true rates."""
        del params, key
        return offloading.roll_out(state.graph, state.schedule, self.turn(state), plan)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Earliest finish time from the clocks as they are, at the rates that are best for all tasks on average.

        The rates of a server lean on the last application: the time it computed over the time its link sent is link
        rate over speed, whatever was sent there; a high one speaks for a fast link and a slow processor, half each. All
        constants were tuned on tasks of ``sample_params``.
        """
        del key
        column = observation.column
        resources, current = slice(0, 1 + self.num_servers), 1 + self.num_servers
        size, result = SIZE_SCALE * column("level")[current], SIZE_SCALE * column("inflow")[current]
        start, run = (TIME_SCALE * column(name)[resources] for name in ("private_a", "private_b"))
        sending, computing = column("private_c")[resources], column("private_d")[resources]
        likeness = jnp.where(sending > 0, computing / jnp.maximum(sending, 1e-6) / 0.14, 1.0)
        lean = jnp.sqrt(jnp.clip(likeness, 0.1, 10.0))
        link, speed = 7.5 * MEBIBYTE_PER_MEGABIT * lean, 15.0 / lean
        # The way back counts more than it takes: whoever is sent away comes late to children elsewhere.
        remote = jnp.maximum(start + size / link, run) + size / speed + 1.7 * result / link
        return jnp.argmin(remote.at[0].set(start[0] + size / 1.0)).astype(jnp.int32)
