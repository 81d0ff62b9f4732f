"""Runs every score-based attack on 32 MLPs trained on halves of the digits.

Every model is the target in turn, and three query views are measured.

    python launch.py --config=configs/attack_zoo.py --workdir=runs/attack_zoo

Time: 2 min 49 s on 2 CPU cores while tests were running.

Expected TPR at 1% FPR, means over 32 targets with crossed 95% intervals:

    multi_signal, lira_shrunk              9.1% [7.1, 10.6] and 9.1% [7.1, 10.5]
    lira                                   6.7% [5.0, 8.2]
    best threshold (modified entropy)      1.1% [0.75, 1.6], on the target's outputs only

All attacks are in RESULTS.md. A cross-fitted attack (attack_model_target) knows half of the
target's members, so the report lists it separately and never ranks it.

Arguments: models, epochs.
"""

from mia_jax import configuration

SIGNALS = (
    "loss",
    "confidence",
    "max_confidence",
    "entropy",
    "modified_entropy",
    "hinge",
    "rescaled_logit",
)


def get_config(arg=None):
    arg = configuration.arguments(arg, models=32, epochs=100)
    thresholds = {
        f"threshold_{signal}": dict(name="threshold", signal=signal) for signal in SIGNALS
    }
    classes = {
        f"class_threshold_{s}": dict(name="class_threshold", signal=s)
        for s in ("entropy", "modified_entropy", "confidence")
    }
    return configuration.complete(
        data=dict(name="digits", flat=False),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="mlp", widths=(256,)),
        learner=dict(
            optimizer="adam",
            learning_rate=3e-3,
            batch_size=32,
            epochs=arg.epochs,
            snapshots=(*(e for e in (1, 2, 5, 10, 20, 50) if e < arg.epochs), arg.epochs),
        ),
        query=dict(views=("identity", "rotate:5", "rotate:-5")),
        attacks=dict(
            gap=dict(),
            **thresholds,
            **classes,
            lira=dict(variance="per_example"),
            lira_shrunk=dict(name="lira", variance="shrunk"),
            lira_multivariate=dict(name="lira", variance="shrunk", views="multivariate"),
            lira_pooled=dict(name="lira", variance="pooled"),
            lira_offline=dict(name="lira", mode="offline", variance="per_example"),
            lira_offline_shrunk=dict(name="lira", mode="offline", variance="shrunk"),
            rmia=dict(mode="online"),
            rmia_offline=dict(name="rmia", mode="offline"),
            base=dict(),
            multi_signal=dict(),
            offset=dict(),
            reference=dict(),
            population=dict(),
            quantile=dict(),
            privacy_risk_score=dict(),
            attack_model=dict(kind="logistic"),
            attack_model_mlp=dict(name="attack_model", kind="mlp", rows=4000),
            attack_model_target=dict(
                name="attack_model", kind="logistic", fit="target", features=("loss", "correct")
            ),
            trajectory=dict(),
            range=dict(),
            ensemble=dict(),
        ),
        run=dict(chunk=8),
    )
