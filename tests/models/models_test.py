"""Tests every model: shapes, parameter counts, batch independence and per-example dropout.

A fleet must equal its models trained separately.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.models import layers

KEY = jax.random.key(0)
# of the nets that are too large to run in a test: fields of a narrow one on the smallest images
SMALL = dict(
    wide_resnet=dict(depth=10, width=1),
    alexnet=dict(resize=65, divide=32),
    vgg=dict(resize=32, divide=32, hidden=16),
    nin=dict(resize=67, divide=32),
    googlenet=dict(resize=0, divide=16),
    resnet18=dict(resize=0, width=4),
)
NAMES = registry.names("models")


once = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # compiling is what a test pays for


def model(name, /, num_classes=5, **fields):
    return registry.make("models", name, dict(num_classes=num_classes, **fields))


def parameters(built, shape) -> int:
    variables = jax.eval_shape(built.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))
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
        ("tanh_cnn", dict(num_classes=10), (1, 28, 28, 1), 26_010),
        ("linear", dict(num_classes=10), (1, 28, 28, 1), 7_850),
        ("linear", dict(num_classes=1), (1, 2), 3),
        ("perceptron", dict(num_classes=2), (1, 2), 3),
        ("perceptron", dict(num_classes=4), (1, 2), 12),
        ("mlp", dict(num_classes=10), (1, 28, 28, 1), 203_530),
        (
            "mlp",
            dict(num_classes=10, widths=(256, 256), dropout=(0.2, 0.5)),
            (1, 28, 28, 1),
            269_322,
        ),
        ("mlp", dict(num_classes=1, widths=(4,)), (1, 7), 37),
        ("lenet", dict(num_classes=10), (1, 28, 28, 1), 61_706),
        ("lenet_bn", dict(num_classes=10), (1, 28, 28, 1), 44_878),
        ("lenet_bn", dict(num_classes=10, norm="group"), (1, 28, 28, 1), 44_878),
        ("lenet_bn", dict(num_classes=10, norm="layer"), (1, 28, 28, 1), 44_878),
        ("lenet_bn", dict(num_classes=10, norm="none"), (1, 28, 28, 1), 44_426),
        ("alexnet", dict(num_classes=10), (1, 28, 28, 1), 46_764_746),
        ("alexnet", dict(num_classes=10, resize=65), (1, 28, 28, 1), 21_598_922),
        ("vgg", dict(num_classes=10, divide=1), (1, 28, 28, 1), 128_806_154),
        ("vgg", dict(num_classes=10), (1, 28, 28, 1), 43_093_322),
        ("vgg", dict(num_classes=10, divide=1, resize=32), (1, 28, 28, 1), 28_142_858),
        ("vgg", dict(num_classes=10, resize=0), (1, 32, 32, 1), 17_927_498),
        ("vgg", dict(num_classes=1000, depth=16, divide=1), (1, 224, 224, 3), 138_357_544),
        ("nin", dict(num_classes=10), (1, 28, 28, 1), 1_992_166),
        ("nin", dict(num_classes=10, resize=67), (1, 28, 28, 1), 1_992_166),
        ("googlenet", dict(num_classes=10), (1, 28, 28, 1), 5_977_530),
        ("googlenet", dict(num_classes=10, resize=0), (1, 28, 28, 1), 5_977_530),
        ("resnet18", dict(num_classes=10), (1, 28, 28, 1), 11_178_378),
        ("resnet18", dict(num_classes=10, norm="group", resize=0), (1, 28, 28, 1), 11_178_378),
        ("resnet18", dict(num_classes=10, norm="layer", resize=0), (1, 28, 28, 1), 11_178_378),
        ("resnet18", dict(num_classes=10, norm="none", resize=0), (1, 28, 28, 1), 11_170_570),
    ],
)
def test_parameter_counts(name, fields, shape, count):
    built = model(name, **fields)
    assert parameters(built, shape) == count
    if count < 2e6:
        assert built.summary(jnp.zeros(shape)).splitlines()[-1].split()[-1] == f"{count:,}"


def sizes(built, shape) -> list[tuple]:
    """Returns (height, features) of the output of every convolution, from the summary."""
    table = [
        line.split()[:2]
        for line in built.summary(jax.ShapeDtypeStruct(shape, jnp.float32)).splitlines()
    ]
    return [
        tuple(map(int, out.strip("[]").split(",")[2:])) for path, out in table if "Conv_" in path
    ]


@pytest.mark.parametrize(
    "name,fields,expected",
    [
        ("lenet", {}, [(28, 6), (10, 16)]),
        ("lenet_bn", {}, [(24, 6), (8, 16)]),
        ("alexnet", {}, [(54, 96), (26, 256), (12, 384), (12, 384), (12, 256)]),
        ("alexnet", dict(resize=65), [(15, 96), (7, 256), (3, 384), (3, 384), (3, 256)]),
        (
            "vgg",
            dict(divide=1),
            [(224, 64), (112, 128), *[(56, 256)] * 2, *[(28, 512)] * 2, *[(14, 512)] * 2],
        ),
        (
            "vgg",
            dict(resize=32),
            [(32, 16), (16, 32), *[(8, 64)] * 2, *[(4, 128)] * 2, *[(2, 128)] * 2],
        ),
        ("nin", {}, [*[(54, 96)] * 3, *[(26, 256)] * 3, *[(12, 384)] * 3, *[(5, 10)] * 3]),
        (
            "nin",
            dict(resize=67),
            [*[(15, 96)] * 3, *[(7, 256)] * 3, *[(3, 384)] * 3, *[(1, 10)] * 3],
        ),
        (
            "resnet18",
            {},
            [(48, 64), *[(24, 64)] * 4, *[(12, 128)] * 5, *[(6, 256)] * 5, *[(3, 512)] * 5],
        ),
        (
            "resnet18",
            dict(resize=0),
            [(14, 64), *[(7, 64)] * 4, *[(4, 128)] * 5, *[(2, 256)] * 5, *[(1, 512)] * 5],
        ),
    ],
)
def test_sizes_of_the_convolutions(name, fields, expected):
    assert sizes(model(name, num_classes=10, **fields), (1, 28, 28, 1)) == expected


def test_googlenet_sizes_and_features():
    shapes = sizes(model("googlenet"), (1, 28, 28, 1))
    assert shapes[:3] == [(48, 64), (24, 64), (24, 192)] and len(shapes) == 3 + 9 * 6
    blocks = [shapes[i : i + 6] for i in range(3, len(shapes), 6)]
    assert [block[0][0] for block in blocks] == [12] * 2 + [6] * 5 + [3] * 2
    assert [sum(block[i][1] for i in (0, 2, 4, 5)) for block in blocks] == [
        256,
        480,
        512,
        512,
        512,
        528,
        832,
        832,
        1024,
    ]


def wide_resnet_parameters(depth, width, channels, classes):
    total, before = 9 * channels * 16, 16
    for features in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += 2 * before + 9 * before * features + 2 * features + 9 * features * features
            total += before * features if before != features else 0
            before = features
    return total + 2 * before + before * classes + classes


@pytest.mark.parametrize(
    "depth,width,count",
    [(10, 1, None), (16, 4, 2_748_890), (28, 2, 1_467_610), (28, 10, 36_479_194)],
)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_wide_resnet_parameter_counts(depth, width, count, norm):
    expected = wide_resnet_parameters(depth, width, 3, 10)
    assert count in (None, expected)
    assert (
        parameters(
            model("wide_resnet", num_classes=10, depth=depth, width=width, norm=norm),
            (1, 32, 32, 3),
        )
        == expected
    )


def test_standardized_kernels_add_a_gain_a_feature():
    gains = 16 + sum(
        2 * 2 * features + features for features in (64, 128, 256)
    )  # two blocks a stage, a 1x1 convolution in its first
    built = model("wide_resnet", num_classes=10, depth=16, width=4, norm="group", standardize=True)
    assert parameters(built, (1, 32, 32, 3)) == 2_748_890 + gains == 2_751_146


def test_conv_depth_two_has_eight_convolutions():
    for depth, number in ((1, 4), (2, 8)):
        params = jax.eval_shape(model("conv", depth=depth).init, KEY, jnp.zeros((1, 32, 32, 3)))[
            "params"
        ]
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


LARGE = ("alexnet", "googlenet", "nin", "resnet18", "vgg")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in NAMES]
)
def test_an_example_is_answered_alone_as_in_any_batch(name):
    built = model(name, **SMALL.get(name, {}))
    x = jax.random.uniform(KEY, (3, 24, 24, 3))
    variables = once(built.init)(KEY, x)
    assert set(variables) in ({"params"}, {"params", "stats"})
    if "stats" in variables:
        variables["stats"] = jax.tree.map(lambda s: s + 0.1, variables["stats"])
    apply = once(lambda x: built.apply(variables, x))
    out, stats = apply(x)
    assert out.shape == (3, 5) and out.dtype == jnp.float32 and np.isfinite(out).all()
    jax.tree.map(np.testing.assert_array_equal, stats, variables.get("stats", {}))
    for i in range(3):
        np.testing.assert_allclose(out[i], apply(x[i : i + 1])[0][0], atol=1e-5)
    np.testing.assert_allclose(out[::-1], apply(x[::-1])[0], atol=1e-5)


@pytest.mark.parametrize(
    "name,fields,shape",
    [
        ("mlp", {}, (4, 8)),
        ("fc", {}, (4, 8)),
        ("conv", {}, (4, 12, 12, 1)),
        # its dropout is the layer of the others; only its place in the blocks is its own
        pytest.param("wide_resnet", dict(norm="group"), (4, 8, 8, 3), marks=pytest.mark.slow),
    ],
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
    moved = jax.tree.leaves(
        jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), stats, variables["stats"])
    )
    assert min(moved) > 0
    assert jax.tree.structure(stats) == jax.tree.structure(variables["stats"])
    assert not any(
        name == "stats"
        for name in jax.eval_shape(
            model("wide_resnet", norm="group", **SMALL["wide_resnet"]).init, KEY, x
        )
    )


@pytest.mark.parametrize(
    "name,shape",
    [
        ("small_cnn", (4, 22, 22, 1)),
        pytest.param("wide_resnet", (4, 8, 8, 3), marks=pytest.mark.slow),
    ],
)
def test_a_fleet_is_its_members_and_form_changes_nothing(name, shape):
    x, y = jax.random.normal(KEY, shape), jnp.arange(4)
    fields = SMALL.get(name, {})

    def gradient(form):
        built = model(name, form=form, **fields)

        def of(variables):
            def loss(params):
                out, stats = built.apply({**variables, "params": params}, x, train=True)
                return -jnp.take_along_axis(
                    jax.nn.log_softmax(out), y.reshape(-1, 1), 1
                ).mean(), stats

            return jax.value_and_grad(loss, has_aux=True)(variables["params"])

        return of

    built = model(name, **fields)
    fleet = jax.jit(jax.vmap(lambda key: built.init(key, x)))(jax.random.split(KEY, 2))
    together = jax.jit(jax.vmap(gradient("auto")))(fleet)
    alone = [jax.jit(gradient(form)) for form in ("auto", "lax")[: 2 if name == "small_cnn" else 1]]
    for m in range(2):
        member = jax.tree.map(lambda a, m=m: a[m], fleet)
        for other in (f(member) for f in alone):
            jax.tree.map(
                lambda a, b, m=m: np.testing.assert_allclose(a[m], b, rtol=1e-4, atol=2e-5),
                together,
                other,
            )


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
        (
            "wide_resnet",
            dict(depth=20),
            "depth=20 is not 6n \\+ 4; allowed depths are 10, 16, 22, 28",
        ),
        ("wide_resnet", dict(norm="instance"), "norm='instance' is not one of"),
        (
            "resnet18",
            dict(norm="batchnorm"),
            "norm='batchnorm' is not one of .*Did you mean 'batch'",
        ),
        (
            "mlp",
            dict(widths=(4, 5), dropout=(0.1,)),
            r"dropout=\(0.1,\) has 1 rates and widths=\(4, 5\) 2 layers",
        ),
        ("perceptron", dict(num_classes=1), "num_classes=1 must be at least 2"),
        ("lenet", dict(num_classes=0), "num_classes=0 must be at least 1"),
        ("lenet", dict(pool="mean"), "pool='mean' is not one of"),
        ("vgg", dict(depth=12), "depth=12 is not one of"),
        ("alexnet", dict(resize=-1), "resize=-1 must be at least 0"),
        ("googlenet", dict(divide=17), "divide=17 is not one of"),
    ],
)
def test_bad_fields(name, fields, message):
    with pytest.raises(ValueError, match=message):
        model(name, **fields)


@pytest.mark.parametrize(
    "name,small", [("nin", 66), ("alexnet", 64), ("vgg", 31), ("lenet", 11), ("lenet_bn", 15)]
)
def test_the_smallest_images_are_what_the_docstrings_say(name, small):
    fields = {"resize": 0} if name in ("nin", "alexnet", "vgg") else {}
    with pytest.raises(ValueError, match="does not fit into images of"):
        jax.eval_shape(model(name, **fields).init, KEY, jnp.zeros((1, small, small, 1)))
    jax.eval_shape(model(name, **fields).init, KEY, jnp.zeros((1, small + 1, small + 1, 1)))


def test_resizing_is_the_first_layer():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert layers.resized(x, 0) is x and layers.resized(x, 4) is x
    rows = np.asarray(layers.resized(x, 8))[0, :, 0, 0]
    np.testing.assert_allclose(
        rows, [0, 1, 3, 5, 7, 9, 11, 12], atol=1e-5
    )  # half-pixel centers: a quarter of the way, edges held


def test_a_perceptron_names_class_one_above_zero():
    built = model("perceptron", num_classes=2)
    variables = {
        "params": {"Dense_0": {"kernel": jnp.array([[1.0], [2.0]]), "bias": jnp.array([-1.0])}}
    }
    out, _ = built.apply(variables, jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(out, [[0.5, -0.5], [-0.5, 0.5], [0, 0]])
    assert out.argmax(1).tolist() == [0, 1, 0]


def test_too_small_images_are_refused():
    with pytest.raises(
        ValueError, match=r"does not fit into images of 1x1.*larger images or fewer layers"
    ):
        jax.eval_shape(model("small_cnn").init, KEY, jnp.zeros((1, 8, 8, 1)))
