r"""Shows vanishing gradients: a deep MLP on the digits does not learn with sigmoids.

It does learn with rescaled sigmoids, tanh or relu.

    python launch.py --config=configs/zoo/vanishing.py --workdir=runs/zoo/vanishing
    python launch.py --config=configs/zoo/vanishing.py:activation=tanh \
        --workdir=runs/zoo/vanishing_tanh

Two models are trained on complementary halves: 10 hidden layers of 64 units, SGD 0.1.

Time: 5 s of CPU time.

Expected:

    activation                              sigmoid                 tanh
    accuracy on members, on non-members     0.10, 0.10 (chance)     1.0, 0.973
    AUC of threshold_loss                   0.502 [0.491, 0.514]    0.533 [0.521, 0.546]

The source publishes only plots.

Arguments: activation (of layers.ACTIVATIONS), init (of layers.INITIALIZERS), depth, epochs, models
(an even number).
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg, activation="sigmoid", init="xavier_uniform", depth=10, epochs=30, models=2
    )
    return configuration.complete(
        data=dict(name="digits", flat=True),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="mlp", widths=(64,) * arg.depth, activation=arg.activation, init=arg.init),
        learner=dict(optimizer="sgd", learning_rate=0.1, batch_size=32, epochs=arg.epochs),
        attacks=dict(gap=dict(), threshold_loss=dict(name="threshold", signal="loss")),
        run=dict(chunk=2),
    )
