"""Contains the rules of calls, conditions and loops, whose bodies are analyzed as well.

A loop is analyzed until the intervals no longer grow. See rules.py for what a rule is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mia_jax.privacy.independence.programs import ours
from mia_jax.privacy.independence.values import (
    Value,
    compressed,
    hull,
    hull_of_all,
    joined,
    unknown,
)

CALLS = dict.fromkeys(("jit", "pjit", "closed_call", "remat", "remat2", "checkpoint"), "jaxpr")
CALLS |= dict.fromkeys(
    ("core_call", "named_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"
) | dict(custom_vmap_call="call")
STEPS = 2**15  # The longest scan that is analyzed step by step.


def _call(analysis, eqn, ins, shapes, used):
    """Applies to calls: analyzes the called program."""
    name = eqn.primitive.name
    # A fleet of models runs the batching rule of custom_vmap instead of the function.
    if name == "custom_vmap_call" and not ours(eqn.params["rule"]):
        return None
    inner = eqn.params[CALLS[name]]
    return analysis.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), ins, used)


def _solve(analysis, eqn, ins, shapes, used):
    """Applies to custom_linear_solve.

    What runs is the function `solve`, with its constants and the right-hand sides.
    """
    lengths, solve = eqn.params["const_lengths"], eqn.params["jaxprs"].solve
    start = lengths.matvec + lengths.vecmat
    return analysis.closed(solve, [*ins[start : start + lengths.solve], *ins[sum(lengths) :]], used)


def _cond(analysis, eqn, ins, shapes, used):
    """Applies to conditions: joins the outputs of all branches and the choice."""
    index, *operands = ins
    outs = [analysis.closed(branch, operands, used) for branch in eqn.params["branches"]]
    choice = hull_of_all([index])
    return [
        joined([*((v.lo, v.hi) for v in values), tuple(np.int32(e) for e in choice)], s)
        for values, s in zip(zip(*outs), shapes, strict=True)
    ]


def _settled(old: Sequence[Value], new: Sequence[Value]) -> bool:
    """Returns whether the intervals did not change."""
    return all(
        np.array_equal(*np.broadcast_arrays(a.lo, b.lo))
        and np.array_equal(*np.broadcast_arrays(a.hi, b.hi))
        for a, b in zip(old, new)
    )


def _while(analysis, eqn, ins, shapes, used):
    """Applies to while loops: repeats the body until the intervals do not change."""
    p = eqn.params
    c, b = p["cond_nconsts"], p["body_nconsts"]
    of_cond, of_body, carry = (
        ins[:c],
        ins[c : c + b],
        [Value(v.lo, v.hi, v.shape) for v in ins[c + b :]],
    )
    while True:
        (goes_on,) = analysis.closed(p["cond_jaxpr"], [*of_cond, *carry])
        turn = tuple(np.int32(e) for e in hull_of_all([goes_on]))
        new = analysis.closed(p["body_jaxpr"], [*of_body, *carry])
        new = [
            joined([(v.lo, v.hi), (w.lo, w.hi), turn], v.shape)
            for v, w in zip(carry, new, strict=True)
        ]
        if _settled(carry, new):
            return carry
        carry = new


def _counts(params) -> tuple[int, int]:
    """Returns how many inputs of a scan are constants and how many are carried."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # since jax 0.12
    return len(list(consts.vals)), len(list(carry.vals))


def _scan(analysis, eqn, ins, shapes, used):
    """Applies to scans.

    All steps are analyzed at once if they are alike. They are analyzed one by one if the scanned
    axis holds different units, or if only this keeps units separate.
    """
    p = eqn.params
    num_consts, num_carry = _counts(p)
    consts, carry, xs = (
        ins[:num_consts],
        ins[num_consts:][:num_carry],
        ins[num_consts + num_carry :],
    )
    alike, first = all(v.lo.shape[0] == 1 for v in xs), analysis.first
    outs = _alike(analysis, p, consts, carry, xs) if alike else None
    if outs is not None and (not any(v.mixed for v in outs) or any(v.mixed for v in ins)):
        return outs
    if p["length"] > STEPS or (outs is not None and all(v.known is unknown for v in (*carry, *xs))):
        return outs
    analysis.first = first
    return _one_by_one(analysis, p, consts, carry, xs)


def _alike(analysis, p, consts, carry, xs):
    """Returns the outputs of a scan whose steps are alike, analyzed at once."""
    xs = [Value(v.lo[0], v.hi[0], v.shape[1:]) for v in xs]
    carry = [Value(v.lo, v.hi, v.shape) for v in carry]
    while True:
        outs = analysis.closed(p["jaxpr"], [*consts, *carry, *xs])
        new = [hull(v, w) for v, w in zip(carry, outs)]
        if _settled(carry, new):
            break
        carry = new
    ys = outs[len(carry) :]
    return [*new, *(Value(v.lo[None], v.hi[None], (p["length"], *v.shape)) for v in ys)]


def _row(value: Value, t: int) -> Value:
    """Returns value[t]."""
    at = t if value.lo.shape[0] > 1 else 0
    known = (
        unknown
        if value.known is unknown
        else lambda: None if value.known() is None else value.known()[t]
    )
    return Value(value.lo[at], value.hi[at], value.shape[1:], known)


def _one_by_one(analysis, p, consts, carry, xs):
    """Returns the outputs of a scan, analyzed step by step."""
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
        lo, hi = (
            np.stack([np.broadcast_to(a, common) for a in ends])
            for ends in zip(*((v.lo, v.hi) for v in values), strict=True)
        )
        stacked.append(compressed(lo, hi, (p["length"], *values[0].shape)))
    return [*carry, *stacked]


RULES: dict[str, Callable] = dict.fromkeys(CALLS, _call)
RULES |= {
    "custom_linear_solve": _solve,
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
