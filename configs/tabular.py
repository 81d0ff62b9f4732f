"""A table of your own (csv or npz with a label column): fully connected tanh nets on complementary
halves.

    python launch.py --config=configs/tabular.py:path=purchase.csv,label=0 --workdir=runs/purchase

Shapes of the sets that membership-inference papers use (features / classes), to check a file
against: Adult 107 / 2, Purchase 600 / 100, Texas 6,168 / 100 (labels in a file of their own:
--config.data.label_path=labels.csv), Location 446 / 30. The files are the user's own. Arguments:
path, label (the column's number or name; --config.data.label sets it as well), models, epochs,
standardize (fitted on the population rows only).
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg, path="data.csv", label=str, models=32, epochs=50, standardize=False
    )
    label = (
        {}
        if arg.label is None
        else dict(label=int(arg.label) if arg.label.lstrip("-").isdigit() else arg.label)
    )
    return configuration.complete(
        data=dict(name="tabular", path=arg.path, standardize=arg.standardize, **label),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="fc"),
        learner=dict(optimizer="adam", learning_rate=1e-3, batch_size=100, epochs=arg.epochs),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
            lira=dict(mode="online"),
            lira_offline=dict(name="lira", mode="offline"),
        ),
        run=dict(chunk="auto"),
    )
