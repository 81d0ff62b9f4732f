"""BASE: the target's log probability against the log of the shadows' mean probability.

Source: Lassila et al. 2025 (arXiv:2505.24089).
"""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _probability, _sides
from mia_jax.types import Attack


def make(
    *, mode: str = "online", temperature: float = 2.0, a: float = 0.33, signal: str = "logits"
) -> Attack:
    """Scores log p(x | target) - log p(x), the mean over the query views.

    p(x | model) is the true label's probability at the temperature. Everything is computed in
    logarithms, so likelihoods of long sequences (thousands of nats) are compared exactly. Scores
    tie only where answers are equal. No population rows are needed. An example without OUT shadows
    takes the overall OUT mean.

    Args:
        mode: 'online': p(x) is the mean over all shadows, IN and OUT, so log p(x) = LSE_i log p_i -
            log M, as in the paper. 'offline': p(x) = ((1 + a) mean over OUT + 1 - a) / 2, the
            offline map of RMIA (Zarifzadeh et al. 2024, arXiv:2312.03262, section 3).
        temperature: of the softmax.
        a: the constant of the offline map; 1 is the plain OUT mean.
        signal: 'logits'; 'log_probability', measured at the temperature: two numbers per example
            that add up to it; 'loss', measured at the temperature (the signal tempered_loss), in
            the rounding of float32; or 'confidence' at temperature 1.

    Raises:
        ValueError: No shadow is OUT (or IN, online) on any evaluated row.
    """
    checks.one_of(("online", "offline"), mode=mode)
    checks.fraction(a=a)
    kinds = (_sides.OUT, _sides.IN) if mode == "online" else (_sides.OUT,)

    def score(evidence):
        x = np.flatnonzero(evidence.evaluated_N)
        where_MN = np.any(_sides.masks_of(evidence, x, kinds), 0)
        total_N = np.zeros(len(x))
        for view, own_N in enumerate(evidence.target["log_p"]):
            mean_N = _probability.log_mean(evidence.shadow["log_p"][:, view][:, x], where_MN)
            mean_N = np.where(np.isnan(mean_N), _probability.log_mean_over_examples(mean_N), mean_N)
            total_N += own_N[x] - (mean_N if mode == "online" else _probability.offline(mean_N, a))
        return _sides.spread_out(total_N / len(evidence.target["log_p"]), evidence.evaluated_N)

    needs = ("shadow_in", "shadow_out") if mode == "online" else ("shadow_out",)
    note = f"{mode}, temperature {temperature:g}" + (f", a {a:g}" if mode == "offline" else "")
    return _probability.attack(
        score, signal=signal, temperature=temperature, needs=needs, note=note
    )
