"""A picture of one episode under the heuristic and under the reference: ``python -m benchmarks.quality.episode``.

Both play the same new task on the same noise. Above, what each earned so far, beside random choices and doing nothing;
below, entity by entity over the periods, what it held (``level``), how badly it needed something (``urgency``), and
what was decided for it (``signed``, added up over its turns).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from benchmarks import command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from envs_jax.environment import ResourceEnv

SHOWN: tuple[Literal["heuristic"], Literal["reference"]] = ("heuristic", "reference")
ROWS = ("level", "urgency", "decision")


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Attributes:
      domains: which; none means all.
      seed: of the task and its noise.
      out: folder for ``<domain>.png``.
    """

    domains: tuple[str, ...] = ()
    seed: int = 0
    out: pathlib.Path = pathlib.Path("docs/domains")

    def __post_init__(self) -> None:
        """Refuses what is not registered, and numbers without a meaning."""
        command.check_domains(self.domains)
        command.check_seed(self)


@dataclasses.dataclass(frozen=True)
class Episode:
    """One policy's episode.

    Attributes:
      earned: ``f32[P]`` sum of (expected) rewards up to each period.
      tables: by name of :data:`ROWS`, ``f32[N, P]`` a value for every entity and period.
      entities: ``N`` names, a role and a number each.
    """

    earned: np.ndarray
    tables: dict[str, np.ndarray]
    entities: list[str]


def play(env: ResourceEnv, seed: int) -> dict[str, Episode]:
    """One episode of every anchor policy, on the same task and noise."""
    import jax

    from envs_jax import policies
    from envs_jax.observation import ACTION_COLUMNS, ROLES, TOKEN_COLUMNS
    from envs_jax.rollout import recurrent_rollout

    task_key, episode_key, act_key = jax.random.split(jax.random.key(seed), 3)
    tasks = jax.tree.map(lambda leaf: leaf[None], env.sample_params(task_key))
    names: tuple[policies.PolicyName, ...] = ("random", "noop", *SHOWN)
    found: dict[str, Episode] = {}
    for name in names:
        act, memory = policies.policy(env, name, tasks), policies.memory(env, 1, 1)
        (steps,), *_ = jax.jit(
            lambda act=act, memory=memory: recurrent_rollout(
                (env,), (tasks,), (episode_key[None, None],), act, memory, act_key
            )
        )()
        seen, action, paid = jax.device_get(
            jax.tree.map(lambda leaf: leaf[:, 0, 0], (steps.observation, steps.action, steps.info["expected_reward"]))
        )
        first = seen.tokens[:: env.num_turns]  # [P, N, F], at the start of each period
        rows = np.arange(env.horizon)
        target = seen.action_target[rows, action]
        amount = seen.actions[rows, action, ACTION_COLUMNS.index("signed")]
        decided = amount[:, None] * (np.arange(env.num_tokens) == target[:, None])
        tables = {column: first[:, :, TOKEN_COLUMNS.index(column)].T for column in ("level", "urgency")}
        tables["decision"] = decided.reshape(env.num_periods, env.num_turns, -1).sum(1).T
        roles = first[0][:, [TOKEN_COLUMNS.index(f"role_{role}") for role in ROLES]].argmax(-1)
        entities = [f"{ROLES[role]} {np.sum(roles[:i] == role) + 1}" for i, role in enumerate(roles)]
        earned = np.cumsum(paid.reshape(env.num_periods, -1).sum(-1))
        found[name] = Episode(earned, tables, entities)
    return found


def draw(env: ResourceEnv, episodes: dict[str, Episode]) -> Figure:
    """The picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3 + 0.22 * len(ROWS) * (env.num_tokens + 3)), layout="constrained")
    grid = figure.add_gridspec(1 + len(ROWS), 2, height_ratios=[12, *[env.num_tokens + 3] * len(ROWS)])
    top = figure.add_subplot(grid[0, :])
    low = min(episodes[name].earned.min() for name in SHOWN)
    for name, episode in episodes.items():
        top.plot(episode.earned, label=name, linewidth=2 if name in SHOWN else 1, alpha=1 if name in SHOWN else 0.6)
        if name in SHOWN or name == "noop":
            low = min(low, episode.earned.min())
    high = max(episode.earned.max() for episode in episodes.values())
    margin = 0.05 * max(high - low, 1e-6)
    # Random choices may lose so much that nothing else could be told apart.
    top.set_ylim(low - margin, high + margin)
    top.set(title=f"{env.name}: one new task, same noise", ylabel=env.reward_unit, xlabel="period")
    top.legend(loc="best", fontsize=8)
    for i, row in enumerate(ROWS):
        both = np.concatenate([episodes[name].tables[row] for name in SHOWN])
        signed = both.min() < 0
        limit = max(float(np.abs(both).max()), 1e-6)
        for j, name in enumerate(SHOWN):
            axes = figure.add_subplot(grid[1 + i, j])
            picture = axes.imshow(
                episodes[name].tables[row],
                aspect="auto",
                interpolation="nearest",
                cmap="RdBu" if signed else "viridis",
                vmin=-limit if signed else 0.0,
                vmax=limit,
            )
            axes.set_title(f"{row}, {name}", fontsize=9)
            axes.set_yticks(range(env.num_tokens), episodes[name].entities if j == 0 else [""] * env.num_tokens)
            axes.tick_params(labelsize=7)
        figure.colorbar(picture, ax=figure.axes[-2:], fraction=0.03)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    config = command.parse(Config, __doc__, arguments)
    try:
        command.prepare_folder(config.out)
    except ValueError as error:
        command.refuse(error)

    import envs_jax

    for env in [envs_jax.make(name)[0] for name in config.domains or envs_jax.registered()]:
        path = config.out / f"{env.name}.png"
        # No date and no version in the file: the same episode makes the same bytes.
        draw(env, play(env, config.seed)).savefig(path, dpi=80, metadata={"Software": None})
        print(f"written to {path}")


if __name__ == "__main__":
    main()
