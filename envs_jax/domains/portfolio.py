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

from typing import ClassVar

import chex
import jax.numpy as jnp
from flax import struct

from envs_jax import checks, sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, bounded, make_observation
from envs_jax.references import linear_quadratic


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

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Factor momentum: the last return is scaled by how like the factors now are to those that preceded it.

        ``r_i (f_prev' f)`` is the forecast of somebody whose only data are the last period; the holding itself averages
        it over time. The two constants were tuned on tasks of ``sample_params``; with weaker signals it hardly trades.
        """
        del key
        column, n, k = observation.column, self.num_assets, self.num_factors
        factors, change = column("level")[n : n + k], column("private_a")[n : n + k]
        alike = 4.0 * jnp.sum(factors * (factors - change))
        largest = column("private_a")[n + k]
        level, last_return, tolerance, rate = (
            jnp.sum(column(name)[:n] * column("is_turn")[:n])
            for name in ("level", "private_a", "private_d", "private_e")
        )
        trade = rate * (0.1 * tolerance * last_return * alike - 0.6 * level)
        step = observation.action_column("private_a")
        miss = jnp.where(observation.action_mask, jnp.abs(step - trade / largest), jnp.inf)
        return jnp.argmin(miss).astype(jnp.int32)


def _variance(x: chex.Array, correlation: chex.Array) -> chex.Array:
    """``x' ((1-c) I + c 11') x``."""
    return (1.0 - correlation) * jnp.sum(x * x) + correlation * jnp.sum(x) ** 2


def _exposure(x: chex.Array, correlation: chex.Array) -> chex.Array:
    """``((1-c) I + c 11') x``, ``f32[N]``."""
    return (1.0 - correlation) * x + correlation * jnp.sum(x)
