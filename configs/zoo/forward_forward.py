"""Forward-Forward, 784-500-500, labels written into the input: each layer learns alone, nothing is
backpropagated through the net.

    python launch.py --config=configs/zoo/forward_forward.py:path=mnist.npz --grid
    --workdir=runs/zoo/forward_forward_grid
    python launch.py --config=configs/zoo/forward_forward.py:path=mnist.npz
    --workdir=runs/zoo/forward_forward          # its first member
    python launch.py --config=configs/zoo/forward_forward.py:path=mnist.npz,rule=faithful,epochs=10
    --workdir=runs/zoo/forward_forward_faithful

`path` is an .npz with x [N,784] uint8 and y [N]: `members` of its rows, drawn at random, train one
model, the others are held out. Without it: Fashion-MNIST (apt-get install dataset-fashion-mnist).
models=8 trains a fleet on complementary halves instead and adds LiRA. The grid: the same losses
under the common trainer (`local`), the schedule of its own (`schedule`), and backpropagation
through a net of the same size (`backprop`).

Measured on the 10,000 MNIST digits (8,000 drawn, 2,000 held out; Forward-Forward's settings chosen
on 1,500 of the 8,000, none for backpropagation), 2 min 42 s of CPU time in all:

    rule       goodness, theta   train   held out   threshold_loss AUC
    local      sum, 10          0.991   0.950      0.518 [0.503, 0.534]        60 epochs, 62 s under
    other load
    schedule   sum, 10          0.995   0.951      0.528 [0.513, 0.543]        40 epochs of 16
    batches, 5 steps per layer on each, 151 s
    backprop                     1.000  0.963      0.519 [0.503, 0.536]        20 epochs, 15 s

With the mean of squares and theta 1.5, as the source has it, `schedule` stops at 0.905.
rule=faithful is the source (Keras example, MNIST 60,000/10,000; metric layer_loss_so_far is its
FinalLoss), here on the 8,000 drawn digits, full batches all the same:

    epoch                   1      2      3      5      10     50     250
    printed, 60,000        0.7247 0.7089 0.6978 0.6644 0.5853 0.4090 0.3138   test accuracy 0.9756
    measured, 8,000        0.7190 0.7055 0.6989 0.6603 0.5776  not run        held out 0.881 after
    10 epochs (train 0.895)

27 s of CPU time an epoch of 8,000 (50 steps per layer, one program on the device); the source
reports 40 s an epoch of 60,000, on hardware of its own.

Arguments: path, folder, members, models, rule (local, schedule, faithful or backprop), epochs (the
rule's own unless typed).
"""

from mia_jax import configuration

ADAM = dict(name="backprop", optimizer=dict(name="adam", eps=1e-7), batch_size=100)
LOCAL = dict(
    objective=dict(name="forward_forward", theta=10.0),
    learning_rate=1e-2,
    schedule="cosine_decay_schedule",
    epochs=60,
)
RULES = dict(  # the learner, what its net is given besides the widths
    local=(ADAM | LOCAL, dict(goodness="sum")),
    schedule=(
        dict(
            name="forward_forward",
            theta=10.0,
            batch_size=500,
            inner_steps=5,
            learning_rate=0.01,
            epochs=40,
        ),
        dict(goodness="sum"),
    ),
    faithful=(
        dict(
            name="forward_forward",
            batch_size=0,
            inner_steps=50,
            learning_rate=0.03,
            negatives="permuted",
            epochs=250,
        ),
        {},
    ),
    backprop=(ADAM | dict(learning_rate=1e-3, epochs=20), None),
)
TABLE = dict(attacks=("threshold_loss", "threshold_hinge"), metrics=("auc", "tpr@0.01"))


def grid(arg=None):
    return [(rule, dict(rule=rule)) for rule in ("local", "schedule", "backprop")]


def get_config(arg=None):
    needs = dict(members=("models", 1), folder=("path", ""))
    arg = configuration.arguments(
        arg,
        {},
        needs,
        path="",
        folder="/usr/share/datasets/fashion-mnist",
        members=8000,
        models=1,
        rule="local",
        epochs=int,
    )
    learner, net = configuration.choose(RULES, rule=arg.rule)
    several = arg.models > 1
    return configuration.complete(
        data=dict(name="npz", path=arg.path, shape=(28, 28, 1))
        if arg.path
        else dict(name="idx", folder=arg.folder, examples=10_000),
        design=dict(name="halves", models=arg.models, population=0.1)
        if several
        else dict(name="holdout", members=arg.members, drawn=True),
        model=dict(name="mlp", widths=(500, 500))
        if net is None
        else dict(name="forward_forward", widths=(500, 500), **net),
        learner=learner | dict(epochs=learner["epochs"] if arg.epochs is None else arg.epochs),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_hinge=dict(name="threshold", signal="hinge"),
            **(dict(lira=dict(variance="shrunk")) if arg.models >= 4 else {}),
        ),
        run=dict(chunk=1, checkpoint_every=5),
    )
