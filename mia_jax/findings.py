"""What the scores of a run say: every number of the report, from the scores and signals on disk and the membership."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mia_jax import answers, registry, reruns, views
from mia_jax.metrics import bootstrap, comparisons, further, jackknife, slice_rows, slices, summary, thresholds
from mia_jax.report import assumptions, budget, shadows, standing, tables, usage, vulnerability
from mia_jax.stages import scored_models, scores
from mia_jax.training import query as queries

Path = pathlib.Path


def attack_evidence(audit, name: str, score_MN: np.ndarray) -> dict:
    """What the metrics need of one attack: the targets' scores and thresholds, chosen on its shadows where those can be scored, or its own."""
    design, targets = audit.design, list(audit.design.targets)
    evidence = (score_MN, design.member_MN, design.evaluated_MN, design.shadow_MM)
    threshold_FM = thresholds.shadow_thresholds_at(*evidence, resolved_fprs(audit.config["report"]))
    found, own = dict(score_TN=score_MN[targets], knows=audit.attacks[name].knows), audit.attacks[name].threshold
    threshold_T = thresholds.shadow_thresholds(*evidence)[targets]
    if own is not None:  # the attack says itself from where on it names a member: of one that knows no shadows always, else if none can be scored
        threshold_T = np.where((found["knows"] == "nothing") | np.isnan(threshold_T), own, threshold_T)
    return found | dict(threshold_T=threshold_T, threshold_FT=threshold_FM[:, targets])


def rerun_evidence(audit, name: str, *, folder: Path) -> dict:
    """What the metrics need of an attack's reruns without groups of units, {} where it is not rerun (reruns.wanted)."""
    attack, groups = audit.attacks[name], audit.config["report"]["jackknife"]
    if not reruns.wanted(attack, audit.design, groups=groups):
        return {}
    fleet = answers.load_fleet(audit, folder=folder, names=[n for n in attack.needs if n in audit.asked], attack=name)

    def measure(design, score_MN: np.ndarray) -> jackknife.Rerun:
        evidence, targets = (score_MN, design.member_MN, design.evaluated_MN), list(design.targets)
        threshold_T = thresholds.shadow_thresholds(*evidence, design.shadow_MM)[targets]
        score_TN, member_TN, evaluated_TN = (part_MN[targets] for part_MN in evidence)
        sides = dict(member_TN=member_TN, evaluated_TN=evaluated_TN)
        found = jackknife.numbers(score_TN, threshold_T, **sides, fprs=resolved_fprs(audit.config["report"]))
        return jackknife.Rerun(np.isin(audit.design.targets, targets, invert=True), found)

    common = dict(scored=scored_models(audit), groups=groups, scores=scores, key=answers.key_of(audit, name))
    return dict(without=reruns.each(attack, fleet, **common, measure=measure))


def resolved_fprs(wanted: Mapping) -> tuple[float, ...]:
    """The false-positive rates of config.report above 0; at 0 there is a TPR alone (further.at_zero)."""
    return tuple(fpr for fpr in wanted["fprs"] if fpr > 0)


def measured(
    audit, attacks: Mapping[str, Mapping], *, folder: Path, shared: Mapping, draws: bootstrap.Draws, tick: Callable = lambda parts, following: None
) -> dict:
    """{verdict, results, comparisons, ..}: the verdict over all attacks, every row of the report, differences between attacks, ranked slices.

    `tick(1, what follows)` is called after each of the three parts.
    """
    design, wanted = audit.design, audit.config["report"]
    common = dict(draws=draws, fprs=resolved_fprs(wanted), level=wanted["level"])
    targets, kept = list(design.targets), {}
    rows = summary.rows(attacks, **shared, targets=targets, unit_T=design.unit_M[targets], ppv_ratio=wanted["ppv_ratio"], keep=kept, **common)
    verdict = standing.decide(tables.main_rows(rows), level=wanted["level"])
    order = [*verdict["ranked"], *verdict["apart"]]
    tick(1, "slices")
    layers, said = slices_of(audit, folder=folder, evaluated_TN=shared["evaluated_TN"])
    sliced, ranking = slice_rows.rows(attacks, **shared, layers=layers, ppv_ratio=wanted["ppv_ratio"], **common)
    small = len({row["slice"] for row in sliced if row["too_small"]})
    costs = {name: cost for name in attacks if (cost := cost_of(audit, name, folder=folder))}
    rows = [row | {k: costs[row["attack"]][k] for k in ("queries", "queries_max")} if row["attack"] in costs else row for row in rows]
    tick(1, "differences between attacks")
    zero = further.at_zero(attacks, **shared) if 0 in wanted["fprs"] else []
    kept_pairs = comparisons.rows(kept, order, level=wanted["level"])
    kept_pairs += comparisons.accuracies(attacks, **shared, names=order, draws=draws, level=wanted["level"])
    sides = (int((shared["evaluated_TN"] & side_TN).sum(1).min()) for side_TN in (shared["member_TN"], ~shared["member_TN"]))
    size = dict(zip(("n_member", "n_nonmember"), sides, strict=True), units=len(np.unique(design.unit_M[targets])), resampling=draws.resampling)
    tick(1, "records")
    return dict(
        verdict=dict(verdict, detectable=standing.detectable(verdict, fprs=resolved_fprs(wanted), **size)),
        results=rows + zero + further.rows(attacks, **shared, **common) + sliced,
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
                    evidence, **shared, unit_T=design.unit_M[list(design.targets)], draws=draws, fprs=resolved_fprs(wanted), level=wanted["level"]
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


def exposed_records(audit, *, folder: Path, ranked: Sequence[str]) -> tuple[dict, dict[str, np.ndarray]]:
    """Per-record vulnerability under the attacks that config.report.records names (None: the first of the ranked ones): the tables for
    report.json and the arrays of records.npz. An attack that was asked for and cannot be had is there with its {why}.
    """
    found, arrays, wanted = {}, {}, audit.config["report"]["records"]
    for name in ranked[:1] if wanted is None else wanted.split(",") if isinstance(wanted, str) else wanted:
        if name not in audit.attacks:
            found[name] = dict(why=f"this audit has no attack of that name; its attacks: {', '.join(audit.attacks)}")
            continue
        one = audit.attacks[name]
        if one.knows not in tables.RANKED:
            found[name] = dict(why=f"it knows more than a real attacker could ({one.knows}), so its records would not tell who is exposed to one")
            continue
        fleet = answers.load_fleet(audit, folder=folder, names=[n for n in one.needs if n in audit.asked], attack=name)
        key = answers.key_of(audit, name)
        level = audit.config["report"]["level"]
        found[name], own = vulnerability.measure(attack=one, fleet=fleet, scores=scores, key=key, level=level, seed=audit.seed)
        arrays |= {f"{name}/{field}": value for field, value in own.items()}
    return found, arrays


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


def assumed(audit, *, folder: Path) -> dict[str, dict]:
    """{attack: what its diagnosis says on the first targets} of the attacks that have one."""
    found = {}
    for name, one in audit.attacks.items():
        if one.diagnose is not None:
            fleet = answers.load_fleet(audit, folder=folder, names=[n for n in one.needs if n in audit.asked], attack=name)
            found[name] = assumptions.measure(one, view=lambda t, fleet=fleet, one=one: fleet.view(t, one.needs), targets=audit.design.targets)
    return found


def used(audit, attacks: Mapping[str, Mapping], score_MN: Mapping[str, np.ndarray], ranked: Sequence[str]) -> dict | None:
    """The share of the rows that was trained on, as the first of the ranked attacks with thresholds from shadows estimates it."""
    ranked = [name for name in ranked if not np.isnan(attacks[name]["threshold_T"]).any()]
    if not ranked:
        return None
    name, level = ranked[0], audit.config["report"]["level"]
    return usage.measure(score_MN[name], attack=name, design=audit.design, threshold_T=attacks[name]["threshold_T"], level=level)
