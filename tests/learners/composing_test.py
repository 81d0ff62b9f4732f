"""Defenses of training compose: with a fleet that is paused and resumed, and with a private
gradient where the loss of an example is its own; where it is not, they are refused with the reason.
"""

import numpy as np
import pytest

from mia_jax import configuration
from mia_jax.pipeline import build
from mia_jax.pipeline.run import run
from mia_jax.runtime import files, jobs
from mia_jax.runtime.store import Store
from tests import toys

PRIVATE = dict(gradient="private", privacy=dict(noise_multiplier=1.0, clip_norm=1.0), batch_size=16)
DEFENSES = dict(
    relax_loss=dict(objective=dict(name="relax_loss", alpha=1.0)),
    relax_loss_each=dict(objective=dict(name="relax_loss", alpha=1.0, mean="example")),
    mixup=dict(objective="mixup"),
    confidence_penalty=dict(objective="confidence_penalty"),
    shifts_and_cutout=dict(shifts=1, augment=("cutout:3",)),
    distillation=dict(name="distillation", on="extra", teacher_epochs=1),
    selena=dict(name="distillation", teachers=3, held_out=1, teacher_epochs=1),
    pre_training=dict(train_on="members_then_extra", members_epochs=1),
)


def config(learner, *, epochs=3, chunk=4):
    return configuration.complete(
        data=dict(name="digits", flat=False, examples=100),
        design=dict(name="halves", models=4, extra=0.2),
        model=dict(name="mlp", widths=(8,)),
        learner=dict(epochs=epochs) | learner,
        attacks=dict(gap=dict()),
        run=dict(chunk=chunk, checkpoint_every=1),
    )


def built(learner):
    whole = config(learner).to_dict()
    del whole["seed"]
    return build.build(whole, seed=0)


@pytest.mark.parametrize("name", ["relax_loss_each", "confidence_penalty", "shifts_and_cutout"])
def test_a_private_gradient_takes_defenses_of_single_examples(name):
    assert built(DEFENSES[name] | PRIVATE).learner.guarantee is not None


def test_a_private_gradient_refuses_losses_of_several_examples():
    with pytest.raises(ValueError, match="depends on the other examples of its batch"):
        built(DEFENSES["mixup"] | PRIVATE)


def test_learners_without_a_private_gradient_say_so():
    with pytest.raises(ValueError, match="'distillation' has no private gradient"):
        config(DEFENSES["distillation"] | PRIVATE)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENSES)
def test_a_paused_fleet_continues_to_the_same_bits(name, tmp_path):
    stages = dict(stages_wanted=("train",))
    run(config(DEFENSES[name]), workdir_path=tmp_path / "whole", **stages)
    with pytest.raises(jobs.Paused):
        run(config(DEFENSES[name]), workdir_path=tmp_path / "parts", pause=toys.Stop(3), **stages)
    run(config(DEFENSES[name]), workdir_path=tmp_path / "parts", **stages)
    for m in range(4):
        whole, parts = (
            files.read_npz(Store(tmp_path / folder).train.model(m)) for folder in ("whole", "parts")
        )
        for key in whole:
            if key.startswith("variables"):
                np.testing.assert_array_equal(whole[key], parts[key], err_msg=key)
                assert np.isfinite(whole[key]).all()
