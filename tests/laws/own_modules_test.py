"""Models, objectives, attacks and data from a package beside ours: a config names a module with its
dotted path.
"""

import textwrap

import pytest

from mia_jax import configuration
from mia_jax.pipeline import run

MINE = dict(
    model=dict(
        path="my_pkg.my_model",
        width=5,
        text="from tests import toys\n\n\ndef make(*, num_classes, width=8):\n    return "
        "toys.mlp(num_classes, width)\n",
    ),
    objective=dict(
        path="my_pkg.my_objective",
        scale=2.0,
        text="""
            import jax.numpy as jnp
            from mia_jax.types import Aux
            def make(*, model, scale=1.0):
                def loss(variables, batch, *, key_B=None, train=False):
                    extra = dict(key_B=key_B, weight_B=batch.weight_B, train=train)
                    out, stats = model.apply(variables, batch.x, **extra)
                    loss_B = scale * ((out - jnp.eye(3)[batch.y]) ** 2).sum(1)
                    return loss_B, Aux(stats=stats, metrics={})
                return loss
        """,
    ),
    attack=dict(
        path="my_pkg.my_attack",
        power=3,
        text="""
            from mia_jax.types import Attack
            def make(*, power=1):
                def score(evidence, key):
                    return -evidence.target["loss"].mean(0) ** power

                return Attack(score, ("loss",), knows="nothing", note=f"power {power}")
        """,
    ),
    data=dict(
        path="my_pkg.my_data",
        rows=60,
        text="""
            import numpy as np
            from mia_jax.data._pool import checked
            from mia_jax.types import Pool, classification
            def load(*, rows=10):
                rng = np.random.default_rng(0)
                y = rng.integers(0, 3, rows).astype(np.int32)
                x = rng.normal(size=(rows, 4)).astype(np.float32)
                return checked(Pool(x=x, y=y, name="mine", task=classification(3)))
        """,
    ),
)


def test_modules_of_your_own(tmp_path, monkeypatch):
    """A model, an objective, an attack and data from a package beside ours, with fields of their
    own.
    """
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "__init__.py").write_text("")
    for kind, module in MINE.items():
        (tmp_path / "my_pkg" / f"my_{kind}.py").write_text(textwrap.dedent(module["text"]))
    monkeypatch.syspath_prepend(str(tmp_path))
    fields_of = {
        kind: {k: v for k, v in module.items() if k != "text"} for kind, module in MINE.items()
    }
    common = dict(design=dict(name="halves", models=4), report=dict(draws=40, figures=False))
    config = configuration.complete(
        data=fields_of["data"],
        model=fields_of["model"],
        learner=dict(epochs=2, objective=fields_of["objective"]),
        attacks=dict(mine=fields_of["attack"]),
        **common,
    )
    report = run.run(config, workdir_path=tmp_path / "w")
    assert (
        report["about"]["model"] == dict(name="my_pkg.my_model", width=5)
        and report["about"]["data"] == "mine"
    )
    assert report["attacks"]["mine"]["note"] == "power 3" and {
        r["attack"] for r in report["results"]
    } == {"mine"}
    given = (
        dict(
            data=fields_of["data"],
            model=fields_of["model"],
            learner=dict(epochs=1),
            attacks=dict(mine=fields_of["attack"]),
        )
        | common
    )
    for section, kind in dict(model="models", data="data").items():
        with pytest.raises(
            ValueError,
            match=rf"{kind}: there is no module 'my_pkg\.other'; it must be importable from here",
        ):
            configuration.complete(**(given | {section: dict(path="my_pkg.other")}))
    with pytest.raises(ValueError, match=r"the module 'my_pkg\.my_data' has no function make"):
        configuration.complete(**(given | dict(model=dict(path="my_pkg.my_data"))))
    with pytest.raises(ValueError, match=r"no field 'widht'.*Did you mean 'width'"):
        configuration.complete(**(given | dict(model=dict(path="my_pkg.my_model", widht=3))))
