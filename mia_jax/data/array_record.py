"""Loads images from array_record files, where they stay: pools larger than the memory.

TensorFlow Datasets prepares data sets in this format. It is read by random access, without
TensorFlow.
"""

from __future__ import annotations

import collections
import glob
import io
import math
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mia_jax import checks, types
from mia_jax.data import _arrays as given
from mia_jax.data import _example
from mia_jax.data._example import encoded as encoded  # for users who write records
from mia_jax.data._pool import checked, labels
from mia_jax.runtime import digests
from mia_jax.runtime.rows import SCALES, Rows
from mia_jax.types import Pool

SUFFIX = ".array_record"  # part of the name of every such file
OPEN = 64  # files that are open at a time; each has buffers of about a MB
BLOCK = 1 << 24  # bytes of records that are read together
ENCODED = (b"\x89PNG\r\n", b"\xff\xd8\xff")  # how PNG and JPEG begin


def load(
    *,
    files: str | Sequence[str],
    population_files: str | Sequence[str] = (),
    image_key: str = "image",
    label_key: str = "label",
    columns: Sequence[str] = (),
    shape: Sequence[int] = (),
    scale: float | None = None,
    num_classes: int | None = None,
    regression: bool = False,
    examples: int | None = None,
) -> Pool:
    """Returns the pool of array_record files whose records are a tf.train.Example each.

    The images are not read but stay in the files; a batch of them is read, decoded and scaled where
    it is used, and rows keep the order of the files and of the records in them. The labels are read
    at once, and the images too, once, for their digests; of files of more than 64 MB both are kept
    in the user's cache.

    Args:
        files: a folder (of which every file with '.array_record' in its name is read, in the order
            of their names), a file, a pattern such as '/data/train-*', or several of these.
        population_files: the same, for records on which no model may train; they follow the others.
        image_key: the feature with the image: PNG, JPEG (decoded by Pillow), or bytes of `shape`.
        label_key: the feature with the label, one number.
        columns: features of one number or one text each that become columns; 'population' marks
            further rows on which no model may train.
        shape: the shape of one image, such as (32, 32, 3), if its bytes are not encoded.
        scale: the images are multiplied by it; None divides them by 255.
        num_classes: None is the largest label + 1.
        regression: whether labels are the numbers of a regression.
        examples: the number of first rows that are used; None for all.

    Raises:
        FileNotFoundError: there are no such files.
        ValueError: array_record is not installed, or a record cannot be used.
    """
    paths, kept_aside = _paths("files", files), _paths("population_files", population_files)
    if not paths:
        raise FileNotFoundError("files is empty; name a folder or files of array_record.")
    if scale is not None and not SCALES[0] <= abs(scale) <= SCALES[1]:
        raise ValueError(f"scale={scale} must lie between {SCALES[0]:g} and {SCALES[1]:g}.")
    name = paths[0].name.split(SUFFIX)[0]
    settings = f"{image_key} {tuple(shape)} first {examples}"
    origin = digests.origin(*paths, *kept_aside, how=settings)
    place = _Files([*paths, *kept_aside], origin)
    available = place.ends[-1]
    rows = available if examples is None else examples
    checks.positive(examples=rows)
    if rows > available:
        raise ValueError(f"examples={examples} but the files have only {available} records.")
    reader = _Reader(place, name, dict(image=image_key, label=label_key), tuple(columns), rows)
    y, size_N, read = reader.labels()
    images = _Images(reader, image_key, _shape(reader, image_key, tuple(shape), size_N))
    population_N = np.arange(rows) >= place.ends[len(paths) - 1]
    if kept_aside:
        marked_N = np.asarray(read.get("population", np.zeros(rows, bool)), bool)
        read = dict(read) | dict(population=marked_N | population_N)
    if regression:
        task = types.regression()
    else:
        y = labels(y, source=name)
        task = types.classification(num_classes or max(1, int(y.max(initial=0)) + 1))
    factor = 1 / 255 if scale is None else scale
    x = Rows(images, factor=factor, origin=origin, by_row=True)
    return checked(Pool(x=x, y=y, columns=read, name=name, task=task))


def _paths(field: str, value: str | Sequence[str]) -> list[pathlib.Path]:
    """Returns the files of a field of the config, in order.

    Raises:
        FileNotFoundError: a part of it names no file.
    """
    paths = []
    for text in (value,) if isinstance(value, str) else value:
        place = pathlib.Path(text).expanduser()
        if place.is_dir():
            named = sorted(p for p in place.iterdir() if SUFFIX in p.name and p.is_file())
            what = f"the folder has no file with {SUFFIX!r} in its name"
        else:
            named = sorted(p for p in map(pathlib.Path, glob.glob(str(place))) if p.is_file())
            what = "no file has this name"
        if not named:
            raise FileNotFoundError(
                f"{field}={text!r}: {what}. Name a folder, a file, or a pattern such as "
                f"'/data/train{SUFFIX}-*' on this machine's disk."
            )
        paths += named
    return paths


class _Files:
    """Reads records of several files by their numbers, with a limited number of open files.

    Attributes:
        ends: the number of records in the first k + 1 files.
    """

    def __init__(self, paths: Sequence[pathlib.Path], origin: digests.Origin):
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise ValueError(
                f"data.name=array_record needs array_record, which is not installed ({error}); "
                'type pip install "mia_jax[tfds]" (in a checkout: pip install -r '
                "requirements.txt)."
            ) from error
        self._module, self._paths, self.origin = array_record_module, paths, origin
        self._open: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._lock = threading.Lock()
        counts = [self._reader(k).num_records() for k in range(len(paths))]
        empty = [str(paths[k]) for k, count in enumerate(counts) if not count]
        if empty:
            raise ValueError(f"{empty[0]} holds no records; leave it out of the files.")
        self.ends = np.cumsum(counts).tolist()

    def read(self, rows_K: np.ndarray) -> Iterator[tuple[np.ndarray, list[bytes]]]:
        """Yields (positions in rows_K, their records), in blocks of about BLOCK bytes."""
        file_K = np.searchsorted(self.ends, rows_K, side="right")
        for k in np.unique(file_K).tolist():
            start = self.ends[k - 1] if k else 0
            size = self.origin.known[k]["size"] // (self.ends[k] - start)
            step = max(1, BLOCK // max(1, size))
            at_K = np.flatnonzero(file_K == k)
            for first in range(0, len(at_K), step):
                at = at_K[first : first + step]
                yield at, self._records(k, (rows_K[at] - start).tolist())

    def place(self, row: int) -> str:
        """Returns where a record is, for messages."""
        k = int(np.searchsorted(self.ends, row, side="right"))
        return f"record {row - (self.ends[k - 1] if k else 0)} of {self._paths[k]}"

    def _records(self, k: int, numbers: list[int]) -> list[bytes]:
        with self._lock:
            try:
                return self._reader(k).read(numbers)
            except RuntimeError as error:
                digests.unchanged(self.origin, k)
                raise ValueError(
                    f"{self._paths[k]} is damaged ({' '.join(str(error).split())[:150]}); copy or "
                    "write it again."
                ) from error

    def _reader(self, k: int):
        """Returns the open reader of file k; the one that was used longest ago is closed."""
        if k in self._open:
            self._open.move_to_end(k)
            return self._open[k]
        path = self._paths[k]
        digests.unchanged(self.origin, k)
        reader = self._module.ArrayRecordReader(str(path), "readahead_buffer_size:0")
        if not reader.ok():
            raise ValueError(
                f"{path} is no array_record file, or is damaged ({path.stat().st_size:,} bytes)."
            )
        self._open[k] = reader
        if len(self._open) > OPEN:
            self._open.popitem(last=False)[1].close()
        return reader


class _Reader:
    """Reads features of the first rows of files."""

    def __init__(self, files: _Files, name: str, keys: Mapping, columns: tuple, rows: int):
        self.files, self.name, self.rows = files, name, rows
        self.image, self.label, self.columns = keys["image"], keys["label"], columns

    def features(self, rows_K: np.ndarray, names: Sequence[str]) -> Iterator[tuple[int, list]]:
        """Yields (position in rows_K, the features' values) of records, in any order.

        Raises:
            ValueError: a record is no Example or lacks a feature; it says which record.
        """
        for at, records in self.files.read(rows_K):
            for position, record in zip(at.tolist(), records, strict=True):
                row = int(rows_K[position])
                try:
                    known = _example.parsed(record, names)
                except ValueError as error:
                    raise ValueError(f"{self.files.place(row)} cannot be read: {error}.") from error
                for name in names:
                    if len(known.get(name, ())) != 1:
                        raise ValueError(self._lacking(row, name, record))
                yield position, [known[name][0] for name in names]

    def _lacking(self, row: int, name: str, record: bytes) -> str:
        every = _example.parsed(record)
        if name not in every:
            return checks.lacks(self.files.place(row), "feature", name, every)
        return (
            f"{self.files.place(row)}: the feature {name!r} has {len(every[name])} values; "
            "expected one."
        )

    def labels(self) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Returns (y [N], the number of bytes of the images [N], columns)."""
        names = [self.image, self.label, *self.columns]
        read: dict[str, list] = {}

        def numbers() -> np.ndarray:
            value_N2 = np.empty((self.rows, 2))
            values: list[list] = [[None] * self.rows for _ in self.columns]
            for row, (image, label, *others) in self.features(np.arange(self.rows), names):
                if not isinstance(image, bytes) or isinstance(label, bytes):
                    raise ValueError(
                        f"{self.files.place(row)}: the feature {self.image!r} is a "
                        f"{type(image).__name__} and {self.label!r} a {type(label).__name__}; an "
                        "image is bytes, and a label one number. Examples of other kinds can stay "
                        "on disk as .npy files, data.name='npy'."
                    )
                value_N2[row] = label, len(image)
                for column, value in zip(values, others):
                    column[row] = value
            read.update(zip(self.columns, values, strict=True))
            return value_N2

        value_N2 = (
            numbers()
            if self.columns
            else digests.kept(self.files.origin, f"label {self.label}", numbers)
        )
        columns = {
            name: given.column(f"{self.name}: column {name!r}", np.array(values))
            for name, values in read.items()
        }
        return value_N2[:, 0], value_N2[:, 1].astype(int), columns


def _shape(
    reader: _Reader, key: str, shape: tuple[int, ...], size_N: np.ndarray
) -> tuple[tuple[int, ...], Callable[[bytes], np.ndarray]]:
    """Returns the shape of an image and the function that makes it of its bytes.

    Raises:
        ValueError: images are not encoded and no shape is given.
    """
    if shape and (size_N == math.prod(shape)).all():
        return shape, lambda image: np.frombuffer(image, np.uint8).reshape(shape)
    first = next(reader.features(np.arange(1), [key]))[1][0]
    if not first.startswith(ENCODED):
        expected = f"shape={shape} has {math.prod(shape):,}" if shape else "shape is not set"
        raise ValueError(
            f"{reader.files.place(0)}: the feature {key!r} holds {len(first):,} bytes, which are "
            f"no PNG or JPEG, and {expected}; set shape to that of an image, such as (32, 32, 3)."
        )
    return shape or _decoded(first).shape, _decoded


def _decoded(image: bytes) -> np.ndarray:
    """Returns the pixels [H,W,C] of an encoded image."""
    from PIL import Image

    with Image.open(io.BytesIO(image)) as picture:
        pixels = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


class _Images:
    """Stands for the images uint8 [N,H,W,C], which are read where they are indexed."""

    dtype = np.dtype(np.uint8)

    def __init__(self, reader: _Reader, key: str, how: tuple):
        self._reader, self._key = reader, key
        image, self._made = how
        self.shape = (reader.rows, *image)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, index) -> np.ndarray:
        first, *others = index if isinstance(index, tuple) else (index,)
        rows = np.arange(len(self))[first]
        flat_K, place_K = np.unique(rows, return_inverse=True)
        x = np.empty((len(flat_K), *self.shape[1:]), np.uint8)
        for position, (image,) in self._reader.features(flat_K, [self._key]):
            x[position] = self._image(int(flat_K[position]), image)
        if not np.array_equal(flat_K, rows):
            x = x[place_K.reshape(np.shape(rows))]
        return x[(slice(None),) * np.ndim(rows) + tuple(others)] if others else x

    def _image(self, row: int, image: bytes) -> np.ndarray:
        try:
            pixels = self._made(image)
        except Exception as error:  # a damaged image raises exceptions of many types
            raise ValueError(
                f"{self._reader.files.place(row)}: the image cannot be decoded "
                f"({' '.join(str(error).split())[:120]})."
            ) from error
        if pixels.shape != self.shape[1:] or pixels.dtype != np.uint8:
            raise ValueError(
                f"{self._reader.files.place(row)}: the image is {pixels.dtype} {pixels.shape}, "
                f"expected uint8 {self.shape[1:]}; images must have one size."
            )
        return pixels
