"""Trains softmax regression (784-10) on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/softmax.py --workdir=runs/zoo/softmax

One model is trained on Fashion-MNIST's own split; models=8 trains a fleet on complementary halves
instead and adds LiRA.

Time: 12 s of CPU time.

Published by the source (Dive into Deep Learning): train loss below 0.5, train and test accuracy
above 0.7. Expected: train loss 0.447 and train accuracy 0.848 (both averages over the last epoch),
test accuracy 0.831; threshold_loss AUC 0.508 [0.502, 0.514].

Arguments: folder, train and test (numbers of rows), epochs, models (1 or an even number).
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.arguments(arg)
    return classic.config(
        arg,
        model=dict(name="linear"),
        learner=dict(optimizer="sgd", learning_rate=0.1, batch_size=256),
    )
