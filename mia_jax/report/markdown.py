"""report.md: what a person reads in a minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import (
    answer,
    assumptions,
    budget,
    cross_validation,
    epochs,
    evasion,
    guarantee,
    pairs,
    privacy,
    sections,
    standing,
    tables,
    trust,
    usage,
)

KNOWLEDGE = {
    "nothing": "`nothing`: the target's answers alone",
    "shadows": "`shadows`: models that the attacker trained",
    "population": "`population`: rows that no model saw",
}
FIGURES = {
    "roc": "ROC curves",
    "scores": "Scores of members and non-members",
    "shadows": "Attack strength and the number of shadow models",
    "queries": "Attack strength and the number of queries",
    "epochs": "How the leak grows with training",
    "evasion": "Accuracy under attack",
    "adversarial": "Adversarial examples",
    "weights": "What the weights look like",
}


def report(found: Mapping, *, figures: Sequence[str] = ()) -> str:
    """The report of a run as Markdown; `figures` are paths relative to it.

    `found` is report.json: `results` (rows of metrics.summary) and, each optional, `about` {data, examples, classes, shape, model, learner, seed,
    duplicates, level, arrays, target, canaries}, `verdict` (report.standing), `models` [{model, train_accuracy, ...}], `design` {name, models,
    targets, ...}, `attacks`, `versions`, `comparisons` (rows of metrics.comparisons), `slices` {ranking, ...}, `records`, `validity`
    (report.validity). Of `about`: `arrays` says whether a caller brought arrays; `target` is 'answers' or 'labels (a black box)' where the audited
    model is the user's own, so that `model` and `learner` are its shadows'; `canaries` {kind, count} where only canaries are scored.

    Failed checks come first, then what was attacked, what is promised and proved (differential privacy), and the answer.
    """
    rows = tables.main_rows(found["results"])
    ranked, _ = standing.order(found)
    promise = [guarantee.section(found), privacy.section(found)]
    parts = [
        title(found),
        trust.above(found),
        *(promise[1:] if (found.get("audit") or {}).get("violated") else ()),
        attacked(found),
        *(promise[:1] if (found.get("audit") or {}).get("violated") else promise),
        headline(found),
        comparison(found),
        sections.differences(found, ranked),
        sections.calibration(found, ranked),
        budget.section(found, ranked),
        epochs.section(found),
        evasion.section(found),
        pairs.section(found),
        sections.slices(found, ranked),
        sections.records(found),
        usage.section(found),
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
    """The first line of the report."""
    return f"# {tables.plain(subject(found))}\n"


def subject(found: Mapping) -> str:
    """'Membership inference: digits, mlp': the data and the audited model. Shadows of a target of the user's own are not it."""
    about = found.get("about", {})
    model = "" if about.get("arrays") else "your target" if about.get("target") else name_of(about.get("model"))
    what = ", ".join(filter(None, (name_of(about.get("data")), model)))
    return "Membership inference" + (f": {what}" if what else "")


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
        lines.append(("data", ", ".join(filter(None, (tables.plain(name_of(about.get("data"))), *size)))))
    whose = " of the shadows" if about.get("target") else ""
    lines += [("target", f"your own: only its {tables.plain(about['target'])} were used")] if about.get("target") else []
    private = found.get("guarantee")
    if about.get("arrays"):
        lines.append(("models", "external: only their answers were given"))
    else:
        lines += [(k + whose, tables.plain(settings(about[k], private=bool(private)))) for k in ("model", "learner") if about.get(k)]
    lines += [("private training", guarantee.mechanism(private))] if private else []
    if design:
        targets = design.get("targets", ())
        count = len(targets) if isinstance(targets, Sequence) else targets
        sizes = [f"{design[k]:,} {text}" for k, text in SIZES.items() if design.get(k)]
        failed = f" ({len(design['failed'])} failed)" if design.get("failed") else ""
        models_of, name = design.get("models", "?"), "your arrays" if about.get("arrays") else design.get("name", "")
        audited = f"{count} of them audited as target{'s' * (count != 1)}" if models_of != 1 else "the target"
        lines.append(("design", f"{name}: {models_of} model{'s' * (models_of != 1)}{failed}, {audited}; " + ", ".join(sizes)))
    canaries = about.get("canaries")
    lines += fits(models, f" ({canaries['kind']} canaries that were left out)" if canaries else "")
    if found.get("cross_validation"):
        lines.append(("cross-validation", cross_validation.text(found["cross_validation"])))
    if not lines:
        return ""
    table = tables.markdown(("", ""), lines, code_first=False, align="left")
    return "## What was attacked\n\n" + table + failed_models(design) + canary_note(canaries) + warning(about) + told(about)


def fits(models: Sequence[Mapping], outsiders: str = "") -> list[tuple[str, str]]:
    """Accuracy (of a regression: loss) on members and non-members: a line for the targets, and one for models that are shadows only.

    `outsiders` says what the non-members are.
    """
    lines = []
    metric = "accuracy" if any("train_accuracy" in m for m in models) else "loss"
    show = {} if metric == "accuracy" else dict(show=lambda v: f"{v:.3g}", unit="")
    for target, name in ((True, "target"), (False, "shadow models")):
        own = [m for m in models if m.get("target", True) == target]
        if not own:
            continue
        pair = [tables.statistic([m.get(f"{side}_{metric}") for m in own], **show) for side in ("train", "validation")]
        known = [m[f"population_{metric}"] for m in own if m.get(f"population_{metric}") is not None]
        outside = f", {tables.statistic(known, **show)} on rows that are neither" if known else ""
        name += "s" * (target and len(own) > 1)
        whose = "its" if len(own) == 1 else "their"
        lines.append((f"{metric} of the {name}", f"{pair[0]} on {whose} members, {pair[1]} on non-members{outsiders}" + outside))
    return lines


CANARIES = dict(
    mislabeled="a row with a wrong label, which a model predicts only if it memorized it. Low accuracy on canaries that were left out is what a good "
    "model has, and says nothing about the task",
    gradient_aligned="an artificial row that no other row resembles; accuracy on those that were left out says nothing about the task",
    natural="an ordinary row of the data",
    marked="a row that the data marks as one",
)


def canary_note(canaries: Mapping | None) -> str:
    """What rows are scored where only canaries are."""
    if not canaries:
        return ""
    kind = CANARIES.get(canaries["kind"], "")
    return (
        f"\nOnly the {canaries['count']:,} canaries are scored, and coins decide which of them a model is trained on"
        + (f". A canary: {kind}" if kind else "")
        + ".\n"
    )


SIZES = {
    "train_rows": "training rows per model",
    "evaluated_rows": "rows scored",
    "population_rows": "rows outside all models",
    "shadows_min": "shadows per target",
}
DETAILS = ("epsilon", "penalize", "init")


def settings(section, *, private: bool = False) -> str:
    """'mlp (widths=[256])': a config section without what is off or a detail (all of it is in config.json).

    Of a `private` learner without the plan and the settings of privacy, whose sampler replaces the plan: `guarantee.mechanism` says what ran.
    """
    if not isinstance(section, Mapping):
        return str(section)
    left_out = ("name", *DETAILS, *(("plan", "privacy", "gradient") if private else ()))
    shown = {k: v for k, v in section.items() if k not in left_out and v not in (None, False, 0, "", "none", (), [], {})}
    rest = ", ".join(f"{k}={nested(v)}" for k, v in shown.items())
    return name_of(section) + (f" ({rest})" if rest else "")


def nested(value) -> str:
    """A value of a config section; of a section inside it the name, or the fields that are set."""
    if not isinstance(value, Mapping):
        return str(value)
    return name_of(value) or "(" + ", ".join(f"{k}={v}" for k, v in value.items() if v not in (None, False, "", (), [], {})) + ")"


def failed_models(design: Mapping) -> str:
    """Which models could not be used, why, and what that means for the others."""
    failed, unpaired, retried = (design.get(name) or [] for name in ("failed", "without_twin", "retried"))
    text = ""
    if failed:
        count, shown = len(failed), [f"model {one['model']}: {tables.plain(one['reason'])}" for one in failed[:5]]
        text = f"\n> **{count} of {design['models']} models failed** and {'are' if count > 1 else 'is'} neither target{'s' * (count > 1)} nor "
        text += f"shadow{'s' * (count > 1)} ({'; '.join(shown)}{'; ...' * (count > 5)}). All numbers are of the models that did not fail."
        if unpaired:
            text += (
                f" Not used as a shadow either, because its twin failed: {', '.join(map(str, unpaired))} (an example then has as many shadows that"
            )
            text += " trained on it as shadows that did not, whether it is a member or not)."
        text += "\n"
    if retried:
        text += f"\n> Trained again with another key after a failed attempt: {', '.join(map(str, retried))}.\n"
    return text


def warning(about: Mapping) -> str:
    """Equal rows among members and non-members cannot be distinguished by any attack."""
    duplicates = about.get("duplicates") or {}
    duplicates = duplicates if isinstance(duplicates, Mapping) else dict(rows=duplicates)
    if not duplicates.get("rows"):
        return ""
    crossing = duplicates.get("crossing")
    text = f"\n> **Duplicates:** {duplicates['rows']:,} rows have an equal row elsewhere in the data"
    text += f" ({crossing:,} {'sets hold' if crossing > 1 else 'set holds'} members and non-members of one model)" if crossing else ""
    remedy = "keep one row of each such set in the arrays" if about.get("arrays") else "drop them with `data.drop_duplicates=True`"
    return text + f". No attack can distinguish such rows, which hides leakage; {remedy}.\n"


def told(about: Mapping) -> str:
    """What was noticed about arrays that were brought, and which attacks they do not allow."""
    said = "\n".join(f"- {tables.plain(sentence)}" for sentence in about.get("said", ()))
    return f"\nAbout these arrays:\n\n{said}\n" if said else ""


def headline(found: Mapping) -> str:
    """The verdict, then AUC and TPR at 1% and at 0.1% FPR of the leading attack, in numbers and in words."""
    rows, one = tables.main_rows(found["results"]), standing.of(found)
    withheld = trust.failed(found, trust.INVALIDATES)
    if not one["strongest"]:
        return ""
    text = "## The answer\n\n"
    if withheld:
        text += f"**VERDICT WITHHELD, check failed: {'; '.join(check.title for check in withheld)}.** Until that is corrected, the numbers below are "
        text += "no evidence for or against a leak.\n\n"
    else:
        marked = trust.failed(found, trust.QUALIFIES)
        text += f"**Subject to the failed check above ({'; '.join(check.title for check in marked)}):** " if marked else ""
        text += f"**{answer.verdict(found, name=tables.code)}**\n\n"
    best, lines, words = one["strongest"], [], []
    for metric in ["auc", *(f"tpr@{f:g}" for f in sorted(tables.fprs(rows), reverse=True) if f <= 0.01 or len(tables.fprs(rows)) < 3)]:
        row = tables.resolved(rows, best, metric)
        if row is None:
            continue
        name = tables.metric_name(metric)
        if row["value"] is None:
            lines.append([name, tables.UNRESOLVED, "", row["method"]])
            continue
        bounds = tables.number(row).replace("†", "").partition(" ")[2]
        lines.append([f"**{name}**", f"**{tables.number(row, bounds=False).replace('†', '')}**", bounds, basis(row)])
        words.append(in_words(row, one["attacks"][best]))
    words += [at_threshold(rows, best), highest_auc(rows, one)]
    known = "that a real attacker could run" if best in one["ranked"] else "that know more than a real attacker could"
    among = one["ranked"] if best in one["ranked"] else one["apart"]
    first = "The strongest" if one["attacks"][best]["shown"] else "Ranked first"
    text += f"{first} of {len(among)} attacks {known}: {tables.code(best)}" if len(among) > 1 else f"The one attack: {tables.code(best)}"
    text += " (selected on these same numbers, hence slightly optimistic).\n\n" if len(among) > 1 else ".\n\n"
    header = ("", "value", f"{100 * one['level']:g}% interval", "over")
    return text + tables.markdown(header, lines, code_first=False) + "\n" + "\n".join(f"- {w}" for w in words if w) + "\n"


def highest_auc(rows: Sequence[Mapping], one: Mapping) -> str:
    """The attack whose AUC has the highest lower end, where another one leads at a low FPR."""
    area = {name: row for name in one["ranked"] if (row := tables.resolved(rows, name, "auc")) and row["low"] is not None}
    best = max(area, key=lambda name: area[name]["low"], default=None)
    if best is None or best == one["strongest"] or one["strongest"] not in area or area[best]["low"] <= area[one["strongest"]]["low"]:
        return ""
    return f"Highest AUC, by the lower end of its interval: {tables.code(best)}, {tables.number(area[best])}."


def at_threshold(rows: Sequence[Mapping], attack: str) -> str:
    """What the attack does at the threshold that its owner can really choose."""
    tpr, fpr = (tables.find(rows, attack, metric) for metric in ("tpr", "fpr"))
    precision = next((r for r in rows if r["attack"] == attack and r["target"] is None and r["metric"].startswith("ppv@")), None)
    if not tpr or tpr["value"] is None or not fpr or not precision:
        return ""
    ratio = float(precision["metric"].removeprefix("ppv@"))
    text = f"At the threshold that an attacker can choose (calibrated on shadow models, or the attack's own): TPR {tables.number(tpr)}, "
    return text + f"FPR {tables.number(fpr)}, precision {tables.number(precision)} with {ratio:g} non-member{'s' * (ratio != 1)} per member."


def basis(row: Mapping) -> str:
    """How many members, non-members and targets a number rests on, and what its interval resamples."""
    counts = f"{row['n_member']:,} members, {row['n_nonmember']:,} non-members"
    if row["n_targets"] > 1:
        counts = (
            f"{row['n_targets']} targets pooled: {counts}" if row["target"] == "pooled" else f"mean over {row['n_targets']} targets, each {counts}"
        )
    realized = "" if row["fpr_realized"] is None else f"; realized FPR {tables.percent(row['fpr_realized'])}%"
    return counts + realized + (f"; interval: {row['interval']}" if row["interval"] else "")


def in_words(row: Mapping, attack: Mapping | None = None) -> str:
    """The number as a sentence; `attack` is the attack's entry of the verdict, by which a number is called significant."""
    if row["metric"] == "auc":
        text = f"A random member scores above a random non-member in {tables.percent(row['value'])} of 100 pairs (guessing: 50)."
        return " ".join(filter(None, (text, judged(row, attack))))
    fpr = float(row["metric"].removeprefix("tpr@"))
    per, unit = (100, "100") if fpr >= 0.01 else (1000, "1,000")
    found, guess = row["value"] * per, fpr * per
    text = f"It identifies {round(found, 1 if found >= 1 else 2):g} of {unit} members at {tables.rate_name(fpr)} FPR; "
    text += f"random guessing identifies {guess:g}."
    return " ".join(filter(None, (text, judged(row, attack))))


def judged(row: Mapping, attack: Mapping | None) -> str:
    """'Significant.' or what else the interval says; '' without one."""
    if row["low"] is None:
        return ""
    guess, metric = standing.guess(row["metric"]), row["metric"]
    if metric == "auc" and row["high"] < guess:
        return "The score points the wrong way: members score lower than non-members."
    if row["high"] < guess:
        return "Less than guessing."
    if row["low"] <= guess:
        return "Not distinguishable from guessing."
    if attack is not None and metric not in attack["shown"]:
        return "Above guessing by its own interval, but not significant after correction for all attacks."
    return "Significant."


def comparison(found: Mapping) -> str:
    """Every attack, sorted; those that know more, and the optimistic figures, separately."""
    rows, one = tables.main_rows(found["results"]), standing.of(found)
    ranked, apart = one["ranked"], one["apart"]
    by = tables.metric_name(tables.sort_metric(rows))
    text = "## All attacks, strongest first\n\n" + tables.markdown(*tables.grid(rows, ranked))
    text += f"\nFirst the attacks that are above guessing in {by}, then those that are in another rate, then those that show nothing (corrected for "
    text += f"{one['tests']} tests); among equals by the lower end of the interval.\n"
    wrong = [name for name in (*ranked, *apart) if one["attacks"][name]["inverted"]]
    if wrong:
        text += (
            f"\nPointing the wrong way (AUC significantly below 0.5, members score lower): {', '.join(map(tables.code, wrong))}. No evidence of a "
        )
        text += "leak to whoever uses the score as it is; if it is a score of your own, check its sign.\n"
    if apart:
        text += "\nNot ranked: these know more about the target than a real attacker would.\n\n" + tables.markdown(*tables.grid(rows, apart))
    header, lines = tables.optimistic_grid(rows, [*ranked, *apart])
    if lines:
        text += "\nOracle threshold, not ranked: chosen with the true membership, next to what random scores would reach.\n\n"
        text += tables.markdown(header, lines)
    return text


def pictures(figures: Sequence[str]) -> list[str]:
    """The figures inline, in the order given."""
    lines = [f"![{FIGURES.get(path.rpartition('/')[2].partition('.')[0], path)}]({path})\n" for path in figures]
    return ["## Figures\n", *lines] if lines else []


def unresolved(rows: Sequence[Mapping]) -> str:
    """Every number that could not be computed, grouped by reason, and which of them the tables replace by a pooled one."""
    reasons: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
    for row in rows:
        if row["value"] is None and (row["target"] is None or (row["target"] == "pooled" and row["n_targets"] > 1)):
            pooled = row["target"] == "pooled"
            instead = not pooled and (tables.resolved(rows, row["attack"], row["metric"]) or row)["value"] is not None
            scope = "pooled" if pooled else "mean over targets" if row["n_targets"] > 1 else ""
            reasons.setdefault((row["method"], scope, instead), []).append((row["metric"], row["attack"]))
    if not reasons:
        return "## What was not resolvable\n\nNothing: every number above was measured.\n"
    lines, everyone = [], {row["attack"] for row in rows}
    for (method, scope, instead), cells in reasons.items():
        metrics, attacks = list(dict.fromkeys(m for m, _ in cells)), list(dict.fromkeys(a for _, a in cells))
        who = "all attacks" if set(attacks) == everyone else ", ".join(map(tables.code, attacks))
        named = ", ".join(map(tables.metric_name, metrics))
        lines.append(
            f"- {named} ({'; '.join(filter(None, (scope, who)))}): {method}." + (" The pooled value (†) is shown instead." if instead else "")
        )
    return "## What was not resolvable\n\n" + "\n".join(lines) + "\n"


def reading(rows: Sequence[Mapping], audited: bool = False) -> str:
    """Conventions, in plain words."""
    known = [KNOWLEDGE[k] for k in dict.fromkeys(row["knows"] for row in rows) if k in KNOWLEDGE]
    methods = dict.fromkeys(f"{row['interval']}: {row['method']}" for row in rows if row["interval"] and row["target"] in (None, "pooled"))
    lines = [
        "**AUC**: how often a member scores above a non-member; 0.5 is guessing. It hides what happens at low false-positive rates.",
        "**TPR at x% FPR**: share of the members that are identified when at most x% of the non-members are flagged (the largest rate at or below "
        "x%, no interpolation; tied scores are flagged together).",
        "**balanced accuracy**, **advantage** = TPR - FPR: at a threshold from shadow models or the attack itself, never the target's; – where none.",
        "**†**: one ROC over all (target, record) pairs, where a single target has too few non-members; else the mean over targets.",
        "**[low, high]**: intervals. *crossed* speaks about further models (twins are one) and records, shadow models included; *records* resamples "
        "records only and speaks about these models alone; *fixed_threshold* is exact binomial. TPR, FPR and precision at a "
        "threshold speak about these shadow models. Two attacks are compared by the interval of their difference, not by these.",
        "**significant**: above guessing after Holm's correction over all rates of all attacks in the table; only then a leak is called shown.",
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
        lines = [(k, tables.plain(compact(v))) for k, v in found["design"].items() if v not in (None, "", [], ())]
        text += "\n## Design\n\n" + tables.markdown(("", ""), lines, code_first=False, align="left")
    if found.get("attacks"):
        fields = ("needs", "knows", "note")
        lines = [(name, *(tables.plain(compact(one.get(f, ""))) for f in fields)) for name, one in found["attacks"].items()]
        text += "\n## Attacks\n\n" + tables.markdown(("attack", *fields), lines, align="left")
    versions, about = found.get("versions") or {}, found.get("about", {})
    facts = {**versions.get("packages", {}), **{k: compact(v) for k, v in versions.items() if k != "packages" and v is not None}}
    facts |= {k: about[k] for k in ("seed", "pool") if k in about}
    return text + ("\n---\n\n" + ", ".join(f"{k} {tables.plain(v)}" for k, v in facts.items()) + "\n" if facts else "")


def compact(value) -> str:
    """A value on one line; a long run of whole numbers as '0..63'."""
    if isinstance(value, list | tuple):
        values = list(value)
        if len(values) > 4 and all(isinstance(v, int) for v in values) and values == list(range(values[0], values[-1] + 1)):
            return f"{values[0]}..{values[-1]}"
        return ", ".join(map(str, values))
    return str(value)
