"""Tests that a run says on what it computes, and what another machine does to its bits."""

import dataclasses

import jax
import pytest

from mia_jax.pipeline import execution, run
from mia_jax.runtime import files, machine
from mia_jax.runtime.store import Store
from tests.training import memory_test

H100 = machine.Machine(
    platform="gpu",
    device_kind="NVIDIA H100",
    devices=4,
    processor="a CPU",
    cores=16,
    versions={"jax": "0.10.2", "jaxlib": "0.10.2", "jax-cuda13-plugin": "0.10.2"},
)
CPU = dataclasses.replace(H100, platform="cpu", device_kind="cpu", devices=1, cores=2)


def test_a_machine_is_a_sentence_and_a_json_value():
    assert H100.hardware == "4 devices (gpu, NVIDIA H100, 16 cores)"
    assert CPU.hardware == "1 device (cpu, 2 cores)"
    assert str(H100).endswith(", 16 cores); jax 0.10.2 and jax-cuda13-plugin 0.10.2")
    assert str(CPU).endswith("; jax 0.10.2 and jax-cuda13-plugin 0.10.2")
    assert machine.of(H100.plain()) == H100
    assert machine.of(None) is None and machine.of(dict(platform="cpu")) is None
    here = machine.here()
    assert here.platform == jax.default_backend() and here.versions["jax"] == jax.__version__
    assert here.cores == machine.cores() >= 1 and here.devices == len(jax.local_devices())


def test_the_processor_is_read_from_the_system(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: A Chip @ 2GHz\nmodel name: B\n")
    assert machine.processor(tmp_path / "cpuinfo") == "A Chip @ 2GHz"
    assert isinstance(machine.processor(tmp_path / "missing"), str)


@pytest.mark.parametrize(
    "now, words",
    [
        (CPU, ""),
        (dataclasses.replace(CPU, devices=8), ""),  # each chunk runs on one of them
        (dataclasses.replace(CPU, cores=1), "with 2 cores, now 1"),
        (dataclasses.replace(CPU, processor="another"), "on a CPU, now another"),
        (dataclasses.replace(CPU, versions=CPU.versions | {"jax": "1"}), "with jax 0.10.2, now 1"),
        (H100, "on cpu (cpu), now NVIDIA H100"),
    ],
)
def test_what_changes_the_bits_is_named(now, words):
    changes = machine.other_bits(CPU, now)
    assert words in changes and bool(changes) == bool(words)
    assert machine.other_kind(CPU, now) == (now is H100)


def test_cores_of_the_host_of_a_gpu_do_not_matter():
    assert machine.other_bits(H100, dataclasses.replace(H100, cores=1, processor="x")) == ""


def test_the_machine_is_in_the_plan_the_log_and_the_report(tmp_path, capsys):
    report = run.run(memory_test.config(), workdir_path=tmp_path)
    line = next(t for t in capsys.readouterr().err.splitlines() if t.startswith("plan:"))
    here = machine.here()
    assert f"on {here.hardware}, about" in line and line.endswith(here.software)
    assert f"on each, in float32; jax {jax.__version__}" in line
    store = Store(tmp_path)
    plan = files.read_json(store.train.plan)
    assert machine.of(plan["machine"]) == here
    assert (plan["form"], plan["block"], plan["asked"]) == ("patches", 2, dict(chunk=2, form=""))
    (start,) = files.read_json(store.log())["runs"]
    for name in ("platform", "device_kind", "num_devices", "cores", "processor"):
        assert start[name] == report["versions"][name] is not None
    assert report["versions"]["trained_on"] == f"{here}; chunk 2, form patches, float32"
    assert f"trained on {here.hardware}" in store.report.markdown.read_text()

    # the same workdir on other machines: nothing is refused while there is nothing to compute
    def on(other):
        known = execution.read_plan(store.train, run=plan["run"])
        moved = dataclasses.replace(known, machine=other).plain()
        files.write_json(store.train.plan, moved | dict(run=plan["run"]), seal=True)
        return run.run(memory_test.config(), workdir_path=tmp_path, stages_wanted=["train"])

    gpu = dataclasses.replace(H100, versions=here.versions)
    on(gpu)
    (store.train.folder / "model" / "00003.npz").unlink()
    capsys.readouterr()
    with pytest.raises(
        ValueError,
        match=r"plan.json was planned on 4 devices \(gpu, NVIDIA H100, "
        r"16 cores\), and this run has 1 device \(cpu.*another workdir.*delete",
    ):
        on(gpu)
    on(dataclasses.replace(here, cores=here.cores + 1))
    said = capsys.readouterr().err
    assert f"this fleet was begun with {here.cores + 1} cores, now {here.cores}. Models" in said
    assert "the same bits need the same kind of machine, the same number of cores" in said


def test_another_platform_than_was_asked_for_is_an_error_before_anything_is_computed(tmp_path):
    """Work on disk is used anywhere, and attack and report of a GPU's fleet run on a CPU."""
    with pytest.raises(ValueError, match=r"run\.platform='cuda'"):
        run.run(memory_test.config(run=dict(platform="cuda")), workdir_path=tmp_path)
    asked = memory_test.config(run=dict(platform="gpu"))
    with pytest.raises(
        ValueError,
        match=r"run.platform='gpu', but JAX computes on the platform 'cpu' here \(1 device \(cpu, "
        r".*Ask the scheduler for a GPU.*leave run.platform out",
    ):
        run.run(asked, workdir_path=tmp_path)
    assert not (tmp_path / "train").exists()
    run.run(memory_test.config(), workdir_path=tmp_path, stages_wanted=["train", "query"])
    run.run(asked, workdir_path=tmp_path)
    run.run(memory_test.config(run=dict(platform="cpu")), workdir_path=tmp_path)


def test_the_remedy_names_what_keeps_jax_from_the_accelerator():
    with pytest.raises(ValueError, match=r"\)\. Running on the CPU although a GPU is here\. Ask"):
        machine.require("gpu", remedy="running on the CPU although a GPU is here")
    machine.require("")
    machine.require("cpu")


def test_forms_are_a_closed_list(tmp_path):
    with pytest.raises(ValueError, match=r"run\.form='fast'.*'turns', 'grouped', 'patches'"):
        run.run(memory_test.config(run=dict(form="fast")), workdir_path=tmp_path)
