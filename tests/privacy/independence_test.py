"""Tests the data-flow analysis: it overlooks no dependence that running a program shows.

It must also follow the operations of which networks and objectives consist.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.custom_batching import custom_vmap

from mia_jax.models import layers
from mia_jax.privacy.independence import programs, walk

B, F = 6, 4
Y = np.arange(B) % F
APART, MIXED = True, False
NHWC, NHC = ("NHWC", "HWIO", "NHWC"), ("NHC", "HIO", "NHC")


def matrices(x):
    return x[:, :, None] * x[:, None, :] + 3 * jnp.eye(F)[None]


def images(x):
    return (
        jnp.broadcast_to(x[:, :, None, None], (B, F, F, 2)) * jnp.arange(1.0, 3.0)[None, None, None]
    )


def kernel(*shape):
    return jnp.cos(jnp.arange(float(np.prod(shape)))).reshape(shape)


def loop_over_rows(x, read=lambda x, i: x[i]):
    return lax.fori_loop(0, B, lambda i, out: out.at[i].set(2 * read(x, i)), jnp.zeros_like(x))


def recurrent(x):
    def step(state, column):
        state = jnp.tanh(state + column)
        return state, state

    return lax.scan(step, jnp.zeros(B), x.T)[1].T


def newton(x):
    return lax.while_loop(
        lambda s: jnp.abs(s[0] ** 2 - s[1]).max() > 1e-3,
        lambda s: ((s[0] + s[1] / s[0]) / 2, s[1]),
        (1 + x * x, 1 + x * x),
    )[0]


def pooled_gradient(x):
    return jax.grad(lambda x: jnp.square(layers.max_pool(images(x), (3, 3), (2, 2))).sum())(x)


def windows_gradient(x):
    def pool(x):
        return lax.reduce_window(images(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    return jax.grad(lambda x: jnp.square(pool(x)).sum())(x)


def polynomial(x, coefficients):
    """Evaluates a polynomial: by one primitive since jax 0.12, by Horner's rule before."""
    if hasattr(lax, "polynomial"):
        return lax.polynomial(x, list(coefficients))
    return jnp.polyval(coefficients[::-1], x)


CASES = dict(
    elementwise=(
        lambda x: jnp.where(x > 0, jnp.tanh(x), jnp.clip(x, -1, 1)) ** 2 + jax.nn.gelu(x),
        APART,
    ),
    elementwise_gradient=(  # jax 0.12 has primitives for 1 - x^2 and log2
        lambda x: jax.grad(lambda x: (jnp.tanh(x) + jnp.log2(1 + x * x) + lax.erf(x)).sum())(x),
        APART,
    ),
    tanh_over_batch=(lambda x: jax.grad(lambda x: jnp.tanh(x.sum(0)).sum())(x), MIXED),
    polynomial=(lambda x: polynomial(x, kernel(3)), APART),
    polynomial_over_batch=(lambda x: polynomial(x, x.sum(0)[:3]), MIXED),
    softmax=(lambda x: jax.nn.log_softmax(x), APART),
    logsumexp_over_batch=(lambda x: x - jax.nn.logsumexp(x, 0, keepdims=True), MIXED),
    argmax=(lambda x: x.argmax(1) + jnp.argmin(x, 1), APART),
    argmax_over_batch=(lambda x: x + x[x[:, 0].argmax()][None], MIXED),
    product=(lambda x: x @ kernel(F, 5), APART),
    product_across=(lambda x: (x @ x.T) @ kernel(B, 2), MIXED),
    product_of_rows=(lambda x: jnp.einsum("bf,bg->bfg", x, x), APART),
    batched_product_moved=(
        lambda x: jnp.einsum("bfg,bgh->hbf", matrices(x), matrices(x)).transpose(1, 0, 2),
        APART,
    ),
    merged=(lambda x: (x.reshape(B * 2, 2) @ kernel(2, 3)).reshape(B, 6), APART),
    merged_wrongly=(lambda x: x.T.reshape(B, F) @ kernel(F, 3), MIXED),
    blocks=(
        lambda x: lax.map(lambda part: jnp.tanh(part) @ kernel(F, 2), x.reshape(3, 2, F)).reshape(
            B, 2
        ),
        APART,
    ),
    transposed_twice=(lambda x: jnp.cumsum(x.T, 0).T, APART),
    cumulative=(lambda x: jnp.cumsum(x, 1), APART),
    cumulative_over_batch=(lambda x: jnp.cumsum(x, 0), MIXED),
    cumulative_backwards=(lambda x: lax.cummax(x, axis=0, reverse=True), MIXED),
    sort=(lambda x: jnp.sort(x, 1) + jnp.argsort(x, 1), APART),
    sort_over_batch=(lambda x: jnp.sort(x, 0), MIXED),
    top_k=(lambda x: lax.top_k(x, 2)[0], APART),
    top_k_over_batch=(lambda x: x - lax.top_k(x.T, 2)[0].min(1)[None], MIXED),
    concatenated=(lambda x: jnp.concatenate([x, 2 * x, jnp.ones((B, 1))], 1), APART),
    concatenated_rows=(lambda x: jnp.concatenate([x[:2], x[2:]]), APART),
    shuffled_rows=(lambda x: jnp.concatenate([x[3:], x[:3]]), MIXED),
    rolled=(lambda x: jnp.roll(x, 1, 0), MIXED),
    flipped=(lambda x: x[::-1], MIXED),
    flipped_twice=(lambda x: x[::-1][::-1], APART),
    padded=(lambda x: jnp.pad(x, ((1, 2), (1, 0)))[1 : 1 + B], APART),
    padded_wrongly=(lambda x: jnp.pad(x, ((1, 0), (0, 0)))[:B], MIXED),
    spread=(lambda x: lax.pad(x, 0.0, [(0, 0, 1), (0, 0, 0)])[::2], APART),
    repeated=(lambda x: jnp.repeat(x, 2, 0).reshape(B, -1), APART),
    tiled=(lambda x: jnp.tile(x, (2, 1)).reshape(B, -1), MIXED),
    picked=(lambda x: x[jnp.arange(B), Y], APART),
    picked_by_data=(lambda x: x[jnp.arange(B), x.argmax(1)], APART),
    picked_along=(lambda x: jnp.take_along_axis(x, x.argmax(1)[:, None], 1), APART),
    picked_wrongly=(lambda x: x[jnp.arange(B)[::-1], x.argmax(1)], MIXED),
    picked_columns=(lambda x: x[:, jnp.array([0, 2])], APART),
    table=(lambda x: kernel(9, 2)[(jnp.abs(x) * 3).astype(int) % 9].mean(1), APART),
    table_of_rows=(lambda x: x[(jnp.abs(x[:, 0]) * 3).astype(int) % B], MIXED),
    set_at=(lambda x: x.at[jnp.arange(B), x.argmax(1)].set(0.0), APART),
    added_at=(
        lambda x: jnp.zeros((B, 3)).at[jnp.arange(B), (x[:, 0] > 0).astype(int)].add(x[:, 1]),
        APART,
    ),
    added_wrongly=(
        lambda x: jnp.zeros((B, 3)).at[(x[:, 0] > 0).astype(int), 0].add(x[:, 1]),
        MIXED,
    ),
    counted=(
        lambda x: (
            jnp.zeros((B, 9)).at[jnp.arange(B)[:, None], (jnp.abs(x) * 3).astype(int) % 9].add(1.0)
        ),
        APART,
    ),
    added_past_the_end=(
        lambda x: jnp.zeros((B, F)).at[jnp.arange(B) + 2].set(x, mode="clip"),
        MIXED,
    ),
    window_past_the_end=(
        lambda x: lax.scatter(
            jnp.zeros((B, F)),
            jnp.array([[5]]),
            x[None, :4],
            lax.ScatterDimensionNumbers(
                update_window_dims=(1, 2),
                inserted_window_dims=(),
                scatter_dims_to_operand_dims=(0,),
            ),
            mode="clip",
        ),
        MIXED,
    ),
    window_shifted=(
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1), (1, 1), [(1, -1), (0, 0)]),
        MIXED,
    ),
    segments=(lambda x: jax.ops.segment_sum(x, jnp.array([0, 0, 1, 1, 2, 2]), B), MIXED),
    gradient_of_picking=(
        lambda x: jax.grad(lambda x: -jax.nn.log_softmax(x)[jnp.arange(B), Y].sum())(x),
        APART,
    ),
    gradient_of_a_table=(
        lambda x: jax.grad(lambda w: jnp.square(w[(jnp.abs(x) * 3).astype(int) % 9]).sum())(
            kernel(9, 2)
        )[:B],
        MIXED,
    ),
    dynamic=(lambda x: lax.dynamic_slice(x, (0, 1), (B, 2)), APART),
    dynamic_by_data=(
        lambda x: lax.dynamic_slice(jnp.tile(x, (2, 1)), ((x[0, 0] > 0).astype(int), 0), (B, F)),
        MIXED,
    ),
    updated=(lambda x: lax.dynamic_update_slice(x, jnp.ones((B, 1)), (0, 2)), APART),
    updated_wrongly=(lambda x: lax.dynamic_update_slice(x, x[:1], (3, 0)), MIXED),
    rows_in_a_loop=(loop_over_rows, APART),
    other_rows_in_a_loop=(lambda x: loop_over_rows(x, lambda x, i: x[B - 1 - i]), MIXED),
    recurrent=(recurrent, APART),
    state_over_the_batch=(
        lambda x: lax.scan(lambda s, r: (s + r, s + r), jnp.zeros(F), x)[1],
        MIXED,
    ),
    map_over_rows=(lambda x: lax.map(lambda row: jnp.sort(row), x), APART),
    map_over_indices=(lambda x: lax.map(lambda i: 2 * x[i], jnp.arange(B)), APART),
    map_over_other_indices=(lambda x: lax.map(lambda i: 2 * x[B - 1 - i], jnp.arange(B)), MIXED),
    scan_backwards=(lambda x: lax.scan(lambda s, r: (s, 2 * r), 0.0, x, reverse=True)[1], APART),
    loop_until_all=(newton, MIXED),
    fixed_loop=(lambda x: lax.fori_loop(0, 5, lambda i, s: jnp.tanh(s + i), x), APART),
    condition=(lambda x: lax.cond(jnp.array(True), jnp.sin, jnp.cos, x), APART),
    condition_on_batch=(lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), MIXED),
    switch_on_first=(lambda x: lax.switch((x[0, 0] > 0).astype(int), [jnp.sin, jnp.cos], x), MIXED),
    gate=(lambda x: jnp.where(x.mean(1, keepdims=True) > 0, x, -x), APART),
    gate_on_batch=(lambda x: jnp.where(x.mean() > 0, x, -x), MIXED),
    convolution=(lambda x: layers.convolution(images(x), kernel(3, 3, 2, 3)), APART),
    convolution_lax=(
        lambda x: layers.convolution(images(x), kernel(3, 3, 2, 3), form="lax"),
        APART,
    ),
    convolution_depthwise=(
        lambda x: lax.conv_general_dilated(
            images(x),
            kernel(3, 3, 1, 4),
            (1, 1),
            "SAME",
            dimension_numbers=NHWC,
            feature_group_count=2,
        ),
        APART,
    ),
    convolution_gradient=(
        lambda x: jax.grad(
            lambda x: jnp.square(layers.convolution(images(x), kernel(3, 3, 2, 3), 2, "SAME")).sum()
        )(x),
        APART,
    ),
    batch_as_pixels=(
        lambda x: layers.convolution(x[None, :, :, None], kernel(3, 1, 1, 2), padding="SAME")[0],
        MIXED,
    ),
    batch_as_channels=(
        lambda x: (
            lax.conv_general_dilated(
                x.T[None],
                kernel(1, 1, B),
                (1,),
                "SAME",
                dimension_numbers=NHC,
                feature_group_count=B,
            )[0].T
        ),
        APART,
    ),
    pooling=(lambda x: layers.max_pool(layers.avg_pool(images(x), (2, 2)), (2, 2)), APART),
    pooling_gradient=(pooled_gradient, APART),
    windows_gradient=(windows_gradient, APART),
    windows_over_batch=(
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 1), (1, 1), "SAME"),
        MIXED,
    ),
    resized=(lambda x: jax.image.resize(images(x), (B, 3, 3, 2), "bilinear"), APART),
    fourier=(lambda x: jnp.abs(jnp.fft.fft(x)), APART),
    fourier_over_batch=(lambda x: jnp.abs(jnp.fft.fft(x, axis=0)), MIXED),
    cholesky=(lambda x: jnp.linalg.cholesky(matrices(x)), APART),
    solved=(lambda x: jnp.linalg.solve(matrices(x), x[:, :, None])[:, :, 0], APART),
    solved_together=(lambda x: jnp.linalg.solve(x.T @ x + jnp.eye(F), x.T).T, MIXED),
    eigenvalues=(lambda x: jnp.linalg.eigh(matrices(x))[0], APART),
    random=(
        lambda x: (
            x
            + jax.vmap(lambda k: jax.random.normal(k, (F,)))(jax.random.split(jax.random.key(0), B))
        ),
        APART,
    ),
    random_by_data=(
        lambda x: jax.vmap(lambda v: jax.random.uniform(jax.random.key(v), (2,)))(
            (x[:, 0] * 9).astype(int)
        ),
        APART,
    ),
    one_hot=(lambda x: jax.nn.one_hot(x.argmax(1), F), APART),
    quantile=(lambda x: jnp.median(x, 1), APART),
    quantile_over_batch=(lambda x: x - jnp.median(x, 0, keepdims=True), MIXED),
    ranks=(lambda x: x + jnp.searchsorted(jnp.sort(x[:, 0]), x[:, 0])[:, None], MIXED),
    bits=(
        lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32), jnp.float32),
        APART,
    ),
    halves=(lambda x: lax.bitcast_convert_type(x, jnp.uint16), APART),
    weights=(lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True), APART),
    normalized_together=(lambda x: x / jnp.linalg.norm(x), MIXED),
    checkpointed=(
        lambda x: jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(jnp.cos(x)).sum())(x))(x),
        APART,
    ),
    split=(lambda x: jnp.split(x, 2, 1)[0] * jnp.split(x, 2, 1)[1], APART),
    split_rows=(lambda x: jnp.concatenate(jnp.split(x, 2)[::-1]), MIXED),
    inverse=(lambda x: jax.vmap(lambda m, v: jnp.linalg.inv(m) @ v)(matrices(x), x), APART),
    vmapped_loop=(
        lambda x: jax.vmap(lambda v: lax.fori_loop(0, 3, lambda i, s: jnp.sin(s) + v[i], v))(x),
        APART,
    ),
    unused=(lambda x: (x.sum(), jnp.sin(x))[1], APART),
    batch_first_of_many=(lambda x: jnp.moveaxis(jnp.stack([x.T, 2 * x.T]), 2, 0), APART),
)


def rows_change(f, x) -> bool:
    """Returns whether a row of f(x) changes when another row of x does."""
    f, rng = jax.jit(f), np.random.default_rng(1)
    before = np.asarray(f(x))
    for b in range(B):
        for scale in (1.0, 1.0, -10.0, 10.0):
            after = np.asarray(f(x.at[b].set(scale * rng.standard_normal(F).astype(np.float32))))
            others = [i for i in range(B) if i != b]
            if not np.array_equal(before[others], after[others], equal_nan=True):
                return True
    return False


@pytest.mark.parametrize("name", CASES)
def test_what_running_shows_is_never_overlooked_and_what_is_apart_is_seen(name):
    f, apart = CASES[name]
    x = jax.random.normal(jax.random.key(0), (B, F))
    assert rows_change(f, x) is not apart, "the table of this test is wrong"
    place = walk.separate(f, (x,), (B,))
    assert (place == "") is apart, place


def test_rows_of_one_unit_may_meet_and_rows_of_two_may_not():
    x = jnp.zeros((B, F))
    pairs = lambda x: x.reshape(3, 2, F).mean(1)  # noqa: E731
    assert walk.separate(pairs, (x,), (3,)) == ""
    assert walk.separate(lambda x: pairs(jnp.roll(x, 1, 0)), (x,), (3,)) != ""
    assert walk.separate(lambda x: x[:3] * x[3:], (x,), (3,)) != ""


def test_an_argument_without_data_may_reach_everything():
    x, w = jnp.zeros((B, F)), jnp.zeros((B, F))
    assert walk.separate(lambda x, w: x + w.sum(0)[None], (x, w), (B, None)) == ""
    assert walk.separate(lambda x, w: x + w.sum(0)[None], (x, w), (B, B)) != ""


def test_where_rows_meet_is_said_with_file_and_line():
    assert "`reduce_sum` (privacy/independence_test.py:" in walk.separate(
        lambda x: x + x.sum(0)[None], (jnp.zeros((B, F)),), (B,)
    )


def test_an_operation_without_a_rule_is_taken_for_one_that_mixes():
    def host(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((B, F), jnp.float32), x)

    assert "pure_callback" in walk.separate(host, (jnp.zeros((B, F)),), (B,))
    assert "pure_callback" in programs.opaque(jax.make_jaxpr(host)(jnp.zeros((B, F))))


def test_a_program_that_is_too_large_is_not_called_apart(monkeypatch):
    monkeypatch.setattr(walk.Analysis.__init__, "__defaults__", (10,))
    assert "too large" in walk.separate(lambda x: x + x, (jnp.zeros((B, F)),), (B,))


@custom_vmap
def doubled(x):
    return 2 * x


@doubled.def_vmap
def _(size, batched, x):
    return 2 * x + x.sum(0, keepdims=True), True


@jax.custom_vjp
def reversed_gradient(x):
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, g: (-g,))


def test_rules_of_batching_and_differentiation_of_others_are_found_and_ours_are_trusted():
    x = jnp.zeros((B, F))

    def ours(x):
        return (
            layers.max_pool(layers.convolution(images(x), kernel(3, 3, 2, 3)), (2, 2)).sum()
            + jax.nn.relu(x).sum()
        )

    for function in (ours, jax.grad(ours)):
        closed = jax.make_jaxpr(function)(x)
        assert programs.opaque(closed) == programs.derivatives(closed) == ""
    assert (
        "custom_vmap" in programs.opaque(jax.make_jaxpr(jax.jit(doubled))(x))
        and walk.separate(doubled, (x,), (B,)) != ""
    )
    assert "custom_vjp" in programs.derivatives(jax.make_jaxpr(jax.jit(reversed_gradient))(x))
