"""Query views, the same for every model, and training augmentation, drawn per example. Pure JAX on images [B,H,W,C]."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import checks

_VIEWS = "'identity', 'flip' (left-right), 'shift:dy,dx' (whole pixels, down and right), 'rotate:degrees' (counterclockwise)"
_AUGMENTATIONS = "'flip' (left-right), 'shift:r' (up to r pixels, edges repeated), 'crop:r' (the same, reflected), 'rotate:degrees' (up to)"
_SITE = 0x617567  # keeps the draws apart from those of a model's own layers, which fold small numbers into the same key


def views(names: Sequence[str]) -> list[Callable[[jax.Array], jax.Array]]:
    """One deterministic function x_B.. -> x_B.. a name, for asking a model A times about each example.

    'identity', 'flip' (left-right), 'shift:dy,dx' (integers; content moves down and right, edges repeated), 'rotate:degrees' (about the center,
    counterclockwise, cubic spline, 0 outside: scipy.ndimage.rotate(reshape=False)). ValueError for anything else, and for data other than
    images [B,H,W,C] unless the view is 'identity'.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"views={names!r} must be a list such as ['identity', 'flip']. Forms: {_VIEWS}.")
    return [_view(name) for name in names]


def augmentation(specs: Sequence[str]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(x_BHWC, key_B) -> x_BHWC with the random changes in `specs`, one after the other.

    'flip' (left-right with probability 1/2), 'shift:r' (up to r pixels each way, edges repeated), 'crop:r' (the same with reflected edges),
    'rotate:degrees' (an angle in +-degrees, bilinear, 0 outside). Each example changes by its own key alone, whatever else is in the batch; of
    pairs x_B2HWC each image changes on its own.
    """
    if isinstance(specs, str):
        raise ValueError(f"augmentation={specs!r} must be a list such as ['flip']. Forms: {_AUGMENTATIONS}.")
    changes = [_change(spec) for spec in specs]

    def one(x, key):
        for site, change in enumerate(changes):
            x = change(x, jax.random.fold_in(key, _SITE + site))
        return x

    def apply(x, key_B):
        if not changes:
            return x
        if x.ndim == 5:
            key_B2 = jax.vmap(lambda key: jax.random.split(key, x.shape[1]))(key_B)
            return jax.vmap(jax.vmap(one))(x, key_B2)
        _image(x, f"augmentation {specs[0]!r}")
        return jax.vmap(one)(x, key_B)

    return apply


def _view(name: str) -> Callable[[jax.Array], jax.Array]:
    kind, numbers = _parse(name, dict(identity=(), flip=(), shift=(int, int), rotate=(float,)), "view", _VIEWS)
    if kind == "identity":
        return lambda x: x
    function = dict(flip=lambda x: x[:, :, ::-1], shift=_shifted, rotate=_rotated)[kind]

    def apply(x):
        _image(x, f"view {name!r}")
        return function(jnp.asarray(x), *numbers)

    return apply


def _change(spec: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The change of one image [H,W,C] with its key."""
    kind, numbers = _parse(spec, dict(flip=(), shift=(int,), crop=(int,), rotate=(float,)), "augmentation", _AUGMENTATIONS)
    if numbers:
        checks.at_least(0, **{spec: numbers[0]})
    if kind == "flip":
        return lambda x, key: jnp.where(jax.random.bernoulli(key, jnp.float32(0.5)), x[:, ::-1], x)
    if kind == "rotate":
        return functools.partial(_turned, degrees=numbers[0])
    return functools.partial(_moved, reach=numbers[0], reflect=kind == "crop")


def _parse(text: str, forms: dict[str, tuple], what: str, help_text: str) -> tuple[str, list]:
    kind, colon, rest = str(text).partition(":")
    cells = rest.split(",") if colon else []
    try:
        numbers = [convert(cell) for convert, cell in zip(forms[kind], cells, strict=True)]
        if not all(math.isfinite(n) for n in numbers):
            raise ValueError
    except (KeyError, ValueError):
        raise ValueError(f"there is no {what} {text!r}. Forms: {help_text}.{checks.closest(kind, forms)}") from None
    return kind, numbers


def _image(x: jax.Array, what: str) -> None:
    if x.ndim != 4:
        raise ValueError(f"{what} needs images [B,H,W,C]; these examples have shape {tuple(x.shape[1:])}, which is not an image.")


def _shifted(x_BHWC: jax.Array, dy: int, dx: int) -> jax.Array:
    height, width = x_BHWC.shape[1:3]
    rows, columns = np.clip(np.arange(height) - dy, 0, height - 1), np.clip(np.arange(width) - dx, 0, width - 1)
    return x_BHWC[:, rows][:, :, columns]


def _rotated(x_BHWC: jax.Array, degrees: float) -> jax.Array:
    """Cubic splines: their coefficients by two small matrices, then 16 weighted neighbors for each pixel."""
    height, width, channels = x_BHWC.shape[1:]
    filter_HH, filter_WW, index_PT, weight_PT = _spline(height, width, degrees)
    spline = jnp.einsum("hi,bijc,wj->bhwc", filter_HH, x_BHWC, filter_WW, precision="highest").reshape(-1, height * width, channels)
    out = sum(spline[:, index] * weight[None, :, None] for index, weight in zip(index_PT.T, weight_PT.T))
    return out.reshape(x_BHWC.shape)


@functools.lru_cache(maxsize=64)
def _spline(height: int, width: int, degrees: float) -> tuple[np.ndarray, ...]:
    """(filter [H,H], filter [W,W], index [HW,16], weight [HW,16]): what one rotation of images of this size needs."""
    from scipy import ndimage, special

    turn = np.array([[special.cosdg(degrees), special.sindg(degrees)], [-special.sindg(degrees), special.cosdg(degrees)]])
    center = (np.array([height, width]) - 1) / 2
    grid_P2 = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
    source_P2 = grid_P2 @ turn.T + (center - turn @ center)
    # a nearest-neighbor turn of a white image says exactly which pixels SciPy takes to lie inside
    inside_P = ndimage.rotate(np.ones((height, width)), degrees, reshape=False, order=0).reshape(-1)
    base_P2 = np.floor(source_P2).astype(int)
    index, weight = [], []
    for axis, length in enumerate((height, width)):
        t = source_P2[:, axis] - base_P2[:, axis]
        weight.append(np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4, t**3], -1) / 6)
        index.append(_mirrored(base_P2[:, axis, None] + np.arange(-1, 3), length))
    index_PT = (index[0][:, :, None] * width + index[1][:, None, :]).reshape(-1, 16)
    weight_PT = (weight[0][:, :, None] * weight[1][:, None, :]).reshape(-1, 16) * inside_P[:, None]
    filters = [ndimage.spline_filter1d(np.eye(n), 3, axis=0, mode="mirror").astype(np.float32) for n in (height, width)]
    return *filters, index_PT.astype(np.int32), weight_PT.astype(np.float32)


def _mirrored(index, length: int):
    """Indices folded back at the first and the last element, which are not repeated."""
    if length == 1:
        return index * 0
    folded = index % (2 * length - 2)
    return folded + (folded >= length) * (2 * length - 2 - 2 * folded)


def _moved(x: jax.Array, key: jax.Array, reach: int, reflect: bool) -> jax.Array:
    height, width = x.shape[:2]
    step = jax.random.randint(key, (2,), -reach, reach + 1, jnp.int32)
    rows, columns = jnp.arange(height, dtype=jnp.int32) - step[0], jnp.arange(width, dtype=jnp.int32) - step[1]
    if reflect:
        return x[_mirrored(rows, height)][:, _mirrored(columns, width)]
    return x[jnp.clip(rows, 0, height - 1)][:, jnp.clip(columns, 0, width - 1)]


def _turned(x: jax.Array, key: jax.Array, degrees: float) -> jax.Array:
    height, width, channels = x.shape
    angle = jnp.deg2rad(jnp.float32(degrees)) * jax.random.uniform(key, (), jnp.float32, minval=-1.0, maxval=1.0)
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    columns = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    from_row = jnp.cos(angle) * rows + jnp.sin(angle) * columns + (height - 1) / 2
    from_column = jnp.cos(angle) * columns - jnp.sin(angle) * rows + (width - 1) / 2
    top, left = jnp.floor(from_row), jnp.floor(from_column)
    pixels, out = x.reshape(-1, channels), 0.0
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = top + i, left + j
        weight = (1 - jnp.abs(from_row - row)) * (1 - jnp.abs(from_column - column))
        weight = weight * ((row >= 0) & (row < height) & (column >= 0) & (column < width))
        at = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        out = out + pixels[at.astype(jnp.int32)] * weight[..., None]
    return out
