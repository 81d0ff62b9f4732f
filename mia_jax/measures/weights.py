"""Reads the weights of nets that offer `Model.parts['pictures']` (models/half_image.py)."""

from __future__ import annotations

import pathlib

import jax
import numpy as np

from mia_jax.training import checkpoint
from mia_jax.types import Model


def chosen(folder: pathlib.Path, *, model: Model, m: int, x) -> dict | None:
    """Returns {pictures [C,H,W]} of the trained model m in `folder`, for report.figures.weights.

    The result is None if the net offers no pictures. `x` is a single example [1,..].
    """
    if "pictures" not in model.parts:
        return None
    template = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape, x.dtype))
    variables = jax.tree.map(
        lambda leaf_M: leaf_M[0], checkpoint.load_models(folder, [m], template)
    )
    return dict(pictures=np.asarray(model.parts["pictures"](variables, x.shape[1:])))
