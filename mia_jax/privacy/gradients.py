"""The sum of clipped gradients of U units, four ways with one result: vmap, scan, tapped (two
backward passes), bookkeeping (one).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from mia_jax import checks
from mia_jax.models.kernels import taps as _taps
from mia_jax.privacy import clipping

METHODS = ("auto", "vmap", "scan", "tapped", "bookkeeping")

# losses(params, taps, rows) -> (loss_B, aux): an objective whose loss_b depends on row b alone.
# `params` is a tree in which frozen leaves are None;
# `taps` is {} or {leaf path: tap}; `rows` is a tree with leading axis B = U * k, k consecutive rows
# a unit, and `weight_B` says which rows are real.
Losses = Callable[..., tuple[jax.Array, Any]]


class Clipped(NamedTuple):
    """`total`: the sum over units of clipped gradients, float32; `norm_U`: |g| (0 for padding);
    `counted_U`: a real unit with a finite gradient; `real_U`: a unit with a row of weight > 0;
    `loss_B`, `aux` as the objective gave them.
    """

    total: Any
    norm_U: jax.Array
    counted_U: jax.Array
    real_U: jax.Array
    loss_B: jax.Array
    aux: Any


def paths(tree) -> dict[str, Any]:
    """{leaf path 'a/b/c': leaf} of a tree of dicts, in the tree's order."""
    return {
        "/".join(str(k.key) for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def nested(flat: dict[str, Any]) -> dict:
    """The tree of dicts with these leaves."""
    tree: dict = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def unit_losses(loss_B, weight_B, units: int):
    """loss_U: the weighted mean over a unit's rows (0 for a unit of padding); a unit of one row of
    weight > 0 has that row's loss.
    """
    weight_UK, loss_UK = weight_B.reshape(units, -1), loss_B.reshape(units, -1)
    return jnp.where(weight_UK > 0, weight_UK * loss_UK, 0).sum(1) / jnp.maximum(
        weight_UK.sum(1), 1e-12
    )


def clipped_sum(
    losses: Losses,
    params,
    rows,
    weight_B,
    *,
    units: int,
    rule: clipping.Rule,
    clip,
    method: str = "vmap",
    physical_units: int = 0,
) -> Clipped:
    """The sum over units u of factor_u * gradient of loss_u.

    `physical_units` > 0 takes that many units at a time (a divisor of U), which saves memory and
    changes nothing else. 'scan' is vmap over one unit at a time unless it says otherwise. A unit
    whose gradient is not finite, and padding, add exactly 0.
    """
    checks.one_of(METHODS[1:], method=method)
    size = physical_units or (1 if method == "scan" else units)
    if units % size:
        raise ValueError(f"physical_units={size} must divide the {units} units of a batch.")
    one = dict(vmap=_by_vmap, scan=_by_vmap, tapped=_tapped, bookkeeping=_bookkeeping)[method]
    if size == units:
        return one(losses, params, rows, weight_B, units, rule, clip)
    parts = jax.tree.map(lambda a: a.reshape(units // size, -1, *a.shape[1:]), (rows, weight_B))

    def add(total, part):
        found = one(losses, params, *part, size, rule, clip)
        return jax.tree.map(jnp.add, total, found.total), found._replace(total=None)

    zero = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    total, found = lax.scan(add, zero, parts)
    joined = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found)
    return joined._replace(total=total)


def _judged(squares: dict, weight_B, units: int):
    """(norm_U, counted_U, real_U) from {leaf: squared norm_U}."""
    norm_U, real_U = clipping.total_norm(squares), (weight_B.reshape(units, -1) > 0).any(1)
    counted_U = real_U & jnp.isfinite(norm_U)
    return jnp.where(counted_U, norm_U, 0), counted_U, real_U


def _sizes(params) -> dict[str, int]:
    return {path: leaf.size for path, leaf in paths(params).items()}


def _factors(rule, squares, counted_U, clip, params) -> dict:
    factors = rule.factors(squares, clip, _sizes(params))
    return {path: jnp.where(counted_U, factor_U, 0) for path, factor_U in factors.items()}


def _by_vmap(losses, params, rows, weight_B, units, rule, clip) -> Clipped:
    """The reference: every unit's gradient in memory; any model."""
    split = jax.tree.map(lambda a: a.reshape(units, -1, *a.shape[1:]), (rows, weight_B))

    def one(params, rows, weight_K):
        loss_K, aux = losses(params, {}, rows)
        return unit_losses(loss_K, weight_K, 1)[0], (loss_K, aux)

    gradient, (loss_UK, aux) = jax.vmap(jax.grad(one, has_aux=True), (None, 0, 0))(params, *split)
    flat = paths(gradient)
    squares = {
        path: jnp.square(g.astype(jnp.float32)).reshape(units, -1).sum(1)
        for path, g in flat.items()
    }
    norm_U, counted_U, real_U = _judged(squares, weight_B, units)
    factors = _factors(rule, squares, counted_U, clip, params)

    def total(path, g):
        g = jnp.where(counted_U.reshape(-1, *(1,) * (g.ndim - 1)), g.astype(jnp.float32), 0)
        return jnp.tensordot(factors[path], g, 1, precision=_taps.exact())

    tree = jax.tree.unflatten(
        jax.tree.structure(gradient), [total(path, g) for path, g in flat.items()]
    )
    joined = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (loss_UK, aux))
    return Clipped(tree, norm_U, counted_U, real_U, *joined)


def _tapped(losses, params, rows, weight_B, units, rule, clip) -> Clipped:
    """Norms by taps in one backward pass, then the gradient of sum_u factor_u loss_u in another, in
    full float32: both must see the same gradient.
    """
    with jax.default_matmul_precision("highest") if _taps.exact() else contextlib.nullcontext():
        return _two_passes(losses, params, rows, weight_B, units, rule, clip)


def _two_passes(losses, params, rows, weight_B, units, rule, clip) -> Clipped:
    taps = {path: _taps.Norms(jnp.zeros(units, jnp.float32)) for path in paths(params)}

    def first(taps):
        loss_B, aux = losses(params, taps, rows)
        return unit_losses(loss_B, weight_B, units).sum(), (loss_B, aux)

    found, (loss_B, aux) = jax.grad(first, has_aux=True)(taps)
    squares = {path: tap.squares_U for path, tap in found.items()}
    norm_U, counted_U, real_U = _judged(squares, weight_B, units)
    factors = _factors(rule, squares, counted_U, clip, params)
    clean = _masked(
        rows, jnp.repeat(counted_U, weight_B.shape[0] // units)
    )  # weight 0 alone leaves 0 * inf
    weights = (
        {} if rule.flat else {path: _taps.Weights(factor_U) for path, factor_U in factors.items()}
    )
    factor_U = next(iter(factors.values())) if rule.flat else counted_U.astype(jnp.float32)

    def second(params):
        return (factor_U * unit_losses(losses(params, weights, clean)[0], weight_B, units)).sum()

    total = jax.tree.map(lambda g: g.astype(jnp.float32), jax.grad(second)(params))
    return Clipped(total, norm_U, counted_U, real_U, loss_B, aux)


def residues(losses: Losses, params, rows, weight_B, units: int) -> tuple[dict, dict, tuple]:
    """({leaf path: a Residue whose leaves are [U,...]}, {leaf path: its operation}, (loss_B, aux)):
    all that a clipped sum by taps is made of.

    The sum is bounded only if row u of every residue depends on unit u alone, which
    privacy/independence/proof.py checks on this very function.
    """
    calls = recorded(losses, params, rows)
    flat = paths(params)

    def empty(path):
        op, x, w = calls[path][0]
        g = jax.eval_shape(op.apply, x, w)
        return _taps.Residue(
            jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda x, g: op.residue(x, g, units), x, g))
        )

    def loss(taps):
        loss_B, aux = losses(params, taps, rows)
        return unit_losses(loss_B, weight_B, units).sum(), (loss_B, aux)

    found, seen = jax.grad(loss, has_aux=True)({path: empty(path) for path in flat})
    return found, {path: calls[path][0][0] for path in flat}, seen


def _bookkeeping(losses, params, rows, weight_B, units, rule, clip) -> Clipped:
    """One backward pass that keeps every layer's inputs and output cotangents; norms and the
    weighted sum come from those.
    """
    found, ops, (loss_B, aux) = residues(losses, params, rows, weight_B, units)
    flat = paths(params)
    squares = {path: ops[path].squares(tap.parts) for path, tap in found.items()}
    norm_U, counted_U, real_U = _judged(squares, weight_B, units)
    factors = _factors(rule, squares, counted_U, clip, params)

    def weighted(parts):
        return {path: ops[path].gradient(parts[path], factors[path], flat[path]) for path in flat}

    def cleaned(parts):
        return weighted(_masked(parts, counted_U))

    finite = everywhere(jnp.isfinite(clipping.total_norm(squares)).all())
    total = lax.cond(finite, weighted, cleaned, {path: tap.parts for path, tap in found.items()})
    tree = jax.tree.unflatten(jax.tree.structure(params), [total[path] for path in flat])
    return Clipped(tree, norm_U, counted_U, real_U, loss_B, aux)


@custom_vmap
def everywhere(yes):
    """`yes`; under vmap whether it is so in every lane, so that a condition stays one condition for
    a whole fleet.
    """
    return yes


@everywhere.def_vmap
def _all(size, batched, yes):
    return everywhere(yes.all()), False


def _masked(tree, keep_B):
    """Floating rows that are not kept become 0; keys and whole numbers stay."""

    def one(a):
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        return jnp.where(keep_B.reshape(-1, *(1,) * (a.ndim - 1)), a, 0)

    return jax.tree.map(one, tree)


def recorded(losses: Losses, params, rows) -> dict[str, list]:
    """{leaf path: the tapped operations of one forward pass that used it}, from shapes alone."""
    recorders = {path: _taps.Recorder() for path in paths(params)}
    jax.eval_shape(lambda params, rows: losses(params, recorders, rows)[0], params, rows)
    return {path: recorder.calls for path, recorder in recorders.items()}


def untapped(losses: Losses, params, rows) -> str:
    """'' if taps see every use of every parameter, else which leaf they do not see, and why.

    From shapes alone.

    A leaf must have one tapped operation, and no equation of the loss other than that may read it:
    a raw parameter, a layer that is called twice, tied weights and parameters inside lax.scan are
    all found.
    """
    for path, calls in recorded(losses, params, rows).items():
        if len(calls) != 1:
            return (
                f"{path} "
                f"{'has no tap' if not calls else f'is used by {len(calls)} tapped operations'}"
            )
    flat, size = paths(params), jax.tree.leaves(rows)[0].shape[0]
    taps = {path: _taps.Norms(jax.ShapeDtypeStruct((size,), jnp.float32)) for path in flat}
    closed = jax.make_jaxpr(lambda params, taps, rows: losses(params, taps, rows)[0])(
        params, taps, rows
    )
    count = len(flat)
    variables = closed.jaxpr.invars[: 2 * count]
    order = jax.tree.leaves(
        jax.tree.map(lambda _: 0, taps)
    )  # taps is a dict: its leaves are sorted by path
    tap_of = dict(zip(sorted(taps), variables[count : count + len(order)], strict=True))
    for path, variable in zip(flat, variables[:count], strict=True):
        users = [e for e in closed.jaxpr.eqns if any(v is variable for v in e.invars)] + [
            v for v in closed.jaxpr.outvars if v is variable
        ]
        alone = len(users) == 1 and not any(users[0] is v for v in closed.jaxpr.outvars)
        if not (
            alone
            and "custom_vjp" in users[0].primitive.name
            and any(v is tap_of[path] for v in users[0].invars)
        ):
            return f"{path} is also used outside its tapped operation"
    return ""
