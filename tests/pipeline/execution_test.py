"""Tests how the plan of a fleet is made and kept: its form, its chunk, and what memory allows."""

import dataclasses
import re
import types

import jax
import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.configuration.settings import RunSettings
from mia_jax.learners import backprop
from mia_jax.models import lenet, small_cnn
from mia_jax.objectives import cross_entropy
from mia_jax.pipeline import execution, run, train
from mia_jax.pipeline.plan import FleetPlan
from mia_jax.runtime import files
from mia_jax.runtime.store import Store
from mia_jax.training import checkpoint, cost, fleet, layerwise, memory, programs
from mia_jax.types import Pool, classification
from tests import toys

OUT_OF_MEMORY = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of 80 GB\nmore lines")


def config(*, models=4, **fields):
    return configuration.complete(
        data=dict(name="synthetic", examples=60, features=10, classes=2),
        design=dict(name="halves", models=models),
        model=dict(name="mlp", widths=(8,)),
        learner=dict(epochs=1, batch_size=10),
        attacks=dict(loss=dict(name="threshold", signal="loss")),
        report=dict(draws=40, figures=False),
        run=dict(chunk=2, lanes=1) | fields,
    )


def trained(folder, *, task=None, models=4, extend=False, **fields):
    """Trains a fleet; returns its plan on disk and {model: its arrays}."""
    made = config(models=models, **fields)
    run.run(made, workdir_path=folder, stages_wanted=["train"], task=task, extend=extend)
    return plan_of(folder), {m: arrays(folder, m) for m in range(models) if task is None}


def plan_of(folder):
    return files.read_json(Store(folder).train.plan)


def arrays(folder, m):
    stored = files.read_npz(checkpoint.model_file(Store(folder).train.folder, m))
    return {name: a for name, a in stored.items() if "seconds" not in name}


def timing(seconds, *, made=None):
    """A stand-in for cost.measured with these {(form, chunk): seconds}; `made` lists the calls."""

    def measured(*, form, chunk, **more):
        if made is not None:
            made.append((form, chunk))
        value = seconds(form, chunk)
        if isinstance(value, Exception):
            raise value
        return None if value is None else cost.Cost(1000, value, 0.0, 3, 50)

    return measured


def test_models_in_turn_are_the_models_of_vmap(tmp_path):
    """They differ in rounding alone. Without convolutions, the other forms are one program."""
    (plan, models), (usual, expected) = (
        trained(tmp_path / f"{form}", form=form) for form in ("turns", "")
    )
    assert (plan["form"], usual["form"]) == ("turns", "patches")
    for m, saved in models.items():
        for name, value in saved.items():
            np.testing.assert_allclose(value, expected[m][name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_every_form_of_a_convolutional_fleet_trains_the_same_models(tmp_path):
    x = np.random.default_rng(0).normal(size=(24, 28, 28, 1)).astype(np.float32)
    pool = Pool(x=x, y=np.arange(24, dtype=np.int32) % 3, task=classification(3))
    model = small_cnn.make(num_classes=3)
    learner = backprop.make(
        model=model, loss=cross_entropy.make(model=model), epochs=1, batch_size=8, num_rows=24
    )
    saved = {}
    for form in programs.FORMS:
        program = programs.make(learner=learner, chunk=2, form=form)
        fleet.train(
            learner=learner,
            pool=pool,
            rows_MK=np.tile(np.arange(24, dtype=np.int32), (2, 1)),
            weight_MK=np.ones((2, 24), np.float32),
            seed=0,
            models=[0, 1],
            folder=tmp_path / form,
            chunk=2,
            program=program,
            lanes=1,
        )
        saved[form] = files.read_npz(checkpoint.model_file(tmp_path / form, 1))
    for form in ("turns", "grouped"):
        for name, value in saved["patches"].items():
            if "seconds" not in name:
                np.testing.assert_allclose(value, saved[form][name], atol=1e-4, err_msg=name)


def test_the_choice_is_measured_before_the_first_step_and_kept(tmp_path, monkeypatch, capsys):
    """Resuming, a larger fleet and other settings of the command read it."""
    calls = []
    speed = {"patches": 3.0, "turns": 1.0, "layers": 2.0}
    measured = timing(lambda form, chunk: speed[form] / chunk, made=calls)
    monkeypatch.setattr(cost, "measured", measured)
    first = []
    original = fleet.train
    monkeypatch.setattr(
        fleet, "train", lambda **k: (first.append(plan_of(tmp_path)), original(**k))[1]
    )
    plan, models = trained(tmp_path, form="auto", chunk="auto")
    assert calls == [(f, c) for f in ("patches", "turns") for c in (1, 2, 4)] + [("layers", 1)]
    assert (plan["form"], plan["chunk"], plan["block"]) == ("turns", 4, 4)
    assert first[0]["form"] == "turns" and first[0]["machine"]["device_kind"] == "cpu"
    assert [(r["form"], r["chunk"], r["seconds"]) for r in plan["measured"]][-2] == (
        "turns",
        4,
        0.25,
    )
    said = capsys.readouterr().err
    assert "measuring the fastest form and chunk (kept in train/plan.json)" in said
    assert "chunk 4, turns: 250 ms a step and model, 0.001 MB" in said
    assert "; form turns, jax" in said
    calls.clear()
    checkpoint.model_file(Store(tmp_path).train.folder, 1).unlink()
    again, models_again = trained(tmp_path, chunk="auto")  # without run.form
    assert again == plan and toys.same(models, models_again)
    grown, more = trained(tmp_path, form="auto", chunk="auto", models=6, extend=True)
    assert grown == plan and toys.same(models, {m: more[m] for m in range(4)}) and not calls


def test_another_form_or_chunk_than_the_plans_is_planned_again_and_said(tmp_path, capsys):
    trained(tmp_path)
    capsys.readouterr()
    checkpoint.model_file(Store(tmp_path).train.folder, 3).unlink()
    plan, _ = trained(tmp_path, form="turns")
    assert plan["form"] == "turns" and (
        "planned again with chunk 2 in the form turns, no longer 2 in the form patches; models "
        "that are trained from here on can differ in their last bits" in capsys.readouterr().err
    )


def test_tasks_use_the_plan_of_the_first_and_wait_for_nobody(tmp_path, monkeypatch):
    fields = dict(chunk="auto", models=8)
    speeds = dict(first=4)

    def fastest(**more):  # two tasks that measure at the same time see other clocks
        chunk = speeds["first"]
        return cost.Fastest("patches", chunk, cost.Cost(1000, 1.0, 0.0, 3, 50), ())

    monkeypatch.setattr(cost, "fastest", fastest)
    plan, _ = trained(tmp_path, task=(1, 2), **fields)  # the second task of the array starts first
    assert plan["chunk"] == plan["block"] == 4
    speeds["first"] = 2
    read, misses = execution.read_plan, [None]

    def late(*args, **more):  # this task looks before the first one has written its plan
        return misses.pop() if misses else read(*args, **more)

    monkeypatch.setattr(execution, "read_plan", late)
    again, _ = trained(tmp_path, task=(0, 2), **fields)
    assert again == plan and not misses
    assert checkpoint.finished(Store(tmp_path).train.folder, range(8)) == list(range(8))


def test_forms_that_are_the_same_program_are_measured_once():
    rows, weight = toys.halves(models=4)
    lines = []
    common = dict(learner=toys.learner(), pool=toys.pool(), rows_K=rows[0], weight_K=weight[0])
    result = cost.fastest(
        **common, forms=programs.FORMS[1:3], chunks=(2,), memory_bytes=2**40, log=lines.append
    )
    assert result.form == "grouped" and len(result.timed) == len(lines) == 1
    known = set()
    few = cost.measured(**common, chunk=2, memory_bytes=1, known=known)
    assert np.isnan(few.seconds) and few.bytes > 1  # compiled, not run
    assert cost.measured(**common, chunk=2, known=known) is None


def test_candidates_that_do_not_fit_are_left_out(monkeypatch):
    rows, weight = toys.halves(models=4)
    common = dict(learner=toys.learner(), pool=toys.pool(), rows_K=rows[0], weight_K=weight[0])
    common |= dict(forms=("grouped", "turns", "patches"), chunks=(4,), memory_bytes=2**30)

    def fastest(speed):
        lines = []
        monkeypatch.setattr(cost, "measured", timing(lambda form, chunk: speed[form]))
        return cost.fastest(**common, log=lines.append), lines

    result, lines = fastest(dict(grouped=OUT_OF_MEMORY, turns=2.0, patches=float("nan")))
    assert (result.form, len(result.timed)) == ("turns", 1)
    assert lines[0] == "chunk 4, grouped: out of memory" and "not tried" in lines[2]
    result, _ = fastest(dict(grouped=1.0, turns=0.98, patches=1.2))
    assert result.form == "grouped"  # a later candidate must win by 3%
    with pytest.raises(jax.errors.JaxRuntimeError, match="80 GB"):
        fastest(dict.fromkeys(("grouped", "turns", "patches"), OUT_OF_MEMORY))


def test_defaults_of_platforms_are_never_measured_and_patches_are_no_accident():
    assert [programs.default_form(p) for p in ("cpu", "gpu", "tpu", "another")] == [
        "patches",
        "grouped",
        "grouped",
        "grouped",
    ]
    assert programs.candidates("cpu") == ("patches", "turns", "layers")
    assert programs.candidates("tpu") == programs.candidates("gpu")
    assert programs.candidates("gpu") == ("grouped", "turns", "patches")
    assert cost.ladder(1) == (1,) and cost.ladder(1000)[-1] == 64


def test_the_programs_of_layers_are_kept_in_the_plan(tmp_path, monkeypatch, capsys):
    """They are measured once; resuming and tasks read them, and the program uses them."""
    pool = Pool(
        x=np.zeros((4, 12, 12, 1), np.float32), y=np.zeros(4, np.int32), task=classification(3)
    )
    model = lenet.make(num_classes=3)
    learner = backprop.make(
        model=model, loss=cross_entropy.make(model=model), epochs=1, batch_size=2, num_rows=4
    )
    rows = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    plan = FleetPlan(
        learner=learner,
        pool=pool,
        rows_MK=rows,
        weight_MK=np.ones((2, 4), np.float32),
        validation=None,
        seed=0,
    )
    calls = []

    def seconds(layer, names):
        calls.append(layer.what)
        return {name: 0.1 if name.startswith("wide") else 1.0 for name in names}

    monkeypatch.setattr(layerwise, "seconds", seconds)
    monkeypatch.setattr(cost, "expected", lambda **more: cost.Cost(1000, 1.0, 0.0, 2, 50))
    settings = dict(store=Store(tmp_path), run=RunSettings(form="layers", chunk=1), models=2)
    made = execution.planned(plan, **settings)
    kept = plan_of(tmp_path)
    assert kept["form"] == "layers" and "form layers" in capsys.readouterr().err
    programs_kept = [(row["what"], row["channels"], row["program"]) for row in kept["layers"]]
    assert sorted(programs_kept) == [
        ("forward", 1, "wide:1x2"),
        ("forward", 6, "wide:1x2"),
        ("input", 1, "wide:1x2"),
        ("input", 6, "wide:1x2"),
        ("kernel", 1, "wide_flipped:1x2"),
        ("kernel", 6, "wide_flipped:1x2"),
    ]
    calls.clear()
    again = execution.planned(plan, **settings)
    assert again.execution == made.execution and not calls


def test_a_chunk_that_runs_out_of_memory_is_halved_once_and_kept(tmp_path, monkeypatch, capsys):
    original, chunks = fleet.train, []

    def short(*, chunk, **more):
        chunks.append(chunk)
        if chunk > largest:
            raise OUT_OF_MEMORY
        return original(chunk=chunk, **more)

    monkeypatch.setattr(fleet, "train", short)
    largest = 2
    plan, models = trained(tmp_path / "a", chunk=4)
    assert chunks == [4, 2] and (plan["chunk"], plan["block"]) == (2, 4)
    assert plan["asked"] == dict(chunk=4, form="")
    assert (
        "out of memory with chunk 4 (RESOURCE_EXHAUSTED: out of 80 GB); the chunk is halved to 2"
        in capsys.readouterr().err
    )
    assert toys.same(models, trained(tmp_path / "b", chunk=2)[1])
    chunks.clear()  # the same command goes on with what was enough
    checkpoint.model_file(Store(tmp_path / "a").train.folder, 0).unlink()
    assert trained(tmp_path / "a", chunk=4)[0]["chunk"] == 2 and chunks == [2]

    largest = 1
    with pytest.raises(
        memory.OutOfMemory,
        match=r"out of memory while training 2 models in one program, half of the 4 before "
        r"\(RESOURCE_.*Set run.chunk below 2, or run.form='turns' .*run.pool_bytes below .*another "
        r"workdir",
    ):
        trained(tmp_path / "c", chunk=4)
    largest = 0
    with pytest.raises(memory.OutOfMemory, match=r"training 1 models.*Set run.pool_bytes"):
        trained(tmp_path / "d", chunk=1)


def test_an_error_of_anything_else_is_raised(tmp_path, monkeypatch):
    def failing(**more):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(train.fleet, "train", failing)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        trained(tmp_path)


def test_a_plan_of_an_older_version_is_believed(tmp_path):
    plan, models = trained(tmp_path)
    old = {
        k: plan[k] for k in ("chunk", "steps", "parameters", "bytes", "seconds", "shared", "run")
    }
    files.write_json(Store(tmp_path).train.plan, old, seal=True)
    known = execution.read_plan(Store(tmp_path).train, run=plan["run"])
    assert (known.form, known.block, known.machine) == ("", 2, None)
    assert dataclasses.replace(known, form="turns").plain()["form"] == "turns"
    checkpoint.model_file(Store(tmp_path).train.folder, 2).unlink()
    assert toys.same(models, trained(tmp_path)[1])
    files.write_json(Store(tmp_path).train.plan, old | dict(form="fast"), seal=True)
    with pytest.raises(ValueError, match=r"is damaged \(form is 'fast'\)"):
        execution.read_plan(Store(tmp_path).train, run=plan["run"])


def test_a_plan_of_another_mesh_is_priced_again(tmp_path, monkeypatch):
    plan, _ = trained(tmp_path, models=2)
    other = dict(bytes=1, mesh=dict(model=1, data=2, parameters=False))
    del plan["sha256"]
    files.write_json(Store(tmp_path).train.plan, plan | other, seal=True)
    checked = []
    monkeypatch.setattr(execution, "check_memory", lambda _, price, **more: checked.append(price))
    trained(tmp_path, models=4, extend=True)
    assert checked[-1].bytes == plan["bytes"]


@pytest.mark.parametrize(("other", "best"), [(0.96, "patches"), (0.94, "wide")])
def test_another_program_of_a_layer_must_win_by_5_percent(other, best, monkeypatch):
    taken = dict(patches=1.0, wide=other)
    monkeypatch.setattr(layerwise, "seconds", lambda layer, names: taken)
    monkeypatch.setattr(layerwise.candidates, "names", lambda layer: tuple(taken))
    assert list(layerwise.chosen(["layer"])) == [("layer", best)]


def private(physical, **fields):
    """Returns the config of private MLPs of which `physical` units are computed together."""
    made = config(models=2, **fields).to_dict()
    made["model"]["widths"] = (256,)
    privacy = dict(physical_batch=physical, method="vmap", delta=1e-3)
    made["learner"] |= dict(gradient="private", privacy=privacy)
    return configuration.complete(**made)


def test_the_most_units_that_fit_are_chosen(monkeypatch):
    learner = types.SimpleNamespace(units=100, shards=1)
    monkeypatch.setattr(programs, "make", lambda *, units, **more: units)
    monkeypatch.setattr(cost, "least", lambda **more: cost.Cost(1, 0.0, 0.0, 3, 50))
    expected = lambda *, program, **more: cost.Cost(1000 * program, 0.0, 0.0, 3, 50)  # noqa: E731
    monkeypatch.setattr(cost, "expected", expected)
    plan = types.SimpleNamespace(learner=learner, pool=None, precision="float32", validation=None)
    plan.rows_MK = plan.weight_MK = np.zeros((1, 4))
    for most, units in ((10**6, 100), (30_000, 25), (999, 1)):
        made, program = execution.chosen(
            plan,
            run=RunSettings(chunk=1, lanes=1),
            models=1,
            here=jax.local_devices()[:1],
            limit=memory.Limit(most, "a test"),
        )
        assert made.units == program == units and made.plain()["units"] == units


@pytest.mark.slow
def test_as_many_units_of_a_private_step_are_computed_together_as_fit(
    tmp_path, monkeypatch, capsys
):
    """The choice is in the plan; memory that runs out later halves it once more."""

    def plan_and_models(folder, *given, **fields):
        fields = dict(chunk=1) | fields
        run.run(private(*given, **fields), workdir_path=folder, stages_wanted=["train"])
        return plan_of(folder), [arrays(folder, m) for m in range(2)]

    original, failed = fleet.train, []

    def short(**more):
        if not failed:
            failed.append(True)
            raise OUT_OF_MEMORY
        return original(**more)

    monkeypatch.setattr(fleet, "train", short)
    plan, models = plan_and_models(tmp_path / "auto", "auto", memory_bytes=200_000)
    told, units = capsys.readouterr().err, plan["units"]
    tried = re.findall(r"physical_batch='auto': (\d+) of (\d+) units", told)
    assert len(tried) > 1 and tried[0][0] == tried[0][1] and plan["bytes"] <= 200_000
    assert 1 <= units == -(-int(tried[-1][0]) // 2)
    assert "units at a time (RESOURCE_EXHAUSTED" in told
    fixed, others = plan_and_models(tmp_path / "fixed", units)
    assert fixed["units"] == 0
    for a, b in zip(jax.tree.leaves(models), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    with pytest.raises(memory.OutOfMemory, match="the plan needs about"):
        plan_and_models(tmp_path / "none", "auto", memory_bytes=30_000)
    with pytest.raises(ValueError, match=r"physical_batch='auto' is chosen for a given number"):
        plan_and_models(tmp_path / "measured", "auto", chunk="auto")
