"""Dynamic trading with predictable returns and quadratic costs (Garleanu & Pedersen 2013).

Each period an investor changes the holdings ``x`` (risk units) of N assets whose next returns are partly predicted by
K public, mean-reverting factors ``f``:

    r  = B f + u,               u ~ N(0, Sigma),  Sigma = (1-c) I + c 1 1'      returns [volatility units]
    f' = (1 - phi) f + eps,     eps_k ~ N(0, 1 - (1-phi_k)^2)                   factors [standard deviations]
    R  = x' r - gamma/2 x' Sigma x - lambda/2 dx' Sigma dx                      reward [risk-adjusted return units]

``x`` is the holding after this period's trade ``dx``: chosen on ``f``, it earns the next return. The loadings B say
which factor moves which asset and which way; they and phi are the task's secret. Costs and mandate are known.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from envs_jax import checks, sampling
from envs_jax.arrays import vary_like
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import linear_quadratic

_LOOK_AHEAD = 64  # periods; beyond, the heuristic's trading rule hardly moves


class PortfolioRule(NamedTuple):
    """The heuristic's prior: the law of :meth:`Portfolio.sample_params`, by moments.

    Attributes:
      fast_loading, slow_loading: standard deviation of the loadings on even and on odd factors.
      fast_persistence, slow_persistence: mean of 1 - phi.
      fast_weight, slow_weight: how many squares of a factor that mean counts for.
    """

    fast_loading: float = 0.4
    slow_loading: float = 0.3
    fast_persistence: float = 0.65
    slow_persistence: float = 0.875
    fast_weight: float = 77.0
    slow_weight: float = 125.0


class PortfolioMemory(NamedTuple):
    """Sums over the periods so far, ``f`` and then ``r, f'``.

    Attributes:
      moments: ``f32[K, K]`` f f'.
      products: ``f32[N, K]`` r f'.
      lagged: ``f32[K]`` f' f, factor by factor.
      squares: ``f32[K]`` f^2.
    """

    moments: chex.Array
    products: chex.Array
    lagged: chex.Array
    squares: chex.Array


@struct.dataclass
class PortfolioState(EnvState):
    """Attributes:
    holdings: ``f32[N]`` x, holdings with what has been traded so far this period [risk units].
    trade: ``f32[N]`` dx, traded so far this period [risk units].
    factors: ``f32[K]`` f, on which this period's returns depend [sd].
    factor_change: ``f32[K]`` last change of f [sd].
    last_return: ``f32[N]`` r of the last period [volatility units].
    """

    holdings: chex.Array
    trade: chex.Array
    factors: chex.Array
    factor_change: chex.Array
    last_return: chex.Array


@struct.dataclass
class PortfolioParams(EnvParams):
    """Attributes:
    risk_aversion: ``f32[]`` gamma [1 / risk unit].
    cost_multiplier: ``f32[]`` lambda, Lambda = lambda Sigma; positive.
    correlation: ``f32[]`` c, between any two assets' unpredictable returns, in [0, 1).
    trade_unit: ``f32[]`` step of the trade menu [risk units].
    position_limit: ``f32[]`` largest absolute holding of an asset [risk units].
    loadings: ``f32[N, K]`` B [volatility units / sd]. Hidden.
    mean_reversion: ``f32[K]`` phi, share of a factor lost per period, in (0, 1]. Hidden.
    """

    risk_aversion: chex.Array
    cost_multiplier: chex.Array
    correlation: chex.Array
    trade_unit: chex.Array
    position_limit: chex.Array
    loadings: chex.Array
    mean_reversion: chex.Array


@struct.dataclass
class PortfolioPlan:
    """The optimal continuous rule, ``x* = keep[t] x_prev + aim[t] f``, and how to round it to the menu.

    Attributes:
      keep: ``f32[P, N, N]``.
      aim: ``f32[P, N, K]``.
      carry: ``f32[N, N]`` correction of later assets for the rounding of earlier ones.
    """

    keep: chex.Array
    aim: chex.Array
    carry: chex.Array


class Portfolio(ResourceEnv[PortfolioState, PortfolioParams]):
    """N assets, one menu trade each per period; N turns make a period.

    Action k trades ``(k - 4) * trade_unit`` of the asset whose turn it is (9 levels); a trade past ``position_limit``
    is illegal. Reward is 0 except on the period's last turn.

    Holding an asset costs its share of the risk, gamma/2 x_i (Sigma x)_i a period, whichever the sign of the position:
    it is what waiting costs, and trading towards 0 relieves it. The returns that a position is held for are hidden.

    ======= =========== ==========================================================================================
    token   column      quantity
    ======= =========== ==========================================================================================
    asset   urgency     max(gamma/2 x_i (Sigma x)_i, 0), the asset's share of the risk
    asset   level       x / limit
    asset   capacity    limit
    asset   unit_cost   lambda [2], at most 10
    asset   is_turn     1 if its trade is being chosen
    asset   decided     dx / largest trade
    asset   private_a   r of the last period [2 volatility units]
    asset   private_b   f_0 now [2 sd]: public, and what this asset's next return may depend on
    asset   private_c   f_1 now [2 sd], 0 if K = 1
    asset   private_d   1 / (gamma limit), at most 10: the holding that a unit of return is worth, relative to the limit
    asset   private_e   GP's trading rate a/lambda, a function of gamma and lambda
    factor  level       f_k now [2 sd]
    factor  private_a   f_k now minus f_k a period ago [2 sd]
    mandate unit_cost   as for an asset
    mandate private_a   largest trade / limit
    mandate private_b   c
    mandate private_d   as for an asset
    mandate private_e   as for an asset
    all     progress    share of the episode gone
    all     last_reward R of the last period [5 units]
    ======= =========== ==========================================================================================

    Roles: N assets ``store``, then K factors ``market``, then the mandate ``clock``. Features without bounds are
    clipped to [-10, 10]. Actions concern the asset in turn.

    ======= =========== ==========================================================================================
    action  column      quantity
    ======= =========== ==========================================================================================
    all     is_noop     1 for no trade
    all     amount      abs(trade) / largest trade
    all     signed      what the trade takes off the position, (abs(x) - abs(x + trade)) / largest trade
    all     private_a   trade / largest trade: + buys, - sells
    ======= =========== ==========================================================================================

    Shown: holdings, returns, factors, gamma, lambda, c. Hidden: B and phi. Regressing an asset's return (``private_a``)
    on the factors in its row a period earlier (``private_b``, ``private_c``) identifies its loadings; the factors'
    paths identify phi.

    Key figures in ``info``: ``expected_reward`` R with r replaced by B f; ``profit`` x'r; ``risk`` gamma/2 x'Sigma x;
    ``cost`` lambda/2 dx'Sigma dx (all return units); ``turnover`` sum |dx|, ``gross`` sum |x| (risk units).

    Invariants: the trades add up to the change of holdings; cost is 0 exactly if nothing is traded; R is concave in x;
    (B, x) -> (-B, -x) with -u leaves R unchanged; permuting assets permutes tokens; ``|x| <= position_limit``.

    Source: N. Garleanu, L. H. Pedersen, "Dynamic Trading with Predictable Returns and Transaction Costs", Journal of
    Finance 68(6), 2013, doi 10.1111/jofi.12080 (abstract read, equations recalled and re-derived). Nine trade levels as
    in A. Brini, D. Tantari, Physica A, 2023 (code read). Loadings, factor speeds and the cap are choices made here.

    Usage::

        env, params = envs_jax.make("portfolio")
        task = env.sample_params(jax.random.key(0))
        seen, state = env.reset_env(jax.random.key(1), task)
        plan = env.solve(task)
        action = env.reference_action(plan, state, task, jax.random.key(2))
        seen, state, reward, _, info = env.step_env(state.key, state, action, task)

    Args:
      num_assets: N, at most 256.
      num_factors: K, at most 31; the asset rows repeat the first two.
      num_periods: P.
    """

    name: ClassVar[str] = "portfolio"
    hidden: ClassVar[tuple[str, ...]] = ("loadings", "mean_reversion")
    reward_unit: ClassVar[str] = "risk-adjusted return"
    # Exact for continuous trades; rounding it to the menu is not proven optimal.
    reference_kind: ClassVar[str] = "heuristic"
    rule: ClassVar[PortfolioRule] = PortfolioRule()

    def __init__(self, num_assets: int = 4, num_factors: int = 2, num_periods: int = 32) -> None:
        super().__init__()
        num_assets, num_factors, num_periods = checks.whole_numbers(
            self.name,
            num_assets=(num_assets, 1, 256),
            num_factors=(num_factors, 1, 31),
            num_periods=(num_periods, 1, 10_000),
        )
        self.num_assets = num_assets
        self.num_factors = num_factors
        self.num_turns = num_assets
        self.num_periods = num_periods
        self.num_tokens = num_assets + num_factors + 1
        self.num_actions = 9
        self.noop_action = 4
        self.num_uniforms = num_assets + num_factors
        self.num_reset_uniforms = num_factors

    @property
    def default_params(self) -> PortfolioParams:
        """Loadings of the published order of magnitude: positions of a few risk units, weak signals, a slow factor.

        gamma = .05 and lambda = .5 are the constants of the check figures; factor k's loadings have equal size and
        signs that alternate in blocks of 2^k assets.
        """
        assets, factors = (
            jnp.arange(self.num_assets, dtype=jnp.int32)[:, None],
            jnp.arange(self.num_factors, dtype=jnp.int32),
        )
        sign = 1.0 - 2.0 * ((assets >> factors[None, :]) % 2).astype(jnp.float32)
        slow = factors % 2 == 1
        return PortfolioParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            risk_aversion=jnp.float32(0.05),
            cost_multiplier=jnp.float32(0.5),
            correlation=jnp.float32(0.25),
            trade_unit=jnp.float32(0.25),
            position_limit=jnp.float32(8.0),
            loadings=(sign * jnp.where(slow, 0.06, 0.12)[None, :]).astype(jnp.float32),
            mean_reversion=jnp.where(slow, 0.03, 0.3).astype(jnp.float32),
        )

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> PortfolioParams:
        """One task: signals strong enough that a few episodes identify them (see docs/domains/portfolio.md).

        gamma ~ U(.3, .8), lambda ~ logU(.2, 2), c ~ U(0, .5); even factors fast, phi ~ U(.2, .5), loadings
        N(0, .4^2); odd factors slow, phi ~ U(.05, .2), loadings N(0, .3^2). Trade unit 3/8, limit 4.5 risk units.
        """
        n, k = self.num_assets, self.num_factors
        u = self.task_uniforms(key, split, 3 + k + n * k)
        slow = jnp.arange(k, dtype=jnp.int32) % 2 == 1
        low, high = jnp.where(slow, 0.05, 0.2), jnp.where(slow, 0.2, 0.5)
        return self.default_params.replace(
            risk_aversion=0.3 + 0.5 * u[0],
            cost_multiplier=0.2 * 10.0 ** u[1],
            correlation=0.5 * u[2],
            trade_unit=jnp.float32(0.375),
            position_limit=jnp.float32(4.5),
            mean_reversion=low + (high - low) * u[3 : 3 + k],
            loadings=jnp.where(slow, 0.3, 0.4)[None, :] * sampling.normal(u[3 + k :]).reshape(n, k),
        )

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: PortfolioParams) -> PortfolioState:
        """No holdings, factors from their stationary law."""
        del params
        zeros = jnp.zeros((self.num_assets,), jnp.float32)
        return PortfolioState(
            **self.clock(key),
            holdings=zeros,
            trade=zeros,
            factors=sampling.normal(uniforms),
            factor_change=jnp.zeros((self.num_factors,), jnp.float32),
            last_return=zeros,
        )

    def _menu(self, params: PortfolioParams) -> chex.Array:
        """Trades ``f32[9]`` [risk units]."""
        return params.trade_unit * jnp.arange(-4.0, 5.0, dtype=jnp.float32)

    def _is_turn(self, turn: chex.Array) -> chex.Array:
        return (jnp.arange(self.num_assets, dtype=jnp.int32) == turn).astype(jnp.float32)

    def choose(
        self, state: PortfolioState, turn: chex.Array, action: chex.Array, params: PortfolioParams
    ) -> PortfolioState:
        """Trades the asset whose turn it is; a trade past the limit stops there."""
        target = state.holdings + self._is_turn(turn) * (params.trade_unit * (action - 4).astype(jnp.float32))
        holdings = jnp.clip(target, -params.position_limit, params.position_limit)
        return state.replace(holdings=holdings, trade=state.trade + (holdings - state.holdings))

    def advance(
        self, state: PortfolioState, uniforms: chex.Array, params: PortfolioParams
    ) -> tuple[PortfolioState, chex.Array, dict[str, chex.Array]]:
        """Returns are earned, factors move. The first N uniforms drive u, the last K the factors."""
        n, c = self.num_assets, params.correlation
        z = sampling.normal(uniforms)
        # The symmetric root of (1-c) I + c 11' needs no factorisation: its eigenvalues off and along the direction 1.
        low, high = jnp.sqrt(1.0 - c), jnp.sqrt(1.0 - c + n * c)
        noise = low * z[:n] + (high - low) * jnp.mean(z[:n])
        forecast = jnp.sum(params.loadings * state.factors[None, :], axis=-1)
        returns = forecast + noise
        x, dx = state.holdings, state.trade
        risk = 0.5 * params.risk_aversion * _variance(x, c)
        cost = 0.5 * params.cost_multiplier * _variance(dx, c)
        profit = jnp.sum(x * returns)
        reward = profit - risk - cost
        persistence = 1.0 - params.mean_reversion
        factors = persistence * state.factors + jnp.sqrt(1.0 - persistence**2) * z[n:]
        info = {
            "expected_reward": jnp.sum(x * forecast) - risk - cost,
            "profit": profit,
            "cost": cost,
            "risk": risk,
            "turnover": jnp.sum(jnp.abs(dx)),
            "gross": jnp.sum(jnp.abs(x)),
        }
        state = state.replace(
            trade=jnp.zeros_like(dx), factors=factors, factor_change=factors - state.factors, last_return=returns
        )
        return state, reward, info

    def observation(self, state: PortfolioState, params: PortfolioParams) -> Observation:
        """See the class docstring for the columns."""
        turn = self.turn(state)
        n, k, limit, x = self.num_assets, self.num_factors, params.position_limit, state.holdings
        factors, largest = 0.5 * state.factors, 4.0 * params.trade_unit
        everywhere = {"progress": self.progress(state), "last_reward": bounded(0.2 * state.last_reward)}
        mandated = {
            "unit_cost": jnp.minimum(0.5 * params.cost_multiplier, 10.0),
            "private_d": jnp.minimum(1.0 / (params.risk_aversion * limit), 10.0),
            "private_e": linear_quadratic.trading_rate(params.risk_aversion, params.cost_multiplier),
            **everywhere,
        }
        assets = dict(
            urgency=jnp.maximum(0.5 * params.risk_aversion * x * _exposure(x, params.correlation), 0.0),
            level=x / limit,
            capacity=limit,
            is_turn=self._is_turn(turn),
            decided=state.trade / largest,
            private_a=0.5 * state.last_return,
            private_b=factors[0],
            private_c=factors[1] if k > 1 else 0.0,
            **mandated,
        )
        signals = {"level": factors, "private_a": 0.5 * state.factor_change, **everywhere}
        mandate = {"private_a": largest / limit, "private_b": params.correlation, **mandated}
        menu, holding = self._menu(params), x[turn]
        step = jnp.arange(-4.0, 5.0, dtype=jnp.float32) / 4.0
        return make_observation(
            tokens=[("store", n, assets), ("market", k, signals), ("clock", 1, mandate)],
            actions={
                "is_noop": step == 0,
                "amount": jnp.abs(step),
                "signed": jnp.clip((jnp.abs(holding) - jnp.abs(holding + menu)) / largest, -1.0, 1.0),
                "private_a": step,
            },
            action_target=jnp.full((self.num_actions,), turn, jnp.int32),
            action_mask=self._legal(holding, menu, params),
        )

    def _legal(self, holding: chex.Array, menu: chex.Array, params: PortfolioParams) -> chex.Array:
        # Half a percent of a trade unit forgives the rounding of a sum of trades.
        return (jnp.abs(holding + menu) <= params.position_limit + 0.005 * params.trade_unit) | (menu == 0)

    def problem(self, params: PortfolioParams) -> linear_quadratic.TradingProblem:
        """The task as a linear-quadratic problem, undiscounted, trades continuous and without limit."""
        n = self.num_assets
        covariance = (1.0 - params.correlation) * jnp.eye(n, dtype=jnp.float32) + params.correlation
        persistence = 1.0 - params.mean_reversion
        return linear_quadratic.TradingProblem(
            loadings=params.loadings,
            mean_reversion=jnp.diag(params.mean_reversion),
            innovation=jnp.diag(1.0 - persistence**2),
            covariance=covariance,
            cost=params.cost_multiplier * covariance,
            risk_aversion=params.risk_aversion,
            discount_rate=jnp.float32(0.0),
        )

    def upper_bound(self, params: PortfolioParams) -> chex.Array:
        """Expected return ``f32[]`` of an episode under the optimal *continuous* trades: no menu policy exceeds it."""
        value, _ = linear_quadratic.finite_horizon(self.problem(params), self.num_periods)
        return linear_quadratic.expected_value(value, jnp.eye(self.num_factors, dtype=jnp.float32))

    def solve(self, params: PortfolioParams) -> PortfolioPlan:
        """Exact finite-horizon rule for continuous trades, and the rounding correction for Sigma's metric."""
        problem = self.problem(params)
        _, rule = linear_quadratic.finite_horizon(problem, self.num_periods)
        carry = linear_quadratic.rounding_carry(problem.covariance)
        return PortfolioPlan(keep=rule.keep, aim=rule.aim, carry=carry)

    def reference_action(
        self, plan: PortfolioPlan, state: PortfolioState, params: PortfolioParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The continuous optimum given B and phi, rounded to the menu one asset after another."""
        del key
        period = jnp.minimum(self.period(state), self.num_periods - 1)
        keep, aim = plan.keep[period], plan.aim[period]
        target = keep @ (state.holdings - state.trade) + aim @ state.factors
        target = target + plan.carry @ (state.holdings - target)
        turn = self.turn(state)
        holding, wanted = state.holdings[turn], target[turn]
        menu = self._menu(params)
        miss = jnp.where(self._legal(holding, menu, params), jnp.abs(holding + menu - wanted), jnp.inf)
        return jnp.argmin(miss).astype(jnp.int32)

    def heuristic_start(self) -> PortfolioMemory:
        """Nothing seen yet."""
        n, k = self.num_assets, self.num_factors
        zeros = jnp.zeros((k,), jnp.float32)
        return PortfolioMemory(jnp.zeros((k, k), jnp.float32), jnp.zeros((n, k), jnp.float32), zeros, zeros)

    def heuristic_step(
        self, memory: PortfolioMemory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, PortfolioMemory]:
        """See :meth:`heuristic_by`, with the constants of ``rule``."""
        return self.heuristic_by(self.rule, memory, observation, key)

    def heuristic_by(
        self, rule: PortfolioRule, memory: PortfolioMemory, observation: Observation, key: chex.PRNGKey
    ) -> tuple[chex.Array, PortfolioMemory]:
        """Estimates B and phi from the episode so far and trades as if they were the truth.

        B is the posterior mean of a ridge regression of returns on the factors before them, with Sigma's two
        eigenvalues as noise; persistences are shrunk first autocorrelations. Returns are seen whatever is held and the
        problem is linear-quadratic, so nothing is lost by acting on means: but for phi and for rounding this is the
        Bayes rule of the constants' prior, with the exact finite-horizon rule in place of Garleanu and Pedersen's.
        """
        del key
        n, k, column = self.num_assets, self.num_factors, observation.column
        time = jnp.round(column("progress")[0] * self.horizon).astype(jnp.int32)
        correlation, largest = column("private_b")[n + k], column("private_a")[n + k]
        tolerance, rate = column("private_d")[n + k], column("private_e")[n + k]
        factors = 2.0 * column("level")[n : n + k]
        memory = self._remember(memory, observation, factors, (time % n == 0) & (time > 0))

        slow = jnp.arange(k, dtype=jnp.int32) % 2 == 1
        kind = lambda fast, slower: jnp.where(slow, slower, fast).astype(jnp.float32)  # noqa: E731
        precision = jnp.diag(1.0 / kind(rule.fast_loading, rule.slow_loading) ** 2)
        together, apart = 1.0 - correlation + n * correlation, 1.0 - correlation
        # Sigma^-1 B f of the posterior mean: the mean over assets and deviations from it are separate regressions.
        mean = jnp.mean(memory.products, axis=0)
        ridge = lambda noise: jnp.linalg.solve(memory.moments + noise * precision, jnp.diag(factors))  # noqa: E731
        common, own = mean @ ridge(together), (memory.products - mean[None, :]) @ ridge(apart)
        signal = own / apart + common[None, :] / together

        weight = kind(rule.fast_weight, rule.slow_weight)
        persistence = weight * kind(rule.fast_persistence, rule.slow_persistence) + memory.lagged
        persistence = jnp.clip(persistence / (weight + memory.squares), 0.0, 1.0)
        keep, aim = _trading(rate, persistence, self.num_periods - time // n, min(self.num_periods, _LOOK_AHEAD))
        before = column("level")[:n] - column("decided")[:n] * largest
        target = keep * before + tolerance * jnp.sum(signal * aim[None, :], axis=-1)
        # Later assets make up for the rounding of earlier ones, as the reference's do.
        turn, assets = time % n, jnp.arange(n, dtype=jnp.int32)
        missed = jnp.sum(jnp.where(assets < turn, column("level")[:n] - target, 0.0))
        wanted = target[turn] - missed * correlation / (1.0 + correlation * (n - 1 - turn).astype(jnp.float32))
        trade = (wanted - column("level")[turn]) / largest
        miss = jnp.abs(observation.action_column("private_a") - trade)
        return jnp.argmin(jnp.where(observation.action_mask, miss, jnp.inf)).astype(jnp.int32), memory

    def _remember(
        self, memory: PortfolioMemory, observation: Observation, factors: chex.Array, new: chex.Array
    ) -> PortfolioMemory:
        """The sums with the last period's returns and factors, once a period: where ``new``."""
        n, k, moved = self.num_assets, self.num_factors, observation.column("private_a")
        before, returns = factors - 2.0 * moved[n : n + k], 2.0 * moved[:n]
        seen = PortfolioMemory(
            moments=before[:, None] * before[None, :],
            products=returns[:, None] * before[None, :],
            lagged=factors * before,
            squares=before * before,
        )
        return jax.tree.map(lambda total, one: total + jnp.where(new, one, 0.0), memory, seen)


def _trading(
    rate: chex.Array, persistence: chex.Array, periods_left: chex.Array, most: int
) -> tuple[chex.Array, chex.Array]:
    """The optimal ``keep f32[]`` and ``aim f32[K]`` of ``x* = keep x_prev + (gamma Sigma)^-1 B (aim f)``.

    The recursion of :mod:`envs_jax.references.linear_quadratic`, whose matrices are here multiples of Sigma and of B's
    columns. In units of gamma, lambda follows from ``rate``, Garleanu and Pedersen's trading rate. At most ``most``
    (static) periods are looked ahead.
    """
    cost = (1.0 - rate) / rate**2

    def back(carry: tuple[chex.Array, ...], later: chex.Array) -> tuple[tuple[chex.Array, ...], None]:
        holding, cross, *_ = carry
        forecast, curvature = 1.0 + cross * persistence, 1.0 + holding + cost
        kept = cost / curvature
        found = (kept * (1.0 + holding), kept * forecast, kept, forecast / curvature)
        return jax.tree.map(lambda new, old: jnp.where(later < periods_left, new, old), found, carry), None

    zero, zeros = jnp.zeros_like(rate), jnp.zeros_like(persistence)
    start = vary_like((zero, zeros, zero, zeros), rate, persistence, periods_left)
    (_, _, keep, aim), _ = jax.lax.scan(back, start, jnp.arange(most, dtype=jnp.int32))
    return keep, aim


def _variance(x: chex.Array, correlation: chex.Array) -> chex.Array:
    """``x' ((1-c) I + c 11') x``."""
    return (1.0 - correlation) * jnp.sum(x * x) + correlation * jnp.sum(x) ** 2


def _exposure(x: chex.Array, correlation: chex.Array) -> chex.Array:
    """``((1-c) I + c 11') x``, ``f32[N]``."""
    return (1.0 - correlation) * x + correlation * jnp.sum(x)
