"""Trains private nets on scikit-learn's handwritten digits, for benchmarks of accuracy.

Every case is a line of a file; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.data import digits
from mia_jax.training import programs
from mia_jax.types import Learner, Pool

HELD = 1400  # from here on the digits, in the order of `rows`, test


def rows() -> np.ndarray:
    """Returns the numbers of the 1,797 digits in a fixed random order."""
    return np.random.default_rng(0).permutation(1797).astype(np.int32)


def pool() -> Pool:
    """Returns the digits as vectors of 64 numbers."""
    loaded = digits.load(flat=True)
    return Pool(x=jnp.asarray(loaded.x), y=jnp.asarray(loaded.y), task=loaded.task)


def trained(learner: Learner, *, members: np.ndarray, seeds: int):
    """Returns the states of `seeds` models that were trained on the rows `members`."""
    program, examples = programs.make(learner=learner, chunk=seeds), pool()
    keys = programs.model_keys(seed=0, models=np.arange(seeds))
    state = program.init(keys, examples)
    rows_MK = np.tile(members, (seeds, 1))
    weight_MK = np.ones(rows_MK.shape, np.float32)
    for epoch in range(1, learner.epochs + 1):
        plan = program.plan(keys, np.uint32(epoch), rows_MK, weight_MK)
        state, _ = program.run(state, examples, *plan)
    return state


def accuracies(learner: Learner, *, members: np.ndarray, seeds: int) -> list[float]:
    """Returns the test accuracy of every seed."""
    state, held = trained(learner, members=members, seeds=seeds), jnp.asarray(rows()[HELD:])
    weight = jnp.ones(len(held), jnp.float32)
    sums = jax.vmap(lambda variables: learner.evaluate(variables, pool(), held, weight))(
        state.variables
    )
    return np.asarray(sums["accuracy"] / sums["weight"], np.float64).tolist()


def parser(text: str, *, quick: str) -> argparse.ArgumentParser:
    """Returns the parser of these benchmarks: --out and --quick."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=pathlib.Path, help="a file of lines that are kept")
    made.add_argument("--quick", action="store_true", help=quick)
    return made


def kept(path: pathlib.Path | None, case: Mapping, compute: Callable[[], Mapping]) -> dict:
    """Returns the line of a case from the file, or computes it and appends it."""
    if path is not None and path.exists():
        for text in path.read_text().splitlines():
            line = json.loads(text)
            if all(line.get(name) == value for name, value in case.items()):
                return line
    line = {**case, **compute()}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return line


def summary(lines: Sequence[Mapping], *, choosing: int) -> tuple[Mapping, float, float]:
    """Returns (the best line by its first `choosing` seeds, the mean of the others, its error)."""
    best = max(lines, key=lambda line: np.mean(line["accuracy"][:choosing]))
    rest = np.array(best["accuracy"][choosing:])
    return best, float(rest.mean()), float(rest.std(ddof=1) / np.sqrt(len(rest)))
