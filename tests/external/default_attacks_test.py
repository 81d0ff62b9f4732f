"""Attacks of supplied arrays read the logits in place of a signal that was not supplied."""

import numpy as np
import pytest

import mia_jax
from mia_jax.external import default_attacks


@pytest.mark.parametrize(
    "section, have, signal",
    [
        (dict(name="rmia", gamma=1.5), {"logits", "loss"}, "logits"),
        (dict(name="rmia", signal="loss", temperature=1.0), {"logits", "loss"}, "loss"),
        (dict(name="rmia", signal="log_probability"), {"logits", "loss"}, "logits"),
        (dict(name="rmia"), {"loss"}, None),  # refused by name, with what was supplied
        (dict(name="rmia"), {"logits", "log_probability:temperature=2"}, None),
        (dict(name="lira"), {"logits", "rescaled_logit"}, None),
        (dict(name="gap"), {"logits", "correct"}, None),
    ],
)
def test_the_default_signal_gives_way_to_supplied_logits(section, have, signal):
    readable = default_attacks.readable(section, have)
    assert readable.get("signal") == signal
    assert {k: v for k, v in readable.items() if k != "signal"} == {
        k: v for k, v in section.items() if k != "signal"
    }


@pytest.mark.slow
def test_a_mapping_of_attacks_reads_supplied_logits():
    """With the scores of the attack of that name in the standard set."""
    rng = np.random.default_rng(0)
    shadow = rng.normal(size=(6, 80, 3))
    arrays = dict(shadow_logits=shadow, shadow_member=rng.random((6, 80)) < 0.5)
    arrays |= dict(labels=rng.integers(3, size=80), population=np.arange(80) >= 60)
    arrays["shadow_member"] &= ~arrays["population"]
    fields = dict(report=dict(figures=False, draws=40))
    named = mia_jax.audit(attacks="rmia", **arrays, **fields)
    mapped = mia_jax.audit(attacks=dict(rmia=dict(gamma=2.0)), **arrays, **fields)
    values = [
        [row["value"] for row in result.report["results"] if row["metric"] == "auc"]
        for result in (named, mapped)
    ]
    assert values[0] == values[1] and len(values[0]) > 1


def test_of_trained_models_rmia_asks_what_it_reads_by_default():
    assert default_attacks.section("rmia") == dict(name="rmia")
    assert default_attacks.section("rmia_offline") == dict(name="rmia", mode="offline")
