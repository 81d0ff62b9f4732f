"""Trains AlexNet on Fashion-MNIST and audits it.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/alexnet.py --workdir=runs/zoo/alexnet

One model is trained on the first rows and tested on the next ones; models=8 trains a fleet on
complementary halves instead and adds LiRA. The net has half the features (divide=2) and reads
images at 65x65, which 2 CPU cores can train. `full` is the source's recipe: all features, 60,000
images at 224x224, SGD 0.01, batches of 128, 10 epochs (needs an accelerator).

Time: 27 min on 2 CPU cores on a busy machine.

                     published (60,000 images)    expected (10,000 images, 10 epochs)
    loss             0.327                        0.261
    train accuracy   0.881                        0.909
    test accuracy    0.88                         0.880 of 2,000

The published numbers are those of Dive into Deep Learning. Loss and train accuracy are averages
over the last epoch; after it, the accuracy on the members is 0.912. Batches of 32. threshold_loss
AUC 0.509 [0.496, 0.523].

Arguments: folder, full, train and test (numbers of rows), epochs, models (1 or an even number),
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
