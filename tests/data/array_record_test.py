"""Images that stay in array_record files: read in the order of files and records, decoded, hashed
once, and the same pool as a source in memory. Every bad input is a sentence.
"""

import io
import itertools
import struct
import sys

import numpy as np
import pytest

from mia_jax.data import _example, _pool, array_record, tfds
from mia_jax.runtime import digests
from mia_jax.runtime.rows import Rows
from mia_jax.training import fleet, stream
from mia_jax.types import Pool, classification
from tests import fashion_mnist, toys

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 4, 4, 3)).astype(np.uint8)
Y = np.arange(60) % 3


def png(pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, records) -> str:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return str(path)


def records(x=X, y=Y, *, start=0, made=lambda image: image.tobytes(), **features):
    return [
        _example.encoded(
            image=made(image),
            label=int(label),
            number=start + n,
            word=f"w{n % 2}",
            **features,
        )
        for n, (image, label) in enumerate(zip(x, y))
    ]


@pytest.fixture
def folder(tmp_path):
    """Two files of raw bytes in a folder, as TensorFlow Datasets names them."""
    place = tmp_path / "data"
    place.mkdir()
    for k, rows in enumerate((slice(0, 25), slice(25, 60))):
        part = records(X[rows], Y[rows], start=rows.start)
        write(place / f"own-train.array_record-0000{k}-of-00002", part)
    return place


def load(place, **fields) -> Pool:
    return array_record.load(**dict(files=str(place), shape=X.shape[1:]) | fields)


# ---- records ----


def test_examples_are_read_as_they_were_written():
    features = dict(a=b"\0\xff", b=[1, -2, 2**40, -(2**63)], c=[0.5, -1e30], d="word", e=True, f=[])
    record = _example.encoded(**features)
    known = _example.parsed(record)
    assert known == dict(a=[b"\0\xff"], b=features["b"], c=known["c"], d=[b"word"], e=[1], f=[])
    np.testing.assert_array_equal(known["c"], np.float32(features["c"]))
    assert _example.parsed(record, {"d"}) == dict(d=[b"word"])
    # By hand, with numbers that are not packed and a field of a later version (15, varint 1).
    value = b"\x1a\x04\x08\x05\x08\x07" + b"\x78\x01"
    other = b"\x12\x05\x0d" + struct.pack("<f", 0.25)
    entries = [b"\x0a\x01n\x12\x06" + value[:6], b"\x0a\x01w\x12\x07" + other]
    body = b"".join(b"\x0a" + bytes([len(entry)]) + entry for entry in entries)
    record = b"\x0a" + bytes([len(body)]) + body + b"\x78\x01"
    assert _example.parsed(record) == dict(n=[5, 7], w=[0.25])


def test_a_damaged_record_is_an_error_and_never_another_exception():
    record = records(X[:1], Y[:1])[0]
    rng = np.random.default_rng(0)
    damaged = [record[:k] for k in range(len(record))]
    for _ in range(500):
        changed = bytearray(record)
        changed[rng.integers(0, 40)] = rng.integers(0, 256)
        damaged.append(bytes(changed))
    refused = 0
    for text in damaged:
        try:
            _example.parsed(text)
        except ValueError as error:
            assert str(error) == "it is no tf.train.Example"
            refused += 1
    assert refused > 100


# ---- the pool ----


def test_rows_are_those_of_the_files_in_order_and_stay_bytes(folder):
    pool = load(folder, columns=("number", "word"))
    assert isinstance(pool.x, Rows) and pool.x.shape == X.shape and pool.x.dtype == np.float32
    assert pool.name == "own-train" and pool.num_classes == 3
    np.testing.assert_array_equal(pool.x[:], X / np.float32(255))
    np.testing.assert_array_equal(pool.y, Y)
    assert pool.columns["number"].tolist() == list(range(60))
    assert pool.columns["word"][:3].tolist() == ["w0", "w1", "w0"]
    none, square = np.zeros(0, int), np.array([[1, 2], [30, 1]])
    for index in (3, slice(20, 30), [59, 0, 24, 25, 0], Y == 1, square, none):
        np.testing.assert_array_equal(pool.x.stored[index], X[index])
    np.testing.assert_array_equal(pool.x.stored[[4, 2], ..., 1], X[[4, 2], ..., 1])
    first = load(f"{folder}/own-train*0-of*", scale=0.5, examples=20)
    np.testing.assert_array_equal(first.x[:], X[:20] * np.float32(0.5))
    turned = sorted(folder.iterdir(), reverse=True)
    other = load(folder, files=[str(file) for file in turned], population_files=[str(turned[0])])
    np.testing.assert_array_equal(other.x.stored[:35], X[25:])
    assert other.columns["population"].tolist() == [False] * 60 + [True] * 35


def test_encoded_images_are_the_same_pool(folder, tmp_path):
    raw = load(folder)
    made = load(write(tmp_path / "png.array_record", records(made=png)), shape=())
    memory = Pool(x=Rows(X, factor=1 / 255, by_row=True), y=Y, task=classification(3))
    assert len({_pool.content_hash(pool) for pool in (raw, made, memory)}) == 1
    assert _pool.duplicates(made) == _pool.duplicates(memory)


def test_few_files_are_open_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(array_record, "OPEN", 1)
    monkeypatch.setattr(array_record, "BLOCK", 200)  # several blocks of a few records
    pool = load(folder)
    rows = RNG.permutation(60)
    np.testing.assert_array_equal(pool.x.stored[rows], X[rows])


def test_labels_and_digests_are_computed_once_for_the_files(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "LEAST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read, parsed = [], _example.parsed
    monkeypatch.setattr(_example, "parsed", lambda *a: read.append(1) or parsed(*a))

    def known():
        read.clear()
        pool = load(folder)
        return _pool.content_hash(pool), _pool.duplicates(pool), len(read)

    first = known()
    assert first[2] == 2 * 60 and known() == (*first[:2], 0)
    file = sorted(folder.iterdir())[1]
    x = X[25:].copy()
    x[3] ^= 1
    write(file, records(x, Y[25:], start=25))
    changed = known()
    assert changed[0] != first[0] and changed[2] == 2 * 60


def test_files_that_change_while_they_are_used_are_a_sentence(folder, monkeypatch):
    monkeypatch.setattr(array_record, "OPEN", 1)
    pool = load(folder)
    file = sorted(folder.iterdir())[0]
    file.write_bytes(b"another file")
    with pytest.raises(ValueError, match=r"00000-of-00002 has changed while it was read; start"):
        pool.x[:1]
    file.unlink()
    with pytest.raises(ValueError, match=r"00000-of-00002 has changed while it was read; start"):
        pool.x[:1]


def test_parts_of_a_streamed_pool_hold_its_rows(folder):
    index_MSB = RNG.permutation(60).reshape(2, 6, 5)
    shapes = set()
    for pool, index, _ in stream.parts(
        pool=load(folder), index_MSB=index_MSB, weight_MSB=np.ones((2, 6, 5)), limit=2000
    ):
        shapes.add(pool.x.shape)
        assert isinstance(pool.x.stored, np.ndarray) and pool.x.stored.dtype == np.uint8
        for m, s in itertools.product(range(2), range(index.shape[1])):
            seen = pool.x[index[m, s]]
            assert any((seen == X[rows] / np.float32(255)).all() for rows in index_MSB[m])
    assert len(shapes) == 1


@pytest.mark.slow
def test_streamed_records_train_to_the_bits_of_float32(folder, tmp_path):
    rows, weight = toys.halves(60)
    common = dict(rows_MK=rows, weight_MK=weight, models=range(2), chunk=2, seed=0)
    learner = toys.learner(num_rows=30, epochs=2)
    memory = Pool(x=X / np.float32(255), y=Y.astype(np.int32), task=classification(3))
    for name, pool, limits in (
        ("memory", memory, {}),
        ("resident", load(folder), {}),
        ("streamed", load(folder), dict(pool_bytes=2000)),
    ):
        fleet.train(learner=learner, pool=pool, folder=tmp_path / name, **common, **limits)
    for file in sorted((tmp_path / "memory").rglob("[0-9]*.npz")):
        arrays = [np.load(tmp_path / name / file.name) for name in ("memory", "resident")]
        arrays.append(np.load(tmp_path / "streamed" / file.name))
        for key in arrays[0].files:
            if "__" not in key:
                assert len({a[key].tobytes() for a in arrays}) == 1, key


@pytest.mark.skipif(not fashion_mnist.available(), reason=fashion_mnist.REASON)
def test_files_that_tfds_prepared_are_its_data_set():
    place = fashion_mnist.prepared() / "fashion_mnist" / "3.0.1"
    ours = array_record.load(files=str(place / "*-test.array_record*"), examples=40)
    theirs = tfds.load(
        dataset="fashion_mnist", data_dir=str(place.parents[1]), splits="test", examples=40
    )
    np.testing.assert_array_equal(ours.x[:], theirs.x[:])
    np.testing.assert_array_equal(ours.y, theirs.y)


# ---- what is refused ----

ONE = records(X[:2], Y[:2])


@pytest.mark.parametrize(
    "content, fields, message",
    [
        (None, {}, r"files='.*data': the folder has no file with '.array_record' in its name"),
        ([], {}, "holds no records; leave it out"),
        (b"hello" * 100, {}, r"is no array_record file, or is damaged \(500 bytes\)"),
        ([b"no example"], {}, r"record 0 of .*: it is no tf.train.Example"),
        (ONE, dict(label_key="lable"), r"record 0 of .* has no feature 'lable'.*'label'"),
        (ONE, dict(image_key="word"), "are no PNG or JPEG, and shape=.* has 48"),
        (ONE, dict(label_key="word"), "'word' a bytes; an image is bytes, and a label one number"),
        (ONE, dict(image_key="label", shape=()), "the feature 'label' is a int"),
        (ONE, dict(shape=()), r"holds 48 bytes, which are no PNG or JPEG, and shape is not set"),
        (ONE, dict(examples=3), "examples=3 but the files have only 2 records"),
        (ONE, dict(scale=0.0), "scale=0.0 must lie between 1e-20 and 1e"),
        (ONE, dict(columns=("gone",)), r"record 0 of .* has no feature 'gone'"),
        (records(X[:2], Y[:2], many=[1, 2]), dict(columns=("many",)), "'many' has 2 values"),
        (records(X[:2], [0.5, 1]), dict(num_classes=1), "lies outside 0..0"),
        (
            [*records(X[:2], Y[:2], made=png), *records(X[:1, :2], Y[:1], made=png)],
            dict(shape=()),
            r"record 2 of .*: the image is uint8 \(2, 4, 3\), expected uint8 \(4, 4, 3\)",
        ),
        (
            [*records(X[:2], Y[:2], made=png), *records(X[:1], Y[:1], made=lambda _: b"\x89PNG")],
            dict(shape=()),
            r"record 2 of .*: the image cannot be decoded \(cannot identify",
        ),
    ],
)
def test_what_cannot_be_read_is_a_sentence(content, fields, message, tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    if isinstance(content, bytes):
        (place / "a.array_record").write_bytes(content)
    elif content is not None:
        write(place / "a.array_record", content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _pool.duplicates(load(place, **fields))


def test_missing_files_and_a_missing_package_are_sentences(folder, monkeypatch):
    for files in ("/nowhere/train-*", "gs://bucket/train.array_record"):
        with pytest.raises(FileNotFoundError, match=r"no file has this name\. Name a folder"):
            load(folder, files=files)
    with pytest.raises(FileNotFoundError, match="files is empty"):
        load(folder, files=())
    for name in ("array_record", "array_record.python"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r'needs array_record.*pip install "mia_jax\[tfds\]"'):
        load(folder)
