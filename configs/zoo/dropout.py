"""The dropout net, 784-256-256-10 with dropout .2 and .5, on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/dropout.py --workdir=runs/zoo/dropout

Fashion-MNIST's own split, one model; models=8 trains a fleet on complementary halves instead and adds LiRA.

Printed by the source (Dive into Deep Learning): train loss below .5, train and test accuracy above .7. Measured: train loss .360, accuracy .867
(both averages over the last epoch), test .862; threshold_loss AUC .510 [.504, .517]. 99 s on 2 busy CPU cores.

Arguments: folder, train, test (rows of the two sides), epochs, models (1, or an even number), dropout (both rates at 0 without it).
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, folder="/usr/share/datasets/fashion-mnist", train=60_000, test=10_000, epochs=10, models=1, dropout=True)
    one = dict(name="holdout", members=arg.train)
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=arg.train + arg.test),
        design=one if arg.models == 1 else dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="mlp", widths=(256, 256), dropout=(0.2, 0.5) if arg.dropout else 0.0, init="normal"),
        learner=dict(optimizer="sgd", learning_rate=0.5, batch_size=256, epochs=arg.epochs, validation="nonmembers"),
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
