"""The REPORT stage: the scores on disk against membership, in report.json, report.md, records.csv, records.npz, tables and figures."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import threadpoolctl

from mia_jax import answers, findings, workdir
from mia_jax import over_epochs as epochs
from mia_jax.data import _pool as pools
from mia_jax.designs import _failed
from mia_jax.metrics import bootstrap
from mia_jax.progress import Progress
from mia_jax.report import (
    cross_validation,
    evasion,
    files,
    meaning,
    pairs,
    privacy,
    seeds,
    stale,
    tables,
    validity,
    vulnerability,
    weights,
)
from mia_jax.report.files import file_digest, finish
from mia_jax.report.sections import privacy_audit
from mia_jax.stages import all_models, attack_claim, read_scores, say, snapshot_signals
from mia_jax.training import checkpoint, failures
from mia_jax.training import query as queries

Path = pathlib.Path
RECORDS = "records.csv"
PARTS, SECONDS = 6, 5.0  # of the progress of a report: intervals, slices, differences, records, models with checks, figures


@threadpoolctl.threadpool_limits.wrap(limits=1, user_api="blas")  # many small products: threads cost more than they give on busy cores
def report(audit, *, folder: Path, versions: dict, lines: bool = True, begin: Callable = lambda: None) -> dict:
    """Writes the report and returns it as it is on disk; `lines`: of progress.Progress.

    A report of other inputs, or one that was changed, is set aside, never overwritten.
    """
    design, wanted = audit.design, audit.config["report"]
    targets = list(design.targets)
    score_MN = {name: read_scores(audit, folder=folder, name=name) for name in audit.attacks}
    membership = workdir.digest(design.member_MN)
    needs = {name: answers.read_by(audit, name) for name in audit.attacks}
    asked = dict(signals=list(audit.signals), snapshots={e: snapshot_signals(audit) for e in epochs_asked(audit)}, run=audit.run)
    checked = stale.check(folder, needs, models=len(design.member_MN), membership=membership, **asked)
    claims = {name: attack_claim(audit, name) for name in audit.attacks}
    own = dict(report=wanted, scores=workdir.digest(*score_MN.values()), targets=targets, evidence=workdir.digest(claims), stale=checked["stale"])
    own |= dict(attacks=list(score_MN), about=workdir.digest(about(audit)))
    if finished(folder / "report", own):
        return workdir.read_json(folder / "report" / "report.json")
    begin()
    (folder / "report" / "config.json").unlink(missing_ok=True)  # what is half written is no finished report
    draws = bootstrap.make(len(audit.pool.y), design.unit_M[targets], draws=wanted["draws"], seed=audit.seed)
    attacks = {name: findings.attack_evidence(audit, name, score_MN[name]) for name in audit.attacks}
    attacks = {name: evidence | findings.rerun_evidence(audit, name, folder=folder) for name, evidence in attacks.items()}
    shared = dict(member_TN=design.member_MN[targets], evaluated_TN=design.evaluated_MN[targets])
    progress = Progress(title="report", total=PARTS, unit="part", seconds=SECONDS, lines=lines)
    if lines:
        progress.line(
            f"report: intervals of {len(attacks)} attack{'s' * (len(attacks) != 1)} from {wanted['draws']} draws, slices, records, checks ..."
        )
    found = dict(about=about(audit)) | findings.measured(audit, attacks, folder=folder, shared=shared, draws=draws, tick=progress.advance)
    ranked = found["verdict"]["ranked"]
    table, arrays = findings.exposed_records(audit, folder=folder, ranked=ranked)
    progress.advance(1, "models and epochs")
    models = model_table(audit, folder=folder)
    over_epochs, epoch_rows = epochs.measure(audit, folder=folder, shared=shared, draws=draws)
    if design.name == "folds":
        found["cross_validation"] = cross_validation.summary(models)
    found |= dict(
        models=models,
        design=design_table(audit) | retried(models),
        attacks={name: dict(audit.config["attacks"][name], needs=one.needs, knows=one.knows, note=one.note) for name, one in audit.attacks.items()},
        shadow_curves=findings.shadow_curves(audit, folder=folder),
        assumptions=findings.assumed(audit, folder=folder),
        usage=findings.used(audit, attacks, score_MN, ranked),
        records=table,
        epochs=over_epochs,
        audit=audited(audit, score_MN, folder=folder),
        guarantee=promised(audit, folder=folder),
        evasion=evasion.measure(folder / "signal", list(audit.signals), models=targets, **shared),
        pairs=told_apart(audit, folder=folder, shared=shared),
        validity=checks(audit, attacks, folder=folder, files=checked, duplicates=found["about"]["duplicates"], draws=draws),
        versions=versions,
        sections=list(wanted["sections"]),
    )
    progress.advance(1, "figures")
    if epoch_rows:
        workdir.write_text(folder / "report" / "epochs.csv", tables.lines_csv(epoch_rows, ("epoch", *tables.COLUMNS)))
    if arrays:
        workdir.write_npz(folder / "report" / "records.npz", **arrays)
    workdir.write_text(folder / "report" / RECORDS, records_csv(audit, table, arrays))
    pictures = chosen_pictures(audit, folder=folder, shared=shared) if wanted["figures"] else {}
    files.write(found, attacks=attacks, draws=draws, folder=folder / "report", plots=wanted["figures"], pictures=pictures, **shared)
    finish(folder / "report", own)
    progress.close()
    return workdir.read_json(folder / "report" / "report.json")


def records_csv(audit, table: Mapping, arrays: Mapping[str, np.ndarray]) -> str:
    """records.csv: every scored record with its label and how exposed it is; the column `id` of the data where it has one."""
    pool, scored_N = audit.pool, audit.design.evaluated_MN[list(audit.design.targets)].any(0)
    labels = pool.y if np.ndim(pool.y) == 1 and (pool.num_classes or np.ptp(pool.y)) else None
    lines = vulnerability.lines(
        arrays, table, evaluated_N=scored_N, labels_N=labels, id_N=pool.columns.get("id"), level=audit.config["report"]["level"]
    )
    return tables.lines_csv(lines, vulnerability.CSV)


def epochs_asked(audit) -> tuple[int, ...]:
    """The epochs whose snapshots are asked for config.report.epochs."""
    return tuple(audit.config["learner"]["snapshots"]) if snapshot_signals(audit) else ()


def finished(folder: Path, own: Mapping) -> bool:
    """Whether the folder holds the report of these inputs, as it was written; one of other inputs, or one that was changed since, is set aside."""
    config, why = folder / "config.json", ""
    if not config.exists():
        return False
    try:
        known = workdir.read_json(config, needs={})
    except ValueError as error:
        known, why = {}, f"{error} The report is written anew; the old one"
    digests = known.pop("files", None)
    changed = [] if digests is None else [name for name, digest in digests.items() if file_digest(folder / name) not in (digest, None)]
    if not why and workdir.differences(known, own):
        why = "the report of other inputs"
    elif not why and changed:
        why = f"{', '.join(changed)} in {folder.name}/ changed after the report was written. It is written anew; the old one"
    if why:
        say(f"report: {why} is kept in {workdir.set_aside(folder).name}/")
        return False
    if not all((folder / name).exists() for name in (files.NAMES if digests is None else digests)):
        return False
    older = " (by an older version, which kept no checksums: whether a file was changed is not known)" * (digests is None)
    say(f"report: nothing changed since it was written{older}.")
    return True


def told_apart(audit, *, folder: Path, shared: Mapping) -> dict | None:
    """The section `pairs` of a net that embeds pairs (models/siamese.py); None for others."""
    if audit.model is None or "pairs" not in audit.model.parts:
        return None
    objective = audit.config["learner"]["objective"]
    threshold = objective.get("threshold", pairs.THRESHOLD) if isinstance(objective, Mapping) else pairs.THRESHOLD
    common = dict(models=audit.design.targets, y_N=audit.pool.y, threshold=threshold, level=audit.config["report"]["level"])
    return pairs.measure(folder / "signal", **common, **shared)


def chosen_pictures(audit, *, folder: Path, shared: Mapping) -> dict[str, dict]:
    """{figure: what it is drawn from}: adversarial examples and the weights of the first target, where there are any."""
    m, pool = audit.design.targets[0], audit.pool
    first = dict(m=m, x_N=pool.x, y_N=pool.y, member_N=shared["member_TN"][0], evaluated_N=shared["evaluated_TN"][0])
    found = dict(adversarial=evasion.chosen(folder / "signal", list(audit.signals), **first))
    if audit.model is not None and m in audit.own_models:
        found["weights"] = weights.chosen(folder / "train", model=audit.model, m=m, x=pool.x[:1])
    return {name: one for name, one in found.items() if one}


def audited(audit, score_MN: Mapping[str, np.ndarray], *, folder: Path) -> dict | None:
    """The section `audit`: what the canaries prove about epsilon, next to what the accountant claims; a violated claim is said aloud."""
    config, design = audit.config["report"], audit.design
    knows, brought = {n: a.knows for n, a in audit.attacks.items()}, audit.model is None
    wanted = privacy.settings(config.get("audit"), design=design, knows=knows, level=config["level"], promised=promised_delta(audit), arrays=brought)
    if wanted is None:
        return None
    found = privacy.measure(
        wanted, design=design, score_TN={n: s[list(design.targets)] for n, s in score_MN.items()}, claim=claim(audit, wanted, folder=folder)
    )
    if found.get("violated"):
        say("audit: " + privacy_audit.violation(found).replace("*", ""))
    return found


def promised_delta(audit) -> float | None:
    """The delta of the private training; None without one."""
    return None if audit.learner is None or audit.learner.guarantee is None else audit.learner.guarantee.delta


def claim(audit, wanted: Mapping, *, folder: Path) -> dict | None:
    """What an accountant proves about one model of this training, at the audit's delta; None without one, without noise, or if something else ran."""
    found = promised(audit, folder=folder, delta=wanted["delta"])
    return None if found is None or found["epsilon"] is None else found


def promised(audit, *, folder: Path, delta: float | None = None) -> dict | None:
    """The section `guarantee`: epsilon with all that it depends on, from the ledgers of the models; None without private training."""
    if audit.learner is None or audit.learner.guarantee is None:
        return None
    found = audit.learner.guarantee.claim([checkpoint.load_ledger(folder / "train", m, run=audit.run) for m in audit.own_models], delta=delta)
    again = [m for m in audit.own_models if "summary/attempt" in checkpoint.load_history(folder / "train", m)]
    return found | dict(notes=[*found["notes"], *selection(audit.failed, again)])


def selection(failed: Sequence[int], again: Sequence[int]) -> list[str]:
    """What epsilon does not cover where models of private training failed or were trained again."""
    found = []
    if failed:
        found.append(
            f"{len(failed)} models that failed are left out of this report. Whether a training fails depends on its private rows, so choosing the "
            "models that did not is a selection after the fact, which epsilon does not cover; neither does the knowledge which ones failed."
        )
    if again:
        were = "were" if len(again) > 1 else "was"
        found.append(
            f"{failures.listed(list(again)).capitalize()} {were} trained again with another key after a failed attempt. Every attempt read the "
            "private rows: epsilon is that of the last attempt only, and attempts compose."
        )
    return found


def checks(audit, attacks: Mapping[str, Mapping], *, folder: Path, files: Mapping, duplicates: Mapping, draws: bootstrap.Draws) -> dict:
    """The section `validity`: can these numbers be trusted?"""
    wanted, labeled = audit.config["report"], bool(audit.pool.num_classes) or bool(np.ptp(audit.pool.y))
    given = bool(audit.given) or bool(audit.config["target"].get("oracle"))
    own = dict(design=audit.design, pool=audit.pool, given=given, labeled=labeled, seed=audit.seed)
    return validity.collect(
        meaning=meaning.measure(folder / "signal", **own),
        design=audit.design,
        pool=audit.pool,
        attacks=attacks,
        draws=draws,
        duplicates=duplicates,
        files=files,
        drawn=audit.design.name in validity.RANDOM or bool(audit.config["design"].get("drawn")),
        fprs=findings.resolved_fprs(wanted),
        level=wanted["level"],
        seed=audit.seed,
    )


def model_table(audit, *, folder: Path) -> list[dict]:
    """One row a model: accuracy and mean loss on its members ('train') and its evaluated non-members ('validation'), epochs and seconds.

    None where a model has no row of a side. What was brought without labels or loss has no such columns.
    """
    models = all_models(audit)
    known = [name for name in ("correct", "loss") if all(queries.signal_file(folder / "signal", name, m).exists() for m in models)]
    signal = {name: queries.load(folder / "signal", name, models)[:, 0].astype(np.float64) for name in known}
    table = []
    for i, m in enumerate(models):
        inside, outside = audit.design.member_MN[m], audit.design.evaluated_MN[m] & ~audit.design.member_MN[m]
        row = dict(model=m, target=m in audit.design.targets)
        for name in known:
            word = "accuracy" if name == "correct" else name
            row |= {f"train_{word}": mean_or_none(signal[name][i, inside]), f"validation_{word}": mean_or_none(signal[name][i, outside])}
        if "correct" in signal and audit.design.population_N.any() and m in audit.own_models:
            row["population_accuracy"] = signal["correct"][i, audit.design.population_N].mean()
        if m in audit.own_models:
            history = checkpoint.load_history(folder / "train", m)
            row |= dict(
                epochs=int(history["summary/epochs"]), best_epoch=int(history["summary/best_epoch"]), seconds=float(history["summary/seconds"])
            )
            row |= dict(attempt=int(history["summary/attempt"])) if "summary/attempt" in history else {}
        table.append(row)
    return table


def mean_or_none(values: np.ndarray) -> float | None:
    """The mean; None of no values, such as the members of a reference model that saw no scored row."""
    return float(values.mean()) if values.size else None


def about(audit) -> dict:
    """What was attacked, in plain values."""
    pool, design, config = audit.pool, audit.design, audit.config
    crossing = pools.duplicates(pool, design.member_MN[design.targets[0]])["crossing"] if audit.duplicates["rows"] else 0
    shape = [n for n in pool.x.shape[1:] if n]  # empty for arrays that were brought without x
    found = dict(data=pool.name, pool=audit.pool_hash, examples=len(pool.y), classes=pool.num_classes, shape=shape, seed=audit.seed)
    found |= dict(duplicates=dict(audit.duplicates, crossing=crossing), views=list(config["query"]["views"]))
    found |= dict(said=list(audit.said), arrays=audit.model is None, target=own_target(config), canaries=canaries_of(audit))
    return found | dict(model=config["model"], learner=config["learner"], level=config["report"]["level"])


def own_target(config: Mapping) -> str:
    """What is known of an audited model of the user's own beside shadows that are trained here; '' where the audited models are trained here, too."""
    target = config["target"]
    return "answers" if target.get("signals") else "labels (a black box)" if target.get("oracle") else ""


def canaries_of(audit) -> dict | None:
    """{kind, count} where only canaries are scored."""
    if audit.design.coin_N is None or audit.design.name != "canaries":
        return None
    section = audit.config["data"].get("canaries")
    kind = "marked" if "canary" in audit.pool.columns else "natural"
    kind = section.get("kind", "mislabeled") if section else kind
    return dict(kind=kind, count=int((audit.design.coin_N >= 0).sum()))


def design_table(audit) -> dict:
    """The design in numbers."""
    d = audit.design
    shadows = d.shadow_MM[list(d.targets)].sum(1)
    counts = dict(models=len(d.member_MN), targets=list(d.targets), shadows_min=int(shadows.min()), shadows_max=int(shadows.max()))
    counts |= dict(failed=list(audit.failed.values()), without_twin=_failed.without_twin(d, audit.failed)) if audit.failed else {}
    rows = dict(train_rows=int(d.member_MN[0].sum()), evaluated_rows=int(d.evaluated_MN[0].sum()), population_rows=int(d.population_N.sum()))
    return dict(name=d.name, note=d.note, supports=sorted(d.supports), **counts, **rows)


def retried(models: Sequence[Mapping]) -> dict:
    """{'retried': models that are a further attempt with another key}; {} without any."""
    found = [row["model"] for row in models if row.get("attempt")]
    return dict(retried=found) if found else {}


def report_seeds(reports: Mapping[int, dict], *, folder: Path) -> dict:
    """REPORT over several seeds: mean and sd of every number, in report.json, report.md and results.csv."""
    own = dict(seeds=list(reports), reports=workdir.digest(*(r["results"] for r in reports.values())))
    if finished(folder, own):
        return workdir.read_json(folder / "report.json")
    (folder / "config.json").unlink(missing_ok=True)
    found = seeds.summary(reports)
    seeds.write(found, folder=folder)
    finish(folder, own)
    return found
