"""The ranking of attacks: hand-made intervals, and the same leading attack in every place."""

import re

import numpy as np
import pytest

import mia_jax
from mia_jax.measures import seeds, selection, verdict
from mia_jax.metrics import rows as result_rows
from mia_jax.report import gate, html, page

TPR = "tpr@0.01"
NONE = (None, None, None)


def rows_of(**attacks):
    """Rows of attacks given as (TPR at 1% FPR, low, high), (AUC, low, high)[, knows]."""
    common = dict(
        slice="all",
        interval="records",
        method="",
        convention="",
        fpr_realized=None,
        n_member=500,
        n_nonmember=500,
        n_targets=8,
        target=None,
    )
    return [
        dict(
            attack=name,
            metric=metric,
            value=numbers[0],
            low=numbers[1],
            high=numbers[2],
            knows=(more or ["shadows"])[0],
        )
        | common
        for name, (tpr, auc, *more) in attacks.items()
        for metric, numbers in ((TPR, tpr), ("auc", auc))
        if numbers
    ]


# what the case is about: (attacks, their order)
CASES = {
    "the lower end decides, not the value": (
        dict(
            lucky=((0.07, 0.035, 0.13), (0.6, 0.58, 0.62)),
            sure=((0.05, 0.040, 0.06), (0.6, 0.58, 0.62)),
        ),
        ["sure", "lucky"],
    ),
    "a higher TPR that says nothing is not above an attack that shows a leak": (
        dict(
            noise=((0.022, 0.008, 0.04), (0.480, 0.46, 0.50)),
            lira=((0.021, 0.009, 0.04), (0.599, 0.574, 0.624)),
        ),
        ["lira", "noise"],
    ),
    "nor above another one that shows none": (
        dict(
            noise=((0.022, 0.009, 0.04), (0.480, 0.45, 0.51)),
            lira=((0.021, 0.008, 0.04), (0.510, 0.49, 0.53)),
        ),
        ["lira", "noise"],
    ),
    "TPR comes before AUC": (
        dict(
            average=((0.02, 0.012, 0.03), (0.8, 0.78, 0.82)),
            low_fpr=((0.05, 0.040, 0.06), (0.6, 0.58, 0.62)),
        ),
        ["low_fpr", "average"],
    ),
    "equal lower ends of TPR: the AUC": (
        dict(
            a=((0.05, 0.04, 0.06), (0.6, 0.58, 0.62)),
            b=((0.05, 0.04, 0.06), (0.7, 0.68, 0.72)),
        ),
        ["b", "a"],
    ),
    "a tie in everything: the name": (
        {
            name: ((0.05, 0.04, 0.06), (0.6, 0.58, 0.62))
            for name in ("threshold_loss", "gap", "lira")
        },
        ["gap", "lira", "threshold_loss"],
    ),
    "few records: the TPR is not resolvable": (
        dict(a=(NONE, (0.6, 0.52, 0.68)), b=(NONE, (0.58, 0.54, 0.62))),
        ["b", "a"],
    ),
    "no TPR at all": (
        dict(a=(None, (0.6, 0.52, 0.68)), b=(None, (0.58, 0.54, 0.62))),
        ["b", "a"],
    ),
    "a value without an interval leads nowhere": (
        dict(
            known=((0.02, 0.005, 0.04), (0.52, 0.49, 0.55)),
            unknown=((0.9, None, None), (0.99, None, None)),
        ),
        ["known", "unknown"],
    ),
    "no attack has an interval: the values": (
        dict(
            a=((0.02, None, None), (0.7, None, None)),
            b=((0.03, None, None), (0.6, None, None)),
            c=(NONE, NONE),
        ),
        ["b", "a", "c"],
    ),
    "a leak at 1% FPR counts, whatever the AUC": (
        dict(
            wrong=((0.05, 0.040, 0.06), (0.40, 0.38, 0.42)),
            quiet=((0.01, 0.004, 0.02), (0.50, 0.48, 0.52)),
        ),
        ["wrong", "quiet"],
    ),
    "the wrong way, without a leak at 1% FPR": (
        dict(
            wrong=((0.005, 0.001, 0.01), (0.40, 0.38, 0.42)),
            quiet=((0.005, 0.001, 0.01), (0.45, 0.30, 0.60)),
            failed=(NONE, NONE),
        ),
        ["quiet", "failed", "wrong"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_attacks_are_ranked_by_one_rule(case):
    attacks, expected = CASES[case]
    rows = rows_of(**attacks)
    decided = verdict.decide(rows)
    assert decided["ranked"] == expected and decided["strongest"] == expected[0]
    assert verdict.decide(rows[::-1])["ranked"] == expected


def test_an_attack_that_knows_more_leads_only_where_it_alone_shows_a_leak():
    cheat = ((0.5, 0.4, 0.6), (0.9, 0.88, 0.92), "half_of_target_members")
    quiet = ((0.01, 0.004, 0.02), (0.50, 0.48, 0.52))
    loud = ((0.05, 0.04, 0.06), (0.6, 0.58, 0.62))
    assert verdict.decide(rows_of(quiet=quiet, cheat=cheat))["strongest"] == "cheat"
    assert verdict.decide(rows_of(loud=loud, cheat=cheat))["strongest"] == "loud"


def test_a_question_about_one_metric_has_the_same_rule_with_that_metric_first():
    rows = rows_of(
        average=((0.02, 0.012, 0.03), (0.8, 0.78, 0.82)),
        low_fpr=((0.05, 0.040, 0.06), (0.6, 0.58, 0.62)),
        wide=((0.02, 0.0, 0.3), (0.9, 0.40, 0.99)),
    )
    report = dict(results=rows)
    assert selection.strongest(report, "auc").attack == "average"
    assert selection.strongest(report, TPR).attack == "low_fpr"


def test_seeds_are_ranked_by_the_mean_of_their_lower_ends():
    """Not by the mean of the values, by which `noise` would lead."""
    of_seed = [
        dict(
            results=rows_of(
                noise=((0.030 + shift, 0.004, 0.08), (0.48, 0.44, 0.52)),
                lira=((0.028, 0.012 + shift, 0.04), (0.6, 0.57, 0.63)),
            )
        )
        for shift in (0.0, 0.002)
    ]
    decided = seeds.decided(of_seed)
    assert decided["ranked"] == ["lira", "noise"] and decided["strongest"] == "lira"
    assert verdict.order(dict(results=[], verdict=decided)) == (["lira", "noise"], [])
    missing = [of_seed[0], dict(results=rows_of(noise=((0.03, 0.004, 0.08), (0.48, 0.44, 0.52))))]
    assert seeds.decided(missing)["ranked"] == ["noise", "lira"]


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    member = np.zeros((12, 240), bool)
    for m in range(0, 12, 2):
        member[m, rng.permutation(240)[:120]] = True
        member[m + 1] = ~member[m]
    loss = np.abs(rng.normal(size=member.shape) + 3 - 2 * member)
    return mia_jax.audit(
        dict(shadow_loss=loss, shadow_member=member),
        attacks=("threshold_loss", "lira_shrunk", "lira_offline", "reference"),
        draws=60,
    )


def test_every_place_names_the_same_attack(results):
    """Verdict, answer, tables, figure, comparison, agreement, identification, records, slices,
    gate, printed results and selection.
    """
    report, leading = results.report, results.report["verdict"]["strongest"]
    order = report["verdict"]["ranked"]
    assert order[0] == leading and len(order) == 4
    rows = result_rows.main_rows(report["results"])
    lower = [verdict.lower_end(result_rows.resolved(rows, name, TPR)) for name in order]
    assert lower == sorted(lower, reverse=True)
    text = page.report(report, figures=["figures/roc.png"])
    assert f"strongest: `{leading}`." in text
    table = text.split("## All attacks, strongest first")[1].split("\n\n")[1]
    assert re.findall(r"^\| `(\w+)` ", table, re.MULTILINE) == order
    assert html.headline(report)["sentence"].startswith(f"{leading}, the strongest of 4 attacks,")
    of_knowledge = html.best_table(rows, report["verdict"])["lines"]
    assert of_knowledge[0]["attack"] == leading
    drawn = html.data(report)
    assert drawn["attacks"] == order and drawn["best"][0] == 0
    assert [line["attack"] for line in html.curve_table(report)["lines"]] == order
    assert report["comparisons"][0]["attack"] == leading
    for section in ("agreement", "identification"):
        assert next(iter(report[section]["attacks"])) == leading
    assert list(report["records"]) == [leading] == [report["usage"]["attack"]]
    answer = gate.of(report, "tpr@0.01 <= 0.011")
    assert gate.deciding(answer.limits[0][2])[0].attack == leading
    assert [line.split()[0] for line in repr(results).splitlines()[3:6]] == order[:3]
    assert selection.strongest(report, TPR).attack == leading
