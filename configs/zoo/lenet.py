"""LeNet-5 with sigmoids and average pooling on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/lenet.py --workdir=runs/zoo/lenet

Fashion-MNIST's own split, one model; models=8 trains a fleet on complementary halves instead and
adds LiRA.

Published by the source (Dive into Deep Learning): loss 0.469, train accuracy 0.823, test 0.779.
Measured: loss 0.469, train accuracy 0.822 (both averages over the last epoch), test 0.816;
threshold_loss AUC 0.508 [0.501, 0.514]. 118 s of CPU time.

Arguments: folder, train, test (rows of the two sides), epochs, models (1, or an even number),
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
