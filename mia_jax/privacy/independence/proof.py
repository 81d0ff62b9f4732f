"""Proves, from shapes alone, that the units of a batch stay apart in the program that makes a
clipped sum; says where it cannot.
"""

from __future__ import annotations

import jax

from mia_jax.privacy import gradients
from mia_jax.privacy.independence import programs, walk


def meeting(losses: gradients.Losses, params, rows, units: int) -> str:
    """'' if what taps hand to the clipped sum keeps the units of a batch apart, else where two
    units may meet; from shapes alone.

    `params` and `rows` are shapes, `rows` = (Batch, key_B) with `units` times as many rows as a
    unit has. Keys are no unit's data.
    """
    batch, key_B = rows

    def parts(params, batch, key_B, weight_B):
        return jax.tree.leaves(
            gradients.residues(losses, params, (batch, key_B), weight_B, units)[0]
        )

    return walk.separate(parts, (params, batch, key_B, batch.weight_B), (None, units, None, units))


def foreign_batching(losses: gradients.Losses, params, rows) -> str:
    """The first operation that is not batched by JAX's own rules, '' without one; vmap keeps units
    apart only where there is none.
    """
    return programs.opaque(
        jax.make_jaxpr(lambda params, rows: losses(params, {}, rows)[0])(params, rows)
    )


def foreign_derivative(losses: gradients.Losses, params, rows) -> str:
    """The first operation with a derivative of its own, '' without one.

    Two backward passes agree only if derivatives are linear in the cotangent.
    """
    return programs.derivatives(
        jax.make_jaxpr(lambda params, rows: losses(params, {}, rows)[0])(params, rows)
    )
