r"""Audits a target that was trained elsewhere, with shadow models that are trained here.

The target's outputs are one file, the data another.

    python launch.py --config=configs/your_target.py:data=data.npz,signals=target.npz \
        --workdir=runs/target

data.npz holds x [N,..] and y [N] of every example that is queried. target.npz holds the target's
outputs on the same rows in the same order: logits [N,C] or probs [N,C] (or loss [N], with the
argument signal=loss), and member [N], which is 1 for the rows that the target was trained on and 0
for the others. Several outputs per example have a view axis A in front, with an entry for each of
--config.query.views.

All models that are trained are shadow models of that target: `shadow.model` and `shadow.learner`
below are the fleet's --config.model and --config.learner. The more they resemble the target, the
stronger the attacks. Time and numbers depend on the data.

Arguments:
    data, signals: the two files.
    signal: what the attacks read.
    model: the shadow models' architecture: mlp, fc, conv, small_cnn, ... or my_pkg.my_model.
    models, epochs: the number of shadow models, and of their epochs.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(
        arg,
        data="data.npz",
        signals="target.npz",
        signal="rescaled_logit",
        model="mlp",
        models=16,
        epochs=50,
    )
    return configuration.complete(
        data=dict(name="npz", path=arg.data),
        # Independent coins, which allow an odd number of rows.
        design=dict(name="bernoulli", models=arg.models, population=0.0),
        target=dict(signals=arg.signals),
        shadow=dict(
            model=dict(name=arg.model),
            learner=dict(optimizer="adam", learning_rate=1e-3, batch_size=100, epochs=arg.epochs),
        ),
        attacks=dict(
            threshold_loss=dict(name="threshold", signal="loss"),
            lira=dict(mode="online", variance="gaussian", signal=arg.signal),
            lira_shrunk=dict(name="lira", mode="online", variance="shrunk", signal=arg.signal),
            lira_offline=dict(name="lira", mode="offline", signal=arg.signal),
            attack_model=dict(features=("loss",)),
        ),
        run=dict(chunk="auto"),
    )
