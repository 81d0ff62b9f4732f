"""Every model: shapes, parameter counts, batch independence, per-example dropout, and a fleet equal to its members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry

KEY = jax.random.key(0)
SMALL = dict(wide_resnet=dict(depth=10, width=1))
NAMES = registry.names("models")


def model(name, /, num_classes=5, **fields):
    return registry.make("models", name, dict(num_classes=num_classes, **fields))


def parameters(built, shape) -> int:
    variables = jax.eval_shape(built.init, KEY, jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    "name,fields,shape,count",
    [
        ("mlp", dict(num_classes=10), (1, 8, 8, 1), 19_210),
        ("mlp", dict(num_classes=3, widths=()), (1, 7), 7 * 3 + 3),
        ("mlp", dict(num_classes=3, widths=(4, 5)), (1, 7), 7 * 4 + 4 + 4 * 5 + 5 + 5 * 3 + 3),
        ("fc", dict(num_classes=100), (1, 600), 89_828),
        ("fc", dict(num_classes=100, depth=2), (1, 600), 89_828 + 128 * 128 + 128),
        ("conv", dict(num_classes=10), (1, 32, 32, 3), 1_250_858),
        ("conv", dict(num_classes=10, depth=2), (1, 32, 32, 3), 982_762),
        ("small_cnn", dict(num_classes=10, num_conv=2), (1, 32, 32, 3), 84_586),
        ("small_cnn", dict(num_classes=10), (1, 32, 32, 3), 28_298),
    ],
)
def test_parameter_counts(name, fields, shape, count):
    built = model(name, **fields)
    assert parameters(built, shape) == count
    assert built.summary(jnp.zeros(shape)).splitlines()[-1].split()[-1] == f"{count:,}"


def wide_resnet_parameters(depth, width, channels, classes):
    total, before = 9 * channels * 16, 16
    for features in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += 2 * before + 9 * before * features + 2 * features + 9 * features * features
            total += before * features if before != features else 0
            before = features
    return total + 2 * before + before * classes + classes


@pytest.mark.parametrize("depth,width,count", [(10, 1, None), (16, 4, 2_748_890), (28, 2, 1_467_610), (28, 10, 36_479_194)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_wide_resnet_parameter_counts(depth, width, count, norm):
    expected = wide_resnet_parameters(depth, width, 3, 10)
    assert count in (None, expected)
    assert parameters(model("wide_resnet", num_classes=10, depth=depth, width=width, norm=norm), (1, 32, 32, 3)) == expected


def test_conv_depth_two_has_eight_convolutions():
    for depth, number in ((1, 4), (2, 8)):
        params = jax.eval_shape(model("conv", depth=depth).init, KEY, jnp.zeros((1, 32, 32, 3)))["params"]
        assert sum(name.startswith("Conv_") for name in params) == number
        assert params["Dense_0"]["kernel"].shape[1] == 512


def test_summary_is_a_plain_table():
    assert model("mlp", num_classes=10).summary(jnp.zeros((2, 8, 8, 1))).splitlines() == [
        "layer    output     parameters",
        "(input)  [2,8,8,1]           0",
        "Dense_0  [2,256]        16,640",
        "Dense_1  [2,10]          2,570",
        "total    [2,10]         19,210",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_answered_alone_as_in_any_batch(name):
    built = model(name, **SMALL.get(name, {}))
    x = jax.random.uniform(KEY, (3, 24, 24, 3))
    variables = jax.jit(built.init)(KEY, x)
    assert set(variables) in ({"params"}, {"params", "stats"})
    if "stats" in variables:
        variables["stats"] = jax.tree.map(lambda s: s + 0.1, variables["stats"])
    apply = jax.jit(lambda x: built.apply(variables, x))
    out, stats = apply(x)
    assert out.shape == (3, 5) and out.dtype == jnp.float32 and np.isfinite(out).all()
    jax.tree.map(np.testing.assert_array_equal, stats, variables.get("stats", {}))
    for i in range(3):
        np.testing.assert_allclose(out[i], apply(x[i : i + 1])[0][0], atol=1e-5)
    np.testing.assert_allclose(out[::-1], apply(x[::-1])[0], atol=1e-5)


@pytest.mark.parametrize(
    "name,fields,shape", [("mlp", {}, (4, 8)), ("fc", {}, (4, 8)), ("conv", {}, (4, 12, 12, 1)), ("wide_resnet", dict(norm="group"), (4, 8, 8, 3))]
)
def test_dropout_is_per_example_and_off_at_inference(name, fields, shape):
    built = model(name, dropout=0.5, **SMALL.get(name, {}), **fields)
    x, keys = jnp.ones(shape), jax.random.split(KEY, 4)
    variables = jax.jit(built.init)(KEY, x)
    train = jax.jit(lambda x, keys: built.apply(variables, x, key_B=keys, train=True)[0])
    out = np.asarray(train(x, keys))
    assert len({row.tobytes() for row in out}) == 4
    np.testing.assert_allclose(train(x[:2], keys[2:]), out[2:], atol=1e-5)
    still = np.asarray(jax.jit(lambda x: built.apply(variables, x, key_B=keys)[0])(x))
    np.testing.assert_allclose(still, np.broadcast_to(still[:1], still.shape), atol=1e-5)
    assert np.abs(still - out).max() > 1e-3


def test_wide_resnet_trains_on_batch_statistics_of_real_rows():
    built = model("wide_resnet", **SMALL["wide_resnet"])
    x, weight = jax.random.normal(KEY, (4, 8, 8, 3)), jnp.array([1.0, 1, 1, 0])
    variables = jax.jit(built.init)(KEY, x)
    train = jax.jit(lambda x: built.apply(variables, x, weight_B=weight, train=True))
    out, stats = train(x)
    other, same = train(x.at[3].set(100.0))
    np.testing.assert_allclose(out[:3], other[:3], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stats, same)
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), stats, variables["stats"]))
    assert min(moved) > 0
    assert jax.tree.structure(stats) == jax.tree.structure(variables["stats"])
    assert not any(name == "stats" for name in jax.eval_shape(model("wide_resnet", norm="group", **SMALL["wide_resnet"]).init, KEY, x))


@pytest.mark.parametrize("name,shape", [("small_cnn", (4, 22, 22, 1)), ("wide_resnet", (4, 8, 8, 3))])
def test_a_fleet_is_its_members_and_form_changes_nothing(name, shape):
    x, y = jax.random.normal(KEY, shape), jnp.arange(4)
    fields = SMALL.get(name, {})

    def gradient(form):
        built = model(name, form=form, **fields)

        def of(variables):
            def loss(params):
                out, stats = built.apply({**variables, "params": params}, x, train=True)
                return -jnp.take_along_axis(jax.nn.log_softmax(out), y.reshape(-1, 1), 1).mean(), stats

            return jax.value_and_grad(loss, has_aux=True)(variables["params"])

        return of

    built = model(name, **fields)
    fleet = jax.jit(jax.vmap(lambda key: built.init(key, x)))(jax.random.split(KEY, 2))
    together = jax.jit(jax.vmap(gradient("auto")))(fleet)
    alone = [jax.jit(gradient(form)) for form in ("auto", "lax")[: 2 if name == "small_cnn" else 1]]
    for m in range(2):
        one = jax.tree.map(lambda a, m=m: a[m], fleet)
        for other in (f(one) for f in alone):
            jax.tree.map(lambda a, b, m=m: np.testing.assert_allclose(a[m], b, rtol=1e-4, atol=2e-5), together, other)


@pytest.mark.parametrize(
    "name,fields,message",
    [
        ("mlp", dict(activation="rleu"), "activation='rleu' is not one of .*Did you mean 'relu'"),
        ("mlp", dict(init="torch"), "init='torch' is not one of"),
        ("mlp", dict(widths=(4, 0)), "widths=0 must be at least 1"),
        ("mlp", dict(num_classes=0), "num_classes=0 must be at least 1"),
        ("fc", dict(dropout=1.0), r"dropout=1.0 must lie in \[0, 1\)"),
        ("conv", dict(depth=0), "depth=0 must be at least 1"),
        ("conv", dict(form="fast"), "form='fast' is not one of"),
        ("small_cnn", dict(num_convs=2), "no field 'num_convs'.*Did you mean 'num_conv'"),
        ("wide_resnet", dict(depth=20), "depth=20 is not 6n \\+ 4; allowed depths are 10, 16, 22, 28"),
        ("wide_resnet", dict(norm="layer"), "norm='layer' is not one of"),
    ],
)
def test_bad_fields(name, fields, message):
    with pytest.raises(ValueError, match=message):
        model(name, **fields)


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match=r"does not fit into images of 1x1.*larger images or fewer layers"):
        jax.eval_shape(model("small_cnn").init, KEY, jnp.zeros((1, 8, 8, 1)))
