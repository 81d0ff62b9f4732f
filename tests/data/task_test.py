"""Tests the task of a data set from end to end.

It covers labels and outputs, tokens that stay integers, and what does not fit the task.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import configuration, registry
from mia_jax.data import _canaries, _pool, tokens
from mia_jax.models import siamese
from mia_jax.pipeline import build, run, validate
from mia_jax.query import black_box as black_boxes
from mia_jax.query import interactive
from mia_jax.runtime import precision
from mia_jax.training import stream
from mia_jax.types import (
    Model,
    Pool,
    Probe,
    Signal,
    classification,
    multilabel,
    regression,
    sequence,
    unlabeled,
)
from tests import toys

VOCABULARY, LENGTH = 20, 6
NET = f"""
import flax.linen as nn
import jax.numpy as jnp


class Net(nn.Module):
    outputs: int
    positions: bool

    @nn.compact
    def __call__(self, x):
        assert x.dtype == jnp.int32, x.dtype
        h = nn.tanh(nn.Dense(8)(nn.Embed({VOCABULARY}, 8)(x)))
        return nn.Dense(self.outputs)(h if self.positions else h.mean(1))


def make(*, num_classes, positions=False):
    return Net(num_classes, positions)
"""
SIGNAL = """
import jax.numpy as jnp
from mia_jax.types import Signal


def make(*, outer: bool = False):
    def measure(out, batch):
        assert batch.x.dtype == jnp.int32
        top = out.max(-1) - (batch.x == 3).any(1) if not outer else out.max(-1) - out
        return top if not outer else top.mean(-1)

    return Signal(measure, +1, tasks=("classification", "sequence"))
"""


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """Writes a folder with a user's network of embeddings and a user's signal."""
    (tmp_path / "embedding_net.py").write_text(NET)
    (tmp_path / "top_signal.py").write_text(SIGNAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def arrays(kind: str, examples: int = 80) -> dict:
    """Returns x [N,L] of tokens with labels of this kind."""
    x = np.random.default_rng(0).integers(0, VOCABULARY, (examples, LENGTH))
    return dict(
        x=x,
        y=dict(classes=np.arange(examples) % 3, tokens=np.roll(x, -1, 1), numbers=x.mean(1))[kind],
    )


def config(folder, kind: str, *, objective="cross_entropy", attacks=None, examples=80, **sections):
    np.savez(folder / f"{kind}.npz", **arrays(kind, examples))
    defaults = dict(
        data=dict(
            name="tokens", path=str(folder / f"{kind}.npz"), vocabulary=VOCABULARY, labels=kind
        ),
        design=dict(name="halves", models=4),
        model=dict(name="embedding_net", positions=kind == "tokens"),
        learner=dict(
            objective=objective, epochs=3, batch_size=8, optimizer="adam", learning_rate=0.05
        ),
        attacks=attacks
        or dict(threshold=dict(signal="loss"), lira=dict(signal="loss", variance="shrunk")),
        report=dict(draws=40, figures=False),
        run=dict(chunk=2),
    )
    return configuration.complete(**(defaults | sections))


# The task
# --------------------------------------------------------------------------------


def test_a_task_says_what_labels_and_outputs_are():
    tasks = [
        classification(7),
        regression(),
        sequence(50),
        multilabel(),
        unlabeled(),
        regression(num_outputs=2),
    ]
    assert [(t.kind, t.y, t.out) for t in tasks[:4]] == [
        ("classification", "B", "BC"),
        ("regression", "B", "B1"),
        ("sequence", "BL", "BLV"),
        ("multilabel", "BC", "BC"),
    ]
    assert [t.num_classes for t in tasks] == [7, 0, 50, 0, 0, 0] and [
        t.num_outputs for t in tasks[:3]
    ] == [7, 1, 50]
    assert [t.has_classes for t in tasks] == [True] + 5 * [False]
    assert tasks[0].signals == ("loss", "correct") and tasks[1].signals == tasks[2].signals == (
        "loss",
    )
    assert tasks[0].slices == ("class",) and not any(t.slices for t in tasks[1:])
    assert hash(classification(7)) == hash(classification(7)) and classification(
        7
    ) != classification(8)
    for wrong in (
        lambda: classification(0),
        lambda: sequence(1),
        lambda: classification(2, vocabulary=1),
    ):
        with pytest.raises(ValueError, match="must be at least"):
            wrong()


def test_a_pool_is_a_tree_whose_task_is_part_of_its_structure():
    pool = toys.pool()
    again = jax.tree.map(lambda a: a, pool)
    assert again.task == pool.task and again.num_classes == 3 and len(jax.tree.leaves(pool)) == 2
    assert stream.bare(pool, np.arange(3)).task == pool.task
    with pytest.raises(TypeError, match="task"):
        Pool(x=pool.x, y=pool.y)


@pytest.mark.parametrize(
    "fields, words",
    [
        (
            dict(task=sequence(4), y=np.zeros((5, 3), int), x=np.full((5, 3), 4)),
            r"toy: token 4 in row 0 lies outside 0..3 \(vocabulary=4\)",
        ),
        (dict(task=sequence(4), y=np.full((5, 3), 4)), r"label 4 in row 0 lies outside 0..3"),
        (dict(task=sequence(4)), r"y has shape \(5,\) but x has 5 rows; expected \[N,L\]"),
        (
            dict(task=classification(2, vocabulary=4), x=np.full((5, 3), 0.5)),
            "must hold whole numbers: vocabulary=4",
        ),
        (dict(task=classification(2), y=np.zeros((5, 2), int)), r"expected one label a row, \[N\]"),
    ],
)
def test_arrays_that_do_not_fit_the_task_are_refused(fields, words):
    sound = dict(
        x=np.arange(15).reshape(5, 3) % 4, y=np.arange(5) % 2, name="toy", task=classification(2)
    )
    with pytest.raises(ValueError, match=words):
        _pool.checked(Pool(**(sound | fields)))


def test_tokens_stay_whole_numbers_and_what_needs_real_numbers_is_refused(tmp_path):
    np.savez(
        tmp_path / "t.npz",
        **arrays("classes"),
        population_x=np.zeros((3, LENGTH), np.uint8),
        population_y=np.arange(3),
    )
    pool = tokens.load(path=str(tmp_path / "t.npz"), vocabulary=VOCABULARY)
    assert (
        pool.x.dtype == np.int32
        and pool.x.shape == (83, LENGTH)
        and pool.task == classification(3, vocabulary=VOCABULARY)
    )
    real = _pool.checked(Pool(x=pool.x, y=pool.y, columns=pool.columns, task=classification(3)))
    assert real.x.dtype == np.float32 and _pool.content_hash(real) != _pool.content_hash(pool)
    assert (
        _pool.drop_duplicates(pool).x.dtype == np.int32
        and stream.bare(pool, np.arange(4)).x.dtype == np.int32
    )
    assert _canaries.insert(pool, count=5).x.dtype == np.int32
    with pytest.raises(ValueError, match="cannot be standardized"):
        _pool.standardize(pool, pool.columns["population"])
    with pytest.raises(
        ValueError,
        match="gradient_aligned' makes examples of real numbers, and this data holds tokens",
    ):
        _canaries.insert(pool, count=5, kind="gradient_aligned")
    model = Model(
        lambda key, x: {},
        lambda variables, x, **_: (jnp.zeros((len(x), 3)), {}),
        lambda x: "",
        lambda variables, x: {},
    )
    with pytest.raises(
        ValueError,
        match=r"signal 'view_similarity.*' asks about changed examples of real "
        r"numbers.*vocabulary=20",
    ):
        validate.make_signals(["view_similarity"], pool=pool, model=model)
    with pytest.raises(
        ValueError, match=r"data.num_classes=3 is for data.labels='classes', not 'tokens'"
    ):
        tokens.load(
            path=str(tmp_path / "t.npz"), vocabulary=VOCABULARY, labels="tokens", num_classes=3
        )


# From end to end
# --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, objective",
    [
        pytest.param("classes", "cross_entropy", marks=pytest.mark.slow),
        pytest.param("numbers", "squared", marks=pytest.mark.slow),
        ("tokens", "cross_entropy"),
    ],
)
def test_a_net_of_embeddings_is_trained_asked_and_attacked_on_tokens(kind, objective, user_folder):
    report = run.run(
        config(user_folder, kind, objective=objective), workdir_path=user_folder / "run"
    )
    auc = {
        r["attack"]: r["value"]
        for r in report["results"]
        if r["metric"] == "auc" and r["target"] is None and r["slice"] == "all"
    }
    assert set(auc) == {"threshold", "lira"} and all(np.isfinite(value) for value in auc.values())
    row = report["models"][0]
    assert row["train_loss"] < row["validation_loss"] and ("train_accuracy" in row) == (
        kind == "classes"
    )
    assert report["about"]["classes"] == dict(classes=3, numbers=0, tokens=VOCABULARY)[kind]


@pytest.mark.slow
def test_streamed_tokens_train_the_same_models(user_folder):
    for name, settings in (("whole", dict(chunk=2)), ("streamed", dict(chunk=2, pool_bytes=5_000))):
        run.run(
            config(user_folder, "classes", examples=800, run=settings),
            workdir_path=user_folder / name,
            stages_wanted=["train"],
        )
    whole, streamed = (
        np.load(user_folder / name / "train" / "model" / "00001.npz")
        for name in ("whole", "streamed")
    )
    names = [name for name in whole.files if name.startswith("variables/")]
    assert names and all(np.array_equal(whole[name], streamed[name]) for name in names)


def test_a_signal_sees_the_examples_that_the_model_was_given(user_folder):
    attacks = dict(threshold=dict(signal="top_signal", sign=1))
    run.run(
        config(user_folder, "classes", attacks=attacks),
        workdir_path=user_folder / "run",
        stages_wanted=["train", "query"],
    )
    assert np.load(user_folder / "run" / "signal" / "top_signal" / "00000.npy").shape == (1, 80)


def test_a_signal_that_broadcasts_over_sequence_logits_is_refused_before_training(user_folder):
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match="rank_promotion"):
        run.run(
            config(
                user_folder,
                "tokens",
                attacks=dict(threshold=dict(signal="top_signal:outer=True", sign=1)),
            ),
            workdir_path=user_folder / "run",
        )
    assert not (user_folder / "run" / "train").exists()


@pytest.mark.parametrize(
    "kind, changes, words",
    [
        ("tokens", dict(model=dict(name="embedding_net")),
         r"model 'embedding_net' answers 22 .*shape \(22, 20\); sequence with 20 classes needs "
         r"logits \[B,L,V\], here \(22, 6, 20\): one row of"),
        ("classes", dict(model=dict(name="embedding_net", positions=True)),
         r"needs logits \[B,C\], here \(5, 3\): .*task=sequence\(vocabulary\)"),
        ("tokens", dict(attacks=dict(gap=dict())), "signal 'correct' is for classification, .*is "
                                                   "sequence; signals for it: loss"),
        ("tokens", dict(attacks=dict(rmia=dict(signal="logits"))),
         "attack 'rmia' reads the logits of classes, and the task of this data is sequence"),
        ("tokens", dict(attacks=dict(rmia=dict())), "attack 'rmia': signal 'log_probability.* is "
                                                    "for classification, .*signals for it: loss"),
        ("tokens", dict(attacks=dict(t=dict(name="class_threshold", signal="loss"))),
         "attack 't' reads class numbers"),
        ("tokens", dict(objective="squared"), "objective 'squared' is for regression, and the task "
                                              "of this data is sequence: use 'cross_entropy'"),
        ("tokens", dict(objective="perceptron"), "objective 'perceptron' is for classification, "
                                                 "and the task of this data is sequence"),
        ("numbers", dict(objective="squared", attacks=dict(t=dict(
            name="threshold", signal="loss", defense="memguard", adaptive=True))),
         "defense='memguard' changes the probabilities of classes, and the task of this data is "
         "regression"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_task_is_refused_before_training(kind, changes, words, user_folder):
    with pytest.raises(ValueError, match=words):
        run.run(config(user_folder, kind, **changes), workdir_path=user_folder / "run")
    assert not (user_folder / "run" / "train").exists()


# Declarations and rank promotion
# --------------------------------------------------------------------------------


def test_a_model_says_which_signals_the_report_asks_of_it():
    assert (
        siamese.make(num_classes=3).signals == ("embedding",)
        and registry.make("models", "mlp", num_classes=3).signals == ()
    )
    sections = dict(
        data=dict(name="synthetic"),
        design=dict(name="halves", models=4),
        attacks=dict(threshold=dict(signal="loss")),
    )
    learner = dict(name="balanced_pairs", objective="contrastive", epochs=1)
    settings = configuration.complete(
        model=dict(name="siamese"), learner=learner, **sections
    ).to_dict()
    assert set(build.build(settings | dict(seed=0), seed=0).signals) == {
        "loss",
        "correct",
        "embedding",
    }


def test_questions_of_a_signals_own_return_a_number_or_a_vector_per_example():
    x, y, keys = jnp.zeros((4, 2)), jnp.zeros(4, jnp.int32), jax.random.split(jax.random.key(0), 4)
    for value, sound in (
        (jnp.zeros(4), True),
        (jnp.zeros((4, 2)), True),
        (jnp.zeros((4, 2, 2)), False),
        (jnp.zeros(3), False),
    ):
        signal = Signal(None, +1, lambda probe, x, y, key, value=value: value)
        ask = interactive.asking(
            lambda variables, shadows: Probe(label=None), signal, [lambda x: x], name="odd"
        )
        if sound:
            assert ask(None, None, x, y, keys)[0].shape == (1, *value.shape)
        else:
            with pytest.raises(
                ValueError,
                match=r"signal 'odd' of 4 examples has shape \(.*it must be .*\(4,\) or \(4, K\)",
            ):
                ask(None, None, x, y, keys)


def test_ranks_are_promoted_in_the_users_own_code_alone(tmp_path):
    promoting = lambda x_B: (jnp.asarray(x_B) + jnp.arange(2.0)).sum(1) > 1  # noqa: E731
    with jax.numpy_rank_promotion("allow"), precision.single():
        with pytest.raises(ValueError, match="rank_promotion"):
            promoting(np.zeros((3, 2), np.float32))
        seen = []

        def box(x_B):
            seen.append(x_B.dtype)
            return np.asarray(promoting(x_B))

        black_box = black_boxes.BlackBox(box, num_classes=2, log=tmp_path / "log")
        np.testing.assert_array_equal(black_box.label(np.zeros((3, 2), np.float32)), 0)
        np.testing.assert_array_equal(black_box.label(np.ones((3, 2), np.int32)), 1)
        assert seen == [np.float32, np.int32]  # tokens reach a black box as whole numbers
        inside = []
        precision.same_in_threads(lambda: inside.append(jax.config.jax_numpy_rank_promotion))()
        assert inside == ["raise"]


def test_outputs_are_compared_with_the_axes_of_the_task():
    pool = _pool.checked(Pool(**arrays("tokens"), task=sequence(VOCABULARY)))

    def answering(shape_of) -> Model:
        apply = lambda variables, x, **_: (jnp.zeros(shape_of(len(x))), {})  # noqa: E731
        return Model(lambda key, x: {}, apply, lambda x: "")

    assert (
        validate.check_outputs(
            answering(lambda b: (b, LENGTH, VOCABULARY + 1)), pool=pool, name="wide"
        ).shape[-1]
        == VOCABULARY + 1
    )
    for shape_of in (
        lambda b: (b, VOCABULARY),
        lambda b: (b, LENGTH + 1, VOCABULARY),
        lambda b: (b, LENGTH),
        lambda b: (LENGTH, b, VOCABULARY),
    ):
        with pytest.raises(
            ValueError, match=r"sequence with 20 classes needs logits \[B,L,V\], here \(22, 6, 20\)"
        ):
            validate.check_outputs(answering(shape_of), pool=pool, name="odd")
