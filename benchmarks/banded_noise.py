"""Compares correlated with independent noise: the accuracy of private training at equal epsilon.

    python -m benchmarks.banded_noise --out=runs/banded_noise.jsonl      # 4 minutes on one core
    python -m benchmarks.banded_noise --quick

An MLP (64-32-10, 2,410 parameters) is trained by SGD on 1,400 of scikit-learn's 1,797 handwritten
digits and tested on the other 397: clip norm 0.5, expected batches of 140, 15 epochs (150 steps),
delta 1e-4. `bands` = 1 is DP-SGD with Poisson sampling; more bands are privacy.noise='banded' with
cyclic Poisson sampling. The noise of each is chosen for the budget. The learning rate is chosen on
seeds 0 to 2, each time by the best mean accuracy, and the table has the mean and the standard error
of the other 10. Every case is a line of the file of --out; what is there is not computed again.
"""

from __future__ import annotations

import sys

from benchmarks import _private_digits as private
from mia_jax.learners import backprop
from mia_jax.models import mlp
from mia_jax.objectives import cross_entropy

BUDGETS, BANDS, RATES, SEEDS, CHOOSING = (1.0, 8.0), (1, 2, 4, 10), (1.0, 2.0, 4.0), 13, 3
BATCH, EPOCHS = 140, 15


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns 0."""
    args = private.parser(__doc__, quick="one budget, two rates, 5 seeds").parse_args(argv)
    budgets, bands, rates, seeds = BUDGETS, BANDS, RATES, SEEDS
    if args.quick:
        budgets, bands, rates, seeds = (8.0,), (1, 4), (1.0, 2.0), 5
    print(f"{'epsilon':>8} {'bands':>6} {'noise':>7} {'rate':>5}  test accuracy (standard error)")
    for budget in budgets:
        for count in bands:
            lines = []
            for rate in rates:
                case = dict(budget=budget, bands=count, rate=rate, seeds=seeds)
                lines.append(private.kept(args.out, case, lambda case=case: measured(**case)))
            best, mean, error = private.summary(lines, choosing=CHOOSING)
            print(
                f"{budget:8g} {count:6d} {best['noise']:7.3f} {best['rate']:5g}  "
                f"{mean:.1%} ({error:.1%})",
                flush=True,
            )
    return 0


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
