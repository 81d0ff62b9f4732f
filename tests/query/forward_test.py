"""Law 9: an example's signal is the same alone or in any batch, views are the same for all models,
and NaN stops the run.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import query_views, registry
from mia_jax.query import forward
from mia_jax.training import checkpoint
from mia_jax.types import Model, Pool, classification
from tests import toys

SIGNALS = {
    name: registry.make("signals", name) for name in ("loss", "rescaled_logit", "correct", "logits")
}


def fleet(folder, *, models=3, model=None, pool=None):
    """Untrained models on disk; returns (model, pool)."""
    model, pool = model or toys.mlp(), pool or toys.pool()
    for m in range(models):
        checkpoint.save_model(
            folder, m, jax.device_get(model.init(jax.random.key(m), pool.x[:1])), {}
        )
    return model, pool


def ask(tmp_path, model, pool, **fields):
    fields = (
        dict(
            signals=SIGNALS,
            views=query_views.make(("identity",)),
            models=[0, 1, 2],
            chunk=2,
            batch_size=16,
        )
        | fields
    )
    forward.query(
        model=model, pool=pool, models_folder=tmp_path, folder=tmp_path / "signal", **fields
    )
    return {
        name: forward.load(tmp_path / "signal", name, fields["models"])
        for name in fields["signals"]
    }


def test_signals_equal_a_plain_forward_pass(tmp_path):
    model, pool = fleet(tmp_path)
    value = ask(tmp_path, model, pool)
    assert (
        value["loss"].shape == (3, 1, 60)
        and value["logits"].shape == (3, 1, 60, 3)
        and value["loss"].dtype == np.float32
    )
    for m in range(3):
        out = np.asarray(
            model.apply(model.init(jax.random.key(m), pool.x[:1]), jnp.asarray(pool.x))[0],
            np.float64,
        )
        np.testing.assert_allclose(value["logits"][m, 0], out, atol=1e-5)
        np.testing.assert_allclose(
            value["loss"][m, 0], np.log(np.exp(out).sum(1)) - out[np.arange(60), pool.y], atol=1e-5
        )


def test_the_batch_does_not_matter(tmp_path):
    """The whole pool, the pool in another order, and one example at a time give the same
    answers.
    """
    model, pool = fleet(tmp_path / "a", model=toys.mlp(rate=0.5))
    whole = ask(tmp_path / "a", model, pool)
    order = np.random.default_rng(0).permutation(60)
    fleet(tmp_path / "b")
    shuffled = ask(
        tmp_path / "b", model, Pool(x=pool.x[order], y=pool.y[order], task=classification(3))
    )
    fleet(tmp_path / "c")
    alone = ask(tmp_path / "c", model, Pool(x=pool.x[7:8], y=pool.y[7:8], task=classification(3)))
    assert forward.segment_length(pool=pool, batch_size=16, limit=400) == 16
    fleet(tmp_path / "d")
    parts = ask(tmp_path / "d", model, pool, segment_bytes=400)
    for name in SIGNALS:
        assert np.array_equal(whole[name][:, :, order], shuffled[name]), name
        assert np.array_equal(whole[name][:, :, 7:8], alone[name]), name
        assert np.array_equal(whole[name], parts[name]), name


def test_inference_mode_is_what_is_asked(tmp_path):
    """A model that peeks at its batch in training mode is asked in inference mode, so its answers
    do not depend on the batch.
    """
    base = toys.mlp()

    def apply(variables, x, *, key_B=None, weight_B=None, train=False):
        out, stats = base.apply(variables, x)
        return out + (x.mean() if train else 0.0), stats

    peeking, pool = fleet(tmp_path, model=Model(base.init, apply, None))
    plain = ask(tmp_path, base, pool)
    again = ask(tmp_path / "again", *fleet(tmp_path / "again", model=peeking))
    assert toys.same(plain, again)


def test_views_are_asked_in_their_order(tmp_path):
    rng = np.random.default_rng(0)
    pool = Pool(
        x=rng.random((10, 4, 4, 1)).astype(np.float32),
        y=rng.integers(0, 3, 10).astype(np.int32),
        task=classification(3),
    )
    model, _ = fleet(tmp_path, pool=pool)
    value = ask(tmp_path, model, pool, views=query_views.make(("identity", "flip", "shift:1,0")))
    flipped = Pool(x=pool.x[:, :, ::-1].copy(), y=pool.y, task=classification(3))
    fleet(tmp_path / "flipped", pool=pool)
    assert value["loss"].shape == (3, 3, 10)
    np.testing.assert_allclose(
        value["loss"][:, 1], ask(tmp_path / "flipped", model, flipped)["loss"][:, 0], atol=1e-6
    )


def test_answers_are_asked_once_and_appended_for_new_models(tmp_path):
    model, pool = fleet(tmp_path)
    ask(tmp_path, model, pool, models=[0, 1])
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "signal").rglob("*.npy")}
    ask(tmp_path, model, pool)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    assert len(list((tmp_path / "signal").rglob("*.npy"))) == 3 * len(SIGNALS)


def test_nan_answers_stop_the_run_and_say_where(tmp_path):
    model, pool = fleet(tmp_path)
    variables = jax.device_get(model.init(jax.random.key(0), pool.x[:1]))
    variables["params"]["Dense_1"]["bias"] = np.full(3, np.nan, np.float32)
    checkpoint.save_model(tmp_path, 1, variables, {})
    with pytest.raises(
        ValueError,
        match=r"model 1 answers signal '.*' with NaN or infinity for view 0 of example 0",
    ):
        ask(tmp_path, model, pool)


def test_missing_and_damaged_signals_are_named(tmp_path):
    model, pool = fleet(tmp_path)
    ask(tmp_path, model, pool)
    path = forward.signal_file(tmp_path / "signal", "loss", 2)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"loss/00002.npy is damaged .*Delete it"):
        forward.load(tmp_path / "signal", "loss", [0, 1, 2])
    path.unlink()
    with pytest.raises(FileNotFoundError, match="stages_wanted=query"):
        forward.load(tmp_path / "signal", "loss", [0, 1, 2])
