"""Tests the programs of fleets as the compilers for an H100 and a v5e make them, without a device.

Skipped where the compilers are not installed: docs/before_a_long_start.md has the command.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import plan
from mia_jax.runtime import machine, precision
from mia_jax.training import compilers, cost, hlo, programs
from tests.training import hlo_test


def skip_without(name: str) -> None:
    if sentence := compilers.missing(compilers.TARGETS[name]):
        pytest.skip(sentence)


def row(form="grouped", chunk=8, *, bytes=10, seconds=1.0):
    return compilers.Compiled(form, chunk, bytes, 2, 1.0, 1.0, seconds, "memory", 0.0, 1, 1)


def test_the_program_with_the_lowest_bound_that_fits_is_advised():
    target = compilers.TARGETS["h100"]._replace(memory=100)
    rows = [row(seconds=1.0), row("turns", seconds=0.98), row("patches", bytes=101, seconds=0.1)]
    assert compilers.best(rows, target) is rows[0]  # a later one must win by 3%
    assert compilers.best(rows[1:2], target).per_model == 1.0
    assert compilers.best(rows[2:], target) is None


def test_what_a_compiler_says_of_a_chunk_is_told_per_model_and_step(monkeypatch):
    """The text of hlo_test.py, as if it were two steps of four models."""

    class Program:
        def as_text(self):
            return hlo_test.TEXT

    price = cost.Cost(1000, float("nan"), 0.0, 7, 5, 200)
    monkeypatch.setattr(cost, "compiled", lambda **_: cost.Compiled(price, Program(), 2))
    monkeypatch.setattr(programs, "make", lambda **_: None)
    target = compilers.TARGETS["h100"]._replace(bandwidth=1e3, launch=1e-9)
    given = dict.fromkeys(("device", "learner", "pool", "rows_K", "weight_K"))
    made = compilers.compiled(
        target, **given, chunk=4, form="turns", work=1, precision="float32", pool_bytes=1
    )
    moved, launches = hlo.kernels(hlo_test.TEXT)
    assert (made.traffic, made.launches) == (moved / 2 / 4, launches / 2)
    assert made.bound == "memory" and made.seconds == pytest.approx(made.traffic / 1e3)
    assert (made.per_model, made.steps, made.parameters) == (200, 7, 5)


def test_programs_are_traced_for_the_platform_that_is_asked_for():
    here = jax.default_backend()
    assert (machine.platform(), programs.default_form()) == (here, programs.default_form(here))
    with machine.compiling_for("tpu"):
        assert (machine.platform(), programs.default_form()) == ("tpu", "grouped")
        product = jax.jit(lambda a: a @ a)
        with precision.products("float32"):
            assert "HIGHEST" in product.lower(np.ones((2, 2), np.float32)).as_text()
    with pytest.raises(ValueError, match="rocm"):
        machine.compiling_for("rocm")


def test_the_requirement_of_libtpu_is_that_of_this_jax():
    assert compilers._libtpu().startswith("libtpu==")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:.*persistent compilation cache")
def test_wrn_28_2_at_the_chosen_form_needs_at_most_1_3_gb_a_model_on_an_h100():
    skip_without("h100")
    rows = list(plan.compiled("h100", "wrn"))
    chosen = compilers.best(rows, compilers.TARGETS["h100"])
    print(*rows, sep="\n")
    assert chosen is not None and chosen.per_model <= 1.3e9 and chosen.form != "patches"
    (patches,) = (made for made in rows if made.form == "patches")
    assert patches.bound == "memory" and patches.seconds > 1.5 * chosen.seconds


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:.*persistent compilation cache")
def test_the_conv_net_on_a_v5e_moves_no_more_than_plain_vmap():
    skip_without("v5e")
    common = dict(chunk=2, forms=("grouped",), batch=16)
    (default,) = plan.compiled("v5e", "conv", **common)
    (plain,) = plan.compiled("v5e", "conv", form="lax", **common)  # what vmap makes of XLA's
    print(default, plain, sep="\n")
    assert default.traffic <= 1.01 * plain.traffic


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", compilers.TARGETS)
def test_the_command_plans_for_a_device_that_is_not_there(name, tmp_path):
    """In a process of its own, whose environment names no platform."""
    skip_without(name)
    environment = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"}
    done = subprocess.run(
        [
            *(sys.executable, "launch.py", "--config=configs/quickstart.py:models=4,epochs=2"),
            *("--config.run.chunk=2", f"--plan={name}", "--json", f"--workdir={tmp_path / 'run'}"),
        ],
        capture_output=True,
        text=True,
        env=environment,
        cwd=pathlib.Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    numbers = json.loads(done.stdout[done.stdout.index("{") :])
    assert numbers["target"] == name and numbers["rows"] and numbers["fits"]
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()
