"""Jobs of a cluster: shares of one fleet make the fleet that one process makes; a run that is asked
to stop goes on where it was.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.pipeline import grid, run
from mia_jax.report import source
from mia_jax.runtime import files, jobs
from mia_jax.runtime.store import Store
from tests import toys

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOISE = dict(name="synthetic", examples=60, features=10, classes=3, random_labels=True)


def config(
    *, epochs=4, chunk=2, attacks=dict(loss=dict(name="threshold", signal="loss")), **fields
):
    return configuration.complete(
        data=NOISE,
        design=dict(name="halves", models=6),
        model=dict(name="mlp", widths=(8,)),
        learner=dict(epochs=epochs, batch_size=10) | fields.pop("learner", {}),
        attacks=attacks,
        report=dict(draws=40, figures=False),
        run=dict(chunk=chunk, checkpoint_every=0, lanes=1),
        **fields,
    )


def models(folder):
    return {
        path.name: files.read_npz(path)
        for path in sorted((folder / "train" / "model").glob("*.npz"))
    }


def equal(a, b):
    """Whether two fleets are the same to the bit, their seconds apart."""
    assert list(a) == list(b)
    names = [n for n in next(iter(a.values())) if n != "history/summary/seconds"]
    return all(np.array_equal(a[m][n], b[m][n]) for m in a for n in names)


def test_tasks_train_disjoint_shares_of_the_fleet_that_one_process_trains(tmp_path):
    report = run.run(config(), workdir_path=tmp_path / "one")
    seen = []
    for i in range(2):
        assert run.run(config(), workdir_path=tmp_path / "shared", task=(i, 2)) == {}
        seen.append(sorted(int(name[:5]) for name in models(tmp_path / "shared")))
    assert (
        seen == [[0, 1, 4, 5], [0, 1, 2, 3, 4, 5]] and not (tmp_path / "shared" / "signal").exists()
    )
    assert {p.name for p in (tmp_path / "shared").glob("run*.json")} == {
        "run.task-0-of-2.json",
        "run.task-1-of-2.json",
    }
    assert equal(models(tmp_path / "one"), models(tmp_path / "shared"))
    assert {p.name for p in (tmp_path / "shared").glob("metrics*")} == {
        "metrics.task-0-of-2.jsonl",
        "metrics.task-1-of-2.jsonl",
    }
    lines = [files.read_jsonl(p) for p in Store(tmp_path / "shared").all_training_metrics()]
    assert [sorted({line["model"] for line in task}) for task in lines] == [[0, 1, 4, 5], [2, 3]]
    whole = run.run(config(), workdir_path=tmp_path / "shared")
    assert whole["results"] == report["results"]


def test_tasks_share_query_and_attack_and_leave_the_files_of_one_process(tmp_path):
    attacks = {s: dict(name="threshold", signal=s) for s in ("loss", "confidence")}
    fields = dict(attacks=attacks | dict(lira=dict()))
    run.run(config(**fields), workdir_path=tmp_path / "one", stages_wanted=run.STAGES[:3])
    common = dict(workdir_path=tmp_path / "shared")
    run.run(config(**fields), stages_wanted=["train"], **common)
    with pytest.raises(FileNotFoundError, match="run the query stage first"):
        run.run(config(**fields), task=(1, 2), stages_wanted=["attack"], **common)
    asked = []
    for i in range(2):
        run.run(config(**fields), task=(i, 2), stages_wanted=["query"], **common)
        asked.append(len(list((tmp_path / "shared" / "signal" / "loss").glob("*.npy"))))
    assert asked == [4, 6]
    attacked = []
    for i in range(2):
        run.run(config(**fields), task=(i, 2), stages_wanted=["attack", "report"], **common)
        attacked.append(len(list((tmp_path / "shared" / "attack").glob("*/scores.npz"))))
    assert attacked == [2, 3] and not (tmp_path / "shared" / "report").exists()
    for part in ("signal", "attack"):
        for path in sorted((tmp_path / "one" / part).rglob("*.np?")):
            other = tmp_path / "shared" / path.relative_to(tmp_path / "one")
            if path.suffix == ".npy":
                np.testing.assert_array_equal(np.load(path), np.load(other))
            else:
                np.testing.assert_array_equal(np.load(path)["score_TN"], np.load(other)["score_TN"])


def test_shares_are_disjoint_and_whole():
    for count, parts, block in ((10, 3, 1), (10, 3, 4), (3, 8, 1), (64, 8, 8)):
        shares = [jobs.share(range(count), (i, parts), block=block) for i in range(parts)]
        assert sorted(item for share in shares for item in share) == list(range(count))
    assert jobs.share(range(3), None) == [0, 1, 2]


@pytest.mark.parametrize("text", ["8/8", "1", "-1/2", "a/b", "0/0", "1/2/3"])
def test_a_task_is_i_of_n(text):
    with pytest.raises(ValueError, match=re.escape(f"--task={text}: expected i/n")):
        jobs.task(text)


def test_what_tasks_cannot_share_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the report, which is not shared"):
        run.run(config(), workdir_path=tmp_path, task=(0, 2), stages_wanted=["report"])
    with pytest.raises(ValueError, match="extend=True: grow the fleet first"):
        run.run(config(), workdir_path=tmp_path, task=(0, 2), extend=True)


@pytest.mark.parametrize(
    "places", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 4, 7))]
)
def test_a_paused_run_goes_on_to_the_same_bits(places, tmp_path):
    """Paused before any epoch, after some, between chunks and stages; nothing but the pause writes
    checkpoints here.
    """
    run.run(config(), workdir_path=tmp_path / "whole")
    with pytest.raises(jobs.Paused):
        run.run(config(), workdir_path=tmp_path / "cut", pause=toys.Stop(places))
    if places in (2, 4):  # one call before the stage, then one before each epoch
        (path,) = (tmp_path / "cut" / "train" / "running").glob("*.npz")
        assert files.read_npz(path)["epoch"] == places - 1
    again = run.run(config(), workdir_path=tmp_path / "cut")
    assert equal(models(tmp_path / "whole"), models(tmp_path / "cut"))
    assert not list((tmp_path / "cut" / "train" / "running").glob("*.npz"))
    assert again["results"] == source.load(tmp_path / "whole" / "report" / "report.json")["results"]


@pytest.mark.slow
def test_a_paused_probe_keeps_the_answers_it_has(tmp_path):
    asking = dict(
        attacks=dict(noise=dict(name="threshold", signal="noise_robustness:samples=4,box=none")),
        query=dict(ask_batch_size=5),
        epochs=1,
    )
    whole = run.run(config(**asking), workdir_path=tmp_path / "whole")
    run.run(config(**asking), workdir_path=tmp_path / "cut", stages_wanted=["train"])
    with pytest.raises(jobs.Paused):
        run.run(
            config(**asking),
            workdir_path=tmp_path / "cut",
            stages_wanted=["query"],
            pause=toys.Stop(8),
        )
    (folder,) = (p for p in (tmp_path / "cut" / "signal").iterdir() if p.name.startswith("noise"))
    kept = np.load(next((folder / "partial").glob("*[0-9].npy")))
    assert 0 < np.isfinite(kept.reshape(*kept.shape[:2], -1)).any((0, 2)).sum() < 54
    assert run.run(config(**asking), workdir_path=tmp_path / "cut")["results"] == whole["results"]


@pytest.mark.slow
def test_tasks_of_a_grid_run_its_variants_and_write_no_table(tmp_path):
    class Module:
        __file__ = "three_rates.py"
        grid = staticmethod(
            lambda: [
                ("a", {}),
                ("b", {"learner.learning_rate": 0.1}),
                ("c", {"learner.learning_rate": 0.2}),
            ]
        )
        get_config = staticmethod(config)

    variants = grid.variants(Module)
    for i in range(2):
        assert not grid.run(Module, variants, workdir_path=tmp_path, task=(i, 2))
        assert not (tmp_path / "table.md").exists()
    assert all((tmp_path / name / "report" / "report.md").exists() for name in "abc")
    grid.run(Module, variants, workdir_path=tmp_path)
    assert (tmp_path / "table.md").exists()


@pytest.mark.parametrize("name", [pytest.param("SIGUSR1", marks=pytest.mark.slow), "SIGINT"])
def test_a_signal_ends_a_command_with_75_and_the_same_command_finishes(name, tmp_path):
    flags = [
        "--config=configs/quickstart.py:models=4,epochs=3000",
        "--config.run.chunk=2",
        f"--workdir={tmp_path}",
        "--stages=train",
    ]
    command = [sys.executable, "launch.py", *flags, "--config.run.checkpoint_every=0"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while (
        not (tmp_path / "metrics.jsonl").exists()
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == jobs.PAUSED, stderr[-1000:]
    assert (
        f"{name}: stopping" in stderr
        and "start the same command again" in stderr
        and "Traceback" not in stderr
    )
    assert list((tmp_path / "train" / "running").glob("[0-9]*.npz"))


def test_the_array_script_hands_out_tasks_and_queues_a_paused_job_again(tmp_path):
    """docs/slurm.sh with stand-ins for srun and scontrol."""
    (tmp_path / "srun").write_text('#!/bin/sh\nshift\necho "$@" >> "$LOG"\nexit $STATUS\n')
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho scontrol "$@" >> "$LOG"\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    common = dict(
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        LOG=str(tmp_path / "log"),
        PYTHON="python",
        SLURM_JOB_ID="77",
    )
    array = dict(SLURM_ARRAY_TASK_ID="5", SLURM_ARRAY_TASK_MIN="2", SLURM_ARRAY_TASK_COUNT="4")
    for more, status in ((dict(array, STATUS="75"), 75), (dict(STATUS="0"), 0)):
        done = subprocess.run(
            ["bash", "docs/slurm.sh", "--config=x.py", "--workdir=a b"], cwd=ROOT, env=common | more
        )
        assert done.returncode == status
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [
        "python launch.py --task=3/4 --config=x.py --workdir=a b",
        "scontrol requeue 77",
        "python launch.py --config=x.py --workdir=a b",
    ]
