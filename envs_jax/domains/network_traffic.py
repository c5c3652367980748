"""Network traffic: one transmitter, many flows, links that come and go (Tassiulas and Ephremides 1993).

A period is a frame of R slots. One after another each slot is given to an *activation*, a set of flows that may be
sent together (by default one flow); then the frame goes on the air. For flow k, in packets:

    n_k = slots given to k, each while its link is up and it has a packet not yet granted       <= q_k
    d_k ~ Binomial(n_k, mu_k),  q'_k = q_k - d_k                acknowledged; the others are sent again
    A_k ~ on_k Binomial(R, lambda_k / (R f)),  drop_k = max(q'_k + A_k - B, 0),  q_k <- q'_k + A_k - drop_k
    link_k ~ Bernoulli(p_k) every frame;  on_k a two-state chain, on for a share f of frames
    reward = -sum_k c_k (q'_k + loss drop_k) / K                [weighted packets per flow]

With R = 1 this is the published slot model. By Little's law the sum of costs is the weighted delay of all packets.
What a service class and a flow's contract are worth (their product is c), success rates mu, connectivities p, arrival
rates lambda and f are the task's secret.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import checks, sampling
from envs_jax.arrays import aligned
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.heuristics import network_traffic as learning
from envs_jax.observation import Observation, make_observation
from envs_jax.references import max_weight

CLASS_WEIGHTS, NUM_CLASSES = (1 / 3, 2 / 3, 1.0, 2.0), 4
"""Holding cost of a packet of the service classes with delay budgets 300, 150, 100, 50 ms: 100 ms / budget."""
CONTRACT_RANGE = (1 / 3, 3.0)
"""What a flow's contract makes of its class's weight, of every flow by itself; log-uniform."""
ORDERS = learning.orders(CLASS_WEIGHTS)
"""Of the weights among the classes, ``f32[24, 4]``."""
SUCCESS_RANGE, CONNECTIVITY_RANGE, LOAD_RANGE = (0.3, 1.0), (0.4, 1.0), (0.5, 0.95)
"""A task's mu and p of every flow, and its sum_k lambda_k / (R mu_k); all uniform."""
BURST_FRACTION, BURST_SLOTS = 0.3, 10.0
"""Half of the tasks have on-off sources: on for this share of the time, for so many slots at a stretch."""
START_BACKLOG = 4
"""A task's queues start with 0..4 packets: from empty ones, a third of the episode would go by before it matters."""
QUEUE_EXPONENT, CONNECTIVITY_EXPONENT = 0.3, 0.6
"""Of the reference's index, see :class:`NetworkTraffic`; tuned on tasks of ``sample_params``."""
PACKET_SCALE = 10.0
"""Waiting packets that the observation shows as 1."""

Index = tuple[chex.Array, chex.Array]
"""Factor and exponent ``f32[K]``: a flow with w packets to grant has the index ``factor w^exponent``."""


@struct.dataclass
class NetworkTrafficState(EnvState):
    """Attributes, all ``[K]``.

    queue: ``i32`` q, packets in the buffer, granted ones included.
    granted: ``i32`` n, slots of this frame given so far.
    connected: ``bool`` whether its link is up in this frame; all are in the first.
    source_on: ``bool`` whether its source sends in this frame. Not seen.
    acked, failed: ``i32`` packets sent in the last frame, with success and in vain.
    change: ``i32`` change of the queue over the last frame [packets].
    attempts, successes, arrivals: ``i32`` totals of the episode so far [packets].
    times_connected: ``i32`` frames with the link up so far, without the first.
    """

    queue: chex.Array
    granted: chex.Array
    connected: chex.Array
    source_on: chex.Array
    acked: chex.Array
    failed: chex.Array
    change: chex.Array
    attempts: chex.Array
    successes: chex.Array
    arrivals: chex.Array
    times_connected: chex.Array


@struct.dataclass
class NetworkTrafficParams(EnvParams):
    """Attributes, with units.

    service_class: ``i32[K]`` in 0..3. Shown.
    buffer: ``i32[]`` B, packets a flow's buffer holds. Shown, as the scale of ``level``.
    loss: ``f32[]`` a lost packet costs as much as one that waits this many frames.
    start: ``i32[]`` initial queues are uniform on 0..start [packets].
    on_length: ``f32[]`` mean frames in a row that a source is on, at least max(1, f / (1 - f)).
    class_weight: ``f32[4]`` of the classes [1 / packet / frame]. Hidden; felt in every reward.
    contract: ``f32[K]`` factor on it: c is the product of the two. Hidden; felt in every reward.
    success_rate: ``f32[K]`` mu. Hidden; felt in acknowledgements.
    connectivity: ``f32[K]`` p. Hidden; felt in the links' state.
    arrival_rate: ``f32[K]`` lambda, mean packets per frame, below R f. Hidden; felt in the queues.
    on_fraction: ``f32[]`` f, share of frames in which a source is on. Hidden.
    success_cdf: ``f32[K, R + 1, R + 1]`` law of d given n = 0..R. Hidden, derived.
    arrival_cdf: ``f32[K, R + 1]`` law of A while on. Hidden, derived.
    """

    service_class: chex.Array
    buffer: chex.Array
    loss: chex.Array
    start: chex.Array
    on_length: chex.Array
    class_weight: chex.Array
    contract: chex.Array
    success_rate: chex.Array
    connectivity: chex.Array
    arrival_rate: chex.Array
    on_fraction: chex.Array
    success_cdf: chex.Array
    arrival_cdf: chex.Array


class NetworkTraffic(ResourceEnv[NetworkTrafficState, NetworkTrafficParams]):
    """K flows share one transmitter; the R slots of a frame are given away one after another, R turns make a period.

    Action a gives the slot to activation a; the last action, the no-op, leaves it to the transmitter's own rule, the
    longest connected queue (largest sum of queues). An activation is legal if one of its flows is *ready*: link up,
    with a packet not yet granted; its other flows are passed over. Reward is 0 except on the frame's last turn. With
    ``activations=max_weight.crossbar(3)``, K = 9 and R = 1 this is an input-queued switch.

    w = q - n are packets not yet granted.

    =========== =========== ============================================================================
    token       column      quantity
    =========== =========== ============================================================================
    flow        urgency     w; what a waiting packet costs is hidden
    flow        slack       1 - q / B, room in the buffer
    flow        level       q / B
    flow        capacity    B [packets]
    flow        inflow      mean arrivals so far [packets/slot]: what to expect
    flow        outflow     acknowledged in the last frame [R packets]
    flow        waiting     w [10 packets]
    flow        decided     n / R
    flow        private_a   sent in vain in the last frame, to be sent again [R packets]
    flow        private_b   change of q over the last frame [R packets]
    flow        private_c   -1 for service classes 0 and 1, 1 for 2 and 3
    flow        private_d   -1 for service classes 0 and 2, 1 for 1 and 3
    flow        private_e   share of attempts acknowledged so far, (successes + 1) / (attempts + 2)
    flow        private_f   (frames + 2) / (times up + 1) so far [10]; negative while its link is down
    transmitter slack       slots of this frame not given yet / R
    transmitter level       the same
    transmitter capacity    R [packets a frame]
    transmitter outflow     acknowledged in the last frame, all flows [R packets]
    transmitter waiting     sum of w [10 K packets]
    transmitter is_turn     1
    transmitter decided     slots given / R
    all         progress    share of the episode gone
    all         last_reward reward of the last frame
    =========== =========== ============================================================================

    Roles: K flows ``demand``, then the transmitter ``carrier``. Features without bounds are cut at 10.

    =========== =========== ============================================================================
    action      column      quantity
    =========== =========== ============================================================================
    all         amount      packets it sends over the most that an activation can send
    all         signed      the same: being sent relieves the flow
    own rule    is_noop     1 where no flow is ready, and it sends nothing
    own rule    private_a   1
    activation  private_b   mean ``waiting`` of its flows but the target; 0 by default, of one flow each
    activation  private_c   mean ``slack`` of these; 0 by default
    activation  private_d   mean ``level`` of these; 0 by default
    =========== =========== ============================================================================

    The target is the longest queue served; of the own rule, if no flow is ready, there is none.

    Hidden: class weights, contracts, mu, p, lambda, f. Rewards are linear in the packets of each flow that were left,
    that is in ``level``, ``private_b``, ``outflow``; ``outflow`` and ``private_a`` are samples of mu, ``private_f`` of
    p.

    Invariants: arrivals = acknowledged + dropped + change of the queue, for every flow; queues stay in [0, B]; nothing
    is sent over a link that is down, nor more packets than there are; permuting flows permutes everything; with p = 1,
    R = 1 and no losses, E sum_k q_k / mu_k is the same for all policies.

    Reference: the largest sum of ``c mu w^e / p^.6`` over ready flows, ``e = .3 (1 - p)``. With p = 1 this is the c-mu
    rule, among equal flows the longest connected queue, and both are optimal there; else it is a tuned index. With
    activations of several flows e = 1, max-weight.

    Sources: L. Tassiulas, A. Ephremides, "Dynamic Server Allocation to Parallel Queues with Randomly Varying
    Connectivity", IEEE Transactions on Information Theory 39(2), 1993 (model, longest connected queue); S. Krishnasamy,
    A. Arapostathis, R. Johari, S. Shakkottai, "On Learning the c-mu Rule in Single and Parallel Server Networks", arXiv
    1802.06723, 2018 (unknown mu); abstracts read. 3GPP TS 23.501, table 5.7.4-1 (delay budgets; read at second hand).
    Switch: code of Park (H. Mao et al., 2019), read. Frames and task ranges are choices made here.

    Usage::

        env, params = envs_jax.make("network_traffic")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_flows: K.
      slots_per_frame: R.
      num_periods: frames.
      activations: sets of flows that may be sent together; by default each flow by itself.
    """

    name = "network_traffic"
    hidden = (
        *("class_weight", "contract", "success_rate", "connectivity", "arrival_rate", "on_fraction"),
        *("success_cdf", "arrival_cdf"),
    )
    ingredients = ("success_rate", "arrival_rate")
    reward_unit = "weighted packets per flow"
    reference_kind = "heuristic"
    exceptions: ClassVar[Mapping[str, str]] = {
        "the_reference_serves_the_urgent": "What a waiting packet costs is hidden; the reference serves dear packets "
        "and sure links first, whichever queue is longest.",
    }
    rule: ClassVar[learning.Rule] = learning.Rule(
        queue=0.1,
        fading=0.3,
        connectivity=0.5,
        inflow=0.05,
        success=0.65,
        attempts=10.0,
        link=0.6,
        frames=3.0,
        contract=1.2,
        spread=0.7,
    )

    def __init__(
        self,
        num_flows: int = 8,
        slots_per_frame: int = 4,
        num_periods: int = 24,
        activations: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        super().__init__()
        num_flows, slots_per_frame, num_periods = checks.whole_numbers(
            self.name,
            num_flows=(num_flows, 1, 31),
            slots_per_frame=(slots_per_frame, 1, 16),
            num_periods=(num_periods, 1, 10**7),
        )
        sets = [(k,) for k in range(num_flows)] if activations is None else self._activations(activations, num_flows)
        menu = max_weight.menu(sets, num_flows)
        self.num_flows = num_flows
        self.num_turns = slots_per_frame
        self.num_periods = num_periods
        self.num_tokens = num_flows + 1
        self.num_actions = len(menu) + 1
        self.noop_action = len(menu)
        self.num_uniforms = 4 * num_flows
        self.num_reset_uniforms = 2 * num_flows
        self.menu = menu
        self.largest = int(menu.sum(-1).max())

    def _activations(self, sets: object, num_flows: int) -> list[tuple[int, ...]]:
        """The menu as given, if it is 1 to 31 sets of distinct flows."""
        if isinstance(sets, str) or not isinstance(sets, Sequence | np.ndarray) or not 1 <= len(sets) <= 31:
            got = f"{len(sets)} sets" if isinstance(sets, list | tuple) else checks.shown(sets)
            raise checks.refusal(self.name, "activations", "1 to 31 sets of flows", got)
        found = []
        for i, flows in enumerate(sets):
            field = f"activations[{i}]"
            found.append(checks.whole_sequence(self.name, field, flows, 0, num_flows - 1, (1, num_flows)))
            if len(set(found[-1])) < len(found[-1]):
                raise checks.refusal(self.name, field, "distinct flows", checks.shown(found[-1]))
        return found

    # ---- tasks ----------------------------------------------------------------------------------------------------

    def instance(
        self,
        arrival_rate: chex.Array,
        success_rate: chex.Numeric = 1.0,
        connectivity: chex.Numeric = 1.0,
        class_weight: chex.Array = (1.0,) * NUM_CLASSES,
        service_class: chex.Array | None = None,
        on_fraction: chex.Numeric = 1.0,
        on_length: chex.Numeric = 1.0,
        buffer: chex.Numeric = 50,
        loss: chex.Numeric = 20.0,
        start: chex.Numeric = 0,
        contract: chex.Numeric = 1.0,
    ) -> NetworkTrafficParams:
        """A task from its quantities (see :class:`NetworkTrafficParams`); scalars hold for every flow.

        Raises:
          ValueError: for values that are no such quantities, or more arrivals than an on source can send: at most one
            packet in each slot in which it is on, ``arrival_rate <= on_fraction R``.
        """
        self._check_instance(
            arrival_rate, success_rate, connectivity, class_weight, service_class, on_fraction, on_length
        )
        checks.numbers(self.name, "contract", contract, 0.0, shape=(self.num_flows,), per="one a flow", scalar=True)
        checks.numbers(self.name, "buffer", buffer, 1, 2**30, whole=True)
        checks.number(self.name, "loss", loss, 0.0)
        checks.numbers(self.name, "start", start, 0, 2**30, whole=True)

        def flows(x: chex.Numeric, dtype: type = jnp.float32) -> chex.Array:
            return jnp.broadcast_to(jnp.asarray(x, dtype), (self.num_flows,))

        rates = {"arrival_rate": arrival_rate, "success_rate": success_rate, "connectivity": connectivity}
        rates = {name: flows(x) for name, x in (rates | {"contract": contract}).items()}
        scalars = {"loss": loss, "on_length": on_length, "on_fraction": on_fraction, "class_weight": class_weight}
        scalars = {name: jnp.asarray(x, jnp.float32) for name, x in scalars.items()}
        if service_class is None:
            service_class = jnp.arange(self.num_flows, dtype=jnp.int32) % NUM_CLASSES
        return NetworkTrafficParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            service_class=flows(service_class, jnp.int32),
            buffer=jnp.asarray(buffer, jnp.int32),
            start=jnp.asarray(start, jnp.int32),
            **rates,
            **scalars,
            **self._laws(rates["arrival_rate"], rates["success_rate"], scalars["on_fraction"]),
        )

    def _check_instance(
        self,
        arrival_rate: object,
        success_rate: object,
        connectivity: object,
        class_weight: object,
        service_class: object,
        on_fraction: object,
        on_length: object,
    ) -> None:
        """Refuses what no flow or source can have."""
        flows = functools.partial(checks.numbers, self.name, shape=(self.num_flows,), per="one a flow", scalar=True)
        rates = flows("arrival_rate", arrival_rate, 0.0, self.num_turns)
        flows("success_rate", success_rate, 0.0, 1.0)
        flows("connectivity", connectivity, 0.0, 1.0)
        checks.numbers(
            self.name, "class_weight", class_weight, 0.0, shape=(NUM_CLASSES,), per="one a class", scalar=True
        )
        if service_class is not None:
            flows("service_class", service_class, 0, NUM_CLASSES - 1, whole=True)
        on = checks.number(self.name, "on_fraction", on_fraction, 0.0, 1.0, above=True)
        checks.number(self.name, "on_length", on_length, 1.0)
        if rates is not None and on is not None and rates.max() > on * self.num_turns * (1.0 + 1e-6):
            allowed = f"at most on_fraction x slots_per_frame = {on * self.num_turns:g}"
            raise checks.refusal(self.name, "arrival_rate", allowed, f"{rates.max():g}")

    def _laws(self, arrival: chex.Array, success: chex.Array, on_fraction: chex.Array) -> dict[str, chex.Array]:
        slots = self.num_turns
        return {
            "success_cdf": _binomial(jnp.arange(slots + 1, dtype=jnp.int32), success[:, None], slots + 1),
            "arrival_cdf": _binomial(slots, arrival / (slots * on_fraction), slots + 1),
        }

    @property
    def default_params(self) -> NetworkTrafficParams:
        """Symmetric flows with connectivity 1/2, sure success and equal weights, .9 packets a slot in all."""
        return self.instance(0.9 * self.num_turns / self.num_flows, connectivity=0.5)

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> NetworkTrafficParams:
        """Draws everything that is hidden, and which flow is of which class (see the constants above).

        Loads are split among flows by Dirichlet(2); an on source sends in at most 95 % of its slots.
        """
        u = self.task_uniforms(key, split, 2 + NUM_CLASSES + 6 * self.num_flows)
        order, rest = u[2 : 2 + NUM_CLASSES], u[2 + NUM_CLASSES :].reshape(6, self.num_flows)
        drawn = zip((SUCCESS_RANGE, CONNECTIVITY_RANGE, LOAD_RANGE), (rest[0], rest[1], u[0]), strict=True)
        success, connectivity, load = (low + (high - low) * x for (low, high), x in drawn)
        on_fraction = jnp.where(u[1] < 0.5, BURST_FRACTION, 1.0)
        share = -jnp.log(rest[2] * rest[3])  # Gamma(2): normalised, Dirichlet(2)
        rate = load * success * share / share.sum()
        least, most = CONTRACT_RANGE
        return self.instance(
            self.num_turns * jnp.minimum(rate, 0.95 * on_fraction),
            success,
            connectivity,
            jnp.asarray(CLASS_WEIGHTS, jnp.float32)[jnp.argsort(order)],
            jnp.argsort(rest[4]) % NUM_CLASSES,
            on_fraction,
            max(BURST_SLOTS / self.num_turns, 1.0),
            start=START_BACKLOG,
            contract=least * (most / least) ** rest[5],
        )

    def average_task(self, params: NetworkTrafficParams, population: NetworkTrafficParams) -> NetworkTrafficParams:
        """Mean hidden parameters, with the laws rebuilt from the means (not averaged)."""
        params = super().average_task(params, population)
        return params.replace(**self._laws(params.arrival_rate, params.success_rate, params.on_fraction))

    # ---- dynamics -------------------------------------------------------------------------------------------------

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: NetworkTrafficParams) -> NetworkTrafficState:
        """Queues of 0..start packets, all links up, sources from their stationary law: K uniforms each."""
        queue, source = uniforms.reshape(2, self.num_flows)
        counts = ("granted", "acked", "failed", "change", "attempts", "successes", "arrivals", "times_connected")
        return NetworkTrafficState(
            **self.clock(key),
            queue=sampling.integers(queue, 0, params.start),
            connected=jnp.ones((self.num_flows,), bool),
            source_on=source < params.on_fraction,
            **dict.fromkeys(counts, jnp.zeros((self.num_flows,), jnp.int32)),
        )

    def _ready(self, state: NetworkTrafficState) -> chex.Array:
        """``bool[K]``: connected, with a packet not yet granted."""
        return state.connected & (state.queue > state.granted)

    def choose(
        self, state: NetworkTrafficState, turn: chex.Array, action: chex.Array, params: NetworkTrafficParams
    ) -> NetworkTrafficState:
        """Gives the slot to an activation; flows of it that are not ready are passed over."""
        del turn, params
        chosen = jnp.where(action == self.noop_action, self._best(state), action)
        flows = max_weight.sums(self.menu.T, jnp.arange(self.noop_action, dtype=jnp.int32) == chosen)
        return state.replace(granted=state.granted + (flows & self._ready(state)).astype(jnp.int32))

    def _best(self, state: NetworkTrafficState, factor: chex.Numeric = 1.0, exponent: chex.Numeric = 1.0) -> chex.Array:
        """Activation ``i32[]`` of the largest index over ready flows, by default the longest queue; else the no-op."""
        waiting = (state.queue - state.granted).astype(jnp.float32)
        return max_weight.best(self.menu, factor * waiting**exponent, self._ready(state))

    def advance(
        self, state: NetworkTrafficState, uniforms: chex.Array, params: NetworkTrafficParams
    ) -> tuple[NetworkTrafficState, chex.Array, dict[str, chex.Array]]:
        """The frame goes on the air, is paid for, then packets arrive: K uniforms each for ACKs, A, links, sources.

        Key figures of the frame [packets]: ``granted``, ``acked``, ``arrived``, ``dropped``, ``backlog`` (after
        arrivals); ``holding_cost`` and ``loss_cost`` [weighted packets].
        """
        success, arrival, link, source = uniforms.reshape(4, self.num_flows)
        granted = state.granted
        beyond = success[:, None, None] > params.success_cdf  # inversion in row n of the table, all rows at once
        acked = jnp.sum(_one_hot(granted, self.num_turns + 1)[..., None] & beyond, axis=(1, 2), dtype=jnp.int32)
        left = state.queue - acked
        arrived = jnp.where(state.source_on, sampling.categorical(arrival, params.arrival_cdf), 0)
        queue = jnp.minimum(left + arrived, params.buffer)
        dropped = left + arrived - queue
        weight = _weight(params)
        holding, lost = (
            jnp.sum(weight * left.astype(jnp.float32)),
            params.loss * jnp.sum(weight * dropped.astype(jnp.float32)),
        )
        stop = jnp.where(params.on_fraction < 1.0, 1.0 / params.on_length, 0.0)
        go = jnp.minimum(params.on_fraction / (params.on_length * jnp.maximum(1.0 - params.on_fraction, 1e-6)), 1.0)
        connected = link < params.connectivity
        following = state.replace(
            queue=queue,
            granted=jnp.zeros_like(granted),
            connected=connected,
            source_on=jnp.where(state.source_on, source >= stop, source < go),
            acked=acked,
            failed=granted - acked,
            change=queue - state.queue,
            attempts=state.attempts + granted,
            successes=state.successes + acked,
            arrivals=state.arrivals + arrived,
            times_connected=state.times_connected + connected.astype(jnp.int32),
        )
        packets = {"granted": granted, "acked": acked, "arrived": arrived, "dropped": dropped, "backlog": queue}
        figures = {name: x.sum(dtype=jnp.int32).astype(jnp.float32) for name, x in packets.items()}
        return following, -(holding + lost) / self.num_flows, {**figures, "holding_cost": holding, "loss_cost": lost}

    # ---- observation ----------------------------------------------------------------------------------------------

    def observation(self, state: NetworkTrafficState, params: NetworkTrafficParams) -> Observation:
        """See the class's table."""
        k, slots = self.num_flows, self.num_turns
        frames = self.period(state).astype(jnp.float32)
        waiting = state.queue - state.granted
        total, level = jnp.sum(waiting, dtype=jnp.int32), state.queue / params.buffer
        packets = jnp.minimum(waiting.astype(jnp.float32) / PACKET_SCALE, 10.0)
        apart = jnp.minimum(0.1 * (frames + 2.0) / (state.times_connected.astype(jnp.float32) + 1.0), 10.0)
        given = self.turn(state).astype(jnp.float32) / jnp.float32(slots)
        common = {"progress": self.progress(state), "last_reward": jnp.maximum(state.last_reward, -10.0)}
        flows = dict(
            urgency=waiting,
            slack=1.0 - level,
            level=level,
            capacity=params.buffer,
            inflow=state.arrivals.astype(jnp.float32) / (slots * jnp.maximum(frames, 1.0)),
            outflow=state.acked / slots,
            waiting=packets,
            decided=state.granted / slots,
            private_a=state.failed / slots,
            private_b=state.change / slots,
            private_c=jnp.where(params.service_class >= 2, 1.0, -1.0),
            private_d=jnp.where(params.service_class % 2 == 1, 1.0, -1.0),
            private_e=(state.successes.astype(jnp.float32) + 1.0) / (state.attempts.astype(jnp.float32) + 2.0),
            private_f=jnp.where(state.connected, apart, -apart),
            **common,
        )
        transmitter = dict(
            slack=1.0 - given,
            level=1.0 - given,
            capacity=float(slots),
            outflow=state.acked.sum(dtype=jnp.int32) / slots,
            waiting=jnp.minimum(total.astype(jnp.float32) / (k * PACKET_SCALE), 10.0),
            is_turn=1.0,
            decided=given,
            **common,
        )
        own, ready = self._best(state), self._ready(state)
        sent = max_weight.sums(self.menu, ready.astype(jnp.int32))
        if self.largest == 1:
            target, second = jnp.asarray(self.menu.argmax(-1).astype(jnp.int32)), [0.0] * 3
        else:
            target = jnp.argmax(self.menu * (1 + ready * waiting), axis=-1).astype(jnp.int32)
            others = self.menu & ~_one_hot(target, k)
            share = others / jnp.maximum(others.sum(axis=-1, keepdims=True), 1)
            second = [jnp.append(jnp.sum(share * x, axis=-1), 0.0) for x in (packets, 1.0 - level, level)]
        # The no-op sends what the transmitter would choose, if anything.
        own, any_ready = jnp.minimum(own, self.noop_action - 1), jnp.any(ready)
        last = jnp.arange(self.num_actions, dtype=jnp.int32) == self.noop_action
        amount = jnp.append(sent, sent[own]) / self.largest
        others_of = dict(zip(("private_b", "private_c", "private_d"), second, strict=True))
        return make_observation(
            tokens=[("demand", k, flows), ("carrier", 1, transmitter)],
            actions={"is_noop": last & ~any_ready, "amount": amount, "signed": amount, "private_a": last, **others_of},
            action_target=jnp.append(target, jnp.where(any_ready, target[own], -1)).astype(jnp.int32),
            action_mask=jnp.append(sent > 0, True),
        )

    # ---- reference policies ---------------------------------------------------------------------------------------

    def solve(self, params: NetworkTrafficParams) -> Index:
        """The index of the class docstring."""
        exponent = (
            QUEUE_EXPONENT * (1.0 - params.connectivity)
            if self.largest == 1
            else jnp.ones((self.num_flows,), jnp.float32)
        )
        factor = _weight(params) * params.success_rate / params.connectivity**CONNECTIVITY_EXPONENT
        return factor, exponent

    def reference_action(
        self, plan: Index, state: NetworkTrafficState, params: NetworkTrafficParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The ready activation of the largest index, given the hidden parameters."""
        del params, key
        return self._best(state, *plan)

    def heuristic_start(self) -> learning.Memory:
        """All orders of the classes' weights are equally likely, nothing is known of contracts and links."""
        return learning.start(ORDERS, self.num_flows)

    def heuristic_step(
        self, memory: learning.Memory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, learning.Memory]:
        """The index of :mod:`envs_jax.heuristics.network_traffic`, which learns the weights from rewards."""
        return self.heuristic_by(self.rule, memory, observation, key)

    def heuristic_by(
        self, rule: learning.Rule, memory: learning.Memory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, learning.Memory]:
        """:meth:`heuristic_step` with other constants."""
        del key
        k, slots = self.num_flows, self.num_turns
        names = ("waiting", "level", "inflow", "outflow", "private_a", "private_c", "private_d", "private_f")
        waiting, level, inflow, acked, failed, high, low, apart = (observation.column(name)[:k] for name in names)
        decided, progress, last_reward = (
            observation.column(name)[k] for name in ("decided", "progress", "last_reward")
        )
        classes = _one_hot(jnp.where(high > 0.0, 2, 0) + jnp.where(low > 0.0, 1, 0), NUM_CLASSES)
        waiting, frames = PACKET_SCALE * waiting, jnp.floor(progress * self.num_periods + 1e-3)
        # A reward at the bound is cut, and where a buffer is full packets may have been lost besides.
        valid = (frames >= 1.0) & (last_reward > -10.0) & jnp.all(level < 1.0)
        frame = (waiting, slots * acked, slots * (acked + failed), -k * last_reward, valid)
        seen = learning.frame_seen(rule, memory, ORDERS, classes, *frame, first=frames < 1.0)
        memory = jax.tree.map(lambda new, old: jnp.where(decided <= 0.0, new, old), seen, memory)
        times_up = 0.1 * (frames + 2.0) / jnp.abs(apart) - 1.0
        index = learning.index(rule, memory, waiting, inflow, times_up, frames, self.largest > 1)
        return max_weight.best(self.menu, index, (apart > 0.0) & (waiting > 0.0)), memory


def _weight(params: NetworkTrafficParams) -> chex.Array:
    """What a waiting packet of each flow costs, c ``f32[K]``."""
    mine = _one_hot(params.service_class, NUM_CLASSES)
    return params.contract * jnp.sum(jnp.where(mine, params.class_weight, 0.0), axis=-1)


def _one_hot(index: chex.Array, size: int) -> chex.Array:
    return index[:, None] == jnp.arange(size, dtype=jnp.int32)[None, :]


def _binomial(trials: chex.Numeric, probability: chex.Array, size: int) -> chex.Array:
    """Binomial distribution functions that end at exactly 1, so that no draw exceeds ``trials``."""
    cdf = sampling.binomial_cdf(trials, probability, size)
    count, last = aligned(jnp.arange(size, dtype=jnp.int32), jnp.asarray(trials, jnp.int32)[..., None])
    return jnp.where(count >= last, 1.0, cdf)
