"""Computes the parts of a report that are more than rows of metrics.

These are costs, curves, records, claims and models. Each function computes one key of `Measured`
from what is on disk.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mia_jax import registry, threat_model
from mia_jax.configuration import fields
from mia_jax.configuration.settings import ReportSettings
from mia_jax.data import _pool as pools
from mia_jax.designs import _failed
from mia_jax.measures import (
    assumptions,
    exposed_records,
    meaning,
    pairs,
    privacy_audit,
    query_cost,
    releases,
    shadow_curve,
    shown_records,
    usage,
    validity,
)
from mia_jax.metrics import bootstrap, summary
from mia_jax.metrics import rows as result_rows
from mia_jax.pipeline.attack import SignalReader, labels_only, scores
from mia_jax.pipeline.evidence import attack_evidence, chosen_thresholds
from mia_jax.pipeline.measured import About, DesignNumbers
from mia_jax.pipeline.pieces import Piece, unkept
from mia_jax.pipeline.plan import Questions, Subject, TrainedHere
from mia_jax.privacy import dirac
from mia_jax.threat_model import PlannedAttack, by_name
from mia_jax.training import checkpoint, failures
from mia_jax.types import ACCESS, Design, Pool, TargetRows


def describe(planned: PlannedAttack, questions: Questions | None = None) -> dict:
    """Returns the config of an attack with its `needs`, `knows`, `note` and `access`.

    `access` is the most that one of its signals sees of the target, one of `types.ACCESS`; outputs
    where the user supplied a signal that is none of this package.
    """
    attack = planned.attack
    own = {} if questions is None else questions.signals
    seen = []
    for name in planned.reads:
        signal = own.get(registry.identity("signals", name))
        if signal is None and fields.named(name)[0] in registry.names("signals"):
            signal = registry.make("signals", name)
        seen.append("outputs" if signal is None else signal.access)
    access = max(seen, key=ACCESS.index) if seen else None
    shown = dict(needs=attack.needs, knows=attack.knows, note=attack.note, access=access)
    return dict(planned.section, **shown)


def costs_of(
    attacks: Sequence[PlannedAttack], reader: SignalReader, questions: Questions | None
) -> dict[str, dict]:
    """Returns {label-only attack: {queries, queries_max} per example} on the targets."""
    costs: dict[str, dict] = {}
    if questions is None:
        return costs
    for planned in attacks:
        names = sorted(planned.files)
        signals = {n: questions.signals.get(registry.identity("signals", n)) for n in names}
        if labels_only(names, signals):
            costs[planned.name] = query_cost.spent(
                reader.store.answers.folder,
                names,
                signals,
                models=reader.design.targets,
                evaluated_MN=reader.design.evaluated_MN,
                views=len(reader.views),
            )
    return costs


def query_curves(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    results: Sequence[Mapping],
    costs: Mapping[str, Mapping],
    settings: ReportSettings,
    *,
    rows: TargetRows,
    draws: bootstrap.Draws,
) -> dict[str, list[dict]]:
    """Returns {label-only attack: points of accuracy and TPR against queries per example}.

    An attack whose signal has parts has one point per part.
    """
    tpr, curves = result_rows.sort_metric(result_rows.main_rows(results)), {}
    folder, targets = reader.store.answers.folder, reader.design.targets
    for planned in (a for a in attacks if a.name in costs and not a.defense):
        # behind a defense there are the same answers, and the same curve
        name, attack, curve = planned.name, planned.attack, []
        file = query_cost.counted(folder, attack.needs, targets)
        if attack.at is not None and file is not None:
            fleet, models = reader.fleet(planned), reader.scored_models
            of_targets = zip(file, rows.evaluated_TN, strict=True)
            count_P = np.mean([counts_NP[used_N].mean(0) for counts_NP, used_N in of_targets], 0)
            for part, queries_spent in enumerate(count_P[:-1]):
                score_MN = np.full(reader.design.member_MN.shape, np.nan)
                score_MN[list(models)] = scores(attack.at(part), fleet, models, planned.key)
                chosen = chosen_thresholds(score_MN, reader.design, settings)
                evidence = attack_evidence(planned, score_MN, reader.design, chosen)
                part_rows = summary.rows(
                    {name: evidence},
                    member_TN=rows.member_TN,
                    evaluated_TN=rows.evaluated_TN,
                    unit_T=rows.unit_T,
                    draws=draws,
                    fprs=settings.resolved_fprs,
                    level=settings.level,
                )
                curve.append(query_cost.point(part_rows, name, float(queries_spent), tpr))
        total = query_cost.point(results, name, costs[name]["queries"], tpr)
        curves[name] = [*curve, total]
    return curves


def records_of(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    settings: ReportSettings,
    *,
    ranked: Sequence[str],
    seed: int,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns how exposed each record is to the attacks of report.records.

    Without a choice (None) it is the first-ranked attack. Several attacks are tested together.

    Returns:
      The tables for report.json, {why} for a requested attack whose records cannot be computed, and
      the
        arrays of records.npz.
    """
    exposed: dict[str, dict] = {}
    measured: dict[str, dict[str, np.ndarray]] = {}
    names = settings.records
    if isinstance(names, str):
        names = names.split(",")
    planned_attacks = by_name(attacks)
    for name in ranked[:1] if names is None else names:
        if name not in planned_attacks:
            there = ", ".join(planned_attacks)
            why = f"this audit has no attack of that name; its attacks: {there}"
            exposed[name] = dict(why=why)
            continue
        planned = planned_attacks[name]
        if planned.knows not in result_rows.RANKED:
            why = (
                f"it knows more than a real attacker could ({planned.knows}), so its records would "
                "not tell who is exposed to one"
            )
            exposed[name] = dict(why=why)
            continue
        exposed[name], measured[name] = exposed_records.measure(
            attack=planned.attack,
            fleet=reader.fleet(planned),
            scores=scores,
            key=planned.key,
            fprs=settings.resolved_fprs,
            level=settings.level,
            seed=seed,
        )
    exposed, measured = exposed_records.one_family(exposed, measured)
    arrays = {f"{name}/{f}": value for name, of in measured.items() for f, value in of.items()}
    return exposed, arrays


def shown_records_of(
    exposed: Mapping[str, Mapping],
    reader: SignalReader,
    settings: ReportSettings,
    *,
    subject: Subject,
) -> shown_records.Shown | None:
    """Returns what the report shows of the most exposed records; None if none is significant.

    Args:
      exposed: {attack: its table of `records_of`}.
      reader, settings, subject: see `pipeline.measure`.
    """
    pool, rows = reader.pool, reader.design.of_targets()
    return shown_records.measure(
        shown_records.chosen(exposed),
        pool=pool,
        rows=rows,
        signal=lambda name, m: reader.signal(name, [m])[0, 0],
        has=lambda name: reader.has(name, rows.targets),
        contents=may_copy(pool, settings),
        cross_entropy=not subject.supplied,
    )


def shadow_curves(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    settings: ReportSettings,
    *,
    seed: int,
    piece: Piece = unkept,
) -> dict[str, dict]:
    """Returns {attack: {number of shadows: numbers}} of the attacks of report.shadow_curve.

    `piece` keeps the curve of each attack.
    """
    design, planned_attacks = reader.design, by_name(attacks)
    if design.balance or not design.shadow_MM[list(design.targets)].any():
        return {}  # a part of a fleet with fixed counts would reveal who is a member
    curves = {}
    for name in (n for n in settings.shadow_curve if n in planned_attacks):
        planned = planned_attacks[name]
        if any(need in threat_model.SHADOW_NEEDS for need in planned.attack.needs):
            fleet = reader.fleet(planned)
            common = dict(scores=scores, key=jax.random.key(seed), seed=seed)
            compute = functools.partial(
                shadow_curve.curve, attack=planned.attack, fleet=fleet, **common
            )
            curves[name] = piece(f"shadow_curve.{name}", compute)
    return curves


def assumption_numbers(attacks: Sequence[PlannedAttack], reader: SignalReader) -> dict[str, dict]:
    """Returns {attack: its diagnosis on the first targets} of the attacks that have a diagnosis."""
    numbers = {}
    for planned in (a for a in attacks if a.attack.diagnose is not None):
        attack, fleet = planned.attack, reader.fleet(planned)
        evidence_against = functools.partial(fleet.evidence_against, needs=attack.needs)
        numbers[planned.name] = assumptions.measure(
            attack, evidence_against=evidence_against, targets=reader.design.targets
        )
    return numbers


def usage_of(
    evidence: Mapping[str, Mapping],
    score_MN: Mapping[str, np.ndarray],
    design: Design,
    *,
    ranked: Sequence[str],
    level: float,
) -> dict | None:
    """Returns the estimated share of the rows that was used for training.

    The best attack that has thresholds estimates it; None if there is no such attack.
    """
    for name in ranked:
        threshold_T = evidence[name]["threshold_T"]
        if not np.isnan(threshold_T).any():
            return usage.measure(
                score_MN[name], attack=name, design=design, threshold_T=threshold_T, level=level
            )
    return None


def pairs_of(
    reader: SignalReader, trained: TrainedHere, settings: ReportSettings, *, rows: TargetRows
) -> dict | None:
    """Returns how well a network that embeds pairs separates classes; None for other networks."""
    if trained.model is None or "pairs" not in trained.model.parts:
        return None
    return pairs.measure(
        reader.store.answers.folder,
        models=rows.targets,
        y_N=reader.pool.y,
        threshold=trained.objective.get("threshold", pairs.THRESHOLD),
        level=settings.level,
        member_TN=rows.member_TN,
        evaluated_TN=rows.evaluated_TN,
    )


def audit_of(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    score_MN: Mapping[str, np.ndarray],
    settings: ReportSettings,
    *,
    trained: TrainedHere,
) -> dict | None:
    """Returns what canaries prove about epsilon, next to the accountant's claim, or None."""
    design, guarantee = reader.design, trained.guarantee
    audit = privacy_audit.settings(
        settings.audit,
        design=design,
        knows={a.name: threat_model.knowledge(a.attack) for a in attacks},
        level=settings.level,
        promised=None if guarantee is None else guarantee.delta,
        arrays=trained.model is None,
    )
    if audit is None:
        return None
    claim = promised(reader, trained, delta=audit["delta"])
    refused = [] if claim is None else claim["refused"]
    if claim is not None and claim["epsilon"] is None:
        claim = None
    if audit["epsilon"] is not None:  # The caller's, about arrays.
        claim = privacy_audit.claim_about_arrays(audit, design)
    targets = list(design.targets)
    score_TN = {name: score[targets] for name, score in score_MN.items()}
    section = privacy_audit.measure(
        audit, design=design, score_TN=score_TN, claim=claim, refused=refused
    )
    return section | dict(releases=released(reader, trained, level=settings.level))


def released(reader: SignalReader, trained: TrainedHere, *, level: float) -> dict | None:
    """Returns what `measures.releases` says about the targets; None without Dirac canaries."""
    if trained.release_size is None:
        return None
    of_targets = reader.design.of_targets()
    train, run = reader.store.train.folder, reader.store.run
    steps = {t: checkpoint.load_ledger(train, t, run=run)["steps"] for t in of_targets.targets}
    mechanism = trained.guarantee.mechanism
    rows = np.flatnonzero(reader.design.coin_N >= 0)
    moments = {name: reader.signal(name, of_targets.targets) for name in dirac.MOMENTS}
    return releases.measure(
        {t: mechanism.after(count) for t, count in steps.items()},
        size=trained.release_size,
        moment_TC={name: np.asarray(value)[:, 0, rows] for name, value in moments.items()},
        inside_TC=of_targets.member_TN[:, rows],
        level=level,
    )


def promised(
    reader: SignalReader, trained: TrainedHere, *, delta: float | None = None
) -> dict | None:
    """Returns epsilon with all on which it depends, from the ledgers of the models.

    Args:
      reader: the workdir, and the models that failed.
      trained: the models that were trained here.
      delta: the delta of the claim; None for that of the guarantee.

    Returns:
      The claim; None without private training.
    """
    if trained.guarantee is None:
        return None
    train, run = reader.store.train.folder, reader.store.run
    ledgers = [checkpoint.load_ledger(train, m, run=run) for m in trained.models]
    claim = trained.guarantee.claim(ledgers, delta=delta)
    again = [m for m in trained.models if "summary/attempt" in checkpoint.load_history(train, m)]
    return claim | dict(notes=[*claim["notes"], *selection_notes(reader.failed, again)])


def selection_notes(failed: Sequence[int], again: Sequence[int]) -> list[str]:
    """Returns what epsilon does not cover after failed or repeated private training."""
    notes = []
    if failed:
        notes.append(
            f"{len(failed)} models that failed are left out of this report. Whether a training "
            "fails depends on its private rows, so choosing the models that did not is a selection "
            "after the fact, which epsilon does not cover; neither does the knowledge which ones "
            "failed."
        )
    if again:
        were = "were" if len(again) > 1 else "was"
        notes.append(
            f"{failures.listed(list(again)).capitalize()} {were} trained again with another key "
            "after a failed attempt. Every attempt read the private rows: epsilon is that of the "
            "last attempt only, and attempts compose."
        )
    return notes


def checks(
    evidence: Mapping[str, Mapping],
    reader: SignalReader,
    settings: ReportSettings,
    *,
    draws: bootstrap.Draws,
    subject: Subject,
    inputs: Mapping,
    duplicates: Mapping[str, int],
    seed: int,
) -> dict:
    """Returns the section `validity`: the checks of whether the numbers can be trusted."""
    pool = reader.pool
    labeled = pool.task.kind != "unlabeled"
    return validity.collect(
        meaning=meaning.measure(
            reader.store.answers.folder,
            design=reader.design,
            pool=pool,
            given=subject.supplied,
            in_order=subject.asked_here or not subject.supplied,
            recipe=subject.recipe,
            labeled=labeled,
            seed=seed,
        ),
        design=reader.design,
        pool=pool,
        attacks=evidence,
        draws=draws,
        duplicates=duplicates,
        files=inputs,
        drawn=subject.drawn,
        fprs=settings.resolved_fprs,
        level=settings.level,
        seed=seed,
    )


def model_rows(reader: SignalReader, trained: TrainedHere) -> list[dict]:
    """Returns one row per model: accuracy and mean loss on both sides, epochs and seconds.

    'train' is computed on its members, 'validation' on its evaluated non-members; None if a model
    has no such row. User-supplied answers without labels or loss have no such columns.
    """
    models, design = reader.models, reader.design
    words = {"correct": "accuracy", "loss": "loss"}
    known = [name for name in words if reader.has(name, models)]
    signal = {name: reader.signal(name, models)[:, 0].astype(np.float64) for name in known}
    table = []
    for i, m in enumerate(models):
        inside = design.member_MN[m]
        outside = design.evaluated_MN[m] & ~inside
        row = dict(model=m, target=m in design.targets)
        for name in known:
            row[f"train_{words[name]}"] = mean_or_none(signal[name][i, inside])
            row[f"validation_{words[name]}"] = mean_or_none(signal[name][i, outside])
        if "correct" in signal and design.population_N.any() and m in trained.models:
            row["population_accuracy"] = signal["correct"][i, design.population_N].mean()
        if m in trained.models:
            history = checkpoint.load_history(reader.store.train.folder, m)
            kinds = dict(epochs=int, best_epoch=int, seconds=float)
            row |= {name: kind(history[f"summary/{name}"]) for name, kind in kinds.items()}
            if "summary/attempt" in history:
                row["attempt"] = int(history["summary/attempt"])
        table.append(row)
    return table


def mean_or_none(values: np.ndarray) -> float | None:
    """Returns the mean, or None for no values."""
    return float(values.mean()) if values.size else None


def about_of(
    reader: SignalReader, subject: Subject, settings: ReportSettings, *, seed: int
) -> About:
    """Returns what was attacked, in plain values."""
    pool, target = reader.pool, reader.design.targets[0]
    crossing = 0
    if subject.duplicates["rows"]:
        crossing = pools.duplicates(pool, reader.design.member_MN[target])["crossing"]
    return About(
        data=pool.name,
        pool=subject.pool,
        examples=len(pool.y),
        classes=pool.num_classes,
        shape=[n for n in pool.x.shape[1:] if n],  # empty for arrays that came without x
        seed=seed,
        duplicates=dict(subject.duplicates, crossing=crossing),
        views=list(reader.views),
        notes=list(subject.notes),
        arrays=subject.learner is None,
        target=subject.target,
        canaries=subject.canaries,
        model=subject.model,
        learner=subject.learner,
        level=settings.level,
        contents=may_copy(pool, settings),
        precision=subject.precisions or None,
        asked=("recipe" if subject.recipe else "model") if subject.asked_here else None,
    )


def may_copy(pool: Pool, settings: ReportSettings) -> bool:
    """Returns whether the report may hold copies of examples: of public ones, or on request."""
    if settings.show_records == "auto":
        return pool.presentation.public
    return settings.show_records == "contents"


def design_numbers(reader: SignalReader, models: Sequence[Mapping]) -> DesignNumbers:
    """Returns the design in numbers."""
    d, failed = reader.design, reader.failed
    shadows_T = d.shadow_MM[list(d.targets)].sum(1)
    retried = [row["model"] for row in models if row.get("attempt")]
    return DesignNumbers(
        name=d.name,
        note=d.note,
        supports=sorted(d.supports),
        models=len(d.member_MN),
        targets=list(d.targets),
        shadows_min=int(shadows_T.min()),
        shadows_max=int(shadows_T.max()),
        train_rows=int(d.member_MN[0].sum()),
        evaluated_rows=int(d.evaluated_MN[0].sum()),
        population_rows=int(d.population_N.sum()),
        failed=list(failed.values()) if failed else None,
        without_twin=_failed.without_twin(d, failed) if failed else None,
        retried=retried or None,
    )
