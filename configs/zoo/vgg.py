"""VGG-11 with a quarter of the features on Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/vgg.py --workdir=runs/zoo/vgg

One model on the first rows, tested on the next; models=8 trains a fleet on complementary halves
instead and adds LiRA. The same net and its exact layers on images of 32x32, as two cores can;
`full` is the source's recipe: 60,000 images at 224x224, SGD 0.05, batch 128, 10 epochs (wants an
accelerator).

Published by the source (Dive into Deep Learning, 60,000 images): loss 0.178, train accuracy 0.935,
test 0.920. Measured with the command above (10,000 images at 32x32, 10 epochs of batches of 32):
loss 0.311, train accuracy 0.884 (both averages over the last epoch; 0.890 of the members after it),
test 0.867 of 2,000; threshold_loss AUC 0.508 [0.495, 0.521]. 5 min (8.4 of CPU time) on 2 CPU
cores.

Arguments: folder, full, train, test (rows of the two sides), epochs, models (1, or an even number),
batch, rate, optimizer, momentum, resize.
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.large_arguments(arg, full=dict(batch=128, rate=0.05, resize=224), resize=32)
    return classic.config(
        arg, model=dict(name="vgg", resize=arg.resize, divide=4), learner=classic.large_learner(arg)
    )
