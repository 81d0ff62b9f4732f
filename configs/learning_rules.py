"""Which learning rule leaks most?

The same rows and about as many weights under backpropagation, DP-SGD, Forward-Forward, a siamese
net and least squares.

    python launch.py --config=configs/learning_rules.py --grid --workdir=runs/learning_rules
    python launch.py --config=configs/learning_rules.py:rule=siamese --workdir=runs/siamese
    # one of them

32 models per rule on complementary halves (808 rows) of scikit-learn's digits, two layers of 128;
26,122 weights, Forward-Forward 24,832 (no last layer), least squares solves for the last 1,290 of
them; epsilon 8 (delta 1e-4) for the private ones. 5 min 20 s under other load, 2 min 51 s of CPU
time. Measured, means over 32 targets, AUC (95% interval) and TPR at 1% FPR:

    rule                  train  others  lira                      lira_hinge                inside
    the net            threshold_loss
    backprop              1.000   0.974  0.639 [0.626, 0.652] 8.5% 0.638 [0.625, 0.651] 8.4% 0.540
    [0.528, 0.552] 2.7% 0.531 [0.525, 0.536] 1.1%
    dp_sgd                0.910   0.893  0.548 [0.537, 0.558] 1.4% 0.547 [0.537, 0.557] 1.5% 0.504
    [0.494, 0.513] 1.1% 0.520 [0.516, 0.524] 1.3%
    forward_forward       0.963   0.940  0.582 [0.570, 0.593] 3.3% 0.580 [0.568, 0.591] 3.2% 0.585
    [0.574, 0.597] 3.6% 0.521 [0.518, 0.525] 1.0%
    forward_forward_dp    0.867   0.846  0.531 [0.521, 0.540] 1.4% 0.530 [0.521, 0.540] 1.4% 0.530
    [0.520, 0.541] 1.5% 0.521 [0.516, 0.527] 1.2%
    siamese, linear head  0.987   0.937  0.609 [0.597, 0.620] 4.3% 0.605 [0.593, 0.617] 4.2% 0.648
    [0.636, 0.660] 5.6% 0.550 [0.544, 0.557] 0.49%
    least_squares         0.982   0.938  0.594 [0.585, 0.604] 1.9% 0.617 [0.609, 0.626] 2.4% 0.501
    [0.491, 0.512] 1.1% 0.546 [0.539, 0.552] 0.51%

Inside the net: layer_margins for Forward-Forward, pair_distance on what enters the last layer for
the others; under least squares these are random features, which do not depend on the rows. The
rules' settings were chosen by hand for accuracy on these digits, which no epsilon covers.

Arguments: rule, path (an .npz of images of 28x28 instead of the digits), models, width, epsilon.
"""

from mia_jax import configuration

RULES = ("backprop", "dp_sgd", "forward_forward", "forward_forward_dp", "siamese", "least_squares")
COSINE = "cosine_decay_schedule"
TABLE = dict(
    attacks=("lira", "lira_hinge", "pair_distance", "layer_margins", "threshold_loss"),
    metrics=("auc", "tpr@0.01"),
)


def grid(arg=None):
    """Every rule on the same halves."""
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
    """The white-box attacks: embeddings are compared; a Forward-Forward net embeds an example once
    a label, its layers' margins are asked instead.
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
    """{rule: (model, learner)}: two hidden layers of `width` each."""
    net, twin = (
        dict(name="mlp", widths=(width, width)),
        dict(name="forward_forward", widths=(width, width), goodness="sum"),
    )
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
            twin,
            adam
            | dict(
                objective=local(10.0), learning_rate=1e-2, schedule=COSINE, batch_size=32, epochs=60
            ),
        ),
        forward_forward_dp=(
            twin,
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
