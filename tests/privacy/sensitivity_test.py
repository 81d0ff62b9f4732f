"""Tests that one example changes the clipped sum by no more than its bound, for any network.

Networks that mix examples are refused, or trained one example at a time.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import sensitivity
from benchmarks.sensitivity import CLIP, METHODS, NETS, ROWS
from mia_jax import registry
from mia_jax.learners import backprop
from mia_jax.objectives import cross_entropy
from mia_jax.privacy.independence import proof, trials
from mia_jax.types import Aux, Model, Pool, classification

REFUSED = [name for name, net in NETS.items() if net.kind == "refused"]
MEASURED = (
    "words",
    "dropout",
    "rounded",
    "chosen_by_a_mask",
    "far_gate",
    "summed_if_large_batch",
    "normalized_backwards",
)
PROVED = "data-flow analysis; "


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if i % 2 else ()) for i, n in enumerate(REFUSED)],
)
def test_a_net_that_trial_batches_show_to_mix_examples_is_refused(name):
    """The trials compare answers and know nothing of how a net mixes: half of the nets shows it."""
    with pytest.raises(
        ValueError, match=r"other examples of its batch|normalizes by batch statistics"
    ):
        sensitivity.built(name, "auto")


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("name", ["words_summed", "in_batch_negatives"])
def test_it_is_refused_by_every_method_and_the_place_is_named(name, method):
    with pytest.raises(
        ValueError, match=r"no example's gradient is its own.*model.norm='group'"
    ) as error:
        sensitivity.built(name, method)
    if method in ("tapped", "bookkeeping"):
        assert "meet in `" in str(error.value) and "sensitivity.py:" in str(error.value)


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.kind == "apart"])
def test_a_net_that_keeps_examples_apart_is_never_refused(name):
    net = NETS[name]
    learner = sensitivity.built(name, "auto")
    tapped = name not in (
        "raw_parameter",
        "chosen_by_a_mask",
        "adversarial",
    )  # the last asks its net several times
    assert learner.guarantee.method == ("bookkeeping" if tapped else "vmap"), (
        learner.guarantee.notes
    )
    assert any(PROVED in note for note in learner.guarantee.notes) is tapped
    if "tapped" in net.methods and tapped:
        assert sensitivity.built(name, "tapped").guarantee.method == "tapped"


@pytest.mark.parametrize("name", MEASURED)
def test_one_example_moves_the_sum_by_no_more_than_its_bound(name):
    line = sensitivity.line(name, "auto", draws=2)
    assert line.right and line.replaced > 1, (
        line
    )  # a replaced row moves the sum, or the test sees nothing


def test_the_measure_sees_what_mixing_does_to_an_unchecked_sum():
    """Applies the same measure to bookkeeping without any check."""
    for name, least in dict(words_summed=3, gate_on_mean=4, far_gate=4).items():
        assert sensitivity.changes(name, sensitivity.unchecked(name), draws=2)[0] > least, name


@pytest.mark.parametrize("name", ["far_gate", "summed_if_large_batch", "normalized_backwards"])
def test_where_the_analysis_cannot_decide_auto_takes_vmap_and_taps_are_refused(name):
    """No trial batch shows that these networks mix examples; with taps they would."""
    guarantee = sensitivity.built(name, "auto").guarantee
    assert guarantee.method == "vmap"
    assert any(
        "could not rule out that examples of a batch meet in `" in note
        and "By construction" in note
        for note in guarantee.notes
    )
    for method in ("tapped", "bookkeeping"):
        with pytest.raises(
            ValueError, match=r"it cannot be ruled out.*Use method='auto' or 'vmap'"
        ):
            sensitivity.built(name, method)


def hosted(h, *_):
    """Computes tanh on the host, whose derivative is also computed there."""

    def host(f, a):
        return jax.pure_callback(
            f, jax.ShapeDtypeStruct(a.shape, a.dtype), a, vmap_method="expand_dims"
        )

    tanh = jax.custom_vjp(lambda a: host(np.tanh, a))
    tanh.defvjp(
        lambda a: (host(np.tanh, a), a), lambda a, g: (g * (1 - jnp.square(host(np.tanh, a))),)
    )
    return tanh(h)


def test_an_operation_with_its_own_batching_is_computed_one_example_at_a_time(monkeypatch):
    """vmap passes all examples to the host together, which may mix them."""
    monkeypatch.setitem(NETS, "hosted", sensitivity.Net("apart", hosted))
    guarantee = sensitivity.built("hosted", "auto").guarantee
    assert guarantee.method == "scan"
    assert any(
        "meet in `pure_callback`" in note
        and "is trusted to keep the models of a fleet separate" in note
        for note in guarantee.notes
    )
    with pytest.raises(ValueError, match=r"pure_callback.*may mix examples. Use method='scan'"):
        sensitivity.built("hosted", "vmap")


def test_a_derivative_that_is_not_linear_in_its_cotangent_is_not_tapped():
    with pytest.raises(ValueError, match=r"linear in their cotangent.*custom_vjp.*'bookkeeping'"):
        sensitivity.built("rounded", "tapped")


SETTINGS = dict(
    users=dict(user="user", user_rows=2),
    augmentations=dict(augmentations=3),
    microbatches=dict(microbatch=2),
    parts=dict(physical_batch=8),
    per_layer=dict(clipping="per_layer"),
    automatic=dict(clipping="automatic"),
)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_setting_of_private_training_is_checked(settings):
    with pytest.raises(ValueError, match="other examples of its batch"):
        sensitivity.built("summed", "auto", **SETTINGS[settings])
    learner = sensitivity.built("attention", "auto", **SETTINGS[settings])
    rows = dict(augmentations=3 * ROWS, parts=8).get(settings, ROWS)
    assert any(
        f"a batch of {rows} rows" in note and PROVED in note for note in learner.guarantee.notes
    ), learner.guarantee.notes
    assert sensitivity.built(
        "summed_if_large_batch", "auto", **SETTINGS[settings]
    ).guarantee.method == ("bookkeeping" if rows == 8 else "vmap")


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", ["attention", "dropout", "far_gate", "normalized_backwards"])
def test_every_setting_keeps_its_bound(name, settings):
    privacy = SETTINGS[settings]
    learner = sensitivity.built(name, "auto", **privacy)
    replaced, removed = sensitivity.changes(name, sensitivity.stepped(learner, **privacy), draws=4)
    assert replaced <= 2 * (1 + sensitivity.SLACK)
    assert removed <= (2 if settings in ("users", "microbatches") else 1) * (
        1 + sensitivity.SLACK
    )  # the unit stays, with another mean


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_every_net_by_every_method(name, method):
    line = sensitivity.line(name, method, draws=4)
    assert line.right, line


def test_a_batch_of_another_size_than_the_plans_is_checked_when_it_is_traced():
    learner, pool = (
        sensitivity.built("summed_if_large_batch", "auto", physical_batch=8),
        sensitivity.setting("summed_if_large_batch")[2],
    )
    state = learner.init(jax.random.key(0), pool)
    jax.eval_shape(
        learner.epoch, state, pool, jnp.zeros((1, 32), int), jnp.ones((1, 32))
    )  # in parts of 8
    model, loss, _ = sensitivity.setting("summed_if_large_batch")
    common = dict(model=model, loss=loss, num_rows=ROWS, sample=pool, epochs=1, gradient="private")
    small = backprop.make(
        **common, batch_size=8, privacy=dict(sampling="shuffle", adjacency="zero_out")
    )
    assert small.guarantee.method == "bookkeeping"
    with pytest.raises(
        ValueError, match=r"in a batch of 32 rows, other than the plan's 8, examples may meet"
    ):
        jax.eval_shape(small.epoch, state, pool, jnp.zeros((1, 32), int), jnp.ones((1, 32)))


def test_the_guarantee_says_that_no_trial_batch_could_be_compared():
    model = sensitivity.setting("plain")[0]
    inner = cross_entropy.make(model=model)
    loss = lambda *args, **how: (inner(*args, **how)[0] + jnp.log(-1.0), Aux({}, {}))  # noqa: E731
    pool = sensitivity.setting("plain")[2]
    privacy = dict(sampling="shuffle", adjacency="zero_out")
    learner = backprop.make(
        model=model,
        loss=loss,
        num_rows=ROWS,
        sample=pool,
        epochs=1,
        batch_size=ROWS,
        gradient="private",
        privacy=privacy,
    )
    assert any(
        "trial batches could not be compared, because no loss of a trial batch is finite" in note
        for note in learner.guarantee.notes
    )


def test_a_learner_may_be_built_while_a_program_is_traced():
    def built(scale):
        learner = sensitivity.built("plain", "auto")
        assert any("15 trial batches agree" in note for note in learner.guarantee.notes), (
            learner.guarantee.notes
        )
        return scale

    jax.eval_shape(built, 1.0)


@pytest.mark.slow
def test_a_learner_may_be_built_where_nan_raises():
    with jax.debug_nans(True), jax.debug_infs(True), jax.disable_jit():
        assert sensitivity.built("words", "auto").guarantee.method == "bookkeeping"
        assert sensitivity.built("plain", "vmap").guarantee.method == "vmap"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint8, bool])
@pytest.mark.parametrize("examples", [1, 8])
def test_trial_batches_differ_for_inputs_of_every_type(dtype, examples):
    """A network that adds the mean of the batch is detected, even from a sample of one example."""
    x = (np.arange(examples * 6).reshape(examples, 6) % 5).astype(dtype)
    sample = Pool(x=x, y=np.zeros(examples, np.int32), task=classification(3))

    def apply(variables, x, **_):
        x = x.astype(jnp.float32) @ variables["params"]["w"]
        return x + mixing * x.mean(0, keepdims=True), {}

    model = Model(lambda key, x: dict(params=dict(w=jnp.zeros((6, 3)))), apply, lambda x: "")
    for mixing in (0.0, 1.0):
        if mixing == 0.0:
            model = model._replace(
                apply=lambda variables, x, **_: (
                    x.astype(jnp.float32) @ variables["params"]["w"],
                    {},
                )
            )
        trial = trials.tried(
            model=model, loss=cross_entropy.make(model=model), sample=sample, rounds=1
        )
        assert trial.mixes is bool(mixing) and not trial.unable
        model = model._replace(apply=apply)


def image_net(name, fields, shape=(28, 28, 1), batch=64):
    model = registry.make("models", name, dict(fields), num_classes=10)
    sample = Pool(x=jnp.zeros((1, *shape)), y=jnp.zeros(1, jnp.int32), task=classification(10))
    losses, params, rows = backprop.example_step(
        model=model, loss=cross_entropy.make(model=model), sample=sample, trainable=""
    )
    rows = jax.tree.map(lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), rows)
    return losses, params, rows


@pytest.mark.parametrize(
    "name, fields, batch",
    [
        ("small_cnn", {}, 100),
        ("tanh_cnn", {}, 512),
        ("lenet_bn", dict(norm="group"), 32),
        pytest.param("conv", {}, 64, marks=pytest.mark.slow),
        pytest.param("resnet18", dict(norm="group", resize=0), 32, marks=pytest.mark.slow),
        pytest.param("resnet18", dict(norm="layer", resize=0), 32, marks=pytest.mark.slow),
        pytest.param(
            "wide_resnet", dict(depth=10, width=1, norm="group"), 32, marks=pytest.mark.slow
        ),
    ],
)
def test_our_nets_are_proved_to_keep_examples_apart(name, fields, batch):
    """Uses batch sizes for which convolutions are computed in blocks."""
    losses, params, rows = image_net(
        name, fields, (32, 32, 3) if name == "conv" else (28, 28, 1), batch
    )
    assert proof.meeting(losses, params, rows, batch) == ""
    assert proof.meeting(losses, params, rows, batch // 2) == ""  # two rows a unit
    batch_rows, keys = rows

    def turned(params, taps, rows):
        return losses(params, taps, (dataclasses.replace(rows[0], x=rows[0].x[::-1]), rows[1]))

    assert proof.meeting(turned, params, (batch_rows, keys), batch) != ""


def test_the_clip_norm_binds_in_these_tests():
    model, _, pool = sensitivity.setting("plain")
    params = model.init(jax.random.key(0), pool.x)["params"]
    learner = sensitivity.built("plain", "auto")
    whole = np.asarray(sensitivity.stepped(learner)(params, pool, np.ones(ROWS, np.float32)))
    assert 0 < np.linalg.norm(whole) <= ROWS * CLIP
    _, sums = jax.jit(learner.epoch)(
        learner.init(jax.random.key(0), pool), pool, jnp.arange(ROWS)[None], jnp.ones((1, ROWS))
    )
    assert sums["clipped"] / sums["weight"] > 0.9
