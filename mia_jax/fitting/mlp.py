"""Classifiers that are small dense networks.

All data sets, inner folds and grid points of an architecture are one compiled program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from mia_jax import checks
from mia_jax.fitting import network as networks
from mia_jax.fitting import rows
from mia_jax.fitting.rows import Classifier, Job

RATES = (1e-3, 1e-2, 5e-3, 5e-2)  # in the order in which the label-only paper's code tries them
SMALL = dict(
    slope=0.01, learning_rates=RATES, alphas=(0.0,), batch_size=1, epochs=1, select="source"
)
NETWORKS = dict(
    default=dict(
        hidden=((64,), (32, 32)),
        slope=0.0,
        learning_rates=(1e-3,),
        alphas=(1e-4, 1e-3, 1e-2),
        batch_size=200,
        epochs=None,
        select="folds",
    ),
    n=dict(SMALL, hidden=((64,),)),
    r=dict(SMALL, hidden=((10, 10),)),
    d=dict(SMALL, hidden=((10, 10),)),
)
STEPS = 2000  # of the default training


class Fitted(NamedTuple):
    """A score_N per job, and the (hidden, learning rate, alpha) that was chosen for it."""

    scores: list[np.ndarray]
    chosen: list[tuple]


def make(
    *,
    network: str = "default",
    hidden: Sequence[Sequence[int]] | None = None,
    slope: float | None = None,
    learning_rates: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    select: str | None = None,
    inner_folds: int = 3,
) -> Classifier:
    """Scores z_member - z_nonmember of a leaky-ReLU network trained with Adam.

    The loss is cross-entropy + alpha / (2 batch) |kernels|^2. Of equally good settings the first
    wins; the rows to score are never part of a choice. Arguments other than `network` replace the
    network's values.

    Args:
        network: 'default': hidden layers (64) or (32, 32), alpha 1e-4..1e-2, batches of 200 and
            2,000 steps, select 'folds'. 'n' (hidden 64) and 'r', 'd' (10, 10): the networks of the
            label-only paper, with leak 0.01, batches of 1, one epoch, and one of four learning
            rates, select 'source'.
        hidden: widths of the hidden layers of each architecture.
        slope: leak of the ReLU.
        learning_rates, alphas: values to choose from.
        batch_size: rows per step.
        epochs: passes over the rows; None: 2,000 steps or 10 epochs, whichever is longer.
        select: 'folds': by mean accuracy over the inner folds, for each job separately. 'source':
            for all jobs of a family, by their pooled accuracy on the training rows.
        inner_folds: how many folds choose.

    Source: Choquette-Choo et al. 2021 (arXiv:2007.14321); the default's grid is that of TensorFlow
    Privacy.
    """
    checks.one_of(NETWORKS, network=network)
    given = dict(
        hidden=hidden,
        slope=slope,
        learning_rates=learning_rates,
        alphas=alphas,
        batch_size=batch_size,
        epochs=epochs,
        select=select,
    )
    settings = NETWORKS[network] | {k: v for k, v in given.items() if v is not None}
    checks.one_of(("folds", "source"), select=settings["select"])
    checks.at_least(
        1,
        architectures=len(settings["hidden"]),
        batch_size=settings["batch_size"],
        epochs=1 if settings["epochs"] is None else settings["epochs"],
    )
    checks.positive(**{f"learning_rates[{i}]": r for i, r in enumerate(settings["learning_rates"])})
    checks.at_least(0, **{f"alphas[{i}]": a for i, a in enumerate(settings["alphas"])})
    checks.at_least(2, inner_folds=inner_folds)
    return lambda jobs, key: fit(jobs, key, inner_folds=inner_folds, **settings).scores


def fit(
    jobs: Sequence[Job],
    key,
    *,
    hidden,
    slope,
    learning_rates,
    alphas,
    batch_size,
    epochs,
    select,
    inner_folds: int = 3,
) -> Fitted:
    """Trains every architecture, chooses by `select`, and scores; see `make`."""
    folds = [rows.folds(job.member_K, inner_folds) for job in jobs]
    held = [
        [fold_K == f for f in range(inner_folds)] if select == "folds" else [] for fold_K in folds
    ]
    lists = [
        [np.flatnonzero(~h) for h in held_out] + [np.arange(len(job.member_K))]
        for held_out, job in zip(held, jobs, strict=True)
    ]
    data = networks.sets(
        [j.x_KF for j in jobs], [j.member_K.astype(np.int32) for j in jobs], lists, batch_size
    )
    grid = [(rate, alpha) for alpha in alphas for rate in learning_rates]
    rate_P, alpha_P = np.array(grid).T
    epochs = max(10, STEPS // networks.steps(data, batch_size)) if epochs is None else epochs
    points, answers = [], []
    for a, widths in enumerate(hidden):
        shape = networks.Shape(
            (jobs[0].x_KF.shape[1], *widths, 2), float(slope), "cross_entropy", batch_size, epochs
        )
        layers = networks.train(
            jax.random.fold_in(key, a),
            data,
            rate_P=rate_P,
            penalty_P=alpha_P / batch_size,
            shape=shape,
        )
        for p, (rate, alpha) in enumerate(grid):
            points.append((tuple(widths), rate, alpha))
            answers.append(
                [_answers(layers, d, p, job, held[d], slope) for d, job in enumerate(jobs)]
            )
    value_PD = np.array([[value for value, _ in point] for point in answers])
    if select == "source":
        value_PD = _pooled(value_PD, jobs)
    best_D = value_PD.argmax(0)
    return Fitted(
        [answers[best][d][1] for d, best in enumerate(best_D)], [points[best] for best in best_D]
    )


def _answers(
    layers, d: int, p: int, job: Job, held: list[np.ndarray], slope: float
) -> tuple[float, np.ndarray]:
    """Returns (what the choice compares, score_N) of grid point p on job d."""

    def margin(x_NF, q):
        out_N2 = networks.forward(
            [(kernel[d, q, p], bias[d, q, p]) for kernel, bias in layers], x_NF, slope
        )
        return out_N2[:, 1] - out_N2[:, 0]

    accuracies = [
        rows.accuracy(margin(job.x_KF[h], q), job.member_K[h]) for q, h in enumerate(held)
    ]
    value = np.mean(accuracies) if accuracies else np.sum((margin(job.x_KF, 0) > 0) == job.member_K)
    return float(value), margin(job.ask_NF, len(held))


def _pooled(count_PD: np.ndarray, jobs: Sequence[Job]) -> np.ndarray:
    """Returns the correct rows of a family's jobs together, the same number for all its jobs."""
    family_D = np.array([job.family for job in jobs])
    return count_PD @ (family_D[:, None] == family_D[None]).astype(float)
