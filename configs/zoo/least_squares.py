r"""Fits linear regression in closed form (least squares or ridge) and audits it.

The attacks use squared losses and leverage. The design matrix has a column of ones, and no gradient
step is taken.

    python launch.py --config=configs/zoo/least_squares.py --workdir=runs/zoo/least_squares
    # It overfits: 100 features, 225 rows per model.
    python launch.py --config=configs/zoo/least_squares.py:features=100,examples=500 \
        --workdir=runs/zoo/least_squares_100
    # The same with ridge.
    python launch.py --config=configs/zoo/least_squares.py:features=100,examples=500,ridge=100.0 \
        --workdir=runs/zoo/ridge_100

The data are y = x w + 4.2 + N(0, 0.01^2) with x ~ N(0, I); w is (2, -3.4) for 2 features and 0.01
everywhere for more. 8 models are trained on complementary halves.

Time: 8 s of CPU time for each command.

Expected (AUC with its 95% interval):

                      2 features, 450 rows    100 features, 225 rows    the same, ridge 100
    mean squared error
      of members      9.75e-5                 6.0e-5                    9.5e-4
      of others       9.85e-5                 2.05e-4                   1.93e-3
    AUC
      threshold_loss  0.502 [0.500, 0.504]    0.678 [0.662, 0.693]      0.613 [0.599, 0.627]
      leverage        0.502 [0.500, 0.504]    0.683 [0.667, 0.698]      0.613 [0.599, 0.627]
      lira            0.513 [0.487, 0.538]    0.714 [0.693, 0.735]      0.709 [0.685, 0.731]

Published by the source (Dive into Deep Learning) for 2 features of 1,000 rows: w within 1e-3. Here
every w and b of the 8 models is within 1e-3, on 450 rows per model. Ridge increases the error on
members and on others, and weakens the threshold most; LiRA, which compares each row with itself, is
hardly weakened.

Arguments: examples, features, models, ridge.
"""

from mia_jax import configuration


def get_config(arg=None):
    arg = configuration.arguments(arg, examples=1000, features=2, models=8, ridge=0.0)
    weights = (2.0, -3.4) if arg.features == 2 else 0.01
    return configuration.complete(
        data=dict(name="linear", examples=arg.examples, features=arg.features, weights=weights),
        design=dict(name="halves", models=arg.models, population=0.1),
        model=dict(name="linear"),
        learner=dict(name="least_squares", ridge=arg.ridge),
        attacks=dict(
            threshold_loss=dict(name="threshold", signal="squared_loss"),
            leverage=dict(signal="squared_loss"),
            lira=dict(signal="squared_loss", variance="shrunk"),
            reference=dict(signal="squared_loss"),
            population=dict(signal="squared_loss"),
        ),
        run=dict(chunk=8),
    )
