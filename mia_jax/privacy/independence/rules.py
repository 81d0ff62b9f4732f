"""Contains the rules of elementwise operations, reductions and changes of shape.

A rule is a function (analysis, equation, inputs, output shapes, used) -> output Values. It says
which units may reach the outputs of a primitive, given the units that may reach its inputs. None
says that every output depends on every input. `used` says which outputs are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mia_jax.privacy.independence.values import (
    TooLarge,
    Value,
    compressed,
    each,
    hull_of_all,
    joined,
    ranked,
    reduced,
    unknown,
)

ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt
    ceil clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq eq_to
    erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow
    is_finite le le_to lgamma log log1p log2 logistic lt lt_to max min mul name ne neg nextafter
    not one_minus_square optimization_barrier or pcast polygamma polynomial population_count pow
    pvary random_clone random_fold_in random_gamma_grad random_seed real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n sharding_constraint shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan
    tanh threefry2x32 xor zeta""".split()
)
REDUCTIONS = frozenset(
    "argmax argmin reduce reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum "
    "reduce_xor".split()
)
CUMULATIVE = frozenset("cumlogsumexp cummax cummin cumprod cumsum".split())


def _elementwise(analysis, eqn, ins, shapes, used):
    """Applies to elementwise operations: joins the elements of all inputs."""
    rank = len(shapes[0])
    if eqn.primitive.name == "optimization_barrier":
        return ins
    if any(len(v.shape) not in (0, rank) for v in ins) or len(set(map(tuple, shapes))) > 1:
        return None
    return [joined([ranked(v, rank) for v in ins], shape) for shape in shapes]


def _reduction(analysis, eqn, ins, shapes, used):
    """Applies to reductions: the reduced axes are joined."""
    axes = eqn.params.get("axes", eqn.params.get("dimensions"))
    rank = max(len(v.shape) for v in ins)
    ends = [reduced(Value(*ranked(v, rank), v.shape), axes) for v in ins]
    return [each(joined(ends, shape), lambda a: a.squeeze(tuple(axes)), shape) for shape in shapes]


def _cumulative(analysis, eqn, ins, shapes, used):
    """Applies to cumulative operations: each element is joined with those before it."""
    axis, value = eqn.params["axis"], ins[0]
    if value.lo.shape[axis] == 1:
        return [value._replace(known=unknown, parts=())]
    turn = (lambda a: np.flip(a, axis)) if eqn.params["reverse"] else lambda a: a
    return [
        Value(
            turn(np.minimum.accumulate(turn(value.lo), axis)),
            turn(np.maximum.accumulate(turn(value.hi), axis)),
            value.shape,
        )
    ]


def _broadcast(analysis, eqn, ins, shapes, used):
    """Applies to broadcast_in_dim."""
    at = [int(d) for d in eqn.params["broadcast_dimensions"]]

    def place(a):
        new = [1] * len(shapes[0])
        for axis, length in zip(at, a.shape, strict=True):
            new[axis] = length
        return a.reshape(new)

    return [each(ins[0], place, shapes[0])]


def _reshape(analysis, eqn, ins, shapes, used):
    """Applies to reshapes.

    Axes are cut into the shortest groups of equal size on both sides. A group along which the
    intervals are equal keeps length 1.
    """
    if eqn.params.get("dimensions") is not None or 0 in ins[0].shape:
        return None
    old, new = ins[0].shape, shapes[0]
    full, short, i, j = [], [], 0, 0
    while i < len(old) or j < len(new):
        (a, b), (p, q) = (i, j), (1, 1)
        while True:  # The next group has at least one axis and ends when the products are equal.
            if p <= q and i < len(old):
                p, i = p * old[i], i + 1
            elif j < len(new):
                q, j = q * new[j], j + 1
            else:
                p, i = p * old[i], i + 1
            if p == q:
                break
        changes = any(n != 1 for n in ins[0].lo.shape[a:i])
        full += [(n if changes else 1) for n in old[a:i]]
        short += [(n if changes else 1) for n in new[b:j]]
    analysis.left -= math.prod(full)
    if analysis.left < 0:
        raise TooLarge
    lo, hi = (np.broadcast_to(a, full).reshape(short) for a in (ins[0].lo, ins[0].hi))
    return [compressed(lo, hi, new)]


def _transpose(analysis, eqn, ins, shapes, used):
    """Applies to transpositions."""
    return [each(ins[0], lambda a: a.transpose(eqn.params["permutation"]), shapes[0])]


def _squeeze(analysis, eqn, ins, shapes, used):
    """Applies to squeeze."""
    return [each(ins[0], lambda a: a.squeeze(tuple(eqn.params["dimensions"])), shapes[0])]


def _expand(analysis, eqn, ins, shapes, used):
    """Applies to expand_dims."""
    return [each(ins[0], lambda a: np.expand_dims(a, tuple(eqn.params["dimensions"])), shapes[0])]


def _slice(analysis, eqn, ins, shapes, used):
    """Applies to slices with static limits."""
    p = eqn.params
    strides = p["strides"] or (1,) * len(shapes[0])
    cut = [
        slice(*where) for where in zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    ]
    at = tuple(slice(None) if n == 1 else c for n, c in zip(ins[0].lo.shape, cut, strict=True))
    return [each(ins[0], lambda a: a[at], shapes[0])]


def _pad(analysis, eqn, ins, shapes, used):
    """Applies to padding, which may also cut and interleave."""
    value, (fill_lo, fill_hi) = ins[0], hull_of_all(ins[1:])
    at, size = [], []
    for n, m, length, (low, _, inner) in zip(
        value.lo.shape, value.shape, shapes[0], eqn.params["padding_config"], strict=True
    ):
        place = low + np.arange(m) * (inner + 1)
        if n == 1 or (low, length) == (0, m):
            at.append((slice(None), slice(None)))
            size.append(n)
        else:
            kept = (place >= 0) & (place < length)
            at.append((np.flatnonzero(kept), place[kept]))
            size.append(length)
    lo, hi = np.full(size, fill_lo, np.int32), np.full(size, fill_hi, np.int32)
    source, target = [], []
    for axis, ((a, b), n) in enumerate(zip(at, value.lo.shape, strict=True)):
        source.append(np.arange(n) if isinstance(a, slice) else a)
        target.append(np.arange(size[axis]) if isinstance(b, slice) else b)
    if all(len(a) for a in source):
        for out, end, join in ((lo, value.lo, np.minimum), (hi, value.hi, np.maximum)):
            out[np.ix_(*target)] = join(out[np.ix_(*target)], end[np.ix_(*source)])
    return [Value(lo, hi, tuple(shapes[0]))]


def _concatenate(analysis, eqn, ins, shapes, used):
    """Applies to concatenations."""
    axis, rank = eqn.params["dimension"], len(shapes[0])
    common = [1 if a == axis else max(v.lo.shape[a] for v in ins) for a in range(rank)]
    ends = []
    for value in ins:
        length = [value.shape[a] if a == axis else common[a] for a in range(rank)]
        ends.append((np.broadcast_to(value.lo, length), np.broadcast_to(value.hi, length)))
    lo, hi = (np.concatenate(arrays, axis) for arrays in zip(*ends, strict=True))
    return [compressed(lo, hi, shapes[0])._replace(parts=tuple(ins) if axis == rank - 1 else ())]


def _stack(analysis, eqn, ins, shapes, used):
    """Applies to stacks."""
    axis = eqn.params["axis"]
    ends = [(np.expand_dims(v.lo, axis), np.expand_dims(v.hi, axis)) for v in ins]
    common = np.broadcast_shapes(*(lo.shape for lo, _ in ends))
    lo, hi = (
        np.concatenate([np.broadcast_to(a, common) for a in arrays], axis)
        for arrays in zip(*ends, strict=True)
    )
    return [compressed(lo, hi, shapes[0])]


def _split(analysis, eqn, ins, shapes, used):
    """Applies to splits."""
    axis, edges = eqn.params["axis"], np.cumsum([0, *eqn.params["sizes"]])
    if ins[0].lo.shape[axis] == 1:
        return [each(ins[0], lambda a: a, shape) for shape in shapes]
    take = lambda i: (slice(None),) * axis + (slice(edges[i], edges[i + 1]),)  # noqa: E731
    return [each(ins[0], lambda a, i=i: a[take(i)], shape) for i, shape in enumerate(shapes)]


def _rev(analysis, eqn, ins, shapes, used):
    """Applies to reversed axes."""
    return [each(ins[0], lambda a: np.flip(a, tuple(eqn.params["dimensions"])), shapes[0])]


def _tile(analysis, eqn, ins, shapes, used):
    """Applies to tiles."""
    reps = eqn.params.get("reps")
    if reps is None or len(reps) != len(shapes[0]):
        return None
    return [
        each(
            ins[0],
            lambda a: np.tile(a, [1 if n == 1 else r for n, r in zip(a.shape, reps, strict=True)]),
            shapes[0],
        )
    ]


def _sort(analysis, eqn, ins, shapes, used):
    """Applies to sorts and top-k: the sorted axis is joined over all operands."""
    axis = eqn.params.get(
        "dimension",
        eqn.params.get(
            "operand_dimension", eqn.params.get("reduction_dimension", len(shapes[0]) - 1)
        ),
    )
    whole = joined([reduced(v, [axis % len(v.shape)]) for v in ins], ins[0].shape)
    return [Value(whole.lo, whole.hi, tuple(shape)) for shape in shapes]


def _leading(analysis, eqn, ins, shapes, used):
    """Keeps the common leading axes.

    Further axes of the input are joined, and along further axes of the output all elements are
    alike.
    """
    (value, *_), rank = ins, len(shapes[0])
    lead = min(len(value.shape), rank)
    while value.shape[:lead] != tuple(shapes[0][:lead]):
        lead -= 1
    lo, hi = (
        a.reshape(*a.shape[:lead], *(1,) * (rank - lead))
        for a in reduced(value, range(lead, len(value.shape)))
    )
    return [Value(lo, hi, tuple(shapes[0]))]


RULES: dict[str, Callable] = dict.fromkeys(ELEMENTWISE, _elementwise)
RULES |= dict.fromkeys(REDUCTIONS, _reduction) | dict.fromkeys(CUMULATIVE, _cumulative)
RULES |= {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "expand_dims": _expand,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": _split,
    "rev": _rev,
    "tile": _tile,
    "sort": _sort,
    "top_k": _sort,
    "approx_top_k": _sort,
    "bitcast_convert_type": _leading,
    "random_unwrap": _leading,
    "random_wrap": _leading,
    "random_bits": _leading,
    "random_split": _leading,
}
