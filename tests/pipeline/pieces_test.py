"""A stage that is interrupted continues from its finished pieces, to the same bytes."""

import functools
import time
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks import _disk
from mia_jax import configuration
from mia_jax.metrics import record_groups
from mia_jax.pipeline import pieces, report, run
from mia_jax.runtime import jobs, trees
from mia_jax.runtime.store import Store
from tests import toys


class Number(NamedTuple):
    value: float
    draws_R: np.ndarray


TREE = {
    ("pooled", "auc"): Number(0.1 + 0.2, np.arange(6.0).reshape(2, 3).T),
    (None, "tpr@0.01"): [Number(float("nan"), np.zeros((0, 3), np.float32)), True, None, "text"],
    3: (np.float64(0.1), np.int32(7), {}, [], (), float("-inf"), 10**20),
}


def same(a, b) -> bool:
    """Whether two trees have the same types, bits, keys in the same order, and layouts."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        flags = [(x.dtype, x.shape, x.flags.c_contiguous, x.flags.f_contiguous) for x in (a, b)]
        return flags[0] == flags[1] and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(map(str, a)) == list(map(str, b)) and all(map(same, a.values(), b.values()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)  # with all digits


def test_a_tree_comes_back_with_its_types_bits_order_and_layout(tmp_path):
    path = tmp_path / "piece.npz"
    trees.write(path, TREE, record=dict(pieces="a"), kinds=(Number,))
    back = trees.read(path, record=dict(pieces="a"), kinds=(Number,))
    assert same(TREE, back) and list(back) == list(TREE)
    with pytest.raises(ValueError, match="belongs to another place"):
        trees.read(path, record=dict(pieces="b"), kinds=(Number,))
    with pytest.raises(ValueError, match="is damaged"):
        trees.read(path, record=dict(pieces="a"))  # a kind that the reader does not expect


@pytest.mark.parametrize("value", [{1, 2}, np.array([object()]), Number(1.0, np.zeros(1))])
def test_what_has_no_form_is_refused(value, tmp_path):
    with pytest.raises(TypeError, match="has no form in a file"):
        trees.write(tmp_path / "piece.npz", [value], record={})


def test_arrays_have_the_layout_that_a_file_gives_them():
    strided = np.arange(24.0).reshape(4, 6)[:, ::2]
    value = trees.contiguous({"a": [Number(1.0, strided)]})["a"][0]
    assert value.draws_R.flags.c_contiguous and np.array_equal(value.draws_R, strided)


def test_pieces_are_computed_once_and_only_read_if_they_were_made_from_the_same(tmp_path):
    computed = []

    def stage(pause=lambda: None, **made_from):
        kept = pieces.Pieces(tmp_path / "pieces", made_from=made_from, kinds=(Number,), pause=pause)

        def compute(n):
            computed.append(n)
            return Number(float(n), np.full(3, n))

        return kept, [kept(f"part.{n}", lambda n=n: compute(n)).value for n in range(4)]

    with pytest.raises(jobs.Paused):
        stage(toys.Stop(2), seed=0)
    assert computed == [0, 1, 2] and len(list((tmp_path / "pieces").iterdir())) == 3
    (tmp_path / "pieces" / "part.1.npz").write_bytes(b"damaged")
    kept, values = stage(seed=0)
    assert computed == [0, 1, 2, 1, 3] and values == [0, 1, 2, 3]
    kept.discard()
    assert not (tmp_path / "pieces").exists()
    with pytest.raises(jobs.Paused):
        stage(toys.Stop(2), seed=0)
    stage(seed=1)
    assert computed[5:] == [0, 1, 2, 0, 1, 2, 3]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_pieces_are_computed_at_the_same_time_and_kept_in_order(workers, tmp_path):
    running, most = [], []

    def compute(n):
        running.append(n)
        most.append(len(running))
        time.sleep(0.02)
        running.remove(n)
        if n == 7:
            raise ValueError("attack 7 scores example 3 as NaN")
        return np.full(3, n)

    def stage(numbers, pause=lambda: None):
        kept = pieces.Pieces(tmp_path / "pieces", made_from={}, pause=pause, workers=workers)
        part = pieces.Named(kept, "part")
        return part.each({str(n): functools.partial(compute, n) for n in numbers})

    with pytest.raises(jobs.Paused):
        stage(range(6), toys.Stop(2))
    names = {f"part.{n}.npz" for n in range(3)}
    assert {path.name for path in (tmp_path / "pieces").iterdir()} == names
    assert [value.tolist() for value in stage(range(6))] == [[n] * 3 for n in range(6)]
    assert max(most) == workers
    with pytest.raises(ValueError, match="attack 7 scores example 3 as NaN"):
        stage(range(9))


def test_a_stage_that_is_interrupted_keeps_what_was_finished(tmp_path):
    """A signal raises Paused wherever the main thread is."""

    def interrupted():
        raise jobs.Paused

    kept = pieces.Pieces(tmp_path / "pieces", made_from={})
    assert kept("first", lambda: 1) == 1 and not (tmp_path / "pieces").exists()
    with pytest.raises(jobs.Paused):
        kept("second", interrupted)
    assert [path.name for path in (tmp_path / "pieces").iterdir()] == ["first.npz"]


def test_what_a_value_of_no_form_costs_is_that_it_is_computed_again(tmp_path):
    kept = pieces.Pieces(tmp_path / "pieces", made_from={}, pause=toys.Stop(0))
    with pytest.raises(jobs.Paused):
        kept("set", lambda: {1, 2})
    assert pieces.Pieces(tmp_path / "pieces", made_from={})("set", lambda: {1, 2}) == {1, 2}


def audited(**fields):
    """The config and the arrays of an audit of 12 models, whose attacks are rerun."""
    rng, member = np.random.default_rng(0), np.random.default_rng(1).uniform(size=(12, 60)) < 0.5
    loss = rng.exponential(size=member.shape) * np.where(member, 0.5, 1.0)
    config = configuration.scores(
        path="arrays",
        seed=0,
        attacks=dict(loss=dict(name="threshold", signal="loss"), lira=dict(signal="loss")),
        report=dict(draws=40, figures=False, jackknife=6, slices=("loss",)) | fields,
    )
    return config, dict(shadow_loss=loss.astype(np.float32), shadow_member=member)


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_audit_is_the_same_wherever_attack_and_report_were_paused(many, tmp_path, monkeypatch):
    """Every piece of the report has a form in a file, and none is left; also if several attacks of
    many records are measured at a time.
    """
    config, arrays = audited()
    if many:
        monkeypatch.setattr(record_groups, "EXACT", 50)
        monkeypatch.setattr(report, "workers", lambda targets, records: 2)

    def audit(folder, pause):
        with _disk.quiet():
            run.run(config, workdir_path=folder, arrays=arrays, pause=pause)

    counted = toys.Stop(10**9)
    audit(tmp_path / "whole", counted)
    whole, places = _disk.contents(tmp_path / "whole"), 10**9 - counted.left
    assert places >= 40 and not any("pieces" in name for name in whole)
    written = set()
    for place in (5, places - 25, places - 1):
        folder = tmp_path / f"{place}"
        with pytest.raises(jobs.Paused):
            audit(folder, toys.Stop(place))
        written |= {path.name for path in folder.rglob("pieces/*")}
        audit(folder, lambda: None)
        assert not _disk.differences(whole, _disk.contents(folder)), place
    parts = {name.split(".")[0] for name in written if not name[0].isdigit()}
    assert parts >= {"rerun", "intervals", "slices", "further", "differences", "records", "curves"}
    assert parts >= {"agreement", "identification", "shadow_curve", "assumptions", "queries"}
    assert any(name[0].isdigit() for name in written)  # of an attack that scores model by model
    assert "thresholds" in parts and ("sorted" in parts) == many
    if many:
        monkeypatch.setattr(report, "workers", lambda targets, records: 1)
        audit(tmp_path / "one", lambda: None)
        assert not _disk.differences(whole, _disk.contents(tmp_path / "one"))
    assert Store(tmp_path / "whole").report.json.exists()
