"""Proves, from shapes only, that the units of a batch stay separate in a clipped sum.

If it cannot prove this, it names the operation in which two units may meet.
"""

from __future__ import annotations

import jax

from mia_jax.privacy import gradients
from mia_jax.privacy.independence import programs, walk


def meeting(losses: gradients.Losses, params, rows, units: int) -> str:
    """Returns '' if the residues of taps keep the units of a batch separate.

    Otherwise it returns the operation in which two units may meet. Only shapes are used. Keys are
    not data of a unit.

    Args:
        losses: the objective (privacy/gradients.py).
        params: the parameters as shapes.
        rows: (Batch, key_B) as shapes, with `units` times as many rows as a unit has.
        units: the number of units.
    """
    batch, key_B = rows

    def parts(params, batch, key_B, weight_B):
        return jax.tree.leaves(
            gradients.residues(losses, params, (batch, key_B), weight_B, units)[0]
        )

    return walk.separate(parts, (params, batch, key_B, batch.weight_B), (None, units, None, units))


def foreign_batching(losses: gradients.Losses, params, rows) -> str:
    """Returns the first operation that JAX's own rules do not batch, '' without one.

    vmap keeps units separate only if there is none.
    """
    return programs.opaque(
        jax.make_jaxpr(lambda params, rows: losses(params, {}, rows)[0])(params, rows)
    )


def foreign_derivative(losses: gradients.Losses, params, rows) -> str:
    """Returns the first operation with a foreign derivative, '' without one.

    Two backward passes agree only if derivatives are linear in the cotangent.
    """
    return programs.derivatives(
        jax.make_jaxpr(lambda params, rows: losses(params, {}, rows)[0])(params, rows)
    )
