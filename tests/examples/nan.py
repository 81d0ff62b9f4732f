"""A config over the user's own arrays."""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, path="")
    return configuration.complete(
        data=dict(name="npz", path=arg.path),
        design=dict(name="halves", models=4),
        model=dict(name="mlp"),
        learner=dict(epochs=1),
        attacks=dict(gap=dict()),
    )
