"""Tests external arrays: every shape is checked, twins and fixed counts are detected, and folders
in the layout of LiRA's released code are read.
"""

import dataclasses

import numpy as np
import pytest

import mia_jax
from mia_jax import threat_model
from mia_jax.external import arrays as supplied_arrays
from tests.answered import QUICK, arrays


def test_every_shadow_is_a_target_in_turn_without_its_twin():
    fleet = arrays(models=8)
    supplied = supplied_arrays.build(
        {k: v for k, v in fleet.items() if k.startswith("shadow") or k == "labels"}
    )
    assert supplied.design.targets == tuple(range(8)) and supplied.design.unit_M.tolist() == [
        0,
        0,
        2,
        2,
        4,
        4,
        6,
        6,
    ]
    assert (
        not supplied.design.shadow_MM[0, 1]
        and supplied.design.shadow_MM[0, 2:].all()
        and "twin" in supplied.notes[0]
    )
    with_pairs = supplied_arrays.build(
        dict(
            {
                k: v
                for k, v in arrays(pairs=False).items()
                if k.startswith("shadow") or k == "labels"
            },
            pair=[5, 5, 1, 1, 2, 2, 3, 3],
        )
    )
    assert not with_pairs.design.shadow_MM[0, 1] and with_pairs.design.shadow_MM[0, 2]


def fixed_counts(models=8, examples=400, seed=0):
    """Returns losses without information and membership of every example in half of the models."""
    rng = np.random.default_rng(seed)
    member = rng.random((models, examples)).argsort(0) < models // 2
    return dict(shadow_loss=rng.normal(size=(models, examples)), shadow_member=member)


@pytest.mark.slow
def test_fixed_counts_leak_nothing_and_are_reported():
    supplied = supplied_arrays.build(fixed_counts())
    assert supplied.design.balance and "same number" in supplied.notes[0]
    fleet = threat_model.FleetSignals(design=supplied.design, signal=supplied.signal, num_classes=0)
    for t in range(8):
        evidence = fleet.evidence_against(t, ("loss", "shadow_in", "shadow_out"))
        inside = (evidence.visible_MN & evidence.shadow_member_MN).sum(0)
        outside = (evidence.visible_MN & ~evidence.shadow_member_MN).sum(0)
        assert (inside == 3).all() and (outside == 3).all()
    naive = dataclasses.replace(supplied.design, balance=False)
    count = (
        threat_model.FleetSignals(design=naive, signal=supplied.signal, num_classes=0)
        .evidence_against(0, ("loss", "shadow_in", "shadow_out"))
        .shadow_member_MN.sum(0)
    )
    assert (count[naive.member_MN[0]] == 3).all() and (
        count[~naive.member_MN[0]] == 4
    ).all()  # what would have been leaked
    aucs = [
        mia_jax.audit(fixed_counts(seed=s), attacks=dict(lira=dict(signal="loss")), **QUICK).value(
            "lira", "auc"
        )
        for s in range(8)
    ]
    assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs, ddof=1) / np.sqrt(8)


def test_nearly_fixed_counts_are_hidden_and_independent_coins_are_not():
    given = fixed_counts()
    given["shadow_member"][:, :20] = (
        np.random.default_rng(1).random((8, 20)).argsort(0) < np.arange(20) % 3 + 3
    )
    assert supplied_arrays.build(given).design.balance
    given["shadow_member"][:, 0] = (
        # an example without OUT shadows has none to spare: nothing is hidden, and the report says
        # what counts tell
        True
    )
    results = mia_jax.audit(given, attacks="lira", **QUICK)
    assert (
        not supplied_arrays.build(given).design.balance
        and "the number of shadows that trained on a record reveals who is a member"
        in results.markdown
    )
    assert not any(
        supplied_arrays.build(dict(loss=np.zeros(200), **coins(seed))).design.balance
        for seed in range(30)
    )


def coins(seed):
    """Returns membership of a target and 8 shadows by independent coins, and constant losses."""
    member = np.random.default_rng(seed).random((9, 200)) < 0.5
    return dict(member=member[0], shadow_member=member[1:], shadow_loss=np.zeros((8, 200)))


def test_the_layout_of_the_released_lira_code_is_read(tmp_path):
    given = arrays(pairs=False)
    for m in range(8):
        folder = tmp_path / f"experiment-{m}_8" / "logits"
        folder.mkdir(parents=True)
        np.save(folder.parent / "keep.npy", given["shadow_member"][m])
        np.save(folder / "0000000100.npy", np.stack([given["shadow_logits"][m]] * 2, 1)[:, None])
    with pytest.raises(FileNotFoundError, match=r"y_train\.npy"):
        supplied_arrays.load(tmp_path)
    np.save(tmp_path / "y_train.npy", given["labels"])
    supplied = supplied_arrays.build(supplied_arrays.load(tmp_path))
    assert supplied.signal["loss"].shape == (8, 2, 120)
    np.testing.assert_array_equal(supplied.design.member_MN, given["shadow_member"])
    np.testing.assert_allclose(supplied.signal["logits"][:, 1], given["shadow_logits"], rtol=1e-6)
    np.save(tmp_path / "experiment-0_8" / "logits" / "0000000200.npy", np.zeros((120, 4)))
    assert supplied_arrays.load(tmp_path)["shadow_logits"].shape == (
        8,
        2,
        120,
        4,
    )  # the last step that all have
    for m in range(1, 8):
        np.save(tmp_path / f"experiment-{m}_8" / "logits" / "0000000200.npy", np.full((120, 4), m))
    assert supplied_arrays.load(tmp_path)["shadow_logits"][:, 0, 0].tolist() == list(range(8))
    (tmp_path / "experiment-0_8" / "logits" / "0000000100.npy").unlink()
    (tmp_path / "experiment-0_8" / "logits" / "0000000200.npy").unlink()
    with pytest.raises(ValueError, match=r"all models must share a file logits/<step>\.npy"):
        supplied_arrays.load(tmp_path)


HALF, BIT = np.arange(5) % 2, np.arange(20) % 2
LOSS = dict(loss=np.arange(5.0), member=HALF)
PROBS = dict(labels=np.arange(5) % 3, member=HALF)
SHADOWS = dict(LOSS, shadow_loss=np.zeros((3, 5)), shadow_member=np.eye(3, 5))
BAD = [
    ({}, "none of score, loss, probs, .* the keys are none"),
    (dict(member=np.zeros(5)), "none of score, loss, probs, .* the keys are member"),
    (dict(loss=np.zeros(5)), r"member \[N\] = \[5\] is missing"),
    (dict(scores=np.zeros(5), member=HALF), "unknown key 'scores'. Did you mean 'score'"),
    (dict(los=np.zeros(5), member=HALF), "unknown key 'los'. Did you mean 'loss'"),
    (dict(SHADOWS, shadow_los=1), "unknown key 'shadow_los'. Did you mean 'shadow_loss'"),
    (dict(LOSS, member=np.zeros(4)), r"member has shape \(4,\); expected \[N\] = \(5,\)\.$"),
    (
        dict(LOSS, member=np.array([1, 3])),
        r"expected \[N\] = \(5,\). Row numbers\? Pass np.isin\(np.arange\(5\), member\)",
    ),
    (dict(LOSS, member=np.full(5, 2)), r"must hold 0 and 1 only .* it holds \[2\]"),
    (dict(LOSS, member=np.array(["in", "out", "in", "in", "in"])), "must hold 0 and 1 only"),
    (
        dict(LOSS, member=np.ones(5)),
        "member has 5 members and 0 non-members; an audit compares the two",
    ),
    (dict(LOSS, member=np.zeros(5)), "member has 0 members and 5 non-members"),
    (
        dict(shadow_loss=np.zeros((2, 5)), shadow_member=[[0, 1, 0, 1, 0], [1, 1, 1, 1, 1]]),
        r"shadow_member\[1\] has 5 members and 0 non",
    ),
    (
        dict(LOSS, loss=np.full(5, np.nan)),
        "loss has 5 of 5 values that are NaN or infinite; the first is nan at",
    ),
    (dict(LOSS, loss=np.array(["a"] * 5)), "loss must be numbers; its dtype is <U1"),
    (dict(logits=np.zeros((5, 3)), member=HALF), r"labels \[N\] is missing; logits need it"),
    (
        dict(PROBS, logits=np.zeros((5, 3)), labels=np.arange(5)),
        r"label 3 of example 3 lies outside 0\.\.2 \(3 columns",
    ),
    (dict(PROBS, logits=np.zeros((5, 3)), labels=np.arange(5) - 1), "label -1 of example 0 is not"),
    (
        dict(PROBS, logits=np.zeros((5, 3)), labels=np.arange(5) / 2),
        "must be class numbers; the first that is not is 0.5",
    ),
    (
        dict(PROBS, logits=np.zeros((5, 3)), labels=np.array(list("abcab"))),
        r"labels are <U1; .*return_inverse=True",
    ),
    (
        dict(PROBS, logits=np.zeros((5, 3)), labels=np.eye(3)[np.arange(5) % 3]),
        r"are one-hot, .*labels\.argmax\(1\)",
    ),
    (dict(PROBS, logits=np.zeros((5, 3)), labels=np.arange(5)[:, None] % 3), r"labels\[:, 0\]\?"),
    (
        dict(PROBS, logits=np.zeros((5, 3)), labels=np.full((5, 3), 2)),
        r"labels \[N,C\] must hold 0 and 1 only",
    ),
    (
        dict(PROBS, logits=np.zeros((5, 3)), labels=np.ones((5, 2))),
        "labels has 2 columns and the answers 3",
    ),
    (
        dict(PROBS, logits=np.zeros((5, 3)), labels=np.zeros(4)),
        r"logits has shape \(5, 3\); expected \[N=4, C\]",
    ),
    (dict(PROBS, probs=np.full((5, 3), 0.3)), r"must sum to 1; those of example 0 sum to 0\.9"),
    (
        dict(PROBS, probs=np.full((5, 3), 33.3)),
        r"lie in \[33\.3, 33\.3\] and must lie in \[0, 1\]; .*logits=",
    ),
    (
        dict(PROBS, probs=np.ones((5, 1)), labels=HALF),
        r"one column; .*np\.concatenate\(\[1 - p, p\], -1\)",
    ),
    (
        dict(PROBS, probs=np.ones(5), labels=HALF),
        r"expected \[A \(optional\), N, C\] with N=5. One probability p .*np\.stack",
    ),
    (dict(PROBS, logits=np.zeros((2, 2, 2, 5, 3))), r"expected \[A \(optional\), N, C\]"),
    (
        dict(PROBS, logits=np.zeros((5, 2, 3))),
        r"logits has shape \(5, 2, 3\); expected \[A, N=5, C\]",
    ),
    (dict(predictions=np.zeros((5, 1)), labels=np.zeros(5), member=HALF), r"expected \[A, N=5\]"),
    (
        dict(
            LOSS,
            shadow_probs=np.ones((2, 5, 1)),
            labels=np.zeros(5, int),
            shadow_member=np.eye(2, 5),
        ),
        "must have the same forms",
    ),
    (
        dict(
            PROBS,
            logits=np.zeros((2, 5, 3)),
            shadow_logits=np.zeros((3, 5, 3)),
            shadow_member=np.eye(3, 5),
        ),
        "differ in views or classes",
    ),
    (dict(LOSS, shadow_loss=np.zeros((3, 5))), r"shadow_member \[M,N\] = \[3, 5\] is missing"),
    (
        dict(SHADOWS, shadow_member=np.eye(2, 5)),
        r"shadow_member has shape \(2, 5\); expected \[M,N\] = \(3, 5\), one row per shadow model",
    ),
    (
        dict(SHADOWS, shadow_member=np.eye(5, 3)),
        r"shadow_member has shape \(5, 3\); expected \[M,N\] = \(3, 5\)",
    ),
    (
        dict(SHADOWS, score=HALF, shadow_score=np.zeros((2, 5))),
        "shadow_score has 2 models, shadow_loss has 3 models",
    ),
    (dict(SHADOWS, pair=np.arange(2)), r"pair has shape \(2,\); expected \(3,\)"),
    (dict(LOSS, column_age=np.arange(3)), r"column_age has shape \(3,\); expected \[N\] with N=5"),
    (dict(LOSS, column_age=np.zeros((5, 2))), r"column_age has shape \(5, 2\); expected \[N\]"),
    (dict(LOSS, x=np.zeros((3, 2))), r"loss has shape \(5,\); expected \[N=3\]"),
    (dict(LOSS, x=np.full((5, 2), np.inf)), "x has 10 of 10 values that are NaN or infinite"),
    (dict(LOSS, population_loss=np.zeros(2), labels=np.zeros(5)), "population_labels is missing"),
    (
        dict(LOSS, population_loss=np.zeros((2, 2))),
        r"population_loss has shape \(2, 2\) and loss \(5,\)",
    ),
    (
        dict(LOSS, population_loss=np.zeros(2), population_member=np.ones(2)),
        "population rows must lie outside every model",
    ),
]


@pytest.mark.parametrize("given, message", BAD, ids=range(len(BAD)))
def test_bad_arrays_name_the_key_and_both_shapes(given, message):
    with pytest.raises(ValueError, match=message):
        supplied_arrays.build(given)


def test_files_that_cannot_be_read_are_named(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(
        ValueError,
        match=r"one\.npy cannot be read as an \.npz .* single array \(np\.save\), not an archive "
        r"\(np\.savez\)",
    ):
        supplied_arrays.load(tmp_path / "one.npy")
    (tmp_path / "text.npz").write_text("score")
    with pytest.raises(ValueError, match=r"text\.npz cannot be read as an \.npz of plain arrays"):
        supplied_arrays.load(tmp_path / "text.npz")
    with pytest.raises(
        FileNotFoundError, match=r"no\.npz does not exist; supply an npz file or a folder"
    ):
        supplied_arrays.load(tmp_path / "no.npz")


def test_population_rows_are_appended_on_the_axis_of_examples_and_are_members_of_no_model():
    """The axis of examples is known by its place, not by its length: there are as many examples as
    classes and views.
    """
    rng = np.random.default_rng(0)
    given = dict(
        shadow_logits=rng.normal(size=(3, 4, 4, 4)),
        shadow_member=[[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]],
        labels=np.arange(4),
    )
    more = dict(
        population_shadow_logits=rng.normal(size=(3, 4, 2, 4)), population_labels=np.array([3, 0])
    )
    supplied = supplied_arrays.build(given | more)
    assert (
        supplied.signal["logits"].shape == (3, 4, 6, 4)
        and supplied.design.population_N.tolist() == [False] * 4 + [True] * 2
    )
    np.testing.assert_allclose(
        supplied.signal["logits"][:, :, 4:], more["population_shadow_logits"], rtol=1e-6
    )
    assert (
        not supplied.design.member_MN[:, 4:].any()
        and not supplied.design.evaluated_MN[:, 4:].any()
        and supplied.pool.y.tolist() == [0, 1, 2, 3, 3, 0]
    )
    losses = supplied_arrays.build(
        dict(
            shadow_loss=np.zeros((3, 4)),
            shadow_member=given["shadow_member"],
            population_shadow_loss=np.ones((3, 5)),
        )
    )
    assert losses.signal["loss"].shape == (3, 1, 9) and losses.design.population_N.sum() == 5


def test_negative_losses_are_reported():
    notes = supplied_arrays.build(dict(LOSS, loss=-np.arange(5.0))).notes
    assert notes == (
        "4 losses are negative. A loss is lower on members; of log-likelihoods pass the negative.",
    )
    assert supplied_arrays.build(LOSS).notes == ()


def complementary(seed=0, models=6):
    """Returns membership [M,20] of pairs of models with complementary halves."""
    half = np.random.default_rng(seed).random((models // 2, 20)).argsort(1) < 10
    return np.stack([half, ~half], 1).reshape(models, 20)


def test_the_targets_twin_and_the_target_itself_are_not_used_against_it():
    """The target is a model of a fleet in pairs: its own row and that of its twin would reveal
    every member.
    """
    member = complementary()
    supplied = supplied_arrays.build(
        dict(
            loss=np.zeros(20), member=member[2], shadow_loss=np.zeros((6, 20)), shadow_member=member
        )
    )
    assert supplied.design.shadow_MM[0].tolist() == [False, True, True, False, False, True, True]
    assert any(
        s.startswith("Shadow 3 trained on exactly the examples that the target did not")
        for s in supplied.notes
    )
    assert any(
        s.startswith("Shadow 2 trained on exactly the target's members") for s in supplied.notes
    )
    rest = member[[0, 1, 2, 4, 5]]  # the copy without its twin
    with_copy = supplied_arrays.build(
        dict(loss=np.zeros(20), member=member[2], shadow_loss=np.zeros((5, 20)), shadow_member=rest)
    )
    assert with_copy.design.shadow_MM[0].tolist() == [False, True, True, False, True, True]
    with_pairs = dict(
        loss=np.zeros(20),
        member=member[2],
        shadow_loss=np.zeros((6, 20)),
        shadow_member=member,
        pair=[0, 0, 1, 1, 2, 2],
    )
    assert (
        supplied_arrays.build(with_pairs).design.shadow_MM[0].tolist()
        == supplied.design.shadow_MM[0].tolist()
    )


@pytest.mark.parametrize(
    "shadow_member, lacking, note",
    [
        (
            np.ones((3, 20)),
            {"shadow_out", "shadow_own"},
            "every usable shadow trained on every scored example",
        ),
        (
            np.zeros((3, 20)),
            {"shadow_in", "shadow_own"},
            "no usable shadow trained on a scored example",
        ),
        (complementary()[:2], set(), "user-supplied arrays"),
        (
            np.stack([BIT, 1 - BIT]),
            {"shadow_in", "shadow_out", "shadow_own"},
            "a target has no shadow but itself, its twin or models of the same",
        ),
    ],
)
def test_needs_that_the_shadows_do_not_meet_are_detected_and_explained(
    shadow_member, lacking, note
):
    """The cases: all members, no members, one pair, only the target itself and its twin."""
    supplied = supplied_arrays.build(
        dict(
            loss=np.zeros(20),
            member=BIT,
            shadow_loss=np.zeros((len(shadow_member), 20)),
            shadow_member=shadow_member,
        )
    )
    assert (
        supplied.design.supports == {"shadow_in", "shadow_out", "shadow_own"} - lacking
        and note in supplied.design.note
    )


def test_population_rows_that_are_marked_stay_where_they_are():
    rng = np.random.default_rng(0)
    aside = np.arange(30) % 10 == 3
    member = ~aside & (rng.random(30) < 0.5)
    marked = dict(loss=rng.random(30), labels=np.arange(30) % 3, member=member)
    supplied = supplied_arrays.build(marked | dict(population=aside))
    assert np.array_equal(supplied.design.population_N, aside)
    assert np.array_equal(supplied.signal["loss"][0, 0], marked["loss"])
    assert not supplied.design.evaluated_MN[:, aside].any()
    order = np.argsort(aside, kind="stable")
    appended = {k: v[~aside] for k, v in marked.items()}
    appended |= dict(
        population_loss=marked["loss"][aside], population_labels=marked["labels"][aside]
    )
    other = supplied_arrays.build(appended)
    assert np.array_equal(other.signal["loss"][0, 0], marked["loss"][order])
    with pytest.raises(ValueError, match=r"population marks \d+ rows that member says a model was"):
        supplied_arrays.build(marked | dict(population=member))
    with pytest.raises(ValueError, match="population and population_loss are both given"):
        supplied_arrays.build(marked | dict(population=aside, population_loss=[0.1]))
    with pytest.raises(ValueError, match=r"population has shape \(3,\); expected \[N\]"):
        supplied_arrays.build(marked | dict(population=aside[:3]))


def test_models_of_folds_have_no_shadows_and_are_attacked_by_their_own_answers():
    """Every row is out of one model: of the shadows of its target none is OUT, so hiding the count
    leaves IN shadows only, of which no attack can learn both sides.
    """
    folds = np.arange(50) % 5
    member = folds[None] != np.arange(5)[:, None]
    loss = np.random.default_rng(0).normal(size=(5, 50)) ** 2
    supplied = supplied_arrays.build(dict(shadow_loss=loss, shadow_member=member))
    assert supplied.design.balance and not supplied.design.supports & {"shadow_out", "shadow_own"}
    results = mia_jax.audit(shadow_loss=loss, shadow_member=member, draws=40)
    assert "threshold_loss" in {row["attack"] for row in results.table}
