"""Your own arrays: an .npz with x and y, and if you like population rows and further columns."""

from __future__ import annotations

import math
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from mia_jax.data._pool import checked, labels
from mia_jax.types import Pool


def load(*, path: str, scale: float | None = None, num_classes: int | None = None, regression: bool = False, shape: Sequence[int] = ()) -> Pool:
    """The pool in an .npz file: x [N,...] and y [N] (or [N,1], or one-hot [N,C]); x of rank 3 is taken as gray images [N,H,W].

    `population_x` and `population_y` are appended as rows that no model may train on (column 'population'). Every other array [N] becomes a
    column; its population part is `population_<name>`, or zeros. `scale` multiplies x; None is 1/255 for uint8 images, 1 otherwise.
    `num_classes`: None is the largest label + 1. `regression=True`: y holds float targets. `shape` (such as (28, 28, 1)) is what the numbers of one
    example are arranged in, where x holds images as rows. No pickled objects are read.
    """
    arrays = read(path)
    source = pathlib.Path(path).name
    lacking = [k for k in ("x", "y") if k not in arrays]
    if lacking or ("population_x" in arrays) != ("population_y" in arrays):
        raise ValueError(f"{path} must hold the arrays x and y (and both or none of population_x, population_y); it has {sorted(arrays)}.")
    arrays |= {k: _arranged(arrays[k], shape, source) for k in ("x", "population_x") if k in arrays and shape}
    x, y = _scaled(_images(arrays.pop("x"), source), scale, source), _targets(arrays.pop("y"), regression, source)
    columns, rows = {}, len(x)
    if "population_x" in arrays:
        extra_x = _scaled(_images(arrays.pop("population_x"), source), scale, source)
        extra_y = _targets(arrays.pop("population_y"), regression, source)
        if extra_x.shape[1:] != x.shape[1:] or len(extra_x) != len(extra_y):
            raise ValueError(f"{source}: population_x {extra_x.shape} and population_y {extra_y.shape} do not fit x {x.shape}.")
        inside = arrays.pop("population", np.zeros(rows, bool))
        columns["population"] = np.concatenate([inside, np.ones(len(extra_x), bool)])
        x, y = np.concatenate([x, extra_x]), np.concatenate([y, extra_y])
    columns |= _columns(arrays, rows, len(x) - rows, source)
    if not regression and not num_classes and len(y):
        num_classes = max(1, int(y.max()) + 1)
    return checked(Pool(x=x, y=y, columns=columns, name=pathlib.Path(path).stem, num_classes=0 if regression else num_classes))


def read(path: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; FileNotFoundError or a ValueError that says what is wrong with it."""
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"data file {file} does not exist.")
    try:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array (np.save), not an archive (np.savez)")
        with archive:
            return {k: archive[k] for k in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as an .npz of plain arrays (no pickled objects): {error}") from error


def _arranged(x: np.ndarray, shape: Sequence[int], source: str) -> np.ndarray:
    """x [N, prod(shape)] or [N, ...] as [N, *shape]."""
    if x.ndim == 0 or math.prod(x.shape[1:]) != math.prod(shape):
        raise ValueError(f"{source}: x has shape {x.shape}, whose examples cannot be arranged in shape={tuple(shape)}.")
    return x.reshape(len(x), *shape)


def _images(x: np.ndarray, source: str) -> np.ndarray:
    if x.dtype.kind not in "uifb":
        raise ValueError(f"{source}: x has dtype {x.dtype}; expected numbers.")
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] > 4:
        raise ValueError(f"{source}: x has shape {x.shape}, which looks like channels first; save np.moveaxis(x, 1, -1), [N,H,W,C].")
    return x[..., None] if x.ndim == 3 else x


def _scaled(x: np.ndarray, scale: float | None, source: str) -> np.ndarray:
    if scale is None and x.ndim == 4 and x.size:
        if x.dtype == np.uint8:
            scale = 1 / 255
        elif x.max() > 1 and (x == np.round(x)).all():
            raise ValueError(f"{source}: images of dtype {x.dtype} hold whole numbers up to {x.max()}; set scale=1/255 (or scale=1 to keep them).")
    x = x.astype(np.float32)
    return x if scale is None else x * np.float32(scale)


def _targets(y: np.ndarray, regression: bool, source: str) -> np.ndarray:
    if not regression:
        return labels(y, source=source)
    if y.dtype.kind not in "uifb":
        raise ValueError(f"{source}: y has dtype {y.dtype}; expected float targets [N].")
    return (y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y).astype(np.float32)


def _columns(arrays: dict[str, np.ndarray], rows: int, extra: int, source: str) -> dict[str, np.ndarray]:
    """The user's columns over all rows + extra rows; `arrays` is what the file has besides x and y."""
    columns = {}
    for name in [k for k in arrays if k.removeprefix("population_") not in arrays or not k.startswith("population_")]:
        value = arrays[name]
        if value.shape != (rows,):
            raise ValueError(f"{source}: array {name!r} has shape {value.shape}; a column needs one value for each of the {rows} rows of x.")
        part = arrays.get(f"population_{name}", np.zeros(extra, value.dtype))
        if part.shape != (extra,):
            raise ValueError(f"{source}: array 'population_{name}' has shape {part.shape}; expected ({extra},) like population_y.")
        columns[name] = np.concatenate([value, part]) if extra else value
    return columns
