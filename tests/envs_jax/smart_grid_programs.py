"""Programs that several tests of the smart grid share."""

import jax
import jax.numpy as jnp

from envs_jax.domains.smart_grid import SHED_COST
from envs_jax.references import economic_dispatch


@jax.jit
def serve(supply, demand):
    """Dispatch, and cost from zero, of ``demand[...]``."""
    one = lambda d: (  # noqa: E731
        economic_dispatch.dispatch(supply, d, SHED_COST),
        economic_dispatch.cost_change(supply, jnp.zeros_like(d), d, SHED_COST),
    )
    return jax.vmap(one)(demand)


def units(quadratic, linear, low, high):
    """The supply curve of units with these costs [$/h of MW] and limits [MW]."""
    rows = (jnp.asarray(x, jnp.float32) for x in (quadratic, linear, low, high))
    return economic_dispatch.merit_order(*rows)
