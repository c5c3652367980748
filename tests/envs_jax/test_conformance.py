"""What every registered domain must satisfy, tested alike on each; a new domain is covered by registering it."""

import functools
import types

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax import policies, sampling
from envs_jax import rollout as engine
from envs_jax.observation import ROLES, TOKEN_COLUMNS

TASKS, EPISODES = 8, 3
POLICIES = ("replay", "noop", "heuristic", "reference")
COLUMN = {name: i for i, name in enumerate(TOKEN_COLUMNS)}
ROLE = [COLUMN[f"role_{role}"] for role in ROLES]

every_domain = pytest.mark.parametrize("name", envs_jax.registered())
# These programs run for milliseconds: halving LLVM's work on them halves the time of this module.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def leaves(tree):
    """Leaves with their paths, PRNG keys as integers, everything as NumPy arrays."""
    words = jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(words)}


def assert_equal(one, other, **tolerance):
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for path, x in one.items():
        assert x.dtype == other[path].dtype, path
        if tolerance and np.issubdtype(x.dtype, np.floating):
            np.testing.assert_allclose(x, other[path], err_msg=path, **tolerance)
        else:
            np.testing.assert_array_equal(x, other[path], err_msg=path)


@functools.cache
def kit(name):
    """A domain, eight of its tasks and its few compiled programs, shared by all tests of this module.

    Compiling is what costs: one program plays plain vmapped episodes, one plays all policies in the suite's lockstep.
    """
    env, default = envs_jax.make(name)
    tasks = quick_jit(jax.vmap(env.sample_params))(jax.random.split(jax.random.key(1), TASKS))
    keys = jax.random.split(jax.random.key(2), (TASKS, EPISODES))

    @quick_jit
    @jax.vmap
    def random_episodes(params, key):
        """Where an episode of random legal choices ended, and everything by time."""

        def body(carry, time):
            seen, state = carry
            action = policies.random_actions(seen, jax.random.fold_in(jax.random.key(3), time))
            after, following, reward, terminated, info = env.step_env(key, state, action, params)
            truncated = env.is_truncated(following, params)
            return (after, following), (seen, state, action, reward, terminated, truncated, info)

        return jax.lax.scan(body, env.reset_env(key, params), jnp.arange(env.horizon))

    (final, end), (seen, state, action, *paid, info) = jax.device_get(random_episodes(tasks, keys[:, 0]))
    reward, terminated, truncated = paid

    @quick_jit
    def play(params, keys):
        """Steps ``[T, B, policies, E]`` of all POLICIES on the same keys; "replay" repeats the choices above."""
        rules = [policies.policy(env, policy, params) for policy in POLICIES[1:]]
        which = jnp.repeat(jnp.arange(len(POLICIES)), EPISODES)

        def act(seen, states, key):
            replay = jnp.asarray(action)[:, states[0].time, None]
            chosen = [replay, *(rule(seen, states, key)[0] for rule in rules)]
            return (jnp.choose(which, chosen, mode="clip").astype(jnp.int32),)

        (steps,), _ = engine.rollout((env,), (params,), (jnp.tile(keys, len(POLICIES)),), act, keys[0, 0])
        apart = (env.horizon, TASKS, len(POLICIES), EPISODES)
        return jax.tree.map(lambda x: x if x.ndim == 1 else x.reshape(*apart, *x.shape[3:]), steps)

    return types.SimpleNamespace(
        env=env,
        default=default,
        tasks=tasks,
        keys=keys,
        seen=seen,
        state=state,
        action=action,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        info=info,
        final=final,
        end=end,
        play=play,
        played=jax.device_get(play(tasks, keys)),
    )


def replayed(tree):
    """The replayed episode's leaves ``[B, T, ...]`` of ``[T, B, policies, E, ...]``: as plain vmap returns them."""
    return jax.tree.map(lambda x: np.moveaxis(np.asarray(x)[:, :, 0, 0], 0, 1), tree)


def task(k, index):
    return jax.tree.map(lambda x: x[index], k.tasks)


def swapped(k):
    """Every task with the hidden fields of the next one."""
    others = {name: jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), getattr(k.tasks, name)) for name in k.env.hidden}
    return k.tasks.replace(**others)


# ---- what a domain states -----------------------------------------------------------------------------------------


@every_domain
def test_a_domain_states_what_the_contract_asks_for(name):
    env, k = envs_jax.make(name)[0], kit(name)
    assert env.name == name
    assert envs_jax.make(name)[0] is env
    assert env.reference_kind in ("optimal", "heuristic")
    assert env.reward_unit
    assert env.hidden
    assert set(env.hidden) < set(vars(k.default))
    assert 0 < env.discount_factor <= 1
    assert env.num_turns >= 1
    assert env.horizon == env.num_periods * env.num_turns
    assert 0 <= env.noop_action < env.num_actions
    assert env.num_tokens <= 32
    assert env.num_actions <= 32
    assert env.action_space(k.default).n == env.num_actions


@every_domain
def test_tasks_are_arrays_alike_in_structure_and_finite(name):
    k = kit(name)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(k.default))
    one = leaves(task(k, 0))
    for path, x in leaves(k.default).items():
        assert (x.shape, x.dtype) == (one[path].shape, one[path].dtype), path
        assert np.isfinite(x).all(), path
    for path, x in leaves(k.tasks).items():
        assert np.isfinite(x).all(), path
    np.testing.assert_array_equal(k.tasks.max_steps_in_episode, k.env.horizon)
    assert int(k.default.max_steps_in_episode) == k.env.horizon
    for field in k.env.hidden:
        assert any((x != x[:1]).any() for x in leaves(getattr(k.tasks, field)).values()), f"{field} never varies"


@every_domain
def test_average_task_replaces_hidden_fields_only(name):
    k = kit(name)
    believed = quick_jit(jax.vmap(k.env.average_task, in_axes=(0, None)))(k.tasks, k.tasks)
    for field in vars(k.tasks):
        own, average = getattr(k.tasks, field), getattr(believed, field)
        if field in k.env.hidden:
            for path, x in leaves(own).items():
                assert (x.shape, x.dtype) == (leaves(average)[path].shape, leaves(average)[path].dtype), field
        else:
            assert_equal(own, average)


# ---- gymnax -------------------------------------------------------------------------------------------------------


@every_domain
def test_a_gymnax_client_steps_through_the_time_limit_and_sees_what_a_vmapped_program_saw(name):
    env, default = gymnax.make(name)
    k = kit(name)
    assert env is k.env
    assert_equal(default, k.default)
    chex.clear_trace_counter()

    @quick_jit
    @chex.assert_max_traces(n=1)
    def step(key, state, action, params):
        return env.step(key, state, action, params)

    for index in range(2):
        params = task(k, index)
        # gymnax's own examples use keys of the old style: the same bits, another type.
        key = jax.random.key_data(k.keys[index, 0])
        first, state = env.reset(key, params)
        seen = first
        assert int(state.time) == 0
        for time in range(env.horizon):
            then = (k.seen, k.state.replace(key=None), k.reward, k.info)
            expected = jax.tree.map(lambda x, at=(index, time): x[at], then)
            before = (seen, state.replace(key=None))
            outputs = step(key, state, jnp.int32(k.action[index, time]), params)
            assert len(outputs) == 6
            seen, state, reward, terminated, truncated, info = outputs
            assert info.keys() == k.info.keys() | {"terminated", "truncated", "final_observation"}
            figures = {name: info[name] for name in k.info}
            assert_equal((*before, reward, figures), expected, rtol=1e-4, atol=1e-5)
            assert not terminated
            assert bool(truncated) == bool(info["truncated"]) == (time == env.horizon - 1)
            if not truncated:
                assert_equal(seen, info["final_observation"])
        # Auto-reset: another episode of the same task has begun; the end of the old one is in the info.
        assert int(state.time) == 0
        assert_equal(info["final_observation"], jax.tree.map(lambda x, at=index: x[at], k.final), rtol=1e-4, atol=1e-5)
        assert (np.asarray(seen.tokens) != np.asarray(info["final_observation"].tokens)).any()
        for column in ("progress", "last_reward"):
            assert_equal(seen.tokens[:, COLUMN[column]], first.tokens[:, COLUMN[column]])
        state = step(key, state, jnp.int32(env.noop_action), params)[1]
        assert int(state.time) == 1


@every_domain
def test_reset_and_step_agree_on_every_leafs_type(name):
    k = kit(name)
    key = jax.random.key(0)
    action = jnp.int32(k.env.noop_action)

    def types_of(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)

    seen, state = jax.eval_shape(k.env.reset_env, key, k.default)
    after, following, reward, terminated, info = jax.eval_shape(k.env.step_env, key, state, action, k.default)
    assert types_of(seen) == types_of(after)
    assert types_of(state) == types_of(following)
    assert not any(weak for _, _, weak in jax.tree.leaves(types_of(state), is_leaf=lambda x: isinstance(x, tuple)))
    for leaf in (reward, *info.values()):
        assert (leaf.shape, leaf.dtype) == ((), jnp.float32)
    assert (terminated.shape, terminated.dtype) == ((), jnp.bool_)
    assert {"expected_reward", "discount"} <= set(info)


# ---- whole random episodes ----------------------------------------------------------------------------------------


@every_domain
def test_observations_stay_in_the_declared_space(name):
    k = kit(name)
    spaces = k.env.observation_space(k.default).spaces
    assert spaces.keys() == vars(k.seen).keys()
    for seen, batch in ((k.seen, (TASKS, k.env.horizon)), (k.final, (TASKS,))):
        for part, space in spaces.items():
            x = getattr(seen, part)
            assert x.shape == (*batch, *space.shape), part
            assert x.dtype == space.dtype, part
            assert np.isfinite(x).all(), part
            assert space.contains(x), part
        assert np.abs(seen.tokens).max() <= 10
        assert np.abs(seen.actions).max() <= 10


@every_domain
def test_tokens_speak_the_shared_vocabulary(name):
    k = kit(name)
    tokens, present = k.seen.tokens, k.seen.token_mask
    assert present.any(-1).all()
    assert (tokens[~present] == 0).all()
    roles = tokens[present][:, ROLE]
    assert np.isin(roles, (0, 1)).all()
    assert (roles.sum(-1) == 1).all()
    for column in ("urgency", "slack", "progress"):
        values = tokens[..., COLUMN[column]]
        assert values.min() >= 0, column
        assert values.max() <= 1, column
    assert np.isin(tokens[..., COLUMN["is_turn"]], (0, 1)).all()
    assert tokens[..., COLUMN["urgency"]].max() > 0, "nothing was ever urgent"
    progress = tokens[..., COLUMN["progress"]].max(-1)
    np.testing.assert_allclose(
        progress, np.broadcast_to(np.arange(k.env.horizon) / k.env.horizon, progress.shape), atol=1e-6
    )


@every_domain
def test_masks_leave_a_choice_and_the_noop_is_always_one(name):
    k = kit(name)
    mask, target = k.seen.action_mask, k.seen.action_target
    assert mask[..., k.env.noop_action].all()
    assert np.take_along_axis(mask, k.action[..., None], -1).all()
    assert (mask.sum(-1) > 1).any(), "there was never anything to choose"
    concerned = np.take_along_axis(k.seen.token_mask, np.maximum(target, 0), -1)
    assert (concerned | (target < 0) | ~mask).all()
    # An action is told apart by its description, not its number.
    described = np.concatenate([k.seen.actions, target[..., None]], -1)[0]
    for time in range(k.env.num_turns):
        legal = described[time][mask[0, time]]
        assert len(np.unique(legal, axis=0)) == len(legal)


@every_domain
def test_everything_stays_finite(name):
    k = kit(name)
    for tree in (k.state, k.end, k.reward, k.info):
        for path, x in leaves(tree).items():
            assert np.isfinite(x).all(), path


@every_domain
def test_episodes_have_a_fixed_horizon_and_periods_pay_at_their_end(name):
    k = kit(name)
    time = np.arange(1, k.env.horizon + 1)
    last = time % k.env.num_turns == 0
    assert not k.terminated.any()
    np.testing.assert_array_equal(k.truncated, np.broadcast_to(time == k.env.horizon, k.truncated.shape))
    assert (k.reward[:, ~last] == 0).all()
    assert (k.reward[:, last] != 0).any()
    discount = np.where(last, np.float32(k.env.discount_factor), 1)
    np.testing.assert_array_equal(k.info["discount"], np.broadcast_to(discount, k.reward.shape))
    for figure, x in k.info.items():
        assert figure == "discount" or (x[:, ~last] == 0).all(), figure
    np.testing.assert_array_equal(k.end.time, k.env.horizon)
    np.testing.assert_array_equal(k.end.last_reward, k.reward[:, -1])
    # The noise-free reward has the realised one's mean: their sums differ by noise alone.
    noise = (k.reward - k.info["expected_reward"])[:, last]
    assert abs(noise.mean()) <= 5 * noise.std() / np.sqrt(noise.size) + 1e-6


# ---- equal programs (vmap = Python loop is tested with the gymnax client above) -------------------------------------


@every_domain
def test_lockstep_equals_plain_vmap(name):
    k = kit(name)
    np.testing.assert_array_equal(k.played.state.time, np.arange(k.env.horizon))
    state, plain = (steps.state.replace(time=None, key=None) for steps in (k.played, k))
    own = replayed((k.played.observation, state, k.played.reward, k.played.info))
    assert_equal(own, (k.seen, plain, k.reward, k.info), rtol=1e-4, atol=1e-5)


@every_domain
def test_jit_equals_no_jit(name):
    k = kit(name)
    params, last = task(k, 0), k.env.num_turns - 1
    with jax.disable_jit():
        seen, state = k.env.reset_env(k.keys[0, 0], params)
        assert_equal((seen, state), jax.tree.map(lambda x: x[0, 0], (k.seen, k.state)), rtol=1e-4, atol=1e-5)
        # The choice that moves the world; the ones before it are a part of that.
        state, action = jax.tree.map(lambda x: jnp.asarray(x[0, last]), (k.state, k.action))
        _, state, reward, _, info = k.env.step_env(k.keys[0, 0], state, action, params)
    compiled = jax.tree.map(lambda x: x[0, last + 1], k.state)
    paid = jax.tree.map(lambda x: x[0, last], (k.reward, k.info))
    assert_equal((state, reward, info), (compiled, *paid), rtol=1e-4, atol=1e-5)


# ---- what is hidden, and what is random ---------------------------------------------------------------------------


@every_domain
def test_nothing_hidden_is_seen(name):
    k = kit(name)
    first, then = (jax.tree.map(lambda x: x[0], steps.observation) for steps in (k.play(swapped(k), k.keys), k.played))
    assert_equal(first, then)
    # Nor later, other than through what has happened: the same states look the same whatever the hidden fields are.
    look = quick_jit(jax.vmap(jax.vmap(k.env.observation, in_axes=(0, None))))
    assert_equal(look(k.state, swapped(k)), look(k.state, k.tasks))


@every_domain
def test_hidden_fields_can_be_felt(name):
    k = kit(name)
    swap = k.play(swapped(k), k.keys)
    reward, tokens = replayed((swap.reward, swap.observation.tokens))
    assert (reward != k.reward).any(-1).all()
    assert (np.abs(tokens - k.seen.tokens) > 1e-3).any((1, 2, 3)).all()


@every_domain
def test_noise_comes_from_the_episodes_key_and_period_alone(name):
    k = kit(name)
    key = jax.random.key(0)
    _, state = jax.eval_shape(k.env.reset_env, key, k.default)
    uniforms, start = (jnp.zeros(n) for n in (k.env.num_uniforms, k.env.num_reset_uniforms))
    number = jnp.int32(0)
    for function, arguments in (
        (k.env.init_state, (key, start, k.default)),
        (k.env.choose, (state, number, number, k.default)),
        (k.env.advance, (state, uniforms, k.default)),
        (k.env.observation, (state, k.default)),
    ):
        # Draws other than the uniforms they are given would not be shared between policies.
        jaxpr = str(jax.make_jaxpr(function)(*arguments))
        assert "random_" not in jaxpr, function.__name__
        assert "threefry" not in jaxpr, function.__name__
    # So it is enough that no policy can move the clock (tested above) or change the key.
    words = np.asarray(jax.random.key_data(k.played.state.key))
    start = np.asarray(jax.random.key_data(k.keys))[None, :, None]
    np.testing.assert_array_equal(words, np.broadcast_to(start, words.shape))


@every_domain
def test_equal_keys_give_equal_episodes_and_others_others(name):
    k = kit(name)
    assert_equal(k.play(k.tasks, k.keys), k.played)
    reward = replayed(k.play(k.tasks, jnp.roll(k.keys, 1, axis=1)).reward)
    assert (reward != k.reward).any(-1).all()
    one, other = (sampling.uniforms(key, 3, k.env.num_uniforms) for key in k.keys[0, :2])
    assert (one != other).all()


# ---- reference policies -------------------------------------------------------------------------------------------


@every_domain
def test_policies_choose_legally_through_whole_episodes(name):
    steps = kit(name).played
    legal = np.take_along_axis(steps.observation.action_mask, steps.action[..., None], -1)[..., 0]
    for index, policy in enumerate(POLICIES):
        # Replayed choices were made in the first episode.
        assert legal[:, :, index, : 1 if policy == "replay" else None].all(), policy


@every_domain
def test_the_reference_is_above_the_floor_and_the_heuristic(name):
    expected = kit(name).played.info["expected_reward"].sum(0)
    returns = dict(zip(POLICIES, expected.mean((0, 2)), strict=True))
    assert returns["reference"] > max(returns["noop"], returns["heuristic"]), returns
    # The random policy's choices were replayed in the first episode only.
    reference, random = expected[:, POLICIES.index("reference"), 0], expected[:, POLICIES.index("replay"), 0]
    assert reference.mean() > random.mean()
