"""Settings with the same scores have the same claim: a workdir whose rmia read logits goes on."""

import types

import numpy as np
import pytest

from mia_jax import configuration, registry
from mia_jax.pipeline import attack, run
from mia_jax.threat_model import PlannedAttack


def claimed(**fields) -> dict:
    made = registry.make("attacks", "rmia", fields)
    planned = PlannedAttack(
        name="rmia",
        attack=made,
        section=dict(name="rmia", signal="log_probability", gamma=2.0) | fields,
        key=None,
    )
    design = types.SimpleNamespace(member_MN=np.zeros((2, 3), bool))
    reader = types.SimpleNamespace(
        views=("identity",), design=design, digests={}, scored_models=(0,), failed={}
    )
    return attack.claim_of(planned, reader)["attack"]


def test_the_claim_names_the_signal_with_the_same_scores():
    assert claimed() == claimed(signal="logits") == dict(name="rmia", signal="logits", gamma=2.0)
    assert claimed(signal="loss")["signal"] == "loss" and claimed(gamma=1.0) != claimed()


@pytest.mark.slow
def test_scores_that_were_computed_from_logits_are_kept(tmp_path):
    def config(**fields):
        return configuration.complete(
            data=dict(name="synthetic", examples=300, features=5, classes=3),
            design=dict(name="halves", models=4, population=0.1),
            model=dict(name="linear"),
            learner=dict(optimizer="sgd", learning_rate=0.5, batch_size=50, epochs=1),
            attacks=dict(rmia=fields, loss=dict(name="threshold", signal="loss")),
            report=dict(draws=40, figures=False),
            run=dict(chunk=4),
        )

    run.run(config(signal="logits"), workdir_path=tmp_path / "a")
    scores = tmp_path / "a" / "attack" / "rmia" / "scores.npz"
    before = scores.read_bytes(), scores.stat().st_mtime_ns
    report = run.run(config(), workdir_path=tmp_path / "a")
    assert before == (scores.read_bytes(), scores.stat().st_mtime_ns)
    assert report["validity"]["files"]["stale"] == []
    run.run(config(), workdir_path=tmp_path / "b")
    assert not (tmp_path / "b" / "signal" / "logits").exists()
    first, second = (
        np.load(tmp_path / w / "attack" / "rmia" / "scores.npz")["score_TN"] for w in "ab"
    )
    np.testing.assert_array_equal(first, second)
