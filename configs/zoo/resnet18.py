"""ResNet-18 on Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/resnet18.py --workdir=runs/zoo/resnet18
    python launch.py --config=configs/zoo/resnet18.py:fgsm --workdir=runs/zoo/resnet18_fgsm    # and
    its accuracy under one-step adversarial changes

One model on the first rows, tested on the next; models=8 trains a fleet on complementary halves
instead and adds LiRA. The same net and its exact layers on images of 28x28, as two cores can;
`full` is the source's recipe: 60,000 images at 96x96, SGD 0.05, batch 256, 10 epochs (wants an
accelerator).

Published by the source (Dive into Deep Learning, 60,000 images): loss 0.012, train accuracy 0.997,
test 0.893 (another reader: 0.008, 0.998, 0.921). Measured with 10,000 images at 28x28, Adam 1e-3
with a cosine, 20 epochs of batches of 64: loss 0.0019, train accuracy 0.9999 (above 0.99 from epoch
15 on), test 0.899 of 2,000; threshold_loss AUC 0.558 [0.543, 0.574], gap 0.551. FGSM, accuracy at
epsilon 0, 1/255, 2/255, 4/255, 8/255, 16/255, 0.1, 0.3: non-members 0.899, 0.850, 0.793, 0.674,
0.482, 0.250, 0.108, 0.003 (33.2%, the lab notes' figure at an unstated epsilon, at 0.052), members
1.000, 0.999, 0.971, 0.791, 0.515, 0.259, 0.103, 0.005. The first command took 5 min 50 s on 2
cores, beside a little other work (9.9 minutes of CPU time), the second 12.6 minutes of CPU time.
SGD 0.02 with momentum 0.9 and 15 epochs of 10,000 images instead
(rate=0.02,optimizer=sgd,epochs=15): train 0.952, test 0.893.

Arguments: folder, full, train, test (rows of the two sides), epochs, models (1, or an even number),
batch, rate, optimizer, momentum, resize, norm (batch, group, layer, none), fgsm (accuracy under
one-step adversarial changes too).
"""

from mia_jax.configuration import classic


def get_config(arg=None):
    arg = classic.large_arguments(
        arg,
        full=dict(batch=256, rate=0.05, resize=96),
        epochs=20,
        batch=64,
        optimizer="adam",
        rate=1e-3,
        norm="batch",
        fgsm=False,
    )
    return classic.config(
        arg,
        model=dict(name="resnet18", norm=arg.norm, resize=arg.resize),
        learner=classic.large_learner(arg),
        query=dict(signals=("correct_under_fgsm",) if arg.fgsm else ()),
    )
