"""report.json is `Measured`, key by key: what is written is what the dataclass says."""

import collections.abc
import dataclasses
import types
import typing

import numpy as np
import pytest

import mia_jax
from mia_jax import configuration
from mia_jax.pipeline import measured, run


def fits(value, hint) -> bool:
    """Whether a JSON value is of a type of the schema."""
    if hint is typing.Any:
        return True
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if kind is type(None):
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if issubclass(kind, collections.abc.Sequence) and kind is not str:
        return isinstance(value, list)
    if issubclass(kind, collections.abc.Mapping):
        return isinstance(value, dict)
    return isinstance(value, kind)


def check(value: dict, schema: dict, where: str = "report") -> None:
    """Compares an object of report.json with the schema of its class."""
    allowed = {name.removesuffix("?") for name in schema}
    needed = {name for name in schema if not name.endswith("?")}
    assert set(value) <= allowed, f"{where}: {set(value) - allowed} is not in the schema"
    assert needed <= set(value), f"{where}: {needed - set(value)} is missing"
    for name, hint in schema.items():
        key = name.removesuffix("?")
        if key not in value:
            continue
        check_value(value[key], hint, f"{where}.{key}")


def check_value(value, hint, where: str) -> None:
    """Compares a value with a schema: of an object, [of a list's objects], (of an object or null,)
    or a type.
    """
    if isinstance(hint, dict):
        check(value, hint, where)
    elif isinstance(hint, tuple):
        assert value is None or check_value(value, hint[0], where) is None
    elif isinstance(hint, list):
        assert isinstance(value, list), f"{where} is {value!r:.80}, not a list"
        for place, item in enumerate(value):
            check_value(item, hint[0], f"{where}[{place}]")
    else:
        assert fits(value, hint), f"{where} is {value!r:.80}, not {hint}"


def test_the_report_of_arrays_is_what_the_schema_says():
    rng = np.random.default_rng(0)
    member = np.arange(80) < 40
    results = mia_jax.audit(loss=rng.normal(size=80) - member, member=member, draws=40)
    check(results.report, measured.schema())


@pytest.mark.parametrize("design", ["halves", "folds"])
def test_the_report_of_a_trained_fleet_is_what_the_schema_says(design, tmp_path):
    size = dict(folds=3) if design == "folds" else dict(models=4)
    config = configuration.complete(
        data=dict(name="synthetic", examples=60, features=5, classes=3),
        design=dict(name=design, **size),
        model=dict(name="mlp", widths=(4,)),
        learner=dict(epochs=1, batch_size=20),
        attacks=dict(threshold_loss=dict(name="threshold", signal="loss")),
        report=dict(draws=40, figures=False),
        run=dict(chunk=2),
    )
    report = run.run(config, workdir_path=tmp_path)
    check(report, measured.schema())
    assert ("cross_validation" in report) == (design == "folds")


def test_a_key_that_the_schema_lacks_is_noticed():
    fields = dict.fromkeys((f.name for f in dataclasses.fields(measured.DesignNumbers)), 0)
    with pytest.raises(AssertionError, match="surplus"):
        check(fields | dict(surplus=1), measured.schema(measured.DesignNumbers))
    with pytest.raises(AssertionError, match="is missing"):
        check(dict(name="x"), measured.schema(measured.DesignNumbers))
