"""Tests that chosen epochs are traced, once each, and that this changes no model."""

import contextlib

import jax
import pytest

from mia_jax.pipeline import run
from mia_jax.runtime.store import Store
from mia_jax.training import profiling
from tests.pipeline import execution_test


def test_a_chosen_epoch_leaves_a_trace_and_the_models_are_the_same(tmp_path):
    plain, traced = tmp_path / "plain", tmp_path / "traced"
    _, expected = execution_test.trained(plain)
    _, models = execution_test.trained(traced, profile=(1,))
    (trace,) = Store(traced).profile(1).rglob("*.trace.json.gz")
    assert trace.stat().st_size > 0 and not Store(plain).profiles.exists()
    for m, arrays in expected.items():
        for name, value in arrays.items():
            assert (value == models[m][name]).all(), name


def test_epochs_are_traced_once_and_one_at_a_time(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", calls.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    profiler = profiling.Profiler((2, 3), lambda epoch: tmp_path / f"{epoch}")
    with profiler.of(1) as first, profiler.of(2) as second, profiler.of(3) as third:
        assert (first, second, third) == (False, True, False)
    with profiler.of(3) as third, profiler.of(2) as again:
        assert (third, again) == (True, False)
    assert calls == [tmp_path / "2", "stop", tmp_path / "3", "stop"]


def test_a_profiler_that_does_not_start_ends_no_training(tmp_path, monkeypatch, capsys):
    def refuse(folder):
        raise RuntimeError("Only one profile may be run at a time.")

    monkeypatch.setattr(jax.profiler, "start_trace", refuse)
    with contextlib.ExitStack() as stack:
        assert not stack.enter_context(profiling.Profiler((1,), lambda epoch: tmp_path).of(1))
    assert "epoch 1 is not traced" in capsys.readouterr().err


@pytest.mark.parametrize("epochs", ((0,), (2,)))
def test_an_epoch_that_does_not_exist_is_refused(tmp_path, epochs):
    with pytest.raises(ValueError, match=r"run.profile=.*whole numbers in 1\.\.1"):
        run.run(execution_test.config(profile=epochs), workdir_path=tmp_path)
