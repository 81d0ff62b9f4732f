"""Compares correlated with independent noise: the accuracy of private training at equal epsilon.

    python -m benchmarks.banded_noise --out=runs/banded_noise.jsonl      # 4 minutes on one core
    python -m benchmarks.banded_noise --quick

An MLP (64-32-10, 2,410 parameters) is trained by SGD on 1,400 of scikit-learn's 1,797 handwritten
digits and tested on the other 397: clip norm 0.5, expected batches of 140, 15 epochs (150 steps),
delta 1e-4. `bands` = 1 is DP-SGD with Poisson sampling; more bands are privacy.noise='banded' with
cyclic Poisson sampling. The noise of each is chosen for the budget. The learning rate is chosen on
seeds 0 to 2, each time by the best mean accuracy, and the table has the mean and the standard error
of the other 10. `in sums` is the root mean square of the noise in the sums of the first t releases,
over all t, which is the noise in the parameters of a linear problem, relative to that of one band;
`in steps` is the same of single releases. Every case is a line of the file of --out; what is there
is not computed again.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks import _private_digits as private
from mia_jax.learners import backprop
from mia_jax.models import mlp
from mia_jax.objectives import cross_entropy
from mia_jax.privacy import banded

BUDGETS, BANDS, RATES, SEEDS, CHOOSING = (1.0, 8.0), (1, 2, 4, 10), (1.0, 2.0, 4.0), 13, 3
BATCH, EPOCHS = 140, 15


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns 0."""
    args = private.parser(__doc__, quick="one budget, two rates, 5 seeds").parse_args(argv)
    budgets, bands, rates, seeds = BUDGETS, BANDS, RATES, SEEDS
    if args.quick:
        budgets, bands, rates, seeds = (8.0,), (1, 4), (1.0, 2.0), 5
    head = ("epsilon", "bands", "noise", "in sums", "in steps", "rate")
    print(" ".join(f"{word:>8}" for word in head), " test accuracy (standard error)")
    for budget in budgets:
        usual = None
        for count in bands:
            lines = []
            for rate in rates:
                case = dict(budget=budget, bands=count, rate=rate, seeds=seeds)
                lines.append(private.kept(args.out, case, lambda case=case: measured(**case)))
            best, mean, error = private.summary(lines, choosing=CHOOSING)
            noise = best["noise"] * spread(bands=count)
            usual = noise if usual is None else usual
            print(
                f"{budget:8g} {count:8d} {best['noise']:8.3f} {noise[0] / usual[0]:8.2f} "
                f"{noise[1] / usual[1]:8.2f} {best['rate']:8g}  {mean:.1%} ({error:.1%})",
                flush=True,
            )
    return 0


def spread(*, bands: int) -> np.ndarray:
    """Returns the root mean squares of the noise in sums and in steps, per unit of z, [2]."""
    steps = -(-private.HELD // BATCH) * EPOCHS
    column = banded.coefficients(steps=steps, bands=bands)
    matrix = sum(entry * np.eye(steps, k=-back) for back, entry in enumerate(column))
    inverse = np.linalg.inv(matrix)
    both = (np.tri(steps) @ inverse, inverse)
    return np.array([np.sqrt(np.square(rows).sum(1).mean()) for rows in both])


def measured(*, budget: float, bands: int, rate: float, seeds: int) -> dict:
    """Returns {noise, accuracy}: the noise multiplier, and the test accuracy of every seed."""
    pool, model = private.pool(), mlp.make(num_classes=10, widths=(32,))
    privacy = dict(clip_norm=0.5, noise_multiplier=None, epsilon=budget, delta=1e-4)
    if bands > 1:
        privacy |= dict(noise="banded", bands=bands, sampling="cyclic_poisson")
    learner = backprop.make(
        model=model,
        loss=cross_entropy.make(model=model),
        num_rows=private.HELD,
        sample=pool,
        gradient="private",
        privacy=privacy,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer="sgd",
        learning_rate=rate,
    )
    accuracy = private.accuracies(learner, members=private.rows()[: private.HELD], seeds=seeds)
    return dict(noise=learner.guarantee.mechanism.noise_multiplier, accuracy=accuracy)


if __name__ == "__main__":
    sys.exit(main())
