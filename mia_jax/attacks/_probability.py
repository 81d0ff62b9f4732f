"""p_y at a temperature, from whatever signal carries it, for the attacks that divide probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mia_jax import checks
from mia_jax.types import Attack
from mia_jax.views import Fleet, View

SIGNALS = ("logits", "loss", "confidence")
RANGE = 340.0  # |log p| beyond which values are clipped, so that quotients of two probabilities stay finite
SIZE = 2**22  # numbers at a time: bounds the float64 copies of logits


def attack(score: Callable, *, signal: str, temperature: float, needs: Sequence[str], note: str, diagnose: Callable | None = None) -> Attack:
    """The Attack of score(view) -> score_N, whose view holds the one signal 'p', p_y at the temperature [..,N]; `needs` without signals and y.

    Probabilities are computed once for all targets. diagnose(view) sees the same views.
    """
    asked = _needs(signal, temperature)
    of = dict(signal=signal, temperature=temperature)

    def as_p(view: View) -> View:
        target, shadow = ({"p": _probabilities(v[signal], view.y, **of)} if signal in v else {} for v in (view.target, view.shadow))
        return dataclasses.replace(view, target=target, shadow=shadow)

    def of_view(view, key):
        del key
        return score(as_p(view))

    def of_fleet(fleet, key):
        del key
        of_p: Fleet = dataclasses.replace(fleet, signal={"p": _probabilities(fleet.signal[signal], fleet.y, **of)})
        return np.stack([score(of_p.view(t, ("p", *needs))) for t in fleet.design.targets])

    told = None if diagnose is None else lambda view: diagnose(as_p(view))
    return Attack(of_view, (*asked, *needs), knows="shadows", score_all=of_fleet, note=note, diagnose=told)


def _needs(signal: str, temperature: float) -> tuple[str, ...]:
    """What an attack must ask for; ValueError for a temperature that the signal cannot give."""
    checks.one_of(SIGNALS, signal=signal)
    checks.positive(temperature=temperature)
    if signal != "logits" and temperature != 1:
        raise ValueError(f"temperature={temperature} needs signal='logits'; {signal!r} is measured at temperature 1.")
    return ("logits", "y") if signal == "logits" else (signal,)


def _probabilities(value: np.ndarray, y_N: np.ndarray | None, *, signal: str, temperature: float) -> np.ndarray:
    """p_y [..,N] in float64 and (1e-148, 1e148): softmax(z / temperature)_y of logits [..,N,C], exp(-loss) or the confidence itself.

    ValueError unless logits have a class axis, and the others have none. NaN (a hidden row) stays NaN.
    """
    axes = {3: "A,N", 4: "M,A,N"}.get(value.ndim + (signal != "logits"))
    if axes is None:
        wanted = "[..,A,N,C]" if signal == "logits" else "[..,A,N]"
        raise ValueError(f"signal {signal!r} has shape {value.shape}; this attack needs {wanted}.")
    if signal == "loss":
        return np.exp(np.clip(-value.astype(np.float64), -RANGE, RANGE))
    if signal == "confidence":
        return np.clip(value.astype(np.float64), np.exp(-RANGE), np.exp(RANGE))
    p = np.empty(value.shape[:-1])
    size = max(1, SIZE // max(1, value[..., 0, :].size))
    for start in range(0, value.shape[-2], size):
        rows = slice(start, start + size)
        p[..., rows] = np.exp(np.maximum(log_softmax_at(value[..., rows, :], y_N[rows], temperature), -RANGE))
    return p


def log_softmax_at(z: np.ndarray, y_N: np.ndarray, temperature: float) -> np.ndarray:
    """log softmax(z / temperature)_y [..,N] in float64, as -log(1 + sum_{j != y} exp((z_j - z_y) / temperature)): exact near 0 and far below."""
    label_NC = np.arange(z.shape[-1]) == np.asarray(y_N)[:, None]
    own = np.sum(np.where(label_NC, z, 0), -1, keepdims=True, dtype=np.float64)
    gap = np.where(label_NC, -np.inf, (z - own) / temperature)
    top = np.maximum(gap.max(-1), 0)
    rest = np.exp(gap - top[..., None]).sum(-1)
    return -(top + np.where(top > 0, np.log(np.exp(-top) + rest), np.log1p(rest)))


def mean(p_MN: np.ndarray, where_MN: np.ndarray) -> np.ndarray:
    """Mean over M where `where_MN`, NaN where that is nowhere."""
    count_N = where_MN.sum(0)
    return np.where(count_N > 0, np.where(where_MN, p_MN, 0).sum(0) / np.maximum(count_N, 1), np.nan)


def offline(out_N: np.ndarray, a: float) -> np.ndarray:
    """p from OUT models alone: ((1 + a) out + 1 - a) / 2."""
    return ((1 + a) * out_N + 1 - a) / 2
