"""A learner of another package: it plays a domain's own heuristic, so its scores are known. Or it fails to act.

``python -m tests.experiments.planted_learner ARGUMENTS`` registers it as ``planted`` and runs ``experiments.transfer``.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, ClassVar

from metarl_jax.configs import DataConfig, NetworkConfig


@dataclasses.dataclass(frozen=True)
class PlantedConfig:
    """``fails``: whether ``act`` raises."""

    labels: ClassVar[bool] = False

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    fails: bool = False


@dataclasses.dataclass(frozen=True)
class Heuristic:
    """Chooses as the heuristic of a domain does."""

    domain: str
    fails: bool

    def start(self, params: Any, policy: Any) -> Any:
        import envs_jax

        return envs_jax.make(self.domain)[0].heuristic_start()

    def act(self, params: Any, policy: Any, carry: Any, seen: Any, key: Any, mode: Any) -> Any:
        import jax

        import envs_jax

        if self.fails:
            raise ValueError("no idea")
        env, _ = envs_jax.make(self.domain)
        return jax.vmap(env.heuristic_step)(carry, seen, jax.random.split(key, seen.token_mask.shape[0]))


def make(config: PlantedConfig, suite: Any) -> Any:
    """Learns nothing; wants other things of the harness than the multitask control beside it: own trajectories."""
    import jax.numpy as jnp

    from metarl_jax.learners.base import Learner, Needs, Phase
    from metarl_jax.recording import Recorder

    needs = Needs(
        tasks=config.data.tasks,
        support_episodes=0,
        query_episodes=2 * config.data.episodes,
        record=Recorder(config.data.periods, ordered=True),
        support="own",
    )
    return Learner(
        name="planted",
        spec=("planted", config, suite.shapes),
        init=lambda key, hyperparams: {"iteration": hyperparams},
        update=lambda state, batch, key, phase: (
            {"iteration": state["iteration"] + 1},
            {"loss": batch.reward, "gradient_steps": jnp.float32(0.0)},
        ),
        schedule=lambda progress: Phase("none"),
        params=lambda state: state,
        adapt=lambda trained, support: (),
        actor=Heuristic("portfolio", config.fails),
        acting=lambda trained: trained,
        needs=needs,
        hyperparams=lambda iterations, labels: jnp.int32(0),
    )


if __name__ == "__main__":
    from experiments.transfer.__main__ import command
    from metarl_jax import learners

    learners.register("planted", "tests.experiments.planted_learner:PlantedConfig")
    sys.exit(command())
