"""Bounds declared on fields: what is allowed passes, all else is refused by name, value and what is allowed."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest

from metarl_jax import checks
from metarl_jax.checks import check_fields, choice, choices, number, numbers, whole, wholes


@dataclasses.dataclass(frozen=True)
class Example:
    steps: int = whole(3, 0, 100)
    rate: float = number(0.1, 0.0, 1.0, open_low=True)
    share: float = number(0.5, 0.0, 1.0, open_high=True)
    shift: float = number(0.0)
    order: str = choice("first", ("none", "first"))
    sizes: tuple[float, ...] = numbers((0.1, 1.0), 0.0, open_low=True)
    doses: tuple[int, ...] = wholes((0, 3), 0, 10, fewest=2)
    arms: tuple[str, ...] = choices(("a",), ("a", "b"))
    free: Any = None

    def __post_init__(self) -> None:
        check_fields(self, "example.")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"steps": 0},
        {"steps": 100},
        {"rate": 1.0},
        {"rate": 1},
        {"rate": 5e-324},
        {"share": 0.0},
        {"shift": -1e300},
        {"order": "none"},
        {"sizes": (1,)},
        {"doses": (10, 0, 1)},
        {"arms": ("b", "a")},
        {"free": float("nan")},
    ],
)
def test_what_is_allowed(changes: dict[str, Any]) -> None:
    kept = Example(**changes)
    assert all(getattr(kept, name) == value or value != value for name, value in changes.items())


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": -1}, "example.steps must be a whole number at least 0 and at most 100, got -1"),
        ({"steps": 101}, "got 101"),
        ({"steps": 2.0}, "example.steps must be a whole number at least 0 and at most 100, got 2.0"),
        ({"steps": True}, "got True"),
        ({"steps": "3"}, "got '3'"),
        ({"steps": None}, "got None"),
        ({"steps": NAN}, "got nan"),
        ({"steps": 10**5000}, "got a whole number of 16610 bits"),
        ({"rate": 0.0}, "example.rate must be a finite number above 0 and at most 1, got 0.0"),
        ({"rate": NAN}, "example.rate must be a finite number above 0 and at most 1, got nan"),
        ({"rate": INF}, "got inf"),
        ({"rate": True}, "got True"),
        ({"rate": 1j}, "got 1j"),
        ({"share": 1.0}, "example.share must be a finite number at least 0 and below 1, got 1.0"),
        ({"share": -0.1}, "got -0.1"),
        ({"shift": -INF}, "example.shift must be a finite number, got -inf"),
        ({"order": "third"}, "example.order must be one of none, first, got 'third'"),
        ({"order": ["first"]}, "got ['first']"),
        ({"sizes": ()}, "example.sizes must hold at least 1, got 0"),
        ({"sizes": (0.1, 0.0)}, "example.sizes must be a list, each a finite number above 0, got 0.0"),
        ({"sizes": (NAN,)}, "got nan"),
        ({"sizes": 0.1}, "example.sizes must be a list, each a finite number above 0, got 0.1"),
        ({"doses": (0,)}, "example.doses must hold at least 2, got 1"),
        ({"doses": (0, 1, 1)}, "example.doses must not repeat a value, got '0 1 1'"),
        ({"doses": (0, 11)}, "got 11"),
        ({"arms": ("a", "a")}, "example.arms must not repeat a value"),
        ({"arms": ("c",)}, "example.arms must be a list, each one of a, b, got 'c'"),
        ({"order": "x" * 5000}, f"got '{'x' * 76}..."),
        ({"order": "a\nb"}, r"got 'a\nb'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Example(**changes)
    assert len(str(error.value)) < 200
    assert str(error.value).isprintable()


def test_fields_keep_their_defaults_and_say_what_they_allow() -> None:
    fields = {field.name: field for field in dataclasses.fields(Example)}
    assert fields["rate"].default == 0.1
    assert fields["sizes"].default == (0.1, 1.0)
    assert str(checks.allowed(fields["steps"])) == "a whole number at least 0 and at most 100"
    assert checks.allowed(fields["free"]) is None


def test_it_is_free_of_jax() -> None:
    script = "import sys, metarl_jax.checks; print([name for name in ('jax', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
