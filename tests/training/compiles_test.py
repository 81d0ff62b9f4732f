"""Tests that the largest program is compiled once: for its memory and for the training itself.

On several devices the first one compiles before the others start, where they can share its program.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys
import threading

import jax
import pytest

from mia_jax.training import devices as spreading

ROOT = pathlib.Path(__file__).resolve().parents[2]

COUNTED = """
import collections, json, pathlib, sys
from jax import monitoring

counts = collections.Counter()
PROGRAMS = ("init", "plan", "run", "finish")

def heard(event, seconds, fun_name="", **more):
    name = str(fun_name).removeprefix("jit(").removesuffix(")")
    for kind in ("backend_compile", "jaxpr_trace"):
        if event.endswith(f"{kind}_duration") and name in PROGRAMS:
            counts[f"{kind} {name}"] += 1

monitoring.register_event_duration_secs_listener(heard)
monitoring.register_event_listener(
    lambda event, **more: counts.update([event.rsplit("/", 1)[1]]) if "cache_" in event else None
)
from mia_jax.pipeline import run
from tests.training import memory_test

config = memory_test.config(models=8, run=dict(lanes=1))
run.run(config, workdir_path=pathlib.Path(sys.argv[1]), stages_wanted=["train"])
print(json.dumps(counts))
"""


def counted(
    folder: pathlib.Path, *, devices: int, cache: pathlib.Path | None
) -> collections.Counter:
    """Trains a fleet in a fresh process; returns how often programs were traced and compiled."""
    flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
    environment = os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if cache is not None:
        environment |= dict(
            JAX_COMPILATION_CACHE_DIR=str(cache), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0"
        )
    process = subprocess.run(
        [sys.executable, "-c", COUNTED, str(folder)],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return collections.Counter(json.loads(process.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_one_device_compiles_the_main_program_once_without_any_cache(tmp_path):
    counts = counted(tmp_path / "run", devices=1, cache=None)
    assert counts["backend_compile run"] == counts["jaxpr_trace run"] == 1
    assert counts["backend_compile plan"] == counts["backend_compile finish"] == 1


@pytest.mark.slow
def test_a_warm_cache_serves_every_program(tmp_path):
    first = counted(tmp_path / "a", devices=1, cache=tmp_path / "cache")
    again = counted(tmp_path / "b", devices=1, cache=tmp_path / "cache")
    assert first["cache_misses"] > 4 and again["cache_misses"] == 0
    assert again["cache_hits"] >= first["cache_misses"]


@pytest.mark.slow
def test_a_further_device_traces_nothing_and_compiles_its_copy_once(tmp_path):
    """XLA's programs for a CPU belong to one device; those for a GPU are read from the cache."""
    counts = counted(tmp_path / "run", devices=2, cache=None)
    assert counts["jaxpr_trace run"] == 1 and counts["backend_compile run"] == 2
    assert counts["backend_compile init"] == counts["backend_compile finish"] == 2


class Device:
    def __init__(self, id, platform="gpu"):
        self.id, self.platform = id, platform


def test_the_first_device_compiles_before_the_others_start_where_they_share_a_cache():
    """Its second check comes after its first epoch, whose programs are compiled by then."""
    two = [Device(0), Device(1)]
    tpus = [Device(0, "tpu"), Device(1, "tpu")]
    assert spreading.share_programs(two, cached=True)
    assert not spreading.share_programs(two, cached=False)
    assert not spreading.share_programs(two[:1], cached=True)
    assert not spreading.share_programs(tpus, cached=True)
    assert not spreading.share_programs(jax.local_devices())
    for ends in ("epochs", "items", "an error"):
        happened, lock = [], threading.Lock()

        def work(item, device, check, ends=ends, happened=happened, lock=lock):
            with lock:
                happened.append((device.id, "start"))
            if device.id == 0 and ends == "an error":
                raise KeyError(item)
            for _ in range(3 if ends == "epochs" else 1):
                check()
                with lock:
                    happened.append((device.id, "epoch"))

        common = dict(lanes=1, first_alone=True)
        if ends == "an error":
            with pytest.raises(KeyError):
                spreading.spread(work, range(4), two, **common)
            assert happened == [(0, "start")]
        else:
            spreading.spread(work, range(4), two, **common)
            assert happened[:2] == [(0, "start"), (0, "epoch")]
            assert sum(what == "start" for _, what in happened) == 4
