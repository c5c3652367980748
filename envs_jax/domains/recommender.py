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

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import chex
import jax.numpy as jnp
from flax import struct

from envs_jax import checks, sampling
from envs_jax.environment import EnvParams, EnvState, ResourceEnv
from envs_jax.observation import Observation, make_observation
from envs_jax.references import fractional_slate

QUALITY_SCALE = 3.4
"""Published bound of the quality of a document, 3 + 4 standard deviations."""
PATIENCE = 5.0
"""Periods without a click that ``age`` shows as 1."""
LEVELS = 64
"""Grid of budgets of the reference's plan."""


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


class Preset(NamedTuple):
    """A field: document length [minutes], budget lost on a slate without click [documents], n, and ranges of tasks.

    ``budget`` is in documents. Choices of ours, except for the constants of ``video``, which are RecSim's.
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
    """k turns per period: on each, one document of a topic on offer joins the slate, or the slot stays empty.

    Actions ``i32[]`` (G + 1): 0..G-1 put a document of that topic on the slate, legal while candidates of it are left;
    G leaves the slot empty (no-op, always legal; not in the published model). Candidates of a topic look the same, so
    it does not matter which is taken; the quality of the one watched is drawn then. The user answers on the last turn.

    ======== =========== ==================================================================================
    token    column      quantity
    ======== =========== ==================================================================================
    topic    slack       candidates left / candidates offered, 0 if there are none
    topic    level       candidates left [k]
    topic    capacity    candidates offered
    topic    outflow     1 if the last click was on it
    topic    decided     documents of it on the slate [k]
    topic    private_a   quality of its document that the last click was on [3.4], else 0
    topic    private_b   mean quality of its documents watched [3.4], 0 if none
    topic    private_c   documents of it shown [k P / 4]
    topic    private_d   watched / shown
    user     urgency     c while the user is there, 0 afterwards: what a slate without a click uses up
    user     level       documents on the slate [k]
    user     capacity    k
    user     outflow     1 if there was a click
    user     age         periods without a click [5], at most 10
    user     unit_cost   c / L
    user     is_turn     1
    user     decided     slots filled or passed [k]
    user     private_a   1 while the user is there
    user     private_b   mean quality of the documents watched [3.4], 0 if none
    user     private_c   documents shown [k P]
    user     private_d   watched / shown
    user     private_e   tanh(n)
    all      unit_value  L [4 minutes]
    all      progress    share of the episode gone
    all      last_reward minutes of the last period [L]
    ======== =========== ==================================================================================

    Roles: G topics ``supplier``, then the user ``demand``. All counts are of the running session, which starts anew
    with every episode. The user alone waits: a topic that is not shown costs nothing.

    ======== =========== ==================================================================================
    action   column      quantity
    ======== =========== ==================================================================================
    document amount      1
    document signed      -1: it is taken from the topic's candidates
    empty    is_noop     1
    ======== =========== ==================================================================================

    The target is the topic; an empty slot has none.

    Shown: what is on offer, every click and the quality of the document watched, L, c, n. Hidden: topic qualities Q,
    interests u, budget b, sharpness beta, step y. Q is felt at once where something is watched; u and beta through the
    frequency of clicks, y through its change, b through when users leave.

    Key figures in ``info``: ``expected_reward`` P(click) w [minutes]; ``click`` (0 or 1) and ``click_probability``
    (accuracy); ``quality`` of the document watched (0 if none); ``diversity`` entropy of the slate's topics [nats];
    ``response_time`` of a click, 1 + periods without a click since the last one or the start (0 without a click; no
    clock is involved); ``session`` 1 if the user was there.

    Invariants: click probabilities and that of none add up to 1; a slate has at most k documents, of no topic more than
    are offered; u stays in [-1, 1] and changes for the topic watched alone, for y = 0 not at all; b changes by the
    formula; no reward beyond L a period, nor after b <= 0; relabelling topics relabels tokens.

    Source: E. Ie et al., "SlateQ" (IJCAI 2019, arXiv 1905.12767; recalled), and RecSim (E. Ie et al., 2019), whose
    ``interest_evolution.py`` and ``choice_model.py`` were read. Task ranges, presets and empty slots are ours.

    Args:
      num_topics: G, 2 to 1000.
      num_candidates: m, at most 1000.
      slate_size: k, at most m and 64.
      num_periods: P.
      preset: a field of :data:`PRESETS`.
    """

    name: ClassVar[str] = "recommender"
    hidden: ClassVar[tuple[str, ...]] = ("budget", "topic_quality", "interests", "sharpness", "interest_step")
    reward_unit: ClassVar[str] = "minutes"
    # Exact for interests that do not move and qualities without spread, but for grid and sample of candidate sets.
    reference_kind: ClassVar[str] = "heuristic"
    exceptions: ClassVar[Mapping[str, str]] = {
        "the_reference_serves_the_urgent": "The user alone waits; topics do not, and how many candidates one still has "
        "does not say whether the user likes it, which is hidden.",
    }

    def __init__(
        self,
        num_topics: int = 10,
        num_candidates: int = 10,
        slate_size: int = 3,
        num_periods: int = 45,
        preset: str = "video",
    ) -> None:
        super().__init__()
        num_topics, num_candidates, num_periods = checks.whole_numbers(
            self.name,
            num_topics=(num_topics, 2, 1000),
            num_candidates=(num_candidates, 1, 1000),
            num_periods=(num_periods, 1, 10_000),
        )
        slate_size = checks.whole_number(self.name, "slate_size", slate_size, 1, min(num_candidates, 64))
        preset = checks.one_of(self.name, "preset", preset, PRESETS)
        self.num_topics = num_topics
        self.num_candidates = num_candidates
        self.slate_size = slate_size
        self.num_turns, self.num_periods = slate_size, num_periods
        self.preset = PRESETS[preset]
        self.num_tokens = self.num_actions = num_topics + 1
        self.noop_action = num_topics
        self.num_uniforms = num_candidates + 3
        self.num_reset_uniforms = num_candidates + num_topics
        # As many sets as it takes to offer every topic at least once.
        self.sets = fractional_slate.candidate_sets(
            num_topics, num_candidates, max(16, -(-num_topics // num_candidates))
        )

    @property
    def default_params(self) -> RecommenderParams:
        """RecSim's constants (with ``num_topics=20``): every session a new user, u_g ~ U(-1, 1), with 200 minutes.

        Q rises evenly from -3 to 0 over 7 of 10 topics and from 0 to 3 over the others; proportional choice, y = .3.
        """
        p, g = self.preset, self.num_topics
        bad = int(g * 0.7)
        quality = jnp.concatenate(
            [jnp.linspace(-3.0, 0.0, bad, dtype=jnp.float32), jnp.linspace(0.0, 3.0, g - bad, dtype=jnp.float32)]
        )
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

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> RecommenderParams:
        """One task: one user, in session after session, on a site whose topics' qualities are unknown.

        Q is the published vector, permuted and scaled by U(.5, 1): unpermuted there would be nothing to learn.
        u_g ~ U(-1, 1); logit choice; beta, y and the budget uniform in the preset's ranges.
        """
        g, p, default = self.num_topics, self.preset, self.default_params
        u = self.task_uniforms(key, split, 4 + 2 * g)

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
        return jnp.sum(topics[:, None] == jnp.arange(g, dtype=jnp.float32)[None, :], axis=0, dtype=jnp.float32)

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: RecommenderParams) -> RecommenderState:
        """A session starts; the first m uniforms draw the candidates, the others the interests."""
        m = self.num_candidates
        none = jnp.zeros((self.num_topics,), jnp.float32)
        start = params.interests + params.interest_spread * (2.0 * uniforms[m:] - 1.0)
        return RecommenderState(
            **self.clock(key),
            **dict.fromkeys(("slate", "shown", "clicked", "quality", "last_click", "last_quality"), none),
            offered=self._offer(uniforms[:m]),
            shift=jnp.clip(start, -1.0, 1.0) - params.interests,
            spent=jnp.float32(0.0),
            active=jnp.float32(1.0),
            idle=jnp.float32(0.0),
        )

    def choose(
        self, state: RecommenderState, turn: chex.Array, action: chex.Array, params: RecommenderParams
    ) -> RecommenderState:
        """Adds a document to the slate; one that is not on offer leaves the slot empty."""
        del turn, params
        chosen = (jnp.arange(self.num_topics, dtype=jnp.int32) == action) & (state.slate < state.offered)
        return state.replace(slate=state.slate + chosen.astype(jnp.float32))

    def interests(self, state: RecommenderState, params: RecommenderParams) -> chex.Array:
        """u, ``f32[G]``: a task's interests and what has changed since."""
        return jnp.clip(params.interests + state.shift, -1.0, 1.0)

    def appeal(self, interests: chex.Array, params: RecommenderParams) -> tuple[chex.Array, chex.Array]:
        """Weights in the user's choice: v of a document of each topic, v_0 of none."""
        logit, n = params.logit > 0, params.no_click
        weights = jnp.where(logit, jnp.exp(params.sharpness * interests), 1.0 + interests)
        return weights, jnp.where(logit, jnp.exp(n), 1.0 + n)

    def advance(
        self, state: RecommenderState, uniforms: chex.Array, params: RecommenderParams
    ) -> tuple[RecommenderState, chex.Array, dict[str, chex.Array]]:
        """The user answers. The first m uniforms draw the next candidates, the others click, quality, change of u."""
        m, active, slate = self.num_candidates, state.active, state.slate
        u = self.interests(state, params)
        weights, outside = self.appeal(u, params)
        upto = jnp.cumsum(slate * weights)
        total = upto[-1] + outside
        drawn = uniforms[m] * total
        # Between the sum before and the sum with a topic: an interval that is empty if it is not on the slate.
        before = jnp.concatenate([jnp.zeros((1,), jnp.float32), upto[:-1]])
        click = active * ((before <= drawn) & (drawn < upto)).astype(jnp.float32)
        any_click = jnp.sum(click)

        watched = jnp.minimum(params.budget - state.spent, params.minutes)
        quality = click * (params.topic_quality + params.quality_sd * sampling.normal(uniforms[m + 1]))
        cost = jnp.where(any_click > 0, watched * (1.0 - params.bonus * jnp.sum(quality)), params.skip)
        spent = state.spent + active * cost
        step = params.interest_step * (1.0 - jnp.abs(u)) * (1.0 - u)
        moved = jnp.clip(u + jnp.where(uniforms[m + 2] < 0.5 * (1.0 + u), step, -step), -1.0, 1.0)

        share = slate / jnp.maximum(jnp.sum(slate), 1.0)
        waited = state.idle + active
        probability = active * upto[-1] / total
        info = {
            "expected_reward": probability * watched,
            "click": any_click,
            "click_probability": probability,
            "quality": jnp.sum(quality),
            "diversity": -active * jnp.sum(share * jnp.log(jnp.where(slate > 0, share, 1.0))),
            "response_time": any_click * waited,
            "session": active,
        }
        state = state.replace(
            offered=self._offer(uniforms[:m]),
            slate=jnp.zeros_like(slate),
            shift=jnp.where(click > 0, moved - params.interests, state.shift),
            spent=spent,
            active=active * (params.budget > spent).astype(jnp.float32),
            shown=state.shown + active * slate,
            clicked=state.clicked + click,
            quality=state.quality + quality,
            last_click=click,
            last_quality=quality,
            idle=jnp.where(any_click > 0, 0.0, waited),
        )
        return state, any_click * watched, info

    def observation(self, state: RecommenderState, params: RecommenderParams) -> Observation:
        """See the class docstring for the columns."""
        g, k = self.num_topics, self.slate_size
        left = state.offered - state.slate
        shown, clicks = jnp.sum(state.shown), jnp.sum(state.clicked)
        everywhere = {
            "unit_value": 0.25 * params.minutes,
            "progress": self.progress(state),
            "last_reward": state.last_reward / params.minutes,
        }
        topics = {
            "slack": left / jnp.maximum(state.offered, 1.0),
            "level": left / k,
            "capacity": state.offered,
            "outflow": state.last_click,
            "decided": state.slate / k,
            "private_a": state.last_quality / QUALITY_SCALE,
            "private_b": state.quality / (QUALITY_SCALE * jnp.maximum(state.clicked, 1.0)),
            "private_c": 4.0 * state.shown / (k * self.num_periods),
            "private_d": state.clicked / jnp.maximum(state.shown, 1.0),
            **everywhere,
        }
        user = {
            "urgency": params.skip * state.active,
            "level": jnp.sum(state.slate) / k,
            "capacity": float(k),
            "outflow": jnp.sum(state.last_click),
            "age": jnp.minimum(state.idle / PATIENCE, 10.0),
            "unit_cost": params.skip / params.minutes,
            "is_turn": 1.0,
            "decided": self.turn(state) / k,
            "private_a": state.active,
            "private_b": jnp.sum(state.quality) / (QUALITY_SCALE * jnp.maximum(clicks, 1.0)),
            "private_c": shown / (k * self.num_periods),
            "private_d": clicks / jnp.maximum(shown, 1.0),
            "private_e": jnp.tanh(params.no_click),
            **everywhere,
        }
        index = jnp.arange(self.num_actions, dtype=jnp.int32)
        document = (index < g).astype(jnp.float32)
        return make_observation(
            tokens=[("supplier", g, topics), ("demand", 1, user)],
            actions={"is_noop": 1.0 - document, "amount": document, "signed": -document},
            action_target=jnp.where(index < g, index, -1).astype(jnp.int32),
            action_mask=jnp.concatenate([left > 0, jnp.ones((1,), bool)]),
        )

    def _kept(self, params: RecommenderParams) -> chex.Array:
        return 1.0 - params.bonus * params.topic_quality

    def solve(self, params: RecommenderParams) -> chex.Array:
        """Minutes still to be had ``f32[P + 1, levels]`` by period and budget, if interests stay the task's."""
        weights, outside = self.appeal(params.interests, params)
        kept = self._kept(params)
        session = fractional_slate.Session(weights, outside, kept, params.minutes, params.skip, params.budget)
        return fractional_slate.session_values(session, self.sets, self.slate_size, self.num_periods, LEVELS)

    def reference_action(
        self, plan: chex.Array, state: RecommenderState, params: RecommenderParams, key: chex.PRNGKey
    ) -> chex.Array:
        """The slate that is best for the minutes now and the plan's minutes later, filled from its best document on.

        Of the state it knows the interests as they are now (RecSim's agents are shown them too) and the budget left.
        """
        del key
        weights, outside = self.appeal(self.interests(state, params), params)
        later = plan[jnp.minimum(self.period(state) + 1, self.num_periods)]
        budget = jnp.maximum(params.budget - state.spent, 0.0)
        watched = jnp.minimum(budget, params.minutes)
        gains = watched + fractional_slate.interpolate(later, budget - watched * self._kept(params), params.budget)
        none = fractional_slate.interpolate(later, budget - params.skip, params.budget)
        slots = (self.slate_size - self.turn(state)).astype(jnp.float32)
        left = state.offered - state.slate
        _, added, worth = fractional_slate.best_slate(
            weights, gains, outside, none, left, slots, self.slate_size, state.slate
        )
        best = jnp.argmax(jnp.where(added > 0, worth, -jnp.inf)).astype(jnp.int32)
        return jnp.where(jnp.any(added > 0), best, self.noop_action).astype(jnp.int32)

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """Upper-confidence index on this session's counts: click rate x (1 - price x attention a minute costs).

        Rates are shrunk to .35 (8 impressions' worth) and raised while a topic is little shown, qualities shrunk to
        slightly good ones; both bonuses and the price fall over the episode. Slots stay empty if every index is
        negative. The seven constants are the best of 640 random settings on 48 tasks of ``sample_params``.
        """
        del key
        g = self.num_topics
        progress, quality, shown, watched = (
            observation.column(name)[:g] for name in ("progress", "private_b", "private_c", "private_d")
        )
        to_go = 1.0 - progress
        shown = shown * (0.25 * self.horizon)
        clicked = shown * watched
        rate = (clicked + 8.0 * 0.35) / (shown + 8.0) + 0.6 * to_go / jnp.sqrt(1.0 + shown)
        quality = (quality * clicked + 0.1 * 0.15 * to_go) / (clicked + 0.1)
        index = rate * (1.0 - (0.7 + 0.35 * to_go) * (1.0 - 0.9 * quality))
        best = jnp.argmax(jnp.where(observation.action_mask[:g], index, -jnp.inf)).astype(jnp.int32)
        found = observation.action_mask[best] & (index[best] > 0.0)
        return jnp.where(found, best, self.noop_action).astype(jnp.int32)
