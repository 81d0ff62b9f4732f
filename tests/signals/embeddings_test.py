"""Values by hand: embeddings, goodness, leverages, and the standardized convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import registry
from mia_jax.attacks import leverage, pair_distance
from mia_jax.models import forward_forward, layers
from mia_jax.runtime.stacks import Stack
from mia_jax.types import Probe, classification
from tests import toys


def probe(inside):
    return Probe(label=None, inside=inside)


def test_view_similarity_is_the_mean_cosine_of_the_pairs_of_views():
    x_B = jax.random.uniform(jax.random.key(0), (3, 4, 4, 1))
    keys = jax.random.split(jax.random.key(1), 3)
    seen = []

    def inside(x):
        seen.append(np.asarray(x))
        return dict(penultimate=x.reshape(len(x), -1) - 0.5)

    value_B = registry.make("signals", "view_similarity", dict(views=3)).ask(
        probe(inside), x_B, jnp.zeros(3, jnp.int32), keys
    )
    embedded = np.stack(seen).reshape(3, 3, -1) - 0.5
    unit = embedded / np.linalg.norm(embedded, axis=-1, keepdims=True)
    pairs = [(unit[a] * unit[b]).sum(-1) for a in range(3) for b in range(a)]
    np.testing.assert_allclose(value_B, np.mean(pairs, 0), atol=1e-5)
    assert not np.array_equal(seen[0], seen[1])  # the views differ
    still = registry.make("signals", "view_similarity", dict(views=3, shift=0, noise=0.0)).ask(
        probe(inside), x_B, None, keys
    )
    np.testing.assert_allclose(still, 1, atol=1e-5)  # views that do not differ are alike
    nothing = registry.make("signals", "view_similarity").ask(
        probe(lambda x: dict(penultimate=jnp.zeros((len(x), 2)))), x_B, None, keys
    )
    np.testing.assert_array_equal(nothing, 0)


def test_distances_to_the_population_are_those_of_a_plain_loop(monkeypatch):
    rng = np.random.default_rng(0)
    value_NE, y_N, population_N = rng.normal(size=(12, 3)), np.arange(12) % 3, np.arange(12) >= 8
    y_N[:2] = 7  # a class that the population lacks
    distances = pair_distance.distances(value_NE[None], y_N, population_N)
    for n in range(12):
        for kind in ("same", "different"):
            rows = [
                z for z in np.flatnonzero(population_N) if (y_N[z] == y_N[n]) == (kind == "same")
            ] or list(np.flatnonzero(population_N))
            expected = np.mean([np.linalg.norm(value_NE[n] - value_NE[z]) for z in rows])
            assert distances[kind][0, n] == pytest.approx(expected), (n, kind)
    monkeypatch.setattr(pair_distance, "SIZE", 12)  # blocks of 3 examples
    stack = Stack([value_NE], shape=(1, 12, 3), dtype=float, axis=0)
    for value in (value_NE[None], stack):
        again = pair_distance.distances(value, y_N, population_N)
        assert all((again[kind] == distances[kind]).all() for kind in distances)
    with pytest.raises(ValueError, match="0 population rows"):
        pair_distance.distances(value_NE, y_N, np.zeros(12, bool))


def test_leverages_are_the_hat_matrix_and_weigh_the_residuals():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 2))
    ones = np.c_[np.ones(30), x]
    hat = np.diag(ones @ np.linalg.inv(ones.T @ ones) @ ones.T)
    np.testing.assert_allclose(leverage.leverages(x, members=30, ridge=1e-12), hat, rtol=1e-6)
    np.testing.assert_allclose(leverage.leverages(x, members=15, ridge=1e-12), 2 * hat, rtol=1e-6)
    attack = leverage.make(signal="squared_loss", members=30, ridge=1e-12)
    loss_N = rng.random(30)

    class Seen:
        evaluated_N, target = np.ones(30, bool), dict(squared_loss=loss_N[None])

    Seen.x = x
    gain = ((1 + hat) - 1 / (1 + hat)) / 2
    expected = (1 - loss_N / loss_N.mean()) * gain
    np.testing.assert_allclose(attack.score(Seen, None), expected, rtol=1e-6)
    assert (
        np.argmax(attack.score(Seen, None)) != np.argmin(loss_N)
        or gain[np.argmin(loss_N)] == gain.max()
    )


def test_goodness_is_the_output_of_the_label_and_sums_over_layers():
    net = forward_forward.make(num_classes=3, widths=(5, 4))
    x = jax.random.uniform(jax.random.key(0), (6, 4, 4, 1))
    variables, y = net.init(jax.random.key(1), x), jnp.arange(6) % 3
    out = net.apply(variables, x)[0]
    goodness = registry.make("signals", "goodness").measure(
        out, toys.examples(y, task=classification(3))
    )
    np.testing.assert_array_equal(goodness, np.asarray(out)[np.arange(6), np.asarray(y)])
    layered = registry.make("signals", "layer_goodness").ask(
        probe(lambda x: net.inside(variables, x)), x, y, None
    )
    assert layered.shape == (6, 2)
    np.testing.assert_allclose(layered.sum(1), goodness, rtol=1e-5)
    goodness_BCL = np.asarray(net.inside(variables, x)["goodness"])
    for name, layer in (("layer_goodness:layer=2", 1), ("layer_goodness:layer=1,margin=True", 0)):
        signal = registry.make("signals", name)
        values = signal.ask(probe(lambda x: net.inside(variables, x)), x, y, None)
        own_B = goodness_BCL[np.arange(6), np.asarray(y), layer]
        others_B = [max(goodness_BCL[b, c, layer] for c in range(3) if c != y[b]) for b in range(6)]
        np.testing.assert_allclose(
            values, own_B - others_B if "margin" in name else own_B, rtol=1e-5
        )
        assert signal.sign == 1
    with pytest.raises(ValueError, match="layer=3: the net has 2 layers"):
        registry.make("signals", "layer_goodness:layer=3").ask(
            probe(lambda x: net.inside(variables, x)), x, y, None
        )


def test_a_standardized_kernel_has_mean_0_and_variance_1_over_its_fan_in():
    layer = layers.StandardizedConv(4, padding="VALID")
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    variables = layer.init(jax.random.key(1), x)
    variables["params"]["gain"] = jnp.arange(1.0, 5)
    variables["params"]["bias"] = jnp.arange(4.0)
    kernel = np.asarray(variables["params"]["kernel"], np.float64).reshape(27, 4)
    plain = (kernel - kernel.mean(0)) / np.sqrt(27 * kernel.var(0) + 1e-8) * np.arange(1.0, 5)
    expected = layers.convolution(
        x, jnp.asarray(plain.reshape(3, 3, 3, 4), jnp.float32)
    ) + jnp.arange(4.0).reshape(1, 1, 1, 4)
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)
