"""The best that perfect foresight could do in the maritime domain: a linear programme on the time-expanded network."""

import numpy as np
from scipy import optimize, sparse


def programme(env, params, orders, pay_moves=True):
    """Largest ``served - lost - c loaded`` and the least ``lost``, given all orders.

    Args:
      env: the domain.
      params: a task.
      orders: ``[days, L]`` containers ordered on each day, ``8 + 7 num_periods`` days.
      pay_moves: whether loads cost anything. Discharges never do, because a vessel short of room lands empties free.

    Laden containers are loaded as the programme likes (a vessel must take them in a fixed order), containers are
    divisible: an upper bound on every policy's return, in containers.
    """
    days, lanes = orders.shape
    ports, vessels, weeks = env.num_ports, env.num_turns, (days - 1) // 7
    routes = env.network.routes
    pack, unpack = (np.round(np.asarray(x)).astype(int) for x in (params.shipper_days, params.consignee_days))
    sizes = {"served": (days, lanes), "empty": (days, ports), "full": (weeks + 1, lanes), "ship": (weeks + 1, lanes)}
    sizes |= dict.fromkeys(("aboard", "on", "off"), (weeks + 1, vessels))
    index, total = {}, 0
    for name, shape in sizes.items():
        index[name] = np.arange(total, total + np.prod(shape)).reshape(shape)
        total += np.prod(shape)
    rows, limits = {"equal": [], "most": []}, {"equal": [], "most": []}

    def add(kind, terms, limit):
        rows[kind].append(terms)
        limits[kind].append(limit)

    lane = {
        (i, j): k
        for k, (i, j) in enumerate(zip(env.services.origin.tolist(), env.services.target.tolist(), strict=True))
    }
    returns = {(d, p): [] for d in range(days) for p in range(ports)}
    afloat = {(w, v): [] for w in range(1, weeks + 1) for v in range(vessels)}
    for w in range(1, weeks + 1):
        for v, (route, first) in enumerate(env.network.vessels):
            calls = routes[route]
            here = calls[(first + w) % len(calls)]
            for stops in range(1, len(calls)):
                there = calls[(first + w + stops) % len(calls)]
                variable = index["ship"][w, lane[here, there]]
                for later in range(w, min(w + stops, weeks + 1)):
                    afloat[later, v].append(variable)
                back = 7 * (w + stops) + unpack[there]
                if back < days:
                    returns[back, there].append(variable)
    for d in range(days):
        for p in range(ports):
            terms = [(index["empty"][d, p], 1.0)]
            terms += [(index["served"][d, k], 1.0) for k in np.flatnonzero(env.services.origin == p)]
            terms += [(x, -1.0) for x in returns[d, p]]
            if d:
                terms.append((index["empty"][d - 1, p], -1.0))
            if d and d % 7 == 0:
                for v, (route, first) in enumerate(env.network.vessels):
                    if routes[route][(first + d // 7) % len(routes[route])] == p:
                        terms += [(index["off"][d // 7, v], -1.0), (index["on"][d // 7, v], 1.0)]
            add("equal", terms, 0.0 if d else float(params.start[p]))
    for w in range(weeks + 1):
        for k in range(lanes):
            terms = [(index["full"][w, k], 1.0), (index["ship"][w, k], 1.0)]
            terms += [(index["full"][w - 1, k], -1.0)] if w else []
            delay = pack[env.services.origin[k]]
            terms += [(index["served"][d, k], -1.0) for d in range(days) if w and 7 * (w - 1) < d + delay <= 7 * w]
            add("equal", terms, 0.0)
        for v in range(vessels):
            terms = [(index["aboard"][w, v], 1.0), (index["off"][w, v], 1.0), (index["on"][w, v], -1.0)]
            add("equal", terms + ([(index["aboard"][w - 1, v], -1.0)] if w else []), 0.0)
            if w:
                room = [(x, 1.0) for x in (*afloat[w, v], index["aboard"][w, v])]
                add("most", room, float(params.capacity[v]))

    def matrix(kind):
        entries = [(r, c, x) for r, terms in enumerate(rows[kind]) for c, x in terms]
        r, c, x = zip(*entries, strict=True)
        return sparse.csr_matrix((x, (r, c)), shape=(len(rows[kind]), total))

    high = np.full(total, np.inf)
    high[index["served"]] = orders
    for name in ("on", "off", "ship"):
        high[index[name][0]] = 0.0  # no calls on day 0
    cost = np.zeros(total)
    cost[index["served"]] = -2.0
    cost[index["on"]] = float(params.move_cost) if pay_moves else 0.0
    found = optimize.linprog(
        cost,
        A_ub=matrix("most"),
        b_ub=limits["most"],
        A_eq=matrix("equal"),
        b_eq=limits["equal"],
        bounds=np.stack([np.zeros(total), high], axis=1),
        method="highs",
    )
    assert found.status == 0, found.message
    return -found.fun - orders.sum(), orders.sum() - found.x[index["served"]].sum()
