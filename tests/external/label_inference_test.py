"""Label inference: a correct randomized response is rejected at most 5% of the time whatever the
proxy's shift, its epsilon is shown, and what cannot be audited is refused in a sentence.
"""

import numpy as np
import pytest

import mia_jax
from benchmarks import label_inference as benchmark
from mia_jax.external import label_inference

RESPONSE = benchmark.Case(epsilon=1.0, shift=0.0, rows=3000)


def given(seed=0, case=RESPONSE, **more):
    return benchmark.released(np.random.default_rng(seed), case) | dict(shift=case.shift) | more


def audited(of, **fields):
    fields = dict(guesses=(0.25,), delta=1e-6) | fields
    return mia_jax.audit(label_inference=of, draws=40, report=dict(audit=fields))


def levels(case, repeats):
    made = [benchmark.bounds(np.random.default_rng([5, r]), case) for r in range(repeats)]
    names = ("uncorrected", "known", "estimated")
    return {n: np.array([each[n] for each in made]) for n in names}


def test_a_correct_response_is_not_rejected_and_its_epsilon_is_shown():
    """40 audits with a proxy whose log odds are off by 0.5: uncorrected nearly all are wrong."""
    case = benchmark.Case(epsilon=1.0, shift=0.5, rows=2000)
    bound = levels(case, 40)
    assert np.mean(bound["uncorrected"] > 1) > 0.8
    for name, median in (("known", 0.7), ("estimated", 0.45)):
        assert np.mean(bound[name] > 1) <= 0.15 and np.median(bound[name]) > median


@pytest.mark.slow
@pytest.mark.parametrize("case", benchmark.CASES[:4])
def test_the_level_is_5_percent_in_400_audits(case):
    bound, chance = levels(case, 400), 3 * np.sqrt(0.05 * 0.95 / 400)
    for name in ("known", "estimated"):
        assert np.mean(bound[name] > case.epsilon) <= 0.05 + chance


def test_slack_covers_rows_whose_order_is_told():
    """2% of the proxy's labels are a class that no label has; nothing else is released."""
    for repeat in range(10):
        rng = np.random.default_rng(repeat)
        label, proxy = rng.integers(0, 10, (2, 3000))
        told = rng.random(3000) < 0.02
        proxy = np.where(told, 99, proxy)
        rows = dict(label=label, proxy_label=proxy, score=np.zeros(3000), proxy_score=-1.0 * told)
        arrays, _ = label_inference.prepared(
            label_inference.LabelInference(**rows, shift=0.0, slack=0.02), fields={}, seed=repeat
        )
        design = label_inference_design(arrays)
        counts = benchmark.privacy_audit.counts(arrays["score"], design, 0, 0.01)
        how = dict(delta=0.0, method="fdp")
        assert benchmark.audit.one_run(counts, **how) > 1
        assert benchmark.audit.one_run(counts, **how, shift=benchmark.Shift(slack=0.025)) == 0


def label_inference_design(arrays):
    return benchmark.supplied_arrays.build(arrays).design


def test_an_audit_has_a_row_per_method_and_contradicts_a_claim_that_is_too_small():
    of = benchmark.rows_of(np.random.default_rng(1), RESPONSE, shift=0.0)
    results = audited(of, epsilon=0.5)
    section = results.report["audit"]
    assert section["violated"] and 0.6 < section["bound"]["epsilon"] < 1.1
    assert section["claim"] == dict(epsilon=0.5, delta=1e-6, adjacency="replace_label")
    assert [row["method"] for row in section["methods"]] == list(benchmark.audit.METHODS)
    assert section["coins"] == (of.label != of.proxy_label).sum()
    shift = section["shift"]
    assert shift["odds"] == 0 and not shift["estimated"] and shift["shown"] == 0
    text = results.markdown
    assert "which of two labels of a row a model was trained on" in text
    assert "does not contradict this" in text and "canaries a model" not in text
    assert any("a member has the label" in note for note in results.report["about"]["said"])


def test_control_rows_estimate_the_shift_and_refute_one_that_is_too_small():
    case = benchmark.Case(epsilon=0.0, shift=1.0, rows=4000)
    of = benchmark.rows_of(np.random.default_rng(2), case)
    estimated = audited(of, epsilon=0.1).report["audit"]
    assert estimated["shift"]["estimated"] and 0.9 < estimated["shift"]["odds"] < 1.4
    assert estimated["bound"]["epsilon"] == 0 and not estimated["violated"]
    whys = {row["method"]: row.get("why", "") for row in estimated["methods"]}
    assert not whys.pop("one_run") and all("control rows" in why for why in whys.values())
    wrong = benchmark.rows_of(np.random.default_rng(2), case, shift=0.0)
    with pytest.raises(ValueError, match=r"show a shift of at least 0.[78].*larger shift, or pass"):
        audited(wrong, epsilon=0.1)


def test_labels_may_be_words_and_ties_are_right_half_of_the_time():
    rng = np.random.default_rng(3)
    label, proxy = rng.choice(["cat", "dog"], (2, 2000))
    of = dict(label=label.tolist(), proxy_label=proxy, shift=0.0)
    arrays, _ = label_inference.prepared(
        label_inference.read(of | dict(score=np.ones(2000), proxy_score=np.ones(2000))),
        fields={},
        seed=0,
    )
    pairs = int((label != proxy).sum())
    assert len(arrays["score"]) == 2 * pairs and arrays["member"].sum() == pairs
    assert abs(arrays["member"][::2].mean() - 0.5) < 0.06


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: dict(d, shift=None), r"Pass shift=0.0 if the proxy draws labels"),
        (lambda d: dict(d, shift=-1.0), "shift=-1.0 must be at least 0"),
        (lambda d: dict(d, slack=0.5), "slack=0.5 is too large for"),
        (lambda d: dict(d, shift=9.0), r"a shift of 9 \(slack 0\) is too large for"),
        (lambda d: dict(d, score=d["score"][:9]), r"score has shape \(9,\); expected one number"),
        (lambda d: dict(d, score=d["score"] * np.nan), "score has nan in row 0; scores must be"),
        (lambda d: dict(d, proxy_label=d["label"]), "equal in all rows .* Draw the proxy's labels"),
        (
            lambda d: {k: v for k, v in d.items() if k != "score"},
            "label_inference: score is missing",
        ),
        (lambda d: dict(d, scores=1), "label_inference has no field 'scores'"),
        (lambda d: dict(d, control_score=[1.0]), "control_label is missing and control_score is"),
        (lambda d: [1, 2], r"label_inference is a list; pass mia_jax.LabelInference\("),
        (lambda d: {k: v[:6] for k, v in d.items() if k != "shift"} | dict(shift=0.0), "too few"),
    ],
)
def test_what_cannot_be_audited_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        audited(change(given()))


def test_label_inference_is_an_audit_of_its_own():
    with pytest.raises(ValueError, match="an audit of its own, and loss is given too"):
        mia_jax.audit(label_inference=given(), loss=np.ones(4))
    with pytest.raises(ValueError, match="the first argument is given too"):
        mia_jax.audit(dict(loss=np.ones(4)), label_inference=given())
    with pytest.raises(ValueError, match="has the field 'shift', which label_inference"):
        audited(given(), shift=0.1)
    with pytest.raises(ValueError, match="are about labels of a proxy model"):
        mia_jax.audit(
            score=np.arange(80.0),
            member=np.arange(80) % 2,
            coin=np.ones(80, bool),
            report=dict(audit=dict(shift=0.1)),
        )
