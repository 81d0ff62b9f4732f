"""Tests what `mia-jax watch` says of runs at work, paused, failed, finished and absent."""

import os
import time

import numpy as np
import pytest

from mia_jax import commands
from mia_jax.commands import watch
from mia_jax.runtime import files, state
from mia_jax.runtime.store import Store


def workdir(root, *, trained=(), epochs=0, stages=(), age=0.0, models=4, failed=None):
    """A workdir of a run of 4 models and 10 epochs as it is at work."""
    store = Store(root)
    config = dict(
        design=dict(models=models), learner=dict(epochs=10), attacks=dict(gap={}, lira={})
    )
    files.write_json(store.config, config)
    log = dict(started="2026-01-02T03:04:05+00:00", seconds=dict.fromkeys(stages, 61.0))
    files.write_json(store.log(), dict(runs=[log]), seal=True)
    for m in trained:
        files.write_npz(store.train.model(m), w=np.zeros(2))
    records = [
        dict(stage="train", model=m, epoch=epoch, loss=1.0 / epoch + m)
        for epoch in range(1, epochs + 1)
        for m in range(models)
    ]
    files.append_jsonl(store.training_metrics(), records)
    for m, reason in (failed or {}).items():
        files.write_json(store.train.failed(m), dict(model=m, reason=reason), seal=True)
    at = time.time() - age
    for path in root.rglob("*"):
        os.utime(path, (at, at))
    return store


def once(root, capsys) -> str:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert watch.main([str(root), "--once"]) == 0
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert before == after, "something was written"
    return capsys.readouterr().out


def test_a_run_at_work_shows_epochs_means_and_failures(tmp_path, capsys):
    store = workdir(tmp_path, epochs=7, failed={3: "its loss became nan in epoch 2"})
    os.utime(store.log(), (1, 1))
    text = once(tmp_path, capsys)
    assert f"{tmp_path}: at work, last change" in text
    assert "0 of 4 models are trained; 21 of 30 epochs (70%)" in text
    assert "model 3: its loss became nan in epoch 2" in text
    assert text.count("\n          ") == 1 + state.EPOCHS  # the header and the last five epochs
    assert "7           4  1.643" in text  # 1/7 + the mean of 0, 1, 2 and 3
    assert "attack  0 of 2 attacks have scores" in text


@pytest.mark.parametrize(
    "words, stages, age",
    [
        ("not at work: the last start ended with the stage train after 61 s", ["train"], 40.0),
        ("last change 17 min ago: in a long step, or killed", [], 1000.0),
    ],
)
def test_a_run_that_is_not_at_work_is_said_to_continue(words, stages, age, tmp_path, capsys):
    workdir(tmp_path, trained=[0, 1], epochs=3, stages=stages, age=age)
    text = once(tmp_path, capsys)
    assert words in text and "the same command continues" in text
    assert "2 of 4 models are trained" in text


def test_a_finished_run_shows_its_verdict_and_ends_the_watch(tmp_path, capsys):
    store = workdir(tmp_path, trained=range(4), epochs=10, stages=["train", "report"])
    files.write_json(store.report.json, dict(results=[]))
    assert watch.main([str(tmp_path), "--every", "0.01"]) == 0
    text = capsys.readouterr().out
    assert "finished" in text and "4 of 4 models are trained\n" in text
    assert str(store.report.markdown) in text


def test_seeds_are_shown_one_after_the_other(tmp_path, capsys):
    for seed in (0, 1):
        workdir(tmp_path / f"seed-{seed}", trained=range(seed + 1))
    text = once(tmp_path, capsys)
    assert text.index("seed-0: ") < text.index("1 of 4 models") < text.index("seed-1: ")


def test_folders_without_a_run_and_what_is_no_folder(tmp_path, capsys):
    assert "no run has written anything here yet" in once(tmp_path, capsys)
    (tmp_path / "file").write_text("")
    for path, words in dict(absent="there is no", file="is a file").items():
        assert commands.run("watch", [str(tmp_path / path), "--once"]) == commands.MISTAKE
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_damaged_files_are_said_and_the_rest_is_shown(tmp_path, capsys):
    store = workdir(tmp_path, epochs=2)
    store.log().write_text("{")
    with open(store.training_metrics(), "a") as file:
        file.write('garbage\n{"model": 1, "epo')
    text = once(tmp_path, capsys)
    assert "run.json is damaged" in text and "8 of 40 epochs" in text


def test_metrics_that_are_appended_are_read_once_and_torn_lines_wait(tmp_path):
    store = workdir(tmp_path, epochs=1)
    reader = state.Reader(tmp_path)
    assert reader.read().trained_epochs == 4
    line = b'{"stage": "train", "model": 0, "epoch": 2, "loss": 0.5}\n'
    files.append(store.training_metrics(), line[:20])
    assert reader.read().trained_epochs == 4
    files.append(store.training_metrics(), line[20:])
    position = reader.read_of[store.training_metrics()][0]
    seen = reader.read()
    assert seen.trained_epochs == 5 and seen.of_epoch[2][0] == dict(loss=0.5)
    assert reader.read_of[store.training_metrics()][0] > position
    files.append(store.training_metrics((1, 2)), line.replace(b'"model": 0', b'"model": 1'))
    assert reader.read().trained_epochs == 6
    store.training_metrics((1, 2)).unlink()
    assert reader.read().trained_epochs == 5
    store.training_metrics().write_bytes(line)  # another run's, after --extend or a release
    assert reader.read().trained_epochs == 1


def test_time_left_is_from_the_epochs_since_the_first_look(tmp_path):
    store = workdir(tmp_path, epochs=2, age=30.0)
    reader, rate = state.Reader(tmp_path), state.Rate()
    store.log().unlink()  # the start is unknown: nothing can be said at the first look
    assert rate.seconds_left(reader.read()) is None
    records = [dict(model=m, epoch=3, loss=1.0) for m in range(4)]
    files.append_jsonl(store.training_metrics(), records)
    at = time.time() - 10
    os.utime(store.training_metrics(), (at, at))
    for path in tmp_path.iterdir():
        os.utime(path, (at, at))
    # 4 epochs in 20 s, and 40 - 12 are left
    assert rate.seconds_left(reader.read()) == pytest.approx(140, rel=0.05)


def test_with_rich_the_lines_are_updated_in_place(tmp_path, capsys):
    pytest.importorskip("rich", reason="pip install mia_jax[watch]")
    store = workdir(tmp_path, trained=range(4), epochs=10)
    files.write_json(store.report.json, dict(results=[]))
    watch.update(watch.View(tmp_path), 0.01)
    assert "4 of 4 models are trained" in capsys.readouterr().out
