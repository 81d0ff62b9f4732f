"""Audits side by side: fronts on points that are computed by hand, differences, settings."""

import numpy as np
import pytest

import mia_jax
from mia_jax.measures import comparison, selection, two_audits
from mia_jax.metrics import intervals
from tests.measures.selection_test import report


def run(name, auc, accuracy=None, *, loss=None, pool="same", withheld="", targets=2, **about):
    """Returns a run without scores: the AUC of its only attack as (value, low, high), and the
    accuracy (or loss) of every model.
    """
    made = report(attack=dict(auc=auc))
    made["results"] = [dict(row, n_nonmember=50, fpr_realized=None) for row in made["results"]]
    made["about"] |= dict(pool=pool, data="digits", examples=100, arrays=False) | about
    made["design"] = dict(train_rows=50)
    shift = np.linspace(-0.001, 0.001, targets) if targets > 1 else [0.0]
    numbers = dict(validation_accuracy=accuracy, validation_loss=loss)
    made["models"] = [
        dict(model=m, target=True)
        | {key: value + shift[m] for key, value in numbers.items() if value is not None}
        for m in range(targets)
    ]
    return comparison.Run(name, two_audits.Audit(made, {}, {}), None, withheld)


def fleet(gain, *, noise=0, seed=0):
    """An audit of 4 models in pairs; `seed` draws the members, `noise` the losses."""
    rng, member = np.random.default_rng(seed), np.zeros((4, 100), bool)
    for m in (0, 2):
        member[m, rng.permutation(100)[:50]] = True
        member[m + 1] = ~member[m]
    noises = np.random.default_rng([noise, 1])
    loss = np.random.default_rng(99).normal(size=100) + 0.3 * noises.normal(size=member.shape)
    return mia_jax.audit(
        shadow_loss=loss - gain * member,
        shadow_member=member,
        attacks="threshold_loss",
        draws=40,
    )


def audited(name, results):
    """The run of Results."""
    scores = {attack: results.target_scores(attack) for attack in results.scores}
    return comparison.Run(name, two_audits.Audit(results.report, results.evidence, scores))


@pytest.fixture(scope="module")
def fleets():
    return dict(strong=fleet(1.0), weak=fleet(0.6, noise=1), other=fleet(0.6, noise=1, seed=5))


def places(front):
    return {point.run: (point.front, point.dominated_by) for point in front.points}


def test_the_front_by_hand_with_a_tie_and_without_a_metric():
    """a and its equal are on the front, as is b (worse, but leaks less); c leaks as much as b and
    predicts worse; d has no accuracy; e has no AUC.
    """
    runs = [
        run("a", (0.7, 0.68, 0.72), 0.9),
        run("equal", (0.7, 0.68, 0.72), 0.9),
        run("b", (0.6, 0.58, 0.62), 0.8),
        run("c", (0.6, 0.58, 0.62), 0.7),
        run("d", (0.5, 0.48, 0.52)),
        run("e", (None, None, None), 0.9),
        run("f", (0.5, 0.48, 0.52), 0.95, withheld="duplicate rows"),
    ]
    runs[5].audit.report["results"][0]["method"] = "not resolvable"
    made = comparison.front(runs, "auc")
    assert places(made) == dict(a=(True, None), equal=(True, None), b=(True, None), c=(False, "b"))
    assert made.left_out == dict(d="utility", e="leakage", f="withheld")
    assert made.utility == comparison.ACCURACY
    (point,) = (point for point in made.points if point.run == "c")
    assert point.difference["utility"].value == pytest.approx(-0.1)
    assert point.difference["leakage"].value == 0 and point.beyond == ["utility"]


@pytest.mark.parametrize(
    "leak, accuracy, axes",
    [
        ((0.70, 0.69, 0.71), 0.80, ["leakage", "utility"]),
        ((0.70, 0.69, 0.71), 0.8999, ["leakage"]),
        ((0.61, 0.57, 0.65), 0.80, ["utility"]),
        ((0.61, 0.57, 0.65), 0.8999, []),
    ],
)
def test_a_run_is_dominated_beyond_noise_only_where_intervals_exclude_zero(leak, accuracy, axes):
    """The other run has AUC 0.60 [0.58, 0.62] and accuracy 0.9 ± 0.001 over two models, whose
    interval is t of one degree of freedom: 12.706 · 0.00141 · √1.5 = 0.022.
    """
    runs = [run("best", (0.6, 0.58, 0.62), 0.9), run("worse", leak, accuracy)]
    point = comparison.front(runs, "auc").points[1]
    assert (point.dominated_by, point.beyond) == ("best", axes)


def test_a_smaller_loss_is_better():
    runs = [run("a", (0.6, 0.5, 0.7), loss=0.2), run("b", (0.7, 0.6, 0.8), loss=0.4)]
    made = comparison.front(runs, "auc")
    assert made.utility == comparison.LOSS
    assert places(made) == dict(a=(True, None), b=(False, "a"))


def test_runs_of_other_examples_have_fronts_of_their_own():
    runs = [
        run("a", (0.6, 0.5, 0.7), 0.9),
        run("x", (0.6, 0.5, 0.7), 0.9, pool="other"),
        run("b", (0.7, 0.6, 0.8), 0.8),
        run("y", (0.5, 0.4, 0.6), 0.8, pool="other"),
        run("z", (0.5, 0.4, 0.6), 0.8, pool="third"),
    ]
    made = comparison.fronts(runs, ["auc"])
    assert [[point.run for point in front.points] for front in made] == [["a", "b"], ["x", "y"]]


def test_the_utility_of_several_models_and_of_one():
    several = comparison.utility(run("a", (0.6, 0.5, 0.7), 0.9).audit.report, comparison.ACCURACY)
    by_hand = selection.mean([0.899, 0.901], test_share=1.0)
    assert (several.value, several.low, several.high) == pytest.approx(tuple(by_hand))
    one = run("a", (0.6, 0.5, 0.7), 0.9, loss=0.3, targets=1).audit.report
    accuracy = comparison.utility(one, comparison.ACCURACY)
    assert (accuracy.low, accuracy.high) == pytest.approx(intervals.clopper_pearson(45, 50))
    loss = comparison.utility(one, comparison.LOSS)
    assert (loss.value, loss.low, loss.high) == (0.3, None, None)


def test_differences_are_those_of_two_audits(fleets):
    runs = [audited(name, results) for name, results in fleets.items()]
    made = comparison.compare(runs)
    assert [(how.run, how.paired) for how in made.pairings] == [("weak", True), ("other", False)]
    assert made.pairings[1].why == "the models have other training sets"
    assert all(how.assumed and not how.none for how in made.pairings)
    for how in runs[1:]:
        by_hand = two_audits.differences(how.audit, runs[0].audit)
        mine = [row for row in made.differences if row.run == how.name and row.attack]
        assert len(mine) == len(by_hand) > 1
        for row, expected in zip(mine, by_hand, strict=True):
            assert {key: getattr(row, key) for key in expected} == expected
    table = fleets["weak"].compare(fleets["strong"])
    assert [dict(row) for row in table] == two_audits.differences(runs[1].audit, runs[0].audit)


def test_a_utility_is_compared_model_by_model_where_audits_are_paired(fleets):
    first, second = (audited(name, fleets[name]) for name in ("weak", "strong"))
    amount = comparison.utility_difference(first, second, comparison.LOSS)
    each = [
        a["validation_loss"] - b["validation_loss"]
        for a, b in zip(first.audit.report["models"], second.audit.report["models"], strict=True)
    ]
    by_hand = selection.mean(each, test_share=1.0)
    assert (amount.value, amount.low, amount.high) == pytest.approx(tuple(by_hand))
    unpaired = comparison.utility_difference(
        audited("other", fleets["other"]), second, comparison.LOSS
    )
    assert unpaired.method.startswith("two independent") and unpaired.low < unpaired.value


def test_what_has_no_difference_says_why():
    reference = run("a", (0.6, 0.5, 0.7), 0.9)
    other = run("b", (0.6, 0.5, 0.7), 0.9, pool="other")
    assert comparison.pairing(other, reference).none == "the examples differ"
    level = run("b", (0.6, 0.5, 0.7), 0.9, level=0.9)
    assert "levels 0.9 and 0.95" in comparison.pairing(level, reference).none
    renamed = run("b", (0.6, 0.5, 0.7), 0.9)
    renamed.audit.report["results"][0]["attack"] = "another"
    assert comparison.pairing(renamed, reference).none == "they have no attack in common"
    unsaved = comparison.pairing(run("b", (0.6, 0.5, 0.7), 0.9), reference)
    assert (unsaved.none, unsaved.paired) == ("", False)
    assert unsaved.why == "the scores of one of them are missing"
    assert not comparison.compare([reference, other]).differences


def test_arrays_with_other_numbers_of_rows_are_of_other_examples():
    """Arrays without classes (losses alone) may be of the rows of arrays with classes."""
    first = dict(about=dict(arrays=True, examples=100, classes=0, pool="x"))
    assert not two_audits.other_examples(first, dict(about=first["about"] | dict(classes=3)))
    fewer = dict(about=first["about"] | dict(examples=99))
    assert two_audits.other_examples(first, fewer) == "the examples differ"


def test_settings_that_differ_are_fields_and_sections():
    first = dict(learner=dict(epochs=1, l2=0.0), attacks=dict(lira=dict(mode="online")))
    second = dict(learner=dict(epochs=2, l2=0.0, ema=0.0), attacks=dict(), model=None)
    assert [(s.field, s.values) for s in comparison.differing([first, second])] == [
        ("learner.epochs", ["1", "2"]),
        ("attacks.lira", ['{"mode": "online"}', None]),
    ]


def test_settings_are_those_of_reports_unless_every_run_has_a_config():
    runs = [run("a", (0.6, 0.5, 0.7), 0.9), run("b", (0.6, 0.5, 0.7), 0.9, learner=dict(epochs=2))]
    runs = [runs[0]._replace(settings=dict(seed=0, run=dict(chunk=2))), runs[1]]
    made = comparison.compare(runs)
    assert not made.configs and [s.field for s in made.settings] == ["learner"]
    both = comparison.compare(
        [r._replace(settings=dict(seed=i, run=i)) for i, r in enumerate(runs)]
    )
    assert both.configs and [s.field for s in both.settings] == ["seed"]


def test_a_comparison_needs_two_runs_of_two_names():
    only = run("a", (0.6, 0.5, 0.7), 0.9)
    with pytest.raises(ValueError, match="has 1 audits"):
        comparison.compare([only])
    with pytest.raises(ValueError, match="two audits called 'a'"):
        comparison.compare([only, only])
