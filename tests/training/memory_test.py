"""Tests that running out of memory gives one sentence and never a wait.

A plan that does not fit is refused, and memory that runs out ends the run with the numbers.
"""

import os
import pathlib
import resource
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.configuration.settings import RunSettings
from mia_jax.pipeline import execution, run
from mia_jax.runtime import files
from mia_jax.training import cost as measure
from mia_jax.training import memory, stream
from tests import toys

ROOT = pathlib.Path(__file__).resolve().parents[2]
GIB = 2**30


def config(*, width=8, run={}, chunk=2, models=4):
    return configuration.complete(
        data=dict(name="synthetic", examples=60, features=10, classes=2),
        design=dict(name="halves", models=models),
        model=dict(name="mlp", widths=(width, width)),
        learner=dict(epochs=1, batch_size=10),
        attacks=dict(loss=dict(name="threshold", signal="loss")),
        report=dict(draws=40, figures=False),
        run=dict(chunk=chunk, lanes=1) | run,
    )


def machine(tmp_path, more={}):
    """Writes the /proc files of a machine with 8 GiB available."""
    meminfo = f"MemTotal: {16 << 20} kB\nMemFree: 1000 kB\nMemAvailable: {8 << 20} kB\n"
    for name, text in {
        "proc/meminfo": meminfo,
        "proc/self/status": f"VmSize: {1 << 20} kB\nVmData: {1 << 19} kB\n",
        **more,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


GROUPS = {
    "version 2, the parent's limit": (
        {
            "proc/self/cgroup": "0::/slurm/job7/step\n",
            "sys/fs/cgroup/slurm/job7/step/memory.max": "max\n",
            "sys/fs/cgroup/slurm/job7/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/slurm/job7/memory.current": f"{2 * GIB}\n",
            "sys/fs/cgroup/slurm/job7/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        },
        3 * GIB,
    ),
    "version 2, a container that sees its own as the root": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{2 * GIB}"},
        2 * GIB,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:cpu:/\n4:memory:/job\n0::/\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{3 * GIB}",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GIB}",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
        2 * GIB,
    ),
    "no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 8 * GIB),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_limit_is_the_smallest_of_the_machine_and_the_control_groups(case, tmp_path):
    more, expected = GROUPS[case]
    limit = memory.available(root=machine(tmp_path, more))
    assert limit.bytes == expected and ("control group" in limit.source) == (expected < 8 * GIB)


@pytest.mark.parametrize(
    ("kind", "words", "left"),
    [
        ("RLIMIT_AS", "ulimit -v", 2 * GIB - memory.RESERVED),
        ("RLIMIT_DATA", "ulimit -d", 5 * GIB // 2),
    ],
)
def test_resource_limits_count_less_what_is_in_use(kind, words, left, tmp_path, monkeypatch):
    monkeypatch.setattr(
        resource,
        "getrlimit",
        lambda which: (3 * GIB, 3 * GIB) if which == getattr(resource, kind) else (-1, -1),
    )
    limit = memory.available(root=machine(tmp_path))
    assert limit.bytes == left and words in limit.source


def test_an_accelerator_has_its_own_limit():
    class Device:
        device_kind = "a chip"

        def memory_stats(self):
            return dict(bytes_limit=100, bytes_in_use=30)

    assert memory.available(Device()) == (70, "free memory of a chip")


def test_a_model_of_billions_of_parameters_is_refused_before_anything_is_compiled(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(measure, "expected", None)
    monkeypatch.setattr(measure, "fastest", None)
    for chunk in (2, "auto"):
        with pytest.raises(
            memory.OutOfMemory,
            match=r"the plan needs about \d+\.\d GB and .* are left \(.*\): chunk \d x 1 "
            r".*28,\d+,\d+,\d+ param",
        ) as raised:
            run.run(config(width=168_000, chunk=chunk), workdir_path=tmp_path)
        for remedy in ("run.chunk", "run.lanes", "run.pool_bytes", "run.memory_bytes"):
            assert remedy in str(raised.value)
    assert (
        not (tmp_path / "train" / "plan.json").exists()
        and not (tmp_path / "train" / "model").exists()
    )


def test_a_plan_is_checked_against_the_memory_that_there_is_now(tmp_path):
    """It is checked at every start.

    memory_bytes replaces the measured memory, whether it is smaller or larger.
    """
    options = dict(workdir_path=tmp_path, stages_wanted=["train"])
    with pytest.raises(
        memory.OutOfMemory,
        match=r"needs about 0\.\d+ MB and 0\.001 MB are left \(config.run.memory_bytes\)",
    ):
        run.run(config(run=dict(memory_bytes=1000)), **options)
    run.run(config(), **options)
    (tmp_path / "train" / "model" / "00003.npz").unlink()
    with pytest.raises(memory.OutOfMemory, match="memory_bytes"):
        run.run(config(run=dict(memory_bytes=1000)), **options)
    run.run(config(run=dict(memory_bytes=10**9)), **options)


def test_lanes_and_cpu_devices_share_the_memory_and_the_examples_are_counted_once():
    cost = measure.Cost(
        bytes=100, seconds=0.0, compile_seconds=0.0, steps=1, parameters=5, shared=60
    )

    settings = RunSettings(devices=1, pool_bytes=1000)

    def check(lanes, there):
        return execution.check_memory(
            settings, cost, chunk=2, lanes=lanes, limit=memory.Limit(there, "a test")
        )

    check(3, 180)
    with pytest.raises(
        memory.OutOfMemory,
        match=r"0.00018 MB.*chunk 2 x 3 chunks at a time x 2e-05 MB per model of 5 parameters, and "
        r"examples of 6e-05",
    ):
        check(3, 179)


def test_fewer_chunks_train_at_a_time_where_memory_is_short_and_nobody_said_how_many(
    tmp_path, capsys
):
    """Fewer chunks change no result; a configured number of lanes is used as it is, or refused."""
    run.run(config(run=dict(lanes=1)), workdir_path=tmp_path / "a", stages_wanted=["train"])
    plan = files.read_json(tmp_path / "a" / "train" / "plan.json")
    enough = plan["bytes"] + (plan["bytes"] - plan["shared"]) // 2  # for one chunk, not for two
    for lanes in (0, 2):
        place = dict(workdir_path=tmp_path / f"b{lanes}", stages_wanted=["train"])
        settings = config(models=8, run=dict(lanes=lanes, memory_bytes=enough))
        if lanes:
            with pytest.raises(memory.OutOfMemory, match="chunk 2 x 2 chunks at a time"):
                run.run(settings, **place)
        else:
            run.run(settings, **place)
            assert "chunk 2, 1 at a time on 1 device (cpu" in capsys.readouterr().err


def test_a_streamed_pool_is_planned_with_its_parts():
    rows, weight = toys.halves(models=4)
    common = dict(
        learner=toys.learner(),
        pool=toys.pool(examples=60),
        rows_K=rows[0],
        weight_K=weight[0],
        chunk=2,
    )
    whole, streamed = measure.expected(**common), measure.expected(**common, pool_bytes=1000)
    assert (
        whole.shared == stream.num_bytes(toys.pool())
        and streamed.shared == 0
        and streamed.steps == whole.steps == 4
    )
    assert (
        streamed.bytes < whole.bytes
        and measure.least(**common).bytes <= whole.bytes
        and measure.least(**common, pool_bytes=1000).shared == 0
    )


def test_the_fastest_chunk_is_one_for_which_memory_is_enough(monkeypatch):
    """A measurement chooses the smaller chunk when memory runs out, whatever the error says.

    An error that has nothing to do with memory is raised.
    """
    rows, weight = toys.halves(models=8)
    common = dict(
        learner=toys.learner(),
        pool=toys.pool(),
        rows_K=rows[0],
        weight_K=weight[0],
        forms=("",),
        chunks=measure.ladder(8),
        memory_bytes=2**40,
    )
    lines = []

    def failing(error, at):
        def measured(*, chunk, **kwargs):
            if chunk >= at:
                raise error
            return measure.Cost(1, 1.0 / chunk, 0.0, 4, 5)

        monkeypatch.setattr(measure, "measured", measured)
        return measure.fastest(**common, log=lines.append)

    for error in (
        MemoryError("x"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
        jax.errors.JaxRuntimeError("INTERNAL: YNNPACK operation failed"),
    ):
        assert failing(error, 4).chunk == 2 and lines[-1] == "chunk 4: out of memory"
        with pytest.raises(type(error)):
            failing(error, 1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID"):
        failing(jax.errors.JaxRuntimeError("INVALID_ARGUMENT: something else"), 4)


@pytest.mark.parametrize("stage", ["prepare", "train", "query", "attack", "report"])
def test_memory_that_runs_out_is_one_sentence_in_every_stage(stage, tmp_path, monkeypatch):
    of_xla = jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nmore lines"
    )

    def exhausted(*args, **kwargs):
        raise of_xla if stage in ("train", "query") else MemoryError

    place = dict(
        prepare="mia_jax.pipeline.build.build", report="mia_jax.pipeline.report.report"
    ).get(stage, f"mia_jax.pipeline.run.{stage}")
    monkeypatch.setattr(place, exhausted)
    with pytest.raises(
        MemoryError, match=r"^out of memory while .* are left \(.*\)\. (Lower|Use fewer) "
    ) as raised:
        run.run(config(), workdir_path=tmp_path)
    assert "\n" not in str(raised.value) and (
        stage == "prepare" or f"the stage {stage}" in str(raised.value)
    )
    assert {"train": "run.chunk (2)", "query": "run.query_chunk"}.get(stage, "Use fewer") in str(
        raised.value
    )


def test_waiting_gives_the_arrays_and_raises_what_the_computation_raises():
    array = jnp.arange(5.0)
    assert np.array_equal(
        memory.fetch(dict(a=array, b=(array + 1, None)))["b"][0], np.arange(1.0, 6.0)
    )
    assert memory.wait((array, None))[0] is array and memory.fetch(dict(a=1.0)) == dict(a=1.0)

    def wrong():
        raise KeyError("x")

    with pytest.raises(KeyError):
        memory.watched(wrong)


def test_waiting_ends_if_the_device_does_nothing():
    start = time.monotonic()
    with pytest.raises(MemoryError, match=r"has computed nothing for .* s and gives no result"):
        memory.watched(threading.Event().wait, window=1.0)
    assert time.monotonic() - start < 30


def test_waiting_for_a_device_that_computes_does_not_end():
    def computes():
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            np.sort(np.arange(10_000))
        return "done"

    assert memory.watched(computes, window=0.4) == "done"


SMALL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["launch.py", *sys.argv[2:]]
import runpy
runpy.run_path("launch.py", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("gigabytes", "override"), [(3.6, False), (4.2, False), (3.6, True)])
def test_a_process_with_little_memory_ends_with_one_sentence(gigabytes, override, tmp_path):
    """The run also ends if the plan is declared to fit and XLA loses the program."""
    (tmp_path / "wide.py").write_text(WIDE)
    flags = [
        f"--config={tmp_path / 'wide.py'}",
        f"--workdir={tmp_path / 'w'}",
        "--compile_cache=off",
    ]
    flags += ["--config.run.memory_bytes=1000000000000"] if override else []
    command = [sys.executable, "-c", SMALL, str(int(gigabytes * 1e9)), *flags]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr[
        -2000:
    ]
    assert (
        ("out of memory" in lines[0])
        if override
        else ("the plan needs about" in lines[0] and "ulimit -v" in lines[0])
    )


WIDE = """
from mia_jax import configuration


def get_config(arg=None):
    return configuration.complete(
        data=dict(name="synthetic", examples=60, features=10, classes=2),
        design=dict(name="halves", models=64),
        model=dict(name="mlp", widths=(100_000,)),
        learner=dict(epochs=1, batch_size=10),
        attacks=dict(loss=dict(name="threshold", signal="loss")),
        report=dict(draws=40, figures=False),
        run=dict(chunk=64),
    )
"""
