"""Long chains of network traffic, for tests of queueing theory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import sampling
from envs_jax.references import max_weight

LONGEST, INDEX, SCATTERED, BLIND = range(4)  # rules that `simulate` follows


@functools.partial(jax.jit, static_argnums=0)
def simulate(env, params, rule, index, keys):
    """Chains ``[B]`` of one slot a frame: what each holds after service [weighted packets], ``[B, T]``.

    ``rule [B]``: the longest connected queue, the largest ``index [B, K]`` among ready flows, a random ready flow, or
    blindly any activation.
    """

    def chain(params, rule, index, key):
        def body(state, time):
            noise = jax.random.uniform(jax.random.fold_in(key, time + 1_000_000), (env.num_flows,))
            ready = state.connected & (state.queue > 0)
            largest, scattered = (max_weight.best(env.menu, weight, ready) for weight in (index, noise))
            blind = jnp.floor(noise[0] * env.noop_action).astype(jnp.int32)
            action = jnp.stack([jnp.int32(env.noop_action), largest, scattered, blind])[rule]
            state = env.choose(state, 0, action, params)
            uniforms = sampling.uniforms(key, time, env.num_uniforms)
            state, _, info = env.advance(state, uniforms, params)
            return state.replace(time=time + 1), info["holding_cost"]

        _, state = env.reset_env(key, params)
        return jax.lax.scan(body, state, jnp.arange(env.num_periods))[1]

    return jax.vmap(chain)(params, rule, index, keys)


def stack(tasks, copies):
    """``copies`` of each task, one after another."""
    return jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), copies, axis=0), *tasks)


def mean_and_error(x):
    """Mean of ``x [chains, ...]`` and the standard error of the mean over chains."""
    x = np.asarray(x, np.float64).reshape(len(x), -1).mean(1)
    return x.mean(), x.std(ddof=1) / np.sqrt(len(x))
