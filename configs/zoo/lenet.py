"""Trains LeNet-5 with sigmoids and average pooling on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/lenet.py --workdir=runs/zoo/lenet

One model is trained on Fashion-MNIST's own split; models=8 trains a fleet on complementary halves
instead and adds LiRA.

Time: 118 s of CPU time.

Published by the source (Dive into Deep Learning): loss 0.469, train accuracy 0.823, test accuracy
0.779. Expected: loss 0.469 and train accuracy 0.822 (both averages over the last epoch), test
accuracy 0.816; threshold_loss AUC 0.508 [0.501, 0.514].

Arguments: folder, train and test (numbers of rows), epochs, models (1 or an even number),
activation, pool.
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.arguments(arg, activation="sigmoid", pool="avg")
    return classic.config(
        arg,
        model=dict(name="lenet", activation=arg.activation, pool=arg.pool),
        learner=dict(optimizer="sgd", learning_rate=0.9, batch_size=256),
    )
