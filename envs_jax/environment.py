"""ResourceEnv: the contract of a domain.

A domain is a gymnax environment (1.0) in which a *period* is a fixed cycle of ``num_turns`` masked discrete choices,
one per entity, after which the world moves once. The base class below owns the cycle, the clock, the shared uniforms
and the bookkeeping; a domain file states the model: initial state, what a choice does, how the world advances, what an
agent sees, and what the best known policy would do.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import chex
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment
from gymnax.environments import spaces as gymnax_spaces

from envs_jax import arrays, checks, sampling, spaces
from envs_jax.observation import NUM_ACTION_FEATURES, NUM_TOKEN_FEATURES, Observation


@struct.dataclass
class EnvState:
    """State common to all domains; each adds its own array leaves.

    Attributes:
      time: ``i32[]`` choices made so far; turn = ``time % num_turns``, period = ``time // num_turns``.
      key: ``u32[2]`` the episode's key, as :func:`envs_jax.sampling.key_words` gives it: raw, so that a state is arrays
        alone and can be saved, compared and flattened. All exogenous noise is a function of ``(key, period)``, never
        of actions.
      last_reward: ``f32[]`` reward of the last finished period, in the domain's own unit.
    """

    time: chex.Array
    key: chex.PRNGKey
    last_reward: chex.Array


@struct.dataclass
class EnvParams:
    """A task. Every leaf is an array, so tasks can be stacked and vmapped.

    Attributes:
      max_steps_in_episode: ``i32[]`` choices per episode, ``num_periods * num_turns``: it tells gymnax's clients the
        horizon, which is part of the environment's shapes. The constructor's ``num_periods`` sets it, nothing else.
    """

    max_steps_in_episode: chex.Array


StateT = TypeVar("StateT", bound=EnvState)
ParamsT = TypeVar("ParamsT", bound=EnvParams)
EnvT = TypeVar("EnvT", bound="ResourceEnv")


class ResourceEnv(environment.Environment, Generic[StateT, ParamsT]):
    """Base class of all domains.

    Static shapes are constructor arguments; everything a task may vary is in ``EnvParams``. A subclass sets the class
    or instance attributes below and implements the methods that raise here.

    An action that is illegal (masked, outside ``[0, A)``, not a whole number) acts as the no-op, which is always legal;
    ``info["illegal_actions"]`` is 1 for such a choice, else 0. So ``choose`` meets legal actions only.

    Episodes end by their horizon alone, and an agent sees ``progress``: nothing lies beyond the end, and a learner may
    treat ``truncated`` as terminal. Those that bootstrap at a time limit, as gymnax has it, find the last observation
    under ``info["final_observation"]`` once they ask for it with :meth:`with_final_observation`; by default it is left
    out, because who stacks ``info`` over steps would keep every observation twice.

    Attributes:
      num_turns: choices per period (M).
      num_periods: periods per episode (P); the horizon is ``P * M`` choices, always reached (no termination).
      name: the registered name.
      num_tokens: entities in an observation (N).
      num_actions: discrete actions (A).
      num_uniforms: uniforms one period's noise needs.
      num_reset_uniforms: uniforms the initial state needs.
      noop_action: "do nothing / keep going"; legal in every state.
      discount_factor: discount per period for learners; scores are undiscounted.
      ingredients: hidden fields that are felt only through hidden tables made of them, such as a rate whose law is
        tabulated in another field; ``average_task`` makes those tables anew.
      reward_unit: unit of the reward.
      hidden: the fields of ``EnvParams`` that an agent must not see; they never enter observation or mask.
      reference_kind: "optimal" if ``reference_action`` is the exact optimum of this environment, else "heuristic".
      exceptions: checks of signs (``envs_jax.testing.meaning.EXCUSABLE``) that do not hold here, by name, each with a
        sentence that says why; ``docs/vocabulary.md`` prints it.
      horizon_terminates: whether nothing is worth anything after the horizon: it is part of the task, and progress is
        observed. False where an episode is a window of a longer one, so that learners bootstrap beyond it.
      own_reward_scale: True where learners get rewards as they are: where episodes may end early, taking a mean off
        would change what is best.
      data_files: the constructor's arguments that are paths of files.
      num_token_features: columns of a token; only foreign tasks have others than the vocabulary's.
      num_action_features: columns of an action's description, likewise.
    """

    name: ClassVar[str] = ""  # gymnax has properties here
    num_actions: int = 0
    num_turns: int
    num_periods: int
    num_tokens: int
    num_uniforms: int
    num_reset_uniforms: int = 0
    noop_action: int = 0
    discount_factor: float = 0.97
    hidden: ClassVar[tuple[str, ...]] = ()
    ingredients: ClassVar[tuple[str, ...]] = ()
    reward_unit: ClassVar[str] = "1"
    reference_kind: ClassVar[str] = "heuristic"
    exceptions: ClassVar[Mapping[str, str]] = {}
    horizon_terminates: ClassVar[bool] = True
    own_reward_scale: ClassVar[bool] = False
    data_files: ClassVar[tuple[str, ...]] = ()
    num_token_features: int = NUM_TOKEN_FEATURES
    num_action_features: int = NUM_ACTION_FEATURES
    _final_observation: bool = False

    def __repr__(self) -> str:
        """Name, tokens, actions, horizon."""
        return (
            f"{type(self).__name__}({self.name!r}: {self.num_tokens} tokens, {self.num_actions} actions, horizon "
            f"{self.horizon} = {self.num_turns} turns x {self.num_periods} periods)"
        )

    # ---- what a domain states -------------------------------------------------------------------------------------

    @property
    def default_params(self) -> ParamsT:
        """The faithful instance: published constants, no hidden variation."""
        raise NotImplementedError

    def sample_params(self, key: chex.PRNGKey, split: str = "all") -> ParamsT:
        """Draws one task from the uniforms that :meth:`task_uniforms` gives for ``(key, split, count)``.

        Args:
          key: of the task.
          split: "all" draws from the whole of the domain's ranges, "inside" and "outside" from their middle and their
            ends: who trains on ``inside`` extrapolates on ``outside``.
        """
        raise NotImplementedError

    def init_state(self, key: chex.PRNGKey, uniforms: chex.Array, params: ParamsT) -> StateT:
        """Initial state from ``f32[num_reset_uniforms]``; pass ``**self.clock(key)`` for the common leaves."""
        raise NotImplementedError

    def choose(self, state: StateT, turn: chex.Array, action: chex.Array, params: ParamsT) -> StateT:
        """Records the choice of the entity whose turn it is. No noise, no reward, no time."""
        raise NotImplementedError

    def advance(
        self, state: StateT, uniforms: chex.Array, params: ParamsT
    ) -> tuple[StateT, chex.Array, dict[str, chex.Array]]:
        """Moves the world by one period from ``f32[num_uniforms]``: next state, reward ``f32[]``, key figures.

        Key figures are ``f32[]`` in the domain's units; ``expected_reward`` is the noise-free reward where one exists.
        ``continuation``, if stated, multiplies the discount: 0 where what follows is another episode.
        """
        raise NotImplementedError

    def observation(self, state: StateT, params: ParamsT) -> Observation:
        """What an agent sees: a function of the state and of the *shown* part of the task only."""
        raise NotImplementedError

    def action_mask(self, state: StateT, params: ParamsT) -> chex.Array:
        """Which actions are legal, ``bool[A]``: those of the observation, the rest of which the compiler leaves out.

        To be overridden only where the mask alone is cheaper than what the compiler makes of that.
        """
        return self.observation(state, params).action_mask

    def solve(self, params: ParamsT) -> Any:
        """Whatever the reference policy needs to know of a task (tables, levels); pure and vmappable."""
        del params
        return ()

    def reference_action(self, plan: Any, state: StateT, params: ParamsT, key: chex.PRNGKey) -> chex.Array:
        """The optimum or strongest known rule given the hidden task, but not the future noise: ``i32[]``."""
        raise NotImplementedError

    def heuristic_action(self, observation: Observation, key: chex.PRNGKey) -> chex.Array:
        """The strongest known rule that sees only what an agent sees now: ``i32[]``.

        A rule that learns within the episode states :meth:`heuristic_start` and :meth:`heuristic_step` instead.
        """
        raise NotImplementedError

    def heuristic_start(self) -> Any:
        """What the heuristic remembers before an episode: arrays of fixed shapes; nothing by default."""
        return ()

    def heuristic_step(self, memory: Any, observation: Observation, key: chex.PRNGKey) -> tuple[chex.Array, Any]:
        """The heuristic's choice ``i32[]`` and what it remembers then, of this episode alone."""
        return self.heuristic_action(observation, key), memory

    def average_task(self, params: ParamsT, population: ParamsT) -> ParamsT:
        """``params`` with its hidden fields replaced by their mean over a stacked ``population`` of tasks.

        What somebody who knows the field but not the task would assume; the reference given it measures the adaptation
        headroom. Domains with derived hidden fields (tables) override this and rebuild them.
        """
        means = {
            name: jax.tree.map(lambda x: x.mean(0).astype(x.dtype), getattr(population, name)) for name in self.hidden
        }
        return params.replace(**means)

    # ---- what the base class owns ---------------------------------------------------------------------------------

    @property
    def horizon(self) -> int:
        """Choices per episode."""
        return self.num_periods * self.num_turns

    def task_uniforms(self, key: chex.PRNGKey, split: str, count: int) -> chex.Array:
        """``f32[count]`` uniforms from which a task is drawn, by inversion.

        Of ``inside`` tasks every one lies from 0.1 to 0.9, of ``outside`` tasks every one in the tenths at either end:
        each number of the task is then beyond all that ``inside`` tasks have, and still within what the domain was made
        for. Where a number is whole or names something, the two splits may share values.

        Raises:
          ValueError: for an unknown split.
        """
        checks.one_of(self.name, "split", split, sampling.TASK_SPLITS)
        return sampling.stretched(sampling.uniforms(key, sampling.TASK_INDEX, count), split)

    def clock(self, key: chex.PRNGKey) -> dict[str, chex.Array]:
        """The common leaves of an initial state."""
        return {"time": jnp.int32(0), "key": sampling.key_words(key), "last_reward": jnp.float32(0.0)}

    def turn(self, state: StateT) -> chex.Array:
        """Whose turn it is, ``i32[]`` in ``[0, num_turns)``."""
        return state.time % self.num_turns

    def period(self, state: StateT) -> chex.Array:
        """The current period, ``i32[]``."""
        return state.time // self.num_turns

    def progress(self, state: StateT) -> chex.Array:
        """Share of the episode gone, ``f32[]`` in [0, 1]."""
        return jnp.minimum(state.time.astype(jnp.float32) / self.horizon, 1.0)

    def reset_env(self, key: chex.PRNGKey, params: ParamsT) -> tuple[Observation, StateT]:
        """Starts an episode; ``key``, of any kind, becomes the episode's key."""
        uniforms = sampling.uniforms(key, sampling.RESET_INDEX, self.num_reset_uniforms)
        state = self.init_state(key, uniforms, params)
        return arrays.vary_like((self.observe(key, state, None, params), state), key, params)

    def step_env(
        self, key: chex.PRNGKey, state: StateT, action: chex.Array, params: ParamsT
    ) -> tuple[Observation, StateT, chex.Array, chex.Array, dict[str, chex.Array]]:
        """One choice; on the period's last turn the world moves and pays.

        ``key`` is unused: the noise of an episode is fixed by the key it was reset with. Where a batch of episodes runs
        in lockstep (``state.time`` not batched, see :mod:`envs_jax.rollout`) the condition is a real branch, and the
        world's equations cost nothing on the other turns; under a plain ``vmap`` it becomes a select.
        """
        given = (state, action, params)
        last = self.turn(state) == self.num_turns - 1
        index = jnp.clip(action, 0, self.num_actions - 1).astype(jnp.int32)
        legal = self.action_mask(state, params)[index] & (index == action)
        action = jnp.where(legal, action, self.noop_action).astype(jnp.int32)
        state = self.choose(state, self.turn(state), action, params)

        def world(state: StateT) -> tuple[StateT, chex.Array, dict[str, chex.Array]]:
            uniforms = sampling.uniforms(state.key, self.period(state), self.num_uniforms)
            state, reward, info = self.advance(state, uniforms, params)
            outputs = (state.replace(last_reward=reward), reward, {"expected_reward": reward, **info})
            return arrays.vary_like(outputs, given)

        if self.num_turns == 1:
            state, reward, info = world(state)
        else:
            _, *shapes = jax.eval_shape(world, state)

            def wait(state: StateT) -> tuple[StateT, chex.Array, dict[str, chex.Array]]:
                zero_reward, zero_info = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tuple(shapes))
                return arrays.vary_like((state, zero_reward, zero_info), given)

            state, reward, info = jax.lax.cond(last, world, wait, state)
        state = state.replace(time=state.time + 1)
        discount = jnp.float32(self.discount_factor)
        if "continuation" in info:
            discount = discount * info.pop("continuation")
        info["discount"] = jnp.where(last, discount, jnp.float32(1.0))
        info["illegal_actions"] = 1.0 - legal.astype(jnp.float32)
        observation, state = self._apply_transition_gradient_policy(self.observe(key, state, action, params), state)
        return arrays.vary_like((observation, state, reward, jnp.bool_(False), info), given)

    def reset(self, key: chex.PRNGKey, params: ParamsT | None = None) -> tuple[Observation, StateT]:
        """Gymnax's reset.

        Raises:
          ValueError: as :meth:`check_params`.
        """
        self.check_params(params)
        return super().reset(key, params)

    def step(
        self, key: chex.PRNGKey, state: StateT, action: chex.Array, params: ParamsT | None = None
    ) -> tuple[Observation, StateT, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        """Gymnax's step, which begins the next episode at the end of one; see the class on ``final_observation``.

        Raises:
          ValueError: as :meth:`check_params`.
        """
        self.check_params(params)
        return self._step(key, state, action, params)

    def check_params(self, params: ParamsT | None) -> None:
        """Refuses a stack of tasks, and a horizon that is not the environment's.

        Under a trace the horizon has no value yet and is not checked; it has no effect there either.

        Raises:
          ValueError: says what is allowed.
        """
        if params is None:
            return
        steps = params.max_steps_in_episode
        if jnp.ndim(steps):
            raise checks.refusal(self.name, "params", "one task; use jax.vmap over several", f"{jnp.shape(steps)}")
        if not isinstance(steps, jax.core.Tracer) and int(steps) != self.horizon:
            allowed = f"{self.horizon}, its horizon; the constructor's num_periods (now {self.num_periods}) sets it"
            raise checks.refusal(self.name, "max_steps_in_episode", allowed, checks.shown(int(steps)))

    @functools.partial(jax.jit, static_argnames=("self",))
    def _step(
        self, key: chex.PRNGKey, state: StateT, action: chex.Array, params: ParamsT | None = None
    ) -> tuple[Observation, StateT, chex.Array, chex.Array, chex.Array, dict[str, Any]]:
        *outputs, info = super().step(key, state, action, params)
        if not self._final_observation:
            del info["final_observation"]
        return (*outputs, info)

    def with_final_observation(self: EnvT) -> EnvT:
        """This domain, the same object at every call, with ``info["final_observation"]`` in :meth:`step`."""
        if self._final_observation:
            return self
        twin = vars(self).get("_twin")
        if twin is None:
            twin = copy.copy(self)
            twin._final_observation = True
            vars(self)["_twin"] = twin
        return twin

    def observe(self, key: chex.PRNGKey, state: StateT, action: chex.Array | None, params: ParamsT) -> Observation:
        """Hook of gymnax: observations carry no noise of their own and do not depend on the producing action."""
        del key, action
        return self.observation(state, params)

    def is_terminated(self, state: StateT, params: ParamsT) -> chex.Array:
        """Never: episodes have a fixed horizon, which gymnax reports as truncation."""
        del state, params
        return jnp.bool_(False)

    def is_truncated(self, state: StateT, params: ParamsT) -> chex.Array:
        """At the horizon: the environment's, of which ``params.max_steps_in_episode`` is a copy."""
        del params
        return state.time >= self.horizon

    def action_space(self, params: ParamsT | None = None) -> gymnax_spaces.Discrete:
        """All action indices; which are legal is in the observation's ``action_mask``, see :meth:`sample_action`."""
        del params
        return gymnax_spaces.Discrete(self.num_actions)

    def sample_action(self, key: chex.PRNGKey, observation: Observation) -> chex.Array:
        """Uniform over legal actions: ``i32`` of the observation's batch shape, ``[]`` for a single one."""
        return spaces.random_actions(observation, key)

    def observation_space(self, params: ParamsT | None = None) -> spaces.ObservationSpace:
        """A ``Dict`` space of :class:`Observation`: features are about [-1, 1] and never leave [-10, 10]."""
        del params
        columns = (self.num_token_features, self.num_action_features)
        return spaces.ObservationSpace(self.num_tokens, columns[0], self.num_actions, columns[1], self.noop_action)

    def state_space(self, params: ParamsT | None = None) -> spaces.Record:
        """A ``Dict`` space of the state's leaves by shape and dtype: no bounds are promised, samples mean nothing."""
        shapes = jax.eval_shape(lambda: self.default_params) if params is None else params
        _, state = jax.eval_shape(self.reset_env, jax.eval_shape(lambda: jax.random.key(0)), shapes)
        return spaces.of_tree(state)
