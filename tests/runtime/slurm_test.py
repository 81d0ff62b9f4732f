"""Jobs of a Slurm cluster: their scripts, their submission, and a real cluster that loses jobs."""

import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mia_jax.runtime import slurm
from mia_jax.runtime.store import Store

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = ["--config=configs/quickstart.py:models=8,quick", "--config.run.chunk=2"]


def planned(folder, **more):
    return slurm.planned(
        ["python", "-m", "mia_jax", "--a=b c"], store=Store(folder), name="x", **more
    )


def test_arrays_train_and_ask_and_a_job_without_their_options_does_the_rest(tmp_path):
    train, query, rest = planned(tmp_path, tasks=8, options=["--gpus-per-task=1"])
    assert [(job.array, job.after) for job in (train, query, rest)] == [
        (8, ""), (8, train.name), (0, query.name),
    ]  # fmt: skip
    assert "#SBATCH --gpus-per-task=1" in train.script and "gpus" not in rest.script
    share = '"--task=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"'
    start = "srun --unbuffered python -m mia_jax '--a=b c'"
    assert f"{start} --stages=train {share}\n" in train.script
    assert f"{start} --stages=query {share}\n" in query.script
    assert f"{start} --stages=attack,report\n" in rest.script
    output = str(tmp_path / "jobs" / "train-%a.out")
    assert f"--output={shlex.quote(output)}\n" in train.script


def test_a_grid_is_an_array_of_variants_and_its_table(tmp_path):
    variants, table = planned(tmp_path, tasks=3, grid=True)
    assert (variants.array, table.after) == (3, variants.name)
    assert "--stages" not in variants.script + table.script


def test_the_last_job_may_run_without_the_accelerator_of_the_others(tmp_path):
    for typed in (["--config.run.platform=gpu"], ["--config.run.platform", "gpu"]):
        command = ["python", *typed, "--config.run.chunk=2"]
        first, _, rest = slurm.planned(command, tasks=1, store=Store(tmp_path), name="x")
        assert "platform" in first.script
        assert "platform" not in rest.script and "gpu" not in rest.script
        assert "--config.run.chunk=2" in rest.script


@pytest.mark.parametrize("code, requeued", [(0, False), (75, True), (1, False)])
def test_only_a_paused_job_is_queued_again(code, requeued, tmp_path):
    """The script with stand-ins for srun and scontrol."""
    for name, text in dict(srun=f"exit {code}", scontrol='echo "$@" >> asked').items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    rest = planned(tmp_path, tasks=1)[-1]
    slurm.write([rest])
    environment = dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_JOB_ID="7")
    done = subprocess.run(["bash", str(rest.path)], cwd=tmp_path, env=environment)
    assert done.returncode == code
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 7\n" if requeued else "")


@pytest.mark.parametrize("option", ["gpus=1", "--Gpus", "--time=1;rm", "-", "$(x)"])
def test_what_is_no_option_of_sbatch_is_refused(option, tmp_path):
    if option == "--time=1;rm":  # a value is the user's; it stays on its line of the script
        planned(tmp_path, tasks=1, options=[option])
        return
    with pytest.raises(ValueError, match="--slurm_options"):
        planned(tmp_path, tasks=1, options=[option])


def test_no_array_of_no_jobs(tmp_path):
    with pytest.raises(ValueError, match="--slurm=0 must be"):
        planned(tmp_path, tasks=0)


def stand_in(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "sbatch").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "sbatch").chmod(0o755)


def test_each_job_waits_for_the_number_of_the_one_before(tmp_path, monkeypatch):
    log = tmp_path / "log"
    stand_in(tmp_path / "bin", f'echo "$@" >> {log}; wc -l < {log}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    jobs = planned(tmp_path, tasks=4)
    assert slurm.submit(jobs) == {"x-train": "1", "x-query": "2", "x-rest": "3"}
    first, second, third = log.read_text().splitlines()
    assert first == f"--parsable --job-name=x-train --array=0-3 {jobs[0].path}"
    assert "--array=0-3 --dependency=afterok:1" in second
    assert third == f"--parsable --job-name=x-rest --dependency=afterok:2 {jobs[2].path}"


def test_a_refused_job_is_told_in_slurms_words_and_the_submitted_one_is_named(
    tmp_path, monkeypatch
):
    text = 'case "$*" in *rest*) echo "Invalid account" >&2; exit 1;; esac; echo 5'
    stand_in(tmp_path / "bin", text)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(ValueError, match=r"Invalid account.*x-train \(5\), x-query \(5\); scancel"):
        slurm.submit(planned(tmp_path, tasks=2))


def test_without_slurm_the_scripts_are_there_and_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"there is none on this machine.*--task=0/n"):
        slurm.submit(planned(tmp_path, tasks=2))


def test_the_command_of_a_job_is_the_one_that_was_typed_without_the_flags_of_slurm():
    typed = ["--config=q", "--slurm", "8", "--slurm_options=--time=1 -p x", "--attacks=+rmia"]
    names = ["slurm", "slurm_options", "slurm_rest_options"]
    assert slurm.without_flags(typed, names) == ["--config=q", "--attacks=+rmia"]


# A real cluster
# --------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two nodes of a real Slurm on this machine."""
    if shutil.which("slurmctld") is None or shutil.which("munged") is None or os.geteuid():
        pytest.skip(
            "needs root and Slurm: apt-get install -y --no-install-recommends slurm-wlm munge"
        )
    folder = tmp_path / "cluster"
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    for name in [name for name in os.environ if name.startswith("XLA_")]:
        monkeypatch.delenv(name)
    subprocess.run(["bash", str(ROOT / "tests/runtime/slurm_lab.sh"), str(folder)], check=True)
    yield folder
    subprocess.run(["scancel", "--user=root"], check=False)
    time.sleep(1)
    subprocess.run(["scontrol", "shutdown"], check=False)
    subprocess.run(["pkill", "-9", "-f", "slurmd -N n"], check=False)


def launch(*flags, workdir):
    words = [sys.executable, "launch.py", *CONFIG, f"--workdir={workdir}", *flags]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def queue(pattern="%i %T %N"):
    done = subprocess.run(["squeue", "-h", "-r", "-o", pattern], capture_output=True, text=True)
    return [line.split() for line in done.stdout.splitlines()]


def wait(until, *, seconds, what):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"{what} did not happen: {queue()}"
        time.sleep(0.5)


def processes(**wanted) -> list[int]:
    """The processes of our command whose environment has these values."""
    numbers = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            arguments = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "mia_jax" in arguments and all(f"{k}={v}" in environment for k, v in wanted.items()):
            numbers.append(int(path.name))
    return numbers


def kill(**wanted) -> int:
    killed = 0
    for number in processes(**wanted):
        with contextlib.suppress(ProcessLookupError):  # it went with the one before
            os.kill(number, signal.SIGKILL)
            killed += 1
    return killed


@pytest.mark.slow
def test_a_fleet_survives_a_killed_a_preempted_and_a_lost_job_bit_for_bit(cluster, tmp_path):
    longer = "--config.learner.epochs=1500"
    plain, shared = tmp_path / "plain", tmp_path / "shared"
    launch(longer, workdir=plain)
    one_core = "--cpus-per-task=1"
    slurm_flags = ["--slurm=4", f"--slurm_options={one_core}", f"--slurm_rest_options={one_core}"]
    assert "submitted shared-train (1): 4 jobs" in launch(longer, *slurm_flags, workdir=shared)

    def running():
        return [row for row in queue() if row[1] == "RUNNING" and "_" in row[0]]

    wait(lambda: len(running()) == 4, seconds=60, what="four jobs at work")
    wait(lambda: list(shared.glob("train/running/*")), seconds=120, what="a saved state")
    # One node is lost with all its processes.
    subprocess.run(["pkill", "-9", "-f", "slurmd -N n2"], check=True)
    assert kill(SLURMD_NODENAME="n2")
    # What runs on the other one is preempted by jobs of a higher priority.
    high = ["sbatch", "-p", "high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 3"]
    subprocess.run(high, check=True, capture_output=True)
    subprocess.run(["slurmd", "-N", "n2"], check=True)
    wait(lambda: running(), seconds=120, what="a job that runs again")
    victim = running()[0][0].partition("_")[2]
    wait(lambda: processes(SLURM_ARRAY_TASK_ID=victim), seconds=60, what="its process")
    killed = kill(SLURM_ARRAY_TASK_ID=victim)
    wait(lambda: not queue(), seconds=400, what="the end of all jobs")
    report = Store(shared).report.json
    assert killed and not report.exists(), "the job after a failed one has to be dropped"
    launch(longer, *slurm_flags, workdir=shared)  # the same line once more
    wait(lambda: not queue(), seconds=400, what="the end of all jobs")
    for m in range(8):
        with np.load(Store(plain).train.model(m)) as a, np.load(Store(shared).train.model(m)) as b:
            for name in a.files:
                if not name.startswith("_") and not name.endswith("seconds"):
                    np.testing.assert_array_equal(a[name], b[name], err_msg=f"model {m}, {name}")
    results = [json.loads(Store(folder).report.json.read_text()) for folder in (plain, shared)]
    assert results[0]["results"] == results[1]["results"]
    outputs = "".join(path.read_text() for path in Store(shared).job_outputs())
    assert "paused" in outputs  # the preempted job said so
