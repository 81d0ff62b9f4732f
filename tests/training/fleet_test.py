"""Tests law 2: the same program gives the same bits.

This covers resuming, extension, streaming and devices, and what a fleet does with NaN and damaged
files.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mia_jax.learners import stopping
from mia_jax.runtime import files, jobs
from mia_jax.training import checkpoint, fleet, programs
from mia_jax.training import cost as measure
from tests import toys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def train(folder, *, models=4, learner=None, **fields):
    """Trains the toy fleet in a folder; returns {model: arrays on disk without its seconds}."""
    rows, weight = toys.halves(models=max(models, 4))
    fields = dict(chunk=2, checkpoint_every=2, seed=0, lanes=1) | fields
    learner = learner or toys.plain()
    validation = fields.get("validation") is not None
    fleet.train(
        learner=learner,
        program=toys.compiled(learner, chunk=fields["chunk"], validation=validation),
        pool=toys.pool(),
        rows_MK=rows,
        weight_MK=weight,
        models=range(models),
        folder=folder,
        **fields,
    )
    return {m: read(folder, m) for m in range(models)}


def read(folder, m):
    from mia_jax.runtime import files

    return {
        k: v
        for k, v in files.read_npz(checkpoint.model_file(folder, m)).items()
        if "seconds" not in k
    }


def test_a_fleet_equals_single_runs(tmp_path):
    together, alone = train(tmp_path / "a", chunk=4), train(tmp_path / "b", chunk=1)
    for m in range(4):
        for name in together[m]:
            np.testing.assert_allclose(together[m][name], alone[m][name], atol=1e-5, err_msg=name)


def test_twins_differ_and_a_model_depends_on_seed_and_index_alone(tmp_path):
    first = train(tmp_path / "a", models=4)
    assert not toys.same(first[0], first[1])
    rows, weight = toys.halves()
    fleet.train(
        learner=toys.learner(),
        pool=toys.pool(),
        rows_MK=rows,
        weight_MK=weight,
        models=[3, 1],
        folder=tmp_path / "b",
        chunk=2,
        seed=0,
    )
    assert toys.same(first[3], read(tmp_path / "b", 3)) and toys.same(
        first[1], read(tmp_path / "b", 1)
    )
    assert not toys.same(first[0], train(tmp_path / "c", models=1, seed=1)[0])


def test_an_extended_fleet_keeps_its_first_models(tmp_path):
    whole = train(tmp_path / "whole", models=6)
    train(tmp_path / "grown", models=3)
    before = checkpoint.model_file(tmp_path / "grown", 0).stat().st_mtime_ns
    grown = train(tmp_path / "grown", models=6)
    assert checkpoint.model_file(tmp_path / "grown", 0).stat().st_mtime_ns == before
    assert all(toys.same(whole[m], grown[m]) for m in range(6))


def test_lanes_give_the_bits_of_one(tmp_path):
    assert toys.same(train(tmp_path / "a", models=6, lanes=3), train(tmp_path / "b", models=6))


class Stopped(Exception):
    """Simulates a kill between two epochs."""


def test_resume_equals_uninterrupted(tmp_path):
    whole = train(tmp_path / "whole")

    def stop(models, epoch, state, metrics):
        if epoch == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path / "cut", on_epoch=[stop])
    assert checkpoint.load_running.__name__ and list((tmp_path / "cut" / "running").glob("*.npz"))
    assert toys.same(whole, train(tmp_path / "cut"))
    assert not list((tmp_path / "cut" / "running").glob("*.npz"))


def test_early_stopping_is_per_model_and_freezes(tmp_path):
    """Each model of a chunk stops at a different epoch.

    It has the variables of a run with that many epochs.
    """
    rule = stopping.make(monitor="val_loss", patience=1, min_delta=0.03)
    rows, weight = toys.halves()
    learner = toys.learner(stopping=rule, epochs=40)
    train(tmp_path / "a", learner=learner, chunk=4, validation=(rows[[1, 0, 3, 2]], weight))
    epochs = {
        m: int(checkpoint.load_history(tmp_path / "a", m)["summary/epochs"]) for m in range(4)
    }
    assert len(set(epochs.values())) > 1 and max(epochs.values()) < 40
    for m, count in epochs.items():
        history = checkpoint.load_history(tmp_path / "a", m)
        assert len(history["val_loss"]) == len(history["loss"]) == count
        assert history["summary/stopped"] and history["summary/best_epoch"] == count - 1
        plain = train(tmp_path / f"plain{m}", learner=toys.learner(epochs=count), chunk=4)
        for name, value in plain[m].items():
            if name.startswith("variables"):
                np.testing.assert_allclose(read(tmp_path / "a", m)[name], value, atol=1e-5)


def test_restore_best_keeps_the_best_epoch(tmp_path):
    rows, weight = toys.halves()
    states = {}

    def keep(models, epoch, state, metrics):
        states[epoch] = np.asarray(state.variables["params"]["Dense_1"]["kernel"]).copy()

    learner = toys.learner(
        stopping=stopping.make(monitor="val_loss", patience=2, restore_best=True, min_delta=0.02),
        epochs=40,
    )
    train(
        tmp_path / "a",
        learner=learner,
        chunk=4,
        validation=(rows[[1, 0, 3, 2]], weight),
        on_epoch=[keep],
    )
    for m in range(4):
        best = int(checkpoint.load_history(tmp_path / "a", m)["summary/best_epoch"])
        assert np.array_equal(
            read(tmp_path / "a", m)["variables/params/Dense_1/kernel"], states[best][m]
        )


def test_a_streamed_pool_gives_the_same_models(tmp_path):
    assert toys.same(train(tmp_path / "a"), train(tmp_path / "b", pool_bytes=1000))


def test_zero_epochs_are_the_initial_models(tmp_path):
    arrays = train(tmp_path / "a", learner=toys.learner(epochs=0))
    assert (
        arrays[0]["summary/epochs" if "summary/epochs" in arrays[0] else "history/summary/epochs"]
        == 0
    )


def test_a_diverging_model_is_named_and_recorded_and_finished_ones_are_kept(tmp_path):
    """A diverging model leaves a record instead of a model and does not end the fleet.

    See also tests/pipeline/failures_test.py.
    """
    train(tmp_path / "a", models=2)
    rows, weight = toys.halves()
    learner = toys.learner(optimizer="sgd", learning_rate=1e38)
    failed = fleet.train(
        learner=learner,
        pool=toys.pool(),
        rows_MK=rows,
        weight_MK=weight,
        models=range(4),
        folder=tmp_path / "a",
        chunk=2,
        seed=0,
    )
    assert sorted(failed) == [2, 3] and all(
        "its loss became" in record["reason"] for record in failed.values()
    )
    assert checkpoint.finished(tmp_path / "a", range(4)) == [0, 1]


def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path):
    def stop(models, epoch, state, metrics):
        if epoch == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path / "a", on_epoch=[stop])
    (path,) = (tmp_path / "a" / "running").glob("*.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"running/.*is damaged .*Delete it"):
        train(tmp_path / "a")
    path.unlink()
    train(tmp_path / "a")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train(tmp_path / "a", models=1)
    model = toys.mlp(width=9)
    import jax

    template = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 5), np.float32))
    with pytest.raises(
        ValueError, match=r"'variables/params/Dense_0/.*expected float32\((9,|5, 9)"
    ):
        checkpoint.load_models(tmp_path / "a", [0], template)


def test_a_monitor_that_does_not_exist_lists_the_metrics(tmp_path):
    with pytest.raises(
        ValueError, match=r"monitor='val_loss' is not a metric.*Metrics: accuracy, loss \(val_"
    ):
        train(tmp_path / "a", learner=toys.learner(stopping=stopping.make(monitor="val_loss")))
    sharded = toys.learner(stopping=stopping.make(monitor="loss"), shards=4)
    fleet.check_monitor(learner=sharded, pool=toys.pool(), num_rows=30, validation=False)


def test_metrics_are_logged_once_an_epoch_and_model(tmp_path):
    train(tmp_path / "a", metrics_file=tmp_path / "metrics.jsonl")
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {(r["model"], r["epoch"]) for r in records} == {
        (m, e) for m in range(4) for e in range(1, 6)
    } and len(records) == 20
    assert all(np.isfinite(r["loss"]) and 0 <= r["accuracy"] <= 1 for r in records)


@pytest.mark.slow
def test_best_chunk_is_a_power_of_two_that_fits():
    rows, weight = toys.halves(models=8)
    common = dict(
        learner=toys.learner(),
        pool=toys.pool(),
        rows_K=rows[0],
        weight_K=weight[0],
        forms=("",),
        chunks=measure.ladder(8),
        log=lambda text: None,
    )
    _, chunk, cost, timed = measure.fastest(**common, memory_bytes=2**40)
    assert (
        chunk in (1, 2, 4, 8)
        and cost.steps == 4
        and cost.parameters == 5 * 8 + 8 + 8 * 3 + 3
        and cost.seconds > 0
        and cost.bytes > 0
        and [row.chunk for row in timed] == [1, 2, 4, 8][: len(timed)]
    )
    assert measure.fastest(**common, memory_bytes=0).chunk == 1


KILLED = """
import sys, time, pathlib
from tests.training import fleet_test
slow = [lambda *a: time.sleep(0.3)]
fleet_test.train(pathlib.Path(sys.argv[1]), on_epoch=slow, checkpoint_every=1)
"""


def test_kill_9_then_the_same_command_gives_the_same_bits(tmp_path):
    whole = train(tmp_path / "whole", checkpoint_every=1)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "cut")], cwd=ROOT, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while (
        time.monotonic() < deadline
        and process.poll() is None
        and not list((tmp_path / "cut" / "running").glob("0*.npz"))
    ):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert (
        process.returncode == -signal.SIGKILL
        and len(checkpoint.finished(tmp_path / "cut", range(4))) < 4
    )
    assert toys.same(whole, train(tmp_path / "cut", checkpoint_every=1))


DEVICES = """
import os, sys, pathlib
import jax
from tests.training import fleet_test
assert len(jax.devices()) == 8
fleet_test.train(pathlib.Path(sys.argv[1]), models=6, chunk=2, devices=jax.devices())
fleet_test.train(pathlib.Path(sys.argv[2]), models=6, chunk=2, devices=jax.devices()[:1])
from mia_jax.privacy import noise
leaf = jax.ShapeDtypeStruct((16, 9), "float32")
mesh, axes = jax.make_mesh((8,), ("devices",)), jax.sharding.PartitionSpec("devices")
spread = jax.sharding.NamedSharding(mesh, axes)
draw = lambda key: noise.gaussian(key, leaf, 1.5)
drawn, single = (
    jax.jit(draw, out_shardings=to)(jax.random.key(0)) for to in (spread, None)
)
assert len(drawn.sharding.device_set) == 8 and len(single.sharding.device_set) == 1
assert (jax.device_get(drawn) == jax.device_get(single)).all()
"""


def test_eight_devices_give_the_bits_of_one(tmp_path):
    """Tests a fleet that is spread over devices, and the noise of a step whose parameters are."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    subprocess.run(
        [sys.executable, "-c", DEVICES, str(tmp_path / "eight"), str(tmp_path / "one")],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    assert toys.same(
        [read(tmp_path / "eight", m) for m in range(6)],
        [read(tmp_path / "one", m) for m in range(6)],
    )


def test_every_bit_of_a_seed_counts():
    keys = [
        jax.random.key_data(programs.model_keys(seed=seed, models=[0]))[0]
        for seed in (5, 5 + 2**32, 5 + 2**62)
    ]
    assert (
        keys[0]
        == jax.random.key_data(jax.random.fold_in(jax.random.key(5, impl="threefry2x32"), 0))
    ).all()
    assert all((keys[a] != keys[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))


def test_a_tracker_gets_the_lines_of_metrics_jsonl_and_changes_no_bit(tmp_path):
    plain = train(tmp_path / "plain", metrics_file=tmp_path / "plain.jsonl")
    seen = []
    tracked = train(tmp_path / "a", metrics_file=tmp_path / "a.jsonl", track=seen.extend)
    alone = []
    train(tmp_path / "b", track=alone.extend)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert toys.same(plain, tracked)
    assert seen == lines == alone and len(lines) > 4
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_a_streamed_fleet_pauses_within_an_epoch_and_resumes_to_the_same_bits(tmp_path):
    streamed = dict(models=2, pool_bytes=1000, checkpoint_every=0)
    counted = toys.Stop(10**9)
    whole = train(tmp_path / "whole", pause=counted, **streamed)
    places = 10**9 - counted.left
    assert places >= 2 * toys.learner().epochs  # several parts an epoch
    steps = []
    for place in sorted({1, places // 2, places - 1}):
        folder = tmp_path / f"{place}"
        with pytest.raises(jobs.Paused):
            train(folder, pause=toys.Stop(place), **streamed)
        (saved,) = (folder / "running").iterdir()
        steps.append(int(files.read_npz(saved).get("steps", 0)))
        assert toys.same(whole, train(folder, **streamed)), place
    assert steps[0] > 0


def test_a_checkpoint_is_written_within_a_long_epoch(tmp_path):
    """After checkpoint_minutes, whatever checkpoint_every is."""
    written = []

    class Die(Exception):
        pass

    def look():
        written.extend((tmp_path / "running").glob("*.npz"))
        if written:
            raise Die

    streamed = dict(models=2, pool_bytes=1000, checkpoint_every=0)
    with pytest.raises(Die):
        train(tmp_path, pause=look, checkpoint_minutes=1e-9, **streamed)
    arrays = files.read_npz(written[0])
    assert arrays["epoch"] == 0 and arrays["steps"] > 0 and "sums/loss" in arrays
    assert toys.same(train(tmp_path / "whole", **streamed), train(tmp_path, **streamed))
