"""BASE: the target's log probability against the log of the shadows' mean probability (Lassila et al. 2025, arXiv:2505.24089)."""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _probability, _sides
from mia_jax.types import Attack


def make(*, mode: str = "online", temperature: float = 2.0, a: float = 0.33, signal: str = "logits") -> Attack:
    """score = log p(x | target) - log p(x), mean over query views; p(x | model) is the true label's probability at the temperature.

    mode 'online': p(x) = mean over all shadows, IN and OUT, = exp(LSE_i log p_i - log M); 'offline': ((1 + a) mean over OUT + 1 - a) / 2, where
    an example without OUT shadows takes the overall OUT mean. No population rows, and no ties.
    signal 'logits' (any temperature), 'loss' or 'confidence' (temperature 1). ValueError if no shadow is OUT (IN) on any evaluated row.
    """
    checks.one_of(("online", "offline"), mode=mode)
    checks.fraction(a=a)
    kinds = (_sides.OUT, _sides.IN) if mode == "online" else (_sides.OUT,)

    def score(view):
        x = np.flatnonzero(view.evaluated_N)
        where_MN = np.any(_sides.masks_of(view, x, kinds), 0)
        total_N = np.zeros(len(x))
        for own_N, p_MN in zip(view.target["p"], view.shadow["p"].swapaxes(0, 1), strict=True):
            mean_N = _probability.mean(p_MN[:, x], where_MN)
            mean_N = np.where(np.isnan(mean_N), np.nanmean(mean_N), mean_N)
            total_N += np.log(own_N[x]) - np.log(mean_N if mode == "online" else _probability.offline(mean_N, a))
        return _sides.spread_out(total_N / len(view.target["p"]), view.evaluated_N)

    needs = ("shadow_in", "shadow_out") if mode == "online" else ("shadow_out",)
    note = f"{mode}, temperature {temperature:g}" + (f", a {a:g}" if mode == "offline" else "")
    return _probability.attack(score, signal=signal, temperature=temperature, needs=needs, note=note)
