"""Compares correlated with independent noise: the accuracy of private training at equal epsilon.

    python -m benchmarks.banded_noise --out=runs/banded_noise.jsonl      # 4 minutes on one core
    python -m benchmarks.banded_noise --quick

An MLP (64-32-10, 2,410 parameters) is trained by SGD on 1,400 of scikit-learn's 1,797 handwritten
digits and tested on the other 397: clip norm 0.5, expected batches of 140, 15 epochs (150 steps),
delta 1e-4. `bands` = 1 is DP-SGD with Poisson sampling; more bands are privacy.noise='banded' with
cyclic Poisson sampling. The noise of each is chosen for the budget. The learning rate is chosen on
seeds 0 to 2, each time by the best mean accuracy, and the table has the mean and the standard error
of the other seeds. Every case is a line of the file of --out; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.data import digits
from mia_jax.learners import backprop
from mia_jax.models import mlp
from mia_jax.objectives import cross_entropy
from mia_jax.training import programs
from mia_jax.types import Pool

BUDGETS, BANDS, RATES, SEEDS, CHOOSING = (1.0, 8.0), (1, 2, 4, 10), (1.0, 2.0, 4.0), 13, 3
MEMBERS, BATCH, EPOCHS = 1400, 140, 15


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, help="a file of lines that are kept")
    parser.add_argument("--quick", action="store_true", help="one budget, two rates, 5 seeds")
    args = parser.parse_args(argv)
    budgets, bands, rates, seeds = BUDGETS, BANDS, RATES, SEEDS
    if args.quick:
        budgets, bands, rates, seeds = (8.0,), (1, 4), (1.0, 2.0), 5
    known = {}
    if args.out is not None and args.out.exists():
        for text in args.out.read_text().splitlines():
            line = json.loads(text)
            known[line["budget"], line["bands"], line["rate"], len(line["accuracy"])] = line
    print(f"{'epsilon':>8} {'bands':>6} {'noise':>7} {'rate':>5}  test accuracy (standard error)")
    for budget in budgets:
        for count in bands:
            lines = []
            for rate in rates:
                case = (budget, count, rate, seeds)
                line = known.get(case) or measured(budget, bands=count, rate=rate, seeds=seeds)
                if case not in known and args.out is not None:
                    args.out.parent.mkdir(parents=True, exist_ok=True)
                    with args.out.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                lines.append(line)
            best = max(lines, key=lambda line: np.mean(line["accuracy"][:CHOOSING]))
            rest = np.array(best["accuracy"][CHOOSING:])
            error = rest.std(ddof=1) / np.sqrt(len(rest))
            print(
                f"{budget:8g} {count:6d} {best['noise']:7.3f} {best['rate']:5g}  "
                f"{rest.mean():.1%} ({error:.1%})",
                flush=True,
            )
    return 0


def measured(budget: float, *, bands: int, rate: float, seeds: int) -> dict:
    """Returns {budget, bands, rate, noise, accuracy}: the test accuracy of every seed."""
    pool = digits.load(flat=True)
    order = np.random.default_rng(0).permutation(len(pool.y)).astype(np.int32)
    kept, held = order[:MEMBERS], order[MEMBERS:]
    model = mlp.make(num_classes=10, widths=(32,))
    privacy = dict(clip_norm=0.5, noise_multiplier=None, epsilon=budget, delta=1e-4)
    if bands > 1:
        privacy |= dict(noise="banded", bands=bands, sampling="cyclic_poisson")
    learner = backprop.make(
        model=model,
        loss=cross_entropy.make(model=model),
        num_rows=MEMBERS,
        sample=Pool(x=pool.x[:1], y=pool.y[:1], task=pool.task),
        gradient="private",
        privacy=privacy,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer="sgd",
        learning_rate=rate,
    )
    program = programs.make(learner=learner, chunk=seeds)
    bare = Pool(x=jnp.asarray(pool.x), y=jnp.asarray(pool.y), task=pool.task)
    keys = programs.model_keys(seed=0, models=np.arange(seeds))
    state = program.init(keys, bare)
    rows, weight = np.tile(kept, (seeds, 1)), np.ones((seeds, MEMBERS), np.float32)
    for epoch in range(1, learner.epochs + 1):
        state, _ = program.run(state, bare, *program.plan(keys, np.uint32(epoch), rows, weight))
    ones = jnp.ones(len(held), jnp.float32)
    sums = jax.vmap(lambda variables: learner.evaluate(variables, bare, jnp.asarray(held), ones))(
        state.variables
    )
    accuracy = np.asarray(sums["accuracy"] / sums["weight"], np.float64)
    noise = learner.guarantee.mechanism.noise_multiplier
    return dict(budget=budget, bands=bands, rate=rate, noise=noise, accuracy=accuracy.tolist())


if __name__ == "__main__":
    sys.exit(main())
