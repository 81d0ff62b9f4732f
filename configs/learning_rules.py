"""Who leaks most? The same rows and about as many weights under backpropagation, DP-SGD, Forward-Forward, a siamese net and least squares.

    python launch.py --config=configs/learning_rules.py --grid --workdir=runs/learning_rules
    python launch.py --config=configs/learning_rules.py:rule=siamese --workdir=runs/siamese          # one of them

32 models a rule on complementary halves (808 rows) of scikit-learn's digits, two layers of 128; 26,122 weights, Forward-Forward 24,832 (no last
layer), least squares solves for the last 1,290 of them; epsilon 8 (delta 1e-4) for the private ones.
5 min 20 s beside other work, 2 min 51 s of CPU time. Measured, means over 32 targets, AUC (95% interval) and TPR at 1% FPR:

    rule                  train   others   lira                       lira_hinge                 inside the net             threshold_loss
    backprop              1.000   .974     .639 [.626, .652] 8.5%     .638 [.625, .651] 8.4%     .540 [.528, .552] 2.7%     .531 [.525, .536] 1.1%
    dp_sgd                .910    .893     .548 [.537, .558] 1.4%     .547 [.537, .557] 1.5%     .504 [.494, .513] 1.1%     .520 [.516, .524] 1.3%
    forward_forward       .963    .940     .582 [.570, .593] 3.3%     .580 [.568, .591] 3.2%     .585 [.574, .597] 3.6%     .521 [.518, .525] 1.0%
    forward_forward_dp    .867    .846     .531 [.521, .540] 1.4%     .530 [.521, .540] 1.4%     .530 [.520, .541] 1.5%     .521 [.516, .527] 1.2%
    siamese, linear head  .987    .937     .609 [.597, .620] 4.3%     .605 [.593, .617] 4.2%     .648 [.636, .660] 5.6%     .550 [.544, .557] .49%
    least_squares         .982    .938     .594 [.585, .604] 1.9%     .617 [.609, .626] 2.4%     .501 [.491, .512] 1.1%     .546 [.539, .552] .51%

Inside the net: layer_margins for Forward-Forward, pair_distance on what enters the last layer for the others; under least squares these are random
features, which hold nothing of the rows. The rules' settings were chosen by hand for accuracy on these digits, which no epsilon covers.

Arguments: rule, path (an .npz of images of 28x28 instead of the digits), models, width, epsilon.
"""

from mia_jax import configuration

RULES = ("backprop", "dp_sgd", "forward_forward", "forward_forward_dp", "siamese", "least_squares")
COSINE = "cosine_decay_schedule"
TABLE = dict(attacks=("lira", "lira_hinge", "pair_distance", "layer_margins", "threshold_loss"), metrics=("auc", "tpr@0.01"))


def grid(arg=None):
    """Every rule on the same halves."""
    del arg
    return [(rule, dict(rule=rule)) for rule in RULES]


def get_config(arg=None):
    arg = configuration.arguments(arg, rule="backprop", path="", models=32, width=128, epsilon=8.0)
    model, learner = configuration.chosen(systems(arg.width, arg.epsilon), rule=arg.rule)
    return configuration.complete(
        data=dict(name="npz", path=arg.path, shape=(28, 28, 1)) if arg.path else dict(name="digits", flat=True),
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
    """The white-box attacks: embeddings are compared; a Forward-Forward net embeds an example once a label, its layers' margins are asked instead."""
    if model != "forward_forward":
        return dict(pair_distance=dict())
    return dict(layer_margins=dict(name="multi_signal", signals=[f"layer_goodness:layer={layer},margin=True" for layer in (1, 2)]))


def systems(width: int, epsilon: float) -> dict[str, tuple[dict, dict]]:
    """{rule: (model, learner)}: two hidden layers of `width` each."""
    net, twin = dict(name="mlp", widths=(width, width)), dict(name="forward_forward", widths=(width, width), goodness="sum")
    adam = dict(optimizer=dict(name="adam", eps=1e-7))

    def private(clip_norm: float) -> dict:
        return dict(gradient="private", privacy=dict(clip_norm=clip_norm, noise_multiplier=None, epsilon=epsilon, delta=1e-4))

    def local(theta: float) -> dict:
        return dict(name="forward_forward", theta=theta)

    return dict(
        backprop=(net, adam | dict(learning_rate=1e-3, batch_size=32, epochs=60)),
        dp_sgd=(net, adam | private(1.0) | dict(learning_rate=2e-3, batch_size=64, epochs=40)),
        forward_forward=(twin, adam | dict(objective=local(10.0), learning_rate=1e-2, schedule=COSINE, batch_size=32, epochs=60)),
        forward_forward_dp=(
            twin,
            adam | private(0.05) | dict(objective=local(2.0), learning_rate=3e-2, schedule=COSINE, batch_size=200, epochs=80),
        ),
        siamese=(
            dict(name="siamese", widths=(width,), embedding=width),
            dict(name="balanced_pairs", objective="contrastive", learning_rate=3e-3, schedule=COSINE, batch_size=64, epochs=120),
        ),
        least_squares=(net, dict(name="least_squares", ridge=0.0)),
    )
