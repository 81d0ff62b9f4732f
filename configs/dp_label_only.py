"""The label-only paper's DP-Adam on disjoint blocks of Fashion-MNIST, with the privacy budget
enforced: gap, label-only and threshold attacks.

    apt-get install dataset-fashion-mnist
    python launch.py --config=configs/dp_label_only.py --workdir=runs/dp_label_only

The target, its non-members and the source as in label_only_blocks.py, which is the same without
privacy. Every example's gradient is clipped to norm 2, the noise of the sum has standard deviation
noise * 2, Adam 1e-4, Poisson batches of 100 expected, delta 1/n.

Measured (28 min on 2 CPU cores under other load, 7 CPU-minutes): training stops after 13 of 1,000
epochs at epsilon 19.96 (PLD, delta 1/2500; RDP 23.7); accuracy 37.8% on members, 38.7% on
non-members (the same net without privacy: 100% and 86.4%); no attack is distinguishable from random
guessing: AUC of the loss 0.494 [0.479, 0.509], balanced accuracy of the gap 49.5% [48.2, 50.9], of
translation 49.7% [48.3, 51.0], of rotation 49.6% [48.2, 50.9].

Arguments: folder, ndata, depth, epochs (at most), noise (the multiplier), budget: the epsilon (PLD)
before which training stops. The original's budget is 1.0, which is spent within the first epoch at
noise 0.5: budget=1.0 is refused with "not one epoch fits".
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
