"""Configs in which one stage lasts minutes: the argument `stage`.

The modules that last are in this file as well: a pool and an attack.
"""

import sys
import time

import numpy as np

from mia_jax import configuration
from mia_jax.types import Attack, Pool, classification

STAGES = ("data", "train", "epoch", "query", "ask", "attack")


def get_config(arg=None):
    stage = configuration.choose(
        dict(zip(STAGES, STAGES, strict=True)),
        stage=configuration.arguments(arg, stage="attack").stage,
    )
    wide, trained = stage in ("epoch", "query"), stage in ("train", "epoch")
    attacks = dict(loss=dict(name="threshold", signal="loss"))
    attacks |= dict(slow=dict(path="tests.examples.lasting")) if stage == "attack" else {}
    attacks |= (
        dict(slow=dict(name="threshold", signal="noise_robustness:samples=200000,box=none"))
        if stage == "ask"
        else {}
    )
    made = dict(
        name="synthetic",
        examples=dict(epoch=4000, query=100_000).get(stage, 200),
        features=10,
        classes=2,
    )
    return configuration.complete(
        data=dict(path="tests.examples.lasting") if stage == "data" else made,
        design=dict(name="halves", models=4),
        model=dict(name="mlp", widths=(2000, 2000) if wide else (8,)),
        learner=dict(epochs=10**6 if trained else 0, batch_size=1 if stage == "epoch" else 100),
        attacks=attacks,
        report=dict(draws=40, figures=False),
        run=dict(chunk=2),
    )


def lasts(what: str) -> None:
    """Says what is under way, and computes for minutes."""
    print(f"{what} is under way", file=sys.stderr, flush=True)
    end = time.monotonic() + 300
    while time.monotonic() < end:
        np.sort(np.random.default_rng(0).normal(size=1_000_000))


def load() -> Pool:
    lasts("the data")
    return Pool(
        x=np.zeros((40, 3), np.float32), y=np.arange(40, dtype=np.int32) % 2, task=classification(2)
    )


def make() -> Attack:
    def score(evidence, key):
        lasts("the attack")
        return np.where(evidence.evaluated_N, 0.0, np.nan)

    return Attack(score, ("loss",), knows="nothing")
