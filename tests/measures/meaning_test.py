"""What arrays mean is checked: labels that belong to the answers, rows in one order, shadows that
fit their rows as the target fits its own.
"""

import re

import numpy as np
import pytest

import mia_jax
from mia_jax.metrics import fit
from mia_jax.report import trust

N, C, M = 400, 10, 8
RNG = np.random.default_rng(0)
Y, HARD, MEMBER = RNG.integers(0, C, N), RNG.normal(size=N), RNG.random((M + 1, N)) < 0.5
PERM = RNG.permutation(N)


def logits(inside, outside, member_MN, seed=1):
    """Answers that favor the label by `inside` on members and `outside` on others, less on hard
    rows.
    """
    logits_MNC = np.random.default_rng(seed).normal(size=(*member_MN.shape, C))
    logits_MNC[:, np.arange(N), Y] += np.where(member_MN, inside, outside) + HARD
    return logits_MNC


def loss(logits_MNC):
    return np.logaddexp.reduce(logits_MNC, -1) - logits_MNC[..., np.arange(N), Y]


ALL = logits(8, 4, MEMBER)
TARGET, SHADOWS = ALL[0], ALL[1:]
WITHOUT = dict(logits=TARGET, labels=Y, member=MEMBER[0])
GIVEN = dict(WITHOUT, shadow_logits=SHADOWS, shadow_member=MEMBER[1:])
LOSSES = dict(
    loss=loss(TARGET), member=MEMBER[0], shadow_loss=loss(SHADOWS), shadow_member=MEMBER[1:]
)
ONE = np.concatenate([SHADOWS[:2], SHADOWS[2:3, PERM], SHADOWS[3:]])
TURN = dict(shadow_logits=SHADOWS, labels=Y, shadow_member=MEMBER[1:])
REAL = dict(predictions=HARD + RNG.normal(size=N) / 2, labels=HARD, member=MEMBER[0])
FEW = dict(logits=RNG.normal(size=(8, C)), labels=Y[:8], member=np.arange(8) % 2)
ORDER = "are the labels in the same order as the outputs"

CASES = [
    (
        "honest",
        GIVEN,
        "ok",
        "the target is right on",
        "ok",
        "fit their rows as the target does: accuracy on members",
    ),
    ("no shadows", WITHOUT, "ok", "", "not checked", "there are no shadow models"),
    ("in turn", TURN, "ok", "model 0 is right on", "ok", "shadow models of each other"),
    ("losses", LOSSES, "not checked", "no labels", "ok", "fit their rows"),
    (
        "noise",
        dict(LOSSES, loss=RNG.random(N), shadow_loss=RNG.random((M, N))),
        "not checked",
        "",
        "ok",
        "",
    ),
    (
        "shadow rows shuffled",
        dict(GIVEN, shadow_logits=SHADOWS[:, PERM]),
        "ok",
        "",
        "failed",
        "shadow 0 is right on .* the target on .* same order",
    ),
    (
        "one shadow's rows shuffled",
        dict(GIVEN, shadow_logits=ONE),
        "ok",
        "",
        "failed",
        "shadow 2 is right on .* of its members, the target on",
    ),
    (
        "one model's rows shuffled",
        dict(TURN, shadow_logits=ONE),
        "ok",
        "",
        "failed",
        "model 2 is right on .*, the others on",
    ),
    (
        "one shadow's losses shuffled",
        dict(LOSSES, shadow_loss=loss(ONE)),
        "not checked",
        "",
        "failed",
        "rank correlation .*shadow 2 does not agree",
    ),
    (
        "labels shuffled",
        dict(GIVEN, labels=Y[PERM]),
        "failed",
        ORDER,
        "not checked",
        "labels do not belong",
    ),
    (
        "labels shuffled, no shadows",
        dict(WITHOUT, labels=Y[PERM]),
        "failed",
        ORDER,
        "not checked",
        "",
    ),
    (
        "labels shuffled, in turn",
        dict(TURN, labels=Y[PERM]),
        "failed",
        "model 0 .*" + ORDER,
        "not checked",
        "",
    ),
    (
        "predictions as labels",
        dict(GIVEN, labels=TARGET.argmax(1)),
        "failed",
        "every label equals the prediction of the target",
        "not checked",
        "",
    ),
    (
        "the same without shadows",
        dict(WITHOUT, labels=TARGET.argmax(1)),
        "failed",
        "where about .* errors would be expected",
        "not checked",
        "",
    ),
    (
        "a perfect model",
        dict(WITHOUT, logits=np.eye(C)[Y] * 20.0),
        "not checked",
        "either it makes no errors",
        "not checked",
        "",
    ),
    (
        "shadows fit less",
        dict(GIVEN, shadow_logits=logits(5, 4.5, MEMBER[1:])),
        "ok",
        "",
        "failed",
        "train the shadow models longer",
    ),
    (
        "shadows fit more",
        dict(GIVEN, logits=logits(5, 4.5, MEMBER[:1])[0]),
        "ok",
        "",
        "failed",
        "and no longer",
    ),
    (
        "shadows are worse",
        dict(GIVEN, shadow_logits=logits(4.5, 0.5, MEMBER[1:])),
        "ok",
        "",
        "failed",
        "shadows .*, target",
    ),
    (
        "shadow losses fit less",
        dict(LOSSES, shadow_loss=loss(logits(5, 4.5, MEMBER[1:]))),
        "not checked",
        "",
        "failed",
        "train the shadow models longer",
    ),
    ("real labels", REAL, "ok", "explains .* of the variance", "not checked", ""),
    ("real labels shuffled", dict(REAL, labels=HARD[PERM]), "failed", ORDER, "not checked", ""),
    (
        "real predictions as labels",
        dict(REAL, labels=REAL["predictions"]),
        "failed",
        "provide the true labels",
        "not checked",
        "",
    ),
    ("too few rows", FEW, "not checked", "too few rows", "not checked", ""),
]


@pytest.mark.parametrize(
    "given, labels, labels_say, shadows, shadows_say",
    [
        # Every second case in the fast tests, all in test-all.
        pytest.param(*case[1:], id=case[0], marks=[pytest.mark.slow] * (number % 2))
        for number, case in enumerate(CASES)
    ],
)
def test_what_the_arrays_mean_is_checked(given, labels, labels_say, shadows, shadows_say):
    audit = mia_jax.audit(given, attacks="threshold_loss", draws=40)
    checks = audit.report["validity"]
    for name, status, words in (
        ("label_agreement", labels, labels_say),
        ("shadow_fit", shadows, shadows_say),
    ):
        assert checks[name]["status"] == status and re.search(words, checks[name]["text"]), checks[
            name
        ]
        assert checks[name]["text"] in audit.markdown
    assert (trust.BAD in audit.markdown) == ("failed" in (labels, shadows))


def test_agreement_is_calibrated_under_shuffled_labels():
    """The statistic has mean 0 and sd 1 over orders of the labels, also where one class holds
    nearly all rows.
    """
    rng = np.random.default_rng(0)
    for share in (0.5, 0.95):
        y, score = (rng.random(300) > share).astype(int), rng.normal(size=(300, 2))
        z = [fit.agreement(score, rng.permutation(y)) for _ in range(400)]
        assert abs(np.mean(z)) < 0.2 and 0.85 < np.std(z) < 1.15


def test_always_answering_the_large_class_is_no_failure_if_the_probabilities_are_informed():
    rng = np.random.default_rng(1)
    y = (rng.random(1000) < 0.03).astype(int)
    z = rng.normal(size=1000) - 6 + 2.5 * y
    audit = mia_jax.audit(
        logits=np.stack([np.zeros(1000), z], 1),
        labels=y,
        member=rng.random(1000) < 0.5,
        attacks="threshold_loss",
        draws=40,
    )
    assert audit.report["validity"]["label_agreement"]["status"] == "ok"


def test_a_shadow_like_its_target_is_flagged_by_chance_alone_at_most_rarely():
    """40 honest audits of other seeds: no check fails."""
    for seed in range(40):
        rng = np.random.default_rng([9, seed])
        member_MN = rng.random((5, N)) < 0.5
        answers = logits(5, 3, member_MN, seed=seed)
        right = (answers.argmax(-1) == Y).astype(float)
        settings = dict(
            member_MN=member_MN,
            evaluated_MN=np.ones_like(member_MN),
            shadow_MM=~np.eye(5, dtype=bool),
            names=list("abcde"),
        )
        settings["shadow_MM"][:, 0] = False
        checked = fit.shadow_fit(
            **settings,
            targets=(0,),
            correct_MN=right,
            value_MN=loss(answers),
            guessing_M=np.full(5, 0.1),
        )
        assert checked["status"] == "ok", (seed, checked)


def test_shadows_of_one_learner_are_what_the_design_made_them():
    """Where all models are trained here the shadows cannot be trained longer, so their fit passes.

    A model that guesses is still detected.
    """
    names = [f"model {m}" for m in range(M + 1)]
    settings = dict(
        member_MN=MEMBER,
        evaluated_MN=np.ones_like(MEMBER),
        shadow_MM=~np.eye(M + 1, dtype=bool),
        names=names,
    )
    settings["shadow_MM"][:, 0] = False
    weak = np.concatenate([ALL[:1], logits(5, 4.5, MEMBER[1:])])
    both = dict(
        correct_MN=(weak.argmax(-1) == Y).astype(float),
        value_MN=loss(weak),
        guessing_M=np.full(M + 1, 0.1),
    )
    assert fit.shadow_fit(**settings, targets=(0,), **both)["status"] == "failed"
    assert fit.shadow_fit(**settings, targets=(0,), **both, trained=True)["status"] == "ok"
    both["correct_MN"][3] = np.arange(N) % C == 0
    checked = fit.shadow_fit(**settings, targets=(0,), **both, trained=True)
    assert (
        checked["status"] == "failed"
        and checked["model"] == 3
        and "did its training fail?" in checked["text"]
    )


def test_a_model_that_was_asked_here_and_finds_other_rows_hard_is_in_order():
    """A model whose losses agree with no other's: in arrays its rows may be in another order; of a
    model that was asked here about the same rows it is only another model.
    """
    value_MN = loss(ALL)
    value_MN[2] = value_MN[2][np.random.default_rng(5).permutation(N)]
    settings = dict(
        member_MN=MEMBER,
        evaluated_MN=np.ones_like(MEMBER),
        shadow_MM=~np.eye(M + 1, dtype=bool),
        names=[f"model {m}" for m in range(M + 1)],
        targets=range(M + 1),
        value_MN=value_MN,
        mixed=True,
    )
    checked = fit.shadow_fit(**settings)
    assert checked["status"] == "failed" and checked["problem"] == "order" and checked["model"] == 2
    assert fit.shadow_fit(**settings, in_order=True)["status"] == "ok"


def test_a_model_that_learned_little_is_no_proof_of_labels_in_another_order():
    """Right on a little more rows than in random order: no verdict on the labels; on no more than
    that: failed; on clearly more: fine.
    """
    rng = np.random.default_rng(0)
    check_of = {}
    for share in (0.0, 0.1, 0.6):
        y = rng.integers(0, 4, 600)
        skilled = rng.random(600) < share
        logits = 3.0 * np.eye(4)[np.where(skilled, y, rng.integers(0, 4, 600))] + rng.normal(
            size=(600, 4)
        )
        answers = fit.of_answers(logits, y) | dict(rows=300)
        check_of[share] = fit.label_agreement(
            {"the target": answers}, members={"the target": answers}
        )
    assert check_of[0.0]["status"] == fit.FAILED and check_of[0.6]["status"] == fit.OK
    between = dict(accuracy=0.31, guessing=0.25, z=3.4, unsure=100.0, enough=True, rows=300)
    assert fit.label_agreement({"it": between}, members={"it": between})["status"] == fit.OPEN
