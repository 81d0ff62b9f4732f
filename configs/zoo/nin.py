"""Trains Network in Network on Fashion-MNIST and audits it.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/nin.py --workdir=runs/zoo/nin

One model is trained on the first rows and tested on the next ones; models=8 trains a fleet on
complementary halves instead and adds LiRA. The layers are those of the source, on images at 67x67,
which 2 CPU cores can train. `full` is the source's recipe: 60,000 images at 224x224, SGD 0.1,
batches of 128, 10 epochs (needs an accelerator).

Time: 13 min on 2 CPU cores on a busy machine (8.9 min of CPU time).

                     a reader (60,000 images)    expected (10,000 images, 10 epochs)
    loss             0.375                       0.365
    train accuracy   0.862                       0.854
    test accuracy    0.839                       0.839 of 2,000

The source (Dive into Deep Learning) prints no numbers; one of its readers reports those above. Loss
and train accuracy are averages over the last epoch; after it, the accuracy on the members is 0.856.
Adam 5e-4, batches of 32. threshold_loss AUC 0.508 [0.495, 0.522].

Arguments: folder, full, train and test (numbers of rows), epochs, models (1 or an even number),
batch, rate, optimizer, momentum, resize.
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.large_arguments(
        arg, full=dict(batch=128, rate=0.1, resize=224), resize=67, optimizer="adam", rate=5e-4
    )
    return classic.config(
        arg, model=dict(name="nin", resize=arg.resize), learner=classic.large_learner(arg)
    )
