"""Completes configs: reads the arguments of config files and fills in the fields they leave out.

A finished config has every field, so that each can be overridden. The defaults of general fields
are in configuration/settings.py; those of a plug-in are the defaults of its `make(...)`.
`--list=fields:SECTION` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mia_jax import checks, registry
from mia_jax.configuration import fields, settings
from mia_jax.data import _canaries
from mia_jax.learners import _private, stopping
from mia_jax.measures import privacy_audit
from mia_jax.training import mesh

if TYPE_CHECKING:
    import ml_collections  # loaded by config files alone: an audit of arrays does without it

# The arguments of makers that pipeline/build.py passes itself; all others are fields of the config.
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
        "shards",
    ),
    attacks=(),
)
OWN = "own"  # the value of learner.objective if the learning rule has a built-in objective
# The arguments of learners/_private.make that the learner passes itself.
PRIVATE_PASSED = ("num_rows", "batch_size", "epochs", "padded", "started", "shards", "columns")
MESH_PASSED = ("devices", "shards")  # likewise, of training/mesh.make
# section -> the registry kind of what it chooses
KINDS = dict(data="data", design="designs", model="models", learner="learners", attacks="attacks")
AUDIT_HINTS = dict(
    attacks=Sequence[str], epsilon=float | None, shift=float | None, control=Mapping | None
)


def arguments(
    text: str | None,
    presets: Mapping[str, Mapping[str, Any]] = {},
    needs: Mapping[str, tuple[str, Any]] = {},
    /,
    **defaults,
) -> ml_collections.ConfigDict:
    """Returns the arguments of a config file, with the types of their defaults.

    'models=16,quick' with the defaults models=64 and quick=False gives models=16 and quick=True: a
    name without a value sets a boolean.

    Args:
        text: what was typed after the colon of --config; None or '' for nothing.
        presets: {boolean argument: {argument: value}}, other defaults that hold if the boolean is
            set. They never replace what was typed, in whatever order.
        needs: {argument: (other, value)}: the argument may be typed only if the other argument has
            that value, because it would have no effect otherwise.
        defaults: {argument: default}. If the default is a type (epochs=int), the argument is None
            unless it was typed.

    Raises:
        ValueError: if an argument is unknown, given twice with different values, of the wrong type,
            or without effect.

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
            parsed = fields.value(
                True if value is None else value, fields.Kind(scalars=(kind,)), label=name
            )
        except ValueError:
            raise ValueError(
                f"config argument {name if value is None else f'{name}={value}'!r}: expected "
                f"{name}={kind.__name__}{example}."
            ) from None
        if typed.setdefault(name, parsed) != parsed:
            raise ValueError(
                f"config argument {name} is given twice, as {typed[name]} and as {parsed}; give it "
                "once."
            )
    values = {
        name: None if isinstance(default, type) else default for name, default in defaults.items()
    } | typed
    for flag, others in presets.items():
        if values[flag]:
            values |= {name: value for name, value in others.items() if name not in typed}
    for name, (other, value) in needs.items():
        if name in typed and values[other] != value:
            now = f"{other}={values[other]}" if values[other] != "" else f"no {other}"
            condition = f"with {other}={value}" if value != "" else f"without {other}"
            raise ValueError(
                f"config argument {name}={typed[name]} would have no effect: it counts only "
                f"{condition}, and this config has {now}."
            )
    import ml_collections

    return ml_collections.ConfigDict(values)


def choose(among: Mapping, /, **given):
    """Returns among[value] for the value of a config argument, given as its only keyword.

    Raises ValueError that lists the keys if there is no such key.

    >>> choose(dict(a=1, b=2), rule='b')
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
    """Returns the whole config: fields that are not given take the defaults of the chosen modules.

    The result is locked: setting a field that does not exist is an error.

    Args:
        seed: a number, or a list of numbers for one run per seed.
        data: the data set, {'name': ..., field: value}.
        design: which model trains on which examples.
        attacks: {name: fields}.
        model: the network.
        learner: how models are trained; the default is backprop.
        shadow: {'model': ..., 'learner': ...}, instead of `model` and `learner`, if the target is
            the user's (target.signals or target.black_box): all trained models are then its
            shadows.
        sections: the optional sections query, report, run and target.

    Raises:
        ValueError: if a field does not exist or has a wrong value.
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
    for name in settings.SECTIONS:
        config[name] = _section(name, section_fields(name), sections.get(name, {}))
    return locked(config)


def locked(config: Mapping) -> ml_collections.ConfigDict:
    """Returns the locked ConfigDict of a config whose sections have all their fields.

    See `completed`.
    """
    import ml_collections

    config = _overridable(completed(config))
    if "run" in config:
        config["run"]["chunk"] = ml_collections.FieldReference(
            config["run"]["chunk"],
            field_type=object,  # a number or 'auto'
        )
    return ml_collections.ConfigDict(config, type_safe=False).lock()


def completed(config: Mapping) -> dict[str, Any]:
    """Returns a config whose sections have all their fields, as nested dicts.

    Every value is converted to the type of its field, and sections within sections are filled in.
    """
    config = typed(config)
    learner = config.get("learner") or {}
    if learner.get("stop") is not None:
        learner["stop"] = _section("learner.stop", SUBSECTIONS["stop"](), learner["stop"])
    if learner.get("gradient") == "private":
        # All fields are filled in, so that the command line can set any of them.
        learner["privacy"] = _section(
            "learner.privacy", SUBSECTIONS["privacy"](), learner["privacy"] or {}
        )
    return config


SUBLABELS = dict(
    stop="learner.stop",
    privacy="learner.privacy",
    canaries="data.canaries",
    audit="report.audit",
    mesh="run.mesh",
)
SUBSECTIONS = dict(  # the fields of sections within a section, which may also be None
    stop=lambda: fields.of(stopping.make),
    privacy=lambda: fields.of(_private.make, without=PRIVATE_PASSED),
    canaries=lambda: fields.of(_canaries.insert, without=("pool",)),
    audit=lambda: fields.table(privacy_audit.FIELDS, AUDIT_HINTS),
    mesh=lambda: fields.of(mesh.make, without=MESH_PASSED),
)


def general_fields(section: str) -> dict[str, fields.Field]:
    """Returns the fields that a section has with every choice."""
    kind = settings.GENERAL.get(section)
    return fields.of_settings(kind) if kind else {}


class Choice(NamedTuple):
    """Describes a choice within a section, which is a name or {'name': ..., field: value}.

    Attributes:
        kind: the kind of the registry.
        passed: the arguments of the maker that its caller passes, which are no fields.
    """

    kind: str
    passed: tuple[str, ...]


CHOICES = {
    "learner.objective": Choice("objectives", ("model",)),
    "learner.optimizer": Choice("optimizers", ("learning_rate",)),
    "learner.schedule": Choice("schedules", ("learning_rate", "steps")),
}
# A further field of schedules without `warmup_steps`; see learners/_descent.py.
WARMUP = dict(warmup_epochs=0.0)
# Fields that learners had before optimizers and schedules became choices -> where they are now.
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
    """Returns the fields of a section: those of the maker of its choice and the general ones.

    Args:
        section: a section of the config.
        name: its choice, such as 'backprop' of the section learner; unused for sections without a
            choice.
    """
    if section in settings.SECTIONS:
        return fields.of_settings(settings.SECTIONS[section])
    maker = registry.maker(KINDS[section], name)
    specific = fields.of(maker, without=PASSED[section])
    general = general_fields(section)
    if section == "learner" and "loss" not in registry.keywords("learners", name):
        general |= dict(objective=general["objective"]._replace(default=OWN))
    return dict(name=fields.Field(fields.Kind(scalars=(str,)), fields.EMPTY)) | specific | general


def typed(config: Mapping) -> dict:
    """Returns the config as nested dicts, every value converted to the type of its field.

    Sections may be absent, as in the config of an audit of arrays.

    Raises:
        ValueError: if a value does not fit or a field does not exist; it names the first such
            field and what is allowed.
    """
    tree = {k: v for k, v in config.items()}
    if "seed" in tree:
        tree["seed"] = fields.value(tree["seed"], fields.Kind(items=(int,)), label="seed")
    if "scores" in tree:
        tree["scores"] = fields.value(tree["scores"], fields.Kind(scalars=(str,)), label="scores")
    for section in (*KINDS, *settings.SECTIONS):
        given = tree.get(section)
        if section == "attacks" and isinstance(given, Mapping):
            tree[section] = {
                name: typed_section(f"attacks.{name}", "attacks", attack)
                for name, attack in given.items()
            }
        elif section != "attacks" and section in tree:
            tree[section] = typed_section(section, section, given)
    return tree


def typed_section(label: str, section: str, given: Any) -> dict:
    """Returns one section of a config, every value converted to the type of its field."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{label}={given!r} is a section: a mapping of its fields, such as "
            f"{label}=dict(name=...)."
        )
    return typed_values(label, section_fields(section, given.get("name", "")), given)


def typed_values(label: str, known: Mapping[str, fields.Field], given: Mapping) -> dict:
    """Returns the given fields and those within them, converted to their types."""
    values = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(lacks(label, name, known))
        within = isinstance(value, Mapping) and known[name].kind.mapping
        values[name] = (
            _typed_within(label, name, value)
            if within
            else fields.value(value, known[name].kind, label=f"{label}.{name}")
        )
    return values


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
    """Returns the fields of one choice within a section.

    >>> list(choice_fields('learner.objective', 'cross_entropy'))
    ['label_smoothing']
    """
    kind, passed = CHOICES[choice]
    specific = fields.of(registry.maker(kind, name), without=passed)
    return specific | (
        fields.table(WARMUP) if kind == "schedules" and "warmup_steps" not in specific else {}
    )


def lacks(label: str, name: str, known: Mapping) -> str:
    """Returns the message about a field that does not exist, with its new place if it has moved."""
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
    """Raises ValueError unless an attack's name can be a folder, a key and a label of a figure."""
    checks.folder_name(**{"attacks: the name of an attack": name})


def check_group(name: Any) -> None:
    """Raises ValueError unless the name of a group can be a key of a config."""
    if not isinstance(name, str) or not name.strip() or "." in name or not name.isprintable():
        raise ValueError(
            f"group {name!r}: its name must be text without dots, as it is a key of the config."
        )


def _shadows(shadow: Mapping, target: Mapping, **given: Mapping) -> list[Mapping]:
    """Returns the sections model and learner, taken from `shadow` if it has them."""
    for name in shadow:
        checks.one_of(given, shadow=name)
        if given[name]:
            raise ValueError(
                f"{name} and shadow.{name} are both given; with a target of your own they are "
                "the same section: give one of them."
            )
    if shadow and not (target.get("signals") or target.get("black_box")):
        raise ValueError(
            "shadow: the models of a fleet are each other's shadows, so all have the same model "
            "and learner. Shadows that differ from the target are "
            "possible only for a target of your own: set target.signals to the file of its answers "
            "(or target.black_box), or leave shadow out."
        )
    return [shadow.get(name, section) for name, section in given.items()]


def one_kind(**sections) -> None:
    """Raises ValueError if a section asks for several kinds: a fleet has one model and learner."""
    for section, given in sections.items():
        name = given.get("name", "") if isinstance(given, Mapping) else given
        if not isinstance(name, str) or "," in name:
            raise ValueError(
                f"{section}={given!r}: a mixed fleet is not possible, all models of one fleet have "
                f"one {section}. To compare several, let the config "
                "file define grid() (mia_jax/pipeline/grid.py says how) and run it as a grid: each "
                "becomes a run of its own, with one table over them."
            )


def scores(
    *,
    path: str,
    seed: int = 0,
    attacks: Mapping | Sequence[str] | str | None = None,
    report: Mapping = {},
) -> ml_collections.ConfigDict:
    """Returns the config of an audit of supplied arrays.

    Args:
        path: the file or folder of the arrays; mia_jax/external/arrays.py lists their keys.
        seed: the seed of the attacks and of the bootstrap.
        attacks: sections as in other configs, or names. None: all quick attacks that the arrays
            allow (mia_jax/external/default_attacks.py).
        report: fields of the section report.
    """
    return locked(supplied(path=path, seed=seed, attacks=attacks, report=report))


def supplied(
    *,
    path: str,
    seed: int = 0,
    attacks: Mapping | Sequence[str] | str | None = None,
    report: Mapping = {},
) -> dict[str, Any]:
    """Returns the config of an audit of supplied arrays as nested dicts; see `scores`."""
    if isinstance(attacks, Mapping):
        for name in attacks:
            check_name(name)
        attacks = {name: attack_section(name, attack) for name, attack in attacks.items()}
    return completed(
        dict(
            seed=seed,
            scores=str(path),
            attacks=attacks,
            report=_section("report", section_fields("report"), report),
        )
    )


def _overridable(value):
    """Returns a value with None replaced by a placeholder.

    A script can set a placeholder to a value of any type in the unlocked config.
    """
    if isinstance(value, Mapping):
        return {k: _overridable(v) for k, v in value.items()}
    from ml_collections import config_dict

    return config_dict.placeholder(object) if value is None else value


def _filled(section: str, given: Mapping) -> dict:
    """Returns a section that chooses a module: its name, given fields and the other defaults."""
    given = dict(given)
    if "path" in given and "name" not in given:  # a module outside the package
        given["name"] = given.pop("path")
    if "name" not in given:
        raise ValueError(
            f"{section} needs a name. Known: {', '.join(registry.names(KINDS[section]))}."
        )
    return _section(f"{section} ({given['name']})", section_fields(section, given["name"]), given)


def _learner(given: Mapping) -> dict:
    """Returns the finished section learner.

    The objective is OWN if the learning rule has a built-in one.
    """
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
    """Returns the mapping of a choice with its name first; the key `path` is a spelling of `name`.

    `path` names a module outside the package.
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
    """Raises ValueError that lists the known names unless a choice within a section exists."""
    if (where, name) in RENAMED:
        raise ValueError(f"{where}={name!r} is called as in optax: {where}={RENAMED[where, name]}.")
    choice_fields(where, name)


def one_learning_rate(learner: Mapping) -> dict:
    """Returns the section learner with the optimizer's learning rate as learner.learning_rate.

    Raises ValueError if both are given and differ.
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
    """Returns the message about a learning rule that has no private gradient."""
    return (
        f"learner {name!r} has no private gradient, so it has no epsilon: "
        "learner.name='backprop' has one, for objectives of single examples "
        "(learner.objective='forward_forward' is one; pairs and closed forms are not)."
    )


def attack_section(name: str, given: Mapping) -> dict:
    """Returns the finished section of an attack.

    Args:
        name: the key of the attack, which is the name of its folder; it also names the attack's
            module if the fields have no `name`.
        given: the fields of the attack.
    """
    checks.folder_name(**{"attacks: the name of an attack": name})
    if not isinstance(given, Mapping):
        raise ValueError(
            f"attacks.{name}={given!r} must be a mapping of the attack's fields; dict() takes all "
            "at their defaults."
        )
    return _filled("attacks", given if "path" in given else dict(name=name) | dict(given))


def _section(label: str, known: Mapping[str, fields.Field], given: Mapping) -> dict:
    """Returns the given fields and the defaults of the others, as far as they have one."""
    if isinstance(given.get("groups"), Mapping):
        for name in given["groups"]:
            checks.label(**{f"{label}.groups: the name of a group": name})
    for field in given:
        if field not in known:
            raise ValueError(lacks(label, field, known))
    return {
        name: field.default for name, field in known.items() if field.default is not fields.EMPTY
    } | dict(given)
