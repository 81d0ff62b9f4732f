"""Trains correct private models with canaries and scores the canaries white box.

An MLP with 32 tanh units is trained by DP-SGD (Poisson sampling) on Fashion-MNIST. The canaries are
noise in the directions in which the images vary least, at several times their norm, with random
labels: their gradients are nearly orthogonal to those of images and of each other, so a canary's
inner products with the updates show little but itself and the noise.
"""

from __future__ import annotations

import functools
import math
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.data import idx
from mia_jax.learners import backprop
from mia_jax.models import mlp
from mia_jax.objectives import cross_entropy
from mia_jax.privacy import canary_scores
from mia_jax.runtime import files
from mia_jax.types import Pool

IMAGES, CANARIES, CLASSES = 1500, 1000, 10
RATE, STEPS = 0.8, 16
DIRECTIONS, NORM = 650, 100.0  # of the canaries
START = 0.1  # of the usual size: the first layer starts small, or canaries saturate it
CLIP, RATE_OF_LEARNING = 0.1, 8.0


class Run(NamedTuple):
    """Holds one trained model's canaries.

    Attributes:
        score_C: the inner products of gradients and updates, summed over the steps.
        inside_C: the coins.
        epsilon: the accounted epsilon at delta.
        accuracy: on 2,000 images that no model saw.
        seconds: CPU seconds of the training.
    """

    score_C: np.ndarray
    inside_C: np.ndarray
    epsilon: float
    accuracy: float
    seconds: float


@functools.cache
def data(folder: str) -> tuple[Pool, Pool]:
    """Returns (images and canaries, test images)."""
    images = idx.load(folder=folder, examples=IMAGES + 2000)
    flat = np.asarray(images.x).reshape(len(images.x), -1).astype(np.float64)
    flat -= flat[:IMAGES].mean(0)
    directions = np.linalg.svd(flat[:IMAGES], full_matrices=True)[2][-DIRECTIONS:]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(CANARIES, DIRECTIONS)) @ directions
    noise *= NORM / np.linalg.norm(noise, axis=1, keepdims=True)
    x = np.concatenate([flat[:IMAGES], noise]).astype(np.float32)
    y = np.append(images.y[:IMAGES], rng.integers(CLASSES, size=CANARIES)).astype(np.int32)
    test = Pool(x=flat[IMAGES:].astype(np.float32), y=images.y[IMAGES:], task=images.task)
    return Pool(x=x, y=y, task=images.task), test


@functools.cache
def watched_learner(epsilon: float, delta: float, folder: str):
    """Returns (private learner, the same with canary scores, a compiled epoch, its logits)."""
    pool, _ = data(folder)
    model = mlp.make(num_classes=CLASSES, widths=(32,), activation="tanh", init="xavier_uniform")
    loss = cross_entropy.make(model=model)
    total = IMAGES + CANARIES
    sample = Pool(x=pool.x[:1], y=pool.y[:1], task=pool.task)
    start = model.init(jax.random.key(0), pool.x[:1])["params"]
    initial = {
        "/".join(part.key for part in path): np.asarray(leaf)
        * (START if leaf.shape[:1] == (784,) else 1)
        for path, leaf in jax.tree_util.tree_flatten_with_path(start)[0]
    }
    learner = backprop.make(
        model=model,
        loss=loss,
        num_rows=total,
        epochs=math.ceil(STEPS * RATE),
        batch_size=round(RATE * total),
        optimizer="sgd",
        learning_rate=RATE_OF_LEARNING,
        gradient="private",
        privacy=dict(clip_norm=CLIP, epsilon=epsilon, noise_multiplier=None, delta=delta),
        sample=sample,
        initial=initial,
    )
    watching = canary_scores.watched(
        learner, loss=loss, x=pool.x[IMAGES:], y=pool.y[IMAGES:], clip_norm=CLIP, size=250
    )
    return learner, watching, jax.jit(watching.epoch), model


def train(*, epsilon: float, delta: float, seed: int, folder: str) -> Run:
    """Trains one private model at this epsilon, with coins from the seed."""
    pool, test = data(folder)
    learner, watching, epoch_of, model = watched_learner(epsilon, delta, folder)
    start = time.process_time()
    coin, run = jax.random.split(jax.random.key(seed))
    inside_C = np.asarray(jax.random.bernoulli(coin, 0.5, (CANARIES,)))
    rows_K = jnp.arange(IMAGES + CANARIES)
    weight_K = jnp.append(jnp.ones(IMAGES), inside_C.astype(np.float32)).astype(jnp.float32)
    state = watching.init(run, pool)
    epochs = learner.guarantee.mechanism.epochs
    for epoch in range(1, epochs + 1):
        plan = learner.plan(run, jnp.uint32(epoch), rows_K, weight_K)
        state, _ = epoch_of(state, pool, *plan)
    logits = model.apply(state.variables, test.x, train=False)
    logits = logits[0] if isinstance(logits, tuple) else logits
    accuracy = float((jnp.argmax(logits, 1) == test.y).mean())
    score_C = np.asarray(canary_scores.scores(state)["update_alignment"], np.float64)
    spent = learner.guarantee.epsilon(epochs)
    return Run(score_C, inside_C, spent, accuracy, time.process_time() - start)


def kept(folder: pathlib.Path, *, epsilon: float, delta: float, seed: int, data_folder: str) -> Run:
    """Returns `train`, from `folder` if the run is finished there."""
    path = folder / f"trained_eps{epsilon:g}_seed{seed}.npz"
    if path.exists():
        held = files.read_npz(path)
        values = {key: np.asarray(held[key]) for key in Run._fields}
        return Run(**{key: v if v.ndim else v.item() for key, v in values.items()})
    run = train(epsilon=epsilon, delta=delta, seed=seed, folder=data_folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_npz(path, **run._asdict())
    return run
