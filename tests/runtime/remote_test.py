"""A workdir in an object store holds the files of a local one, byte for byte, whatever happens."""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mia_jax import configuration
from mia_jax.commands import status
from mia_jax.pipeline import run
from mia_jax.runtime import files, jobs, remote
from tests import toys
from tests.commands.watch_test import workdir

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICK = (0.0, 0.0, 0.0, 0.0)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store in memory; mirrors are below tmp_path."""
    (tmp_path / "mirrors").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "mirrors"))
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


def opened(url="memory://bucket/run"):
    return remote.mirrored(url, argument="--workdir", owner="test.1", waits=QUICK)


def held(system, prefix="/bucket/run/"):
    return {
        name.removeprefix(prefix): bytes(file.getbuffer())
        for name, file in system.store.items()
        if name.startswith(prefix)
    }


def local(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file()
    }


def test_every_way_to_write_reaches_the_store_and_its_paths_stay_of_the_mirror(store):
    folder = opened()
    assert isinstance((folder / "a" / "b").with_suffix(".json").parent, remote.Mirrored)
    files.write_json(folder / "train" / "a.json", dict(a=1))
    files.write_npz(folder / "train" / "model" / "00000.npz", dict(run="r"), x=np.arange(3))
    files.append_jsonl(folder / "metrics.jsonl", [dict(a=1)])
    files.append_jsonl(folder / "metrics.jsonl", [dict(a=2)])
    assert "metrics.jsonl" not in held(store)
    files.write_json(folder / "train" / "a.json", dict(a=2))
    assert held(store) == local(folder)  # what was appended is written before the next file
    files.append_jsonl(folder / "metrics.jsonl", [dict(a=3)])
    assert files.claim(folder / "attack", dict(a=1), remedy="")
    assert held(store) == local(folder)
    (folder / "train" / "a.json").unlink()
    files.move(folder / "train" / "model" / "00000.npz", folder / "failed.npz")
    files.write_text(folder / "attack" / "x" / "scores", "1")
    assert files.set_aside(folder / "attack").name == "attack.1"
    assert held(store) == local(folder) and "attack.1/x/scores" in held(store)
    (folder / "tracker").mkdir()
    pathlib.Path(folder / "tracker" / "events").write_bytes(b"of another library")
    folder.mirror.finish()
    assert held(store) == local(folder)
    remote.remove(folder)
    again = opened()
    assert held(store) == local(again) and not pathlib.Path(folder).exists()
    assert files.read_npz(again / "failed.npz")["x"].tolist() == [0, 1, 2]


def test_a_folder_with_files_that_the_store_lacks_is_renamed_whole(store):
    folder = opened()
    files.write_text(folder / "attack" / "known", "1")
    for name in ("new", "known"):  # written by others than files.py
        pathlib.Path(folder / "attack" / name).write_bytes(b"of another library")
    assert files.set_aside(folder / "attack").name == "attack.1"
    assert (
        held(store)
        == local(folder)
        == dict.fromkeys(("attack.1/new", "attack.1/known"), b"of another library")
    )


def test_what_another_process_created_first_is_read(store):
    mine, other = opened(), opened()
    assert files.create_json(other / "plan.json", dict(chunk=2))
    assert not files.create_json(mine / "plan.json", dict(chunk=4))
    assert files.read_json(mine / "plan.json") == dict(chunk=2)
    with pytest.raises(ValueError, match="belongs to another config"):
        files.claim(other / "x", dict(a=1), remedy="")
        files.claim(mine / "x", dict(a=2), remedy="")


class Unreliable(MemoryFileSystem):
    """A store of which some operations fail: every third, or all."""

    protocol = "unreliable"
    cachable = False
    always: ClassVar[list[Exception]] = []
    count = 0
    lock = threading.Lock()

    def _fails(self):
        with self.lock:
            Unreliable.count += 1
            if self.always:
                raise self.always[0]
            if self.count % 3 == 0:
                raise ConnectionResetError("the connection was closed")

    def put_file(self, *args, **more):
        self._fails()
        return super().put_file(*args, **more)

    def pipe_file(self, *args, **more):
        self._fails()
        return super().pipe_file(*args, **more)

    def get_file(self, *args, **more):
        self._fails()
        return super().get_file(*args, **more)

    def find(self, *args, **more):
        self._fails()
        return super().find(*args, **more)


@pytest.fixture
def unreliable(store):
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    yield store
    Unreliable.always = []


def test_an_operation_that_fails_now_and_then_is_tried_again(unreliable):
    folder = opened("unreliable://bucket/run")
    for i in range(20):
        files.write_json(folder / f"{i}.json", dict(i=i))
        assert files.claim(folder / f"f{i}", dict(i=i), remedy="")
    assert (
        held(unreliable, "unreliable://bucket/run/") == local(folder) and len(local(folder)) == 40
    )


def test_a_store_that_is_gone_or_closed_is_named_and_the_mirror_shows_nothing_it_lacks(unreliable):
    folder = opened("unreliable://bucket/run")
    files.write_json(folder / "a.json", dict(a=1))
    for error, words in (
        (ConnectionResetError("closed"), r"could not be written in 5 attempts \(closed\)"),
        (PermissionError("Forbidden"), r"Forbidden\. Without credentials nothing was changed"),
        (FileNotFoundError("no bucket"), r"no bucket; is there such a bucket\?"),
        (NotImplementedError("a page"), r"this kind of store cannot .* needs \(a page\)"),
    ):
        Unreliable.always = [error]
        with pytest.raises(OSError, match=words) as raised:
            files.write_json(folder / "a.json", dict(a=2))
        assert raised.value.filename == "unreliable://bucket/run/a.json"
        assert files.read_json(folder / "a.json") == dict(a=1)
        assert held(unreliable, "unreliable://bucket/run/") == local(folder)
        with pytest.raises(OSError, match=r"attempts|credentials|bucket|kind of store"):
            opened("unreliable://bucket/run")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/run", r'package for gs:// is missing \(pip install "mia_jax\[gcs\]"\)'),
        ("s3://bucket/run", r'package for s3:// is missing \(pip install "mia_jax\[s3\]"\)'),
        ("nothing://bucket/run", "Protocol not known: nothing. Nothing was written."),
        ("gs://", "expected scheme://bucket/folder"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused(url, words, monkeypatch):
    for name in ("gcsfs", "s3fs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=words):
        opened(url)


def test_status_reads_an_address_and_copies_no_arrays(store, capsys):
    folder = opened()
    workdir(folder, trained=[0, 1], models=4)
    folder.mirror.finish()
    before = held(store)
    assert status.main(["memory://bucket/run"]) == 1
    text = capsys.readouterr().out
    assert text.startswith("memory://bucket/run: ") and "train   2 done: 0-1\n" in text
    assert held(store) == before
    url = "memory://bucket/run"
    with remote.shown(url, argument="", owner="test.1", only=(".json",)) as copy:
        model = copy / "train" / "model" / "00000.npz"
        assert model.stat().st_size == 0 and (copy / "run.json").stat().st_size > 0


def test_messages_name_addresses(store, capsys):
    folder = opened()
    jobs.say(f"{folder / 'train'} is damaged")
    assert capsys.readouterr().err == "memory://bucket/run/train is damaged\n"


def test_what_is_left_of_dead_processes_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for owner in (f"here.{gone.pid}", f"here.{os.getpid()}", f"elsewhere.{gone.pid}"):
        (tmp_path / f"{remote.PREFIX}{owner}.abc").mkdir()
    remote.sweep("here")
    assert len(list(tmp_path.iterdir())) == 2


def config(models=6, **fields):
    return configuration.complete(
        data=dict(name="synthetic", examples=60, features=10, classes=3, random_labels=True),
        design=dict(name="halves", models=models),
        model=dict(name="mlp", widths=(8,)),
        learner=dict(epochs=4, batch_size=10),
        attacks=dict(lira=dict(), loss=dict(name="threshold", signal="loss")),
        report=dict(draws=40, figures=False),
        run=dict(chunk=2, checkpoint_every=1, lanes=1),
        **fields,
    )


def arrays(folder):
    """{path: arrays} of what a run computed."""
    return {
        path.relative_to(folder).as_posix(): {
            name: value.tobytes()
            for name, value in (
                files.read_npz(path) if path.suffix == ".npz" else dict(all=files.read_npy(path))
            ).items()
            if name != "history/summary/seconds"
        }
        for path in sorted(pathlib.Path(folder).rglob("*.np?"))
    }


@pytest.mark.slow
def test_a_run_in_a_store_is_that_of_a_folder_through_pauses_and_growth(store, tmp_path):
    whole = run.run(config(), workdir_path=tmp_path / "a")
    for places in (3, 5, 11):
        folder = opened()
        with pytest.raises(jobs.Paused):
            run.run(config(), workdir_path=folder, pause=toys.Stop(places))
        folder.mirror.flush()
        assert held(store) == local(folder)
        remote.remove(folder)
    folder = opened()
    report = run.run(config(), workdir_path=folder)
    assert report["results"] == whole["results"]
    assert held(store) == local(folder)
    assert arrays(tmp_path / "a") == arrays(folder)
    names = {name for name in local(tmp_path / "a") if not name.startswith("run")}
    assert names == {name for name in local(folder) if not name.startswith("run")}
    remote.remove(folder)
    run.run(config(models=8), workdir_path=tmp_path / "a", extend=True)
    folder = opened()
    run.run(config(models=8), workdir_path=folder, extend=True)
    assert arrays(tmp_path / "a") == arrays(folder) and held(store) == local(folder)
    assert any(name.startswith("attack.1/") for name in held(store))
    remote.remove(folder)


ACROSS = """
import os, pathlib, shutil, sys
import fsspec
from fsspec.implementations.local import LocalFileSystem
class Disk(LocalFileSystem):
    protocol = "disk"
    def __init__(self, **more): super().__init__(auto_mkdir=True, **more)
    @classmethod
    def _strip_protocol(cls, path):
        return os.environ["DISK"] + "/" + str(path).partition("://")[2] if "://" in path else path
fsspec.register_implementation("disk", Disk)
from mia_jax import __main__ as command
command.start()
"""


@pytest.mark.slow
def test_tasks_of_several_processes_share_a_store(tmp_path):
    """Each process has its own mirror; DISK stands for the store."""
    (tmp_path / "store").mkdir()
    flags = ["--config=configs/quickstart.py:models=4,epochs=4", "--config.run.chunk=2"]
    flags += ["--config.report.draws=40", "--attacks=lira", "--config.report.figures=false"]

    def start(*more):
        code = [sys.executable, "-c", ACROSS, *flags, *more]
        environment = os.environ | dict(DISK=str(tmp_path / "store"), TMPDIR=str(tmp_path / "tmp"))
        return subprocess.Popen(code, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    (tmp_path / "tmp").mkdir()
    one = start(f"--workdir={tmp_path / 'one'}")
    assert one.wait(300) == 0, one.stderr.read()
    tasks = [start("--workdir=disk://b/run", f"--task={i}/2") for i in (0, 1)]
    for task in tasks:
        assert task.wait(300) == 0, task.stderr.read()
    rest = start("--workdir=disk://b/run")
    assert rest.wait(300) == 0, rest.stderr.read()
    assert "disk://b/run: " in rest.stderr.read() and not list((tmp_path / "tmp").iterdir())
    assert arrays(tmp_path / "one") == arrays(tmp_path / "store" / "b" / "run")
    one.stderr.close()
    for process in (*tasks, rest):
        process.stderr.close()
