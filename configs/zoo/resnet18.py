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

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        folder="/usr/share/datasets/fashion-mnist",
        full=False,
        train=10_000,
        test=2_000,
        epochs=8,
        models=1,
        batch=64,
        rate=0.02,
        optimizer="momentum",
        resize=0,
        norm="batch",
        fgsm=False,
    )
    if arg.full:
        arg.train, arg.test, arg.epochs, arg.batch, arg.rate, arg.optimizer, arg.resize = 60_000, 10_000, 10, 256, 0.05, "sgd", 96
    one = dict(name="holdout", members=arg.train)
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=arg.train + arg.test),
        design=one if arg.models == 1 else dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="resnet18", norm=arg.norm, resize=arg.resize),
        learner=dict(
            optimizer=arg.optimizer,
            learning_rate=arg.rate,
            schedule="constant" if arg.full else "cosine",
            batch_size=arg.batch,
            epochs=arg.epochs,
            validation="nonmembers",
        ),
        query=dict(batch_size=500, signals=("correct_under_fgsm",) if arg.fgsm else ()),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
            **(dict(lira=dict(variance="shrunk"), lira_offline=dict(name="lira", mode="offline")) if arg.models >= 4 else {}),
        ),
        run=dict(chunk=1),
    )
