"""Trains a multilayer perceptron (784-256-10, relu) on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/mlp.py --workdir=runs/zoo/mlp

One model is trained on Fashion-MNIST's own split; models=8 trains a fleet on complementary halves
instead and adds LiRA.

Time: 18 s of CPU time.

Published by the source (Dive into Deep Learning): train loss below 0.5, train and test accuracy
above 0.7. Expected: train loss 0.383 and train accuracy 0.863 (both averages over the last epoch),
test accuracy 0.846; threshold_loss AUC 0.508 [0.502, 0.515].

Arguments: folder, train and test (numbers of rows), epochs, models (1 or an even number),
activation (of layers.ACTIVATIONS).
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.arguments(arg, activation="relu")
    return classic.config(
        arg,
        model=dict(name="mlp", widths=(256,), activation=arg.activation, init="normal"),
        learner=dict(optimizer="sgd", learning_rate=0.1, batch_size=256),
    )
