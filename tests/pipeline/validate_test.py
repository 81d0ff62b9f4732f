"""What a model, an objective and a signal return is compared with what the task needs, before
anything is trained.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mia_jax import configuration, query_views, registry
from mia_jax.objectives import cross_entropy
from mia_jax.pipeline import build, validate
from mia_jax.query import forward
from mia_jax.runtime import precision
from mia_jax.types import Aux, Model, Pool, Signal, classification, regression
from tests import toys

IMAGES = Pool(
    x=np.zeros((2, 28, 28, 1), np.float32), y=np.zeros(2, np.int32), task=classification(10)
)


def answering(shape_of) -> Model:
    """A model without parameters whose answer has the shape `shape_of(B)`."""
    return Model(
        lambda key, x: {},
        lambda variables, x, **_: (jnp.zeros(shape_of(len(x))) + x.sum(), {}),
        lambda x: "",
    )


@pytest.mark.parametrize("name", registry.names("models"))
def test_every_model_answers_with_a_row_of_logits_per_example(name):
    pool = Pool(x=IMAGES.x, y=IMAGES.y, task=classification(2)) if name == "perceptron" else IMAGES
    out = validate.check_outputs(
        registry.make("models", name, num_classes=pool.num_classes), pool=pool, name=name
    )
    assert out.shape == (pool.num_classes + 2, pool.num_classes)


@pytest.mark.parametrize(
    "shape_of, words",
    [
        (
            lambda b: (b, 7, 10),
            r"shape \(12, 7, 10\).*needs logits \[B,C\], here \(12, 10\): one row of logits per "
            r"example; a model of sequences",
        ),
        (lambda b: (b,), r"shape \(12,\)"),
        (lambda b: (10, b), r"shape \(10, 12\)"),
        (lambda b: (10,), r"shape \(10,\)"),
        (lambda b: (b, 9), r"labels 0..9 need a column each"),
        (lambda b: (), r"shape \(\)"),
    ],
)
def test_answers_of_another_shape_are_refused(shape_of, words):
    with pytest.raises(ValueError, match=words):
        validate.check_outputs(answering(shape_of), pool=IMAGES, name="odd")


def test_one_logit_for_two_classes_has_its_remedy_and_regression_its_shape():
    pool = toys.pool(classes=2)
    for shape_of in (lambda b: (b, 1), lambda b: (b,)):
        with pytest.raises(ValueError, match=r"return jnp.stack\(\[jnp.zeros_like\(z\), z\], -1\)"):
            validate.check_outputs(answering(shape_of), pool=pool, name="odd")
    real = Pool(x=pool.x, y=pool.x[:, 0], task=regression())
    assert validate.check_outputs(answering(lambda b: (b, 1)), pool=real, name="linear").shape == (
        2,
        1,
    )
    with pytest.raises(ValueError, match=r"regression needs \[B,1\], here \(2, 1\)"):
        validate.check_outputs(answering(lambda b: (b,)), pool=real, name="odd")


def test_an_objective_returns_one_number_per_example():
    model, pool = toys.mlp(), toys.pool()
    validate.check_loss(
        cross_entropy.make(model=model), model=model, pool=pool, name="cross_entropy"
    )
    for value, metric, words in (
        (lambda out: out.mean(), jnp.zeros_like, r"the loss of 5 examples has shape \(\)"),
        (lambda out: out, jnp.zeros_like, r"the loss of 5 examples has shape \(5, 3\)"),
        (
            lambda out: out[:, 0],
            lambda loss: loss[:, None] - loss[None],
            r"the metric 'm' of 5 examples has shape \(5, 5\)",
        ),
    ):

        def loss(variables, batch, *, key_B=None, train=False, value=value, metric=metric):
            loss_B = value(model.apply(variables, batch.x)[0])
            return loss_B, Aux(stats={}, metrics=dict(m=metric(loss_B)))

        with pytest.raises(ValueError, match=words):
            validate.check_loss(loss, model=model, pool=pool, name="odd")


def test_an_objective_of_pairs_is_asked_with_pairs():
    model = registry.make("models", "siamese", num_classes=10)
    rows = registry.load("learners", "balanced_pairs").ROWS
    validate.check_loss(
        registry.make("objectives", "contrastive", model=model),
        model=model,
        pool=IMAGES,
        name="contrastive",
        rows=rows,
    )


@pytest.mark.parametrize(
    "name",
    [n for n in registry.names("signals") if registry.make("signals", n).measure is not None],
)
def test_every_signal_of_one_pass_is_a_number_or_a_vector_per_example(name):
    signal = registry.make("signals", name)
    out = jax.ShapeDtypeStruct((12, 10), np.float32)
    if name != "squared_loss":
        validate.check_signals({name: signal}, out=out, pool=IMAGES)
    real = Pool(x=IMAGES.x, y=np.zeros(2, np.float32), task=regression())
    if name in ("loss", "squared_loss", "logits"):
        validate.check_signals(
            {name: signal}, out=jax.ShapeDtypeStruct((2, 1), np.float32), pool=real
        )


def test_a_signal_that_broadcasts_is_refused_when_it_is_made_and_when_it_is_asked():
    out = jax.ShapeDtypeStruct((12, 10), np.float32)
    outer, over_batch, total = (
        lambda out, y: out[:, None] * out[..., None],
        lambda out, y: out.mean(0),
        lambda out, y: out.sum(),
    )
    for measure, shape in ((outer, "12, 10, 10"), (over_batch, "10"), (total, "")):
        with pytest.raises(ValueError, match=rf"signal 'odd' of 12 examples has shape \({shape}"):
            validate.check_signals(dict(odd=Signal(measure, +1)), out=out, pool=IMAGES)
    pool = toys.pool(8)
    signals = dict(odd=Signal(lambda out, batch: out.mean(), +1))
    ask = forward.answers(
        model=toys.mlp(),
        task=pool.task,
        signals=signals,
        views=query_views.make(("identity",)),
        batch_size=4,
    )
    variables = toys.mlp().init(jax.random.key(0), pool.x[:1])
    with pytest.raises(ValueError, match="signal 'odd' of 4 examples has shape"):
        ask(variables, pool.x, pool.y)


def test_rank_promotion_raises_in_compiled_programs_and_is_allowed_inside_a_users_model():
    """[B] beside [B,C] would broadcast; pytest's own setting is switched off here, so that what
    raises is the product.
    """
    signal = Signal(lambda out, y: out.max(-1) - out, +1)  # [B] - [B,C], and B = C
    pool = toys.pool(8, classes=4)
    model = toys.mlp(num_classes=4)
    fields = dict(task=pool.task, views=query_views.make(("identity",)), batch_size=4, chunk=1)
    variables = jax.tree.map(lambda a: a[None], model.init(jax.random.key(0), pool.x[:1]))

    def promoting(variables, x, **_):
        return model.apply(variables, x)[0] + jnp.arange(4.0), {}

    with jax.numpy_rank_promotion("allow"):
        with pytest.raises(ValueError, match="rank_promotion"):
            forward.program(model=model, signals=dict(odd=signal), **fields)(
                variables, pool.x, pool.y
            )
        users_model = model._replace(apply=promoting)
        with pytest.raises(ValueError, match="rank_promotion"):
            forward.program(
                model=users_model, signals=dict(loss=registry.make("signals", "loss")), **fields
            )(variables, pool.x, pool.y)
        answers = forward.program(
            model=precision.lenient(users_model),
            signals=dict(loss=registry.make("signals", "loss")),
            **fields,
        )(variables, pool.x, pool.y)
    assert answers["loss"].shape == (1, 1, 8)


def test_a_config_with_a_model_of_sequences_is_refused_before_training(monkeypatch, tmp_path):
    (tmp_path / "per_token").mkdir()
    (tmp_path / "per_token" / "model.py").write_text(
        "import jax.numpy as jnp\n"
        "from mia_jax.types import Model\n"
        "def make(*, num_classes):\n"
        "    apply = lambda variables, x, **_: (jnp.zeros((len(x), 7, num_classes)), {})\n"
        "    return Model(lambda key, x: {}, apply, lambda x: '')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sections = dict(
        data=dict(name="synthetic"),
        design=dict(name="halves", models=4),
        attacks=dict(threshold=dict(signal="loss")),
    )
    config = configuration.complete(model=dict(name="per_token.model"), **sections).to_dict()
    with pytest.raises(
        ValueError, match=r"model 'per_token.model' answers .* needs logits \[B,C\]"
    ):
        build.build(config, seed=0)
