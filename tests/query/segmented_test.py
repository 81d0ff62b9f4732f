"""Answers that are computed segment by segment: the same bytes as at once, continued after a kill,
and nothing damaged or of another model is taken.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import query_views, registry
from mia_jax.query import forward
from mia_jax.runtime import files, jobs
from mia_jax.training import checkpoint
from tests import toys

SIGNALS = {name: registry.make("signals", name) for name in ("loss", "logits")}
N, BATCH = 60, 16  # a segment is one batch: 16, 16, 16 and 12 examples
FEW = 800  # bytes: the answers about less than two batches


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    """The arguments of a query of three models, with its compiled program."""
    folder, model, pool = tmp_path_factory.mktemp("models"), toys.mlp(), toys.pool(N)
    for m in range(3):
        variables = jax.device_get(model.init(jax.random.key(m), pool.x[:1]))
        checkpoint.save_model(folder, m, variables, {}, run="r")
    common = dict(model=model, signals=SIGNALS, views=query_views.make(("identity",)))
    ask = forward.program(task=pool.task, batch_size=BATCH, chunk=2, **common)
    return (
        common
        | dict(
            pool=pool, models=[0, 1, 2], models_folder=folder, chunk=2, batch_size=BATCH, run="r"
        )
        | dict(ask=ask, answer_bytes=FEW)
    )


def answered(folder) -> dict[str, bytes]:
    """Every file of the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def at_once(asking, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    forward.query(**asking | dict(folder=folder, answer_bytes=2**28))
    return answered(folder)


def paused_after(count):
    """A pause that comes before segment `count` (counted from 0, over all chunks)."""
    calls = iter(range(10**6))

    def pause():
        if next(calls) == count:
            raise jobs.Paused

    return pause


def test_segments_give_the_bytes_of_a_query_at_once(asking, at_once, tmp_path):
    forward.query(**asking, folder=tmp_path)
    assert answered(tmp_path) == at_once


@pytest.mark.parametrize("count", [1, 3])
def test_a_query_that_was_ended_asks_only_for_the_segments_that_are_lacking(
    asking, at_once, tmp_path, count
):
    asked = []

    def ask(variables, x, y):
        if not isinstance(x, jax.core.Tracer):
            asked.append(len(x))
        return asking["ask"](variables, x, y)

    fields = asking | dict(folder=tmp_path, ask=ask, devices=jax.local_devices()[:1])
    fields |= dict(models=[0, 1])
    with pytest.raises(jobs.Paused):
        forward.query(**fields, pause=paused_after(count))
    parts = sorted((tmp_path / "loss" / "partial").iterdir())
    assert len(parts) == 2 * count and not list((tmp_path / "loss").glob("*.npy"))
    assert parts[0].name == "00000.rows-0000000000-0000000016.npy"
    forward.query(**fields)
    assert asked == [BATCH] * 4, "no segment is asked twice"
    assert answered(tmp_path) == {k: v for k, v in at_once.items() if "00002" not in k}


def test_segments_of_a_finished_file_are_deleted(asking, at_once, tmp_path):
    """A process may be killed after it has written the file and before it deletes them."""
    fields = asking | dict(folder=tmp_path, models=[0, 1])
    with pytest.raises(jobs.Paused):
        forward.query(**fields, pause=paused_after(2))
    kept = answered(tmp_path)
    forward.query(**fields)
    for name, data in kept.items():
        (tmp_path / name).write_bytes(data)
    forward.query(**fields)
    assert answered(tmp_path) == {k: v for k, v in at_once.items() if "00002" not in k}


def test_a_damaged_segment_is_named_and_only_it_is_asked_again(asking, at_once, tmp_path):
    fields = asking | dict(folder=tmp_path, models=[0, 1])
    with pytest.raises(jobs.Paused):
        forward.query(**fields, pause=paused_after(3))
    path = tmp_path / "logits" / "partial" / "00001.rows-0000000016-0000000032.npy"
    data = bytearray(path.read_bytes())
    data[200] ^= 4
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"00001\.rows-0000000016-0000000032\.npy is damaged.*Delet"
    ):
        forward.query(**fields)
    path.unlink()
    forward.query(**fields)
    assert answered(tmp_path) == {k: v for k, v in at_once.items() if "00002" not in k}


def test_segments_of_another_model_are_asked_again(asking, at_once, tmp_path, capsys):
    fields = asking | dict(folder=tmp_path, models=[0, 1])
    with pytest.raises(jobs.Paused):
        forward.query(**fields, pause=paused_after(2))
    path = tmp_path / "loss" / "partial" / "00000.rows-0000000000-0000000016.npy"
    array, record = files.read_npy_and_record(path)
    files.write_npy(path, array + 1, record | dict(asked={"0": "another"}))
    forward.query(**fields)
    assert "holds answers of another model 0" in capsys.readouterr().err
    assert answered(tmp_path) == {k: v for k, v in at_once.items() if "00002" not in k}


def test_an_answer_that_is_not_finite_is_named_by_its_example_in_the_pool(asking, tmp_path):
    """Also in a later segment; the other model of the chunk is answered."""
    x = np.arange(N, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    pool, bad = dataclasses.replace(asking["pool"], x=x), {}
    for m in (0, 1):
        checkpoint.save_model(tmp_path, m, dict(params=np.full(1, m, np.float32)), {}, run="r")

    def apply(variables, x_B, *, train):
        nan = (x_B == 40) & (variables["params"] == 0)[None]
        return jnp.where(nan, jnp.nan, x_B), {}

    model = asking["model"]._replace(init=lambda *_: dict(params=jnp.zeros(1)), apply=apply)
    fields = asking | dict(model=model, pool=pool, models_folder=tmp_path, models=[0, 1])
    fields |= dict(signals=dict(logits=SIGNALS["logits"]), ask=None, folder=tmp_path / "a")
    forward.query(**fields, on_bad=bad.setdefault)
    assert list(bad) == [0] and "view 0 of example 40" in bad[0]
    assert list(answered(tmp_path / "a")) == ["logits/00001.npy"]
