"""Writes what `--list` prints: the choices of every kind, and the fields of every section.

A choice (an attack, a model, a signal, ...) has one line. A field is listed with its type, its
default and its meaning.
"""

from __future__ import annotations

import ast
import functools
import inspect
import pathlib
import re
import textwrap
from collections.abc import Mapping

from mia_jax import checks, configuration, registry
from mia_jax.configuration import fields, settings, shipped
from mia_jax.threat_model import OTHER_NEEDS, SHADOW_NEEDS

FOLDERS = (
    "attacks",
    "models",
    "signals",
    "data",
    "designs",
    "objectives",
    "learners",
    "optimizers",
    "schedules",
    "augmentations",
    "query_views",
    "defenses",
    "classifiers",
    "slices",
    "sections",
    "frameworks",
    "trackers",
)
SECTIONS = (*configuration.KINDS, *settings.SECTIONS)
PLURALS = dict(  # other words for a kind -> the kind
    model="models",
    design="designs",
    attack="attacks",
    learner="learners",
    signal="signals",
    objective="objectives",
    config="configs",
    optimizer="optimizers",
    schedule="schedules",
    defense="defenses",
    augmentation="augmentations",
    view="query_views",
    views="query_views",
    classifier="classifiers",
    framework="frameworks",
    tracker="trackers",
)
HOW_TO_CHOOSE = dict(  # of the kinds that are no section of a config
    attacks="--attacks=+<name>",
    signals="--config.query.signals=<name>,<name>",
    objectives="--config.learner.objective=<name>",
    optimizers="--config.learner.optimizer=<name>; fields of one: "
    "--list=fields:learner.optimizer:<name>",
    slices="--config.report.slices=<term>,<term> & <term>",
    frameworks="of models in mia_jax.audit(predict=..., fit=...), known by the model's type, or "
    "framework=<name>",
    trackers="--tracker=<name>,<name>, and tracker=<name> of mia_jax.Monitor",
    sections="of report.md; further ones are --config.report.sections=my_pkg.my_section",
    classifiers="--config.attacks.<attack>.kind=<name> of attack_model; options are "
    "--config.attacks.<attack>.options",
    augmentations="--config.learner.augment=<name>,<name>:<setting>",
    query_views="--config.query.views=identity,<name>:<setting>",
    defenses="--config.attacks.<attack>.defense=<name>:<field>=<value>,...",
    schedules="--config.learner.schedule=<name>; fields of one: "
    "--list=fields:learner.schedule:<name>",
)
READS = dict(  # what an attack with this need reads
    shadow_in="shadows that trained on the row",
    shadow_out="shadows that did not",
    shadow_own="shadows on their own rows",
    x="the examples",
    y="the labels",
    columns="further columns",
    population="population rows",
    member="half of the target's members",
)
WIDTH = 118
IN_SECTION = {  # the meanings of fields whose name means something else in another section
    "learner.epochs": "Passes over a model's training rows.",
    "learner.batch_size": "Examples per step.",
    "learner.optimizer": "An optimizer of optax or of your own: --list=optimizers; its fields are "
    "--config.learner.optimizer.<field>.",
    "learner.learning_rate": "The learning rate; the largest one if a schedule changes it.",
    "learner.schedule": "How the learning rate changes: --list=schedules; its fields are "
    "--config.learner.schedule.<field>.",
    "learner.schedule.decay_steps": "Steps until the schedule has ended; none: the steps of the "
    "training.",
    "learner.schedule.transition_steps": "Steps of the schedule (of one decay by decay_rate); "
    "none: the steps of the training.",
    "learner.augment": "Random changes of every example of a batch, such as flip,crop:4: "
    "--list=augmentations.",
    "learner.precision": "At which precision networks train: float32 (products too, also on GPUs "
    "and TPUs), tf32 (products of GPUs; on a CPU the same as float32) or bfloat16 (the network; "
    "its parameters and the optimizer stay float32).",
    "query.precision": "At which precision networks answer: float32, tf32 or bfloat16, as "
    "learner.precision.",
    "report.epochs": "Attacks that are repeated on the models of learner.snapshots.",
    "query.batch_size": "Examples per batch of forward passes.",
    "query.views": "The views in which every example is shown, such as identity,flip,shift:1,0: "
    "--list=query_views.",
    "query.signals": "Signals that are asked in addition to those that the attacks need.",
    "target.signals": "The file of the target's answers.",
    "target.batch_size": "Examples per query of the black box.",
    "report.audit.delta": "The delta at which epsilon is audited; none: the delta of the "
    "guarantee.",
    "report.audit.attacks": "Attacks that are audited; an empty list: all whose knowledge is at "
    "most that of shadow models.",
    "report.audit.method": "How the bound is computed: one_run, fdp, gdp, order_dp, order, "
    "sum or rank_sum; the report shows all.",
    "report.audit.epsilon": "The claimed epsilon, of an audit of arrays; none: no claim.",
    "report.audit.guesses": "Shares of the canaries that are guessed.",
    "report.audit.labels": "Whether the coins decide between two labels of a row, set by "
    "mia_jax.audit(label_inference=...).",
    "report.audit.shift": "Log odds by which coins about labels are not fair; none: estimated "
    "from the control rows.",
    "report.audit.slack": "The probability up to which report.audit.shift holds.",
    "report.audit.control": "Guesses about labels of rows outside the training set.",
}
MEANINGS = dict(  # the meanings of fields that no maker's docstring explains
    standardize="Scale features to mean 0 and variance 1, by the population rows if there are "
    "some.",
    drop_duplicates="Leave out rows that equal an earlier row.",
    canaries="Rows that become canaries: fields:data.canaries.",
    objective="The loss of one example: --list=objectives; its fields are "
    "--config.learner.objective.<field>.",
    validation="The rows on which models are evaluated while they train.",
    stop="Early stopping: fields:learner.stop; none trains all epochs.",
    snapshots="Epochs after which every model is kept as well, for attacks over the training.",
    init_from="The workdir of a run whose model (workdir:number) every model starts from.",
    watch="Keep scores of how the gradients of canaries align with the updates.",
    save_logits="Keep the logits of every model.",
    ask_batch_size="Examples per batch for signals that ask more than one forward pass.",
    defense="What changes the outputs before the attack sees them, with its settings, such as "
    "top_k:k=3: --list=defenses.",
    adaptive="The attacker applies the defense to the shadow models as well.",
    fprs="False-positive rates at which the true-positive rate is reported.",
    ppv_ratio="Non-members per member for which the precision is reported.",
    draws="Bootstrap draws of every interval.",
    level="Level of every interval.",
    jackknife="Number of groups of units; attacks on shadows are rerun without each group for "
    "their intervals; 0: never.",
    shadow_curve="Attacks that are repeated with fewer shadows.",
    figures="Draw the figures.",
    slices="Slices of the records, or two joined by &: --list=slices.",
    groups="Named lists of rows, further slices: --config.report.groups.<name>=3,17.",
    records="Attacks whose scores decide which records are exposed.",
    show_records="What the report holds of the most exposed records: numbers, contents (copies of "
    "them), or auto (contents of public data only).",
    sections="Modules of your own that add sections to report.md: my_pkg.my_section.",
    audit="The audit of epsilon: fields:report.audit.",
    chunk="Models that are trained at once, or auto to measure which number is fastest.",
    lanes="Chunks that are trained at once on one device; 0 chooses.",
    devices="Devices that are used; 0 takes all.",
    query_chunk="Models that are queried at once; 0 chooses.",
    checkpoint_every="Epochs between two checkpoints of a model in training; 0 for none.",
    checkpoint_minutes="Minutes between two checkpoints of a model in training, in addition.",
    profile="Epochs of which a trace of jax.profiler is written into WORKDIR/profile.",
    pool_bytes="The bytes that the data may take on a device; larger data are streamed.",
    black_box="A black box that answers labels: my_module.function, which is imported and called, "
    "or an npz of answers.",
    member="The file that says which rows the target was trained on.",
    rate="The largest number of queries per second; 0 sets no limit.",
    warmup_epochs="Epochs before the schedule, in which the learning rate rises linearly from 0.",
    models="How many models are trained.",
    population="The fraction of rows that no model trains on.",
    targets="The models that are audited: how many, or which; none: all.",
    examples="How many rows are taken, from the first on; none: all.",
    signal="The signal that is read: --list=signals.",
    sign="1 if larger values indicate members, -1 if smaller values do; none: as the signal says.",
)


def text(kind: str) -> str:
    """Returns the list of a kind, one line per entry.

    Args:
        kind: a kind, such as 'attacks'; 'kinds' for all kinds; 'fields:SECTION' or
            'fields:SECTION:CHOICE' for the fields of a section.

    Raises:
        ValueError: if there is no such kind; it lists the kinds.

    >>> text('objectives').splitlines()[2].split()[0]
    'adversarial'
    """
    kind, _, rest = kind.strip().partition(":")
    kind = PLURALS.get(kind, kind)
    if kind == "kinds":
        return "\n".join(f"--list={known}" for known in known_kinds())
    if kind == "fields":
        return section_text(rest)
    checks.one_of(known_kinds(), list=kind + ":" * bool(rest) + rest)
    if kind == "configs":
        return table("Configs (--config=<name or file>:<arguments>)", config_lines())
    lines = {
        name: registry.about(kind, name).split("\n")[0].strip() for name in registry.names(kind)
    }
    lines = {
        name: f"{line} {attack_line(name)}" if kind == "attacks" else line
        for name, line in lines.items()
    }
    singular = {v: k for k, v in configuration.KINDS.items()}.get(kind)
    return table(
        f"{kind.capitalize().replace('_', ' ')} "
        f"({HOW_TO_CHOOSE.get(kind, f'--config.{singular}.name=<name>')})",
        lines,
    )


def known_kinds() -> tuple[str, ...]:
    """Returns the values that --list accepts."""
    return (*FOLDERS, "configs", *(f"fields:{section}" for section in SECTIONS))


def table(title: str, lines: Mapping[str, str]) -> str:
    """Returns a title and one entry per name, whose text is wrapped in a column to its right."""
    left = min(26, max(map(len, lines), default=0)) + 2
    rows = []
    for name, line in lines.items():
        wrapped = textwrap.wrap(line, WIDTH - left) or [""]
        rows += [
            f"{name:<{left}}{wrapped[0]}"
            if len(name) < left
            else f"{name}\n{'':<{left}}{wrapped[0]}"
        ]
        rows += [" " * left + more for more in wrapped[1:]]
    return "\n".join([title, "", *(row.rstrip() for row in rows)])


def attack_line(name: str) -> str:
    """Returns what an attack reads at its default settings, and which fields it has."""
    attack = registry.make("attacks", name)
    signals = [need for need in attack.needs if need not in SHADOW_NEEDS + OTHER_NEEDS]
    reads = [*signals, *(READS[need] for need in attack.needs if need in READS)]
    known = list(registry.keywords("attacks", name))
    return f"Reads: {', '.join(reads)}." + (f" Fields: {', '.join(known)}." if known else "")


def config_lines() -> dict[str, str]:
    """Returns {name: first docstring line} of the shipped configs and {path: line} of other files
    of configs/ in the current folder, read without running them.
    """
    here = sorted(pathlib.Path("configs").rglob("*.py"))
    files = {name: shipped.path_of(name) for name in shipped.names()}
    files |= {str(path): path for path in here if not shipped.is_shipped(path)}
    lines = {}
    for name, path in files.items():
        try:
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        except (SyntaxError, ValueError):
            doc = "(cannot be read)"
        lines[name] = doc.split("\n")[0]
    return lines


def section_text(rest: str) -> str:
    """Returns the fields of a section ('learner'), of one of its choices ('model:mlp') or of a
    section within it ('learner.stop').

    Raises:
        ValueError: if there is no such section; it lists the sections.
    """
    section, _, choice = rest.partition(":")
    within = {label: name for name, label in configuration.SUBLABELS.items()}
    if section in within:
        return fields_table(
            f"Fields of {section}",
            section,
            configuration.SUBSECTIONS[within[section]](),
            docs_of(section),
        )
    if section in configuration.CHOICES:
        return choice_text(section, choice)
    checks.one_of((*SECTIONS, *within, *configuration.CHOICES), **{"list=fields": section})
    if section in settings.SECTIONS:
        if choice:
            raise ValueError(
                f"--list=fields:{rest}: the section {section} has no choices; type "
                f"--list=fields:{section}."
            )
        return fields_table(
            f"Fields of {section}", section, configuration.section_fields(section), docs_of(section)
        )
    kind = configuration.KINDS[section]
    general = configuration.general_fields(section)
    flag = "attacks.<attack>" if section == "attacks" else section
    parts = []
    if choice:
        registry.load(kind, choice)
    elif general:
        parts.append(
            fields_table(f"Fields of {section} whatever its name", flag, general, docs_of(section))
        )
    for name in (choice,) if choice else registry.names(kind):
        specific = {
            k: f
            for k, f in configuration.section_fields(section, name).items()
            if k != "name" and (choice or k not in general)
        }
        title = f"Fields of {section} with --config.{flag}.name={name}"
        parts.append(
            fields_table(title, flag, specific, docs_of(section, name))
            if specific
            else f"{title}: none"
        )
    return "\n\n".join(parts)


def choice_text(section: str, choice: str) -> str:
    """Returns the fields of one choice within a section, or the list of the choices.

    Args:
        section: the place of the choice, such as 'learner.optimizer'.
        choice: its name, such as 'lion'; '' for the list.
    """
    kind = configuration.CHOICES[section].kind
    if not choice:
        return text(kind)
    known = configuration.choice_fields(section, choice)
    docs = inspect.getdoc(registry.maker(kind, choice)) or ""
    title = f"Fields of {section} with --config.{section}={choice}"
    return fields_table(title, section, known, docs) if known else f"{title}: none"


def fields_table(title: str, section: str, known: Mapping[str, fields.Field], docs: str) -> str:
    """Returns a table of the type, default and meaning of every field.

    Args:
        title: the title of the table.
        section: the section that the fields belong to.
        known: the fields.
        docs: the text in which their meanings are looked up, see `meaning`.
    """

    def line(name: str, field: fields.Field) -> str:
        default = (
            "must be given" if field.default is fields.EMPTY else f"default {shown(field.default)}"
        )
        about = meaning(name, docs, section=section)
        return f"{field.kind.words}; {default}.{' ' + about if about else ''}"

    return table(
        f"{title} (--config.{section}.<field>=<value>)",
        {name: line(name, field) for name, field in known.items()},
    )


def shown(value) -> str:
    """Returns a default as it is typed: lists with commas."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "()"
    if not isinstance(value, str | bool | None):
        return str(value)
    return {None: "none", True: "true", False: "false", "": "''"}.get(value, str(value))


def docs_of(section: str, choice: str = "") -> str:
    """Returns the docstrings in which the meanings of a section's fields are looked up."""
    if choice:
        kind = configuration.KINDS[section]
        return "\n".join(
            filter(
                None,
                (
                    inspect.getdoc(registry.maker(kind, choice)),
                    inspect.getdoc(registry.load(kind, choice)),
                ),
            )
        )
    from mia_jax.data import _canaries
    from mia_jax.learners import _private, stopping

    makers = {
        "learner.stop": stopping.make,
        "learner.privacy": _private.make,
        "data.canaries": _canaries.insert,
    }
    return inspect.getdoc(makers[section]) or "" if section in makers else ""


def meaning(name: str, docs: str, *, section: str) -> str:
    """Returns a sentence about a field, from the first of these places that has one.

    The places are IN_SECTION, the list of arguments in `docs`, the sentence in `docs` that names
    the field in backticks, and MEANINGS. '' if none has.
    """
    if f"{section}.{name}" in IN_SECTION:
        return IN_SECTION[f"{section}.{name}"]
    if described := re.search(
        rf"^\s*{name}: (.+?)(?=^\s*\w+: |^\s*$|\Z)", docs, re.MULTILINE | re.DOTALL
    ):  # a list of arguments in Google's style
        return (
            re.sub(r"\s+", " ", described[1]).replace("``", "`").strip().split(". ")[0].rstrip(".")
            + "."
        )
    for sentence in re.split(r"(?<=[.;:])\s+(?=[A-Z`'])", re.sub(r"\s+", " ", docs)):
        if f"`{name}`" in sentence:
            return sentence.strip().rstrip(";") + ("" if sentence.strip()[-1:] in ".:" else ".")
    return MEANINGS.get(name, "")


@functools.cache
def field_names(section: str) -> frozenset[str]:
    """Returns the names of all fields that a section can have, over all its choices."""
    if section in settings.SECTIONS:
        return frozenset(settings.names(settings.SECTIONS[section]))
    known = {"name", *configuration.general_fields(section)}
    for name in registry.names(configuration.KINDS.get(section, section)):
        known |= set(registry.keywords(configuration.KINDS[section], name)) - set(
            configuration.PASSED[section]
        )
    return frozenset(known)
