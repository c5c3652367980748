"""Repositioning of empty containers in liner shipping (MARO's Container Inventory Management).

P ports are joined by weekly services; V vessels call at the next port of their route on the same day of every week.
Every day shippers order containers for the lanes l = (i, j) between ports of a common route:

    n      = floor(orders_d (1 + nu_0 e_0)),            split by  share_i ~ source_i (1 + nu e_i),  then by destination_l
    x_l    = min(q_l, what is left of empty_i)          served; q_l - x_l is lost
    empty_i -= x_l;  f_i days later full_l += x_l       the shipper packs and returns it
    vessel at i: loads full_l, next stops first, while capacity lasts; at j to the consignee, g_j days later empty_j

e are uniform on [-1, 1]. A vessel without room for its empties leaves the excess ashore. Then, vessel by vessel, the
choice: put a share of the port's empties on board, or of the vessel's ashore. A week pays

    R = (served - lost - c (loaded + discharged)) / 1000                            [thousand containers]

Where and when orders come (orders, source), where they go (destination) and f, g are the task's secret.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax import sampling
from envs_jax.data import cim
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import ACTION_COLUMNS, TOKEN_COLUMNS, Observation, action_rows, token_table
from envs_jax.references import keep_shares

WEEK, WEEKS, MAX_DELAY = 7, cim.SEASON_DAYS // 7, 3
"""Days between calls; weeks of the season; longest f, g [days]."""
LEVELS = 10
"""A choice moves k tenths of what can be moved, k = -10 (load all) .. 10 (discharge all)."""
HEURISTIC = (1.5, 2.5, 0.5, 1.0, 0.5)
"""Of the rule without knowledge: weeks of cover here and ahead, weight of other routes, of needs ahead, of supply under
way. Tuned on tasks of ``sample_params``."""
LOW, HIGH = ACTION_COLUMNS.index("low"), ACTION_COLUMNS.index("high")
ITERATIONS, STEP = 200, 0.3
"""Of the reference's plan."""
ROUNDING = 1e-3
"""Containers: a share that exceeds a whole number by less is that number. What float32 adds to 2000 * .33 is not."""


@struct.dataclass
class Stock:
    """Where all containers are; float32, but whole numbers in episodes: exact up to 2^24.

    Attributes:
      empty: ``f32[P]`` in port, ready for orders.
      shipper: ``f32[D, L]`` by lane: due back, full, in 1..D days.
      full: ``f32[L]`` in port, waiting for a vessel.
      consignee: ``f32[D, P]`` due back, empty, in 1..D days.
      aboard: ``f32[V]`` empties on vessels.
      laden: ``f32[V, P]`` full ones on vessels, by destination.
    """

    empty: chex.Array
    shipper: chex.Array
    full: chex.Array
    consignee: chex.Array
    aboard: chex.Array
    laden: chex.Array


@struct.dataclass
class MaritimeState(EnvState):
    """Attributes:
    stock: see :class:`Stock`.
    booked, lost: ``f32[P]`` containers ordered in the last week (first: eight days), and those that were lacking.
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
    """TODO."""

    name: ClassVar[str] = "maritime"
    hidden: ClassVar[tuple[str, ...]] = ("orders", "source", "destination", "shipper_days", "consignee_days")
    reward_unit: ClassVar[str] = "thousand containers"
    reference_kind: ClassVar[str] = "heuristic"

    def __init__(self, network: str = "5p", num_periods: int = 16, season: bool = False, scarce: bool = False) -> None:
        super().__init__()
        if network not in cim.NETWORKS:
            raise ValueError(f"network={network!r}: must be one of {', '.join(cim.NETWORKS)}")
        if not isinstance(num_periods, int) or num_periods < 1:
            raise ValueError(f"num_periods={num_periods!r}: must be an integer of at least 1")
        self.network, self.season, self.scarce = cim.NETWORKS[network], season, scarce
        routes, vessels = self.network.routes, self.network.vessels
        p, v = len(self.network.ports), len(vessels)
        self.num_ports = p
        self.num_turns, self.num_periods = v, num_periods
        self.num_tokens, self.num_actions, self.noop_action = p + v + 1, 2 * LEVELS + 1, LEVELS
        self.num_uniforms = WEEK * (1 + p)
        self.num_reset_uniforms = (1 + WEEK) * (1 + p)
        lanes = [(i, j) for i in range(p) for j in range(p) if i != j and any({i, j} <= set(r) for r in routes)]
        self.origin, self.target = np.array(lanes).T
        number = len(lanes)
        same = self.origin[:, None] == self.origin
        # before[k, l]: lane k has priority over lane l at their common origin.
        self.before = np.float32(same & (np.arange(number)[:, None] < np.arange(number)))
        self.from_port = np.float32(self.origin[:, None] == np.arange(p))
        self.to_port = np.float32(self.target[:, None] == np.arange(p))
        self.on_route = np.array([[float(i in routes[route]) for i in range(p)] for route, _ in vessels], np.float32)
        # By week of the cycle after which all vessels are back: where each one calls, and what it loads.
        self.cycle = math.lcm(*map(len, routes))
        self.port = np.zeros((self.cycle, v), np.int32)
        self.loads = np.zeros((self.cycle, v, number), np.float32)
        self.sooner = np.zeros((self.cycle, number, number), np.float32)
        for week in range(self.cycle):
            for vessel, (route, first) in enumerate(vessels):
                calls = routes[route]
                ahead = [calls[(first + week + stop) % len(calls)] for stop in range(len(calls))]
                self.port[week, vessel] = ahead[0]
                carried = [lanes.index((ahead[0], j)) for j in ahead[1:]]
                self.loads[week, vessel, carried] = 1
                for rank, lane in enumerate(carried):
                    self.sooner[week, carried[:rank], lane] = 1

    # ---- tasks ----------------------------------------------------------------------------------------------------

    @property
    def default_params(self) -> MaritimeParams:
        """The published network: level 0.0; with ``season`` and ``scarce`` level 0.3, whose orders rise and fall."""
        net, p = self.network, self.num_ports
        shares = [net.lanes.get((i, j), 0.0) for i, j in zip(self.origin.tolist(), self.target.tolist(), strict=True)]
        days = jnp.ones((p,), jnp.float32)
        return MaritimeParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            capacity=jnp.asarray(net.capacity[int(self.scarce)], jnp.float32),
            start=jnp.asarray([int(share * cim.CONTAINERS) for share in net.start], jnp.float32),
            move_cost=jnp.float32(0.05),
            order_noise=jnp.float32(0.0),
            source_noise=jnp.zeros((p,), jnp.float32),
            orders=jnp.asarray(cim.orders(self.season), jnp.float32),
            source=jnp.tile(jnp.asarray(net.source, jnp.float32), (WEEKS, 1)),
            destination=jnp.asarray(shares, jnp.float32),
            shipper_days=days,
            consignee_days=days,
        )

    def sample_params(self, key: chex.PRNGKey) -> MaritimeParams:
        """Draws the trade: which ports export, when their seasons are, where the goods go, how long f and g are.

        Mean orders U(.02, .035) of all containers a day, split among ports by Dirichlet(1); each port's rise and fall by
        50 to 100 % in one to three waves a season; destinations Dirichlet(1); f, g of 1 to 3 days; e are up to 10 % for
        all orders, 80 % for a port's. Vessels carry 9000 to 15000 containers (shown).
        """
        p, lanes = self.num_ports, len(self.origin)
        u = sampling.uniforms(key, 0, 1 + 6 * p + lanes + self.num_turns)
        (weight, swing, phase, waves, packing, unpacking), rest = u[1 : 1 + 6 * p].reshape(6, p), u[1 + 6 * p :]
        weight = -jnp.log(weight)  # normalised, Dirichlet(1)
        time = (jnp.arange(WEEKS, dtype=jnp.float32)[:, None] + 0.5) / WEEKS
        wave = jnp.sin(2.0 * jnp.pi * (sampling.integers(waves, 1, 3) * time + phase))
        rate = (0.02 + 0.015 * u[0]) * (weight / weight.sum()) * (1.0 + (0.5 + 0.5 * swing) * wave)
        share = -jnp.log(rest[:lanes])
        return self.default_params.replace(
            capacity=jnp.round(9_000.0 + 6_000.0 * rest[lanes:]),
            order_noise=jnp.float32(0.1),
            source_noise=jnp.full((p,), 0.8, jnp.float32),
            orders=cim.CONTAINERS * jnp.repeat(rate.sum(-1), WEEK),
            source=rate / rate.sum(-1, keepdims=True),
            destination=share / (share @ self.from_port)[self.origin],
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
        ports = jnp.clip(number - (jnp.cumsum(ports) - ports), 0.0, ports)[self.origin]
        return _fill(ports, jnp.ceil(ports * params.destination - ROUNDING), self.before)

    def mean_orders(self, day: chex.Array, params: MaritimeParams) -> chex.Array:
        """Containers ordered by lane ``f32[L]`` on a day, without noise and rounding."""
        of_season = day % cim.SEASON_DAYS
        ports = params.orders[of_season] * params.source[of_season // WEEK]
        return ports[self.origin] * params.destination

    def day(self, stock: Stock, wanted: chex.Array, params: MaritimeParams) -> tuple[Stock, chex.Array]:
        """A day without calls: returns, then orders ``wanted f32[L]``. Also what of them is served, ``f32[L]``."""
        empty = stock.empty + stock.consignee[0]
        served = _fill(empty[self.origin], wanted, self.before)
        none = jnp.zeros_like
        due = _slot(params.shipper_days)[:, self.origin]
        stock = stock.replace(
            empty=empty - served @ self.from_port,
            shipper=jnp.concatenate([stock.shipper[1:], none(stock.shipper[:1])]) + due * served,
            full=stock.full + stock.shipper[0],
            consignee=jnp.concatenate([stock.consignee[1:], none(stock.consignee[:1])]),
        )
        return stock, served

    def calls(self, stock: Stock, week: chex.Array, params: MaritimeParams) -> Stock:
        """All vessels arrive, discharge what is bound for here, load, and leave empties ashore if short of room."""
        here = (jnp.asarray(self.port)[week][:, None] == jnp.arange(self.num_ports)).astype(jnp.float32)
        loads = jnp.asarray(self.loads)[week]
        landed = jnp.sum(stock.laden * here, axis=0)
        laden = stock.laden * (1.0 - here)
        room = params.capacity - laden.sum(-1)
        taken = _fill(room @ loads, stock.full * loads.sum(0), jnp.asarray(self.sooner)[week])
        laden = laden + (loads * taken) @ self.to_port
        aboard = jnp.minimum(stock.aboard, params.capacity - laden.sum(-1))
        return stock.replace(
            empty=stock.empty + (stock.aboard - aboard) @ here,
            full=stock.full - taken,
            consignee=stock.consignee + _slot(params.consignee_days) * landed,
            aboard=aboard,
            laden=laden,
        )

    def _days(
        self, stock: Stock, first: chex.Array, uniforms: chex.Array, params: MaritimeParams
    ) -> tuple[Stock, chex.Array, chex.Array]:
        """Days from ``first`` on, one for each row of ``f32[days, 1 + P]``: stock, orders and losses ``f32[P]``."""

        def one(carry: tuple[Stock, ...], step: tuple[chex.Array, chex.Array]) -> tuple[tuple[Stock, ...], None]:
            stock, booked, lost = carry
            wanted = self.orders(step[0], step[1], params)
            stock, served = self.day(stock, wanted, params)
            return (stock, booked + wanted @ self.from_port, lost + (wanted - served) @ self.from_port), None

        zero = jnp.zeros((self.num_ports,), jnp.float32)
        days = (first + jnp.arange(len(uniforms)), uniforms)
        (stock, booked, lost), _ = jax.lax.scan(one, (stock, zero, zero), days)
        return stock, booked, lost

    def initial_stock(self, params: MaritimeParams) -> Stock:
        """All containers empty in the ports, on the morning of day 0."""
        p, v, lanes = self.num_ports, self.num_turns, len(self.origin)
        shapes = {"shipper": (MAX_DELAY, lanes), "full": (lanes,), "consignee": (MAX_DELAY, p), "aboard": (v,)}
        none = {name: jnp.zeros(shape, jnp.float32) for name, shape in {**shapes, "laden": (v, p)}.items()}
        return Stock(empty=params.start, **none)

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: MaritimeParams) -> MaritimeState:
        """Days 0 to 7, at the end of which all vessels make their first call."""
        uniforms = uniforms.reshape(1 + WEEK, -1)
        stock, booked, lost = self._days(self.initial_stock(params), jnp.int32(0), uniforms, params)
        stock = self.calls(stock, jnp.int32(1 % self.cycle), params)
        moved = jnp.zeros((self.num_turns,), jnp.float32)
        return MaritimeState(**self.clock(key), stock=stock, booked=booked, lost=lost, moved=moved)

    def scope(self, state: MaritimeState, params: MaritimeParams) -> tuple[chex.Array, ...]:
        """Of the call in turn: vessel ``f32[V]`` and port ``f32[P]`` (one-hot), empties to load, to discharge."""
        turn, week = self.turn(state), (self.period(state) + 1) % self.cycle
        vessel = (jnp.arange(self.num_turns) == turn).astype(jnp.float32)
        port = (jnp.arange(self.num_ports) == jnp.asarray(self.port)[week, turn]).astype(jnp.float32)
        stock = state.stock
        aboard = vessel @ stock.aboard
        room = vessel @ (params.capacity - stock.laden.sum(-1)) - aboard
        return vessel, port, jnp.minimum(port @ stock.empty, room), aboard

    def choose(
        self, state: MaritimeState, turn: chex.Array, action: chex.Array, params: MaritimeParams
    ) -> MaritimeState:
        """Loads or discharges the chosen tenths, rounded to the nearest container, half up."""
        vessel, port, load, discharge = self.scope(state, params)
        tenths = (action - LEVELS).astype(jnp.float32)
        amount = jnp.floor((jnp.abs(tenths) * jnp.where(tenths < 0, load, discharge) + LEVELS / 2) / LEVELS)
        amount = jnp.where(tenths < 0, -amount, amount)
        stock = state.stock.replace(
            empty=state.stock.empty + port * amount, aboard=state.stock.aboard - vessel * amount
        )
        return state.replace(stock=stock, moved=state.moved + vessel * amount)

    def advance(
        self, state: MaritimeState, uniforms: chex.Array, params: MaritimeParams
    ) -> tuple[MaritimeState, chex.Array, dict[str, chex.Array]]:
        """Seven days, then the next calls.

        Key figures [containers]: ``booked``, ``served``, ``lost``, ``loaded``, ``discharged`` in the week; ``empty``
        in ports, ``aboard`` (empties), ``full`` (in ports), ``laden`` at its end.
        """
        week = self.period(state) + 1
        stock, booked, lost = self._days(state.stock, WEEK * week + 1, uniforms.reshape(WEEK, -1), params)
        stock = self.calls(stock, (week + 1) % self.cycle, params)
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
        stock, week = state.stock, (self.period(state) + 1) % self.cycle
        vessel, port, load, discharge = self.scope(state, params)
        unit = params.start.sum() / self.num_ports
        calls = jnp.asarray(self.port)
        here, following = calls[week], calls[(week + 1) % self.cycle]
        onto = (following[:, None] == jnp.arange(self.num_ports)).astype(jnp.float32)
        phase = 2.0 * jnp.pi * (self.period(state) + 1) / WEEKS
        common = {
            "cycle_sin": jnp.sin(phase),
            "cycle_cos": jnp.cos(phase),
            "progress": self.progress(state),
            "last_reward": _cut(1000.0 * state.last_reward / unit),
        }
        empty, booked, cost = _cut(stock.empty / unit), _cut(state.booked / unit), _cut(params.move_cost)
        room = params.capacity - stock.laden.sum(-1) - stock.aboard
        ports = {
            "urgency": state.lost / jnp.maximum(state.booked, 1.0),
            "slack": stock.empty / (stock.empty + state.booked + 1.0),
            "level": empty,
            "capacity": params.start / params.start.max(),
            "inflow": _cut(stock.consignee.sum(0) / unit),
            "pipeline": _cut(stock.laden.sum(0) / unit),
            "outflow": _cut((state.booked - state.lost) / unit),
            "waiting": _cut((stock.full + stock.shipper.sum(0)) @ self.from_port / unit),
            "signal_a": booked,
            "signal_b": _cut(stock.aboard @ onto / unit),
            "unit_cost": cost,
            "unit_value": 1.0,
            "is_turn": port,
            "decided": _cut((state.moved @ (here[:, None] == jnp.arange(self.num_ports))) / unit),
            **common,
        }
        vessels = {
            "slack": jnp.maximum(room, 0.0) / params.capacity,
            "level": _cut(stock.aboard / unit),
            "capacity": params.capacity / params.capacity.max(),
            "inflow": _cut(jnp.sum(stock.laden * onto, axis=-1) / unit),
            "pipeline": _cut(stock.laden.sum(-1) / unit),
            "signal_a": booked[following],
            "signal_b": empty[following],
            "unit_cost": cost,
            "is_turn": vessel,
            "decided": _cut(-state.moved / unit),
            **common,
        }
        tenths = jnp.arange(-LEVELS, LEVELS + 1)
        share = tenths / LEVELS
        ashore = port @ empty
        return Observation(
            tokens=token_table(("store", self.num_ports, ports), ("carrier", self.num_turns, vessels), ("clock", 1, common)),
            token_mask=jnp.ones((self.num_tokens,), bool),
            actions=action_rows(
                self.num_actions,
                is_noop=tenths == 0,
                amount=jnp.abs(share),
                signed=share,
                low=jnp.where(tenths < 0, _cut(-share * load / unit), 0.0),
                high=jnp.where(tenths > 0, _cut(share * discharge / unit), 0.0),
                second_slack=vessel @ vessels["slack"],
                second_level=vessel @ vessels["level"],
            ),
            action_target=jnp.full((self.num_actions,), port @ jnp.arange(self.num_ports), jnp.int32),
            action_mask=jnp.where(tenths < 0, load > 0, (tenths == 0) | (discharge > 0)),
        )

    # ---- policies -------------------------------------------------------------------------------------------------

    def forecast(self, shares: chex.Array, params: MaritimeParams) -> chex.Array:
        """Return ``f32[]`` of keeping ``shares f32[weeks, V]`` of the empties at each call, were orders their means.

        Fluid: containers are divisible and choices not rounded to tenths.
        """

        def days(stock: Stock, first: chex.Array, number: int) -> tuple[Stock, chex.Array]:
            def one(stock: Stock, day: chex.Array) -> tuple[Stock, chex.Array]:
                wanted = self.mean_orders(day, params)
                stock, served = self.day(stock, wanted, params)
                return stock, jnp.sum(2.0 * served - wanted)

            stock, value = jax.lax.scan(one, stock, first + jnp.arange(number))
            return stock, value.sum()

        def week(stock: Stock, step: tuple[chex.Array, chex.Array]) -> tuple[Stock, chex.Array]:
            number, shares = step
            stock = self.calls(stock, number % self.cycle, params)
            ports = (jnp.asarray(self.port)[number % self.cycle][:, None] == jnp.arange(self.num_ports)) * 1.0

            def call(carry: tuple[chex.Array, ...], step: tuple[chex.Array, ...]) -> tuple[Any, chex.Array]:
                empty, (port, share, aboard, room) = carry, step
                at_hand = empty @ port + aboard
                after = jnp.minimum((1.0 - share) * at_hand, room)
                return empty + port * (aboard - after), after

            room = params.capacity - stock.laden.sum(-1)
            empty, aboard = jax.lax.scan(call, stock.empty, (ports, shares, stock.aboard, room))
            cost = params.move_cost * jnp.abs(aboard - stock.aboard).sum()
            stock, value = days(stock.replace(empty=empty, aboard=aboard), WEEK * number + 1, WEEK)
            return stock, value - cost

        stock, _ = days(self.initial_stock(params), jnp.int32(0), 1 + WEEK)
        _, values = jax.lax.scan(week, stock, (1 + jnp.arange(self.num_periods), shares))
        return values.sum() / 1000.0

    def solve(self, params: MaritimeParams) -> chex.Array:
        """Shares ``f32[weeks, V]`` of the empties at hand that each call leaves in port, for mean orders."""
        start = jnp.full((self.num_periods, self.num_turns), 0.5, jnp.float32)
        return keep_shares.ascend(lambda shares: self.forecast(shares, params), start, ITERATIONS, STEP)[0]

    def reference_action(
        self, plan: chex.Array, state: MaritimeState, params: MaritimeParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The tenths that come nearest to the planned share."""
        del key
        _, port, load, discharge = self.scope(state, params)
        empty = port @ state.stock.empty
        share = plan[jnp.minimum(self.period(state), self.num_periods - 1), self.turn(state)]
        return _nearest(share * (empty + discharge) - empty, load, discharge)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Divides the empties at hand between this port's need and that of the ports ahead, were next weeks like the last.

        A port needs its last week's orders times so many weeks; ahead, what is there or on its way counts against that.
        """
        del key
        p, (own, other, across, weight, under_way) = self.num_ports, HEURISTIC
        column = dict(zip(TOKEN_COLUMNS, observation.tokens.T, strict=True))
        booked, empty, port = column["signal_a"][:p], column["level"][:p], column["is_turn"][:p]
        vessel, aboard = column["is_turn"][p:-1], column["level"][p:-1]
        need = jnp.maximum(other * booked - empty - column["inflow"][:p] - under_way * column["pipeline"][:p], 0.0)
        reached = vessel @ self.on_route
        same = vessel @ self.on_route @ self.on_route.T > self.on_route.sum(-1) - 0.5  # vessels of that route
        ahead = jnp.sum(jnp.where(reached > 0, need, across * need) * (1.0 - port))
        ahead = jnp.maximum(ahead - under_way * jnp.sum(aboard * same * (1.0 - vessel)), 0.0)
        here = own * (port @ booked)
        at_hand = port @ empty + vessel @ aboard
        carried = jnp.minimum(at_hand * weight * ahead / (here + weight * ahead + 1e-6), ahead)
        load, discharge = observation.actions[0, LOW], observation.actions[-1, HIGH]
        return _nearest(vessel @ aboard - carried, load, discharge)


def _nearest(ashore: chex.Array, load: chex.Array, discharge: chex.Array) -> chex.Array:
    """The legal choice ``i32[]`` that brings nearest to ``ashore`` empties out of the vessel (< 0: into it)."""
    scope = jnp.where(ashore < 0, load, discharge)
    tenths = jnp.clip(jnp.round(LEVELS * ashore / jnp.maximum(scope, 1e-6)), -LEVELS, LEVELS)
    return LEVELS + jnp.where(scope > 0, tenths, 0.0).astype(jnp.int32)


def _fill(available: chex.Array, wanted: chex.Array, before: chex.Array) -> chex.Array:
    """Serves ``wanted f32[K]`` one after another: what of it is ``available f32[K]``; ``before[k, l]``: k is first."""
    return jnp.clip(available - wanted @ before, 0.0, wanted)


def _slot(days: chex.Array) -> chex.Array:
    """Which row of a pipeline a delay of ``f32[P]`` days is: one-hot ``f32[D, P]``."""
    return (jnp.round(days) == jnp.arange(1.0, MAX_DELAY + 1)[:, None]).astype(jnp.float32)


def _cut(feature: chex.Array) -> chex.Array:
    """Keeps a feature without bounds of its own within those of the observation space."""
    return jnp.clip(feature, -10.0, 10.0)
