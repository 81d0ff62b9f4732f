"""Law 9 for signals with questions of their own: the same answer alone or in any batch, asked once,
only where it is needed, and never lost.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import query_views, registry
from mia_jax.models import conv, mlp, small_cnn
from mia_jax.pipeline import build_attacks, validate
from mia_jax.pipeline.attack import asked_rows
from mia_jax.query import forward, interactive
from mia_jax.training import checkpoint
from mia_jax.types import Attack, Signal
from tests import toys


def noisy_margin(probe, x_B, y_B, key_B):
    """A value that depends on the example's own noise, and the queries it took."""
    noise = jax.vmap(lambda k: jax.random.normal(k, x_B.shape[1:]))(key_B)
    out_BC = probe.out(x_B + 0.1 * noise)
    return jnp.take_along_axis(out_BC, y_B[:, None], 1)[:, 0], jnp.full(len(x_B), 3)


SIGNALS = {
    "noisy": Signal(None, 1, noisy_margin, "outputs", 3),
    "labels": Signal(None, 1, lambda p, x, y, k: p.label(x) == y, "labels"),
}
EVERY = {name: np.ones((3, 60), bool) for name in SIGNALS}


def fleet(folder, models=3, pool=None):
    model, pool = toys.mlp(), pool or toys.pool()
    for m in range(models):
        checkpoint.save_model(
            folder, m, jax.device_get(model.init(jax.random.key(m), pool.x[:1])), {}
        )
    return dict(
        model=model,
        pool=pool,
        models_folder=folder,
        folder=folder / "signal",
        views=query_views.make(("identity",)),
    )


def ask(folder, rows=EVERY, **fields):
    common = fleet(folder, pool=fields.pop("pool", None))
    fields = (
        dict(signals=SIGNALS, models=[0, 1, 2], chunk=2, batch_size=16, seed=0, rows=rows)
        | common
        | fields
    )
    interactive.query(**fields)
    return {
        name: forward.load(folder / "signal", name, fields["models"]) for name in fields["signals"]
    }


def test_an_example_has_the_same_answer_alone_and_in_any_batch(tmp_path):
    whole = ask(tmp_path / "a")
    some = np.zeros((3, 60), bool)
    some[:, [7, 41]] = True
    alone = ask(tmp_path / "b", rows={name: some for name in SIGNALS})
    single = ask(tmp_path / "c", models=[1])
    for name in SIGNALS:
        assert whole[name].shape == (3, 1, 60)
        np.testing.assert_array_equal(alone[name][:, :, [7, 41]], whole[name][:, :, [7, 41]])
        assert np.isnan(np.delete(alone[name], [7, 41], 2)).all()
        np.testing.assert_array_equal(single[name][0], whole[name][1])
    reseeded = ask(tmp_path / "d", seed=1)
    assert (reseeded["noisy"] != whole["noisy"]).all() and (
        reseeded["labels"] == whole["labels"]
    ).all()


def test_rows_that_a_file_lacks_are_added_and_the_others_are_not_asked_again(tmp_path):
    half = np.zeros((3, 60), bool)
    half[:, ::2] = True
    ask(tmp_path, rows={name: half for name in SIGNALS})
    asked = []

    def spying(probe, x_B, y_B, key_B):
        jax.debug.callback(lambda x: asked.append(np.array(x)), x_B)
        return noisy_margin(probe, x_B, y_B, key_B)

    whole = ask(
        tmp_path, signals=SIGNALS | {"noisy": SIGNALS["noisy"]._replace(ask=spying)}, chunk=1
    )
    jax.effects_barrier()
    odd = {row.tobytes() for row in toys.pool().x[1::2].astype(np.float32)}
    assert len(asked) == 3 * 2 and {row.tobytes() for x in asked for row in x} == odd
    plain = ask(tmp_path / "whole")
    np.testing.assert_array_equal(whole["noisy"], plain["noisy"])


def test_what_was_asked_before_an_error_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(interactive, "SAVE_EVERY", -1.0)
    some = {name: np.ones((3, 60), bool) for name in SIGNALS}
    bad = toys.pool()
    bad.x[40] = np.nan
    with pytest.raises(
        ValueError, match="model 0 answers signal 'noisy' with NaN or infinity for example 40"
    ):
        ask(tmp_path, pool=bad, signals={"noisy": SIGNALS["noisy"]}, rows=some, models=[0], chunk=1)
    assert not interactive.signal_file(tmp_path / "signal", "noisy", 0).exists()
    kept = interactive.Answers(tmp_path / "signal", "noisy", 0, 60)
    assert kept.lacking(np.ones(60, bool)).sum() == 60 - 32
    answers = ask(tmp_path, signals={"noisy": SIGNALS["noisy"]}, rows=some, chunk=1)["noisy"]
    np.testing.assert_array_equal(
        answers, ask(tmp_path / "whole", signals={"noisy": SIGNALS["noisy"]}, chunk=1)["noisy"]
    )
    assert not list((tmp_path / "signal" / "noisy" / "partial").iterdir())


def test_queries_are_counted_beside_the_answers(tmp_path):
    ask(tmp_path)
    count_AN = np.load(interactive.count_file(tmp_path / "signal", "noisy", 2))
    assert count_AN.dtype == np.int32 and count_AN.shape == (1, 60) and (count_AN == 3).all()
    assert not interactive.count_file(tmp_path / "signal", "labels", 2).exists()


@pytest.mark.slow
def test_a_probe_offers_what_the_access_covers():
    model = conv.make(num_classes=3)
    x = jnp.ones((2, 12, 12, 1))
    variables = model.init(jax.random.key(0), x[:1])
    for access, out, inside in (
        ("labels", False, False),
        ("outputs", True, False),
        ("white_box", True, True),
    ):
        probe = interactive.probe_of(model, variables, signal=Signal(None, 1, noisy_margin, access))
        assert (probe.out is not None, probe.inside is not None) == (out, inside)
        assert probe.label(x).dtype == jnp.int32
    np.testing.assert_array_equal(probe.label(x), probe.out(x).argmax(-1))
    assert np.isfinite(jax.grad(lambda x: probe.out(x).sum())(x)).all()


@pytest.mark.parametrize("maker", [conv.make, small_cnn.make, mlp.make])
@pytest.mark.slow
def test_penultimate_is_what_enters_the_last_layer(maker):
    model = maker(num_classes=3)
    x = jax.random.uniform(jax.random.key(1), (2, 24, 24, 1))
    variables = model.init(jax.random.key(0), x[:1])
    inside = model.inside(variables, x)
    last = variables["params"][
        max((n for n in variables["params"] if n.startswith("Dense")), key=lambda n: int(n[6:]))
    ]
    np.testing.assert_allclose(
        inside["penultimate"] @ last["kernel"] + last["bias"][None],
        model.apply(variables, x)[0],
        rtol=1e-5,
        atol=1e-5,
    )
    assert set(inside) >= {"Dense_0", "penultimate"}


# ---- names with settings ----


def test_a_signal_with_settings_has_one_spelling_and_two_settings_have_two_files(tmp_path):
    same = functools.partial(registry.identity, "signals")
    assert (
        same("correct_under_shift")
        == same("correct_under_shift:d=1")
        == "correct_under_shift:d=1"
        == registry.spelled("correct_under_shift", d=1)
    )
    assert (
        same("loss") == "loss"
        and same("score") == "score"
        and same("loss_trajectory") == "loss_trajectory"
    )
    paths = {interactive.signal_file(tmp_path, f"correct_under_shift:d={d}", 0) for d in (1, 2)}
    assert len(paths) == 2 and registry.make("signals", "correct_under_shift:d=2").queries == 9
    refused = {
        "correct_under_shift:e=1": "has no field 'e'",
        "correct_under_shift:d=x": "correct_under_shift.d=x: it must be a whole number",
    }
    for wrong, text in refused.items():
        with pytest.raises(ValueError, match=text):
            registry.make("signals", wrong)


def test_rows_are_asked_where_an_attack_can_read_them():
    from mia_jax.designs import blocks

    design = blocks.make(num_examples=100, seed=0, size=10, sources=1, population=0.1)

    def rows_asked(*needs):
        attacks = (
            build_attacks.plan_attacks({"a": Attack(None, needs)}, dict(a={}), seed=0)
            if needs
            else ()
        )
        return asked_rows("correct_under_shift:d=1", attacks, design)

    np.testing.assert_array_equal(
        rows_asked("correct_under_shift", "shadow_own"), design.evaluated_MN
    )
    assert (
        rows_asked("correct_under_shift", "shadow_out")[:, :40].all()
        and rows_asked()[:, :40].all()
        and not rows_asked()[:, 40:].any()
    )
    assert rows_asked("correct_under_shift", "population")[:, 90:].all()


def test_images_are_asked_for_and_tables_are_refused():
    with pytest.raises(ValueError, match=r"needs images .*shape \(5,\)"):
        registry.make("signals", "correct_under_shift").check(np.zeros((1, 5)))
    registry.make("signals", "correct_under_shift").check(np.zeros((1, 5, 5, 1)))


def test_pool_rows_are_numbered_in_the_pool_of_the_audit():
    key = functools.partial(interactive.example_keys, seed=3, name="loss")
    np.testing.assert_array_equal(
        jax.random.key_data(key(index_B=[5, 9]))[1], jax.random.key_data(key(index_B=[9]))[0]
    )
    other = interactive.example_keys(seed=3, name="entropy", index_B=[9])
    assert (jax.random.key_data(other) != jax.random.key_data(key(index_B=[9]))).any()


def test_what_a_net_does_not_have_inside_is_refused_before_training():
    with pytest.raises(ValueError, match=r"layer_goodness.*model.name='forward_forward'"):
        validate.make_signals(["layer_goodness"], pool=toys.pool(), model=mlp.make(num_classes=3))
    assert list(
        validate.make_signals(["embedding"], pool=toys.pool(), model=mlp.make(num_classes=3))
    ) == ["embedding"]
    with pytest.raises(ValueError, match="'penultimate' is called 'embedding' now; use that name"):
        validate.make_signals(["penultimate"], pool=toys.pool(), model=mlp.make(num_classes=3))
