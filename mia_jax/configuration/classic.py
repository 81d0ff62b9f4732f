"""Holds what the configs of the classic nets share (configs/zoo).

They train one net on the data set's own split, or a fleet of nets on complementary halves.
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
# The published recipe, which the argument `full` selects.
FULL = dict(train=60_000, test=10_000, epochs=10, optimizer="sgd", momentum=0.0)


def arguments(text: str | None, **changes) -> ml_collections.ConfigDict:
    """Returns the config arguments folder, train, test, epochs and models, as far as typed.

    Args:
        text: what was typed after the colon of --config.
        changes: other defaults of ARGUMENTS, and further arguments with their defaults.
    """
    return configuration.arguments(text, **ARGUMENTS | changes)


def large_arguments(text: str | None, *, full: Mapping, **changes) -> ml_collections.ConfigDict:
    """Returns the config arguments of nets that are too large for a small machine.

    Without the argument `full`, a reduced run is trained (LARGE and `changes`). With it, the
    published recipe is trained (FULL and the mapping `full`). What was typed replaces either.

    Args:
        text: what was typed after the colon of --config.
        full: {argument: value} of the published recipe of this net.
        changes: other defaults, and further arguments, of the reduced run.
    """
    return configuration.arguments(
        text, dict(full=FULL | dict(full)), **ARGUMENTS | LARGE | changes
    )


def large_learner(arg) -> dict:
    """Returns the section `learner` that the arguments of `large_arguments` describe.

    The learning rate is constant in the published recipe and decays in the reduced run.
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
    """Returns the config of a classic net, attacked by thresholds.

    If arg.models is 1, the net trains on the first `arg.train` images of a folder in the format of
    MNIST, and the next `arg.test` images are held out. If it is larger, a fleet trains on
    complementary halves; from 4 models on, LiRA attacks it as well.

    Args:
        arg: the arguments that `arguments` or `large_arguments` returned.
        model: the section `model`.
        learner: fields of the section `learner` that replace its defaults here.
        query: fields of the section `query` that replace its defaults here.
    """
    holdout = dict(name="holdout", members=arg.train)
    attacks = dict(
        gap=dict(),
        threshold_loss=dict(name="threshold", signal="loss"),
        threshold_confidence=dict(name="threshold", signal="confidence"),
        threshold_modified_entropy=dict(name="threshold", signal="modified_entropy"),
    )
    if arg.models >= 4:
        attacks["lira"] = dict(variance="shrunk")
        attacks["lira_offline"] = dict(name="lira", mode="offline")
    return configuration.complete(
        data=dict(name="idx", folder=arg.folder, examples=arg.train + arg.test),
        design=holdout
        if arg.models == 1
        else dict(name="halves", models=arg.models, population=0.1),
        model=model,
        learner=dict(epochs=arg.epochs, validation="nonmembers") | dict(learner),
        query=dict(batch_size=500) | dict(query),
        attacks=attacks,
        run=dict(chunk=1),
    )
