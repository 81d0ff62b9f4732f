"""VGG-11 with a quarter of the features on Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/vgg.py --workdir=runs/zoo/vgg

One model on the first rows, tested on the next; models=8 trains a fleet on complementary halves instead and adds LiRA. The same net and its
exact layers on images of 32x32, as two cores can; `full` is the source's recipe: 60,000 images at 224x224, SGD 0.05, batch 128, 10 epochs (wants
an accelerator).

Printed by the source (Dive into Deep Learning, 60,000 images): loss .178, train accuracy .935, test .920. Measured with 4,000 images: loss .706,
train accuracy .751 (all members after training), test .760; threshold_loss AUC .484 [.463, .506]. 11 min on 2 busy CPU cores.

Arguments: folder, full, train, test (rows of the two sides), epochs, models (1, or an even number), batch, rate, optimizer, resize.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        folder="/usr/share/datasets/fashion-mnist",
        full=False,
        train=4_000,
        test=1_000,
        epochs=8,
        models=1,
        batch=32,
        rate=0.01,
        optimizer="momentum",
        resize=32,
    )
    if arg.full:
        arg.train, arg.test, arg.epochs, arg.batch, arg.rate, arg.optimizer, arg.resize = 60_000, 10_000, 10, 128, 0.05, "sgd", 224
    one = dict(name="holdout", members=arg.train)
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=arg.train + arg.test),
        design=one if arg.models == 1 else dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="vgg", resize=arg.resize, divide=4),
        learner=dict(
            optimizer=arg.optimizer,
            learning_rate=arg.rate,
            schedule="constant" if arg.full else "cosine",
            batch_size=arg.batch,
            epochs=arg.epochs,
            validation="nonmembers",
        ),
        query=dict(batch_size=500),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
            **(dict(lira=dict(variance="shrunk"), lira_offline=dict(name="lira", mode="offline")) if arg.models >= 4 else {}),
        ),
        run=dict(chunk=1),
    )
