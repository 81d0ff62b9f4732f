"""Audits private training by the final model alone, from a start at which a canary dominates.

    python -m benchmarks.worst_start [--quick] [--runs 1000] [--starts random,worst]
        [--model linear] [--path mnist.npz] [--epsilon 10] [--workdir runs/worst_start]

No accountant asks where training starts, so an auditor may choose the start (Annamalai and De
Cristofaro 2024, arXiv:2405.14106): parameters that were trained without privacy on other rows.
There the gradients of ordinary records are small, and that of the canary is not. The canary is a
blank image with the label that the start finds least likely.

Many models are trained by the same private mechanism (full batches of 1,000 records, clip norm 1,
100 steps, delta 1e-5); an independent fair coin decides for each whether the canary is among its
records. The score of a run is the canary's loss under the final model, the only output that the
auditor sees. Runs are independent, so every method of mia_jax/privacy/audit.py holds with each run
as a canary, and `threshold` and `threshold_gaussian` choose a threshold on half of the runs and
bound the rates of the other half by Clopper and Pearson.

The records are 999 of scikit-learn's digits, and the other 798 are those of the start; `--path` is
an .npz with x [N,784] and y [N] instead, such as MNIST. Finished parts of PART runs are read from
WORKDIR.

Per start and method a line of JSON: the lower bound `bound` on epsilon at 95% confidence, which is
that of this method if it was chosen in advance; `ceiling`, the largest possible one; `ideal`, what
an ideal attacker of a Gaussian mechanism with this epsilon typically shows; the share of test rows
that are classified correctly at the start and after the private training.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import audit_power
from mia_jax.data import digits, npz
from mia_jax.learners import backprop
from mia_jax.models import linear, mlp
from mia_jax.objectives import cross_entropy
from mia_jax.privacy import audit, audit_runs
from mia_jax.privacy.gradients import paths
from mia_jax.runtime import files
from mia_jax.training import programs
from mia_jax.types import Batch, Learner, Model, Pool

RECORDS, STEPS, DELTA = 1000, 100, 1e-5
CLIP, RATE = 1.0, 4.0  # the clip norm and the learning rate
PART, TOGETHER = 100, 25  # runs per file, and models that are trained together
STARTS = ("random", "worst")
TESTED = 400  # rows whose accuracy is shown; they are among those of the start
CURVE = dict(threshold="any", threshold_gaussian="gaussian")


class Setting(NamedTuple):
    """Holds what all runs of one start share.

    Attributes:
        learner: the private learner.
        pool: the records, of which the canary is the last one.
        other: the rows of the start.
        loss: the objective.
        model: the network.
        accuracy: that of the start on the first TESTED other rows; None for random starts.
    """

    learner: Learner
    pool: Pool
    other: Pool
    loss: Callable
    model: Model
    accuracy: float | None


def data(path: str) -> tuple[Pool, Pool]:
    """Returns (records, other rows)."""
    pool = npz.load(path=path) if path else digits.load()
    x, y = np.asarray(pool.x).reshape(len(pool.y), -1), np.asarray(pool.y)
    x = (x / max(1.0, float(x.max()))).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(y))
    parts = order[: RECORDS - 1], order[RECORDS - 1 :]
    return tuple(Pool(x=x[part], y=y[part], task=pool.task) for part in parts)


def accuracy(model: Model, variables, pool: Pool) -> jax.Array:
    """Returns the share of the first TESTED rows that are classified correctly."""
    out, _ = model.apply(variables, pool.x[:TESTED])
    return (jnp.argmax(out, 1) == pool.y[:TESTED]).mean()


def trained_start(model: Model, loss: Callable, other: Pool) -> dict:
    """Returns the variables of a model that was trained without privacy on the other rows."""
    learner = backprop.make(
        model=model, loss=loss, num_rows=len(other.y), epochs=60, batch_size=50, learning_rate=1e-2
    )
    key, rows_K = jax.random.key(0), jnp.arange(len(other.y), dtype=jnp.int32)
    state, epoch = learner.init(key, other), jax.jit(learner.epoch)
    for e in range(1, learner.epochs + 1):
        plan = learner.plan(key, jnp.uint32(e), rows_K, jnp.ones(len(other.y), jnp.float32))
        state, _ = epoch(state, other, *plan)
    return state.variables


def setting(start: str, *, net: str, path: str, epsilon: float) -> Setting:
    """Returns what the runs from this start share."""
    records, other = data(path)
    classes = records.task.num_outputs
    model = (
        linear.make(num_classes=classes)
        if net == "linear"
        else mlp.make(num_classes=classes, widths=(32,), activation="tanh", init="xavier_uniform")
    )
    loss = cross_entropy.make(model=model)
    variables = trained_start(model, loss, other)
    blank = np.zeros((1, records.x.shape[1]), np.float32)
    label = int(jnp.argmin(model.apply(variables, blank)[0][0]))
    pool = Pool(
        x=np.concatenate([records.x, blank]),
        y=np.append(records.y, label).astype(np.int32),
        task=records.task,
    )
    initial = {name: np.asarray(leaf) for name, leaf in paths(variables["params"]).items()}
    learner = backprop.make(
        model=model,
        loss=loss,
        num_rows=RECORDS,
        padded=True,
        epochs=STEPS,
        batch_size=RECORDS,
        optimizer="sgd",
        learning_rate=RATE,
        gradient="private",
        privacy=dict(clip_norm=CLIP, noise_multiplier=None, epsilon=epsilon, delta=DELTA),
        sample=Pool(x=pool.x[:8], y=pool.y[:8], task=pool.task),
        initial=initial if start == "worst" else {},
    )
    before = float(accuracy(model, variables, other)) if start == "worst" else None
    return Setting(learner, pool, other, loss, model, before)


def trainer(parts: Setting) -> Callable:
    """Returns run(keys_R, inside_R) -> (scores [R], accuracies [R]), compiled."""
    canary = Batch(
        x=jnp.asarray(parts.pool.x[-1:]),
        y=jnp.asarray(parts.pool.y[-1:]),
        task=parts.pool.task,
        weight_B=jnp.ones(1, jnp.float32),
        index_B=jnp.zeros(1, jnp.int32),
    )
    rows_K = jnp.arange(RECORDS, dtype=jnp.int32)

    def run(key, inside):
        weight_K = jnp.ones(RECORDS, jnp.float32).at[-1].set(inside.astype(jnp.float32))
        start, draws = jax.random.split(key)

        def epoch(state, number):
            plan = parts.learner.plan(draws, number, rows_K, weight_K)
            return parts.learner.epoch(state, parts.pool, *plan)[0], None

        state = parts.learner.init(start, parts.pool)
        state, _ = jax.lax.scan(epoch, state, jnp.arange(1, STEPS + 1, dtype=jnp.uint32))
        score = -parts.loss(state.variables, canary, train=False)[0][0]
        return score, accuracy(parts.model, state.variables, parts.other)

    return jax.jit(
        lambda keys, inside: jax.lax.map(lambda r: run(*r), (keys, inside), batch_size=TOGETHER)
    )


def runs_of(
    parts: Setting, folder: pathlib.Path, *, runs: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (scores [R], coins [R], accuracies [R]); finished parts are read from `folder`."""
    train, held = functools.cache(lambda: trainer(parts)), []
    for first in range(0, runs, PART):
        path = folder / f"seed{seed}_{first:05d}.npz"
        if not path.exists():
            numbers = np.arange(first, first + PART)
            inside_R = np.random.default_rng([seed, first]).random(PART) < 0.5
            began = time.process_time()
            score_R, right_R = train()(programs.model_keys(seed=seed, models=numbers), inside_R)
            values = dict(score=np.asarray(score_R), inside=inside_R, right=np.asarray(right_R))
            folder.mkdir(parents=True, exist_ok=True)
            files.write_npz(path, **values)
            spent = time.process_time() - began
            print(f"{path}: {PART} runs in {spent:.0f} CPU seconds", flush=True)
        held.append(files.read_npz(path))
    return tuple(
        np.concatenate([np.asarray(part[name]) for part in held])[:runs]
        for name in ("score", "inside", "right")
    )


def bounds(score_R: np.ndarray, inside_R: np.ndarray, *, epsilon: float) -> list[dict]:
    """Returns a row per method: {method, bound, ceiling, ideal}."""
    mu, rows, total = audit.gaussian_mu(epsilon, DELTA), [], len(score_R)
    for method, curve in CURVE.items():
        bound, _ = audit_runs.best_threshold(score_R, inside_R, delta=DELTA, curve=curve)
        top = audit_runs.ceiling_of_trials(total, delta=DELTA, curve=curve)
        rows.append(dict(method=method, bound=bound, ceiling=top, ideal=None))
    for method in audit.METHODS:
        guesses = audit_power.guesses_of(total, method)
        common = dict(canaries=total, guesses=guesses, delta=DELTA, method=method)
        observed = audit_power.statistics(score_R, inside_R, method)
        rows.append(
            dict(
                method=method,
                bound=audit.one_run(observed, delta=DELTA, method=method),
                ceiling=audit.ceiling(**common),
                ideal=audit.ideal(mu, **common),
            )
        )
    return rows


def measured(start: str, args: argparse.Namespace) -> list[dict]:
    """Returns the rows of one start."""
    parts = setting(start, net=args.model, path=args.path, epsilon=args.epsilon)
    claimed = parts.learner.guarantee.epsilon(STEPS)
    source = pathlib.Path(args.path).stem if args.path else "digits"
    case = f"{source}_{args.model}_{start}_eps{args.epsilon:g}"
    folder = pathlib.Path(args.workdir) / case
    score_R, inside_R, right_R = runs_of(parts, folder, runs=args.runs, seed=args.seed)
    separation = (score_R[inside_R].mean() - score_R[~inside_R].mean()) / score_R[~inside_R].std()
    shared = dict(
        claimed=round(claimed, 2),
        runs=len(score_R),
        separation=round(float(separation), 3),
        accuracy_of_start=parts.accuracy,
        accuracy=round(float(np.mean(right_R)), 3),
    )
    return [
        dict(case=case)
        | {key: round(v, 2) if isinstance(v, float) else v for key, v in row.items()}
        | shared
        for row in bounds(score_R, inside_R, epsilon=args.epsilon)
    ]


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table of one start."""
    first = rows[0]
    before = first["accuracy_of_start"]
    print(
        f"{first['case']}: {first['runs']} runs, epsilon {first['claimed']}, accuracy "
        f"{'' if before is None else f'{before:.3f} before and '}{first['accuracy']:.3f} after"
    )
    for row in rows:
        ideal = "" if row["ideal"] is None else f"   ideal {row['ideal']:>5.2f}"
        top = min(row["ceiling"], 999.0)
        print(
            f"  {row['method']:<20}bound {row['bound']:>6.2f}   of {top:>6.2f}{ideal}", flush=True
        )


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="100 runs of each start")
    made.add_argument("--runs", type=int, default=1000, help="models per start")
    made.add_argument("--starts", default=",".join(STARTS), help="random, worst")
    made.add_argument("--model", default="linear", choices=("linear", "mlp"))
    made.add_argument("--path", default="", help="an .npz instead of the digits")
    made.add_argument("--epsilon", type=float, default=10.0, help="the epsilon at delta 1e-5")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--workdir", default="runs/worst_start")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints its tables and lines."""
    args, lines = parser().parse_args(argv), []
    args.runs = PART if args.quick else args.runs
    unknown = sorted(set(args.starts.split(",")) - set(STARTS))
    if unknown:
        raise SystemExit(f"--starts: {unknown[0]!r} is not one of {', '.join(STARTS)}.")
    for start in args.starts.split(","):
        rows = measured(start, args)
        show(rows)
        lines += rows
    for row in lines:
        print(json.dumps(dict(benchmark="worst_start") | row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
