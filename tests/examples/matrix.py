"""A small matrix of defenses, for tests."""

from mia_jax import configuration

MATRIX = dict(argument="defense", undefended="none", accuracy="gap", about=dict(smooth="soft"))
TABLE = dict(metrics=("auc",))


def grid(arg=None):
    """Returns no defense, one of training, one of outputs, and a body with its fine-tuning."""
    del arg
    names = ("none", "smooth", "memguard", "body", "tuned")
    return [(name, dict(defense=name)) for name in names]


def get_config(arg=None):
    arg = configuration.arguments(arg, defense="none", epochs=4)
    learner = dict(learning_rate=0.01, epochs=arg.epochs, validation="nonmembers")
    learner |= dict(
        smooth=dict(objective=dict(name="cross_entropy", label_smoothing=0.5)),
        body=dict(train_on="extra"),
        tuned=dict(init_from="variant:body", trainable="Dense_1/"),
    ).get(arg.defense, {})
    attacks = dict(gap=dict(), loss=dict(name="threshold", signal="loss"))
    if arg.defense == "memguard":
        behind = {name: dict(name=name) | attack for name, attack in attacks.items()}
        attacks = {name: attack | dict(defense="memguard") for name, attack in behind.items()}
        attacks |= {f"{name}_known": a | dict(adaptive=True) for name, a in attacks.items()}
    return configuration.complete(
        data=dict(name="digits", flat=True, examples=200),
        design=dict(name="halves", models=10, targets=4, apart=True, extra=0.2),
        model=dict(name="mlp", widths=(8,)),
        learner=learner,
        attacks=attacks,
        report=dict(figures=False, shadow_curve=(), slices=(), draws=40, fprs=(0.1,), records=()),
        run=dict(chunk=10),
    )
