"""Which units of a batch each number of a traced program can depend on: a data-flow analysis of its jaxpr, without running it.

Every element of every array carries the interval of unit numbers that may reach it: empty, [u, u], or wider. Joining two elements is the hull of
their intervals, so every reduction is a minimum and a maximum. An axis along which the intervals are equal is stored with length 1, so that the
analysis of a batch of 256 images costs about as much as that of a batch of 256 numbers.

The analysis errs on one side only. It may see a dependence that is not there (x - x, a product with a mask of zeros), and it takes an operation that
it has no rule for as one whose every output depends on every input; it never overlooks one. Indices that are constants of the program (an arange over
the batch) are evaluated, so that `logits[jnp.arange(B), y]` is seen for what it is. Conditions, numbers of iterations and indices count as inputs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

NOBODY = 2**30  # the lower end of an empty interval; the upper one is -1
BUDGET = 2**28  # interval ends computed before the analysis gives up
KNOWN = 2**20  # elements of the largest constant that is evaluated for its indices
STEPS = 2**15  # steps of a scan that are followed one by one

ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj convert_element_type copy
    copy_p cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le le_to
    lgamma log log1p logistic lt lt_to max min mul name ne neg nextafter not or optimization_barrier pcast polygamma population_count pow pvary
    random_clone random_fold_in random_gamma_grad random_seed real reduce_precision regularized_incomplete_beta rem round rsqrt select_n
    sharding_constraint shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh threefry2x32 xor
    zeta""".split()
)
REDUCTIONS = frozenset("argmax argmin reduce reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor".split())
CUMULATIVE = frozenset("cumlogsumexp cummax cummin cumprod cumsum".split())
CALLS = dict.fromkeys(("jit", "pjit", "closed_call", "remat", "remat2", "checkpoint"), "jaxpr")
CALLS |= dict.fromkeys(("core_call", "named_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr") | dict(custom_vmap_call="call")
MATRICES = frozenset("cholesky eig eigh geqrf householder_product lu qr schur svd triangular_solve tridiagonal_solve".split())
OURS = "mia_jax."  # modules whose rules of batching and differentiation are tested to keep examples apart


class TooLarge(Exception):
    """The analysis would take too long."""


def unknown():
    """What is known of an array that is no constant."""
    return None


class Value(NamedTuple):
    """The units that may reach an array of `shape`: `lo` and `hi` have its rank, and length 1 along axes where they are equal.

    `known()` is the array itself where it is a small constant of the program, else None; `parts` are what it was concatenated from, along its
    last axis.
    """

    lo: np.ndarray
    hi: np.ndarray
    shape: tuple[int, ...]
    known: Callable[[], Any] = unknown
    parts: tuple[Value, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether any unit may reach it."""
        return bool((self.hi >= 0).any())

    @property
    def mixed(self) -> bool:
        """Whether two units may reach one of its elements."""
        return bool((self.lo < self.hi).any())


def nobody(shape, known: Callable[[], Any] = unknown) -> Value:
    """An array that no unit reaches."""
    flat = (1,) * len(shape)
    return Value(np.full(flat, NOBODY, np.int32), np.full(flat, -1, np.int32), tuple(shape), known)


def by_unit(shape, units: int) -> Value:
    """An array of `shape` whose first axis holds the rows of `units` units, equally many consecutive rows each."""
    unit = np.repeat(np.arange(units, dtype=np.int32), shape[0] // units).reshape(-1, *(1,) * (len(shape) - 1))
    return Value(unit, unit, tuple(shape))


def separate(function: Callable, arguments: Sequence, units: Sequence[int | None]) -> str:
    """'' if no row of the outputs depends on two units, else where in the program two may meet.

    `arguments` are trees of arrays or shapes; `units` says of each into how many units the first axis of its leaves is cut, None that it holds no
    unit's data. Every output leaf [U,...] must depend, in its row u, on unit u alone.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    values = [
        nobody(leaf.shape) if count is None else by_unit(leaf.shape, count)
        for tree, count in zip(arguments, units, strict=True)
        for leaf in jax.tree.leaves(tree)
    ]
    analysis = Analysis()
    try:
        outputs = analysis.closed(closed, values)
    except TooLarge:
        return "the program is too large to be followed"
    for value in outputs:
        own = np.arange(value.shape[0]).reshape(-1, *(1,) * (len(value.shape) - 1))
        if ((value.hi >= 0) & ((value.lo != own) | (value.hi != own))).any():
            return analysis.first or "an output's rows are not in the order of the batch"
    return ""


def opaque(closed: ClosedJaxpr) -> str:
    """The first operation of a program whose batched form is code of its own (a callback, a custom_vmap), '' without one: vmap promises nothing."""
    for eqn in _equations(closed):
        name = eqn.primitive.name
        if "callback" in name or "ffi" in name or (name == "custom_vmap_call" and not _ours(eqn.params["rule"])):
            return _where(eqn)
    return ""


def derivatives(closed: ClosedJaxpr) -> str:
    """The first operation of a program with a derivative of its own (custom_vjp) that is not this package's, '' without one: it may be nonlinear."""
    for eqn in _equations(closed):
        if eqn.primitive.name == "custom_vjp_call" and not _ours(eqn.params["bwd"]):
            return _where(eqn)
    return ""


def _equations(jaxpr):
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in jaxpr.eqns:
        yield eqn
        for leaf in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda a: isinstance(a, ClosedJaxpr | Jaxpr)):
            if isinstance(leaf, ClosedJaxpr | Jaxpr):
                yield from _equations(leaf)


def _ours(function) -> bool:
    """Whether a rule of batching or differentiation is defined in this package."""
    while not hasattr(function, "__code__"):
        inner = next((getattr(function, name) for name in ("rule", "f", "func") if hasattr(function, name)), None)
        if inner is None:
            return False
        function = inner
    return str(function.__module__).startswith(OURS)


def _where(eqn) -> str:
    """`primitive` (file:line) of an equation."""
    trace = eqn.source_info.traceback
    frames = [] if trace is None else [f for f in trace.frames if "/jax/" not in f.file_name and "/flax/" not in f.file_name]
    frames = [f for f in frames if "/mia_jax/privacy/" not in f.file_name and "/mia_jax/learners/" not in f.file_name]
    at = f" ({'/'.join(frames[0].file_name.split('/')[-2:])}:{frames[0].line_num})" if frames else ""
    return f"`{eqn.primitive.name}`{at}"


class Analysis:
    """One pass over a program. `first`: the first operation in which units met."""

    def __init__(self, budget: int = BUDGET):
        self.first = ""
        self.left = budget

    def closed(self, closed: ClosedJaxpr, values: Sequence[Value], wanted: Sequence[bool] | None = None) -> list[Value]:
        """The outputs' Values; those that are not `wanted` may be anything."""
        return self.run(closed.jaxpr, closed.consts, values, wanted)

    def run(self, jaxpr: Jaxpr, consts, values: Sequence[Value], wanted=None) -> list[Value]:
        wanted = [True] * len(jaxpr.outvars) if wanted is None else wanted
        env: dict = {}
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            env[var] = nobody(np.shape(const), unknown if isinstance(const, jax.core.Tracer) else functools.partial(_array, const))
        env |= dict(zip(jaxpr.invars, values, strict=True))
        for eqn, needed in _live(jaxpr, wanted):
            ins = [_literal(v) if isinstance(v, Literal) else env[v] for v in eqn.invars]
            outs = self.equation(eqn, ins, needed)
            env |= {var: out for var, out in zip(eqn.outvars, outs, strict=True)}
        found = []
        for var, want in zip(jaxpr.outvars, wanted, strict=True):
            found.append(_literal(var) if isinstance(var, Literal) else env[var] if want else nobody(var.aval.shape))
        return found

    def equation(self, eqn, ins: list[Value], wanted) -> list[Value]:
        name, shapes = eqn.primitive.name, [getattr(v.aval, "shape", ()) for v in eqn.outvars]
        if not any(v.reached for v in ins):
            return [nobody(shape, _lazy(eqn, ins, i)) for i, shape in enumerate(shapes)]
        self.left -= sum(v.lo.size for v in ins)
        if self.left < 0:
            raise TooLarge
        rule = _rule(name)
        outs = None if rule is None else rule(self, eqn, ins, shapes, wanted)
        outs = [_all(ins, shape) for shape in shapes] if outs is None else outs
        for value, shape in zip(outs, shapes, strict=True):
            fits = len(value.lo.shape) == len(shape) and all(n in (1, m) for n, m in zip(value.lo.shape, shape, strict=True))
            if not fits or value.shape != tuple(shape) or value.lo.shape != value.hi.shape:
                raise AssertionError(f"{name}: a rule of the analysis gave {value.lo.shape} for an array of shape {shape}.")
        if not self.first and any(v.mixed for v in outs) and not any(v.mixed for v in ins):
            self.first = _where(eqn)
        return outs


def _array(value):
    key = jax.dtypes.issubdtype(getattr(value, "dtype", np.dtype(int)), jax.dtypes.prng_key)
    return None if key or math.prod(np.shape(value)) > KNOWN else np.asarray(value)


def _literal(literal) -> Value:
    return nobody(np.shape(literal.val), lambda: np.asarray(literal.val))


def _lazy(eqn, ins, output: int):
    """The constant that an equation computes, evaluated when it is asked for."""
    size = math.prod(getattr(eqn.outvars[output].aval, "shape", ()))
    if size > KNOWN or eqn.effects or any(v.known is unknown for v in ins):
        return unknown

    @functools.cache
    def known():
        values = [v.known() for v in ins]
        if any(v is None for v in values):
            return None
        try:
            with jax.ensure_compile_time_eval():
                found = eqn.primitive.bind(*values, **eqn.params)
            return np.asarray(found[output] if eqn.primitive.multiple_results else found)
        except Exception:
            return None

    return known


def _live(jaxpr: Jaxpr, wanted) -> list[tuple]:
    """(equation, which of its outputs are used) of those that the wanted outputs need."""
    needed = {v for v, want in zip(jaxpr.outvars, wanted, strict=True) if want and not isinstance(v, Literal)}
    found = []
    for eqn in reversed(jaxpr.eqns):
        used = [v in needed for v in eqn.outvars]
        if any(used):
            found.append((eqn, used))
            needed |= {v for v in eqn.invars if not isinstance(v, Literal)}
    return found[::-1]


# Joins -------------------------------------------------------------------------------------------------------------------------------------


def _ranked(value: Value, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The ends of a value of this rank, or of a scalar that is broadcast to it."""
    return (value.lo, value.hi) if value.lo.ndim == rank else (value.lo.reshape((1,) * rank), value.hi.reshape((1,) * rank))


def _joined(ends, shape) -> Value:
    """The join of pairs of ends that broadcast against each other."""
    los, his = zip(*ends, strict=True)
    lo, hi = (functools.reduce(f, arrays) for f, arrays in ((np.minimum, los), (np.maximum, his)))
    return Value(lo, hi, tuple(shape))


def _total(values: Sequence[Value]) -> tuple[int, int]:
    """The hull of all elements of all values."""
    return min((int(v.lo.min()) for v in values if v.lo.size), default=NOBODY), max((int(v.hi.max()) for v in values if v.hi.size), default=-1)


def _all(ins: Sequence[Value], shape) -> Value:
    """Every element depends on every input: what is true of any operation."""
    lo, hi = _total(ins)
    return Value(np.full((1,) * len(shape), lo, np.int32), np.full((1,) * len(shape), hi, np.int32), tuple(shape))


def _reduced(value: Value, axes) -> tuple[np.ndarray, np.ndarray]:
    """The hull over these axes, which stay with length 1."""
    axes = tuple(a for a in axes if value.lo.shape[a] != 1)
    return (value.lo.min(axes, keepdims=True), value.hi.max(axes, keepdims=True)) if axes else (value.lo, value.hi)


def _compressed(lo: np.ndarray, hi: np.ndarray, shape) -> Value:
    """Length 1 along the axes on which nothing changes."""
    for axis in range(lo.ndim):
        if lo.shape[axis] > 1:
            first = (slice(None),) * axis + (slice(0, 1),)
            if (lo == lo[first]).all() and (hi == hi[first]).all():
                lo, hi = lo[first], hi[first]
    return Value(lo, hi, tuple(shape))


def _each(value: Value, f, shape) -> Value:
    """f of both ends."""
    return Value(f(value.lo), f(value.hi), tuple(shape))


# Rules: (analysis, equation, inputs, output shapes, wanted) -> outputs, or None for `all on all` ---------------------------------------------

_RULES: dict[str, Callable] = {}


def _rule(name: str):
    if name in ELEMENTWISE:
        return _elementwise
    if name in REDUCTIONS:
        return _reduction
    if name in CUMULATIVE:
        return _cumulative
    if name in CALLS:
        return _call
    if name in MATRICES:
        return _matrices
    if name.startswith("reduce_window") or name in ("select_and_scatter_add", "select_and_gather_add"):
        return _windowed
    return _scatter if name.startswith("scatter") else _RULES.get(name)


def _for(*names):
    def register(rule):
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _elementwise(analysis, eqn, ins, shapes, wanted):
    rank = len(shapes[0])
    if eqn.primitive.name == "optimization_barrier":
        return ins
    if any(len(v.shape) not in (0, rank) for v in ins) or len(set(map(tuple, shapes))) > 1:
        return None
    return [_joined([_ranked(v, rank) for v in ins], shape) for shape in shapes]


def _reduction(analysis, eqn, ins, shapes, wanted):
    axes = eqn.params.get("axes", eqn.params.get("dimensions"))
    rank = max(len(v.shape) for v in ins)
    ends = [_reduced(Value(*_ranked(v, rank), v.shape), axes) for v in ins]
    return [_each(_joined(ends, shape), lambda a: a.squeeze(tuple(axes)), shape) for shape in shapes]


def _cumulative(analysis, eqn, ins, shapes, wanted):
    axis, value = eqn.params["axis"], ins[0]
    if value.lo.shape[axis] == 1:
        return [value._replace(known=unknown, parts=())]
    turn = (lambda a: np.flip(a, axis)) if eqn.params["reverse"] else lambda a: a
    return [Value(turn(np.minimum.accumulate(turn(value.lo), axis)), turn(np.maximum.accumulate(turn(value.hi), axis)), value.shape)]


def _call(analysis, eqn, ins, shapes, wanted):
    name = eqn.primitive.name
    if name == "custom_vmap_call" and not _ours(eqn.params["rule"]):  # a fleet of models runs the rule, not the function
        return None
    inner = eqn.params[CALLS[name]]
    return analysis.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), ins, wanted)


def _matrices(analysis, eqn, ins, shapes, wanted):
    """Linear algebra of stacked matrices: leading axes stay apart."""
    lead = len(ins[0].shape) - 2
    if lead < 1 or any(len(v.shape) < lead for v in ins) or any(len(s) < lead or tuple(s[:lead]) != ins[0].shape[:lead] for s in shapes):
        return None
    ends = [_reduced(v, range(lead, len(v.shape))) for v in ins]
    one = _joined([tuple(e.reshape(e.shape[:lead]) for e in pair) for pair in ends], ins[0].shape[:lead])
    return [_each(one, lambda a, s=s: a.reshape(*a.shape, *(1,) * (len(s) - lead)), s) for s in shapes]


def _windowed(analysis, eqn, ins, shapes, wanted):
    """Axes on which the window moves by single elements stay, others are joined."""
    window, strides, pads = (eqn.params[name] for name in ("window_dimensions", "window_strides", "padding"))
    rank = len(shapes[0])
    kept = lambda a: all(v.shape[a] == shapes[0][a] for v in ins if len(v.shape) == rank)  # noqa: E731
    moved = [a for a in range(rank) if window[a] != 1 or strides[a] != 1 or tuple(pads[a]) != (0, 0) or not kept(a)]
    ends = [_reduced(Value(*_ranked(v, rank), v.shape), moved) for v in ins]
    return [_joined(ends, shape) for shape in shapes]


@_for("broadcast_in_dim")
def _broadcast(analysis, eqn, ins, shapes, wanted):
    at = [int(d) for d in eqn.params["broadcast_dimensions"]]

    def place(a):
        new = [1] * len(shapes[0])
        for axis, length in zip(at, a.shape, strict=True):
            new[axis] = length
        return a.reshape(new)

    return [_each(ins[0], place, shapes[0])]


@_for("reshape")
def _reshape(analysis, eqn, ins, shapes, wanted):
    """Axes are cut into the shortest groups of equal size on both sides; a group along which nothing changes stays short."""
    if eqn.params.get("dimensions") is not None or 0 in ins[0].shape:
        return None
    old, new = ins[0].shape, shapes[0]
    full, short, i, j = [], [], 0, 0
    while i < len(old) or j < len(new):
        (a, b), (p, q) = (i, j), (1, 1)
        while True:  # the next group: at least one axis, until both products are equal
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
    return [_compressed(lo, hi, new)]


@_for("transpose")
def _transpose(analysis, eqn, ins, shapes, wanted):
    return [_each(ins[0], lambda a: a.transpose(eqn.params["permutation"]), shapes[0])]


@_for("squeeze")
def _squeeze(analysis, eqn, ins, shapes, wanted):
    return [_each(ins[0], lambda a: a.squeeze(tuple(eqn.params["dimensions"])), shapes[0])]


@_for("expand_dims")
def _expand(analysis, eqn, ins, shapes, wanted):
    return [_each(ins[0], lambda a: np.expand_dims(a, tuple(eqn.params["dimensions"])), shapes[0])]


@_for("slice")
def _slice(analysis, eqn, ins, shapes, wanted):
    p = eqn.params
    strides = p["strides"] or (1,) * len(shapes[0])
    cut = [slice(*where) for where in zip(p["start_indices"], p["limit_indices"], strides, strict=True)]
    at = tuple(slice(None) if n == 1 else c for n, c in zip(ins[0].lo.shape, cut, strict=True))
    return [_each(ins[0], lambda a: a[at], shapes[0])]


@_for("pad")
def _pad(analysis, eqn, ins, shapes, wanted):
    value, (fill_lo, fill_hi) = ins[0], _total(ins[1:])
    at, size = [], []
    for n, m, length, (low, _, inner) in zip(value.lo.shape, value.shape, shapes[0], eqn.params["padding_config"], strict=True):
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


@_for("concatenate")
def _concatenate(analysis, eqn, ins, shapes, wanted):
    axis, rank = eqn.params["dimension"], len(shapes[0])
    common = [1 if a == axis else max(v.lo.shape[a] for v in ins) for a in range(rank)]
    ends = []
    for value in ins:
        length = [value.shape[a] if a == axis else common[a] for a in range(rank)]
        ends.append((np.broadcast_to(value.lo, length), np.broadcast_to(value.hi, length)))
    lo, hi = (np.concatenate(arrays, axis) for arrays in zip(*ends, strict=True))
    return [_compressed(lo, hi, shapes[0])._replace(parts=tuple(ins) if axis == rank - 1 else ())]


@_for("stack")
def _stack(analysis, eqn, ins, shapes, wanted):
    axis = eqn.params["axis"]
    ends = [(np.expand_dims(v.lo, axis), np.expand_dims(v.hi, axis)) for v in ins]
    common = np.broadcast_shapes(*(lo.shape for lo, _ in ends))
    lo, hi = (np.concatenate([np.broadcast_to(a, common) for a in arrays], axis) for arrays in zip(*ends, strict=True))
    return [_compressed(lo, hi, shapes[0])]


@_for("custom_linear_solve")
def _solve(analysis, eqn, ins, shapes, wanted):
    """What runs is the function `solve`, of its own constants and the right-hand sides."""
    lengths, solve = eqn.params["const_lengths"], eqn.params["jaxprs"].solve
    start = lengths.matvec + lengths.vecmat
    return analysis.closed(solve, [*ins[start : start + lengths.solve], *ins[sum(lengths) :]], wanted)


@_for("split")
def _split(analysis, eqn, ins, shapes, wanted):
    axis, edges = eqn.params["axis"], np.cumsum([0, *eqn.params["sizes"]])
    if ins[0].lo.shape[axis] == 1:
        return [_each(ins[0], lambda a: a, shape) for shape in shapes]
    take = lambda i: (slice(None),) * axis + (slice(edges[i], edges[i + 1]),)  # noqa: E731
    return [_each(ins[0], lambda a, i=i: a[take(i)], shape) for i, shape in enumerate(shapes)]


@_for("rev")
def _rev(analysis, eqn, ins, shapes, wanted):
    return [_each(ins[0], lambda a: np.flip(a, tuple(eqn.params["dimensions"])), shapes[0])]


@_for("tile")
def _tile(analysis, eqn, ins, shapes, wanted):
    reps = eqn.params.get("reps")
    if reps is None or len(reps) != len(shapes[0]):
        return None
    return [_each(ins[0], lambda a: np.tile(a, [1 if n == 1 else r for n, r in zip(a.shape, reps, strict=True)]), shapes[0])]


@_for("sort", "top_k", "approx_top_k")
def _sort(analysis, eqn, ins, shapes, wanted):
    axis = eqn.params.get("dimension", eqn.params.get("operand_dimension", eqn.params.get("reduction_dimension", len(shapes[0]) - 1)))
    one = _joined([_reduced(v, [axis % len(v.shape)]) for v in ins], ins[0].shape)
    return [Value(one.lo, one.hi, tuple(shape)) for shape in shapes]


@_for("fft")
def _fft(analysis, eqn, ins, shapes, wanted):
    rank = len(shapes[0])
    return [Value(*_reduced(ins[0], range(rank - len(eqn.params["fft_lengths"]), rank)), tuple(shapes[0]))]


@_for("bitcast_convert_type", "random_unwrap", "random_wrap", "random_bits", "random_split")
def _leading(analysis, eqn, ins, shapes, wanted):
    """The common leading axes stay; further axes of the input are joined, further ones of the output are all alike."""
    (value, *_), rank = ins, len(shapes[0])
    lead = min(len(value.shape), rank)
    while value.shape[:lead] != tuple(shapes[0][:lead]):
        lead -= 1
    lo, hi = (a.reshape(*a.shape[:lead], *(1,) * (rank - lead)) for a in _reduced(value, range(lead, len(value.shape))))
    return [Value(lo, hi, tuple(shapes[0]))]


@_for("dot_general")
def _dot(analysis, eqn, ins, shapes, wanted):
    (contract, batch), rank = eqn.params["dimension_numbers"], len(shapes[0])
    free = [[a for a in range(len(v.shape)) if a not in c and a not in b] for v, c, b in zip(ins, contract, batch, strict=True)]
    ends = []
    for side, (value, c, b) in enumerate(zip(ins, contract, batch, strict=True)):
        before = len(b) + (len(free[0]) if side else 0)
        lo, hi = (a.transpose(*b, *free[side], *c) for a in _reduced(value, c))
        shape = [*lo.shape[: len(b)], *(1,) * (before - len(b)), *lo.shape[len(b) : len(b) + len(free[side])]]
        shape += [1] * (rank - len(shape))
        ends.append((lo.reshape(shape), hi.reshape(shape)))
    return [_joined(ends, shapes[0])]


@_for("conv_general_dilated")
def _convolution(analysis, eqn, ins, shapes, wanted):
    """The batch axis stays, and groups of features; pixels are joined."""
    p = eqn.params
    if p["batch_group_count"] != 1:
        return None
    numbers, groups, rank = p["dimension_numbers"], p["feature_group_count"], len(shapes[0])
    (x_batch, x_feature, *pixels), (y_batch, y_feature, *_) = numbers.lhs_spec, numbers.out_spec
    x = Value(*_reduced(ins[0], pixels if groups > 1 else [*pixels, x_feature]), ins[0].shape)
    ends = [_ranked(_all(ins[1:], ()), rank)]
    for_axis = lambda lo: lo.transpose(x_batch, x_feature, *pixels).reshape(lo.shape[x_batch], -1)  # noqa: E731
    pair = []
    for end, join in ((x.lo, np.min), (x.hi, np.max)):
        a = for_axis(end)  # [B or 1, F or 1]
        if a.shape[1] > 1:
            a = np.repeat(join(a.reshape(len(a), groups, -1), 2), shapes[0][y_feature] // groups, 1)
        new = [1] * rank
        new[y_batch], new[y_feature] = a.shape
        pair.append((a if y_batch < y_feature else a.T).reshape(new))
    return [_joined([*ends, tuple(pair)], shapes[0])]


@_for("dynamic_slice")
def _dynamic_slice(analysis, eqn, ins, shapes, wanted):
    value, *starts = ins
    ends = [_total(starts)]
    for axis, (n, m, start) in enumerate(zip(value.shape, shapes[0], starts, strict=True)):
        if value.lo.shape[axis] == 1 or n == m:
            continue
        known = start.known()
        if known is None:
            value = Value(*_reduced(value, [axis]), value.shape)
        else:
            first = int(np.clip(known, 0, n - m))
            at = (slice(None),) * axis + (slice(first, first + m),)
            value = _each(value, lambda a, at=at: a[at], value.shape)
    return [_joined([(value.lo, value.hi), tuple(np.int32(e) for e in ends[0])], shapes[0])]


@_for("dynamic_update_slice")
def _dynamic_update(analysis, eqn, ins, shapes, wanted):
    value, update, *starts = ins
    size, at = [], []
    for axis, (n, m, start) in enumerate(zip(value.shape, update.shape, starts, strict=True)):
        known = None if n == m else start.known()
        if n == m:
            size.append(update.lo.shape[axis])
            at.append(slice(None))
        elif known is None:
            update = Value(*_reduced(update, [axis]), update.shape)
            size.append(1)
            at.append(slice(None))
        else:
            first = int(np.clip(known, 0, n - m))
            size.append(n)
            at.append(slice(first, first + m))
    lo, hi = np.full(size, NOBODY, np.int32), np.full(size, -1, np.int32)
    lo[tuple(at)], hi[tuple(at)] = update.lo, update.hi
    return [_joined([(value.lo, value.hi), (lo, hi), tuple(np.int32(e) for e in _total(starts))], shapes[0])]


def _component(indices: Value, c: int):
    """Column c of indices [..., C] where it is a constant, else None."""
    if indices.known() is not None:
        return indices.known()[..., c]
    for part in indices.parts:
        if c < part.shape[-1]:
            return None if part.known() is None else part.known()[..., c]
        c -= part.shape[-1]
    return None


def _placed(array: np.ndarray, axes, rank: int) -> np.ndarray:
    """Axis i of the array as axis axes[i] of one of that rank."""
    order = np.argsort(axes)
    new = [1] * rank
    for i, axis in enumerate(axes):
        new[axis] = array.shape[i]
    return array.transpose(order).reshape(new)


@_for("gather")
def _gather(analysis, eqn, ins, shapes, wanted):
    value, indices = ins
    d, sizes, rank = eqn.params["dimension_numbers"], eqn.params["slice_sizes"], len(shapes[0])
    batch = [a for a in range(rank) if a not in d.offset_dims]
    window = [a for a in range(len(value.shape)) if a not in d.collapsed_slice_dims and a not in d.operand_batching_dims]
    starts = {axis: _component(indices, c) for c, axis in enumerate(d.start_index_map) if value.lo.shape[axis] > 1}
    value = Value(*_reduced(value, [axis for axis, start in starts.items() if start is None]), value.shape)
    at = []
    for axis, n in enumerate(value.lo.shape):
        place = np.zeros((1,) * rank, int)
        if n > 1:
            if axis in d.operand_batching_dims:
                out = batch[d.start_indices_batching_dims[d.operand_batching_dims.index(axis)]]
                place = _placed(np.arange(n), [out], rank)
            elif starts.get(axis) is not None:
                place = _placed(np.clip(starts[axis], 0, value.shape[axis] - sizes[axis]).astype(int), batch, rank)
            if axis in window:
                place = place + _placed(np.arange(sizes[axis]), [d.offset_dims[window.index(axis)]], rank)
        at.append(place)
    ends = [tuple(end[tuple(at)].reshape(np.broadcast_shapes((1,) * rank, *(a.shape for a in at))) for end in (value.lo, value.hi))]
    one = _reduced(indices, [len(indices.shape) - 1])
    ends.append(tuple(_placed(end.squeeze(-1), batch, rank) for end in one))
    return [_compressed(*_joined(ends, shapes[0])[:2], shapes[0])]


def _scatter(analysis, eqn, ins, shapes, wanted):
    if len(ins) != 3:
        return None
    value, indices, updates = ins
    d, rank = eqn.params["dimension_numbers"], len(ins[2].shape)
    batch = [a for a in range(rank) if a not in d.update_window_dims]
    window = [a for a in range(len(value.shape)) if a not in d.inserted_window_dims and a not in d.operand_batching_dims]
    ends = [_placed(end.squeeze(-1), batch, rank) for end in _reduced(indices, [len(indices.shape) - 1])]
    updates = _joined([(updates.lo, updates.hi), tuple(ends)], updates.shape)
    at, size = [], []
    for axis, n in enumerate(value.shape):
        place, length = np.zeros((1,) * rank, int), 1
        if axis in d.operand_batching_dims:
            out = batch[d.scatter_indices_batching_dims[d.operand_batching_dims.index(axis)]]
            if updates.lo.shape[out] > 1:
                place, length = _placed(np.arange(n), [out], rank), n
        elif axis in d.scatter_dims_to_operand_dims:
            start = _component(indices, d.scatter_dims_to_operand_dims.index(axis))
            out = d.update_window_dims[window.index(axis)] if axis in window else None
            width = 1 if out is None else updates.shape[out]
            if start is not None and (start >= 0).all() and (start <= n - width).all():  # else the mode decides where it lands
                place, length = _placed(np.asarray(start, int), batch, rank), n
                if out is not None:
                    place = place + _placed(np.arange(width), [out], rank)
        elif axis in window:
            out = d.update_window_dims[window.index(axis)]
            if updates.lo.shape[out] > 1:
                place, length = _placed(np.arange(updates.shape[out]), [out], rank), n
        at.append(place)
        size.append(length)
    lo, hi = np.full(size, NOBODY, np.int32), np.full(size, -1, np.int32)
    common = np.broadcast_shapes(updates.lo.shape, *(a.shape for a in at))
    analysis.left -= math.prod(common)
    if analysis.left < 0:
        raise TooLarge
    where = tuple(np.broadcast_to(a, common) for a in at)
    if where:
        np.minimum.at(lo, where, np.broadcast_to(updates.lo, common))
        np.maximum.at(hi, where, np.broadcast_to(updates.hi, common))
    else:
        lo, hi = np.asarray(updates.lo.min()), np.asarray(updates.hi.max())
    return [_joined([(value.lo, value.hi), (lo, hi)], shapes[0])]


@_for("cond")
def _cond(analysis, eqn, ins, shapes, wanted):
    index, *operands = ins
    outs = [analysis.closed(branch, operands, wanted) for branch in eqn.params["branches"]]
    choice = _total([index])
    return [_joined([*((v.lo, v.hi) for v in values), tuple(np.int32(e) for e in choice)], s) for values, s in zip(zip(*outs), shapes, strict=True)]


def _hull(a: Value, b: Value) -> Value:
    return _joined([(a.lo, a.hi), (b.lo, b.hi)], a.shape)


def _settled(old: Sequence[Value], new: Sequence[Value]) -> bool:
    return all(np.array_equal(*np.broadcast_arrays(a.lo, b.lo)) and np.array_equal(*np.broadcast_arrays(a.hi, b.hi)) for a, b in zip(old, new))


@_for("while")
def _while(analysis, eqn, ins, shapes, wanted):
    p = eqn.params
    c, b = p["cond_nconsts"], p["body_nconsts"]
    of_cond, of_body, carry = ins[:c], ins[c : c + b], [Value(v.lo, v.hi, v.shape) for v in ins[c + b :]]
    while True:
        (goes_on,) = analysis.closed(p["cond_jaxpr"], [*of_cond, *carry])
        turn = tuple(np.int32(e) for e in _total([goes_on]))
        new = analysis.closed(p["body_jaxpr"], [*of_body, *carry])
        new = [_joined([(v.lo, v.hi), (w.lo, w.hi), turn], v.shape) for v, w in zip(carry, new, strict=True)]
        if _settled(carry, new):
            return carry
        carry = new


@_for("scan")
def _scan(analysis, eqn, ins, shapes, wanted):
    """All steps at once where they are alike; one by one where the scanned axis holds different units, or where that alone keeps units apart."""
    p = eqn.params
    consts, carry, xs = ins[: p["num_consts"]], ins[p["num_consts"] :][: p["num_carry"]], ins[p["num_consts"] + p["num_carry"] :]
    alike, first = all(v.lo.shape[0] == 1 for v in xs), analysis.first
    found = _alike(analysis, p, consts, carry, xs) if alike else None
    if found is not None and (not any(v.mixed for v in found) or any(v.mixed for v in ins)):
        return found
    if p["length"] > STEPS or (found is not None and all(v.known is unknown for v in (*carry, *xs))):
        return found
    analysis.first = first
    return _one_by_one(analysis, p, consts, carry, xs)


def _alike(analysis, p, consts, carry, xs):
    xs = [Value(v.lo[0], v.hi[0], v.shape[1:]) for v in xs]
    carry = [Value(v.lo, v.hi, v.shape) for v in carry]
    while True:
        outs = analysis.closed(p["jaxpr"], [*consts, *carry, *xs])
        new = [_hull(v, w) for v, w in zip(carry, outs)]
        if _settled(carry, new):
            break
        carry = new
    ys = outs[len(carry) :]
    return [*new, *(Value(v.lo[None], v.hi[None], (p["length"], *v.shape)) for v in ys)]


def _row(value: Value, t: int) -> Value:
    """value[t]."""
    at = t if value.lo.shape[0] > 1 else 0
    known = unknown if value.known is unknown else lambda: None if value.known() is None else value.known()[t]
    return Value(value.lo[at], value.hi[at], value.shape[1:], known)


def _one_by_one(analysis, p, consts, carry, xs):
    ys: list = []
    for t in range(p["length"]):
        t = p["length"] - 1 - t if p["reverse"] else t
        step = [_row(v, t) for v in xs]
        outs = analysis.closed(p["jaxpr"], [*consts, *carry, *step])
        carry = outs[: len(carry)]
        ys.append(outs[len(carry) :])
    stacked = []
    for values in zip(*(ys[::-1] if p["reverse"] else ys)):
        common = np.broadcast_shapes(*(v.lo.shape for v in values))
        lo, hi = (np.stack([np.broadcast_to(a, common) for a in ends]) for ends in zip(*((v.lo, v.hi) for v in values), strict=True))
        stacked.append(_compressed(lo, hi, (p["length"], *values[0].shape)))
    return [*carry, *stacked]
