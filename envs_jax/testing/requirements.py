"""How a check of the conformance kit says what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs_jax.testing.evidence import leaves


class DomainError(AssertionError):
    """A domain does not keep the contract of :class:`envs_jax.ResourceEnv`."""


def require(condition: Any, message: str) -> None:
    """Raises :class:`DomainError` unless the condition holds."""
    if not condition:
        raise DomainError(message)


def require_equal(one: Any, other: Any, what: str, **tolerance: float) -> None:
    """Requires two trees of equal structure and dtypes, equal up to a tolerance on floats."""
    one, other = leaves(one), leaves(other)
    require(one.keys() == other.keys(), f"{what}: {sorted(one)} against {sorted(other)}")
    for path, x in one.items():
        y = other[path]
        require(x.dtype == y.dtype, f"{what}{path}: {x.dtype} against {y.dtype}")
        if tolerance and np.issubdtype(x.dtype, np.floating):
            close: Any = np.testing.assert_allclose
            close(x, y, err_msg=f"{what}{path}", **tolerance)
        else:
            np.testing.assert_array_equal(x, y, err_msg=f"{what}{path}")
