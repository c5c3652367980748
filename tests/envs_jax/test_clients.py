"""Clients of gymnax and Gymnasium: wrappers, spaces and copies work on views of a domain as on gymnax's own tasks."""

import copy
import functools
import importlib.util
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnax.environments import spaces as gymnax_spaces
from gymnax.wrappers import FlattenObservationWrapper, GymnaxToGymWrapper, LogWrapper

import envs_jax
from envs_jax import spaces
from envs_jax.adapters import DictObservation, FlatObservation, GymnasiumEnv
from envs_jax.testing import CHECKS, DomainError
from envs_jax.testing.evidence import Evidence
from tests.envs_jax.toys import Toy

ENV, PARAMS = envs_jax.make("supply_chain", num_stages=2, num_periods=2)
FLAT = FlatObservation(ENV)
KEY = jax.random.key(0)


def actions(count):
    return jax.random.randint(jax.random.key(7), (count,), 0, ENV.num_actions)


# ---- gymnax ---------------------------------------------------------------------------------------------------------


def test_gymnaxs_wrappers_log_and_flatten_what_the_domain_gives():
    wrapped = LogWrapper(FlattenObservationWrapper(FLAT))
    assert wrapped.observation_space(PARAMS).shape == (FLAT.size,)
    seen, state = ENV.reset(KEY, PARAMS)
    flat, logged = wrapped.reset(KEY, PARAMS)
    total = 0.0
    for time, action in enumerate(actions(ENV.horizon)):
        np.testing.assert_array_equal(flat, FLAT.view(seen))
        step_key = jax.random.fold_in(KEY, time)
        seen, state, reward, *_, info = ENV.with_final_observation().step(step_key, state, action, PARAMS)
        flat, logged, paid, terminated, truncated, told = wrapped.step(step_key, logged, action, PARAMS)
        total += reward
        assert paid == reward
        assert not terminated
        assert truncated == (time == ENV.horizon - 1)
        np.testing.assert_array_equal(told["final_observation"], FLAT.view(info["final_observation"]))
    assert logged.returned_episode_lengths == ENV.horizon
    np.testing.assert_allclose(logged.returned_episode_returns, total, rtol=1e-6)
    assert logged.env_state.time == 0


def test_the_layout_names_every_part_of_the_vector():
    seen, _ = jax.vmap(ENV.reset, in_axes=(0, None))(jax.random.split(KEY, 3), PARAMS)
    flat = FLAT.view(seen)
    assert flat.shape == (3, FLAT.size)
    assert list(FLAT.layout) == ["tokens", "token_mask", "actions", "action_mask", "action_target"]
    starts = [where.start for where in FLAT.layout.values()]
    assert starts == [0, *(where.stop for where in FLAT.layout.values())][:-1]
    np.testing.assert_array_equal(flat[:, FLAT.layout["action_mask"]], seen.action_mask)
    np.testing.assert_array_equal(flat[:, FLAT.layout["tokens"]], seen.tokens.reshape(3, -1))
    unknown = FLAT.layout["action_target"]
    aimless = FLAT.view(seen.replace(action_target=jnp.full_like(seen.action_target, -1)))
    assert (aimless[:, unknown] == FLAT.observation_space().low[unknown]).all()
    assert (FLAT.unview(aimless).action_target == -1).all()


def test_older_clients_get_five_values_and_info_can_be_small():
    old = FlatObservation(ENV, final_observation=False, legacy_step=True)
    flat, state = old.reset(KEY)
    for time, action in enumerate(actions(ENV.horizon)):
        flat, state, _, done, info = old.step(KEY, state, action)
        assert done == (time == ENV.horizon - 1)
        assert "final_observation" not in info
    assert flat.shape == (old.size,)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_views_can_be_copied_as_rejax_and_gymnax_do(copied):
    twin = copied(FlatObservation(ENV))
    assert twin.size == FLAT.size
    assert twin.observation_space().shape == (FLAT.size,)
    assert twin.num_tokens == ENV.num_tokens


def test_a_view_asks_its_domain_for_what_it_does_not_have():
    assert FLAT.name == "supply_chain"
    assert repr(FLAT) == f"FlatObservation({ENV!r})"
    seen, state = ENV.reset_env(KEY, PARAMS)
    assert FLAT.heuristic_action(FLAT.view(seen), KEY) == ENV.heuristic_action(seen, KEY)
    assert FLAT.sample_action(KEY, FLAT.view(seen)) == ENV.sample_action(KEY, seen)
    plan = FLAT.solve(PARAMS)
    assert FLAT.reference_action(plan, state, PARAMS, KEY) == ENV.reference_action(plan, state, PARAMS, KEY)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = FLAT.no_such_thing


@pytest.mark.parametrize("view", [FlatObservation, DictObservation])
def test_a_view_is_of_a_domain(view):
    with pytest.raises(TypeError, match=r"takes an envs_jax\.ResourceEnv, got int"):
        view(3)


def test_repr_says_name_tokens_actions_and_horizon():
    assert repr(ENV) == "SupplyChain('supply_chain': 4 tokens, 13 actions, horizon 4 = 2 turns x 2 periods)"


# ---- the horizon ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [ENV, FLAT, DictObservation(ENV)])
def test_another_horizon_is_refused_by_reset_and_step(env):
    _, state = ENV.reset(KEY, PARAMS)
    other = PARAMS.replace(max_steps_in_episode=7)
    message = r"supply_chain\.max_steps_in_episode must be 4, .* num_periods \(now 2\) sets it, got 7"
    with pytest.raises(ValueError, match=message):
        env.reset(KEY, other)
    with pytest.raises(ValueError, match=message):
        env.step(KEY, state, 0, other)
    with pytest.raises(ValueError, match=message):
        jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(KEY, 2), other)


def test_a_stack_of_tasks_is_refused_where_one_is_meant():
    tasks = jax.vmap(ENV.sample_params)(jax.random.split(KEY, 3))
    with pytest.raises(ValueError, match=r"params must be one task; use jax\.vmap over several, got \(3,\)"):
        ENV.reset(KEY, tasks)


def test_under_a_trace_another_horizon_has_no_effect():
    @jax.jit
    def ends(steps):
        params = PARAMS.replace(max_steps_in_episode=steps)
        _, state = ENV.reset(KEY, params)

        def body(state, _):
            _, state, _, _, truncated, _ = ENV.step(KEY, state, ENV.noop_action, params)
            return state, truncated

        return jax.lax.scan(body, state, None, length=ENV.horizon)[1]

    np.testing.assert_array_equal(ends(jnp.int32(2)), [False, False, False, True])


# ---- Gymnasium ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [DictObservation(ENV), FLAT])
def test_gymnasiums_check_finds_nothing(view):
    check_env(GymnasiumEnv(view), skip_render_check=True)  # its warnings are errors here


def test_a_gymnasium_episode_ends_with_what_is_seen_at_its_end():
    def play(seed):
        env = GymnasiumEnv(DictObservation(ENV))
        seen, _ = env.reset(seed=seed)
        trace = [seen["tokens"]]
        for time in range(ENV.horizon):
            action = env.sample_action()
            assert seen["action_mask"][action]
            seen, reward, terminated, truncated, info = env.step(action)
            assert (terminated, truncated) == (False, time == ENV.horizon - 1)
            assert isinstance(reward, float)
            assert info["illegal_actions"] == 0
            trace.append(seen["tokens"])
        return np.stack(trace)

    one = play(3)
    np.testing.assert_array_equal(one, play(3))
    assert (one != play(4)).any()
    assert one[-1, :, envs_jax.observation.TOKEN_COLUMNS.index("progress")].max() == 1


def test_a_gymnasium_env_refuses_what_is_no_view_and_a_step_before_reset():
    for env in (ENV, FlatObservation(ENV, legacy_step=True)):
        with pytest.raises(TypeError, match="takes a FlatObservation or DictObservation of six values"):
            GymnasiumEnv(env)
    with pytest.raises(RuntimeError, match="before reset"):
        GymnasiumEnv(FLAT).step(0)


def test_gymnaxs_own_gym_wrapper_gives_dicts_of_its_space():
    env = GymnaxToGymWrapper(DictObservation(ENV))
    seen, _ = env.reset(seed=1)
    assert env.observation_space.contains(jax.device_get(seen))
    seen, *_ = env.step(1)
    assert env.observation_space.contains(jax.device_get(seen))


# ---- spaces ---------------------------------------------------------------------------------------------------------


def test_samples_reach_all_that_a_space_holds():
    coins = spaces.Binary((200,)).sample(KEY)
    assert coins.dtype == bool
    assert 60 < coins.sum() < 140
    whole = spaces.Integers(-1, 2, (200,)).sample(KEY)
    assert set(np.unique(whole)) == {-1, 0, 1, 2}
    for dtype in (jnp.uint32, jnp.int32, jnp.int8, jnp.float32, jnp.bfloat16):
        space = spaces.Unbounded((50,), dtype)
        drawn = space.sample(KEY)
        assert (drawn.dtype, drawn.shape) == (dtype, (50,))
        assert space.contains(drawn)
        assert len(np.unique(drawn)) > 20
    assert not spaces.Unbounded((1,), jnp.float32).contains(jnp.array([jnp.inf]))
    assert not spaces.Unbounded((1,), jnp.float32).contains(jnp.array([jnp.nan]))


def test_records_contain_what_has_all_their_parts_within_bounds():
    space = DictObservation(ENV).observation_space()
    drawn = space.sample(KEY)
    assert type(drawn) is dict
    assert space.contains(drawn)
    assert space.contains(envs_jax.Observation(**drawn))
    assert not space.contains({**drawn, "tokens": drawn["tokens"] + 30.0})
    assert not space.contains({name: part for name, part in drawn.items() if name != "actions"})
    assert not space.contains({**drawn, "more": 1.0})
    assert not space.contains(3)
    assert isinstance(ENV.observation_space().sample(KEY), envs_jax.Observation)


def test_sampled_masks_are_neither_all_true_nor_without_a_choice():
    drawn = jax.vmap(ENV.observation_space().sample)(jax.random.split(KEY, 64))
    for mask in (drawn.token_mask, drawn.action_mask):
        assert mask.any(-1).all()
        assert 0.3 < mask.mean() < 0.8
    assert drawn.action_mask[:, ENV.noop_action].all()
    assert (drawn.tokens[~drawn.token_mask] == 0).all()


def test_a_tree_without_arrays_has_no_space():
    nested = {"a": (jnp.zeros(2), jnp.zeros((), bool)), "b": jnp.int32(3)}
    space = spaces.of_tree(nested)
    assert jax.tree.structure(space.sample(KEY)) == jax.tree.structure(nested)
    assert space.contains(nested)
    with pytest.raises(TypeError, match="no space for a part of type str"):
        spaces.of_tree({"a": "text"})


# ---- the kit's checks of all this ---------------------------------------------------------------------------------


class Planted(type(ENV)):
    """What a domain may get wrong towards clients, one fault at a time."""

    fault = ""

    def sample_params(self, key, split="all"):
        return super().sample_params(key, "all" if self.fault == "split" else split)

    def is_truncated(self, state, params):
        return state.time >= (params.max_steps_in_episode if self.fault == "horizon" else self.horizon)

    def observation_space(self, params=None):
        space = super().observation_space(params)
        return gymnax_spaces.Dict(space.spaces) if self.fault == "space" else space

    def sample_action(self, key, observation):
        mask = observation.action_mask | (self.fault == "masks")
        return super().sample_action(key, observation.replace(action_mask=mask))


@functools.cache
def evidence():
    return Evidence(Planted(num_stages=2, num_periods=2))


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        ("split", "tasks_can_be_drawn_inside_and_outside", "sample_params does not use task_uniforms"),
        ("horizon", "the_horizon_is_the_constructors", "max_steps_in_episode moves the horizon"),
        ("space", "spaces_and_values_are_of_one_type", "observation_space samples a OrderedDict, not a Observation"),
        ("masks", "legal_actions_can_be_sampled", "an illegal action is sampled"),
    ],
)
def test_a_fault_towards_clients_is_named(fault, check, message, monkeypatch):
    CHECKS[check](evidence())
    monkeypatch.setattr(Planted, "fault", fault)
    with pytest.raises(DomainError, match=message):
        CHECKS[check](evidence())


# ---- a client that knows gymnax alone -------------------------------------------------------------------------------


def test_random_actions_are_exported_and_take_any_batch():
    seen, _ = Toy().reset_env(KEY, Toy().default_params)
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, 3, *x.shape)), seen)
    assert envs_jax.random_actions(seen, KEY).shape == ()
    assert envs_jax.random_actions(batch, KEY).shape == (2, 3)


def test_the_quickstart_of_the_docs_runs():
    text = (pathlib.Path(__file__).parents[2] / "docs/clients.md").read_text(encoding="utf-8")
    names = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert names["flat"].shape == (64, names["env"].size)
    assert names["info"]["illegal_actions"].sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["supply_chain", "cloud_scheduling", "smart_city"])
def test_ppo_on_flat_observations_beats_random_choices(name):
    path = pathlib.Path(__file__).parents[2] / "docs/examples/ppo_flat.py"
    specification = importlib.util.spec_from_file_location("ppo_flat", path)
    client = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(client)
    env, params = envs_jax.make(name)
    train = client.make_train(FlatObservation(env), params, updates=16)
    fast = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    _, returns = jax.jit(train, compiler_options=fast)(KEY)

    def random_return(key):
        def body(carry, key):
            seen, state = carry
            seen, state, reward, *_ = env.step_env(key, state, env.sample_action(key, seen), params)
            return (seen, state), reward

        return jax.lax.scan(body, env.reset_env(key, params), jax.random.split(key, env.horizon))[1].sum()

    random = jax.jit(jax.vmap(random_return))(jax.random.split(jax.random.key(1), 128))
    # Means over 32 environments: three standard deviations of such a mean of random choices.
    assert returns[-1] > random.mean() + 3 * random.std() / np.sqrt(client.ENVS)
