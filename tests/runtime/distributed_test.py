"""Several processes run one training: process 0 writes, all pause together, and the files are those
of one process.
"""

import concurrent.futures
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mia_jax.runtime import distributed, files, jobs

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_what_is_typed_says_which_process_of_how_many_this_is():
    assert distributed.parsed("auto") == "auto"
    assert distributed.parsed("[::1]:80,3,2").processes == distributed.Processes(2, 3)
    assert distributed.initialize("") == distributed.here() == distributed.Processes(0, 1)


@pytest.mark.parametrize("text", ["kubernetes", "host,2,0", "host:99999,2,0", "h:1,2", "h:1,0,0"])
def test_another_form_is_refused(text):
    with pytest.raises(ValueError, match=f"--distributed={re.escape(text)}: "):
        distributed.initialize(text)


def test_more_processes_than_asked_for_are_refused():
    with pytest.raises(ValueError, match=r"no process 2 of 2; .* more hosts started than asked"):
        distributed.initialize("10.0.0.1:1234,2,2")


def test_what_did_not_start_the_processes_is_named(monkeypatch):
    for name in distributed.SLURM:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="not started by srun"):
        distributed.initialize("slurm")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_: (_ for _ in ()).throw(socket.gaierror(-2, "no name"))
    )
    with pytest.raises(ValueError, match=r"address of process 0, nowhere, is not known .*no name"):
        distributed.initialize("nowhere:1234,2,1")


def test_one_process_waits_for_nobody_and_agrees_with_itself():
    distributed.wait()
    assert distributed.agree(True) and not distributed.agree(False) and distributed.is_writer()
    assert distributed.read(lambda: 3) == 3
    pause = jobs.Pause()
    together = distributed.Together(pause)
    together()
    with pytest.raises(jobs.Paused), jobs.deferred(together):
        pause.asked = True
    distributed.tell("failed", "nobody hears it")
    distributed.finish()


class Notes:
    """The key-value store of several processes, which are threads here."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value):
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def key_value_increment(self, key, by):
        self.key_value_set(key, self.values.get(key, 0) + by)  # each process has its own
        return self.values[key]

    def key_value_delete(self, key):
        with self.changed:
            for name in [name for name in self.values if name.startswith(f"{key}/")]:
                del self.values[name]

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, milliseconds / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED")
            return self.values[key]


@pytest.fixture
def processes(monkeypatch):
    """Runs function(index) in three threads that take themselves for processes."""
    own, notes = threading.local(), Notes()
    monkeypatch.setattr(distributed, "here", lambda: distributed.Processes(own.index, 3))
    monkeypatch.setattr(distributed, "_client", lambda: notes)

    def run(function):
        def of(index):
            own.index = index
            return function(index)

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            return list(pool.map(of, range(3)))

    return run


def test_all_processes_agree_if_any_of_them_asks(processes):
    def rounds(index):
        return [distributed.agree(index == who) for who in (0, 1, 2, None, 2)]

    assert processes(rounds) == [[True, True, True, False, True]] * 3


def test_all_read_what_was_written_before_and_none_writes_before_all_have_read(processes):
    file = [0]

    def rounds(index):
        seen = []
        for number in range(1, 4):
            if index == 0:
                time.sleep(0.02)  # the others are here before
                file[0] = number
            if index == 2:
                seen.append(distributed.read(lambda: time.sleep(0.02) or file[0]))
            else:
                seen.append(distributed.read(lambda: file[0]))
        return seen

    assert processes(rounds) == [[1, 2, 3]] * 3


def test_below_an_unwritten_folder_nothing_is_written_and_all_is_read(tmp_path):
    place = files.Unwritten(tmp_path)
    files.write_json(tmp_path / "a.json", dict(a=1))
    before = sorted(tmp_path.rglob("*"))
    path = (place / "b" / "c").with_suffix(".json")
    assert isinstance(path.parent, files.Unwritten)
    files.write_json(path, dict(a=2))
    assert not files.create_json(place / "d.json", {})
    files.append_jsonl(place / "e.jsonl", [dict(a=1)])
    files.make_folder(place / "folder")
    (place / "a.json").unlink()
    assert files.set_aside(place / "a.json") is None
    files.move(place / "a.json", place / "z.json")
    assert not files.claim(place, dict(a=1), remedy="")
    assert all(isinstance(found, files.Unwritten) for found in place.glob("*"))
    assert sorted(tmp_path.rglob("*")) == before and files.read_json(place / "a.json") == dict(a=1)


LISTENING = """
import time
from mia_jax.runtime import distributed, jobs

class Client:
    def key_value_set(self, *_, **__): pass
    def key_value_dir_get(self, _): return []

distributed.here = lambda: distributed.Processes(1, 2)
distributed._client = Client
distributed.listen(jobs.Pause())
time.sleep(0.1)
"""


def test_the_thread_that_listens_ends_with_the_process():
    """A daemon within a call of JAX aborted some processes at their end."""
    done = subprocess.run([sys.executable, "-c", LISTENING], cwd=ROOT, timeout=60)
    assert done.returncode == 0


def command(folder, *flags):
    return [
        sys.executable,
        "launch.py",
        "--config=configs/quickstart.py:models=4,epochs=6",
        "--config.run.chunk=2",
        "--config.report.draws=40",
        "--config.report.figures=false",
        "--config.learner.shards=2",
        "--attacks=lira,threshold_loss",
        f"--workdir={folder}",
        *flags,
    ]


MESH = ("--config.run.mesh.model=1", "--config.run.mesh.data=2")


def start(folder, index, port, *flags):
    return subprocess.Popen(
        command(folder, f"--distributed=127.0.0.1:{port},2,{index}", *MESH, *flags),
        cwd=ROOT,
        env=os.environ | dict(JAX_PLATFORMS="cpu"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def both(folder, *flags):
    port = free_port()
    return [start(folder, i, port, *flags) for i in (0, 1)]


def ended(processes, timeout=400):
    try:
        streams = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], [err for _, err in streams]


def results(folder):
    """{path: arrays without seconds} of models, signals and scores."""
    return {
        str(path.relative_to(folder)): {
            name: array
            for name, array in (
                files.read_npz(path) if path.suffix == ".npz" else dict(all=files.read_npy(path))
            ).items()
            if name != "history/summary/seconds"
        }
        for part in ("train/model", "signal", "attack")
        for path in sorted((folder / part).rglob("*.np?"))
    }


def assert_equal(expected, actual):
    assert expected and list(expected) == list(actual)
    for path, arrays in expected.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, actual[path][name], f"{path}: {name}")


@pytest.mark.slow
def test_two_processes_that_share_batches_make_the_files_of_one(tmp_path):
    done = subprocess.run(command(tmp_path / "one"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = results(tmp_path / "one")

    codes, errors = ended(both(tmp_path / "two"))
    assert codes == [0, 0], errors
    assert_equal(expected, results(tmp_path / "two"))
    names = [
        sorted(str(p.relative_to(tmp_path / run)) for p in (tmp_path / run).rglob("*"))
        for run in ("one", "two")
    ]
    assert names[0] == names[1] and "plan:" in errors[0] and "plan:" not in errors[1]


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_process_pauses_both(asked, tmp_path):
    flags = ["--config.learner.epochs=60", "--config.run.checkpoint_every=0", "--stages=train"]
    done = subprocess.run(command(tmp_path / "one", *flags), cwd=ROOT, capture_output=True)
    assert done.returncode == 0
    processes = both(tmp_path / "two", *flags)
    end = time.monotonic() + 120
    while not list((tmp_path / "two").glob("metrics*")) and time.monotonic() < end:
        time.sleep(0.05)
    processes[asked].send_signal(signal.SIGTERM)
    codes, errors = ended(processes)
    assert codes == [jobs.PAUSED] * 2, errors
    assert list((tmp_path / "two" / "train" / "running").glob("[0-9]*.npz"))
    codes, errors = ended(both(tmp_path / "two", *flags))
    assert codes == [0, 0], errors
    assert_equal(results(tmp_path / "one"), results(tmp_path / "two"))


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_others_with_a_sentence(tmp_path):
    processes = both(tmp_path, "--config.learner.epochs=3000", "--stages=train")
    end = time.monotonic() + 120
    while not list(tmp_path.glob("metrics*")) and time.monotonic() < end:
        time.sleep(0.05)
    processes[1].kill()
    codes, errors = ended(processes)
    assert codes == [1, -signal.SIGKILL], errors
    assert "another process of this run was lost; start the same command" in errors[0]
    assert "Traceback" not in errors[0]


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_with_a_sentence(tmp_path):
    port = free_port()
    good = start(tmp_path, 0, port)
    bad = start(tmp_path, 1, port, "--config.run.memory_bytes=1000")
    codes, errors = ended([good, bad])
    assert codes == [1, 1] and "the plan needs about" in errors[1], errors
    assert "process 1 failed, so this one ends: the plan needs about" in errors[0]
    assert "Traceback" not in "".join(errors)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_waits_in_vain_ends_with_a_sentence(index):
    code = "from mia_jax.runtime import distributed\n"
    code += f"distributed.initialize('127.0.0.1:{free_port()},2,{index}', seconds=3)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "not all processes came together within 3 s" in done.stderr
    assert "Traceback" not in done.stderr and "Fatal" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--task=0/2", "--grid", "--slurm=2", "--debug", "--summary"])
def test_flags_that_do_not_go_together_are_refused(flag, tmp_path):
    done = subprocess.run(
        command(tmp_path, flag, "--distributed=127.0.0.1:1,2,0"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"--distributed does not go with {flag.partition('=')[0]}: " in done.stderr
