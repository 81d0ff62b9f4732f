"""The verdict cannot contradict the table below it, a failed check stands above it, and every place
that ranks attacks has the same ranking.
"""

import csv
import io
import re

import numpy as np
import pytest

import mia_jax
from mia_jax.measures import verdict as standing
from mia_jax.metrics import bootstrap, summary
from mia_jax.metrics import rows as result_rows
from mia_jax.report import answer, figures, files, grid_table, seeds, tables, trust
from mia_jax.report import page as pages
from mia_jax.report.sections import unresolved

TPR = "tpr@0.01"


def row(attack, metric, value, low, high, knows="shadows", target=None):
    common = dict(
        slice="all",
        interval="records",
        method="bootstrap",
        convention="",
        fpr_realized=None,
        n_member=500,
        n_nonmember=500,
        n_targets=8,
    )
    return (
        dict(
            attack=attack,
            target=target,
            metric=metric,
            value=value,
            low=low,
            high=high,
            knows=knows,
        )
        | common
    )


def rows_of(**attacks):
    """Rows of attacks given as (AUC, low, high, TPR at 1% FPR, low, high[, knows])."""
    return [
        row(name, metric, *numbers[start : start + 3], *numbers[6:])
        for name, numbers in attacks.items()
        for metric, start in (("auc", 0), (TPR, 3))
    ]


# the numbers of an audit with 8 models: the highest TPR at 1% FPR is not distinguishable from
# guessing, another attack's AUC is
LIRA = (0.506, 0.488, 0.525, 0.018, 0.006, 0.031)
LOSS = (0.573, 0.560, 0.585, 0.009, 0.004, 0.014, "nothing")
QUIET = (0.505, 0.490, 0.520, 0.012, 0.006, 0.020)


def report_of(rows, **more):
    verdict = standing.decide(rows)
    size = dict(n_member=500, n_nonmember=500, units=4, resampling="records", fprs=(0.01,))
    return (
        dict(results=rows, verdict=dict(verdict, detectable=standing.detectable(verdict, **size)))
        | more
    )


def test_a_leak_that_one_attack_shows_is_never_denied():
    """Whatever the attack with the highest point estimate says: the verdict, its attack, and the
    table's first line are the one that shows it.
    """
    report = report_of(rows_of(lira=LIRA, threshold_loss=LOSS))
    assert (
        report["verdict"]["leak"] == "shown" and report["verdict"]["strongest"] == "threshold_loss"
    )
    assert (
        report["verdict"]["attacks"]["threshold_loss"]["shown"] == ["auc"]
        and not report["verdict"]["attacks"]["lira"]["shown"]
    )
    text = pages.report(report)
    headline = text.split("## The answer\n\n")[1].split("\n")[0]
    assert headline.startswith(
        "**LEAK SHOWN (strong evidence, p < 0.001 after correction) by 1 of 2 attacks; strongest: "
        "`threshold_loss`.**"
    )
    assert not re.search("no leak", text, re.IGNORECASE)
    assert text.index("| `threshold_loss` |") < text.index("| `lira` |")
    assert answer.first_line(report).startswith(
        "LEAK SHOWN (strong evidence, p < 0.001 after correction) by 1 of 2 attacks; strongest: "
        "threshold_loss."
    )


def test_no_leak_is_said_with_what_could_have_been_seen():
    report = report_of(rows_of(lira=QUIET, other=QUIET))
    assert report["verdict"]["leak"] == "none" and report["verdict"]["tests"] == 4
    line = answer.first_line(report)
    assert re.fullmatch(
        r"NO LEAK SHOWN by any of the 2 attacks\. The smallest leak that this study would have "
        r"seen with 80% probability: \d\.\d% of the members identified at 1% false-positive rate "
        r"\(random guessing: 1%\), or an AUC of 0\.5\d\d \(random guessing: 0\.500\)\. A smaller "
        r"one may exist\.",
        line,
    ), line
    wide = standing.detectable(
        report["verdict"] | dict(tests=1),
        n_member=500,
        n_nonmember=500,
        units=4,
        resampling="records",
        fprs=(0.01,),
    )
    assert all(
        report["verdict"]["detectable"][m] > wide[m] for m in ("auc", TPR)
    )  # the correction for more tests costs power


def test_an_interval_above_guessing_that_fails_the_correction_is_said():
    """One of 20 attacks just above guessing is what chance gives: no leak is shown, and the verdict
    says that this interval excludes guessing.
    """
    report = report_of(
        rows_of(edge=(0.52, 0.501, 0.539, 0.01, 0.004, 0.02), **{f"a{i}": QUIET for i in range(19)})
    )
    edge = report["verdict"]["attacks"]["edge"]
    assert (
        report["verdict"]["leak"] == "none"
        and edge["alone"] == ["auc"]
        and 0.05 < edge["p_holm"] <= 1
    )
    line = answer.first_line(report)
    assert (
        "NO LEAK SHOWN" in line
        and "Undecided: edge is above random guessing by its own 95% interval" in line
        and "40 tests" in line
    )


def test_a_leak_in_parts_of_the_data_is_no_contradiction():
    """Slices, records or canaries that leak are named in the verdict of an audit whose attacks show
    nothing on average.
    """
    entry = dict(
        auc=0.6,
        low=0.55,
        high=0.7,
        excess=0.1,
        excess_low=0.0,
        excess_high=0.2,
        p_holm=0.01,
        n_records=9,
        post_hoc=False,
    )
    ranking = dict(
        lira=[
            entry | dict(slice="class=8"),
            entry | dict(slice="loss 0-10%", post_hoc=True),
            entry | dict(slice="class=1", p_holm=0.3),
        ]
    )
    report = report_of(
        rows_of(lira=QUIET),
        slices=dict(ranking=ranking),
        records=dict(lira=dict(why="too few targets")),
    )
    line = answer.first_line(report)
    assert line.startswith("NO LEAK SHOWN ON AVERAGE by 1 attack") and line.endswith(
        "BUT 1 of 3 slices leak under lira (corrected over the slices): class=8."
    )
    table = dict(significant=3, tested=200)
    line = answer.first_line(
        report
        | dict(
            slices={},
            records=dict(lira=table),
            audit=dict(violated=False, bound=dict(epsilon=0.4), claim=None),
        )
    )
    assert line.endswith(
        "BUT 3 of 200 records are exposed under lira; the canary audit shows that epsilon is at "
        "least 0.4."
    )
    assert "BUT" not in answer.first_line(
        report | dict(slices={}, audit=dict(violated=False, bound=dict(epsilon=0.0), claim=None))
    )


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_a_single_interval_and_its_p_value_agree(level):
    """p <= 1 - level exactly where the interval excludes guessing: on both scales, at the ends, for
    AUC and TPR.
    """
    rng = np.random.default_rng(0)
    for _ in range(300):
        metric = str(rng.choice(["auc", TPR, "balanced_accuracy"]))
        low, value, high = np.sort(
            rng.choice(
                [0.0, 1.0, *rng.uniform(0, 1, 6), *rng.uniform(0, 0.03, 6)], 3, replace=False
            )
        )
        p, guess = (
            standing.p_value(row("a", metric, value, low, high), level),
            standing.guess(metric),
        )
        outside = low > guess or (metric == "auc" and high < guess)
        assert 0 <= p <= 1 and (p <= 1 - level) == bool(outside), (metric, low, value, high, p)
    assert standing.p_value(row("a", "auc", 0.6, None, None), level) is None


def test_a_row_s_own_p_value_counts_and_never_against_its_interval():
    """One-sided p-values of the rows are doubled; one below an AUC of 1/2 counts from the other
    end; an interval that includes guessing wins.
    """
    shown = row("a", "auc", 0.6, 0.55, 0.65)
    assert standing.p_value(shown | dict(p_value=0.001), 0.95) == 0.002
    assert standing.p_value(
        row("a", "auc", 0.4, 0.35, 0.45) | dict(p_value=0.999), 0.95
    ) == pytest.approx(0.002)
    assert standing.p_value(row("a", TPR, 0.005, 0.0, 0.02) | dict(p_value=0.9), 0.95) == 1.0
    open_ = row("a", "auc", 0.6, 0.45, 0.7) | dict(p_value=1e-9)
    assert standing.p_value(open_, 0.95) > 0.05 and standing.decide([open_])["leak"] == "none"


def test_the_verdict_rejects_no_more_often_than_its_level():
    """Holm over all attacks: of 100 audits of noise by 6 attacks at most a few say that there is a
    leak, and none of a real leak denies it.
    """
    wrong, missed = 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        member = np.arange(200) % 2 < 1
        for gain in (0.0, 1.5) if seed < 20 else (0.0,):
            attacks = {
                f"a{i}": dict(
                    score_TN=(rng.normal(size=200) + gain * member * (i == 3))[None],
                    knows="nothing",
                )
                for i in range(6)
            }
            rows = summary.rows(
                attacks,
                member[None],
                np.ones((1, 200), bool),
                draws=bootstrap.make(200, [0], draws=60),
                fprs=(0.1,),
            )
            verdict = standing.decide(result_rows.main_rows(rows))
            wrong += gain == 0 and verdict["leak"] == "shown"
            missed += gain > 0 and (verdict["leak"] != "shown" or verdict["strongest"] != "a3")
    assert wrong <= 9 and missed == 0  # 5 of 100 expected at most; 9 is its 97% quantile


def test_equal_standing_is_ranked_by_the_lower_end_and_those_that_know_more_are_apart():
    rows = rows_of(
        sure=(0.6, 0.58, 0.62, 0.05, 0.04, 0.06),
        lucky=(0.6, 0.58, 0.62, 0.07, 0.035, 0.13),
        average=(0.70, 0.68, 0.72, 0.009, 0.004, 0.014),
        quiet=QUIET,
        wrong=(0.4, 0.38, 0.42, 0.004, 0.001, 0.01),
        cheat=(0.9, 0.88, 0.92, 0.5, 0.4, 0.6, "half_of_target_members"),
    )
    verdict = standing.decide(rows)
    assert (
        verdict["ranked"] == ["sure", "lucky", "average", "quiet", "wrong"]
        and verdict["apart"] == ["cheat"]
        and verdict["strongest"] == "sure"
    )
    assert (
        standing.decide(rows[::-1])["ranked"] == verdict["ranked"]
        and verdict["attacks"]["wrong"]["inverted"]
    )
    text = pages.report(report_of(rows))
    assert "Highest AUC, by the lower end of its interval: `average`, 0.700 [0.680, 0.720]." in text
    assert (
        "Pointing the wrong way (AUC significantly below 0.5: members score lower): `wrong`."
        in text
    )


def test_inverted_scores_and_privileged_leaks_have_verdicts_of_their_own():
    inverted = report_of(rows_of(score=(0.3, 0.25, 0.36, 0.004, 0.001, 0.01), quiet=QUIET))
    first = (
        "SCORES POINT THE WRONG WAY (1 of 2 attacks; the first: score): members score lower than "
        "non-members. Check the sign"
    )
    assert answer.first_line(inverted).startswith(first)
    cheat = (0.9, 0.88, 0.92, 0.5, 0.4, 0.6, "half_of_target_members")
    line = answer.first_line(report_of(rows_of(quiet=QUIET, cheat=cheat)))
    assert (
        "only by cheat, which knows more than a real attacker; no leak shown by 1 attack that a "
        "real attacker could run. The smallest leak that this study would have seen" in line
    )
    both = rows_of(quiet=QUIET, score=(0.3, 0.25, 0.36, 0.004, 0.001, 0.01), cheat=cheat)
    line = answer.first_line(
        report_of(both)
    )  # the wrong sign comes first, whoever else shows a leak
    assert line.startswith(first) and line.endswith(
        "A leak is shown by cheat, which knows more than a real attacker."
    )
    assert answer.first_line(report_of(rows_of(a=(0.6, None, None, None, None, None)))).startswith(
        "NO VERDICT"
    )


# --------------------------------------------------------------------------------
# failed checks
GOOD = dict(
    blind=dict(why="members were drawn at random (halves)", drawn=True),
    cross_target=dict(
        attacks=dict(lira=dict(auc=0.5, low=0.48, high=0.52)), excluded=[], level=0.95
    ),
    membership=dict(models=8, twins=4, column_sums=[4, 4], count_auc=0.5, problems=[]),
    duplicates=dict(rows=0),
    files=dict(checked=10, stale=[], unknown=[]),
    label_agreement=dict(status="ok", text="the target is right on 90.0% of the rows"),
    shadow_fit=dict(status="ok", text="the shadow models fit their rows as the target does"),
    power=[],
    records=dict(p_smallest=0.03, p_needed=1e-5, targets=8, targets_needed=36),
)
FAILURES = dict(
    blind=(
        dict(auc=0.9, p_value=1e-20, method="forest", rows=200, features=5),
        True,
        "without any model",
    ),
    cross_target=(
        dict(attacks=dict(lira=dict(auc=0.6, low=0.58, high=0.62)), excluded=["lira"], level=0.95),
        True,
        "too far from 0.5",
    ),
    membership=(
        GOOD["membership"] | dict(problems=["population rows are evaluated"]),
        True,
        "population rows are evaluated",
    ),
    duplicates=(dict(rows=8, crossing=3), False, "hides leakage"),
    files=(
        dict(
            checked=10,
            stale=["model 3 has changed since it was queried: delete signal/*/00003.npy"],
            unknown=[],
        ),
        True,
        "model 3 has changed",
    ),
    label_agreement=(
        dict(
            status="failed",
            text="the target is right on 30.0% of the rows: are the labels in order?",
        ),
        True,
        "labels in order",
    ),
    shadow_fit=(
        dict(
            status="failed",
            problem="fit",
            text="shadows 91.0% and 87.0%, target 99.0% and 83.0%; train longer",
        ),
        False,
        "train longer",
    ),
    order=(
        dict(
            status="failed",
            problem="order",
            text="shadow 1 is right on 11.0% of its members: same order?",
        ),
        True,
        "same order",
    ),
)


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("arrays", [False, True])
def test_a_failed_check_stands_before_the_verdict_everywhere(name, arrays):
    """In report.md before the answer, in the first line of summary() and of the terminal; a check
    that invalidates takes the verdict's place.
    """
    section, withheld, words = FAILURES[name]
    key = "shadow_fit" if name == "order" else name
    report = report_of(
        rows_of(threshold_loss=LOSS),
        validity=GOOD | {key: section},
        about=dict(data="mine", arrays=arrays),
    )
    text = pages.report(report)
    failed, rest = text.split("## The answer")
    assert "> **Check failed: " in failed and words in failed.lower()
    first = mia_jax.Results(report, {}).summary().splitlines()[0]
    assert (
        first == answer.terminal(report, path="r.md").splitlines()[0] == answer.lines(report)[0]
        and words in first.lower()
        and "check failed" in first.lower()
    )
    assert ("VERDICT WITHHELD" in first) == ("VERDICT WITHHELD" in rest) == withheld
    assert ("LEAK SHOWN" in first) == ("LEAK SHOWN" in text) == (not withheld)
    assert answer.lines(report)[-1].startswith("checks: 6 of 7 passed; 1 FAILED (")
    (check,) = trust.failed(report)
    assert tables.plain(check.remedy) in failed and check.remedy in first
    flags = ("data.drop_duplicates", "workdir", "design", "same command")
    assert not arrays or not any(flag in check.remedy for flag in flags)


def test_all_failed_checks_are_said_those_that_invalidate_first():
    report = report_of(
        rows_of(threshold_loss=LOSS),
        validity=GOOD | {k: FAILURES[k][0] for k in ("duplicates", "files", "blind")},
    )
    assert [check.key for check in trust.failed(report)] == ["blind", "files", "duplicates"]
    text = answer.terminal(report, path="r.md")
    assert text.startswith(
        "VERDICT WITHHELD, check failed: blind baseline (examples only, no model); input "
        "provenance. "
    )
    assert (
        "CHECK FAILED, duplicate rows: " in text
        and text.endswith("\nreport: r.md")
        and "without a verdict, threshold_loss: AUC 0.573" in text
    )
    page = pages.report(report)
    assert page.count("> **Check failed: ") == 3 and page.index(
        "**Check failed: blind"
    ) < page.index("**Check failed: duplicate rows")
    assert "VERDICT" not in answer.first_line(
        report_of(rows_of(threshold_loss=LOSS), validity=GOOD)
    )


def test_the_terminal_says_what_is_promised_proved_and_left_out():
    promise = dict(epsilon=3.0, delta=1e-4, accountant="pld")
    audit = dict(violated=False, bound=dict(epsilon=0.0, ceiling=0.955), claim=promise)
    report = report_of(
        rows_of(lira=QUIET),
        audit=audit,
        guarantee=promise,
        design=dict(models=64, failed=[dict(model=3, reason="NaN")]),
        validity=GOOD,
    )
    lines = answer.terminal(report, path="r.md").splitlines()
    assert "  differential privacy: epsilon 3 at delta 0.0001 per model (pld)" in lines
    assert "  canary audit: epsilon is at least 0 (it could have shown at most 0.955)" in lines
    assert "  excluded: 1 of 64 models, which failed (see the report)" in lines and lines[-2:] == [
        "checks: 7 of 7 passed",
        "report: r.md",
    ]


def test_a_violated_claim_is_the_first_word():
    audit = dict(violated=True, bound=dict(epsilon=2.9, ceiling=3.0), claim=dict(epsilon=1.0))
    line = answer.first_line(dict(report_of(rows_of(lira=QUIET)), audit=audit))
    assert line.startswith(
        "PRIVACY CLAIM VIOLATED: epsilon is at least 2.9, and 1 is claimed. NO LEAK SHOWN"
    )


# --------------------------------------------------------------------------------
# whole audits
def supplied(models=8, examples=300, gain=1.0, shift=0.0, target=False, seed=0):
    """Losses of complementary models of which one signal leaks; with a target, examples whose
    members differ by `shift`.
    """
    rng = np.random.default_rng(seed)
    member = np.zeros((models, examples), bool)
    for m in range(0, models, 2):
        member[m, rng.permutation(examples)[: examples // 2]] = True
        member[m + 1] = ~member[m]
    loss = np.abs(rng.normal(size=(models, examples)) + 3 - gain * member)
    if not target:
        return dict(shadow_loss=loss, shadow_member=member)
    x = rng.normal(size=(examples, 4)) + shift * member[0][:, None]
    return dict(loss=loss[0], member=member[0], shadow_loss=loss[2:], shadow_member=member[2:], x=x)


def test_ranking_headline_slices_records_and_figures_are_of_the_same_attack(tmp_path):
    given = supplied(models=16, gain=2.0) | dict(column_site=np.arange(300) % 2)
    results = mia_jax.audit(
        given,
        attacks=("gap_", "lira", "threshold_loss", "offset")[1:],
        slices=("column:site",),
        draws=60,
        folder=tmp_path,
    )
    first, (ranked, apart) = results.report["verdict"]["strongest"], standing.order(results.report)
    table = results.markdown.split("## All attacks, strongest first")[1].split("\n\n")[1]
    assert (
        re.findall(r"^\| `(\w+)` ", table, re.MULTILINE) == ranked
        and not apart
        and ranked[0] == first
    )
    lines = results.summary().splitlines()
    assert [line.split()[0] for line in lines[lines.index("") + 2 :]] == ranked
    assert (
        list(results.report["records"]) == [first]
        and f"Measured with `{first}` and sorted by the lower end" in results.markdown
    )
    assert results.report["comparisons"][0]["attack"] == first == results.report["usage"]["attack"]
    assert f"strongest: {first}." in lines[0] and f"`{first} − " in results.markdown
    assert (
        tables.results_latex(
            result_rows.main_rows(results.table), *standing.order(results.report), caption=""
        ).index(ranked[0].replace("_", r"\_"))
        > 0
    )


def test_members_from_another_source_withhold_the_verdict_of_an_audit():
    results = mia_jax.audit(supplied(target=True, shift=2.0), attacks=("threshold_loss",), draws=60)
    first = results.summary().splitlines()[0]
    assert (
        first.startswith("VERDICT WITHHELD, check failed: blind baseline")
        and "provide members and non-members from the same source" in first
    )
    assert results.markdown.index("Check failed: blind baseline") < results.markdown.index(
        "## What was attacked"
    )
    fine = mia_jax.audit(supplied(target=True), attacks=("threshold_loss",), draws=60)
    assert fine.summary().startswith("LEAK SHOWN") and "Check failed" not in fine.markdown


def test_records_are_always_in_a_file_and_listed_only_where_they_stand_out(tmp_path):
    """One target: no list, and how to get it; too few: one sentence; many: a list of significant
    ones. records.csv has every scored record.
    """
    single = mia_jax.audit(supplied(target=True), attacks=("threshold_loss",), draws=60)
    assert (
        "pass the shadow models' arrays without the target's" in single.markdown
        and "| record |" not in single.markdown
    )
    lines = list(csv.DictReader(io.StringIO(single.records_csv)))
    assert (
        len(lines) == 300
        and {line["flag"] for line in lines} == {"not tested"}
        and [line["record"] for line in lines] == [*map(str, range(300))]
    )
    few = mia_jax.audit(
        supplied(models=16, gain=0.0) | dict(column_id=[f"p{n}" for n in range(300)]),
        attacks=("lira_shrunk",),
        draws=60,
    )
    text = few.markdown.split("## Which records are most exposed")[1].split("##")[0]
    assert re.search(
        r"No record can be singled out with 16 models: under `lira_shrunk`, none of 300 .* takes "
        r"\d+ target models\.",
        text,
    )
    assert "| record |" not in text
    few.save(tmp_path / "saved")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "saved" / "records.csv").read_text())))
    assert (
        lines[7]["id"] == "p7"
        and lines[7]["attack"] == "lira_shrunk"
        and {line["flag"] for line in lines} == {"not significant"}
    )
    assert all(
        float(line["low"]) <= float(line["exposure"]) <= float(line["high"])
        and float(line["p"]) <= float(line["q"])
        for line in lines
    )
    assert mia_jax.Results.load(tmp_path / "saved").records_csv == few.records_csv
    assert "records.npz" not in few.markdown + single.markdown
    many = mia_jax.audit(
        supplied(models=64, gain=3.0, examples=40), attacks=("threshold_loss",), draws=60
    )
    flags = [line["flag"] for line in csv.DictReader(io.StringIO(many.records_csv))]
    assert (
        flags.count("exposed") == many.report["records"]["threshold_loss"]["significant"] > 20
        and "| record |" in many.markdown
    )


def test_a_record_attack_that_was_asked_for_and_cannot_be_had_says_so():
    """One that the audit does not have is refused beforehand; one that knows more than a real
    attacker has a sentence in place of a list.
    """
    with pytest.raises(ValueError, match=r"records='lira' is not one of \['threshold_loss'\]"):
        mia_jax.audit(
            supplied(),
            attacks=("threshold_loss",),
            draws=60,
            report=dict(records=("lira", "threshold_loss")),
        )
    given = {k: v for k, v in supplied(target=True).items() if not k.startswith("shadow")}
    results = mia_jax.audit(
        given,
        attacks=("attack_model_target",),
        draws=60,
        report=dict(records=("attack_model_target",)),
    )
    assert (
        "Not measured for `attack_model_target`: it knows more than a real attacker could "
        "(half_of_target_members)" in results.markdown
    )
    missing = dict(
        records=dict(lira=dict(why="this audit has no attack of that name; its attacks: gap"))
    )
    assert (
        "Not measured for `lira`: this audit has no attack of that name; its attacks: gap."
        in pages.report(report_of(rows_of(gap=LOSS)) | missing)
    )


# --------------------------------------------------------------------------------
# names from data
EVIL = (
    "$x^{$",
    "<img src=x onerror=alert(1)>",
    "a`b``|c",
    "=HYPERLINK(1)",
    "_hidden",
    "@sum\n| x | y |",
    "\x1b[31mred",
    "[l](javascript:1)",
    "~~&%#",
)


def test_names_from_data_are_text_in_every_output(tmp_path):
    """Attacks, slices, data, columns and variants with hostile names: nothing is markup, HTML, a
    formula, LaTeX or mathematics, and nothing fails.
    """
    rng = np.random.default_rng(0)
    member = np.arange(60) % 2 < 1
    attacks = {
        name: dict(score_TN=(rng.normal(size=60) + member)[None], knows="nothing") for name in EVIL
    }
    draws = bootstrap.make(60, [0], draws=60)
    shared = dict(member_TN=member[None], evaluated_TN=np.ones((1, 60), bool))
    rows = summary.rows(attacks, **shared, draws=draws, fprs=(0.1,))
    entry = dict(
        auc=0.6,
        low=0.5,
        high=0.7,
        excess=0.1,
        excess_low=0.0,
        excess_high=0.2,
        p_holm=0.01,
        n_records=9,
        post_hoc=False,
    )
    about = dict(
        data=EVIL[1],
        model=dict(name=EVIL[2], path=EVIL[1]),
        learner=EVIL[0],
        examples=60,
        said=[f"column {EVIL[1]}"],
        seed=0,
    )
    report = report_of(
        rows,
        about=about,
        validity=GOOD | dict(cross_target=FAILURES["cross_target"][0] | dict(excluded=list(EVIL))),
    )
    report |= dict(
        slices=dict(ranking={name: [entry | dict(slice=s) for s in EVIL] for name in EVIL}),
        records={n: dict(why="none") for n in EVIL},
    )
    report |= dict(
        attacks={n: dict(needs=(n,), knows="nothing", note=n) for n in EVIL},
        usage=dict(attack=EVIL[2], why="none."),
    )
    files.write(report, attacks=attacks, draws=draws, folder=tmp_path, **shared)
    text = (tmp_path / "report.md").read_text()
    outside = re.sub(r"(?<!`)(`+)(?!`)(?:.*?[^`])\1(?!`)", "", text)  # what is not in code font
    assert (
        "<img" not in outside
        and not re.search(r"(?<!\\)\]\(javascript", outside)
        and "\x1b" not in text
        and "\n| x | y |" not in text
    )
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|:"):
            assert len(re.findall(r"(?<!\\)\|", line)) >= 3, line
    tables_of = [block for block in text.split("\n\n") if block.startswith("| ")]
    for block in tables_of:
        assert (
            len({len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}) == 1
        ), block
    for name in csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())):
        assert not name["attack"].startswith(("=", "+", "-", "@", "\t"))
    tex = (tmp_path / "table.tex").read_text()
    assert (
        r"\$x\textasciicircum{}\{\$" in tex
        and "\x1b" not in tex
        and {line.count(" & ") for line in tex.splitlines() if line.endswith(r"\\")} == {5}
    )
    figures.save(
        figures.variants(
            [dict(member=n, attack=n, metric="auc", value=0.6, low=0.5, high=0.7) for n in EVIL]
        ),
        tmp_path / "m.png",
    )
    (axes,) = figures.roc(
        {n: summary.band(attacks[n]["score_TN"], **shared, draws=draws) for n in EVIL[:6]}
    ).axes
    shown = [entry.get_text() for entry in axes.get_legend().get_texts()]
    assert len(shown) == 7 and shown[1] == r"\$x^{\$" and " _hidden" in shown
    curve = {
        n: [
            dict(
                queries=1.0,
                accuracy=0.6,
                accuracy_low=0.5,
                accuracy_high=0.7,
                tpr=0.1,
                tpr_low=0.0,
                tpr_high=0.2,
            )
        ]
        * 2
        for n in EVIL
    }
    figures.save(figures.queries(curve), tmp_path / "q.png")
    point = dict(auc=0.6, auc_low=0.5, auc_high=0.7, tpr=0.1, tpr_low=0.0, tpr_high=0.2)
    figures.save(figures.shadows({n: {1: point, 2: point} for n in EVIL}), tmp_path / "s.png")
    page = grid_table.markdown(
        {EVIL[1]: report}, failed={EVIL[2]: EVIL[1]}, attacks=EVIL[:1], metrics=("auc",)
    )
    assert "<img" not in re.sub(r"(?<!`)(`+)(?!`)(?:.*?[^`])\1(?!`)", "", page)
    terminal = answer.terminal(report, path="r.md") + mia_jax.Results(report, {}).summary()
    assert "\x1b" not in terminal


# --------------------------------------------------------------------------------
# sentences
def test_a_pooled_value_is_promised_only_where_it_is_shown():
    """A dash in the table is never said to be replaced by a pooled number."""
    rng = np.random.default_rng(0)
    member = np.array([np.arange(50) % 2 < 1, np.arange(50) % 2 > 0])
    score = rng.normal(size=(2, 50)) + member
    attacks = dict(
        with_threshold=dict(score_TN=score, threshold_T=[0.5, 0.5]), without=dict(score_TN=score)
    )
    rows = summary.rows(attacks, member, np.ones_like(member), unit_T=[0, 0], fprs=(0.001, 0.03))
    text = unresolved.text(results=rows)
    for line in text.splitlines():
        if "balanced accuracy" in line or "0.1%" in line:
            assert "pooled (†)" not in line, line
    (pooled,) = [
        line
        for line in text.splitlines()
        if "The tables show the value for all targets pooled (†)." in line
    ]
    assert pooled.startswith("- TPR at 3% FPR (mean over targets; all attacks)")
    header, lines = tables.grid(rows, list(attacks))
    assert all(line[header.index("TPR at 3% FPR")].endswith("†") for line in lines)


def test_slices_that_are_cut_are_counted():
    entry = dict(
        auc=0.6,
        low=0.55,
        high=0.7,
        excess=0.1,
        excess_low=0.0,
        excess_high=0.2,
        p_holm=0.01,
        n_records=9,
        post_hoc=False,
    )
    report = report_of(
        rows_of(lira=LOSS[:6]),
        slices=dict(ranking=dict(lira=[entry | dict(slice=f"class={c}") for c in range(10)])),
    )
    assert "The 8 most exposed of 10 are shown; all are in results.csv." in pages.report(report)
    report["slices"]["ranking"]["lira"] = report["slices"]["ranking"]["lira"][:8]
    assert "are shown" not in pages.report(report)


def test_models_of_a_target_of_ones_own_are_said_to_be_its_shadows():
    models = [
        dict(
            model=m,
            target=m == 8,
            train_accuracy=0.99 if m == 8 else 0.91,
            validation_accuracy=0.83 if m == 8 else 0.87,
        )
        for m in range(9)
    ]
    about = dict(
        data="mine",
        model=dict(name="mlp"),
        learner=dict(name="backprop", epochs=5),
        target="answers",
    )
    text = pages.report(report_of(rows_of(lira=QUIET), about=about, models=models))
    assert (
        text.startswith("# Membership inference: mine, your target\n")
        and "| model of the shadow models | mlp |" in text
    )
    assert "| learner of the shadow models | backprop (epochs=5) |" in text
    assert "| accuracy of the target | 99.0% on its members, 83.0% on non-members |" in text
    assert (
        "| accuracy of the shadow models | 91.0 ± 0.00% on their members, 87.0 ± 0.00% on "
        "non-members (mean ± standard deviation over models) |" in text
    )
    assert text.index("accuracy of the shadow models") < text.index("## The answer")


def test_one_spelling_of_a_rate_in_prose():
    """'TPR at 1% FPR' in report.md, table.tex and figures; the key 'tpr@0.01' in report.json and
    CSV files alone.
    """
    report = report_of(rows_of(lira=LIRA, threshold_loss=LOSS))
    text = pages.report(report) + tables.results_latex(
        report["results"], *standing.order(report), caption=""
    )
    text += pages.seeds(
        seeds.summary({0: dict(report, about=dict(data="d", model="m"), versions={}), 1: report})
    )
    assert "TPR at 1% FPR" in text and not re.search("tpr@", text, re.IGNORECASE)


def test_the_answer_of_seeds_and_of_runs_side_by_side():
    first = dict(
        report_of(rows_of(threshold_loss=LOSS), validity=GOOD),
        about=dict(data="d", model="m", seed=0),
        versions={},
    )
    second = dict(
        report_of(rows_of(threshold_loss=(0.56, 0.55, 0.57, 0.011, 0.005, 0.02, "nothing"))),
        about=first["about"],
        versions={},
    )
    lines = answer.terminal(seeds.summary({0: first, 1: second}), path="r.md").splitlines()
    assert (
        lines[0].startswith("seed 0: LEAK SHOWN")
        and lines[1].startswith("seed 1: LEAK SHOWN")
        and lines[-1] == "report: r.md"
    )
    assert (
        lines[2]
        == "threshold_loss, mean ± sd over 2 seeds: AUC 0.567 ± 0.009; TPR at 1% FPR 1.0 ± 0.14%"
    )
    assert (
        answer.line(first).startswith("LEAK SHOWN")
        and "checks: 7 of 7 passed" in answer.line(first)
        and "\n" not in answer.line(first)
    )
