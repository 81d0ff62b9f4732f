"""Runs 14 attacks on 16 small CNNs trained on halves of 10,000 images of Fashion-MNIST.

Every model is the target in turn. Any other folder in MNIST's format works as well.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Time: 4 min 13 s on 2 CPU cores while tests were running.

Expected: train accuracy 0.904, validation accuracy 0.853; means over 16 targets with crossed 95%
intervals:

                      AUC                     TPR at 1% FPR
    lira_shrunk       0.560 [0.553, 0.567]    2.6% [2.2, 3.0]
    lira_pooled       0.543 [0.536, 0.550]    1.9% [1.5, 2.5]
    lira              0.539 [0.532, 0.545]
    threshold_loss    0.513 [0.511, 0.515]

Arguments: folder (the four .gz files), examples, models, epochs.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg, folder="/usr/share/datasets/fashion-mnist", examples=10_000, models=16, epochs=20
    )
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=arg.examples),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="small_cnn", num_conv=2),
        learner=dict(
            optimizer=dict(name="adam", eps=1e-7),
            learning_rate=1e-3,
            batch_size=100,
            epochs=arg.epochs,
        ),
        query=dict(views=("identity", "flip"), batch_size=100),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            threshold_max_confidence=dict(name="threshold", signal="max_confidence"),
            threshold_entropy=dict(name="threshold", signal="entropy"),
            threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
            threshold_hinge=dict(name="threshold", signal="hinge"),
            threshold_rescaled_logit=dict(name="threshold", signal="rescaled_logit"),
            lira=dict(mode="online", variance="per_example"),
            lira_shrunk=dict(name="lira", mode="online", variance="shrunk"),
            lira_pooled=dict(name="lira", mode="online", variance="pooled"),
            lira_median=dict(name="lira", mode="online", variance="per_example", center="median"),
            lira_offline=dict(name="lira", mode="offline", offline_score="log_cdf"),
            lira_offline_pdf=dict(name="lira", mode="offline", offline_score="log_pdf"),
        ),
        run=dict(chunk=1),
    )
