"""Which units of a batch each number of a traced program can depend on: a data-flow analysis of its
jaxpr, without running it.

Every element of every array carries the interval of unit numbers that may reach it (`values`):
empty, [u, u], or wider. Joining two elements is the hull of their intervals, so every reduction is
a minimum and a maximum. Each primitive has a rule in `rules`, `algebra`, `indexing` or
`control_flow`.

The analysis errs on one side only. It may see a dependence that is not there (x - x, a product with
a mask of zeros), and it takes an operation that it has no rule for as one whose every output
depends on every input; it never overlooks one. Indices that are constants of the program (an arange
over the batch) are evaluated, so that `logits[jnp.arange(B), y]` is seen for what it is.
Conditions, numbers of iterations and indices count as inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from mia_jax.privacy.independence import algebra, control_flow, indexing, rules
from mia_jax.privacy.independence.programs import array_of, constant, literal, live, where
from mia_jax.privacy.independence.values import (
    TooLarge,
    Value,
    all_on_all,
    by_unit,
    nobody,
    unknown,
)

BUDGET = 2**28  # interval ends computed before the analysis gives up
RULES = rules.RULES | algebra.RULES | indexing.RULES | control_flow.RULES
PREFIXES = algebra.PREFIXES | indexing.PREFIXES


def separate(function: Callable, arguments: Sequence, units: Sequence[int | None]) -> str:
    """'' if no row of the outputs depends on two units, else where in the program two may meet.

    `arguments` are trees of arrays or shapes; `units` says of each into how many units the first
    axis of its leaves is cut, None that it holds no unit's data. Every output leaf [U,...] must
    depend, in its row u, on unit u alone.
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


class Analysis:
    """One pass over a program. `first`: the first operation in which units met."""

    def __init__(self, budget: int = BUDGET):
        self.first = ""
        self.left = budget

    def closed(
        self, closed: ClosedJaxpr, values: Sequence[Value], wanted: Sequence[bool] | None = None
    ) -> list[Value]:
        """The outputs' Values; those that are not `wanted` may be anything."""
        return self.run(closed.jaxpr, closed.consts, values, wanted)

    def run(self, jaxpr: Jaxpr, consts, values: Sequence[Value], wanted=None) -> list[Value]:
        wanted = [True] * len(jaxpr.outvars) if wanted is None else wanted
        env: dict = {}
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            env[var] = nobody(
                np.shape(const),
                unknown
                if isinstance(const, jax.core.Tracer)
                else functools.partial(array_of, const),
            )
        env |= dict(zip(jaxpr.invars, values, strict=True))
        for eqn, needed in live(jaxpr, wanted):
            ins = [literal(v) if isinstance(v, Literal) else env[v] for v in eqn.invars]
            outs = self.equation(eqn, ins, needed)
            env |= {var: out for var, out in zip(eqn.outvars, outs, strict=True)}
        found = []
        for var, want in zip(jaxpr.outvars, wanted, strict=True):
            found.append(
                literal(var)
                if isinstance(var, Literal)
                else env[var]
                if want
                else nobody(var.aval.shape)
            )
        return found

    def equation(self, eqn, ins: list[Value], wanted) -> list[Value]:
        name, shapes = eqn.primitive.name, [getattr(v.aval, "shape", ()) for v in eqn.outvars]
        if not any(v.reached for v in ins):
            return [nobody(shape, constant(eqn, ins, i)) for i, shape in enumerate(shapes)]
        self.left -= sum(v.lo.size for v in ins)
        if self.left < 0:
            raise TooLarge
        rule = rule_of(name)
        outs = None if rule is None else rule(self, eqn, ins, shapes, wanted)
        outs = [all_on_all(ins, shape) for shape in shapes] if outs is None else outs
        for value, shape in zip(outs, shapes, strict=True):
            fits = len(value.lo.shape) == len(shape) and all(
                n in (1, m) for n, m in zip(value.lo.shape, shape, strict=True)
            )
            if not fits or value.shape != tuple(shape) or value.lo.shape != value.hi.shape:
                raise AssertionError(
                    f"{name}: a rule of the analysis gave {value.lo.shape} for an array of shape "
                    f"{shape}."
                )
        if not self.first and any(v.mixed for v in outs) and not any(v.mixed for v in ins):
            self.first = where(eqn)
        return outs


def rule_of(name: str) -> Callable | None:
    """Returns the rule of a primitive, None without one."""
    return RULES.get(name) or next(
        (rule for start, rule in PREFIXES.items() if name.startswith(start)), None
    )
