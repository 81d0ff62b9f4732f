"""Fleets with a planted membership signal, for the tests of designs and attacks."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from mia_jax import registry, threat_model
from mia_jax.threat_model import FleetSignals
from mia_jax.types import Attack, Design, Probe, Shadows


def auc(score_N: np.ndarray, member_N: np.ndarray) -> float:
    """Returns the Mann-Whitney AUC: P(a member's score > a non-member's), ties count half."""
    rank_N, inside = rankdata(score_N), int(member_N.sum())
    return (rank_N[member_N].sum() - inside * (inside + 1) / 2) / (
        inside * (len(member_N) - inside)
    )


def signal_names(attack: Attack) -> list[str]:
    """Returns the signals that an attack reads."""
    return [
        n for n in attack.needs if n not in threat_model.SHADOW_NEEDS + threat_model.OTHER_NEEDS
    ]


def fleet(
    design: Design,
    *names: str,
    mu: float,
    seed: int,
    query_views: int = 1,
    spread: float = 0.5,
    classes: int = 10,
) -> FleetSignals:
    """Returns a fleet whose signals leak membership by `mu`.

    sign * signal of model m on example n ~ N(d_n + mu * member, 1) with difficulties d_n ~ N(0,
    spread^2), independent of everything. 'correct' thresholds such a value at mu / 2 without
    difficulties; 'logits' puts it on the true label; 'log_probability' is that of its sigmoid;
    'loss_trajectory' is exp(-value) at 3 epochs with a third, two thirds and all of mu.
    """
    rng = np.random.default_rng(seed)
    m, n = design.member_MN.shape
    y = rng.integers(classes, size=n).astype(np.int32)
    signal = {}
    for name in names:
        if name == "loss_trajectory":
            signal[name] = trajectory(
                design, mu=mu, rng=rng, query_views=query_views, spread=spread
            )
            continue
        sign, parts = registry.make("signals", name).sign, components(name)
        noise_MAN = rng.normal(size=(m, query_views, n)) + mu * design.member_MN[:, None]
        if (
            parts
        ):  # a vector whose components all point the same way: as many noisy looks at one value
            value = noise_MAN[..., None] + 0.3 * rng.normal(size=(*noise_MAN.shape, *parts))
            value = (
                value > mu / 2
                if name.startswith("correct")
                else (sign or 1) * (value + rng.normal(size=(n, 1)) * spread)
            )
            signal[name] = value.astype(np.float32)
        elif name == "correct":
            signal[name] = (noise_MAN > mu / 2).astype(np.float32)
        elif name.startswith("log_probability"):  # of the sigmoid of the value, in two parts
            value = -np.logaddexp(0, -(noise_MAN + rng.normal(size=n) * spread))
            first = value.astype(np.float32)
            signal[name] = np.stack([first, (value - first).astype(np.float32)], -1)
        elif sign == 0:
            signal[name] = (
                np.eye(classes)[y] * (noise_MAN + rng.normal(size=n) * spread)[..., None]
            ).astype(np.float32)
        else:
            signal[name] = (sign * (noise_MAN + rng.normal(size=n) * spread)).astype(np.float32)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return FleetSignals(design=design, signal=signal, num_classes=classes, x=x, y=y)


@functools.cache  # tracing a boundary walk takes longer than most attacks
def components(name: str) -> tuple[int, ...]:
    """Returns the shape of an asking signal's answer to one 4x4 image.

    It is () for a scalar, and for signals from one forward pass.
    """
    signal = registry.make("signals", name)
    if signal.ask is None:
        return ()
    example = (
        jnp.zeros((2, 4, 4, 1)),
        jnp.zeros(2, jnp.int32),
        jax.random.split(jax.random.key(0), 2),
    )
    probe = Probe(
        lambda x: jnp.zeros(len(x), jnp.int32),
        lambda x: x.reshape(len(x), -1)[:, :3],
        lambda x: dict(
            penultimate=x.reshape(len(x), -1), goodness=x.reshape(len(x), -1)[:, :10, None]
        ),
    )
    probe = probe._replace(
        shadows=Shadows(
            lambda x: jnp.stack([x.reshape(len(x), -1)[:, :3]] * signal.shadows),
            jnp.ones((signal.shadows, 2), bool),
        )
    )
    answer = jax.eval_shape(lambda *x_y_key: signal.ask(probe, *x_y_key), *example)
    return (answer[0] if isinstance(answer, tuple) else answer).shape[1:]


def trajectory(
    design: Design, *, mu: float, rng, query_views: int, spread: float, epochs: int = 3
) -> np.ndarray:
    """Returns losses [M,A,N,E] > 0: -log is N(d_n + mu * member * e / E, 1) at epoch e = 1..E."""
    m, n = design.member_MN.shape
    noise = rng.normal(size=(m, query_views, n, epochs)) + spread * rng.normal(size=(n, 1))
    return np.exp(
        -noise - mu * design.member_MN[:, None, :, None] * np.arange(1, epochs + 1) / epochs
    ).astype(np.float32)


def scores(fleet: FleetSignals, attack: Attack, key) -> np.ndarray:
    """Returns score_TN of the design's targets, each from its own evidence."""
    return np.stack(
        [
            attack.score(fleet.evidence_against(t, attack.needs, attack.knows), key)
            for t in fleet.design.targets
        ]
    )


def mean_auc(fleet: FleetSignals, score_TN: np.ndarray) -> float:
    """Returns the mean over targets of the AUC on the evaluated rows."""
    d = fleet.design
    return float(
        np.mean(
            [
                auc(s[e], i[e])
                for s, e, i in zip(
                    score_TN,
                    d.evaluated_MN[list(d.targets)],
                    d.member_MN[list(d.targets)],
                    strict=True,
                )
            ]
        )
    )


def permuted(fleet: FleetSignals, order_N: np.ndarray) -> FleetSignals:
    """Returns the same fleet over the pool in another order."""
    d = fleet.design
    design = dataclasses.replace(
        d,
        member_MN=d.member_MN[:, order_N],
        evaluated_MN=d.evaluated_MN[:, order_N],
        population_N=d.population_N[order_N],
    )
    signal = {k: v[:, :, order_N] for k, v in fleet.signal.items()}
    return dataclasses.replace(
        fleet, design=design, signal=signal, x=fleet.x[order_N], y=fleet.y[order_N]
    )
