"""The report: who is ranked, what is printed, that nothing prints NaN, and that the files are
whole.
"""

import csv
import io
import json
import re

import numpy as np
import pytest

from mia_jax.measures import curves, verdict
from mia_jax.metrics import bootstrap, roc, summary, thresholds
from mia_jax.metrics import rows as result_rows
from mia_jax.report import figures, files, page, source, tables
from mia_jax.report.sections import answer, target


def evidence(targets=10, records=240, seed=0):
    """Scores of complementary targets: three attacks that a real attacker can run, one that knows
    half of the answer.
    """
    rng = np.random.default_rng(seed)
    member = np.zeros((targets, records), bool)
    for t in range(0, targets, 2):
        member[t, rng.permutation(records)[: records // 2]] = True
        member[t + 1 :][:1] = ~member[t]
    unit = np.arange(targets) // 2
    evaluated = np.broadcast_to(np.arange(records) >= 20, member.shape)
    attacks = {}
    for name, gain, knows in (
        ("weak_100%", 0.3, "nothing"),
        ("strong", 1.5, "shadows"),
        ("cheat", 3.0, "half_of_target_members"),
    ):
        score = np.where(evaluated, rng.normal(size=member.shape) + gain * member, np.nan)
        threshold = thresholds.shadow_thresholds(
            score, member, evaluated, unit[:, None] != unit[None]
        )
        attacks[name] = dict(score_TN=score, knows=knows, threshold_T=threshold)
    attacks["gap"] = dict(score_TN=np.where(evaluated, 1.0, np.nan), knows="nothing")
    return attacks, member, evaluated, unit


@pytest.fixture(scope="module")
def study():
    attacks, member, evaluated, unit = evidence()
    draws = bootstrap.make(member.shape[1], unit, draws=60)
    rows = summary.rows(attacks, member, evaluated, unit_T=unit, draws=draws)
    about = dict(
        data="digits",
        examples=240,
        classes=10,
        shape=[64],
        seed=3,
        duplicates=dict(rows=4, crossing=2),
        model=dict(name="mlp", widths=[8]),
    )
    models = [
        dict(
            model=m,
            target=True,
            train_accuracy=0.99,
            validation_accuracy=0.9 + m / 500,
            epochs=5,
            seconds=1.5,
        )
        for m in range(10)
    ]
    report = dict(
        about=about,
        results=rows,
        models=models,
        design=dict(name="halves", models=10, targets=list(range(10)), shadows_min=8),
    )
    report |= dict(
        attacks={
            n: dict(needs=("loss",), knows=a["knows"], note="a|b") for n, a in attacks.items()
        },
        versions=dict(packages=dict(jax="0.1")),
    )
    point = dict(auc=0.6, auc_low=0.55, auc_high=0.65, tpr=None, tpr_low=None, tpr_high=None)
    report["shadow_curves"] = {
        "strong": {1: point, 2: point | dict(tpr=0.1, tpr_low=0.05, tpr_high=0.2)}
    }
    return report, attacks, member, evaluated, draws


def test_rows_have_every_column_and_no_nan(study):
    rows = study[0]["results"]
    required = set(result_rows.COLUMNS) - {"sd_over_models", "null_mean", "p_value"}
    assert all(required <= set(row) <= set(result_rows.COLUMNS) for row in rows)
    json.dumps(rows, allow_nan=False)
    scopes = {row["target"] for row in rows}
    assert scopes == {None, "pooled", *range(10)}
    strong = {(r["target"], r["metric"]): r for r in rows if r["attack"] == "strong"}
    assert strong[None, "auc"]["interval"] == "crossed" and "sd_over_models" in strong[None, "auc"]
    assert (strong[None, "auc"]["n_member"], strong["pooled", "auc"]["n_member"]) == (110, 1100)
    assert strong["pooled", "tpr@0.01"]["fpr_realized"] <= 0.01
    assert strong[None, "tpr@0.001"]["value"] is None and strong[None, "tpr@0.001"][
        "method"
    ].startswith("not resolvable: FPR 0.001 < 1/10")
    assert strong["pooled", "tpr@0.001"]["value"] is not None
    assert strong[None, "balanced_accuracy"]["value"] == pytest.approx(
        (1 + strong[None, "advantage"]["value"]) / 2
    )
    assert (
        strong[None, "oracle_threshold"]["knows"] == "oracle_threshold"
        and strong[None, "oracle_threshold"]["low"] is None
    )
    assert strong[None, "advantage_optimistic"]["value"] > strong[None, "advantage"]["value"]
    assert strong[3, "auc"]["low"] is None and strong[3, "auc"]["method"] == "value only"


def test_mean_and_pooled_are_what_they_say(study):
    report, attacks, member, evaluated, _ = study
    score = attacks["strong"]["score_TN"]
    curves = [roc.roc(s[e], m[e]) for s, m, e in zip(score, member, evaluated)]
    assert result_rows.find(report["results"], "strong", "auc")["value"] == pytest.approx(
        np.mean([roc.auc(c) for c in curves])
    )
    assert result_rows.find(report["results"], "strong", "tpr@0.1")["value"] == pytest.approx(
        np.mean([roc.tpr_at_fpr(c, 0.1).tpr for c in curves])
    )
    pooled = roc.roc(score[evaluated], member[evaluated])
    assert (
        result_rows.find(report["results"], "strong", "tpr@0.01", "pooled")["value"]
        == roc.tpr_at_fpr(pooled, 0.01).tpr
    )
    threshold = attacks["strong"]["threshold_T"]
    rates = [roc.rates_at(s[e], m[e], t) for s, m, e, t in zip(score, member, evaluated, threshold)]
    assert result_rows.find(report["results"], "strong", "balanced_accuracy")[
        "value"
    ] == pytest.approx(np.mean([r.balanced_accuracy for r in rates]))
    assert (
        result_rows.find(report["results"], "strong", "advantage", 4)["fpr_realized"]
        == rates[4].fpr
    )


def test_equal_scores_and_missing_thresholds_are_plain(study):
    rows = [r for r in study[0]["results"] if r["attack"] == "gap" and r["target"] is None]
    values = {r["metric"]: r for r in rows}
    assert values["auc"]["value"] == 0.5 and values["auc"]["low"] < 0.5 < values["auc"]["high"]
    assert values["tpr@0.1"]["value"] == 0 and 0 < values["tpr@0.1"]["high"] < 0.05
    assert (
        values["balanced_accuracy"]["value"] is None
        and values["balanced_accuracy"]["method"] == "no shadow to choose a threshold on"
    )


def test_one_target_has_intervals_of_its_own():
    attacks, member, evaluated, _ = evidence(targets=2)
    scores = {"strong": dict(score_TN=attacks["strong"]["score_TN"][:1], threshold_T=[0.5])}
    rows = summary.rows(scores, member[:1], evaluated[:1], targets=[7], fprs=(0.02, 0.1))
    assert {r["target"] for r in rows} == {None, "pooled", 7}
    by = {(r["target"], r["metric"]): r for r in rows}
    for metric, interval in (
        ("auc", "records"),
        ("tpr@0.02", "records"),
        ("tpr@0.1", "records"),
        ("fpr", "fixed_threshold"),
    ):
        first = by[7, metric]
        assert first["interval"] == interval and first["low"] <= first["value"] <= first["high"]
        assert all(by[t, metric]["low"] == first["low"] for t in (None, "pooled"))
    assert "box" in by[7, "tpr@0.02"]["method"] and "stratified" in by[7, "tpr@0.1"]["method"]


def test_bad_scores_are_named():
    attacks, member, evaluated, _ = evidence(targets=2)
    attacks["strong"]["score_TN"][1, 50] = np.nan
    with pytest.raises(ValueError, match="attack 'strong', target 1: score has 1 of 220"):
        summary.rows(attacks, member, evaluated)
    with pytest.raises(ValueError, match="axis T has length 1 in scores of a"):
        summary.rows({"a": dict(score_TN=np.zeros((1, 240)))}, member, evaluated)
    with pytest.raises(
        ValueError, match="attack 'a', target 0: a ROC needs members and non-members"
    ):
        summary.rows({"a": dict(score_TN=np.zeros((2, 240)))}, np.ones_like(member), evaluated)


def test_what_knows_more_is_never_ranked(study):
    rows = study[0]["results"]
    assert verdict.order(dict(results=rows)) == (["strong", "weak_100%", "gap"], ["cheat"])
    assert verdict.order(dict(results=rows[::-1])) == verdict.order(dict(results=rows))
    text = page.report(study[0])
    ranked, apart = text.split("Not ranked: attacks that know more")
    assert "| `cheat` " not in ranked and "| `cheat` " in apart
    assert ranked.index("| `strong` ") < ranked.index("| `weak_100%` ") < ranked.index("| `gap` ")


def test_markdown_holds_the_three_numbers_and_says_what_is_missing(study):
    report = study[0]
    text, rows = page.report(report, figures=["figures/roc.png"]), report["results"]
    for metric, scope in (("auc", None), ("tpr@0.01", None), ("tpr@0.001", "pooled")):
        row = result_rows.find(rows, "strong", metric, scope)
        number = tables.number(row, bounds=False).rstrip("†")
        assert re.search(rf"\| \*\*{re.escape(number)}\*\* \| \[[\d., ]+\] \|", text), number
    assert (
        "pooled: 1,100 members and 1,100 non-members" in text
        and "mean over 10 targets with 110 members and 110 non-members each" in text
    )
    assert not re.search(r"\b(nan|inf|None|NaN)\b", text)
    assert (
        re.search(
            r"TPR at 0\.1% FPR .* cannot be measured on one target: with 1\d\d non-members, one "
            r"false positive is already 0\.\d+%\. The tables show the value for all targets pooled",
            text,
        )
        and "`gap`): no shadow to choose a threshold on" in text
    )
    assert "**Duplicates:** 4 rows" in text and "2 sets contain members" in text
    assert (
        "of 100 pairs" in text
        and "random guessing identifies 1" in text
        and "![ROC curves](figures/roc.png)" in text
    )
    assert (
        "99.0 ± 0.00% on their members, 90.9 ± 0.61% on non-members" in text
        and "seed 3" in text
        and "| 0..9 |" in text
    )
    assert r"a\|b" in text


def test_markdown_of_scores_alone():
    attacks, member, evaluated, _ = evidence(targets=2, records=60)
    rows = summary.rows(
        {"strong": dict(score_TN=attacks["strong"]["score_TN"])}, member, evaluated, unit_T=[4, 4]
    )
    text = page.report(dict(results=rows))
    assert (
        text.startswith("# Membership inference\n")
        and "cannot be measured on one target" in text
        and not re.search(r"\b(nan|None)\b", text)
    )
    assert "1 of the 5 independent units of models that are needed" in text


@pytest.mark.parametrize(
    "row, words",
    [
        (
            dict(metric="tpr@0.01", value=0.07, low=0.05, high=0.09),
            "The attack identifies 7 of 100 members at 1% FPR; random guessing identifies 1. "
            "Significant.",
        ),
        (
            dict(metric="tpr@0.001", value=0.004, low=0.0, high=0.009),
            "The attack identifies 4 of 1,000 members at 0.1% FPR; random guessing identifies 1. "
            "Not "
            "disting",
        ),
        (
            dict(metric="tpr@0.01", value=0.01, low=0.005, high=0.02),
            "Not distinguishable from random guessing.",
        ),
        (
            dict(metric="auc", value=0.5, low=0.48, high=0.52),
            "(random guessing: 50). Not distinguishable from random guessing.",
        ),
        (dict(metric="auc", value=0.6, low=0.55, high=0.65), "(random guessing: 50). Significant."),
        (dict(metric="auc", value=0.4, low=0.35, high=0.45), "points the wrong way"),
    ],
)
def test_numbers_in_words(row, words):
    assert words in answer.in_words(row)


def test_numbers_as_text():
    row = dict(metric="tpr@0.01", value=0.0961, low=0.0074, high=0.121, target=None, method="")
    assert tables.number(row) == "9.6% [0.74, 12.1]"
    assert tables.number(row | dict(target="pooled"), bounds=False) == "9.6%†"
    assert tables.number(row | dict(metric="auc", value=0.6449, low=None)) == "0.645"
    assert (
        tables.number(row | dict(value=None, method="not resolvable: FPR 0.01 < 1/50"))
        == "not resolvable"
    )
    assert tables.number(row | dict(value=None, method="no shadow")) == tables.number(None) == "–"
    assert (
        tables.statistic([0.5]) == "50.0%"
        and tables.statistic([None]) == "–"
        and tables.statistic([0.4, 0.6]) == "50.0 ± 14.1%"
    )
    assert [tables.rate_name(f) for f in (0.001, 0.01, 0.1)] == ["0.1%", "1%", "10%"]


def test_settings_leave_out_what_is_off():
    section = dict(
        name="backprop",
        epochs=5,
        l1=0.0,
        augment=(),
        stop=None,
        validation="none",
        epsilon=1e-8,
        objective=dict(name="squared"),
    )
    assert target.settings(section) == "backprop (epochs=5, objective=squared)"
    assert target.settings("mlp") == "mlp"
    chosen = dict(name="backprop", optimizer=dict(name="sgd", momentum=0.9), stop=dict(patience=2))
    assert target.settings(chosen) == "backprop (optimizer=sgd (momentum=0.9), stop=(patience=2))"


def test_csv_is_read_back(study):
    rows = study[0]["results"]
    back = list(csv.DictReader(io.StringIO(tables.to_csv(rows))))
    assert len(back) == len(rows) and list(back[0]) == list(result_rows.COLUMNS)
    assert all((b["value"] == "") == (r["value"] is None) for b, r in zip(back, rows))
    assert float(back[0]["value"]) == rows[0]["value"]


def test_latex_is_escaped(study):
    text = tables.results_latex(
        study[0]["results"], *verdict.order(study[0]), caption="50% of_it & {more} ~ ^ \\ #1 $"
    )
    assert r"weak\_100\% & " in text and r"TPR at 0.1\% FPR" in text
    assert (
        r"50\% of\_it \& \{more\} \textasciitilde{} \textasciicircum{} \textbackslash{} \#1 \$"
        in text
    )
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert {line.count(" & ") for line in body.splitlines() if line.endswith(r"\\")} == {7}
    assert body.count(r"\midrule") == 2 and body.index("weak") < body.index("cheat")
    assert not re.search(r"(?<!\\)[%_#]", body)


def test_files_are_whole_and_the_same_every_time(study, tmp_path):
    report, attacks, member, evaluated, draws = study
    for folder in (tmp_path / "a", tmp_path / "b"):
        files.write(
            report,
            attacks=attacks,
            member_TN=member,
            evaluated_TN=evaluated,
            draws=draws,
            folder=folder,
        )
    names = [
        "report.json",
        "report.md",
        "results.csv",
        "table.tex",
        *(f"figures/{n}.png" for n in ("roc", "scores", "shadows")),
    ]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name in names[4:]:
        image = (tmp_path / "a" / name).read_bytes()
        assert image.startswith(b"\x89PNG") and len(image) > 10_000
        assert f"]({name})" in (tmp_path / "a" / "report.md").read_text()
    assert source.load(tmp_path / "a" / "report.json")["results"] == report["results"]
    files.write(
        report,
        attacks=attacks,
        member_TN=member,
        evaluated_TN=evaluated,
        draws=draws,
        folder=tmp_path / "c",
        plots=False,
    )
    assert (
        not (tmp_path / "c" / "figures").exists()
        and "![" not in (tmp_path / "c" / "report.md").read_text()
    )


def test_figures_say_what_they_show(study):
    report, attacks, member, evaluated, draws = study
    curves = {
        name: summary.band(attacks[name]["score_TN"], member, evaluated, draws) for name in attacks
    }
    for curve in curves.values():
        assert (
            (curve["low"] <= curve["high"]).all()
            and curve["fpr"][0] == pytest.approx(1 / 1100)
            and curve["fpr"][-1] == 1 == curve["tpr"][-1]
        )
    axes = figures.roc(
        curves, labels=figures.legend_texts(report["results"]), over="pooled over 10 targets"
    ).axes[0]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[0] == "random guessing" and re.fullmatch(
        r"strong: AUC 0\.\d{3}, TPR at 1% FPR \d+\.\d%", legend[2]
    )
    assert (
        axes.get_xscale() == axes.get_yscale() == "log"
        and "pooled over 10 targets" in axes.get_title()
    )
    infinite = np.where(member, np.inf, -np.inf)
    panels = figures.scores(
        {"strong": (infinite, member), "gap": (np.ones(8), np.arange(8) < 4)}
    ).axes
    assert [a.get_title().split(":")[0] for a in panels] == ["strong", "gap"]
    assert "members (n = 1,200)" in [text.get_text() for text in panels[0].get_legend().get_texts()]
    auc, tpr = figures.shadows(
        {"lira": {"4": (0.6, 0.5, 0.7, 0.05, 0.02, 0.1), "2": (0.55, 0.5, 0.6, None, None, None)}}
    ).axes
    assert [text.get_text() for text in tpr.get_legend().get_texts()] == [
        "random guessing",
        "lira: 5.0% with 4 shadow models",
    ]
    assert [text.get_text() for text in auc.get_xticklabels()] == ["2", "4"]


def test_a_heavy_tail_does_not_squeeze_all_other_scores_into_one_bar():
    rng = np.random.default_rng(0)
    score = np.where(np.arange(2000) < 40, -300.0, rng.normal(size=2000))
    edges = curves.bin_edges(score, 60)
    counts = np.histogram(np.clip(score, edges[0], edges[-1]), edges)[0]
    assert counts.max() < 0.25 * len(score) and counts.sum() == len(score)
    plain = curves.bin_edges(rng.normal(size=2000), 60)
    assert -3.5 < plain[0] < -2 and 2 < plain[-1] < 3.5  # without such a tail: the middle 99%


def test_pictures_hold_the_best_attack_without_shadows():
    knows = dict(lira="shadows", rmia="shadows", loss="nothing", gap="nothing")
    assert files.with_baseline(list(knows), knows, 2) == ["lira", "loss"]
    assert files.with_baseline(list(knows), knows, 4) == list(knows)
    assert files.with_baseline(["lira", "rmia"], knows, 1) == ["lira"]


def test_models_table_is_short():
    header, lines = tables.models(
        [dict(model=m, train_accuracy=1.0, validation_accuracy=None, epochs=3) for m in range(20)]
    )
    assert header == ["model", "train accuracy", "epochs"] and len(lines) == 10
    assert lines[-1] == ["all 20", "100.0 ± 0.00%", "3 ± 0"]
