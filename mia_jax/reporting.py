"""The REPORT stage: the scores on disk against membership, in report.json, report.md, records.npz, tables and figures."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import jax
import numpy as np
import threadpoolctl

from mia_jax import answers, registry, views, workdir
from mia_jax.data import _pool as pools
from mia_jax.metrics import bootstrap, comparisons, further, slice_rows, slices, summary, thresholds
from mia_jax.report import (
    assumptions,
    budget,
    cross_validation,
    evasion,
    files,
    privacy,
    seeds,
    shadows,
    stale,
    tables,
    usage,
    validity,
    vulnerability,
)
from mia_jax.stages import all_models, attack_claim, read_scores, say, scored_models, scores
from mia_jax.training import checkpoint
from mia_jax.training import query as queries

Path = pathlib.Path


@threadpoolctl.threadpool_limits.wrap(limits=1, user_api="blas")  # many small products: threads cost more than they give on busy cores
def report(audit, *, folder: Path, versions: dict) -> dict:
    """Writes the report and returns it as it is on disk. A report of other inputs is set aside, never overwritten."""
    design, wanted = audit.design, audit.config["report"]
    targets = list(design.targets)
    score_MN = {name: read_scores(audit, folder=folder, name=name) for name in audit.attacks}
    membership = workdir.digest(design.member_MN)
    needs = {name: answers.read_by(audit, name) for name in audit.attacks}
    checked = stale.check(folder, needs, models=len(design.member_MN), membership=membership)
    claims = {name: attack_claim(audit, name) for name in audit.attacks}
    own = dict(report=wanted, scores=workdir.digest(*score_MN.values()), targets=targets, evidence=workdir.digest(claims), stale=checked["stale"])
    own |= dict(attacks=list(score_MN), about=workdir.digest(about(audit)))
    config = folder / "report" / "config.json"
    if config.exists() and workdir.differences(workdir.read_json(config), own):
        say(f"report: the report of other inputs is kept in {workdir.set_aside(folder / 'report').name}/")
    elif config.exists() and all((folder / "report" / name).exists() for name in files.NAMES):
        say("report: nothing changed since it was written.")
        return workdir.read_json(folder / "report" / "report.json")
    draws = bootstrap.make(len(audit.pool.y), design.unit_M[targets], draws=wanted["draws"], seed=audit.seed)
    attacks = {name: attack_evidence(audit, name, score_MN[name]) for name in audit.attacks}
    shared = dict(member_TN=design.member_MN[targets], evaluated_TN=design.evaluated_MN[targets])
    found = dict(about=about(audit)) | measured(audit, attacks, folder=folder, shared=shared, draws=draws)
    table, arrays = exposed_records(audit, folder=folder)
    models = model_table(audit, folder=folder)
    if design.name == "folds":
        found["cross_validation"] = cross_validation.summary(models)
    found |= dict(
        models=models,
        design=design_table(audit),
        attacks={name: dict(audit.config["attacks"][name], needs=one.needs, knows=one.knows, note=one.note) for name, one in audit.attacks.items()},
        shadow_curves=shadow_curves(audit, folder=folder),
        assumptions=assumed(audit, folder=folder),
        usage=used(audit, attacks, score_MN, found["results"]),
        records=table,
        audit=audited(audit, score_MN, folder=folder),
        guarantee=promised(audit, folder=folder),
        evasion=evasion.measure(folder / "signal", list(audit.signals), models=targets, **shared),
        validity=checks(audit, attacks, files=checked, duplicates=found["about"]["duplicates"], draws=draws),
        versions=versions,
    )
    if arrays:
        workdir.write_npz(folder / "report" / "records.npz", **arrays)
    first = dict(m=targets[0], x_N=audit.pool.x, y_N=audit.pool.y, member_N=shared["member_TN"][0], evaluated_N=shared["evaluated_TN"][0])
    pictures = evasion.chosen(folder / "signal", list(audit.signals), **first) if wanted["figures"] else None
    files.write(found, attacks=attacks, draws=draws, folder=folder / "report", plots=wanted["figures"], pictures=pictures, **shared)
    workdir.write_json(config, own)
    return workdir.read_json(folder / "report" / "report.json")


def attack_evidence(audit, name: str, score_MN: np.ndarray) -> dict:
    """What the metrics need of one attack: the targets' scores and, where its shadows can be scored too, thresholds chosen on them."""
    design, targets = audit.design, list(audit.design.targets)
    evidence = (score_MN, design.member_MN, design.evaluated_MN, design.shadow_MM)
    threshold_FM = thresholds.shadow_thresholds_at(*evidence, audit.config["report"]["fprs"])
    found, own = dict(score_TN=score_MN[targets], knows=audit.attacks[name].knows), audit.attacks[name].threshold
    threshold_T = thresholds.shadow_thresholds(*evidence)[targets]
    if own is not None:  # what was learned on shadows says itself from where on it names a member, if no shadow can be scored
        threshold_T = np.where(np.isnan(threshold_T), own, threshold_T)
    return found | dict(threshold_T=threshold_T, threshold_FT=threshold_FM[:, targets])


def measured(audit, attacks: Mapping[str, Mapping], *, folder: Path, shared: Mapping, draws: bootstrap.Draws) -> dict:
    """{results, comparisons, slices}: every row of the report, the differences between attacks, and the ranking of the slices."""
    design, wanted = audit.design, audit.config["report"]
    common = dict(draws=draws, fprs=wanted["fprs"], level=wanted["level"])
    targets, kept = list(design.targets), {}
    rows = summary.rows(attacks, **shared, targets=targets, unit_T=design.unit_M[targets], ppv_ratio=wanted["ppv_ratio"], keep=kept, **common)
    order = [name for part in tables.ranking(rows) for name in part]
    layers, said = slices_of(audit, folder=folder, evaluated_TN=shared["evaluated_TN"])
    sliced, ranking = slice_rows.rows(attacks, **shared, layers=layers, ppv_ratio=wanted["ppv_ratio"], **common)
    small = len({row["slice"] for row in sliced if row["too_small"]})
    costs = {name: cost for name in attacks if (cost := cost_of(audit, name, folder=folder))}
    rows = [row | {k: costs[row["attack"]][k] for k in ("queries", "queries_max")} if row["attack"] in costs else row for row in rows]
    kept_pairs = comparisons.rows(kept, order, level=wanted["level"])
    kept_pairs += comparisons.accuracies(attacks, **shared, names=order, draws=draws, level=wanted["level"])
    return dict(
        results=rows + further.rows(attacks, **shared, **common) + sliced,
        queries=query_curves(audit, rows, costs, folder=folder, shared=shared, draws=draws),
        comparisons=kept_pairs,
        slices=dict(wanted=list(wanted["slices"]), ranking=ranking, too_small=small, said=said),
    )


def cost_of(audit, name: str, *, folder: Path) -> dict | None:
    """{queries, queries_max} an example of a label-only attack on the targets; None for other attacks and for signals that were brought."""
    read = sorted(set(audit.attacks[name].needs) & audit.asked)
    signals = {n: audit.signals.get(registry.identity("signals", n)) for n in read}
    if not budget.labels_only(read, signals):
        return None
    common = dict(models=audit.design.targets, evaluated_MN=audit.design.evaluated_MN, views=len(audit.config["query"]["views"]))
    return budget.spent(folder / "signal", read, signals, **common)


def query_curves(audit, rows, costs: Mapping[str, Mapping], *, folder: Path, shared: Mapping, draws: bootstrap.Draws) -> dict[str, list[dict]]:
    """{label-only attack: points of accuracy and TPR against queries per example}; of an attack whose signal has parts a point for each of them."""
    wanted, design, tpr, found = audit.config["report"], audit.design, tables.sort_metric(tables.main_rows(rows)), {}
    for name, cost in costs.items():
        one, curve = audit.attacks[name], []
        defense = answers.defense_of(audit, name)[0]
        file = budget.counted(folder / "signal", one.needs, design.targets)
        if defense:
            continue  # the same answers, the same curve
        if one.at is not None and file is not None:
            fleet = answers.load_fleet(audit, folder=folder, names=[n for n in one.needs if n in audit.asked], attack=name)
            count_P = np.mean([counts_NP[design.evaluated_MN[t]].mean(0) for t, counts_NP in zip(design.targets, file, strict=True)], 0)
            for part, queries_spent in enumerate(count_P[:-1]):
                score_MN = np.full(design.member_MN.shape, np.nan)
                models = scored_models(audit)
                score_MN[list(models)] = scores(one.at(part), fleet, models, answers.key_of(audit, name))
                evidence = {name: attack_evidence(audit, name, score_MN)}
                own = summary.rows(
                    evidence, **shared, unit_T=design.unit_M[list(design.targets)], draws=draws, fprs=wanted["fprs"], level=wanted["level"]
                )
                curve.append(budget.point(own, name, float(queries_spent), tpr))
        found[name] = [*curve, budget.point(rows, name, cost["queries"], tpr)]
    return found


def slices_of(audit, *, folder: Path, evaluated_TN) -> tuple[list[slices.Layer], list[str]]:
    """The slices that config.report asks for, and what is said about those that cannot be made."""
    wanted, pool, targets = audit.config["report"], audit.pool, list(audit.design.targets)
    terms, said = slices.parse(wanted["slices"]), []
    if not pool.num_classes and any("class" in pair for pair in terms):
        terms, said = [pair for pair in terms if "class" not in pair], ["There are no class labels to slice by."]
    asked = {term for pair in terms for term in pair}
    answers = {}
    for name in ("loss", "correct"):
        there = name in asked and all(queries.signal_file(folder / "signal", name, m).exists() for m in targets)
        answers[f"{name}_TN"] = queries.load(folder / "signal", name, targets)[:, 0] if there else None
    labels_N = pool.y if pool.num_classes else None
    texts = [" & ".join(pair) for pair in terms]
    return slices.make(texts, evaluated_TN, labels_N=labels_N, columns=pool.columns, groups=wanted["groups"], **answers), said


def exposed_records(audit, *, folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Per-record vulnerability under the attacks that config.report.records names: the tables for report.json and the arrays of records.npz."""
    found, arrays = {}, {}
    for name in (n for n in audit.config["report"]["records"] if n in audit.attacks and audit.attacks[n].knows in tables.RANKED):
        one = audit.attacks[name]
        fleet = answers.load_fleet(audit, folder=folder, names=[n for n in one.needs if n in audit.asked], attack=name)
        key = answers.key_of(audit, name)
        level = audit.config["report"]["level"]
        found[name], own = vulnerability.measure(attack=one, fleet=fleet, scores=scores, key=key, level=level, seed=audit.seed)
        arrays |= {f"{name}/{field}": value for field, value in own.items()}
    return found, arrays


def assumed(audit, *, folder: Path) -> dict[str, dict]:
    """{attack: what its diagnosis says on the first targets} of the attacks that have one."""
    found = {}
    for name, one in audit.attacks.items():
        if one.diagnose is not None:
            fleet = answers.load_fleet(audit, folder=folder, names=[n for n in one.needs if n in audit.asked], attack=name)
            found[name] = assumptions.measure(one, view=lambda t, fleet=fleet, one=one: fleet.view(t, one.needs), targets=audit.design.targets)
    return found


def used(audit, attacks: Mapping[str, Mapping], score_MN: Mapping[str, np.ndarray], rows) -> dict | None:
    """The share of the rows that was trained on, as the best ranked attack with thresholds from shadows estimates it."""
    ranked = [name for name in tables.ranking(tables.main_rows(rows))[0] if not np.isnan(attacks[name]["threshold_T"]).any()]
    if not ranked:
        return None
    name, level = ranked[0], audit.config["report"]["level"]
    return usage.measure(score_MN[name], attack=name, design=audit.design, threshold_T=attacks[name]["threshold_T"], level=level)


def audited(audit, score_MN: Mapping[str, np.ndarray], *, folder: Path) -> dict | None:
    """The section `audit`: what the canaries prove about epsilon, next to what the accountant claims; a violated claim is said aloud."""
    config, design = audit.config["report"], audit.design
    wanted = privacy.settings(config.get("audit"), design=design, knows={n: a.knows for n, a in audit.attacks.items()}, level=config["level"])
    if wanted is None:
        return None
    found = privacy.measure(
        wanted, design=design, score_TN={n: s[list(design.targets)] for n, s in score_MN.items()}, claim=claim(audit, wanted, folder=folder)
    )
    if found.get("violated"):
        say("audit: " + privacy.verdict(found).replace(">", "").replace("*", "").strip())
    return found


def claim(audit, wanted: Mapping, *, folder: Path) -> dict | None:
    """What an accountant proves about one model of this training, at the audit's delta; None without one, or if what ran is not what was declared."""
    found = promised(audit, folder=folder, delta=wanted["delta"])
    return None if found is None or found["refused"] else found


def promised(audit, *, folder: Path, delta: float | None = None) -> dict | None:
    """The section `guarantee`: epsilon with all that it depends on, from the ledgers of the models; None without private training."""
    if audit.learner is None or audit.learner.guarantee is None:
        return None
    return audit.learner.guarantee.claim([workdir.read_json(checkpoint.ledger_file(folder / "train", m)) for m in audit.own_models], delta=delta)


def checks(audit, attacks: Mapping[str, Mapping], *, files: Mapping, duplicates: Mapping, draws: bootstrap.Draws) -> dict:
    """The section `validity`: can these numbers be trusted?"""
    wanted = audit.config["report"]
    return validity.collect(
        design=audit.design,
        pool=audit.pool,
        attacks=attacks,
        draws=draws,
        duplicates=duplicates,
        files=files,
        drawn=audit.design.name in validity.RANDOM or bool(audit.config["design"].get("drawn")),
        fprs=wanted["fprs"],
        level=wanted["level"],
        seed=audit.seed,
    )


def model_table(audit, *, folder: Path) -> list[dict]:
    """One row a model: accuracy and mean loss on its members ('train') and its evaluated non-members ('validation'), epochs and seconds.

    What was brought without labels or loss has no such columns.
    """
    models = all_models(audit)
    known = [name for name in ("correct", "loss") if all(queries.signal_file(folder / "signal", name, m).exists() for m in models)]
    signal = {name: queries.load(folder / "signal", name, models)[:, 0].astype(np.float64) for name in known}
    table = []
    for m in models:
        inside, outside = audit.design.member_MN[m], audit.design.evaluated_MN[m] & ~audit.design.member_MN[m]
        row = dict(model=m, target=m in audit.design.targets)
        for name in known:
            word = "accuracy" if name == "correct" else name
            row |= {f"train_{word}": signal[name][m, inside].mean(), f"validation_{word}": signal[name][m, outside].mean()}
        if "correct" in signal and audit.design.population_N.any() and m in audit.own_models:
            row["population_accuracy"] = signal["correct"][m, audit.design.population_N].mean()
        if m in audit.own_models:
            history = checkpoint.load_history(folder / "train", m)
            row |= dict(
                epochs=int(history["summary/epochs"]), best_epoch=int(history["summary/best_epoch"]), seconds=float(history["summary/seconds"])
            )
        table.append(row)
    return table


def about(audit) -> dict:
    """What was attacked, in plain values."""
    pool, design, config = audit.pool, audit.design, audit.config
    crossing = pools.duplicates(pool, design.member_MN[design.targets[0]])["crossing"] if audit.duplicates["rows"] else 0
    found = dict(data=pool.name, pool=audit.pool_hash, examples=len(pool.y), classes=pool.num_classes, shape=list(pool.x.shape[1:]), seed=audit.seed)
    found |= dict(duplicates=dict(audit.duplicates, crossing=crossing), views=list(config["query"]["views"]))
    found |= dict(said=list(audit.said))
    return found | dict(model=config["model"], learner=config["learner"], level=config["report"]["level"])


def design_table(audit) -> dict:
    """The design in numbers."""
    d = audit.design
    shadows = d.shadow_MM[list(d.targets)].sum(1)
    counts = dict(models=len(d.member_MN), targets=list(d.targets), shadows_min=int(shadows.min()), shadows_max=int(shadows.max()))
    rows = dict(train_rows=int(d.member_MN[0].sum()), evaluated_rows=int(d.evaluated_MN[0].sum()), population_rows=int(d.population_N.sum()))
    return dict(name=d.name, note=d.note, supports=sorted(d.supports), **counts, **rows)


def shadow_curves(audit, *, folder: Path) -> dict[str, dict]:
    """{attack: {number of shadows: numbers}} of the attacks that config.report.shadow_curve names and the config has."""
    names = [n for n in audit.config["report"]["shadow_curve"] if n in audit.attacks and audit.design.shadow_MM[list(audit.design.targets)].any()]
    names = [n for n in names if any(need in views.SHADOW_NEEDS for need in audit.attacks[n].needs)]
    if not names or audit.design.balance:  # a part of a fleet with fixed counts would tell who is a member
        return {}
    key = jax.random.key(audit.seed)
    read = lambda name: [n for n in audit.attacks[name].needs if n in audit.asked]  # noqa: E731
    fleets = {name: answers.load_fleet(audit, folder=folder, names=read(name), attack=name) for name in names}
    return {name: shadows.curve(attack=audit.attacks[name], fleet=fleets[name], scores=scores, key=key, seed=audit.seed) for name in names}


def report_seeds(reports: Mapping[int, dict], *, folder: Path) -> dict:
    """REPORT over several seeds: mean and sd of every number, in report.json, report.md and results.csv."""
    own = dict(seeds=list(reports), reports=workdir.digest(*(r["results"] for r in reports.values())))
    config = folder / "config.json"
    if config.exists() and workdir.differences(workdir.read_json(config), own):
        say(f"report: the report of other seeds is kept in {workdir.set_aside(folder).name}/")
    found = seeds.summary(reports)
    seeds.write(found, folder=folder)
    workdir.write_json(config, own)
    return found
