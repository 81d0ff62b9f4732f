"""Compares how much six learning rules leak about the same rows (digits).

The rules are backpropagation, DP-SGD, Forward-Forward with and without differential privacy, a
siamese net, and least squares on random features, with about as many weights each.

    # All six rules, and a table of their leakage.
    python launch.py --config=configs/learning_rules.py --grid --workdir=runs/learning_rules
    # Only one of them.
    python launch.py --config=configs/learning_rules.py:rule=siamese --workdir=runs/siamese

Each rule trains 32 models on complementary halves (808 rows) of scikit-learn's digits, with two
layers of 128 units. The nets have 26,122 weights; Forward-Forward has 24,832 (it has no last
layer), and least squares solves for the last 1,290 only. The private rules have epsilon 8 at delta
1e-4. All settings were chosen by hand for accuracy on these digits, which no epsilon covers.

Time: 5 min 20 s for all six on a busy machine (2 min 51 s of CPU time).

Expected accuracy on members and on other rows, and AUC with its 95% interval, means over 32
targets:

    rule                  train    others   lira                    white box
    backprop              1.000    0.974    0.639 [0.626, 0.652]    0.540 [0.528, 0.552]
    dp_sgd                0.910    0.893    0.548 [0.537, 0.558]    0.504 [0.494, 0.513]
    forward_forward       0.963    0.940    0.582 [0.570, 0.593]    0.585 [0.574, 0.597]
    forward_forward_dp    0.867    0.846    0.531 [0.521, 0.540]    0.530 [0.520, 0.541]
    siamese               0.987    0.937    0.609 [0.597, 0.620]    0.648 [0.636, 0.660]
    least_squares         0.982    0.938    0.594 [0.585, 0.604]    0.501 [0.491, 0.512]

The white-box attack looks inside the net: layer_margins for Forward-Forward, and for the others
pair_distance on the input of the last layer. Under least squares this input consists of random
features, which do not depend on the rows. The siamese net has a linear head. lira_hinge differs
from lira by more than 0.004 only for least squares, 0.617 [0.609, 0.626]; threshold_loss is between
0.520 and 0.550 for every rule. TPR at 1% FPR is in RESULTS.md.

Arguments: rule, path (an .npz of 28x28 images instead of the digits), models, width, epsilon.
"""

from mia_jax import configuration

RULES = ("backprop", "dp_sgd", "forward_forward", "forward_forward_dp", "siamese", "least_squares")
COSINE = "cosine_decay_schedule"
TABLE = dict(
    attacks=("lira", "lira_hinge", "pair_distance", "layer_margins", "threshold_loss"),
    metrics=("auc", "tpr@0.01"),
)


def grid(arg=None):
    """Returns one variant per rule, all on the same halves."""
    del arg
    return [(rule, dict(rule=rule)) for rule in RULES]


def get_config(arg=None):
    arg = configuration.arguments(arg, rule="backprop", path="", models=32, width=128, epsilon=8.0)
    model, learner = configuration.choose(systems(arg.width, arg.epsilon), rule=arg.rule)
    return configuration.complete(
        data=dict(name="npz", path=arg.path, shape=(28, 28, 1))
        if arg.path
        else dict(name="digits", flat=True),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=model,
        learner=learner,
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_hinge=dict(name="threshold", signal="hinge"),
            lira=dict(variance="shrunk"),
            lira_hinge=dict(name="lira", signal="hinge", variance="shrunk"),
            lira_offline=dict(name="lira", mode="offline"),
            **inside(model["name"]),
        ),
        run=dict(chunk=8),
    )


def inside(model: str) -> dict[str, dict]:
    """Returns the white-box attacks, which compare embeddings.

    A Forward-Forward net embeds an example once per label, so that the margins of its layers are
    used instead.
    """
    if model != "forward_forward":
        return dict(pair_distance=dict())
    return dict(
        layer_margins=dict(
            name="multi_signal",
            signals=[f"layer_goodness:layer={layer},margin=True" for layer in (1, 2)],
        )
    )


def systems(width: int, epsilon: float) -> dict[str, tuple[dict, dict]]:
    """Returns {rule: (model, learner)} of nets with two hidden layers of `width` units."""
    net = dict(name="mlp", widths=(width, width))
    local_net = dict(name="forward_forward", widths=(width, width), goodness="sum")
    adam = dict(optimizer=dict(name="adam", eps=1e-7))

    def private(clip_norm: float) -> dict:
        return dict(
            gradient="private",
            privacy=dict(clip_norm=clip_norm, noise_multiplier=None, epsilon=epsilon, delta=1e-4),
        )

    def local(theta: float) -> dict:
        return dict(name="forward_forward", theta=theta)

    return dict(
        backprop=(net, adam | dict(learning_rate=1e-3, batch_size=32, epochs=60)),
        dp_sgd=(net, adam | private(1.0) | dict(learning_rate=2e-3, batch_size=64, epochs=40)),
        forward_forward=(
            local_net,
            adam
            | dict(
                objective=local(10.0), learning_rate=1e-2, schedule=COSINE, batch_size=32, epochs=60
            ),
        ),
        forward_forward_dp=(
            local_net,
            adam
            | private(0.05)
            | dict(
                objective=local(2.0), learning_rate=3e-2, schedule=COSINE, batch_size=200, epochs=80
            ),
        ),
        siamese=(
            dict(name="siamese", widths=(width,), embedding=width),
            dict(
                name="balanced_pairs",
                objective="contrastive",
                learning_rate=3e-3,
                schedule=COSINE,
                batch_size=64,
                epochs=120,
            ),
        ),
        least_squares=(net, dict(name="least_squares", ridge=0.0)),
    )
