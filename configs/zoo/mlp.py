"""A multilayer perceptron, 784-256-10 with relu, on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/mlp.py --workdir=runs/zoo/mlp

Fashion-MNIST's own split, one model; models=8 trains a fleet on complementary halves instead and adds LiRA.

Printed by the source (Dive into Deep Learning): train loss below .5, train and test accuracy above .7. Measured: train loss .383, accuracy .863
(both averages over the last epoch), test .846; threshold_loss AUC .508 [.502, .515]. 33 s on 2 busy CPU cores.

Arguments: folder, train, test (rows of the two sides), epochs, models (1, or an even number), activation (of layers.ACTIVATIONS).
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, folder="/usr/share/datasets/fashion-mnist", train=60_000, test=10_000, epochs=10, models=1, activation="relu")
    one = dict(name="holdout", members=arg.train)
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=arg.train + arg.test),
        design=one if arg.models == 1 else dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="mlp", widths=(256,), activation=arg.activation, init="normal"),
        learner=dict(optimizer="sgd", learning_rate=0.1, batch_size=256, epochs=arg.epochs, validation="nonmembers"),
        query=dict(batch_size=500),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
            **(dict(lira=dict(variance="shrunk"), lira_offline=dict(name="lira", mode="offline")) if arg.models >= 4 else {}),
        ),
        run=dict(chunk=1),
    )
