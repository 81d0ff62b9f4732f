"""Runs the gap attack and thresholds on a target trained as in Choquette-Choo et al. (2021).

One target and one source model are trained on disjoint blocks of Fashion-MNIST or CIFAR-10.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/label_only_blocks.py --workdir=runs/label_only_blocks

Rows [0, n) train the target and rows [n, 2n) are its non-members; the source model has the next two
blocks. Adam 1e-3, batches of 100 (25 steps per epoch at n = 2,500) and at most 1,000 epochs;
training stops 20 epochs after the last epoch that improved the training loss by at least 0.005.

Time: 9 min 57 s on 2 CPU cores while tests were running.

Expected: the target stops after epoch 55 (its best epoch is 35), the source model after epoch 54.

    train accuracy, test accuracy       1, 0.8640
    balanced accuracy of gap            56.80% = 50 + 50 (train - test)
    the same of threshold_loss          62.36% [61.5, 63.3], at the threshold of the source model
    AUC of lira_offline                 0.613 [0.598, 0.627]

The original is on CIFAR-10 (folder=cifar10, prepared by TensorFlow Datasets): its target stops
after epoch 48 with a train accuracy of 1 and a test accuracy of 0.497. That was not run here; a
small run on made-up images is tested.

Arguments:
    folder: of MNIST files, or cifar10.
    ndata, depth, epochs: sizes.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg, folder="/usr/share/datasets/fashion-mnist", ndata=2500, depth=1, epochs=1000
    )
    return configuration.complete(
        data=dict(name="tfds", dataset="cifar10", splits=("train",), examples=4 * arg.ndata)
        if arg.folder == "cifar10"
        else dict(name="idx", folder=arg.folder, examples=4 * arg.ndata),
        design=dict(name="blocks", size=arg.ndata),
        model=dict(name="conv", depth=arg.depth),
        learner=dict(
            optimizer=dict(name="adam", eps=1e-7),
            learning_rate=1e-3,
            batch_size=100,
            epochs=arg.epochs,
            stop=dict(monitor="loss", min_delta=0.005, patience=20),
            validation="nonmembers",
        ),
        query=dict(batch_size=100),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            threshold_max_confidence=dict(name="threshold", signal="max_confidence"),
            threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
            lira_offline=dict(name="lira", mode="offline", offline_score="log_cdf"),
        ),
        run=dict(chunk=1),
    )
