"""Tests how supplied arrays are read: no digit is lost, containers and dtypes of other libraries
are accepted, and everything else is refused with a message that names the key.
"""

import datetime
import decimal

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import mia_jax
from mia_jax.data import _arrays
from mia_jax.external import arrays as supplied_arrays
from tests import toys
from tests.answered import QUICK, arrays

RNG = np.random.default_rng(0)
MEMBER = np.arange(400) < 200
NORMAL = RNG.normal(size=400)
SCORES = {  # numbers that would become equal or infinite in float32
    "confidences near 1": 1 - np.exp(-30 + NORMAL - MEMBER),
    "an offset of 1e9": 1e9 + NORMAL + MEMBER,
    "whole numbers around 1e12": (10**12 + 10 * (NORMAL + 3 * MEMBER)).astype(np.int64),
    "log-likelihoods of a million": -1e6 + 0.01 * NORMAL + 0.02 * MEMBER,
    "likelihood ratios up to e^160": np.exp(60 * (NORMAL + 0.5 * MEMBER)),
    "unsigned 8-bit ranks": (100 + 20 * NORMAL + 20 * MEMBER).clip(0, 255).astype(np.uint8),
    "booleans": NORMAL + MEMBER > 0.5,
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("form, sign", [("score", 1), ("loss", -1)])
def test_no_digit_of_a_score_or_loss_is_lost(name, form, sign):
    """The AUC equals scikit-learn's AUC of the same float64 numbers, ties included."""
    value = sign * SCORES[name].astype(np.float64) if sign < 0 else SCORES[name]
    results = mia_jax.audit({form: value}, member=MEMBER, attacks=f"threshold_{form}", **QUICK)
    want = roc_auc_score(MEMBER, sign * np.asarray(value, np.float64))
    assert results.value(f"threshold_{form}", "auc") == pytest.approx(want, abs=1e-12)


@pytest.mark.slow
def test_shadows_and_population_keep_their_digits():
    """An offset of a billion changes no result of the attacks that compare differences."""
    member = np.random.default_rng(1).random((9, 300)) < 0.5
    loss = (
        np.random.default_rng(2).gamma(2.0, 1.0, 300)
        - 0.8 * member
        + 0.3 * np.random.default_rng(3).normal(size=(9, 300))
    )
    more = np.random.default_rng(4).gamma(2.0, 1.0, (9, 60))

    def audited(scale, shift):
        scored, population = shift + scale * loss, shift + scale * more
        return mia_jax.audit(
            dict(
                loss=scored[0], member=member[0], shadow_loss=scored[1:], shadow_member=member[1:]
            ),
            population_loss=population[0],
            population_shadow_loss=population[1:],
            attacks="lira, lira_shrunk, lira_offline, offset, reference, population",
            **QUICK,
        )

    plain = audited(1.0, 0.0)
    for scale, shift in ((1.0, 1e9), (1e-6, 1000.0), (1e60, 0.0)):
        for attack in plain.scores:
            assert audited(scale, shift).value(attack, "auc") == pytest.approx(
                plain.value(attack, "auc"), abs=2e-3
            ), (attack, scale, shift)


def test_probabilities_near_one_keep_their_digits():
    rest = np.exp(-27 + NORMAL - MEMBER)  # what is left of 1 is about 1e-11
    probs = np.stack([1 - rest, rest], 1)
    results = mia_jax.audit(probs=probs, labels=np.zeros(400, int), member=MEMBER, **QUICK)
    want = roc_auc_score(MEMBER, -rest)
    for attack in (
        "threshold_loss",
        "threshold_confidence",
        "threshold_entropy",
        "threshold_modified_entropy",
        "threshold_hinge",
    ):
        assert results.value(attack, "auc") == pytest.approx(want, abs=2e-3), attack
    signal = supplied_arrays.build(
        dict(
            logits=np.stack([0 * NORMAL, -np.log(rest)], 1), labels=np.ones(400, int), member=MEMBER
        )
    ).signal
    np.testing.assert_allclose(1 - signal["confidence"][0, 0], rest, rtol=1e-2)
    np.testing.assert_allclose(signal["rescaled_logit"][0, 0], -np.log(rest), rtol=1e-14)


def test_signals_of_supplied_logits_are_those_of_a_nets_logits():
    """The float64 formulas equal the signals of the same names, which are computed in float32."""
    from mia_jax import registry

    logits, y = np.random.default_rng(0).normal(size=(200, 5)) * 4, np.arange(200) % 5
    signal = supplied_arrays.build(dict(logits=logits, labels=y, member=np.arange(200) % 2)).signal
    for name in (
        "loss",
        "confidence",
        "max_confidence",
        "rescaled_logit",
        "entropy",
        "modified_entropy",
        "hinge",
        "correct",
    ):
        want = registry.make("signals", name).measure(jnp.asarray(logits), toys.examples(y))
        np.testing.assert_allclose(signal[name][0, 0], want, rtol=2e-5, atol=2e-6, err_msg=name)
        assert signal[name].dtype == np.float64


def test_real_labels_keep_their_digits():
    y = 1e9 + np.random.default_rng(0).normal(size=200)
    supplied = supplied_arrays.build(
        dict(predictions=y + 0.25, labels=y, member=np.arange(200) % 2)
    )
    np.testing.assert_allclose(supplied.signal["loss"][0, 0], 0.0625, rtol=1e-5)
    assert supplied.pool.y.dtype == np.float64


class Tensor:
    """An array of another library that NumPy can read."""

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)


class OnDevice:
    """An array that NumPy cannot read."""

    def detach(self):
        return self

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


LOGITS = {k: v for k, v in arrays(examples=200).items() if k in ("logits", "labels", "member")}
TAKEN = {
    "bfloat16": lambda z: jnp.asarray(z, jnp.bfloat16),
    "float8": lambda z: jnp.asarray(z, jnp.float8_e4m3fn),
    "float16": lambda z: z.astype(np.float16),
    "jax": jnp.asarray,
    "list": lambda z: z.tolist(),
    "list of arrays": list,
    "objects": lambda z: z.astype(object),
    "decimals": lambda z: np.array(
        [[decimal.Decimal(repr(float(v))) for v in row] for row in z], object
    ),
    "a tensor": Tensor,
    "a mask that hides nothing": lambda z: np.ma.masked_array(z, np.zeros(z.shape, bool)),
    "long doubles": lambda z: z.astype(np.longdouble),
    "big endian": lambda z: z.astype(">f8"),
    "Fortran order": np.asfortranarray,
    "read-only": lambda z: np.broadcast_to(z, z.shape),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_numbers_in_any_container_are_taken(kind):
    value = TAKEN[kind](LOGITS["logits"])
    losses = supplied_arrays.build(dict(LOGITS, logits=value)).signal["loss"]
    z = (
        LOGITS["logits"]
        if isinstance(value, Tensor | np.ma.MaskedArray)
        else np.array(value).astype(np.float64)
    )
    want = np.logaddexp.reduce(z, 1) - z[np.arange(200), LOGITS["labels"]]
    np.testing.assert_allclose(losses[0, 0], want, rtol=1e-6, atol=1e-12)


def test_one_logit_of_two_classes_is_the_logit_of_class_1():
    y = np.arange(200) % 2
    z = np.random.default_rng(0).normal(size=(3, 200)) + 2 * y
    want = np.logaddexp(0, -(2 * y - 1) * z)
    member = np.random.default_rng(1).random((3, 200)) < 0.5
    for flat in (True, False):
        shaped = (lambda a: a) if flat else (lambda a: a[..., None])
        more = dict(
            population_logits=shaped(z[0, :7]),
            population_shadow_logits=shaped(z[1:, :7]),
            population_labels=y[:7],
        )
        given = dict(
            logits=shaped(z[0]),
            shadow_logits=shaped(z[1:]),
            labels=y,
            member=member[0],
            shadow_member=member[1:],
        )
        np.testing.assert_allclose(
            supplied_arrays.build(given).signal["loss"][:, 0], want, rtol=1e-12
        )
        assert supplied_arrays.build(given | more).signal["loss"].shape == (3, 1, 207)
    with pytest.raises(
        ValueError,
        match="logits has one column, the logit of class 1 of two, so labels must hold 0 and 1",
    ):
        supplied_arrays.build(
            dict(logits=z[0][:, None], labels=np.arange(200) % 3, member=member[0])
        )


CYCLE: list = [1.0, 2.0]
CYCLE.append(CYCLE)
LOSS = dict(loss=np.arange(6.0), member=np.arange(6) % 2)
REFUSED = [
    (
        dict(LOSS, loss=np.ma.masked_array(np.arange(6.0), [1, 0, 0, 1, 0, 0])),
        "loss is a masked array and 2 of its 6 values are masked",
    ),
    (
        dict(LOSS, shadow_loss=np.ma.masked_less(np.zeros((2, 6)), 1), shadow_member=np.eye(2, 6)),
        "shadow_loss is a masked array and 12 of its 12",
    ),
    (
        dict(LOSS, population_loss=np.ma.masked_less(np.zeros(3), 1)),
        "population_loss is a masked array",
    ),
    (
        dict(LOSS, loss=OnDevice()),
        r"loss cannot be read as an array. Of a tensor pass \.detach\(\)\.cpu\(\)\.numpy\(\)",
    ),
    (dict(LOSS, loss=CYCLE), "loss (cannot be read as an array|must be)"),
    (
        dict(LOSS, loss=[1.0, [2.0, 3.0]]),
        "loss cannot be read as an array. Its parts have different shapes: part 0 has .* part 1 "
        "has",
    ),
    (dict(LOSS, loss=["a", 1.0, 2.0, 3.0, 4.0, 5.0]), "loss must be numbers; its dtype is <U"),
    (
        dict(LOSS, loss=[None, 1.0, 2.0, 3.0, 4.0, 5.0]),
        r"loss must be numbers; at \[0\] it holds NoneType",
    ),
    (
        dict(LOSS, loss=np.arange(6).astype("datetime64[D]")),
        "loss must be numbers; its dtype is datetime64.* Dates are no scores",
    ),
    (
        dict(LOSS, loss=np.arange(6) * 1j),
        "loss must be numbers; its dtype is complex128. Pass the real part",
    ),
    (
        dict(LOSS, loss=np.zeros(6, "V2")),
        r"loss must be numbers; .* raw bytes each, as np.savez writes bfloat16 .* "
        r"\.astype\(np\.float32\)",
    ),
    (dict(LOSS, loss=(x for x in range(6))), "loss is a generator and must be an array"),
    (dict(LOSS, loss={"a": 1}), "loss is a dict and must be an array"),
    (dict(LOSS, loss=3.0), r"labels \[N\] or member \[N\]|loss has shape"),
    (
        dict(LOSS, loss=np.array([2**60, 2**60 + 1, 0, 1, 2, 3])),
        "loss has 6 different numbers of which float64 leaves 5; subtract their smallest",
    ),
    (
        dict(LOSS, loss=np.array([10**30, 1, 2, 3, 4, 5], object)),
        "loss holds whole numbers beyond 64 bits",
    ),
    (
        dict(LOSS, loss=np.arange(6) * 1e200),
        "loss holds numbers as large as 5e.200, whose squares float64 cannot hold: take logarithms",
    ),
    (dict(LOSS, labels=3), r"labels has shape \(\); expected \(6,\)"),
    (dict(LOSS, labels="cat"), "labels is a str and must be an array or a list of numbers: 'cat'"),
    (dict(LOSS, labels={"a": 1}), "labels is a dict"),
    (dict(LOSS, labels=iter([1, 2])), "labels is a list_iterator"),
    (dict(LOSS, labels=np.array([b"a"] * 6)), "labels are |S1; pass class numbers"),
    (dict(LOSS, labels=np.array([0, 1, 2, 3, 4, 2**40])), "label 1099511627776 is no class number"),
    (
        dict(LOSS, x=np.array([["a"]] * 6)),
        "x must be numbers; its dtype is <U1. Encode words as numbers, or pass them as "
        "column_<name>",
    ),
    (dict(LOSS, member=None), "member is a NoneType and must be an array"),
    (dict(LOSS, X=np.zeros((6, 2))), "unknown key 'X'. Did you mean 'x'"),
    (dict(LOSS, y=np.zeros(6)), "unknown key 'y'. Did you mean 'labels'"),
    (
        dict(LOSS, age=np.zeros(6)),
        "unknown key 'age'. A further column of the examples is column_age",
    ),
    ({**LOSS, 3: np.zeros(6)}, "unknown key 3"),
    (
        dict(LOSS, column_a=np.array([{}, 1, "b", 2, 3, 4], object)),
        r"column_a holds \{\} \(dict\); a column holds numbers, words or dates",
    ),
    (dict(LOSS, column_a=np.array([b"\xff"] * 6)), "column_a holds bytes that are not UTF-8 text"),
    (
        dict(LOSS, column_a=np.arange(6) * 1j),
        "column_a has dtype complex128; a column holds numbers, words or dates",
    ),
    (
        dict(LOSS, population_labels=np.zeros(3)),
        "population_loss is missing|population_labels is there and labels is not",
    ),
    (
        dict(LOGITS, probs=np.full((200, 4), 0.25)),
        "probs and logits are both given, and both say what the model answers; pass one of them",
    ),
    (dict(LOGITS, predictions=np.zeros(200)), "logits and predictions are both given"),
    (
        dict(LOGITS, loss=np.arange(200.0)),
        "loss contradicts logits: the loss of example .* is .* and logits and labels give .* "
        "score = -loss",
    ),
    (
        dict(
            predictions=np.arange(6.0),
            labels=np.zeros(6),
            loss=np.zeros(6),
            member=np.arange(6) % 2,
        ),
        "loss contradicts predictions: the loss of example 1",
    ),
    (
        dict(
            predictions=np.full(6, 1e140),
            labels=np.zeros(6),
            member=np.arange(6) % 2,
            population_labels=np.zeros(2),
        ),
        "population_predictions is mi",
    ),
]


@pytest.mark.parametrize("values, message", REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_array_of_numbers_is_refused_by_its_key(values, message):
    with pytest.raises(ValueError, match=message):
        mia_jax.audit(values, **QUICK)


def test_a_loss_may_be_supplied_with_the_answers_it_follows_from():
    z = LOGITS["logits"]
    loss = np.logaddexp.reduce(z, 1) - z[np.arange(200), LOGITS["labels"]]
    np.testing.assert_array_equal(
        supplied_arrays.build(dict(LOGITS, loss=loss.astype(np.float32))).signal["loss"][0, 0],
        loss.astype(np.float32),
    )
    assert "from_answers" not in supplied_arrays.build(dict(LOGITS, loss=loss)).signal


DAYS = np.arange(6).astype("datetime64[D]")
COLUMNS = {
    "dates": (DAYS, [str(d) for d in DAYS]),
    "a gap among dates": (
        np.array(["NaT", "2020-01-01"], "datetime64[D]"),
        ["missing", "2020-01-01"],
    ),
    "dates of Python": ([datetime.date(2020, 1, 1), None], ["2020-01-01", "missing"]),
    "bytes": (np.array([b"m", b"f\xc3\xa9"]), ["m", "fé"]),
    "words with None": (np.array(["m", None], object), ["m", "missing"]),
    "words with NaN": (np.array(["m", np.nan], object), ["m", "missing"]),
    "numbers with None": (np.array([1, None], object), [1.0, np.nan]),
    "words and numbers": (np.array(["m", 3, b"x"], object), ["m", "3", "x"]),
    "booleans": ([True, False], [True, False]),
    "bfloat16": (jnp.asarray([1.5, 2.0], jnp.bfloat16), [1.5, 2.0]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_a_table_become_words_or_numbers(kind):
    value, want = COLUMNS[kind]
    column = _arrays.column("column_a", _arrays.array("column_a", value))
    assert column.dtype.kind in "biufU" and str(column.tolist()) == str(want)


def test_columns_with_gaps_are_sliced():
    text = np.where(np.arange(400) % 7 == 0, None, np.array(["m", "f"] * 200, object))
    results = mia_jax.audit(
        loss=NORMAL - MEMBER,
        member=MEMBER,
        column_sex=text,
        column_day=DAYS[np.arange(400) % 6],
        slices="column:sex",
        **QUICK,
    )
    assert {row["slice"] for row in results.table} == {"all", "sex=f", "sex=m", "sex=missing"}


def test_a_regression_target_attacked_by_trained_shadows_may_have_float64_labels(tmp_path):
    """The labels of the data are rounded to the precision in which models are trained."""
    from mia_jax import registry
    from mia_jax.data import npz
    from mia_jax.external import target

    rng = np.random.default_rng(0)
    x, y, member = rng.normal(size=(40, 3)), rng.normal(size=40), np.arange(40) % 2 == 0
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.savez(tmp_path / "target.npz", predictions=y + 0.1, labels=y, member=member)
    pool = npz.load(path=str(tmp_path / "data.npz"), regression=True)
    design = registry.make(
        "designs", "bernoulli", dict(models=4, population=0.0), num_examples=40, seed=0
    )
    extended, signal = target.with_target(
        str(tmp_path / "target.npz"), design=design, pool=pool, views=1
    )
    assert extended.targets == (4,) and extended.member_MN[4].tolist() == member.tolist()
    np.testing.assert_allclose(signal["loss"][0, 0], 0.01, rtol=1e-9)


def test_names_of_attacks_may_come_from_an_array():
    results = mia_jax.audit(
        loss=NORMAL - MEMBER, member=MEMBER, attacks=np.array(["threshold_loss"]), **QUICK
    )
    assert (
        list(results.scores) == ["threshold_loss"]
        and type(next(iter(results.report["attacks"]))) is str
    )


def test_large_losses_are_kept_and_places_are_given_in_the_axes_of_the_user():
    """Losses near 1e39 stay finite; a NaN is located by its index in the supplied array."""
    member = np.random.default_rng(0).random((4, 60)) < 0.5
    loss = 1e39 * (1 + np.random.default_rng(1).random((4, 60)))
    results = mia_jax.audit(
        loss=loss[0], member=member[0], shadow_loss=loss[1:], shadow_member=member[1:], **QUICK
    )
    assert results.value("threshold_loss", "auc") == pytest.approx(
        roc_auc_score(member[0], -loss[0])
    )
    shadow = np.zeros((3, 60))
    shadow[2, 7] = np.nan
    with pytest.raises(
        ValueError,
        match=r"shadow_loss has 1 of 180 values that are NaN or infinite; the first is nan at \(2, "
        r"7\)",
    ):
        mia_jax.audit(
            loss=loss[0], member=member[0], shadow_loss=shadow, shadow_member=member[1:], **QUICK
        )
