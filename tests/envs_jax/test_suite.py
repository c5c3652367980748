"""Several domains as one program: padding, joining, roll-outs of unequal horizons, legal random choices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import envs_jax
from envs_jax import observation as vocabulary
from envs_jax import policies, suite
from envs_jax.observation import NUM_ACTION_FEATURES, NUM_TOKEN_FEATURES, Observation
from envs_jax.rollout import lockstep_reset, recurrent_rollout, rollout
from tests.envs_jax.toys import Toy

SHORT, LONG = Toy(num_turns=2, num_periods=3), Toy(num_turns=3, num_periods=4, num_actions=5)
SUITE = suite.Suite.of((SHORT, LONG), ("short", "long"))
TASKS = tuple(
    jax.vmap(lambda gain, env=env: env.task(gain, 0.5))(jnp.asarray(gains))
    for env, gains in ((SHORT, [0.2, 1.0, 2.0]), (LONG, [1.0, 3.0]))
)
KEYS = SUITE.episode_keys(jax.random.key(1), 3, 2)
KEYS = (KEYS[0], KEYS[1][:2])


@jax.jit
def play(tasks, keys, key):
    return rollout(SUITE.envs, tasks, keys, policies.random_act, key)


@jax.jit
def play_short(tasks, keys, key):
    return rollout((SHORT,), (tasks,), (keys,), policies.random_act, key)


# ---- padding, joining, flattening ---------------------------------------------------------------------------------


@functools.cache
@jax.jit
def first_observations():
    return [lockstep_reset(env, t, k)[0] for env, t, k in zip(SUITE.envs, TASKS, KEYS, strict=True)]


def test_pad_adds_absent_tokens_and_illegal_actions_only():
    seen = first_observations()[0]
    padded = vocabulary.pad(seen, 5, 7)
    assert padded.tokens.shape == (3, 2, 5, NUM_TOKEN_FEATURES)
    assert padded.actions.shape == (3, 2, 7, NUM_ACTION_FEATURES)
    for name, axis, size, fill in (
        ("tokens", 2, 2, 0),
        ("token_mask", 2, 2, False),
        ("actions", 2, 3, 0),
        ("action_target", 2, 3, -1),
        ("action_mask", 2, 3, False),
    ):
        kept, added = np.split(np.asarray(getattr(padded, name)), [size], axis)
        np.testing.assert_array_equal(kept, getattr(seen, name))
        assert kept.dtype == getattr(seen, name).dtype
        assert (added == fill).all()
        assert added.shape[axis] > 0


def test_pad_refuses_to_cut():
    with pytest.raises(ValueError, match="cannot pad 2 tokens, 3 actions to 1, 3"):
        vocabulary.pad(first_observations()[0], 1, 3)


def test_join_stacks_the_domains_along_the_task_axis_and_split_takes_them_apart():
    seen = first_observations()
    joined = SUITE.join(seen)
    assert joined.tokens.shape == (5, 2, 3, NUM_TOKEN_FEATURES)
    assert joined.action_mask.shape == (5, 2, 5)
    np.testing.assert_array_equal(joined.tokens[:3, :, :2], seen[0].tokens)
    np.testing.assert_array_equal(joined.tokens[3:], seen[1].tokens)
    assert not joined.token_mask[:3, :, 2].any()
    for own, part in zip(seen, SUITE.split(joined.tokens, [3, 2]), strict=True):
        np.testing.assert_array_equal(part[:, :, : own.tokens.shape[2]], own.tokens)


def test_flatten_keeps_every_feature_and_mask_once():
    seen = first_observations()[1]
    flat = np.asarray(vocabulary.flatten(seen))
    parts = [seen.tokens, seen.token_mask, seen.actions, seen.action_mask]
    assert flat.shape == (2, 2, 3 * NUM_TOKEN_FEATURES + 3 + 5 * NUM_ACTION_FEATURES + 5)
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(flat[1, 0], np.concatenate([np.ravel(p[1, 0]) for p in parts]))


def test_vocabulary_refuses_words_it_does_not_have():
    def build(role="store", actions=(), **columns):
        return vocabulary.make_observation(
            [(role, 1, columns)], dict(actions), jnp.zeros(2, jnp.int32), jnp.ones(2, bool)
        )

    with pytest.raises(ValueError, match="unknown column 'colour'; the vocabulary has urgency, slack"):
        build(colour=1.0)
    with pytest.raises(ValueError, match="unknown column 'urgencies'; did you mean 'urgency'"):
        build(urgencies=1.0)
    with pytest.raises(ValueError, match="unknown role 'wizard'"):
        build(role="wizard")
    with pytest.raises(ValueError, match="unknown column 'level'"):
        build(actions={"level": 1.0})
    with pytest.raises(ValueError, match="'is_candidate' is filled in by make_observation"):
        build(is_candidate=1.0)


def test_make_observation_makes_urgency_and_capacity_relative_and_marks_candidates():
    shops = {"urgency": jnp.array([2.0, 4.0, 8.0]), "capacity": jnp.array([3.0, 6.0, 12.0])}
    seen = vocabulary.make_observation(
        tokens=[("demand", 3, shops), ("store", 1, {"urgency": 1.0, "capacity": 5.0}), ("clock", 1, {})],
        actions={"is_noop": jnp.array([1.0, 0.0, 0.0]), "amount": 0.5},
        action_target=jnp.array([0, 1, 2], jnp.int32),
        action_mask=jnp.array([True, True, False]),
        token_mask=jnp.array([True, True, False, True, True]),
    )
    np.testing.assert_allclose(seen.column("urgency"), [0.5, 1.0, 0.0, 0.25, 0.0])
    np.testing.assert_allclose(seen.column("capacity"), [0.5, 1.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(seen.column("is_candidate"), [0, 1, 0, 0, 0])
    np.testing.assert_allclose(seen.action_column("amount"), 0.5)
    with pytest.raises(ValueError, match="unknown column 'amounts'; did you mean 'amount'"):
        seen.action_column("amounts")


# ---- suites -------------------------------------------------------------------------------------------------------


def test_subset_keeps_the_padding_and_the_suites_order():
    part = SUITE.subset(["short"])
    assert part.envs == (SHORT,)
    assert (part.num_tokens, part.num_actions, part.num_periods) == (3, 5, 4)
    assert part.horizon == LONG.horizon
    assert part.shapes == SUITE.shapes, "programs of padded shapes are shared"
    tight = SUITE.subset(["short"], tight=True)
    assert tight.envs == (SHORT,)
    assert tight.names == ("short",)
    assert (tight.num_tokens, tight.num_actions, tight.num_periods, tight.horizon) == (2, 3, 3, 6)
    assert SUITE.subset(["long", "short"]).names == ("short", "long")
    assert part.join(first_observations()[:1]).tokens.shape[2] == 3


def test_mistakes_are_named():
    name = envs_jax.registered()[0]
    with pytest.raises(ValueError, match="at least one domain"):
        suite.Suite.make([])
    with pytest.raises(ValueError, match=f"more than once: {name}, {name}"):
        suite.Suite.make([name, name])
    with pytest.raises(ValueError, match=f"unknown domain 'atlantis'; registered: .*{name}"):
        suite.Suite.make(["atlantis"])
    with pytest.raises(ValueError, match=r"\['atlantis'\] are not in this suite: short, long"):
        SUITE.subset(["short", "atlantis"])


def test_suite_of_registered_domains_holds_the_registrys_instances():
    names = envs_jax.registered()
    made = suite.Suite.make(names)
    assert made.names == names
    for name, env in zip(names, made.envs, strict=True):
        assert env is envs_jax.make(name)[0]
        assert env.num_tokens <= made.num_tokens
        assert env.num_actions <= made.num_actions
    assert made.horizon == max(env.horizon for env in made.envs)


def test_episode_keys_differ_between_domains_tasks_and_episodes():
    keys = SUITE.episode_keys(jax.random.key(0), 4, 3)
    assert [k.shape for k in keys] == [(4, 3), (4, 3)]
    words = np.concatenate([np.asarray(jax.random.key_data(k)).reshape(-1, 2) for k in keys])
    assert len(np.unique(words, axis=0)) == 24


# ---- roll-outs ----------------------------------------------------------------------------------------------------


def test_rollout_of_unequal_horizons_lets_the_finished_world_stand_still():
    (short, long), finals = play(TASKS, KEYS, jax.random.key(2))
    assert short.reward.shape == (12, 3, 2)
    assert long.reward.shape == (12, 2, 2)
    np.testing.assert_array_equal(short.valid, np.arange(12) < 6)
    assert long.valid.all()
    for leaf in (short.reward, *short.info.values()):
        assert (np.asarray(leaf)[6:] == 0).all()
    np.testing.assert_array_equal(short.state.time, np.minimum(np.arange(12), 6))
    np.testing.assert_array_equal(long.state.time, np.arange(12))
    for leaf, final in zip(jax.tree.leaves(short.observation), jax.tree.leaves(finals[0]), strict=True):
        for beyond in np.asarray(leaf)[6:]:
            np.testing.assert_array_equal(beyond, final)
    # Rewards come on a period's last turn only, and are what the choices add up to plus bounded noise.
    reward = np.asarray(long.reward).reshape(4, 3, 2, 2)
    assert (reward[:, :2] == 0).all()
    noise = reward[:, 2] - np.asarray(long.info["expected_reward"]).reshape(4, 3, 2, 2)[:, 2]
    assert (np.abs(noise) < 0.5).all()
    assert noise.std() > 0.1


def test_a_domain_rolls_out_alone_as_it_does_in_company():
    (together, _), finals = play(TASKS, KEYS, jax.random.key(2))
    (alone,), (final,) = play_short(TASKS[0], KEYS[0], jax.random.key(2))
    for own, shared in (
        (alone.reward, together.reward[:6]),
        (alone.action, together.action[:6]),
        (alone.observation, jax.tree.map(lambda leaf: leaf[:6], together.observation)),
        (final, finals[0]),
    ):
        jax.tree.map(np.testing.assert_array_equal, own, shared)


def test_another_policy_meets_the_same_noise():
    (_, one), _ = play(TASKS, KEYS, jax.random.key(2))
    (_, other), _ = play(TASKS, KEYS, jax.random.key(3))
    assert (one.action != other.action).any()
    np.testing.assert_allclose(
        one.reward - one.info["expected_reward"], other.reward - other.info["expected_reward"], atol=1e-6
    )


def test_one_padded_batch_of_all_domains_is_enough_to_act_in_each():
    shapes = []

    def act(seens, states, key):
        del states, key
        seen = SUITE.join(seens)
        shapes.append(seen.tokens.shape)
        # The last legal action of each: 1 or 2 in the short domain, 1 or 4 in the long one.
        last = seen.action_mask.shape[-1] - 1 - jnp.argmax(seen.action_mask[..., ::-1], axis=-1).astype(jnp.int32)
        return SUITE.split(last, [3, 2])

    (short, long), _ = jax.jit(lambda key: rollout(SUITE.envs, TASKS, KEYS, act, key))(jax.random.key(0))
    assert set(shapes) == {(5, 2, 3, NUM_TOKEN_FEATURES)}
    np.testing.assert_array_equal(short.action[:6, 0, 0], [1, 2] * 3)
    np.testing.assert_array_equal(long.action[:, 1, 1], [1, 4, 4] * 4)


def test_an_act_that_remembers_is_handed_its_carry_and_its_notes_are_recorded():
    """It chooses 0 and 1 in turns, as it remembers; the carry goes on beyond the shorter horizon."""

    def act(seens, states, carry, key):
        del states, key
        chosen = tuple(jnp.full(seen.token_mask.shape[:2], carry % 2, jnp.int32) for seen in seens)
        return chosen, 10 * carry, carry + 1

    record = lambda domain, step: (step.action, step.notes)  # noqa: E731
    program = jax.jit(lambda carry: recurrent_rollout(SUITE.envs, TASKS, KEYS, act, carry, jax.random.key(0), record))
    ((short, notes), (long, _)), finals, carry = program(jnp.int32(3))
    assert carry == 3 + LONG.horizon
    np.testing.assert_array_equal(notes, 10 * (3 + np.arange(LONG.horizon)))
    for actions, tasks in ((short, 3), (long, 2)):
        expected = (3 + np.arange(LONG.horizon)) % 2
        np.testing.assert_array_equal(actions, np.broadcast_to(expected[:, None, None], (LONG.horizon, tasks, 2)))
    assert finals[0].tokens.shape[:2] == (3, 2)


# ---- random legal choices -----------------------------------------------------------------------------------------


def test_random_actions_are_uniform_over_legal_actions_only():
    masks = np.array([[0, 0, 1, 0, 0], [1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    count = 20_000
    seen = Observation(None, None, None, None, jnp.broadcast_to(masks, (count, *masks.shape)))
    actions = np.asarray(policies.random_actions(seen, jax.random.key(0)))
    assert actions.shape == (count, 4)
    assert actions.dtype == np.int32
    for column, mask in zip(actions.T, masks, strict=True):
        counts = np.bincount(column, minlength=5)
        assert (counts[~mask] == 0).all()
        if mask.sum() > 1:
            assert stats.chisquare(counts[mask]).pvalue > 1e-3


def test_buckets_hold_every_domain_once_and_pad_less():
    five = suite.Suite.make(("agriculture", "smart_city", "energy_trading", "maritime", "portfolio"))
    for count in (1, 2, 3, 9):
        buckets = five.buckets(count)
        assert len(buckets) == min(count, 5)
        assert sorted(name for bucket in buckets for name in bucket.names) == sorted(five.names)
        for bucket in buckets:
            assert bucket.num_tokens == max(env.num_tokens for env in bucket.envs)
            assert bucket.num_actions == max(env.num_actions for env in bucket.envs)
    assert [bucket.names for bucket in five.buckets(3)] == [
        ("agriculture", "portfolio"),
        ("smart_city",),
        ("energy_trading", "maritime"),
    ]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        five.buckets(0)
