"""The families of the specification in NumPy, draw by draw, and HiGHS, for tests and the benchmark of exact solvers."""

from __future__ import annotations

import numpy as np


def highs(cost: np.ndarray, demand: np.ndarray, supply: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Optimum, allocation ``[n, m]`` and prices ``[m]`` of one instance."""
    from scipy import optimize, sparse

    n, m = cost.shape
    rows, columns = sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))
    found = optimize.linprog(cost.ravel(), A_ub=columns, b_ub=supply, A_eq=rows, b_eq=demand, method="highs")
    return found.fun, found.x.reshape(n, m), -found.ineqlin.marginals


def seed_family(n: int, m: int, count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The first instances of the family ``seed``: (cost, demand, supply) each."""
    rng = np.random.default_rng(20240521 + 100 * n + m)
    found = []
    for _ in range(count):
        d, s = rng.integers(10, 100, n).astype(float), rng.integers(10, 100, m).astype(float)
        c, k = rng.integers(1, 10, (n, m)).astype(float), rng.uniform(1.05, 2)
        found.append((c, d, np.ceil(s * k * d.sum() / s.sum())))
        for _ in range(20):  # the random fills that were drawn between two instances
            rng.permutation(n * m)
    return found


def dispatch_site(rng: np.random.Generator, n: int, m: int, periods: int = 96) -> tuple[np.ndarray, ...]:
    """One site of the family ``dispatch``: costs ``[T, n, m + 1]``, demands ``[T, n]``, supplies ``[T, m + 1]``."""
    places, plants = rng.random((n, 2)), rng.random((m, 2))
    fuel, dem, cap = rng.uniform(10, 60, m), rng.uniform(10, 100, n), rng.uniform(10, 100, m)
    cap *= rng.uniform(1.3, 1.8) * dem.sum() / cap.sum()
    var = rng.random(m) < 0.4
    fuel = np.where(var, rng.uniform(0, 5, m), fuel)
    ph = 0.2 * rng.uniform(0, 2 * np.pi, n)
    z = rng.standard_normal((periods, n + 2 * m))
    y = np.zeros_like(z)
    y[0] = z[0]
    for t in range(1, periods):
        y[t] = 0.98 * y[t - 1] + np.sqrt(1 - 0.98**2) * z[t]
    t = np.arange(periods)[:, None]
    d = dem * (1 + 0.25 * np.sin(2 * np.pi * t / 96 + ph)) * np.exp(0.1 * y[:, :n])
    distance = np.linalg.norm(places[:, None] - plants[None], axis=-1)
    c = 20 * distance[None] + (fuel * np.exp(0.15 * y[:, n : n + m]))[:, None]
    s = np.where(var, cap / (1 + np.exp(-0.5 - 1.4 * y[:, n + m :])), cap)
    c = np.concatenate([c, np.full((periods, n, 1), 150.0)], -1)
    return c, d, np.concatenate([s, d.sum(-1, keepdims=True)], -1)
