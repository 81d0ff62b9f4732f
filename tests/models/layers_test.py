"""Compares the layers with those of flax: parameters, values and every gradient.

It covers everything that can be batched and every program that can run.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mia_jax.models import layers
from mia_jax.models.kernels import convolution

KEY = jax.random.key(0)
GEOMETRIES = [
    ((3, 3), (1, 1), "SAME"),
    ((3, 3), (1, 1), "VALID"),
    ((3, 3), (2, 2), 1),
    ((2, 3), (2, 1), "SAME"),
    ((1, 1), (2, 2), "VALID"),
    ((5, 3), (1, 2), ((2, 0), (1, 4))),
]


def close(ours, theirs, atol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol), ours, theirs)


def value_and_gradients(f, *args):
    """Returns f(*args) and the cotangents of all args for a fixed random cotangent."""

    def both(*args):
        y, pull = jax.vjp(f, *args)
        return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return jax.jit(both)(*args)


# Dense and Conv
# --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 7), (4, 2, 7)])
def test_dense_equals_flax(shape):
    x = jax.random.normal(KEY, shape)
    ours, theirs = layers.Dense(5), nn.Dense(5, kernel_init=layers.INITIALIZERS["keras"])
    params = ours.init(KEY, x)
    close(params, theirs.init(KEY, x), atol=0)
    close(value_and_gradients(ours.apply, params, x), value_and_gradients(theirs.apply, params, x))


@pytest.mark.parametrize("window,strides,padding", GEOMETRIES)
def test_conv_equals_flax(window, strides, padding):
    x = jax.random.normal(KEY, (2, 9, 8, 3))
    theirs = nn.Conv(4, window, strides, padding, kernel_init=layers.INITIALIZERS["keras"])
    params = theirs.init(KEY, x)
    expected = value_and_gradients(theirs.apply, params, x)
    for form in layers.FORMS:
        ours = layers.Conv(4, window, strides, padding, form=form)
        close(ours.init(KEY, x), params, atol=0)
        close(value_and_gradients(ours.apply, params, x), expected)


@pytest.mark.parametrize(
    "size,window,strides,padding,used",
    [
        (1, 3, 1, 1, (1, 1)),
        (2, 3, 2, 1, (2, 2)),
        (2, 3, 1, 1, (3, 3)),
        (1, 5, 1, 2, (1, 1)),
        (2, 5, 1, 2, (3, 3)),
        (4, 3, 2, 1, (3, 3)),
        (3, 2, 2, ((2, 2), (0, 1)), (2, 2)),
    ],
)
def test_rows_of_a_kernel_that_never_meet_the_image_are_left_out(
    size, window, strides, padding, used
):
    at = convolution.windows((2, size, size, 3), window, strides, padding)
    assert (
        convolution._on_the_image(at)[0].window == used
        and convolution._on_the_image(at)[0].out == at.out
    )
    x, w = (
        jax.random.normal(KEY, (2, size, size, 3)),
        jax.random.normal(KEY, (window, window, 3, 4)),
    )
    computed, expected = (
        value_and_gradients(lambda x, w, form=form: convolution.convolve(at, x, w, form), x, w)
        for form in ("auto", "lax")
    )
    close(computed, expected)


@pytest.mark.parametrize(
    "window,strides,padding,limit",
    [(*GEOMETRIES[0], 1), (*GEOMETRIES[2], 4000), (*GEOMETRIES[3], 4000)],
)
def test_patches_in_blocks_are_the_same_convolution(window, strides, padding, limit, monkeypatch):
    x = jax.random.normal(KEY, (6, 9, 8, 3))
    conv, plain = (
        layers.Conv(4, window, strides, padding, form=form) for form in ("patches", "lax")
    )
    params = conv.init(KEY, x)
    monkeypatch.setattr(convolution, "_BLOCK_BYTES", limit)
    close(value_and_gradients(conv.apply, params, x), value_and_gradients(plain.apply, params, x))


def test_off_the_cpu_convolutions_are_ordinary_unless_patches_are_asked_for(monkeypatch):
    """One kernel and a fleet of them, there and back; patches are a choice, never an accident."""
    x, conv = jax.random.normal(KEY, (2, 9, 8, 3)), layers.Conv(4, (3, 2), (2, 1), ((1, 0), (2, 1)))
    params = conv.init(KEY, x)
    fleet = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    gradient = lambda p: jax.grad(lambda p: jnp.square(conv.apply(p, x)).sum())(p)  # noqa: E731
    for platform in ("gpu", "tpu", "a new one"):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        for program, given in ((gradient, params), (jax.vmap(gradient), fleet)):
            text = str(jax.make_jaxpr(program)(given))
            assert "conv_general_dilated" in text and "concatenate" not in text
        with convolution.batched("patches"):
            text = str(jax.make_jaxpr(jax.vmap(gradient))(fleet))
        assert "concatenate" in text and "conv_general_dilated" not in text
    close(
        value_and_gradients(conv.apply, params, x),
        value_and_gradients(conv.clone(form="lax").apply, params, x),
    )


def test_how_kernels_are_batched_is_decided_where_the_convolution_is_called():
    """It holds for what vmap makes of it later, and a compiled function knows it."""
    x, w = jnp.ones((2, 6, 6, 3)), jnp.ones((2, 3, 3, 3, 4))
    at = convolution.windows(x.shape, 3, 1, "SAME")
    conv = jax.jit(lambda w: jax.vmap(lambda w: convolution.convolve(at, x, w))(w))
    texts = {}
    for how in ("", "patches", "grouped", ""):
        with convolution.batched(how):
            texts.setdefault(how, set()).add(str(jax.make_jaxpr(conv)(w)))
    assert texts[""] == texts["patches"] and "conv_general_dilated" not in str(texts[""])
    assert len(texts[""]) == 1 and "conv_general_dilated" in str(texts["grouped"])
    with convolution.batched("grouped"):
        scanned = lambda w: jax.lax.scan(  # noqa: E731
            lambda total, _: (total + convolution.convolve(at, x, w), None),
            jnp.zeros((2, 6, 6, 4)),
            None,
            length=2,
        )[0]
        closed = jax.make_jaxpr(scanned)(w[0])
    later = jax.vmap(lambda w: jax.core.eval_jaxpr(closed.jaxpr, closed.consts, w))
    assert "conv_general_dilated" in str(jax.make_jaxpr(later)(w))
    with pytest.raises(ValueError, match="how='lax' is neither '' nor one of grouped, patches"):
        convolution.batched("lax")


BATCHED = [(0, None, 0), (None, 0, 0), (0, 0, 0), (0, 0, None), (None, 0, None), (None, None, 0)]


@pytest.mark.parametrize("limit, how", [(3000, ""), (8 << 20, ""), (3000, "grouped")])
def test_conv_under_vmap_over_images_kernels_and_both(limit, how, monkeypatch):
    monkeypatch.setattr(convolution, "_BLOCK_BYTES", limit)
    at = convolution.windows((4, 6, 5, 3), (3, 2), (2, 1), 1)
    k = jax.random.split(KEY, 3)
    full = [
        jax.random.normal(i, (6, *s))
        for i, s in zip(k, [(4, 6, 5, 3), (3, 2, 3, 4), (4, *at.out, 4)])
    ]

    def all_of(form):
        def both(x, w, c):
            y, pull = jax.vjp(lambda x, w: convolution.convolve(at, x, w, form), x, w)
            return y, pull(c)

        mapped = [
            jax.vmap(both, axes)(*(v if a == 0 else v[0] for v, a in zip(full, axes)))
            for axes in BATCHED
        ]
        models_of_examples = jax.vmap(jax.vmap(both, (0, None, 0)), (None, 0, 0))
        examples_of_models = jax.vmap(jax.vmap(both, (None, 0, 0)), (0, None, 0))
        x, w, c = (v[:2] for v in full)
        return (
            mapped,
            models_of_examples(x, w, jnp.stack([c, c])),
            examples_of_models(x, w, jnp.stack([c, c])),
        )

    with convolution.batched(how):
        computed = jax.jit(lambda: all_of("auto"))()
    close(computed, jax.jit(lambda: all_of("lax"))(), atol=5e-5)


@pytest.mark.parametrize("fleet", [False, True])
def test_per_example_gradients_and_scan(fleet):
    k = jax.random.split(KEY, 2)
    x, w = jax.random.normal(k[0], (3, 4, 6, 6, 2)), 0.3 * jax.random.normal(k[1], (3, 3, 3, 2, 2))

    def trained(form):
        def loss(w, x):
            y = convolution.convolve(convolution.windows(x.shape, 3, 1, "SAME"), x, w, form)
            return jnp.square(layers.max_pool(y, 2)).mean()

        def step(w, x):
            grad = jax.vmap(lambda x_D: jax.grad(loss)(w, x_D[None]))(x)
            return w - 0.1 * grad.mean(0), jnp.square(grad).sum((1, 2, 3, 4))

        step = jax.vmap(step) if fleet else step
        return lax.scan(
            lambda w, _: step(w, x if fleet else x[0]), w if fleet else w[0], None, length=3
        )

    close(jax.jit(lambda: trained("auto"))(), jax.jit(lambda: trained("lax"))(), atol=1e-5)


def test_conv_has_second_derivatives_and_a_forward_mode_under_lax():
    x, w = jax.random.normal(KEY, (2, 5, 5, 2)), 0.2 * jax.random.normal(KEY, (3, 3, 2, 3))
    at = convolution.windows(x.shape, 3, 2, 1)

    def squared_norm(form):
        def conv(x, w):
            return jnp.square(convolution.convolve(at, x, w, form)).sum()

        return lambda x, w: (
            jnp.square(jax.grad(conv)(x, w)).sum() + jnp.square(jax.grad(conv, 1)(x, w)).sum()
        )

    gradients = [jax.jit(jax.grad(squared_norm(form), (0, 1)))(x, w) for form in ("auto", "lax")]
    close(*gradients, atol=1e-4)
    tangent = jax.jvp(lambda w: convolution.convolve(at, x, w, "lax"), (w,), (w,))[1]
    close(tangent, convolution.convolve(at, x, w))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda w: convolution.convolve(at, x, w), (w,), (w,))


def test_conv_inside_shard_map_with_shared_images():
    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    x, w = jax.random.normal(KEY, (2, 6, 6, 2)), jax.random.normal(KEY, (3, 3, 3, 2, 3))

    def gradients(x, w):
        def loss(w):
            return jnp.square(
                layers.max_pool(
                    convolution.convolve(convolution.windows(x.shape, 3, 1, 1), x, w), 2
                )
            ).sum()

        return jax.vmap(jax.grad(loss))(w)

    sharded = jax.shard_map(
        gradients, mesh=mesh, in_specs=(spec(), spec("model")), out_specs=spec("model")
    )
    close(jax.jit(sharded)(x, w), jax.jit(gradients)(x, w))


@pytest.mark.parametrize(
    "layer,shape,message",
    [
        (layers.Conv(4), (8, 9), r"expected images \[B,H,W,F\].*\(8, 9\)"),
        (
            layers.Conv(4, (5, 5), padding="VALID"),
            (1, 4, 4, 1),
            "window of 5x5 does not fit into images of 4x4",
        ),
        (layers.Conv(4, padding="CIRCULAR"), (1, 4, 4, 1), "'CIRCULAR' is neither 'SAME'"),
        (
            layers.Conv(4, form="fft"),
            (1, 4, 4, 1),
            r"form='fft' is not one of \['auto', 'patches', 'lax'\]",
        ),
    ],
)
def test_conv_refuses(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.init(KEY, jnp.zeros(shape))


# Pooling
# --------------------------------------------------------------------------------

POOLS = [
    ((2, 2), None, "VALID"),
    ((2, 3), None, "SAME"),
    ((3, 3), (2, 2), "SAME"),
    ((3, 2), (1, 1), "VALID"),
    ((2, 2), (3, 3), "VALID"),
    ((3, 3), (2, 2), ((1, 1), (1, 0))),
    ((2, 2), (2, 2), ((1, 0), (0, 1))),
]


@pytest.mark.parametrize("window,strides,padding", POOLS)
def test_max_pool_equals_flax_with_ties(window, strides, padding):
    x = jnp.round(2 * jax.random.normal(KEY, (2, 9, 8, 3)))  # few values: most windows have ties
    expected = value_and_gradients(lambda x: nn.max_pool(x, window, strides or window, padding), x)
    for form in ("auto", "lax"):
        close(
            value_and_gradients(
                lambda x, form=form: layers.max_pool(x, window, strides, padding, form), x
            ),
            expected,
            atol=1e-6,
        )


def test_max_pool_lets_nan_through():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
    assert np.isnan(layers.max_pool(x, 2)).tolist() == [[[[True], [False]], [[False], [False]]]]


def test_max_pool_under_vmap():
    x = jax.random.normal(KEY, (3, 2, 5, 6, 2))

    def gradient(pool):
        return jax.jit(jax.vmap(jax.grad(lambda x: jnp.square(pool(x)).sum())))

    for window, strides in ((2, 2), (3, 1)):
        ours = gradient(lambda x, w=window, s=strides: layers.max_pool(x, w, s))(x)
        close(ours, gradient(lambda x, w=window, s=strides: nn.max_pool(x, (w, w), (s, s)))(x))


@pytest.mark.parametrize(
    "window,strides,padding,count_include_pad",
    [(*pool, i % 2 == 0) for i, pool in enumerate(POOLS)],
)
def test_avg_pool_equals_flax(window, strides, padding, count_include_pad):
    x = jax.random.normal(KEY, (2, 9, 8, 3))
    with jax.numpy_rank_promotion("allow"):
        expected = value_and_gradients(
            lambda x: nn.avg_pool(x, window, strides or window, padding, count_include_pad), x
        )
    close(
        value_and_gradients(
            lambda x: layers.avg_pool(x, window, strides, padding, count_include_pad), x
        ),
        expected,
        atol=1e-6,
    )


# Dropout and initializers
# --------------------------------------------------------------------------------


def dropped(x, keys, site=0):
    return np.asarray(jax.jit(layers.dropout, static_argnums=(2, 3))(x, keys, 0.5, site))


def test_dropout_keeps_the_mean_and_drops_the_rate():
    y = jax.jit(layers.dropout, static_argnums=(2, 3))(
        jnp.ones((200, 100)), jax.random.split(KEY, 200), 0.3, 0
    )
    assert abs(float(y.mean()) - 1) < 4 * np.sqrt(0.3 / 0.7 / y.size)
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)}


def test_dropout_mask_is_the_examples_own():
    x, keys = jnp.ones((8, 4, 5)), jax.random.split(KEY, 8)
    y = dropped(x, keys)
    assert len({row.tobytes() for row in y}) == 8
    order = jnp.array([5, 2, 7])
    np.testing.assert_array_equal(dropped(x[order], keys[order]), y[order])
    alone = jax.vmap(lambda x, key: layers.dropout(x[None], key[None], 0.5, 0)[0])
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(alone, (0, None)))(jnp.stack([x, 2 * x]), keys), np.stack([y, 2 * y])
    )
    assert not np.array_equal(dropped(x, keys, site=1), y)


def test_dropout_is_the_identity_without_keys_or_rate():
    x = jax.random.normal(KEY, (3, 4))
    assert layers.dropout(x, None, 0.5, 0) is x
    assert layers.dropout(x, jax.random.split(KEY, 3), 0.0, 0) is x


@pytest.mark.parametrize("shape,fans", [((300, 50), (300, 50)), ((3, 3, 32, 64), (288, 576))])
def test_keras_kernels_are_glorot_uniform(shape, fans):
    limit = np.sqrt(6 / sum(fans))
    kernel = np.asarray(layers.initializer("keras")(KEY, shape))
    assert np.abs(kernel).max() <= limit
    assert np.abs(kernel).max() > 0.99 * limit
    assert abs(kernel.std() / (limit / np.sqrt(3)) - 1) < 0.02


def test_he_kernels_have_variance_two_over_fan_in():
    kernel = np.asarray(layers.initializer("he")(KEY, (3, 3, 32, 64)))
    assert abs(kernel.std() / np.sqrt(2 / 288) - 1) < 0.02
    with pytest.raises(ValueError, match="init='hee' is not one of"):
        layers.initializer("hee")


# Normalization
# --------------------------------------------------------------------------------


def test_group_norm_equals_flax():
    x = 3 + jax.random.normal(KEY, (3, 4, 5, 12))
    ours = layers.GroupNorm(groups=4)
    params = ours.init(KEY, x)
    params = jax.tree.map(lambda a: a + jnp.arange(12.0), params)
    theirs = nn.GroupNorm(4, epsilon=1e-5, use_fast_variance=False)
    with jax.numpy_rank_promotion("allow"):
        expected = value_and_gradients(theirs.apply, params, x)
    close(value_and_gradients(ours.apply, params, x), expected)
    close(
        layers.GroupNorm(groups=16).apply(params, x), layers.GroupNorm(groups=12).apply(params, x)
    )


def batch_norm(x, weight_B=None, train=True, stats=None):
    module = layers.BatchNorm()
    variables = module.init(KEY, jnp.asarray(x))
    if stats is not None:
        variables = {**variables, "stats": stats}
    out, changed = module.apply(
        variables, jnp.asarray(x), weight_B=weight_B, train=train, mutable=["stats"]
    )
    return np.asarray(out), changed["stats"]


@pytest.mark.parametrize("shape", [(6, 4), (6, 3, 2, 4)])
def test_batch_norm_by_hand_with_padded_rows(shape):
    x = np.random.default_rng(0).normal(2, 3, shape).astype(np.float32)
    real = x[:4].reshape(-1, 4).astype(np.float64)
    x[4:] = 1e6
    out, stats = batch_norm(x, jnp.array([1.0, 1, 1, 1, 0, 0]))
    mean, var = real.mean(0), real.var(0)
    np.testing.assert_allclose(
        out[:4].reshape(-1, 4), (real - mean) / np.sqrt(var + 1e-5), atol=1e-5
    )
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-5)
    frozen, same = batch_norm(x, train=False, stats=stats)
    np.testing.assert_allclose(
        frozen[:4].reshape(-1, 4),
        (real - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5),
        rtol=1e-4,
        atol=1e-5,
    )
    jax.tree.map(np.testing.assert_array_equal, same, stats)


def test_batch_norm_of_padding_alone_is_finite_and_leaves_the_statistics():
    out, stats = batch_norm(np.ones((3, 4), np.float32), jnp.zeros(3))
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(stats["mean"], np.zeros(4))
    np.testing.assert_array_equal(stats["var"], np.ones(4))


def test_batch_norm_gradient_equals_flax():
    x = jax.random.normal(KEY, (5, 3, 3, 2))
    ours, theirs = (
        layers.BatchNorm(),
        nn.BatchNorm(use_running_average=False, momentum=0.9, use_fast_variance=False),
    )
    scale = {"scale": jnp.array([1.0, 2]), "bias": jnp.array([0.5, -1])}
    stats = {"mean": jnp.zeros(2), "var": jnp.ones(2)}
    with jax.numpy_rank_promotion("allow"):

        def their_outputs(p, x):
            return theirs.apply({"params": p, "batch_stats": stats}, x, mutable=["batch_stats"])[0]

        expected = value_and_gradients(their_outputs, scale, x)

    def our_outputs(p, x):
        return ours.apply({"params": p, "stats": stats}, x, train=True, mutable=["stats"])[0]

    close(value_and_gradients(our_outputs, scale, x), expected)
