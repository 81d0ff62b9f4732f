"""Softmax regression, 784-10, on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/softmax.py --workdir=runs/zoo/softmax

Fashion-MNIST's own split, one model; models=8 trains a fleet on complementary halves instead and
adds LiRA.

Published by the source (Dive into Deep Learning): train loss below 0.5, train and test accuracy
above 0.7. Measured: train loss 0.447, accuracy 0.848 (both averages over the last epoch), test
0.831; threshold_loss AUC 0.508 [0.502, 0.514]. 12 s of CPU time.

Arguments: folder, train, test (rows of the two sides), epochs, models (1, or an even number).
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.arguments(arg)
    return classic.config(
        arg,
        model=dict(name="linear"),
        learner=dict(optimizer="sgd", learning_rate=0.1, batch_size=256),
    )
