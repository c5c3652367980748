"""The checks of meaning: a right domain passes them, and each planted fault is found by the check made for it."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.observation import ACTION_COLUMNS, TOKEN_COLUMNS
from envs_jax.testing import DomainError, check_domain, documentation, meaning, signs
from envs_jax.testing.evidence import Evidence
from tests.envs_jax.queues import Queues

MEANT = (*meaning.CHECKS, "expected_reward_is_the_mean_reward")


@functools.lru_cache(maxsize=1)
def right():
    return Evidence(Queues())


def failing(env):
    """Names of the checks that a domain fails, with what they say."""
    try:
        check_domain(env, only=MEANT)
    except DomainError as error:
        return dict(line.split(": ", 1) for line in str(error).splitlines()[1:])
    return {}


def token(name):
    return TOKEN_COLUMNS.index(name)


def action(name):
    return ACTION_COLUMNS.index(name)


@pytest.mark.parametrize("check", meaning.CHECKS)
def test_a_right_domain_passes(check):
    meaning.CHECKS[check](right())


# ---- whole wrong domains ------------------------------------------------------------------------------------------


class Inverted(Queues):
    # Urgency and slack are those of nobody waiting, and it is never anybody's turn.
    def observation(self, state, params):
        seen = super().observation(state, params)
        tokens = seen.tokens.at[:2, token("urgency")].set(1.0 - seen.tokens[:2, token("urgency")])
        tokens = tokens.at[:2, token("slack")].set(1.0 - tokens[:2, token("slack")])
        return seen.replace(tokens=tokens.at[:, token("is_turn")].set(0.0))


class Untrue(Queues):
    # The expected reward is 3 % off, the reference serves the cheaper queue, the heuristic reads another column.
    def advance(self, state, uniforms, params):
        state, reward, info = super().advance(state, uniforms, params)
        return state, reward, info | {"expected_reward": 1.03 * info["expected_reward"]}

    def reference_action(self, plan, state, params, key):
        return super().reference_action(plan, state, params.replace(price=2.0 - params.price), key)

    def heuristic_action(self, observation, key):
        age = jnp.where(observation.action_mask[1:], observation.column("age")[:2], -1.0)
        return jnp.where(jnp.max(age) >= 0, 1 + jnp.argmax(age), 0).astype(jnp.int32)


class Unbounded(Queues):
    # Draws no number at the upper end of its range, where no ordinary task lies.
    def sample_params(self, key, split="all"):
        rate = self.task_uniforms(key, split, 3)[2]
        return super().sample_params(key, split).replace(rate=jnp.where(rate < 0.999999, 0.3 + 0.2 * rate, jnp.nan))


def test_inverted_urgency_and_no_turn_are_found():
    found = failing(Inverted())
    assert set(found) >= {"one_entity_has_the_turn", "the_reference_serves_the_urgent", "serving_the_urgent_pays"}
    assert "expected_reward_is_the_mean_reward" not in found
    assert "an_optimal_reference_cannot_be_improved" not in found
    assert "it is 0" in found["one_entity_has_the_turn"]
    assert "choice 0 of task 0 in random play" in found["one_entity_has_the_turn"]


def test_a_wrong_expectation_optimum_and_heuristic_are_found():
    found = failing(Untrue())
    assert set(found) == {
        "expected_reward_is_the_mean_reward",
        "an_optimal_reference_cannot_be_improved",
        "the_heuristic_reads_what_is_shown",
        "the_reference_serves_the_urgent",
    }
    assert "one choice of" in found["an_optimal_reference_cannot_be_improved"]
    assert "reads age of tokens" in found["the_heuristic_reads_what_is_shown"]


def test_a_corner_without_a_number_is_found():
    assert set(failing(Unbounded())) == {"corners_of_every_range_keep_all_this"}


# ---- wrong observations -------------------------------------------------------------------------------------------


def wrong(change):
    """The right domain's evidence with every observation changed in place."""
    own, other = right(), object.__new__(Evidence)
    vars(other).update(vars(own))

    def changed(seen):
        copied = seen.replace(**{name: getattr(seen, name).copy() for name in vars(seen)})
        change(copied)
        return copied

    vars(other)["looks"] = [look._replace(seen=changed(look.seen)) for look in own.looks]
    vars(other)["seen"] = changed(own.seen)
    return other


def set_token(name, value, rows=slice(None)):
    def change(seen):
        seen.tokens[..., rows, token(name)] = value

    return change


def set_action(name, value, which):
    def change(seen):
        seen.actions[..., which, action(name)] = value

    return change


def scaled(name, factor):
    def change(seen):
        seen.tokens[..., token(name)] *= factor

    return change


def squared(seen):
    seen.tokens[..., token("last_reward")] **= 2


def slack_of_urgency(seen):
    seen.tokens[..., token("slack")] = seen.tokens[..., token("urgency")]


FAULTS = {
    "turn of all": ("one_entity_has_the_turn", set_token("is_turn", 1.0), "is_turn is not 1 for exactly one"),
    "all are candidates": ("candidates_are_what_legal_actions_concern", set_token("is_candidate", 1.0), "is_candidate"),
    "a no-op that acts": ("the_noop_means_doing_nothing", set_action("is_noop", 1.0, 1), "for another action"),
    "a no-op of some size": ("the_noop_means_doing_nothing", set_action("amount", 0.5, 0), "amount of doing nothing"),
    "twice all": ("amounts_and_directions_are_shares", set_action("signed", -2.0, 1), "signed is outside"),
    "a share above 1": ("shares_lie_between_0_and_1", set_token("slack", 1.3, 0), "slack is outside .* it is 1.3"),
    "half urgent": ("urgency_is_relative_to_the_largest", scaled("urgency", 0.5), "largest urgency"),
    "half a capacity": ("capacity_is_a_share_of_the_largest_of_its_role", scaled("capacity", 0.5), "role carrier"),
    "negative jobs": ("quantities_are_not_negative", scaled("waiting", -1.0), r"waiting is below 0.*\(demand\)"),
    "decided before": (
        "nothing_is_decided_at_a_periods_first_choice",
        set_token("decided", 1.0, 0),
        "decided is not 0",
    ),
    "half a cycle": ("cycles_lie_on_the_unit_circle", set_token("cycle_sin", 0.5), "unit circle"),
    "no progress": ("every_entity_shows_progress_and_last_reward", set_token("progress", 0.0, 2), "progress is not"),
    "one is told": ("every_entity_shows_progress_and_last_reward", set_token("last_reward", 0.5, 0), "differs between"),
    "reward squared": ("every_entity_shows_progress_and_last_reward", squared, "last_reward"),
    "reward turned": ("every_entity_shows_progress_and_last_reward", scaled("last_reward", -1.0), "never rises"),
    "a gap": ("private_columns_are_contiguous", set_token("private_b", 1.0, 0), "private_a is always 0"),
    "not documented": ("documents_its_columns", set_token("age", 1.0, 0), "lacks age"),
    "never set": ("documents_its_columns", scaled("level", 0.0), "lists level"),
    "not documented action": (
        "documents_its_columns",
        set_action("private_a", 1.0, 1),
        "table of actions lacks private_a",
    ),
    "slack of the urgent": ("urgent_entities_have_little_slack", slack_of_urgency, "rise together"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_observation_is_found(fault):
    check, change, message = FAULTS[fault]
    with pytest.raises(DomainError, match=message):
        meaning.CHECKS[check](wrong(change))


# ---- exceptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exceptions", "message"),
    [
        ({"serving_the_urgent_pays": "Acting costs more."}, "which holds: take it out"),
        ({"serving_pays": "Acting costs more."}, "exceptions names serving_pays; allowed are"),
    ],
)
def test_an_exception_that_is_none_is_refused(exceptions, message):
    class Excused(Queues):
        pass

    Excused.exceptions = exceptions
    other = object.__new__(Evidence)
    vars(other).update(vars(right()), env=Excused())
    with pytest.raises(DomainError, match=message):
        meaning.serving_the_urgent_pays(other)


def test_an_exception_with_a_reason_excuses(monkeypatch):
    class Excused(Queues):
        exceptions = {"serving_the_urgent_pays": "Acting costs more."}  # noqa: RUF012

    other = object.__new__(Evidence)
    vars(other).update(vars(right()), env=Excused())
    monkeypatch.setattr(signs, "what_serving_brings", lambda k: -2.5)
    meaning.serving_the_urgent_pays(other)
    with pytest.raises(DomainError, match=r"t = -2\.5"):
        meaning.serving_the_urgent_pays(right())


# ---- statistics ---------------------------------------------------------------------------------------------------


def test_ranks_are_midranks_about_their_mean():
    np.testing.assert_array_equal(signs.ranks(np.array([5.0, 1.0, 5.0, 7.0])), [0.0, -1.5, 0.0, 1.5])


def test_corners_are_the_ends_of_what_uniforms_can_be():
    price = np.asarray(right().corners.price)
    np.testing.assert_allclose(price[0], 0.5, atol=1e-6)
    np.testing.assert_allclose(price[1], 1.5, atol=1e-6)
    np.testing.assert_allclose(price[2], [0.5, 1.5], atol=1e-6)
    assert np.isin(np.round(price, 5), (0.5, 1.5)).all()


def test_the_heuristic_is_seen_to_read_what_it_reads():
    assert right().heuristic_reads == {"tokens": ["waiting"], "actions": []}


# ---- docstrings ---------------------------------------------------------------------------------------------------

DOCSTRING = """A domain.

    ====== ============ ======================================
    token  column       quantity
    ====== ============ ======================================
    port   urgency      orders lost [3 units], in [0, 1]
    port   private_a, b orders, and what
                        is afloat [2 units]
    all    cycle_*      day of the year
    ====== ============ ======================================

    Roles: port ``store``.
    Actions load.

    ====== ========= ==========================
    action column    quantity
    ====== ========= ==========================
    all    private_a what it loads [10 units]
    ====== ========= ==========================
    """


def test_tables_of_a_docstring_are_read():
    found = documentation.read("maritime", DOCSTRING)
    assert found.tokens[0] == ("port", "urgency", "orders lost, in [0, 1]", "3 units")
    assert found.tokens[2] == ("port", "private_b", "orders, and what is afloat", "2 units")
    assert [line.column for line in found.tokens] == ["urgency", "private_a", "private_b", "cycle_sin", "cycle_cos"]
    assert found.actions == [("all", "private_a", "what it loads", "10 units")]
    assert found.notes == "Roles: port ``store``. Actions load."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("port   urgency ", "port   urgncy  ", "maritime: unknown column 'urgncy' in this line: 'port   urgncy"),
        ("port   urgency ", "port           ", "empty cell"),
        ("all    cycle_*  ", "port   urgency  ", "urgency of port stands in two lines"),
        ("all    cycle_*     ", "all    is_candidate", "is_candidate means the same everywhere"),
        ("Roles: ", "Rolls: ", "begins with 'Roles:'"),
        ("token  column ", "tokens column ", "no table with the header"),
        ("====== ============ ======================================\n    port", "port", "between two lines"),
    ],
)
def test_a_docstring_that_cannot_be_read_is_named(old, new, message):
    assert old in DOCSTRING
    with pytest.raises(ValueError, match=message) as raised:
        documentation.read("maritime", DOCSTRING.replace(old, new, 1))
    assert str(raised.value).startswith("maritime: ")
