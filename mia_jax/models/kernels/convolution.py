"""Computes convolutions by whichever of two programs was measured to be faster.

A convolution y = x * w can be computed by two programs with the same result:

- `ordinary`: XLA's convolution.
- `patches` (im2col): copies the pixels under every window into a row of a matrix, then computes one
  matrix product of rows and kernel.

Why two programs: on a CPU, XLA's convolution is slow in several cases (measured, see "The rule"
below). Under vmap over models, every model has a different kernel. XLA then makes a grouped
convolution, which is slow, whereas patches become a batched matrix product. On accelerators it is
the other way round: patches of a batch of kernels multiply the traffic of the memory. `WAYS` says
what each platform does by default; a program that was measured to be faster otherwise asks for it
by `batched`. By `chosen`, a program for every layer, of those in models/kernels/candidates.py.

How gradients work: a convolution is linear in x and in w, and its two gradients (with respect to x
and to w) are bilinear as well. The functions `_forward`, `_input_gradient` and `_kernel_gradient`
are each other's derivatives, so they can be differentiated to any order in reverse mode. Each of
them chooses its program by one rule (`_alone` and `_bilinear`).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from mia_jax.runtime import machine

FORMS = ("auto", "patches", "lax")
_NHWC = ("NHWC", "HWIO", "NHWC")
_BLOCK_BYTES = 4 << 20  # The size of a block of patches on a CPU, which fits into the caches.
BATCHED = ("grouped", "patches")


class Way(NamedTuple):
    """Says how a platform convolves, unless a layer or a program asks for another way.

    Attributes:
        single: the program of a single kernel, 'patches' or 'lax'.
        batched: that of a batch of kernels: 'patches', or 'grouped', which is XLA's convolution
            under vmap.
        blocks: whether patches are made in blocks that fit into caches.
    """

    single: str
    batched: str
    blocks: bool


# The CPU's way was measured (see "The rule"). The others follow from the compilers for an H100 and
# a v5e, without a device: a step of the conv net (8 models, B=64) moves 8.0 GB by patches and 3.2
# GB grouped on the first, an epoch 45 and 4.8 GB on the second.
WAYS = dict(
    cpu=Way(single="patches", batched="patches", blocks=True),
    gpu=Way(single="lax", batched="grouped", blocks=False),
    tpu=Way(single="lax", batched="grouped", blocks=False),
)
# The way of the batches of kernels that are traced in this context; '' is that of the platform. The
# caches of jax.jit know it.
_asked = jax.make_user_context("")
# The choice among the programs of single kernels in this context; None is the rule below.
_chosen = jax.make_user_context(None)


def way(platform: str | None = None) -> Way:
    """Returns the way of a platform; None is that for which programs are traced."""
    return WAYS.get(platform or machine.platform(), WAYS["gpu"])


def batched(how: str):
    """Returns a context in which batches of kernels are convolved in this way.

    It holds for convolutions that are traced in it, and for all that vmap makes of them later.

    Args:
        how: one of BATCHED; '' for the way of the platform.
    """
    if how not in ("", *BATCHED):
        raise ValueError(f"how={how!r} is neither '' nor one of {', '.join(BATCHED)}.")
    return _asked(how)


def chosen(choice):
    """Returns a context in which `choice` decides how single kernels are convolved.

    Args:
        choice: hashable, with choice.program(Layer) -> program(at, a, b), or None for the rule of
            the platform; None for that rule in every layer.
    """
    return _chosen(choice)


class Windows(NamedTuple):
    """Describes where windows are located on an image; all values are static.

    Attributes:
        image: the size of the image.
        window: the size of a window.
        strides: the strides.
        pads: ((top, bottom), (left, right)).
    """

    image: tuple[int, int]
    window: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]

    @property
    def out(self) -> tuple[int, int]:
        """Returns the number of windows down and across."""
        return tuple(
            (n + sum(p) - k) // s + 1
            for n, k, s, p in zip(self.image, self.window, self.strides, self.pads)
        )


class How(NamedTuple):
    """Holds what is decided when a convolution is called; all values are static.

    vmap of a program that was traced before, such as the steps of a fleet, runs the rule after the
    contexts of the caller have ended.

    Attributes:
        at: the windows.
        form: one of FORMS.
        precision: the precision that was asked for (`jax.default_matmul_precision`).
        batched: the way of a batch of kernels, one of BATCHED.
        choice: what chooses the programs of single kernels (`chosen`); None is the rule.
    """

    at: Windows
    form: str
    precision: Any
    batched: str
    choice: Any = None


class Layer(NamedTuple):
    """Describes one function of a convolution with one kernel; all values are static.

    Attributes:
        what: 'forward' of (x, w), 'input' (gradient) of (g, w) or 'kernel' (gradient) of (x, g).
        at: the windows.
        batch: B.
        channels: C, the features of the images.
        features: O, the features of the output.
        dtype: the name of the dtype.
    """

    what: str
    at: Windows
    batch: int
    channels: int
    features: int
    dtype: str

    def shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Returns the two arguments of the function as shapes."""
        x = (self.batch, *self.at.image, self.channels)
        w = (*self.at.window, self.channels, self.features)
        g = (self.batch, *self.at.out, self.features)
        both = dict(forward=(x, w), input=(g, w), kernel=(x, g))[self.what]
        return tuple(jax.ShapeDtypeStruct(shape, self.dtype) for shape in both)


def _layer(what: str, at: Windows, a, b) -> Layer:
    """Returns the layer whose function `what` has the arguments (a, b)."""
    channels = b.shape[-2] if what == "input" else a.shape[-1]
    features = a.shape[-1] if what == "input" else b.shape[-1]
    return Layer(what, at, a.shape[0], channels, features, jnp.result_type(a, b).name)


def pair(value) -> tuple[int, int]:
    """Returns (n, n) for an int n, and a pair as a tuple."""
    return (value, value) if isinstance(value, int) else tuple(value)


def windows(shape, window, strides, padding) -> Windows:
    """Returns the Windows on images of shape [B,H,W,F].

    `padding` is 'SAME', 'VALID', an int or ((top, bottom), (left, right)).
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
    at = Windows(image, window, strides, tuple((int(low), int(high)) for low, high in pads))
    if min(at.out) < 1:
        size = (
            f"a window of {window[0]}x{window[1]} does not fit into images of "
            f"{image[0]}x{image[1]} with padding {padding!r}"
        )
        raise ValueError(f"{size}; use larger images or fewer layers.")
    return at


def convolve(at: Windows, x, w, form: str = "auto") -> jax.Array:
    """Returns y[b,h,w,o] = sum_ijc x[b, h*s+i-top, w*s+j-left, c] * w[i,j,c,o].

    x is [B,H,W,C] and w is [I,J,C,O]. form='lax' also supports forward-mode differentiation.
    """
    if form == "lax":
        return _ordinary(at, x, w)
    at, rows, columns = _on_the_image(at)
    asked = "patches" if form == "patches" else _asked.value or way().batched
    choice = _chosen.value if form == "auto" else None
    how = How(at, form, jax.config.jax_default_matmul_precision, asked, choice)
    return _forward(how, *_same_axes(x, w[rows, columns]))


def _on_the_image(at: Windows) -> tuple[Windows, slice, slice]:
    """Returns the windows without the rows and columns that are on padding at every position.

    For example, a 3x3 window on a 1x1 image is reduced to its center.

    Returns:
        The windows, and the slices of the kernel's rows and columns that remain.
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
    """Returns the arrays, marked as varying over the same mesh axes.

    Inside shard_map a gradient must have the type of its argument.
    """
    axes = frozenset().union(*(jax.typeof(a).manual_axis_type.varying for a in arrays))
    missing = [tuple(axes - jax.typeof(a).manual_axis_type.varying) for a in arrays]
    return [lax.pcast(a, m, to="varying") if m else a for a, m in zip(arrays, missing)]


# The programs
# --------------------------------------------------------------------------------


def _ordinary(at, x, w):
    """Returns the convolution by XLA's program."""
    return lax.conv_general_dilated(x, w, at.strides, at.pads, dimension_numbers=_NHWC)


def _ordinary_input_gradient(at, g, w):
    """Returns the gradient with respect to x.

    It is an ordinary convolution of the (dilated) cotangent with the flipped kernel.
    """
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
    """Returns the gradient with respect to w, as the transpose of the convolution."""
    kernel = jax.ShapeDtypeStruct((*at.window, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda w: _ordinary(at, x, w), kernel)(g)[0]


def patches(at: Windows, x, fill=0.0) -> list[jax.Array]:
    """Returns, for each window position (i, j) row by row, the [B,h,w,F] pixels that are there."""
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
    """Returns the transpose of `patches`, [B,H,W,F]: adds every piece [B,h,w,F] to its pixels.

    Pieces are added across first and then down, which needs fewer pads.
    """
    total = 0.0
    for i in range(at.window[0]):
        row = 0.0
        for j, piece in enumerate(pieces[i * at.window[1] : (i + 1) * at.window[1]]):
            row = row + _spread(at, 1, j, piece)
        total = total + _spread(at, 0, i, row)
    return total


def _spread(at: Windows, axis: int, offset: int, piece) -> jax.Array:
    """Returns `piece`, which has one entry per window along `axis`, at the pixels of the image.

    The pixels are `offset` into each window; all others are 0.
    """
    stride = at.strides[axis]
    low = offset - at.pads[axis][0]
    high = at.image[axis] - (at.out[axis] - 1) * stride - 1 - low
    config = [(0, 0, 0)] * 4
    config[1 + axis] = (low, high, stride - 1)
    return lax.pad(piece, jnp.zeros((), piece.dtype), config)


def _columns(at, x):
    """Returns the matrix of patches, [B*h*w, I*J*C]."""
    return jnp.concatenate(patches(at, x), -1).reshape(
        -1, at.window[0] * at.window[1] * x.shape[-1]
    )


def _patches_forward(at, x, w):
    """Returns the convolution as a product of patches and kernel."""

    def block(x):
        return (_columns(at, x) @ w.reshape(-1, w.shape[-1])).reshape(
            x.shape[0], *at.out, w.shape[-1]
        )

    return _joined(_in_blocks(block, _block(at, x.shape[0], x.shape[-1]), x))


def _patches_input_gradient(at, g, w):
    """Returns the gradient with respect to x: a product, whose columns are added back to pixels."""
    positions, channels = at.window[0] * at.window[1], w.shape[2]

    def block(g):
        columns = (g.reshape(-1, g.shape[-1]) @ w.reshape(-1, w.shape[-1]).T).reshape(
            *g.shape[:3], positions, channels
        )
        return unpatch(at, [columns[:, :, :, k] for k in range(positions)])

    return _joined(_in_blocks(block, _block(at, g.shape[0], channels), g))


def _patches_kernel_gradient(at, x, g):
    """Returns the gradient with respect to w, by strips.

    The patches of one row of the window are computed at a time, so that only the columns of one row
    are gathered and the other rows are slices of them.
    """
    return _strips(at, x, g, lambda a, b: a.T @ b)


def _strips(at, x, g, product):
    """Returns product(strip, g) of the strips of every row of the window, [I,J,C,O]."""
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
            product(strip[:, i : i + (h - 1) * s + 1 : s].reshape(-1, strip.shape[-1]), g)
            for i in range(rows)
        ]
        return jnp.stack(parts).reshape(rows, across, x.shape[-1], g.shape[-1])

    return _summed(block, _block(at, x.shape[0], x.shape[-1], kernels=g.shape[-1]), x, g)


def unit_kernel_gradients(at, x, g, units: int, precision=None):
    """Returns the gradient with respect to w of every unit, [U,I*J*C,O], in float32.

    The B rows of x and g are those of U units, B / U consecutive rows each. On a CPU units take
    turns in blocks whose patches fit into the caches, if all of them are more than two blocks: 64
    images of 32x32x32, 3x3, 32 features take 53 instead of 114 ms of CPU time and 25 instead of
    133 MB, with the same bits. Where programs were chosen by measurement (`chosen`), blocks gather
    strips, as the gradient of all units does: 30 ms. Last bits may differ with two threads, so this
    is not the default.
    """
    rows_each = x.shape[0] // units
    product = functools.partial(
        jnp.einsum, "utf,uto->ufo", precision=precision, preferred_element_type=jnp.float32
    )
    (h, w), (s, t), (down, across) = at.out, at.strides, at.window

    def by_windows(x, g):
        """Returns the gradients of the units [n,...] by the whole matrix of patches."""
        columns = jnp.concatenate(patches(at, x.reshape(-1, *x.shape[2:])), -1)
        return product(*(a.reshape(x.shape[0], -1, a.shape[-1]) for a in (columns, g)))

    def by_strips(x, g):
        """Returns the same by the patches of one row of the window at a time."""
        n = x.shape[0]
        x, g = x.reshape(-1, *x.shape[2:]), g.reshape(n, -1, g.shape[-1])
        padded = lax.pad(
            x, jnp.zeros((), x.dtype), [(0, 0, 0), *((a, b, 0) for a, b in at.pads), (0, 0, 0)]
        )
        strip = jnp.concatenate(
            [padded[:, :, j : j + (w - 1) * t + 1 : t] for j in range(across)], -1
        )
        rows = [strip[:, i : i + (h - 1) * s + 1 : s] for i in range(down)]
        return jnp.concatenate(
            [product(row.reshape(n, -1, strip.shape[-1]), g) for row in rows], axis=1
        )

    size, strips = (
        _block(at, units, x.shape[-1], rows_each),
        way().blocks and _chosen.value is not None,
    )
    if not strips and 2 * size >= units:
        size = units
    split = (a.reshape(units, rows_each, *a.shape[1:]) for a in (x, g))
    return _joined(_in_blocks(by_strips if strips else by_windows, size, *split))


def flipped_kernel_gradient(at, x, g):
    """Returns the gradient with respect to w by strips, as the transpose of g' @ strip.

    XLA's product on a CPU is 1.3 to 1.4 times as fast this way for narrow layers (900 to 25,088
    rows, 48 to 288 columns, 16 to 64 features). The barrier keeps XLA from undoing it.
    """
    return _strips(at, x, g, lambda a, b: lax.optimization_barrier(b.T @ a).T)


def _block(at: Windows, size: int, channels: int, examples: int = 1, kernels: int = 0) -> int:
    """Returns how many of `size` items have their patches in memory at a time, a divisor of `size`.

    Each item has `examples` images.
    """
    if not way().blocks or at.window == (1, 1):
        return size
    row = 4 * at.window[0] * at.window[1] * channels
    limit = max(_BLOCK_BYTES, 2 * row * kernels)
    most = max(1, min(size, limit // (row * at.out[0] * at.out[1] * examples)))
    return max(n for n in range(1, most + 1) if size % n == 0)


def _in_blocks(f, block: int, *args):
    """Returns f of each `block` rows of the arguments in turn, stacked."""
    if block == args[0].shape[0]:
        return f(*args)[None]
    return lax.map(lambda rows: f(*rows), _split(block, args))


def _summed(f, block: int, *args):
    """Returns the sum of f over blocks of `block` rows, added in place.

    XLA's sum over stacked kernels took longer than their products (NiN: 23 of 85 ms).
    """
    if block == args[0].shape[0]:
        return f(*args)
    blocks = _split(block, args)
    shape = jax.eval_shape(f, *(a[0] for a in blocks))
    zero = _same_axes(jnp.zeros(shape.shape, shape.dtype), *args)[0]
    return lax.scan(lambda total, rows: (total + f(*rows), None), zero, blocks)[0]


def _split(block: int, args):
    """Returns the arguments with their first axis split into blocks."""
    return tuple(a.reshape(a.shape[0] // block, block, *a.shape[1:]) for a in args)


def _joined(blocks):
    """Returns the blocks with their first two axes joined."""
    return blocks.reshape(-1, *blocks.shape[2:])


# The rule
# --------------------------------------------------------------------------------
# These are milliseconds per training step and model inside lax.scan, on a 2-core CPU shared with
# others. Each variant was interleaved with the rule; best of 6 to 8. The columns are (1) all three
# functions ordinary, (2) patches (with the input gradient ordinary, the kernel gradient by whole
# windows, and blocks of 8 MiB), (3) patches without blocks, (4) forward ordinary, (5) input
# gradient by patches.
#                                          (1)     (2)     (3)     (4)     (5)
#   small_cnn 28x28x1 B=100, one model     286      14      15      18      14
#   small_cnn, fleet of 4 (in turns)       244      21      25      24      21
#   conv 32x32x3 B=64, one model         4,308      98      92     134     101
#   conv, fleet of 4 (in turns)          4,827     117     133     156     123
# A grouped convolution, which vmap makes of ordinary ones, costs twice as much per model as an
# ordinary one. On an idle machine conv takes 90 for one model with (2). With strips for the kernel
# gradient and blocks of 4 MiB it takes 78 (5 MiB: 80, 2 MiB: 83, 8 MiB: 78 to 80).
# The input gradient only, on an idle machine, best of 6 (images B n n C to O features, window,
# stride): (1) ordinary, (2) patches with one pad per position, (3) patches added across, then down.
#                                          (1)     (2)     (3)
#   32  2 2 256 -> 256, 3                 20.9    0.81    0.77
#   32  4 4 128 -> 256, 3, 2               7.9    0.47    0.45
#   32  7 7  64 ->  64, 3                 1.25    0.65    0.62
#   64  32 32 32 -> 32, 3                 15.3    17.6    11.6
#   32  28 28 16 -> 16, 3 (exception)     1.40    3.07    1.80
#   256 14 14  6 -> 16, 5 (no padding)     6.5     4.0     3.1
# If the window is larger than the image, or the stride is 2, XLA uses a slower program. With
# ordinary convolutions there, three layers with images of 2x2 took 64 of the 117 ms of a step of
# ResNet-18 (28x28, B=32), which now takes 48.

PATCHES = dict(
    forward=_patches_forward, input=_patches_input_gradient, kernel=_patches_kernel_gradient
)
ORDINARY = dict(forward=_ordinary, input=_ordinary_input_gradient, kernel=_ordinary_kernel_gradient)
_PROGRAMS = {what: (PATCHES[what], ORDINARY[what]) for what in PATCHES}


def _alone(how: How, what: str, a, b):
    """Returns the program of the function `what` of (a, b) for a single kernel.

    It is that of `How.choice`, else that of the platform (`WAYS`). A 1x1 window is a matrix product
    everywhere. The forward pass of windows of fewer than 16 numbers (3x3 on gray images) is
    ordinary on a CPU as well, because gathering them costs more than the product (28x28x1 -> 32,
    B=100, in a scan: 0.70 ms ordinary, 1.05 by patches; two at a time on 2 cores 0.85 and 1.71; 5x5
    -> 6: 5.2 and 3.2).
    """
    at, (by_patches, ordinary) = how.at, _PROGRAMS[what]
    if how.form == "patches" or at.window == (1, 1):
        return by_patches
    program = how.choice.program(_layer(what, at, a, b)) if how.choice is not None else None
    if program is not None:
        return program
    tiny = what == "forward" and at.window[0] * at.window[1] * a.shape[-1] < 16
    return by_patches if way().single == "patches" and not tiny else ordinary


def _at_precision(precision, f):
    """Returns f, whose products have this precision whenever it is traced.

    None uses the precision that is configured at that time.
    """

    def precise(*args):
        with jax.default_matmul_precision(precision):
            return f(*args)

    return f if precision is None else precise


def _bilinear(what: str, how, a, b):
    """Returns `what` of one pair (a, b), with a rule for vmap.

    vmap over the images only makes one larger batch. vmap over kernels (or their gradients) is left
    to XLA, or multiplies patches (`How.batched`). If the patches of all kernels are too large for
    the cache, groups of kernels take turns. The smallest group is a single kernel, which is
    computed as without vmap.
    """
    at, precision, asked = how.at, how.precision, how.batched
    by_patches, ordinary = (_at_precision(precision, f) for f in _PROGRAMS[what])

    @custom_vmap
    def f(a, b):
        return _at_precision(precision, _alone(how, what, a, b))(at, a, b)

    @f.def_vmap
    def rule(size, batched, a, b):
        if what != "kernel" and not batched[1]:
            out = f(a.reshape(-1, *a.shape[2:]), b)
            return out.reshape(size, -1, *out.shape[1:]), True
        axes = tuple(0 if yes else None for yes in batched)
        if asked == "grouped" and at.window != (1, 1):
            return jax.vmap(functools.partial(ordinary, at), axes)(a, b), True
        examples, channels = (
            a.shape[1 if batched[0] else 0],
            (b.shape[-2] if what == "input" else a.shape[-1]),
        )
        group = _block(at, size, channels, examples)

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
