"""Computes the sum of the clipped gradients of U units, by four methods with the same result.

A unit is an example, or all rows of a user. Its gradient must be scaled down to the clip norm
before the gradients are added, but an ordinary backward pass returns only the unscaled sum. The
methods:

- vmap: computes the gradient of every unit. Works with any model and is the reference. It needs
  memory for U gradients.
- scan: the same, one unit at a time.
- tapped: a first backward pass computes only the norms of the units' gradients, by taps
  (models/kernels/taps.py). A second one computes the gradient of the losses weighted by the
  clipping factors, which is the clipped sum.
- bookkeeping: one backward pass that keeps the inputs and the output cotangents of every layer. The
  norms and the weighted sum are computed from them.

The noise is added to the sum in learners/_private.py, which makes a step of DP-SGD of both.
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

# How many units are computed together where a learner leaves it to the plan of a run; 0 for all.
# The caches of jax.jit know it.
_together = jax.make_user_context(0)

# losses(params, taps, rows) -> (loss_B, aux): an objective whose loss_b depends on row b only.
# `params` is a tree in which frozen leaves are None, and `taps` is {} or {leaf path: tap}. `rows`
# is a tree with leading axis B = U * k, in which k consecutive rows are a unit; `weight_B` says
# which rows are real.
Losses = Callable[..., tuple[jax.Array, Any]]


BY_UNIT = ("norm_U", "counted_U", "real_U")  # the fields of Clipped that have a value per unit


class Clipped(NamedTuple):
    """Holds the clipped sum and what is known about the units.

    Attributes:
        total: the sum over units of the clipped gradients, float32.
        norm_U: |g| before clipping (0 for padding).
        counted_U: whether this is a real unit with a finite gradient.
        real_U: whether the unit has a row of weight > 0.
        loss_B: the losses, as the objective returned them.
        aux: the rest of what the objective returned.
    """

    total: Any
    norm_U: jax.Array
    counted_U: jax.Array
    real_U: jax.Array
    loss_B: jax.Array
    aux: Any


def together(units: int):
    """Returns a context: in what is traced in it, `planned_units` is this number."""
    return _together(units)


def planned_units() -> int:
    """Returns how many units the plan of a run computes together; 0 for all, or without a plan."""
    return _together.value


def paths(tree) -> dict[str, Any]:
    """Returns {leaf path 'a/b/c': leaf} of a tree of dicts, in the order of the tree."""
    return {
        "/".join(str(k.key) for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def nested(flat: dict[str, Any]) -> dict:
    """Returns the tree of dicts with these leaves."""
    tree: dict = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def unit_losses(loss_B, weight_B, units: int):
    """Returns loss_U, the weighted mean loss of each unit's rows (0 for a unit of padding).

    The loss of a unit with one row of weight > 0 is the loss of that row.
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
    """Returns the sum over units u of factor_u * gradient of loss_u.

    A unit whose gradient is not finite, and padding, add exactly 0.

    Args:
        losses: the objective, see Losses.
        params: the parameters; frozen leaves are None.
        rows: the rows of the batch, B = U * k of them.
        weight_B: the weights of the rows; 0 on padding.
        units: U.
        rule: the clipping rule.
        clip: the clip norm C.
        method: one of METHODS except 'auto'.
        physical_units: the number of units that are computed at a time (a divisor of U); 0 for all,
            or one for 'scan'. It saves memory and changes nothing else.
    """
    checks.one_of(METHODS[1:], method=method)
    size = physical_units or (1 if method == "scan" else units)
    if units % size:
        raise ValueError(f"physical_units={size} must divide the {units} units of a batch.")
    methods = dict(vmap=_by_vmap, scan=_by_vmap, tapped=_tapped, bookkeeping=_bookkeeping)
    compute = methods[method]
    if size == units:
        return compute(losses, params, rows, weight_B, units, rule, clip)
    parts = jax.tree.map(lambda a: a.reshape(units // size, -1, *a.shape[1:]), (rows, weight_B))

    def add(total, part):
        clipped = compute(losses, params, *part, size, rule, clip)
        return jax.tree.map(jnp.add, total, clipped.total), clipped._replace(total=None)

    zero = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
    total, clipped_parts = lax.scan(add, zero, parts)
    joined = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), clipped_parts)
    return joined._replace(total=total)


def filled(rows, weight_B, *, units: int, size: int) -> tuple[Any, jax.Array]:
    """Returns (rows, weight_B) with units of padding at the end, up to a multiple of `size` units.

    They are copies of the last row with weight 0, which add exactly 0 to a clipped sum.
    """
    many = weight_B.shape[0]
    more = -units % size * (many // units)
    if not more:
        return rows, weight_B
    index = jnp.minimum(jnp.arange(many + more, dtype=jnp.int32), many - 1)
    return jax.tree.map(lambda a: a[index], rows), jnp.pad(weight_B, (0, more))


def _judged(squares: dict, weight_B, units: int):
    """Returns (norm_U, counted_U, real_U) from {leaf: squared norm_U}."""
    norm_U, real_U = clipping.total_norm(squares), (weight_B.reshape(units, -1) > 0).any(1)
    counted_U = real_U & jnp.isfinite(norm_U)
    return jnp.where(counted_U, norm_U, 0), counted_U, real_U


def _sizes(params) -> dict[str, int]:
    """Returns {leaf path: number of parameters}."""
    return {path: leaf.size for path, leaf in paths(params).items()}


def _factors(rule, squares, counted_U, clip, params) -> dict:
    """Returns {leaf path: factor_U} of the rule, with 0 for units that do not count."""
    factors = rule.factors(squares, clip, _sizes(params))
    return {path: jnp.where(counted_U, factor_U, 0) for path, factor_U in factors.items()}


def _by_vmap(losses, params, rows, weight_B, units, rule, clip) -> Clipped:
    """Computes the clipped sum with every unit's gradient in memory; works with any model."""
    split = jax.tree.map(lambda a: a.reshape(units, -1, *a.shape[1:]), (rows, weight_B))

    def unit_loss(params, rows, weight_K):
        loss_K, aux = losses(params, {}, rows)
        return unit_losses(loss_K, weight_K, 1)[0], (loss_K, aux)

    gradient, (loss_UK, aux) = jax.vmap(jax.grad(unit_loss, has_aux=True), (None, 0, 0))(
        params, *split
    )
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
    """Computes the norms by taps in one backward pass, and the clipped sum in another.

    The second pass is the gradient of sum_u factor_u loss_u. Both passes must see the same
    gradient, so both use full float32.
    """
    with jax.default_matmul_precision("highest") if _taps.exact() else contextlib.nullcontext():
        return _two_passes(losses, params, rows, weight_B, units, rule, clip)


def _two_passes(losses, params, rows, weight_B, units, rule, clip) -> Clipped:
    """Computes the two backward passes of `_tapped` at the precision that is in effect."""
    taps = {path: _taps.Norms(jnp.zeros(units, jnp.float32)) for path in paths(params)}

    def first(taps):
        loss_B, aux = losses(params, taps, rows)
        return unit_losses(loss_B, weight_B, units).sum(), (loss_B, aux)

    norms, (loss_B, aux) = jax.grad(first, has_aux=True)(taps)
    squares = {path: tap.squares_U for path, tap in norms.items()}
    norm_U, counted_U, real_U = _judged(squares, weight_B, units)
    factors = _factors(rule, squares, counted_U, clip, params)
    # A weight of 0 is not enough, because 0 * inf is NaN: the rows must be 0 as well.
    clean = _masked(rows, jnp.repeat(counted_U, weight_B.shape[0] // units))
    weights = (
        {} if rule.flat else {path: _taps.Weights(factor_U) for path, factor_U in factors.items()}
    )
    factor_U = next(iter(factors.values())) if rule.flat else counted_U.astype(jnp.float32)

    def second(params):
        return (factor_U * unit_losses(losses(params, weights, clean)[0], weight_B, units)).sum()

    total = jax.tree.map(lambda g: g.astype(jnp.float32), jax.grad(second)(params))
    return Clipped(total, norm_U, counted_U, real_U, loss_B, aux)


def residues(losses: Losses, params, rows, weight_B, units: int) -> tuple[dict, dict, tuple]:
    """Returns everything from which a clipped sum by taps is computed.

    The sum is bounded only if row u of every residue depends on unit u only.
    privacy/independence/proof.py checks this on this very function.

    Returns:
        ({leaf path: a Residue whose leaves are [U,...]}, {leaf path: its operation}, (loss_B,
            aux)).
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

    kept, outputs = jax.grad(loss, has_aux=True)({path: empty(path) for path in flat})
    return kept, {path: calls[path][0][0] for path in flat}, outputs


def _bookkeeping(losses, params, rows, weight_B, units, rule, clip) -> Clipped:
    """Computes the clipped sum with one backward pass that keeps the residues of every layer.

    A residue holds a layer's inputs and output cotangents. Norms and the weighted sum come from
    them.
    """
    kept, ops, (loss_B, aux) = residues(losses, params, rows, weight_B, units)
    flat = paths(params)
    squares = {path: ops[path].squares(tap.parts) for path, tap in kept.items()}
    norm_U, counted_U, real_U = _judged(squares, weight_B, units)
    factors = _factors(rule, squares, counted_U, clip, params)

    def weighted(parts):
        return {path: ops[path].gradient(parts[path], factors[path], flat[path]) for path in flat}

    def cleaned(parts):
        return weighted(_masked(parts, counted_U))

    finite = everywhere(jnp.isfinite(clipping.total_norm(squares)).all())
    total = lax.cond(finite, weighted, cleaned, {path: tap.parts for path, tap in kept.items()})
    tree = jax.tree.unflatten(jax.tree.structure(params), [total[path] for path in flat])
    return Clipped(tree, norm_U, counted_U, real_U, loss_B, aux)


@custom_vmap
def everywhere(yes):
    """Returns `yes`; under vmap, whether it is true in every lane.

    A condition therefore stays one condition for a whole fleet.
    """
    return yes


@everywhere.def_vmap
def _all(size, batched, yes):
    return everywhere(yes.all()), False


def _masked(tree, keep_B):
    """Sets floating-point rows that are not kept to 0; keys and integers are unchanged."""

    def mask(a):
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        return jnp.where(keep_B.reshape(-1, *(1,) * (a.ndim - 1)), a, 0)

    return jax.tree.map(mask, tree)


def recorded(losses: Losses, params, rows) -> dict[str, list]:
    """Returns {leaf path: the tapped operations that used it in one forward pass}.

    Only shapes are computed.
    """
    recorders = {path: _taps.Recorder() for path in paths(params)}
    jax.eval_shape(lambda params, rows: losses(params, recorders, rows)[0], params, rows)
    return {path: recorder.calls for path, recorder in recorders.items()}


def untapped(losses: Losses, params, rows) -> str:
    """Returns '' if taps see every use of every parameter, else the leaf they miss and why.

    Each leaf must have exactly one tapped operation, and no other equation of the loss may read it.
    This detects a raw parameter, a layer that is called twice, tied weights and parameters inside
    lax.scan. Only shapes are computed.
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
    # taps is a dict, so its leaves are sorted by path.
    order = jax.tree.leaves(jax.tree.map(lambda _: 0, taps))
    tap_of = dict(zip(sorted(taps), variables[count : count + len(order)], strict=True))
    for path, variable in zip(flat, variables[:count], strict=True):
        users = _users(closed.jaxpr, variable)
        if len(users) == 1 and getattr(users[0], "primitive", None) is lax.convert_element_type_p:
            variable = users[0].outvars[0]  # rounded to bfloat16 at the entry of the network
            users = _users(closed.jaxpr, variable)
        alone = len(users) == 1 and not any(users[0] is v for v in closed.jaxpr.outvars)
        if not (
            alone
            and "custom_vjp" in users[0].primitive.name
            and any(v is tap_of[path] for v in users[0].invars)
        ):
            return f"{path} is also used outside its tapped operation"
    return ""


def _users(jaxpr, variable) -> list:
    """Returns the equations that read a variable, and its occurrences among the outputs."""
    return [e for e in jaxpr.eqns if any(v is variable for v in e.invars)] + [
        v for v in jaxpr.outvars if v is variable
    ]
