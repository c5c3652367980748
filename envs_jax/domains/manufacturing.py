"""Job-shop dispatching with total weighted tardiness on machines of unknown speed.

J jobs each visit M machines in an order of their own. Whenever a machine is idle and jobs wait, the dispatcher starts
one of them or holds back; then the clock runs to the next moment at which something can be started:

    C_{j,k} = S_{j,k} + x_{j,k}                      an operation runs from its start, uninterrupted by others
    x_{j,m} = p_{j,m} f_m xi + sum_{i <= n} r_i      minutes on machine m: nominal time x factor, and repairs
    ln xi ~ N(-s^2/2, s^2), s^2 = ln(1 + cv^2)       so that E xi = 1 and xi has coefficient of variation cv
    n ~ min(Poisson(p f xi / b), 2), r_i ~ Exp(R)    stops at mean distance b = R (1 - A) / A of running time
    reward = -sum_j w_j [ (min(t', C_j) - d_j)+ - (min(t, C_j) - d_j)+ ] / mean p      as the clock moves from t to t'

Nominal times p, routes and due dates d are known. What a late minute of each job costs (w), the machines' factors f,
how often they break down (A, the share of busy time in repair), for how long (R), and cv are the task's secret: how
long an operation took is seen when it ends, the price of lateness when a job is late. Rewards sum to minus the total
weighted tardiness, in mean nominal operation times.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

import chex
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, data
from envs_jax.data import readers
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import job_shop
from envs_jax.references.job_shop import Progress, Shop, total

REWARD_SCALE = 0.25  # of the column last_reward
TOP_WEIGHT, MEAN_WEIGHT = 4.0, 7.0 / 3.0  # of sampled tasks; the larger is the unit of the column unit_value
TA01_SEEDS = (840612802, 398197754)
PUBLISHED = {(6, 6): "ft06", (10, 5): "la01", (10, 10): "ft10"}


@struct.dataclass
class ManufacturingState(EnvState):
    """Attributes:
    clock: ``f32[]`` t [min].
    previous: ``f32[]`` clock before its last move [min].
    started: ``i32[J]`` operations started of each job.
    began: ``f32[J]`` start of each job's last started operation [min].
    ready: ``f32[J]`` its end, in the future while it runs [min]; 0 before the first.
    free: ``f32[M]`` end of each machine's last started operation [min].
    minutes: ``f32[J, M]`` x, what every operation takes in this episode [min]; seen only as operations end.
    spent: ``f32[M]`` minutes that finished operations took on each machine.
    bill: ``f32[J]`` what each job's tardiness has cost so far.
    holds: ``i32[]`` holds left.
    holding: ``bool[]`` the present choice is to hold.
    """

    clock: chex.Array
    previous: chex.Array
    started: chex.Array
    began: chex.Array
    ready: chex.Array
    free: chex.Array
    minutes: chex.Array
    spent: chex.Array
    bill: chex.Array
    holds: chex.Array
    holding: chex.Array


@struct.dataclass
class ManufacturingParams(EnvParams):
    """Attributes:
    order: ``i32[J, M]`` place (0..M-1) of machine m in job j's route.
    nominal: ``f32[J, M]`` p, nominal time of job j on machine m [min]; positive.
    due: ``f32[J]`` d [min].
    weight: ``f32[J]`` w, cost of a minute of tardiness; positive. Hidden.
    factor: ``f32[M]`` f, running time relative to nominal; positive. Hidden.
    repair_share: ``f32[M]`` A, share of a busy machine's time that it is in repair, in [0, 1). Hidden.
    repair_time: ``f32[]`` R, mean time to repair [min]; positive. Hidden.
    variation: ``f32[]`` cv of running times. Hidden.
    """

    order: chex.Array
    nominal: chex.Array
    due: chex.Array
    weight: chex.Array
    factor: chex.Array
    repair_share: chex.Array
    repair_time: chex.Array
    variation: chex.Array


class Manufacturing(ResourceEnv[ManufacturingState, ManufacturingParams]):
    """J jobs on M machines, one choice of a job at a time; every choice is a period of its own.

    Action j < J starts the next operation of job j now; it is legal if job and machine are free. Action J holds:
    nothing starts until the next operation ends. After ``max_holds`` holds, or if nothing runs, it starts the job that
    has been waiting longest instead (ties: the lowest number), so that every episode finishes its J M operations within
    J M + ``max_holds`` choices. Once all is done it does nothing. The clock waits while something can be started.

    L = M x mean p is a mean job's nominal time. A job that waits pays its price for every minute if it ends late. The
    price is what it has been billed, or the mean weight of tasks (7/3) as long as it was never late; and as queues eat
    up what the nominal schedule spares, about 1 - slack of such jobs do end late.

    ======= =========== ==========================================================================================
    token   column      quantity
    ======= =========== ==========================================================================================
    job     urgency     price x (1 - slack), 0 unless it waits
    job     slack       max(d - t - nominal work left, 0) / L, at most 1; 0 when done
    job     level       nominal work left / L
    job     outflow     1 if an operation ended in the clock's last move
    job     waiting     nominal time of the next operation, if the job waits for it [2 mean p]
    job     age         how long it has been waiting, or its operation running / L, at most 10
    job     unit_value  w once the job has been late, 0 before: the price that has been billed [4], at most 10
    job     private_a   max(t + nominal work left - d, 0) / L, at most 1; 0 when done
    job     private_b   nominal time left of the operation that runs [2 mean p]
    job     private_c   nominal time of the operations after the next / L
    job     private_d   ln(actual / nominal time) of the operation that ended in the clock's last move
    job     private_e   label of the machine it needs next, in (-1, 1)
    job     private_f   the next machine's observed speed
    machine slack       1 if idle
    machine level       nominal time left of what runs on it [2 mean p]
    machine outflow     1 if an operation ended on it in the clock's last move
    machine waiting     nominal time of the jobs that wait for it [2 mean p]
    machine age         how long the operation on it has been running [2 mean p]
    machine private_a   operations ended on it / J
    machine private_d   ln(actual / nominal time) of the operation that ended in the clock's last move
    machine private_e   its label
    machine private_f   observed speed: nominal / actual time of its ended operations, 1 before the first
    shop    level       holds left / max_holds
    shop    waiting     share of operations not yet started
    shop    is_turn     1: the dispatcher may start any job
    shop    private_a   share of the jobs that are behind their nominal schedule
    all     progress    share of the episode gone
    all     last_reward reward of the last choice [4]
    ======= =========== ==========================================================================================

    Roles: job ``demand``, machine ``supplier``, shop ``clock``. Unbounded features are clipped to [-10, 10]. A start's
    target is the job. Action J has no target where it holds; where no hold is allowed it is described as the start that
    it stands for. As it is not always to do nothing, no action has ``is_noop``.

    ======= =========== ==========================================================================================
    action  column      quantity
    ======= =========== ==========================================================================================
    all     amount      1 for a start
    all     signed      1 for a start: the job waits no longer
    all     private_a   nominal time of the jobs that wait for its machine [2 mean p]
    all     private_b   of action J: 1 to hold (or when all is done), -1 to start the job that has been waiting longest
    ======= =========== ==========================================================================================

    Key figures in ``info``, of the clock's last move: ``weighted_tardiness`` [cost]; ``minutes``; ``operations`` ended;
    ``finished_jobs``; ``tardy_jobs`` finished late; ``holds``.

    Invariants: every operation runs once, on one machine at a time, in the job's order; a machine runs one at a time;
    rewards sum to the weighted tardiness of the completion times; relabelling jobs permutes everything; multiplying all
    times by c multiplies clock and tardiness by c and leaves rewards unchanged.

    Source: M. Singer, M. Pinedo, IIE Transactions 30, 1998 (job shop with weighted tardiness); E. Taillard, EJOR 64(2),
    1993 (instances); A. P. J. Vepsalainen, T. E. Morton, Management Science 33(8), 1987 (rule); O. Holthaus, 1999
    (breakdowns): all recalled, none re-read. Machine factors and hidden weights are choices made here.

    Args:
      num_jobs: J; J + M at most 31. By default 6, or what ``instance`` has.
      num_machines: M, likewise.
      max_holds: holds per episode; 0 is the classical class of non-delay schedules.
      instance: path of a job-shop file (docs/own_data.md), the default task with tightness 1.3. Sampled tasks keep all
        that is shown and draw what is hidden.
    """

    name: ClassVar[str] = "manufacturing"
    hidden: ClassVar[tuple[str, ...]] = ("weight", "factor", "repair_share", "repair_time", "variation")
    reward_unit: ClassVar[str] = "weighted mean operation times"
    data_files: ClassVar[tuple[str, ...]] = ("instance",)
    exceptions: ClassVar[Mapping[str, str]] = {
        "the_reference_serves_the_urgent": "Good schedules start short operations of nearly late jobs first; what a "
        "period of a job's lateness costs says nothing of how long it keeps the machine.",
    }

    def __init__(
        self,
        num_jobs: int | None = None,
        num_machines: int | None = None,
        max_holds: int = 2,
        instance: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self._file = None if instance is None else readers.load(self.name, "instance", instance, readers.job_shop.parse)
        jobs, machines = (6, 6) if self._file is None else self._file.route.shape
        num_jobs, num_machines = (
            jobs if num_jobs is None else num_jobs,
            machines if num_machines is None else num_machines,
        )
        num_jobs, num_machines, max_holds = checks.whole_numbers(
            self.name, num_jobs=(num_jobs, 1, 30), num_machines=(num_machines, 1, 30), max_holds=(max_holds, 0, 10_000)
        )
        if num_jobs + num_machines > 31:
            total = f"{num_jobs} + {num_machines} = {num_jobs + num_machines}"
            raise checks.refusal(self.name, "num_jobs + num_machines", "at most 31", total)
        if self._file is not None and (num_jobs, num_machines) != (jobs, machines):
            allowed = f"the file's {jobs} and {machines}"
            raise checks.refusal(self.name, "num_jobs, num_machines", allowed, f"{num_jobs}, {num_machines}")
        self.num_jobs = num_jobs
        self.num_machines = num_machines
        self.max_holds = max_holds
        self.num_turns = 1
        self.num_periods = num_jobs * num_machines + max_holds
        self.num_tokens = num_jobs + num_machines + 1
        self.num_actions = num_jobs + 1
        self.noop_action = num_jobs
        self.num_uniforms = 0
        self.num_reset_uniforms = (2 + job_shop.STOPS) * num_jobs * num_machines

    @property
    def default_params(self) -> ManufacturingParams:
        """The file's; else ft06, la01, ft10 (J x M 6x6, 10x5, 10x10) or Taillard's of ta01's seeds; tightness 1.3.

        Machines run as planned: f = 1, no breakdowns, no variation.
        """
        shape = (self.num_jobs, self.num_machines)
        if self._file is not None:
            return self.instance(self._file.route, self._file.minutes)
        if shape in PUBLISHED:
            return self.instance(*data.job_shop(PUBLISHED[shape]))
        return self.instance(*job_shop.taillard(jnp.int32(TA01_SEEDS[0]), jnp.int32(TA01_SEEDS[1]), *shape))

    def instance(
        self, route: chex.Array, minutes: chex.Array, tightness: chex.Numeric = 1.3, weight: chex.Array | None = None
    ) -> ManufacturingParams:
        """A given instance on machines that run as planned.

        Args:
          route: ``i32[J, M]`` machines in the order of each job's route, every machine once.
          minutes: ``[J, M]`` nominal times in the same order [min].
          tightness: tau; due dates are floor(tau x the job's nominal time).
          weight: ``f32[J]``, by default :func:`~envs_jax.references.job_shop.weights`.

        Raises:
          ValueError: for tables of another shape, a job that does not visit every machine once, minutes or a weight
            below 0, a tightness that is not above 0.
        """
        per, shape = "a row a job", (self.num_jobs, self.num_machines)
        visits = checks.numbers(self.name, "route", route, 0, self.num_machines - 1, shape=shape, per=per, whole=True)
        if visits is not None:
            for job, row in enumerate(np.sort(visits)):
                if (row != np.arange(self.num_machines)).any():
                    got = f"{visits[job].astype(int).tolist()} for job {job}"
                    raise checks.refusal(self.name, "route", "every machine once for each job", got)
        checks.numbers(self.name, "minutes", minutes, 0.0, shape=shape, per=per)
        checks.number(self.name, "tightness", tightness, 0.0, above=True)
        if weight is not None:
            checks.numbers(self.name, "weight", weight, 0.0, shape=(self.num_jobs,), per="one a job")
        order, nominal = job_shop.by_machine(route, minutes)
        return ManufacturingParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            order=order,
            nominal=nominal,
            weight=job_shop.weights(self.num_jobs) if weight is None else jnp.asarray(weight, jnp.float32),
            # A hundredth of a minute keeps a product that is whole, such as 1.3 x 190, from being floored to one less.
            due=jnp.floor(tightness * nominal.sum(1) + 0.01).astype(jnp.float32),
            factor=jnp.ones((self.num_machines,), jnp.float32),
            repair_share=jnp.zeros((self.num_machines,), jnp.float32),
            repair_time=nominal.mean(),
            variation=jnp.float32(0.0),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> ManufacturingParams:
        """One task: an instance of Taillard's generator, or the file's jobs and due dates, on machines of its own.

        Tightness ~ U(1.2, 1.7), w_j 1, 2 or 4 alike, f_m ~ logU(1/2, 2), A_m ~ U(0, .05), R ~ U(1, 2) mean operation
        times, cv ~ U(.02, .2).
        """
        j, m = self.num_jobs, self.num_machines
        u = self.task_uniforms(key, split, 5 + 2 * m + j)
        seeds = 1 + (u[:2] * (job_shop.MODULUS - 256)).astype(jnp.int32)
        route, minutes = job_shop.taillard(seeds[0], seeds[1], j, m)
        weight = 2.0 ** jnp.floor(3.0 * u[5 + 2 * m :])
        if self._file is None:
            task = self.instance(route, minutes, 1.2 + 0.5 * u[2], weight)
        else:
            task = self.default_params.replace(weight=weight)
        return task.replace(
            factor=4.0 ** (u[5 : 5 + m] - 0.5),
            repair_share=0.05 * u[5 + m : 5 + 2 * m],
            repair_time=task.nominal.mean() * (1.0 + u[3]),
            variation=0.02 + 0.18 * u[4],
        )

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: ManufacturingParams) -> ManufacturingState:
        """Nothing started. What each operation will take is drawn now: it belongs to the operation, not to a time.

        Uniforms ``[2 + STOPS, J, M]``: see :func:`~envs_jax.references.job_shop.realised_minutes`.
        """
        shape = (self.num_jobs, self.num_machines)
        u, running = uniforms.reshape(2 + job_shop.STOPS, *shape), params.nominal * params.factor[None, :]
        repairs = (params.repair_share, params.repair_time)
        minutes = job_shop.realised_minutes(u, running, params.variation, *repairs)
        jobs, machines = jnp.zeros(shape[:1], jnp.float32), jnp.zeros(shape[1:], jnp.float32)
        return ManufacturingState(
            **self.clock(key),
            clock=jnp.float32(0.0),
            previous=jnp.float32(0.0),
            started=jnp.zeros(shape[:1], jnp.int32),
            began=jobs,
            ready=jobs,
            free=machines,
            minutes=minutes,
            spent=machines,
            bill=jobs,
            holds=jnp.int32(self.max_holds),
            holding=jnp.bool_(False),
        )

    def _progress(self, state: ManufacturingState) -> Progress:
        return Progress(clock=state.clock, started=state.started, ready=state.ready, free=state.free)

    def _startable(self, state: ManufacturingState, params: ManufacturingParams) -> chex.Array:
        """``bool[J]``: the job's next operation finds job and machine free."""
        return job_shop.earliest(params.order, self._progress(state)) <= state.clock

    def _longest(self, state: ManufacturingState, startable: chex.Array) -> chex.Array:
        """``i32[]``: of the jobs that can be started the one that has been waiting longest; ties: the lowest number."""
        return jnp.argmin(jnp.where(startable, state.ready, jnp.inf)).astype(jnp.int32)

    def _may_hold(self, state: ManufacturingState) -> chex.Array:
        """``bool[]``: something runs whose end can be waited for, and a hold is left."""
        return (state.holds > 0) & (state.ready > state.clock).any()

    def choose(
        self, state: ManufacturingState, turn: chex.Array, action: chex.Array, params: ManufacturingParams
    ) -> ManufacturingState:
        """Starts job ``action``, or holds; where no hold is allowed the job that has been waiting longest starts."""
        del turn
        startable = self._startable(state, params)
        asked = startable & (jnp.arange(self.num_jobs, dtype=jnp.int32) == action)
        hold = ~asked.any() & self._may_hold(state)
        longest = startable & (jnp.arange(self.num_jobs, dtype=jnp.int32) == self._longest(state, startable))
        chosen = jnp.where(asked.any(), asked, longest) & ~hold
        shop = Shop(order=params.order, minutes=state.minutes, weight=params.weight, due=params.due)
        after = job_shop.start(shop, self._progress(state), state.clock, chosen)
        return state.replace(
            started=after.started,
            began=jnp.where(chosen, state.clock, state.began),
            ready=after.ready,
            free=after.free,
            holds=state.holds - hold.astype(jnp.int32),
            holding=hold,
        )

    def advance(
        self, state: ManufacturingState, uniforms: chex.Array, params: ManufacturingParams
    ) -> tuple[ManufacturingState, chex.Array, dict[str, chex.Array]]:
        """The clock moves to when something can start; at least to the next end after a hold; lastly to the last."""
        del uniforms  # all was drawn when the episode began
        startable = job_shop.earliest(params.order, self._progress(state)).min()
        ends = state.ready > state.clock
        next_end = jnp.where(ends, state.ready, jnp.inf).min()
        target = jnp.where(jnp.isfinite(startable), startable, state.ready.max())
        now = jnp.maximum(jnp.where(state.holding, next_end, state.clock), target)
        completion = jnp.where(state.started == self.num_machines, state.ready, jnp.inf)
        late = [jnp.maximum(jnp.minimum(t, completion) - params.due, 0.0) for t in (state.clock, now)]
        billed = params.weight * (late[1] - late[0])
        accrued = jnp.sum(billed)
        ended = ends & (state.ready <= now)
        took = jnp.where(ended, state.ready - state.began, 0.0)
        finished = ended & (state.started == self.num_machines)
        info = {
            "weighted_tardiness": accrued,
            "minutes": now - state.clock,
            "operations": ended.sum(dtype=jnp.float32),
            "finished_jobs": finished.sum(dtype=jnp.float32),
            "tardy_jobs": (finished & (state.ready > params.due)).sum(dtype=jnp.float32),
            "holds": state.holding.astype(jnp.float32),
        }
        state = state.replace(
            clock=now,
            previous=state.clock,
            spent=state.spent + total(params.order == state.started[:, None] - 1, took[:, None], 0),
            bill=state.bill + billed,
            holding=jnp.bool_(False),
        )
        return state, -accrued / params.nominal.mean(), info

    def observation(self, state: ManufacturingState, params: ManufacturingParams) -> Observation:
        """See the class docstring for the columns."""
        j, m, t, nominal = self.num_jobs, self.num_machines, state.clock, params.nominal
        mean, length = nominal.mean(), m * nominal.mean()
        f = job_shop.floor(params.order, nominal, self._progress(state), state.began, state.previous)
        slack = jnp.where(f.open, (params.due - t - f.work) / length, 0.0)
        startable = self._startable(state, params)
        speed = jnp.where(state.spent > 0.0, total(f.complete, nominal, 0) / jnp.maximum(state.spent, 1e-6), 1.0)
        queued = bounded(total(f.queue, nominal, 0) / (2.0 * mean))
        label = (2.0 * jnp.arange(m, dtype=jnp.float32) + 1.0) / m - 1.0
        shared = {"progress": self.progress(state), "last_reward": bounded(REWARD_SCALE * state.last_reward)}
        tardy = jnp.maximum(jnp.where(f.open, t, state.ready) - params.due, 0.0)
        price = jnp.where(tardy > 0.0, state.bill / jnp.maximum(tardy, 1e-6), 0.0)
        waits = f.queue.any(1)
        spare = jnp.clip(slack, 0.0, 1.0)
        since = jnp.where(f.running, state.began, state.ready)
        jobs = {
            "urgency": jnp.where(waits, jnp.where(tardy > 0.0, price, MEAN_WEIGHT) * (1.0 - spare), 0.0),
            "slack": spare,
            "level": f.work / length,
            "outflow": f.ended.astype(jnp.float32),
            "waiting": total(f.queue, nominal, 1) / (2.0 * mean),
            "age": jnp.minimum(jnp.where(waits | f.running, t - since, 0.0) / length, 10.0),
            "unit_value": jnp.minimum(price / TOP_WEIGHT, 10.0),
            "private_a": jnp.clip(-slack, 0.0, 1.0),
            "private_b": f.left / (2.0 * mean),
            "private_c": f.later / length,
            "private_d": bounded(f.outcome),
            "private_e": total(f.following, label, 1),
            "private_f": jnp.minimum(total(f.following, speed, 1), 10.0),
            **shared,
        }
        machines = {
            "slack": 1.0 - f.busy.any(0).astype(jnp.float32),
            "level": total(f.busy, f.left[:, None], 0) / (2.0 * mean),
            "outflow": (f.last & f.ended[:, None]).sum(0, dtype=jnp.int32),
            "waiting": queued,
            "age": jnp.minimum(total(f.busy, t - state.began[:, None], 0) / (2.0 * mean), 10.0),
            "private_a": f.complete.sum(0, dtype=jnp.int32) / j,
            "private_d": bounded(total(f.last, f.outcome[:, None], 0)),
            "private_e": label,
            "private_f": jnp.minimum(speed, 10.0),
            **shared,
        }
        shop = {
            "level": state.holds / max(self.max_holds, 1),
            "waiting": (j * m - state.started.sum(dtype=jnp.int32)) / (j * m),
            "is_turn": 1.0,
            "private_a": (slack < 0.0).sum(dtype=jnp.int32) / j,
            **shared,
        }
        start = jnp.arange(j + 1, dtype=jnp.int32) < j
        longest, refused = self._longest(state, startable), startable.any() & ~self._may_hold(state)
        starts = (start | refused).astype(jnp.float32)
        at_machine = total(f.following, queued, 1)
        return make_observation(
            tokens=[("demand", j, jobs), ("supplier", m, machines), ("clock", 1, shop)],
            actions={
                "amount": starts,
                "signed": starts,
                "private_a": jnp.append(at_machine, jnp.where(refused, at_machine[longest], 0.0)),
                "private_b": jnp.where(start, 0.0, jnp.where(refused, -1.0, 1.0)),
            },
            action_target=jnp.append(jnp.arange(j, dtype=jnp.int32), jnp.where(refused, longest, -1)),
            action_mask=jnp.append(startable, True),
        )

    def solve(self, params: ManufacturingParams) -> Shop:
        """The shop with expected times p f / (1 - A): a minute of running brings A / (1 - A) minutes of repair."""
        minutes = params.nominal * (params.factor / (1.0 - params.repair_share))[None, :]
        return Shop(order=params.order, minutes=minutes, weight=params.weight, due=params.due)

    def reference_action(
        self, plan: Shop, state: ManufacturingState, params: ManufacturingParams, key: chex.PRNGKey
    ) -> chex.Array:
        """Roll-out: of all legal choices the one after which ATC, with expected times, makes the cheapest schedule."""
        del key
        return jnp.argmin(self.rollout_costs(plan, state, params)).astype(jnp.int32)

    def rollout_costs(self, plan: Shop, state: ManufacturingState, params: ManufacturingParams) -> chex.Array:
        """Least weighted tardiness ``f32[J+1]`` of each choice followed by one of the ATC rules; inf if not allowed."""
        # Every choice but a hold starts an operation. Lockstep batches share the time, so bounding the loop by it, and
        # not by what has been started, keeps the loop's end unbatched.
        steps = jnp.minimum(self.horizon - state.time, self.num_jobs * self.num_machines)
        cost = job_shop.rollout_costs(plan, self._progress(state), state.began, steps)
        startable = self._startable(state, params)
        hold = self._may_hold(state) | ~startable.any()
        return jnp.where(jnp.append(startable, hold), jnp.minimum(cost, 1e30), jnp.inf)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """ATC with the speeds and prices seen so far in this episode; never holds.

        A job that was never late is priced at the mean weight of tasks. Look-ahead (1 mean operation time) and lead (1)
        were tuned on tasks of ``sample_params``.
        """
        del key
        slack, behind, waiting, price, speed = (
            observation.column(name)[: self.num_jobs]
            for name in ("slack", "private_a", "waiting", "unit_value", "private_f")
        )
        # In mean operation times; a lead of 1 leaves the nominal slack less what the machine's speed adds.
        nominal = 2.0 * waiting
        minutes = jnp.maximum(nominal / speed, 1e-3)
        ahead = self.num_machines * (slack - behind) - (minutes - nominal)
        index = job_shop.atc_index(jnp.where(price > 0.0, price, MEAN_WEIGHT / TOP_WEIGHT), minutes, ahead, 1.0)
        startable = observation.action_mask[: self.num_jobs]
        best = jnp.argmax(jnp.where(startable, index, -1.0)).astype(jnp.int32)
        return jnp.where(startable.any(), best, self.noop_action).astype(jnp.int32)
