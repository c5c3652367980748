"""Container repositioning in NumPy: the independent models of ``envs_jax.domains.maritime``.

Written from the equations (docs/domains/maritime.md), not from the JAX code: ``LoopModel`` is one network in plain
Python integers, with containers under way kept in lists of dated batches; ``BatchModel`` a batch in lockstep, arrays
``[.., B]``. Both take the parameters by name and the uniforms from outside. Orders are computed in float32, as they
round to whole containers: in another precision every thousandth number would come out one off.
"""

from __future__ import annotations

import math

import numpy as np

from envs_jax.data.cim import NETWORKS
from envs_jax.observation import NUM_TOKEN_FEATURES
from envs_jax.testing import numpy_model
from envs_jax.testing.numpy_model import columns, relative

WEEK, SEASON, ROUNDING = 7, 112, np.float32(1e-3)
ONE, TWO = np.float32(1), np.float32(2)
URGENCY, SLACK, STORE, CARRIER, CLOCK, LEVEL, CAPACITY, INFLOW, OUTFLOW = columns(
    "urgency", "slack", "role_store", "role_carrier", "role_clock", "level", "capacity", "inflow", "outflow"
)
WAITING, UNIT_COST, UNIT_VALUE, IS_TURN, DECIDED = columns("waiting", "unit_cost", "unit_value", "is_turn", "decided")
LADEN, ORDERS, EMPTIES_AHEAD = columns("private_a", "private_b", "private_c")
LOST_SHARE, START = columns("private_d", "private_e")  # of ports
LADEN_FOR_NEXT = LOST_SHARE  # of vessels
CYCLE_SIN, CYCLE_COS, PROGRESS, LAST_REWARD = columns("cycle_sin", "cycle_cos", "progress", "last_reward")


class LoopModel(numpy_model.LoopModel):
    """One network. ``params``: the leaves of MaritimeParams by name, unbatched."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 17, network: str = "5p") -> None:
        net = NETWORKS[network]
        self.routes, self.vessels, self.num_periods = net.routes, net.vessels, num_periods
        self.ports = len(net.ports)
        ordered = sorted({(i, j) for route in self.routes for i in route for j in route if i != j})
        share = np.asarray(params["destination"], np.float32)
        self.trade = [[(j, s) for (o, j), s in zip(ordered, share, strict=True) if o == i] for i in range(self.ports)]
        self.room = [int(c) for c in params["capacity"]]
        self.start = [int(c) for c in params["start"]]
        self.cost, self.swing = float(params["move_cost"]), np.float32(params["order_noise"])
        self.swings = np.asarray(params["source_noise"], np.float32)
        self.mean_orders, self.source = (np.asarray(params[k], np.float32) for k in ("orders", "source"))
        self.pack, self.unpack = ([round(float(d)) for d in params[k]] for k in ("shipper_days", "consignee_days"))

    def harbour(self, vessel: int, week: int, ahead: int = 0) -> int:
        """Where a vessel calls, so many calls ahead."""
        route, first = self.vessels[vessel]
        return self.routes[route][(first + week + ahead) % len(self.routes[route])]

    def reset(self, uniforms: np.ndarray) -> None:
        """The morning of day 0; nothing is drawn."""
        del uniforms
        self.empty, self.aboard = list(self.start), [0] * len(self.vessels)
        self.full = [dict.fromkeys((j for j, _ in self.trade[i]), 0) for i in range(self.ports)]
        self.packing: list[tuple[int, int, int, int]] = []  # due on, from, to, containers
        self.unpacking: list[tuple[int, int, int]] = []  # due on, at, containers
        self.laden = [[0] * self.ports for _ in self.vessels]
        self.today, self.week, self.time, self.last_reward = -1, 0, 0, 0.0
        self.moved = [0] * len(self.vessels)
        self.booked, self.lost = [0] * self.ports, [0] * self.ports

    def _book(self, uniforms: np.ndarray) -> None:
        """Today's orders, served in the order of their lanes."""
        day = self.today % SEASON
        left = np.floor(self.mean_orders[day] * (ONE + self.swing * (TWO * uniforms[0] - ONE)))
        number = left
        weight = self.source[day // WEEK] * (ONE + self.swings * (TWO * uniforms[1:] - ONE))
        weight = weight / weight.sum()
        for i in range(self.ports):
            here = min(np.ceil(number * weight[i] - ROUNDING), left)
            left -= here
            rest = here
            for j, share in self.trade[i]:
                wanted = min(np.ceil(here * share - ROUNDING), rest)
                rest -= wanted
                served = min(int(wanted), self.empty[i])
                self.booked[i] += int(wanted)
                self.lost[i] += int(wanted) - served
                self.empty[i] -= served
                if served:
                    self.packing.append((self.today + self.pack[i], i, j, served))

    def _sail(self, uniforms: np.ndarray) -> None:
        """Days up to the next calls, and the arrivals."""
        self.booked, self.lost = [0] * self.ports, [0] * self.ports
        rows = np.asarray(uniforms, np.float32).reshape(1 + WEEK, 1 + self.ports)
        for row in rows if self.week == 0 else rows[1:]:
            self.today += 1
            for _, i, j, number in (batch for batch in self.packing if batch[0] == self.today):
                self.full[i][j] += number
            for _, i, number in (batch for batch in self.unpacking if batch[0] == self.today):
                self.empty[i] += number
            self.packing = [batch for batch in self.packing if batch[0] > self.today]
            self.unpacking = [batch for batch in self.unpacking if batch[0] > self.today]
            self._book(row)
        self.week = week = self.today // WEEK
        for v, (route, _) in enumerate(self.vessels):
            i, load = self.harbour(v, week), self.laden[v]
            if load[i]:
                self.unpacking.append((self.today + self.unpack[i], i, load[i]))
                load[i] = 0
            for ahead in range(1, len(self.routes[route])):
                j = self.harbour(v, week, ahead)
                number = min(self.full[i][j], self.room[v] - sum(load))
                self.full[i][j] -= number
                load[j] += number
            excess = max(self.aboard[v] + sum(load) - self.room[v], 0)
            self.aboard[v] -= excess
            self.empty[i] += excess

    def scope(self) -> tuple[int, int, int, int]:
        """Vessel and port in turn, empties that can be loaded and discharged."""
        v = self.time % len(self.vessels)
        i = self.harbour(v, self.week)
        space = self.room[v] - sum(self.laden[v]) - self.aboard[v] if self.week else 0
        return v, i, min(self.empty[i], space), self.aboard[v]

    def action_mask(self) -> np.ndarray:
        """``bool[21]``."""
        *_, load, discharge = self.scope()
        return np.array([load > 0] * 10 + [True] + [discharge > 0] * 10)

    def step(self, action: int, uniforms: np.ndarray | None) -> tuple[float, dict[str, float]]:
        """One call; after the week's last ``uniforms[8 (1 + P)]`` make its days."""
        v, i, load, discharge = self.scope()
        tenths = action - 10
        number = -((-tenths * load + 5) // 10) if tenths < 0 else (tenths * discharge + 5) // 10
        self.empty[i] += number
        self.aboard[v] -= number
        self.moved[v] = number
        self.time += 1
        if v < len(self.vessels) - 1:
            return 0.0, {}
        assert uniforms is not None
        self._sail(uniforms)
        info = {
            "booked": sum(self.booked),
            "served": sum(self.booked) - sum(self.lost),
            "lost": sum(self.lost),
            "loaded": -sum(n for n in self.moved if n < 0),
            "discharged": sum(n for n in self.moved if n > 0),
            "empty": sum(self.empty),
            "aboard": sum(self.aboard),
            "full": sum(sum(lots.values()) for lots in self.full),
            "laden": sum(map(sum, self.laden)),
        }
        reward = (info["served"] - info["lost"] - self.cost * (info["loaded"] + info["discharged"])) / 1000
        self.moved = [0] * len(self.vessels)
        self.last_reward = reward
        return reward, {name: float(x) for name, x in info.items()}

    def tokens(self) -> np.ndarray:
        """``f64[P+V+1, columns]`` in the layout of the JAX observation."""
        p, unit, week = self.ports, sum(self.start) / self.ports, self.week
        out = np.zeros((p + len(self.vessels) + 1, NUM_TOKEN_FEATURES))
        turn = self.scope()[0]
        out[:, CYCLE_SIN], out[:, CYCLE_COS] = math.sin(2 * math.pi * week / 16), math.cos(2 * math.pi * week / 16)
        out[:, PROGRESS] = min(self.time / (self.num_periods * len(self.vessels)), 1.0)
        out[:, LAST_REWARD] = min(max(1000 * self.last_reward / unit, -10.0), 10.0)
        out[-1, CLOCK], out[:-1, UNIT_COST] = 1.0, min(self.cost, 10.0)
        for i in range(p):
            row = out[i]
            row[[STORE, UNIT_VALUE, START]] = 1.0, 1.0, self.start[i] / max(self.start)
            row[SLACK] = self.empty[i] / (self.empty[i] + self.booked[i] + 1)
            row[LOST_SHARE] = self.lost[i] / max(self.booked[i], 1)
            at_shippers = sum(batch[3] for batch in self.packing if batch[1] == i)
            at_consignees = sum(batch[2] for batch in self.unpacking if batch[1] == i)
            row[URGENCY] = max(self.booked[i] - self.empty[i] - at_consignees, 0)
            amounts = {
                LEVEL: self.empty[i],
                INFLOW: at_consignees,
                OUTFLOW: self.booked[i] - self.lost[i],
                WAITING: at_shippers + sum(self.full[i].values()),
                LADEN: sum(load[i] for load in self.laden),
                ORDERS: self.booked[i],
                EMPTIES_AHEAD: sum(n for v, n in enumerate(self.aboard) if self.harbour(v, week, 1) == i),
                DECIDED: sum(n for v, n in enumerate(self.moved) if self.harbour(v, week) == i),
            }
            for column, number in amounts.items():
                row[column] = min(max(number / unit, -10.0), 10.0)
        for v in range(len(self.vessels)):
            row, following, load = out[p + v], self.harbour(v, week, 1), self.laden[v]
            row[[CARRIER, IS_TURN, CAPACITY]] = 1.0, float(v == turn), self.room[v]
            row[SLACK] = (self.room[v] - sum(load) - self.aboard[v]) / self.room[v]
            row[[ORDERS, EMPTIES_AHEAD]] = out[following, ORDERS], out[following, LEVEL]
            for column, number in ((LEVEL, self.aboard[v]), (LADEN, sum(load)), (LADEN_FOR_NEXT, load[following])):
                row[column] = min(number / unit, 10.0)
            row[DECIDED] = min(max(-self.moved[v] / unit, -10.0), 10.0)
        return relative(out)


class BatchModel(numpy_model.BatchModel):
    """``B`` networks in lockstep. ``params`` have a leading axis B; stocks are float32 ``[.., B]`` of whole numbers."""

    def __init__(self, params: dict[str, np.ndarray], num_periods: int = 17, network: str = "5p") -> None:
        net = NETWORKS[network]
        given = {
            name: np.ascontiguousarray(np.moveaxis(np.asarray(x, np.float32), 0, -1)) for name, x in params.items()
        }
        self.routes, self.vessels, self.num_periods = net.routes, net.vessels, num_periods
        self.p, self.v = len(net.ports), len(net.vessels)
        self.lanes = sorted({(i, j) for route in self.routes for i in route for j in route if i != j})
        self.index = {lane: k for k, lane in enumerate(self.lanes)}
        self.out_of = [[k for k, (i, _) in enumerate(self.lanes) if i == port] for port in range(self.p)]
        self.room, self.start, self.cost = given["capacity"], given["start"], given["move_cost"]
        self.orders, self.source, self.destination = given["orders"], given["source"], given["destination"]
        self.swing, self.swings = given["order_noise"], given["source_noise"]
        days = np.arange(1, 4, dtype=np.float32)[:, None, None]
        self.pack, self.unpack = (
            (np.round(given[k]) == days).astype(np.float32) for k in ("shipper_days", "consignee_days")
        )
        self.batch = self.room.shape[-1]
        self.scale = self.p / self.start.sum(0)
        self.table = np.zeros((self.batch, self.p + self.v + 1, NUM_TOKEN_FEATURES), np.float32)
        self.stores, self.carriers = self.table[:, : self.p], self.table[:, self.p : -1]
        self.stores[..., STORE] = self.stores[..., UNIT_VALUE] = self.carriers[..., CARRIER] = 1
        self.stores[..., START] = (self.start / self.start.max(0)).T
        self.carriers[..., CAPACITY] = (self.room / self.room.max(0)).T
        self.table[:, -1, CLOCK] = 1
        self.table[:, :-1, UNIT_COST] = np.minimum(self.cost, 10)[:, None]

    def harbour(self, vessel: int, ahead: int = 0) -> int:
        """Where a vessel calls, so many calls ahead."""
        route, first = self.vessels[vessel]
        return self.routes[route][(first + self.week + ahead) % len(self.routes[route])]

    def reset(self, uniforms: np.ndarray) -> None:
        """The morning of day 0; nothing is drawn."""
        del uniforms
        lanes = len(self.lanes)
        self.empty, self.aboard = self.start.copy(), np.zeros((self.v, self.batch), np.float32)
        self.full = np.zeros((lanes, self.batch), np.float32)
        self.laden = np.zeros((self.v, self.p, self.batch), np.float32)
        self.packing, self.unpacking = (np.zeros((3, n, self.batch), np.float32) for n in (lanes, self.p))
        self.moved, self.reward = np.zeros_like(self.aboard), np.zeros(self.batch, np.float32)
        self.day, self.week, self.time = -1, 0, 0
        self.booked, self.lost = np.zeros_like(self.empty), np.zeros_like(self.empty)
        self._look()

    def _sail(self, uniforms: np.ndarray) -> None:
        self.booked, self.lost = np.zeros_like(self.empty), np.zeros_like(self.empty)
        noise = TWO * np.float32(uniforms).T.reshape(-1, 1 + self.p, self.batch) - ONE
        for e in noise if self.week == 0 else noise[1:]:
            self.day += 1
            day = self.day % SEASON
            self.empty += self.unpacking[0]
            self.full += self.packing[0]
            for pipeline in (self.packing, self.unpacking):
                pipeline[:-1] = pipeline[1:]
                pipeline[-1] = 0
            number = np.floor(self.orders[day] * (ONE + self.swing * e[0]))
            weight = self.source[day // WEEK] * (ONE + self.swings * e[1:])
            asked = np.ceil(number * (weight / weight.sum(0)) - ROUNDING)
            for i in range(self.p):
                here = np.minimum(asked[i], number)
                number = number - here
                self.booked[i] += here
                rest, at_start = here, self.empty[i].copy()
                for k in self.out_of[i]:
                    wanted = np.minimum(np.ceil(here * self.destination[k] - ROUNDING), rest)
                    rest = rest - wanted
                    served = np.minimum(wanted, self.empty[i])
                    self.empty[i] -= served
                    self.packing[:, k] += self.pack[:, i] * served
                self.booked[i] -= rest
                self.lost[i] += here - rest - (at_start - self.empty[i])
        self.week = self.day // WEEK
        for v, (route, _) in enumerate(self.vessels):
            i, load = self.harbour(v), self.laden[v]
            self.unpacking[:, i] += self.unpack[:, i] * load[i]
            load[i] = 0
            space = self.room[v] - load.sum(0)
            for ahead in range(1, len(self.routes[route])):
                j = self.harbour(v, ahead)
                k = self.index[i, j]
                number = np.minimum(self.full[k], space)
                self.full[k] -= number
                load[j] += number
                space = space - number
            excess = np.maximum(self.aboard[v] - space, 0)
            self.aboard[v] -= excess
            self.empty[i] += excess
        self._look()

    def _scope(self) -> tuple[int, int, np.ndarray, np.ndarray]:
        v = self.time % self.v
        i = self.harbour(v)
        space = self.room[v] - self.laden[v].sum(0) - self.aboard[v]
        return v, i, np.minimum(self.empty[i], space if self.week else 0), self.aboard[v]

    def action_mask(self) -> np.ndarray:
        """``bool[B, 21]``."""
        *_, load, discharge = self._scope()
        mask = np.ones((self.batch, 21), bool)
        mask[:, :10], mask[:, 11:] = (load > 0)[:, None], (discharge > 0)[:, None]
        return mask

    def step(self, action: np.ndarray, uniforms: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One call ``action[B]`` each; after the week's last ``uniforms[B, 8 (1 + P)]`` make its days."""
        v, i, load, discharge = self._scope()
        tenths = (action - 10).astype(np.float32)
        number = np.floor((np.abs(tenths) * np.where(tenths < 0, load, discharge) + 5) / 10)
        number = np.copysign(number, tenths)
        self.empty[i] += number
        self.aboard[v] -= number
        self.moved[v] = number
        self.time += 1
        if v < self.v - 1:
            self._refresh(v, i)
            return np.zeros(self.batch, np.float32), {}
        loaded, discharged = np.maximum(-self.moved, 0).sum(0), np.maximum(self.moved, 0).sum(0)
        self.moved[:] = 0
        self._sail_and_pay(uniforms, loaded + discharged)
        info = {
            "booked": self.booked.sum(0),
            "served": (self.booked - self.lost).sum(0),
            "lost": self.lost.sum(0),
            "loaded": loaded,
            "discharged": discharged,
            "empty": self.empty.sum(0),
            "aboard": self.aboard.sum(0),
            "full": self.full.sum(0),
            "laden": self.laden.sum((0, 1)),
        }
        return self.reward, info

    def _sail_and_pay(self, uniforms: np.ndarray | None, handled: np.ndarray) -> None:
        assert uniforms is not None
        self._sail(uniforms)
        self.reward = ((self.booked - 2 * self.lost).sum(0) - self.cost * handled) / 1000
        self.table[..., LAST_REWARD] = np.clip(1000 * self.reward * self.scale, -10, 10)[:, None]

    def _refresh(self, v: int, i: int) -> None:
        """After a call that did not end the week: what it changed, and whose turn is next."""
        scale, following = self.scale, self.harbour(v, 1)
        self.stores[:, i, LEVEL] = self.empty[i] * scale
        self.stores[:, i, SLACK] = self.empty[i] / (self.empty[i] + self.booked[i] + 1)
        self.stores[:, i, DECIDED] += self.moved[v] * scale
        self.carriers[:, v, DECIDED] = -self.moved[v] * scale
        self.carriers[:, v, LEVEL] = self.aboard[v] * scale
        self.carriers[:, v, SLACK] = (self.room[v] - self.laden[v].sum(0) - self.aboard[v]) / self.room[v]
        self.stores[:, following, EMPTIES_AHEAD] -= self.moved[v] * scale
        for u in range(self.v):
            if self.harbour(u, 1) == i:
                self.carriers[:, u, EMPTIES_AHEAD] = self.stores[:, i, LEVEL]
        self._turn()

    def _turn(self) -> None:
        turn = self.time % self.v
        self.carriers[..., IS_TURN] = 0
        self.carriers[:, turn, IS_TURN] = 1
        short = np.maximum(self.wanted - self.empty, 0)
        worst = short.max(0)
        self.stores[..., URGENCY] = (short / np.where(worst > 0, worst, 1)).T
        self.table[..., PROGRESS] = min(self.time / (self.num_periods * self.v), 1.0)

    def _look(self) -> None:
        """All columns at the start of a week; the quantities in units of a port's mean stock."""
        scale, stores, carriers = self.scale, self.stores, self.carriers
        phase = 2 * math.pi * self.week / 16
        self.table[..., CYCLE_SIN], self.table[..., CYCLE_COS] = math.sin(phase), math.cos(phase)
        at_consignees = self.unpacking.sum(0)
        self.wanted = self.booked - at_consignees
        stores[..., LOST_SHARE] = (self.lost / np.maximum(self.booked, 1)).T
        stores[..., SLACK] = (self.empty / (self.empty + self.booked + 1)).T
        waiting = self.full + self.packing.sum(0)
        waiting = np.stack([waiting[own].sum(0) for own in self.out_of])
        onward = [self.harbour(v, 1) for v in range(self.v)]
        coming = np.stack(
            [sum((self.aboard[v] for v in range(self.v) if onward[v] == i), 0 * scale) for i in range(self.p)]
        )
        columns = (LEVEL, INFLOW, LADEN, OUTFLOW, WAITING, ORDERS, EMPTIES_AHEAD)
        amounts = (
            self.empty,
            at_consignees,
            self.laden.sum(0),
            self.booked - self.lost,
            waiting,
            self.booked,
            coming,
        )
        for column, amount in zip(columns, amounts, strict=True):
            stores[..., column] = np.minimum(amount * scale, 10).T
        loaded = self.laden.sum(1)
        carriers[..., SLACK] = ((self.room - loaded - self.aboard) / self.room).T
        bound = np.stack([self.laden[v, onward[v]] for v in range(self.v)])
        for column, amount in ((LEVEL, self.aboard), (LADEN, loaded), (LADEN_FOR_NEXT, bound)):
            carriers[..., column] = np.minimum(amount * scale, 10).T
        carriers[..., ORDERS], carriers[..., EMPTIES_AHEAD] = stores[:, onward, ORDERS], stores[:, onward, LEVEL]
        self.table[:, :-1, DECIDED] = 0
        if self.time == 0:
            self.table[..., LAST_REWARD] = 0
        self._turn()

    def tokens(self) -> np.ndarray:
        """``f32[B, P+V+1, columns]``, a view that the next step overwrites."""
        return self.table
