"""PPO on flat observations, written against gymnax alone: what a client looks like that knows nothing of this suite.

    python docs/examples/ppo_flat.py supply_chain

Schulman et al. 2017, in the shape of PureJaxRL: everything in one jitted program, ``num_envs`` environments side by
side, two small networks. Illegal actions act as the no-op, so the network needs no mask.
"""

import sys
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from gymnax.wrappers import FlattenObservationWrapper, LogWrapper

ENVS, STEPS, EPOCHS, MINIBATCHES = 32, 128, 4, 8
GAMMA, LAMBDA, CLIP, ENTROPY, RATE = 0.99, 0.95, 0.2, 0.01, 1e-3


class ActorCritic(nn.Module):
    """Logits ``f32[..., actions]`` and value ``f32[...]``."""

    actions: int

    @nn.compact
    def __call__(self, x):
        """Two networks of two layers."""
        actor, critic = (nn.tanh(nn.Dense(64)(nn.tanh(nn.Dense(64)(x)))) for _ in range(2))
        logits = nn.Dense(self.actions, kernel_init=nn.initializers.orthogonal(0.01))(actor)
        return logits, nn.Dense(1)(critic)[..., 0]


class Transition(NamedTuple):
    """One step of all environments."""

    seen: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any


def make_train(env, params, updates: int):
    """A function of a key: trains for ``updates * ENVS * STEPS`` steps; returns weights and ``f32[updates]``, the mean
    return of every environment's last finished episode (0 before the first).

    Args:
      env: a gymnax environment with a Box observation and discrete actions.
      params: its parameters.
      updates: how often.
    """
    env = LogWrapper(FlattenObservationWrapper(env))
    network = ActorCritic(env.action_space(params).n)
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))
    optimiser = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(RATE))

    def act(carry, key):
        weights, state, seen = carry
        logits, value = network.apply(weights, seen)
        action = jax.random.categorical(key, logits)
        log_prob = jnp.take_along_axis(nn.log_softmax(logits), action[:, None], -1)[:, 0]
        after, state, reward, terminated, truncated, info = step(jax.random.split(key, ENVS), state, action, params)
        done = terminated | truncated
        return (weights, state, after), (Transition(seen, action, log_prob, value, reward, done), info)

    def advantage(carry, now):
        gain, following = carry
        error = now.reward + GAMMA * following * (1 - now.done) - now.value
        gain = error + GAMMA * LAMBDA * (1 - now.done) * gain
        return (gain, now.value), gain

    def loss(weights, batch):
        now, gain, target = batch
        logits, value = network.apply(weights, now.seen)
        log_probs = nn.log_softmax(logits)
        ratio = jnp.exp(jnp.take_along_axis(log_probs, now.action[:, None], -1)[:, 0] - now.log_prob)
        gain = (gain - gain.mean()) / (gain.std() + 1e-8)
        policy = -jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * gain).mean()
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, -1).mean()
        return policy + 0.5 * jnp.square(value - target).mean() - ENTROPY * entropy

    def learn(carry, batch):
        weights, memory = carry
        change, memory = optimiser.update(jax.grad(loss)(weights, batch), memory)
        return (optax.apply_updates(weights, change), memory), None

    def update(carry, key):
        weights, memory, state, seen, scale = carry
        play_key, *epoch_keys = jax.random.split(key, 1 + EPOCHS)
        (_, state, seen), (played, info) = jax.lax.scan(act, (weights, state, seen), jax.random.split(play_key, STEPS))
        # Rewards come in each domain's own unit: the value network sees them over their standard deviation.
        scale = 0.9 * scale + 0.1 * played.reward.std()
        played = played._replace(reward=played.reward / (scale + 1e-8))
        last = network.apply(weights, seen)[1]
        _, gain = jax.lax.scan(advantage, (jnp.zeros(ENVS), last), played, reverse=True)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (played, gain, gain + played.value))
        for epoch_key in epoch_keys:
            order = jax.random.permutation(epoch_key, ENVS * STEPS).reshape(MINIBATCHES, -1)
            minibatches = jax.tree.map(lambda x, order=order: x[order], batch)
            (weights, memory), _ = jax.lax.scan(learn, (weights, memory), minibatches)
        return (weights, memory, state, seen, scale), info["returned_episode_returns"][-1].mean()

    def train(key):
        reset_key, weights_key, key = jax.random.split(key, 3)
        seen, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, ENVS), params)
        weights = network.init(weights_key, seen)
        start = (weights, optimiser.init(weights), state, seen, jnp.float32(1.0))
        (weights, *_), returns = jax.lax.scan(update, start, jax.random.split(key, updates))
        return weights, returns

    return train


if __name__ == "__main__":
    import envs_jax
    from envs_jax.adapters import FlatObservation

    env, params = envs_jax.make(sys.argv[1])
    _, returns = jax.jit(make_train(FlatObservation(env), params, updates=50))(jax.random.key(0))
    for index in range(0, 50, 5):
        print(f"update {index}: mean return {returns[index]:.1f}")
