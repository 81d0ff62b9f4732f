"""Slices: what they hold, that one pass gives what slice-by-slice work gives, that a planted leak
is found and nothing is found in noise.
"""

import time

import numpy as np
import pytest

from mia_jax.metrics import bootstrap, outcomes, placements, roc, slice_rows, slices, summary
from mia_jax.metrics.components import Error

FPRS = (0.05, 0.1)


def fleet(rng, units, records, classes=10, *, single=False, hardness=1.0, mu=0.0, planted=0.0):
    """Returns (score_TN, member_TN, y_N) of complementary targets.

    `planted` is added to the scores of members of class 1; `single` keeps the first target only.
    """
    member = np.zeros((2 * units, records), bool)
    for u in range(units):
        member[2 * u, rng.permutation(records)[: records // 2]] = True
        member[2 * u + 1] = ~member[2 * u]
    y = np.arange(records) % classes
    score = (
        hardness * rng.normal(size=records)
        + (mu + planted * (y == 1)) * member
        + rng.normal(size=member.shape)
    )
    return (score[:1], member[:1], y) if single else (score, member, y)


def measured(
    score, member, y, terms=("class",), seed=0, evaluated=None, draws=200, threshold=None, **given
):
    evaluated = np.ones_like(member) if evaluated is None else evaluated
    drawn = bootstrap.make(member.shape[1], np.arange(len(member)) // 2, seed=seed, draws=draws)
    attack = dict(score_TN=score) | (
        {} if threshold is None else dict(threshold_T=np.full(len(score), threshold))
    )
    layers = slices.make(terms, evaluated, labels_N=y, **given)
    return slice_rows.rows({"a": attack}, member, evaluated, layers, draws=drawn, fprs=FPRS)


# --------------------------------------------------------------------------------
# what a slice holds


def test_terms_are_parsed_and_wrong_ones_are_named():
    assert slices.parse(("class", "class&correct", "class", "column:a:b")) == [
        ("class",),
        ("class", "correct"),
        ("column:a:b",),
    ]
    assert slices.parse("loss") == [("loss",)]
    assert slices.column_of("column:a:b") == ("a:b", None) and slices.column_of("column:age:4") == (
        "age",
        4,
    )
    for text, message in [
        ("clas", "'clas' in 'clas' is none of class, column:<name>, .*Did you mean 'class'"),
        ("column:", "is none of"),
        ("class & loss & correct", "joins 3 terms"),
    ]:
        with pytest.raises(ValueError, match=message):
            slices.parse((text,))
    with pytest.raises(ValueError, match=r"no column 'agee'\. Did you mean 'age'\? Columns: age"):
        slices.check(("column:agee",), columns=("age", "population"))
    with pytest.raises(ValueError, match=r"bins of column:age:1=1 must be at least 2"):
        slices.check(("column:age:1",), columns=("age",))
    with pytest.raises(ValueError, match=r"'group' is requested but report\.groups is empty"):
        slices.check(("group",))
    for rows, message in (
        ((), "list of row numbers"),
        ((1.5,), "list of row numbers"),
        ((3, 9), r"row 9; the data has rows 0\.\.8"),
        ((-1,), "row -1"),
    ):
        with pytest.raises(ValueError, match=message):
            slices.check((), groups={"mine": rows}, num_examples=9)


def held(layers, t=0):
    """Returns {slice: sorted record numbers} of target t."""
    codes = [(layer, layer.code if layer.code.ndim == 1 else layer.code[t]) for layer in layers]
    return {
        name: np.flatnonzero(code == g).tolist()
        for layer, code in codes
        for g, name in enumerate(layer.names)
    }


def test_slices_hold_what_their_names_say():
    evaluated = np.ones((2, 6), bool)
    loss = np.array([[0.0, 1, 2, 3, 4, 5], [5.0, 4, 3, 2, 1, 0]])
    columns = dict(
        color=np.array(["red", "blue", "red", "blue", "red", "red"]),
        age=np.array([1.0, 2, 3, 4, np.nan, 6]),
        flag=np.arange(6) < 2,
    )
    columns["population"] = np.zeros(6, bool)
    made = slices.make(
        ("class", "correct", "column:color", "column:age:2", "column:flag", "class & column:color"),
        evaluated,
        labels_N=np.array([3, 3, 1, 1, 1, 3]),
        columns=columns,
        correct_TN=(loss < 3).astype(np.float32),
        loss_TN=loss,
        groups={"mine": (5, 0), "yours": (0,)},
    )
    records_of = held(made)
    assert (
        records_of["class=1"] == [2, 3, 4]
        and records_of["class=3"] == [0, 1, 5]
        and "class=2" not in records_of
    )
    assert records_of["correct=True"] == [0, 1, 2] and held(made, 1)["correct=True"] == [3, 4, 5]
    assert records_of["color=blue"] == [1, 3] and records_of["flag=True"] == [0, 1]
    assert records_of["age=[1, 3)"] == [0, 1] and records_of["age=[3, 6]"] == [2, 3, 5]
    assert records_of["class=3 & color=red"] == [0, 5] and records_of["class=1 & color=blue"] == [3]
    assert records_of["group=mine"] == [0, 5] and records_of["group=yours"] == [0]
    assert slices.by_value("id", np.array([1e7, 1e7 + 1])).names == ("id=10000000", "id=10000001")
    post_hoc = {name for layer in made if layer.post_hoc for name in layer.names}
    assert post_hoc == {"correct=True", "correct=False"}


def test_deciles_are_of_the_union_and_inclusive():
    loss = np.concatenate([np.arange(20.0), np.zeros(10)])[None]
    evaluated = (np.arange(30) < 20)[None]
    records_of = held(slices.make(("loss",), evaluated, loss_TN=loss))
    for k in range(10):
        low, high = np.percentile(np.arange(20), [10 * k, 10 * k + 10])
        assert records_of[f"loss {10 * k}-{10 * k + 10}%"] == [
            i for i in range(20) if low <= i <= high
        ]
    tied = slices.make(
        ("loss",), np.ones((1, 8), bool), loss_TN=np.array([[0.0, 0, 0, 0, 0, 0, 1, 2]])
    )
    assert held(tied)["loss 0-10%"] == held(tied)["loss 40-50%"] == [0, 1, 2, 3, 4, 5] and held(
        tied
    )["loss 90-100%"] == [7]


def test_what_cannot_be_sliced_is_refused():
    evaluated = np.ones((1, 4), bool)
    with pytest.raises(ValueError, match="'class' needs class labels"):
        slices.make(("class",), evaluated)
    with pytest.raises(ValueError, match="'loss' needs the targets' signal 'loss'"):
        slices.make(("class & loss",), evaluated, labels_N=np.arange(4))
    with pytest.raises(ValueError, match="'name' has dtype <U1 and cannot be cut"):
        slices.make(("column:name:3",), evaluated, columns=dict(name=np.array(list("abcd"))))
    many = np.ones((1, 1200), bool)
    with pytest.raises(ValueError, match="make 1200 slices; at most 1000"):
        slices.make(("class",), many, labels_N=np.arange(1200))


# --------------------------------------------------------------------------------
# one pass = many passes


def test_one_pass_gives_what_every_slice_alone_gives():
    rng = np.random.default_rng(1)
    score, member, y = fleet(rng, 4, 240, 4, mu=0.7)
    score[:, ::3] = np.round(score[:, ::3])  # ties
    score[0, 5], score[1, 6] = np.inf, -np.inf
    evaluated = np.broadcast_to(np.arange(240) >= 20, member.shape)
    score = np.where(evaluated, score, np.nan)
    correct = rng.random(member.shape) < 0.6
    rows, _ = measured(
        score,
        member,
        y,
        ("class", "correct", "class & correct"),
        evaluated=evaluated,
        threshold=0.5,
        correct_TN=correct,
    )
    by = {(r["slice"], r["target"], r["metric"]): r for r in rows}
    masks = {f"class={c}": np.broadcast_to(y == c, member.shape) for c in range(4)}
    masks |= {f"correct={v}": correct == v for v in (True, False)}
    masks |= {
        f"class={c} & correct={v}": (y == c) & (correct == v)
        for c in range(4)
        for v in (True, False)
    }
    assert {k[0] for k in by} == set(masks)
    for name, mask in masks.items():
        mask = mask & evaluated
        curves = [roc.roc(s[k], m[k]) for s, m, k in zip(score, member, mask)]
        assert by[name, None, "auc"]["value"] == pytest.approx(
            np.mean([roc.auc(c) for c in curves])
        )
        rates = [roc.rates_at(s[k], m[k], 0.5) for s, m, k in zip(score, member, mask)]
        assert by[name, None, "balanced_accuracy"]["value"] == pytest.approx(
            np.mean([r.balanced_accuracy for r in rates])
        )
        pooled = roc.roc(score[mask], member[mask])
        for fpr in FPRS:
            row, point = by[name, "pooled", f"tpr@{fpr:g}"], roc.tpr_at_fpr(pooled, fpr)
            assert row["value"] == point.tpr and row["fpr_realized"] == point.fpr
            assert (row["n_member"], row["n_nonmember"]) == (
                (mask & member).sum(),
                (mask & ~member).sum(),
            )
        for key, row in by.items():
            if key[0] == name and row["low"] is not None:
                assert (
                    row["low"] <= row["value"] <= row["high"]
                    and row["interval"] == "records"
                    and row["n_targets"] == 8
                )


def test_intervals_of_slices_are_those_of_the_slice_alone():
    """The shared draws and the linear form give the spread that the exact bootstrap of the slice's
    own rows gives, and the same TPRs bit for bit.
    """
    rng = np.random.default_rng(2)
    score, member, y = fleet(rng, 8, 800, 4, mu=0.7)
    score, code = np.round(score, 1), np.where(y == 2, 0, -1)
    draws, columns = bootstrap.make(800, np.arange(16) // 2), np.flatnonzero(y == 2)
    parts = [
        placements.placements(placements.order(s, np.ones(800, bool)), m, code, 1)
        for s, m in zip(score, member)
    ]
    auc_T, place_TN = np.array([a[0] for a, _ in parts]), np.array([p for _, p in parts])
    w = placements.weights(member & (y == 2), ~member & (y == 2), draws.record_NR)
    linear = placements.auc_draws(auc_T, place_TN, w)
    ranks = [bootstrap.ranked(s[columns], m[columns], columns) for s, m in zip(score, member)]
    exact = np.array([bootstrap.redraw(rank, draws.record_NR, None, [1])[0] for rank in ranks])
    assert auc_T == pytest.approx(
        [roc.auc(roc.roc(s[columns], m[columns])) for s, m in zip(score, member)]
    )
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(linear, exact)) > 0.98
    assert linear.std(1) == pytest.approx(exact.std(1), rel=0.06)
    at = np.flatnonzero(np.broadcast_to(y == 2, member.shape))
    rank = bootstrap.ranked(score.ravel()[at], member.ravel()[at], at)
    sides = ((weight * draws.unit_TR).sum(0) for weight in (w.inside_TR, w.outside_TR))
    steps = [1, 8, 80, 700]
    for a, b in zip(
        placements.tpr_draws(rank, draws, steps, *sides),
        bootstrap.redraw(rank, draws.record_NR, draws.unit_TR, steps)[1:],
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_shares_are_weighted_means_whether_dense_or_sparse():
    rng = np.random.default_rng(3)
    member = rng.random((6, 90)) < 0.5
    draws = bootstrap.make(90, np.arange(6) // 2, draws=40)
    inside, outside = member & (np.arange(90) < 60), ~member & (np.arange(90) < 60)
    w = placements.weights(inside, outside, draws.record_NR)
    for density in (0.02, 0.5):
        named = rng.random(member.shape) < density
        for side, share_TR in zip((inside, outside), placements.shares(named, w)):
            assert share_TR == pytest.approx(
                ((named & side) @ draws.record_NR) / (side @ draws.record_NR)
            )


# --------------------------------------------------------------------------------
# is the ranking to be trusted?

SETTINGS = {"crossed": (8, 300, False), "few units": (2, 300, False), "one target": (1, 400, True)}


def simulate(name, repeats):
    """Returns the errors and the power of the ranking over simulated fleets.

    They are (share of null fleets in which Holm rejects, coverage of the null AUCs, coverage of
    pooled TPRs, share of planted slices that are ranked first and survive).
    """
    units, records, single = SETTINGS[name]
    rejected, first, cover, cover_tpr = 0, 0, [], []
    for repeat in range(repeats):
        rng = np.random.default_rng([5, repeat])
        rows, ranking = measured(*fleet(rng, units, records, single=single), seed=repeat, draws=120)
        rejected += min(entry["p_holm"] for entry in ranking["a"]) <= 0.05
        cover += [entry["low"] <= 0.5 <= entry["high"] for entry in ranking["a"]]
        cover_tpr += [r["low"] <= r["true_tpr"] <= r["high"] for r in tprs(rows)]
        _, ranking = measured(
            *fleet(rng, units, records, single=single, planted=3.0), seed=repeat, draws=120
        )
        best = ranking["a"][0]
        first += best["slice"] == "class=1" and best["p_holm"] <= 0.05
    return rejected / repeats, np.mean(cover), np.mean(cover_tpr), first / repeats


def tprs(rows):
    """Returns the pooled TPR rows that have an interval, with the true TPR of random scores.

    It is the FPR.
    """
    return [
        r | dict(true_tpr=float(r["metric"][4:]))
        for r in rows
        if r["target"] == "pooled" and r["metric"].startswith("tpr@") and r["low"] is not None
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_planted_leak_ranks_first_and_holm_is_quiet_in_noise(name):
    rejected, cover, cover_tpr, first = simulate(name, 40)
    assert rejected <= 0.1 and cover >= 0.92 and cover_tpr >= 0.92 and first >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_holm_rejects_at_most_5_percent_in_300_simulations(name):
    rejected, cover, cover_tpr, first = simulate(name, 300)
    assert rejected <= 0.05 and cover >= 0.92 and cover_tpr >= 0.92 and first >= 0.9


def test_excess_is_the_difference_to_all_records():
    score, member, y = fleet(np.random.default_rng(4), 8, 400, 4, mu=0.5, planted=1.0)
    rows, ranking = measured(score, member, y)
    whole = summary.rows(
        {"a": dict(score_TN=score)}, member, np.ones_like(member), unit_T=np.arange(16) // 2
    )
    overall = next(r["value"] for r in whole if r["metric"] == "auc" and r["target"] is None)
    best = ranking["a"][0]
    assert best["slice"] == "class=1" and best["excess"] == pytest.approx(best["auc"] - overall)
    assert 0 < best["excess_low"] < best["excess"] < best["excess_high"]
    lows = [entry["low"] for entry in ranking["a"]]
    assert lows == sorted(lows, reverse=True)
    row = next(r for r in rows if r["slice"] == "class=1" and r["metric"] == "auc")
    assert (row["p_value"], row["p_holm"]) == (best["p_value"], best["p_holm"]) and row[
        "p_holm"
    ] >= row["p_value"]


# --------------------------------------------------------------------------------
# degenerate slices


def test_small_slices_are_marked_and_not_ranked():
    score, member, y = fleet(np.random.default_rng(6), 6, 200, 4, mu=1.0)
    groups = {"tiny": (1, 2, 3), "fine": tuple(range(100))}
    always_member = np.arange(200) < 60
    member[:, always_member] = True  # no target has a non-member here
    rows, ranking = measured(
        score, member, y, ("group",), groups=groups | {"members": tuple(range(60))}, threshold=0.5
    )
    by = {(r["slice"], r["metric"], r["target"]): r for r in rows}
    assert [e["slice"] for e in ranking["a"]] == ["group=fine"]
    for name in ("tiny", "members"):
        row = by[f"group={name}", "auc", None]
        assert (
            row["too_small"]
            and row["low"] is None
            and row["value"] is None
            and "too small: no target has members and non-members" in row["method"]
        )
    assert by["group=members", "advantage", None]["value"] is None
    assert by["group=members", "tpr@0.1", "pooled"]["value"] is None
    few, _ = measured(
        score, member, y, ("group",), groups={"few": tuple(range(185, 200))}, threshold=0.5
    )
    for row in few:
        assert (
            row["too_small"]
            and row["low"] is None
            and row["value"] is not None
            and "15 records, fewer than 20" in row["method"]
        )


def test_equal_and_perfect_scores_have_honest_p_values():
    score, member, y = fleet(np.random.default_rng(7), 1, 200, 2, single=True)
    _, constant = measured(np.zeros_like(score), member, y)
    _, perfect = measured(np.where(member, np.inf, -np.inf), member, y)
    assert [e["p_holm"] for e in constant["a"]] == [1.0, 1.0] and all(
        e["low"] < 0.5 < e["high"] for e in constant["a"]
    )
    assert all(e["auc"] == 1 and e["p_value"] < 1e-9 for e in perfect["a"])
    assert slice_rows.one_sided(0.7, Error(0.1), 10, 50) == pytest.approx(
        1 - slice_rows.one_sided(0.3, Error(0.1), 10, 50)
    )
    assert slice_rows.one_sided(0.5, Error(0.1), 10, 50) == 0.5


def test_no_slices_make_no_rows():
    score, member, y = fleet(np.random.default_rng(8), 1, 40, 2)
    assert measured(score, member, y, ()) == ([], {})


def test_speed_of_a_whole_quickstart():
    rng = np.random.default_rng(0)
    score, member, y = fleet(rng, 32, 1616)
    draws, evaluated = bootstrap.make(1616, np.arange(64) // 2), np.ones_like(member)
    attacks = {f"a{i}": dict(score_TN=score, threshold_T=np.full(64, 0.5)) for i in range(4)}
    started = time.thread_time()
    rows, _ = slice_rows.rows(
        attacks, member, evaluated, slices.make(("class",), evaluated, labels_N=y), draws=draws
    )
    assert time.thread_time() - started < 6  # .5 s on one quiet core
    assert len(rows) == 4 * 10 * (1 + 5 + 3) and {r["interval"] for r in rows} == {"crossed"}
    assert all(r["convention"] in (outcomes.STEP, outcomes.TIES, outcomes.RULE) for r in rows)
