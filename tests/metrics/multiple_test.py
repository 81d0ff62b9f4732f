"""The verdict over correlated attacks: p-values that belong to the printed intervals, its level and
its power.
"""

import numpy as np
import pytest

from mia_jax.measures import verdict
from mia_jax.metrics import bootstrap, summary
from mia_jax.metrics import rows as result_rows

FPRS = (0.01, 0.1)


def fleets_rows(
    rng, *, attacks, units, records, gain=0.0, shared=0.7, knows="shadows", seed=0, draws=100
):
    """Returns the rows of `attacks` correlated attacks.

    The first attack has a gain of `gain` standard deviations, the others are random.
    """
    member = np.zeros((2 * units, records), bool)
    for u in range(units):
        member[2 * u, rng.permutation(records)[: records // 2]] = True
        member[2 * u + 1] = ~member[2 * u]
    member = member[: 2 * units if units > 1 else 1]
    common = rng.normal(size=records) + rng.normal(size=member.shape)
    scores = [
        np.sqrt(shared) * common
        + np.sqrt(1 - shared) * rng.normal(size=member.shape)
        + gain * (i == 0) * member
        for i in range(attacks)
    ]
    unit = np.arange(len(member)) // 2
    drawn = bootstrap.make(records, unit, draws=draws, seed=seed)
    named = {f"a{i}": dict(score_TN=score, knows=knows) for i, score in enumerate(scores)}
    return summary.rows(
        named, member, np.ones_like(member), unit_T=unit, draws=drawn, fprs=FPRS, detail=1
    )


@pytest.mark.parametrize(
    "units, records, gain",
    [(6, 300, 0.3), (6, 300, 0.0), (1, 1200, 0.3), (1, 200, 0.8), (2, 300, 0.5)],
)
def test_a_p_value_agrees_with_the_interval_of_its_row(units, records, gain):
    agree = []
    for seed in range(12):
        rows = fleets_rows(
            np.random.default_rng(seed), attacks=2, units=units, records=records, gain=gain
        )
        for row in (
            r
            for r in rows
            if r["low"] is not None
            and r["target"] is None
            and (r["metric"] == "auc" or r["metric"].startswith("tpr@"))
        ):
            guess = 0.5 if row["metric"] == "auc" else float(row["metric"].removeprefix("tpr@"))
            assert 0 <= row["p_value"] <= 1
            agree.append((row["low"] > guess) == (row["p_value"] < 0.025))
            assert agree[-1] or "stratified" in row["method"], (
                row
            )  # those are percentiles, the p-value is on the angular scale
    assert np.mean(agree) > 0.95


def shares(repeats, **settings):
    """Returns how often any of 11 attacks is reported, and how often the first of them."""
    reported = []
    for repeat in range(repeats):
        rows = fleets_rows(np.random.default_rng([5, repeat]), attacks=11, seed=repeat, **settings)
        leaking = [
            name
            for name, entry in verdict.decide(result_rows.main_rows(rows))["attacks"].items()
            if entry["shown"]
        ]
        reported.append((bool(leaking), "a0" in leaking))
    return np.mean(reported, axis=0)


def test_a_plain_leak_is_reported_and_eleven_guessing_attacks_are_not():
    assert shares(6, units=5, records=200)[0] == 0
    assert shares(2, units=5, records=200, gain=0.6)[1] == 1


@pytest.mark.slow
@pytest.mark.timeout(3000)  # up to a minute of one quiet core
@pytest.mark.parametrize("knows", ["shadows", "nothing"])
@pytest.mark.parametrize("units, records", [(8, 300), (1, 1200), (1, 200)])
def test_level_and_power_over_eleven_attacks_in_200_simulations(units, records, knows):
    reported, _ = shares(200, units=units, records=records, knows=knows)
    assert reported <= 0.05, reported
    gain = 0.3 if units > 1 else 0.5 if records > 1000 else 1.2
    assert shares(40, units=units, records=records, gain=gain, knows=knows)[1] >= 0.8
