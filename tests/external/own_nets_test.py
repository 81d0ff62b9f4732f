"""Tests the user's own flax nets: they are accepted as they are and become a Model, or they are
refused with the signature that is needed.
"""

import pathlib
import textwrap

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import configuration, registry
from mia_jax.models import _linen, layers
from mia_jax.pipeline import run
from tests.launching import launch

X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(1), 6)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(8)(x)))


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(16)(x))))


class Deterministic(nn.Module):
    def setup(self):
        self.hidden, self.drop, self.out = nn.Dense(16), nn.Dropout(0.5), nn.Dense(3)

    def __call__(self, x, *, deterministic=True):
        return self.out(self.drop(nn.relu(self.hidden(x)), deterministic=deterministic))


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, x, *, train: bool = False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.relu(x))


class OursNormalized(nn.Module):
    """The same net as Normalized, made of this package's layers."""

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        x = layers.BatchNorm(momentum=0.9, epsilon=1e-5)(
            layers.Dense(8)(x), weight_B=weight_B, train=train
        )
        return layers.Dense(3)(nn.relu(x))


def sequential():
    return nn.Sequential([nn.Dense(16), nn.relu, nn.Dropout(0.5), nn.Dense(3)])


@pytest.mark.parametrize(
    "net",
    [Plain(), Dropping(), Deterministic(), Normalized(), sequential()],
    ids=lambda net: type(net).__name__,
)
def test_an_ordinary_net_is_a_model(net):
    model = layers.as_model(net)
    variables = model.init(jax.random.key(0), X)
    out, stats = model.apply(variables, X)
    assert out.shape == (6, 3) and jax.tree.structure(stats) == jax.tree.structure(
        variables.get("stats", {})
    )
    assert np.array_equal(out, model.apply(variables, X)[0]) and "total" in model.summary(X[:1])
    assert model.inside(variables, X)["penultimate"].shape[0] == 6
    train, stats = model.apply(
        variables, X, key_B=KEYS, weight_B=np.ones(6, np.float32), train=True
    )
    assert train.shape == (6, 3) and np.isfinite(train).all()


@pytest.mark.parametrize(
    "net", [Dropping(), Deterministic(), sequential()], ids=lambda net: type(net).__name__
)
def test_the_dropout_of_an_example_depends_only_on_its_key(net):
    model = layers.as_model(net)
    variables = model.init(jax.random.key(0), X)
    together = model.apply(variables, X, key_B=KEYS, train=True)[0]
    assert not np.allclose(together, model.apply(variables, X)[0])
    order = np.array([3, 0, 5])
    np.testing.assert_allclose(
        model.apply(variables, X[order], key_B=KEYS[order], train=True)[0],
        together[order],
        rtol=1e-5,
        atol=1e-6,
    )
    assert not np.allclose(model.apply(variables, X, key_B=KEYS[::-1], train=True)[0], together)


def test_two_dropouts_of_a_net_drop_different_units():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            ones, drop = jnp.ones((x.shape[0], 400)), nn.Dropout(0.5, deterministic=not train)
            return jnp.stack(
                [
                    drop(ones).mean(-1),
                    drop(ones).mean(-1),
                    nn.Dropout(0.5, deterministic=not train)(ones).mean(-1),
                ],
                -1,
            )

    out = layers.as_model(Twice()).apply({"params": {}}, X, key_B=KEYS, train=True)[0]
    assert len(np.unique(out)) > 12 and abs(float(out.mean()) - 1) < 0.05


def test_batch_normalization_leaves_padded_rows_out():
    """Outputs and statistics equal those of this package's layer, with and without padding."""
    theirs, ours = layers.as_model(Normalized()), layers.as_model(OursNormalized())
    variables = theirs.init(jax.random.key(0), X)
    same = {"params": variables["params"], "stats": variables["stats"]}
    padded, weight_B = np.concatenate([X, 1e3 * X[:2]]), np.r_[np.ones(6), 0, 0].astype(np.float32)
    out, stats = theirs.apply(variables, X, weight_B=np.ones(6, np.float32), train=True)
    padded_out, padded_stats = theirs.apply(variables, padded, weight_B=weight_B, train=True)
    np.testing.assert_allclose(padded_out[:6], out, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(padded_stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    our_out, our_stats = ours.apply(same, padded, weight_B=weight_B, train=True)
    np.testing.assert_allclose(our_out[:6], out, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        our_stats["BatchNorm_0"]["mean"], stats["BatchNorm_0"]["mean"], rtol=1e-4, atol=1e-6
    )
    nothing = theirs.apply(variables, X, weight_B=np.zeros(6, np.float32), train=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nothing))
    assert not np.allclose(
        theirs.apply({"params": variables["params"], "stats": stats}, X)[0],
        theirs.apply(variables, X)[0],
    )


class Masked(nn.Module):
    @nn.compact
    def __call__(self, x, mask, train):
        return nn.Dense(3)(x * mask)


class Nothing(nn.Module):
    def __call__(self):
        return 0


class Twofold(nn.Module):
    def __call__(self, x, train, deterministic):
        return x


@pytest.mark.parametrize(
    "net", [Masked(), Nothing(), Twofold()], ids=lambda net: type(net).__name__
)
def test_another_signature_is_refused_and_the_message_says_which_is_needed(net):
    with pytest.raises(
        TypeError,
        match=rf"__call__ of {type(net).__name__} takes .*it must be \(x\) or \(x, "
        r"train\).*key_B=None, weight_B=None",
    ):
        layers.as_model(net)
    with pytest.raises(ValueError, match=r"model 'mine.net': __call__ of"):
        _linen.taken(net, name="mine.net")


@pytest.mark.parametrize(
    "made, message",
    [(Plain, "returns a class"), (None, "returns a NoneType"), (lambda x: x, "returns a function")],
)
def test_what_is_no_net_is_refused(made, message):
    with pytest.raises(
        ValueError, match=f"model 'mine.net': make.*{message}.*It returns a flax.linen module"
    ):
        _linen.taken(made, name="mine.net")


NET = """
    import flax.linen as nn

    class Net(nn.Module):
        classes: int
        width: int

        @nn.compact
        def __call__(self, x, train):
            x = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
            x = nn.BatchNorm(use_running_average=not train)(x)
            x = nn.Dropout(0.2, deterministic=not train)(x)
            return nn.Dense(self.classes)(x)

    def make(*, num_classes, width=16):
        return Net(num_classes, width)
"""
CONFIG = """
    from mia_jax import configuration

    def get_config(arg=None):
        return configuration.complete(
            data=dict(name="synthetic", examples=81),
            design=dict(name="bernoulli", models=4),
            model=dict(name="{name}", width=5),
            learner=dict(epochs=2, batch_size=16),
            attacks=dict(gap=dict(), lira=dict(variance="shrunk")),
            report=dict(draws=40, figures=False),
            run=dict(chunk=2),
        )
"""


@pytest.mark.parametrize(
    "name, place",
    [pytest.param("my_net", ".", marks=pytest.mark.slow), ("my_pkg.my_net", "my_pkg")],
)
def test_a_net_next_to_the_config_trains(name, place, tmp_path):
    """The net, a plain module with dropout and batch normalization, is in the folder of the config,
    which is run from another folder.
    """
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "my_net.py").write_text(textwrap.dedent(NET))
    (tmp_path / "mine.py").write_text(textwrap.dedent(CONFIG.replace("{name}", name)))
    flags = [f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'run'}"]
    launch(*flags, "--stages=train")
    model = np.load(tmp_path / "run" / "train" / "model" / "00000.npz")
    assert (
        model["variables/params/Dense_0/kernel"].shape == (20, 5)
        and model["variables/stats/BatchNorm_0/mean"].any()
    )
    _, message = launch(
        *flags,
        "--config.learner.gradient=private",
        "--config.design.name=halves",
        "--summary",
        fails=True,
    )
    assert "BatchNorm" in message or "statistics" in message


@pytest.mark.slow
def test_a_private_plain_net_is_clipped_per_example(tmp_path, monkeypatch):
    (tmp_path / "private_net.py").write_text(
        textwrap.dedent(NET.replace("x = nn.BatchNorm(use_running_average=not train)(x)", ""))
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = configuration.complete(
        data=dict(name="synthetic", examples=80),
        design=dict(name="halves", models=2),
        model=dict(name="private_net"),
        learner=dict(gradient="private", privacy=dict(accountant="rdp"), epochs=1, batch_size=8),
        attacks=dict(gap=dict()),
        run=dict(chunk=2),
    )
    run.run(config, workdir_path=tmp_path / "w", stages_wanted=["train"])
    assert (tmp_path / "w" / "train" / "model" / "00001.npz").exists()


def test_a_module_that_is_not_there_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ValueError,
        match=rf"no module 'nowhere.net'.*run in its folder.*Looked in .*{tmp_path.name}",
    ):
        registry.load("models", "nowhere.net")


def test_the_net_of_the_documentation_is_a_model(tmp_path, monkeypatch):
    text = (
        (pathlib.Path(__file__).parents[2] / "docs" / "extending.md")
        .read_text(encoding="utf-8")
        .split("## Your own net")[1]
    )
    (tmp_path / "readme_net.py").write_text(text.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    model = _linen.taken(
        registry.make("models", "readme_net", dict(width=4), num_classes=3), name="readme_net"
    )
    out, stats = model.apply(
        model.init(jax.random.key(0), X), X, key_B=KEYS, weight_B=np.ones(6, np.float32), train=True
    )
    assert out.shape == (6, 3) and stats
