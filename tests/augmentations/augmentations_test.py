"""Query views against SciPy and by hand; each example is augmented by its own key only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mia_jax import augmentations, query_views


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def keys(n: int) -> jax.Array:
    return jax.random.split(jax.random.key(1), n)


@pytest.mark.parametrize(
    "size, degrees",
    [  # every angle and every size, odd and even sides; all pairs in test-all
        pytest.param(
            size,
            degrees,
            marks=() if size == (7, 10) or degrees in (-7.5, 123.4) else pytest.mark.slow,
        )
        for size in ((8, 8), (7, 10), (28, 28))
        for degrees in (0, 3, -7.5, 45, 90, 123.4)
    ],
)
def test_rotation_equals_scipy(size, degrees):
    x = images(2, *size, 3)
    (view,) = query_views.make([f"rotate:{degrees}"])
    expected = ndimage.rotate(x, degrees, axes=(1, 2), reshape=False, order=3, mode="constant")
    np.testing.assert_allclose(jax.jit(view)(x), expected, atol=1e-5)


def test_rotation_is_counterclockwise():
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 0, 1] = 1  # top, in the middle
    assert np.argmax(query_views.make(["rotate:90"])[0](x)) == 3  # left, in the middle


def test_shift_and_flip_by_hand():
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    views = query_views.make(["identity", "flip", "shift:1,0", "shift:0,-1", "shift:-5,1"])
    expected = [
        [[0, 1, 2], [3, 4, 5]],
        [[2, 1, 0], [5, 4, 3]],
        [[0, 1, 2], [0, 1, 2]],
        [[1, 2, 2], [4, 5, 5]],
        [[3, 3, 4], [3, 3, 4]],
    ]
    for view, value in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view(x)[0, :, :, 0], value)


@pytest.mark.parametrize("dy, dx", [(2, -1), (-3, 4)])
def test_shift_equals_scipy(dy, dx):
    x = images(2, 9, 7, 3)
    expected = ndimage.shift(x, (0, dy, dx, 0), order=0, mode="nearest")
    np.testing.assert_array_equal(query_views.make([f"shift:{dy},{dx}"])[0](x), expected)


def test_views_of_an_example_do_not_depend_on_the_batch():
    x = images(6, 8, 8, 1)
    for view in query_views.make(["flip", "shift:1,2", "rotate:10"]):
        alone = jax.jit(view)(x[3:4])
        np.testing.assert_allclose(jax.jit(view)(x)[3], alone[0], atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "mirror",
        "shift",
        "shift:1",
        "shift:1,2,3",
        "shift:a,b",
        "shift:.5,1",
        "rotate:",
        "rotate:nan",
        "flip:1",
        "",
    ],
)
def test_malformed_views(name):
    with pytest.raises(
        ValueError,
        match=r"there is no view .*Forms: 'flip', 'identity', 'rotate:degrees', 'shift:dy,dx'",
    ):
        query_views.make([name])


def test_views_must_be_a_list():
    for wrong in ("flip", []):
        with pytest.raises(ValueError, match="must be a list"):
            query_views.make(wrong)


def test_data_without_images():
    x = images(4, 64)
    np.testing.assert_array_equal(query_views.make(["identity"])[0](x), x)
    for name in ("flip", "shift:1,0", "rotate:5"):
        with pytest.raises(
            ValueError,
            match=rf"view '{name}' needs images \[B,H,W,C\]; these examples have shape \(64,\)",
        ):
            query_views.make([name])[0](x)
    with pytest.raises(ValueError, match="augmentation 'flip' needs images"):
        augmentations.make(["flip"])(x, keys(4))


@pytest.mark.parametrize(
    "spec", ["identity", "shift:1,1", "shift:-1", "crop", "rotate:x", "rotate:inf"]
)
def test_malformed_augmentation(spec):
    with pytest.raises(ValueError):
        augmentations.make([spec])
    with pytest.raises(ValueError, match="must be a list"):
        augmentations.make("flip")


SPECS = ["flip", "crop:2", "shift:1", "rotate:20"]


def augmented(specs: list[str], x: np.ndarray, key_B: jax.Array) -> np.ndarray:
    return np.asarray(jax.jit(augmentations.make(specs))(x, key_B))


def test_augmentation_of_an_example_depends_on_its_key_alone():
    x, key_B = images(8, 10, 12, 3), keys(8)
    apply = jax.jit(augmentations.make(SPECS))
    out = apply(x, key_B)
    assert out.shape == x.shape and out.dtype == jnp.float32
    order = np.array([5, 0, 7, 5, 1, 2, 3, 6])
    np.testing.assert_array_equal(apply(x[order], key_B[order]), out[order])
    others = np.where(np.arange(8)[:, None, None, None] == 2, x, 0)
    np.testing.assert_array_equal(apply(others, key_B)[2], out[2])
    np.testing.assert_allclose(augmented(SPECS, x[4:6], key_B[4:6]), out[4:6], atol=1e-6)
    assert not np.allclose(apply(x, keys(9)[1:]), out)


def test_both_images_of_a_pair_change_on_their_own():
    x_BHWC = jnp.asarray(np.random.default_rng(0).random((30, 6, 6, 1)), jnp.float32)
    pair_B2HWC, keys = jnp.stack([x_BHWC, x_BHWC], axis=1), jax.random.split(jax.random.key(1), 30)
    changed = augmentations.make(["shift:2"])(pair_B2HWC, keys)
    assert changed.shape == pair_B2HWC.shape and not np.array_equal(changed[:, 0], changed[:, 1])
    key_B2 = jax.vmap(lambda key: jax.random.split(key, 2))(keys)
    for side in range(2):
        np.testing.assert_array_equal(
            changed[:, side], augmentations.make(["shift:2"])(x_BHWC, key_B2[:, side])
        )


def test_augmentation_under_vmap_and_scan():
    x, key_B = images(4, 6, 6, 1), keys(4)
    apply = augmentations.make(SPECS)
    expected = augmented(SPECS, x, key_B)
    both = jnp.stack([key_B, key_B])
    models = jax.jit(jax.vmap(apply, in_axes=(None, 0)))(x, both)
    _, steps = jax.jit(lambda k: jax.lax.scan(lambda carry, key_B: (carry, apply(x, key_B)), 0, k))(
        both
    )
    for out in (*models, *steps):
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_no_augmentation_is_the_identity():
    x = images(2, 5)
    np.testing.assert_array_equal(augmentations.make([])(x, keys(2)), x)


def test_flip_happens_half_the_time():
    x = np.broadcast_to(images(1, 2, 4, 1), (2000, 2, 4, 1))
    out = augmented(["flip"], x, keys(2000))
    flipped = (out == x[:, :, ::-1]).all((1, 2, 3))
    assert ((out == x).all((1, 2, 3)) | flipped).all() and abs(
        flipped.mean() - 0.5
    ) < 4 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize("spec, mode", [("shift:2", "edge"), ("crop:2", "reflect")])
def test_every_shift_is_equally_likely(spec, mode):
    n, x = 2500, images(1, 5, 5, 1)
    out = augmented([spec], np.broadcast_to(x, (n, 5, 5, 1)), keys(n))
    padded = np.pad(x[0], ((2, 2), (2, 2), (0, 0)), mode=mode)
    counts = [
        (out == padded[i : i + 5, j : j + 5]).all((1, 2, 3)).sum()
        for i in range(5)
        for j in range(5)
    ]
    assert sum(counts) == n and np.abs(np.array(counts) - n / 25).max() < 4.5 * np.sqrt(n / 25)


def test_random_rotation_stays_in_range():
    n, size = 400, 41
    x = np.zeros((n, size, size, 1), np.float32)
    x[:, 2, 20] = 1  # 18 pixels above the center
    out = augmented(["rotate:30"], x, keys(n))[..., 0]
    row, column = (
        (out * grid).sum((1, 2)) / out.sum((1, 2)) - 20 for grid in np.mgrid[:size, :size]
    )
    angle = np.degrees(np.arctan2(-column, -row))
    assert (
        np.abs(angle).max() < 31.5
        and angle.min() < -26
        and angle.max() > 26
        and abs(angle.mean()) < 4 * 17.3 / np.sqrt(n)
    )


def test_random_rotation_is_bilinear():
    x = images(3, 9, 9, 2)
    out = augmented(["rotate:40"], x, keys(3))
    for image, turned in zip(x, out):
        angles = np.linspace(-40, 40, 801)
        errors = [
            np.abs(
                ndimage.rotate(image, a, reshape=False, order=1)[2:-2, 2:-2] - turned[2:-2, 2:-2]
            ).max()
            for a in angles
        ]
        assert min(errors) < 2e-3
    np.testing.assert_allclose(augmented(["rotate:0"], x, keys(3)), x, atol=1e-6)
