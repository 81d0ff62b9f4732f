"""What labels cost: queries counted per example, curves over parts of a budget, and paired
accuracies.
"""

import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.measures import query_cost
from mia_jax.metrics import bootstrap, comparisons
from mia_jax.pipeline.run import run
from mia_jax.query import interactive
from mia_jax.runtime import files
from mia_jax.types import Signal

LABEL = Signal(lambda out_BC, y_B: out_BC, 1, access="labels")
ASKING = Signal(None, 1, lambda *a: None, "labels", 3)
COUNTING = ASKING._replace(queries=lambda features: features)


def test_queries_of_several_signals_add_up_and_one_pass_answers_all_that_need_no_more(tmp_path):
    signals = dict(a=LABEL, b=LABEL, asking=ASKING, counting=COUNTING)
    count_ANP = np.arange(2 * 4 * 3).reshape(2, 4, 3).astype(np.int32)
    files.write_npy(interactive.count_file(tmp_path, "counting", 0), count_ANP)
    evaluated_MN = np.array([[True, True, False, False]])

    def spent(*names):
        return query_cost.spent(
            tmp_path, names, signals, models=[0], evaluated_MN=evaluated_MN, views=2
        )

    assert spent("a", "b") == dict(queries=2.0, queries_max=2)
    assert spent("a", "asking") == dict(queries=8.0, queries_max=8)
    last_N = count_ANP.sum(0)[:, -1]
    assert spent("counting") == dict(queries=last_N[:2].mean(), queries_max=last_N[1])
    with pytest.raises(FileNotFoundError, match="run the query stage first"):
        query_cost.spent(
            tmp_path,
            ["counting"],
            signals,
            models=[1],
            evaluated_MN=np.tile(evaluated_MN, (2, 1)),
            views=1,
        )
    assert query_cost.labels_only(["a", "asking"], signals) and not query_cost.labels_only(
        ["a"], dict(a=LABEL._replace(access="outputs"))
    )
    assert not query_cost.labels_only([], signals) and not query_cost.labels_only(
        ["a"], dict(a=None)
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    noise = "noise_robustness:samples=20,sigma=0.2"
    config = configuration.complete(
        data=dict(name="digits", flat=False),
        design=dict(name="blocks", size=100, scored=40, drawn=True),
        model=dict(name="mlp", widths=(32,)),
        learner=dict(epochs=40, batch_size=20, learning_rate=3e-3),
        attacks=dict(
            gap=dict(),
            noise=dict(name="threshold", signal=noise),
            translation=dict(name="lookup"),
            loss=dict(name="threshold"),
        ),
        report=dict(slices=()),
        run=dict(chunk=1),
    )
    folder = tmp_path_factory.mktemp("budget")
    return run(config, workdir_path=folder), folder


def test_every_label_only_row_says_what_it_cost_and_no_other(report):
    results, folder = report
    cost = {
        row["attack"]: row.get("queries")
        for row in results["results"]
        if (row["metric"], row["target"]) == ("auc", None) and row["slice"] == "all"
    }
    correct_N = np.load(folder / "signal" / "correct" / "00000.npy")[0]
    scored = np.load(folder / "design" / "membership.npz")["evaluated_MN"][0]
    assert cost == dict(
        gap=1.0, noise=pytest.approx(1 + 20 * correct_N[scored].mean()), translation=5.0, loss=None
    )


def test_the_curve_of_a_budget_ends_in_the_whole_attack_and_begins_with_its_first_part(report):
    results, folder = report
    curve = results["queries"]["noise"]
    assert (
        set(results["queries"]) == {"gap", "noise", "translation"}
        and len(results["queries"]["gap"]) == 1
    )
    assert [p["queries"] for p in curve] == sorted(p["queries"] for p in curve) and len(
        curve
    ) == 7  # 1, 2, 3, 4, 5, 10, 20
    row = next(
        r
        for r in results["results"]
        if (r["attack"], r["metric"], r["target"]) == ("noise", "balanced_accuracy", None)
    )
    assert (
        curve[-1]["accuracy"] == row["value"]
        and (folder / "report" / "figures" / "queries.png").is_file()
    )
    text = (folder / "report" / "report.md").read_text()
    assert "## Query cost" in text and "queries per example" in text


def test_what_learned_on_the_only_source_names_members_from_its_own_threshold(report):
    results, _ = report
    row = next(
        r
        for r in results["results"]
        if (r["attack"], r["metric"], r["target"]) == ("translation", "balanced_accuracy", None)
    )
    assert row["value"] is not None


def test_a_paired_difference_of_accuracies_is_that_of_the_records_where_the_attacks_differ():
    rng = np.random.default_rng(0)
    member_TN, evaluated_TN = (np.arange(400) < 200)[None], np.ones((1, 400), bool)
    score = rng.normal(size=(1, 400)) + member_TN
    better = score + np.where(np.arange(400) < 20, 10, 0)  # twenty more members are named
    attacks = {
        n: dict(score_TN=s, threshold_T=np.array([0.5]))
        for n, s in (("one", better), ("other", score), ("same", score))
    }
    draws = bootstrap.make(400, np.arange(1), draws=400, seed=0)
    differences = {
        (r["attack"], r["versus"]): r
        for r in comparisons.accuracies(
            attacks, member_TN, evaluated_TN, names=list(attacks), draws=draws
        )
    }
    gained = ((better > 0.5) & ~(score > 0.5))[0].mean() * 400 / 200
    row = differences["one", "other"]
    assert (
        row["value"] == pytest.approx(gained / 2)
        and row["low"] > 0
        and row["metric"] == "balanced_accuracy"
    )
    half = 1.96 * np.sqrt(gained * (1 - gained) / 200) / 2
    assert row["high"] - row["value"] == pytest.approx(half, rel=0.35)
    same = differences["other", "same"]
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)
    attacks["none"] = dict(score_TN=score, threshold_T=np.array([np.nan]))
    assert (
        len(
            comparisons.accuracies(
                attacks, member_TN, evaluated_TN, names=list(attacks), draws=draws
            )
        )
        == 3
    )
