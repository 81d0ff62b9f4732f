"""Times the private step of `benchmarks.dp_step` and its pieces: the learner of mia_jax."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import _dp_peers, _pairs

# What is measured of one set of programs; the first is what the others are compared with.
STEPS = ("plain step", "private step", "the same, Box-Muller", "clipping alone")
SUMS = ("residues of the units", "norms of the units", "weighted sums")
NOISE = ("noise", "of it the bits", "noise, Box-Muller")


class Case(NamedTuple):
    """Holds the sizes of a case: `steps` steps in one scan, which is measured `repeats` times.

    `layers` says whether it has convolutions, whose programs can be measured.
    """

    model: str
    batch: int
    shape: tuple[int, ...]
    steps: int
    repeats: int
    layers: bool


class Trainer(NamedTuple):
    """Holds a learner and the arguments of one epoch of it."""

    learner: Any
    state: Any
    pool: Any
    index_SB: Any
    weight_SB: Any

    def epoch(self, choice=None) -> Callable[[], object]:
        """Returns a call of the compiled epoch, its convolutions by `choice`."""
        import jax

        from mia_jax.models.kernels import convolution

        args = (self.state, self.pool, self.index_SB, self.weight_SB)
        with convolution.chosen(choice):
            run = jax.jit(self.learner.epoch).lower(*args).compile()
        return lambda: jax.block_until_ready(run(*args))

    def measured(self):
        """Returns the programs of its convolutions that run.form='layers' would choose."""
        from mia_jax.training import layerwise

        rows = np.arange(len(self.pool.y), dtype=np.int32)
        return layerwise.fastest(
            learner=self.learner,
            pool=self.pool,
            rows_K=rows,
            weight_K=np.ones(len(rows), np.float32),
            log=lambda text: print(text, file=sys.stderr),
        )


def data(sizes: Case) -> tuple[np.ndarray, np.ndarray]:
    """Draws the rows of an epoch."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((sizes.batch * sizes.steps, *sizes.shape), np.float32)
    return x, rng.integers(0, 10, len(x)).astype(np.int32)


def trainer(sizes: Case, *, private: bool, **settings) -> Trainer:
    """Returns the learner on batches of one permutation; `settings` are those of its privacy."""
    import jax
    import jax.numpy as jnp

    from mia_jax import registry
    from mia_jax.learners import backprop
    from mia_jax.objectives import cross_entropy
    from mia_jax.types import Pool, classification

    x, y = data(sizes)
    model = registry.make("models", sizes.model, num_classes=10)
    pool = Pool(x=jnp.asarray(x), y=jnp.asarray(y), task=classification(10))
    common = dict(model=model, loss=cross_entropy.make(model=model), num_rows=len(x), epochs=1)
    common |= dict(batch_size=sizes.batch, optimizer="sgd", learning_rate=_dp_peers.RATE)
    if private:
        privacy = dict(clip_norm=_dp_peers.CLIP, noise_multiplier=_dp_peers.NOISE)
        privacy |= dict(sampling="shuffle", adjacency="zero_out") | settings
        common |= dict(gradient="private", privacy=privacy, sample=pool)
    learner = backprop.make(**common)
    state = learner.init(jax.random.key(0), pool)
    rows, weight = jnp.arange(len(x), dtype=jnp.int32), jnp.ones(len(x), jnp.float32)
    index_SB, weight_SB = learner.plan(jax.random.key(1), jnp.uint32(1), rows, weight)
    return Trainer(learner, state, pool, index_SB, weight_SB)


def timed(role: str, sizes: Case) -> dict:
    """Returns what the contender of this role reports."""
    settings = dict(
        clipping=dict(noise_multiplier=0.0),
        vmap=dict(method="vmap"),
        box_muller=dict(normals="box_muller"),
    )
    plain = role.startswith("plain")
    made = trainer(sizes, private=not plain, **settings.get(role, {}))
    run = made.epoch(made.measured() if role.endswith("layers") else None)
    count = 2 if role == "vmap" else sizes.repeats
    result = _dp_peers.typical(run, count=count, steps=sizes.steps)
    if role == "whole":
        alone = drawn(made, sizes.steps, "inverse")
        spent = _dp_peers.repeated(alone, count=count, warm=1)
        result["noise_s"] = float(np.median([call.wall_s for call in spent])) / sizes.steps
    return result


def drawn(made: Trainer, steps: int, normals: str) -> Callable[[], object]:
    """Returns a call that draws the noise of `steps` steps and adds it to the parameters.

    `normals` is one of noise.NORMALS, or 'bits' for random words that are not made normal.
    """
    import jax
    import jax.numpy as jnp

    from mia_jax.privacy import noise

    def one(key, total):
        if normals != "bits":
            return noise.gaussian(key, total, 1.0, normals)

        def bits(path, leaf):
            first, second = noise.words(noise.leaf_key(key, str(path)), leaf.shape)
            positive = ((first ^ second) >> 9) | jnp.uint32(0x3F800000)
            return jax.lax.bitcast_convert_type(positive, jnp.float32)

        return jax.tree_util.tree_map_with_path(bits, total)

    def all_steps(total, key):
        def add(total, step):
            return jax.tree.map(jnp.add, total, one(jax.random.fold_in(key, step), total)), None

        return jax.lax.scan(add, total, jnp.arange(steps))[0]

    args = (made.state.variables["params"], made.state.key)
    run = jax.jit(all_steps).lower(*args).compile()
    return lambda: jax.block_until_ready(run(*args))


def sums(made: Trainer, choice) -> dict[str, Callable[[], object]]:
    """Returns calls of the parts of a clipped sum of one batch, of which each is compiled alone."""
    import jax
    import jax.numpy as jnp

    from mia_jax.learners import _parameters, backprop
    from mia_jax.models.kernels import convolution
    from mia_jax.objectives import cross_entropy
    from mia_jax.privacy import gradients

    params, weight_B = made.state.variables["params"], made.weight_SB[0]
    rows = (backprop.rows(made.pool, made.index_SB[0], weight_B), None)
    loss, frozen = cross_entropy.make(model=made.learner.model), _parameters.split(params, "")[1]
    losses = backprop.losses_of(loss, frozen)
    units, flat, ops = len(weight_B), gradients.paths(params), {}

    def residues(params, rows):
        kept, operations, _ = gradients.residues(losses, params, rows, weight_B, units)
        ops.update(operations)
        return {path: tap.parts for path, tap in kept.items()}

    def norms(parts):
        return {path: ops[path].squares(parts[path]) for path in flat}

    def weighted(parts, factor_U):
        return {path: ops[path].gradient(parts[path], factor_U, flat[path]) for path in flat}

    def compiled(function, *args):
        run = jax.jit(function).lower(*args).compile()
        return lambda: jax.block_until_ready(run(*args))

    with convolution.chosen(choice):
        first = compiled(residues, params, rows)
        parts = first()
        later = compiled(norms, parts), compiled(weighted, parts, jnp.ones(units, jnp.float32))
    return dict(zip(SUMS, (first, *later), strict=True))


def pieces(sizes: Case, *, rounds: int) -> dict[str, dict[str, float]]:
    """Returns CPU milliseconds of each piece of a step: {'default' or 'layers': {piece: ms}}.

    All pieces take turns in this process, on one core; each is the median of `rounds`.
    """
    plain, private = trainer(sizes, private=False), trainer(sizes, private=True)
    makers = (
        plain,
        private,
        trainer(sizes, private=True, normals="box_muller"),
        trainer(sizes, private=True, noise_multiplier=0.0),
    )
    calls: dict[tuple[str, str], tuple[Callable, int]] = {}
    for form in ("default", "layers") if sizes.layers else ("default",):
        tables = {
            kind: made.measured() if form == "layers" else None
            for kind, made in dict(plain=plain, private=private).items()
        }
        for name, made in zip(STEPS, makers, strict=True):
            choice = tables["plain" if made is plain else "private"]
            calls[form, name] = made.epoch(choice), sizes.steps
        for name, call in sums(private, tables["private"]).items():
            calls[form, name] = call, 1
    for name, normals in zip(NOISE, ("inverse", "bits", "box_muller"), strict=True):
        calls["default", name] = drawn(private, sizes.steps, normals), sizes.steps
    spent = {key: [] for key in calls}
    for call, _ in calls.values():
        call()
    for _ in range(rounds):
        for key, (call, steps) in calls.items():
            repeats, start = sizes.steps // steps, time.process_time()
            for _ in range(repeats):
                call()
            spent[key].append((time.process_time() - start) / (repeats * steps) * 1e3)
    table: dict[str, dict[str, float]] = {}
    for (form, name), times in spent.items():
        table.setdefault(form, {})[name] = float(np.median(times))
    return table


def text(case: str, table: dict[str, dict[str, float]]) -> str:
    """Returns the table of the pieces as text."""
    forms = list(table)
    header = ["", *(column for form in forms for column in (f"{form}, ms", "x plain"))]
    rows = []
    for name in (*STEPS, *SUMS, *NOISE):
        cells = []
        for form in forms:
            ms = table[form].get(name)
            cells += ["", ""] if ms is None else [f"{ms:.3g}", f"{ms / table[form][STEPS[0]]:.2f}"]
        rows.append([name, *cells])
    for name, noise in (("plain step + noise", NOISE[0]), ("the same, Box-Muller", NOISE[2])):
        cells = []
        for form in forms:
            bound = table[form][STEPS[0]] + table["default"][noise]
            cells += [f"{bound:.3g}", f"{bound / table[form][STEPS[0]]:.2f}"]
        rows.append([name, *cells])
    return f"\n{case}: CPU ms per step, one core\n\n" + _pairs.table(header, rows)
