"""Frozen sets of tasks: what two papers that compare agents on ``test`` of ``v1`` have in common.

A task of a set is ``sample_params`` of a key that follows from version, domain, split and number, on the domain's
default shapes. The splits share no key, so no task, and none with keys that a user draws from. What a set holds is
sealed: two means of every field are committed (``data/task_sets.json``), and a code that draws other tasks is refused
rather than passed off as the version. A deliberate change of a domain's tasks is another version.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import zlib
from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs_jax import checks, domains, sampling
from envs_jax.environment import EnvParams, ResourceEnv

SPLITS: Mapping[str, int] = {"train": 512, "validation": 64, "test": 256}
"""Splits and how many tasks each holds."""
TOLERANCE = 1e-3
"""By which a sealed mean may be off, relative to the field's root mean square: machines differ in the last bits, and a
number that is rounded to a whole one may fall to the other side in a task or two of a set."""
_BLOCK = 64  # tasks drawn by one program; divides every split
_SEALS = "task_sets.json"

Seal = dict[str, list[float] | None]
"""Two means of every field over a set, by the field's path: plain, and weighted by place.

None for a table that hangs on the last bits of what it is made of, such as a slope between two points that are nearly
one: machines differ in it.
"""


def load_tasks(domain: str, split: str = "test", version: str = "v1", num: int | None = None) -> EnvParams:
    """The frozen tasks of a domain, stacked.

    Args:
      domain: name of a domain of this package; the tasks fit ``envs_jax.make(domain)`` without further arguments.
      split: ``train`` (512 tasks), ``validation`` (64) or ``test`` (256). They share no task.
      version: of the sets.
      num: only the first ``num`` of them; None for all.

    Returns:
      ``EnvParams`` whose leaves have a leading axis of tasks: for ``jax.vmap``, ``Suite`` and ``rollout``.

    Raises:
      ValueError: for a domain, split, version or number that there is not, and if this code does not draw the tasks
        that were sealed.

    Example:
      >>> env, _ = envs_jax.make("supply_chain")
      >>> tasks = envs_jax.load_tasks("supply_chain", split="test")
      >>> seen, state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 256), tasks)
    """
    sealed = seals()
    checks.one_of("load_tasks", "version", version, sealed)
    checks.one_of("load_tasks", "domain", domain, sealed[version])
    checks.one_of("load_tasks", "split", split, SPLITS)
    count = SPLITS[split] if num is None else checks.whole_number("load_tasks", "num", num, 1, SPLITS[split])
    tasks = draw(domain, split, version)
    if faults := differences(tasks, sealed[version][domain][split]):
        raise ValueError(
            f"load_tasks: this code does not draw the {split} tasks of {domain!r} that were sealed as {version}: "
            f"{', '.join(faults)} differ"
        )
    return jax.tree.map(lambda x: x[:count], tasks)


def draw(domain: str, split: str, version: str, optimised: bool = True) -> EnvParams:
    """All tasks of a set as this code draws them, sealed or not.

    Args:
      domain: as for :func:`load_tasks`.
      split: likewise.
      version: likewise.
      optimised: False compiles without optimisation: the same tasks up to their last bits.
    """
    sample = _sampler(domains.make(domain)[0], optimised)
    keys = jax.random.split(_key(version, domain, split), SPLITS[split])
    blocks = [sample(keys[at : at + _BLOCK]) for at in range(0, SPLITS[split], _BLOCK)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *blocks)


def _key(*names: str) -> chex.PRNGKey:
    key = jax.random.key(0, impl=sampling.GENERATOR)
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return key


@functools.cache
def _sampler(env: ResourceEnv, optimised: bool) -> Callable[[chex.PRNGKey], EnvParams]:
    options = None if optimised else {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(jax.vmap(env.sample_params), compiler_options=options)


@functools.cache
def seals() -> dict[str, dict[str, dict[str, Seal]]]:
    """The committed seals, by version, domain and split."""
    text = importlib.resources.files("envs_jax.data").joinpath(_SEALS).read_text(encoding="utf-8")
    found: dict[str, dict[str, dict[str, Seal]]] = json.loads(text)
    return found


def seal(tasks: EnvParams) -> Seal:
    """Two means of every leaf of a stack of tasks, to six digits.

    The second one weights value i, counted through the leaf, by ``cos(2.4 i)``: it changes if tasks change places.
    """
    found: Seal = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tasks):
        values = np.asarray(leaf, np.float64).ravel()
        weighted = values * np.cos(2.4 * np.arange(values.size))
        found[jax.tree_util.keystr(path)] = [float(f"{x.mean():.6g}") for x in (values, weighted)]
    return found


def differences(tasks: EnvParams, sealed: Seal) -> list[str]:
    """Paths of the fields in which a stack of tasks is off its seal by more than :data:`TOLERANCE`."""
    found = seal(tasks)
    faults = sorted(found.keys() ^ sealed.keys())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tasks):
        name = jax.tree_util.keystr(path)
        here, there = found[name], sealed.get(name)
        if here is not None and there is not None:
            scale = np.sqrt(np.mean(np.square(np.asarray(leaf, np.float64))))
            off = np.abs(np.subtract(here, there)).max()
            if not off <= TOLERANCE * scale + 1e-9:
                faults.append(name)
    return faults
