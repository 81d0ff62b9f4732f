"""Builds a small audit that takes as long per record as a large one, for rehearsals of attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mia_jax.configuration.settings import TargetSettings
from mia_jax.pipeline.experiment import Experiment
from mia_jax.training import stream
from mia_jax.types import Pool

NOISE = 0.05  # by which answers of models that were not asked differ from those that were


def build(
    experiment: Experiment,
    rows_K: np.ndarray,
    values: Mapping[str, np.ndarray],
    *,
    models: int,
    rng: np.random.Generator,
) -> Experiment:
    """Returns the audit of given answers of some records of the first models, by the same attacks.

    Args:
        experiment: the run.
        rows_K: the records.
        values: {signal: answers [m,A,n,..] of some models about some examples}; they are repeated
            for other models and records, with a little noise.
        models: the number of models.
        rng: draws the records and the noise.
    """
    design = experiment.design
    names = {signal for planned in experiment.attacks for signal in planned.signals}
    names |= set(experiment.signals)
    supplied = {}
    for name in sorted(names):
        of = experiment.supplied.get(name, values.get(name, values.get(name.split("@")[0])))
        if of is None:
            raise ValueError(f"the signal {name!r} is not rehearsed")
        m = np.arange(models) % len(of)
        n = rng.integers(0, of.shape[2], len(rows_K))
        supplied[name] = _varied(of[m][:, :, n], rng)
    cut = dataclasses.replace(
        design,
        member_MN=design.member_MN[:models, rows_K],
        evaluated_MN=design.evaluated_MN[:models, rows_K],
        shadow_MM=design.shadow_MM[:models, :models],
        population_N=design.population_N[rows_K],
        unit_M=design.unit_M[:models],
        targets=tuple(t for t in design.targets if t < models),
        extra_MN=None,
        coin_N=None,
        remake=None,
    )
    settings = dataclasses.replace(
        experiment.settings,
        report=dataclasses.replace(
            experiment.settings.report, epochs=(), groups={}, sections=(), audit=None
        ),
        target=TargetSettings(),
        learner=None,
    )
    return dataclasses.replace(
        experiment,
        config=dict(experiment.config) | dict(data=dict(name="rehearsal"), learner=None),
        settings=settings,
        pool=few_rows(experiment.pool, rows_K),
        duplicates=dict(rows=0, groups=0, label_conflicts=0),
        design=cut,
        rows_MK=np.zeros((0, 0), np.int32),
        weight_MK=np.zeros((0, 0), np.float32),
        model=None,
        learner=None,
        signals=dict.fromkeys(supplied),
        supplied=supplied,
        failed={},
    )


def _varied(answers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns answers with a little noise, within their range; those of two values stay as is."""
    low, high = answers.min(), answers.max()
    if answers.dtype.kind != "f" or np.isin(answers, (low, high)).all():
        return np.ascontiguousarray(answers)
    noise = rng.standard_normal(answers.shape, np.float32) * np.float32(NOISE * answers.std())
    return np.clip(answers + noise, low, high).astype(answers.dtype)


def few_rows(pool: Pool, rows_K: np.ndarray) -> Pool:
    """Returns a pool of some rows, with their columns."""
    columns = {name: np.asarray(column)[rows_K] for name, column in pool.columns.items()}
    return dataclasses.replace(stream.bare(pool, rows_K), columns=columns)
