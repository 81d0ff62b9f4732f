"""A stranger's plug-in of every kind of the registry: a module beside the package, named by its
dotted path, works from data to report.
"""

import importlib
import sys
import types

import numpy as np
import pytest

import mia_jax
from mia_jax import configuration, registry
from mia_jax.configuration import listing
from mia_jax.pipeline.run import run

MODULES = dict(
    data="""
        import numpy as np
        from mia_jax.data._pool import checked
        from mia_jax.types import Pool, classification

        def load(*, rows=10):
            stranger.CALLED.add("data")
            rng = np.random.default_rng(0)
            y = rng.integers(0, 3, rows).astype(np.int32)
            x = rng.normal(size=(rows, 4)).astype(np.float32)
            return checked(Pool(x=x, y=y, name="strange", task=classification(3)))
    """,
    designs="""
        from mia_jax.designs import halves

        def make(*, num_examples, seed, models=2):
            stranger.CALLED.add("designs")
            return halves.make(num_examples=num_examples, seed=seed, models=models)
    """,
    models="""
        from tests import toys

        def make(*, num_classes, width=8):
            stranger.CALLED.add("models")
            return toys.mlp(num_classes, width)
    """,
    objectives="""
        from mia_jax.objectives import cross_entropy

        def make(*, model, scale=1.0):
            stranger.CALLED.add("objectives")
            loss = cross_entropy.make(model=model)

            def scaled(*args, **kwargs):
                loss_B, aux = loss(*args, **kwargs)
                return scale * loss_B, aux

            return scaled
    """,
    learners="""
        from collections.abc import Mapping, Sequence
        from mia_jax.learners import backprop

        def make(
            *, model, loss, num_rows, epochs: int = 1, optimizer: str | Mapping = "sgd",
            learning_rate: float = 0.1,
            schedule: str | Mapping = "constant_schedule", augment: Sequence[str] = (),
        ):
            stranger.CALLED.add("learners")
            descent = dict(optimizer=optimizer, learning_rate=learning_rate)
            descent |= dict(schedule=schedule, augment=augment, epochs=epochs, batch_size=8)
            return backprop.make(model=model, loss=loss, num_rows=num_rows, **descent)
    """,
    optimizers="""
        import optax

        def make(*, learning_rate, decay: float = 0.9):
            stranger.CALLED.add("optimizers")
            return optax.chain(optax.trace(decay), optax.scale_by_learning_rate(learning_rate))
    """,
    schedules="""
        def make(*, learning_rate, steps, end: float = 0.0):
            stranger.CALLED.add("schedules")
            return lambda step: learning_rate + (end - learning_rate) * step / steps
    """,
    augmentations="""
        import jax

        def make(*, noise: float = 0.1):
            stranger.CALLED.add("augmentations")
            return lambda x, key: x + noise * jax.random.normal(key, x.shape, x.dtype)
    """,
    query_views="""
        def make(*, factor: float = 2.0):
            stranger.CALLED.add("query_views")
            return lambda x: factor * x
    """,
    signals="""
        from mia_jax.types import Signal

        def make(*, power: int = 1):
            stranger.CALLED.add("signals")
            return Signal(lambda out_BC, y_B: out_BC.max(-1) ** power, +1)
    """,
    defenses="""
        from mia_jax.types import Defense

        def make(*, strength: float = 1.0):
            stranger.CALLED.add("defenses")
            return Defense(lambda out_BC: out_BC / strength, keeps_labels=True)
    """,
    attacks="""
        from mia_jax.types import Attack

        def make(*, signal: str = "stranger.my_signals:power=3"):
            stranger.CALLED.add("attacks")
            score = lambda evidence, key: evidence.target[signal].mean(0)
            return Attack(score, (signal,), knows="nothing", note="strange")
    """,
    classifiers="""
        NEUTRAL = 0.5

        def make(*, sign: float = 1.0):
            stranger.CALLED.add("classifiers")
            return lambda jobs, key: [sign * job.ask_NF[:, 0] for job in jobs]
    """,
    sections="""
        NEEDS = ("about",)

        def text(*, about):
            stranger.CALLED.add("sections")
            return f"## A stranger's section\\n\\n{about['examples']} examples.\\n"
    """,
    frameworks="""
        from mia_jax.external.frameworks import Predictor

        def takes(model):
            return hasattr(model, "strange_answers")

        def predictor(model, *, batch_size, device=None):
            stranger.CALLED.add("frameworks")
            return Predictor(model.strange_answers, "logits", None, "a strange model")

        def trainer(model):
            return None
    """,
    trackers="""
        class Mine:
            def log(self, step, values):
                stranger.CALLED.add("trackers")

            def close(self):
                pass

        def make(*, folder):
            return Mine()
    """,
    slices="""
        import numpy as np
        from mia_jax.metrics.slices import Layer

        NEEDS = ("labels",)

        def make(*, cut: int = 1):
            stranger.CALLED.add("slices")
            def slice_of(records):
                high_N = np.asarray(records.labels_N) >= cut
                return Layer(("low", "high"), high_N.astype(np.int32), False)

            return slice_of
    """,
)


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """The package `stranger` beside ours, with one module my_<kind>.py per kind of the registry."""
    package = tmp_path / "beside" / "stranger"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("CALLED = set()\n")
    for kind, text in MODULES.items():
        lines = [line[8:] for line in text.splitlines()]
        (package / f"my_{kind}.py").write_text("import stranger\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(package.parent))
    importlib.invalidate_caches()
    yield importlib.import_module("stranger")
    for name in [name for name in sys.modules if name.split(".")[0] == "stranger"]:
        monkeypatch.delitem(sys.modules, name)


def config_of(**learner):
    mine = "stranger.my_{}".format
    features = (mine("signals") + ":power=3", "loss")
    return configuration.complete(
        data=dict(name=mine("data"), rows=60),
        design=dict(name=mine("designs"), models=4),
        model=dict(name=mine("models"), width=5),
        learner=dict(
            name=mine("learners"),
            epochs=2,
            objective=dict(name=mine("objectives"), scale=2.0),
            optimizer=dict(name=mine("optimizers"), decay=0.5),
            schedule=dict(name=mine("schedules"), end=0.01),
            augment=(mine("augmentations") + ":0.2",),
        )
        | learner,
        query=dict(views=("identity", mine("query_views") + ":factor=0.5")),
        attacks=dict(
            mine=dict(name=mine("attacks")),
            defended=dict(
                name=mine("attacks"), defense=mine("defenses") + ":strength=3.0", adaptive=True
            ),
            learned=dict(
                name="attack_model",
                kind=mine("classifiers"),
                options=dict(sign=-1.0),
                features=features,
            ),
        ),
        report=dict(
            draws=40,
            figures=False,
            slices=(mine("slices") + ":cut=2", "class & " + mine("slices")),
            sections=(mine("sections"),),
        ),
    )


def test_every_kind_takes_a_module_of_a_strangers_own(tmp_path, stranger):
    """One tiny run in which all that can be chosen is a module beside the package."""
    assert set(MODULES) == set(registry.KINDS), (
        "a kind of the registry without a stranger's module in this test"
    )
    report = run(config_of(), workdir_path=tmp_path / "run", tracker="stranger.my_trackers")
    strange = types.SimpleNamespace(strange_answers=lambda x: np.stack([-x, x], 1))
    rows = dict(x=np.arange(40.0) - 20, y=np.arange(40) > 19, member=np.arange(40) % 2)
    mine = dict(predict=strange, framework="stranger.my_frameworks", attacks="gap", draws=40)
    assert "The target is a strange model." in mia_jax.audit(**mine, **rows).report["about"]["said"]
    assert set(registry.KINDS) == stranger.CALLED
    assert {row["attack"] for row in report["results"]} == {"mine", "defended", "learned"}
    assert {"low", "high", "class=0 & low", "class=2 & high"} <= {
        row["slice"] for row in report["results"]
    }
    assert "A stranger's section" in (tmp_path / "run" / "report" / "report.md").read_text()
    asked = {path.name for path in (tmp_path / "run" / "signal").iterdir() if path.is_dir()}
    assert {
        "stranger.my_signals:power=3",
        "stranger.my_signals:power=3@stranger.my_defenses:strength=3.0",
    } <= asked


def test_a_strangers_settings_are_checked_like_ours(stranger):
    refused = {
        r"no field 'decai'.*Did you mean 'decay'": dict(
            optimizer=dict(name="stranger.my_optimizers", decai=0.5)
        ),
        r"stranger.my_optimizers.*|decay='fast'|decay=fast": dict(
            optimizer=dict(name="stranger.my_optimizers", decay="fast")
        ),
        "there is no module 'stranger.nothing'": dict(optimizer="stranger.nothing"),
        "has no function make": dict(schedule="stranger.my_data"),
    }
    for message, learner in refused.items():
        with pytest.raises(ValueError, match=message):
            config_of(**learner)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_kind_is_listed_with_all_its_names(kind):
    assert kind in listing.known_kinds()
    lines = [
        line.split()[0]
        for line in listing.text(kind).splitlines()[2:]
        if line and not line.startswith(" ")
    ]
    assert set(lines) == set(registry.names(kind))


def test_the_fields_of_a_strangers_optimizer_are_listed(stranger):
    assert "decay" in listing.text("fields:learner.optimizer:stranger.my_optimizers")
