"""Temperature: logits divided by a constant, which makes probabilities less extreme."""

from __future__ import annotations

from mia_jax import checks
from mia_jax.types import Defense


def make(*, t: float = 5.0) -> Defense:
    """Returns logits / t: the probabilities are softmax(z / t), and labels stay.

    The order of the classes and all differences of logits (up to the factor t) are still there, so
    an attacker who knows t divides it out.

    Sources: Hinton, Vinyals & Dean 2015 (arXiv:1503.02531); as a defense Shokri et al. 2017
    (arXiv:1610.05820), section VIII.
    """
    checks.positive(t=t)
    return Defense(lambda out_BC: out_BC / t, True)
