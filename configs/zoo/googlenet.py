"""GoogLeNet on Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/googlenet.py --workdir=runs/zoo/googlenet

One model on the first rows, tested on the next; models=8 trains a fleet on complementary halves
instead and adds LiRA. The same net and its exact layers on images of 28x28, as two cores can;
`full` is the source's recipe: 60,000 images at 96x96, SGD 0.1, batch 128, 10 epochs (wants an
accelerator).

Published by the source (Dive into Deep Learning, 60,000 images): loss 0.262, train accuracy 0.900,
test 0.886. Measured with the command above (10,000 images at 28x28, Adam 5e-4, 10 epochs of batches
of 32): loss 0.222, train accuracy 0.922 (both averages over the last epoch; 0.923 of the members
after it), test 0.886 of 2,000; threshold_loss AUC 0.513 [0.500, 0.526]. 9 min under other load (9.1
of CPU time) on 2 CPU cores.

Arguments: folder, full, train, test (rows of the two sides), epochs, models (1, or an even number),
batch, rate, optimizer, momentum, resize.
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.large_arguments(
        arg, full=dict(batch=128, rate=0.1, resize=96), optimizer="adam", rate=5e-4
    )
    return classic.config(
        arg, model=dict(name="googlenet", resize=arg.resize), learner=classic.large_learner(arg)
    )
