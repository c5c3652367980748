"""Rules of irrigation beside the reference: what they return is what a farm that follows them step by step earns."""

import jax
import numpy as np
import pytest

from benchmarks.studies.irrigation_rules import Config, driest, mean_return, roll_out, weighted_depletion
from envs_jax.domains.agriculture import Agriculture

ENV = Agriculture(num_fields=2, num_periods=30)


@pytest.mark.parametrize("rule", [driest, weighted_depletion, roll_out])
def test_the_mean_return_of_a_rule_is_that_of_its_episodes(rule):
    sample = jax.jit(jax.vmap(ENV.sample_params))
    tasks = sample(jax.random.split(jax.random.key(0), 3))
    keys = jax.random.split(jax.random.key(1), (3, 2))
    found = mean_return(ENV, rule, tasks, tasks, keys)
    choose = jax.jit(lambda state, params: rule(ENV, state, params))
    step = jax.jit(ENV.step_env)
    returns, watered = np.zeros((3, 2)), 0
    for i, e in np.ndindex(keys.shape):
        key, params = keys[i, e], jax.tree.map(lambda x, i=i: x[i], tasks)
        seen, state = ENV.reset_env(key, params)
        for _ in range(ENV.horizon):
            action = choose(state, params)
            assert seen.action_mask[action]
            watered += int(action) > 0
            seen, state, reward, _, _ = step(key, state, action, params)
            returns[i, e] += float(reward)
    np.testing.assert_allclose(found, returns.mean(1), rtol=1e-4, atol=1e-6)
    assert watered > 0


@pytest.mark.parametrize("name", ["tasks", "episodes", "population"])
def test_numbers_without_a_meaning_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be from 1 to .*, got 0"):
        Config(**{name: 0})
