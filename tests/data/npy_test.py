"""A pool that stays in its file, as bytes, trains and is asked to the bits of the same pool in
float32; its rows are hashed once, and a file that was written again is noticed.
"""

import dataclasses

import jax
import numpy as np
import pytest

from mia_jax import configuration, query_views, registry
from mia_jax.data import _pool, npy, npz
from mia_jax.pipeline import run
from mia_jax.query import forward
from mia_jax.runtime import digests
from mia_jax.runtime.rows import Rows
from mia_jax.training import fleet, stream
from tests import toys

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 4, 4, 1)).astype(np.uint8)
Y = np.arange(60) % 3


@pytest.fixture
def folder(tmp_path):
    """A folder of bytes; the same arrays as an .npz lie beside it."""
    (tmp_path / "pool").mkdir()
    arrays = dict(x=X, y=Y, population=np.arange(60) >= 54)
    for name, array in arrays.items():
        np.save(tmp_path / "pool" / f"{name}.npy", array)
    np.savez(tmp_path / "pool.npz", **arrays)
    return tmp_path / "pool"


def pools(folder):
    return npy.load(folder=str(folder)), npz.load(path=str(folder.with_suffix(".npz")))


def mapped(array) -> bool:
    """Whether an array stays in its file."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def test_bytes_stay_in_their_file_and_are_the_pool_of_the_archive(folder):
    kept, whole = pools(folder)
    assert mapped(kept.x.stored) and kept.x.dtype == np.float32 and kept.x.shape == whole.x.shape
    np.testing.assert_array_equal(np.asarray(kept.x), whole.x)
    np.testing.assert_array_equal(kept.x[5:9], whole.x[5:9])
    assert (kept.x.min(), kept.x.max()) == (whole.x.min(), whole.x.max())
    assert stream.num_bytes(kept) == X.nbytes + 4 * 60
    assert kept.columns["population"].sum() == 6
    assert _pool.duplicates(kept) == _pool.duplicates(whole)


def test_bytes_train_and_answer_to_the_bits_of_float32(folder, tmp_path):
    """Streamed from the file, and asked in segments."""
    rows, weight = toys.halves(54)
    common = dict(rows_MK=rows, weight_MK=weight, models=range(2), chunk=2, seed=0)
    learner = toys.learner(num_rows=27, epochs=2)
    answers = []
    kept, whole = pools(folder)
    for name, pool, limits in (
        ("archive", whole, {}),
        ("streamed", kept, dict(pool_bytes=900)),
    ):
        fleet.train(learner=learner, pool=pool, folder=tmp_path / name, **common, **limits)
        forward.query(
            model=toys.mlp(),
            pool=pool,
            signals=dict(logits=registry.make("signals", "logits")),
            views=query_views.make(("identity", "flip")),
            models=range(2),
            models_folder=tmp_path / name,
            folder=tmp_path / name / "signal",
            batch_size=16,
            segment_bytes=900 if limits else 2**29,
        )
        answers.append(forward.load(tmp_path / name / "signal", "logits", range(2)))
    assert answers[0].tobytes() == answers[1].tobytes()


def test_bytes_are_standardized_where_they_are_used(folder):
    kept, whole = pools(folder)
    population_N = whole.columns["population"]
    expected = _pool.standardize(whole, population_N).x
    standardized = _pool.standardize(kept, population_N)
    np.testing.assert_allclose(np.asarray(standardized.x), expected, rtol=1e-5, atol=1e-5)
    assert standardized.x.stored is kept.x.stored
    assert _pool.content_hash(standardized) != _pool.content_hash(kept)


def test_rows_are_hashed_once_for_a_file_until_it_is_written_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "LEAST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hashed, compute = [], _pool._row_digests
    monkeypatch.setattr(_pool, "_row_digests", lambda *a: hashed.append(1) or compute(*a))

    def known():
        pool = npy.load(folder=str(folder))
        return _pool.duplicates(pool), _pool.content_hash(pool)

    first = known()
    assert known() == first and len(hashed) == 1
    x = X.copy()
    x[7, 0, 0, 0] ^= 1
    np.save(folder / "x.npy", x)
    assert known()[1] != first[1] and len(hashed) == 2
    next((tmp_path / "cache").rglob("*.npy")).write_bytes(b"damaged")
    np.save(folder / "x.npy", X)
    assert known() == first and len(hashed) == 3


def test_floats_and_tokens_are_mapped_and_other_dtypes_refused(folder, tmp_path):
    np.save(folder / "x.npy", X.astype(np.float32))
    pool = npy.load(folder=str(folder))
    assert mapped(pool.x) and not isinstance(pool.x, Rows)
    np.save(folder / "x.npy", X.reshape(60, 16).astype(np.int32))
    assert mapped(npy.load(folder=str(folder), vocabulary=256).x)
    with pytest.raises(ValueError, match=r"token \d+ in row \d+ lies outside 0..99"):
        npy.load(folder=str(folder), vocabulary=100)
    np.save(folder / "x.npy", X.astype(np.float64))
    with pytest.raises(
        ValueError, match=r"x\.npy holds float64\. Examples that stay on disk are uint8"
    ):
        npy.load(folder=str(folder))
    with pytest.raises(FileNotFoundError, match=r"an \.npz cannot stay on disk"):
        npy.load(folder=str(tmp_path / "none"))
    (folder / "x.npy").write_bytes(b"PK")
    with pytest.raises(ValueError, match="cannot be mapped"):
        npy.load(folder=str(folder))


def test_a_pool_that_was_written_again_is_refused_in_a_sentence(folder, tmp_path):
    config = configuration.complete(
        data=dict(name="npy", folder=str(folder)),
        design=dict(name="halves", models=4),
        model=dict(name="mlp", widths=()),
        learner=dict(epochs=1, batch_size=16),
        attacks=dict(loss=dict(name="threshold", signal="loss")),
        run=dict(chunk=4),
    )
    fields = dict(workdir_path=tmp_path / "w", stages_wanted=("train", "query"))
    run.run(config, **fields)
    kept = {p: p.read_bytes() for p in (tmp_path / "w").rglob("*.np?") if p.is_file()}
    run.run(config, **fields)
    x = X.copy()
    x[0] = 255 - x[0]
    np.save(folder / "x.npy", x)
    with pytest.raises(ValueError, match=r"the examples have changed since .*w was begun \(their"):
        run.run(config, **fields)
    assert kept == {p: p.read_bytes() for p in kept}


def test_parts_are_made_ahead_in_order_and_errors_come_in_their_place():
    used = []

    def use(item):
        if item == 3:
            raise ValueError("three")
        used.append(item)
        return -item

    items = stream.ahead(range(5), use)
    assert next(items) == 0 and next(items) == -1 and next(items) == -2
    with pytest.raises(ValueError, match="three"):
        next(items)
    assert used == [0, 1, 2]
    early = stream.ahead(range(5), lambda item: item)
    assert next(early) == 0
    early.close()


def test_rows_are_a_tree_with_what_is_stored_as_its_leaf():
    rows = Rows(X, factor=np.float32(1 / 255))
    placed = jax.device_put(rows)
    assert placed.stored.dtype == np.uint8 and len(jax.tree.leaves(rows)) == 1
    inside = jax.jit(lambda r, index: r[index])(placed, np.arange(3))
    np.testing.assert_array_equal(inside, rows[:3])
    other = dataclasses.replace(toys.pool(), x=rows.part(slice(0, 5)))
    assert other.x.shape == (5, 4, 4, 1)
