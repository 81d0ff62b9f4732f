"""Tests the likelihood-ratio audit of shuffled batches, and that it shows what Poisson hides."""

import numpy as np
import pytest
from scipy import special

from mia_jax.privacy import accounting, audit_runs, audit_shuffle
from mia_jax.privacy.mechanism import Mechanism


def audited(sampling, *, runs=20_000, epochs=5, batches=20, multiplier=1.0):
    """Returns (bound on epsilon at delta 1e-5, epsilon of an accountant for Poisson sampling)."""
    common = dict(epochs=epochs, batches=batches, multiplier=multiplier, sampling=sampling)
    signal, inside = audit_shuffle.game(runs=runs, seed=0, **common)
    score = audit_shuffle.log_ratio(signal, multiplier=multiplier, sampling=sampling)
    mechanism = Mechanism(
        sampling="poisson",
        rate=1 / batches,
        clip_norm=1.0,
        noise_multiplier=multiplier,
        expected_batch=10.0,
        steps=epochs * batches,
    )
    claimed = accounting.epsilon(mechanism, delta=1e-5)
    return audit_runs.best_threshold(score, inside, delta=1e-5)[0], claimed


def test_ratios_by_hand():
    z, s = np.array([[[0.3, 1.7]]]), 0.8
    density = lambda x, mean: np.exp(-((x - mean) ** 2) / (2 * s * s))  # noqa: E731
    a, b = z[0, 0]
    both = lambda mean: (  # noqa: E731
        density(a, mean) * density(b, 0) + density(a, 0) * density(b, mean)
    )
    actual = audit_shuffle.log_ratio(z, multiplier=s)
    assert actual == pytest.approx([np.log(both(2.0) / both(1.0))])
    half = lambda x: 0.5 + 0.5 * density(x, 1) / density(x, 0)  # noqa: E731
    actual = audit_shuffle.log_ratio(z, multiplier=s, sampling="poisson")
    assert actual == pytest.approx([np.log(half(a) * half(b))])


def test_ratios_are_the_privacy_loss():
    """E exp(-loss) = 1 over runs with the unit, E exp(loss) = 1 over runs without it."""
    for sampling in audit_shuffle.SAMPLINGS:
        common = dict(epochs=2, batches=3, multiplier=1.5, sampling=sampling)
        signal, inside = audit_shuffle.game(runs=40_000, seed=3, **common)
        loss = audit_shuffle.log_ratio(signal, multiplier=1.5, sampling=sampling)
        assert np.exp(-loss[inside]).mean() == pytest.approx(1, abs=0.05)
        assert np.exp(loss[~inside]).mean() == pytest.approx(1, abs=0.05)


def test_shuffled_batches_exceed_the_epsilon_of_poisson_sampling():
    bound, claimed = audited("shuffle", runs=10_000, multiplier=0.8, batches=60, epochs=5)
    assert bound > 1.1 * claimed > 2


def test_poisson_batches_do_not():
    bound, claimed = audited("poisson", runs=10_000, multiplier=0.8)
    assert 0.3 * claimed < bound <= claimed


def test_scores_of_nothing_show_nothing():
    rng = np.random.default_rng(0)
    inside = rng.random(2000) < 0.5
    assert audit_runs.best_threshold(rng.normal(size=2000), inside, delta=1e-5)[0] == 0
    assert special.expit(0.0) == 0.5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: audit_shuffle.log_ratio(np.zeros((2, 3)), multiplier=1.0), "signal"),
        (lambda: audit_shuffle.log_ratio(np.zeros((2, 3, 4)), multiplier=0.0), "multiplier=0.0"),
        (
            lambda: audit_shuffle.game(
                runs=3, epochs=1, batches=2, multiplier=1.0, sampling="balls", seed=0
            ),
            "sampling='balls' is not one of",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
