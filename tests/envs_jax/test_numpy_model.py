"""The check of NumPy models finds what is planted, and says where: domain, period, turn, model and field."""

import functools

import jax
import numpy as np
import pytest

from benchmarks.numpy_models.portfolio import BatchModel, LoopModel
from envs_jax.domains.portfolio import Portfolio
from envs_jax.observation import TOKEN_COLUMNS
from envs_jax.testing import Tolerances, check_numpy_model, columns, leaves_by_name, record_episode

ENV = Portfolio(num_assets=2, num_factors=2, num_periods=3)
CLOSE = Tolerances(tokens=(1e-4, 2e-5), reward=(1e-4, 1e-4), figures=(1e-4, 1e-4))
# Turn 1 of period 1.
PLACE = "portfolio, period 1, turn 1, recording 0, loop model"


@functools.cache
def recordings():
    tasks = [ENV.default_params, ENV.sample_params(jax.random.key(1))]
    return [record_episode(ENV, task, jax.random.key(seed)) for seed, task in enumerate(tasks)]


def check(loop_model=LoopModel, batch_model=BatchModel, given=None, **options):
    return check_numpy_model(ENV, loop_model, batch_model, given or recordings(), CLOSE, **options)


def test_right_models_pass_with_one_recording_with_many_and_with_none():
    assert [type(loop) for loop in check()] == [LoopModel, LoopModel]
    check(given=recordings()[1:])
    check(loop_model=None)
    check(batch_model=None)
    assert len(check_numpy_model(ENV, LoopModel, BatchModel, tolerances=CLOSE)) == 3


def test_a_recording_holds_what_the_environment_did():
    recording = recordings()[1]
    assert recording.tokens.shape == (ENV.horizon + 1, ENV.num_tokens, len(TOKEN_COLUMNS))
    assert recording.action_mask.shape == (ENV.horizon + 1, ENV.num_actions)
    assert recording.action_mask[np.arange(ENV.horizon), recording.action].all()
    # The uniforms are those of the period, the same for all its turns.
    assert recording.uniforms.shape == (ENV.horizon, ENV.num_uniforms)
    np.testing.assert_array_equal(recording.uniforms[0], recording.uniforms[1])
    assert (recording.uniforms[1] != recording.uniforms[2]).all()
    assert (recording.reward.reshape(-1, ENV.num_turns)[:, :-1] == 0).all()
    assert recording.task.keys() == leaves_by_name(ENV.default_params).keys()


def broken(base, **methods):
    """A model whose methods' results are changed at the fourth choice: ``method -> function of its result``."""

    def wrap(name, change):
        def method(self, *arguments):
            result = getattr(base, name)(self, *arguments)
            self.calls[name] = self.calls.get(name, 0) + 1
            return change(result) if self.calls[name] == 4 else result

        return method

    def start(self, params, num_periods=32):
        base.__init__(self, params, num_periods)
        self.calls = {}

    return type("Broken", (base,), {"__init__": start, **{name: wrap(name, f) for name, f in methods.items()}})


def add(array, place, amount):
    array = np.array(array, float)
    array[place] += amount
    return array


PLANTED = [
    ({"tokens": lambda x: add(x, (1, 5), 1e-3)}, "tokens of entity 1, column 'role_carrier' is"),
    ({"tokens": lambda x: add(x, (2, 0), np.nan)}, "tokens of entity 2, column 'urgency' is nan"),
    ({"tokens": lambda x: x[:-1]}, "tokens has shape"),
    ({"action_mask": lambda x: ~x}, "action mask[0] is"),
    ({"step": lambda x: (x[0] + 1e-3, x[1])}, "reward is"),
    ({"step": lambda x: (x[0], {k: v for k, v in x[1].items() if k != "cost"})}, "figures lack cost"),
    ({"step": lambda x: (x[0], {**x[1], "luck": 1.0})}, "info of the environment has no luck"),
    ({"step": lambda x: (x[0], {**x[1], "cost": x[1]["cost"] + 1})}, "figure 'cost' is"),
]


@pytest.mark.parametrize(("methods", "message"), PLANTED)
def test_what_is_planted_in_a_loop_model_is_found_where_it_is(methods, message):
    with pytest.raises(AssertionError) as error:
        check(loop_model=broken(LoopModel, **methods))
    assert str(error.value).startswith(f"{PLACE}: {message}")


def test_what_is_planted_in_any_row_of_a_batch_model_is_found():
    for row in (0, 1):
        model = broken(BatchModel, tokens=lambda x, row=row: add(x, (row, 1, 9), 1e-3))
        with pytest.raises(AssertionError, match=f"recording {row}, batch model: tokens of entity 1, column 'level'"):
            check(batch_model=model)


def test_figures_before_the_end_of_a_period_are_refused():
    class Early(LoopModel):
        def step(self, action, uniforms):
            reward, figures = super().step(action, uniforms)
            return reward, figures or {"cost": 0.0}

    with pytest.raises(AssertionError, match=r"period 0, turn 0, .* figures before the period's last turn: cost"):
        check(loop_model=Early)


def test_the_view_after_the_last_choice_is_compared():
    def cut(recording, length):
        return recording._replace(tokens=recording.tokens[:length], action_mask=recording.action_mask[:length])

    wrong = [r._replace(tokens=np.concatenate([r.tokens[:-1], r.tokens[-1:] + 1])) for r in recordings()]
    with pytest.raises(AssertionError, match="portfolio, after the last period, recording 0, loop model: tokens"):
        check(given=wrong)
    check(given=[cut(r, ENV.horizon) for r in wrong])
    with pytest.raises(ValueError, match="recording 0 has 5 choices, an episode 6"):
        check(given=[cut(r, ENV.horizon - 1) for r in wrong])


def test_named_figures_may_have_tolerances_of_their_own():
    (recording, _) = recordings()
    off = recording._replace(info={**recording.info, "cost": recording.info["cost"] + 0.5})
    with pytest.raises(AssertionError, match="figure 'cost'"):
        check(given=[off])
    wide = Tolerances(CLOSE.tokens, CLOSE.reward, CLOSE.figures, named={"cost": (0.0, 1.0)})
    check_numpy_model(ENV, LoopModel, BatchModel, [off], wide)


def test_own_checks_run_before_every_choice():
    times = []
    check(given=recordings()[:1], inspect=lambda model, time: times.append((type(model), time)))
    assert times == [(LoopModel, time) for time in range(ENV.horizon)]


def test_columns_go_by_name():
    assert columns("urgency", "private_f") == (0, len(TOKEN_COLUMNS) - 1)
    assert columns() == ()
    with pytest.raises(ValueError, match="unknown column 'urgncy'; did you mean 'urgency'"):
        columns("urgncy")


def test_no_model_is_no_check():
    with pytest.raises(ValueError, match="portfolio: no model to check"):
        check_numpy_model(ENV, None, None)
