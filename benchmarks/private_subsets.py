"""Compares what private fine-tuning trains: everything, the last layer, or low-rank adapters.

    python -m benchmarks.private_subsets --out=runs/private_subsets.jsonl    # 2 minutes, one core
    python -m benchmarks.private_subsets --quick

An MLP (64-512-512-10, 301,066 parameters) is trained without privacy on 50 public digits of
scikit-learn's 1,797, and then fine-tuned privately on 1,200 others (expected batches of 120, 6
epochs of 10 steps, clip norm 0.5, epsilon 1, delta 1e-4); 397 digits test it. Every kind starts
from the same net. The learning rate is chosen on seeds 0 and 1. The table has the mean and the
standard error of the other four seeds, the processor time of a step of one model, and the memory of
its program by the compiler's account (training/cost.py).
"""

from __future__ import annotations

import re
import sys

import jax
import numpy as np

from benchmarks import _private_digits as private
from mia_jax.learners import _adapters as adapters
from mia_jax.learners import _parameters as parameters
from mia_jax.learners import backprop
from mia_jax.models import mlp
from mia_jax.objectives import cross_entropy
from mia_jax.training import cost

PUBLIC, FIRST, RATES, SEEDS, CHOOSING = 50, 200, (0.5, 2.0), 6, 2
KINDS = dict(
    everything={},
    last_layer=dict(trainable="Dense_2/"),
    adapters=dict(adapter_rank=4),
    adapters_and_last_layer=dict(
        adapter_rank=4, adapter_layers="Dense_[01]/", trainable="Dense_2/"
    ),
)


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns 0."""
    args = private.parser(__doc__, quick="two kinds, one rate, 4 seeds").parse_args(argv)
    kinds, rates, seeds = tuple(KINDS), RATES, SEEDS
    if args.quick:
        kinds, rates, seeds = ("everything", "adapters"), RATES[:1], 4
    start, accuracy = pretrained()
    print(f"the start, trained on {PUBLIC} public digits: {accuracy:.1%}")
    print(
        f"{'trained':>24} {'parameters':>10} {'ms/step':>8} {'MB':>6} {'rate':>5}  "
        "test accuracy (standard error)"
    )
    for kind in kinds:
        lines = []
        for rate in rates:
            case = dict(kind=kind, rate=rate, seeds=seeds)
            lines.append(
                private.kept(args.out, case, lambda case=case: measured(start=start, **case))
            )
        best, mean, error = private.summary(lines, choosing=CHOOSING)
        print(
            f"{kind:>24} {best['parameters']:10,d} {best['milliseconds']:8.2f} "
            f"{best['bytes'] / 1e6:6.1f} {best['rate']:5g}  {mean:.1%} ({error:.1%})",
            flush=True,
        )
    return 0


def learner_of(*, rows: int, **fields):
    """Returns the learner of an MLP on so many rows."""
    model = mlp.make(num_classes=10, widths=(512, 512))
    return backprop.make(
        model=model,
        loss=cross_entropy.make(model=model),
        num_rows=rows,
        sample=private.pool(),
        **fields,
    )


def pretrained() -> tuple[dict, float]:
    """Returns ({path: array} of the net before the fine-tuning, its test accuracy)."""
    public = private.rows()[:PUBLIC]
    learner = learner_of(rows=PUBLIC, epochs=15, batch_size=10, learning_rate=1e-3)
    state = private.trained(learner, members=public, seeds=1)
    flat = parameters.paths(state.variables["params"])
    held = private.rows()[private.HELD :]
    sums = learner.evaluate(
        {"params": parameters.nested({path: leaf[0] for path, leaf in flat.items()})},
        private.pool(),
        held,
        np.ones(len(held), np.float32),
    )
    return {k: np.asarray(a[0]) for k, a in flat.items()}, float(sums["accuracy"] / sums["weight"])


def measured(*, start: dict, kind: str, rate: float, seeds: int) -> dict:
    """Returns {parameters, milliseconds, bytes, accuracy} of a kind at a learning rate."""
    members = private.rows()[FIRST : private.HELD]
    privacy = dict(clip_norm=0.5, noise_multiplier=None, epsilon=1.0, delta=1e-4)
    learner = learner_of(
        rows=len(members),
        initial=start,
        gradient="private",
        privacy=privacy,
        epochs=6,
        batch_size=120,
        optimizer="sgd",
        learning_rate=rate,
        **KINDS[kind],
    )
    price = cost.measured(
        learner=learner,
        pool=private.pool(),
        rows_K=members,
        weight_K=np.ones(len(members), np.float32),
        chunk=1,
    )
    fields = KINDS[kind]
    pattern = fields.get("trainable", "")
    pattern = adapters.trained(pattern) if "adapter_rank" in fields else pattern
    shapes = jax.eval_shape(learner.model.init, jax.random.key(0), private.pool().x[:1])["params"]
    sizes = [leaf.size for k, leaf in parameters.paths(shapes).items() if re.search(pattern, k)]
    accuracy = private.accuracies(learner, members=members, seeds=seeds)
    return dict(
        parameters=sum(sizes),
        milliseconds=1e3 * price.cpu_seconds,
        bytes=price.bytes,
        accuracy=accuracy,
    )


if __name__ == "__main__":
    sys.exit(main())
