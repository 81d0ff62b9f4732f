"""Trains VGG-11 with a quarter of the features on Fashion-MNIST and audits it.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/vgg.py --workdir=runs/zoo/vgg

One model is trained on the first rows and tested on the next ones; models=8 trains a fleet on
complementary halves instead and adds LiRA. The layers are those of the source, on images at 32x32,
which 2 CPU cores can train. `full` is the source's recipe: 60,000 images at 224x224, SGD 0.05,
batches of 128, 10 epochs (needs an accelerator).

Time: 5 min on 2 CPU cores (8.4 min of CPU time).

                     published (60,000 images)    expected (10,000 images, 10 epochs)
    loss             0.178                        0.311
    train accuracy   0.935                        0.884
    test accuracy    0.920                        0.867 of 2,000

The published numbers are those of Dive into Deep Learning. Loss and train accuracy are averages
over the last epoch; after it, the accuracy on the members is 0.890. Batches of 32. threshold_loss
AUC 0.508 [0.495, 0.521].

Arguments: folder, full, train and test (numbers of rows), epochs, models (1 or an even number),
batch, rate, optimizer, momentum, resize.
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.large_arguments(arg, full=dict(batch=128, rate=0.05, resize=224), resize=32)
    return classic.config(
        arg, model=dict(name="vgg", resize=arg.resize, divide=4), learner=classic.large_learner(arg)
    )
