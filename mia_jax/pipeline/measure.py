"""MEASURE: computes every number of a report from scores, signals and membership."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.configuration.settings import ReportSettings
from mia_jax.measures import (
    agreement,
    cross_validation,
    curves,
    evasion,
    identification,
    overfitting,
    verdict,
)
from mia_jax.metrics import (
    bootstrap,
    comparisons,
    further,
    slice_rows,
    sorted_scores,
    summary,
)
from mia_jax.metrics import rows as result_rows
from mia_jax.metrics.record_groups import Grouped
from mia_jax.pipeline import numbers
from mia_jax.pipeline.attack import SignalReader
from mia_jax.pipeline.evidence import (
    attack_evidence,
    chosen_thresholds,
    layers_of,
    rerun_evidence,
)
from mia_jax.pipeline.measure_epochs import measure_epochs
from mia_jax.pipeline.measured import Measured
from mia_jax.pipeline.pieces import Named, Piece, unkept
from mia_jax.pipeline.plan import Questions, Subject, TrainedHere
from mia_jax.threat_model import PlannedAttack

Tick = Callable[[int, str], None]


class Measurement(NamedTuple):
    """Holds the numbers of a report, and the arrays from which its files and figures are made.

    Attributes:
      measured: the numbers.
      attacks: {attack: its `attack_evidence`}.
      draws: the draws of the bootstrap.
      records: {attack/field: array} of exposed records.
      epochs: one row per epoch, attack, slice and metric.
    """

    measured: Measured
    attacks: Mapping[str, Mapping]
    draws: bootstrap.Draws
    records: Mapping[str, np.ndarray]
    epochs: Sequence[Mapping]


def measure(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    score_MN: Mapping[str, np.ndarray],
    *,
    settings: ReportSettings,
    questions: Questions | None,
    subject: Subject,
    trained: TrainedHere,
    seed: int,
    inputs: Mapping,
    versions: Mapping,
    tick: Tick = lambda parts, following: None,
    piece: Piece = unkept,
) -> Measurement:
    """Computes everything that the report of an audit shows.

    Args:
      attacks: the planned attacks.
      reader: what was measured, and who trained on what.
      score_MN: {attack: its scores [M,N]}.
      settings: what is computed.
      questions: what the models were asked; None if the user supplied all answers.
      subject: what is audited.
      trained: the models that were trained here.
      seed: the seed of the bootstrap's draws.
      inputs: the result of pipeline/inputs.py: which files were computed from others.
      versions: packages, devices and revision.
      tick: called with (1, what follows) after each part.
      piece: keeps the pieces of which the measurement consists, see pipeline/pieces.py.
    """
    design, pool = reader.design, reader.pool
    rows = design.of_targets()
    shared = dict(member_TN=rows.member_TN, evaluated_TN=rows.evaluated_TN)
    draws = bootstrap.make(len(pool.y), rows.unit_T, draws=settings.draws, seed=seed)
    of = functools.partial(Named, piece)  # the pieces of a part, one per attack
    chosen = of("thresholds").each(
        {
            a.name: functools.partial(chosen_thresholds, score_MN[a.name], design, settings)
            for a in attacks
        }
    )
    evidence = {
        planned.name: attack_evidence(planned, score_MN[planned.name], design, thresholds)
        | rerun_evidence(planned, reader, settings, draws=draws, piece=piece)
        for planned, thresholds in zip(attacks, chosen, strict=True)
    }
    common = dict(draws=draws, fprs=settings.resolved_fprs, level=settings.level)
    if isinstance(draws.record_NR, Grouped):
        stratified = summary.of_targets(draws, rows.member_TN, rows.evaluated_TN)
        nonmembers = int((rows.evaluated_TN & ~rows.member_TN).sum())
        sort = functools.partial(
            sorted_scores.sort,
            **shared,
            targets=rows.targets,
            draws=draws,
            fprs=settings.resolved_fprs,
            pooled_fprs=curves.rates(nonmembers),
            stratified=stratified,
        )
        done = of("sorted").each(
            {name: functools.partial(sort, a["score_TN"]) for name, a in evidence.items()}
        )
        for of_attack, sorted_once in zip(evidence.values(), done, strict=True):
            of_attack["sorted"] = sorted_once

    kept: dict[str, dict] = {}
    results = summary.rows(
        evidence,
        **shared,
        targets=rows.targets,
        unit_T=rows.unit_T,
        ppv_ratio=settings.ppv_ratio,
        keep=kept,
        each=of("intervals").each,
        **common,
    )
    decided = verdict.decide(result_rows.main_rows(results), level=settings.level)
    ranked, order = decided["ranked"], [*decided["ranked"], *decided["apart"]]
    tick(1, "slices")
    layers, slice_notes = layers_of(reader, settings, rows=rows)
    sliced, ranking = slice_rows.rows(
        evidence,
        **shared,
        layers=layers,
        ppv_ratio=settings.ppv_ratio,
        each=of("slices").each,
        **common,
    )
    costs = numbers.costs_of(attacks, reader, questions)
    results = [row | costs.get(row["attack"], {}) for row in results]
    tick(1, "differences between attacks")
    further_rows = further.at_zero(evidence, **shared) if 0 in settings.fprs else []
    further_rows += further.rows(evidence, **shared, each=of("further").each, **common)

    def compared() -> list[dict]:
        by_rank = dict(names=order, draws=draws, level=settings.level)
        return comparisons.rows(kept, order, level=settings.level) + comparisons.accuracies(
            evidence, **shared, **by_rank
        )

    differences = piece("differences", compared)
    detectable = verdict.detectable(
        decided,
        fprs=settings.resolved_fprs,
        n_member=int((rows.evaluated_TN & rows.member_TN).sum(1).min()),
        n_nonmember=int((rows.evaluated_TN & ~rows.member_TN).sum(1).min()),
        units=len(np.unique(rows.unit_T)),
        resampling=draws.resampling,
    )
    tick(1, "records")
    exposed, record_arrays = piece(
        "records",
        lambda: numbers.records_of(attacks, reader, settings, ranked=ranked, seed=seed),
    )
    tick(1, "models and epochs")
    models = piece("models", lambda: numbers.model_rows(reader, trained))
    over_epochs, epoch_rows = measure_epochs(
        attacks, reader, settings=settings, questions=questions, rows=rows, draws=draws, piece=piece
    )
    drawn, histograms = piece("curves", lambda: curves.of(evidence, **shared, **common))
    about = numbers.about_of(reader, subject, settings, seed=seed)
    measured = Measured(
        about=about,
        verdict=dict(decided, detectable=detectable),
        results=results + further_rows + sliced,
        queries=piece(
            "queries",
            lambda: numbers.query_curves(
                attacks, reader, results, costs, settings, rows=rows, draws=draws
            ),
        ),
        curves=drawn,
        histograms=histograms,
        comparisons=differences,
        agreement=piece("agreement", lambda: agreement.measure(evidence, **shared, order=ranked)),
        identification=piece(
            "identification",
            lambda: identification.measure(
                evidence, **shared, order=ranked, targets=rows.targets, seed=seed
            ),
        ),
        slices=dict(
            wanted=list(settings.slices),
            ranking=ranking,
            too_small=len({row["slice"] for row in sliced if row["too_small"]}),
            said=slice_notes,
        ),
        models=models,
        design=numbers.design_numbers(reader, models),
        attacks={a.name: numbers.describe(a, questions) for a in attacks},
        shadow_curves=numbers.shadow_curves(attacks, reader, settings, seed=seed, piece=piece),
        assumptions=piece("assumptions", lambda: numbers.assumption_numbers(attacks, reader)),
        usage=numbers.usage_of(evidence, score_MN, design, ranked=ranked, level=settings.level),
        records=exposed,
        shown_records=piece(
            "shown_records",
            lambda: numbers.shown_records_of(exposed, reader, settings, subject=subject),
        ),
        epochs=over_epochs,
        overfitting=overfitting.measure(
            models,
            results,
            decided,
            unit_T=rows.unit_T,
            targets=rows.targets,
            level=settings.level,
        ),
        audit=piece(
            "audit",
            lambda: numbers.audit_of(attacks, reader, score_MN, settings, trained=trained),
        ),
        guarantee=numbers.promised(reader, trained),
        evasion=evasion.measure(
            reader.store.answers.folder, reader.measured, models=rows.targets, **shared
        ),
        pairs=numbers.pairs_of(reader, trained, settings, rows=rows),
        validity=piece(
            "validity",
            lambda: numbers.checks(
                evidence,
                reader,
                settings,
                draws=draws,
                subject=subject,
                inputs=inputs,
                duplicates=about.duplicates,
                seed=seed,
            ),
        ),
        versions=versions,
        sections=list(settings.sections),
        cross_validation=cross_validation.summary(models) if design.name == "folds" else None,
    )
    return Measurement(measured, evidence, draws, record_arrays, epoch_rows)
