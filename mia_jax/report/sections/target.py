"""What was attacked: data, models, design, accuracies, and what is peculiar about the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import rendering, tables
from mia_jax.report.sections.guarantee import mechanism

ORDER = 30
NEEDS = ()
BUILT_IN = ("objective", "own")  # a learner without a choice of objectives
HIDDEN = ("name", "epsilon", "penalize", "init", "precision")  # details of a config section
SIZES = dict(
    train_rows="training rows per model",
    evaluated_rows="scored rows",
    population_rows="population rows (in no model's training set)",
    shadows_min="shadow models per target",
)
CANARIES = dict(
    mislabeled="Each canary has a wrong label, which a model predicts only if it has memorized the "
    "row. A good model has a low accuracy on held-out canaries; it says nothing about the task.",
    gradient_aligned="Each canary is an artificial row that resembles no other row; the accuracy "
    "on held-out canaries says nothing about the task.",
    natural="Each canary is an ordinary row of the data.",
    blank="Each canary is an empty row with a label of its own; the accuracy on held-out canaries "
    "says nothing about the task.",
    out_of_distribution="Each canary is a row of uniform noise with a random label; the accuracy "
    "on held-out canaries says nothing about the task.",
    adversarial_input="Each canary is a row that was changed to look like another class; the "
    "accuracy on held-out canaries is below that on the data.",
    poisoned="Each canary is an ordinary row of which the training data also hold copies with a "
    "wrong label; the accuracy on held-out canaries is below that on the data.",
    dirac="Each canary has a parameter of its own that only its gradient moves. Models answer as "
    "if canaries did not exist; what they reveal is seen in the updates of the training.",
    marked="The canaries are the rows that the data marks as such.",
)


def text(
    *,
    about: Mapping = {},
    design: Mapping = {},
    models: Sequence[Mapping] = (),
    guarantee: Mapping | None = None,
    cross_validation: Mapping | None = None,
) -> str:
    """Writes the table of what was attacked, and notes on failed models, canaries and
    duplicates.
    """
    canaries = about.get("canaries")
    held_out = f" (held-out {canaries['kind']} canaries)" if canaries else ""
    lines = [
        *_data(about),
        *_models(about, guarantee),
        *_design(about, design),
        *accuracies(models, held_out),
    ]
    if cross_validation:
        lines.append(("cross-validation", folds(cross_validation)))
    if not lines:
        return ""
    duplicates = about.get("duplicates") or {}
    duplicates = duplicates if isinstance(duplicates, Mapping) else dict(rows=duplicates)
    return rendering.render(
        "target",
        lines=lines,
        failed=design.get("failed") or [],
        models=design.get("models"),
        unpaired=design.get("without_twin") or [],
        retried=design.get("retried") or [],
        canaries=canaries,
        canary_kind=CANARIES.get(canaries["kind"], "") if canaries else "",
        duplicates=dict(rows=0, crossing=0) | duplicates,
        arrays=bool(about.get("arrays")),
        notes=about.get("said", ()),
        noun="models" if about.get("asked") else "arrays",
    )


def _data(about: Mapping) -> list[tuple[str, str]]:
    """Describes the data in a line."""
    if not about:
        return []
    parts = [
        tables.plain(tables.data_name(about)),
        f"{about['examples']:,} examples" if "examples" in about else "",
        f"{about['classes']} classes" if about.get("classes") else "",
        "shape " + " x ".join(str(n) for n in about["shape"]) if about.get("shape") else "",
    ]
    return [("data", ", ".join(filter(None, parts)))]


def _models(about: Mapping, guarantee: Mapping | None) -> list[tuple[str, str]]:
    """Describes the target, the models and how they were trained."""
    lines = []
    if about.get("target"):
        lines.append(("target", f"your target: only its {tables.plain(about['target'])} were used"))
    if about.get("asked"):
        how = "a recipe of your own, trained" if about["asked"] == "recipe" else "your own"
        lines.append(("models", f"{how} and asked here: only their outputs were used"))
    elif about.get("arrays"):
        lines.append(("models", "external: only their outputs were given"))
    else:
        of_shadows = " of the shadow models" if about.get("target") else ""
        for key in ("model", "learner"):
            if about.get(key):
                lines.append(
                    (key + of_shadows, tables.plain(settings(about[key], private=bool(guarantee))))
                )
    if guarantee:
        lines.append(("private training", mechanism(guarantee)))
    if precision := about.get("precision"):
        trained, asked = precision["learner"], precision["query"]
        both = f"trained and queried in {trained}"
        lines.append(
            (
                "numerical precision",
                both if trained == asked else f"trained in {trained}, queried in {asked}",
            )
        )
    return lines


def _design(about: Mapping, design: Mapping) -> list[tuple[str, str]]:
    """Describes which models there are and how many rows each of them saw."""
    if not design:
        return []
    targets, models = design.get("targets", ()), design.get("models", "?")
    count = len(targets) if isinstance(targets, Sequence) else targets
    sizes = [f"{design[key]:,} {text}" for key, text in SIZES.items() if design.get(key)]
    sizes = ["1 shadow model per target" if s == "1 shadow models per target" else s for s in sizes]
    failed = f" ({len(design['failed'])} failed)" if design.get("failed") else ""
    name = "your arrays" if about.get("arrays") else design.get("name", "")
    name = "your models" if about.get("asked") else name
    audited = (
        f"{count} of them audited as target{'s' * (count != 1)}" if models != 1 else "the target"
    )
    return [
        (
            "design",
            f"{name}: {models} model{'s' * (models != 1)}{failed}, {audited}; " + ", ".join(sizes),
        )
    ]


def accuracies(models: Sequence[Mapping], held_out: str = "") -> list[tuple[str, str]]:
    """Writes a line of accuracies (of a regression: losses) for the targets and one for the others.

    `held_out` says what the non-members are.
    """
    lines = []
    metric = "accuracy" if any("train_accuracy" in row for row in models) else "loss"
    show = {} if metric == "accuracy" else dict(show=lambda value: f"{value:.3g}", unit="")
    for target, name in ((True, "target"), (False, "shadow models")):
        rows = [row for row in models if row.get("target", True) == target]
        if not rows:
            continue
        inside, outside = (
            tables.statistic([row.get(f"{side}_{metric}") for row in rows], **show)
            for side in ("train", "validation")
        )
        known = [
            row[f"population_{metric}"]
            for row in rows
            if row.get(f"population_{metric}") is not None
        ]
        population = f", {tables.statistic(known, **show)} on population rows" if known else ""
        name = name.removesuffix("s") + "s" * (len(rows) > 1)
        whose = "its" if len(rows) == 1 else "their"
        spread = " (mean ± standard deviation over models)" if "±" in inside + outside else ""
        lines.append(
            (
                f"{metric} of the {name}",
                f"{inside} on {whose} members, {outside} on non-members{held_out}{population}"
                f"{spread}",
            )
        )
    return lines


def folds(cross_validation: Mapping) -> str:
    """Writes 'accuracy 84.1 ± 0.5% on the held-out fold (mean ± sd over 5 folds)'."""
    accuracy, loss = cross_validation.get("accuracy"), cross_validation.get("loss")
    parts = [f"accuracy {tables.statistic(accuracy['folds'])}"] if accuracy else []
    parts += (
        [f"loss {tables.statistic(loss['folds'], lambda value: f'{value:.3g}', '')}"]
        if loss
        else []
    )
    return (
        f"{', '.join(parts)} on the held-out fold (mean ± sd over {cross_validation['folds']} "
        "folds)"
    )


def settings(section, *, private: bool = False) -> str:
    """Writes a config section without defaults that are off: 'mlp (widths=[256])'.

    Of a private learner without the plan and the settings of privacy, whose sampler replaces the
    plan: `guarantee.mechanism` says what ran. All fields are in config.json.
    """
    if not isinstance(section, Mapping):
        return str(section)
    hidden = (*HIDDEN, *(("plan", "privacy", "gradient") if private else ()))
    off = (None, False, 0, "", "none", (), [], {})
    fields = {
        key: value
        for key, value in section.items()
        if key not in hidden and value not in off and (key, value) != BUILT_IN
    }
    rest = ", ".join(f"{key}={nested(value)}" for key, value in fields.items())
    return tables.section_name(section) + (f" ({rest})" if rest else "")


def nested(value) -> str:
    """Writes a value of a config section; of a nested section its name and its set fields.

    >>> nested({"name": "sgd", "momentum": 0.9})
    'sgd (momentum=0.9)'
    """
    if not isinstance(value, Mapping):
        return str(value)
    fields = ", ".join(
        f"{key}={v}"
        for key, v in value.items()
        if key != "name" and v not in (None, False, "", (), [], {})
    )
    return " ".join(filter(None, [tables.section_name(value), f"({fields})" if fields else ""]))
