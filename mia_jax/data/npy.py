"""Loads a folder of .npy files whose examples stay on disk: pools larger than the memory.

An .npz is an archive, of which no part can be mapped into memory: its arrays are read whole
(data/npz.py).
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from mia_jax import types
from mia_jax.data import _arrays as given
from mia_jax.data._pool import checked, labels
from mia_jax.runtime import digests
from mia_jax.runtime.rows import Rows
from mia_jax.types import Pool

X, Y = "x.npy", "y.npy"
KINDS = ("uint8", "float32", "int32")


def load(
    *,
    folder: str,
    scale: float | None = None,
    num_classes: int | None = None,
    regression: bool = False,
    vocabulary: int | None = None,
    shape: Sequence[int] = (),
) -> Pool:
    """Returns the pool of a folder with x.npy [N,...] and y.npy [N].

    x is not read but mapped into memory, and keeps its dtype: bytes (uint8) are scaled where a
    batch of them is used, on the device. Every other .npy [N] of the folder is a column;
    population.npy marks rows on which no model may train. No pickled objects are read.

    Args:
        folder: the folder.
        scale: x is multiplied by it, if it holds bytes; None is 1/255.
        num_classes: None is the largest label + 1.
        regression: whether y holds floats of a regression.
        vocabulary: the number of tokens if x holds tokens (int32).
        shape: the shape of one example, such as (28, 28, 1), if x holds images as rows.

    Raises:
        FileNotFoundError: there is no such folder, or it lacks x.npy or y.npy.
        ValueError: a file cannot be read or mapped, or x has another dtype.
    """
    path = pathlib.Path(folder).expanduser()
    lacking = [name for name in (X, Y) if not path.joinpath(name).is_file()]
    if lacking:
        what = f"lacks {' and '.join(lacking)}" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"data folder {path} {what}. Write it with numpy.save('x.npy', x); an .npz cannot stay "
            "on disk and is read by data.name='npz'."
        )
    origin = digests.origin(path.joinpath(X))
    x = mapped(path.joinpath(X))
    y = np.array(mapped(path.joinpath(Y)))
    source = path.name
    if x.dtype.name not in KINDS or (vocabulary is not None) != (x.dtype == np.int32):
        raise ValueError(
            f"{source}: x.npy holds {x.dtype}. Examples that stay on disk are uint8, float32, or "
            "with vocabulary= int32: save them so, or use data.name='npz', which reads all of them."
        )
    if shape:
        if x.ndim == 0 or int(np.prod(x.shape[1:])) != int(np.prod(shape)):
            raise ValueError(
                f"{source}: x has shape {x.shape}, whose examples cannot be arranged in "
                f"shape={tuple(shape)}."
            )
        x = x.reshape(len(x), *shape)
    examples = x[..., None] if x.ndim == 3 and vocabulary is None else x
    if x.dtype == np.uint8:
        factor = np.float32(1 / 255 if scale is None else scale)
        examples = Rows(examples, factor=factor, origin=origin, by_row=True)
    elif scale is not None:
        raise ValueError(f"{source}: scale={scale} is for bytes, and x.npy holds {x.dtype}.")
    columns = {
        file.stem: given.column(f"{source}: column {file.stem!r}", np.array(mapped(file)))
        for file in sorted(path.glob("*.npy"))
        if file.name not in (X, Y)
    }
    if regression:
        y = given.numbers(f"{source}: y", y).astype(np.float64)
        y, task = (y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y), types.regression()
    else:
        y = labels(y, source=source)
        count = num_classes or max(1, int(y.max(initial=0)) + 1)
        task = types.classification(count, vocabulary=vocabulary)
    return checked(Pool(x=examples, y=y, columns=columns, name=source, task=task))


def mapped(path: pathlib.Path) -> np.ndarray:
    """Returns the array of an .npy file, which stays in the file.

    Raises:
        ValueError: the file is damaged or holds Python objects.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path} cannot be mapped as an .npy of numbers ({size:,} bytes): "
            f"{' '.join(str(error).split())[:150]}. Write it again with numpy.save."
        ) from error
