"""What there is to choose, as text: attacks, models, signals, data, ... one line each, and the
fields of a section with type, default and meaning.
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
from mia_jax.configuration import fields, settings
from mia_jax.threat_model import OTHER_NEEDS, SHADOW_NEEDS

FOLDERS = ("attacks", "models", "signals", "data", "designs", "objectives", "learners")
FOLDERS += (
    "optimizers",
    "schedules",
    "augmentations",
    "query_views",
    "defenses",
    "classifiers",
    "slices",
    "sections",
    "frameworks",
)
SECTIONS = (*configuration.KINDS, *settings.SECTIONS)
OF = dict(
    model="models",
    design="designs",
    attack="attacks",
    learner="learners",
    signal="signals",
    objective="objectives",
    config="configs",
)
OF |= dict(
    optimizer="optimizers", schedule="schedules", defense="defenses", augmentation="augmentations"
)
OF |= dict(framework="frameworks")
OF |= dict(view="query_views", views="query_views", classifier="classifiers")
HOW = dict(  # how a kind that is no section is chosen
    attacks="--attacks=+<name>",
    signals="--config.query.signals=<name>,<name>",
    objectives="--config.learner.objective=<name>",
    optimizers="--config.learner.optimizer=<name>; fields of one: "
    "--list=fields:learner.optimizer:<name>",
    slices="--config.report.slices=<term>,<term> & <term>",
    frameworks="of models in mia_jax.audit(predict=..., fit=...), known by the model's type, or "
    "framework=<name>",
    sections="of report.md; further ones are --config.report.sections=my_pkg.my_section",
    classifiers="--config.attacks.<attack>.kind=<name> of attack_model; options are "
    "--config.attacks.<attack>.options",
    augmentations="--config.learner.augment=<name>,<name>:<setting>",
    query_views="--config.query.views=identity,<name>:<setting>",
    defenses="--config.attacks.<attack>.defense=<name>:<field>=<value>,...",
    schedules="--config.learner.schedule=<name>; fields of one: "
    "--list=fields:learner.schedule:<name>",
)
READS = dict(
    shadow_in="shadows that trained on the row",
    shadow_out="shadows that did not",
    shadow_own="shadows on their own rows",
)
READS |= dict(
    x="the examples",
    y="the labels",
    columns="further columns",
    population="population rows",
    member="half of the target's members",
)
WIDTH = 118
IN_SECTION = {  # of fields whose name means something else in another section
    "learner.epochs": "Passes over a model's training rows.",
    "learner.batch_size": "Examples per step.",
    "learner.optimizer": "An optimizer of optax or of your own: --list=optimizers; its fields are "
    "--config.learner.optimizer.<field>.",
    "learner.learning_rate": "The learning rate; where a schedule moves it, the largest.",
    "learner.schedule": "How the learning rate moves: --list=schedules; its fields are "
    "--config.learner.schedule.<field>.",
    "learner.schedule.decay_steps": "Steps until the schedule has ended; none takes those of the "
    "training.",
    "learner.schedule.transition_steps": "Steps of the schedule (of one decay by decay_rate); none "
    "takes those of the training.",
    "learner.augment": "Random changes of every example of a batch, such as flip,crop:4: "
    "--list=augmentations.",
    "report.epochs": "Attacks that are repeated on the models of learner.snapshots.",
    "query.batch_size": "Examples per batch of questions.",
    "query.views": "What every example is asked as, such as identity,flip,shift:1,0: "
    "--list=query_views.",
    "query.signals": "Signals that are asked beside those that the attacks need.",
    "target.signals": "The file of the target's answers.",
    "target.batch_size": "Examples per question to the black box.",
    "report.audit.delta": "The delta at which epsilon is audited; none takes the promised one.",
    "report.audit.attacks": "Attacks that are audited; none named takes all that know no more than "
    "shadows do.",
    "report.audit.method": "How the bound is computed: one_run, fdp or gdp.",
    "report.audit.guesses": "Shares of the canaries that are guessed.",
}
MEANINGS = dict(  # of fields that no maker's docstring explains
    standardize="Features are scaled to mean 0 and variance 1, by the population rows where there "
    "are some.",
    drop_duplicates="Rows that are equal to an earlier one are left out.",
    canaries="Rows made canaries: fields:data.canaries.",
    objective="The loss of one example: --list=objectives; its fields are "
    "--config.learner.objective.<field>.",
    validation="The rows on which models are measured while they train.",
    stop="Early stopping: fields:learner.stop; none trains all epochs.",
    snapshots="Epochs after which every model is kept as well, for attacks over the training.",
    init_from="The workdir of a run whose model (workdir:number) every model starts from.",
    watch="Keep how canaries' gradients lie to the updates.",
    save_logits="Keep the logits of every model.",
    ask_batch_size="Examples per batch for signals that ask more than one forward pass.",
    defense="What changes the outputs before the attack sees them: --list=defenses, with settings "
    "as top_k:k=3.",
    adaptive="The attacker defends the shadows in the same way.",
    fprs="False-positive rates at which the true-positive rate is reported.",
    ppv_ratio="Non-members per member for which the precision is reported.",
    draws="Bootstrap draws of every interval.",
    level="Level of every interval.",
    jackknife="Groups of units without which attacks on shadows are rerun for their intervals; 0 "
    "never reruns.",
    shadow_curve="Attacks that are repeated with fewer shadows.",
    figures="Draw the figures.",
    slices="Slices of the records, or two joined by &: --list=slices.",
    groups="Named lists of rows, sliced as well: --config.report.groups.<name>=3,17.",
    records="Attacks whose scores say which records are exposed.",
    sections="Modules of your own that add sections to report.md: my_pkg.my_section.",
    audit="The audit of epsilon: fields:report.audit.",
    chunk="Models that are trained at once, or auto to have the fastest measured.",
    lanes="Chunks that are trained at once on one device; 0 chooses.",
    devices="Devices that are used; 0 takes all.",
    query_chunk="Models that are queried at once; 0 chooses.",
    checkpoint_every="Epochs between two checkpoints of a model in training.",
    pool_bytes="The most that the data may take on a device before it is streamed.",
    black_box="A black box of labels that is asked: 'my_module:function', which is imported and "
    "called, or an npz of answers.",
    member="The file that says which rows the target was trained on.",
    rate="The most questions per second; 0 sets no limit.",
    warmup_epochs="Epochs before the schedule, in which the learning rate rises linearly from 0.",
    models="How many models are trained.",
    population="The share of rows that no model trains on.",
    targets="The models that are audited: how many, or which; none audits all.",
    examples="The first so many rows; none takes all.",
    signal="The signal that is read: --list=signals.",
    sign="1 if larger values mean member, -1 if smaller; none takes the signal's own.",
)


def text(kind: str) -> str:
    """Returns the list of that kind, a line per entry; ValueError that lists the kinds.

    >>> text('objectives').splitlines()[2].split()[0]
    'adversarial'
    """
    kind, _, rest = kind.strip().partition(":")
    kind = OF.get(kind, kind)
    if kind == "kinds":
        return "\n".join(f"--list={known}" for known in known_kinds())
    if kind == "fields":
        return section_text(rest)
    checks.one_of(known_kinds(), list=kind + ":" * bool(rest) + rest)
    if kind == "configs":
        return table("Configs (--config=<file>:<arguments>)", config_lines())
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
        f"({HOW.get(kind, f'--config.{singular}.name=<name>')})",
        lines,
    )


def known_kinds() -> tuple[str, ...]:
    """Returns what --list takes."""
    return (*FOLDERS, "configs", *(f"fields:{section}" for section in SECTIONS))


def table(title: str, lines: Mapping[str, str]) -> str:
    """Returns a title and one entry per name, its text wrapped beside it."""
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
    own = [field for field in registry.keywords("attacks", name)]
    return f"Reads: {', '.join(reads)}." + (f" Fields: {', '.join(own)}." if own else "")


def config_lines() -> dict[str, str]:
    """Returns {path: first docstring line} of configs/, read without running them."""
    found = {}
    for path in sorted(pathlib.Path("configs").rglob("*.py")):
        try:
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        except (SyntaxError, ValueError):
            doc = "(cannot be read)"
        found[str(path)] = doc.split("\n")[0]
    return found


def section_text(rest: str) -> str:
    """Returns the fields of a section, of one of its choices ('model:mlp') or of a section within
    it ('learner.stop').
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
        own = {
            k: f
            for k, f in configuration.section_fields(section, name).items()
            if k != "name" and (choice or k not in general)
        }
        title = f"Fields of {section} with --config.{flag}.name={name}"
        parts.append(
            fields_table(title, flag, own, docs_of(section, name)) if own else f"{title}: none"
        )
    return "\n\n".join(parts)


def choice_text(section: str, choice: str) -> str:
    """Returns the fields of one choice within a section, 'learner.optimizer' and 'lion', or the
    names if none is given.
    """
    kind = configuration.CHOICES[section].kind
    if not choice:
        return text(kind)
    known = configuration.choice_fields(section, choice)
    docs = inspect.getdoc(registry.maker(kind, choice)) or ""
    title = f"Fields of {section} with --config.{section}={choice}"
    return fields_table(title, section, known, docs) if known else f"{title}: none"


def fields_table(title: str, section: str, known: Mapping[str, fields.Field], docs: str) -> str:
    """Type, default and meaning of every field."""

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
    return (
        {None: "none", True: "true", False: "false", "": "''"}.get(value, str(value))
        if isinstance(value, str | bool | None)
        else str(value)
    )


def docs_of(section: str, choice: str = "") -> str:
    """Returns the texts in which a field's meaning may stand."""
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
    """Returns what IN_SECTION says of the field, the sentence of a docstring that names it in
    backticks, or what MEANINGS says; '' if none does.
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
    """Returns every field that a section has with any choice."""
    if section in settings.SECTIONS:
        return frozenset(settings.names(settings.SECTIONS[section]))
    known = {"name", *configuration.general_fields(section)}
    for name in registry.names(configuration.KINDS.get(section, section)):
        known |= set(registry.keywords(configuration.KINDS[section], name)) - set(
            configuration.PASSED[section]
        )
    return frozenset(known)
