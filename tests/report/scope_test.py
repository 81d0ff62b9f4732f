"""The section for those who sign: every fact is one of report.json, and none is claimed without."""

import re

import numpy as np
import pytest

import mia_jax
from mia_jax.metrics import rows as result_rows
from mia_jax.report import figures, html, page, rendering, scope, tables

PROMISE = dict(
    epsilon=3.0,
    delta=1e-5,
    accountant="pld",
    adjacency="add_remove",
    unit="example",
    refused=[],
    others={},
    notes=[],
    covers="the model",
    not_covered=[],
    sampling="poisson",
    steps=100,
    expected_batch=50.0,
    clip_norm=1.0,
    noise_multiplier=1.0,
    method="taps",
)


def audited(gain, models=16):
    rng = np.random.default_rng(0)
    member = np.zeros((models, 200), bool)
    for m in range(0, models, 2):
        member[m, rng.permutation(200)[:100]] = True
        member[m + 1] = ~member[m]
    loss = np.abs(rng.normal(size=member.shape) + 3 - gain * member)
    given = dict(shadow_loss=loss, shadow_member=member)
    return mia_jax.audit(given, attacks=("threshold_loss", "lira_shrunk"), draws=40).report


@pytest.fixture(scope="module")
def leak():
    return audited(2.0)


@pytest.fixture(scope="module")
def quiet():
    return audited(0.0)


def says(report, questions=scope.ASSESSMENT):
    return {row.key: row.says for row in scope.rows(report, questions)}


def test_every_number_is_one_of_report_json(leak):
    lines, verdict = says(leak), leak["verdict"]
    first = verdict["strongest"]
    rows = result_rows.main_rows(leak["results"])
    for fpr in result_rows.fprs(rows):
        row = result_rows.resolved(rows, first, f"tpr@{fpr:g}")
        assert row["value"] is None or tables.number(row).rstrip("†") in lines["rates"]
    assert tables.number(result_rows.resolved(rows, first, "auc")) in lines["rates"]
    assert lines["rates"].startswith(f"{first}, the attack ranked first,")
    assert "shadow models: 1" in lines["means"] and "target's outputs only: 1" in lines["means"]
    assert "predicted labels only: 0; its outputs: 2; its parameters: 0." in lines["means"]
    assert (
        "16 models audited, each with 100 members and 100 non-members; 14 shadow models"
        in (lines["subject"])
    )
    for metric, value in verdict["detectable"].items():
        number = f"{value:.3f}" if metric == "auc" else f"{tables.percent(value)}%"
        assert f"{tables.metric_name(metric)} {number}" in lines["missed"]
    identified = leak["identification"]["attacks"][first]
    assert (
        f"{first} identifies {tables.amount(identified['identified'])} records" in (lines["people"])
    )
    table = leak["records"][first]
    assert f"{table['significant']:,} of {table['tested']:,} records" in lines["people"]
    assert re.match(r"\d of 7 checks passed", lines["checks"])


def test_a_leak_and_none_are_said_as_the_verdict_says_them(leak, quiet):
    assert says(leak)["leak"].startswith("Yes, better than by guessing")
    assert says(leak, scope.VERIFICATION)["simulated"].startswith("2 attacks simulated, 1 with sha")
    assert "Not met: " in says(leak, scope.VERIFICATION)["simulated"]
    assert says(quiet)["leak"].startswith("Not shown: none of the attacks that were tried")
    for report in (leak, quiet):
        assert says(report)["anonymous"].startswith("This report cannot say so.")
    assert "no more" in says(quiet)["anonymous"] and "speaks against" in says(leak)["anonymous"]
    blind = dict(quiet, verdict=dict(quiet["verdict"], detectable={}))
    assert says(blind)["missed"] == "One of any size: this study is too small."


def test_the_most_exposed_group_is_named_with_its_difference(leak):
    entry = dict(slice="class=`8`", auc=0.75, low=0.7, high=0.8, p_holm=0.01, n_records=50)
    entry |= dict(excess=0.1, excess_low=-0.05, excess_high=0.2, post_hoc=False)
    other = dict(entry, slice="class=1", p_holm=0.5)
    name = leak["verdict"]["strongest"]
    lines = says(dict(leak, slices=dict(ranking={name: [entry, other]})))["groups"]
    assert "2 groups that were tested: class=`8`, with an AUC of 0.750 [0.700, 0.800]" in lines
    assert "+0.100 [-0.050, +0.200] compared with all records" in lines
    assert "A leak is shown in 1 of 2 groups" in lines
    assert says(dict(leak, slices=None))["groups"].startswith("Not measured")


def test_the_next_step_follows_from_the_verdict(leak, quiet):
    def section(report):
        return page.report(report).partition("## What to do next")[2].partition("\n## ")[0]

    assert "acceptable" in section(leak) and "To leak less" in section(leak)
    assert "no proof" in section(quiet) and "To leak less" not in section(quiet)
    assert "`results.compare(other)`" in section(leak)  # arrays were passed in Python
    here = dict(leak, about={k: v for k, v in leak["about"].items() if k != "arrays"})
    assert "results.csv" in section(here) and "`results.compare" not in section(here)
    blind = dict(auc=0.9, p_value=1e-20, method="forest", rows=200, features=5)
    withheld = dict(leak, validity=dict(leak["validity"], blind=blind))
    assert "Correct what the failed check" in section(withheld)
    assert "acceptable" not in section(withheld)
    for report in (leak, quiet, withheld):
        text = " ".join(section(report).split())
        assert html.headline(report)["next"] in text and html.headline(report)["next"]


def test_without_a_verdict_nothing_is_concluded(leak):
    blind = dict(auc=0.9, p_value=1e-20, method="forest", rows=200, features=5)
    withheld = dict(leak, validity=dict(leak["validity"], blind=blind))
    lines = says(withheld)
    assert lines["leak"].startswith("This report cannot tell") and "blind baseline" in lines["leak"]
    assert lines["rates"].startswith("Without a verdict: ")
    assert lines["anonymous"].endswith("It has no verdict to build on.")
    assert "withheld" in says(withheld, scope.VERIFICATION)["simulated"]


def test_what_was_not_tried_follows_from_what_was(leak):
    untried = says(leak)["untried"]
    assert "white box" in untried and "predicted labels only" in untried
    assert "train shadow models" not in untried
    seen = {
        name: dict(entry, access=access)
        for (name, entry), access in zip(leak["attacks"].items(), ("white_box", "labels"))
    }
    untried = says(dict(leak, attacks=seen))["untried"]
    assert "white box" not in untried and "predicted labels only" not in untried
    old = {name: {k: v for k, v in row.items() if k != "access"} for name, row in seen.items()}
    lines = says(dict(leak, attacks=old))
    assert "is not in this report" in lines["untried"] and "its parameters" not in lines["means"]
    alone = [row for row in leak["results"] if row["attack"] == "threshold_loss"]
    report = {k: v for k, v in leak.items() if k != "verdict"} | dict(results=alone)
    assert "train shadow models, as a rule the stronger" in says(report)["untried"]


@pytest.mark.parametrize(
    "about, words",
    [
        (dict(arrays=True, target=""), "Arrays of answers: this report cannot tell which models"),
        (dict(arrays=True, target="", asked="model"), "Your model itself, which was asked here."),
        (dict(arrays=True, target="", asked="recipe"), "your own training function trained here"),
        (dict(arrays=False, target="answers"), "Your model itself, by its answers."),
        (dict(arrays=False, target=""), "trained here by the stated recipe, not a released model"),
    ],
)
def test_it_is_said_whether_the_released_model_was_attacked(leak, about, words):
    assert words in says(dict(leak, about=about))["subject"]


def test_a_guarantee_is_stated_only_where_it_is_claimed(leak):
    def promised(**more):
        report = dict(leak, **more)
        return says(report)["guarantee"], says(report, scope.VERIFICATION)["budget"]

    claimed = dict(guarantee=PROMISE)
    for text in promised(**claimed):
        assert "epsilon 3 at delta 1e-05 (accountant pld; data sets that differ in one ex" in text
    bound = dict(epsilon=4.0, ceiling=5.0)
    for text in promised(**claimed, audit=dict(bound=bound, violated=True, claim=PROMISE)):
        assert "The claim is violated: the audit of canaries shows that epsilon is at least 4" in (
            text
        )
    honest = dict(bound=dict(epsilon=0.0, ceiling=5.0), violated=False, claim=PROMISE)
    assert (
        "no lower bound of epsilon above 0; it could have shown at most 5"
        in (promised(**claimed, audit=honest)[0])
    )
    for text in promised(guarantee=dict(PROMISE, refused=["other noise"])):
        assert "no epsilon can be claimed" in text and "epsilon 3" not in text
    for text in promised(guarantee=None):
        assert text.startswith("Not known to this report")
    here = dict(arrays=False, target="")
    for text in promised(guarantee=None, about=here):
        assert text == "No: the models were trained without differential privacy."


@pytest.mark.parametrize("name", ["leak", "quiet"])
def test_the_section_is_on_both_pages_and_its_links_lead_somewhere(name, request):
    report = request.getfixturevalue(name)
    text, shown = page.report(report), html.report(report)
    assert "\n## What this report shows and does not show\n" in text
    section = text.partition("## What this report shows")[2].partition("\n## ")[0]
    assert "no legal advice" in section and "Opinion 28/2024" in section and "C11.3" in section
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    rows = scope.rows(report, (*scope.ASSESSMENT, *scope.VERIFICATION))
    for where in {where for row in rows for where in row.where} - {"attacks", "appendix"}:
        assert scope.NAMES[where] in headings
    there = set(re.findall(r'id="([^"]+)"', shown))
    linked = set(re.findall(r'href="#([^"]+)"', shown))
    assert linked <= there and {"section-scope", "verdict"} <= linked
    section = shown.partition('id="section-scope"')[2].partition("</details>")[0]
    assert section.count("<tr>") == len(rows) + 2 and "no legal advice" in section


# --------------------------------------------------------------------------------
# words in other sections
def test_a_verb_has_no_tooltip_of_a_noun():
    for verb in ("members score lower", "no class labels to slice by", "Records score higher"):
        shown = rendering.with_terms(verb)
        assert ">score</abbr>" not in shown and ">slice</abbr>" not in shown
    assert rendering.with_terms("members score lower than the score").count(">score</abbr>") == 1


def test_the_words_for_models_are_not_those_for_arrays(leak):
    own = dict(leak, about=dict(leak["about"], asked="model", said=["a note"]))
    text = page.report(own).partition("## The answer")[0]
    assert "your models: 16 models" in text and "Notes on the models:" in text
    assert text.startswith("# Membership inference: your data, your model\n")
    assert "arrays:" not in text and "only their outputs were used" in text
    few = dict(lira_shrunk=dict(why="1 independent target", few=True))
    assert "pass fit= and models= without predict=" in page.report(dict(own, records=few))
    text = page.report(leak).partition("## The answer")[0]
    assert "your arrays: 16 models" in text


def test_what_knows_more_is_named_in_words():
    assert tables.attacker_has("half_of_target_members") == "half of the target's members"


def test_titles_of_panels_are_wrapped_to_their_width():
    names = {"auc": "AUC", "advantage_optimistic": "advantage at the oracle threshold"}
    number = dict(value=0.5, low=None, high=None)
    point = dict(epoch=1, validation_accuracy=0.5) | dict.fromkeys(names, number)
    figure = figures.epochs({"lira": [point]}, titles=names, over="mean over 64 targets")
    figure.canvas.draw()
    panels = [axes.get_title() for axes in figure.axes]
    assert any("advantage at the oracle threshold" in title.replace("\n", " ") for title in panels)
    for axes in figure.axes:
        box = axes.title.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
