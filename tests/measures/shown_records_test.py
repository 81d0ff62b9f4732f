"""What is shown of exposed records: neighbors, answers and copies by hand, pictures read back, and
no content where only numbers may be shown.
"""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from mia_jax import types
from mia_jax.measures import exposed_records, shown_records
from mia_jax.metrics import multiple, power, records
from mia_jax.pipeline import measured
from mia_jax.runtime.rows import Rows
from mia_jax.types import Pool, Presentation, TargetRows

T, N = 4, 6
MEMBER = np.array([[1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 1, 0], [0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 1, 0]])
ROWS = TargetRows(
    targets=(2, 3, 5, 7),
    member_TN=MEMBER.astype(bool),
    evaluated_TN=np.ones((T, N), bool),
    unit_T=np.arange(T),
)
X = np.array([[0, 5, 1], [2, 5, 1], [0, 5, 1], [4, 5, 1], [4, 5, 2], [0, 5, 9]], np.float32)
Y = np.array([0, 1, 0, 1, 1, 0], np.int32)
SECRET = dict(features=("age <b>", "planet", "secret"), classes=("benign", "malignant"))


def pool_of(x=X, y=Y, task=None, columns=None, **presentation) -> Pool:
    columns = dict(id=np.array([f"person-{n}" for n in range(N)])) if columns is None else columns
    return Pool(
        x=x,
        y=y,
        columns=columns,
        task=task or types.classification(2),
        presentation=Presentation(**presentation),
    )


def answered(names):
    """Signals of models 2, 3, 5 and 7: value = model + record / 10, logits prefer class 1."""
    value = {m: m + np.arange(N) / 10 for m in ROWS.targets}
    of = {
        "correct": lambda m: (np.arange(N) < m).astype(float),
        "loss": lambda m: value[m],
        "logits": lambda m: np.stack(
            [np.zeros(N), np.where(MEMBER[ROWS.targets.index(m)], -1, 1)], -1
        ),
        "confidence": lambda m: value[m] / 10,
        "predictions": lambda m: value[m],
    }
    return dict(signal=lambda name, m: of[name](m), has=lambda name: name in names)


def measure(pool, chosen=(0, 3), names=("correct", "loss"), contents=True, cross_entropy=True):
    return shown_records.measure(
        chosen,
        pool=pool,
        rows=ROWS,
        contents=contents,
        cross_entropy=cross_entropy,
        **answered(names),
    )


def pixels(uri: str) -> np.ndarray:
    """The pixels of a data URI."""
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)))


def test_neighbors_answers_and_values_by_hand():
    """Row 5 is in no training set. Rows 0 to 4 have the mean (2, 5, 1.2) and the variances 3.2, 0
    and 0.16; row 2 equals row 0.
    """
    shown = measure(pool_of(**SECRET))
    assert shown.candidates == 5 and shown.distance == "euclidean"
    assert shown.typical == 2 and shown.near == 0.2  # two values that vary
    first, second = shown.cards
    assert [n.record for n in first.neighbors] == [2, 1, 3]
    assert [n.duplicate for n in first.neighbors] == ["identical", "", ""]
    assert first.neighbors[1].distance == pytest.approx(2 / np.sqrt(3.2))
    assert [n.record for n in second.neighbors] == [1, 0, 2]  # equal distances: the lower row first
    assert [n.record for n in measure(pool_of(), (4,)).cards[0].neighbors] == [3, 1, 0]
    assert shown.copies == 4  # rows 0, 3, 2, 1
    # models 2, 3 and 7 (not 5) were trained on row 0
    assert (first.trained.models, first.others.models) == (3, 1)
    assert (first.trained.correct, first.others.correct) == (3, 1)
    assert first.trained.loss == 4 and first.others.loss == 5
    assert first.trained.confidence == pytest.approx(np.mean(np.exp([-2.0, -3.0, -7.0])))
    assert second.trained.correct == 1 and second.others.correct == 1  # row 3: right if model > 3
    content = second.content
    assert content.label == "malignant" and content.id == "person-3" and content.picture is None
    assert [(f.name, f.value, f.z) for f in content.features] == [
        ("age <b>", 4.0, round(2 / np.sqrt(3.2), 2)),
        ("secret", 1.0, -0.5),
        ("planet", 5.0, 0.0),
    ]
    beside = second.neighbors[0].content
    assert [(f.name, f.value) for f in beside.features] == [
        ("age <b>", 2),
        ("secret", 1),
        ("planet", 5),
    ]
    assert shown.has_logits is False and first.trained.predicted is None


def test_what_was_not_measured_is_absent():
    card = measure(pool_of(), names=()).cards[0]
    assert measured.as_json(card.trained) == dict(models=3)
    supplied = measure(pool_of(), names=("loss",), cross_entropy=False).cards[0]
    assert supplied.trained.confidence is None and supplied.trained.loss == 4
    asked = measure(pool_of(), names=("loss", "confidence"), cross_entropy=False).cards[0]
    assert asked.trained.confidence == pytest.approx(0.4)


def test_predictions_are_those_of_most_models():
    shown = measure(pool_of(**SECRET), names=("logits",))
    answers = shown.cards[0]
    assert shown.has_logits
    assert (answers.trained.predicted, answers.trained.predicted_by) == ("benign", 3)
    assert (answers.others.predicted, answers.others.predicted_by) == ("malignant", 1)
    numbers = measure(
        pool_of(y=Y.astype(np.float32), task=types.regression()), names=("predictions",)
    )
    assert numbers.cards[0].trained.predicted == "4" and numbers.cards[0].content.label == "0"


def test_numbers_hold_nothing_of_the_data():
    """With 'numbers' the report is the same whatever names, ids and labels are, but for what models
    get right.
    """
    shown = measure(pool_of(**SECRET), names=("correct", "loss", "logits"), contents=False)
    text = json.dumps(measured.as_json(shown))
    assert shown.copies == 0 and "content" not in text and "predicted" not in text
    for secret in (*SECRET["features"], *SECRET["classes"], "person"):
        assert secret not in text
    other = pool_of(y=1 - Y, columns={}, classes=("a", "b"))
    assert measured.as_json(
        measure(other, names=("correct", "loss", "logits"), contents=False)
    ) == (json.loads(text))
    allowed = json.dumps(measured.as_json(measure(pool_of(**SECRET))))
    assert "person-3" in allowed and "malignant" in allowed


def test_tokens_are_compared_by_position():
    x = np.tile(np.arange(40, dtype=np.int32), (N, 1))
    x[2, :4] = 49
    x[4, :20] = 49
    shown = measure(pool_of(x=x, task=types.classification(2, vocabulary=50)))
    assert shown.distance == "tokens" and shown.near == 0.1
    near = shown.cards[0].neighbors
    assert [(n.record, n.distance, n.duplicate) for n in near] == [
        (1, 0, "identical"),
        (3, 0, "identical"),
        (2, 0.1, "near"),
    ]
    assert shown.cards[0].content.tokens == list(range(20))
    assert near[2].content.tokens[:5] == [49, 49, 49, 49, 4]


def test_without_examples_there_are_labels_and_ids_and_no_neighbors():
    shown = measure(pool_of(x=np.zeros((N, 0), np.float32)))
    assert shown.distance == "" and shown.cards[1].neighbors == [] and shown.copies == 2
    content = measured.as_json(shown.cards[1].content)
    assert content == dict(label="1", id="person-3", picture=None, features=None, tokens=None)


def test_names_of_10_000_characters_are_shortened():
    long = "n" * 10_000
    pool = pool_of(
        columns=dict(id=np.array([long] * N)), features=(long,) * 3, classes=(long, long)
    )
    assert len(json.dumps(measured.as_json(measure(pool, (0,))))) < 10_000


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_read_back(channels):
    """Rows of pixels, [H,W,C] and [C,H,W] give the same picture; a neighbor's is smaller."""
    x = np.random.default_rng(0).random((N, 40, 48, channels)).astype(np.float32)
    expected = np.round(255 * x[3].astype(np.float64)).astype(np.uint8)
    for given, presentation in (
        (x, {}),
        (np.moveaxis(x, -1, 1), {}),
        (x.reshape(N, -1), dict(picture=(40, 48, channels))),
    ):
        card = measure(pool_of(x=given, **presentation)).cards[1]
        assert np.array_equal(pixels(card.content.picture).reshape(expected.shape), expected)
        assert pixels(card.neighbors[0].content.picture).shape[:2] == (27, 32)
        assert card.content.features is None
    bytes_ = (255 * x).astype(np.float32)
    assert measure(pool_of(x=bytes_)).cards[1].content.picture == card.content.picture


def test_only_rows_that_are_needed_are_read():
    """A pool that is larger than the memory is never an array as a whole."""

    class Stored(Rows):
        def __array__(self, dtype=None, copy=None):
            raise AssertionError("all rows are read")

    bytes_ = np.random.default_rng(0).integers(0, 256, (N, 4, 5, 3)).astype(np.uint8)
    seen = measure(pool_of(x=Stored(bytes_, factor=1 / 255)))
    expected = measure(pool_of(x=bytes_ / np.float32(255)))
    assert measured.as_json(seen) == measured.as_json(expected)
    assert np.array_equal(pixels(seen.cards[1].content.picture), bytes_[3])


def test_large_pictures_are_averages_of_boxes():
    image = np.zeros((128, 64, 1))
    image[::2] = 1
    small = np.asarray(Image.open(io.BytesIO(shown_records.png(image, 64))))
    assert small.shape == (64, 32) and set(np.unique(small)) <= {127, 128}
    clipped = shown_records.png(np.array([[[-3.0], [0.0], [7.0]]]), 64, low=-1, high=1)
    assert np.asarray(Image.open(io.BytesIO(clipped))).tolist() == [[0, 128, 255]]


def test_at_most_20_records_are_shown_and_every_attack_has_its_first_ones():
    tables = {
        name: dict(listed=[dict(record=10 * a + i) for i in range(10)])
        for a, name in enumerate("abc")
    }
    chosen = shown_records.chosen(tables | dict(d=dict(why="refused")))
    assert chosen[:4] == [0, 10, 20, 1] and len(chosen) == 20
    assert set(chosen) == {*range(7), *range(10, 17), *range(20, 26)}
    assert shown_records.chosen(dict(a=dict(listed=[]))) == []
    assert measure(pool_of(), ()) is None


def family(p_KN):
    """Tables and arrays of attacks with these p-values of their records."""
    tables, arrays = {}, {}
    for name, p_N in p_KN.items():
        half = np.full(len(p_N), 0.9)
        arrays[name] = dict(
            p_N=p_N,
            q_N=multiple.benjamini_hochberg(p_N),
            auc_N=half,
            inside_N=np.full(len(p_N), 16),
            fold_T=np.arange(32) % 2,
            ranked_N=half - np.arange(len(p_N)) / 100,
            held_N=half,
            held_low_N=half - 0.1,
            held_high_N=half + 0.1,
        )
        tables[name] = dict(level=0.95) | exposed_records.significance(arrays[name], level=0.95)
    return tables, arrays


def test_attacks_are_tested_together():
    """0.03 alone is significant, but not as one of four tests; 0.001 is, in both."""
    tables, arrays = family(dict(a=np.array([0.03, 0.9]), b=np.array([0.5, 0.9])))
    assert [tables[name]["significant"] for name in "ab"] == [0, 0]
    tables, arrays = family(dict(a=np.array([0.02, 0.9]), b=np.array([0.5, 0.9])))
    assert [tables[name]["significant"] for name in "ab"] == [1, 0]
    joint, more = exposed_records.one_family(tables, arrays)
    assert [joint[name]["significant"] for name in "ab"] == [0, 0] and joint["a"]["listed"] == []
    assert more["a"]["q_N"].tolist() == pytest.approx([0.08, 0.9]) and joint["b"]["attacks"] == 2
    assert joint["a"]["alone"] > tables["a"]["alone"]
    tables, arrays = family(dict(a=np.array([0.001, np.nan]), b=np.array([0.001, 0.02])))
    joint, more = exposed_records.one_family(tables, arrays)
    assert [joint[name]["significant"] for name in "ab"] == [1, 2]
    assert [entry["record"] for entry in joint["b"]["listed"]] == [0, 1]
    one, _ = exposed_records.one_family(tables | dict(c=dict(why="x")), arrays | dict(b={}))
    assert one == tables | dict(c=dict(why="x"))


@pytest.mark.parametrize("targets, tested", [(32, 200), (64, 1600)])
def test_the_smallest_auc_of_a_single_record_is_detected_in_80_percent(targets, tested):
    """Counted with the very tests of the report, in one fold."""
    inside = targets // 4
    needed = 0.05 / tested
    auc = power.record_auc(inside, inside, p_needed=needed)
    shift = np.sqrt(2) * power.special.ndtri(auc)
    rng, detected = np.random.default_rng(5), []
    for _ in range(20):
        score = rng.normal(size=(2 * inside, 100))
        score[:inside] += shift
        inside_TN = np.zeros(score.shape, bool)
        inside_TN[:inside] = True
        won_N = records.pairs_above(score, inside_TN, ~inside_TN)
        detected.append(2 * records.p_values(won_N, np.full((2, 100), inside)) <= needed)
    assert np.mean(detected) == pytest.approx(0.8, abs=0.04)


def test_no_single_record_is_detected_by_few_models():
    assert power.record_auc(2, 2, p_needed=0.01) is None
    with_more = [power.record_auc(n, n, p_needed=1e-4) for n in (10, 16, 40)]
    assert with_more == sorted(with_more, reverse=True) and with_more[-1] < 0.8
