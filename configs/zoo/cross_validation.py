"""K-fold cross-validation of the digits MLP: K models, each tested on the fold that it did not see;
the report gives mean and sd over folds.

    python launch.py --config=configs/zoo/cross_validation.py --workdir=runs/zoo/cross_validation

Every fold's model is also a target: its own members against its fold. Nothing is published by the
source. Measured: accuracy 98.2% ± 0.67%, loss 0.068 ± 0.037 over 5 folds; threshold_loss AUC 0.522
[0.481, 0.563]. 5 s of CPU time.

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
