"""REPORT: writes what was measured to the files of report/; nothing is computed here."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import threadpoolctl

from mia_jax.configuration.settings import ReportSettings
from mia_jax.data import _pool as pools
from mia_jax.measures import evasion, exposed_records, weights
from mia_jax.metrics import rows as result_rows
from mia_jax.metrics.components import Left, Parts
from mia_jax.metrics.jackknife import Influence, Rerun
from mia_jax.metrics.outcomes import Outcome
from mia_jax.metrics.rank_bins import DrawnBins
from mia_jax.metrics.record_groups import EXACT
from mia_jax.metrics.roc import Roc
from mia_jax.metrics.sorted_scores import PooledArea, Redrawn, SortedScores
from mia_jax.metrics.summary import Drawn
from mia_jax.metrics.thresholds import Chosen
from mia_jax.pipeline import inputs, pieces
from mia_jax.pipeline.attack import SignalReader, claim_of, read_scores
from mia_jax.pipeline.measure import Measurement, measure
from mia_jax.pipeline.measured import as_json
from mia_jax.pipeline.numbers import about_of, may_copy
from mia_jax.pipeline.plan import Questions, Subject, TrainedHere
from mia_jax.pipeline.train import nothing
from mia_jax.report import seeds, source, tables
from mia_jax.report.files import file_digest, finish
from mia_jax.report.files import write as write_files
from mia_jax.report.sections import privacy_audit
from mia_jax.runtime import files, jobs, machine
from mia_jax.runtime.progress import Progress
from mia_jax.runtime.store import ReportFiles
from mia_jax.threat_model import PlannedAttack
from mia_jax.training import memory
from mia_jax.types import Pool

Path = pathlib.Path
PARTS = 6  # of the progress: intervals, slices, differences, records, models, figures
SECONDS = 5.0
# The types, besides arrays and plain values, of which the pieces of a measurement consist.
KINDS = (
    Chosen,
    Drawn,
    DrawnBins,
    Influence,
    Left,
    Outcome,
    Parts,
    PooledArea,
    Redrawn,
    Rerun,
    Roc,
    SortedScores,
)
PAIR_BYTES = 48  # of a (target, record) pair while an attack is measured


# many small products: threads cost more than they give on busy cores
@threadpoolctl.threadpool_limits.wrap(limits=1, user_api="blas")
def report(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    *,
    settings: ReportSettings,
    questions: Questions | None,
    subject: Subject,
    trained: TrainedHere,
    seed: int,
    versions: Mapping,
    lines: bool = True,
    begin: Callable = nothing,
    pause: Callable = nothing,
) -> dict:
    """Measures, writes the report, and returns it as it is on disk.

    A report of the same inputs is read. A report of other inputs, or one that was changed, is set
    aside; nothing is overwritten.

    Args:
      attacks, reader, settings, questions, subject, trained, seed, versions: see `measure`.
      lines: prints progress also where there is no terminal, see progress.Progress.
      begin: called before the first file is written.
      pause: called after each piece of the measurement; it may raise to end the run. What was
        measured is then on disk.
    """
    store, rows = reader.store, reader.design.of_targets()
    score_MN = {planned.name: read_scores(planned, reader) for planned in attacks}
    epochs = () if questions is None else questions.asked_epochs
    checked = inputs.check(
        store,
        {planned.name: planned.signals for planned in attacks},
        models=len(reader.design.member_MN),
        membership=files.digest(reader.design.member_MN),
        signals=reader.measured,
        snapshots={epoch: questions.repeated for epoch in epochs},
    )
    made_from = dict(
        report=vars(settings),
        scores=files.digest(*score_MN.values()),
        targets=list(reader.design.targets),
        evidence=files.digest({a.name: claim_of(a, reader) for a in attacks}),
        stale=checked["stale"],
        attacks=list(score_MN),
        about=files.digest(as_json(about_of(reader, subject, settings, seed=seed))),
        shown=shown_of(reader.pool, settings, supplied=subject.learner is None),
    )
    if finished(store.report, made_from):
        pieces.discard(store.report.pieces)
        return source.load(store.report.json)
    begin()
    store.report.claim.unlink(missing_ok=True)  # what is half written is no finished report
    progress = Progress(title="report", total=PARTS, unit="part", seconds=SECONDS, lines=lines)
    if lines:
        count = f"{len(attacks)} attack{'s' * (len(attacks) != 1)}"
        progress.line(
            f"report: intervals of {count} from {settings.draws} draws, slices, records, checks ..."
        )
    measured = pieces.Pieces(
        store.report.pieces,
        made_from=made_from | dict(versions=versions, files=checked, run=store.run),
        kinds=KINDS,
        pause=pause,
        workers=workers(*rows.member_TN.shape),
    )
    measurement = measure(
        attacks,
        reader,
        score_MN,
        settings=settings,
        questions=questions,
        subject=subject,
        trained=trained,
        seed=seed,
        inputs=checked,
        versions=versions,
        tick=progress.advance,
        piece=measured,
    )
    announce(measurement)
    progress.advance(1, "figures")
    pictures = {}
    if settings.figures:
        pictures = chosen_pictures(reader, trained, copies=measurement.measured.about.contents)
    write(measurement, reader, settings=settings, pictures=pictures)
    finish(store.report.folder, made_from)
    measured.discard()
    progress.close()
    return source.load(store.report.json)


def workers(targets: int, records: int) -> int:
    """Returns how many attacks are measured at a time: one per core that the memory allows.

    With at most `EXACT` records it is one: threads pay for large arrays only.
    """
    if records <= EXACT:
        return 1
    fit = memory.available().bytes // (PAIR_BYTES * targets * records)
    return max(1, min(machine.cores(), fit))


def shown_of(pool: Pool, settings: ReportSettings, *, supplied: bool) -> str:
    """Returns the digest of what a report copies from the data; '' if it copies nothing.

    Args:
      pool: the examples.
      settings: whether it copies.
      supplied: whether the user supplied all answers, which then are what `Subject.pool` is of.
    """
    if not may_copy(pool, settings):
        return ""
    names = dataclasses.asdict(pool.presentation)
    return files.digest(names, pools.content_hash(pool) if supplied else "")


def announce(measurement: Measurement) -> None:
    """Prints a message if the canaries disprove the accountant's claim or the mechanism."""
    audit = measurement.measured.audit
    if audit is not None and audit.get("violated"):
        jobs.say("audit: " + privacy_audit.violation(audit).replace("*", ""))
    if audit is not None and (text := privacy_audit.contradicted(audit)):
        jobs.say("audit: " + text.replace("*", ""))


def write(
    measurement: Measurement,
    reader: SignalReader,
    *,
    settings: ReportSettings,
    pictures: Mapping[str, Mapping],
) -> None:
    """Writes every file of the report except the claim; report.md is the last one."""
    report_files, rows = reader.store.report, reader.design.of_targets()
    if measurement.epochs:
        text = tables.lines_csv(measurement.epochs, ("epoch", *result_rows.COLUMNS))
        files.write_text(report_files.epochs, text)
    if measurement.records:
        files.write_npz(report_files.record_arrays, **measurement.records)
    files.write_text(report_files.records, records_csv(measurement, reader, settings))
    write_files(
        measurement.measured.to_json(),
        attacks=measurement.attacks,
        draws=measurement.draws,
        member_TN=rows.member_TN,
        evaluated_TN=rows.evaluated_TN,
        folder=report_files.folder,
        plots=settings.figures,
        pictures=pictures,
    )


def records_csv(measurement: Measurement, reader: SignalReader, settings: ReportSettings) -> str:
    """Returns the text of records.csv: every scored record with its label and how exposed it is.

    It has the column `id` of the data if there is one.
    """
    pool = reader.pool
    labeled = pool.task.y == "B" and pool.task.kind != "unlabeled"
    lines = exposed_records.lines(
        measurement.records,
        measurement.measured.records,
        evaluated_N=reader.design.of_targets().evaluated_TN.any(0),
        labels_N=pool.y if labeled else None,
        id_N=pool.columns.get("id"),
        level=settings.level,
    )
    return tables.columns_csv(lines, exposed_records.CSV)


def chosen_pictures(reader: SignalReader, trained: TrainedHere, *, copies: bool) -> dict[str, dict]:
    """Returns {figure: its data}: adversarial examples and the weights of the first target.

    Adversarial examples show the examples that they were made from: only if `copies` may be shown.
    """
    m, pool, rows = reader.design.targets[0], reader.pool, reader.design.of_targets()
    first = dict(m=m, x_N=pool.x, y_N=pool.y)
    first |= dict(member_N=rows.member_TN[0], evaluated_N=rows.evaluated_TN[0])
    store = reader.store
    pictures: dict[str, dict] = {}
    if copies:
        pictures |= dict(adversarial=evasion.chosen(store.answers.folder, reader.measured, **first))
    if trained.model is not None and m in trained.models:
        pictures["weights"] = weights.chosen(
            store.train.folder, model=trained.model, m=m, x=pool.x[:1]
        )
    return {name: picture for name, picture in pictures.items() if picture}


def finished(report_files: ReportFiles, made_from: Mapping) -> bool:
    """Returns whether the folder holds the report of these inputs, unchanged since it was written.

    A report of other inputs, or one that was changed, is set aside.
    """
    folder, why = report_files.folder, ""
    if not report_files.claim.exists():
        return False
    try:
        known = files.read_json(report_files.claim, needs={})
    except ValueError as error:
        known, why = {}, f"{error} The report is written again; the old one"
    digests = known.pop("files", None)
    changed = []
    for name, digest in (digests or {}).items():
        if file_digest(folder / name) not in (digest, None):
            changed.append(name)
    if not why and files.differences(known, made_from):
        why = "the report of other inputs"
    elif not why and changed:
        why = (
            f"{', '.join(changed)} in {folder.name}/ changed after the report was written. It is "
            "written again; the old one"
        )
    if why:
        jobs.say(f"report: {why} is kept in {files.set_aside(folder).name}/")
        return False
    needed = [folder / name for name in digests] if digests else ReportFiles(folder).required
    if not all(path.exists() for path in needed):
        return False
    older = ""
    if digests is None:
        older = (
            " (by an older version, which kept no checksums: whether a file was changed is not "
            "known)"
        )
    jobs.say(f"report: nothing changed since it was written{older}.")
    return True


def report_seeds(reports: Mapping[int, dict], *, report_files: ReportFiles) -> dict:
    """Writes and returns the report over several seeds: mean and sd of every number."""
    made_from = dict(seeds=list(reports))
    made_from |= dict(reports=files.digest(*(r["results"] for r in reports.values())))
    if finished(report_files, made_from):
        return source.load(report_files.json)
    report_files.claim.unlink(missing_ok=True)
    summary = seeds.summary(reports)
    seeds.write(summary, folder=report_files.folder)
    finish(report_files.folder, made_from)
    return summary
