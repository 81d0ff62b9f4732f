"""Tests fleets of image networks with batch statistics.

They are trained together, saved, queried with the saved statistics, and attacked.
"""

import jax
import numpy as np
import pytest

from mia_jax import configuration, registry
from mia_jax.data import synthetic
from mia_jax.pipeline import run as pipeline_run
from mia_jax.runtime import files
from mia_jax.training import checkpoint

IMAGES = dict(
    examples=90, shape=(16, 16, 1), classes=3, random_labels=True
)  # 45 rows a model: the last batch has padding


def run(folder, *, model, models):
    """Returns the mean AUC by attack, the saved arrays of each model, and logits [M,N,C]."""
    config = configuration.complete(
        data=dict(name="synthetic", **IMAGES),
        design=dict(name="halves", models=models),
        model=model,
        learner=dict(epochs=1, batch_size=16, learning_rate=0.01),
        query=dict(save_logits=True, batch_size=45),
        attacks=dict(
            lira=dict(variance="shrunk"), threshold_loss=dict(name="threshold", signal="loss")
        ),
        report=dict(draws=40, figures=False, shadow_curve=()),
        run=dict(chunk=models, checkpoint_every=0),
    )
    report = pipeline_run.run(config, workdir_path=folder)
    saved = [files.read_npz(checkpoint.model_file(folder / "train", m)) for m in range(models)]
    logits = np.stack(
        [np.load(folder / "signal" / "logits" / f"{m:05}.npy")[0] for m in range(models)]
    )
    return (
        {
            r["attack"]: r["value"]
            for r in report["results"]
            if r["metric"] == "auc" and r["target"] is None
        },
        saved,
        logits,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,fields",
    [
        ("lenet_bn", {}),
        pytest.param("resnet18", dict(width=2, resize=0), marks=pytest.mark.slow),
    ],  # the second compiles for long
)
def test_a_fleet_keeps_each_members_batch_statistics(name, fields, tmp_path):
    auc, saved, logits_MNC = run(tmp_path, model=dict(name=name, **fields), models=4)
    assert set(auc) == {"lira", "threshold_loss"} and all(
        np.isfinite(value) for value in auc.values()
    )
    stats = [key for key in saved[0] if "stats" in key]
    assert len(stats) == 2 * sum("scale" in key for key in saved[0]) > 0
    for key in stats:  # they have left their start (means 0, variances 1), each model its own way
        assert all(
            np.abs(model_stats[key] - key.endswith("var")).max() > 1e-4 for model_stats in saved
        )
        assert all(np.abs(saved[0][key] - model_stats[key]).max() > 0 for model_stats in saved[1:])
    built = registry.make("models", name, dict(fields), num_classes=3)
    x = synthetic.load(**IMAGES).x
    template = dict(variables=jax.eval_shape(built.init, jax.random.key(0), x))

    def logits(arrays):
        arrays = {key: value for key, value in arrays.items() if not key.startswith("history")}
        return ask(checkpoint.unflatten(arrays, template, source=tmp_path)["variables"])

    ask = jax.jit(lambda variables: built.apply(variables, x)[0])
    np.testing.assert_allclose(logits(saved[1]), logits_MNC[1], atol=1e-4)
    others = saved[1] | {
        key: saved[0][key] for key in stats
    }  # the model's own statistics are asked, not another's and not the batch's
    assert np.abs(logits(others) - logits_MNC[1]).max() > 1e-3
