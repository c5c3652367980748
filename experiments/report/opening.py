"""What a report opens with: what was asked, what came out, and what must not be concluded, for a newcomer."""

from __future__ import annotations

from experiments.harness.plan import HELD_OUT, IN_DOMAIN, ONE_AGENT
from experiments.report import means
from experiments.report.results import Condition, Results
from experiments.report.tables import number, shown

SCALE = (
    "A score of 0 is the better of doing nothing and acting at random, 1 is a reference policy that knows the task's "
    "hidden numbers. K is the number of practice episodes. Brackets hold 95 % intervals."
)


ARMS = {"reference": "trained with the reference's choices as labels", "rl-only": "trained from reward alone"}
"""What tells arms apart."""


def _episodes(count: int) -> str:
    return f"{count} practice episode{'s' if count > 1 else ''}"


def _kinds(count: int) -> str:
    return f"{count} kinds of allocation problem (domains)" if count > 1 else "one kind of allocation problem (domain)"


def asked(results: Results) -> str:
    """What was asked, in one sentence."""
    practice = _episodes(results.most)
    own = {
        ONE_AGENT: f"can one agent, trained in {_kinds(len(results.baselines))}, get better at a new task of any of "
        f"them from {practice} on that task",
        IN_DOMAIN: f"can an agent, trained in {_kinds(1)}, get better at a new task of it from {practice} on that task",
    }
    parts = [next(text for setting, text in own.items() if setting in results.settings)] if _known(results) else []
    if HELD_OUT in results.settings:
        short = "and can an agent do so in a domain that was left out of its training"
        whole = f"can an agent get better at a task of a domain that was left out of its training from {practice}"
        parts.append(short if parts else whole)
    return f"Asked: {', '.join(parts)}?"


def _known(results: Results) -> bool:
    return bool({ONE_AGENT, IN_DOMAIN} & set(results.settings))


def came_out(results: Results) -> str:
    """What came out, in one sentence: of the first arm, and of the others what the one agent scores."""
    arm, *others = results.arms
    most, none, swap = Condition(results.most), Condition(0), Condition(results.most, "swap")
    parts = []
    if cells := results.cells(ONE_AGENT):
        score, before, swapped = (means.mean(results, arm, cells, c) for c in (most, none, swap))
        beside = "".join(f" ({ARMS[o]} {shown(means.mean(results, o, cells, most))})" for o in others)
        parts.append(
            f"in known domains the one agent scores {shown(score)} on average with practice{beside}, "
            f"{number(before.estimate)} without, and {number(swapped.estimate)} with practice on another task"
        )
    if cells := results.cells(IN_DOMAIN):
        score, before = (means.mean(results, arm, cells, c) for c in (most, none))
        those = "agents of one domain each score" if len(cells) > 1 else "the agent scores"
        parts.append(f"{those} {shown(score)} there with practice and {number(before.estimate)} without")
    if cells := results.cells(HELD_OUT):
        score, before = (means.mean(results, arm, cells, c, means.VIEW) for c in (most, none))
        found = means.count(results, arm, cells)
        parts.append(
            f"in domains that were left out agents score {shown(score)} on average with practice and "
            f"{number(before.estimate)} without (scores clipped to [-1, 1]), above 0 by interval in "
            f"{found.above_floor_by_interval} of {found.domains}"
        )
    return f"Came out, {ARMS[arm]}: {'; '.join(parts)}."


def not_to_be_concluded(results: Results) -> str:
    """What must not be concluded, in one sentence: what this run did not test, or tested and did not find."""
    arm = results.arms[0]
    parts = []
    if cells := results.cells(HELD_OUT):
        found = means.count(results, arm, cells)
        few = 2 * found.gains <= found.domains
        claim = "agents learn domains which they have never seen" if few else "agents learn any domain never seen"
        parts.append(f"that {claim}: practice helps there, intervals apart, in {found.gains} of {found.domains}")
    else:
        parts.append("anything about domains left out of training: this run tested none")
    if cells := results.cells(ONE_AGENT):
        found = means.count(results, arm, cells)
        if min(found.gains, found.swap_lowers) < found.domains:
            parts.append(
                "that every high score is adaptation: practice on the task beats no practice in "
                f"{found.gains} of {found.domains} known domains, and practice on another task in {found.swap_lowers}"
            )
    runs = f"are {results.seeds} training runs" if results.seeds > 1 else "is one training run"
    parts.append(f"that other training runs or tasks would give these numbers: there {runs} of each agent")
    return f"Do not conclude {'; nor '.join(parts)}."


def sentences(results: Results) -> list[str]:
    """The three sentences."""
    return [asked(results), came_out(results), not_to_be_concluded(results)]
