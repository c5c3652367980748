"""Slate recommendation to a user with a limited attention budget (RecSim's interest evolution, SlateQ 2019).

Each period a recommender fills a slate of k documents from m candidates; every document has one of G topics. The user,
whose interest in topic g is ``u_g`` in [-1, 1], watches one of them or none:

    v_g   = 1 + u_g  (proportional)  or  exp(beta u_g)  (logit);    v_0 = 1 + n  or  exp(n)
    P(g)  = s_g v_g / (sum_j s_j v_j + v_0)                        s_g documents of topic g on the slate
    click: w = min(b, L) minutes are watched,  b' = b - w (1 - kappa q),  q ~ N(Q_g, sd^2)
           u_g' = u_g + a (1 - u_g) with probability (1 + u_g)/2, else u_g - a (1 - u_g);  a = y (1 - |u_g|)
    none:  b' = b - c

The reward is w [minutes]. Once the budget b is used up (b <= 0) the user has left, and nothing more is earned. Good
documents (quality Q) cost less attention than they hold, bad ones more: what is clicked most is not what lasts longest.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import chex
import jax.numpy as jnp
from flax import struct

from envs_jax import sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import TOKEN_COLUMNS, Observation, action_rows, token_table
from envs_jax.references import fractional_slate

QUALITY_SCALE = 3.4
"""Published bound of the quality of a document, 3 + 4 standard deviations."""


@struct.dataclass
class RecommenderState(EnvState):
    """Attributes:
    offered: ``f32[G]`` candidates of each topic this period.
    slate: ``f32[G]`` documents of each topic on the slate so far.
    shift: ``f32[G]`` interests u less the task's; hidden.
    spent: ``f32[]`` budget used up [minutes]; hidden.
    active: ``f32[]`` 1 while the user is there.
    shown: ``f32[G]`` documents shown in this session.
    clicked: ``f32[G]`` documents watched in this session.
    quality: ``f32[G]`` sum of the qualities of the documents watched.
    last_slate: ``f32[G]`` the last slate.
    last_click: ``f32[G]`` 1 for the topic last period's click was on.
    last_quality: ``f32[G]`` quality of that document, 0 elsewhere.
    idle: ``f32[]`` periods since the last click or the start.
    """

    offered: chex.Array
    slate: chex.Array
    shift: chex.Array
    spent: chex.Array
    active: chex.Array
    shown: chex.Array
    clicked: chex.Array
    quality: chex.Array
    last_slate: chex.Array
    last_click: chex.Array
    last_quality: chex.Array
    idle: chex.Array


@struct.dataclass
class RecommenderParams(EnvParams):
    """Attributes:
    minutes: ``f32[]`` L, length of a document.
    skip: ``f32[]`` c, budget that a slate without a click uses up [minutes].
    bonus: ``f32[]`` kappa, share of a watched minute that a unit of quality gives back.
    quality_sd: ``f32[]`` sd of the quality of documents of a topic.
    no_click: ``f32[]`` n, appeal of watching nothing, on the scale of interests.
    logit: ``f32[]`` 1 for the logit choice model, 0 for the proportional one.
    interest_spread: ``f32[]`` a session's interests start within this of the task's, uniformly.
    budget: ``f32[]`` b at the start [minutes]. Hidden.
    topic_quality: ``f32[G]`` Q, in [-3, 3]. Hidden.
    interests: ``f32[G]`` the user's interests before the first session. Hidden.
    sharpness: ``f32[]`` beta of the logit model. Hidden.
    interest_step: ``f32[]`` y, step of an interest of 0. Hidden.
    """

    minutes: chex.Array
    skip: chex.Array
    bonus: chex.Array
    quality_sd: chex.Array
    no_click: chex.Array
    logit: chex.Array
    interest_spread: chex.Array
    budget: chex.Array
    topic_quality: chex.Array
    interests: chex.Array
    sharpness: chex.Array
    interest_step: chex.Array


@struct.dataclass
class RecommenderPlan:
    """Attributes:
    values: ``f32[P + 1, L]`` minutes still to be watched by period and remaining budget.
    """

    values: chex.Array


@dataclasses.dataclass(frozen=True)
class Preset:
    """Constants and task ranges of a field; ours but for ``video``, whose constants are RecSim's.

    Attributes:
      minutes: length of a document.
      skip: budget a slate without a click uses up, in documents.
      no_click: appeal of watching nothing.
      budget: range of the budget, in documents.
      sharpness: range of beta.
      interest_step: range of y.
    """

    minutes: float = 4.0
    skip: float = 0.125
    no_click: float = 1.0
    budget: tuple[float, float] = (12.0, 24.0)
    sharpness: tuple[float, float] = (0.0, 3.0)
    interest_step: tuple[float, float] = (0.0, 0.3)


PRESETS = {
    "video": Preset(),
    "news": Preset(minutes=1.5, skip=0.2, interest_step=(0.1, 0.5)),
    "e-commerce": Preset(minutes=3.0, skip=0.1, no_click=1.5, sharpness=(1.0, 3.0), interest_step=(0.0, 0.1)),
    "social": Preset(minutes=0.5, skip=0.3, no_click=0.5, budget=(16.0, 32.0), interest_step=(0.2, 0.6)),
    "advertising": Preset(minutes=0.5, skip=0.1, no_click=3.0, budget=(4.0, 10.0), sharpness=(1.0, 3.0)),
}
"""Fields by name: documents differ in length, users in patience, choosiness and how fast their interests move."""


class Recommender(ResourceEnv[RecommenderState, RecommenderParams]):
    name: ClassVar[str] = "recommender"
    hidden: ClassVar[tuple[str, ...]] = ("budget", "topic_quality", "interests", "sharpness", "interest_step")
    reward_unit: ClassVar[str] = "minutes"
    reference_kind: ClassVar[str] = "heuristic"

    def __init__(
        self,
        num_topics: int = 10,
        num_candidates: int = 10,
        slate_size: int = 3,
        num_periods: int = 45,
        preset: str = "video",
    ) -> None:
        super().__init__()
        self.num_topics = num_topics
        self.num_candidates = num_candidates
        self.slate_size = slate_size
        self.num_turns = slate_size
        self.num_periods = num_periods
        self.preset = PRESETS[preset]
        self.num_tokens = num_topics + 1
        self.num_actions = num_topics + 1
        self.noop_action = num_topics
        self.num_uniforms = num_candidates + 3
        self.num_reset_uniforms = num_candidates + num_topics
        self.levels = 64
        self.sets = fractional_slate.candidate_sets(num_topics, num_candidates, 16)

    @property
    def default_params(self) -> RecommenderParams:
        p, g = self.preset, self.num_topics
        bad = int(g * 0.7)
        quality = jnp.concatenate([jnp.linspace(-3.0, 0.0, bad), jnp.linspace(0.0, 3.0, g - bad)])
        return RecommenderParams(
            max_steps_in_episode=jnp.int32(self.horizon),
            minutes=jnp.float32(p.minutes),
            skip=jnp.float32(p.skip * p.minutes),
            bonus=jnp.float32(0.9 / QUALITY_SCALE),
            quality_sd=jnp.float32(0.1),
            no_click=jnp.float32(p.no_click),
            logit=jnp.float32(0.0),
            interest_spread=jnp.float32(1.0),
            budget=jnp.float32(50.0 * p.minutes),
            topic_quality=quality.astype(jnp.float32),
            interests=jnp.zeros((g,), jnp.float32),
            sharpness=jnp.float32(1.0),
            interest_step=jnp.float32(0.3),
        )

    def sample_params(self, key: chex.PRNGKey) -> RecommenderParams:
        g, p, default = self.num_topics, self.preset, self.default_params
        u = sampling.uniforms(key, 0, 4 + 2 * g)

        def between(uniform: chex.Array, ends: tuple[float, float]) -> chex.Array:
            return ends[0] + (ends[1] - ends[0]) * uniform

        return default.replace(
            logit=jnp.float32(1.0),
            interest_spread=jnp.float32(0.0),
            budget=p.minutes * between(u[0], p.budget),
            sharpness=between(u[1], p.sharpness),
            interest_step=between(u[2], p.interest_step),
            topic_quality=between(u[3], (0.5, 1.0)) * default.topic_quality[jnp.argsort(u[4 : 4 + g])],
            interests=2.0 * u[4 + g :] - 1.0,
        )

    def _offer(self, uniforms: chex.Array) -> chex.Array:
        """Candidates of each topic, ``f32[G]``: every candidate's topic is uniform."""
        g = self.num_topics
        topics = jnp.minimum(jnp.floor(uniforms * g), g - 1.0)
        return jnp.sum(topics[:, None] == jnp.arange(g), axis=0, dtype=jnp.float32)

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: RecommenderParams) -> RecommenderState:
        m = self.num_candidates
        none = jnp.zeros((self.num_topics,), jnp.float32)
        start = params.interests + params.interest_spread * (2.0 * uniforms[m:] - 1.0)
        return RecommenderState(
            **self.clock(key),
            offered=self._offer(uniforms[:m]),
            slate=none,
            shift=jnp.clip(start, -1.0, 1.0) - params.interests,
            spent=jnp.float32(0.0),
            active=jnp.float32(1.0),
            shown=none,
            clicked=none,
            quality=none,
            last_slate=none,
            last_click=none,
            last_quality=none,
            idle=jnp.float32(0.0),
        )

    def choose(
        self, state: RecommenderState, turn: chex.Array, action: chex.Array, params: RecommenderParams
    ) -> RecommenderState:
        del turn, params
        chosen = (jnp.arange(self.num_topics) == action) & (state.slate < state.offered)
        return state.replace(slate=state.slate + chosen)

    def interests(self, state: RecommenderState, params: RecommenderParams) -> chex.Array:
        return jnp.clip(params.interests + state.shift, -1.0, 1.0)

    def appeal(self, interests: chex.Array, params: RecommenderParams) -> tuple[chex.Array, chex.Array]:
        """v of a document of each topic and v_0 of none."""
        logit, n = params.logit > 0, params.no_click
        weights = jnp.where(logit, jnp.exp(params.sharpness * interests), 1.0 + interests)
        return weights, jnp.where(logit, jnp.exp(n), 1.0 + n)

    def advance(
        self, state: RecommenderState, uniforms: chex.Array, params: RecommenderParams
    ) -> tuple[RecommenderState, chex.Array, dict[str, chex.Array]]:
        m, active, slate = self.num_candidates, state.active, state.slate
        u = self.interests(state, params)
        weights, outside = self.appeal(u, params)
        upto = jnp.cumsum(slate * weights)
        total = upto[-1] + outside
        drawn = uniforms[m] * total
        click = active * ((drawn < upto) & (drawn >= upto - slate * weights) & (slate > 0))
        any_click = jnp.sum(click)
        watched = jnp.minimum(params.budget - state.spent, params.minutes)
        quality = params.topic_quality + params.quality_sd * sampling.normal(uniforms[m + 1])
        seen = click * quality
        cost = jnp.where(any_click > 0, watched * (1.0 - params.bonus * jnp.sum(seen)), params.skip)
        spent = state.spent + active * cost
        step = params.interest_step * (1.0 - jnp.abs(u)) * (1.0 - u)
        moved = u + jnp.where(uniforms[m + 2] < 0.5 * (1.0 + u), step, -step)
        shift = jnp.where(click > 0, jnp.clip(moved, -1.0, 1.0) - params.interests, state.shift)
        reward = any_click * watched
        probability = upto[-1] / total
        size = jnp.maximum(jnp.sum(slate), 1.0)
        share = slate / size
        entropy = -jnp.sum(share * jnp.log(jnp.where(slate > 0, share, 1.0)))
        waited = state.idle + active
        info = {
            "expected_reward": active * probability * watched,
            "click": any_click,
            "click_probability": active * probability,
            "quality": jnp.sum(seen),
            "diversity": active * entropy,
            "response_time": any_click * waited,
            "session": active,
        }
        return (
            state.replace(
                offered=self._offer(uniforms[:m]),
                slate=jnp.zeros_like(slate),
                shift=shift,
                spent=spent,
                active=active * (params.budget - spent > 0.0),
                shown=state.shown + active * slate,
                clicked=state.clicked + click,
                quality=state.quality + seen,
                last_slate=active * slate,
                last_click=click,
                last_quality=seen,
                idle=jnp.where(any_click > 0, 0.0, waited),
            ),
            reward,
            info,
        )

    def observation(self, state: RecommenderState, params: RecommenderParams) -> Observation:
        g, k = self.num_topics, self.slate_size
        left = state.offered - state.slate
        seen = jnp.maximum(jnp.sum(state.shown), 1.0)
        exposure = g * state.shown / seen
        cost, value = params.skip / params.minutes, 0.25 * params.minutes
        common = {
            "unit_cost": cost,
            "unit_value": value,
            "progress": self.progress(state),
            "last_reward": state.last_reward / params.minutes,
        }
        topic = {
            **common,
            "urgency": jnp.maximum(1.0 - exposure, 0.0),
            "slack": jnp.clip(exposure - 1.0, 0.0, 1.0),
            "level": left / k,
            "capacity": 1.0,
            "inflow": state.offered / k,
            "outflow": state.last_click,
            "waiting": (state.last_slate - state.last_click) / k,
            "change": state.last_quality / QUALITY_SCALE,
            "signal_a": state.quality / (QUALITY_SCALE * jnp.maximum(state.clicked, 1.0)),
            "signal_b": state.shown / self.num_candidates,
            "rate": state.clicked / jnp.maximum(state.shown, 1.0),
            "decided": state.slate / k,
        }
        clicks = jnp.sum(state.clicked)
        user = {
            **common,
            "urgency": jnp.minimum(0.2 * state.idle, 1.0) * state.active,
            "slack": 1.0 - jnp.minimum(0.2 * state.idle, 1.0),
            "level": state.active,
            "capacity": jnp.tanh(params.no_click),
            "outflow": jnp.sum(state.last_click),
            "age": state.idle / self.num_periods,
            "signal_a": jnp.sum(state.quality) / (QUALITY_SCALE * jnp.maximum(clicks, 1.0)),
            "signal_b": seen / (k * self.num_periods),
            "rate": clicks / seen,
            "is_turn": 1.0,
            "decided": self.turn(state) / k,
        }
        index = jnp.arange(self.num_actions)
        empty = (index == g).astype(jnp.float32)
        return Observation(
            tokens=token_table(("supplier", g, topic), ("demand", 1, user)),
            token_mask=jnp.ones((self.num_tokens,), bool),
            actions=action_rows(self.num_actions, is_noop=empty, amount=1.0 - empty, signed=1.0 - empty),
            action_target=jnp.where(index < g, index, -1).astype(jnp.int32),
            action_mask=jnp.concatenate([left > 0, jnp.ones((1,), bool)]),
        )

    def _kept(self, params: RecommenderParams) -> chex.Array:
        return 1.0 - params.bonus * params.topic_quality

    def solve(self, params: RecommenderParams) -> RecommenderPlan:
        weights, outside = self.appeal(params.interests, params)
        return RecommenderPlan(
            fractional_slate.session_values(
                weights,
                outside,
                self._kept(params),
                params.minutes,
                params.skip,
                params.budget,
                self.sets,
                self.slate_size,
                self.num_periods,
                self.levels,
            )
        )

    def reference_action(
        self, plan: RecommenderPlan, state: RecommenderState, params: RecommenderParams, key: chex.PRNGKey
    ) -> chex.Array:
        del key
        weights, outside = self.appeal(self.interests(state, params), params)
        later = plan.values[jnp.minimum(self.period(state) + 1, self.num_periods)]
        budget = jnp.maximum(params.budget - state.spent, 0.0)
        watched = jnp.minimum(budget, params.minutes)
        gains = watched + fractional_slate.interpolate(later, budget - watched * self._kept(params), params.budget)
        none = fractional_slate.interpolate(later, budget - params.skip, params.budget)
        slots = (self.slate_size - self.turn(state)).astype(jnp.float32)
        left = state.offered - state.slate
        _, added, worth = fractional_slate.best_slate(weights, gains, outside, none, left, slots, state.slate)
        best = jnp.argmax(jnp.where(added > 0, worth, -jnp.inf))
        return jnp.where(jnp.any(added > 0), best, self.noop_action).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """TODO tune"""
        del key
        g = self.num_topics
        column = {name: observation.tokens[:g, i] for i, name in enumerate(TOKEN_COLUMNS)}
        shown = column["signal_b"] * self.num_candidates
        clicked = shown * column["rate"]
        a0, b0, opt, price = self.tuning
        rate = (clicked + a0 * 0.2) / (shown + a0)
        quality = column["signal_a"] * clicked / (clicked + b0) + opt / (clicked + 1.0)
        index = rate * (1.0 - price * (1.0 - 0.9 * quality))
        legal = observation.action_mask[:g]
        best = jnp.argmax(jnp.where(legal, index, -jnp.inf))
        return jnp.where(jnp.any(legal) & (index[best] > 0), best, self.noop_action).astype(jnp.int32)

    tuning = (4.0, 0.2, 0.2, 0.6)
