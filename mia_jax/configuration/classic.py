"""What the configs of the classic nets share: one net on a data set's own split, or a fleet of it
on complementary halves.
"""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections

from mia_jax import configuration

ARGUMENTS = dict(
    folder="/usr/share/datasets/fashion-mnist", train=60_000, test=10_000, epochs=10, models=1
)
LARGE = dict(
    full=False,
    train=10_000,
    test=2_000,
    epochs=10,
    batch=32,
    rate=0.01,
    optimizer="sgd",
    momentum=0.9,
    resize=0,
)
FULL = dict(
    train=60_000, test=10_000, epochs=10, optimizer="sgd", momentum=0.0
)  # the source's, where `full` is asked for


def arguments(text: str | None, **own) -> ml_collections.ConfigDict:
    """Config arguments folder, train, test, epochs and models (ARGUMENTS), changed and extended by
    `own`.
    """
    return configuration.arguments(text, **ARGUMENTS | own)


def large_arguments(text: str | None, *, full: Mapping, **own) -> ml_collections.ConfigDict:
    """Returns those of nets that are too large for two cores: the run of LARGE and `own`, or with
    `full` the source's recipe but for what is typed.
    """
    return configuration.arguments(text, dict(full=FULL | dict(full)), **ARGUMENTS | LARGE | own)


def large_learner(arg) -> dict:
    """Returns the learner that `large_arguments` describe: the reduced run ends on a falling rate,
    the source's is constant.
    """
    optimizer = (
        dict(name=arg.optimizer, momentum=arg.momentum)
        if arg.optimizer == "sgd" and arg.momentum
        else arg.optimizer
    )
    descent = dict(
        optimizer=optimizer,
        learning_rate=arg.rate,
        schedule="constant_schedule" if arg.full else "cosine_decay_schedule",
    )
    return descent | dict(batch_size=arg.batch, epochs=arg.epochs)


def config(
    arg, *, model: Mapping, learner: Mapping, query: Mapping = {}
) -> ml_collections.ConfigDict:
    """Returns the first `train` images of an MNIST-format folder train the net, the next `test` are
    held out; thresholds attack it.

    With arg.models > 1 a fleet trains on complementary halves instead; from 4 models on LiRA
    attacks it too.
    """
    one = dict(name="holdout", members=arg.train)
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=arg.train + arg.test),
        design=one if arg.models == 1 else dict(name="halves", models=arg.models, population=0.1),
        model=model,
        learner=dict(epochs=arg.epochs, validation="nonmembers") | dict(learner),
        query=dict(batch_size=500) | dict(query),
        attacks=dict(
            gap=dict(),
            threshold_loss=dict(name="threshold", signal="loss"),
            threshold_confidence=dict(name="threshold", signal="confidence"),
            threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
            **(
                dict(lira=dict(variance="shrunk"), lira_offline=dict(name="lira", mode="offline"))
                if arg.models >= 4
                else {}
            ),
        ),
        run=dict(chunk=1),
    )
