"""Tests Dirac canaries: their clipped gradient is C on a coordinate of their own, the releases that
are scored are those of the mechanism, and a mechanism that is not the claimed one is seen.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mia_jax import configuration
from mia_jax.learners import backprop
from mia_jax.objectives import cross_entropy
from mia_jax.pipeline import build, run
from mia_jax.privacy import clipping, dirac, gradients
from mia_jax.privacy.mechanism import Mechanism
from mia_jax.types import Learner, Pool, TrainState
from tests import toys

COUNT, ROWS = 20, 60
SETTINGS = dict(clip_norm=0.5, noise_multiplier=1.0)
CLAIM = Mechanism(
    sampling="poisson",
    rate=0.25,
    clip_norm=0.5,
    noise_multiplier=1.0,
    expected_batch=100.0,
    steps=40,
)


def canaries(norm=5.0):
    return dirac.canaries(np.arange(COUNT), num_examples=ROWS, norm=norm)


def parts():
    """Returns (model, loss, pool) with canaries in the first rows of the pool."""
    model = dirac.extended(toys.mlp(), count=COUNT)
    loss = dirac.with_canaries(cross_entropy.make(model=model), canaries())
    return model, loss, toys.pool(ROWS)


def test_a_clipped_gradient_is_c_on_the_canarys_coordinate_and_0_elsewhere():
    model, loss, pool = parts()
    variables = model.init(jax.random.key(0), pool.x[:1])
    batch = backprop.rows(pool, jnp.array([3, 40]), jnp.ones(2))
    params, rows = variables["params"], (batch, backprop.slot_keys(jax.random.key(0), 2))
    losses = backprop.losses_of(loss, jax.tree.map(lambda _: None, variables["params"]))
    how = dict(units=2, rule=clipping.rule("flat"), clip=0.5)
    clipped = jax.jit(lambda weight: gradients.clipped_sum(losses, params, rows, weight, **how))
    for weight, moved in (([1.0, 0.0], 3), ([0.0, 1.0], None)):
        total = clipped(jnp.array(weight)).total
        table = dirac.table_of(total)
        others = [leaf for leaf in jax.tree.leaves({**total, "dirac": {}})]
        if moved is None:  # an example that is no canary
            assert not table.any() and any(leaf.any() for leaf in others)
        else:
            np.testing.assert_allclose(table, 0.5 * np.eye(COUNT)[moved], rtol=1e-6)
            assert not any(leaf.any() for leaf in others)
    # answers and losses in inference mode are those of the model itself
    plain = cross_entropy.make(model=toys.mlp())
    bare = dirac.without_table(variables)
    np.testing.assert_array_equal(loss(variables, batch)[0], plain(bare, batch)[0])


@pytest.mark.parametrize("rule", ["flat", "normalized", "automatic", "per_layer"])
def test_the_size_of_a_clipped_gradient_is_that_of_the_rule(rule):
    model, _, pool = parts()
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(pool.x[:1]))["params"]
    expected = dict(flat=0.5, normalized=1.0, automatic=0.5 * 5 / 5.01, per_layer=0.5 / np.sqrt(3))
    size = dirac.size_of(params, canaries(), clip=rule, clip_norm=0.5)
    assert size == pytest.approx(expected[rule], rel=1e-6)
    with pytest.raises(ValueError, match="'adaptive' moves; use clipping='flat'"):
        dirac.size_of(params, canaries(), clip="adaptive", clip_norm=0.5)


def released(z_TC: np.ndarray, claim: Mechanism = CLAIM) -> dirac.Watch:
    """Returns the state of a watched learner whose releases are z_TC noise deviations."""
    std = claim.noise_std_of_sum()

    class Promise:
        mechanism = claim

    def init(key, pool):
        del pool
        params = dict(dirac=dict(table=jnp.zeros((z_TC.shape[1], 1))))
        return TrainState(jnp.int32(0), dict(params=params), (), key, None)

    def epoch(state, pool, index_SB, weight_SB):
        del pool, weight_SB
        release = jnp.asarray(z_TC, jnp.float32)[index_SB[0, 0]] * (std / claim.divisor)
        table = state.variables["params"]["dirac"]["table"] - release[:, None]
        variables = dict(params=dict(dirac=dict(table=table)))
        return state._replace(step=state.step + 1, variables=variables), {}

    steps, count = z_TC.shape
    marked = dirac.canaries(np.arange(count), num_examples=count, norm=10 * claim.clip_norm)
    learner = Learner(init, epoch, None, None, 1, None, None, Promise)
    learner = dirac.watched(learner, marked, size=claim.clip_norm)
    pool = toys.pool(count)
    state = learner.init(jax.random.key(0), pool)
    index_SB = jnp.arange(steps)[:, None]
    return jax.jit(learner.epoch)(state, pool, index_SB, jnp.ones((steps, 1)))[0].opt


def test_the_scores_are_those_of_a_plain_loop():
    z = np.random.default_rng(0).normal(size=(CLAIM.steps, 6))
    scores = {name: np.asarray(value) for name, value in released(z).signals().items()}
    unit = CLAIM.noise_std_of_sum() / CLAIM.divisor  # of one z in what is released
    q, size, epochs = CLAIM.rate, CLAIM.clip_norm, CLAIM.epochs
    likely = stats.norm.pdf(z, 1) / stats.norm.pdf(z)  # of a canary that takes part in the step
    expected = dict(
        update_alignment=size * unit * z.sum(0),
        update_change=(size * unit * np.diff(z, axis=0)) ** 2 @ np.eye(6),
        privacy_loss=np.log(1 - q + q * likely).sum(0),
        fixed_order=np.log(likely.reshape(epochs, 4, 6).prod(0).mean(0)),
        release_sum=z.sum(0),
        release_square=(z**2).sum(0),
        release_lag=(z[1:] * z[:-1]).sum(0),
        release_place=(z.reshape(epochs, 4, 6).sum(0) ** 2).sum(0) / epochs,
    )
    expected["update_change"] = expected["update_change"].sum(0)
    assert set(scores) == set(expected) == {*dirac.SIGNALS, *dirac.MOMENTS}
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, rtol=2e-4, atol=2e-5, err_msg=name)


def test_who_takes_part_once_per_epoch_has_the_privacy_loss_of_a_random_step_of_it():
    claim = dataclasses.replace(CLAIM, sampling="balls_in_bins")
    z = np.random.default_rng(0).normal(size=(claim.steps, 6))
    likely = (stats.norm.pdf(z, 1) / stats.norm.pdf(z)).reshape(claim.epochs, 4, 6)
    loss = np.asarray(released(z, claim).signals()["privacy_loss"])
    np.testing.assert_allclose(loss, np.log(likely.mean(1)).sum(0), rtol=2e-4, atol=2e-5)


def simulated(broken: str, seed: int, count: int = 200) -> tuple[dict, np.ndarray]:
    """Returns (moments, inside_C) of a mechanism in NumPy that is broken in one place."""
    rng = np.random.default_rng(seed)
    inside_C = rng.random(count) < 0.5
    steps, per_epoch = CLAIM.steps, CLAIM.epoch_steps
    drawn = rng.random((steps, count)) < CLAIM.rate
    if broken == "fixed batches":
        drawn = np.tile(rng.random((1, count)) < 2 * CLAIM.rate, (steps, 1))
    noise = rng.normal(size=(steps, count))
    noise = {
        "half the noise": noise / 2,
        "one key": np.tile(noise[:1], (steps, 1)),
        "a key per epoch": np.tile(noise[:per_epoch], (CLAIM.epochs, 1)),
    }.get(broken, noise)
    z = (drawn & inside_C) * (10.0 if broken == "no clipping" else 1.0) + noise
    return dict(
        release_sum=z.sum(0),
        release_square=(z**2).sum(0),
        release_lag=(z[1:] * z[:-1]).sum(0),
        release_place=(z.reshape(-1, per_epoch, count).sum(0) ** 2).sum(0) / CLAIM.epochs,
    ), inside_C


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        ("half the noise", "noise"),
        ("one key", "fresh noise"),
        ("a key per epoch", "fresh epochs"),
        ("no clipping", "size"),
        ("fixed batches", "size"),
    ],
)
def test_a_broken_mechanism_has_a_small_p_value_in_the_test_that_is_about_it(broken, seen):
    for seed in range(3):
        moments, inside_C = simulated(broken, seed)
        tests = dirac.checked(CLAIM, size=CLAIM.clip_norm, moments=moments, inside_C=inside_C)
        assert {test.name: test.p_value for test in tests}[seen] < 1e-6


def test_p_values_of_a_correct_mechanism_are_uniform():
    values = []
    for seed in range(200):
        moments, inside_C = simulated("", seed)
        tests = dirac.checked(CLAIM, size=CLAIM.clip_norm, moments=moments, inside_C=inside_C)
        values.append([test.p_value for test in tests])
    for name, column in zip([test.name for test in tests], np.array(values).T, strict=True):
        assert stats.kstest(column, "uniform").pvalue > 1e-3, name
    with pytest.raises(ValueError, match="noise, two steps and a canary on each side"):
        dirac.checked(CLAIM, size=0.5, moments=moments, inside_C=np.zeros_like(inside_C))


FIELDS = dict(
    data=dict(name="digits", flat=True, canaries=dict(kind="dirac", count=300)),
    design=dict(name="canaries", models=2, population=0.1, targets=1),
    model=dict(name="mlp", widths=(16,)),
    attacks=dict(loss=dict(name="threshold", signal="privacy_loss", sign=1)),
    report=dict(draws=40, figures=False, audit=dict(guesses=(0.1,))),
    run=dict(chunk=2),
)
PRIVATE = dict(
    epochs=3,
    batch_size=300,
    optimizer="sgd",
    learning_rate=1.0,
    gradient="private",
    privacy=dict(noise_multiplier=1.0, clip_norm=0.1),
    watch=True,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(gradient="mean", privacy=None), "gradient='mean' has none"),
        (dict(name="least_squares", gradient=None, privacy=None), "'least_squares'"),
        (dict(watch=False), "learner.watch=True"),
        (dict(privacy=dict(microbatch=2)), "several rows are clipped together"),
        (dict(privacy=dict(clipping="adaptive")), "use clipping='flat'"),
    ],
)
def test_what_cannot_have_such_canaries_is_refused_before_training(changes, words):
    learner = {k: v for k, v in (PRIVATE | changes).items() if v is not None}
    if learner.get("name") == "least_squares":
        learner = dict(name="least_squares")
    attacks = dict(gap=dict())
    config = configuration.complete(**FIELDS | dict(attacks=attacks), learner=learner)
    with pytest.raises(ValueError, match=words):
        build.build(config.to_dict() | dict(seed=0), seed=0)


def test_its_scores_need_such_canaries():
    data = FIELDS["data"] | dict(canaries=dict(kind="mislabeled", count=50))
    config = configuration.complete(**FIELDS | dict(data=data), learner=PRIVATE)
    with pytest.raises(ValueError, match=r"set data\.canaries\.kind='dirac'"):
        build.build(config.to_dict() | dict(seed=0), seed=0)


@pytest.mark.slow
def test_a_run_with_dirac_canaries_is_audited_end_to_end(tmp_path):
    config = configuration.complete(**FIELDS, learner=PRIVATE)
    section = run.run(config, workdir_path=tmp_path)["audit"]
    assert section["claim"]["epsilon"] > 1 and not section["violated"]
    value_AN = np.load(tmp_path / "signal" / "privacy_loss" / "00000.npy")
    assert (value_AN != 0).sum() == 300
    assert section["attacks"]["loss"]["correct"] > 0.6 * section["attacks"]["loss"]["guesses"]
    assert section["releases"]["count"] == 5 and not section["releases"]["contradicted"]
    assert {row["name"]: row["expected"] for row in section["releases"]["tests"]}["noise"] == 1
    assert "What training released" in (tmp_path / "report" / "report.md").read_text()


def test_a_pool_that_is_streamed_is_refused():
    model, loss, pool = parts()
    learner = backprop.make(
        model=model,
        loss=loss,
        num_rows=40,
        epochs=1,
        batch_size=20,
        gradient="private",
        privacy=SETTINGS,
        sample=Pool(x=pool.x[:4], y=pool.y[:4], task=pool.task),
    )
    watched = dirac.watched(learner, canaries(), size=0.5)
    state = jax.eval_shape(watched.init, jax.random.key(0), pool)
    part = Pool(x=pool.x[:30], y=pool.y[:30], task=pool.task)
    with pytest.raises(ValueError, match="streamed in parts"):
        watched.epoch(state, part, jnp.zeros((2, 20), jnp.int32), jnp.ones((2, 20)))


def trained(noise: float, *, steps: int, seed: int = 0):
    """Returns (batch sizes, table after every step, watched state, inside_C) of a private run."""
    model, loss, pool = parts()
    learner = backprop.make(
        model=model,
        loss=loss,
        num_rows=ROWS,
        padded=True,
        epochs=steps // 4,
        batch_size=ROWS // 4,
        optimizer="sgd",
        learning_rate=1.0,
        gradient="private",
        privacy=dict(clip_norm=0.5, noise_multiplier=noise),
        sample=Pool(x=pool.x[:4], y=pool.y[:4], task=pool.task),
    )
    watched = dirac.watched(learner, canaries(), size=0.5)
    inside_N = np.random.default_rng(seed).random(ROWS) < 0.5
    epoch, draw = jax.jit(watched.epoch), jax.jit(watched.plan)
    state = watched.init(jax.random.key(seed), pool)
    sizes, tables, batches = [], [np.zeros(COUNT)], []
    for e in range(steps // 4):
        weight = jnp.asarray(inside_N, jnp.float32)
        plan = draw(jax.random.key(seed), e + 1, jnp.arange(ROWS, dtype=jnp.int32), weight)
        for index_B, weight_B in zip(*plan, strict=True):
            state, _ = epoch(state, pool, index_B[None], weight_B[None])
            sizes.append(float(weight_B.sum()))
            batches.append(np.asarray(index_B)[np.asarray(weight_B) > 0])
            tables.append(np.asarray(dirac.table_of(state.variables["params"])))
    return sizes, -np.diff(tables, axis=0), batches, state.opt, inside_N[:COUNT]


@pytest.mark.slow  # the divisor of the mechanism is tested in private_training_test
def test_the_divisor_is_the_expected_batch_whatever_the_realized_one_is():
    sizes, releases_TC, batches, _, _ = trained(0.0, steps=8)
    assert len(set(sizes)) > 3 and ROWS / 4 not in sizes
    drawn_TC = np.array([np.isin(np.arange(COUNT), batch) for batch in batches])
    assert drawn_TC.any()
    np.testing.assert_allclose(releases_TC, drawn_TC * 0.5 / (ROWS / 4), atol=1e-7)


@pytest.mark.slow
def test_privacy_losses_of_a_run_are_those_that_the_accountant_assumes():
    loss = {True: [], False: []}
    for seed in range(10):
        _, _, _, watch, inside_C = trained(1.0, steps=40, seed=seed)
        scores = np.asarray(watch.signals()["privacy_loss"])
        for side, values in loss.items():
            values.extend(scores[inside_C == side])
    rng, q = np.random.default_rng(0), 0.25
    z = rng.normal(size=(20_000, 40))
    for side, values in loss.items():
        drawn = z + side * (rng.random(z.shape) < q)
        expected = np.log(1 - q + q * np.exp(drawn - 0.5)).sum(1)
        assert stats.ks_2samp(values, expected).pvalue > 1e-3
