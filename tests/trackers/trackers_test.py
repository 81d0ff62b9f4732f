"""Trackers: what is logged is in their files, errors of one end nothing, and names are checked."""

import json
import pathlib
import re
import sys
import types

import pytest

from mia_jax import trackers
from mia_jax.training import tracking

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Kept:
    """A tracker that keeps what it is given."""

    def __init__(self):
        self.logged, self.closed = [], 0

    def log(self, step, values):
        self.logged.append((step, values))

    def close(self):
        self.closed += 1


def events(folder):
    """[(step, {tag: value})] of all event files of a folder, in the order of their names."""
    pytest.importorskip("tensorboardX", reason="pip install mia_jax[tensorboard]")
    from tensorboardX.proto import event_pb2

    read = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size
            if event.summary.value:
                values = {v.tag: v.simple_value for v in event.summary.value}
                read.append((event.step, values))
    return read


def test_lines_hold_what_was_logged_and_later_runs_append(tmp_path):
    for step in (1, 2):
        made = trackers.make("jsonl", place=lambda name: tmp_path / name)
        made.log(step, {"loss": step / 2})
        made.close()
    lines = (tmp_path / "jsonl" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        dict(step=1, loss=0.5),
        dict(step=2, loss=1.0),
    ]


def test_event_files_hold_what_was_logged_and_a_later_run_overwrites_none(tmp_path):
    pytest.importorskip("tensorboardX", reason="pip install mia_jax[tensorboard]")
    for step in (1, 2):  # within one second, for which tensorboardX has one file name
        made = trackers.make("tensorboard", place=lambda name: tmp_path)
        assert len(list(tmp_path.iterdir())) == step - 1, "a file before the first number"
        made.log(step, {"loss": step / 2, "attack": "a text", "low": None})
        made.close()
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    assert sorted(events(tmp_path)) == [(1, dict(loss=0.5)), (2, dict(loss=1.0))]


def test_without_tensorboardx_the_message_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install mia_jax\[tensorboard\]"):
        trackers.make("tensorboard", place=lambda name: tmp_path)


@pytest.mark.parametrize(
    "given, message",
    {
        "tensorbord": "no 'tensorbord'. Did you mean 'tensorboard'",
        "jsonl": "needs a folder",
    }.items(),
)
def test_a_tracker_that_cannot_be_is_refused(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trackers.make(given, place=None)
    with pytest.raises(ValueError, match="two trackers are called 'jsonl'"):
        trackers.make("jsonl, jsonl", place=lambda name: tmp_path)
    with pytest.raises(ValueError, match="'object' has no log and no close"):
        trackers.make(object(), place=None)


def test_a_tracker_that_fails_is_named_and_the_others_go_on(capsys):
    class Gone(Kept):
        def log(self, step, values):
            raise ConnectionError("the network is gone")

    kept = Kept()
    both = trackers.make([Gone(), kept], place=None)
    both.log(1, dict(loss=1.0))
    both.log(2, dict(loss=0.5))
    both.close()
    both.close()
    assert kept.logged == [(1, dict(loss=1.0)), (2, dict(loss=0.5))] and kept.closed == 1
    error = capsys.readouterr().err
    assert error.count("'Gone' failed") == 1 and "the network is gone" in error


def test_a_mean_waits_for_the_last_model_and_is_logged_once():
    kept = Kept()
    fleet = tracking.FleetMetrics(kept.log, range(3), [dict(stage="train", model=0, epoch=1, a=6)])
    fleet.record([dict(model=1, epoch=1, a=3.0), dict(model=2, epoch=1, a=0.0)])
    fleet.record([dict(model=1, epoch=2, a=1.0), dict(model=2, epoch=2, a=None)])
    assert kept.logged == [
        (1, {"a/model_00001": 3.0, "a/model_00002": 0.0}),
        (1, {"a/mean": 3.0}),
        (2, {"a/model_00001": 1.0}),
    ]
    fleet.finish()  # model 0 stopped after epoch 1, and model 2 has no finite number
    fleet.finish()
    assert kept.logged[3:] == [(2, {"a/mean": 1.0})]


def test_the_module_for_weights_and_biases_in_the_docs_works(monkeypatch):
    text = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
    code = next(b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "import wandb" in b)
    called = []

    class Run:
        def __getattr__(self, name):
            return lambda *args, **fields: called.append((name, *args, *fields))

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **fields: Run()))
    module = types.ModuleType("wandb_tracker")
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, "wandb_tracker", module)
    monkeypatch.setattr("mia_jax.registry.outside", lambda kind, name: True)
    both = trackers.make("wandb_tracker", place=None)
    both.log(3, {"loss/mean": 0.5})
    both.close()
    assert called[1:] == [("log", {"loss/mean": 0.5, "epoch": 3}), ("finish",)]
