"""Trains an MLP with dropout (784-256-256-10, rates 0.2 and 0.5) on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/dropout.py --workdir=runs/zoo/dropout

One model is trained on Fashion-MNIST's own split; models=8 trains a fleet on complementary halves
instead and adds LiRA.

Time: 21 s of CPU time.

Published by the source (Dive into Deep Learning): train loss below 0.5, train and test accuracy
above 0.7. Expected: train loss 0.360 and train accuracy 0.867 (both averages over the last epoch),
test accuracy 0.862; threshold_loss AUC 0.510 [0.504, 0.517].

Arguments: folder, train and test (numbers of rows), epochs, models (1 or an even number), dropout
(dropout=false sets both rates to 0).
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.arguments(arg, dropout=True)
    return classic.config(
        arg,
        model=dict(
            name="mlp", widths=(256, 256), dropout=(0.2, 0.5) if arg.dropout else 0.0, init="normal"
        ),
        learner=dict(optimizer="sgd", learning_rate=0.5, batch_size=256),
    )
