"""Defines the formats of a run's files: arrays and JSON objects with a checksum and a record.

The record says to which run, model and signal a file belongs.

- .npy: the array as NumPy writes it, then one line '#mia_jax {"sha256": ..., "record": {...}}'.
  NumPy stops reading after the array.
- .npz: the checksums of the zip format cover every array. The record is one more member,
  record.npy, that holds a JSON text.
- .json: an object whose last key is "sha256".

Files of older versions have neither; they can be read, and their record is None. A pickle is never
loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from mia_jax.runtime import stacks

MARK = b"\n#mia_jax "
RECORD = "record"  # the member of an .npz
SEAL = "sha256"  # the key of a JSON object


BLOCK = 1 << 24  # bytes of a mapped file that are verified or written together


def save_npy(file, array: np.ndarray, record: Mapping) -> None:
    """Writes the array, then the line with its checksum and its record."""
    hashed = _Hashed(file)
    np.lib.format.write_array(hashed, np.asanyarray(array), allow_pickle=False)
    file.write(_line({SEAL: _sealed(hashed.state, record), RECORD: record}))


def save_npy_parts(
    file, parts: Iterable[np.ndarray], *, shape: tuple[int, ...], dtype, record: Mapping
) -> None:
    """Writes the bytes of `save_npy` of an array that never exists as a whole.

    Args:
        file: the file.
        parts: arrays whose values, one after the other, are those of the array in C order.
        shape: the shape of the array.
        dtype: its dtype.
        record: what the file belongs to.

    Raises:
        ValueError: the parts hold more or fewer values than the shape.
    """
    hashed, count = _Hashed(file), 0
    header = dict(
        descr=np.lib.format.dtype_to_descr(np.dtype(dtype)), fortran_order=False, shape=tuple(shape)
    )
    np.lib.format.write_array_header_1_0(hashed, header)
    for part in parts:
        flat = np.ascontiguousarray(part, dtype).reshape(-1)
        count += len(flat)
        step = max(1, BLOCK // flat.itemsize)
        for start in range(0, len(flat), step):
            hashed.write(flat[start : start + step].tobytes())
    if count != math.prod(shape):
        raise ValueError(f"{count} values are no array of shape {list(shape)}")
    file.write(_line({SEAL: _sealed(hashed.state, record), RECORD: record}))


def map_npy(file) -> tuple[np.ndarray, dict | None]:
    """Returns (array, record) of an open .npy file; the array is read from the file when used.

    The file is read once, in blocks, to verify its checksum. A file without a record is of an older
    version; nothing of it is read but the header.

    Raises:
        ValueError: the bytes are damaged; the message says how.
    """
    size = os.fstat(file.fileno()).st_size
    shape, fortran, dtype = read_header(file, size)
    start = file.tell()
    end = start + math.prod(shape) * dtype.itemsize
    record = None
    if size > end:
        file.seek(end)
        last_line = _last_line(file.read(min(size - end, BLOCK)), size - end)
        state = hashlib.sha256()
        file.seek(0)
        for at in range(0, end, BLOCK):
            state.update(file.read(min(BLOCK, end - at)))
        _check_seal(state, last_line)
        record = last_line[RECORD]
    order: Literal["F", "C"] = "F" if fortran else "C"
    if end == start:  # an empty file cannot be mapped
        return np.empty(shape, dtype, order), record
    mapped = np.memmap(file, dtype, "r", offset=start, shape=tuple(shape), order=order)
    return np.asarray(mapped), record


def parse_npy(data: bytes) -> tuple[np.ndarray, dict | None]:
    """Returns (array, record) of the bytes of an .npy file.

    The record is None in a file of an older version.

    Raises:
        ValueError: the bytes are damaged; the message says how.
    """
    array, end = parse_array(data)
    if len(data) == end:
        return array, None
    last_line = _last_line(data[end:], len(data) - end)
    state = hashlib.sha256()
    state.update(memoryview(data)[:end])
    _check_seal(state, last_line)
    return array, last_line[RECORD]


def _last_line(tail: bytes, size: int) -> dict:
    """Returns the line after an array, {SEAL, RECORD}.

    Args:
        tail: the bytes after the array.
        size: how many there are in the file.
    """
    if not tail.startswith(MARK):
        raise ValueError(f"{size} bytes follow the array that do not belong to it")
    last_line = json_value(tail[len(MARK) :])
    if (
        not isinstance(last_line, dict)
        or set(last_line) != {SEAL, RECORD}
        or not isinstance(last_line[RECORD], dict)
        or len(tail) != size
        or tail != _line(last_line)
    ):
        raise ValueError("its last line is not the record that it was written with")
    return last_line


def _check_seal(state, last_line: Mapping) -> None:
    """Raises ValueError if the bytes that `state` has seen are not those that were sealed."""
    if last_line[SEAL] != _sealed(state, last_line[RECORD]):
        raise ValueError("its checksum is another one: a byte has changed since it was written")


def parse_array(data: bytes) -> tuple[np.ndarray, int]:
    """Returns (array, number of bytes that it takes) of the .npy format at the start of `data`.

    Nothing larger than `data` is ever allocated.

    Raises:
        ValueError: the header is damaged, or promises more bytes than there are.
    """
    stream = io.BytesIO(data)
    shape, fortran, dtype = read_header(stream, len(data))
    start, count = stream.tell(), math.prod(shape)
    flat = np.frombuffer(data, dtype, count, start).copy()
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(
        shape
    ), start + count * dtype.itemsize


def read_header(stream, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns (shape, whether the order is Fortran's, dtype) of the .npy format.

    The stream is then at the first byte of the array.

    Args:
        stream: the file, at its start.
        size: its number of bytes.

    Raises:
        ValueError: the header is damaged, or promises more bytes than there are.
    """
    try:
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = header(stream)
    except Exception as error:  # NumPy's parser raises whatever Python's does
        raise ValueError(
            f"it has no header of the .npy format: {str(error) or type(error).__name__}"
        ) from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects (a pickle), which are never loaded")
    start, count = stream.tell(), math.prod(shape)
    if min(shape, default=0) < 0 or not dtype.itemsize or count * dtype.itemsize > size - start:
        raise ValueError(
            f"its header promises {dtype}{list(shape)}, {count * dtype.itemsize:,} bytes, and "
            f"{size - start:,} follow"
        )
    return shape, fortran, dtype


def save_npz(file, arrays: Mapping[str, np.ndarray], record: Mapping | None) -> None:
    """Writes the arrays and, unless it is None, the record."""
    members: dict[str, Any] = dict(arrays)
    if record is not None:
        members[RECORD] = np.asarray(_canonical(record).decode())
    np.savez(file, **members)


def parse_npz(file) -> tuple[dict[str, np.ndarray], dict | None]:
    """Returns (arrays, record) of an archive; the checksum of every member is verified.

    Raises:
        ValueError: the archive is damaged; the message says how.
    """
    with _archive(file) as archive:
        arrays = {
            member.filename.removesuffix(".npy"): parse_array(archive.read(member))[0]
            for member in archive.infolist()
            if member.filename != _MEMBER
        }
        return arrays, _record(archive)


def map_npz(file, *, least: int) -> tuple[dict[str, Any], dict | None]:
    """Returns what `parse_npz` returns, with members of at least `least` bytes as `stacks.Stored`.

    Those stay in the file. The checksum of every member is verified first, in blocks.

    Raises:
        ValueError: the archive is damaged; the message says how.
    """
    arrays: dict[str, Any] = {}
    opened = stacks.Opened(file)
    with _archive(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if member.filename == _MEMBER:
                continue
            if member.compress_type != zipfile.ZIP_STORED or member.file_size < least:
                arrays[name] = parse_array(archive.read(member))[0]
                continue
            with archive.open(member) as stream:  # which verifies the checksum at its end
                shape, fortran, dtype = read_header(stream, member.file_size)
                header = stream.tell()
                while stream.read(BLOCK):
                    pass
            # the names in front of a member may have other lengths than those in the directory
            file.seek(member.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2").astype(int)
            start = member.header_offset + 30 + int(lengths.sum()) + header
            order: Literal["F", "C"] = "F" if fortran else "C"
            arrays[name] = stacks.Stored(opened, dtype=dtype, shape=shape, start=start, order=order)
        return arrays, _record(archive)


def members(file) -> tuple[list, dict | None]:
    """Returns ([name, size, checksum] of every array, record) of an archive.

    Only the directory of the archive and the record are read.

    Raises:
        ValueError: the archive is damaged; the message says how.
    """
    with _archive(file) as archive:
        return [
            [member.filename, member.file_size, member.CRC]
            for member in archive.infolist()
            if member.filename != _MEMBER
        ], _record(archive)


_MEMBER = f"{RECORD}.npy"


@contextlib.contextmanager
def _archive(file):
    """Opens a zip archive and turns each of its errors into a ValueError.

    For flipped bits zipfile raises BadZipFile, zlib.error, NotImplementedError and others.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _record(archive: zipfile.ZipFile) -> dict | None:
    """Returns the record of an archive, or None if it has none."""
    if _MEMBER not in archive.namelist():
        return None
    record = json_value(str(parse_array(archive.read(_MEMBER))[0]))
    if not isinstance(record, dict):
        raise ValueError("its record is not an object")
    return record


def seal(value: Mapping) -> dict:
    """Returns the JSON object with its checksum as the last key."""
    return dict(value) | {SEAL: hashlib.sha256(_canonical(value)).hexdigest()}


def unseal(value: Mapping) -> dict:
    """Returns the JSON object without its checksum.

    An object without a checksum is of an older version.

    Raises:
        ValueError: the checksum does not match.
    """
    rest = {k: v for k, v in value.items() if k != SEAL}
    if SEAL in value and value[SEAL] != hashlib.sha256(_canonical(rest)).hexdigest():
        raise ValueError("its checksum is another one: a byte has changed since it was written")
    return rest


def json_value(text: str | bytes):
    """Returns the value of a JSON text.

    Raises:
        ValueError: the text is no JSON, or its values are nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def plain(value):
    """Returns the JSON form of what `json` does not know: arrays, tuples, sets and paths."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


class _Hashed:
    """Writes to a file and updates a checksum with the same bytes."""

    def __init__(self, file):
        self.file, self.state = file, hashlib.sha256()

    def write(self, data) -> int:
        self.state.update(data)
        return self.file.write(data)


def _line(value: Mapping) -> bytes:
    """Returns the last line of an .npy file."""
    return MARK + _canonical(value) + b"\n"


def _sealed(state, record: Mapping) -> str:
    """Returns the checksum of the bytes that `state` has seen and of the record."""
    state = state.copy()
    state.update(_canonical(record))
    return state.hexdigest()


def _canonical(value) -> bytes:
    """Returns the JSON text that is hashed.

    It is the same for an object and for the object that is read back from its file.
    """
    return json.dumps(
        json.loads(json.dumps(value, allow_nan=False, default=plain)), sort_keys=True
    ).encode()
