"""AlexNet on Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/alexnet.py --workdir=runs/zoo/alexnet

One model on the first rows, tested on the next; models=8 trains a fleet on complementary halves
instead and adds LiRA. The same net and its exact layers on images of 65x65, as two cores can;
`full` is the source's recipe: 60,000 images at 224x224, SGD 0.01, batch 128, 10 epochs (wants an
accelerator).

Published by the source (Dive into Deep Learning, 60,000 images): loss 0.327, train accuracy 0.881,
test 0.88. Measured with the command above (10,000 images at 65x65, half the features (divide=2), 10
epochs of batches of 32): loss 0.261, train accuracy 0.909 (both averages over the last epoch; 0.912
of the members after it), test 0.880 of 2,000; threshold_loss AUC 0.509 [0.496, 0.523]. 27 min under
other load on 2 CPU cores.

Arguments: folder, full, train, test (rows of the two sides), epochs, models (1, or an even number),
batch, rate, optimizer, momentum, resize.
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.large_arguments(arg, full=dict(batch=128, rate=0.01, resize=224), resize=65)
    return classic.config(
        arg,
        model=dict(name="alexnet", resize=arg.resize, divide=1 if arg.full else 2),
        learner=classic.large_learner(arg),
    )
