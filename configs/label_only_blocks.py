"""One target and one source model on disjoint blocks of Fashion-MNIST, trained as in Choquette-Choo
et al. 2021: the gap attack and thresholds.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/label_only_blocks.py --workdir=runs/label_only_blocks

Rows [0, n) train the target and [n, 2n) are its non-members; the source has the next two blocks.
Adam 1e-3, batch 100 (25 steps per epoch at n=2500), at most 1,000 epochs, stopped 20 epochs after
the last improvement of the training loss by at least 0.005.

9 min 57 s on 2 CPU cores while tests were running. Expected: the target stops after epoch 55 (best
epoch 35), the source after 54; train accuracy 1, test 0.8640: gap attack 56.80% = 50 + 50 (train -
test); threshold_loss, chosen on the source, 62.36% [61.5, 63.3]; lira_offline AUC 0.613 [0.598,
0.627].

Arguments: folder, ndata, depth, epochs.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg, folder="/usr/share/datasets/fashion-mnist", ndata=2500, depth=1, epochs=1000
    )
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=4 * arg.ndata),
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
