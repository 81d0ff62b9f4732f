"""Reads and writes records that are a `tf.train.Example`, without TensorFlow.

An Example is a protocol buffer that maps names to features: a list of bytes, of floats (32 bits) or
of whole numbers (64 bits). TensorFlow Datasets writes one per example.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

import numpy as np

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # how a value is stored
BYTES, FLOATS, WHOLE = 1, 2, 3  # the fields of a feature

Feature = list[bytes] | list[float] | list[int]


def encoded(**features) -> bytes:
    """Returns the record of named features.

    Args:
        **features: {name: value}: bytes or a text, a number, or a list of them. What numpy.tobytes
            returns of an image is bytes.

    >>> parsed(encoded(image=b'..', label=7, weight=[0.5, 1]))
    {'image': [b'..'], 'label': [7], 'weight': [0.5, 1.0]}
    """
    entries = (
        _message(1, name.encode()) + _message(2, _feature(value))
        for name, value in features.items()
    )
    return _message(1, b"".join(_message(1, entry) for entry in entries))


def parsed(record: bytes, names: Collection[str] | None = None) -> dict[str, Feature]:
    """Returns the features of a record.

    Args:
        record: the record.
        names: the features that are read; None for all.

    Raises:
        ValueError: the record is no tf.train.Example.
    """
    features: dict[str, Feature] = {}
    try:
        for number, block in _fields(memoryview(record)):
            if number != 1:
                continue
            for _, entry in _fields(block):
                parts = dict(_fields(entry))
                name = str(parts.get(1, b""), "utf-8")
                if names is None or name in names:
                    features[name] = _values(parts.get(2, memoryview(b"")))
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, struct.error) as error:
        raise ValueError("it is no tf.train.Example") from error
    return features


def _feature(value) -> bytes:
    """Returns the message of one feature."""
    values = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
    values = [v.encode() if isinstance(v, str) else v for v in values]
    if all(isinstance(v, bytes) for v in values):
        return _message(BYTES, b"".join(_message(1, v) for v in values))
    if all(isinstance(v, int | np.integer | np.bool_) for v in values):
        # a negative number is stored as its remainder modulo 2^64
        return _message(WHOLE, _message(1, b"".join(_varint(int(v) % 2**64) for v in values)))
    return _message(FLOATS, _message(1, struct.pack(f"<{len(values)}f", *values)))


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | LENGTH) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Returns a whole number, 7 bits per byte, the lowest ones first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _values(feature: memoryview) -> Feature:
    """Returns the list of a feature; numbers are packed into one field, or one field each."""
    values: list = []
    for kind, block in _fields(feature):
        for _, item in _fields(block):
            if kind == BYTES:
                values.append(bytes(item))
            elif isinstance(item, int):
                values.append(_signed(item))
            elif kind == FLOATS:
                values.extend(struct.unpack(f"<{len(item) // 4}f", item))
            else:
                at = 0
                while at < len(item):
                    value, at = _read_varint(item, at)
                    values.append(_signed(value))
    return values


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yields (field number, value) of a message: a whole number, or the bytes of anything else.

    Raises:
        IndexError, KeyError: it is no message.
    """
    at, sizes = 0, {FIXED64: 8, FIXED32: 4}
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _read_varint(message, at)
            yield tag >> 3, value
            continue
        if kind == LENGTH:
            size, at = _read_varint(message, at)
        else:
            size = sizes[kind]
        if at + size > len(message):
            raise IndexError("a field is longer than its message")
        yield tag >> 3, message[at : at + size]
        at += size


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Returns (the whole number that begins at a position, the position after it)."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("a whole number has more than 64 bits")
