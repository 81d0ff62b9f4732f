"""Three members: the second has a field that cannot work, found when it is run; the others differ
in width and rate.
"""

from mia_jax import configuration

TABLE = dict(attacks=("threshold_loss",), metrics=("auc", "tpr@0.1"))


def grid(arg=None):
    return [
        ("narrow", dict(width=4)),
        ("broken", {"learner.optimizer": "optax.lbfgs"}),
        ("slow", {"width": 8, "learner.learning_rate": 1e-4}),
    ]


def get_config(arg=None):
    arg = configuration.arguments(arg, width=2, epochs=1)
    return configuration.complete(
        data=dict(name="synthetic"),
        design=dict(name="halves", models=4),
        model=dict(name="mlp", widths=(arg.width,)),
        learner=dict(epochs=arg.epochs),
        attacks=dict(threshold_loss=dict(name="threshold", signal="loss"), gap=dict()),
        report=dict(draws=40, figures=False),
        run=dict(chunk=2),
    )
