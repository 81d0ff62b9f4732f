"""Forward-Forward, 784-500-500, labels written into the input: each layer learns alone, nothing is backpropagated through the net.

    python launch.py --config=configs/zoo/forward_forward.py:path=mnist.npz --workdir=runs/zoo/forward_forward
    python launch.py --config=configs/zoo/forward_forward.py:path=mnist.npz --grid --workdir=runs/zoo/forward_forward_grid

`path` is an .npz with x [N,784] uint8 and y [N]: `members` of its rows, drawn at random, train one model, the others are held out. Without it:
Fashion-MNIST (apt-get install dataset-fashion-mnist). models=8 trains a fleet on complementary halves instead and adds LiRA. The grid: the schedule
of its own (`schedule`), the same losses under the common trainer (`local`), and backpropagation through a net of the same size (`backprop`).

Printed by the source (Keras example, MNIST 60,000/10,000, rule=faithful): FinalLoss .7247 after epoch 1, .5853 after 10, .4090 after 50, .3138
after 250 (metric layer_loss_so_far); test accuracy .9756. Measured
on the 10,000 MNIST digits (8,000 drawn, rule=schedule, 3 min): train .932, held out .905; the other rules are not measured.

Arguments: path, folder, members, models, rule (schedule, faithful, local or backprop), epochs (0: the rule's own).
"""

from mia_jax import configuration

RULES = dict(
    schedule=dict(name="forward_forward", batch_size=500, inner_steps=5, learning_rate=0.01, epochs=40),
    faithful=dict(name="forward_forward", batch_size=0, inner_steps=50, learning_rate=0.03, negatives="permuted", epochs=250),
    local=dict(name="backprop", objective="forward_forward", optimizer="adam", learning_rate=3e-3, epsilon=1e-7, batch_size=100, epochs=40),
    backprop=dict(name="backprop", optimizer="adam", learning_rate=1e-3, epsilon=1e-7, batch_size=100, epochs=20),
)
TABLE = dict(attacks=("threshold_loss", "threshold_hinge"), metrics=("auc", "tpr@0.01"))


def grid(arg=None):
    return [(rule, dict(rule=rule)) for rule in ("schedule", "local", "backprop")]


def get_config(arg=None):
    arg = configuration.arguments(arg, path="", folder="/usr/share/datasets/fashion-mnist", members=8000, models=1, rule="schedule", epochs=0)
    rule = configuration.chosen(RULES, rule=arg.rule)
    several = arg.models > 1
    return configuration.complete(
        data=dict(name="npz", path=arg.path, shape=(28, 28, 1)) if arg.path else dict(name="idx", folder=arg.folder, examples=10_000),
        design=dict(name="halves", models=arg.models, population=0.1) if several else dict(name="holdout", members=arg.members, drawn=True),
        model=dict(name="mlp", widths=(500, 500)) if arg.rule == "backprop" else dict(name="forward_forward", widths=(500, 500)),
        learner=rule | dict(epochs=arg.epochs or rule["epochs"], validation="nonmembers"),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_hinge=dict(name="threshold", signal="hinge"),
            **(dict(lira=dict(variance="shrunk")) if arg.models >= 4 else {}),
        ),
        run=dict(chunk=1, checkpoint_every=5),
    )
