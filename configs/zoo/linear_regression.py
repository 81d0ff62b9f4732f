"""Fits linear regression by gradient descent on drawn data and audits its squared losses.

The data are y = 2 x_1 - 3.4 x_2 + 4.2 + N(0, 0.01^2).

    python launch.py --config=configs/zoo/linear_regression.py --workdir=runs/zoo/linear_regression

8 models are trained on complementary halves: SGD 0.03, batches of 10, 3 epochs. w starts at
N(0, 0.01^2) and b at 0; the loss is (z - y)^2 / 2.

Time: 5 s of CPU time.

Loss after epochs 1, 2 and 3 on all 1,000 rows:

    published    0.035             0.00012           0.00005
    measured     0.025 to 0.05     9e-5 to 2e-4      4.5e-5 to 5.5e-5

The published numbers are those of Dive into Deep Learning. The measured ones are bounds on the mean
over 10 draws (tests/configs/zoo_test.py), in which w and b are within 0.002.

This fleet trains on 450 rows per model, so it ends at a squared error of 0.011 on members and 0.012
on others. Expected: threshold_loss AUC 0.504 [0.498, 0.510]. More features than members overfit and
leak: with features=200,examples=220,epochs=100 threshold_loss has AUC 0.955 [0.943, 0.965] and lira
0.937 [0.921, 0.950].

Arguments: examples, features, models, epochs.
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
