"""A run that is asked to stop stops soon, in whatever it is doing, with code 75; a second signal
stops it at once; nobody needs to read stderr.
"""

import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mia_jax.runtime import jobs, progress

ROOT = pathlib.Path(__file__).resolve().parents[2]
START = """
import hashlib, sys, time
import numpy as np
from mia_jax.runtime import jobs
pause = jobs.Pause(grace=float(sys.argv[1]), saving=float(sys.argv[2]))
pause.listen()
print("ready", flush=True)
try:
    {work}
    print("done", flush=True)
except jobs.Paused:
    jobs.say("paused here")
    jobs.leave(jobs.PAUSED)
"""
FOREVER = "while True: np.sort(np.arange(1000))"
SAFE_PLACES = """
    with jobs.deferred(pause):
        while True:
            time.sleep(0.05)
            pause()
"""
NO_SAFE_PLACE = """
    with jobs.deferred(pause):
        while True: time.sleep(0.05)
"""
LONG_CALL = (
    'hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)'  # one call of a library, minutes long
)
LONG_SAVING = """
    with jobs.deferred(pause):
        while not pause.asked: time.sleep(0.05)
        try: pause()
        except jobs.Paused: time.sleep(1000)
"""
WORK = {  # work, grace, saving, most seconds until it ends, what it says
    "Python's own loops": (FOREVER, 60, 60, 10, "paused here"),
    "safe places": (SAFE_PLACES, 60, 60, 10, "paused here"),
    "no safe place": (NO_SAFE_PLACE, 1, 60, 15, "no safe place was reached in 1 s"),
    "a long call": (LONG_CALL, 1, 60, 15, "no safe place was reached in 1 s"),
    "a long save": (LONG_SAVING, 60, 1, 15, "saving at a safe place takes more than 1 s"),
}


def begun(work, grace, saving):
    code = START.replace("{work}", work.strip("\n").strip())
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(grace), str(saving)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    return process


@pytest.mark.parametrize("name", WORK)
def test_a_signal_ends_any_work_in_time_with_75(name):
    work, grace, saving, most, message = WORK[name]
    process = begun(work, grace, saving)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == jobs.PAUSED and message in stderr, stderr
    assert "SIGTERM: stopping at the next safe place" in stderr and time.monotonic() - start < most


def test_a_second_signal_stops_at_once_and_says_so():
    process = begun(LONG_CALL, 60, 60)
    process.send_signal(signal.SIGTERM)
    time.sleep(jobs.TOGETHER + 0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=15)[1]
    assert process.returncode == 128 + signal.SIGINT and "SIGINT again: stopped at once." in stderr


def test_the_same_signal_twice_at_a_time_is_one():
    """A terminal or a launcher sends it to the process and to its group."""
    process = begun(SAFE_PLACES, 60, 60)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert (
        process.communicate(timeout=60)[1].count("SIGTERM") == 1
        and process.returncode == jobs.PAUSED
    )


def test_deferred_is_nothing_for_a_plain_function_and_raises_at_its_end_for_a_pause():
    with jobs.deferred(lambda: None):
        pass
    pause = jobs.Pause()
    with pytest.raises(jobs.Paused), jobs.deferred(pause):
        pause.asked = True
        with jobs.deferred(jobs.Pause()):
            pass
    with pytest.raises(jobs.Paused):
        pause()


class Full(io.TextIOBase):
    def write(self, text):
        raise OSError(28, "No space left on device")

    def isatty(self):
        return False


@pytest.mark.parametrize("stream", ["none", "closed", "full"])
def test_a_run_that_cannot_say_anything_goes_on(stream, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", dict(none=None, closed=closed, full=Full())[stream])
    jobs.say("a word")
    shown = progress.Progress(title="train", total=2, unit="epoch", seconds=0.0)
    shown.advance(1, note="x")
    shown.line("a line")
    assert shown.close() >= 0


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", ">/dev/full 2>&1"])
@pytest.mark.slow
def test_a_command_without_a_usable_stderr_writes_its_report(redirect, tmp_path):
    flags = (
        "--config=configs/quickstart.py:models=4,epochs=1 --config.report.draws=40 "
        "--config.report.figures=False --config.run.chunk=2"
    )
    subprocess.run(
        f"{sys.executable} launch.py {flags} --workdir={tmp_path} {redirect}",
        shell=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert (tmp_path / "report" / "report.md").exists()


UNDER_WAY = dict(
    data="the data is under way", attack="the attack is under way", ask="query: ", report="attack: "
)
UNDER_WAY |= dict.fromkeys(("train", "epoch", "query"), "plan: ")


@pytest.mark.slow
@pytest.mark.parametrize("stage", UNDER_WAY)
def test_a_command_ends_with_75_soon_after_the_signal_in_every_stage(
    stage, tmp_path, record_property
):
    """Stages that last minutes; an epoch that lasts longer than the grace costs that, everything
    else a few seconds.
    """
    if stage == "report":
        rng, member = np.random.default_rng(0), np.arange(100_000) < 50_000
        np.savez(
            tmp_path / "mine.npz",
            loss=rng.exponential(size=len(member)) + 0.2 * ~member,
            member=member,
        )
        flags = [
            "--config=configs/scores.py",
            f"--config.scores={tmp_path / 'mine.npz'}",
            "--config.report.draws=3000",
        ]
    else:
        flags = [f"--config=tests/examples/lasting.py:stage={stage}"]
    with open(tmp_path / "said", "wb") as log:
        command = [sys.executable, "launch.py", *flags, f"--workdir={tmp_path / 'w'}"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=log, stderr=log
        )
    end = time.monotonic() + 200
    while (
        UNDER_WAY[stage] not in (tmp_path / "said").read_text()
        and time.monotonic() < end
        and process.poll() is None
    ):
        time.sleep(0.1)
    time.sleep(3)
    assert process.poll() is None, (tmp_path / "said").read_text()
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    try:
        code = process.wait(90)
    finally:
        process.kill()
    seconds = time.monotonic() - start
    record_property("seconds", round(seconds, 1))
    print(f"{stage}: {seconds:.1f} s after the signal")
    text = (tmp_path / "said").read_text()
    assert (
        code == jobs.PAUSED and "start the same command again" in text
    ) or "the same command resumes the run" in text, text
    assert seconds < jobs.GRACE + 10
