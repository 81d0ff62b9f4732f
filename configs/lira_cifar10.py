"""Runs the CIFAR-10 recipe of the LiRA paper (Carlini et al. 2022, arXiv:2112.03570).

16 models of WideResNet-28-2, 100 epochs. It needs a GPU and was not run here; only its smoke run is
tested.

    python launch.py --config=configs/lira_cifar10.py --workdir=runs/lira_cifar10

CIFAR-10 must have been prepared by TensorFlow Datasets as array_record; if it was not, the error
message says what to type.

Published by the authors for 16 models (README of their released code; not reproduced here):

    attack                   AUC       accuracy   TPR at 0.1% FPR
    online                   0.6676    0.6077     0.0169
    online, fixed variance   0.6856    0.6137     0.0593
    offline                  0.5488    0.5500     0.0130
    offline, fixed variance  0.5549    0.5537     0.0299
    global threshold         0.5921    0.6044     0.0009

Differences from their recipe:

  * Complementary pairs of models instead of exact counts: if every example were in exactly half of
    the models, the other models would reveal whether it is in the target.
  * A tenth of the rows trains no model.
  * The last weights are queried, not their moving average.
  * Inputs are in [0, 1].

Arguments:
    models, epochs, depth, width, examples: sizes.
    norm: batch or group.
    data_dir: the folder of TensorFlow Datasets ('' is its default).
    smoke: 4 tiny models on a few images, a test of the wiring.
"""

from mia_jax import configuration


def get_config(arg=None):
    tiny = dict(models=4, epochs=1, depth=10, width=1, examples=256)
    defaults = dict(
        models=16, epochs=100, depth=28, width=2, norm="batch", examples=50_000, data_dir=""
    )
    arg = configuration.arguments(arg, dict(smoke=tiny), **defaults, smoke=False)
    return configuration.complete(
        data=dict(
            name="tfds",
            dataset="cifar10",
            splits=("train",),
            examples=arg.examples,
            data_dir=arg.data_dir or None,
        ),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="wide_resnet", depth=arg.depth, width=arg.width, norm=arg.norm),
        learner=dict(
            optimizer=dict(name="sgd", momentum=0.9),
            learning_rate=0.1,
            schedule=dict(name="cosine_7_16", warmup_epochs=0.01 * arg.epochs),
            l2=2.5e-4,
            penalize="kernel$",
            batch_size=256,
            epochs=arg.epochs,
            augment=("flip", "crop:4"),
        ),
        query=dict(views=("identity", "flip")),
        attacks=dict(
            threshold_loss=dict(name="threshold", signal="loss"),
            lira=dict(mode="online", variance="per_example", center="median"),
            lira_pooled=dict(name="lira", mode="online", variance="pooled", center="median"),
            lira_offline=dict(
                name="lira",
                mode="offline",
                offline_score="log_pdf",
                variance="per_example",
                center="median",
            ),
            lira_offline_pooled=dict(
                name="lira",
                mode="offline",
                offline_score="log_pdf",
                variance="pooled",
                center="median",
            ),
        ),
        report=dict(show_records="contents"),  # CIFAR-10 is public
        run=dict(chunk="auto"),
    )
