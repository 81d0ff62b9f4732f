"""A config whose attack its design cannot carry."""

from mia_jax import configuration


def get_config():
    return configuration.complete(
        data=dict(name="synthetic", examples=100),
        design=dict(name="blocks", size=20),
        model=dict(name="mlp"),
        learner=dict(epochs=1),
        attacks=dict(lira=dict(mode="online")),
    )
