"""Tests that every program of a convolution is the convolution, and that a table chooses them."""

import contextlib
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax.models.kernels import candidates, convolution, spectral, wide_windows

# (image, window, strides, padding, channels, features): outputs that blocks do not divide, strides,
# padding on one side only, windows as large as the image.
SIZES = [
    ((7, 5), (3, 2), (1, 1), ((1, 0), (2, 1)), 3, 4),
    ((6, 7), (5, 5), (1, 1), ((2, 2), (2, 2)), 2, 3),
    ((9, 8), (3, 2), (2, 1), ((0, 1), (1, 0)), 2, 3),
    ((4, 4), (4, 4), (1, 1), ((0, 0), (0, 0)), 2, 3),
]
NAMES = ("patches", "ordinary", "flipped", "spectral", "wide:2x4", "wide_flipped:2x2")


def layer(what, size):
    image, window, strides, pads, channels, features = size
    at = convolution.Windows(image, window, strides, pads)
    return convolution.Layer(what, at, 2, channels, features, "float32")


def programs(one):
    """Returns {name: program} of all programs that a layer can have."""
    made = {}
    for name in NAMES:
        with contextlib.suppress(ValueError):
            made[name] = candidates.program(name, one.what)
    if one.at.strides != (1, 1):
        made.pop("spectral")
    return made


@pytest.mark.parametrize("size", SIZES)
def test_every_program_is_the_ordinary_convolution(size):
    rng = np.random.default_rng(0)
    ones = [layer(what, size) for what in ("forward", "input", "kernel")]
    given = [[rng.normal(size=s.shape).astype(np.float32) for s in one.shapes()] for one in ones]
    made = [programs(one) for one in ones]

    @jax.jit
    def computed(given):
        return [
            {name: f(one.at, *ab) for name, f in made.items()}
            for one, made, ab in zip(ones, made, given)
        ]

    for one, values in zip(ones, computed(given), strict=True):
        assert len(values) >= (3 if one.at.strides != (1, 1) else 4)
        for name, value in values.items():
            assert value.dtype == jnp.float32
            np.testing.assert_allclose(
                value, values["ordinary"], rtol=1e-5, atol=1e-5, err_msg=f"{one.what} {name}"
            )


def test_derivatives_of_every_program_are_those_of_the_convolution():
    """Any choice of the three functions gives the same gradients, also of gradients."""
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 2))
    w = jax.random.normal(jax.random.key(1), (3, 3, 2, 3))
    at = convolution.windows(x.shape, 3, 1, "SAME")

    def losses(x, w):
        loss = lambda x, w: jnp.sin(convolution.convolve(at, x, w)).sum()  # noqa: E731
        inner = lambda x, w: jnp.square(jax.grad(loss, 1)(x, w)).sum()  # noqa: E731
        return jax.grad(loss, (0, 1))(x, w), jax.grad(inner, (0, 1))(x, w)

    expected = jax.jit(losses)(x, w)
    recorder = candidates.Recorder()
    with convolution.chosen(recorder):
        jax.eval_shape(losses, x, w)
    whats = {one.what for one in recorder.layers}
    assert whats == {"forward", "input", "kernel"}
    for names in (
        dict(forward="wide:1x2", input="wide:2x2", kernel="wide_flipped:2x4"),
        dict.fromkeys(("forward", "input", "kernel"), "spectral"),
    ):
        table = candidates.Table((one, names[one.what]) for one in recorder.layers)
        with convolution.chosen(table):
            value = jax.jit(lambda x, w: losses(x, w))(x, w)
        for new, old in zip(jax.tree.leaves(value), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(new, old, atol=1e-5 * float(jnp.abs(old).max()))


def test_a_table_decides_where_the_convolution_is_traced_and_nowhere_else():
    x, w = jnp.ones((2, 6, 6, 2)), jnp.ones((3, 3, 2, 4))
    at = convolution.windows(x.shape, 3, 1, 0)
    conv = jax.jit(lambda x, w: convolution.convolve(at, x, w))
    one = convolution.Layer("forward", at, 2, 2, 4, "float32")
    texts = []
    for name in ("", "ordinary", "spectral", ""):
        table = candidates.Table([(one, name)]) if name else None
        with convolution.chosen(table):
            texts.append(str(jax.make_jaxpr(conv)(x, w)))
            assert (
                "conv_general"
                not in str(  # of another size: the rule
                    jax.make_jaxpr(lambda x, w: convolution.convolve(at, x, w))(x[:1], w)
                )
            )
    assert texts[0] == texts[3] and "concatenate" in texts[0]
    assert "conv_general" in texts[1] and "concatenate" not in texts[1] + texts[2]
    explicit = lambda x, w: convolution.convolve(at, x, w, "patches")  # noqa: E731
    with convolution.chosen(candidates.Table([(one, "ordinary")])):
        assert "conv_general" not in str(jax.make_jaxpr(explicit)(x, w))


def test_a_table_survives_its_file_and_refuses_what_it_does_not_know():
    table = candidates.Table([(layer("kernel", SIZES[0]), "wide_flipped:1x2")])
    again = candidates.Table.of(json.loads(json.dumps(table.plain())))
    assert again == table and hash(again) == hash(table)
    rows = table.plain()
    rows[0]["program"] = "winograd"
    with pytest.raises(ValueError, match="'winograd' is no program of the function 'kernel'"):
        candidates.Table.of(rows)


def test_programs_are_offered_where_they_can_win():
    of = lambda what, *size: candidates.names(layer(what, size))  # noqa: E731
    same = ((1, 1), (1, 1))
    narrow = ((28, 28), (3, 3), (1, 1), same, 1, 16)
    wide = ((7, 7), (3, 3), (1, 1), same, 64, 64)
    strided = ((28, 28), (3, 3), (2, 2), same, 16, 32)
    assert of("forward", *narrow) == ["patches", "ordinary", "wide:1x2", "wide:2x2", "wide:2x4"]
    assert of("kernel", *wide) == ["patches", "flipped", "spectral"]
    assert of("input", *strided) == ["patches", "ordinary"]


def test_a_row_that_is_not_finite_stays_in_its_row():
    """Private sums rely on it."""
    at = convolution.windows((2, 6, 6, 2), 3, 1, 1)
    x = jnp.ones((2, 6, 6, 2)).at[1, 3, 3].set(jnp.inf)
    w = jnp.ones((3, 3, 2, 4))
    for program in (functools.partial(wide_windows.forward, (2, 2)), spectral.forward):
        y = jax.jit(functools.partial(program, at))(x, w)
        assert jnp.isfinite(y[0]).all() and not jnp.isfinite(y[1]).all()


def test_gradients_of_units_by_strips_are_those_of_all_patches():
    """Two rows of a unit add up; without a choice the product is that of the whole matrix."""
    at = convolution.windows((6, 7, 5, 2), (3, 2), (2, 1), 1)
    x = jax.random.normal(jax.random.key(0), (6, 7, 5, 2))
    g = jax.random.normal(jax.random.key(1), (6, *at.out, 4))
    gradients = jax.jit(lambda x, g: convolution.unit_kernel_gradients(at, x, g, 3))
    expected = gradients(x, g)
    with convolution.chosen(candidates.Table()):
        by_strips = gradients(x, g)
    np.testing.assert_allclose(by_strips, expected, atol=1e-5)
    whole = convolution.ORDINARY["kernel"](at, x, g)
    np.testing.assert_allclose(by_strips.sum(0).reshape(whole.shape), whole, atol=1e-4)


@pytest.mark.parametrize("units", [8, 4])
def test_gradients_of_units_in_blocks_have_the_bits_of_all_at_once(monkeypatch, units):
    at = convolution.windows((8, 9, 8, 3), 3, 1, "SAME")
    x = jax.random.normal(jax.random.key(0), (8, 9, 8, 3))
    g = jax.random.normal(jax.random.key(1), (8, *at.out, 4))

    def gradients():
        compiled = jax.jit(lambda x, g: convolution.unit_kernel_gradients(at, x, g, units))
        return compiled.lower(x, g).as_text(), compiled(x, g)

    text, whole = gradients()
    assert "while" not in text
    monkeypatch.setattr(convolution, "_BLOCK_BYTES", 1)
    text, blocks = gradients()
    assert "while" in text and np.array_equal(blocks, whole)
