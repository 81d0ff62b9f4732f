"""Logit-scaled confidence: close to Gaussian over models, which is what LiRA assumes."""

from __future__ import annotations

from mia_jax.signals import _logits
from mia_jax.types import Signal


def make() -> Signal:
    """Returns log(p_y / (1 - p_y)) = z_y - logsumexp_{j != y} z_j, any real number. Large = member.

    It is exact where p_y rounds to 0 or 1.

    Source: Carlini et al. 2022 (arXiv:2112.03570), the statistic of LiRA.
    """
    return Signal(lambda out_BC, batch: _logits.log_odds(out_BC, batch.y), +1)
