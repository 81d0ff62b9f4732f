"""Trains GoogLeNet on Fashion-MNIST and audits it.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/googlenet.py --workdir=runs/zoo/googlenet

One model is trained on the first rows and tested on the next ones; models=8 trains a fleet on
complementary halves instead and adds LiRA. The layers are those of the source, on images at 28x28,
which 2 CPU cores can train. `full` is the source's recipe: 60,000 images at 96x96, SGD 0.1, batches
of 128, 10 epochs (needs an accelerator).

Time: 9 min on 2 CPU cores on a busy machine (9.1 min of CPU time).

                     published (60,000 images)    expected (10,000 images, 10 epochs)
    loss             0.262                        0.222
    train accuracy   0.900                        0.922
    test accuracy    0.886                        0.886 of 2,000

The published numbers are those of Dive into Deep Learning. Loss and train accuracy are averages
over the last epoch; after it, the accuracy on the members is 0.923. Adam 5e-4, batches of 32.
threshold_loss AUC 0.513 [0.500, 0.526].

Arguments: folder, full, train and test (numbers of rows), epochs, models (1 or an even number),
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
