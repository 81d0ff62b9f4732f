"""Tests run.mesh: the bits of models do not depend on the devices that share their batches.

XLA cuts sums by the threads of its pool, of which there are as many as devices; all fleets of a
test are therefore trained in one process, on the first of its devices.
"""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from mia_jax.learners import _shards
from mia_jax.training import mesh
from tests import toys
from tests.training import fleet_test

ROOT = pathlib.Path(__file__).resolve().parents[2]

FLEETS = """
import dataclasses, pathlib, sys
import jax
from mia_jax.runtime import jobs
from mia_jax.training import mesh
from tests import toys
from tests.training import fleet_test

folder = pathlib.Path(sys.argv[1])
learner = toys.learner(model=toys.mlp(width=256, rate=0.2), batch_size=8, shards=4, epochs=2, l2=.1)

def groups(**fields):
    return mesh.make(devices=jax.devices(), shards=4, **fields)

def train(name, devices, **more):
    return fleet_test.train(folder / name, learner=learner, devices=devices, **more)

train("one", jax.devices()[:1])
train("four", groups(data=4))
try:
    train("moved", groups(model=2, data=2), pool_bytes=1000, pause=toys.Stop(7))
except jobs.Paused:
    assert list((folder / "moved" / "running").iterdir())
train("moved", jax.devices()[:1], pool_bytes=1000)
train("apart", groups(data=2, parameters=True))
"""


def in_process(code: str, *arguments, devices: int = 8) -> str:
    """Runs code in a process with so many fake devices; returns what it prints."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    if "optimization_level=0" in os.environ.get("XLA_FLAGS", ""):
        flags += " --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu"),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def test_devices_that_share_batches_give_the_bits_of_one(tmp_path):
    """Also if the pool is streamed and the job was interrupted on another mesh."""
    in_process(FLEETS, tmp_path, devices=4)
    one, four, moved, apart = (
        [fleet_test.read(tmp_path / name, m) for m in range(4)]
        for name in ("one", "four", "moved", "apart")
    )
    assert toys.same(one, four) and toys.same(one, moved)
    assert [set(m) for m in one] == [set(m) for m in apart]
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class Device:
    def __init__(self, id):
        self.id, self.platform = id, "cpu"


def test_a_mesh_that_does_not_fit_is_refused():
    devices = [Device(i) for i in range(4)]
    with pytest.raises(ValueError, match=r"model=2 x data=4 are 8 devices, and there are 4 \(cpu"):
        mesh.make(devices=devices, shards=8, model=2, data=4)
    with pytest.raises(ValueError, match=r"data=3 does not divide learner\.shards=4.*of 1, 2, 4"):
        mesh.make(devices=devices, shards=4, data=3)
    with pytest.raises(ValueError, match=r"data=2 does not divide learner\.shards=1.*data=1, or"):
        mesh.make(devices=devices, shards=1, data=2)
    with pytest.raises(ValueError, match=r"run\.mesh\.parameters.*data=1"):
        mesh.make(devices=devices, shards=4, parameters=True)
    with pytest.raises(ValueError, match=r"run\.mesh\.model=0"):
        mesh.make(devices=devices, shards=4, model=0)
    assert mesh.make(devices=devices, shards=1, model=2) == devices[:2]


def test_large_arrays_are_spread_over_their_longest_axis():
    assert _shards.spec((3, 3, 64, 128), 4) == jax.P(None, None, None, "data")
    assert _shards.spec((2, 512, 6), 4, first=1) == jax.P(None, "data")
    assert (
        _shards.spec((512, 3), 1) == _shards.spec((128,), 4) == _shards.spec((1025,), 4) == jax.P()
    )
