"""Nets of other frameworks are audited from end to end, and agree with the package's own fleets."""

import os
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits

import mia_jax
from mia_jax import configuration
from mia_jax.pipeline import run
from mia_jax.runtime import precision

ATTACKS = "lira_shrunk, threshold_loss"
WIDTH, EPOCHS, BATCH, RATE = 64, 40, 32, 3e-3


def digits(*, rows: int | None = None):
    x, y = load_digits(return_X_y=True)
    return (x[:rows] / 16).astype(np.float32), y[:rows]


def batches(examples: int, seed: int, epochs: int):
    """Yields the rows of every batch; the last, smaller one of an epoch is left out."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(examples)
        yield from order[: examples // BATCH * BATCH].reshape(-1, BATCH)


def torch_fit(*, epochs: int):
    """Returns fit(x, y, seed) of the MLP 64-64-10 with Adam in PyTorch."""
    torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
    nn = torch.nn
    torch.set_num_threads(1)  # so small a net is fastest on one core

    def fit(x, y, seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
        for layer in (net[0], net[2]):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        for rows in batches(len(x), seed, epochs):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
        return net

    return fit


def keras_fit(*, epochs: int):
    """Returns fit(x, y, seed) of the same net in Keras."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="pip install keras, with KERAS_BACKEND=jax")

    def fit(x, y, seed):
        keras.utils.set_random_seed(seed % 2**32)
        layers = keras.layers
        net = keras.Sequential(
            [layers.Input((64,)), layers.Dense(WIDTH, activation="relu"), layers.Dense(10)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        net.compile(keras.optimizers.Adam(RATE), loss)
        with precision.as_the_user():  # tests let JAX refuse what Keras does: promote ranks
            net.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
        return net

    return fit


def flax_fit(*, epochs: int):
    """Returns fit(x, y, seed) of the same net as a linen module with its variables."""
    import flax.linen as nn
    import jax
    import optax

    net = nn.Sequential([nn.Dense(WIDTH), nn.relu, nn.Dense(10)])
    optimizer = optax.adam(RATE)

    def loss(variables, x, y):
        logits = net.apply(variables, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(variables, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(variables, x, y), state)
        return optax.apply_updates(variables, updates), state

    def fit(x, y, seed):
        variables = net.init(jax.random.key(seed), x[:1])
        state = optimizer.init(variables)
        for rows in batches(len(x), seed, epochs):
            variables, state = step(variables, state, x[rows], y[rows])
        return net, variables

    return fit


FITS = dict(torch=torch_fit, keras=keras_fit, flax=flax_fit)
NAMES = dict(torch="PyTorch Sequential", keras="Keras Sequential", flax="Flax linen Sequential")


@pytest.mark.parametrize(
    "name", ["torch", *(pytest.param(n, marks=pytest.mark.slow) for n in ("keras", "flax"))]
)
def test_a_net_is_audited_with_shadow_models_of_its_framework(name):
    fit = FITS[name](epochs=2)
    x, y = digits(rows=200)
    member = np.arange(200) % 2 == 0
    model = fit(x[member], y[member], 0)
    audit = mia_jax.audit(
        predict=model, x=x, y=y, member=member, fit=fit, shadows=2, attacks=ATTACKS, draws=40
    )
    assert 0 <= audit.value("lira_shrunk", "auc") <= 1
    assert NAMES[name] in audit.markdown and "read as logits" in audit.markdown


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_eight_shadow_models_find_the_members_of_a_net_in_two_minutes(name):
    fit = FITS[name](epochs=EPOCHS)
    x, y = digits()
    member = np.random.default_rng(1).random(len(x)) < 0.5
    start = time.process_time()
    model = fit(x[member], y[member], 0)
    audit = mia_jax.audit(predict=model, x=x, y=y, member=member, fit=fit, shadows=8)
    assert time.process_time() - start < 120
    assert audit.row("lira_shrunk", "auc")["low"] > 0.5


@pytest.mark.slow
def test_a_pytorch_fleet_and_the_package_s_own_agree_on_lira(tmp_path):
    """The same net, data, optimizer and recipe: the intervals of LiRA's AUC overlap, and both show
    a leak.
    """
    x, y = digits()
    theirs = mia_jax.audit(
        fit=torch_fit(epochs=EPOCHS), x=x, y=y, models=16, population=0.1, attacks=ATTACKS
    )
    config = configuration.complete(
        data=dict(name="digits", flat=True),
        design=dict(name="halves", models=16, population=0.1),
        model=dict(name="mlp", widths=(WIDTH,)),
        learner=dict(
            name="backprop", optimizer="adam", learning_rate=RATE, batch_size=BATCH, epochs=EPOCHS
        ),
        attacks=dict(lira_shrunk=dict(name="lira", mode="online", variance="shrunk")),
    )
    report = run.run(config, workdir_path=tmp_path / "own")
    ours = next(
        row
        for row in report["results"]
        if (row["attack"], row["metric"], row["slice"]) == ("lira_shrunk", "auc", "all")
        and row["target"] is None
    )
    other = theirs.row("lira_shrunk", "auc")
    assert min(ours["low"], other["low"]) > 0.5
    assert ours["low"] <= other["high"] and other["low"] <= ours["high"], (ours, other)
