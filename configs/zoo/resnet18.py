"""ResNet-18 on Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/resnet18.py --workdir=runs/zoo/resnet18

One model on the first rows, tested on the next; models=8 trains a fleet on complementary halves instead and adds LiRA. The same net and its
exact layers on images of 28x28, as two cores can; `full` is the source's recipe: 60,000 images at 96x96, SGD 0.05, batch 256, 10 epochs (wants
an accelerator).

Printed by the source (Dive into Deep Learning, 60,000 images): loss .012, train accuracy .997, test .893 (another reader: .008, .998, .921).
Measured: not measured to the end; after 2 of 8 epochs of 10,000 images loss .565, train accuracy .789, test .826.

Arguments: folder, full, train, test (rows of the two sides), epochs, models (1, or an even number), batch, rate, optimizer, resize, norm
(batch, group, layer, none), fgsm (accuracy under one-step adversarial changes too).
"""

from mia_jax import classic


def get_config(arg=None):
    arg = classic.large_arguments(
        arg, full=dict(batch=256, rate=0.05, resize=96), epochs=20, batch=64, optimizer="adam", rate=1e-3, norm="batch", fgsm=False
    )
    return classic.config(
        arg,
        model=dict(name="resnet18", norm=arg.norm, resize=arg.resize),
        learner=classic.large_learner(arg),
        query=dict(signals=("correct_under_fgsm",) if arg.fgsm else ()),
    )
