"""Trains fully connected tanh nets on complementary halves of your own table and attacks them.

The table is a csv or npz file with a column of labels.

    python launch.py --config=configs/tabular.py:path=purchase.csv,label=0 --workdir=runs/purchase

No data set is shipped, so no time and no numbers are given. To check a file, these are the shapes
of the sets that membership-inference papers use:

    data set    features    classes
    Adult       107         2
    Purchase    600         100
    Texas       6,168       100       (labels in another file: --config.data.label_path=labels.csv)
    Location    446         30

Arguments:
    path: the file.
    label: the number or the name of the column of labels (--config.data.label sets it as well).
    models, epochs: the size of the fleet, and of its training.
    standardize: whether features are standardized, by the population rows only.
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
