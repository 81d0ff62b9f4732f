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
from tests.runtime import distributed_test
from tests.training import fleet_test

ROOT = pathlib.Path(__file__).resolve().parents[2]

FLEETS = """
import dataclasses, pathlib, sys
import jax
from mia_jax.runtime import jobs
from mia_jax.training import mesh
from tests import toys
from tests.runtime import distributed_test
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


def environment(devices: int) -> dict[str, str]:
    """The environment of a process with so many fake devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    if "optimization_level=0" in os.environ.get("XLA_FLAGS", ""):
        flags += " --xla_backend_optimization_level=0"
    return os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu")


def in_process(code: str, *arguments, devices: int = 8) -> str:
    """Runs code in a process with so many fake devices; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=environment(devices),
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


NETS = """
import pathlib, sys
import jax, numpy as np
from mia_jax import registry
from mia_jax.learners import backprop
from mia_jax.objectives import cross_entropy
from mia_jax.runtime import files
from mia_jax.training import fleet, mesh
from mia_jax.types import Pool, classification

folder, name, chunk = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)
x = rng.random((48, 14, 14, 3), np.float32)
pool = Pool(x=x, y=rng.integers(0, 10, 48).astype(np.int32), task=classification(10))
net, *private = name.split("+")
fields = dict(norm="group") if net == "resnet18" else {}
model = registry.make("models", net, fields, num_classes=10)
banded = dict(noise="banded", bands=3, sampling="cyclic_poisson") if "banded" in private else {}
privacy = dict(noise_multiplier=1.0) | banded
more = dict(gradient="private", privacy=privacy, sample=pool) if private else {}
learner = backprop.make(
    model=model, loss=cross_entropy.make(model=model), num_rows=24, epochs=1,
    batch_size=8 if banded else 16,
    shards=8, **more,
)
rows = np.stack([np.sort(rng.permutation(48)[:24]).astype(np.int32) for _ in range(chunk)])
for count in (1, 2, 4, 8):
    fleet.train(
        learner=learner, pool=pool, rows_MK=rows, weight_MK=np.ones(rows.shape, np.float32),
        seed=0, models=range(chunk), folder=folder / str(count), chunk=chunk, lanes=1,
        devices=mesh.make(devices=jax.devices(), shards=8, data=count),
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, chunk",
    [
        ("mlp", 3),
        ("conv", 2),
        ("conv+private", 2),
        ("conv+private", 1),
        ("mlp+private+banded", 2),
        ("resnet18", 1),
    ],
)
def test_one_two_four_and_eight_devices_give_the_same_bits(tmp_path, name, chunk):
    """Of the models; the training loss that is reported with them is the same up to rounding."""
    in_process(NETS, tmp_path, name, chunk)
    one, *others = (
        [fleet_test.read(tmp_path / str(count), m) for m in range(chunk)] for count in (1, 2, 4, 8)
    )
    for first, second in ((a, b) for other in others for a, b in zip(one, other, strict=True)):
        loss, again = (dict(arrays).pop("history/loss") for arrays in (first, second))
        np.testing.assert_allclose(loss, again, rtol=1e-6)
        assert toys.same(first, second | {"history/loss": loss})


STATE = """
import jax, numpy as np
from mia_jax.training import cost, mesh, programs
from tests import toys

learner = toys.learner(model=toys.mlp(width=4096), shards=2)
rows, weight = toys.halves()
common = dict(learner=learner, pool=toys.pool(), rows_K=rows[0], weight_K=weight[0], chunk=1)
for apart in (False, True):
    (place,) = mesh.make(devices=jax.devices(), shards=2, data=2, parameters=apart)
    program = programs.make(learner=learner, chunk=1, devices=mesh.over(place))
    keys, pool = mesh.put((programs.model_keys(seed=0, models=[0]), toys.pool()), place)
    state = program.init(keys, pool)
    index, weight_SB = program.plan(keys, np.uint32(1), *mesh.put((rows[:1], weight[:1]), place))
    state, _ = program.run(state, pool, index, weight_SB)
    kernel = state.opt[0].mu["Dense_0"]["kernel"]
    bound = cost.least(**common, device=place).bytes
    print(kernel.addressable_shards[0].data.size / kernel.size, bound)
"""


@pytest.mark.slow
def test_with_parameters_every_device_keeps_its_part_of_the_state():
    whole, apart = (line.split() for line in in_process(STATE, devices=2).splitlines())
    assert (whole[0], apart[0]) == ("1.0", "0.5") and int(apart[1]) < 0.6 * int(whole[1])


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--config.run.mesh.parameters=true",)])
def test_two_processes_that_share_batches_give_the_bits_of_one(tmp_path, more):
    """With parameters spread within 1e-6; examples are streamed, checkpoints written and read."""
    config = (
        "--config=configs/quickstart.py:models=4,epochs=3",
        "--config.run.chunk=2",
        "--config.learner.shards=4",
        "--config.run.checkpoint_every=1",
        "--config.run.pool_bytes=100000",
        "--stages=train",
    )
    port = distributed_test.free_port()
    flags = [(f"--workdir={tmp_path / 'one'}",)]
    flags += [
        (
            f"--workdir={tmp_path / 'two'}",
            "--config.run.mesh.data=4",
            f"--distributed=127.0.0.1:{port},2,{i}",
            *more,
        )
        for i in (0, 1)
    ]
    processes = [
        subprocess.Popen([sys.executable, "launch.py", *config, *own], cwd=ROOT, env=environment(2))
        for own in flags
    ]
    assert [process.wait(timeout=400) for process in processes] == [0, 0, 0]
    one, two = (
        [fleet_test.read(tmp_path / name / "train", m) for m in range(4)] for name in ("one", "two")
    )
    assert toys.same(one, two) or more
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
