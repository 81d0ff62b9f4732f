"""Correlates the noise of private training over its steps by a banded matrix (DP-MF, DP-FTRL).

With independent noise z_t, a step of DP-SGD releases g_t + z_t. Here it releases g_t + (C^-1 z)_t,
where C is a lower-triangular Toeplitz matrix with b bands whose columns have norm 1. What is
released is a function of C g + z, the clipped sums of b steps with independent noise. A unit that
takes part in steps that are at least b apart moves C g by orthogonal columns of norm 1, so that
each participation costs what it costs with independent noise of the same multiplier. But the noise
of successive steps partly cancels: parameters are sums of releases, and the noise in a sum of
releases is smaller (Choquette-Choo et al. 2023, arXiv:2306.08153).

The entries of C and the multiplication by C^-1 are those of jax_privacy, an optional dependency.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Stream(NamedTuple):
    """Holds what the next correlated noise depends on: a part of the state of training.

    Attributes:
        coefficients: the first column of C, [b]. They are kept with the state, so that a run that
            goes on elsewhere goes on with the same matrix.
        past: the last b - 1 outputs of C^-1, as jax_privacy arranges them.
    """

    coefficients: jax.Array
    past: Any


@functools.lru_cache(maxsize=32)
def coefficients(*, steps: int, bands: int) -> tuple[float, ...]:
    """Returns the first column of C, of norm 1.

    They minimize the mean squared error of the sums of the first t releases, over t <= steps. It
    takes about two CPU seconds.

    Args:
        steps: the number of steps of the training.
        bands: b; with more bands than steps, the others have no effect.

    Raises:
        ImportError: jax_privacy is not installed.
    """
    if bands == 1:
        return (1.0,)
    toeplitz = library()
    # A learner may be built while a program is traced or NaNs raise; the library promotes ranks.
    with (
        jax.ensure_compile_time_eval(),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.numpy_rank_promotion("allow"),
    ):
        column = toeplitz.optimize_banded_toeplitz(max(steps, bands), bands)
    column = np.asarray(column, np.float64)
    return tuple(float(c) for c in column / np.linalg.norm(column))


def library():
    """Returns the module of jax_privacy that has the matrices.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from jax_privacy.matrix_factorization import toeplitz
    except ImportError as error:
        raise ImportError(
            "privacy.noise='banded' uses the matrices of jax_privacy, which cannot be imported "
            f"({error}): `pip install \"mia_jax[banded]\"`, or leave privacy.noise='gaussian'."
        ) from error
    return toeplitz


def start(column: tuple[float, ...], tree) -> Stream:
    """Returns the state before the first step.

    Args:
        column: the coefficients of C.
        tree: arrays (or shapes) of the form of the noise.
    """
    entries = jnp.asarray(column, jnp.float32)
    noise = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.float32), tree)
    return Stream(entries, library().inverse_as_streaming_matrix(entries).init_multiply(noise))


def correlated(noise, stream: Stream) -> tuple[Any, Stream]:
    """Returns (the next row of C^-1 z, the state after it).

    Args:
        noise: z_t, a tree of independent noise.
        stream: the state after the rows before.
    """
    inverse = library().inverse_as_streaming_matrix(stream.coefficients)
    row, past = inverse.multiply_next(noise, stream.past)
    return row, stream._replace(past=past)
