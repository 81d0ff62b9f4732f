"""Breaks private training in one place at a time: does an audit with Dirac canaries see it?

    python -m benchmarks.broken_privacy            # 10 seeds per broken run, 20 correct ones
    python -m benchmarks.broken_privacy --quick    # 2 seeds each
    python -m benchmarks.broken_privacy --only "no noise" "one key"

A small net is trained privately on the digits of scikit-learn, with 1,000 Dirac canaries
(mia_jax/privacy/dirac.py) and epsilon 7.06 claimed at delta 1e-5. In every run but the correct one,
the implementation is broken in one place, while its claim stays:

- 'no noise': nothing is added.
- 'half the noise': its standard deviation is sigma / 2.
- 'no clipping': gradients enter the sum as they are.
- 'one key': every step draws its noise from the same key.
- 'one key per epoch': every epoch draws the noise of the one before.
- 'fixed batches': a row takes part in the same step of every epoch, and the epsilon of Poisson
  sampling is claimed.
- 'batch mixing': half of the gradient of every row is that of another row of its batch.

A run is rejected if a lower bound on epsilon exceeds the claim, or if what was released contradicts
the mechanism. The first has half of the 5% and shares it over four scores; the second has the
other half and shares it over five tests.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from mia_jax.learners import backprop
from mia_jax.models import mlp
from mia_jax.objectives import cross_entropy
from mia_jax.privacy import audit, audit_sums, clipping, dirac, gradients, noise
from mia_jax.types import Learner, Pool, classification

CANARIES, EPOCHS, BATCH, DELTA, ALPHA = 1000, 10, 130, 1e-5, 0.05
PRIVACY = dict(clip_norm=1.0, noise_multiplier=1.0)
SEEDS, CORRECT_SEEDS = 10, 20


class Setting(NamedTuple):
    """Holds what all runs share.

    Attributes:
        learner: the watched learner.
        draw: its plan, compiled.
        size: the norm of a canary's clipped gradient.
        pool: the examples.
        rows: the rows of the canaries.
    """

    learner: Learner
    draw: Callable
    size: float
    pool: Pool
    rows: np.ndarray


def setting() -> Setting:
    """Returns the private learner with its canaries."""
    x, y = load_digits(return_X_y=True)
    pool = Pool(
        x=(x / 16).astype(np.float32), y=y.astype(np.int32), task=classification(10), name="digits"
    )
    rows = np.sort(np.random.default_rng(0).permutation(len(y))[:CANARIES])
    marked = dirac.canaries(rows, num_examples=len(y), norm=dirac.STRENGTH * PRIVACY["clip_norm"])
    model = dirac.extended(mlp.make(num_classes=10, widths=(32,)), count=CANARIES)
    learner = backprop.make(
        model=model,
        loss=dirac.with_canaries(cross_entropy.make(model=model), marked),
        num_rows=len(y) - CANARIES // 2,
        padded=True,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer="sgd",
        learning_rate=0.5,
        gradient="private",
        privacy=PRIVACY,
        sample=Pool(x=pool.x[:8], y=pool.y[:8], task=pool.task),
    )
    size = PRIVACY["clip_norm"]
    return Setting(
        dirac.watched(learner, marked, size=size), jax.jit(learner.plan), size, pool, rows
    )


def mixed(losses, params, rows, weight_B, *, units, rule, clip, **_) -> gradients.Clipped:
    """Returns the clipped sum of gradients, half of each of which is another row's."""
    split = jax.tree.map(lambda a: a.reshape(units, -1, *a.shape[1:]), rows)

    def unit_loss(params, rows):
        loss_K, aux = losses(params, {}, rows)
        return loss_K[0], (loss_K[0], jax.tree.map(lambda a: a[0], aux))

    each, (loss_B, aux) = jax.vmap(jax.grad(unit_loss, has_aux=True), (None, 0))(params, split)
    real_U = weight_B > 0
    # The next real row of the batch; empty slots are last.
    following = jnp.where(jnp.arange(units) + 1 < real_U.sum(), jnp.arange(units) + 1, 0)
    each = jax.tree.map(lambda g: (g + g[following]) / 2, each)
    flat = gradients.paths(each)
    squares = {path: jnp.square(g).reshape(units, -1).sum(1) for path, g in flat.items()}
    factors = rule.factors(squares, clip, {path: g[0].size for path, g in flat.items()})
    total = gradients.nested(
        {path: jnp.tensordot(factors[path] * real_U, g, 1) for path, g in flat.items()}
    )
    return gradients.Clipped(total, clipping.total_norm(squares), real_U, real_U, loss_B, aux)


BROKEN = {  # (module, part, what replaces it); the batches are broken in `batches`
    "correct": None,
    "no noise": (noise, "gaussian", lambda real: lambda key, tree, std: real(key, tree, 0.0)),
    "half the noise": (
        noise,
        "gaussian",
        lambda real: lambda key, tree, std: real(key, tree, std / 2),
    ),
    "no clipping": (
        gradients,
        "clipped_sum",
        lambda real: lambda *a, clip, **how: real(*a, clip=jnp.inf, **how),
    ),
    "one key": (
        noise,
        "gaussian",
        lambda real: lambda key, tree, std: real(jax.random.key(7), tree, std),
    ),
    "one key per epoch": None,
    "fixed batches": None,
    "batch mixing": (gradients, "clipped_sum", lambda real: mixed),
}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _epoch(where: int, broken: str, state, pool: Pool, index_SB, weight_SB):
    """Runs an epoch of SETTINGS[where] with the part that is broken."""
    learner = SETTINGS[where].learner
    if BROKEN[broken] is None:
        return learner.epoch(state, pool, index_SB, weight_SB)
    module, part, instead = BROKEN[broken]
    with mock.patch.object(module, part, instead(getattr(module, part))):
        return learner.epoch(state, pool, index_SB, weight_SB)


SETTINGS: list[Setting] = []  # of this process, so that programs are compiled once


def batches(parts: Setting, broken: str, key, epoch: int, inside_N: np.ndarray):
    """Returns (index_SB, weight_SB) of an epoch."""
    rows, weight = np.arange(len(inside_N), dtype=np.int32), inside_N.astype(np.float32)
    index_SB, weight_SB = parts.draw(key, epoch, rows, weight)
    if broken != "fixed batches":
        return index_SB, weight_SB
    steps, size = index_SB.shape
    index, weight = np.zeros((steps, size), np.int32), np.zeros((steps, size), np.float32)
    for s in range(steps):
        chosen = rows[inside_N & (rows % steps == s)]
        index[s, : len(chosen)], weight[s, : len(chosen)] = chosen, 1
    return jnp.asarray(index), jnp.asarray(weight)


def trained(where: int, broken: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Returns ({signal: [C]}, inside_C, accuracy of the last epoch) of a run."""
    parts = SETTINGS[where]
    rng = np.random.default_rng((seed, 1))
    inside_C = rng.random(CANARIES) < 0.5
    inside_N = np.ones(len(parts.pool.y), bool)
    inside_N[parts.rows] = inside_C
    start, drawing = jax.random.split(jax.random.key(seed))
    state = parts.learner.init(start, parts.pool)
    for epoch in range(1, EPOCHS + 1):
        index_SB, weight_SB = batches(parts, broken, drawing, epoch, inside_N)
        if broken == "one key per epoch":  # The key of a step is that of the step within the epoch.
            state = state._replace(step=jnp.int32(0))
        state, sums = _epoch(where, broken, state, parts.pool, index_SB, weight_SB)
    signals = {name: np.asarray(value) for name, value in state.opt.signals().items()}
    return signals, inside_C, float(sums["accuracy"] / sums["weight"])


class Verdict(NamedTuple):
    """Holds what an audit of one run says.

    Attributes:
        epsilon: the largest lower bound on epsilon at DELTA.
        score: the score that gave it.
        p_value: the smallest p-value of the tests of the mechanism, times their number.
        test: the test that gave it.
        by_bound: whether the bound exceeds the claim.
        by_mechanism: whether a test rejects.
    """

    epsilon: float
    score: str
    p_value: float
    test: str
    by_bound: bool
    by_mechanism: bool


def judged(parts: Setting, signals, inside_C: np.ndarray, *, claimed: float) -> Verdict:
    """Returns what the audit of a run says."""
    share = dict(delta=DELTA, alpha=ALPHA / 2 / len(dirac.SIGNALS), method="rank_sum")
    bounds = {
        name: audit.one_run(audit_sums.sums(signals[name], inside_C), **share)
        for name in dirac.SIGNALS
    }
    tests = dirac.checked(
        parts.learner.guarantee.mechanism,
        size=parts.size,
        moments={name: signals[name] for name in dirac.MOMENTS},
        inside_C=inside_C,
    )
    score = max(bounds, key=bounds.get)
    least = min(tests, key=lambda test: test.p_value)
    p_value = min(1.0, least.p_value * len(tests))
    return Verdict(
        bounds[score], score, p_value, least.name, bounds[score] > claimed, p_value <= ALPHA / 2
    )


def main(arguments: list[str] | None = None) -> None:
    """Prints a table, and a JSON line per kind of run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds each")
    parser.add_argument("--only", nargs="+", choices=list(BROKEN), default=list(BROKEN))
    asked = parser.parse_args(arguments)
    quick = asked.quick
    SETTINGS.append(setting())
    where, parts = len(SETTINGS) - 1, SETTINGS[-1]
    claimed = parts.learner.guarantee.epsilon(EPOCHS)
    print(f"claimed: epsilon {claimed:.2f} at delta {DELTA:g}", file=sys.stderr)
    head = ("run", "rejected", "by bound", "by mechanism", "median bound", "score", "test")
    table = [head]
    for broken in asked.only:
        seeds = 2 if quick else CORRECT_SEEDS if broken == "correct" else SEEDS
        begun, verdicts, accuracies = time.process_time(), [], []
        for seed in range(seeds):
            signals, inside_C, accuracy = trained(where, broken, seed)
            verdicts.append(judged(parts, signals, inside_C, claimed=claimed))
            accuracies.append(accuracy)
        rejected = sum(v.by_bound or v.by_mechanism for v in verdicts)
        median = sorted(verdicts, key=lambda v: v.epsilon)[seeds // 2]
        line = dict(
            benchmark="broken_privacy",
            run=broken,
            seeds=seeds,
            rejected=rejected,
            by_bound=sum(v.by_bound for v in verdicts),
            by_mechanism=sum(v.by_mechanism for v in verdicts),
            claimed=round(claimed, 3),
            median_bound=min(round(median.epsilon, 3), 1e6),
            score=median.score,
            test=min(verdicts, key=lambda v: v.p_value).test,
            accuracy=round(float(np.median(accuracies)), 3),
            cpu_seconds=round((time.process_time() - begun) / seeds, 1),
        )
        print(json.dumps(line), flush=True)
        counts = [f"{line[key]}/{seeds}" for key in ("rejected", "by_bound", "by_mechanism")]
        table.append((broken, *counts, f"{line['median_bound']:.2f}", line["score"], line["test"]))
    for row in table:
        print("  ".join(f"{cell:>17}" for cell in row), file=sys.stderr)


if __name__ == "__main__":
    main()
