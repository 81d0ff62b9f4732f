"""Every config file says how it is run, builds, and the heavy ones pass a small run on stand-in
data.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

from mia_jax.pipeline import build, grid, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
needs_fashion = pytest.mark.skipif(
    not FASHION.is_dir(), reason="apt-get install dataset-fashion-mnist"
)


def load(name, arg=None):
    """configs/<name>.py's config; a name in a subfolder has its slash: zoo/lenet."""
    spec = importlib.util.spec_from_file_location(
        name.replace("/", "_"), ROOT / "configs" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg) if arg else module.get_config()


def name_of(path):
    return path.relative_to(ROOT / "configs").with_suffix("").as_posix()


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_headers_say_how_to_run_and_configs_build(path):
    head = path.read_text().split('"""')[1]
    assert f"python launch.py --config=configs/{name_of(path)}.py" in head and "Arguments:" in head
    config = load(name_of(path))
    trains = ("seed", "data", "design", "model", "learner", "query", "attacks", "report", "run")
    for section in ("seed", "scores", "attacks", "report") if path.stem == "scores" else trains:
        assert section in config
    with pytest.raises(ValueError, match="has no argument 'nonsense'"):
        load(name_of(path), "nonsense=1")


@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if "\ndef grid(" in path.read_text()], ids=name_of
)
def test_grids_build_and_their_tables_hold_what_their_members_have(path):
    module = grid.load(path)
    members = grid.variants(module)
    assert len(members) > 1 and grid.chosen(module, members)[0]


def test_arguments_are_typed():
    config = load("quickstart", "models=6,epochs=3")
    assert config.design.models == 6 and config.learner.epochs == 3
    assert load("quickstart", "quick").design.models == 16
    assert load("attack_zoo", "epochs=20").learner.snapshots == (1, 2, 5, 10, 20)


@pytest.mark.slow
def test_lira_cifar10_runs_on_stand_in_data(tmp_path):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=256):
        config = load("lira_cifar10", "smoke,norm=group")
        config = type(config)(config).unlock()
        config.run.chunk, config.report.draws, config.report.figures = 2, 40, False
        report = run.run(config, workdir_path=tmp_path)
    assert {r["attack"] for r in report["results"]} == {
        "threshold_loss",
        "lira",
        "lira_pooled",
        "lira_offline",
        "lira_offline_pooled",
    }
    assert report["about"]["shape"] == [32, 32, 3] and len(report["models"]) == 4


def test_least_squares_leak_through_residuals_and_leverage(tmp_path):
    config = load("zoo/least_squares", "features=60,examples=200")
    config = type(config)(config).unlock()
    config.report.draws, config.report.figures = 40, False
    report = run.run(config, workdir_path=tmp_path)
    auc = {
        r["attack"]: r["value"]
        for r in report["results"]
        if (r["metric"], r["target"], r["slice"]) == ("auc", None, "all")
    }
    assert auc["threshold_loss"] > 0.6 and auc["leverage"] > 0.6 and auc["lira"] > 0.6
    assert all(2 * row["train_loss"] < row["validation_loss"] for row in report["models"])


@pytest.mark.parametrize(
    "name,rate,batch,side,divide",
    [
        ("alexnet", 0.01, 128, 224, 1),
        ("vgg", 0.05, 128, 224, 4),
        ("nin", 0.1, 128, 224, 1),
        ("googlenet", 0.1, 128, 96, 1),
        ("resnet18", 0.05, 256, 96, None),
    ],
)
def test_full_is_the_recipe_of_the_book(name, rate, batch, side, divide):
    full = load(f"zoo/{name}", "full")
    learner = full.learner
    assert (learner.optimizer, learner.schedule) == ("sgd", "constant_schedule")
    assert (learner.learning_rate, learner.batch_size, learner.epochs) == (rate, batch, 10)
    assert (
        full.data.examples,
        full.design.members,
        full.model.resize,
        full.model.get("divide", None),
    ) == (70_000, 60_000, side, divide)


@pytest.mark.slow
@needs_fashion
def test_fashion_mnist_wiring(tmp_path):
    config = load("fashion_mnist", "examples=200,models=4,epochs=1")
    config = type(config)(config).unlock()
    config.report.draws, config.report.figures = 40, False
    report = run.run(config, workdir_path=tmp_path)
    assert report["about"]["examples"] == 200 and report["about"]["views"] == ["identity", "flip"]


@needs_fashion
@pytest.mark.slow
def test_blocks_wiring_and_gap(tmp_path):
    config = load("label_only_blocks", "ndata=100,epochs=2")
    config = type(config)(config).unlock()
    config.report.draws, config.report.figures = 40, False
    report = run.run(config, workdir_path=tmp_path)
    gap = next(
        r
        for r in report["results"]
        if (r["attack"], r["metric"], r["target"]) == ("gap", "balanced_accuracy", None)
    )
    target = report["models"][0]
    assert gap["value"] == pytest.approx(
        0.5 + 0.5 * (target["train_accuracy"] - target["validation_accuracy"]), abs=1e-9
    )
    assert gap["knows"] == "nothing" and report["design"]["targets"] == [0]


@pytest.mark.slow
def test_the_label_only_recipe_runs_on_stand_ins_of_cifar10(tmp_path):
    """At full width: a conv net of 1,250,858 parameters on 32x32x3 images in blocks."""
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=400):
        config = small(load("label_only_blocks", "folder=cifar10,ndata=100,epochs=1"))
        report = run.run(config, workdir_path=tmp_path / "blocks")
        assert load("label_only", "data=cifar100").data.dataset == "cifar100"
    assert report["about"]["shape"] == [32, 32, 3] and len(report["models"]) == 2


def small(config, **fields):
    """The config with a short report and other fields, {'learner.batch_size': 8}."""
    config = type(config)(config).unlock()
    config.update_from_flattened_dict({"report.draws": 40, "report.figures": False} | fields)
    return config


@pytest.mark.slow
@needs_fashion
def test_dp_label_only_stops_before_its_budget_and_refuses_the_originals():
    with pytest.raises(
        ValueError, match=r"epsilon=1.0: not one epoch fits, the first one costs .*pld"
    ):
        build.build(load("dp_label_only", "budget=1.0").to_dict(), seed=0)
    learner = build.build(load("dp_label_only").to_dict(), seed=0).learner
    guarantee = learner.guarantee
    assert (
        guarantee.epsilon(learner.epochs) <= 20.0 < guarantee.epsilon(learner.epochs + 1)
        and learner.epochs == 13
    )
    assert (
        guarantee.mechanism.clip_norm,
        guarantee.mechanism.noise_multiplier,
        guarantee.mechanism.expected_batch,
        guarantee.delta,
    ) == (2.0, 0.5, 100, 1 / 2500)


@needs_fashion
@pytest.mark.slow
def test_the_published_recipe_of_private_fashion_mnist_trains(tmp_path):
    config = load("dp_fashion_mnist", "full,models=2,canaries=80")
    learner = config.learner
    assert (learner.batch_size, learner.epochs, learner.privacy.clip_norm) == (2048, 40, 0.1)
    assert learner.optimizer.to_dict() == dict(name="sgd", momentum=0.9)
    assert (config.data.examples, config.model.name, config.model.activation) == (
        70_000,
        "tanh_cnn",
        "tanh",
    )
    tiny = {
        "data.examples": 120,
        "learner.batch_size": 64,
        "learner.epochs": 1,
        "report.slices": (),
    }
    run.run(small(config, **tiny), workdir_path=tmp_path, stages_wanted=["train"])
    assert len(list((tmp_path / "train" / "model").glob("*.npz"))) == 2
    assert load("dp_fashion_mnist", "full,private=false").learner.gradient == "mean"


@pytest.mark.slow
def test_label_only_runs_small_and_every_defense_builds(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "small.npz",
        x=rng.integers(0, 255, size=(90, 64)).astype(np.uint8),
        y=np.arange(90) % 3,
    )
    base = (
        f"data={tmp_path}/small.npz,side=8,model=fc,ndata=20,epochs=2,max_samples=8,"
        "source_samples=8,iterations=1,evaluations=5"
    )
    config = load(
        "label_only",
        base + ",shift_iterations=1,shift_evaluations=5,noise_samples=5,attacks=bnrgaqt",
    )
    config = type(config)(config).unlock()
    config.report.draws, config.report.figures, config.report.slices = 40, False, ()
    report = run.run(config, workdir_path=tmp_path / "run")
    auc = {
        r["attack"]: r["value"]
        for r in report["results"]
        if (r["metric"], r["target"], r["slice"]) == ("auc", None, "all")
    }
    assert {
        "gap",
        "boundary",
        "noise",
        "rotation",
        "one_query",
        "transfer",
        "boundary_memguard",
        "confidence_memguard",
    } <= set(auc)
    assert auc["boundary"] == auc["boundary_memguard"] and auc["noise"] == auc["noise_memguard"]
    for defense, text in (
        ("l2", "l2"),
        ("dropout", "dropout"),
        ("dp", "privacy"),
        ("last_layer,weights=runs/x", "Dense_1/"),
    ):
        built = load("label_only", f"{base},defense={defense},reg_constant=0.5")
        assert text in str(built.learner) + str(built.model)
    with pytest.raises(ValueError, match=r"starts from a trained model: weights="):
        load("label_only", f"{base},defense=full_fine_tune")
    with pytest.raises(ValueError, match=r"reg_constant=1.0 must lie in \[0, 1\)"):
        load("label_only", f"{base},defense=dropout")
    with pytest.raises(ValueError, match=r"attacks='x' is not one of"):
        load("label_only", f"{base},attacks=bx")
