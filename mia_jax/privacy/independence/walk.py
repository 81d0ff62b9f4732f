"""Analyzes which units of a batch each number of a traced program can depend on.

This is a data-flow analysis of the program's jaxpr, that is, of its list of primitive operations.
The program does not run. The analysis starts with the inputs: row b of the batch belongs to unit u.
It then follows the operations in order. Every element of every array carries an interval of unit
numbers that may have reached it (`values`): empty, [u, u], or wider. Each primitive has a rule that
computes the intervals of its outputs (`rules`, `algebra`, `indexing`, `control_flow`). Combining
two elements joins their intervals, so every reduction is a minimum and a maximum. If at the end row
u of every output carries [u, u] or nothing, units are proved to stay separate.

The analysis errs on one side only. It may report a dependence that does not exist (x - x, or a
product with a mask of zeros). It assumes that an operation without a rule makes every output depend
on every input. It never overlooks a dependence. Indices that are constants of the program (an
arange over the batch) are evaluated, so that `logits[jnp.arange(B), y]` is understood. Conditions,
numbers of iterations and indices count as inputs.
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

BUDGET = 2**28  # The analysis gives up after it has computed so many ends of intervals.
RULES = rules.RULES | algebra.RULES | indexing.RULES | control_flow.RULES
PREFIXES = algebra.PREFIXES | indexing.PREFIXES


def separate(function: Callable, arguments: Sequence, units: Sequence[int | None]) -> str:
    """Returns '' if no row of the outputs depends on two units.

    Otherwise it returns the place in the program where two units may meet. Every output leaf
    [U,...] must depend, in its row u, on unit u only.

    Args:
        function: the function to analyze.
        arguments: trees of arrays or shapes.
        units: for each argument the number of units into which the first axis of its leaves is cut;
            None if it holds no data of units.
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
        unit = np.arange(value.shape[0]).reshape(-1, *(1,) * (len(value.shape) - 1))
        if ((value.hi >= 0) & ((value.lo != unit) | (value.hi != unit))).any():
            return analysis.first or "an output's rows are not in the order of the batch"
    return ""


class Analysis:
    """Analyzes one program.

    Attributes:
        first: the first operation in which units met.
        left: the rest of the budget.
    """

    def __init__(self, budget: int = BUDGET):
        self.first = ""
        self.left = budget

    def closed(
        self, closed: ClosedJaxpr, values: Sequence[Value], used: Sequence[bool] | None = None
    ) -> list[Value]:
        """Returns the Values of the outputs; those that are not `used` may be anything."""
        return self.run(closed.jaxpr, closed.consts, values, used)

    def run(self, jaxpr: Jaxpr, consts, values: Sequence[Value], used=None) -> list[Value]:
        """Returns the Values of the outputs of a jaxpr with these constants."""
        used = [True] * len(jaxpr.outvars) if used is None else used
        env: dict = {}
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            env[var] = nobody(
                np.shape(const),
                unknown
                if isinstance(const, jax.core.Tracer)
                else functools.partial(array_of, const),
            )
        env |= dict(zip(jaxpr.invars, values, strict=True))
        for eqn, needed in live(jaxpr, used):
            ins = [literal(v) if isinstance(v, Literal) else env[v] for v in eqn.invars]
            outs = self.equation(eqn, ins, needed)
            env |= {var: out for var, out in zip(eqn.outvars, outs, strict=True)}
        outputs = []
        for var, is_used in zip(jaxpr.outvars, used, strict=True):
            if isinstance(var, Literal):
                outputs.append(literal(var))
            else:
                outputs.append(env[var] if is_used else nobody(var.aval.shape))
        return outputs

    def equation(self, eqn, ins: list[Value], used) -> list[Value]:
        """Returns the Values of the outputs of one equation."""
        name, shapes = eqn.primitive.name, [getattr(v.aval, "shape", ()) for v in eqn.outvars]
        if not any(v.reached for v in ins):
            return [nobody(shape, constant(eqn, ins, i)) for i, shape in enumerate(shapes)]
        self.left -= sum(v.lo.size for v in ins)
        if self.left < 0:
            raise TooLarge
        rule = rule_of(name)
        outs = None if rule is None else rule(self, eqn, ins, shapes, used)
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
    """Returns the rule of a primitive, or None if it has none."""
    return RULES.get(name) or next(
        (rule for start, rule in PREFIXES.items() if name.startswith(start)), None
    )
