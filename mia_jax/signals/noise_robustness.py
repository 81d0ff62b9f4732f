"""How often does the label survive random noise?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mia_jax import checks
from mia_jax.signals import _images
from mia_jax.types import Signal

PREFIXES = (1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 350, 500, 750, 1000, 1500, 2000, 2500, 5000, 10_000)
TOGETHER = 20  # noisy copies of an example that are asked at once


def make(*, samples: int = 300, noise: str = "gaussian", sigma: float = 0.05, flips: float = 2.0, continuous: int = 0, box: str = "unit") -> Signal:
    """[B,P]: the share of the first k noisy copies with label y, for k in PREFIXES below `samples` and k = samples; 0 if x itself is misclassified.

    noise 'gaussian': x + sigma N(0, 1), clipped to [0, 1] (box 'none': not). noise 'flip': a binary feature f becomes 1 - f with probability
    flips / features; the first `continuous` features get sigma N(0, 1) instead. Copy k of an example has noise of its own key and k, so fewer
    samples are a prefix. Labels only; 1 + k queries, 1 where x is misclassified. Large = member. ValueError for examples outside [0, 1]
    ('gaussian', box 'unit') or that are not binary ('flip'). Source: Choquette-Choo et al. 2021 (arXiv:2007.14321), section 4.
    """
    checks.at_least(1, samples=samples)
    checks.at_least(0, continuous=continuous)
    checks.one_of(("gaussian", "flip"), noise=noise)
    checks.one_of(_images.BOXES, box=box)
    checks.positive(sigma=sigma, flips=flips)
    k_P = np.array([k for k in PREFIXES if k < samples] + [samples])

    def noisy(x_F, key):
        gaussian_key, flip_key = jax.random.split(key)
        if noise == "gaussian":
            moved_F = x_F + sigma * jax.random.normal(gaussian_key, x_F.shape)
            return jnp.clip(moved_F, 0, 1) if box == "unit" else moved_F
        flipped_F = jnp.where(jax.random.bernoulli(flip_key, min(1.0, flips / x_F.size), x_F.shape), 1 - x_F, x_F)
        return jnp.where(jnp.arange(x_F.size) < continuous, x_F + sigma * jax.random.normal(gaussian_key, x_F.shape), flipped_F)

    def ask(probe, x_B, y_B, key_B):
        x_BF = x_B.reshape(len(x_B), -1)

        def some(k_K):
            one = lambda x_F, key: jax.vmap(lambda k: noisy(x_F, jax.random.fold_in(key, k)))(k_K)  # noqa: E731
            copies = jax.vmap(one)(x_BF, key_B).reshape(-1, *x_B.shape[1:])
            return (probe.label(copies) == jnp.repeat(y_B, len(k_K))).reshape(len(x_B), -1)

        right_B = probe.label(x_B) == y_B
        together = min(TOGETHER, samples)
        k_SK = jnp.arange(-(-samples // together) * together).reshape(-1, together)
        same_BK = jnp.moveaxis(lax.map(some, k_SK), 0, 1).reshape(len(x_B), -1)
        share_BP = jnp.cumsum(same_BK, 1)[:, k_P - 1] / k_P[None]
        return jnp.where(right_B[:, None], share_BP, 0.0), jnp.where(right_B[:, None], 1 + k_P[None], 1)

    def binary(x) -> None:
        part = np.asarray(x).reshape(len(x), -1)[:, continuous:]
        if not np.isin(part, (0, 1)).all():
            raise ValueError(
                f"signal 'noise_robustness' with noise=flip needs binary features after the first continuous={continuous}; one is "
                f"{part[~np.isin(part, (0, 1))][0]:.4g}. Use noise=gaussian, or say how many features are continuous."
            )

    check = binary if noise == "flip" else _images.inside("noise_robustness", box)
    return Signal(None, +1, ask, "labels", 1 + samples, check)
