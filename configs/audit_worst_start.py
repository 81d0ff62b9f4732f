"""Audits one private run by its final model alone, from a start that an auditor chose.

No accountant asks where training starts. From parameters that were trained without privacy on other
images, the gradients of ordinary records are small, and those of canaries are not (Annamalai and De
Cristofaro 2024, arXiv:2405.14106). `python -m benchmarks.worst_start` does the same with one canary
in many runs.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/audit_worst_start.py --grid --workdir=runs/worst_start

Variants: `start` is trained on 3,600 other images without privacy. `random` and `worst` train
softmax regression privately (epsilon 10 at delta 1e-5, clip norm 1, batches of 400 expected rows of
about 750) on 1,000 records, of which 500 are canaries in directions in which the images vary least
(gradient_aligned); `random` from a random start, `worst` from that of `start`. One model is
audited, black box: by its loss on the canaries, and by the loss compared with that of 500 images
that no model saw (quantile). One attack is chosen in advance.

Time: 23 CPU seconds for all three.

Expected, lower bounds at 95% confidence by the loss (of an ideal attacker: 3.01, 8.40, 8.81), and
the accuracy on images that no model saw:

    start     correct guesses    one_run    order    rank_sum    accuracy
    random    97 of 100          2.50       8.21     8.07        69.8%
    worst     94 of 100          2.04       5.86     6.11        79.6%

With these canaries a random start shows more; with a blank image (benchmarks/worst_start.py) the
chosen one does.

Arguments:
    folder: the four .gz files of Fashion-MNIST.
    start: 'pretrain' trains the start, 'random' starts at random, anything else is a workdir, or
        'variant:start' in the grid.
    model: 'linear', softmax regression, or 'mlp' with 32 hidden units.
    epsilon: the budget at delta 1e-5.
    records, canaries: sizes.
    epochs: of the private training.
"""

from mia_jax import checks, configuration


def grid(arg=None):
    """Returns the start, and one variant per start of the private training."""
    del arg
    return [
        ("start", dict(start="pretrain")),
        ("random", dict(start="random")),
        ("worst", dict(start="variant:start")),
    ]


TABLE = dict(attacks=("threshold_loss", "quantile"), metrics=("auc", "tpr@0.1"))


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        folder="/usr/share/datasets/fashion-mnist",
        start="random",
        model="linear",
        epsilon=10.0,
        records=1000,
        canaries=500,
        epochs=34,
    )
    checks.one_of(("linear", "mlp"), model=arg.model)
    # Half as many images as records are kept aside for quantile regression.
    examples = arg.records + arg.records // 2
    data = dict(name="idx", folder=arg.folder, examples=examples)
    attacks = dict(
        threshold_loss=dict(name="threshold", signal="loss"),
        quantile=dict(name="quantile", signal="rescaled_logit", features=("label",)),
    )
    model = dict(name="linear")
    if arg.model == "mlp":
        model = dict(name="mlp", widths=(32,), activation="tanh", init="xavier_uniform")
    if arg.start == "pretrain":
        data = dict(name="idx", folder=arg.folder, skip=examples, examples=8000)
        return configuration.complete(
            data=data,
            design=dict(name="halves", models=2, population=0.1),
            model=model,
            learner=dict(optimizer="adam", learning_rate=2e-3, batch_size=100, epochs=30),
            attacks=attacks,
            report=dict(figures=False, records=()),
        )
    start = dict() if arg.start == "random" else dict(init_from=arg.start)
    return configuration.complete(
        data=data | dict(canaries=dict(kind="gradient_aligned", count=arg.canaries)),
        design=dict(name="canaries", models=2, targets=1, population=1 / 3),
        model=model,
        learner=dict(
            optimizer="sgd",
            learning_rate=2.0,
            batch_size=2 * arg.records // 5,
            epochs=arg.epochs,
            gradient="private",
            privacy=dict(clip_norm=1.0, noise_multiplier=None, epsilon=arg.epsilon, delta=1e-5),
            validation="population",
        )
        | start,
        attacks=attacks,
        report=dict(
            audit=dict(attacks=("threshold_loss",), guesses=(0.1,)), figures=False, records=()
        ),
        run=dict(chunk=2),
    )
