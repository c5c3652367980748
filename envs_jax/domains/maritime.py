"""Repositioning of empty containers in liner shipping (MARO's Container Inventory Management).

P ports are joined by weekly services; V vessels call at the next port of their route on the same day of every week.
Every day shippers order containers for the lanes l = (i, j) between ports of a common route:

    n      = floor(orders_d (1 + nu_0 e_0)),      split by  share_i ~ source_i (1 + nu e_i),  then by destination_l
    x_l    = min(q_l, what is left of empty_i)          served; q_l - x_l is lost
    empty_i -= x_l;  f_i days later full_l += x_l       the shipper packs and returns it
    vessel at i: loads full_l, next stops first, while capacity lasts; at j to the consignee, g_j days later empty_j

e are uniform on [-1, 1]. A vessel without room for its empties leaves the excess ashore. Then, vessel by vessel, the
choice: put a share of the port's empties on board, or of the vessel's ashore. A week pays

    R = (served - lost - c (loaded + discharged)) / 1000                            [thousand containers]

Where and when orders come (orders, source), where they go (destination) and f, g are the task's secret.
"""

from __future__ import annotations

import os
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import checks, sampling
from envs_jax.arrays import vary_like
from envs_jax.data import cim, readers
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import keep_shares, liner_services
from envs_jax.references.liner_services import MAX_DELAY, WEEK, Stock

WEEKS = cim.SEASON_DAYS // WEEK
"""Of the season."""
LEVELS = 10
"""A choice moves k tenths of what can be moved, k = -10 (load all) .. 10 (discharge all)."""
HEURISTIC = (3.0, 3.2, 0.2, 0.9, 1.25)
"""Of the rule without knowledge: weeks of cover here and ahead, weight of other routes, of needs ahead, of supply under
way. Tuned on tasks of ``sample_params``."""
ITERATIONS, STEP = 200, 0.3
"""Of the reference's plan."""
ROUNDING = 1e-3
"""Containers: a share that exceeds a whole number by less is that number. What float32 adds to 2000 * .33 is not."""


@struct.dataclass
class MaritimeState(EnvState):
    """Attributes:
    stock: see :class:`Stock`.
    booked, lost: ``f32[P]`` containers ordered in the last week (week 0: eight days), and those that were lacking.
    moved: ``f32[V]`` discharged (+) or loaded (-) empties of this week's calls.
    """

    stock: Stock
    booked: chex.Array
    lost: chex.Array
    moved: chex.Array


@struct.dataclass
class MaritimeParams(EnvParams):
    """Attributes:
    capacity: ``f32[V]`` containers a vessel carries.
    start: ``f32[P]`` empties in port on day 0, whole numbers.
    move_cost: ``f32[]`` c, cost of loading or discharging an empty [served orders].
    order_noise: ``f32[]`` nu_0, in [0, 1].
    source_noise: ``f32[P]`` nu, in [0, 1].
    orders: ``f32[112]`` mean containers ordered by day of the season. Hidden.
    source: ``f32[16, P]`` shares of the ports by week of the season. Hidden.
    destination: ``f32[L]`` shares of the lanes, adding up to 1 for each source. Hidden.
    shipper_days, consignee_days: ``f32[P]`` f and g, rounded to 1..3 days. Hidden.
    """

    capacity: chex.Array
    start: chex.Array
    move_cost: chex.Array
    order_noise: chex.Array
    source_noise: chex.Array
    orders: chex.Array
    source: chex.Array
    destination: chex.Array
    shipper_days: chex.Array
    consignee_days: chex.Array


class Maritime(ResourceEnv[MaritimeState, MaritimeParams]):
    """V vessels call somewhere every week, V turns make a period of seven days.

    Action 10 + k moves k tenths of what can be moved, to the nearest container: k < 0 loads of ``min(empties in port,
    room on board)``, k > 0 discharges of the empties on board, 10 is the no-op. Loads are illegal where nothing can be
    loaded, discharges where nothing is on board. Week 0 has no calls yet and no choice but the no-op; it lasts from the
    morning of day 0 to the evening of day 7, when all vessels call. Reward is 0 except on the week's last turn.

    U = all containers / P. "Last week" is that before this week's calls; week 0 has eight days.

    ====== =========== ===================================================================================
    token  column      quantity
    ====== =========== ===================================================================================
    port   urgency     last week's orders less its empties and what its consignees have, at least 0
    port   slack       empties / (empties + last week's orders + 1)
    port   level       empties in port [U]
    port   inflow      containers at its consignees, back within 3 days [U]
    port   outflow     orders served last week [U]
    port   waiting     full containers there or at its shippers [U]
    port   unit_cost   c
    port   unit_value  1: an order served
    port   decided     empties discharged less loaded there so far this week [U]
    port   private_a   full containers afloat for it [U]
    port   private_b   orders last week [U]
    port   private_c   empties on the vessels whose next call is there [U]
    port   private_d   share of last week's orders that was lost
    port   private_e   empties on day 0 relative to the largest
    vessel slack       room / capacity
    vessel level       empties on board [U]
    vessel capacity    containers it carries
    vessel unit_cost   c
    vessel is_turn     1 for the vessel in turn
    vessel decided     empties loaded less discharged this week [U]
    vessel private_a   full containers on board [U]
    vessel private_b   orders of its next port last week [U]
    vessel private_c   empties in its next port [U]
    vessel private_d   full containers on board for its next port [U]
    all    cycle_sin   sine of the week of the season
    all    cycle_cos   cosine of it
    all    progress    share of the episode gone
    all    last_reward R of the last week [U]
    ====== =========== ===================================================================================

    Roles: P ports ``store``, V vessels ``carrier``, then the clock ``clock``. Features without bounds are cut at 10.
    Urgency is what a port loses next week if it orders as in the last and nothing is landed; an order lost costs the
    same everywhere.

    ========= ========= ==================================================================================
    action    column    quantity
    ========= ========= ==================================================================================
    no-op     is_noop   1: nothing is moved
    all       amount    |k| / 10
    all       signed    k / 10: landing (+) relieves the port, where empties are short, loading (-) takes them
    load      private_a empties loaded [U]
    discharge private_b empties discharged [U]
    all       private_c the vessel's slack
    all       private_d the vessel's level
    ========= ========= ==================================================================================

    The target, of the no-op too, is the port where the vessel lies.

    Hidden: orders, source, destination, f, g. Orders by port stand in every week's tokens; where containers turn up
    again, and when, tells destinations and delays. Key figures in ``info``: see :meth:`advance`.

    Invariants: the number of containers never changes; booked = served + lost; no stock is negative, no vessel carries
    more than its capacity, no choice moves more than there is; orders do not depend on choices.

    Reference: shares of the empties at hand that stay ashore at each call, fitted to the fluid forecast of mean orders
    (:mod:`envs_jax.references.keep_shares`), rounded to tenths. A heuristic; docs/domains/maritime.md has its distance
    from linear programmes with perfect foresight.

    Source: MARO, Container Inventory Management (microsoft/maro, commit 34c2dc9; code, configurations and tables read).
    Left out: levels above 0.3 add noise to destinations, buffers and vessels' speed, here orders alone are noisy.
    Ranges of tasks, and seasons that differ by port, are choices made here.

    Usage::

        env, params = envs_jax.make("maritime")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      network: "4p", "5p" or "6p" of :data:`envs_jax.data.cim.NETWORKS`.
      num_periods: weeks, the first without choices.
      season: whether the default task's orders rise and fall as from level 0.3 on.
      scarce: whether its vessels are those of level 0.2 on.
      topology: path of a MARO topology (docs/own_data.md) in place of all three; P + V at most 31. Sampled tasks keep
        what is shown and draw the trade, for as many containers.
    """

    name: ClassVar[str] = "maritime"
    hidden: ClassVar[tuple[str, ...]] = ("orders", "source", "destination", "shipper_days", "consignee_days")
    reward_unit: ClassVar[str] = "thousand containers"
    reference_kind: ClassVar[str] = "heuristic"
    data_files: ClassVar[tuple[str, ...]] = ("topology",)

    def __init__(
        self,
        network: str = "5p",
        num_periods: int = 17,
        season: bool = False,
        scarce: bool = False,
        topology: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        network = checks.one_of(self.name, "network", network, cim.NETWORKS)
        num_periods = checks.whole_number(self.name, "num_periods", num_periods, 2, 10_000)
        season, scarce = (checks.flag(self.name, *field) for field in (("season", season), ("scarce", scarce)))
        read = readers.topology
        self._own = topology is not None
        if self._own and (network, season, scarce) != ("5p", False, False):
            got = f"network={network!r}, season={season}, scarce={scarce} beside topology"
            raise checks.refusal(self.name, "network, season, scarce", "left out with a topology", got)
        self.trade = (
            readers.load(self.name, "topology", topology, read.read) if self._own else read.shipped(network, season)
        )
        self.network, self.season, self.scarce = self.trade.network, season, scarce
        p, v = len(self.network.ports), len(self.network.vessels)
        self.num_ports, self.num_turns, self.num_periods = p, v, num_periods
        self.num_tokens, self.num_actions, self.noop_action = p + v + 1, 2 * LEVELS + 1, LEVELS
        self.num_uniforms = (1 + WEEK) * (1 + p)
        self.services = liner_services.Services(self.network.routes, self.network.vessels, p)
        self.num_lanes = len(self.services.origin)

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> MaritimeParams:
        """The file's; or the published network at level 0.0, at 0.3 with ``season`` and ``scarce``: orders vary."""
        net, trade = self.network, self.trade
        return MaritimeParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            capacity=jnp.asarray(net.capacity[int(self.scarce)], jnp.float32),
            start=jnp.asarray([int(share * trade.containers) for share in net.start], jnp.float32),
            move_cost=jnp.float32(trade.move_cost),
            order_noise=jnp.float32(trade.order_noise),
            source_noise=jnp.asarray(trade.source_noise, jnp.float32),
            orders=jnp.asarray(trade.orders, jnp.float32),
            source=jnp.tile(jnp.asarray(net.source, jnp.float32), (WEEKS, 1)),
            destination=jnp.asarray([net.lanes.get(lane, 0.0) for lane in self.services.lanes], jnp.float32),
            shipper_days=jnp.asarray(trade.shipper_days, jnp.float32),
            consignee_days=jnp.asarray(trade.consignee_days, jnp.float32),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> MaritimeParams:
        """Draws the trade: which ports export, when their seasons are, where the goods go, how long f and g are.

        Mean orders U(.025, .045) of all containers a day, split among ports by Dirichlet(1); each port's rise and fall
        by 50 to 100 % in one to three waves a season; destinations Dirichlet(1); f, g of 1 to 3 days; nu_0 = .1 and
        nu = .8. Vessels carry 9000 to 15000 containers (shown).
        """
        p, lanes = self.num_ports, self.num_lanes
        u = self.task_uniforms(key, split, 1 + 6 * p + lanes + self.num_turns)
        (weight, swing, phase, waves, packing, unpacking), rest = u[1 : 1 + 6 * p].reshape(6, p), u[1 + 6 * p :]
        weight = -jnp.log(weight)  # normalised, Dirichlet(1)
        time = (jnp.arange(WEEKS, dtype=jnp.float32)[:, None] + 0.5) / WEEKS
        number = sampling.integers(waves, 1, 3).astype(jnp.float32)
        wave = jnp.sin(2.0 * jnp.pi * (number[None, :] * time + phase[None, :]))
        share = (0.025 + 0.02 * u[0]) * (weight / weight.sum())
        rate = share[None, :] * (1.0 + (0.5 + 0.5 * swing)[None, :] * wave)
        share = -jnp.log(rest[:lanes])
        shown = {
            "capacity": jnp.round(9_000.0 + 6_000.0 * rest[lanes:]),
            "order_noise": jnp.float32(0.1),
            "source_noise": jnp.full((p,), 0.8, jnp.float32),
        }
        return self.default_params.replace(
            **({} if self._own else shown),
            orders=self.trade.containers * jnp.repeat(rate.sum(-1), WEEK),
            source=rate / rate.sum(-1, keepdims=True),
            destination=share / (share @ self.services.from_port)[self.services.origin],
            shipper_days=sampling.integers(packing, 1, MAX_DELAY).astype(jnp.float32),
            consignee_days=sampling.integers(unpacking, 1, MAX_DELAY).astype(jnp.float32),
        )

    # ---- dynamics -------------------------------------------------------------------------------------------------

    def orders(self, day: chex.Array, uniforms: chex.Array, params: MaritimeParams) -> chex.Array:
        """Containers ordered on a day by lane, ``f32[L]``, whole numbers, from ``f32[1 + P]`` uniforms."""
        of_season = day % cim.SEASON_DAYS
        noise = 2.0 * uniforms - 1.0
        number = jnp.floor(params.orders[of_season] * (1.0 + params.order_noise * noise[0]))
        share = params.source[of_season // WEEK] * (1.0 + params.source_noise * noise[1:])
        ports = jnp.ceil(number * (share / share.sum()) - ROUNDING)
        # A product with ones and zeros, exact: on CPU a third of what picking by index takes.
        ports = jnp.clip(number - (jnp.cumsum(ports) - ports), 0.0, ports) @ self.services.from_port.T
        return liner_services.fill(ports, jnp.ceil(ports * params.destination - ROUNDING), self.services.before)

    def mean_orders(self, day: chex.Array, params: MaritimeParams) -> chex.Array:
        """Containers ordered by lane ``f32[L]`` on a day, without noise and rounding."""
        of_season = day % cim.SEASON_DAYS
        ports = params.orders[of_season] * params.source[of_season // WEEK]
        return ports[self.services.origin] * params.destination

    def _days(
        self, stock: Stock, first: chex.Array, uniforms: chex.Array, params: MaritimeParams
    ) -> tuple[Stock, chex.Array, chex.Array]:
        """Days from ``first`` on, one for each row of ``f32[days, 1 + P]``: stock, orders and losses ``f32[P]``."""

        def one(
            carry: tuple[Stock, chex.Array, chex.Array], step: tuple[chex.Array, chex.Array]
        ) -> tuple[tuple[Stock, chex.Array, chex.Array], None]:
            stock, booked, lost = carry
            wanted = self.orders(*step, params)
            stock, served = self.services.day(stock, wanted, params.shipper_days)
            return (stock, booked + wanted, lost + (wanted - served)), None

        zero = jnp.zeros((self.num_lanes,), jnp.float32)
        start = vary_like((stock, zero, zero), stock, uniforms, params)
        days = first + jnp.arange(len(uniforms), dtype=jnp.int32)
        (stock, booked, lost), _ = jax.lax.scan(one, start, (days, uniforms))
        return stock, booked @ self.services.from_port, lost @ self.services.from_port

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: MaritimeParams) -> MaritimeState:
        """The morning of day 0: all containers empty in the ports, nothing ordered yet."""
        del uniforms
        none, moved = (jnp.zeros((n,), jnp.float32) for n in (self.num_ports, self.num_turns))
        return MaritimeState(
            **self.clock(key), stock=self.services.start(params.start), booked=none, lost=none, moved=moved
        )

    def scope(self, state: MaritimeState, params: MaritimeParams) -> tuple[chex.Array, ...]:
        """Of the call in turn: vessel ``f32[V]`` and port ``f32[P]`` (one-hot), empties to load, to discharge."""
        turn, week = self.turn(state), self.period(state)
        vessel = (jnp.arange(self.num_turns, dtype=jnp.int32) == turn).astype(jnp.float32)
        port = self.services.here(week)[turn]
        aboard = vessel @ state.stock.aboard
        room = vessel @ (params.capacity - liner_services.total(state.stock.laden, -1)) - aboard
        return vessel, port, jnp.minimum(port @ state.stock.empty, jnp.where(week > 0, room, 0.0)), aboard

    def choose(
        self, state: MaritimeState, turn: chex.Array, action: chex.Array, params: MaritimeParams
    ) -> MaritimeState:
        """Loads or discharges the chosen tenths, rounded to the nearest container, half up."""
        vessel, port, load, discharge = self.scope(state, params)
        tenths = (action - LEVELS).astype(jnp.float32)
        amount = jnp.floor((jnp.abs(tenths) * jnp.where(tenths < 0, load, discharge) + LEVELS / 2) / LEVELS)
        amount = jnp.where(tenths < 0, -amount, amount)
        empty, aboard = state.stock.empty + port * amount, state.stock.aboard - vessel * amount
        return state.replace(stock=state.stock.replace(empty=empty, aboard=aboard), moved=state.moved + vessel * amount)

    def advance(
        self, state: MaritimeState, uniforms: chex.Array, params: MaritimeParams
    ) -> tuple[MaritimeState, chex.Array, dict[str, chex.Array]]:
        """Seven days (in week 0 eight), then the next calls. The first ``1 + P`` uniforms are those of day 0.

        Key figures [containers]: ``booked``, ``served``, ``lost``, ``loaded``, ``discharged`` in the week; ``empty``
        in ports, ``aboard`` (empties), ``full`` (in ports), ``laden`` at its end.
        """
        week, uniforms, none = self.period(state), uniforms.reshape(1 + WEEK, -1), jnp.zeros_like(state.booked)
        stock, early, missed = jax.lax.cond(
            week == 0,
            lambda: self._days(state.stock, week, uniforms[:1], params),
            lambda: vary_like((state.stock, none, none), state, uniforms, params),
        )
        stock, booked, lost = self._days(stock, WEEK * week + 1, uniforms[1:], params)
        booked, lost = booked + early, lost + missed
        stock = self.services.calls(stock, week + 1, params.capacity, params.consignee_days)
        figures = {
            "booked": booked.sum(),
            "served": jnp.sum(booked - lost),
            "lost": lost.sum(),
            "loaded": jnp.sum(jnp.maximum(-state.moved, 0.0)),
            "discharged": jnp.sum(jnp.maximum(state.moved, 0.0)),
            "empty": stock.empty.sum(),
            "aboard": stock.aboard.sum(),
            "full": stock.full.sum(),
            "laden": stock.laden.sum(),
        }
        cost = params.move_cost * (figures["loaded"] + figures["discharged"])
        reward = (figures["served"] - figures["lost"] - cost) / 1000.0
        state = state.replace(stock=stock, booked=booked, lost=lost, moved=jnp.zeros_like(state.moved))
        return state, reward, figures

    def observation(self, state: MaritimeState, params: MaritimeParams) -> Observation:
        """See the class docstring for the columns."""
        stock, week = state.stock, self.period(state)
        vessel, port, load, discharge = self.scope(state, params)
        unit = params.start.sum() / self.num_ports
        onto = self.services.here(week + 1)
        # Not a sum of products with ``onto``: XLA makes that a matrix product by itself, on CPU eight times as dear.
        bound = liner_services.total(jnp.where(onto > 0, stock.laden, 0.0), -1)
        phase = 2.0 * jnp.pi * week.astype(jnp.float32) / WEEKS
        common = {
            "cycle_sin": jnp.sin(phase),
            "cycle_cos": jnp.cos(phase),
            "progress": self.progress(state),
            "last_reward": bounded(1000.0 * state.last_reward / unit),
        }
        empty, booked, cost = bounded(stock.empty / unit), bounded(state.booked / unit), bounded(params.move_cost)
        consignee, shipper = (liner_services.total(pipeline, 0) for pipeline in (stock.consignee, stock.shipper))
        full = liner_services.total(stock.laden, -1)
        room = params.capacity - full - stock.aboard
        ports = {
            "urgency": jnp.maximum(state.booked - stock.empty - consignee, 0.0),
            "slack": stock.empty / (stock.empty + state.booked + 1.0),
            "level": empty,
            "inflow": bounded(consignee / unit),
            "outflow": bounded((state.booked - state.lost) / unit),
            "waiting": bounded((stock.full + shipper) @ self.services.from_port / unit),
            "unit_cost": cost,
            "unit_value": 1.0,
            "decided": bounded(state.moved @ self.services.here(week) / unit),
            "private_a": bounded(liner_services.total(stock.laden, 0) / unit),
            "private_b": booked,
            "private_c": bounded(stock.aboard @ onto / unit),
            "private_d": state.lost / jnp.maximum(state.booked, 1.0),
            "private_e": params.start / params.start.max(),
            **common,
        }
        vessels = {
            "slack": jnp.maximum(room, 0.0) / params.capacity,
            "level": bounded(stock.aboard / unit),
            "capacity": params.capacity,
            "unit_cost": cost,
            "is_turn": vessel,
            "decided": bounded(-state.moved / unit),
            "private_a": bounded(full / unit),
            "private_b": onto @ booked,
            "private_c": onto @ empty,
            "private_d": bounded(bound / unit),
            **common,
        }
        tenths = jnp.arange(-LEVELS, LEVELS + 1, dtype=jnp.int32)
        share = tenths / LEVELS
        return make_observation(
            tokens=[("store", self.num_ports, ports), ("carrier", self.num_turns, vessels), ("clock", 1, common)],
            actions={
                "is_noop": tenths == 0,
                "amount": jnp.abs(share),
                "signed": share,
                "private_a": jnp.where(tenths < 0, bounded(-share * load / unit), 0.0),
                "private_b": jnp.where(tenths > 0, bounded(share * discharge / unit), 0.0),
                "private_c": vessel @ vessels["slack"],
                "private_d": vessel @ vessels["level"],
            },
            action_target=jnp.full(
                (self.num_actions,), port @ jnp.arange(self.num_ports, dtype=jnp.float32), jnp.int32
            ),
            action_mask=jnp.where(tenths < 0, load > 0, (tenths == 0) | (discharge > 0)),
        )

    # ---- policies -------------------------------------------------------------------------------------------------

    def solve(self, params: MaritimeParams) -> chex.Array:
        """Shares ``f32[P - 1, V]`` of the empties at hand to leave in port in weeks 1, 2, ..., for mean orders."""
        days = jnp.arange(1 + WEEK * self.num_periods, dtype=jnp.int32)
        orders = jax.vmap(self.mean_orders, in_axes=(0, None))(days, params)
        start = vary_like(jnp.full((self.num_periods - 1, self.num_turns), 0.5, jnp.float32), params)
        value = lambda shares: self.services.forecast(shares, orders, params)  # noqa: E731
        return keep_shares.ascend(value, start, ITERATIONS, STEP)[0]

    def reference_action(
        self, plan: chex.Array, state: MaritimeState, params: MaritimeParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The tenths that come nearest to the planned share."""
        del key
        _, port, load, discharge = self.scope(state, params)
        empty = port @ state.stock.empty
        share = plan[jnp.clip(self.period(state) - 1, 0, self.num_periods - 2), self.turn(state)]
        return _nearest(share * (empty + discharge) - empty, load, discharge)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Divides the empties at hand between this port's need and that of the ports ahead.

        As if next weeks were like the last: a port needs its last week's orders times so many weeks; ahead, what is
        there or on its way counts against that.
        """
        del key
        p, (own, other, across, weight, under_way) = self.num_ports, HEURISTIC
        ports = lambda name: observation.column(name)[:p]  # noqa: E731
        vessels = lambda name: observation.column(name)[p:-1]  # noqa: E731
        # Where nothing is a candidate, nothing can be moved, and the rule's wish does not matter.
        booked, empty, port = ports("private_b"), ports("level"), ports("is_candidate")
        vessel, aboard = vessels("is_turn"), vessels("level")
        need = jnp.maximum(other * booked - empty - ports("inflow") - under_way * ports("private_a"), 0.0)
        reached = vessel @ self.services.on_route
        same = (self.services.on_route == reached[None, :]).all(-1)  # the vessels of that route
        ahead = jnp.sum(jnp.where(reached > 0, need, across * need) * (1.0 - port))
        ahead = jnp.maximum(ahead - under_way * jnp.sum(aboard * same.astype(jnp.float32) * (1.0 - vessel)), 0.0)
        here = own * (port @ booked)
        at_hand = port @ empty + vessel @ aboard
        carried = jnp.minimum(at_hand * weight * ahead / (here + weight * ahead + 1e-6), ahead)
        load, discharge = observation.action_column("private_a")[0], observation.action_column("private_b")[-1]
        return _nearest(vessel @ aboard - carried, load, discharge)


def _nearest(ashore: chex.Array, load: chex.Array, discharge: chex.Array) -> chex.Array:
    """The legal choice ``i32[]`` that brings nearest to ``ashore`` empties out of the vessel (< 0: into it)."""
    scope = jnp.where(ashore < 0, load, discharge)
    tenths = jnp.clip(jnp.round(LEVELS * ashore / jnp.maximum(scope, 1e-6)), -LEVELS, LEVELS)
    return LEVELS + jnp.where(scope > 0, tenths, 0.0).astype(jnp.int32)
