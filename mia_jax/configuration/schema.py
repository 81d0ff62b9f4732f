"""Completes config files: arguments are typed, fields filled in, so that any can be overridden.

The defaults of general fields are in configuration/settings.py; those of a plug-in are the defaults
of its `make(...)`. `--list=fields:SECTION` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from mia_jax import checks, registry
from mia_jax.configuration import fields, settings
from mia_jax.data import _canaries as canaries
from mia_jax.learners import _private as private
from mia_jax.learners import stopping
from mia_jax.measures import privacy_audit

# What pipeline/build.py passes itself; everything else in a maker's signature is a field of the
# config.
PASSED = dict(
    data=(),
    design=("num_examples", "seed", "given_population_N", "given_canary_N", "labels_N"),
    model=("num_classes",),
    learner=(
        "model",
        "loss",
        "num_rows",
        "num_extra",
        "padded",
        "stopping",
        "labels_N",
        "sample",
        "initial",
    ),
    attacks=(),
)
OWN = "own"  # learner.objective of a learning rule that takes no objective
PRIVATE_PASSED = (
    "num_rows",
    "batch_size",
    "epochs",
    "padded",
    "started",
    "columns",
)  # what the learner passes to its private part
KINDS = dict(
    data="data", design="designs", model="models", learner="learners", attacks="attacks"
)  # section -> folder of what it chooses
AUDIT_HINTS = dict(attacks=Sequence[str])


def arguments(
    text: str | None,
    presets: Mapping[str, Mapping[str, Any]] = {},
    needs: Mapping[str, tuple[str, Any]] = {},
    /,
    **defaults,
) -> ml_collections.ConfigDict:
    """Typed arguments of a config file: 'models=16,quick' with defaults models=64, quick=False
    gives models=16, quick=True.

    A value takes the type of its default; a bare name sets a boolean. A default that is a type
    (epochs=int) stands for none: the argument is then None unless it was typed. `presets` {boolean
    argument: {argument: value}} are other defaults where that argument is set: they never replace
    what was typed, whatever the order. `needs` {argument: (other, value)}: typing it is an error
    unless the other argument has that value, because it would do nothing. ValueError names unknown
    and repeated arguments and wrong values.

    >>> arguments('models=16,quick', models=64, quick=False).models
    16
    >>> presets = dict(quick=dict(models=8, epochs=2))
    >>> arguments('quick,models=16', presets, models=64, epochs=9, quick=False).to_dict()
    {'epochs': 2, 'models': 16, 'quick': True}
    """
    typed: dict[str, Any] = {}
    for name, value in fields.pairs(text or ""):
        if name not in defaults:
            raise ValueError(checks.lacks("the config", "argument", name, defaults))
        default = defaults[name]
        kind = default if isinstance(default, type) else type(default)
        example = (
            f", as in {name}={default}" if not isinstance(default, type) and default != "" else ""
        )
        try:
            if value is None and kind is not bool:
                raise ValueError
            found = fields.value(
                True if value is None else value, fields.Kind(scalars=(kind,)), label=name
            )
        except ValueError:
            raise ValueError(
                f"config argument {name if value is None else f'{name}={value}'!r}: expected "
                f"{name}={kind.__name__}{example}."
            ) from None
        if typed.setdefault(name, found) != found:
            raise ValueError(
                f"config argument {name} is given twice, as {typed[name]} and as {found}; give it "
                "once."
            )
    found = {
        name: None if isinstance(default, type) else default for name, default in defaults.items()
    } | typed
    for flag, others in presets.items():
        if found[flag]:
            found |= {name: value for name, value in others.items() if name not in typed}
    for name, (other, value) in needs.items():
        if name in typed and found[other] != value:
            now = f"{other}={found[other]}" if found[other] != "" else f"no {other}"
            wanted = f"with {other}={value}" if value != "" else f"without {other}"
            raise ValueError(
                f"config argument {name}={typed[name]} would do nothing: it counts {wanted} alone, "
                f"and this config has {now}."
            )
    return ml_collections.ConfigDict(found)


def chosen(among: Mapping, /, **given):
    """among[value] of the one config argument given; ValueError that lists the keys otherwise.

    >>> chosen(dict(a=1, b=2), rule='b')
    2
    """
    ((name, value),) = given.items()
    checks.one_of(among, **{f"config argument {name}": value})
    return among[value]


def complete(
    *,
    seed=0,
    data: Mapping,
    design: Mapping,
    attacks: Mapping,
    model: Mapping = {},
    learner: Mapping = {},
    shadow: Mapping = {},
    **sections,
) -> ml_collections.ConfigDict:
    """Returns the whole config with every field of the chosen modules at its default unless given;
    ValueError for a field that does not exist.

    `query`, `report`, `run` and `target` are optional sections. Beside a target of your own
    (target.signals or target.black_box) all models that are trained are its shadows: `shadow`
    {model, learner} then are `model` and `learner` under another name. The result is locked: an
    override of a field that does not exist is an error.
    """
    model, learner = _shadows(shadow, sections.get("target", {}), model=model, learner=learner)
    one_kind(learner=learner, model=model)
    for name in sections:
        checks.one_of(("query", "report", "run", "target"), section=name)
    for name in attacks:
        check_name(name)
    config = dict(
        seed=seed,
        data=_filled("data", data),
        design=_filled("design", design),
        model=_filled("model", model),
        learner=_learner(dict(name="backprop") | dict(learner)),
        attacks={name: attack_section(name, attack) for name, attack in attacks.items()},
    )
    return locked(
        config
        | {
            name: _section(name, section_fields(name), sections.get(name, {}))
            for name in settings.SECTIONS
        }
    )


def locked(config: Mapping) -> ml_collections.ConfigDict:
    """Returns the ConfigDict of a config whose sections have all their fields: every value of its
    field's type, sub-sections filled in.
    """
    config = typed(config)
    learner = config.get("learner") or {}
    if learner.get("stop") is not None:
        learner["stop"] = _section("learner.stop", SUBSECTIONS["stop"](), learner["stop"])
    if (
        learner.get("gradient") == "private"
    ):  # all fields, so that the command line can set any of them
        learner["privacy"] = _section(
            "learner.privacy", SUBSECTIONS["privacy"](), learner["privacy"] or {}
        )
    config = _overridable(config)
    if "run" in config:
        config["run"]["chunk"] = ml_collections.FieldReference(
            config["run"]["chunk"], field_type=object
        )  # a number or 'auto'
    return ml_collections.ConfigDict(config, type_safe=False).lock()


SUBLABELS = dict(
    stop="learner.stop", privacy="learner.privacy", canaries="data.canaries", audit="report.audit"
)
SUBSECTIONS = dict(  # sections within a section, None where there is none
    stop=lambda: fields.of(stopping.make),
    privacy=lambda: fields.of(private.make, without=PRIVATE_PASSED),
    canaries=lambda: fields.of(canaries.insert, without=("pool",)),
    audit=lambda: fields.table(privacy_audit.FIELDS, AUDIT_HINTS),
)


def general_fields(section: str) -> dict[str, fields.Field]:
    """Returns the fields that a section has whatever it chooses."""
    kind = settings.GENERAL.get(section)
    return fields.of_settings(kind) if kind else {}


class Choice(NamedTuple):
    """A choice within a section, given as a name or as {'name': ..., field: value}: a kind of the
    registry, and what the caller sets itself.
    """

    kind: str
    passed: tuple[str, ...]


CHOICES = {
    "learner.objective": Choice("objectives", ("model",)),
    "learner.optimizer": Choice("optimizers", ("learning_rate",)),
    "learner.schedule": Choice("schedules", ("learning_rate", "steps")),
}
WARMUP = dict(warmup_epochs=0.0)  # of a schedule without `warmup_steps`: learners/_descent.py
# fields that learners had before their optimizers and schedules were choices of their own -> where
# they are now
MOVED = dict(
    momentum="learner.optimizer.momentum, of learner.optimizer=dict(name='sgd', momentum=0.9)",
    nesterov="learner.optimizer.nesterov",
    epsilon="learner.optimizer.eps, of learner.optimizer=dict(name='adam', eps=1e-8)",
    weight_decay="learner.optimizer.weight_decay, of optimizers that have one, such as "
    "learner.optimizer=dict(name='adamw', weight_decay=0.1)",
    warmup_epochs="learner.schedule.warmup_epochs, of "
    "learner.schedule=dict(name='cosine_decay_schedule', warmup_epochs=1)",
)
RENAMED_FIELDS = {("target", "oracle"): "black_box"}  # (section, former name) -> field
RENAMED = {
    ("learner.optimizer", "momentum"): "dict(name='sgd', momentum=0.9)",
    ("learner.schedule", "constant"): "'constant_schedule'",
    ("learner.schedule", "cosine"): "'cosine_decay_schedule'",
}


def section_fields(section: str, name: str = "") -> dict[str, fields.Field]:
    """Returns the fields of a section with the choice `name`, in words 'learner (backprop)': those
    of its maker and those of every choice.
    """
    if section in settings.SECTIONS:
        return fields.of_settings(settings.SECTIONS[section])
    maker = registry.maker(KINDS[section], name)
    own = fields.of(maker, without=PASSED[section])
    general = general_fields(section)
    if section == "learner" and "loss" not in registry.keywords("learners", name):
        general |= dict(objective=general["objective"]._replace(default=OWN))
    return dict(name=fields.Field(fields.Kind(scalars=(str,)), fields.EMPTY)) | own | general


def typed(config: Mapping) -> dict:
    """Returns the config as nested dicts, every value of its field's type; ValueError names the
    first field that is not, and what it may be.

    A field that does not exist is an error as well. Sections that a config need not have (of an
    audit of arrays) may be absent.
    """
    found = {k: v for k, v in config.items()}
    if "seed" in found:
        found["seed"] = fields.value(found["seed"], fields.Kind(items=(int,)), label="seed")
    if "scores" in found:
        found["scores"] = fields.value(found["scores"], fields.Kind(scalars=(str,)), label="scores")
    for section in (*KINDS, *settings.SECTIONS):
        given = found.get(section)
        if section == "attacks" and isinstance(given, Mapping):
            found[section] = {
                name: typed_section(f"attacks.{name}", "attacks", one)
                for name, one in given.items()
            }
        elif section != "attacks" and section in found:
            found[section] = typed_section(section, section, given)
    return found


def typed_section(label: str, section: str, given: Any) -> dict:
    """Returns one section of a config with its values typed."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{label}={given!r} is a section: a mapping of its fields, such as "
            f"{label}=dict(name=...)."
        )
    return typed_values(label, section_fields(section, given.get("name", "")), given)


def typed_values(label: str, known: Mapping[str, fields.Field], given: Mapping) -> dict:
    """Returns the given fields, each of its type, and the fields within them."""
    found = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(lacks(label, name, known))
        within = isinstance(value, Mapping) and known[name].kind.mapping
        found[name] = (
            _typed_within(label, name, value)
            if within
            else fields.value(value, known[name].kind, label=f"{label}.{name}")
        )
    return found


def _typed_within(label: str, name: str, given: Mapping) -> dict:
    where = f"{label}.{name}"
    if name in SUBSECTIONS and where == SUBLABELS[name]:
        return typed_values(where, SUBSECTIONS[name](), given)
    if where in CHOICES and "name" in given:
        return dict(name=given["name"]) | typed_values(
            where,
            choice_fields(where, given["name"]),
            {k: v for k, v in given.items() if k != "name"},
        )
    if where == "report.groups":
        for key in given:
            check_group(key)
        return {
            key: fields.value(rows, fields.Kind(items=(int,)), label=f"{where}.{key}")
            for key, rows in given.items()
        }
    return fields.value(given, fields.Kind(mapping=True), label=where)


def choice_fields(choice: str, name: str) -> dict[str, fields.Field]:
    """Returns the fields of one choice within a section, choice_fields('learner.optimizer',
    'lion').
    """
    kind, passed = CHOICES[choice]
    own = fields.of(registry.maker(kind, name), without=passed)
    return own | (fields.table(WARMUP) if kind == "schedules" and "warmup_steps" not in own else {})


def lacks(label: str, name: str, known: Mapping) -> str:
    """Returns the sentence about a field that does not exist, and where it is if it has moved."""
    if name == "learning_rate" and "learner.optimizer" in label:
        return (
            f"{label} has no field 'learning_rate': it is learner.learning_rate, whatever the "
            "optimizer."
        )
    if (label, name) in RENAMED_FIELDS:
        return f"{label} has no field {name!r}: it is {label}.{RENAMED_FIELDS[label, name]}."
    if name in MOVED and "optimizer" in known:
        return f"{label} has no field {name!r}: it is {MOVED[name]}."
    return checks.lacks(label, "field", name, known)


def check_name(name: Any) -> None:
    """Raises ValueError unless the name of an attack can be a folder, a key of a config and a word
    in a figure.
    """
    checks.folder_name(**{"attacks: the name of an attack": name})


def check_group(name: Any) -> None:
    """Raises ValueError unless the name of a group can be a key of a config."""
    if not isinstance(name, str) or not name.strip() or "." in name or not name.isprintable():
        raise ValueError(
            f"group {name!r}: its name must be text without dots, as it is a key of the config."
        )


def _shadows(shadow: Mapping, target: Mapping, **given: Mapping) -> list[Mapping]:
    """Returns the sections model and learner, from config.shadow where that has them."""
    for name in shadow:
        checks.one_of(given, shadow=name)
        if given[name]:
            raise ValueError(
                f"{name} and shadow.{name} are both given; beside a target of your own they are "
                "the same section: give one of them."
            )
    if shadow and not (target.get("signals") or target.get("black_box")):
        raise ValueError(
            "shadow: the models of a fleet are each other's shadows, so all have the same model "
            "and learner. Shadows of another kind than the target "
            "are for a target of your own: set target.signals to the file of its answers (or "
            "target.black_box), or leave shadow out."
        )
    return [shadow.get(name, section) for name, section in given.items()]


def one_kind(**sections) -> None:
    """Raises ValueError that names the remedy if a section asks for several kinds at once: a fleet
    has one learner and one model.
    """
    for section, given in sections.items():
        name = given.get("name", "") if isinstance(given, Mapping) else given
        if not isinstance(name, str) or "," in name:
            raise ValueError(
                f"{section}={given!r}: a mixed fleet is not possible, all models of one fleet have "
                f"one {section}. To compare several, let the config "
                "file define grid() (mia_jax/pipeline/grid.py says how) and run it as a grid: each "
                "becomes "
                "a run of its own, with one table over them."
            )


def scores(
    *,
    path: str,
    seed: int = 0,
    attacks: Mapping | Sequence[str] | str | None = None,
    report: Mapping = {},
) -> ml_collections.ConfigDict:
    """Returns the config of an audit of arrays that were supplied (keys and shapes:
    mia_jax.external.arrays).

    `attacks`: sections as in other configs, or names; None: all quick ones that the arrays allow
    (mia_jax.external.default_attacks).
    """
    if isinstance(attacks, Mapping):
        for name in attacks:
            check_name(name)
        attacks = {name: attack_section(name, attack) for name, attack in attacks.items()}
    return locked(
        dict(
            seed=seed,
            scores=str(path),
            attacks=attacks,
            report=_section("report", section_fields("report"), report),
        )
    )


def _overridable(value):
    """None becomes a placeholder, which a script can set (to a number, text or tuple) in the
    unlocked config.
    """
    if isinstance(value, Mapping):
        return {k: _overridable(v) for k, v in value.items()}
    return ml_collections.config_dict.placeholder(object) if value is None else value


def _filled(section: str, given: Mapping) -> dict:
    """Returns name, given fields and the defaults of the maker's other fields."""
    given = dict(given)
    if "path" in given and "name" not in given:  # a module outside the package
        given["name"] = given.pop("path")
    if "name" not in given:
        raise ValueError(
            f"{section} needs a name. Known: {', '.join(registry.names(KINDS[section]))}."
        )
    return _section(f"{section} ({given['name']})", section_fields(section, given["name"]), given)


def _learner(given: Mapping) -> dict:
    """Returns a learning rule that takes no objective has its own, and says so."""
    name = given.get("path", given["name"])
    if "gradient" not in registry.keywords("learners", name) and (
        "privacy" in given or "gradient" in given
    ):
        raise ValueError(no_private_gradient(name))
    given = dict(given)
    for where in CHOICES:
        field = where.partition(".")[2]
        if isinstance(given.get(field), Mapping):
            given[field] = _choice(where, given[field])
    optimizer = given.get("optimizer")
    if isinstance(optimizer, Mapping) and "learning_rate" in optimizer:
        given = one_learning_rate(given)
    filled = _filled("learner", given)
    for where in CHOICES:
        if isinstance(chosen := filled.get(where.partition(".")[2]), str) and chosen != OWN:
            check_choice(where, chosen)
    return filled


def _choice(where: str, given: Mapping) -> dict:
    """Returns the mapping of a choice with its name first; `path` is the name of a module outside
    the package.
    """
    given = dict(given)
    if "path" in given and "name" not in given:
        given = dict(name=given.pop("path")) | given
    if "name" not in given:
        raise ValueError(
            f"{where}={given!r} needs a name. Known: "
            f"{', '.join(registry.names(CHOICES[where].kind))}."
        )
    check_choice(where, given["name"])
    return given


def check_choice(where: str, name: str) -> None:
    """Raises ValueError, which lists the known names, unless a choice within a section exists."""
    if (where, name) in RENAMED:
        raise ValueError(f"{where}={name!r} is called as in optax: {where}={RENAMED[where, name]}.")
    choice_fields(where, name)


def one_learning_rate(learner: Mapping) -> dict:
    """Returns the learner's section with the learning rate of its optimizer's mapping at its one
    place, learner.learning_rate.
    """
    optimizer = dict(learner["optimizer"])
    rate = optimizer.pop("learning_rate")
    if learner.get("learning_rate", rate) != rate:
        raise ValueError(
            f"learner.learning_rate={learner['learning_rate']} and "
            f"learner.optimizer.learning_rate={rate} are the same field; give it once."
        )
    return dict(learner) | dict(
        optimizer=optimizer if len(optimizer) > 1 else optimizer["name"], learning_rate=rate
    )


def no_private_gradient(name: str) -> str:
    """Returns the sentence about a learning rule that was asked to be private and cannot be."""
    return (
        f"learner {name!r} has no private gradient, so no epsilon can be had for it: "
        "learner.name='backprop' has one, for objectives of single "
        "examples (learner.objective='forward_forward' is one; pairs and closed forms are not)."
    )


def attack_section(name: str, given: Mapping) -> dict:
    """Returns an attack without a name is the one its key names; the key is also the name of its
    folder.
    """
    checks.folder_name(**{"attacks: the name of an attack": name})
    if not isinstance(given, Mapping):
        raise ValueError(
            f"attacks.{name}={given!r} must be a mapping of the attack's fields; dict() takes all "
            "at their defaults."
        )
    return _filled("attacks", given if "path" in given else dict(name=name) | dict(given))


def _section(label: str, known: Mapping[str, fields.Field], given: Mapping) -> dict:
    """Returns the given fields and the defaults of the others; a field without a default stays
    out.
    """
    if isinstance(given.get("groups"), Mapping):
        for name in given["groups"]:
            checks.label(**{f"{label}.groups: the name of a group": name})
    for field in given:
        if field not in known:
            raise ValueError(lacks(label, field, known))
    return {
        name: field.default for name, field in known.items() if field.default is not fields.EMPTY
    } | dict(given)
