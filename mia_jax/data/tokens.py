"""Loads your own token sequences: an .npz with x [N,L] of integers and labels of three kinds."""

from __future__ import annotations

import pathlib

import numpy as np

from mia_jax import checks, types
from mia_jax.data import _arrays as given
from mia_jax.data import npz
from mia_jax.data._pool import checked, labels
from mia_jax.types import Pool

LABELS = ("classes", "tokens", "numbers")


def load(
    *, path: str, vocabulary: int, labels: str = "classes", num_classes: int | None = None
) -> Pool:
    """Returns the pool of an .npz file whose x [N,...] holds tokens.

    Tokens stay integers (int32) up to the model's embedding.

    Args:
        path: the file, with x, y and what else data.name='npz' reads (population_x, population_y,
            columns).
        vocabulary: the number of tokens; x is in 0..vocabulary-1.
        labels: 'classes': y [N] holds class numbers (classification). 'tokens': y [N,L] holds a
            token for every position, such as the next token of x (sequence). 'numbers': y [N] holds
            real numbers (regression).
        num_classes: for labels='classes'; None is the largest label + 1.

    Raises:
        ValueError: if a token or a label is out of range, or the arrays do not fit each other.
    """
    checks.one_of(LABELS, labels=labels)
    if num_classes is not None and labels != "classes":
        raise ValueError(
            f"data.num_classes={num_classes} is for data.labels='classes', not {labels!r}; leave "
            "it out."
        )
    source = pathlib.Path(path).name
    of_labels = dict(classes=_classes, tokens=_tokens, numbers=_numbers)[labels]
    x, y, columns = npz.gathered(
        path,
        examples_of=lambda x: given.numbers(f"{source}: x", x),
        labels_of=lambda y: of_labels(y, source),
    )
    if labels == "classes":
        task = types.classification(
            num_classes or max(1, int(y.max(initial=0)) + 1), vocabulary=vocabulary
        )
    else:
        task = (
            types.sequence(vocabulary)
            if labels == "tokens"
            else types.regression(vocabulary=vocabulary)
        )
    return checked(Pool(x=x, y=y, columns=columns, name=pathlib.Path(path).stem, task=task))


def _classes(y: np.ndarray, source: str) -> np.ndarray:
    """Returns class numbers [N]."""
    return labels(y, source=source)


def _tokens(y: np.ndarray, source: str) -> np.ndarray:
    """Returns tokens [N,L]."""
    return labels(np.ravel(y), source=source).reshape(np.shape(y))


def _numbers(y: np.ndarray, source: str) -> np.ndarray:
    """Returns the numbers of a regression."""
    return given.numbers(f"{source}: y", y).astype(np.float64)
