"""report.md: what a person reads in a minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import assumptions, budget, cross_validation, epochs, evasion, guarantee, pairs, privacy, sections, tables, trust, usage

KNOWLEDGE = {
    "nothing": "`nothing`: the target's answers alone",
    "shadows": "`shadows`: models that the attacker trained",
    "population": "`population`: rows that no model saw",
}
FIGURES = {
    "roc": "ROC curves",
    "scores": "Scores of members and non-members",
    "shadows": "What more shadow models buy",
    "queries": "What more queries buy",
    "epochs": "How the leak grows with training",
    "evasion": "Accuracy under attack",
    "adversarial": "Adversarial examples",
    "weights": "What the weights look like",
}


def report(found: Mapping, *, figures: Sequence[str] = ()) -> str:
    """The report of a run as Markdown; `figures` are paths relative to it.

    `found` is report.json: `results` (rows of metrics.summary) and, each optional, `about` {data, examples, classes, shape, model, learner, seed,
    duplicates, level, ...}, `models` [{model, train_accuracy, ...}], `design` {name, models, targets, ...}, `attacks`, `versions`, `comparisons`
    (rows of metrics.comparisons), `slices` {ranking, ...}, `records`, `validity` (report.validity).
    """
    rows = tables.main_rows(found["results"])
    ranked, apart = tables.ranking(rows)
    first = [headline(rows, ranked, found.get("about", {}).get("level", 0.95)), privacy.section(found)]
    parts = [
        title(found),
        attacked(found),
        *(first[::-1] if (found.get("audit") or {}).get("violated") else first),
        comparison(rows, ranked, apart),
        sections.differences(found, ranked),
        sections.calibration(found, ranked),
        budget.section(found, ranked),
        epochs.section(found),
        evasion.section(found),
        pairs.section(found),
        sections.slices(found, ranked),
        sections.records(found),
        usage.section(found),
        guarantee.section(found),
        trust.trust(found),
        assumptions.section(found),
        *pictures(figures),
    ]
    parts += [unresolved(rows), reading(rows, bool(found.get("audit"))), appendix(found)]
    return "\n".join(part for part in parts if part)


def name_of(section) -> str:
    """The name in a config section, or the text itself."""
    return str(section.get("name", "")) if isinstance(section, Mapping) else str(section or "")


def title(found: Mapping) -> str:
    about = found.get("about", {})
    what = ", ".join(filter(None, (name_of(about.get("data")), name_of(about.get("model")))))
    return "# Membership inference" + (f": {what}" if what else "") + "\n"


def attacked(found: Mapping) -> str:
    """What was attacked, in a table, and the warning about duplicates."""
    about, design, models = found.get("about", {}), found.get("design", {}), found.get("models", [])
    lines = []
    if about:
        shape = "shape " + " x ".join(str(n) for n in about["shape"]) if about.get("shape") else ""
        size = [
            f"{about['examples']:,} examples" if "examples" in about else "",
            f"{about['classes']} classes" if about.get("classes") else "",
            shape,
        ]
        lines.append(("data", ", ".join(filter(None, (name_of(about.get("data")), *size)))))
    lines += [(k, settings(about[k])) for k in ("model", "learner") if about.get(k)]
    if design:
        targets = design.get("targets", ())
        count = len(targets) if isinstance(targets, Sequence) else targets
        sizes = [f"{design[k]:,} {text}" for k, text in SIZES.items() if design.get(k)]
        lines.append(("design", f"{design.get('name', '')}: {design.get('models', '?')} models, {count} of them targets; " + ", ".join(sizes)))
    if models:
        of_targets = [m for m in models if m.get("target", True)]
        metric = "accuracy" if any("train_accuracy" in m for m in of_targets) else "loss"
        show = {} if metric == "accuracy" else dict(show=lambda v: f"{v:.3g}", unit="")
        pair = [tables.statistic([m.get(f"{side}_{metric}") for m in of_targets], **show) for side in ("train", "validation")]
        known = [m[f"population_{metric}"] for m in of_targets if f"population_{metric}" in m]
        outside = f", {tables.statistic(known, **show)} on rows that are neither" if known else ""
        lines.append((f"{metric} of the targets", f"{pair[0]} on their members, {pair[1]} on non-members" + outside))
    if found.get("cross_validation"):
        lines.append(("cross-validation", cross_validation.text(found["cross_validation"])))
    if not lines:
        return ""
    return "## What was attacked\n\n" + tables.markdown(("", ""), lines, code_first=False, align="left") + warning(about) + told(about)


SIZES = {
    "train_rows": "training rows a model",
    "evaluated_rows": "rows scored",
    "population_rows": "rows outside all models",
    "shadows_min": "shadows a target",
}
DETAILS = ("epsilon", "penalize", "init")


def settings(section) -> str:
    """'mlp (widths=[256])': a config section without what is off or a detail (all of it is in config.json)."""
    if not isinstance(section, Mapping):
        return str(section)
    shown = {k: v for k, v in section.items() if k not in ("name", *DETAILS) and v not in (None, False, 0, "", "none", (), [], {})}
    rest = ", ".join(f"{k}={name_of(v) if isinstance(v, Mapping) else v}" for k, v in shown.items())
    return name_of(section) + (f" ({rest})" if rest else "")


def warning(about: Mapping) -> str:
    """Equal rows on both sides of the membership cannot be told apart by any attack."""
    duplicates = about.get("duplicates") or {}
    duplicates = duplicates if isinstance(duplicates, Mapping) else dict(rows=duplicates)
    if not duplicates.get("rows"):
        return ""
    crossing = duplicates.get("crossing")
    text = f"\n> **Duplicates:** {duplicates['rows']:,} rows have an equal row elsewhere in the data"
    text += f" ({crossing:,} {'sets hold' if crossing > 1 else 'set holds'} members and non-members of one model)" if crossing else ""
    return text + ". Such rows cannot be told apart, which hides leakage; drop them with `data.drop_duplicates=True`.\n"


def told(about: Mapping) -> str:
    """What was noticed about arrays that were brought, and which attacks they do not allow."""
    said = "\n".join(f"- {sentence}" for sentence in about.get("said", ()))
    return f"\nAbout these arrays:\n\n{said}\n" if said else ""


def headline(rows: Sequence[Mapping], ranked: Sequence[str], level: float = 0.95) -> str:
    """AUC, TPR at 1% and at 0.1% FPR of the best ranked attack, in numbers and in words."""
    if not ranked:
        return ""
    best, lines, words = ranked[0], [], []
    for metric in ["auc", *(f"tpr@{f:g}" for f in sorted(tables.fprs(rows), reverse=True) if f <= 0.01 or len(tables.fprs(rows)) < 3)]:
        row = tables.resolved(rows, best, metric)
        if row is None:
            continue
        name = "AUC" if metric == "auc" else f"TPR at {tables.rate_name(float(metric[4:]))} FPR"
        if row["value"] is None:
            lines.append([name, tables.UNRESOLVED, "", row["method"]])
            continue
        bounds = tables.number(row).replace("†", "").partition(" ")[2]
        lines.append([f"**{name}**", f"**{tables.number(row, bounds=False).replace('†', '')}**", bounds, basis(row)])
        words.append(in_words(row))
    words.append(at_threshold(rows, best))
    text = f"## The numbers that matter\n\nThe strongest of {len(ranked)} attacks that a real attacker could run: `{best}`"
    text += " (picked by these very numbers, so they err a little high).\n\n" if len(ranked) > 1 else ".\n\n"
    header = ("", "value", f"{100 * level:g}% interval", "over")
    return text + tables.markdown(header, lines, code_first=False) + "\n" + "\n".join(f"- {w}" for w in words if w) + "\n"


def at_threshold(rows: Sequence[Mapping], attack: str) -> str:
    """What the attack does at the threshold that its owner can really choose."""
    tpr, fpr = (tables.find(rows, attack, metric) for metric in ("tpr", "fpr"))
    precision = next((r for r in rows if r["attack"] == attack and r["target"] is None and r["metric"].startswith("ppv@")), None)
    if not tpr or tpr["value"] is None or not fpr or not precision:
        return ""
    ratio = float(precision["metric"].removeprefix("ppv@"))
    text = f"At its threshold (of shadow models, or its own) it names {tables.number(tpr)} of the members and {tables.number(fpr)} of the non-members"
    return text + f"; with {ratio:g} non-member{'s' * (ratio != 1)} a member, {tables.number(precision)} of those named are members."


def basis(row: Mapping) -> str:
    """How many members, non-members and targets a number rests on, and what its interval resamples."""
    counts = f"{row['n_member']:,} members, {row['n_nonmember']:,} non-members"
    if row["n_targets"] > 1:
        counts = (
            f"{row['n_targets']} targets pooled: {counts}" if row["target"] == "pooled" else f"mean over {row['n_targets']} targets, each {counts}"
        )
    realized = "" if row["fpr_realized"] is None else f"; realized FPR {tables.percent(row['fpr_realized'])}%"
    return counts + realized + (f"; interval: {row['interval']}" if row["interval"] else "")


def in_words(row: Mapping) -> str:
    """The number as a sentence."""
    if row["metric"] == "auc":
        shown = row["low"] is not None and row["low"] > 0.5
        verdict = "The interval excludes 50%: the models leak membership." if shown else "The interval includes 50%: no leak is shown on average."
        if row["high"] is not None and row["high"] < 0.5:
            verdict = "The interval lies below 50%: the score points the wrong way."
        order = f"A random member scores above a random non-member in {tables.percent(row['value'])} of 100 pairs (guessing: 50)."
        return f"{order} {verdict}" if row["low"] is not None else order
    fpr = float(row["metric"].removeprefix("tpr@"))
    per, unit = (100, "100") if fpr >= 0.01 else (1000, "1,000")
    named, alarms = row["value"] * per, fpr * per
    text = (
        f"Of {unit} members, {round(named, 1 if named >= 1 else 2):g} are named at {alarms:g} false alarm{'s' * (alarms != 1)} per {unit} non-members"
    )
    low, high = row["low"], row["high"]
    if low is None:
        return text + f" (guessing: {alarms:g})."
    verdict = "more than guessing" if low > fpr else "less than guessing" if high < fpr else "not distinguishable from guessing"
    return text + f"; guessing names {alarms:g}: {verdict}."


def comparison(rows: Sequence[Mapping], ranked: Sequence[str], apart: Sequence[str]) -> str:
    """Every attack, sorted; those that know more, and the optimistic figures, apart."""
    by = tables.sort_metric(rows)
    by = "AUC" if by == "auc" else f"TPR at {tables.rate_name(float(by[4:]))} FPR"
    text = f"## All attacks, by {by}\n\n" + tables.markdown(*tables.grid(rows, ranked))
    if apart:
        text += "\nNot ranked: these know more about the target than a real attacker would.\n\n" + tables.markdown(*tables.grid(rows, apart))
    header, lines = tables.optimistic_grid(rows, [*ranked, *apart])
    if lines:
        text += (
            "\nOptimistic, not ranked: the best threshold, picked with the answer at hand, beside what it reaches on scores that carry nothing.\n\n"
        )
        text += tables.markdown(header, lines)
    return text


def pictures(figures: Sequence[str]) -> list[str]:
    """The figures inline, in the order given."""
    lines = [f"![{FIGURES.get(path.rpartition('/')[2].partition('.')[0], path)}]({path})\n" for path in figures]
    return ["## Figures\n", *lines] if lines else []


def unresolved(rows: Sequence[Mapping]) -> str:
    """Every number that could not be had, once a reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["value"] is None and (row["target"] is None or row["target"] == "pooled"):
            scope = "pooled" if row["target"] == "pooled" else "mean over targets"
            reasons.setdefault((row["method"], scope), []).append((row["metric"], row["attack"]))
    if not reasons:
        return "## What was not resolvable\n\nNothing: every number above was measured.\n"
    lines, everyone = [], {row["attack"] for row in rows}
    for (method, scope), cells in reasons.items():
        metrics, attacks = list(dict.fromkeys(m for m, _ in cells)), list(dict.fromkeys(a for _, a in cells))
        who = "all attacks" if set(attacks) == everyone else ", ".join(f"`{a}`" for a in attacks)
        pooled = scope != "pooled" and any(r["metric"] in metrics and r["target"] == "pooled" and r["value"] is not None for r in rows)
        lines.append(f"- {', '.join(metrics)} ({scope}; {who}): {method}." + (" The pooled value (†) is shown instead." if pooled else ""))
    return "## What was not resolvable\n\n" + "\n".join(lines) + "\n"


def reading(rows: Sequence[Mapping], audited: bool = False) -> str:
    """Conventions, in plain words."""
    known = [KNOWLEDGE[k] for k in dict.fromkeys(row["knows"] for row in rows) if k in KNOWLEDGE]
    methods = dict.fromkeys(f"{row['interval']}: {row['method']}" for row in rows if row["interval"] and row["target"] in (None, "pooled"))
    lines = [
        "**AUC**: how often a member scores above a non-member; 0.5 is guessing. It hides what low false-positive rates show.",
        "**TPR@x%FPR**: share of the members named when at most x% of the non-members are (the largest at or below x%, no interpolation; tied "
        "scores are named together).",
        "**balanced accuracy**, **advantage** = TPR - FPR: at a threshold from shadow models or the attack itself, never the target's; – where none.",
        "**†**: one ROC over all (target, record) pairs, where a single target has too few non-members; else the mean over targets.",
        "**[low, high]**: intervals. *crossed* resamples models (twins together) and records; *records* resamples records only and speaks about "
        "these models alone; *fixed_threshold* is exact binomial. Two attacks are compared by the interval of their difference, not by these.",
        "**knows**: " + "; ".join(known) + "." if known else "",
        "Rates of one model's records are not a bound on differential privacy" + (f"; the only one is under '{privacy.TITLE}'." if audited else "."),
    ]
    text = "## How to read this\n\n" + "\n".join(f"- {line}" for line in lines if line) + "\n"
    return text + "\nIntervals used: " + "; ".join(methods) + ".\n" if methods else text


def appendix(found: Mapping) -> str:
    """Models, design, attacks and versions."""
    text = ""
    if found.get("models"):
        text += "## Models\n\n" + tables.markdown(*tables.models(found["models"]), code_first=False)
    if found.get("design"):
        lines = [(k, compact(v)) for k, v in found["design"].items() if v not in (None, "", [], ())]
        text += "\n## Design\n\n" + tables.markdown(("", ""), lines, code_first=False, align="left")
    if found.get("attacks"):
        fields = ("needs", "knows", "note")
        lines = [(name, *(compact(one.get(f, "")) for f in fields)) for name, one in found["attacks"].items()]
        text += "\n## Attacks\n\n" + tables.markdown(("attack", *fields), lines, align="left")
    versions, about = found.get("versions") or {}, found.get("about", {})
    facts = {**versions.get("packages", {}), **{k: compact(v) for k, v in versions.items() if k != "packages" and v is not None}}
    facts |= {k: about[k] for k in ("seed", "pool") if k in about}
    return text + ("\n---\n\n" + ", ".join(f"{k} {v}" for k, v in facts.items()) + "\n" if facts else "")


def compact(value) -> str:
    """A value on one line; a long run of whole numbers as '0..63'."""
    if isinstance(value, list | tuple):
        values = list(value)
        if len(values) > 4 and all(isinstance(v, int) for v in values) and values == list(range(values[0], values[-1] + 1)):
            return f"{values[0]}..{values[-1]}"
        return ", ".join(map(str, values))
    return str(value)
