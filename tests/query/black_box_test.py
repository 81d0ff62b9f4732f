"""A black box of the user's own: asked in batches, logged, resumed, never asked twice, and attacked
like any other target.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import configuration, registry
from mia_jax.data import digits
from mia_jax.pipeline.run import run
from mia_jax.query import black_box as black_boxes
from mia_jax.query import interactive
from mia_jax.types import Probe
from tests import black_box

X = np.random.default_rng(0).random((30, 4)).astype(np.float32)


def parity(x):
    return (x.sum(1) * 10).astype(int) % 3


def box(tmp_path, answer=parity, **fields):
    return black_boxes.BlackBox(answer, num_classes=3, log=tmp_path / "log", **fields)


def test_the_same_question_is_asked_once_in_batches_of_the_wanted_size(tmp_path):
    sizes = []
    deployed = box(tmp_path, lambda x: (sizes.append(len(x)), parity(x))[1], batch_size=8)
    labels = deployed.label(np.concatenate([X, X[:5]]))
    np.testing.assert_array_equal(labels, parity(np.concatenate([X, X[:5]])))
    assert sizes == [8, 8, 8, 6] and deployed.asked == deployed.known == 30
    deployed.label(X)
    again = box(tmp_path)
    again.label(X[::-1])
    assert sizes == [8, 8, 8, 6] and again.asked == 0 and again.known == 30


def test_a_failure_half_way_keeps_what_was_answered(tmp_path):
    calls = []

    def flaky(x):
        calls.append(len(x))
        if len(calls) == 3:
            raise ConnectionError("the service is away")
        return parity(x)

    with pytest.raises(ConnectionError):
        box(tmp_path, flaky, batch_size=10).label(X)
    with open(tmp_path / "log", "ab") as file:
        file.write(b"cut off")
    rest = box(tmp_path, batch_size=10)
    np.testing.assert_array_equal(rest.label(X), parity(X))
    assert rest.asked == 10


@pytest.mark.parametrize(
    "answer, text",
    [
        (
            lambda x: parity(x) + 2,
            r"labels outside 0..2; the first is \d\. The 0 answers so far are kept in .*log; run "
            r"the query stage again",
        ),
        (lambda x: parity(x) - 1, "labels outside"),
        (lambda x: parity(x)[1:], r"answered 30 queries with shape \(29,\)"),
        (lambda x: parity(x) / 2, "of float64; expected"),
    ],
)
def test_what_cannot_be_a_label_is_refused(tmp_path, answer, text):
    with pytest.raises(ValueError, match=text):
        box(tmp_path, answer).label(X)
    assert not (tmp_path / "log").exists()


def test_the_rate_is_a_limit(tmp_path):
    start = time.monotonic()
    box(tmp_path, rate=100.0, batch_size=10).label(X)
    assert time.monotonic() - start >= 0.19  # 10 now, 10 after .1 s, 10 after .2 s


def test_answers_in_a_file_are_looked_up_and_what_lacks_is_written_down(tmp_path):
    np.savez(tmp_path / "known.npz", x=X[:20], label=parity(X[:20]))
    answer = black_boxes.answering(str(tmp_path / "known.npz"), folder=tmp_path / "own")
    np.testing.assert_array_equal(answer(X[5:9]), parity(X[5:9]))
    with pytest.raises(
        ValueError, match=r"no answer to 10 of 12 queries; they are in .*unanswered.npz"
    ):
        answer(X[18:])
    with np.load(tmp_path / "own" / "unanswered.npz") as written:
        np.testing.assert_array_equal(written["x"], X[20:])
    for wrong, text in (
        ("nothing.here", "neither an .npz file nor an importable"),
        (str(tmp_path / "no.npz"), "does not exist"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=text):
            black_boxes.answering(wrong, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "boundary_distance:iterations=1,evaluations=6,box=none",
        "noise_robustness:samples=7",
        "correct_under_shift",
    ],
)
def test_a_black_box_gets_the_answers_that_a_traced_model_gets(tmp_path, name):
    w = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    x, keys = (
        jnp.asarray(np.random.default_rng(0).random((4, 4, 4, 1)), jnp.float32),
        interactive.example_keys(seed=0, name=name, index_B=np.arange(4)),
    )
    traced = lambda q: (q.reshape(len(q), -1) @ w).argmax(-1).astype(jnp.int32)  # noqa: E731
    signal, y = registry.make("signals", name), traced(x)
    expected = jax.jit(lambda *rest: signal.ask(Probe(traced), *rest))(x, y, keys)
    deployed = box(tmp_path, lambda q: (q.reshape(len(q), -1) @ w).argmax(-1))
    with jax.disable_jit():
        value = signal.ask(Probe(deployed.label), x, y, keys)
    np.testing.assert_allclose(value[0], expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(value[1], expected[1])


# ---- in a run ----


def config_of(tmp_path, **target):
    shift = dict(name="lookup", signal="correct_under_shift")
    return configuration.complete(
        data=dict(name="digits", flat=False),
        design=dict(name="halves", models=4, population=0.1),
        model=dict(name="mlp", widths=(16,)),
        learner=dict(epochs=3, batch_size=64),
        attacks=dict(gap=dict(), shift=shift),
        query=dict(ask_batch_size=50),
        report=dict(figures=False, slices=()),
        target=dict(black_box="tests.black_box.answer", member=str(tmp_path / "member.npz"))
        | target,
    )


@pytest.fixture
def deployed(tmp_path):
    """The membership of a black box that keeps every second row."""
    pool = digits.load(flat=False)
    rows = np.arange(len(pool.y))
    np.savez(tmp_path / "member.npz", member=(rows < 600) & (rows % 2 == 0), evaluated=rows < 600)
    member_N = (rows < 600) & (rows % 2 == 0)
    black_box.KEPT.update(x=pool.x[member_N].reshape(-1, 64), y=pool.y[member_N])
    black_box.STATE.update(asked=0, fail_at=None, wrong_at=None)
    return pool


@pytest.mark.slow
def test_a_black_box_that_fails_is_gone_on_with_and_attacked(tmp_path, deployed, monkeypatch):
    config = config_of(tmp_path)
    config = type(config)(config).unlock()
    config.design.population = 0.0
    black_box.STATE["fail_at"] = 900
    with pytest.raises(ConnectionError):
        run(config, workdir_path=tmp_path / "run")
    black_box.STATE.update(fail_at=None, wrong_at=2000)
    with pytest.raises(ValueError, match=r"labels outside 0\.\.9"):
        run(config, workdir_path=tmp_path / "run")
    before = black_box.STATE["asked"]
    black_box.STATE["wrong_at"] = None
    report = run(config, workdir_path=tmp_path / "run")
    assert (
        before < black_box.STATE["asked"] < 3000 + 3 * 256 + 300
    )  # 600 images and 4 shifts of each; at most a batch lost a failure
    row = next(
        r
        for r in report["results"]
        if (r["attack"], r["metric"], r["target"]) == ("gap", "auc", None)
    )
    assert row["value"] > 0.5 and row["queries"] == 1 and report["design"]["targets"] == [4]
    correct_N = np.load(tmp_path / "run" / "signal" / "correct" / "00004.npy")[0]
    assert (
        (correct_N[:600:2] == 1).all()
        and np.isnan(correct_N[600:]).all()
        and 0 < np.mean(correct_N[1:600:2]) < 1
    )
    asked = black_box.STATE["asked"]
    run(config, workdir_path=tmp_path / "run")
    assert black_box.STATE["asked"] == asked


def test_a_black_box_tells_labels_only_and_its_membership_is_needed(tmp_path, deployed):
    config = type(c := config_of(tmp_path))(c).unlock()
    config.design.population = 0.0
    config.attacks.gap = dict(name="threshold", signal="loss")
    with pytest.raises(
        ValueError,
        match=r"attack 'gap' needs the signal 'loss' \(access: outputs\); target.black_box answers "
        r"labels alone",
    ):
        run(config, workdir_path=tmp_path / "run")
    with pytest.raises(ValueError, match=r"target\.black_box needs target\.member"):
        run(config_of(tmp_path, member=""), workdir_path=tmp_path / "run")
