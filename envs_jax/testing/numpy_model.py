"""Independent NumPy models of a domain: what one must offer, and the check that holds it against the environment.

A domain's equations are written three times by design: in JAX, as a :class:`LoopModel` in plain Python, made to be read
beside the equations, and as a :class:`BatchModel` in vectorised NumPy, made to be fast. Fed the same uniforms and the
same actions, all three must show the same observations and pay the same rewards: :func:`check_numpy_model`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import sampling
from envs_jax.environment import EnvParams, ResourceEnv
from envs_jax.observation import ROLES, TOKEN_COLUMNS, Observation, column_index

BOOKKEEPING = ("discount", "illegal_actions")
"""What the environment's base class adds to the key figures; no model states it."""


@runtime_checkable
class LoopModel(Protocol):
    """One environment in plain Python loops and float64, for one task.

    Built as ``LoopModel(params, num_periods=..., **static)``: ``params`` maps the fields of the task to arrays
    (:func:`leaves_by_name`), further keywords are the constructor arguments of the domain that shape the model. Shapes
    below are those of the domain: N tokens, F = ``NUM_TOKEN_FEATURES`` columns, A actions. Nothing in it may use
    random numbers of its own.
    """

    @abc.abstractmethod
    def reset(self, uniforms: np.ndarray) -> None:
        """Starts an episode from ``uniforms f32[num_reset_uniforms]``, each in the open interval (0, 1)."""

    @abc.abstractmethod
    def action_mask(self) -> np.ndarray:
        """``bool[A]``: the legal actions; at least one."""

    @abc.abstractmethod
    def step(self, action: int, uniforms: np.ndarray | None) -> tuple[float, dict[str, float]]:
        """One choice.

        Args:
          action: in [0, A), legal by the mask.
          uniforms: ``f32[num_uniforms]`` on a period's last turn, where the world moves; None on the other turns.

        Returns:
          The reward in the domain's ``reward_unit`` and the key figures of ``info`` by name, in the domain's units:
          0 and none of them before a period's last turn.
        """

    @abc.abstractmethod
    def tokens(self) -> np.ndarray:
        """``f32[N, F]`` or ``f64[N, F]``: what is seen before the next choice, dimensionless, in [-10, 10]."""


@runtime_checkable
class BatchModel(Protocol):
    """``B`` environments in vectorised NumPy and float32 that share a clock, each with its own task.

    Built as ``BatchModel(params, num_periods=..., **static)`` from fields with a leading axis B; otherwise as
    :class:`LoopModel`. Arrays that it returns may be views that the next call overwrites.
    """

    @abc.abstractmethod
    def reset(self, uniforms: np.ndarray) -> None:
        """Starts an episode of each from ``uniforms f32[B, num_reset_uniforms]`` in (0, 1)."""

    @abc.abstractmethod
    def action_mask(self) -> np.ndarray:
        """``bool[B, A]``: the legal actions."""

    @abc.abstractmethod
    def step(self, action: np.ndarray, uniforms: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One choice each.

        Args:
          action: integers ``[B]``, legal by the mask.
          uniforms: ``f32[B, num_uniforms]`` on a period's last turn, None on the others.

        Returns:
          Rewards ``[B]`` and the key figures of ``info`` by name, ``[B]`` each; see :meth:`LoopModel.step`.
        """

    @abc.abstractmethod
    def tokens(self) -> np.ndarray:
        """``f32[B, N, F]``: what is seen before the next choice."""


def columns(*names: str) -> tuple[int, ...]:
    """Positions of named columns of the vocabulary (:data:`~envs_jax.observation.TOKEN_COLUMNS`), in the order given.

    Raises:
      ValueError: for a name outside the vocabulary.
    """
    return tuple(column_index(name) for name in names)


def relative(tokens: np.ndarray) -> np.ndarray:
    """Makes two columns of a model's tokens relative, in place, as the vocabulary has it.

    ``urgency``, given as a cost, to the largest of all tokens; ``capacity``, given in the domain's unit, to the largest
    of the same role. Tokens ``[..., N, F]`` of any batch; returns them.
    """
    (urgency, capacity) = columns("urgency", "capacity")
    groups = [(urgency, np.ones(tokens.shape[:-1]))]
    groups += [(capacity, tokens[..., i]) for i in columns(*(f"role_{role}" for role in ROLES))]
    for column, member in groups:
        values = np.where(member > 0, tokens[..., column], 0.0)
        largest = values.max(-1, keepdims=True)
        tokens[..., column] = np.where(member > 0, values / np.where(largest > 0, largest, 1.0), tokens[..., column])
    return tokens


def leaves_by_name(params: EnvParams) -> dict[str, np.ndarray]:
    """A task's fields as the NumPy models take them; stacked tasks give fields with a leading axis."""
    return {field.name: np.asarray(getattr(params, field.name)) for field in dataclasses.fields(params)}


class Recording(NamedTuple):
    """One episode of one task as the environment played it, ``T = horizon`` choices; NumPy arrays.

    Attributes:
      task: fields of the task by name.
      reset_uniforms: ``f32[num_reset_uniforms]`` that drew the initial state.
      tokens: ``f32[T, N, F]`` before each choice, or ``f32[T + 1, N, F]`` with those after the last.
      action_mask: ``bool[T or T + 1, A]`` likewise.
      action: ``i32[T]``, legal.
      uniforms: ``f32[T, num_uniforms]``: those of each choice's period.
      reward: ``f32[T]`` in the domain's ``reward_unit``.
      info: key figures ``f32[T]`` by name, in the domain's units; 0 before a period's last turn.
    """

    task: dict[str, np.ndarray]
    reset_uniforms: np.ndarray
    tokens: np.ndarray
    action_mask: np.ndarray
    action: np.ndarray
    uniforms: np.ndarray
    reward: np.ndarray
    info: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        params: EnvParams,
        reset_uniforms: np.ndarray,
        seen: Observation,
        action: np.ndarray,
        uniforms: np.ndarray,
        reward: np.ndarray,
        info: Mapping[str, np.ndarray],
        last: Observation | None = None,
    ) -> Recording:
        """From the arrays of a ``scan`` over ``step_env``: ``seen`` before each choice, ``last`` after the last one."""
        tokens, mask = np.asarray(seen.tokens), np.asarray(seen.action_mask)
        if last is not None:
            tokens, mask = np.concatenate([tokens, last.tokens[None]]), np.concatenate([mask, last.action_mask[None]])
        return cls(leaves_by_name(params), reset_uniforms, tokens, mask, action, uniforms, reward, info)


Choose = Callable[[Observation, chex.PRNGKey], chex.Array]
"""A policy of one environment: ``(observation, key) -> i32[]``, traceable."""


def random_legal(observation: Observation, key: chex.PRNGKey) -> chex.Array:
    """Uniform over the legal actions, ``i32[]``: a :data:`Choose`."""
    return jax.random.categorical(key, jnp.where(observation.action_mask, 0.0, -jnp.inf)).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("env", "choose"))
def _play(env: ResourceEnv, params: EnvParams, key: chex.PRNGKey, choose: Choose) -> tuple[Any, ...]:
    choice_key = jax.random.fold_in(key, 1)

    def body(carry: tuple[Any, Any], time: chex.Array) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
        seen, state = carry
        action = choose(seen, jax.random.fold_in(choice_key, time))
        uniforms = sampling.uniforms(state.key, env.period(state), env.num_uniforms)
        following, state, reward, _, info = env.step_env(key, state, action, params)
        return (following, state), (seen, action, uniforms, reward, info)

    (last, _), trace = jax.lax.scan(body, env.reset_env(key, params), jnp.arange(env.horizon))
    return sampling.uniforms(key, sampling.RESET_INDEX, env.num_reset_uniforms), trace, last


def record_episode(env: ResourceEnv, params: EnvParams, key: chex.PRNGKey, choose: Choose = random_legal) -> Recording:
    """Plays one whole episode of the environment in JAX.

    Args:
      env: the domain.
      params: one task.
      key: of the episode's noise; the choices draw from a key folded from it.
      choose: the policy. A program is compiled for each function: pass the same one again rather than a new lambda.
    """
    start, (seen, action, uniforms, reward, info), last = jax.device_get(_play(env, params, key, choose))
    return Recording.of(params, start, seen, action, uniforms, reward, info, last)


Tolerance = tuple[float, float]
"""``(rtol, atol)`` of :func:`numpy.testing.assert_allclose`, the environment's number being the right one."""


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """How far models may be from the environment, which computes in float32.

    Attributes:
      tokens: of every column.
      reward: of a choice's reward.
      figures: of the key figures in ``info``.
      named: of single key figures that need another one.
    """

    tokens: Tolerance = (1e-5, 1e-5)
    reward: Tolerance = (1e-5, 1e-5)
    figures: Tolerance = (1e-5, 1e-5)
    named: Mapping[str, Tolerance] = dataclasses.field(default_factory=dict)


def _compare(where: str, field: str, found: Any, wanted: Any, tolerance: Tolerance) -> None:
    """Raises AssertionError where ``found``, the model's, is not within the tolerance of ``wanted``, NaN included."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape:
        raise AssertionError(f"{where}: {field} has shape {found.shape}, in the environment {wanted.shape}")
    rtol, atol = tolerance
    wrong = ~np.isclose(found.astype(float), wanted.astype(float), rtol=rtol, atol=atol)
    if not wrong.any():
        return
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = ""
    if field == "tokens":
        place = f" of entity {first[0]}, column {TOKEN_COLUMNS[first[1]]!r}"
    elif first:
        place = f"[{', '.join(map(str, first))}]"
    raise AssertionError(
        f"{where}: {field}{place} is {found[first]:.9g}, in the environment {wanted[first]:.9g} "
        f"(rtol {rtol:g}, atol {atol:g}; {int(wrong.sum())} of {wrong.size} numbers differ)"
    )


def _compare_tokens(where: str, found: Any, wanted: np.ndarray, tolerance: Tolerance) -> None:
    """All columns but ``is_candidate``, which follows from the mask, and a model need not state."""
    found, derived = np.array(found), column_index("is_candidate")
    if found.shape == wanted.shape:
        found[..., derived] = wanted[..., derived]
    _compare(where, "tokens", found, wanted, tolerance)


def _compare_figures(where: str, found: Mapping[str, Any], info: Mapping[str, Any], tolerances: Tolerances) -> None:
    """The same names and numbers as in ``info``."""
    if unknown := sorted(found.keys() - info.keys()):
        raise AssertionError(f"{where}: info of the environment has no {', '.join(unknown)}")
    if missing := sorted(info.keys() - found.keys()):
        raise AssertionError(f"{where}: figures lack {', '.join(missing)}")
    for name, value in found.items():
        _compare(where, f"figure {name!r}", value, info[name], tolerances.named.get(name, tolerances.figures))


def check_numpy_model(
    env: ResourceEnv,
    loop_model: Callable[..., LoopModel] | None,
    batch_model: Callable[..., BatchModel] | None,
    recordings: Sequence[Recording] = (),
    tolerances: Tolerances = Tolerances(),
    inspect: Callable[[LoopModel, int], None] | None = None,
) -> list[LoopModel]:
    """Holds NumPy models against recorded episodes of their environment, choice by choice.

    Before every choice (and after the last one, if it was recorded) tokens and action mask are compared, after it the
    reward and, at the end of a period, the key figures: of a loop model for each recording, and of every row of one
    batch model of them all. Uniforms are given to the models on a period's last turn only, so that one that moves its
    world earlier fails.

    Args:
      env: the domain.
      loop_model: builds one, called ``loop_model(task, num_periods=env.num_periods)``; more arguments by
        :func:`functools.partial`. None checks the other model alone.
      batch_model: likewise, called with stacked tasks; a single recording becomes two equal rows.
      recordings: whole episodes. None given: the default task and two sampled ones under random legal choices.
      tolerances: see there.
      inspect: ``(loop model, time)``, called before every choice, for what only one domain has.

    Returns:
      The loop models as the episodes left them, one for each recording.

    Raises:
      AssertionError: names domain, recording, period, turn, model and field.
      ValueError: if there is no model to check, or a recording is no whole episode.
    """
    if loop_model is None and batch_model is None:
        raise ValueError(f"{env.name}: no model to check")
    if not recordings:
        tasks = [env.default_params, *(env.sample_params(jax.random.key(seed)) for seed in (1, 2))]
        recordings = [record_episode(env, task, jax.random.key(seed)) for seed, task in enumerate(tasks)]
    for i, recording in enumerate(recordings):
        if (length := min(len(recording.tokens), len(recording.action_mask), len(recording.action))) < env.horizon:
            raise ValueError(f"{env.name}: recording {i} has {length} choices, an episode {env.horizon}")
    rows = list(recordings) * (2 if len(recordings) == 1 else 1)
    loops = [] if loop_model is None else [loop_model(r.task, num_periods=env.num_periods) for r in recordings]
    for loop, recording in zip(loops, recordings, strict=False):
        loop.reset(recording.reset_uniforms)
    batch = None
    if batch_model is not None:
        tasks_by_name = {name: np.stack([r.task[name] for r in rows]) for name in rows[0].task}
        batch = batch_model(tasks_by_name, num_periods=env.num_periods)
        batch.reset(np.stack([r.reset_uniforms for r in rows]))

    def compare_view(time: int, where: str) -> None:
        for i, loop in enumerate(loops):
            label = f"{where}, recording {i}, loop model"
            _compare_tokens(label, loop.tokens(), recordings[i].tokens[time], tolerances.tokens)
            _compare(label, "action mask", loop.action_mask(), recordings[i].action_mask[time], (0.0, 0.0))
        if batch is not None:
            tokens, mask = batch.tokens(), batch.action_mask()
            for i, r in enumerate(rows):
                label = f"{where}, recording {i % len(recordings)}, batch model"
                _compare_tokens(label, tokens[i], r.tokens[time], tolerances.tokens)
                _compare(label, "action mask", mask[i], r.action_mask[time], (0.0, 0.0))

    def compare_step(time: int, where: str, last: bool) -> None:
        def outcome(label: str, reward: Any, figures: Mapping[str, Any], recording: Recording) -> None:
            _compare(label, "reward", reward, recording.reward[time], tolerances.reward)
            if last:
                info = {
                    name: values[time]
                    for name, values in recording.info.items()
                    if name not in ("discount", "illegal_actions")
                }
                if "expected_reward" not in figures and np.array_equal(
                    recording.info.get("expected_reward", recording.reward), recording.reward
                ):
                    info.pop("expected_reward", None)  # put there by the base class, for the domain states none
                _compare_figures(label, figures, info, tolerances)
            elif figures:
                raise AssertionError(f"{label}: figures before the period's last turn: {', '.join(figures)}")

        for i, (loop, r) in enumerate(zip(loops, recordings, strict=False)):
            reward, figures = loop.step(int(r.action[time]), r.uniforms[time] if last else None)
            outcome(f"{where}, recording {i}, loop model", reward, figures, r)
        if batch is not None:
            uniforms = np.stack([r.uniforms[time] for r in rows]) if last else None
            rewards, by_name = batch.step(np.array([r.action[time] for r in rows]), uniforms)
            for i, r in enumerate(rows):
                label = f"{where}, recording {i % len(recordings)}, batch model"
                outcome(label, rewards[i], {name: values[i] for name, values in by_name.items()}, r)

    for time in range(env.horizon):
        period, turn = divmod(time, env.num_turns)
        where = f"{env.name}, period {period}, turn {turn}"
        compare_view(time, where)
        for loop in loops if inspect is not None else ():
            inspect(loop, time)
        compare_step(time, where, turn == env.num_turns - 1)
    if all(len(r.tokens) > env.horizon for r in recordings):
        compare_view(env.horizon, f"{env.name}, after the last period")
    return loops
