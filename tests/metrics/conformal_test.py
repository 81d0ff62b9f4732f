"""Identification with a bounded expected share of false ones: by hand, and in simulations."""

import numpy as np
import pytest

from mia_jax.metrics import conformal

SHARE = 0.1


def test_p_values_count_ties_as_higher_non_members():
    np.testing.assert_allclose(
        conformal.p_values([9, 3, 2, 0], [1, 2, 3, 3]), np.array([1, 3, 4, 5]) / 5
    )
    with pytest.raises(ValueError, match="NaN"):
        conformal.p_values([np.nan], [1.0])


def test_the_identified_of_a_case_by_hand():
    # 19 known non-members: p = 1/20 for the first four, 1 for the last; 1/20 <= .1 * 4 / 5
    known, score = np.arange(19.0), [100, 99, 98, 97, -1]
    result = conformal.identify(score, known, share=SHARE)
    assert result.named_K.tolist() == [True] * 4 + [False] and result.fewest == 3
    # only two reach 1/20 > .1 * 2 / 5: fewer than `fewest` are never identified
    assert not conformal.identify([100, 99, 3, 2, -1], known, share=SHARE).named_K.any()
    assert conformal.identify([100, 99, 98, 2, -1], known, share=SHARE).named_K.sum() == 3
    assert conformal.identify([], known).named_K.shape == (0,)
    with pytest.raises(ValueError, match="share=10"):
        conformal.identify(score, known, share=10)


def test_the_split_halves_the_non_members_by_its_key():
    nonmember = np.random.default_rng(0).random(101) < 0.5
    calibration, candidate = conformal.split(nonmember, (3, 4))
    assert not (calibration & candidate).any()
    assert ((calibration | candidate) == nonmember).all()
    assert calibration.sum() - candidate.sum() in (0, 1)
    again, other = conformal.split(nonmember, (3, 4))[0], conformal.split(nonmember, (3, 5))[0]
    assert (again == calibration).all() and (other != calibration).any()


def shares(scores, *, simulations, members, nonmembers):
    """Returns the realized shares [S] and how many members are identified [S].

    `scores(rng, members, nonmembers)` makes the scores of both sides of a simulated target.
    """
    share_S, power_S = np.zeros((2, simulations))
    for s in range(simulations):
        rng = np.random.default_rng(s)
        inside, outside = scores(rng, members, nonmembers)
        known, other = conformal.split(np.ones(nonmembers, bool), (1, s))
        named = conformal.identify(
            np.append(inside, outside[other]), outside[known], share=SHARE
        ).named_K
        share_S[s] = named[members:].sum() / max(named.sum(), 1)
        power_S[s] = named[:members].sum()
    return share_S, power_S


def under_the_null(rng, members, nonmembers):
    return rng.normal(size=members), rng.normal(size=nonmembers)


def of_dependent_scores(rng, members, nonmembers):
    # all scores of a target share a shift and a scale, and those of a class of records a shift
    shift, scale, of_class = rng.normal(), rng.exponential(), 2 * rng.normal(size=5)
    inside, outside = (
        rng.normal(size=n) + of_class[rng.integers(5, size=n)] for n in (members, nonmembers)
    )
    return scale * (inside + 2) + shift, scale * outside + shift


def of_a_leak(rng, members, nonmembers):
    return rng.normal(size=members) + 3, np.round(rng.normal(size=nonmembers), 1)  # ties


def of_copies(rng, members, nonmembers):
    # non-members come in groups of 10 copies with one score: the strongest dependence
    return rng.normal(size=members) + 3, np.repeat(rng.normal(size=nonmembers // 10), 10)


STUDIES = {
    "null": (under_the_null, 0),
    "dependence": (of_dependent_scores, 5),
    "leak": (of_a_leak, 100),
    "copies": (of_copies, 20),
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_mean_realized_share_is_within_its_bound_in_200_simulations(name):
    held(name, simulations=200, members=200, nonmembers=800)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_mean_realized_share_is_within_its_bound_in_5000_simulations(name):
    held(name, simulations=5000, members=200, nonmembers=800)


def held(name, *, simulations, members, nonmembers):
    scores, fewest = STUDIES[name]
    share_S, power_S = shares(
        scores, simulations=simulations, members=members, nonmembers=nonmembers
    )
    other = nonmembers // 2
    # members that score like non-members are false discoveries of the null as well
    bound = SHARE * other / (members + other)
    error = share_S.std() / np.sqrt(simulations)
    assert share_S.mean() <= bound + 2.5 * max(error, bound / np.sqrt(simulations))
    assert power_S.mean() >= fewest * members / 200


def test_the_share_is_what_the_rule_promises_and_no_less():
    # without ties, and where share * (known + 1) / candidates is whole, the bound is exact
    rng, kept = np.random.default_rng(0), []
    for _ in range(1000):
        inside, other, known = rng.normal(size=5) + 3, rng.normal(size=5), rng.normal(size=99)
        named = conformal.identify(np.append(inside, other), known, share=SHARE).named_K
        kept.append(named[5:].sum() / max(named.sum(), 1))
    assert np.mean(kept) == pytest.approx(SHARE / 2, abs=3 * np.std(kept) / np.sqrt(1000))


@pytest.mark.parametrize("digits", [1, 9])
def test_counts_are_those_of_the_p_values(digits):
    rng = np.random.default_rng(0)
    for size, known, gain in ((1, 1, 0), (40, 9, 4), (300, 150, 2), (300, 20, 3)):
        member = rng.random(size) < 0.5
        score = (rng.normal(size=size) + gain * member).round(digits)
        other = rng.normal(size=known).round(digits)
        named = conformal.identify(score, other, share=0.3).named_K
        counts = conformal.counts(score, member, other, share=0.3)
        assert counts == (named.sum(), (named & ~member).sum())
    with pytest.raises(ValueError, match="NaN"):
        conformal.counts(np.array([1.0, np.nan]), np.array([True, False]), np.zeros(3))
