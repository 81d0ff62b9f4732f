"""The matrix of defenses: flags by hand-made numbers, accuracy from scores, and the front."""

import numpy as np
import pytest

from mia_jax.measures import comparison, matrix, two_audits
from mia_jax.measures.matrix import LABELS, ONE_KIND, OUTPUTS, UNAWARE

SEES = dict(gap=LABELS, boundary=LABELS, loss=OUTPUTS, lira=OUTPUTS)


def cells(adaptive=False, **aucs):
    """Returns cells of these AUCs with intervals of half width 0.01."""
    return [
        matrix.Cell(
            attack=attack,
            name=f"{attack}_adaptive" if adaptive else attack,
            adaptive=adaptive,
            rows=dict(auc=dict(metric="auc", value=auc, low=auc - 0.01, high=auc + 0.01)),
            difference={},
        )
        for attack, auc in aucs.items()
    ]


PLAIN = cells(gap=0.54, boundary=0.56, loss=0.6, lira=0.7)


@pytest.mark.parametrize(
    "behind, raised",
    [
        # nothing changes
        (PLAIN, []),
        # all attacks lose most of their excess
        (cells(gap=0.51, boundary=0.51, loss=0.51, lira=0.53), []),
        # outputs lose it (0.2 -> 0.06), labels keep it: MemGuard
        (cells(gap=0.54, boundary=0.56, loss=0.54, lira=0.54), [ONE_KIND]),
        # the other way round: labels lose 0.06 -> 0.02
        (cells(gap=0.52, boundary=0.52, loss=0.6, lira=0.7), [ONE_KIND]),
        # exactly half of the outputs' excess is gone, a sixth of the labels', then a third
        (cells(gap=0.54, boundary=0.55, loss=0.6, lira=0.6), [ONE_KIND]),
        (cells(gap=0.54, boundary=0.54, loss=0.6, lira=0.6), []),
        # unaware attackers lose it, those who know the defense do not
        (
            cells(gap=0.52, boundary=0.52, loss=0.5, lira=0.5)
            + cells(True, gap=0.54, boundary=0.56, loss=0.6, lira=0.69),
            [UNAWARE],
        ),
        # both lose it in outputs and keep it in labels, but half of the best is gone for both
        (
            cells(gap=0.54, boundary=0.56, loss=0.5, lira=0.5)
            + cells(True, gap=0.54, boundary=0.56, loss=0.55, lira=0.55),
            [ONE_KIND],
        ),
    ],
)
def test_a_defense_is_flagged_for_what_it_blinds_alone(behind, raised):
    assert matrix.flags(PLAIN, behind, SEES) == raised


def test_a_kind_that_leaks_nothing_raises_no_flag():
    """Without a significant excess of label-only attacks, a defense of outputs blinds all."""
    plain = cells(gap=0.505, boundary=0.505, loss=0.6, lira=0.7)
    behind = cells(gap=0.505, boundary=0.505, loss=0.5, lira=0.5)
    assert matrix.flags(plain, behind, SEES) == []


def run(name, score_TN, *, settings, value):
    """Returns a run of the attack gap with these scores, two targets and four rows."""
    member_TN = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool)
    evidence = dict(targets=np.array([0, 2]), member_TN=member_TN)
    evidence |= dict(evaluated_TN=np.ones((2, 4), bool), unit_T=np.array([0, 1]))
    rows = [dict(attack="gap", target=None, slice="all", metric="auc", value=value, low=None)]
    rows[0] |= dict(high=None, method="", n_targets=2, knows="nothing", n_member=4, p_value=None)
    report = dict(about=dict(data="toy", level=0.95), results=rows)
    audit = two_audits.Audit(report, evidence, dict(gap=np.asarray(score_TN, float)))
    return comparison.Run(name, audit, dict(attacks=dict(gap=settings)), "")


def test_accuracy_is_that_of_released_labels_of_rows_outside_the_training_set():
    """Target 0 has rows 2 and 3 outside, target 2 has rows 0 and 3."""
    given = run("a", [[1, 1, 1, 0], [0, 1, 1, 0]], settings=dict(name="gap"), value=0.5)
    assert matrix.correct_TU(given, "gap") == {0: 0.5, 2: 0.0}


def test_a_loss_of_accuracy_is_negative_with_both_ends():
    plain = run("none", np.ones((2, 4)), settings=dict(name="gap"), value=0.5)
    defended = run("l2", [[1, 1, 1, 0], [1, 1, 0, 1]], settings=dict(name="gap"), value=0.6)
    made = matrix.line(
        matrix.Defended(defended, "", matrix.Cost(None, None)),
        reference=plain,
        sees=dict(gap=LABELS),
        metrics=["auc"],
        accuracies={each.name: matrix.correct_TU(each, "gap") for each in (plain, defended)},
        drawn=dict(none={}, l2={}),
    )
    assert made.accuracy.value == 0.75 and (made.accuracy.low, made.accuracy.high) == (0, 1)
    lost = made.accuracy_difference
    assert (lost.value, lost.low, lost.high) == (-0.25, -1, 1)
    narrow = matrix.mean_of([-0.02, -0.03], share=0.5, level=0.95, least=-1.0)
    assert -0.15 < narrow.low < -0.03 < narrow.value < -0.02


def test_an_attack_behind_a_defense_is_in_the_column_of_the_same_attack_without():
    plain = run("none", np.zeros((2, 4)), settings=dict(name="gap"), value=0.5)
    section = dict(name="gap", defense="memguard", adaptive=True)
    behind = run("memguard", np.zeros((2, 4)), settings=section, value=0.6)
    drawn = dict(none={}, memguard={})
    common = dict(sees=dict(gap=LABELS), metrics=["auc"], drawn=drawn)
    found = matrix.cells_of(behind, reference=plain, **common)
    assert [(cell.attack, cell.name, cell.adaptive) for cell in found] == [("gap", "gap", True)]


def test_differences_without_draws_are_those_of_independent_numbers():
    """The ends are 0.1 -+ sqrt(0.03^2 + 0.04^2)."""
    rows = [
        dict(metric="auc", target=None, value=0.7, low=0.67, high=0.74),
        dict(metric="auc", target=None, value=0.6, low=0.57, high=0.64),
    ]
    made = matrix.difference(*rows, ({}, {}), level=0.95)
    assert made.value == pytest.approx(0.1)
    assert (made.low, made.high) == (pytest.approx(0.05), pytest.approx(0.15))
    assert matrix.difference(rows[0], dict(rows[1], target="pooled"), ({}, {}), level=0.95) is None
    assert matrix.difference(rows[0], dict(rows[1], low=None), ({}, {}), level=0.95) is None


def test_steps_are_epochs_times_batches():
    report = dict(
        models=[dict(target=True, epochs=3), dict(target=True, epochs=5), dict(target=False)],
        design=dict(train_rows=101),
        about=dict(learner=dict(batch_size=20)),
    )
    assert matrix.steps_of(report) == 4 * 6
    assert matrix.steps_of(report | dict(design={})) is None


def test_a_reference_behind_a_defense_is_refused():
    section = dict(name="gap", defense="memguard")
    behind = run("memguard", np.zeros((2, 4)), settings=section, value=0.6)
    entry = matrix.Defended(behind, "", matrix.Cost(None, None))
    with pytest.raises(ValueError, match="'memguard' is behind a defense itself"):
        matrix.cross([entry], sees=dict(gap=LABELS), accuracy_of="gap")
    with pytest.raises(ValueError, match="no attack 'loss'"):
        matrix.cross([entry], sees=dict(loss=OUTPUTS), accuracy_of="gap")
