"""Regressions of conditional quantiles by the pinball loss: linear, network, gradient boosting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mia_jax import checks
from mia_jax.fitting import network as networks
from mia_jax.fitting import rows

# (x_KF, s_K, ask_NF, level_T, key) -> quantiles [N,T], ascending in T
QuantileRegression = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Any], np.ndarray]
STEPS = 2000


def pinball(s_K: np.ndarray, quantile_KT: np.ndarray, level_T: np.ndarray) -> np.ndarray:
    """Returns mean_k max(t (s_k - q_kt), (t - 1) (s_k - q_kt)) [T].

    It is smallest where q is the t-quantile of s given the row.
    """
    error_KT = s_K[:, None] - quantile_KT
    return np.maximum(level_T * error_KT, (level_T - 1) * error_KT).mean(0)


def linear(
    *,
    penalty: float = 1e-3,
    learning_rate: float = 0.02,
    batch_size: int = 256,
    epochs: int | None = None,
) -> QuantileRegression:
    """Returns the regression q_t(x) = w_t . x + b_t; see `mlp`."""
    return mlp(
        hidden=(),
        penalty=penalty,
        learning_rate=learning_rate,
        batch_size=batch_size,
        epochs=epochs,
    )


def mlp(
    *,
    hidden: Sequence[int] = (64,),
    penalty: float = 1e-3,
    learning_rate: float = 0.005,
    batch_size: int = 256,
    epochs: int | None = None,
) -> QuantileRegression:
    """Returns a regression by one ReLU network with an output per level, trained with Adam.

    The loss is the sum of the pinball losses + penalty / 2 |kernels|^2. The learning rate falls to
    0 along a cosine. Outputs are sorted, so quantiles never cross.

    Args:
        hidden: widths of the hidden layers.
        penalty: of the squared kernels.
        learning_rate: at the start.
        batch_size: rows per step.
        epochs: passes over the rows; None: 2,000 steps or 10 epochs, whichever is longer.
    """
    checks.positive(learning_rate=learning_rate)
    checks.at_least(0, penalty=penalty)
    checks.at_least(1, batch_size=batch_size, epochs=1 if epochs is None else epochs)

    def regress(x_KF, s_K, ask_NF, level_T, key):
        size = min(batch_size, len(s_K))
        data = networks.sets([x_KF], [s_K.astype(np.float32)], [[np.arange(len(s_K))]], size)
        count = max(10, STEPS // networks.steps(data, size)) if epochs is None else epochs
        shape = networks.Shape(
            (x_KF.shape[1], *hidden, len(level_T)), 0.0, "pinball", size, count, decay=True
        )
        layers = networks.train(
            key, data, rate_P=[learning_rate], penalty_P=[penalty], level_T=level_T, shape=shape
        )
        return np.sort(
            networks.forward(
                [(kernel[0, 0, 0], bias[0, 0, 0]) for kernel, bias in layers], ask_NF, 0.0
            ),
            1,
        )

    return regress


def gradient_boosting(
    *,
    rounds: int = 100,
    learning_rate: float = 0.1,
    max_leaf_nodes: int = 31,
    min_samples_leaf: int = 20,
) -> QuantileRegression:
    """Returns a regression by scikit-learn's HistGradientBoostingRegressor(loss='quantile').

    One regressor is fitted per level, without early stopping; outputs are sorted.
    """
    checks.at_least(1, rounds=rounds, min_samples_leaf=min_samples_leaf)

    def regress(x_KF, s_K, ask_NF, level_T, key):
        import jax
        from sklearn.ensemble import HistGradientBoostingRegressor

        arguments = dict(
            max_iter=rounds,
            learning_rate=learning_rate,
            max_leaf_nodes=max_leaf_nodes,
            min_samples_leaf=min_samples_leaf,
        )
        arguments |= dict(
            early_stopping=False,
            random_state=int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max, np.int32)),
        )
        with rows.one_thread(x_KF.size * 256):
            models = (
                HistGradientBoostingRegressor(loss="quantile", quantile=float(t), **arguments).fit(
                    x_KF, s_K
                )
                for t in level_T
            )
            return np.sort(np.stack([model.predict(ask_NF) for model in models], 1), 1)

    return regress
