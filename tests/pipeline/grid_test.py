"""The grid: members are what their overrides say, a failure loses nothing, the same command
resumes, and the table holds what the reports say.
"""

import csv
import pathlib

import pytest

from mia_jax import configuration
from mia_jax.measures import variants
from mia_jax.pipeline import build, grid
from mia_jax.report import figures, grid_table, source
from tests.launching import launch

FILE = pathlib.Path(__file__).parents[1] / "examples" / "grid.py"


def test_an_override_is_an_argument_or_a_field():
    grid_variants = grid.variants(grid.load(FILE), "epochs=3", {"learner.batch_size": 16})
    assert [m.name for m in grid_variants] == ["narrow", "broken", "slow"]
    assert [m.config.model.widths for m in grid_variants] == [(4,), (2,), (8,)]
    assert all(
        m.config.learner.epochs == 3 and m.config.learner.batch_size == 16 for m in grid_variants
    )
    assert (
        grid_variants[2].config.learner.learning_rate == 1e-4
        and grid_variants[0].config.learner.learning_rate == 1e-3
    )


@pytest.mark.parametrize(
    "members, message",
    [
        ([("a", {}), ("a", {})], "appear once"),
        ([("a/b", {})], "folder's name"),
        ([], "no variant"),
        (
            [("a", {"learner.rate": 1})],
            "variant 'a': learner .* has no field 'rate'.*learning_rate",
        ),
        ([("a", {"lerner.rate": 1})], "no section 'lerner'.*Did you mean 'learner'"),
        ([("a", dict(with_=1))], "no argument 'with_'"),
    ],
)
def test_a_grid_that_cannot_work_is_refused_before_anything_is_run(members, message):
    module = grid.load(FILE)
    module.grid = lambda arg=None: members
    with pytest.raises(ValueError, match=message):
        grid.variants(module)


def test_the_table_is_of_attacks_and_metrics_that_exist():
    module = grid.load(FILE)
    module.TABLE = dict(attacks=("lira",))
    with pytest.raises(ValueError, match=r"TABLE attack='lira' is not one of .*threshold_loss"):
        grid.chosen(module, grid.variants(module))
    module.TABLE = dict(metrics=("tpr@0.02",))
    with pytest.raises(ValueError, match=r"tpr@0\.02"):
        grid.chosen(module, grid.variants(module))


def test_a_config_without_a_grid_says_so():
    with pytest.raises(ValueError, match="defines no grid"):
        grid.load(FILE.parent / "nan.py")


@pytest.mark.parametrize("several", [["mlp", "fc"], dict(name=("mlp", "fc")), dict(name="mlp,fc")])
def test_a_mixed_fleet_is_refused_with_the_remedy(several):
    parts = dict(data=dict(name="digits"), design=dict(name="halves"), attacks={})
    with pytest.raises(ValueError, match=r"mixed fleet is not possible.*define grid\(\)"):
        configuration.complete(**parts, model=several, learner={})
    if isinstance(several, dict):
        with pytest.raises(ValueError, match=r"mixed fleet is not possible.*define grid\(\)"):
            configuration.complete(**parts, model=dict(name="mlp"), learner=several)
    config = configuration.complete(**parts, model=dict(name="mlp"), learner={}).to_dict()
    with pytest.raises(ValueError, match="mixed fleet"):
        build.build(config | dict(model=dict(name="mlp,fc")), seed=0)


@pytest.mark.slow
def test_a_failing_member_loses_nothing_and_the_same_command_resumes(tmp_path):
    flags = [f"--config={FILE}", "--grid", f"--workdir={tmp_path}"]
    _, output = launch(*flags, fails=True)
    assert "1 of 3 variants failed: broken: optimizers/optax.lbfgs: it cannot be used" in output
    reports = {
        name: source.load(tmp_path / name / "report" / "report.json") for name in ("narrow", "slow")
    }
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [(r["member"], r["metric"]) for r in lines] == [
        (n, m) for n in ("narrow", "slow") for m in ("auc", "tpr@0.1")
    ]
    for line in lines:
        same = [
            r
            for r in reports[line["member"]]["results"]
            if (r["attack"], r["metric"], r["target"]) == ("threshold_loss", line["metric"], None)
        ]
        row = next(r for r in same if r["slice"] == "all")
        assert float(line["value"]) == row["value"] and float(line["low"]) == row["low"]
        accuracies = [m["train_accuracy"] for m in reports[line["member"]]["models"]]
        assert float(line["train_accuracy"]) == pytest.approx(sum(accuracies) / len(accuracies))
    text = (tmp_path / "table.md").read_text()
    assert (
        "| `narrow` |" in text
        and "`broken`: optimizers/optax.lbfgs" in text
        and (tmp_path / "table.png").stat().st_size > 1000
    )
    models = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("model/*.npz")}
    assert len(models) == 8
    _, output = launch(
        *flags, "--config.learner.batch_size=16", fails=True
    )  # another config than the workdirs': refused, and nothing is touched
    assert "3 of 3 variants failed" in output
    assert "learner.batch_size: 32 on disk, 16 in this run" in output
    assert {p: p.stat().st_mtime_ns for p in models} == models
    _, output = launch(*flags, fails=True)
    assert output.count("nothing changed") == 2


def test_a_workdir_of_a_single_run_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    module = grid.load(FILE)
    with pytest.raises(ValueError, match="holds a single run"):
        grid.run(module, grid.variants(module), workdir_path=tmp_path)


def test_a_run_without_a_number_is_a_dash_and_an_empty_cell():
    reports = {
        "one": dict(results=[], models=[dict(train_accuracy=0.5, validation_accuracy=0.25)]),
        "two": dict(results=[]),
    }
    rows = variants.rows(reports, attacks=("lira",), metrics=("auc",))
    assert (
        rows[0]["train_accuracy"] == 0.5
        and rows[0]["value"] is None
        and rows[1]["train_accuracy"] is None
    )
    text = grid_table.markdown(reports, failed={}, attacks=("lira",), metrics=("auc",))
    assert "| `one` | 50.0% | 25.0% | – |" in text and "| `two` | – | – | – |" in text
    assert figures.variants([rows[0] | dict(value=0.7, low=0.6, high=0.8)]).axes
