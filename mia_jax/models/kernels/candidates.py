"""Lists the programs of a convolution among which a fleet chooses by measurement, layer by layer.

A program is a name, so that a plan can keep it: 'patches' and 'ordinary' (convolution.py),
'flipped' (the kernel's gradient by the transposed product), 'wide:RxS' and 'wide_flipped:RxS'
(wide_windows.py), 'spectral' (spectral.py). All compute the same function to rounding errors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mia_jax.models.kernels import spectral, wide_windows
from mia_jax.models.kernels.convolution import (
    ORDINARY,
    PATCHES,
    Layer,
    Windows,
    flipped_kernel_gradient,
)

BLOCKS = ((1, 2), (2, 2), (2, 4))
_WIDE = dict(
    forward=wide_windows.forward,
    input=wide_windows.input_gradient,
    kernel=wide_windows.kernel_gradient,
)
_SPECTRAL = dict(
    forward=spectral.forward, input=spectral.input_gradient, kernel=spectral.kernel_gradient
)


def names(layer: Layer) -> list[str]:
    """Returns the programs of a layer that are worth a measurement; 'patches' is the first.

    Each has its region: wide windows where few channels are gathered, Fourier transforms where many
    channels see a small image, XLA's convolution for everything but the kernel's gradient (up to
    100 times as long as patches on a CPU).
    """
    at, kernel = layer.at, layer.what == "kernel"
    chosen = ["patches", "flipped" if kernel else "ordinary"]
    if at.strides == (1, 1) and min(at.out) > 1 and layer.channels <= 32:
        wide = "wide_flipped" if kernel else "wide"
        most = 4 if layer.channels * layer.features >= 256 else 8
        chosen += [f"{wide}:{r}x{s}" for r, s in BLOCKS if r * s <= most]
    if (
        at.strides == (1, 1)
        and min(at.image) > 1
        and max(at.image) <= 8
        and layer.channels >= 32
        and layer.features >= 32
        and layer.dtype == "float32"
    ):
        chosen.append("spectral")
    return chosen


def program(name: str, what: str) -> Callable:
    """Returns program(at, a, b) of the function `what` (see Layer).

    >>> program("wide:1x2", "kernel")
    Traceback (most recent call last):
    ...
    ValueError: 'wide:1x2' is no program of the function 'kernel'.
    """
    simple = dict(patches=PATCHES[what], ordinary=ORDINARY[what])
    if what == "kernel":
        simple["flipped"] = flipped_kernel_gradient
    simple["spectral"] = _SPECTRAL[what]
    kind, _, size = name.partition(":")
    if name in simple:
        return simple[name]
    if size in [f"{r}x{s}" for r, s in BLOCKS]:
        block = tuple(int(r) for r in size.split("x"))
        if kind == "wide" and what != "kernel":
            return functools.partial(_WIDE[what], block)
        if kind == "wide_flipped" and what == "kernel":
            return functools.partial(_WIDE[what], block, program=flipped_kernel_gradient)
    raise ValueError(f"{name!r} is no program of the function {what!r}.")


class Table(tuple):
    """Is a choice (`convolution.chosen`) of pairs (Layer, name); other layers follow the rule."""

    __slots__ = ()

    def program(self, layer: Layer) -> Callable | None:
        """Returns the program of a layer; None if it was not measured."""
        name = dict(self).get(layer)
        return None if name is None else program(name, layer.what)

    def plain(self) -> list[dict[str, Any]]:
        """Returns the table as it is kept in a plan."""
        return [layer._asdict() | dict(at=layer.at._asdict(), program=name) for layer, name in self]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Table:
        """Returns the table of rows of `plain`.

        Raises:
            ValueError: a row names a program that does not exist.
        """
        pairs = []
        for row in rows:
            fields = {name: row[name] for name in Layer._fields}
            at = {name: _nested(fields["at"][name]) for name in Windows._fields}
            layer = Layer(**fields | dict(at=Windows(**at)))
            program(row["program"], layer.what)
            pairs.append((layer, row["program"]))
        return cls(pairs)


class Recorder:
    """Is a choice that follows the rule and notes the layers that are traced."""

    def __init__(self):
        self.layers: dict[Layer, None] = {}

    def program(self, layer: Layer) -> None:
        """Notes the layer."""
        self.layers[layer] = None


def _nested(value):
    """Returns lists as tuples."""
    return tuple(_nested(v) for v in value) if isinstance(value, list | tuple) else value
