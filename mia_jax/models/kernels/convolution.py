"""Convolutions whose program is chosen by what is batched: one rule, measured, for the forward pass
and both gradients.

A convolution y = x * w is bilinear, and so are its two gradients; the three functions below are
each other's derivatives, so they differentiate to any order in reverse mode. Each exists in two
programs that compute the same numbers: `ordinary` (XLA's convolution) and `patches` (im2col and one
matrix product, whose batched form is a batched product where XLA would make a grouped convolution).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

FORMS = ("auto", "patches", "lax")
_NHWC = ("NHWC", "HWIO", "NHWC")
_BLOCK_BYTES = 4 << 20  # of patches, on a CPU: what stays near the cores


class Windows(NamedTuple):
    """Where windows lie on an image; all static.

    `pads` is ((top, bottom), (left, right)), `out` the number of windows down and across.
    """

    image: tuple[int, int]
    window: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]

    @property
    def out(self) -> tuple[int, int]:
        return tuple(
            (n + sum(p) - k) // s + 1
            for n, k, s, p in zip(self.image, self.window, self.strides, self.pads)
        )


def pair(value) -> tuple[int, int]:
    """(n, n) of an int n; a pair as a tuple."""
    return (value, value) if isinstance(value, int) else tuple(value)


def windows(shape, window, strides, padding) -> Windows:
    """The Windows on images of shape [B,H,W,F]; `padding` is 'SAME', 'VALID', an int or ((top,
    bottom), (left, right)).
    """
    if len(shape) != 4:
        raise ValueError(f"expected images [B,H,W,F], got an array of shape {tuple(shape)}.")
    image, window, strides = tuple(shape[1:3]), pair(window), pair(strides)
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(
                f"padding={padding!r} is neither 'SAME', 'VALID', an int nor ((top, bottom), "
                "(left, right))."
            )
        pads = lax.padtype_to_pads(image, window, strides, padding)
    elif isinstance(padding, int):
        pads = ((padding, padding), (padding, padding))
    else:
        pads = padding
    found = Windows(image, window, strides, tuple((int(low), int(high)) for low, high in pads))
    if min(found.out) < 1:
        size = (
            f"a window of {window[0]}x{window[1]} does not fit into images of "
            f"{image[0]}x{image[1]} with padding {padding!r}"
        )
        raise ValueError(f"{size}; use larger images or fewer layers.")
    return found


def convolve(at: Windows, x, w, form: str = "auto") -> jax.Array:
    """y[b,h,w,o] = sum_ijc x[b, h*s+i-top, w*s+j-left, c] * w[i,j,c,o]; x [B,H,W,C], w [I,J,C,O].
    form='lax' also has a forward mode.
    """
    if form == "lax":
        return _ordinary(at, x, w)
    at, rows, columns = _on_the_image(at)
    return _forward(
        (at, form, jax.config.jax_default_matmul_precision), *_same_axes(x, w[rows, columns])
    )


def _on_the_image(at: Windows) -> tuple[Windows, slice, slice]:
    """The windows without the rows and columns that lie on padding wherever the window stands: a
    3x3 window on a 1x1 image is its center.
    """
    used, pads = [], []
    for n, k, s, (low, _), o in zip(at.image, at.window, at.strides, at.pads, at.out):
        hits = [i for i in range(k) if any(0 <= h * s + i - low < n for h in range(o))] or [0]
        first, last = hits[0], hits[-1]
        used.append(slice(first, last + 1))
        low -= first
        pads.append((low, (o - 1) * s + last + 1 - first - n - low))
    if used == [slice(0, k) for k in at.window]:
        return at, *used
    return Windows(at.image, tuple(u.stop - u.start for u in used), at.strides, tuple(pads)), *used


def _same_axes(*arrays):
    """The arrays, marked as varying over the same mesh axes: inside shard_map a gradient must have
    its argument's type.
    """
    axes = frozenset().union(*(jax.typeof(a).manual_axis_type.varying for a in arrays))
    missing = [tuple(axes - jax.typeof(a).manual_axis_type.varying) for a in arrays]
    return [lax.pcast(a, m, to="varying") if m else a for a, m in zip(arrays, missing)]


# The programs
# --------------------------------------------------------------------------------


def _ordinary(at, x, w):
    return lax.conv_general_dilated(x, w, at.strides, at.pads, dimension_numbers=_NHWC)


def _ordinary_input_gradient(at, g, w):
    """An ordinary convolution of the (dilated) cotangent with the flipped kernel."""
    low = [k - 1 - p[0] for k, p in zip(at.window, at.pads)]
    high = [
        n + k - 2 - (o - 1) * s - a
        for n, k, o, s, a in zip(at.image, at.window, at.out, at.strides, low)
    ]
    flipped = w[::-1, ::-1].transpose(0, 1, 3, 2)
    return lax.conv_general_dilated(
        g, flipped, (1, 1), list(zip(low, high)), lhs_dilation=at.strides, dimension_numbers=_NHWC
    )


def _ordinary_kernel_gradient(at, x, g):
    kernel = jax.ShapeDtypeStruct((*at.window, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda w: _ordinary(at, x, w), kernel)(g)[0]


def patches(at: Windows, x, fill=0.0) -> list[jax.Array]:
    """For each window position (i, j), row by row, the [B,h,w,F] pixels that lie there."""
    padded = (
        x
        if at.pads == ((0, 0), (0, 0))
        else lax.pad(
            x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *((a, b, 0) for a, b in at.pads), (0, 0, 0)]
        )
    )
    (h, w), (s, t) = at.out, at.strides
    return [
        padded[:, i : i + (h - 1) * s + 1 : s, j : j + (w - 1) * t + 1 : t]
        for i in range(at.window[0])
        for j in range(at.window[1])
    ]


def unpatch(at: Windows, pieces: list[jax.Array]) -> jax.Array:
    """The transpose of `patches`: adds every [B,h,w,F] piece back to the pixels it came from;
    [B,H,W,F]. First across, then down: fewer pads.
    """
    total = 0.0
    for i in range(at.window[0]):
        row = 0.0
        for j, piece in enumerate(pieces[i * at.window[1] : (i + 1) * at.window[1]]):
            row = row + _spread(at, 1, j, piece)
        total = total + _spread(at, 0, i, row)
    return total


def _spread(at: Windows, axis: int, offset: int, piece) -> jax.Array:
    """`piece`, one entry a window along the image's `axis`, at the pixels that lie `offset` into
    each window; zeros elsewhere.
    """
    stride = at.strides[axis]
    low = offset - at.pads[axis][0]
    high = at.image[axis] - (at.out[axis] - 1) * stride - 1 - low
    config = [(0, 0, 0)] * 4
    config[1 + axis] = (low, high, stride - 1)
    return lax.pad(piece, jnp.zeros((), piece.dtype), config)


def _columns(at, x):
    return jnp.concatenate(patches(at, x), -1).reshape(
        -1, at.window[0] * at.window[1] * x.shape[-1]
    )


def _patches_forward(at, x, w):
    def block(x):
        return (_columns(at, x) @ w.reshape(-1, w.shape[-1])).reshape(
            x.shape[0], *at.out, w.shape[-1]
        )

    return _joined(_in_blocks(block, _block(at, x.shape[0], x.shape[-1]), x))


def _patches_input_gradient(at, g, w):
    positions, channels = at.window[0] * at.window[1], w.shape[2]

    def block(g):
        columns = (g.reshape(-1, g.shape[-1]) @ w.reshape(-1, w.shape[-1]).T).reshape(
            *g.shape[:3], positions, channels
        )
        return unpatch(at, [columns[:, :, :, k] for k in range(positions)])

    return _joined(_in_blocks(block, _block(at, g.shape[0], channels), g))


def _patches_kernel_gradient(at, x, g):
    """By strips: the patches of one row of the window at a time, so that only a row's worth of
    columns is gathered and the rest are slices of it.
    """
    (h, w), (s, t), (rows, across) = at.out, at.strides, at.window

    def block(x, g):
        padded = lax.pad(
            x, jnp.zeros((), x.dtype), [(0, 0, 0), *((a, b, 0) for a, b in at.pads), (0, 0, 0)]
        )
        strip = jnp.concatenate(
            [padded[:, :, j : j + (w - 1) * t + 1 : t] for j in range(across)], -1
        )
        g = g.reshape(-1, g.shape[-1])
        parts = [
            strip[:, i : i + (h - 1) * s + 1 : s].reshape(-1, strip.shape[-1]).T @ g
            for i in range(rows)
        ]
        return jnp.stack(parts).reshape(rows, across, x.shape[-1], g.shape[-1])

    return _summed(block, _block(at, x.shape[0], x.shape[-1], kernels=g.shape[-1]), x, g)


def _block(at: Windows, size: int, channels: int, examples: int = 1, kernels: int = 0) -> int:
    """How many of `size` items, each of `examples` images, have their patches in memory at a time:
    a divisor of `size`.
    """
    if jax.default_backend() != "cpu" or at.window == (1, 1):
        return size
    row = 4 * at.window[0] * at.window[1] * channels
    limit = max(_BLOCK_BYTES, 2 * row * kernels)
    most = max(1, min(size, limit // (row * at.out[0] * at.out[1] * examples)))
    return max(n for n in range(1, most + 1) if size % n == 0)


def _in_blocks(f, block: int, *args):
    """f of each `block` rows of the arguments in turn, stacked."""
    if block == args[0].shape[0]:
        return f(*args)[None]
    return lax.map(lambda rows: f(*rows), _split(block, args))


def _summed(f, block: int, *args):
    """The sum of f over blocks of `block` rows, in place: XLA's sum over stacked kernels took
    longer than their products (NiN: 23 of 85 ms).
    """
    if block == args[0].shape[0]:
        return f(*args)
    blocks = _split(block, args)
    shape = jax.eval_shape(f, *(a[0] for a in blocks))
    zero = _same_axes(jnp.zeros(shape.shape, shape.dtype), *args)[0]
    return lax.scan(lambda total, rows: (total + f(*rows), None), zero, blocks)[0]


def _split(block: int, args):
    return tuple(a.reshape(a.shape[0] // block, block, *a.shape[1:]) for a in args)


def _joined(blocks):
    return blocks.reshape(-1, *blocks.shape[2:])


# The rule
# --------------------------------------------------------------------------------
# Milliseconds a training step and model inside lax.scan, 2-core CPU shared with others, each
# variant interleaved with the rule, best of 6-8
# ('patches': input gradient ordinary, the kernel's by whole windows, blocks of 8 MiB):
# all three ordinary   patches    without blocks   forward ordinary   input gradient by patches
# small_cnn 28x28x1 B=100, alone                  286              14            15               18
# 14
# small_cnn, fleet of 4 (in turns)                244              21            25               24
# 21
# conv 32x32x3 B=64, alone                      4,308              98            92              134
# 101
# conv, fleet of 4 (in turns)                   4,827             117           133              156
# 123
# A grouped convolution, which vmap makes of ordinary ones, costs twice as much a model as one
# alone. On an idle machine, conv alone: 90 so; 78 with
# strips for the kernel's gradient and blocks of 4 MiB (5 MiB: 80, 2 MiB: 83, 8 MiB: 78 to 80).
# The input's gradient alone, idle machine, best of 6 (images B n n C to O features, window,
# stride):
# ordinary   patches, one pad a position   patches, across then down
#   32  2 2 256 -> 256, 3                         20.9             .81                         .77
#   32  4 4 128 -> 256, 3, 2                       7.9             .47                         .45
#   32  7 7  64 ->  64, 3                         1.25             .65                         .62
#   64  32 32 32 -> 32, 3                         15.3            17.6                        11.6
#   32  28 28 16 -> 16, 3 (the exception)         1.40            3.07                        1.80
#   256 14 14  6 -> 16, 5 (no padding)             6.5             4.0                         3.1
# Where the window is larger than the image, or the stride is 2, XLA falls back on a slower program:
# with an ordinary convolution there, three
# layers with images of 2x2 took 64 of the 117 ms of a step of ResNet-18 (28x28, B=32), which now
# takes 48.

_PROGRAMS = {
    "forward": (_patches_forward, _ordinary),
    "input": (_patches_input_gradient, _ordinary_input_gradient),
    "kernel": (_patches_kernel_gradient, _ordinary_kernel_gradient),
}


def _alone(at: Windows, form: str, what: str, x):
    """The program for one kernel: patches on a CPU, elsewhere ordinary convolutions (not measured),
    but a 1x1 window is a matrix product anywhere.

    The forward pass of windows of fewer than 16 numbers (3x3 on gray images) is ordinary on a CPU
    too: to gather them costs more than the product (28x28x1 -> 32, B=100, in a scan: .70 ms
    ordinary, 1.05 by patches; two at a time on 2 cores .85 and 1.71; 5x5 -> 6: 5.2 and 3.2).
    """
    by_patches, ordinary = _PROGRAMS[what]
    if form == "patches" or at.window == (1, 1):
        return by_patches
    tiny = what == "forward" and at.window[0] * at.window[1] * x.shape[-1] < 16
    return by_patches if jax.default_backend() == "cpu" and not tiny else ordinary


def _at_precision(precision, f):
    """f, whose products have this precision whenever it is traced (None: what is asked for
    then).
    """

    def precise(*args):
        with jax.default_matmul_precision(precision):
            return f(*args)

    return f if precision is None else precise


def _bilinear(what: str, how, a, b):
    """`what` of one pair (a, b). vmap over the images alone makes one bigger batch; over kernels
    (or their gradients) it multiplies patches.

    Where the patches of all kernels are too large for the cache, groups of kernels (at last one by
    one, as if alone) take turns.

    `how` holds the precision that was asked for when the convolution was called: vmap of a program
    that was traced before, such as a fleet's steps, runs the rule when the caller's
    `jax.default_matmul_precision` is over, and clipped sums need full float32 there too.
    """
    at, form, precision = how
    by_patches = _at_precision(precision, _PROGRAMS[what][0])
    f = custom_vmap(functools.partial(_at_precision(precision, _alone(at, form, what, a)), at))

    @f.def_vmap
    def rule(size, batched, a, b):
        if what != "kernel" and not batched[1]:
            out = f(a.reshape(-1, *a.shape[2:]), b)
            return out.reshape(size, -1, *out.shape[1:]), True
        examples, channels = (
            a.shape[1 if batched[0] else 0],
            (b.shape[-2] if what == "input" else a.shape[-1]),
        )
        group = _block(at, size, channels, examples)
        axes = tuple(0 if yes else None for yes in batched)

        def some(*given):
            given = iter(given)
            both = [next(given) if yes else whole for yes, whole in zip(batched, (a, b))]
            if group > 1:
                return jax.vmap(functools.partial(by_patches, at), axes)(*both)
            return f(*(v[0] if yes else v for yes, v in zip(batched, both)))[None]

        return _joined(
            _in_blocks(some, group, *(v for yes, v in zip(batched, (a, b)) if yes))
        ), True

    return f(a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward(how, x, w):
    return _bilinear("forward", how, x, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(how, g, w):
    return _bilinear("input", how, g, w)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(how, x, g):
    return _bilinear("kernel", how, x, g)


# c is the cotangent; for y = x * w: dx = input(c, w), dw = kernel(x, c); for dx = input(g, w) and
# dw = kernel(x, g) likewise.
_forward.defvjp(
    lambda how, x, w: (_forward(how, x, w), (x, w)),
    lambda how, s, c: (_input_gradient(how, c, s[1]), _kernel_gradient(how, s[0], c)),
)
_input_gradient.defvjp(
    lambda how, g, w: (_input_gradient(how, g, w), (g, w)),
    lambda how, s, c: (_forward(how, c, s[1]), _kernel_gradient(how, c, s[0])),
)
_kernel_gradient.defvjp(
    lambda how, x, g: (_kernel_gradient(how, x, g), (x, g)),
    lambda how, s, c: (_input_gradient(how, s[1], c), _forward(how, s[0], c)),
)
