"""What `mia-jax status` says of every model, signal, attack and job, from files alone."""

import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mia_jax import __main__ as command
from mia_jax import commands
from mia_jax.commands import status
from mia_jax.runtime import files
from mia_jax.runtime.store import Store
from tests.commands.watch_test import workdir


def told(root, capsys, *flags) -> tuple[int, str]:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    code = status.main([str(root), *flags])
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    return code, capsys.readouterr().out


def test_every_model_is_done_in_training_missing_or_failed(tmp_path, capsys):
    store = workdir(tmp_path, trained=[0, 1, 2], models=8, failed={3: "its loss became nan"})
    files.append_jsonl(store.training_metrics(), [dict(model=m, epoch=7, loss=1.0) for m in (4, 5)])
    files.write_npz(store.train.running([4, 5]), w=np.zeros(2))
    at = time.time() - 180
    os.utime(store.train.running([4, 5]), (at, at))
    code, text = told(tmp_path, capsys)
    assert code == 2
    assert "  train   3 done: 0-2\n" in text
    assert "2 in training: 4-5\n" in text and "4-5: epoch 7, state saved 3 min ago\n" in text
    assert "2 missing: 6-7\n" in text
    assert "1 failed: 3\n" in text and "model 3: its loss became nan\n" in text
    assert "attack  0 of 2 attacks have scores; missing: gap, lira\n" in text
    assert "report  missing" in text


def test_a_finished_run_has_code_0_and_one_at_work_1(tmp_path, capsys):
    store = workdir(tmp_path, trained=range(4), epochs=10)
    assert told(tmp_path, capsys)[0] == 1
    files.write_json(store.report.json, dict(results=[]))
    code, text = told(tmp_path, capsys)
    assert code == 0 and "report  written" in text


def test_the_last_line_of_each_job_is_shown(tmp_path, capsys):
    store = workdir(tmp_path)
    store.jobs.mkdir()
    (store.jobs / "train-0.out").write_text("train: 10%\rtrain: 20%\npaused: what is done ...\n")
    (store.jobs / "train-1.out").write_text("")
    _, text = told(tmp_path, capsys)
    assert "job     train-0: paused: what is done ...\n" in text
    assert "job     train-1: (nothing printed yet)\n" in text


def test_json_says_the_same_model_by_model(tmp_path, capsys):
    workdir(tmp_path, trained=[0], failed={1: "nan"}, epochs=2)
    _, text = told(tmp_path, capsys, "--json")
    (run,) = json.loads(text)
    assert [model["state"] for model in run["models"]] == [
        "done", "failed", "in training", "in training",
    ]  # fmt: skip
    assert run["models"][1]["message"] == "nan"
    assert run["attacks"] == dict(gap=False, lira=False) and run["report"] is False


@pytest.mark.parametrize("name, what", [("nothing", "there is no"), ("file", "is a file")])
def test_what_is_no_workdir_is_refused(name, what, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert commands.run("status", [str(tmp_path / name)]) == commands.MISTAKE
    assert what in capsys.readouterr().err


def test_the_flag_of_a_run_says_the_same_with_the_same_exit_code(tmp_path, capsys, monkeypatch):
    workdir(tmp_path, trained=[0], failed={1: "nan"})
    code, text = told(tmp_path, capsys)
    monkeypatch.setattr(command, "_STATUS", SimpleNamespace(value=True))
    monkeypatch.setattr(command, "_WORKDIR", SimpleNamespace(value=str(tmp_path), name="workdir"))
    monkeypatch.setattr(command, "_LIST", SimpleNamespace(value=""))
    with pytest.raises(SystemExit) as end:
        command.main(["mia-jax"])
    assert (end.value.code, capsys.readouterr().out) == (code, text) and code == 2


def test_files_of_jobs_do_not_keep_a_workdir_from_another_config(tmp_path):
    store = Store(tmp_path)
    assert store.jobs.parent == tmp_path and store.job_outputs() == []
