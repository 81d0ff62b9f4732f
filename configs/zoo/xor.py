"""Learns exclusive or with a net of one hidden layer; a perceptron cannot learn it.

The data are the four corners with a little noise.

    python launch.py --config=configs/zoo/xor.py --workdir=runs/zoo/xor
    python launch.py --config=configs/zoo/xor.py:net=perceptron --workdir=runs/zoo/xor_perceptron

8 models are trained on complementary halves of 200 rows.

Time: 5 s of CPU time.

Expected: the net's accuracy is 1.0 on members and non-members, threshold_loss AUC 0.513 [0.499,
0.526], lira 0.550 [0.510, 0.590]. The perceptron's accuracy is 47% ± 3% on members and at most 0.75
on the corners themselves (tests/configs/zoo_test.py); the source publishes only that it cannot.

Arguments: net (mlp or perceptron), examples, models, epochs.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, net="mlp", examples=200, models=8, epochs=300)
    mlp = dict(name="mlp", widths=(8,), activation="tanh", init="xavier_uniform")
    return configuration.complete(
        data=dict(name="xor", examples=arg.examples),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="perceptron") if arg.net == "perceptron" else mlp,
        learner=dict(
            objective="perceptron" if arg.net == "perceptron" else "cross_entropy",
            optimizer="sgd",
            learning_rate=1.0 if arg.net == "perceptron" else 0.5,
            batch_size=10,
            epochs=arg.epochs,
        ),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            lira=dict(variance="shrunk"),
        ),
        run=dict(chunk=8),
    )
