"""Tests what --plan says of a run before it starts, and that it changes nothing."""

import dataclasses
import json
import shutil
import types

import pytest

from mia_jax import configuration
from mia_jax.configuration.settings import RunSettings
from mia_jax.designs import halves
from mia_jax.pipeline import estimate, execution, rehearsal, run
from mia_jax.report import estimate as words
from mia_jax.runtime import files
from mia_jax.runtime.store import Store
from mia_jax.training import compilers, cost


def config(*, epochs=3, **fields):
    return configuration.complete(
        data=dict(name="synthetic", examples=60, features=10, classes=2),
        design=dict(name="halves", models=4),
        model=dict(name="mlp", widths=(8,)),
        learner=dict(epochs=epochs, batch_size=10),
        attacks=dict(loss=dict(name="threshold", signal="loss")),
        report=dict(draws=40, figures=False),
        run=dict(chunk=2, lanes=1) | fields,
    )


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """(the folder, the estimate of 4 small nets)."""
    folder = tmp_path_factory.mktemp("plan")
    return folder, estimate.estimate(config(epochs=8), workdir_path=folder / "run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the config, the workdir) of 4 small nets that are trained."""
    made, folder = config(epochs=8), tmp_path_factory.mktemp("run")
    run.run(made, workdir_path=folder, stages_wanted=["train"])
    return made, folder


def test_a_plan_writes_nothing_into_the_workdir(planned):
    folder, _ = planned
    assert not list(folder.iterdir())


def test_a_plan_knows_what_is_trained_and_every_stage(planned):
    made = planned[1]
    training = made.training
    assert (training.models, training.epochs, training.steps, training.chunk) == (4, 8, 3, 2)
    assert training.parameters == 10 * 8 + 8 + 8 * 2 + 2
    # of the first layer two products (no gradient of the input), of the second three
    assert training.step_flops == 2 * 10 * (2 * 10 * 8 + 3 * 8 * 2)
    assert training.flops == training.step_flops * 3 * 8 * 4
    assert [stage.stage for stage in made.stages] == ["train", "query", "attack", "report"]
    assert all(stage.cpu_seconds > 0 and stage.disk > 0 for stage in made.stages)
    assert made.fits and {d.what for d in made.demands} == {"memory", "disk"}
    shares = [demand.share for demand in made.demands]
    assert shares == sorted(shares, reverse=True)


def test_the_words_are_made_of_the_json_alone(planned):
    numbers = json.loads(json.dumps(planned[1].plain()))
    text = "\n".join(words.lines(numbers))
    for part in ("4 models of 106 parameters, 8 epochs x 3 steps", "it fits; short first: "):
        assert part in text
    short = dict(numbers["demands"][0], share=2.5)
    text = "\n".join(words.lines(dict(numbers, demands=[short])))
    assert "does not fit: " in text and f"set {short['fields']}" in text


def test_what_does_not_fit_is_said_with_the_fields_that_help(tmp_path):
    made = estimate.estimate(config(memory_bytes=1000), workdir_path=tmp_path / "run")
    assert not made.fits and not made.stages
    assert "run.chunk" in made.demands[0].fields and "does not fit" in made.notes[0]


def test_a_plan_of_another_kind_of_device_is_refused(tmp_path, trained):
    made, folder = trained
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = Store(tmp_path).train.plan
    known = execution.read_plan(Store(tmp_path).train, run=files.read_json(path)["run"])
    other = dataclasses.replace(known.machine, platform="gpu", device_kind="NVIDIA H100 80GB HBM3")
    kept = dataclasses.replace(known, machine=other).plain()
    files.write_json(path, kept | dict(run=files.read_json(path)["run"]), seal=True)
    with pytest.raises(ValueError, match="another kind of device") as error:
        estimate.estimate(made, workdir_path=tmp_path)
    assert str(path) in str(error.value)


def test_another_platform_than_that_of_the_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run.platform='cpu', but plan='h100' is about a gpu"):
        estimate.elsewhere(config(platform="cpu"), workdir_path=tmp_path, target="h100")


def test_a_compiler_that_is_missing_is_said_with_the_command(tmp_path, monkeypatch):
    monkeypatch.delenv(compilers.FOLDER, raising=False)
    monkeypatch.setattr(compilers, "_plugins", lambda: [])
    with pytest.raises(ValueError, match=r"pip install --no-deps --target FOLDER jax-cuda13"):
        estimate.elsewhere(config(), workdir_path=tmp_path, target="h100")


def test_an_accelerator_compiles_its_default_form_first_and_one_model_once():
    def pairs(platform, **fields):
        made = RunSettings(**fields)
        return estimate.pairs_of(made, models=64, platform=platform)

    assert pairs("gpu") == [("grouped", 8), ("turns", 8), ("patches", 8)]
    assert pairs("tpu", chunk="auto") == [("grouped", 1), ("grouped", 8), ("turns", 8)]
    assert pairs("gpu", form="turns", chunk=1) == [("turns", 1)]


def test_the_bound_of_a_step_is_the_slowest_of_memory_arithmetic_and_launches():
    target = compilers.TARGETS["h100"]
    step = compilers.Kernels(target.bandwidth / 1000, 100)
    bounds = compilers.bounds_of(target, step, work=67e12 / 500, precision="float32")
    assert bounds == dict(memory=1e-3, arithmetic=2e-3, launches=100 * target.launch)


def test_records_of_the_rehearsal_keep_the_form_of_the_report():
    design = halves.make(num_examples=60, models=4, seed=0)
    assert rehearsal.pieces_of(300, pairs=4, design=design) == ((300,), 4)
    sizes, models = rehearsal.pieces_of(10_000, pairs=4, design=design)
    assert sizes == (625, 1250, 2500) and models == 4
    sizes, models = rehearsal.pieces_of(10**6, pairs=4, design=design)
    assert min(sizes) > rehearsal.record_groups.EXACT and models == 4


def test_what_grows_is_extrapolated_and_nothing_shrinks():
    assert rehearsal.fitted([10], [3.0], 20) == 6.0
    assert rehearsal.fitted([10, 20], [3.0, 3.0], 2000) == pytest.approx(3.0)
    squares = rehearsal.fitted([10, 20, 40], [1.0, 4.0, 16.0], 100, quadratic=True)
    assert squares == pytest.approx(100.0)
    assert rehearsal.fitted([10, 20], [4.0, 3.0], 1000) >= 3.0


def test_a_watch_measures_steady_work_only_and_then_ends_it(monkeypatch):
    now = iter([0.0, 0.0, 5.0, 6.0, 7.0, 8.0, 9.5])

    class Clock(rehearsal.Clock):
        def __init__(self):
            self.wall = self.cpu = next(now)

    monkeypatch.setattr(rehearsal, "Clock", Clock)
    watch = rehearsal.Watch(lanes=1, warm=2, pause=lambda: None)
    for _ in range(3):
        watch()
    watch()
    with pytest.raises(rehearsal.Enough):
        watch()
    pace = watch.pace(per_unit=2)
    each = 3.5 / 3  # three units from 6.0 to 9.5; of the two before, one had ended
    assert pace.seconds == pytest.approx(each / 2) and pace.once == pytest.approx(6.0 - each)


def test_steps_that_are_timed_make_epochs_that_places_share(monkeypatch):
    price = cost.Cost(1000, 0.5, 3.0, 2, 50, cpu_seconds=0.25)
    monkeypatch.setattr(cost, "measured", lambda **_: price)
    known = execution.Execution(
        chunk=2,
        block=2,
        bytes=1,
        steps=7,
        parameters=1,
        form="turns",
        precision="float32",
        asked={},
    )
    plan = types.SimpleNamespace(learner=None, pool=None, rows_MK=[[0]], weight_MK=[[1]])
    pace = rehearsal._of_steps(
        plan, execution.Planned(known, None, 1), run=RunSettings(), lanes=1, over=4, place=None
    )
    assert (pace.seconds, pace.cpu_seconds, pace.once) == (0.5 * 7 / 4, 0.25 * 7, 3.0)


def test_what_is_on_disk_is_not_counted_again(planned, trained):
    made, folder = trained
    again = estimate.estimate(made, workdir_path=folder)
    known = files.read_json(Store(folder).train.plan)
    assert (known["chunk"], known["form"]) == (again.training.chunk, again.training.form)
    assert again.training.on_disk == 4 and again.training.flops == 0
