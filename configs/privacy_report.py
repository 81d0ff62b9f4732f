"""The privacy report over epochs, of two nets: how fast does each learn, and how fast does it learn its training set by heart?

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/privacy_report.py --grid --workdir=runs/privacy_report

Figures: runs/privacy_report/epochs.png (both nets), <net>/report/figures/epochs.png; every slice and metric after every epoch:
<net>/report/epochs.csv.

After TensorFlow Privacy's tutorial: small_cnn of two and three convolutions, Adam 1e-3, batches of 50, 50 epochs, a report after every second one:
a loss threshold and a cross-fitted logistic classifier of probabilities and loss, on all rows and class by class. There CIFAR-10's 50,000 + 10,000
rows end at train/validation accuracy .918/.661 (two convolutions) and .811/.685 (three; it has a third of the parameters, not more, as the text there
says): an advantage of at least their difference, .257 and .126. Argument tfds=cifar10 runs that where the data set is installed.

Measured (10,000 members, 2,000 non-members of Fashion-MNIST; 25 reports of 11 slices x 2 attacks a net; 21 min for both on 2 CPU cores beside
other work): two convolutions learn more and leak more. After epochs 2, 26, 50: train/validation accuracy .850/.842, .979/.890, 1.000/.891, AUC of
the classifier .504 [.491, .518], .553 [.538, .568], .601 [.585, .617], of the loss threshold .504, .525, .538 [.523, .553]. Three convolutions:
.781/.775, .922/.862, .978/.854; classifier .508, .535 [.520, .549], .565 [.550, .579]; loss .505, .524, .539 [.523, .555]. The best advantage at
epoch 50, .157 and .134, exceeds the gap of the accuracies, .109 and .124. TPR at 1% FPR stays at 1%: what the target alone says names nobody.

Arguments: folder, tfds (a data set of tensorflow-datasets instead of the folder), train, test, conv (2 or 3), epochs, every, models (more than 1: a
fleet on complementary halves, and LiRA over epochs).
"""

from mia_jax import configuration


def grid(arg=None):
    return [("two_convolutions", dict(conv=2)), ("three_convolutions", dict(conv=3))]


TABLE = dict(attacks=("threshold_loss", "attack_model_target"), metrics=("auc", "tpr@0.01"))


def get_config(arg=None):
    needs = dict(folder=("tfds", ""))
    arg = configuration.arguments(
        arg, {}, needs, folder="/usr/share/datasets/fashion-mnist", tfds="", train=10_000, test=2_000, conv=2, epochs=50, every=2, models=1
    )
    rows = dict(examples=arg.train + arg.test)
    attacks = dict(
        threshold_loss=dict(name="threshold", signal="loss"),
        attack_model_target=dict(name="attack_model", fit="target", features=("probabilities", "loss")),
    )
    if arg.models > 1:
        attacks |= dict(lira=dict(variance="shrunk"))
    return configuration.complete(
        data=dict(name="tfds", dataset=arg.tfds) | rows if arg.tfds else dict(name="idx", folder=arg.folder) | rows,
        design=dict(name="holdout", members=arg.train) if arg.models == 1 else dict(name="halves", models=arg.models),
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
