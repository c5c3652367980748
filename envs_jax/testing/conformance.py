"""The conformance kit: what every domain must satisfy, one function a requirement.

A check takes :class:`~envs_jax.testing.evidence.Evidence` and raises :class:`DomainError` with what is wrong.
:func:`envs_jax.testing.check_domain` runs all of them, and those of :mod:`envs_jax.testing.meaning`, on a domain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import flax.serialization
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from envs_jax import sampling
from envs_jax.environment import ResourceEnv
from envs_jax.observation import BOUND, ROLES, TOKEN_COLUMNS
from envs_jax.testing import client_checks, tracing
from envs_jax.testing.evidence import POLICIES, TASKS, Evidence, leaves, quick_jit, replayed
from envs_jax.testing.requirements import require, require_equal

COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
ROLE = [COLUMN[f"role_{role}"] for role in ROLES]
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
"""By which two compilations of the same equations may differ."""

Check = Callable[[Evidence], None]


# ---- what a domain states -----------------------------------------------------------------------------------------


def states_its_sizes_and_kinds(k: Evidence) -> None:
    """Attributes are set and within what the vocabulary and networks are made for."""
    env = k.env
    require(env.name, "name is empty")
    require(env.name in repr(env), f"repr {env!r} does not say the name {env.name!r}")
    require(env.reference_kind in ("optimal", "heuristic"), f"reference_kind is {env.reference_kind!r}")
    require(env.reward_unit, "reward_unit is empty")
    require(env.hidden, "hidden is empty: there is nothing to adapt to")
    fields = set(vars(k.default))
    require(set(env.hidden) < fields, f"hidden names {sorted(set(env.hidden) - fields)}, which are no parameters")
    require(set(env.ingredients) < set(env.hidden), f"ingredients {env.ingredients} are not all hidden, with a table")
    rebuilt = type(env).average_task is not ResourceEnv.average_task
    require(rebuilt or not env.ingredients, "average_task does not make the tables of its ingredients anew")
    require(0 < env.discount_factor <= 1, f"discount_factor is {env.discount_factor}")
    require(env.num_turns >= 1, f"num_turns is {env.num_turns}")
    require(env.horizon == env.num_periods * env.num_turns, "horizon is not num_periods * num_turns")
    require(0 <= env.noop_action < env.num_actions, f"noop_action {env.noop_action} of {env.num_actions} actions")
    require(env.num_tokens <= 32, f"{env.num_tokens} tokens, at most 32")
    require(env.num_actions <= 32, f"{env.num_actions} actions, at most 32")
    require(env.action_space(k.default).n == env.num_actions, "action_space has another size than num_actions")


def tasks_are_arrays_of_one_structure(k: Evidence) -> None:
    """Default and sampled tasks are finite arrays alike in shape and dtype; every hidden field varies."""
    require(all(isinstance(x, jax.Array) for x in jax.tree.leaves(k.default)), "a default parameter is no jax.Array")
    one = leaves(k.task(0))
    for path, x in leaves(k.default).items():
        found = (one[path].shape, one[path].dtype)
        require((x.shape, x.dtype) == found, f"{path}: {(x.shape, x.dtype)} by default, sampled {found}")
        require(np.isfinite(x).all(), f"{path} is not finite by default")
    for path, x in leaves(k.tasks).items():
        require(np.isfinite(x).all(), f"{path} is not finite in a sampled task")
    for steps in (k.tasks.max_steps_in_episode, k.default.max_steps_in_episode):
        require(np.all(steps == k.env.horizon), f"max_steps_in_episode is {steps}, the horizon {k.env.horizon}")
    for field in k.env.hidden:
        varies = any((x != x[:1]).any() for x in leaves(getattr(k.tasks, field)).values())
        require(varies, f"hidden field {field} never varies")


def average_task_replaces_hidden_fields_only(k: Evidence) -> None:
    """``average_task`` keeps what is shown, and shapes and dtypes of what is not."""
    believed = quick_jit(jax.vmap(k.env.average_task, in_axes=(0, None)))(k.tasks, k.tasks)
    for field in vars(k.tasks):
        own, average = getattr(k.tasks, field), getattr(believed, field)
        if field in k.env.hidden:
            chex.assert_trees_all_equal_shapes_and_dtypes(own, average)
        else:
            require_equal(own, average, f"average_task changes {field}")


# ---- gymnax and its clients ---------------------------------------------------------------------------------------


def a_client_steps_through_the_time_limit(k: Evidence) -> None:
    """Gymnax's ``reset`` and ``step``, one trace for all, see what a vmapped program saw; auto-reset begins anew."""
    env = k.env.with_final_observation()
    chex.clear_trace_counter()

    @quick_jit
    @chex.assert_max_traces(n=1)
    def step(key: chex.PRNGKey, state: Any, action: chex.Array, params: Any) -> Any:
        return env.step(key, state, action, params)

    for index in range(2):
        params = k.task(index)
        # gymnax's own examples use keys of the old style: the same bits, another type.
        first, state = env.reset(jax.random.key_data(k.keys[index, 0]), params)
        seen, key = first, k.keys[index, 0]
        require(int(state.time) == 0, "time does not begin at 0")
        for time in range(env.horizon):
            expected = jax.tree.map(lambda x, at=(index, time): x[at], (k.seen, k.state, k.reward, k.info))
            before = (seen, state)
            outputs = step(key, state, jnp.int32(k.action[index, time]), params)
            require(len(outputs) == 6, f"step returns {len(outputs)} values")
            seen, state, reward, terminated, truncated, info = outputs
            extra = {"terminated", "truncated", "final_observation"}
            require(info.keys() == k.info.keys() | extra, f"info has {sorted(info)}")
            figures = {name: info[name] for name in k.info}
            require_equal((*before, reward, figures), expected, f"step {time} against vmap: ", **ROUNDING)
            require(not terminated, f"terminated at {time}")
            at_end = time == env.horizon - 1
            require(bool(truncated) == bool(info["truncated"]) == at_end, f"truncated is {truncated} at {time}")
            if not truncated:
                require_equal(seen, info["final_observation"], "final_observation before the end: ")
        # Auto-reset: another episode of the same task has begun; the end of the old one is in the info.
        require(int(state.time) == 0, "no auto-reset")
        final = jax.tree.map(lambda x, at=index: x[at], k.final)
        require_equal(info["final_observation"], final, "final_observation: ", **ROUNDING)
        differs = (np.asarray(seen.tokens) != np.asarray(info["final_observation"].tokens)).any()
        require(differs, "the observation after auto-reset is the final one")
        for column in ("progress", "last_reward"):
            now, then = (x.tokens[:, COLUMN[column]] for x in (seen, first))
            require_equal(now, then, f"{column} after auto-reset")
        state = step(key, state, jnp.int32(env.noop_action), params)[1]
        require(int(state.time) == 1, "time does not count on after auto-reset")


def info_is_small_unless_asked(k: Evidence) -> None:
    """``step`` returns scalars in ``info``; the final observation on request."""
    shapes = {name: (function, arguments) for name, function, arguments in tracing.calls(k.env)}
    function, arguments = shapes["step"]
    *_, info = jax.eval_shape(function, *arguments)
    large = sorted(name for name, x in info.items() if not hasattr(x, "shape") or x.shape)
    require(not large, f"info has {large}, which are no scalars")
    asked = k.env.with_final_observation()
    require(asked is k.env.with_final_observation(), "with_final_observation returns another object each time")
    seen, *_, info = jax.eval_shape(asked.step, *arguments)
    chex.assert_trees_all_equal_shapes_and_dtypes(seen, info["final_observation"])


def reset_and_step_agree_on_every_leafs_type(k: Evidence) -> None:
    """Shapes, dtypes and weak types do not change on the way, or scans and checkpoints would fail."""
    key, action = jax.random.key(0), jnp.int32(k.env.noop_action)

    def types_of(tree: Any) -> Any:
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    seen, state = jax.eval_shape(k.env.reset_env, key, k.default)
    after, following, reward, terminated, info = jax.eval_shape(k.env.step_env, key, state, action, k.default)
    require(types_of(seen) == types_of(after), f"observations: {types_of(seen)} against {types_of(after)}")
    require(types_of(state) == types_of(following), f"states: {types_of(state)} against {types_of(following)}")
    weak = [path for path, x in jax.tree_util.tree_leaves_with_path(state) if x.weak_type]
    require(not weak, f"weakly typed leaves of the state: {weak}")
    for name, leaf in {"reward": reward, **info}.items():
        require((leaf.shape, leaf.dtype) == ((), jnp.float32), f"{name} is {leaf.dtype}{leaf.shape}")
    require((terminated.shape, terminated.dtype) == ((), jnp.bool_), "terminated is no bool[]")
    missing = {"expected_reward", "discount", "illegal_actions"} - set(info)
    require(not missing, f"info lacks {missing}")


def states_are_plain_arrays(k: Evidence) -> None:
    """A state can be saved, compared and flattened; an episode begins with a key of any kind."""
    state = jax.tree.map(lambda x: jnp.asarray(x[0]), k.end)
    restored = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    chex.assert_trees_all_close(restored, state)
    flat, unravel = jax.flatten_util.ravel_pytree(state)
    chex.assert_trees_all_equal_shapes_and_dtypes(unravel(flat), state)
    shapes = jax.eval_shape(k.env.reset_env, jax.random.key(5), k.default)
    for impl in ("threefry2x32", "rbg"):
        typed = jax.random.key(5, impl=impl)
        for key in (typed, jax.random.key_data(typed)) if impl == "threefry2x32" else (typed,):
            words = k.env.clock(key)["key"]
            require((words.shape, words.dtype) == ((2,), jnp.uint32), f"key in the state is {words.dtype}{words.shape}")
            require_equal(words, sampling.key_words(typed), f"words of a key of {impl}")
            found = jax.eval_shape(k.env.reset_env, key, k.default)
            require(found == shapes, f"reset with a key of {impl} gives {found}, not {shapes}")


def illegal_actions_are_noops(k: Evidence) -> None:
    """Masked, negative and too large actions act as the no-op, counted; legal ones are not."""
    step = quick_jit(jax.vmap(k.env.step_env))
    at = (np.arange(TASKS), np.arange(TASKS) * k.env.num_turns % k.env.horizon + k.env.num_turns - 1)
    at = (at[0], np.minimum(at[1], k.env.horizon - 1))
    state, mask = jax.tree.map(lambda x: jnp.asarray(x[at]), (k.state, k.seen.action_mask))
    masked = jnp.argmin(mask, axis=-1).astype(jnp.int32)  # a legal one where all are legal

    def after(action: chex.Array) -> tuple[Any, np.ndarray]:
        seen, following, reward, _, info = step(k.keys[:, 0], state, action, k.tasks)
        counted = np.asarray(info.pop("illegal_actions"))
        return (seen, following, reward, info), counted

    noop, counted = after(jnp.full((TASKS,), k.env.noop_action, jnp.int32))
    require((counted == 0).all(), "the no-op is counted as illegal")
    all_legal = np.asarray(mask.all(-1))
    for action in (masked, jnp.full_like(masked, -1), jnp.full_like(masked, k.env.num_actions), masked - 2**30):
        found, counted = after(action)
        legal = np.asarray((action >= 0) & (action < k.env.num_actions)) & all_legal
        require((counted == ~legal).all(), f"of actions {action} these count as illegal: {counted}")
        for path, x in leaves(found).items():
            np.testing.assert_array_equal(x[~legal], leaves(noop)[path][~legal], f"{action} is not a no-op: {path}")
    # Choices of the random episodes, all legal.
    require((k.info["illegal_actions"] == 0).all(), "legal actions are counted as illegal")


# ---- whole random episodes ----------------------------------------------------------------------------------------


def observations_stay_in_their_space(k: Evidence) -> None:
    """Shapes, dtypes and bounds are those of ``observation_space``."""
    spaces = k.env.observation_space(k.default).spaces
    require(spaces.keys() == vars(k.seen).keys(), f"observation_space has {sorted(spaces)}")
    for seen, batch in ((k.seen, (TASKS, k.env.horizon)), (k.final, (TASKS,))):
        for part, space in spaces.items():
            x = getattr(seen, part)
            require(x.shape == (*batch, *space.shape), f"{part} has shape {x.shape[len(batch) :]}, not {space.shape}")
            require(x.dtype == space.dtype, f"{part} is {x.dtype}, not {space.dtype}")
            require(np.isfinite(x).all(), f"{part} is not finite")
            require(space.contains(x), f"{part} leaves its space")
        for part in ("tokens", "actions"):
            largest = np.abs(getattr(seen, part)).max()
            require(largest <= BOUND, f"{part} reach {largest}, the bound is {BOUND}")


def tokens_speak_the_vocabulary(k: Evidence) -> None:
    """One role a token, urgency and slack in [0, 1], ``is_turn`` 0 or 1, progress the share of the episode gone."""
    tokens, present = k.seen.tokens, k.seen.token_mask
    require(present.any(-1).all(), "no token is present")
    require((tokens[~present] == 0).all(), "an absent token is not 0")
    roles = tokens[present][:, ROLE]
    require(np.isin(roles, (0, 1)).all(), "a role is neither 0 nor 1")
    require((roles.sum(-1) == 1).all(), "a token has no role, or several")
    for column in ("urgency", "slack", "progress"):
        values = tokens[..., COLUMN[column]]
        require(values.min() >= 0, f"{column} falls to {values.min()}")
        require(values.max() <= 1, f"{column} rises to {values.max()}")
    require(np.isin(tokens[..., COLUMN["is_turn"]], (0, 1)).all(), "is_turn is neither 0 nor 1")
    require(tokens[..., COLUMN["urgency"]].max() > 0, "nothing was ever urgent")
    progress = tokens[..., COLUMN["progress"]].max(-1)
    gone = np.broadcast_to(np.arange(k.env.horizon) / k.env.horizon, progress.shape)
    np.testing.assert_allclose(progress, gone, atol=1e-6, err_msg="progress")


def masks_leave_a_choice(k: Evidence) -> None:
    """The no-op is always legal, something else sometimes; legal actions differ in their descriptions."""
    mask, target = k.seen.action_mask, k.seen.action_target
    require(mask[..., k.env.noop_action].all(), "the no-op is not always legal")
    require((mask.sum(-1) > 1).any(), "there was never anything to choose")
    concerned = np.take_along_axis(k.seen.token_mask, np.maximum(target, 0), -1)
    require((concerned | (target < 0) | ~mask).all(), "a legal action concerns an absent token")
    # An action is told apart by its description, not its number.
    described = np.concatenate([k.seen.actions, target[..., None]], -1)[0]
    for time in range(k.env.num_turns):
        legal = described[time][mask[0, time]]
        require(len(np.unique(legal, axis=0)) == len(legal), f"legal actions of equal description on turn {time}")


def everything_stays_finite(k: Evidence) -> None:
    """States, rewards and key figures of whole episodes."""
    for tree in (k.state, k.end, k.reward, k.info):
        for path, x in leaves(tree).items():
            require(np.isfinite(x).all(), f"{path} is not finite")


def periods_pay_at_their_end(k: Evidence) -> None:
    """Fixed horizon; reward, key figures and discount on a period's last turn alone."""
    time = np.arange(1, k.env.horizon + 1)
    last = time % k.env.num_turns == 0
    require(not k.terminated.any(), "an episode terminates")
    require((k.truncated == (time == k.env.horizon)).all(), "an episode is not truncated at its horizon alone")
    require((k.reward[:, ~last] == 0).all(), "a reward is paid before a period's end")
    require((k.reward[:, last] != 0).any(), "no reward is ever paid")
    discount = np.where(last, np.float32(k.env.discount_factor), 1)
    require((k.info["discount"] == discount).all(), "discount is not discount_factor on last turns, else 1")
    for figure, x in k.info.items():
        by_choice = figure in ("discount", "illegal_actions")
        require(by_choice or (x[:, ~last] == 0).all(), f"{figure} is not 0 before a period's end")
    require((k.end.time == k.env.horizon).all(), "time does not end at the horizon")
    require((k.end.last_reward == k.reward[:, -1]).all(), "last_reward is not the last reward")


def expected_reward_is_the_mean_reward(k: Evidence) -> None:
    """Realised less expected reward is noise: its sum over an episode has mean 0 within three standard errors.

    A domain may take the expectation given less than its state holds (the queues, but not when their jobs will be
    done). Then neither the mean in one state nor a single period's error is 0, and periods of an episode depend on
    each other; means over whole histories are what every such expectation keeps. Hence fresh episodes, each one
    observation: 1024 of them, which is more than 10^4 periods where an episode has ten. They are taken apart by task
    and by period too, where five standard errors are allowed for each.
    """
    if np.array_equal(k.reward, k.info["expected_reward"]):
        return  # nothing is random in it, or no expectation is known
    reward, expected = k.rewards
    noise = reward - expected  # [episodes, tasks, periods]
    for what, sample, sizes, errors in (
        ("", noise.sum(2).reshape(-1, 1), np.abs(reward).sum(2).max(), 3),
        (" in one task", noise.sum(2), np.abs(reward).sum(2).max(), 5),
        (" in one period", noise.reshape(-1, noise.shape[2]), np.abs(reward).max(), 5),
    ):
        count = len(sample)
        off = -sample.mean(0)
        # What happens less than once in all these episodes has a mean too: hence the second term.
        error = np.hypot(sample.std(0) / np.sqrt(count), np.ptp(sample, axis=0) / count)
        worst = int(np.argmax(np.abs(off) - errors * error))
        allowed = errors * error[worst] + 1e-5 * sizes + 1e-6
        message = f"expected_reward is off by {off[worst]:.3g}{what}, {errors} standard errors are {allowed:.3g}"
        message += f" ({noise.size} periods)"
        require(abs(off[worst]) <= allowed, message)


# ---- equal programs -----------------------------------------------------------------------------------------------


def lockstep_equals_plain_vmap(k: Evidence) -> None:
    """The suite's rollout, whose clock is not batched, gives what plain ``vmap`` gives."""
    require((k.played.state.time == np.arange(k.env.horizon)).all(), "the clock of a lockstep batch")
    both: tuple[Any, Any] = (k.played, k)
    state, plain = (steps.state.replace(time=None) for steps in both)
    own = replayed((k.played.observation, state, k.played.reward, k.played.info))
    require_equal(own, (k.seen, plain, k.reward, k.info), "lockstep against vmap: ", **ROUNDING)


def jit_equals_no_jit(k: Evidence) -> None:
    """Reset and the choice that moves the world, operation by operation."""
    params, last = k.task(0), k.env.num_turns - 1
    with jax.disable_jit():
        start = k.env.reset_env(k.keys[0, 0], params)
        state, action = jax.tree.map(lambda x: jnp.asarray(x[0, last]), (k.state, k.action))
        _, state, reward, _, info = k.env.step_env(k.keys[0, 0], state, action, params)
    require_equal(start, jax.tree.map(lambda x: x[0, 0], (k.seen, k.state)), "reset without jit: ", **ROUNDING)
    following = jax.tree.map(lambda x: x[0], k.end) if k.env.horizon == last + 1 else None
    compiled = following or jax.tree.map(lambda x: x[0, last + 1], k.state)
    paid = jax.tree.map(lambda x: x[0, last], (k.reward, k.info))
    require_equal((state, reward, info), (compiled, *paid), "step without jit: ", **ROUNDING)


def types_do_not_depend_on_jaxs_modes(k: Evidence) -> None:
    """With ``jax_enable_x64`` every function returns the same shapes and dtypes."""
    faults = tracing.faults_in_64_bits(k.env)
    require(not faults, "; ".join(faults))


def promotion_is_explicit(k: Evidence) -> None:
    """Every function traces under strict dtype promotion and without rank promotion."""
    faults = tracing.faults_in_strict_modes(k.env)
    require(not faults, "; ".join(faults))


def runs_under_shard_map(k: Evidence) -> None:
    """Every function traces inside ``jax.shard_map`` with its checks on."""
    faults = tracing.faults_under_shard_map(k.env)
    require(not faults, "; ".join(faults))


# ---- what is hidden, and what is random ---------------------------------------------------------------------------


def nothing_hidden_is_seen(k: Evidence) -> None:
    """Neither at the start nor, other than through what has happened, later."""
    swap = k.swapped(*k.env.hidden)
    _, (seen, *_) = k.random_episodes(swap)
    first, then = (jax.tree.map(lambda x: x[:, 0], observations) for observations in (seen, k.seen))
    require_equal(first, then, "the first observation tells hidden fields: ")
    # The same states look the same whatever the hidden fields are.
    look = quick_jit(jax.vmap(jax.vmap(k.env.observation, in_axes=(0, None))))
    require_equal(look(k.state, swap), look(k.state, k.tasks), "an observation tells hidden fields: ")


def hidden_fields_can_be_felt(k: Evidence) -> None:
    """All together in every task's rewards and tokens, each alone in some task's.

    Choices are random and follow from what is seen, so they differ only after something that is seen does; those of
    the reference would change with the task that it is told.
    """
    faults = []
    _, (seen, _, _, reward, *_) = k.random_episodes(k.swapped(*k.env.hidden))
    if not (reward != k.reward).any(-1).all():
        faults.append("hidden fields do not change every task's rewards")
    if not (np.abs(seen.tokens - k.seen.tokens) > 1e-3).any((1, 2, 3)).all():
        faults.append("hidden fields do not change every task's observations")
    own, unfelt = leaves((k.seen, k.reward)), []
    for field in k.env.hidden:
        _, (seen, _, _, reward, *_) = k.random_episodes(k.swapped(field))
        same = all(np.array_equal(x, own[path]) for path, x in leaves((seen, reward)).items())
        if same and field not in k.env.ingredients:
            unfelt.append(field)
    if unfelt:
        faults.append(f"hidden fields without effect on rewards or observations: {', '.join(unfelt)}")
    require(not faults, "; ".join(faults))


def noise_comes_from_key_and_period_alone(k: Evidence) -> None:
    """Task, reset and every period draw uniforms of their own and nothing else; no policy changes the key."""
    faults = tracing.faults_of_draws(k.env)
    require(not faults, "; ".join(faults))
    words = np.asarray(k.played.state.key)
    start = np.asarray(jax.random.key_data(k.keys))[None, :, None]
    require((words == start).all(), "a policy changes the episode's key")


def equal_keys_give_equal_episodes(k: Evidence) -> None:
    """And other keys others."""
    require_equal(k.play(k.tasks, k.keys), k.played, "the same episodes again: ")
    # The same luck in choosing: where rewards differ, keys made the difference.
    _, (_, _, _, reward, *_) = k.random_episodes(k.tasks, jnp.roll(k.keys, 1, axis=1))
    require((reward != k.reward).any(-1).all(), "episodes of different keys are equal")
    one, other = (sampling.uniforms(key, 3, max(k.env.num_uniforms, 1)) for key in k.keys[0, :2])
    require((one != other).all(), "uniforms of different keys are equal")


# ---- reference policies -------------------------------------------------------------------------------------------


def policies_choose_legally(k: Evidence) -> None:
    """No-op, heuristic and reference, through whole episodes."""
    steps = k.played
    legal = np.take_along_axis(steps.observation.action_mask, steps.action[..., None], -1)[..., 0]
    for index, policy in enumerate(POLICIES):
        # Replayed choices were made in the first episode.
        episodes = 1 if policy == "replay" else None
        require(legal[:, :, index, :episodes].all(), f"{policy} chooses an illegal action")


def the_reference_is_best(k: Evidence) -> None:
    """On average above no-op, heuristic and random choices."""
    expected = k.played.info["expected_reward"].sum(0)
    returns = dict(zip(POLICIES, expected.mean((0, 2)), strict=True))
    require(returns["reference"] > max(returns["noop"], returns["heuristic"]), f"mean returns {returns}")
    # The random policy's choices were replayed in the first episode only.
    reference, random = expected[:, POLICIES.index("reference"), 0], expected[:, POLICIES.index("replay"), 0]
    require(reference.mean() > random.mean(), f"reference {reference.mean()}, random {random.mean()}")


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        states_its_sizes_and_kinds,
        tasks_are_arrays_of_one_structure,
        average_task_replaces_hidden_fields_only,
        client_checks.tasks_can_be_drawn_inside_and_outside,
        a_client_steps_through_the_time_limit,
        info_is_small_unless_asked,
        reset_and_step_agree_on_every_leafs_type,
        states_are_plain_arrays,
        illegal_actions_are_noops,
        client_checks.spaces_and_values_are_of_one_type,
        client_checks.legal_actions_can_be_sampled,
        client_checks.views_show_what_the_domain_shows,
        client_checks.the_horizon_is_the_constructors,
        observations_stay_in_their_space,
        tokens_speak_the_vocabulary,
        masks_leave_a_choice,
        everything_stays_finite,
        periods_pay_at_their_end,
        expected_reward_is_the_mean_reward,
        lockstep_equals_plain_vmap,
        jit_equals_no_jit,
        types_do_not_depend_on_jaxs_modes,
        promotion_is_explicit,
        runs_under_shard_map,
        nothing_hidden_is_seen,
        hidden_fields_can_be_felt,
        noise_comes_from_key_and_period_alone,
        equal_keys_give_equal_episodes,
        policies_choose_legally,
        the_reference_is_best,
    )
}
"""Requirements by name, in the order in which they are run."""
