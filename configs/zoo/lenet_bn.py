"""Trains LeNet with batch normalization on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/lenet_bn.py --workdir=runs/zoo/lenet_bn

One model is trained on Fashion-MNIST's own split; models=8 trains a fleet on complementary halves
instead and adds LiRA.

Time: 107 s of CPU time.

Published by the source (Dive into Deep Learning): loss 0.273, train accuracy 0.899, test accuracy
0.807. Expected: loss 0.263 and train accuracy 0.903 (both averages over the last epoch), test
accuracy 0.880; threshold_loss AUC 0.507 [0.500, 0.513].

Arguments: folder, train and test (numbers of rows), epochs, models (1 or an even number), norm
(batch, group, layer or none).
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.arguments(arg, norm="batch")
    return classic.config(
        arg,
        model=dict(name="lenet_bn", norm=arg.norm),
        learner=dict(optimizer="sgd", learning_rate=1.0, batch_size=256),
    )
