"""Linear regression by gradient descent on drawn data, y = 2 x_1 - 3.4 x_2 + 4.2 + N(0, 0.01^2),
audited through its squared losses.

    python launch.py --config=configs/zoo/linear_regression.py --workdir=runs/zoo/linear_regression

8 models on complementary halves, SGD 0.03, batches of 10, 3 epochs; w and b start at N(0, 0.01^2)
and 0; loss (z - y)^2 / 2.

Published by the source (Dive into Deep Learning), on all 1,000 rows: loss after epochs 1, 2, 3:
0.035, 0.00012, 0.00005. Measured on the same rows over 10 draws (tests/configs/zoo_test.py): their
mean within 0.025 to 0.05, 9e-5 to 2e-4 and 4.5e-5 to 5.5e-5, w and b within 0.002. This fleet
trains on 450 rows per model, so it ends at a squared error of 0.011 on members and 0.012 on others:
threshold_loss AUC 0.504 [0.498, 0.510]; with the arguments below AUC 0.955 [0.943, 0.965], lira
0.937 [0.921, 0.950]. 5 s of CPU time.

Arguments: examples, features, models, epochs. More features than members overfit and leak:
features=200,examples=220,epochs=100.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, examples=1000, features=2, models=8, epochs=3)
    weights = (2.0, -3.4) if arg.features == 2 else 0.01
    rate = 0.03 if arg.features == 2 else 0.003
    return configuration.complete(
        data=dict(name="linear", examples=arg.examples, features=arg.features, weights=weights),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="linear"),
        learner=dict(
            objective=dict(name="squared", factor=0.5),
            optimizer="sgd",
            learning_rate=rate,
            batch_size=10,
            epochs=arg.epochs,
            validation="nonmembers",
        ),
        attacks=dict(
            threshold_loss=dict(name="threshold", signal="loss"),
            lira=dict(signal="loss", variance="shrunk"),
            reference=dict(signal="loss"),
            population=dict(signal="loss"),
        ),
        run=dict(chunk=8),
    )
