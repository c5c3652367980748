"""Scheduling jobs with several resource demands on a cluster, when their durations are unknown (after DeepRM).

Jobs arrive over time; each needs a fixed amount of every resource (CPU, memory, storage) for its whole duration, which
nobody knows before it has finished; once started, it cannot be stopped. Jobs come in kinds whose durations are alike.
Every tick the scheduler decides which waiting jobs to start. What counts is *slowdown*, a job's time in the system
relative to its duration: short jobs must not queue behind long ones, and which kinds are short is the task's secret.

Source: H. Mao, M. Alizadeh, I. Menache, S. Kandula, "Resource Management with Deep Reinforcement Learning", HotNets
2016, and its public code (read; the paper itself was not). See docs/domains/cloud_scheduling.md.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import checks, sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import booking, slowdown_index
from envs_jax.references.slowdown_index import Moments

UNITS = 10  # of every resource that the cluster has
LONGEST = 15  # duration of a job, ticks
TYPICAL = 4  # mean duration of a job in DeepRM's workload, about that of the sampled tasks, ticks
BOOKING_HORIZON = 20  # ticks ahead for which DeepRM books resources


@struct.dataclass
class CloudSchedulingState(EnvState):
    """Jobs, one row for every tick at which one can arrive: job ``j`` arrives at the end of period ``j``.

    Attributes:
      need: ``i32[J, R]`` demands of job j, units; 0 where no job has arrived.
      kind: ``i32[J]`` its kind.
      duration: ``i32[J]`` its duration, ticks; 0 where no job has arrived. Not observable before it has finished.
      start: ``i32[J]`` tick at which it starts, -1 while it waits.
      slot: ``i32[M]`` job that a slot offers to be started, -1 for none.
      free: ``i32[R]`` units of each resource that are free now.
      waiting, running: ``i32[M]`` jobs of each kind that wait, that have been started and have not finished.
      started: ``i32[M]`` jobs of each kind started in this period.
      arrived, finished: ``i32[M]`` jobs of each kind that arrived, finished at the end of the last period.
      observed: ``f32[M]`` mean duration of those that finished then, ticks; 0 if there were none.
      elapsed: ``i32[M]`` ticks for which the oldest running job of a kind has run.
      listed: ``i32[J]`` rank of a job in the list of running jobs, 0 if it is not there; ``i32[0]`` unless ``deeprm``.
    """

    need: chex.Array
    kind: chex.Array
    duration: chex.Array
    start: chex.Array
    slot: chex.Array
    free: chex.Array
    waiting: chex.Array
    running: chex.Array
    started: chex.Array
    arrived: chex.Array
    finished: chex.Array
    observed: chex.Array
    elapsed: chex.Array
    listed: chex.Array


@struct.dataclass
class CloudSchedulingParams(EnvParams):
    """A task.

    Attributes:
      dominant_low, dominant_high: ``i32[]`` range of the demand of the resource a job needs most, within 1..10 units.
      other_low, other_high: ``i32[]`` range of its demands of the other resources, units.
      arrival_rate: ``f32[]`` chance that a job arrives in a tick. Hidden.
      kind_share: ``f32[M]`` chance that an arriving job is of a kind. Hidden.
      dominance: ``f32[R]`` chance that a job needs most of a resource. Hidden.
      shortest: ``i32[M]`` shortest duration of a kind's jobs, at least 1 tick. Hidden.
      longest: ``i32[M]`` longest, at most 15 ticks. Hidden.
    """

    dominant_low: chex.Array
    dominant_high: chex.Array
    other_low: chex.Array
    other_high: chex.Array
    arrival_rate: chex.Array
    kind_share: chex.Array
    dominance: chex.Array
    shortest: chex.Array
    longest: chex.Array


class CloudScheduling(ResourceEnv[CloudSchedulingState, CloudSchedulingParams]):
    """A cluster with a queue for each of M kinds of jobs; the scheduler has a few picks a tick.

    Per tick ``t = 0..P-1``, turns ``0..num_picks-1`` each start the head of one queue or nothing. Then

        j starts at t:  s_j = t, holds need_jr units of resource r during ticks s_j .. s_j + L_j - 1
        0 <= free_r = 10 - sum of need_jr over running j                              units, at any time
        jobs with s_j + L_j = t + 1 finish; while t < A one job arrives with chance rate
            kind ~ share, L ~ U{shortest_kind..longest_kind} ticks, dominant resource ~ dominance
            need ~ U{dominant_low..dominant_high} of that resource, U{other_low..other_high} of each other
        reward = - sum over jobs in the system of 1/L_j

    The rewards add up to minus the sum of slowdowns (ticks in the system / L_j). A queue is first come, first served:
    only its head can be started. Jobs are neither stopped nor refused.

    Hidden: rates and laws of arrival and, above all, each kind's durations. Shown: queues, demands, what runs, and for
    one tick, in the queue's own token, what arrived and what finished after how long. Remembering that identifies the
    durations; the sum that is the reward names no single job's.

    ======== ============ ===============================================================================
    token    column       quantity
    ======== ============ ===============================================================================
    queue    urgency      1 / L, what its head costs a tick, L as if that of those just finished, else 4; 0 if none
    queue    slack        1 if no job waits, else 0
    queue    level        running jobs [4]
    queue    outflow      jobs finished at the end of the last tick [4]
    queue    waiting      waiting jobs [16]
    queue    age          ticks its head has waited [P]
    queue    decided      share of a tick's picks that have started its jobs in this tick
    queue    private_a    ticks its oldest running job has run [15]
    queue    private_b    jobs arrived - finished in the last tick [4]
    queue    private_c    its head's demand of resource 0 [10]
    queue    private_d    its head's demand of resource 1 [10]
    queue    private_e    mean duration of those just finished [15], 0 if none
    queue    private_f    its head's mean demand of all resources [10]
    resource slack        free [10]
    resource level        1 - free [10]
    resource capacity     10
    resource waiting      mean demand of the heads [10]
    resource private_c    1 for resource 0
    resource private_d    1 for resource 1
    cluster  level        running jobs [4]
    cluster  waiting      all waiting jobs [16]
    cluster  is_turn      1
    cluster  decided      share of the tick's picks made
    cluster  private_a    1 while jobs may still arrive
    all      progress     share of the episode gone
    all      last_reward  reward of the last tick [5 slowdown], within [-10, 10]
    ======== ============ ===============================================================================

    Roles: queue ``demand``, one a kind, resource ``store``, cluster ``clock``. A start relieves a queue of its head
    alone, which is why urgency is that of one job; ``waiting`` counts them. Action m < M starts the head of queue m;
    action M picks nothing, the no-op, which describes nothing.

    ====== ============ =================================================================================
    action column       quantity
    ====== ============ =================================================================================
    m      amount       the head's largest demand [10]; ``signed`` is the same
    m      private_a    least share of a resource left if it starts, 0 if it does not fit
    m      private_b    the packer's alignment, sum_r need_r free_r [100]
    ====== ============ =================================================================================

    ``deeprm=True`` gives DeepRM's own rules: the M slots are shared by all kinds and refilled from one backlog,
    durations are known (``private_e``, of the slot's job, as in ``urgency``), and a pick books the first window
    of a 20-tick horizon in which the job fits; a column that counts a kind's jobs then stands in every slot that offers
    that kind. As in the published code, a window that ends with the horizon is not tried, and a finished job can be
    paid for a tick longer (see ``listed``).

    Key figures: ``arrived``, ``finished``, ``waiting``, ``running`` jobs, ``slowdown`` summed over the jobs that just
    finished, ``utilisation`` (mean share of units held).
    Invariants: ``0 <= free <= 10``; jobs arrived = waiting + running + finished; a job starts at most once, not before
    it arrives, and finishes L ticks later; each queue is served in order of arrival; permuting kinds permutes queues.

    >>> env, params = envs_jax.make("cloud_scheduling")
    >>> task = env.sample_params(jax.random.key(0))
    >>> seen, state = env.reset_env(jax.random.key(1), task)
    >>> action = env.reference_action(env.solve(task), state, task, jax.random.key(2))
    >>> seen, state, reward, terminated, info = env.step_env(state.key, state, action, task)

    Args:
      num_slots: M, kinds of jobs and queues (DeepRM: visible slots).
      num_resources: R.
      num_picks: picks in a tick.
      num_periods: P, ticks of an episode.
      num_arrivals: A, ticks at the end of which a job may arrive, at most P.
      deeprm: DeepRM's own rules.
    """

    name = "cloud_scheduling"
    hidden = ("arrival_rate", "kind_share", "dominance", "shortest", "longest")
    reward_unit = "job slowdown"
    reference_kind = "heuristic"

    def __init__(
        self,
        num_slots: int = 5,
        num_resources: int = 3,
        num_picks: int = 2,
        num_periods: int = 64,
        num_arrivals: int = 48,
        deeprm: bool = False,
    ) -> None:
        super().__init__()
        num_slots, num_resources, num_picks, num_periods = checks.whole_numbers(
            self.name,
            num_slots=(num_slots, 2, 24),
            num_resources=(num_resources, 1, 6),
            num_picks=(num_picks, 1, 1000),
            num_periods=(num_periods, 1, 100_000),
        )
        num_arrivals = checks.whole_number(self.name, "num_arrivals", num_arrivals, 1, num_periods)
        deeprm = checks.flag(self.name, "deeprm", deeprm)
        self.num_slots, self.num_resources, self.num_turns = num_slots, num_resources, num_picks
        self.num_periods, self.num_arrivals, self.deeprm = num_periods, num_arrivals, deeprm
        self.num_tokens = num_slots + num_resources + 1
        self.num_actions, self.noop_action, self.num_uniforms = num_slots + 1, num_slots, 4 + num_resources

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> CloudSchedulingParams:
        """DeepRM's workload: 80 % short jobs, U{1..3} ticks, 20 % long ones, U{10..15}, the last kind; rate .7."""
        m, r = self.num_slots, self.num_resources
        long = jnp.arange(m, dtype=jnp.int32) == m - 1
        return CloudSchedulingParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            dominant_low=jnp.int32(5),
            dominant_high=jnp.int32(10),
            other_low=jnp.int32(1),
            other_high=jnp.int32(2),
            arrival_rate=jnp.float32(0.7),
            kind_share=jnp.where(long, jnp.float32(0.2), jnp.float32(0.8 / (m - 1))),
            dominance=jnp.full((r,), 1.0 / r, jnp.float32),
            shortest=jnp.where(long, 10, 1).astype(jnp.int32),
            longest=jnp.where(long, 15, 3).astype(jnp.int32),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> CloudSchedulingParams:
        """One task: every kind its own mean duration, log-uniform on [1, 12] ticks, give or take 30 %.

        Rate ~ U(.3, .9), shares of kinds ~ Dirichlet(2), of dominant resources ~ Dirichlet(5).
        """
        m, r = self.num_slots, self.num_resources
        u = self.task_uniforms(key, split, 1 + 3 * m + 5 * r)
        mean = 12.0 ** u[1 : 1 + m]
        # A gamma variable of whole shape n is minus the logarithm of the product of n uniforms.
        shares = -jnp.log(u[1 + m : 1 + 3 * m]).reshape(2, m).sum(0)
        dominance = -jnp.log(u[1 + 3 * m :]).reshape(5, r).sum(0)
        return self.default_params.replace(
            arrival_rate=0.3 + 0.6 * u[0],
            kind_share=shares / shares.sum(),
            dominance=dominance / dominance.sum(),
            shortest=jnp.clip(jnp.round(0.7 * mean), 1, LONGEST).astype(jnp.int32),
            longest=jnp.clip(jnp.round(1.3 * mean), 1, LONGEST).astype(jnp.int32),
        )

    # ---- the world ------------------------------------------------------------------------------------------------

    def init_state(
        self, key: chex.PRNGKey, uniforms: chex.Array, params: CloudSchedulingParams
    ) -> CloudSchedulingState:
        """An empty cluster; the first job can arrive at the end of the first period."""
        del uniforms, params
        j, m, r = self.num_arrivals, self.num_slots, self.num_resources
        none, jobs = jnp.zeros((m,), jnp.int32), jnp.zeros((j,), jnp.int32)
        return CloudSchedulingState(
            **self.clock(key),
            need=jnp.zeros((j, r), jnp.int32),
            kind=jobs,
            duration=jobs,
            start=jobs - 1,
            slot=none - 1,
            free=jnp.full((r,), UNITS, jnp.int32),
            observed=none.astype(jnp.float32),
            listed=jobs if self.deeprm else jobs[:0],
            **dict.fromkeys(("waiting", "running", "started", "arrived", "finished", "elapsed"), none),
        )

    def _delays(self, state: CloudSchedulingState) -> chex.Array:
        """After how many ticks each slot's job would start if it were picked now: ``i32[M]``, -1 if it cannot be."""
        need, duration = state.need[state.slot], state.duration[state.slot]
        if not self.deeprm:
            return jnp.where((state.slot >= 0) & jnp.all(need <= state.free[None, :], axis=-1), jnp.int32(0), -1)
        windows = jax.vmap(booking.first_window, in_axes=(None, 0, 0))(self._unbooked(state), need, duration)
        return jnp.where(state.slot >= 0, windows, -1)

    def _unbooked(self, state: CloudSchedulingState) -> chex.Array:
        """Units ``i32[H, R]`` that no started or booked job holds, now and in the ticks to come."""
        tick = self.period(state) + jnp.arange(BOOKING_HORIZON, dtype=jnp.int32)[:, None]
        busy = (state.start >= 0) & (state.start <= tick) & (tick < state.start + state.duration)
        return UNITS - busy.astype(jnp.int32) @ state.need

    def choose(
        self, state: CloudSchedulingState, turn: chex.Array, action: chex.Array, params: CloudSchedulingParams
    ) -> CloudSchedulingState:
        """Starts (DeepRM: books) the job that a slot offers; the slot then offers the next one. Else nothing."""
        del turn, params
        kinds, jobs = jnp.arange(self.num_slots, dtype=jnp.int32), jnp.arange(self.num_arrivals, dtype=jnp.int32)
        delays = self._delays(state)
        slot = (kinds == action) & (delays >= 0)
        job = jnp.max(jnp.where(slot, state.slot, -1))  # -1: nothing is picked
        own = jobs == job
        start = jnp.where(own, self.period(state) + jnp.max(jnp.where(slot, delays, 0)), state.start)
        queued = (state.duration > 0) & (start < 0)
        if self.deeprm:
            kind = jnp.max(jnp.where(own, state.kind, -1))
            queued &= ~jnp.any(jobs[:, None] == state.slot, axis=-1)
        else:
            kind = jnp.where(job >= 0, action, -1)
            queued &= state.kind == kind  # all behind the head
        # The first of them, without argmax: on CPU a reduction of pairs costs several times one of numbers.
        first = jnp.min(jnp.where(queued, jobs, self.num_arrivals))
        following = jnp.where(first < self.num_arrivals, first, -1)
        of_kind = (kinds == kind).astype(jnp.int32)
        state = state.replace(
            start=start,
            slot=jnp.where(slot, following, state.slot),
            free=state.free - jnp.sum(jnp.where(slot[:, None], state.need[state.slot], 0), axis=0, dtype=jnp.int32),
            waiting=state.waiting - of_kind,
            running=state.running + of_kind,
            started=state.started + of_kind,
        )
        if self.deeprm:
            listed = jnp.where(own, jnp.max(state.listed) + 1, state.listed)
            state = state.replace(listed=listed, free=self._unbooked(state)[0])
        return state

    def advance(
        self, state: CloudSchedulingState, uniforms: chex.Array, params: CloudSchedulingParams
    ) -> tuple[CloudSchedulingState, chex.Array, dict[str, chex.Array]]:
        """One tick: jobs finish, one may arrive, everybody in the system pays.

        The uniforms decide whether a job arrives, its kind, its duration, its dominant resource, and its R demands.
        """
        jobs, kinds = jnp.arange(self.num_arrivals, dtype=jnp.int32), jnp.arange(self.num_slots, dtype=jnp.int32)
        now = self.period(state) + 1
        # Who finishes, and what the scheduler learns from it.
        done = (state.start >= 0) & (state.start + state.duration == now)
        free = state.free + jnp.sum(jnp.where(done[:, None], state.need, 0), axis=0, dtype=jnp.int32)
        by_kind = state.kind[None, :] == kinds[:, None]
        # Their number and their ticks of each kind in one pass over the jobs, as digits of one number: no more than 10
        # jobs a resource run at once, so that ticks add up to less than 1024.
        packed = jnp.sum(jnp.where(by_kind & done[None, :], state.duration + 1024, 0), axis=-1, dtype=jnp.int32)
        finished, ticks = packed >> 10, packed & 1023
        # Who arrives.
        new = (jobs == now - 1) & (uniforms[0] < params.arrival_rate)
        kind = sampling.categorical(uniforms[1], jnp.cumsum(params.kind_share))
        duration = sampling.integers(uniforms[2], params.shortest[kind], params.longest[kind])
        most = jnp.arange(self.num_resources, dtype=jnp.int32) == sampling.categorical(
            uniforms[3], jnp.cumsum(params.dominance)
        )
        low = jnp.where(most, params.dominant_low, params.other_low)
        need = sampling.integers(uniforms[4:], low, jnp.where(most, params.dominant_high, params.other_high))
        arrived = (kinds == kind).astype(jnp.int32) * jnp.any(new).astype(jnp.int32)
        open_slot = (state.slot < 0) if self.deeprm else (state.slot < 0) & (kinds == kind)
        takes = jnp.any(new) & open_slot & (kinds == jnp.argmax(open_slot).astype(jnp.int32))
        state = state.replace(
            need=jnp.where(new[:, None], need, state.need),
            kind=jnp.where(new, kind, state.kind),
            duration=jnp.where(new, duration, state.duration),
            slot=jnp.where(takes, now - 1, state.slot),
            free=free,
            waiting=state.waiting + arrived,
            running=state.running - finished,
            started=jnp.zeros_like(state.started),
            arrived=arrived,
            finished=finished,
            observed=ticks.astype(jnp.float32) / jnp.maximum(finished, 1).astype(jnp.float32),
        )
        over = (state.start >= 0) & (state.start + state.duration <= now)
        present = (state.duration > 0) & ~over
        ran = jnp.where(present & (state.start >= 0), jnp.maximum(now - state.start, 0), 0)
        state = state.replace(elapsed=jnp.max(jnp.where(by_kind, ran, 0), axis=-1))
        if self.deeprm:
            unbooked = self._unbooked(state.replace(time=now * self.num_turns))[0]
            state = state.replace(listed=booking.remove_while_iterating(state.listed, over), free=unbooked)
            present |= state.listed > 0
        cost = jnp.where(present, 1.0 / jnp.maximum(state.duration, 1).astype(jnp.float32), 0.0)
        slowdown = jnp.where(done, (now - 1 - jobs) / jnp.maximum(state.duration, 1), 0.0)
        counts = {name: getattr(state, name) for name in ("arrived", "finished", "waiting", "running")}
        info = {name: jnp.sum(x.astype(jnp.float32)) for name, x in (counts | {"slowdown": slowdown}).items()}
        return state, -jnp.sum(cost), info | {"utilisation": 1.0 - jnp.mean(state.free / UNITS)}

    # ---- what an agent sees ---------------------------------------------------------------------------------------

    def observation(self, state: CloudSchedulingState, params: CloudSchedulingParams) -> Observation:
        """See the class docstring for the columns."""
        del params
        m, r, period = self.num_slots, self.num_resources, self.period(state)
        offers = state.slot >= 0
        may_start = self._delays(state) >= 0
        need = jnp.where(offers[:, None], state.need[state.slot], 0) / UNITS
        free = state.free / UNITS
        everywhere = {"progress": self.progress(state), "last_reward": bounded(0.2 * state.last_reward)}
        kind = state.kind[state.slot] * offers.astype(jnp.int32)
        rate = state.duration[state.slot] * offers if self.deeprm else state.observed
        pick = lambda x: x[kind] if self.deeprm else x  # noqa: E731
        # Durations are hidden, but for those that have just been seen.
        supposed = jnp.where(rate > 0, rate, TYPICAL).astype(jnp.float32)
        queues = dict(
            urgency=jnp.where(offers, 1.0 / supposed, 0.0),
            slack=~offers,
            level=pick(state.running).astype(jnp.float32) / 4.0,
            outflow=pick(state.finished).astype(jnp.float32) / 4.0,
            waiting=pick(state.waiting).astype(jnp.float32) / 16.0,
            age=jnp.where(offers, (period - 1 - state.slot) / self.num_periods, 0.0),
            decided=pick(state.started) / self.num_turns,
            private_a=pick(state.elapsed) / LONGEST,
            private_b=pick(state.arrived - state.finished).astype(jnp.float32) / 4.0,
            private_c=need[:, 0],
            private_d=need[:, 1] if r > 1 else 0.0,
            private_e=rate / LONGEST,
            private_f=jnp.mean(need, axis=-1),
            **everywhere,
        )
        resources = dict(
            slack=free,
            level=1.0 - free,
            capacity=float(UNITS),
            waiting=jnp.sum(need, axis=0) / m,
            private_c=jnp.arange(r, dtype=jnp.int32) == 0,
            private_d=jnp.arange(r, dtype=jnp.int32) == 1,
            **everywhere,
        )
        cluster = dict(
            level=jnp.sum(state.running, dtype=jnp.int32).astype(jnp.float32) / 4.0,
            waiting=jnp.sum(state.waiting, dtype=jnp.int32).astype(jnp.float32) / 16.0,
            is_turn=1.0,
            decided=self.turn(state) / self.num_turns,
            private_a=(period < self.num_arrivals).astype(jnp.float32),
            **everywhere,
        )
        left = jnp.min(jnp.where(need > 0, free[None, :] - need, 1.0), axis=-1)
        with_noop = lambda x: jnp.append(x, jnp.zeros_like(x[:1]))  # noqa: E731
        amount = with_noop(jnp.max(need, axis=-1))
        actions = jnp.arange(m + 1, dtype=jnp.int32)
        return make_observation(
            tokens=[("demand", m, queues), ("store", r, resources), ("clock", 1, cluster)],
            actions={
                "is_noop": actions == m,
                "amount": amount,
                "signed": amount,
                "private_a": with_noop(jnp.where(may_start, jnp.maximum(left, 0.0), 0.0)),
                "private_b": with_noop(jnp.sum(need * free[None, :], axis=-1)),
            },
            action_target=jnp.where(actions < m, actions, -1),
            action_mask=jnp.append(may_start, True),
        )

    # ---- what is best ---------------------------------------------------------------------------------------------

    def solve(self, params: CloudSchedulingParams) -> Moments:
        """Moments of the kinds' durations."""
        arrivals = params.arrival_rate * params.kind_share
        return slowdown_index.moments(params.shortest, params.longest, arrivals, LONGEST)

    def reference_action(
        self, plan: Moments, state: CloudSchedulingState, params: CloudSchedulingParams, key: chex.PRNGKey
    ) -> chex.Array:
        """Starts the head with the best index, if that is good enough to block the cluster for it; else waits."""
        del params, key
        period = self.period(state)
        arrivals_left = jnp.maximum(self.num_arrivals - period, 0)
        index = slowdown_index.index(plan, state.waiting, self.num_periods - period, arrivals_left)
        index = jnp.where(self._delays(state) >= 0, index[state.kind[state.slot]], 0.0)
        start = jnp.max(index) > slowdown_index.THRESHOLD
        return jnp.where(start, jnp.argmax(index).astype(jnp.int32), self.noop_action).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """A blend of packing, queue length and the durations seen this very tick, linear and tuned on the tasks.

        A kind of which a job has just finished quickly goes first, one whose job has been running for long goes last.
        """
        del key
        m, seen, described = self.num_slots, observation.column, observation.action_column
        packing = 1.35 * described("private_b")[:m] - 0.55 * described("amount")[:m] - 1.6 * seen("private_f")[:m]
        pressure = 2.5 * seen("waiting")[:m] + 0.4 * seen("level")[:m] - 2.5 * seen("age")[:m]
        speed = 3.3 * seen("outflow")[:m] - 3.7 * seen("private_e")[:m] - 1.5 * seen("private_a")[:m]
        score = jnp.where(observation.action_mask[:-1], packing + pressure + speed, -jnp.inf)
        enough = 0.5 * seen("waiting")[-1] - 1.6
        return jnp.where(jnp.max(score) > enough, jnp.argmax(score).astype(jnp.int32), self.noop_action).astype(
            jnp.int32
        )
