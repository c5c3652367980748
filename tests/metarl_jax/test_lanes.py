"""Lanes compute what they would alone, on as many devices as divide them."""

from __future__ import annotations

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from metarl_jax import lanes


def test_over_lanes_maps_own_and_shares_common_arguments() -> None:
    def affine(slope: chex.Array, offset: chex.Array, x: chex.Array) -> chex.Array:
        return slope * x + offset

    program = lanes.over_lanes(affine, 3, shared=1)
    result = program(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 0.0, 1.0]), jnp.array([1.0, 10.0]))
    np.testing.assert_array_equal(result, [[1.0, 10.0], [2.0, 20.0], [4.0, 31.0]])
    assert lanes.over_lanes(affine, 3, shared=1) is program


def test_a_single_lane_computes_what_it_would_among_others() -> None:
    """It takes a way of its own through the code, as does the only lane of each device in training."""

    def scaled(tree: dict[str, chex.Array], factor: chex.Array) -> dict[str, chex.Array]:
        return {"sum": factor * tree["x"].sum(), "x": tree["x"] + tree["y"]}

    trees = {"x": jnp.arange(6.0).reshape(2, 3), "y": jnp.array([1.0, -2.0])}
    both = lanes.over_lanes(scaled, 2, shared=1)(lanes.place(trees, 2), jnp.float32(3.0))
    for lane in range(2):
        mine = {name: leaf[lane : lane + 1] for name, leaf in trees.items()}
        alone = lanes.over_lanes(scaled, 1, shared=1)(lanes.place(mine, 1), jnp.float32(3.0))
        for name, leaf in both.items():
            np.testing.assert_array_equal(alone[name], leaf[lane : lane + 1])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_the_mesh_divides_the_lanes(count: int) -> None:
    assert count % lanes.lane_mesh(count).size == 0


def test_placed_arguments_need_no_second_program() -> None:
    program = lanes.over_lanes(jnp.sin, 2)
    once = program(lanes.place(np.zeros(2, np.float32), 2))
    compiled = program._cache_size()
    program(once)  # a result goes in as it came out
    assert program._cache_size() == compiled
