"""Loads a folder with the four files of the MNIST format: MNIST, Fashion-MNIST, KMNIST, K49, ..."""

from __future__ import annotations

import gzip
import math
import pathlib
import zlib

import numpy as np

from mia_jax import checks
from mia_jax.data._pool import checked, first
from mia_jax.runtime import digests
from mia_jax.runtime.rows import Rows
from mia_jax.types import Pool, classification

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
REMEDY = (
    "Fashion-MNIST on Debian or Ubuntu: type `apt-get install dataset-fashion-mnist` and set the "
    "folder to /usr/share/datasets/fashion-mnist. "
    "Otherwise put the four files there yourself, gzipped or not."
)


def load(
    *,
    folder: str = "/usr/share/datasets/fashion-mnist",
    examples: int | None = None,
    skip: int = 0,
) -> Pool:
    """Returns images [N,H,W,1] in [0,1]: the official training rows, then the test rows.

    They are kept as bytes, which are divided by 255 where a batch of them is used.

    Args:
        folder: the folder.
        examples: the number of rows that are used, the first ones after `skip`; None for all.
        skip: the number of first rows that are left out, so that another run may have them.

    Raises:
        FileNotFoundError: if a file is missing; the message says what to type.
        ValueError: if a file is damaged or not of this format, or has too few rows.
    """
    checks.at_least(0, skip=skip)
    path = pathlib.Path(folder).expanduser()
    paths = {name: _find(path, name) for name in FILES}
    missing = [f"{name}.gz" for name, file in paths.items() if file is None]
    if missing:
        what = "lacks " + ", ".join(missing) if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"data folder {path} {what}. {REMEDY}")
    origin = digests.origin(
        *(file for file in paths.values() if file), how=f"first {examples} after {skip}"
    )
    train_x, train_y, test_x, test_y = (
        _read(paths[name], axes) for name, axes in zip(FILES, (3, 1, 3, 1))
    )
    for part, x, y in (("train", train_x, train_y), ("t10k", test_x, test_y)):
        if len(x) != len(y):
            raise ValueError(f"data folder {path}: {part} has {len(x)} images but {len(y)} labels.")
    if train_x.shape[1:] != test_x.shape[1:]:
        raise ValueError(
            f"data folder {path}: train images are {train_x.shape[1:]} but t10k images "
            f"{test_x.shape[1:]}."
        )
    y = np.concatenate([train_y, test_y])
    classes = int(y.max()) + 1
    if skip >= len(y):
        raise ValueError(f"skip={skip} leaves out all of the {len(y)} rows of {path}.")
    x, y = first(examples, x=np.concatenate([train_x, test_x])[skip:], y=y[skip:])
    images = Rows(x[..., None], factor=1 / 255, origin=origin)
    return checked(Pool(x=images, y=y, name=path.name, task=classification(classes)))


def _find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the path of a file, gzipped or not, or None."""
    names = (f"{name}.gz", name, name.replace("-idx", ".idx"))
    return next((folder / n for n in names if (folder / n).is_file()), None)


def _read(path: pathlib.Path, axes: int) -> np.ndarray:
    """Returns the bytes of one file as a uint8 array of the given rank.

    The header is 0, 0, 8 (= uint8), rank, then the big-endian lengths.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    start = 4 + 4 * axes
    if len(raw) < start or raw[:4] != bytes((0, 0, 8, axes)):
        raise ValueError(
            f"{path} is not an MNIST-format file of rank {axes}: it starts with "
            f"{raw[:4].hex(' ')}, expected 00 00 08 {axes:02x}."
        )
    shape = np.frombuffer(raw, ">u4", axes, 4).astype(int)
    size = math.prod(shape.tolist())  # Python integers do not overflow.
    if len(raw) - start != size:
        raise ValueError(
            f"{path} is damaged: shape {shape.tolist()} needs {size} bytes after the header; there "
            f"are {len(raw) - start}."
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
