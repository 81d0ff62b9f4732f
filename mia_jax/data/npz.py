"""Loads your own arrays: an .npz with x and y, and optionally population rows and columns."""

from __future__ import annotations

import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from mia_jax import checks, types
from mia_jax.data import _arrays as given
from mia_jax.data._pool import checked, labels
from mia_jax.runtime import digests
from mia_jax.runtime.rows import SCALES, Rows, concatenated
from mia_jax.types import Pool


def load(
    *,
    path: str,
    scale: float | None = None,
    num_classes: int | None = None,
    regression: bool = False,
    shape: Sequence[int] = (),
) -> Pool:
    """Returns the pool of an .npz file with x [N,...] and y [N] (or [N,1], or one-hot [N,C]).

    x of rank 3 is interpreted as gray images [N,H,W]. `population_x` and `population_y` are
    appended as rows on which no model may train (column 'population'). Every other array [N]
    becomes a column; its population part is `population_<name>`, or zeros. Bytes (uint8) stay bytes
    in memory, and are scaled where a batch of them is used. No pickled objects are read.

    Args:
        path: the file.
        scale: x is multiplied by it; None is 1/255 for uint8 images, 1 otherwise.
        num_classes: None is the largest label + 1.
        regression: whether y holds floats of a regression.
        shape: the shape of one example, such as (28, 28, 1), if x holds images as rows.
    """
    source = pathlib.Path(path).name
    file = pathlib.Path(path).expanduser()
    origin = digests.origin(file) if file.is_file() else None
    x, y, columns = gathered(
        path,
        examples_of=lambda x: _scaled(
            _images(_arranged(x, shape, source) if shape else x, source), scale, source
        ),
        labels_of=lambda y: _targets(y, regression, source),
    )
    if isinstance(x, Rows):
        x = x.read_from(origin)
    if regression:
        task = types.regression()
    else:
        task = types.classification(num_classes or max(1, int(y.max(initial=0)) + 1))
    return checked(Pool(x=x, y=y, columns=columns, name=pathlib.Path(path).stem, task=task))


def gathered(
    path: str, *, examples_of: Callable, labels_of: Callable
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Reads x, y and the columns of an .npz file, with its population rows after the others.

    Args:
        path: the file.
        examples_of: converts the arrays x and population_x for a pool, or refuses them.
        labels_of: the same for y and population_y.

    Returns:
        (x, y, columns).
    """
    arrays, source = read(path), pathlib.Path(path).name
    lacking = [k for k in ("x", "y") if k not in arrays]
    upper = [k for k in lacking if k.upper() in arrays]
    if upper:
        raise ValueError(
            f"{path} has {upper[0].upper()!r} and no {upper[0]!r}; did you mean {upper[0]!r}? Save "
            "it under that name."
        )
    if lacking or ("population_x" in arrays) != ("population_y" in arrays):
        raise ValueError(
            f"{path} must hold the arrays x and y (and both or none of population_x, "
            f"population_y); it has {sorted(arrays)}."
        )
    x, y = examples_of(arrays.pop("x")), labels_of(arrays.pop("y"))
    columns, rows = {}, len(x)
    if "population_x" in arrays:
        extra_x, extra_y = (
            examples_of(arrays.pop("population_x")),
            labels_of(arrays.pop("population_y")),
        )
        if extra_x.shape[1:] != x.shape[1:] or len(extra_x) != len(extra_y):
            raise ValueError(
                f"{source}: population_x {extra_x.shape} and population_y {extra_y.shape} do not "
                f"fit x {x.shape}."
            )
        inside = arrays.pop("population", np.zeros(rows, bool))
        columns["population"] = np.concatenate([inside, np.ones(len(extra_x), bool)])
        x, y = concatenated(x, extra_x), np.concatenate([y, extra_y])
    return x, y, columns | _columns(arrays, rows, len(x) - rows, source)


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Returns all arrays of an .npz file. No pickled objects are read.

    The size in an array's header is compared with the file before memory is allocated.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read; the message says what is wrong.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"data file {file} does not exist."
            if not file.is_dir()
            else f"data file {file} is a folder."
        )
    try:
        with open(file, "rb") as raw:
            start = raw.read(6)
            raw.seek(0)
            if start == b"\x93NUMPY":
                raise ValueError("it is a single array (np.save), not an archive (np.savez)")
            if start[:2] != b"PK":
                raise ValueError(
                    f"it is {_kind(start + raw.read(200))}, not an archive of arrays (np.savez)"
                )
            with zipfile.ZipFile(raw) as archive:
                _check_members(archive)
                return {
                    entry.filename.removesuffix(".npy"): _member(archive, entry)
                    for entry in archive.infolist()
                }
    except PermissionError:
        raise
    # On damaged bytes zipfile, zlib and NumPy's header parser raise exceptions of many types.
    except Exception as error:
        raise ValueError(
            f"{file} cannot be read as an .npz of plain arrays (no pickled objects): "
            f"{_message(error)}."
        ) from error


def _kind(start: bytes) -> str:
    """Returns what kind of file it seems to be, by its first bytes."""
    if not start:
        return "empty"
    if start[:2] == b"\x1f\x8b":
        return "a gzip file"
    return (
        "a text file"
        if b"\0" not in start and not any(c < 9 for c in start) and start[:1] != b"\x80"
        else "a file of another kind"
    )


def _check_members(archive: zipfile.ZipFile) -> None:
    """Raises ValueError for an archive that does not fit into memory when uncompressed."""
    total, have = (
        sum(entry.file_size for entry in archive.infolist()),
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    )
    if total > have:
        raise ValueError(
            f"its arrays need {total / 2**30:,.0f} GiB of memory and this machine has "
            f"{have / 2**30:,.0f} GiB"
        )


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Returns one array of an archive.

    Raises:
        ValueError: if the entry is no array, or if its header claims another size than the entry
            has.
    """
    name = entry.filename
    with archive.open(entry) as stream:
        if stream.read(6) != b"\x93NUMPY":
            raise ValueError(f"its entry {name!r} is no array")
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is not None:  # Version 3 is for field names, which a plain array does not have.
            shape, _, dtype = header(stream)
            size = math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and (
                min(shape, default=0) < 0 or size != entry.file_size - stream.tell()
            ):
                raise ValueError(
                    f"the header of {name!r} claims an array of {size:,} bytes and "
                    f"{entry.file_size - stream.tell():,} are there"
                )
    with archive.open(entry) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _message(error: Exception) -> str:
    """Returns the words of a reader's error, without its advice to load pickles."""
    text = " ".join(str(error).split()).rstrip(".")
    if "pickle" in text.lower():
        return (
            "it holds Python objects (pickles), which are never read; save arrays of numbers or "
            "text"
        )
    if isinstance(error, ValueError) and text and "header" not in text[:20].lower():
        return text
    return f"it is damaged ({type(error).__name__}{': ' * bool(text)}{text[:150]})"


def _arranged(x: np.ndarray, shape: Sequence[int], source: str) -> np.ndarray:
    """Returns x [N, prod(shape)] or [N, ...] as [N, *shape]."""
    if x.ndim == 0 or math.prod(x.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"{source}: x has shape {x.shape}, whose examples cannot be arranged in "
            f"shape={tuple(shape)}."
        )
    return x.reshape(len(x), *shape)


def _images(x: np.ndarray, source: str) -> np.ndarray:
    """Returns x as numbers, with a channel axis for gray images."""
    x = given.numbers(f"{source}: x", x)
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] > 4:
        raise ValueError(
            f"{source}: x has shape {x.shape}, which looks like channels first; save "
            "np.moveaxis(x, 1, -1), [N,H,W,C]."
        )
    return x[..., None] if x.ndim == 3 else x


def _scaled(x: np.ndarray, scale: float | None, source: str) -> np.ndarray | Rows:
    """Returns x multiplied by `scale`, in float32; bytes are kept as Rows."""
    if scale is None and x.ndim == 4 and x.size:
        if x.dtype == np.uint8:
            scale = 1 / 255
        elif x.max() > 1 and (x == np.round(x)).all():
            raise ValueError(
                f"{source}: images of dtype {x.dtype} hold whole numbers up to {x.max()}; set "
                "scale=1/255 (or scale=1 to keep them)."
            )
    factor = np.float32(1 if scale is None else scale)
    if x.dtype == np.uint8 and SCALES[0] <= abs(factor) <= SCALES[1]:
        return Rows(x, factor=factor)
    if scale is None:
        return x if x.dtype.itemsize > 2 else x.astype(np.float32)
    return x.astype(np.float32) * factor


def _targets(y: np.ndarray, regression: bool, source: str) -> np.ndarray:
    """Returns the labels, or the numbers of a regression."""
    if not regression:
        return labels(y, source=source)
    y = given.numbers(f"{source}: y", y).astype(np.float64)
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _columns(
    arrays: dict[str, np.ndarray], rows: int, extra: int, source: str
) -> dict[str, np.ndarray]:
    """Returns the user's columns over all rows + extra rows.

    `arrays` holds the arrays of the file except x and y.
    """
    columns = {}
    for name in [
        k
        for k in arrays
        if k.removeprefix("population_") not in arrays or not k.startswith("population_")
    ]:
        value = given.column(f"{source}: column {name!r}", arrays[name])
        if value.shape != (rows,):
            meant = checks.closest(name, ("x", "y", "population", "population_x", "population_y"))
            raise ValueError(
                f"{source}: array {name!r} has shape {value.shape}; a column needs one value for "
                f"each of the {rows} rows of x.{meant}"
            )
        part = arrays.get(f"population_{name}", np.zeros(extra, value.dtype))
        if part.shape != (extra,):
            raise ValueError(
                f"{source}: array 'population_{name}' has shape {part.shape}; expected ({extra},) "
                "like population_y."
            )
        columns[name] = np.concatenate([value, part]) if extra else value
    return columns
