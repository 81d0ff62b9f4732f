"""A model that cannot be used costs no other model: the others are trained to the same bits, and
the run goes on without it and says so.
"""

import functools

import jax
import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.designs import _failed, bernoulli, blocks, disjoint, halves, two_way
from mia_jax.external import target
from mia_jax.metrics import membership
from mia_jax.pipeline import build, run
from mia_jax.runtime import files, jobs
from mia_jax.runtime.store import Store
from mia_jax.training import checkpoint, failures, fleet, programs
from tests import toys


@functools.cache
def plain():
    return toys.learner(epochs=6)


def train(folder, *, pool=None, rows=None, learner=None, models=6, **fields):
    """The toy fleet in a folder; returns ({model: arrays on disk but its seconds}, records of those
    that failed).
    """
    half_rows, weight = toys.halves(models=6)
    rows = half_rows if rows is None else rows
    learner, chunk = learner or plain(), fields.pop("chunk", 3)
    common = dict(
        learner=learner,
        program=toys.compiled(learner, chunk=chunk),
        chunk=chunk,
        pool=pool or toys.pool(),
        rows_MK=rows,
        weight_MK=weight,
        folder=folder,
        seed=0,
    )
    failed = fleet.train(
        **common, **dict(models=range(models), checkpoint_every=2, lanes=1) | fields
    )
    return {m: read(folder, m) for m in checkpoint.finished(folder, range(models))}, failed


def read(folder, m):
    return {
        k: v
        for k, v in files.read_npz(checkpoint.model_file(folder, m)).items()
        if "seconds" not in k
    }


def one_bad_row():
    """(rows, pool, the same pool with infinities in row 59): of all models only model 1 trains on
    that row.
    """
    rows, _ = toys.halves(models=6)
    rows = np.where(rows == 59, 0, rows)
    rows[1, 3] = 59
    pool = toys.pool()
    x = np.array(pool.x)
    x[59] = np.inf
    return rows, pool, type(pool)(x=x, y=pool.y, name="toy", task=pool.task)


@pytest.mark.parametrize(
    "more",
    [
        {},
        *(
            pytest.param(more, marks=pytest.mark.slow)
            for more in (dict(lanes=2), dict(chunk=2), dict(chunk=1))
        ),
    ],
    ids=str,
)
def test_the_models_beside_one_that_diverges_have_the_bits_of_a_run_in_which_it_does_not(
    more, tmp_path
):
    """Vmapped lanes are independent: NaN in one reaches no other, whatever the chunk and the number
    of lanes at a time.
    """
    rows, pool, spoiled = one_bad_row()
    learner = toys.learner(epochs=6, optimizer="sgd", learning_rate=0.1)
    clean, none = train(tmp_path / "clean", rows=rows, pool=pool, learner=learner, **more)
    arrays, failed = train(tmp_path / "spoiled", rows=rows, pool=spoiled, learner=learner, **more)
    assert none == {} and sorted(failed) == [1] and sorted(arrays) == [0, 2, 3, 4, 5]
    assert all(toys.same(arrays[m], clean[m]) for m in arrays)
    stored = failures.known(tmp_path / "spoiled", [1])[
        1
    ]  # without the checksum that the file carries
    assert stored == failed[1] and stored["stage"] == "train" and stored["attempt"] == 0
    assert (
        stored["epoch"] >= 1
        and stored["loss"] in ("nan", "inf")
        and f"in epoch {stored['epoch']}" in stored["reason"]
    )
    assert not list((tmp_path / "spoiled" / "running").glob("*.npz"))


def test_a_failed_model_is_not_trained_again_unless_asked_and_then_with_another_key(tmp_path):
    learner = toys.failing(toys.learner(epochs=6), models=[4])
    first, failed = train(tmp_path, learner=learner)
    stamp = failures.failed_file(tmp_path, 4).stat().st_mtime_ns
    assert (
        train(tmp_path, learner=learner)[1] == failed
        and failures.failed_file(tmp_path, 4).stat().st_mtime_ns == stamp
    )
    arrays, failed = train(tmp_path, learner=learner, attempts={4: 1})
    assert (
        failed == {}
        and not failures.failed_file(tmp_path, 4).exists()
        and all(toys.same(first[m], arrays[m]) for m in first)
    )
    assert arrays[4]["history/summary/attempt"] == 1 and "history/summary/attempt" not in arrays[3]
    plain, _ = train(tmp_path / "plain")
    assert toys.same(plain[3], arrays[3]) and not toys.same(
        plain[4]["history/loss"], arrays[4]["history/loss"]
    )


def test_every_attempt_has_a_key_of_its_own():
    keys = {
        tuple(jax.random.key_data(programs.model_keys(seed=5, models=[m], attempt=a))[0].tolist())
        for m in range(9)
        for a in range(4)
    }
    assert len(keys) == 36
    assert (
        jax.random.key_data(programs.model_keys(seed=5, models=[3]))
        == jax.random.key_data(programs.model_keys(seed=5, models=[3], attempt=0))
    ).all()


class Stopped(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.parametrize("epoch", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5))])
def test_a_resumed_chunk_knows_which_of_its_models_failed(epoch, tmp_path):
    """Before the failure, at it and after it; at a further attempt as well, which never starts from
    what the first one left.
    """

    def stop(models, at, state, metrics):
        if at == epoch and 4 in models:
            raise Stopped

    for attempts, bad in (({}, (0,)), ({4: 1}, (0, 1)))[
        : 2 if epoch <= 3 else 1
    ]:  # a chunk of failed models alone ends with its last failure
        learner = toys.failing(toys.learner(epochs=6), models=[4], after=8, attempts=bad)
        whole, failed = train(tmp_path / "whole", learner=learner, attempts=attempts)
        with pytest.raises(Stopped):
            train(
                tmp_path / "cut",
                learner=learner,
                attempts=attempts,
                on_epoch=[stop],
                checkpoint_every=1,
            )
        arrays, again = train(tmp_path / "cut", learner=learner, attempts=attempts)
        assert (
            again == failed
            and again[4]["attempt"] == len(bad) - 1
            and again[4]["epoch"] == 3
            and toys.same(arrays, whole)
        )
    assert not list((tmp_path / "cut" / "running").glob("*.npz"))


def test_a_checkpoint_of_the_first_attempt_is_not_continued_by_the_second(tmp_path):
    learner = toys.failing(toys.learner(epochs=6), models=[4])
    train(tmp_path / "a", learner=learner)
    arrays, _ = train(tmp_path / "a", learner=learner, attempts={4: 1})

    def stop(models, at, state, metrics):
        if at == 4 and 4 in models:
            raise Stopped

    with pytest.raises(Stopped):
        train(tmp_path / "b", learner=learner, on_epoch=[stop], checkpoint_every=1)
    left = next((tmp_path / "b" / "running").glob("0*.npz")).read_bytes()
    train(tmp_path / "b", learner=learner)
    (tmp_path / "b" / "running" / "00003-00005x3.npz").write_bytes(left)
    again, _ = train(tmp_path / "b", learner=learner, attempts={4: 1})
    assert toys.same(again, arrays)


def test_variables_that_are_not_finite_in_the_end_are_a_failure_too(tmp_path):
    learner = toys.learner(epochs=3)
    bad = toys.trained_keys(programs.model_keys(seed=0, models=[2]))[0]

    def released(state):
        spoil = (jax.random.key_data(state.key) == bad).all()
        return jax.tree.map(lambda a: jax.numpy.where(spoil, jax.numpy.inf, a), state.variables)

    arrays, failed = train(tmp_path, learner=learner._replace(released=released))
    assert (
        sorted(arrays) == [0, 1, 3, 4, 5]
        and failed[2]["reason"] == "params/Dense_0/bias is not finite after training"
        and failed[2]["epoch"] == 3
    )


@pytest.mark.parametrize("design", ["halves", "bernoulli", "disjoint"])
def test_without_a_failed_model_the_number_of_in_shadows_still_tells_nothing(design):
    """Whoever counts the shadows that trained on an example guesses; in halves every example has as
    many IN as OUT shadows.
    """
    make = dict(halves=halves, bernoulli=bernoulli, disjoint=disjoint)[design].make
    whole = make(num_examples=400, seed=0, models=24)
    failed = [3, 8, 9] if design != "disjoint" else [3, 12]
    left = _failed.without(whole, failed)
    assert not set(failed) & set(left.targets) and not left.shadow_MM[:, failed].any()
    check = membership.check(
        member_MN=left.member_MN,
        evaluated_MN=left.evaluated_MN,
        shadow_MM=left.shadow_MM,
        population_N=left.population_N,
        unit_M=left.unit_M,
        targets=left.targets,
        counts_matter=design != "disjoint",
    )
    assert check["problems"] == []
    if design == "halves":
        assert left.targets == tuple(
            t for t in range(24) if t not in failed
        ) and _failed.without_twin(whole, failed) == [2]
        for t in left.targets:
            shadows = left.shadow_MM[t]
            assert (
                not shadows[t ^ 1] and not shadows[2] and shadows.sum() == (20 if t in (2,) else 18)
            )
            assert np.unique(left.member_MN[shadows].sum(0)[left.evaluated_MN[t]]).tolist() == [
                shadows.sum() // 2
            ]
    if design == "disjoint":
        assert left.targets == (0, 1, 2, 4, 5, 6, 7) and left.shadow_MM[0].sum() == 15


def test_a_target_without_any_shadow_left_is_no_target():
    whole = blocks.make(num_examples=100, seed=0, size=25, sources=1)
    assert _failed.without(whole, [1]).targets == () and _failed.without(whole, [0]).targets == ()
    whole = halves.make(num_examples=100, seed=0, models=4)
    assert _failed.without(whole, [2]).targets == (3,)  # 0 and 1 had no other shadows; 3 has both
    assert _failed.without(two_way.make(num_examples=100, seed=0), [1]).targets == (
        0,
    )  # attacks on the target's own answers remain


ALL = dict(
    loss=dict(name="threshold", signal="loss"),
    lira={},
    shrunk=dict(name="lira", variance="shrunk"),
    median=dict(name="lira", center="median"),
    rmia={},
    attack_model={},
    class_threshold={},
    pair_distance=dict(signal="logits"),
    reference={},
    population={},
    offset={},
)


ATTACKS = dict(loss=dict(name="threshold", signal="loss"), lira={})


def config(*, models=12, learner={}, attacks=ATTACKS, design="halves", run={}, **fields):
    return configuration.complete(
        data=dict(name="synthetic", examples=80, features=10, classes=2, random_labels=True),
        design=dict(name=design, models=models),
        model=dict(name="mlp", widths=(8,)),
        learner=dict(epochs=4, batch_size=10) | learner,
        attacks=attacks,
        report=dict(draws=40, figures=False),
        run=dict(chunk=4, checkpoint_every=0, lanes=1) | run,
        **fields,
    )


@pytest.fixture
def spoil(monkeypatch):
    """spoil(models, attempts): from now on the training of these models fails in these attempts."""
    make = build.make_learner

    def choose(models, attempts=(0,), seed=0):
        def wrapped(*args, **kwargs):
            learner = make(*args, **kwargs)
            return (
                toys.failing(learner, models=models, attempts=attempts, seed=seed)
                if models
                else learner
            )

        monkeypatch.setattr(build, "make_learner", wrapped)

    return choose


def test_a_run_goes_on_without_a_failed_model_and_says_so(tmp_path, spoil, capsys):
    """No attack, metric or table meets the failed model: every attack's scores of a target are
    those of its Views, the report names it twice.
    """
    spoil([5])
    report = run.run(config(attacks=ALL), workdir_path=tmp_path)
    assert (
        "1 of 12 models failed and the run goes on without them: model 5: its loss became nan in "
        "epoch 2" in capsys.readouterr().err
    )
    assert report["design"]["targets"] == [m for m in range(12) if m != 5] and report["design"][
        "without_twin"
    ] == [4]
    assert [record["model"] for record in report["design"]["failed"]] == [5] and [
        row["model"] for row in report["models"]
    ] == report["design"]["targets"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert "12 models (1 failed), 11 of them audited as targets" in text
    assert (
        "**1 of 12 models failed**" in text
        and "trained on the complementary rows failed: 4" in text
    )
    assert {row["attack"] for row in report["results"]} == set(ALL) and report["validity"][
        "membership"
    ]["problems"] == []
    assert report["validity"]["files"]["stale"] == report["validity"]["files"]["unknown"] == []
    for name in ALL:
        stored = files.read_npz(tmp_path / "attack" / name / "scores.npz")
        assert 5 not in stored["models"] and np.isfinite(stored["score_TN"]).any(1).all()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.np?")}
    run.run(config(attacks=ALL), workdir_path=tmp_path)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    assert "train: all 11 models are on disk" in capsys.readouterr().err


def test_scores_without_a_failed_model_are_those_of_one_view_per_target(tmp_path, spoil):
    """The fast program for all targets at once, equal to Views one by one; NaN of the failed model
    in neither.
    """

    spoil([5])
    run.run(config(attacks=dict(lira={})), workdir_path=tmp_path, stages_wanted=["train", "query"])
    experiment = build.build(config(attacks=dict(lira={})).to_dict(), seed=0)
    store = Store(tmp_path, experiment.run)
    audit = experiment.without_failed(store)
    (planned,) = audit.attacks
    lira_attack, measured = planned.attack, audit.reader(store).fleet(planned)
    assert (
        np.isnan(measured.signal["rescaled_logit"][5]).all()
        and np.isfinite(measured.signal["rescaled_logit"][4]).all()
    )
    every = lira_attack.score_all(measured, None)
    views = np.stack(
        [
            lira_attack.score(measured.evidence_against(t, lira_attack.needs), None)
            for t in audit.design.targets
        ]
    )
    np.testing.assert_allclose(every, views, rtol=1e-9, atol=1e-9)
    from mia_jax.attacks import _sides

    assert _sides.every_other_unit(audit.design)


@pytest.mark.slow
def test_retries_train_a_failed_model_with_another_key_and_the_scores_are_made_anew(
    tmp_path, spoil
):
    spoil([5, 6], attempts=(0,))
    run.run(config(), workdir_path=tmp_path)
    kept = checkpoint.model_file(tmp_path / "train", 4).stat().st_mtime_ns
    report = run.run(config(run=dict(retries=2)), workdir_path=tmp_path)
    assert (
        report["design"]["targets"] == list(range(12))
        and report["design"]["retried"] == [5, 6]
        and "failed" not in report["design"]
    )
    assert [row.get("attempt") for row in report["models"]] == [None] * 5 + [1, 1] + [None] * 5
    assert checkpoint.model_file(tmp_path / "train", 4).stat().st_mtime_ns == kept
    assert (
        (tmp_path / "attack.1").is_dir()
        and (tmp_path / "report.1" / "report.md").exists()
        and not list((tmp_path / "train" / "failed").iterdir())
    )
    assert (
        "Trained again with another random key after a failed attempt: 5, 6"
        in (tmp_path / "report" / "report.md").read_text()
    )
    at_once = run.run(config(run=dict(retries=1)), workdir_path=tmp_path / "b")
    assert at_once["results"] == report["results"]


def test_an_attempt_that_fails_again_is_recorded_with_its_number(tmp_path, spoil):
    spoil([5], attempts=(0, 1))
    options = dict(workdir_path=tmp_path, stages_wanted=["train"])
    run.run(config(run=dict(retries=1)), **options)
    assert failures.known(tmp_path / "train", range(12))[5]["attempt"] == 1
    run.run(config(run=dict(retries=2)), **options)
    assert failures.known(tmp_path / "train", range(12)) == {}


@pytest.mark.slow
def test_tasks_record_and_retry_the_failures_of_their_shares(tmp_path, spoil):
    spoil([1, 5])
    whole = run.run(config(), workdir_path=tmp_path / "one")
    for i in (0, 1):
        run.run(config(), workdir_path=tmp_path / "shared", task=(i, 2))
    assert sorted(failures.known(tmp_path / "shared" / "train", range(12))) == [1, 5]
    assert run.run(config(), workdir_path=tmp_path / "shared")["results"] == whole["results"]
    run.run(config(run=dict(retries=1)), workdir_path=tmp_path / "shared", task=(1, 2))
    assert sorted(failures.known(tmp_path / "shared" / "train", range(12))) == [1]


def test_a_fleet_with_a_failed_model_can_grow(tmp_path, spoil):
    spoil([5])
    run.run(config(models=8), workdir_path=tmp_path)
    report = run.run(config(models=12), workdir_path=tmp_path, extend=True)
    assert len(report["design"]["targets"]) == 11 and (tmp_path / "attack.1").is_dir()


@pytest.mark.parametrize("again", [False, True])
def test_if_all_models_fail_the_remedy_is_named(again, tmp_path, spoil):
    spoil(range(4))
    options = dict(workdir_path=tmp_path)
    for _ in range(1 + again):
        with pytest.raises(
            FloatingPointError,
            match=r"all 4 models failed: model 0: its loss became nan in epoch 2;.*lower "
            r"learner.learning_rate",
        ) as raised:
            run.run(config(models=4), **options)
    assert "use another workdir" in str(raised.value) and "run.retries=1" in str(raised.value)


def test_a_fleet_without_a_pair_of_shadows_left_is_refused_with_the_remedy(tmp_path, spoil):
    spoil([1, 2])
    with pytest.raises(
        FloatingPointError,
        match=r"2 of 4 models failed and no target with shadows is left.*run.retries=1",
    ):
        run.run(config(models=4), workdir_path=tmp_path)


@pytest.mark.slow
def test_a_paused_run_with_a_failed_model_goes_on_to_the_same_bits(tmp_path, spoil):
    spoil([5])
    whole = run.run(config(), workdir_path=tmp_path / "whole")
    with pytest.raises(jobs.Paused):
        run.run(config(), workdir_path=tmp_path / "cut", pause=toys.Stop(7))
    assert run.run(config(), workdir_path=tmp_path / "cut")["results"] == whole["results"]


@pytest.mark.parametrize("asking", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_model_whose_answers_are_not_finite_has_failed_too(asking, tmp_path, monkeypatch, capsys):
    """Of one forward pass or of questions of its own; the model is kept, beside its record.

    If no model answers, the signal is at fault.
    """
    load, spoiled = checkpoint.load_models, [5]

    def loading(folder, models, template, **place):
        bad = np.isin(np.asarray(models), spoiled)
        tree = load(folder, models, template, **place)
        return jax.tree.map(
            lambda a: np.where(bad.reshape(-1, *(1,) * (a.ndim - 1)), np.nan, a).astype(a.dtype),
            tree,
        )

    monkeypatch.setattr(checkpoint, "load_models", loading)
    if asking:  # forward passes do not notice
        monkeypatch.setattr("mia_jax.query.forward.not_finite", lambda value_AN, name, first: "")
    fields = dict(
        attacks=dict(loss=dict(name="threshold", signal="loss")),
        query=dict(signals=("embedding",), ask_batch_size=7),
    )
    report = run.run(config(**fields), workdir_path=tmp_path)
    name = "embedding" if asking else "loss"
    assert (
        f"query: model 5 has failed, it answers signal '{name}' with NaN or infinity for"
        in capsys.readouterr().err
    )
    assert report["design"]["targets"] == [m for m in range(12) if m != 5]
    record = failures.known(tmp_path / "train", range(12))[5]
    assert record["stage"] == "query" and (tmp_path / "train" / "failed" / "00005.npz").exists()
    spoiled[:] = range(12)
    with pytest.raises(
        ValueError, match="no model gives finite answers; 12 of 12 fail, the first is model 0"
    ):
        run.run(config(**fields), workdir_path=tmp_path / "b")
    assert len(checkpoint.finished(tmp_path / "b" / "train", range(12))) == 12


@pytest.mark.slow
def test_a_failing_seed_does_not_end_the_others(tmp_path, spoil):
    """It is named in the end; the same command with its remedy finishes it, and then there is a
    report over all.
    """
    spoil(range(4), seed=1)

    def several(**run):
        return config(
            models=4,
            attacks=dict(loss=dict(name="threshold", signal="loss")),
            seed=(0, 1, 2),
            run=run,
        )

    with pytest.raises(
        ValueError,
        match=r"^1 of 3 seeds failed, the others are finished, and .*: seed 1: all 4 models failed",
    ):
        run.run(several(), workdir_path=tmp_path)
    assert [(tmp_path / f"seed-{s}" / "report" / "report.json").exists() for s in range(3)] == [
        True,
        False,
        True,
    ]
    assert not (tmp_path / "report").exists()
    stamps = {
        path: path.stat().st_mtime_ns
        for s in (0, 2)
        for path in (tmp_path / f"seed-{s}" / "train" / "model").glob("*")
    }
    report = run.run(several(retries=1), workdir_path=tmp_path)
    assert {row.get("n_seeds") for row in report["results"]} == {3} and all(
        path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()
    )


def test_what_fails_for_every_seed_is_said_once(tmp_path):
    wrong = config(models=4, seed=(0, 1)).to_dict()
    wrong["learner"]["optimizer"] = "adm"
    with pytest.raises(ValueError, match=r"^optimizers: there is no 'adm'"):
        run.run(wrong, workdir_path=tmp_path)


@pytest.mark.slow
def test_of_private_training_the_selection_is_said_where_epsilon_is(tmp_path, spoil):
    """Which models failed, and that others were trained twice, depends on private rows and is
    covered by no epsilon.
    """
    spoil([1, 6])
    private = dict(
        epochs=2, gradient="private", privacy=dict(delta=1e-3, clip_norm=1.0, noise_multiplier=2.0)
    )
    fields = dict(
        models=8, learner=private, attacks=dict(loss=dict(name="threshold", signal="loss"))
    )
    report = run.run(config(**fields), workdir_path=tmp_path)
    notes, plain = report["guarantee"]["notes"], report["guarantee"]["epsilon"]
    assert any(
        note.startswith("2 models that failed are left out") and "epsilon does not cover" in note
        for note in notes
    )
    assert "which epsilon does not cover" in (tmp_path / "report" / "report.md").read_text()
    report = run.run(config(**fields, run=dict(retries=1)), workdir_path=tmp_path)
    notes = report["guarantee"]["notes"]
    assert any(
        note.startswith("Models 1, 6 were trained again") and "attempts compose" in note
        for note in notes
    )
    assert (
        not any("left out" in note for note in notes)
        and report["guarantee"]["epsilon"] == plain > 0
    )


def test_shadows_beside_a_target_of_the_users_own_stay_pairs():
    member = np.arange(100) % 2 == 0
    whole = target.with_model(
        halves.make(num_examples=100, seed=0, models=8, population=0.0), member, path="a target"
    )
    left = _failed.without(whole, [5])
    assert left.targets == (8,) and np.flatnonzero(left.shadow_MM[8]).tolist() == [0, 1, 2, 3, 6, 7]
    assert np.unique(left.member_MN[left.shadow_MM[8]].sum(0)).tolist() == [3]
