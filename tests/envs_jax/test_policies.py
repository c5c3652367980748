"""The rule that knows the vocabulary and no domain."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax import policies
from envs_jax.observation import make_observation
from envs_jax.policies import urgent_action


def seen(urgency, slack, signed, target, mask, is_noop=0.0):
    store = {"urgency": jnp.array(urgency), "slack": jnp.array(slack), "is_turn": jnp.array([1.0, 0.0])}
    return make_observation(
        tokens=[("store", 2, store)],
        actions={"is_noop": jnp.array(is_noop), "signed": jnp.array(signed)},
        action_target=jnp.array(target, jnp.int32),
        action_mask=jnp.array(mask),
    )


NOOP = [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("observation", "chosen"),
    [
        # The more urgent of two, by what is left of its slack.
        (seen([1.0, 0.9], [0.5, 0.0], [0.0, 1.0, 1.0], [-1, 0, 1], [True] * 3, NOOP), 2),
        # Unless that is illegal.
        (seen([1.0, 0.9], [0.5, 0.0], [0.0, 1.0, 1.0], [-1, 0, 1], [True, True, False], NOOP), 1),
        # The first of equal ones.
        (seen([1.0, 1.0], [0.2, 0.2], [0.0, 1.0, 1.0], [-1, 0, 1], [True] * 3, NOOP), 1),
        # As much as there is.
        (seen([1.0, 1.0], [0.2, 0.2], [0.0, 0.3, 0.6], [-1, 0, 0], [True] * 3, NOOP), 2),
        # Nobody is urgent: nothing, if that can be done.
        (seen([0.0, 0.0], [0.5, 0.2], [0.0, 1.0, 1.0], [-1, 0, 1], [True] * 3, NOOP), 0),
        # All load somebody: the one with the most slack.
        (seen([1.0, 0.2], [0.1, 0.8], [-1.0, -1.0], [0, 1], [True] * 2), 1),
        # Somebody must be given something: the least slack.
        (seen([0.0, 0.0], [0.5, 0.2], [1.0, 1.0], [0, 1], [True] * 2), 1),
        # To load one with slack is better than nothing.
        (seen([1.0, 0.0], [0.0, 1.0], [0.0, -0.5, -1.0], [-1, 0, 1], [True] * 3, NOOP), 2),
    ],
)
def test_urgent_serves_the_most_urgent_else_does_nothing(observation, chosen):
    assert int(urgent_action(observation)) == chosen


def test_urgent_takes_batches_and_is_one_of_the_policies():
    one = seen([1.0, 0.9], [0.5, 0.0], [0.0, 1.0, 1.0], [-1, 0, 1], [True] * 3, NOOP)
    many = type(one)(**{name: jnp.broadcast_to(x, (2, 3, *x.shape)) for name, x in vars(one).items()})
    found = urgent_action(many, None)
    assert found.shape == (2, 3)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, 2)
    assert "urgent" in policies.POLICIES
