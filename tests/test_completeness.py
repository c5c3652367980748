"""Every registered domain has what a reader expects of one: NumPy models, tests, a page, a bound or a reason."""

import inspect
import pathlib

import pytest

import envs_jax
from benchmarks.numpy_models import has_models, models
from benchmarks.quality import bounds
from envs_jax.testing import BatchModel, LoopModel

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("name", envs_jax.registered())
def test_every_domain_has_numpy_models_by_the_protocols(name):
    assert has_models(name), f"no benchmarks/numpy_models/{name}.py"
    for model, protocol in zip(models(name), (LoopModel, BatchModel), strict=True):
        assert issubclass(model, protocol), f"{name}: {model.__name__} is no {protocol.__name__}"
        assert not inspect.isabstract(model), f"{name}: {model.__name__} lacks {sorted(model.__abstractmethods__)}"
        first, second, *_ = inspect.signature(model).parameters
        assert (first, second) == ("params", "num_periods")
        for method in ("reset", "action_mask", "step", "tokens"):
            assert list(inspect.signature(getattr(model, method)).parameters) == list(
                inspect.signature(getattr(protocol, method)).parameters
            ), f"{name}: {model.__name__}.{method}"


@pytest.mark.parametrize("name", envs_jax.registered())
def test_every_domain_has_a_test_file_that_checks_its_models(name):
    file = ROOT / "tests" / "envs_jax" / f"test_{name}.py"
    assert file.exists(), f"no {file.relative_to(ROOT)}"
    text = file.read_text(encoding="utf-8")
    assert "def test_" in text
    assert "check_numpy_model(" in text, f"{file.name} does not hold the NumPy models against the environment"


@pytest.mark.parametrize("name", envs_jax.registered())
def test_every_domain_has_a_page_with_a_picture(name):
    page = ROOT / "docs" / "domains" / f"{name}.md"
    assert page.exists(), f"no {page.relative_to(ROOT)}"
    assert page.with_suffix(".png").exists()
    assert f"{name}.png" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", envs_jax.registered())
def test_every_domain_has_a_bound_or_a_reason_why_not(name):
    assert (name in bounds.BOUNDS) != (name in bounds.WITHOUT)


def test_no_model_or_page_is_left_of_a_domain_that_is_gone():
    known = set(envs_jax.registered())
    helpers = {"__init__", "inversion"}
    assert {path.stem for path in (ROOT / "benchmarks" / "numpy_models").glob("*.py")} - helpers == known
    assert {path.stem for path in (ROOT / "docs" / "domains").glob("*.md")} == known
