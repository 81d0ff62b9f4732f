"""Tests the data sources on tiny files, their errors, and what all pools share."""

import dataclasses
import gzip
import hashlib
import inspect
import struct

import numpy as np
import pytest

from mia_jax import registry
from mia_jax.data import _pool, breast_cancer, digits, idx, npz, synthetic, tabular
from mia_jax.runtime import digests
from mia_jax.training import stream
from mia_jax.types import Pool, classification


def toy(n: int = 6) -> Pool:
    x = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    return _pool.checked(Pool(x=x, y=np.arange(n) % 2, name="toy", task=classification(2)))


def change(pool: Pool, **fields) -> Pool:
    return dataclasses.replace(pool, **fields)


# --- sources without files


def test_digits():
    flat, image = digits.load(), digits.load(flat=False, examples=100)
    assert flat.x.shape == (1797, 64) and image.x.shape == (100, 8, 8, 1) and flat.num_classes == 10
    assert (
        flat.x.dtype == np.float32
        and flat.y.dtype == np.int32
        and flat.x.min() == 0
        and flat.x.max() == 1
    )
    np.testing.assert_array_equal(image.x.reshape(100, 64), flat.x[:100])
    with pytest.raises(ValueError, match="examples=1798 but the data has only 1797"):
        digits.load(examples=1798)


def test_breast_cancer():
    pool = breast_cancer.load()
    assert pool.x.shape == (569, 30) and np.bincount(pool.y).tolist() == [212, 357]


def test_synthetic():
    pool = synthetic.load(examples=90, features=5, classes=3, seed=1)
    assert pool.x.shape == (90, 5) and np.bincount(pool.y).tolist() == [30, 30, 30]
    assert _pool.content_hash(pool) == _pool.content_hash(
        synthetic.load(examples=90, features=5, classes=3, seed=1)
    )
    assert _pool.content_hash(pool) != _pool.content_hash(
        synthetic.load(examples=90, features=5, classes=3, seed=2)
    )
    image = synthetic.load(examples=10, shape=[4, 6, 3])
    assert image.x.shape == (10, 4, 6, 3) and 0 < image.x.min() and image.x.max() < 1
    for wrong in (
        dict(classes=1),
        dict(examples=1),
        dict(noise=-1.0),
        dict(shape=(3, 4)),
        dict(features=0),
    ):
        with pytest.raises(ValueError):
            synthetic.load(**wrong)


def test_synthetic_labels_follow_the_centers_unless_random():
    def agreement(**options) -> float:
        pool = synthetic.load(examples=2000, features=10, separation=6.0, **options)
        center = np.stack([pool.x[:1000][pool.y[:1000] == c].mean(0) for c in (0, 1)])
        distance = ((pool.x[1000:, None] - center) ** 2).sum(-1)
        return (distance.argmin(1) == pool.y[1000:]).mean()

    assert agreement() > 0.98 and abs(agreement(random_labels=True) - 0.5) < 0.07


# --- idx


def write_idx(folder, name: str, array: np.ndarray, zipped: bool = True) -> None:
    raw = (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )
    if zipped:
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
    else:
        (folder / name).write_bytes(raw)


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (9, 4, 3)), np.arange(9) % 3
    for i, (name, part) in enumerate(zip(idx.FILES, (x[:6], y[:6], x[6:], y[6:]))):
        write_idx(tmp_path, name, part, zipped=i % 2 == 0)
    return tmp_path, x, y


def test_idx(mnist):
    folder, x, y = mnist
    pool = idx.load(folder=str(folder))
    np.testing.assert_allclose(pool.x[..., 0] * 255, x, atol=1e-4)
    np.testing.assert_array_equal(pool.y, y)
    assert pool.x.shape == (9, 4, 3, 1) and pool.num_classes == 3 and pool.name == folder.name
    assert (
        idx.load(folder=str(folder), examples=2).x.shape == (2, 4, 3, 1)
        and idx.load(folder=str(folder), examples=2).num_classes == 3
    )
    with pytest.raises(ValueError, match="examples=10 but the data has only 9"):
        idx.load(folder=str(folder), examples=10)
    rest = idx.load(folder=str(folder), skip=5)
    np.testing.assert_array_equal(np.asarray(rest.x), np.asarray(pool.x)[5:])
    np.testing.assert_array_equal(idx.load(folder=str(folder), skip=5, examples=2).y, y[5:7])
    with pytest.raises(ValueError, match="examples=5 but the data has only 4"):
        idx.load(folder=str(folder), skip=5, examples=5)
    with pytest.raises(ValueError, match="skip=9 leaves out all of the 9 rows"):
        idx.load(folder=str(folder), skip=9)
    assert pool.x.stored.dtype == np.uint8 and stream.num_bytes(pool) == x.size + 4 * 9
    np.testing.assert_array_equal(pool.x[..., 0], x.astype(np.float32) / np.float32(255))


def test_bytes_in_memory_have_the_hash_of_the_same_pool_in_float32(mnist, tmp_path, monkeypatch):
    """So a workdir that was begun with float32 goes on; of large files the hash is kept."""
    monkeypatch.setattr(digests, "LEAST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hashed, compute = [], _pool._content_hash
    monkeypatch.setattr(
        _pool, "_content_hash", lambda parts: hashed.append(len(parts)) or compute(parts)
    )
    x = mnist[1].astype(np.uint8)
    fields = dict(y=[0, 1, 2] * 3, population_x=x[:3], population_y=[2, 2, 0])
    path = save(tmp_path, x=x, **fields)
    for load in (lambda: idx.load(folder=str(mnist[0])), lambda: npz.load(path=path)):
        pool = load()
        whole = change(pool, x=np.asarray(pool.x))
        assert isinstance(whole.x, np.ndarray) and whole.x.dtype == np.float32
        first = _pool.content_hash(pool)
        assert first == _pool.content_hash(whole)
        assert _pool.duplicates(pool) == _pool.duplicates(whole)
        marked_N = np.arange(len(pool.y)) % 2 == 0
        standard = [_pool.standardize(p, marked_N).x for p in (pool, whole)]
        assert standard[0].tobytes() == standard[1].tobytes()
        kept = [_pool.drop_duplicates(p) for p in (pool, whole)]
        assert len({_pool.content_hash(p) for p in kept}) == 1
        hashed.clear()
        assert _pool.content_hash(load()) == first and hashed == [2 - (whole.columns == {})]
        other = change(pool, y=(pool.y + 1) % 3)
        assert _pool.content_hash(other) != first
    save(tmp_path, x=255 - x, **fields)
    assert _pool.content_hash(npz.load(path=path)) != first


def test_idx_missing_files(mnist, tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"nowhere does not exist.*apt-get install "
        r"dataset-fashion-mnist.*/usr/share/datasets/fashion-mnist",
    ):
        idx.load(folder=str(tmp_path / "nowhere"))
    (mnist[0] / f"{idx.FILES[2]}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks t10k-images-idx3-ubyte.gz\. .*apt-get"):
        idx.load(folder=str(mnist[0]))


def test_idx_damaged_files(mnist):
    folder, x, _ = mnist
    file = folder / f"{idx.FILES[0]}.gz"
    whole = file.read_bytes()
    cases = {
        "is damaged": whole[: len(whole) // 2],
        "damaged: Not a gzipped file": b"hello",
        "not an MNIST-format file of rank 3: it starts with 00 00 08 01": gzip.compress(
            bytes((0, 0, 8, 1)) + bytes(40)
        ),
        "needs 12 bytes after the header; there are 11": gzip.compress(
            bytes((0, 0, 8, 3)) + struct.pack(">3I", 1, 4, 3) + bytes(11)
        ),
    }
    for message, raw in cases.items():
        file.write_bytes(raw)
        with pytest.raises(ValueError, match=message):
            idx.load(folder=str(folder))
    write_idx(folder, idx.FILES[0], x[:5])
    with pytest.raises(ValueError, match="train has 5 images but 6 labels"):
        idx.load(folder=str(folder))


# --- npz


def save(tmp_path, **arrays) -> str:
    np.savez(tmp_path / "own.npz", **arrays)
    return str(tmp_path / "own.npz")


def test_npz(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, 4, 4), dtype=np.uint8)
    pool = npz.load(
        path=save(tmp_path, x=x, y=[[0], [1], [2], [1], [0]], group=["a", "b", "a", "b", "a"])
    )
    np.testing.assert_allclose(pool.x[..., 0], x / 255, atol=1e-6)
    assert (
        pool.x.shape == (5, 4, 4, 1)
        and pool.y.tolist() == [0, 1, 2, 1, 0]
        and pool.num_classes == 3
        and pool.name == "own"
    )
    assert pool.columns["group"].tolist() == ["a", "b", "a", "b", "a"]
    assert (
        npz.load(path=save(tmp_path, x=x, y=np.eye(2)[[0, 1, 1, 0, 1]]), num_classes=4).num_classes
        == 4
    )
    table = npz.load(path=save(tmp_path, x=x.reshape(5, 16), y=[0, 1, 0, 1, 1]), scale=0.5)
    np.testing.assert_allclose(table.x, x.reshape(5, 16) * 0.5)


def test_npz_population(tmp_path):
    x, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    path = save(
        tmp_path,
        x=x,
        y=y,
        population_x=x[:3] + 20,
        population_y=y[:3],
        age=[1, 2, 3, 4],
        site=[5, 6, 7, 8],
        population_site=[9, 9, 8],
    )
    pool = npz.load(path=path)
    np.testing.assert_array_equal(pool.x, np.concatenate([x, x[:3] + 20]))
    assert (
        pool.columns["population"].tolist() == [False] * 4 + [True] * 3
        and pool.columns["population"].dtype == bool
    )
    assert pool.columns["age"].tolist() == [1, 2, 3, 4, 0, 0, 0] and pool.columns[
        "site"
    ].tolist() == [5, 6, 7, 8, 9, 9, 8]
    assert set(pool.columns) == {"population", "age", "site"}
    column = npz.load(path=save(tmp_path, x=x, y=y, population=[0, 0, 0, 1]))
    assert column.columns["population"].tolist() == [False, False, False, True]


def test_npz_regression(tmp_path):
    path = save(tmp_path, x=np.ones((3, 2)), y=[0.5, 1.0, 2.5])
    pool = npz.load(path=path, regression=True)
    assert (
        pool.num_classes == 0 and pool.y.dtype == np.float32 and pool.y.tolist() == [0.5, 1.0, 2.5]
    )
    with pytest.raises(
        ValueError, match=r"label 0.5 in row 0 is not a whole number.*regression=True"
    ):
        npz.load(path=path)


def test_npz_errors(tmp_path):
    x, y = np.ones((3, 2)), [0, 1, 0]
    image = np.zeros((3, 3, 8, 8))
    nan = np.ones((3, 2))
    nan[1, 1] = np.nan
    cases = [
        (dict(x=x), r"must hold the arrays x and y.*it has \['x'\]"),
        (dict(x=x, y=y, population_x=x), "both or none of population_x"),
        (dict(x=x, y=[0, 1]), r"y has shape \(2,\) but x has 3 rows"),
        (dict(x=x, y=[0, 0, 0]), "all 3 rows have label 0; a classifier needs at least 2 classes"),
        (dict(x=x, y=[0, -1, 1]), r"label -1 in row 1 lies outside 0\.\.1"),
        (dict(x=nan, y=y), r"own: x is nan in row 1 \(position \[1, 1\]"),
        (dict(x=x[:0], y=[]), "expected at least one example"),
        (
            dict(x=x, y=y, note=[1, 2]),
            r"array 'note' has shape \(2,\); a column needs one value for each of the 3 rows",
        ),
        (dict(x=x, y=y, population=[True] * 3), "all 3 rows are population rows"),
        (dict(x=x, y=y, population=[0, 1, 2]), "'population' must be boolean"),
        (dict(x=image, y=y), "looks like channels first"),
        (dict(x=np.moveaxis(image, 1, -1) + 7, y=y), "whole numbers up to 7.0; set scale=1/255"),
        (dict(x=x, y=np.ones((3, 2))), "not one-hot"),
        (dict(x=x, y=["a", "b", "a"]), "expected integer labels"),
        (dict(x=x, y=y, population_x=np.ones((2, 3)), population_y=[0, 1]), "do not fit x"),
        (dict(x=x, y=np.array([0, None, 1])), "no pickled objects"),
    ]
    for arrays, message in cases:
        with pytest.raises(ValueError, match=message):
            npz.load(path=save(tmp_path, **arrays))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz does not exist"):
        npz.load(path=str(tmp_path / "nowhere.npz"))
    np.save(tmp_path / "one.npy", x)
    (tmp_path / "words.npz").write_text("hello")
    for name in ("one.npy", "words.npz"):
        with pytest.raises(ValueError, match=r"cannot be read as an \.npz"):
            npz.load(path=str(tmp_path / name))


# --- tabular


def write(tmp_path, text: str, name: str = "table.csv") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_tabular_label_first_without_header(tmp_path):
    pool = tabular.load(path=write(tmp_path, "10,1,2.5\n1,3,4\n\n10,5,6\n2,7,8e1\n"), label=0)
    np.testing.assert_allclose(pool.x, [[1, 2.5], [3, 4], [5, 6], [7, 80]])
    assert (
        pool.y.tolist() == [2, 0, 2, 1]
        and pool.num_classes == 3
        and pool.name == "table"
        and pool.y.dtype == np.int32
    )


def test_tabular_header_names_words_and_drop(tmp_path):
    path = write(
        tmp_path, 'id,age,"hours, a week",income\nu1,30,40,<=50K\nu2,41,20,>50K\nu3,20,10,<=50K\n'
    )
    pool = tabular.load(path=path, label="income", drop=["id"])
    np.testing.assert_allclose(pool.x, [[30, 40], [41, 20], [20, 10]])
    assert pool.y.tolist() == [0, 1, 0] and pool.num_classes == 2
    by_index = tabular.load(path=path, label=-1, drop=[0], examples=2)
    np.testing.assert_array_equal(by_index.x, pool.x[:2])
    numeric_names = tabular.load(path=write(tmp_path, "0,1,label\n5,6,1\n7,8,2\n"), label="label")
    assert numeric_names.x.tolist() == [[5, 6], [7, 8]] and numeric_names.y.tolist() == [0, 1]


def test_tabular_other_files(tmp_path):
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(b"1;1;2\n2;3;4\n"))
    assert tabular.load(path=str(tmp_path / "table.csv.gz"), delimiter=";", label=0).x.tolist() == [
        [1, 2],
        [3, 4],
    ]
    features, answers = (
        write(tmp_path, "7,1,2\n8,3,4\n9,5,6\n"),
        write(tmp_path, "3\n1\n3\n", "labels"),
    )
    pool = tabular.load(path=features, label_path=answers, drop=(0,))
    assert pool.x.tolist() == [[1, 2], [3, 4], [5, 6]] and pool.y.tolist() == [1, 0, 1]
    np.savez(tmp_path / "two.npz", features=np.eye(3), labels=np.eye(2)[[0, 1, 1]])
    assert tabular.load(path=str(tmp_path / "two.npz")).y.tolist() == [0, 1, 1]
    np.savez(tmp_path / "one.npz", table=[[1.0, 2, 5], [3, 4, 7]])
    loaded = tabular.load(path=str(tmp_path / "one.npz"), label=-1)
    assert loaded.x.tolist() == [[1, 2], [3, 4]] and loaded.y.tolist() == [0, 1]


def test_tabular_large_label_numbers_stay_apart(tmp_path):
    assert tabular.load(
        path=write(tmp_path, "100000001,1\n100000002,2\n100000001,3\n"), label=0
    ).y.tolist() == [0, 1, 0]


def test_tabular_errors(tmp_path):
    cases = [
        (
            "a,b,y\n1,2,0\n1,?,1\n",
            dict(label="y"),
            r"in column 1 'b' \(1 cells, the first in line 3: '\?'\). Gaps \(b\): fill.* "
            r"data\.drop=b\.",
        ),
        (
            "0,1,2\n1,x,2\n",
            {},
            r"in column 1 \(1 cells, the first in line 2: 'x'\). Words: one column per value with "
            r"data\.one_hot=1\.",
        ),
        ("0,?,2\n1,1,2\n", {}, r"in column 1 \(1 cells, the first in line 1: '\?'\)"),
        ("0,1,2\n1,,2\n", {}, r"in column 1 \(1 cells, the first in line 2: ''\)"),
        ("0,1,2\n1,1\n", {}, "line 2: 2 cells, but 3 in the lines above"),
        ("0,1,2\n1,1,3,4\n", {}, "line 2: 4 cells, but 3 in the lines above"),
        ("0,1\n1,nan\n", {}, "table: x is nan in row 1"),
        ("a,b,y\n1,2,0\n1,3,1\n", dict(label="z"), r"no column 'z'. Columns: a, b, y"),
        ("0,1\n1,2\n", dict(label=2), "no column 2: it has 2"),
        ("0,1\n1,2\n", dict(label="y", header=False), "has no header"),
        ("a,b\n", dict(header=True), "rows of table.csv=1 must be at least 2"),
        ("", {}, "is empty"),
        ("0,1\n0,2\n", {}, "a classifier needs at least 2 classes"),
        ("0,1\n1,2\n", dict(examples=3), "examples=3 but the data has only 2"),
    ]
    for text, options, message in cases:
        with pytest.raises(ValueError, match=message):
            tabular.load(path=write(tmp_path, text), **(dict(label=0) | options))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tabular.load(path=str(tmp_path / "nowhere.csv"))
    with pytest.raises(ValueError, match=r"has 1 labels but .* has 2 rows"):
        tabular.load(
            path=write(tmp_path, "1,2\n3,4\n"), label_path=write(tmp_path, "1\n", "labels")
        )
    np.savez(tmp_path / "wrong.npz", a=np.ones(3), b=np.ones(3))
    with pytest.raises(ValueError, match=r"has the arrays \['a', 'b'\]; expected x and y"):
        tabular.load(path=str(tmp_path / "wrong.npz"))


MIXED = "age,sex,city,out\n30,m,Rome,yes\n41,f,Oslo,no\n20,m,Rome,yes\n,f,Bern,no\n"


def test_a_table_needs_a_label_and_lists_its_columns(tmp_path):
    """The label is never guessed: the first column of a table may well be an age."""
    with pytest.raises(
        ValueError,
        match=r"which column is the label\? Set data\.label .* Columns: 0 'age', 1 'sex', 2 "
        r"'city', 3 'out'\.",
    ):
        tabular.load(path=write(tmp_path, MIXED))
    with pytest.raises(
        ValueError, match=r"which column is the label\? .*Columns: 0\.\.2, without names"
    ):
        tabular.load(path=write(tmp_path, "1,2,3\n4,5,6\n"))
    np.savez(tmp_path / "one.npz", table=np.ones((3, 4)))
    with pytest.raises(
        ValueError, match=r"which column is the label\? Set data\.label to its number, 0\.\.3"
    ):
        tabular.load(path=str(tmp_path / "one.npz"))


def test_words_are_named_all_at_once_and_become_columns(tmp_path):
    message = (
        r"in column 0 'age' \(1 cells, the first in line 5: ''\); 1 'sex' \(4 cells, the first in "
        r"line 2: 'm'\); 2 'city' .*data\.one_hot=sex,city\. "
        r"Gaps \(age\): fill them in\. Or leave columns out: data\.drop=sex,city,age\."
    )
    with pytest.raises(ValueError, match=message):
        tabular.load(path=write(tmp_path, MIXED), label="out")
    pool = tabular.load(
        path=write(tmp_path, MIXED.replace(",f,Bern", "50,f,Bern")), label="out", one_hot=("sex", 2)
    )
    assert pool.x.tolist() == [
        [30, 0, 1, 0, 0, 1],
        [41, 1, 0, 0, 1, 0],
        [20, 0, 1, 0, 0, 1],
        [50, 1, 0, 1, 0, 0],
    ] and pool.y.tolist() == [1, 0, 1, 0]
    numbers = tabular.load(path=write(tmp_path, "0,10,5\n1,9,6\n0,10,7\n"), label=0, one_hot=1)
    assert numbers.x.tolist() == [[5, 0, 1], [6, 1, 0], [7, 0, 1]]
    with pytest.raises(ValueError, match=r"data\.one_hot: column 3 is the label or is dropped"):
        tabular.load(path=write(tmp_path, MIXED), label="out", one_hot="out")


def test_labels_that_are_no_classes_are_refused(tmp_path):
    real = "\n".join(f"{i + 0.5},{i % 7}" for i in range(60))
    with pytest.raises(
        ValueError,
        match=r"the label holds 60 different real numbers, which are no classes.* "
        r"data\.regression=True",
    ):
        tabular.load(path=write(tmp_path, real), label=0)
    names = "\n".join(f"u{i},{i % 7}" for i in range(60))
    with pytest.raises(
        ValueError,
        match=r"the label has 60 different values \(u0, u1, u10, \.\.\.\) in 60 rows, so it is "
        r"rather an identifier",
    ):
        tabular.load(path=write(tmp_path, names), label=0)


def test_tables_in_other_encodings_and_with_other_separators_are_named(tmp_path):
    path = tmp_path / "table.csv"
    cases = [
        (
            "label,a\nné,1\nà,2\n".encode("latin-1"),
            r"table\.csv is not UTF-8 \(byte 0xe9\): save it as UTF-8, for example with `iconv -f "
            r"latin1",
        ),
        (
            "label,a\n1,1\n".encode("utf-16"),
            r"table\.csv is UTF-16: save it as UTF-8, .*iconv -f utf-16",
        ),
        (b"PK\x03\x04\xff\xfe", "is an archive, such as Excel writes, and no csv"),
        (b"label;a\n1;2\n2;3\n", "seem to be separated by ';': data.delimiter=';'"),
        (b"label\ta\n1\t2\n2\t3\n", r"data.delimiter='\\t'"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            tabular.load(path=str(path), label="label")
    (tmp_path / "bad.csv.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(ValueError, match=r"bad\.csv\.gz cannot be read as a csv"):
        tabular.load(path=str(tmp_path / "bad.csv.gz"), label=0)


def test_numbers_that_models_cannot_distinguish_are_refused(tmp_path):
    """Networks get float32, in which rows with different identifiers would become equal."""
    ids, y = 100_100_037 + np.arange(200), np.arange(200) % 2
    np.savez(tmp_path / "ids.npz", x=np.stack([ids, np.zeros(200, int)], 1), y=y)
    table = write(tmp_path, "label,id\n" + "".join(f"{b},{a}\n" for a, b in zip(ids, y)))
    for load in (
        lambda: npz.load(path=str(tmp_path / "ids.npz")),
        lambda: tabular.load(path=table, label="label"),
    ):
        with pytest.raises(
            ValueError,
            match=r"rows 0 and 1 differ and become equal in float32.*feature 0: 100100037.* and "
            r"100100038.*identifier",
        ):
            load()
    pool = npz.load(
        path=save(tmp_path, x=np.stack([ids, np.arange(200)], 1), y=y)
    )  # another feature tells the rows apart
    assert _pool.duplicates(pool)["rows"] == 0
    rng = np.random.default_rng(0)
    assert len(npz.load(path=save(tmp_path, x=rng.normal(size=(200, 3)), y=y)).y) == 200
    with pytest.raises(
        ValueError,
        match=r"the targets lie around 1e\+09 with a spread of .*, which float32 cannot "
        r"resolve.*subtract their mean",
    ):
        npz.load(
            path=save(tmp_path, x=rng.normal(size=(200, 3)), y=1e9 + rng.normal(size=200)),
            regression=True,
        )


def test_supplied_rows_are_compared_in_their_own_digits():
    from mia_jax.external import arrays as supplied_arrays

    ids = 100_100_037 + np.arange(200)
    for x in (ids[:, None], ids[:, None] / 3, np.stack([ids, ids], 1)):
        arrays = dict(loss=np.arange(200.0), member=np.arange(200) % 2, x=x)
        pool = supplied_arrays.build(arrays).pool
        assert _pool.duplicates(pool) == dict(rows=0, groups=0, label_conflicts=0)
    x = np.repeat(ids[:100], 2)[:, None]
    assert (
        _pool.duplicates(
            supplied_arrays.build(dict(loss=np.arange(200.0), member=np.arange(200) % 2, x=x)).pool
        )["rows"]
        == 200
    )


def test_npz_takes_low_precision_words_and_dates(tmp_path):
    x, y = np.ones((3, 2)), [0, 1, 0]
    days = np.array(["2020-01-01", "NaT", "2020-01-02"], "datetime64[D]")
    pool = npz.load(
        path=save(
            tmp_path, x=x.astype(np.float16), y=y, day=days, site=np.array([b"a", b"b", b"a"])
        )
    )
    assert pool.columns["day"].tolist() == ["2020-01-01", "missing", "2020-01-02"] and pool.columns[
        "site"
    ].tolist() == ["a", "b", "a"]
    with pytest.raises(ValueError, match=r"has 'X' and no 'x'; did you mean 'x'"):
        npz.load(path=save(tmp_path, X=x, y=y))
    with pytest.raises(
        ValueError, match=r"x must be numbers; its dtype is \|V2.* as np\.savez writes bfloat16"
    ):
        npz.load(path=save(tmp_path, x=np.zeros((3, 2), "V2"), y=y))
    with pytest.raises(
        ValueError,
        match=r"expected integer labels \[N\]\. np\.unique\(y, return_inverse=True\)\[1\] makes "
        r"them",
    ):
        npz.load(path=save(tmp_path, x=x, y=["a", "b", "a"]))


# --- what all pools share


def test_checked_makes_arrays_contiguous_and_small():
    pool = _pool.checked(
        Pool(x=np.ones((4, 6))[:, ::2], y=np.array([0, 1, 1, 0], np.uint8), task=classification(2))
    )
    assert pool.x.dtype == np.float32 and pool.y.dtype == np.int32 and pool.x.flags.c_contiguous
    for bad in (np.inf, -np.inf, np.nan):
        x = np.ones((4, 3, 2), np.float32)
        x[2, 1, 0] = bad
        with pytest.raises(
            ValueError, match=r"toy: x is -?(inf|nan) in row 2 \(position \[2, 1, 0\]"
        ):
            _pool.checked(change(toy(4), x=x))
    for wrong in (
        dict(x=np.ones(6)),
        dict(y=np.zeros((6, 1))),
        dict(task=classification(1)),
        dict(columns=dict(a=np.ones(5))),
    ):
        with pytest.raises(ValueError, match="toy"):
            _pool.checked(change(toy(), **wrong))


def test_finite_check_finds_rows_behind_the_first_block(monkeypatch):
    monkeypatch.setattr(_pool, "_BLOCK", 16)
    x = toy().x.copy()
    x[5, 1] = np.nan
    with pytest.raises(ValueError, match=r"row 5 \(position \[5, 1\]"):
        _pool.checked(change(toy(), x=x))


def test_content_hash_is_stable_and_sensitive(monkeypatch):
    pool = toy()
    first = _pool.content_hash(pool)
    raw = (
        b"x[6, 2]<f4;"
        + np.arange(12, dtype="<f4").tobytes()
        + b"y[6]<i4;"
        + np.array([0, 1] * 3, "<i4").tobytes()
    )
    assert (
        first == hashlib.sha256(raw).hexdigest()[:16] == "47c4a6aacbeb3fcd"
    )  # must never change: it names pools on disk
    assert first == _pool.content_hash(change(pool, name="other", columns=dict(note=np.arange(6))))
    x, y = pool.x.copy(), pool.y.copy()
    x[-1, -1] = np.nextafter(x[-1, -1], 0)
    y[-1] = 1 - y[-1]
    population = np.arange(6) == 5
    changed = [
        dict(x=x),
        dict(y=y),
        dict(x=pool.x[::-1]),
        dict(x=pool.x.reshape(6, 2, 1)),
        dict(columns=dict(population=population)),
    ]
    assert len({first, *(_pool.content_hash(change(pool, **c)) for c in changed)}) == 6
    monkeypatch.setattr(_pool, "_BLOCK", 16)
    assert first == _pool.content_hash(pool)


def test_duplicates_by_hand():
    x = np.array([[0, 1], [2, 3], [0, 1], [4, 5], [2, 3], [-0.0, 1], [6, 7]], np.float32)
    pool = _pool.checked(Pool(x=x, y=[0, 1, 0, 1, 0, 0, 1], task=classification(2)))
    assert _pool.duplicates(pool) == dict(rows=5, groups=2, label_conflicts=1)
    member_N = np.array([1, 1, 1, 0, 0, 1, 0], bool)
    assert _pool.duplicates(pool, member_N) == dict(rows=5, groups=2, label_conflicts=1, crossing=1)
    assert _pool.duplicates(toy()) == dict(rows=0, groups=0, label_conflicts=0)
    with pytest.raises(ValueError, match=r"member_N has shape \(3,\)"):
        _pool.duplicates(pool, member_N[:3])
    kept = _pool.drop_duplicates(change(pool, columns=dict(a=np.arange(7))))
    assert (
        kept.columns["a"].tolist() == [0, 1, 3, 6]
        and kept.y.tolist() == [0, 1, 1, 1]
        and kept.x.tolist() == x[[0, 1, 3, 6]].tolist()
    )


def test_standardize_uses_population_rows_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 5, (40, 4)).astype(np.float32)
    x[:, 3] = 7
    population_N = np.arange(40) < 25
    pool = _pool.checked(Pool(x=x, y=np.arange(40) % 2, task=classification(2)))
    out = _pool.standardize(pool, population_N)
    np.testing.assert_allclose(out.x[:25, :3].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(out.x[:25, :3].std(0), 1, atol=1e-5)
    assert (out.x[:, 3] == 0).all() and out.x.dtype == np.float32
    x[25:] *= 100
    np.testing.assert_array_equal(
        _pool.standardize(change(pool, x=x), population_N).x[:25], out.x[:25]
    )
    for few in (np.zeros(40, bool), np.arange(40) == 0):
        with pytest.raises(ValueError, match=r"at least 2 population rows.*set design.population"):
            _pool.standardize(pool, few)


def test_standardize_images_per_channel():
    x = np.random.default_rng(0).random((10, 3, 3, 2), np.float32) * np.array([1, 5], np.float32)
    pool = _pool.checked(Pool(x=x, y=np.arange(10) % 2, task=classification(2)))
    out = _pool.standardize(pool, np.ones(10, bool)).x
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("name", registry.names("data"))
def test_every_source_takes_keywords_only_and_is_documented(name):
    source = registry.load("data", name)
    assert all(
        p.kind is inspect.Parameter.KEYWORD_ONLY for p in registry.keywords("data", name).values()
    )
    assert source.__doc__ and source.load.__doc__
