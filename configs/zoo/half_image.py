"""Trains softmax regression that reads both halves of an image with the same weights.

It has 3,930 parameters.

    python launch.py --config=configs/zoo/half_image.py:path=mnist.npz --workdir=runs/zoo/half_image

`path` is an .npz with x [N,784] uint8 and y [N]. `members` of its rows, drawn at random, train one
model; the others are held out. Without `path` the data are Fashion-MNIST (apt-get install
dataset-fashion-mnist). models=8 trains a fleet on complementary halves instead and adds LiRA.

Time: 8 s of CPU time.

Published by the source (MNIST 60,000/10,000, batches of 32): test accuracy 0.8603 after the first
epoch of 1,875 steps, 0.9019 after ten epochs. Expected on the 10,000 MNIST digits (8,000 drawn, 75
epochs of 250 steps): held-out accuracy 0.854 after 1,750 steps, 0.864 after 2,000 and 0.900 at the
end (train accuracy 0.920); threshold_loss AUC 0.503 [0.488, 0.518]. report/figures/weights.png
shows the ten columns of w as images of 14x28.

Arguments: path, folder, members, models, epochs (of 250 steps with 8,000 members).
"""

from mia_jax import configuration


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
        epochs=75,
    )
    several = arg.models > 1
    return configuration.complete(
        data=dict(name="npz", path=arg.path, shape=(28, 28, 1))
        if arg.path
        else dict(name="idx", folder=arg.folder, examples=10_000),
        design=dict(name="halves", models=arg.models, population=0.1)
        if several
        else dict(name="holdout", members=arg.members, drawn=True),
        model=dict(name="half_image"),
        learner=dict(
            optimizer=dict(name="adam", eps=1e-7),
            learning_rate=3e-4,
            batch_size=32,
            epochs=arg.epochs,
            validation="nonmembers",
        ),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            **(dict(lira=dict(variance="shrunk")) if arg.models >= 4 else {}),
        ),
        run=dict(chunk=1),
    )
