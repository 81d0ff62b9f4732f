"""Cross-validates the MLP on the digits: K models, each tested on its held-out fold.

    python launch.py --config=configs/zoo/cross_validation.py --workdir=runs/zoo/cross_validation

The report gives the mean and the sd over folds. Every fold's model is also a target: its members
against its fold.

Time: 5 s of CPU time.

Expected over 5 folds: accuracy 98.2% ± 0.67%, loss 0.068 ± 0.037; threshold_loss AUC 0.522 [0.481,
0.563]. The source publishes no numbers.

Arguments: folds, epochs, rate, width.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, folds=5, epochs=50, rate=3e-3, width=256)
    return configuration.complete(
        data=dict(name="digits", flat=True),
        design=dict(name="folds", folds=arg.folds),
        model=dict(name="mlp", widths=(arg.width,)),
        learner=dict(optimizer="adam", learning_rate=arg.rate, batch_size=32, epochs=arg.epochs),
        attacks=dict(gap=dict(), threshold_loss=dict(name="threshold", signal="loss")),
        run=dict(chunk=arg.folds),
    )
