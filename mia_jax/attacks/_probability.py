"""log p_y at a temperature, from the signal that holds it, for attacks that compare probabilities.

Everything stays a logarithm: a sequence of tokens easily has a likelihood of exp(-2500), which is
0 in float64, and quotients of such likelihoods are differences of their logarithms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from mia_jax import checks
from mia_jax.threat_model import Evidence, FleetSignals, Stack
from mia_jax.types import Attack

SIGNALS = ("log_probability", "logits", "loss", "confidence")
VECTORS = SIGNALS[:2]  # of several numbers per example
TINY = np.nextafter(0.0, 1.0)  # stands for a confidence of 0
WHOLE = 2**30  # bytes of log_p; what has more is computed whenever it is read
SIZE = 2**22  # numbers at a time: bounds the float64 copies of logits


def attack(
    score: Callable,
    *,
    signal: str,
    temperature: float,
    needs: Sequence[str],
    note: str,
    diagnose: Callable | None = None,
    claimed: Mapping[str, str] = {},
) -> Attack:
    """Makes the attack of score(evidence) -> score_N on log probabilities.

    The evidence has one signal, 'log_p', log p_y [..,N] at the temperature. It is computed once for
    all targets.

    Args:
        score: score(evidence) -> score_N.
        signal: one of SIGNALS, from which log p_y is computed.
        temperature: of the softmax; 1 if the signal is 'confidence'.
        needs: the attack's needs without signals and y.
        note: the attack's note.
        diagnose: diagnose(evidence) of the same evidence.
        claimed: see Attack.claimed.
    """
    asked = _needs(signal, temperature)
    of = dict(signal=signal, temperature=temperature)
    read = asked[0]

    def as_log_p(evidence: Evidence) -> Evidence:
        target, shadow = (
            {"log_p": _log_probabilities(v[read], evidence.y, **of)} if read in v else {}
            for v in (evidence.target, evidence.shadow)
        )
        return dataclasses.replace(evidence, target=target, shadow=shadow)

    def score_evidence(evidence, key):
        del key
        return score(as_log_p(evidence))

    def score_all(fleet, key):
        del key
        measured: FleetSignals = dataclasses.replace(
            fleet, signal={"log_p": _log_probabilities(fleet.signal[read], fleet.y, **of)}
        )
        return np.stack(
            [score(measured.evidence_against(t, ("log_p", *needs))) for t in fleet.design.targets]
        )

    diagnose_log_p = None if diagnose is None else lambda evidence: diagnose(as_log_p(evidence))
    return Attack(
        score_evidence,
        (*asked, *needs),
        knows="shadows",
        score_all=score_all,
        note=note,
        diagnose=diagnose_log_p,
        claimed=claimed,
    )


def _needs(signal: str, temperature: float) -> tuple[str, ...]:
    """Returns the signals and labels that an attack must ask for.

    What is measured at the temperature has it in its name; the loss is the signal tempered_loss.

    Raises:
        ValueError: The signal cannot give the temperature.
    """
    checks.one_of(SIGNALS, signal=signal)
    checks.positive(temperature=temperature)
    short = f"{temperature:g}"
    at = short if float(short) == temperature else repr(float(temperature))
    if signal == "logits":
        return "logits", "y"
    if signal == "log_probability":
        return (f"log_probability:temperature={at}",)
    if temperature == 1:
        return (signal,)
    if signal != "loss":
        raise ValueError(
            f"temperature={temperature} needs signal='log_probability', 'logits' or 'loss'; "
            f"{signal!r} is measured at temperature 1."
        )
    return (f"tempered_loss:temperature={at}",)


def _log_probabilities(
    value: np.ndarray | Stack, y_N: np.ndarray | None, *, signal: str, temperature: float
) -> np.ndarray | Stack:
    """Returns log p_y [..,N] in float64; NaN (a hidden row) stays NaN. A large Stack stays one.

    That is the sum of both parts of a log_probability [..,N,2], log softmax(z / temperature)_y of
    logits [..,N,C], -loss, or the log of the confidence.

    Raises:
        ValueError: Logits have no class axis, or another signal has one.
    """
    vector = signal in VECTORS
    axes = {3: "A,N", 4: "M,A,N"}.get(value.ndim + (not vector))
    if axes is None or (signal == "log_probability" and value.shape[-1] != 2):
        expected = dict(logits="[..,A,N,C]", log_probability="[..,A,N,2]").get(signal, "[..,A,N]")
        raise ValueError(
            f"signal {signal!r} has shape {value.shape}; this attack needs {expected}."
        )
    shape = value.shape[:-1] if vector else value.shape

    def of(value, rows) -> np.ndarray:
        if signal == "log_probability":
            return value.sum(-1, dtype=np.float64)
        if signal == "loss":
            return -value.astype(np.float64)
        if signal == "confidence":
            return np.log(np.maximum(value.astype(np.float64), TINY))
        return log_softmax_at(value, y_N[rows], temperature)

    if isinstance(value, Stack) and 8 * math.prod(shape) > WHOLE:
        return value.changed(of, shape=shape, dtype=np.float64)
    log_p = np.empty(shape)
    each = max(1, math.prod(value.shape) // max(1, shape[-1]))
    size = max(1, SIZE // each)
    for start in range(0, shape[-1], size):
        rows = slice(start, start + size)
        inside = (..., rows, slice(None)) if vector else (..., rows)
        log_p[..., rows] = of(value[inside], rows)
    return log_p


def log_softmax_at(z: np.ndarray, y_N: np.ndarray, temperature: float) -> np.ndarray:
    """Returns log softmax(z / temperature)_y [..,N] in float64.

    It is computed as -log(1 + sum_{j != y} exp((z_j - z_y) / temperature)): exact near 0 and far
    below.
    """
    label_NC = np.arange(z.shape[-1]) == np.asarray(y_N)[:, None]
    label_z = np.sum(np.where(label_NC, z, 0), -1, keepdims=True, dtype=np.float64)
    gap = np.where(label_NC, -np.inf, (z - label_z) / temperature)
    top = np.maximum(gap.max(-1), 0)
    rest = np.exp(gap - top[..., None]).sum(-1)
    return -(top + np.where(top > 0, np.log(np.exp(-top) + rest), np.log1p(rest)))


def log_mean(value_MN: Iterable[np.ndarray], where_MN: np.ndarray) -> np.ndarray:
    """Returns log mean_m exp(value) over the models m where `where_MN`.

    It is NaN where there is no such m. Values are read one row [N] after another.

    Sums are relative to the largest value so far: exp(value) may lie outside float64, and the mean
    of equal values is that value exactly, whatever their number.

    >>> log_mean(np.array([[-2500.0], [-2500.0]]), np.ones((2, 1), bool)).tolist()
    [-2500.0]
    """
    top_N, sum_N = np.full(where_MN.shape[1], -np.inf), np.zeros(where_MN.shape[1])
    for value_N, where_N in zip(value_MN, where_MN, strict=True):
        value_N = np.where(where_N, value_N, -np.inf)
        new_N = np.maximum(top_N, value_N)
        base_N = np.where(np.isneginf(new_N), 0, new_N)
        sum_N = sum_N * np.exp(top_N - base_N) + np.exp(value_N - base_N)
        top_N = new_N
    count_N = where_MN.sum(0)
    return np.where(
        count_N > 0,
        top_N + np.log(np.where(count_N > 0, sum_N / np.maximum(count_N, 1), 1)),
        np.nan,
    )


def log_mean_over_examples(log_p_N: np.ndarray) -> float:
    """Returns the log of the mean probability over the examples that have one (not NaN)."""
    known_K = log_p_N[~np.isnan(log_p_N)]
    return float(log_mean(known_K[:, None], np.ones((len(known_K), 1), bool))[0])


def offline(log_out_N: np.ndarray, a: float) -> np.ndarray:
    """Returns log p estimated from OUT models only: p = ((1 + a) out + 1 - a) / 2.

    It takes a out + 1 - a for the unknown IN mean.
    """
    if a == 1:
        return log_out_N
    return np.logaddexp(np.log((1 + a) / 2) + log_out_N, np.log((1 - a) / 2))
