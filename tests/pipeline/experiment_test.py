"""pipeline/experiment: what is recorded of a config, so that workdirs of older versions go on."""

import dataclasses
import inspect

from mia_jax.configuration import settings
from mia_jax.learners import _private, backprop
from mia_jax.pipeline import experiment

# The fields of learners that the first versions recorded. Nothing is added here: a new field gets
# a default that means what was done before, and stands in experiment.LATER (or LATER_PRIVACY).
FIRST = """augment batch_size drop_last ema epochs gradient init_from l1 l2 learning_rate objective
    optimizer penalize plan privacy schedule snapshots stop trainable validation watch"""
BUILT = "initial loss model num_extra num_rows padded sample stopping".split()  # not of the config


def defaults() -> dict:
    """Returns {field: default} of the section `learner` for backprop."""
    made = {
        name: field.default
        for name, field in inspect.signature(backprop.make).parameters.items()
        if name not in BUILT
    }
    return made | {f.name: f.default for f in dataclasses.fields(settings.LearnerSettings)}


def test_every_later_field_of_a_learner_is_left_out_at_its_default():
    later = experiment.LATER["learner"]
    assert set(defaults()) == set(FIRST.split()) | set(later)
    assert {name: defaults()[name] for name in later} == later
    assert experiment.as_recorded("learner", dict(epochs=3) | later) == dict(epochs=3)


def test_a_later_field_with_another_value_is_recorded():
    for name in experiment.LATER["learner"]:
        assert experiment.as_recorded("learner", {name: "other"}) == {name: "other"}


def test_later_fields_of_private_training_have_their_defaults():
    made = inspect.signature(_private.make).parameters
    later = experiment.LATER_PRIVACY
    assert {name: made[name].default for name in later} == later
