"""Noise robustness: how often the label survives random noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import checks
from mia_jax.evasion import noise as noises
from mia_jax.signals import _images
from mia_jax.types import Signal

# Numbers of copies whose share is reported.
PREFIXES = (*range(1, 6), *range(10, 51, 10), 75, 100, 150, 200, 350, 500, 750)
PREFIXES += (1000, 1500, 2000, 2500, 5000, 10_000)
TOGETHER = 20  # noisy copies of an example that are queried at once


def make(
    *,
    samples: int = 300,
    noise: str = "gaussian",
    sigma: float = 0.05,
    flips: float = 2.0,
    continuous: int = 0,
    box: str = "unit",
) -> Signal:
    """Returns the share [B,P] of the first k noisy copies that have label y. Large = member.

    The columns are k in PREFIXES below `samples`, and k = samples; 0 if x itself is misclassified.
    Copy k of an example has noise from the example's key and k, so fewer samples are a prefix.
    Labels only; 1 + k queries, 1 where x is misclassified.

    Args:
        samples: how many noisy copies.
        noise: 'gaussian': x + sigma N(0, 1), clipped to [0, 1] (box 'none': not clipped). 'flip': a
            binary feature f becomes 1 - f with probability flips / features.
        sigma: standard deviation of the Gaussian noise.
        flips: expected number of flipped features.
        continuous: with 'flip', this many first features get sigma N(0, 1) instead.
        box: 'unit' or 'none'.

    Raises:
        ValueError: Examples are outside [0, 1] ('gaussian', box 'unit') or not binary ('flip').

    Source: Choquette-Choo et al. 2021 (arXiv:2007.14321), section 4.
    """
    checks.at_least(1, samples=samples)
    checks.at_least(0, continuous=continuous)
    checks.one_of(("gaussian", "flip"), noise=noise)
    checks.one_of(_images.BOXES, box=box)
    checks.positive(sigma=sigma, flips=flips)
    k_P = np.array([k for k in PREFIXES if k < samples] + [samples])

    def noisy(key, x):
        gaussian_key, flip_key = jax.random.split(key)
        if noise == "gaussian":
            return noises.gaussian(gaussian_key, x, sigma, _images.BOXES[box])
        flipped = noises.flips(flip_key, x, min(1.0, flips / x.size))
        return jnp.where(
            jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape) < continuous,
            noises.gaussian(gaussian_key, x, sigma, None),
            flipped,
        )

    def ask(probe, x_B, y_B, key_B):
        right_B = probe.label(x_B) == y_B
        same_BK = noises.survives(
            probe.label, x_B, y_B, key_B, copies=samples, draw=noisy, chunk=TOGETHER
        )
        share_BP = jnp.cumsum(same_BK, 1)[:, k_P - 1] / k_P[None]
        return jnp.where(right_B[:, None], share_BP, 0.0), jnp.where(
            right_B[:, None], 1 + k_P[None], 1
        )

    def binary(x) -> None:
        part = np.asarray(x).reshape(len(x), -1)[:, continuous:]
        if not np.isin(part, (0, 1)).all():
            raise ValueError(
                "signal 'noise_robustness' with noise=flip needs binary features after the first "
                f"continuous={continuous}; one is "
                f"{part[~np.isin(part, (0, 1))][0]:.4g}. Use noise=gaussian, or say how many "
                "features are continuous."
            )

    check = binary if noise == "flip" else _images.inside("noise_robustness", box)
    return Signal(None, +1, ask, "labels", 1 + samples, check)
