"""Runs gap, label-only and threshold attacks on a target trained by DP-Adam.

This is the private training of the label-only paper (Choquette-Choo et al. 2021) on disjoint blocks
of Fashion-MNIST. Training stops before the privacy budget is exceeded.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/dp_label_only.py --workdir=runs/dp_label_only

The target, its non-members and the source model are those of label_only_blocks.py, which trains the
same net without privacy. Every example's gradient is clipped to norm 2, and the noise of the sum
has the standard deviation noise * 2. Adam 1e-4, Poisson batches of 100 expected rows, delta 1/n.

Time: 28 min on 2 CPU cores on a busy machine (7 CPU-minutes).

Expected: training stops after 13 of 1,000 epochs at epsilon 19.96 (PLD, delta 1/2500; RDP: 23.7).

                  this config    the same net without privacy
    members       37.8%          100%
    non-members   38.7%          86.4%

No attack is distinguishable from random guessing:

    AUC of the loss                     0.494 [0.479, 0.509]
    balanced accuracy of gap            49.5% [48.2, 50.9]
    balanced accuracy of translation    49.7% [48.3, 51.0]
    balanced accuracy of rotation       49.6% [48.2, 50.9]

Arguments:
    folder: the four .gz files of Fashion-MNIST.
    ndata, depth: rows per block, and the depth of the net.
    epochs: the largest number of epochs.
    noise: the noise multiplier.
    budget: the epsilon (PLD) at which training stops. The original's budget of 1.0 is spent within
        the first epoch at noise 0.5: budget=1.0 is refused with "not one epoch fits".
"""

from mia_jax import configuration, registry


def get_config(arg=None):
    folder = "/usr/share/datasets/fashion-mnist"
    arg = configuration.arguments(
        arg, folder=folder, ndata=2500, depth=1, epochs=1000, noise=0.5, budget=20.0
    )
    shift, rotation = (
        registry.spelled("correct_under_shift", d=1),
        registry.spelled("correct_under_rotation", r=4.0),
    )
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=4 * arg.ndata),
        design=dict(name="blocks", size=arg.ndata),
        model=dict(name="conv", depth=arg.depth),
        learner=dict(
            gradient="private",
            privacy=dict(
                clip_norm=2.0, noise_multiplier=arg.noise, epsilon=arg.budget, delta=1 / arg.ndata
            ),
            optimizer=dict(name="adam", eps=1e-7),
            learning_rate=1e-4,
            batch_size=100,
            epochs=arg.epochs,
            validation="nonmembers",
        ),
        query=dict(batch_size=100, ask_batch_size=100),
        attacks=dict(
            gap=dict(),
            translation=dict(name="lookup", signal=shift),
            rotation=dict(name="lookup", signal=rotation),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            threshold_max_confidence=dict(name="threshold", signal="max_confidence"),
            threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
        ),
        run=dict(chunk=1),
    )
