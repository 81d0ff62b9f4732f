"""Which data a report may copy by default, and what it calls features and classes."""

import dataclasses

import numpy as np
import pytest

from mia_jax import registry
from mia_jax.configuration.settings import ReportSettings
from mia_jax.data import _pool, npz, tabular, tokens
from mia_jax.pipeline.numbers import may_copy
from mia_jax.types import Pool, Presentation, classification

PUBLIC = dict(digits={}, breast_cancer={}, xor={}, synthetic={}, linear={})


def read(name: str, folder):
    """A pool of a user's file."""
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6) % 2
    np.savez(folder / "own.npz", x=x.astype(int) if name == "tokens" else x, y=y)
    if name == "npz":
        return npz.load(path=str(folder / "own.npz"))
    if name == "tokens":
        return tokens.load(path=str(folder / "own.npz"), vocabulary=12)
    (folder / "own.csv").write_text("id,age,town,sick\n1,30,B,no\n2,31.5,A,yes\n3,29,B,yes\n")
    return tabular.load(path=str(folder / "own.csv"), label="sick", drop=("id",), one_hot=("town",))


@pytest.mark.parametrize("name", PUBLIC)
def test_data_that_everybody_has_are_copied_by_default(name):
    pool = registry.load("data", name).load(**PUBLIC[name])
    assert pool.presentation.public and may_copy(pool, ReportSettings())
    assert not may_copy(pool, ReportSettings(show_records="numbers"))


@pytest.mark.parametrize("name", ["npz", "tokens", "tabular"])
def test_files_of_a_user_are_copied_on_request_only(name, tmp_path):
    pool = read(name, tmp_path)
    assert not may_copy(pool, ReportSettings())
    assert may_copy(pool, ReportSettings(show_records="contents"))


def test_every_other_data_set_is_private():
    """A new one has to say that it is public."""
    assert not Presentation().public
    assert set(registry.names("data")) - set(PUBLIC) == {
        "npz",
        "npy",
        "tabular",
        "tokens",
        "idx",
        "array_record",
        "tfds",
    }


def test_columns_and_classes_keep_their_names(tmp_path):
    pool = read("tabular", tmp_path)
    assert pool.presentation.features == ("age", "town=A", "town=B")
    assert pool.x[1].tolist() == [31.5, 1, 0]
    assert pool.presentation.classes == ("no", "yes") and pool.y.tolist() == [0, 1, 1]
    (tmp_path / "bare.csv").write_text("1,30,0\n2,31,1\n3,29,1\n")
    bare = tabular.load(path=str(tmp_path / "bare.csv"), label=2, drop=(0,))
    assert bare.presentation == Presentation(features=("column 1",), classes=("0", "1"))
    cancer = registry.load("data", "breast_cancer").load().presentation
    assert cancer.features[0] == "mean radius" and cancer.classes == ("malignant", "benign")


def test_names_that_do_not_fit_are_refused():
    pool = Pool(x=np.zeros((4, 3)), y=np.arange(4) % 2, task=classification(2), name="own")
    for field, value in (("features", ("a",)), ("classes", ("a", "b", "c")), ("picture", (2, 2))):
        presentation = Presentation(**{field: value})
        with pytest.raises(ValueError, match=f"own: presentation.{field} is of"):
            _pool.checked(dataclasses.replace(pool, presentation=presentation))
