"""Shows weight decay against overfitting: 200 weights are learned from 20 examples.

The data are y = 0.05 + sum 0.01 x_i + N(0, 0.01^2).

    python launch.py --config=configs/zoo/weight_decay.py --workdir=runs/zoo/weight_decay
    python launch.py --config=configs/zoo/weight_decay.py:decay=3 --workdir=runs/zoo/weight_decay_3

One model is trained on the first 20 of 120 rows: SGD 0.003, batches of 5, 100 epochs, w from N(0,
1). The loss is (z - y)^2 / 2 + decay / 2 * ||w||^2; the bias is not penalized.

Time: 4 s of CPU time.

Expected (losses are halved; means over 10 draws and their range, tests/configs/zoo_test.py):

                              decay 0                   decay 3
    ||w||, published          11.6 to 14.0              0.31 to 0.38
    ||w||, measured           13.4 (11.5 to 14.7)       0.363 (0.316 to 0.399)
    train loss, published                               0.0012
    train loss, measured      6e-6                      0.00098
    test loss, published      84                        0.084
    test loss, measured       89                        0.080
    AUC of threshold_loss     1.000 [0.832, 1.000]      0.946 [0.890, 0.974]

The published numbers are those of Dive into Deep Learning (several draws).

Arguments: decay, models (1, or an even number: complementary halves of 40 rows).
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, decay=0.0, models=1)
    return configuration.complete(
        data=dict(
            name="linear",
            examples=120 if arg.models == 1 else 40,
            features=200,
            weights=0.01,
            bias=0.05,
        ),
        design=dict(name="holdout", members=20)
        if arg.models == 1
        else dict(name="halves", models=arg.models, population=0.0),
        model=dict(name="linear", init="unit_normal"),
        learner=dict(
            objective=dict(name="squared", factor=0.5),
            optimizer="sgd",
            learning_rate=0.003,
            batch_size=5,
            epochs=100,
            l2=arg.decay / 2,
            validation="nonmembers",
        ),
        attacks=dict(threshold_loss=dict(name="threshold", signal="loss")),
        run=dict(chunk=8),
    )
