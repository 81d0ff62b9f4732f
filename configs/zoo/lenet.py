"""LeNet-5 with sigmoids and average pooling on the full Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/zoo/lenet.py --workdir=runs/zoo/lenet

Fashion-MNIST's own split, one model; models=8 trains a fleet on complementary halves instead and adds LiRA.

Printed by the source (Dive into Deep Learning): loss .469, train accuracy .823, test .779. Measured: loss .469, train accuracy .822 (both averages
over the last epoch), test .816; threshold_loss AUC .508 [.501, .514]. 6 min on 2 busy CPU cores.

Arguments: folder, train, test (rows of the two sides), epochs, models (1, or an even number), activation, pool.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg, folder="/usr/share/datasets/fashion-mnist", train=60_000, test=10_000, epochs=10, models=1, activation="sigmoid", pool="avg"
    )
    one = dict(name="holdout", members=arg.train)
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=arg.train + arg.test),
        design=one if arg.models == 1 else dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="lenet", activation=arg.activation, pool=arg.pool),
        learner=dict(optimizer="sgd", learning_rate=0.9, batch_size=256, epochs=arg.epochs, validation="nonmembers"),
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
