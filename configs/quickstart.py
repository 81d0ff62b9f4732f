"""Runs 14 attacks on 64 MLPs trained on complementary halves of the digits.

Every model is the target in turn.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart

Time: 44 s on 2 CPU cores with an empty compilation cache.

Expected, means over 64 targets with crossed 95% intervals:

                      AUC                     TPR at 1% FPR
    lira_shrunk       0.657 [0.644, 0.669]    10.9% [9.4, 11.9]
    lira              0.652 [0.640, 0.665]    9.9% [8.5, 11.0]
    threshold_loss    0.532 [0.528, 0.536]    1.1% [0.87, 1.1]

Arguments: models (an even number), epochs, quick (16 models and 40 epochs unless they are typed),
for example --config=configs/quickstart.py:models=16,epochs=50.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg, dict(quick=dict(models=16, epochs=40)), models=64, epochs=100, quick=False
    )
    return configuration.complete(
        data=dict(name="digits", flat=True),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="mlp", widths=(256,)),
        learner=dict(
            name="backprop", optimizer="adam", learning_rate=3e-3, batch_size=32, epochs=arg.epochs
        ),
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
        report=dict(shadow_curve=("lira", "lira_shrunk")),
        run=dict(chunk=8),
    )
