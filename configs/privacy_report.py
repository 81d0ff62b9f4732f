"""Tracks leakage over the epochs of two CNNs: how fast each learns, and how fast it memorizes.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/privacy_report.py --grid --workdir=runs/privacy_report

Figures: runs/privacy_report/epochs.png (both nets) and <net>/report/figures/epochs.png. Every slice
and metric after every reported epoch: <net>/report/epochs.csv.

It follows TensorFlow Privacy's tutorial: small_cnn with two and three convolutions, Adam 1e-3,
batches of 50, 50 epochs. After every second epoch, two attacks are evaluated on all rows and class
by class: a loss threshold, and a cross-fitted logistic classifier of probabilities and loss. On
CIFAR-10's 50,000 + 10,000 rows, the tutorial's accuracies on training and validation rows end at
0.918 and 0.661 (two convolutions) and at 0.811 and 0.685 (three; this net has a third of the
parameters, not more, as the tutorial says). The advantage is at least their difference, 0.257 and
0.126. The argument tfds=cifar10 runs that where the data set is installed.

Time: 21 min for both nets on 2 CPU cores on a busy machine (25 reports of 11 slices and 2 attacks
per net).

Expected with 10,000 members and 2,000 non-members of Fashion-MNIST; the net with two convolutions
learns more and leaks more:

                              two convolutions        three convolutions
    epoch 2   train, valid.   0.850, 0.842            0.781, 0.775
              AUC classifier  0.504 [0.491, 0.518]    0.508
              AUC loss        0.504                   0.505
    epoch 26  train, valid.   0.979, 0.890            0.922, 0.862
              AUC classifier  0.553 [0.538, 0.568]    0.535 [0.520, 0.549]
              AUC loss        0.525                   0.524
    epoch 50  train, valid.   1.000, 0.891            0.978, 0.854
              AUC classifier  0.601 [0.585, 0.617]    0.565 [0.550, 0.579]
              AUC loss        0.538 [0.523, 0.553]    0.539 [0.523, 0.555]
              best advantage  0.157                   0.134
              train - valid.  0.109                   0.124

TPR at 1% FPR stays at 1%, as for random guessing: these attacks use only the target's outputs and
identify no members at a low FPR.

Arguments:
    folder: the four .gz files.
    tfds: a data set of tensorflow-datasets, used instead of the folder.
    train, test: numbers of members and of non-members.
    conv: 2 or 3 convolutions.
    epochs, every: the number of epochs, and of epochs per report.
    models: more than 1 trains a fleet on complementary halves and adds LiRA over the epochs.
"""

from mia_jax import configuration


def grid(arg=None):
    return [("two_convolutions", dict(conv=2)), ("three_convolutions", dict(conv=3))]


TABLE = dict(attacks=("threshold_loss", "attack_model_target"), metrics=("auc", "tpr@0.01"))


def get_config(arg=None):
    needs = dict(folder=("tfds", ""))
    arg = configuration.arguments(
        arg,
        {},
        needs,
        folder="/usr/share/datasets/fashion-mnist",
        tfds="",
        train=10_000,
        test=2_000,
        conv=2,
        epochs=50,
        every=2,
        models=1,
    )
    rows = dict(examples=arg.train + arg.test)
    attacks = dict(
        threshold_loss=dict(name="threshold", signal="loss"),
        attack_model_target=dict(
            name="attack_model", fit="target", features=("probabilities", "loss")
        ),
    )
    if arg.models > 1:
        attacks |= dict(lira=dict(variance="shrunk"))
    return configuration.complete(
        data=dict(name="tfds", dataset=arg.tfds) | rows
        if arg.tfds
        else dict(name="idx", folder=arg.folder) | rows,
        design=dict(name="holdout", members=arg.train)
        if arg.models == 1
        else dict(name="halves", models=arg.models),
        model=dict(name="small_cnn", num_conv=arg.conv),
        learner=dict(
            optimizer="adam",
            learning_rate=1e-3,
            batch_size=50,
            epochs=arg.epochs,
            validation="nonmembers",
            snapshots=tuple(range(arg.every, arg.epochs + 1, arg.every)),
        ),
        attacks=attacks,
        report=dict(epochs=tuple(attacks)),
        run=dict(chunk=min(4, arg.models)),
    )
