"""A grid of defenses: when it runs, which models are trained once, and what its page shows."""

import json
import pathlib

import pytest

from mia_jax import configuration
from mia_jax.pipeline import build_parts, grid
from mia_jax.pipeline.run import run
from mia_jax.runtime.store import GridFiles, Store
from tests.launching import launch

FILE = pathlib.Path(__file__).parents[1] / "examples" / "matrix.py"
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def test_a_matrix_runs_as_a_grid_unless_one_defense_is_typed():
    assert grid.implied(FILE, "") and grid.implied(FILE, "epochs=3")
    assert not grid.implied(FILE, "epochs=3,defense=memguard")
    assert not grid.implied(FILE.with_name("grid.py"), "")
    assert not grid.implied(CONFIGS / "quickstart.py", "")


def test_variants_that_differ_in_attacks_alone_train_once():
    shared = grid.trained_before(grid.variants(grid.load(FILE)))
    assert shared == {"memguard": "none"}
    whole = grid.load(CONFIGS / "defense_matrix.py")
    shared = grid.trained_before(grid.variants(whole))
    assert shared == dict.fromkeys(whole.OUTPUT, "none")


def test_a_variant_starts_from_the_models_of_another_one(tmp_path):
    tuned = next(v for v in grid.variants(grid.load(FILE)) if v.name == "tuned")
    config = grid.resolved(tuned.config, tmp_path)
    assert config.learner.init_from == str(tmp_path / "body")
    assert tuned.config.learner.init_from == "variant:body"
    with pytest.raises(ValueError, match="is a variant of a grid: run the whole grid"):
        build_parts.initial_parameters("variant:body")


def test_a_matrix_without_the_attack_of_its_accuracy_is_refused_before_anything_is_trained(
    tmp_path,
):
    def without(config):
        with config.unlocked():
            del config.attacks.gap
        return config

    module = grid.load(FILE)
    with pytest.raises(ValueError, match=r"config\.attacks of the variant none lacks 'gap'"):
        grid.run(module, grid.variants(module, finished=without), workdir_path=tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_every_attack_of_the_matrix_says_what_it_sees():
    variant = grid.variants(grid.load(CONFIGS / "defense_matrix.py"))[0]
    sees = grid.seen(variant.config)
    labels = [name for name, kind in sees.items() if kind == "labels"]
    assert list(sees)[: len(labels)] == labels
    assert labels == ["boundary", "gap", "noise", "translation"] and len(sees) >= 10


def test_models_are_copied_where_there_are_none_yet(tmp_path):
    """The copy is used as if it had been trained there, and it is the same whatever remains of an
    interrupted one.
    """
    config = configuration.complete(
        data=dict(name="digits", examples=60),
        design=dict(name="halves", models=2),
        model=dict(name="linear"),
        learner=dict(epochs=1),
        attacks=dict(gap=dict()),
    )
    stages = dict(stages_wanted=("train", "query"))
    source, folder = tmp_path / "source", tmp_path / "copy"
    run(config, workdir_path=source, **stages)
    (folder / "train.copying").mkdir(parents=True)
    grid.copy_trained(source, folder)
    model = Store(folder).train.model(1)
    assert model.read_bytes() == Store(source).train.model(1).read_bytes()
    model.write_bytes(b"own")
    grid.copy_trained(source, folder)  # there are models now: they are left
    assert model.read_bytes() == b"own"


@pytest.mark.slow
def test_one_command_makes_the_page(tmp_path):
    """Cells, accuracy and sharing are those of the variants' own reports."""
    launch(f"--config={FILE}", f"--workdir={tmp_path / 'm'}")
    files = GridFiles(tmp_path / "m")
    made = json.loads(files.matrix("json").read_text(encoding="utf-8"))
    assert [line["defense"] for line in made["lines"]] == [
        *("none", "smooth", "memguard", "body", "tuned")
    ]
    none, _, memguard, body, _ = made["lines"]
    assert made["paired"] and memguard["cost"]["shared"] == "none"
    assert memguard["acts"] == "output" and none["acts"] == "training"
    assert none["cost"]["cpu_seconds"] > 0
    # labels stay behind MemGuard, for attackers who know it too
    assert memguard["accuracy"] == none["accuracy"]
    gap = [cell["rows"]["auc"]["value"] for cell in memguard["cells"] if cell["attack"] == "gap"]
    assert len(gap) == 2 and set(gap) == {none["cells"][0]["rows"]["auc"]["value"]}
    assert none["cells"][0]["attack"] == "gap"
    # whatever MemGuard shows is a function of the label: no attack on it beats the gap attack's ROC
    loss = [c["rows"]["auc"]["value"] for c in memguard["cells"] if c["attack"] == "loss"]
    assert loss[0] == loss[1]
    assert body["best"]["auc"]["rows"]["auc"]["low"] < 0.5  # it has seen none of these rows
    for ending in ("md", "html", "png"):
        assert files.matrix(ending).stat().st_size > 1000
    text = files.matrix("md").read_text(encoding="utf-8")
    assert "4 audited models per defense" in text and "memguard, known" in text
