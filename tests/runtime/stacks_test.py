"""A Stack is the array that its parts make, whatever is done with it; it reads what is used."""

import pickle

import numpy as np
import pytest

from mia_jax.runtime import files
from mia_jax.runtime.stacks import Stack, Stored

RNG = np.random.default_rng(0)
PARTS = [RNG.random((2, 7, 3)).astype(np.float32) for _ in range(4)]
WHOLE = np.stack(PARTS)
SHOWN_MN = RNG.random((4, 7)) < 0.6
ROWS = np.array([5, 0, 0, 3])
KEYS = (
    2,
    -1,
    slice(1, 3),
    [0, 3],
    np.array([True, False, True, True]),
    (slice(None), 1),
    (slice(None), 0, slice(2, 5)),
    (slice(None), 0, ROWS),
    (slice(None), slice(None), ROWS),
    (slice(None), -1, -2),
    (slice(None), slice(0, 1)),
    (..., slice(1, 4), slice(None)),
    (..., 0, slice(None)),
    (..., -1),
    (..., 4, ROWS[:2] % 3),
    (slice(None), ROWS % 2, 1),
    ([1, 2], 0),
    ([1, 2], 0, 3),
    (1, slice(None), ROWS),  # NumPy moves the axis of the rows to the front
    (ROWS % 4, ROWS % 2),
    (slice(None), None, 0),
    (slice(0, 0), slice(None), ROWS),
)


def stack(parts=PARTS, **fields):
    return Stack(parts, **dict(shape=WHOLE.shape, dtype=np.float32) | fields)


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_an_index_gives_what_numpy_gives(key):
    same(stack()[key], WHOLE[key])
    hidden = np.where(SHOWN_MN[:, None, :, None], WHOLE, np.float32(np.nan))
    same(stack().hidden(SHOWN_MN)[key], hidden[key])


def test_a_mask_of_models_and_examples():
    same(stack()[:, 0][SHOWN_MN], WHOLE[:, 0][SHOWN_MN])


def test_it_is_an_array_for_numpy():
    for use in (np.mean, np.log, lambda a: 2 * a - a, lambda a: a.astype(np.float64).sum(1), list):
        same(use(stack()), use(WHOLE))
    assert stack().nbytes == WHOLE.nbytes and len(stack()) == 4 and stack().ndim == 4


def test_models_without_a_part_are_nan_and_masks_add_up():
    lacking = [PARTS[0], None, *PARTS[2:]]
    whole = WHOLE.copy()
    whole[1] = np.nan
    same(stack(lacking), whole)
    other_MN = SHOWN_MN[::-1]
    twice = stack(lacking).hidden(SHOWN_MN)[[3, 1, 0]].hidden(other_MN[[3, 1, 0]])
    shown = (SHOWN_MN & other_MN)[[3, 1, 0], None, :, None]
    same(twice[:, 1, ROWS], np.where(shown, whole[[3, 1, 0]], np.nan)[:, 1, ROWS])


def test_a_change_is_applied_to_what_is_read():
    offset_N = np.arange(7.0)

    def change(values, columns):
        return values.sum(-1) + offset_N[columns]

    changed = stack().changed(change, shape=(4, 2, 7), dtype=np.float64)
    whole = WHOLE.sum(-1).astype(np.float64) + offset_N
    for key in ((slice(None), 1, ROWS), (2,), (slice(None), 0), (slice(1, 3), slice(None), 4)):
        np.testing.assert_allclose(changed[key], whole[key], rtol=1e-6)
    np.testing.assert_allclose(
        changed.hidden(SHOWN_MN)[1, 0], np.where(SHOWN_MN[1], whole[1, 0], np.nan), rtol=1e-6
    )


def test_nothing_is_read_but_what_is_indexed():
    seen = []

    class Part(np.ndarray):
        """Notes which examples are read."""

        def __getitem__(self, key):
            if any(isinstance(k, slice) and k != slice(None) for k in key):
                seen.append(key)
            return super().__getitem__(key)

    lazy = stack([part.view(Part) for part in PARTS])
    views = lazy.hidden(SHOWN_MN)[[0, 2]][:, 1]
    assert isinstance(views, Stack) and views.shape == (2, 7, 3) and not seen
    assert views[:, 2:4].shape == (2, 2, 3)
    assert seen == [(slice(2, 4),)] * 2


def test_arrays_of_an_archive_stay_in_it_and_are_the_same(tmp_path):
    path, record = tmp_path / "scores.npz", dict(attack="lira")
    arrays = dict(large=WHOLE, turned=np.asfortranarray(WHOLE[0, :, :, 0]), small=ROWS[:2])
    files.write_npz(path, record, **arrays)
    kept = files.map_npz(path, record=record, least=170)
    assert [type(kept[name]) for name in arrays] == [Stored, Stored, np.ndarray]
    files.write_npz(path, record, small=ROWS)  # the arrays are those of the first file
    path.unlink()
    for name, array in arrays.items():
        found = kept[name]
        assert (found.shape, found.dtype, found.ndim) == (array.shape, array.dtype, array.ndim)
        assert (found.nbytes, len(found)) == (array.nbytes, len(array))
        np.testing.assert_array_equal(found, array)
        np.testing.assert_array_equal(found[[1, 0]], array[[1, 0]])
        np.testing.assert_array_equal(2 * found + 1, 2 * array + 1)
        np.testing.assert_array_equal(list(found), list(array))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)), array)
        assert found.mean() == array.mean() and (np.isnan(found) == np.isnan(array)).all()
        assert np.asarray(found, np.float64).dtype == np.float64
    assert files.digest(kept["large"]) == files.digest(WHOLE)
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(kept["large"])[0] = 0


def test_what_is_read_of_a_damaged_archive_is_what_is_mapped_of_it(tmp_path):
    """Every eleventh byte: an array that comes back is the one that was written."""
    path = tmp_path / "scores.npz"
    files.write_npz(path, {}, large=WHOLE)
    data, refused = path.read_bytes(), 0
    for place in range(0, len(data), 11):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            kept = files.map_npz(path, least=50)
        except ValueError as error:
            assert "is damaged" in str(error)
            refused += 1
            continue
        np.testing.assert_array_equal(kept["large"], WHOLE)
    assert refused > 0.8 * len(range(0, len(data), 11))
