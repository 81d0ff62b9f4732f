"""Tests noise that is correlated over steps: its covariance, its sampling and its accounting."""

import json
import sys

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import pld
from jax_privacy.experimental import accounting as peer
from scipy import stats

from mia_jax.models import mlp
from mia_jax.privacy import accounting, banded, sampling
from mia_jax.privacy.mechanism import Mechanism
from mia_jax.report.sections import guarantee as section
from mia_jax.training import checkpoint
from tests import toys
from tests.privacy.private_training_test import (
    POOL,
    N,
    Stopped,
    flat,
    learner,
    moved,
    one_epoch,
    still,
    trained,
)

BANDED = dict(noise="banded", bands=3, sampling="cyclic_poisson", delta=1e-3)
STEPS = 12  # 3 epochs of 4 steps


@pytest.fixture(scope="module")
def column():
    """Returns the coefficients of the tests; computing them takes the seconds of a compilation."""
    return banded.coefficients(steps=STEPS, bands=3)


def toeplitz(column, steps=STEPS):
    """Returns C, [T,T]."""
    return sum(c * np.eye(steps, k=-k) for k, c in enumerate(column))


def p_value(moves_TP, matrix) -> float:
    """Returns the p-value that the rows are C^-1 z with independent standard normals z.

    The products of C @ moves have 0 and 1 for their means; their deviations are normal.
    """
    z_TP = matrix @ moves_TP
    many = z_TP.shape[1]
    products = z_TP @ z_TP.T / many
    i, j = np.triu_indices(len(matrix), 1)
    deviations = np.append(
        np.sqrt(many) * products[i, j], np.sqrt(many / 2) * (np.diag(products) - 1)
    )
    chi2 = stats.chi2(len(deviations))
    value = float((deviations**2).sum())
    return min(1.0, 2 * min(chi2.cdf(value), chi2.sf(value)))


@pytest.fixture(scope="module")
def trainee():
    """Returns a learner of 5,043 parameters that only noise moves."""
    model = mlp.make(num_classes=3, widths=(560,))
    privacy = BANDED | dict(clip_norm=2.0)
    return learner(model=model, loss=still(model), batch_size=10, epochs=3, privacy=privacy)


def test_the_noise_of_steps_has_the_covariance_of_the_matrix_and_no_other(trainee, column):
    assert trainee.guarantee.coefficients == column
    state, moves = trainee.init(jax.random.key(0), POOL), []
    epoch = jax.jit(trainee.epoch)
    for e in (1, 2, 3):
        index, weight = trainee.plan(jax.random.key(9), jnp.uint32(e), jnp.arange(N), jnp.ones(N))
        for s in range(4):
            after, _ = epoch(state, POOL, index[s : s + 1], weight[s : s + 1])
            moves.append(flat(moved(state, after)))
            state = after
    moves_TP = np.stack(moves).astype(np.float64) / trainee.guarantee.mechanism.noise_std()
    matrix = toeplitz(column)
    assert p_value(moves_TP, matrix) > 1e-3
    for wrong in (
        np.eye(STEPS),
        toeplitz(column[::-1]),
        1.05 * matrix,
        matrix / 1.05,
        np.linalg.inv(matrix),
    ):
        assert p_value(moves_TP, wrong) < 1e-6
    # The noise in the sum of all steps is what the matrix is for.
    whole, one = np.linalg.inv(matrix).sum(0), np.sqrt(STEPS)
    assert np.std(moves_TP.sum(0)) == pytest.approx(np.linalg.norm(whole), rel=0.03)
    assert np.linalg.norm(whole) < 0.75 * one


def test_one_band_is_independent_noise_in_the_plan_the_noise_and_the_accounting():
    """Everything that the noise decides is the same; the slow test below trains."""
    assert banded.coefficients(steps=STEPS, bands=1) == (1.0,)
    kinds = dict(poisson={}, cyclic_poisson=dict(groups=1))
    plans = [sampling.plan(sampling=k, rate=0.25, size=20, steps=4, **v) for k, v in kinds.items()]
    assert toys.same(*(plan(jax.random.key(1), 2, jnp.arange(N), jnp.ones(N)) for plan in plans))
    assert accounting.event(mechanism(bands=1)) == accounting.event(
        mechanism(bands=1, sampling="poisson")
    )


@pytest.mark.slow
def test_one_band_is_independent_noise_to_the_bit():
    poisson = learner(batch_size=10, privacy=dict(delta=1e-3))
    other = learner(batch_size=10, privacy=BANDED | dict(bands=1))
    assert toys.same(*(moved(*one_epoch(each)[:2]) for each in (poisson, other)))
    assert poisson.guarantee.epsilon(2) == other.guarantee.epsilon(2)
    assert "noise" not in one_epoch(other)[1].opt


def mechanism(**changes) -> Mechanism:
    fields = dict(sampling="cyclic_poisson", rate=0.02, clip_norm=1.0, noise_multiplier=1.3)
    return Mechanism(**fields | dict(expected_batch=20, steps=250, bands=8) | changes)


@pytest.mark.parametrize(
    "adjacency", ["add_remove", pytest.param("zero_out", marks=pytest.mark.slow)]
)
def test_epsilon_is_that_of_the_peers_event(adjacency):
    claimed = mechanism(adjacency=adjacency)
    event = peer.amplified_bandmf_event(1.3, 250, num_bands=8, sampling_prob=0.16)
    assert accounting.event(claimed) == event
    relation = dp_accounting.NeighboringRelation[accounting.RELATIONS[adjacency]]
    theirs = pld.PLDAccountant(relation).compose(event).get_epsilon(1e-5)
    ours = accounting.epsilon(claimed, delta=1e-5)
    assert ours == pytest.approx(theirs, rel=1e-3)
    # Fewer bands are amplified more, and independent noise most, at the same multiplier.
    fewer = accounting.epsilon(mechanism(adjacency=adjacency, bands=4), delta=1e-5)
    assert accounting.epsilon(mechanism(bands=1), delta=1e-5) < fewer < ours
    # In a fixed order there is no amplification: one Gaussian release per round.
    fixed = mechanism(bands=50, steps=500)
    assert fixed.release_rate == 1 and fixed.releases == 10
    assert accounting.epsilon(fixed, delta=1e-5) == pytest.approx(
        accounting.gaussian_epsilon(np.sqrt(10) / 1.3, 1e-5)
    )


def test_a_unit_moves_the_sums_by_no_more_than_its_participations(column):
    """|C G| <= sqrt(k) for k participations at least 3 apart, which is attained; nearer ones
    exceed it."""
    rng, matrix = np.random.default_rng(0), toeplitz(column)
    for apart in (3, 1):
        norms = []
        for _ in range(50):
            steps = np.arange(rng.integers(3), STEPS - 2, apart)
            unit_TF = np.zeros((STEPS, 4))
            unit_TF[steps] = stats.norm.rvs(size=(1, 4), random_state=rng)
            unit_TF[steps] /= np.linalg.norm(unit_TF[steps], axis=1, keepdims=True)
            norms.append(np.linalg.norm(matrix @ unit_TF) / np.sqrt(len(steps)))
        assert max(norms) == pytest.approx(1) if apart == 3 else max(norms) > 1.2


def test_participations_are_groups_in_turn_each_a_poisson_sample():
    rows, epochs, steps = 60, 60, 4

    def drawn(**fields):
        plan = sampling.plan(rate=0.2, size=60, steps=steps, **fields)
        index, weight = jax.vmap(
            lambda e: plan(jax.random.key(0), e, jnp.arange(rows), jnp.ones(rows))
        )(jnp.arange(1, epochs + 1, dtype=jnp.uint32))
        taken = np.zeros((epochs * steps, rows), int)
        at = np.repeat(np.arange(epochs * steps), 60)
        np.add.at(taken, (at, np.ravel(index)), np.ravel(weight).astype(int))
        return taken

    taken_TN = drawn(sampling="cyclic_poisson", groups=3)
    assert taken_TN.max() == 1
    group_N = [set(np.flatnonzero(t) % 3) for t in taken_TN.T]
    assert all(len(group) == 1 for group in group_N)  # across epochs of 4 steps too
    sizes = np.bincount([group.pop() for group in group_N], minlength=3)
    assert stats.chisquare(sizes).pvalue > 1e-4
    trials = epochs * steps / 3 * rows
    assert abs(taken_TN.sum() - 0.6 * trials) < 4 * np.sqrt(0.24 * trials)
    gaps = [np.diff(np.flatnonzero(t)) for t in taken_TN.T]
    assert (np.concatenate(gaps) % 3 == 0).all()
    share = np.mean(np.concatenate(gaps) == 3)  # independent in every turn
    assert share == pytest.approx(0.6, abs=0.04)
    poisson = [np.diff(np.flatnonzero(t)) for t in drawn(sampling="poisson").T]
    assert np.concatenate(poisson).min() == 1


def test_the_ledger_and_the_report_name_the_matrix_and_the_participation(trainee, column):
    ran = trainee.guarantee.ran(steps=STEPS, noise_multiplier=1.0, plan=trainee.plan)
    ran = json.loads(json.dumps(ran))
    assert ran["bands"] == 3 and ran["coefficients"] == list(column)
    claim = trainee.guarantee.claim([ran])
    assert claim["epsilon"] == trainee.guarantee.epsilon(3) and claim["bands"] == 3
    shown = section.text(guarantee=claim)
    assert "cyclic Poisson sampling in 3 groups" in shown and "correlated over 3 steps" in shown
    assert "step t takes every one of group t mod 3 with probability 0.75" in shown
    refused = trainee.guarantee.claim([ran | dict(bands=1)])["refused"]
    assert refused == ["bands: declared 3, ran 1"]
    del ran["bands"]  # a ledger of a version without bands
    assert trainee.guarantee.claim([ran])["refused"] == ["bands: declared 3, ran 1"]


@pytest.mark.slow  # private_training_test resumes fleets with other states of the optimizer
def test_a_killed_fleet_resumes_to_the_same_bits(tmp_path, column):
    trainee = learner(batch_size=10, epochs=3, privacy=BANDED, optimizer="adam", learning_rate=0.01)
    trained(tmp_path / "whole", trainee)

    def stop(models, epoch, state, metrics):
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        trained(tmp_path / "cut", trainee, checkpoint_every=1, on_epoch=[stop])
    trained(tmp_path / "cut", trainee, checkpoint_every=1)
    template = jax.eval_shape(trainee.model.init, jax.random.key(0), POOL.x[:1])
    whole, cut = (
        checkpoint.load_models(tmp_path / name, [0, 1], template) for name in ("whole", "cut")
    )
    assert toys.same(whole, cut)
    ran = json.loads(checkpoint.ledger_file(tmp_path / "cut", 1).read_text())
    assert ran["coefficients"] == list(column) and ran["steps"] == STEPS
    assert trainee.guarantee.differences(ran) == []


@pytest.mark.slow  # mesh_test has the bits of shards on several devices
def test_shards_and_frozen_parameters_have_the_noise_of_one_batch():
    common = dict(batch_size=10, epochs=3, trainable="Dense_1", privacy=BANDED)
    whole, cut = learner(**common), learner(**common, shards=2)
    before, after, _ = one_epoch(whole)
    np.testing.assert_allclose(
        flat(moved(before, after)), flat(moved(*one_epoch(cut)[:2])), atol=1e-6
    )
    past = after.opt["noise"].past
    assert past["Dense_0"]["kernel"] is None and past["Dense_1"]["kernel"].shape == (2, 6, 3)


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(sampling="poisson"), "sampling='cyclic_poisson', where"),
        (dict(sampling="shuffle", adjacency="zero_out"), "fewer than `bands` apart"),
        (dict(sampling="balls_in_bins"), "fewer than `bands` apart"),
        (dict(bands=5), "Use at most 4 bands"),
        (dict(bands=0), "bands"),
        (dict(noise="gaussian"), "set privacy.noise='banded'"),
        (dict(noise="gaussian", bands=1), "use sampling='poisson'"),
        (dict(noise="blt"), "noise='blt'"),
        (dict(clipping="adaptive"), "scale of one clip norm"),
        (dict(microbatch=2), "microbatch=2 has no accounting"),
        (dict(overflow="truncate"), "sampling='poisson' alone"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        learner(batch_size=10, privacy=BANDED | fields)


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax_privacy.matrix_factorization", None)
    with pytest.raises(ImportError, match=r"pip install \"mia_jax\[banded\]\""):
        banded.coefficients(steps=11, bands=2)
