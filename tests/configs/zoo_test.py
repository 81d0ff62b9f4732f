"""The classic demonstrations, each with the number it is known for: regression, weight decay, XOR,
dropout, gradients through depth.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.data import idx, linear, xor
from mia_jax.learners import backprop
from mia_jax.models import layers
from mia_jax.types import Pool, classification, regression
from tests import toys

KEY = jax.random.key(0)
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
once = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def trained(pools, *, model, objective, train, epochs, **fields):
    """Parameters and final sums of one run a pool, each on its first `train` rows, in one program;
    (learner, parameters, x of all pools).
    """
    x, y = np.stack([p.x for p in pools]), np.stack([p.y for p in pools])
    built = registry.make(
        "models", model[0], model[1] | dict(num_classes=pools[0].task.num_outputs)
    )
    loss = registry.make("objectives", objective[0], objective[1], model=built)
    learner = backprop.make(
        model=built, loss=loss, num_rows=train, optimizer="sgd", epochs=epochs, **fields
    )
    rows, weight = jnp.arange(train), jnp.ones(train)

    def run(key, x, y):
        pool = Pool(x=x, y=y, task=pools[0].task)

        def epoch(state, number):
            plan = learner.plan(key, number, rows, weight)
            state, sums = learner.epoch(state, pool, *plan)
            return state, sums["loss"] / sums["weight"]

        state, loss_E = jax.lax.scan(epoch, learner.init(key, pool), jnp.arange(epochs))
        return state.variables, loss_E

    variables, loss_E = jax.jit(jax.vmap(run))(jax.random.split(KEY, len(pools)), x, y)
    return built, variables, np.asarray(loss_E), x, y


def mean_loss(built, variables, x, y, rows):
    """(z - y)^2 / 2 over the rows, one number a run."""
    out, _ = jax.vmap(built.apply)(variables, x[:, rows])
    return np.square(np.asarray(out)[..., 0] - y[:, rows]).mean(1) / 2


@pytest.mark.parametrize(
    "epochs,low,high", [(1, 0.025, 0.05), (2, 9e-5, 2e-4), (3, 4.5e-5, 5.5e-5)]
)  # printed: .035, .00012, .00005
def test_linear_regression_finds_its_weights_in_three_epochs(epochs, low, high):
    pools = [linear.load(seed=s) for s in range(10)]
    model, objective = ("linear", {}), ("squared", dict(factor=0.5))
    built, variables, _, x, y = trained(
        pools,
        model=model,
        objective=objective,
        train=1000,
        epochs=epochs,
        learning_rate=0.03,
        batch_size=10,
    )
    assert (
        low < mean_loss(built, variables, x, y, slice(None)).mean() < high
    )  # at last half of the noise's variance
    if epochs == 3:
        dense = variables["params"]["Dense_0"]
        assert np.abs(np.asarray(dense["kernel"])[..., 0] - [2, -3.4]).max() < 2e-3
        assert np.abs(np.asarray(dense["bias"]) - 4.2).max() < 2e-3


@pytest.mark.skipif(not FASHION.is_dir(), reason="apt-get install dataset-fashion-mnist")
@pytest.mark.slow
def test_softmax_mlp_and_dropout_net_pass_the_books_bounds():
    """Train loss below .5, train and test accuracy between .7 and 1, at a tenth of the images
    (batches of 64).
    """
    pool = idx.load(folder=FASHION, examples=8_000)
    wide = dict(widths=(256, 256), dropout=(0.2, 0.5), init="normal")
    for model, rate in (
        (("linear", {}), 0.1),
        (("mlp", dict(widths=(256,), init="normal")), 0.1),
        (("mlp", wide), 0.2),
    ):
        fields = dict(
            objective=("cross_entropy", {}),
            train=6_000,
            epochs=12,
            learning_rate=rate,
            batch_size=64,
        )
        built, variables, loss_E, x, y = trained([pool], model=model, **fields)
        out, _ = built.apply(jax.tree.map(lambda a: a[0], variables), x[0])
        right = np.asarray(out).argmax(-1) == y[0]
        assert (
            loss_E[0, -1] < 0.5
            and 0.7 < right[:6_000].mean() <= 1
            and 0.7 < right[6_000:].mean() <= 1
        )


@pytest.mark.parametrize(
    "decay,norm,train_loss,test_loss",
    [(0, (11.6, 14.0), (0, 1e-4), (60, 110)), (3, (0.31, 0.38), (5e-4, 2e-3), (0.06, 0.12))],
)
def test_weight_decay_of_200_weights_on_20_examples(decay, norm, train_loss, test_loss):
    pools = [
        linear.load(examples=120, features=200, weights=0.01, bias=0.05, seed=s) for s in range(10)
    ]
    fields = dict(train=20, epochs=100, learning_rate=0.003, batch_size=5, l2=decay / 2)
    built, variables, _, x, y = trained(
        pools,
        model=("linear", dict(init="unit_normal")),
        objective=("squared", dict(factor=0.5)),
        **fields,
    )
    length = np.linalg.norm(np.asarray(variables["params"]["Dense_0"]["kernel"])[..., 0], axis=1)
    members, others = (
        mean_loss(built, variables, x, y, rows) for rows in (slice(0, 20), slice(20, 120))
    )
    for values, (low, high) in ((length, norm), (members, train_loss), (others, test_loss)):
        assert low <= values.mean() <= high


# XOR
# --------------------------------------------------------------------------------


def xor_accuracy(model, objective, seeds=4, **fields):
    """The best accuracy on the four corners that each of several seeds reaches after any epoch."""
    pools = [xor.load(examples=4, noise=0.0)] * seeds
    built, variables, _, x, y = trained(
        pools, model=model, objective=objective, train=4, batch_size=4, **fields
    )
    out, _ = jax.vmap(built.apply)(variables, x)
    return (np.asarray(out).argmax(-1) == y).mean(1)


def test_a_perceptron_cannot_do_xor_and_a_hidden_layer_can():
    for epochs in (3, 100):
        assert (
            xor_accuracy(
                ("perceptron", {}), ("perceptron", {}), epochs=epochs, learning_rate=1.0
            ).max()
            <= 0.75
        )
    net = ("mlp", dict(widths=(8,), activation="tanh", init="xavier_uniform"))
    assert (xor_accuracy(net, ("cross_entropy", {}), epochs=1000, learning_rate=0.5) == 1).all()


def test_a_perceptron_separates_what_a_line_separates():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).astype(np.float32)
    margin = x @ np.array([1.0, -2.0]) + 0.3
    x, y = x[np.abs(margin) > 0.3], (margin > 0).astype(np.int32)[np.abs(margin) > 0.3]
    pool = Pool(x=x, y=y, task=classification(2))
    built, variables, loss_E, _, _ = trained(
        [pool],
        model=("perceptron", {}),
        objective=("perceptron", {}),
        train=len(y),
        epochs=100,
        learning_rate=1.0,
        batch_size=1,
    )
    assert (
        loss_E[0, -1] == 0 and loss_E[0, 0] > 0
    )  # it converges, in finitely many mistakes (Novikoff 1962), to no mistake at all
    out, _ = built.apply(jax.tree.map(lambda a: a[0], variables), x)
    assert (np.asarray(out).argmax(1) == y).all()


def test_the_perceptron_objective_is_rosenblatts_rule():
    built = registry.make("models", "perceptron", dict(num_classes=2))
    loss = registry.make("objectives", "perceptron", model=built)
    x, y = jnp.array([[1.0, 2.0], [1.0, 0.0], [0.0, -3.0]]), jnp.array([1, 0, 1])
    params = {"Dense_0": {"kernel": jnp.array([[1.0], [1.0]]), "bias": jnp.array([0.0])}}

    def total(params):
        loss_B, aux = loss({"params": params}, toys.batch(x, y))
        return loss_B.sum(), (loss_B, aux.metrics["accuracy"])

    gradient, (loss_B, right_B) = jax.jit(jax.grad(total, has_aux=True))(params)
    np.testing.assert_allclose(
        loss_B, [0, 1, 3]
    )  # right; class 1 named for class 0 at z = 1; class 0 named for class 1 at z = -3
    assert right_B.tolist() == [1, 0, 0]
    np.testing.assert_allclose(
        gradient["Dense_0"]["kernel"][:, 0], [1.0, 3.0]
    )  # + x of the second, - x of the third example
    np.testing.assert_allclose(gradient["Dense_0"]["bias"], [0.0])


def test_squared_objective_by_hand_and_what_it_refuses():
    built = registry.make("models", "linear", dict(num_classes=1))
    variables = {"params": {"Dense_0": {"kernel": jnp.array([[2.0]]), "bias": jnp.array([1.0])}}}
    for factor in (1.0, 0.5):
        loss = registry.make("objectives", "squared", dict(factor=factor), model=built)
        loss_B, aux = loss(
            variables,
            toys.batch(jnp.array([[1.0], [2.0]]), jnp.array([1.0, 5.0]), task=regression()),
        )
        np.testing.assert_allclose(loss_B, [4 * factor, 0])
        np.testing.assert_allclose(aux.metrics["squared_error"], [4, 0])
    classes = registry.make("models", "linear", dict(num_classes=3))
    loss = registry.make("objectives", "squared", model=classes)
    with pytest.raises(ValueError, match="'squared' needs a model with 1 output, got 3"):
        loss(
            classes.init(KEY, jnp.ones((1, 2))),
            toys.batch(jnp.ones((1, 2)), jnp.ones(1), task=regression()),
        )
    for name in ("cross_entropy", "perceptron"):
        loss = registry.make("objectives", name, model=built)
        with pytest.raises(
            ValueError,
            match=f"{name}' is for classification.*the task of this data is regression: use "
            "'squared'",
        ):
            loss(variables, toys.batch(jnp.ones((1, 1)), jnp.ones(1), task=regression()))


# Activations, dropout, depth
# --------------------------------------------------------------------------------


def test_activations_by_their_formulas():
    x = jnp.linspace(-4, 4, 33)
    sigmoid, tanh, rescaled = (
        layers.activation(name) for name in ("sigmoid", "tanh", "rescaled_sigmoid")
    )
    np.testing.assert_allclose(tanh(x), (1 - np.exp(-2 * x)) / (1 + np.exp(-2 * x)), atol=1e-6)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(jax.grad(sigmoid)))(x), sigmoid(x) * (1 - sigmoid(x)), atol=1e-6
    )
    np.testing.assert_allclose(rescaled(x), 4 * sigmoid(x) - 2, atol=1e-6)
    assert jax.grad(rescaled)(0.0) == pytest.approx(1) and rescaled(0.0) == 0
    np.testing.assert_allclose(rescaled(x), 2 * tanh(x / 2), atol=1e-6)
    np.testing.assert_array_equal(layers.activation("relu")(x), np.maximum(x, 0))


def test_dropout_keeps_the_expectation_to_a_percent_and_is_the_identity_at_test_time():
    h = jnp.array([[1.0, 2.0, -3.0, 0.5]])
    for rate in (0.2, 0.5):
        dropped = jax.jit(
            lambda keys, rate=rate: layers.dropout(
                jnp.broadcast_to(h, (len(keys), 4)), keys, rate, 0
            )
        )(jax.random.split(KEY, 100_000))
        np.testing.assert_allclose(dropped.mean(0), h[0], rtol=0.01)
        assert float((dropped[:, 0] == 0).mean()) == pytest.approx(rate, abs=0.01)
    assert layers.dropout(h, None, 0.5, 0) is h


def test_a_product_of_random_matrices_explodes():
    """100 products of 4x4 standard normal matrices: the largest entry grows like exp(100 * 0.8) or
    so.
    """
    product_SJJ = jax.random.normal(KEY, (20, 100, 4, 4))
    largest_S = jax.jit(
        jax.vmap(
            lambda m: jnp.abs(jax.lax.scan(lambda p, a: (p @ a, None), jnp.eye(4), m)[0]).max()
        )
    )(product_SJJ)
    assert 1e15 < np.median(largest_S) < 1e35


def deep(depth, width, act, init):
    """The mean absolute gradient at the first of `depth` square layers, by Glorot's product of
    diag(act'(W h)) W, and each layer's variance.
    """
    kernels = jax.vmap(lambda key: layers.initializer(init)(key, (width, width)))(
        jax.random.split(KEY, depth)
    )
    activation = layers.activation(act)

    def layer(h, kernel):
        h = activation(h @ kernel)
        return h, h.var()

    def out(h):
        h, var_L = jax.lax.scan(layer, h, kernels)
        return h.sum(1).mean(), var_L

    gradient, var_L = once(jax.grad(out, has_aux=True))(
        jax.random.normal(jax.random.key(1), (16, width))
    )
    return float(jnp.abs(gradient).mean()), np.asarray(var_L)


@pytest.mark.slow
def test_sigmoids_lose_the_gradient_at_depth_20():
    lost, _ = deep(20, 64, "sigmoid", "xavier_uniform")
    kept, _ = deep(20, 64, "tanh", "xavier_uniform")
    linear, _ = deep(20, 64, "identity", "xavier_uniform")
    rescaled, _ = deep(20, 64, "rescaled_sigmoid", "xavier_uniform")
    assert lost < 1e-5 and lost < 1e-6 * linear  # every factor has sigmoid' <= 1/4: 4^-20 = 1e-12
    assert kept > 1e-3 and rescaled > 1e-3


@pytest.mark.parametrize(
    "init,low,high",
    [
        ("xavier_uniform", 0.7, 1.4),
        ("xavier_normal", 0.7, 1.4),
        ("normal", 0, 1e-9),
        ("unit_normal", 1e9, np.inf),
    ],
)
def test_xavier_keeps_the_variance_through_ten_linear_layers(init, low, high):
    _, var_L = deep(10, 256, "identity", init)
    assert low < var_L[-1] / 1.0 < high  # the input has variance 1


@pytest.mark.parametrize(
    "init,deviation",
    [
        ("xavier_normal", np.sqrt(2 / 350)),
        ("normal", 0.01),
        ("unit_normal", 1.0),
        ("xavier_uniform", np.sqrt(2 / 350)),
    ],
)
def test_initializers_have_their_deviation(init, deviation):
    kernel = np.asarray(layers.initializer(init)(KEY, (300, 50)))
    assert kernel.std() == pytest.approx(deviation, rel=0.02) and abs(
        kernel.mean()
    ) < 5 * deviation / np.sqrt(kernel.size)
    most = np.abs(kernel).max() / deviation
    assert (
        most <= np.sqrt(3) + 1e-5 if init == "xavier_uniform" else most > 3
    )  # a normal is not cut off at two deviations
    assert not np.asarray(layers.initializer("zeros")(KEY, (3, 2))).any()


# Convolution and pooling, written out
# --------------------------------------------------------------------------------


def corr2d(x, k):
    """The definition, in loops: y[i, j] = sum_ab x[i + a, j + b] k[a, b] (not flipped)."""
    h, w = x.shape[0] - k.shape[0] + 1, x.shape[1] - k.shape[1] + 1
    return np.array(
        [
            [(x[i : i + k.shape[0], j : j + k.shape[1]] * k).sum() for j in range(w)]
            for i in range(h)
        ]
    )


@pytest.mark.parametrize("form", layers.FORMS)
def test_convolution_is_cross_correlation_summed_over_input_channels(form):
    rng = np.random.default_rng(0)
    x, k = (
        rng.random((2, 7, 6, 3), np.float32),
        rng.normal(size=(3, 2, 3, 4)).astype(np.float32) / 3,
    )
    expected = np.stack(
        [
            np.stack(
                [sum(corr2d(image[..., c], k[..., c, o]) for c in range(3)) for o in range(4)], -1
            )
            for image in x
        ]
    )
    output = layers.convolution(jnp.asarray(x), jnp.asarray(k), form=form)
    np.testing.assert_allclose(output, expected, atol=2e-6)
    theirs = jax.lax.conv_general_dilated(
        x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(output, theirs, atol=1e-6)


def test_the_textbook_examples():
    x, k = jnp.arange(9.0).reshape(1, 3, 3, 1), jnp.arange(4.0).reshape(2, 2, 1, 1)
    assert layers.convolution(x, k)[0, :, :, 0].tolist() == [[19, 25], [37, 43]]
    edge = jnp.ones((1, 1, 8, 1)).at[:, :, 2:6].set(0)
    assert layers.convolution(edge, jnp.array([1.0, -1]).reshape(1, 2, 1, 1))[
        0, 0, :, 0
    ].tolist() == [0, 1, 0, 0, 0, -1, 0]
    assert layers.max_pool(x, 2, 1)[0, :, :, 0].tolist() == [[4, 5], [7, 8]]
    assert layers.avg_pool(x, 2, 1)[0, :, :, 0].tolist() == [[2, 3], [5, 6]]


@pytest.mark.parametrize(
    "size,window,stride,padding,expected",
    [
        (28, 5, 1, 4, 28),
        (28, 5, 1, 0, 24),
        (224, 11, 4, 2, 54),
        (8, 3, 2, 2, 4),
        (12, 3, 2, 0, 5),
        (96, 7, 2, 6, 48),
        (54, 3, 2, 0, 26),
    ],
)
def test_size_formula(size, window, stride, padding, expected):
    assert (
        layers.output_size(size, window, stride, padding)
        == expected
        == (size - window + padding + stride) // stride
    )
    x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    pads = ((padding // 2, padding - padding // 2),) * 2
    for of in (
        lambda x: layers.convolution(x, jnp.ones((window, window, 1, 1)), stride, pads),
        lambda x: layers.max_pool(x, window, stride, pads),
    ):
        assert jax.eval_shape(of, x).shape == (1, expected, expected, 1)
