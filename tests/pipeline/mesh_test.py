"""Tests run.mesh in whole runs: with tasks, growth, watched canaries, an object store, processes.

As in tests/training/mesh_test.py, what is compared was computed on as many devices of a process.
"""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.runtime import files
from tests.runtime import distributed_test, remote_test
from tests.training import mesh_test

ROOT = pathlib.Path(__file__).resolve().parents[2]
CANARIES = ("watched", "private", "dirac")


def config(kind="plain", *, models=6, mesh=None):
    """A fleet of tiny nets, whose batches have four shards.

    Args:
        kind: 'plain' for members and shadows, with snapshots and early stopping; else canaries,
            'watched' in plain training, 'private' in private training, or 'dirac'.
        models: their number.
        mesh: run.mesh.
    """
    data = dict(name="synthetic", examples=160, features=10, classes=3, random_labels=True)
    design, report = dict(name="halves"), dict(draws=40, figures=False)
    learner = dict(epochs=3, batch_size=8, shards=4)
    attacks = dict(lira=dict(), loss=dict(name="threshold", signal="loss"))
    if kind == "plain":
        stop = dict(monitor="val_loss", patience=1)
        learner |= dict(snapshots=(1,), validation="nonmembers", stop=stop)
    else:
        data |= dict(canaries=dict(kind="dirac" if kind == "dirac" else "mislabeled", count=60))
        design = dict(name="canaries", population=0.2, targets=1)
        report |= dict(audit=dict(guesses=(0.3,)))
        learner |= dict(watch=True)
        asked = ("privacy_loss",) if kind == "dirac" else ("update_alignment", "update_change")
        attacks = {name: dict(name="threshold", signal=name, sign=1) for name in asked}
    if kind in ("private", "dirac"):
        privacy = dict(noise_multiplier=1.0, clip_norm=0.1)
        learner |= dict(optimizer="sgd", gradient="private", privacy=privacy)
    return configuration.complete(
        data=data,
        design=design | dict(models=models),
        model=dict(name="mlp", widths=(16,)),
        learner=learner,
        attacks=attacks,
        report=report,
        run=dict(chunk=2, checkpoint_every=1) | ({} if mesh is None else dict(mesh=mesh)),
    )


def computed(folder):
    """{path: {name: bytes}} of all arrays of a run, without what a smaller fleet left behind.

    Also without the training losses, which depend on the mesh in their last bits.
    """
    return {
        path: {k: v for k, v in arrays.items() if k != "history/loss"}
        for path, arrays in remote_test.arrays(folder).items()
        if not path.startswith(("attack.1/", "report.1/"))
    }


def losses(folder):
    """The losses [M,E] of all models of a run."""
    models = sorted((folder / "train" / "model").iterdir())
    return np.stack([files.read_npz(path)["history/loss"] for path in models])


RUNS = """
import pathlib, shutil, sys
import fsspec
from mia_jax.pipeline import run
from mia_jax.runtime import jobs, remote
from tests import toys
from tests.pipeline import mesh_test

folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
system = fsspec.filesystem("memory")

def ran(name, *, models=6, mesh=None, **more):
    run.run(mesh_test.config(kind, models=models, mesh=mesh), workdir_path=folder / name, **more)

def stored(mesh, places):
    there = remote.mirrored("memory://bucket/run", argument="", owner="test.1", waits=(0.0,))
    config, paused = mesh_test.config(kind, mesh=mesh), False
    try:
        run.run(config, workdir_path=there, pause=toys.Stop(places))
    except jobs.Paused:
        paused = True
    there.mirror.finish()
    remote.remove(there)
    return paused

groups = dict(model=2, data=2)
ran("one")
ran("four", mesh=dict(data=4))
for stages in (run.STAGES, ("query",), ("attack",)):
    for i in (0, 1):
        ran("tasks", mesh=groups, task=(i, 2), stages_wanted=stages)
ran("tasks")
ran("grown", models=4, mesh=dict(data=4))
ran("grown", mesh=groups, extend=True)
assert stored(dict(data=4), 3) and stored(groups, 4) and not stored(dict(data=2), 1000)
system.get("/bucket/run", str(folder / "stored"), recursive=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["plain", *CANARIES])
def test_a_run_on_a_mesh_makes_the_files_of_one_device(tmp_path, kind):
    """By tasks, with growth, and in an object store with pauses on other meshes."""
    mesh_test.in_process(RUNS, tmp_path, kind, devices=4)
    expected = computed(tmp_path / "one")
    for name in ("four", "tasks", "grown", "stored"):
        assert computed(tmp_path / name) == expected, name
        np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / "one"), rtol=1e-6)


CONFIG = """
from tests.pipeline import mesh_test

def get_config(argument=""):
    return mesh_test.config({kind!r})
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["plain", "private"])
def test_two_processes_of_a_mesh_grow_the_fleet_of_one(tmp_path, kind):
    """The first models are one process's, the others are trained by two."""
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(kind=kind))
    environment = mesh_test.environment(2) | dict(PYTHONPATH=str(ROOT))

    def start(name, *flags):
        command = [sys.executable, "launch.py", f"--config={config}"]
        command += [f"--workdir={tmp_path / name}", *flags]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=pipe, text=True)

    few = "--config.design.models=4"
    codes, errors = distributed_test.ended([start("one"), start("two", few)], timeout=1000)
    assert codes == [0, 0], errors
    port = distributed_test.free_port()
    both = [
        start(
            "two", "--extend", "--config.run.mesh.data=4", f"--distributed=127.0.0.1:{port},2,{i}"
        )
        for i in (0, 1)
    ]
    codes, errors = distributed_test.ended(both, timeout=1000)
    assert codes == [0, 0], errors
    assert computed(tmp_path / "two") == computed(tmp_path / "one")
