"""Sets fields of a finished config from outside: those of a command line or of a grid's variant.

The fields may come in any order. `name` chooses another module (model.name='small_cnn'): fields
that only the old choice has are dropped, with a note if the config file had set them. A field that
was typed must exist. Every error names the field, the value and what is allowed. The config that
was passed is never changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mia_jax import checks, configuration, registry
from mia_jax.configuration import fields, settings
from mia_jax.external import default_attacks

FLAG = "--config."
SECTIONS = (*configuration.KINDS, *settings.SECTIONS)
ADD_ATTACKS = (
    "--attacks=+rmia adds an attack, --attacks=-gap removes one, --attacks=lira,rmia runs only "
    "these"
)
CHOICES = tuple(tuple(where.split(".")) for where in configuration.CHOICES)  # as path tuples


def override(
    config,
    given: Mapping[str, Any],
    *,
    attacks: str = "",
    prefix: str = "",
    warn: Callable[[str], None] = lambda text: None,
):
    """Returns the config with other values of some fields.

    Args:
        config: a finished config; it is not changed.
        given: {field: value}, such as {'learner.epochs': '10'}. Text is read as the type of the
            field, other values are checked.
        attacks: which attacks are run, such as '+rmia,-gap' or 'lira,rmia'; see `with_attacks`.
        prefix: what messages put before the name of a field: '--config.' for a command line, where
            `attacks` is the flag --attacks.
        warn: called with a sentence for fields of the config file that are dropped.

    Raises:
        ValueError: if a field does not exist or cannot have the value.
    """
    tree = _copied(config.to_dict() if hasattr(config, "to_dict") else config)
    paths = {
        path: value
        for name, value in given.items()
        for path, value in _leaves(tuple(name.split(".")), value)
    }
    paths = {_aliased(tree, path, paths): value for path, value in paths.items()}
    overriding = _Overriding(tree, paths, prefix, warn)
    if attacks:
        tree["attacks"] = with_attacks(tree, attacks, label="--attacks" if prefix else "attacks")
    for path in sorted(paths, key=_order):
        overriding.set(path, paths[path])
    overriding.finish()
    return configuration.locked(tree)


def _leaves(path: tuple[str, ...], value: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Returns the (path, value) of every field of a section that is given as a mapping.

    Any other value is returned as it is, as one field.

    >>> _leaves(('data',), {'name': 'npz'}), _leaves(('report', 'groups'), {})
    ([(('data', 'name'), 'npz')], [(('report', 'groups'), {})])
    """
    value = value.to_dict() if hasattr(value, "to_dict") else value
    if len(path) > 1 or path[0] not in configuration.KINDS or not isinstance(value, Mapping):
        return [(path, value)]
    return [((*path, field), inner) for field, inner in value.items()]


def _copied(value):
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _order(path: tuple[str, ...]) -> tuple[int, int]:
    """Returns the key by which fields are sorted before they are set.

    Choices come first, because they decide which fields exist. learner.gradient follows, because
    it makes learner.privacy a section. Within each group, outer fields come before inner ones.
    """
    if path[-1] == "name" or path in CHOICES:
        return 0, len(path)
    return (1 if path == ("learner", "gradient") else 2), len(path)


def _aliased(tree: Mapping, path: tuple[str, ...], paths: Mapping) -> tuple[str, ...]:
    """Returns the path under which a field is stored, which two fields spell differently.

    model.path='my_pkg.my_model' is another spelling of model.name, unless the current choice has a
    field `path`. learner.optimizer.learning_rate is another spelling of learner.learning_rate.
    """
    if path == ("learner", "optimizer", "learning_rate") and path[::2] not in paths:
        return ("learner", "learning_rate")
    depth = 3 if path[0] == "attacks" or path[:2] in CHOICES else 2
    if path[-1:] != ("path",) or path[0] not in configuration.KINDS or len(path) != depth:
        return path
    name = (*path[:-1], "name")
    section = tree.get(path[0])
    section = (
        section.get(path[1]) if path[0] == "attacks" and isinstance(section, Mapping) else section
    )
    if (
        not isinstance(section, Mapping)
        or "name" not in section
        or path[:2] in CHOICES
        or name in paths
    ):
        return name if path[:2] in CHOICES and name not in paths else path
    return (
        path if "path" in registry.keywords(configuration.KINDS[path[0]], section["name"]) else name
    )


class _Overriding:
    """Sets the fields of one config, whose nested dict `tree` is changed in place.

    Attributes:
        tree: the config as nested dicts.
        paths: {path: value}, all fields that are to be set.
        prefix: what messages put before the name of a field.
        warn: called with a sentence for fields that are dropped.
    """

    def __init__(
        self,
        tree: dict,
        paths: Mapping[tuple[str, ...], Any],
        prefix: str,
        warn: Callable[[str], None],
    ):
        self.tree, self.paths, self.prefix, self.warn = tree, paths, prefix, warn

    def label(self, path: Sequence[str]) -> str:
        """Returns what messages call a field."""
        return self.prefix + ".".join(path)

    def refuse(self, path: Sequence[str], text: str) -> ValueError:
        """Returns the error about a field, for the caller to raise; a flag is named first."""
        return ValueError(f"{self.label(path)}: {text}" if self.prefix else text)

    def set(self, path: tuple[str, ...], value: Any) -> None:
        """Sets the field at a path, which starts with the name of a section."""
        top = path[0]
        if top not in self.tree:
            raise self.refuse(path, self.unknown_section(path))
        if top in ("seed", "scores"):
            if len(path) > 1:
                raise self.refuse(
                    path, f"{top} is a value, not a section; set {self.label(path[:1])}."
                )
            kind = fields.Kind(items=(int,)) if top == "seed" else fields.Kind(scalars=(str,))
            self.tree[top] = fields.value(value, kind, label=self.label(path))
        elif top == "attacks":
            self.set_attack(path, value)
        elif len(path) == 1:
            chooses = ""
            if top in configuration.KINDS:
                chooses = (
                    f"; {self.label((top, 'name'))} chooses among "
                    f"{', '.join(registry.names(configuration.KINDS[top]))}"
                )
            example = next((f for f in self.tree[top] if f != "name"), "name")
            raise self.refuse(
                path,
                f"{top} is a section; set its fields, as {self.label((top, example))}{chooses}.",
            )
        elif path[1:] == ("name",) and top in configuration.KINDS:
            self.tree[top] = self.chosen(path, top, self.tree[top], value)
        else:
            self.set_field(path, value, top, self.tree[top], 1)

    def set_attack(self, path: tuple[str, ...], value: Any) -> None:
        """Sets a field of an attack, or the attacks of an audit of arrays."""
        attacks = self.tree["attacks"]
        # An audit of arrays holds names of attacks, or None for the standard set.
        if not isinstance(attacks, Mapping):
            if len(path) > 1:
                raise self.refuse(
                    path,
                    f"the attacks of supplied arrays are given by name. {_remedy(self.prefix)}.",
                )
            kind = fields.Kind(items=(str,), optional=True)
            names = fields.value(value, kind, label=self.label(path))
            self.tree["attacks"] = names if names is None else ",".join(names)
            return
        if len(path) == 1:
            raise self.refuse(
                path,
                f"attacks is a section with one section per attack ({', '.join(attacks)}). "
                f"{_remedy(self.prefix)}.",
            )
        name = path[1]
        if name not in attacks:
            text = (
                f"there is no attack {name!r}.{checks.closest(name, attacks)} Attacks of this "
                f"config: {', '.join(attacks)}."
            )
            raise self.refuse(path, f"{text} {_remedy(self.prefix)}.")
        if len(path) == 2:
            example = self.label((*path, next((f for f in attacks[name] if f != "name"), "name")))
            raise self.refuse(
                path, f"the attack {name!r} is a section; set its fields, as {example}."
            )
        if path[2:] == ("name",):
            attacks[name] = self.chosen(path, "attacks", attacks[name], value)
        else:
            self.set_field(path, value, "attacks", attacks[name], 2)

    def unknown_section(self, path: Sequence[str]) -> str:
        """Returns the message about a path whose first word is no section.

        It names the most similar section, or the sections that have a field of that name.
        """
        word, known = path[0], [name for name in ("seed", "scores", *SECTIONS) if name in self.tree]
        having = [
            s
            for s in known
            if s in SECTIONS
            and s != "attacks"
            and isinstance(self.tree[s], Mapping)
            and word in self.fields(s, self.tree[s])
        ]
        text = f"the config has no section {word!r}."
        if having and len(path) == 1:
            return (
                f"{text} Did you mean {' or '.join(self.label((s, word)) for s in having)}? "
                f"Sections: {', '.join(known)}."
            )
        hint = checks.closest(word, known)
        if not hint:
            similar = [
                (s, f)
                for s in known
                if s in SECTIONS and s != "attacks"
                for f in checks.similar(word, self.fields(s, self.tree[s]))
            ]
            hint = f" Did you mean {self.label(similar[0])}?" if similar and len(path) == 1 else ""
        return f"{text}{hint} Sections: {', '.join(known)}."

    def fields(self, section: str, given: Mapping) -> dict[str, fields.Field]:
        """Returns the fields that a section has with its current choice."""
        return configuration.section_fields(section, given.get("name", ""))

    def chosen(self, path: tuple[str, ...], section: str, old: Mapping, value: Any) -> dict:
        """Returns a section with another choice.

        Fields at their defaults take the defaults of the new choice. Fields that the config file
        had set are kept if the new choice has them, and dropped with a note if not.
        """
        name = fields.value(value, fields.Kind(scalars=(str,)), label=self.label(path))
        configuration.one_kind(**{section: name})
        if name == old["name"]:
            return dict(old)
        kind = configuration.KINDS[section]
        if name not in registry.names(kind) and not registry.outside(kind, name):
            raise self.refuse(path, registry.unknown(kind, name))
        if (
            section == "learner"
            and old.get("gradient") == "private"
            and "gradient" not in registry.keywords("learners", name)
        ):
            raise self.refuse(path, configuration.no_private_gradient(name))
        before, after = self.fields(section, old), self.fields(section, dict(name=name))
        section_now = {k: f.default for k, f in after.items() if f.default is not fields.EMPTY}
        section_now["name"] = name
        dropped = {}
        for field, was in old.items():
            if field == "name" or (field in before and before[field].default == was):
                continue
            typed = (*path[:-1], field)
            if any(p[: len(typed)] == typed for p in self.paths):
                continue  # This field was typed as well, and that value counts.
            try:
                assert field in after and not (
                    field == "objective" and section_now.get("objective") == configuration.OWN
                )
                section_now[field] = fields.value(was, after[field].kind, label=field)
            except (AssertionError, ValueError):
                dropped[field] = was
        if dropped:
            what = ", ".join(f"{field}={was!r}" for field, was in dropped.items())
            self.warn(
                f"{self.label(path)}={name}: {what} of the config file is left out; {name} has no "
                "such field."
            )
        return section_now

    def set_field(
        self, path: tuple[str, ...], value: Any, section: str, given: dict, depth: int
    ) -> None:
        """Sets the field path[depth:] of the section at path[:depth], whose fields are `given`."""
        where, name = path[:depth], path[depth]
        known = self.fields(section, given)
        if name not in known:
            choice = f" ({given['name']})" if "name" in given else ""
            raise self.refuse(path, configuration.lacks(".".join(where) + choice, name, known))
        if len(path) == depth + 1:
            if where + (name,) in CHOICES and isinstance(value, str) and value.strip()[:1] != "{":
                self.check_choice(path, given, value)
                given[name] = value
            elif where + (name,) in CHOICES:
                given[name] = self.whole_choice(path, given, value)
            elif name in configuration.SUBSECTIONS and configuration.SUBLABELS[name] == ".".join(
                path
            ):
                given[name] = self.subsection(path, name, value)
            else:
                given[name] = fields.value(value, known[name].kind, label=self.label(path))
                self.gradient(path, given)
        else:
            self.set_within(path, value, given, depth + 1)

    def gradient(self, path: tuple[str, ...], given: dict) -> None:
        """Adds the section learner.privacy for a private gradient and removes it for any other."""
        if path != ("learner", "gradient"):
            return
        if given["gradient"] == "private":
            given["privacy"] = given["privacy"] or {}
        elif given.get("privacy") is not None:
            given["privacy"] = None
            self.warn(
                f"{self.label(path)}={given['gradient']}: the section learner.privacy of the "
                "config file is left out: nothing is private."
            )

    def subsection(self, path: tuple[str, ...], name: str, value: Any) -> dict | None:
        """Returns a whole section within a section, which is None or a mapping of its fields."""
        values = fields.value(
            value, fields.Kind(mapping=True, optional=True), label=self.label(path)
        )
        if values is None:
            return None
        known = configuration.SUBSECTIONS[name]()
        for field in values:
            if field not in known:
                raise self.refuse(path, checks.lacks(".".join(path), "field", field, known))
        return {
            f: fields.value(v, known[f].kind, label=f"{self.label(path)}.{f}")
            for f, v in values.items()
        }

    def whole_choice(self, path: tuple[str, ...], given: Mapping, value: Any) -> dict:
        """Returns a whole choice within a section, a mapping of its name and fields."""
        values = fields.value(value, fields.Kind(mapping=True), label=self.label(path))
        if "name" not in values:
            raise self.refuse(path, f"it needs a name, as in {{'name': {given[path[1]]!r}}}.")
        self.check_choice(path, given, values["name"])
        known, label = configuration.choice_fields(".".join(path), values["name"]), ".".join(path)
        for field in values:
            if field != "name" and field not in known:
                raise self.refuse(
                    path, configuration.lacks(f"{label} ({values['name']})", field, known)
                )
        typed = {
            f: fields.value(v, known[f].kind, label=f"{self.label(path)}.{f}")
            for f, v in values.items()
            if f != "name"
        }
        return dict(name=values["name"]) | typed

    def check_choice(self, path: tuple[str, ...], given: Mapping, name: str) -> None:
        """Raises ValueError unless a choice within a section can have this name.

        A learning rule that has a built-in objective accepts no other.
        """
        if path[:2] != ("learner", "objective"):
            try:
                configuration.check_choice(".".join(path[:2]), name)
            except ValueError as error:
                raise self.refuse(path, str(error)) from None
            return
        takes = "loss" in registry.keywords("learners", given["name"])
        if name == configuration.OWN or not takes:
            if takes:
                raise self.refuse(
                    path,
                    f"the learning rule {given['name']!r} needs an objective: "
                    f"{', '.join(registry.names('objectives'))}.",
                )
            if name != configuration.OWN:
                raise self.refuse(
                    path,
                    f"the learning rule {given['name']!r} has an objective of its own; leave it "
                    "out.",
                )
            return
        known = registry.names("objectives")
        if name not in known and not registry.outside("objectives", name):
            raise self.refuse(path, registry.unknown("objectives", name))

    def set_within(self, path: tuple[str, ...], value: Any, given: dict, depth: int) -> None:
        """Sets a field of the section at path[:depth], which is within another section."""
        where, name = path[:depth], path[depth]
        label = ".".join(where)
        section = where[-1]
        if label in configuration.CHOICES:
            self.set_choice(path, value, given, depth)
            return
        if label == "report.groups":
            configuration.check_group(name)
            if len(path) > depth + 1:
                raise self.refuse(path, "a group is a list of row numbers.")
            given["groups"] = dict(given["groups"]) | {
                name: fields.value(value, fields.Kind(items=(int,)), label=self.label(path))
            }
            return
        if section in configuration.SUBSECTIONS and configuration.SUBLABELS[section] == label:
            if section == "privacy" and given.get("gradient") != "private":
                raise self.refuse(
                    path,
                    "this config has no privacy. Add "
                    f"{self.label(('learner', 'gradient'))}=private, which takes the fields of "
                    "learner.privacy at their defaults, or choose it in the config file, "
                    "learner=dict(gradient='private', privacy=dict(clip_norm=1.0)), as "
                    "configs/dp_fashion_mnist.py does.",
                )
            known = configuration.SUBSECTIONS[section]()
            if name not in known:
                raise self.refuse(path, checks.lacks(label, "field", name, known))
            if len(path) > depth + 1:
                raise self.refuse(path, f"{label}.{name} is a value, not a section.")
            given[section] = dict(given[section] or {}) | {
                name: fields.value(value, known[name].kind, label=self.label(path))
            }
            return
        kind = self.fields(path[0], given)[section].kind
        if not kind.mapping:
            raise self.refuse(path, f"{label} is a value, not a section; set {self.label(where)}.")
        self.set_free(path, value, given, depth)

    def set_free(self, path: tuple[str, ...], value: Any, given: dict, depth: int) -> None:
        """Sets a key of a mapping whose keys are free, such as the options of an attack.

        All parts of the path except the last must exist.
        """
        here = given[path[depth - 1]] = _copied(given[path[depth - 1]] or {})
        for part in path[depth:-1]:
            if not isinstance(here.get(part), Mapping):
                raise self.refuse(
                    path,
                    f"there is no section {part!r} in it. It has: {', '.join(here) or 'nothing'}.",
                )
            here[part] = dict(here[part])
            here = here[part]
        here[path[-1]] = fields.value(value, fields.Kind(), label=self.label(path))

    def set_choice(self, path: tuple[str, ...], value: Any, given: dict, depth: int) -> None:
        """Sets the name or a field of a choice within a section."""
        name, choice, where = path[depth], path[depth - 1], ".".join(path[:depth])
        now = given[choice]
        now = dict(name=now) if isinstance(now, str) else dict(now)
        if len(path) > depth + 1:
            raise self.refuse(path, f"{'.'.join(path[: depth + 1])} is a value, not a section.")
        if name == "name":
            chosen = fields.value(value, fields.Kind(scalars=(str,)), label=self.label(path))
            self.check_choice(path, given, chosen)
            if chosen != now["name"]:
                known = (
                    {}
                    if chosen == configuration.OWN
                    else configuration.choice_fields(where, chosen)
                )
                lost = {k: v for k, v in now.items() if k != "name" and k not in known}
                if lost:
                    what = ", ".join(f"{k}={v!r}" for k, v in lost.items())
                    self.warn(
                        f"{self.label(path)}={chosen}: {what} of the config file is left out; "
                        f"{chosen} has no such field."
                    )
                now = dict(name=chosen) | {k: v for k, v in now.items() if k in known}
            given[choice] = now if len(now) > 1 else now["name"]
            return
        if now["name"] == configuration.OWN:
            raise self.refuse(
                path,
                f"the learning rule {given['name']!r} has an objective of its own, without fields "
                "here.",
            )
        known = configuration.choice_fields(where, now["name"])
        if name not in known:
            raise self.refuse(path, configuration.lacks(f"{where} ({now['name']})", name, known))
        given[choice] = now | {name: fields.value(value, known[name].kind, label=self.label(path))}

    def finish(self) -> None:
        """Raises ValueError for a field without a default that nothing has set."""
        for section in configuration.KINDS:
            given = self.tree.get(section)
            if isinstance(given, Mapping):
                parts = {(section,): given}
                if section == "attacks":
                    parts = {(section, name): attack for name, attack in given.items()}
                for path, settings_given in parts.items():
                    missing = [
                        k
                        for k, f in self.fields(section, settings_given).items()
                        if f.default is fields.EMPTY and k not in settings_given
                    ]
                    if missing:
                        raise ValueError(
                            f"{'.'.join(path)} ({settings_given['name']}) needs the "
                            f"field{'s' * (len(missing) > 1)} {', '.join(missing)}: set "
                            f"{', '.join(self.label((*path, k)) for k in missing)}."
                        )


def _remedy(prefix: str) -> str:
    return (
        ADD_ATTACKS
        if prefix
        else "The attacks are chosen in the config file, attacks=dict(lira=dict(), ...)"
    )


def with_attacks(config: Mapping, text: str, *, label: str) -> Any:
    """Returns the attacks of a config after a change such as '+rmia,-gap' or 'lira,rmia'.

    '+rmia,-gap' adds rmia and removes gap; 'lira,rmia' runs only these. A name is an attack of the
    config, one of the standard set (lira_shrunk, threshold_loss, ...) or a file of mia_jax/attacks.

    Args:
        config: the config; for an audit of arrays, `attacks` is None or names.
        text: the change.
        label: what messages call the argument.

    Returns:
        {name: section}. For an audit of arrays whose attacks are not yet chosen, the names as text,
        because what the arrays allow is known later (mia_jax.external.default_attacks).

    Raises:
        ValueError: if an attack does not exist, or none is left.
    """
    items = [item.strip() for item in fields.split(text)]
    signs = {item[:1] in ("+", "-") for item in items}
    if not items or not all(item.lstrip("+-") for item in items):
        raise ValueError(f"{label}={text}: it must be names of attacks. {ADD_ATTACKS}.")
    if len(signs) > 1:
        raise ValueError(
            f"{label}={text}: either every name has + or - in front (changes), or none has (only "
            f"these). {ADD_ATTACKS}."
        )
    now = config.get("attacks")
    if not isinstance(now, Mapping):
        if now is not None and signs == {True}:
            now = {
                name: default_attacks.SECTIONS.get(name, dict(name=name))
                for name in fields.split(now)
            }
        else:
            for item in items:
                default_attacks.section(item.lstrip("+-"), label=label)
            return ",".join(items)
    attacks = dict(now) if signs == {True} else {}
    for item in items:
        name = item.lstrip("+-")
        if item[0] == "-":
            if name not in attacks:
                close = checks.closest(name, attacks)
                raise ValueError(
                    f"{label}={text}: there is no attack {name!r} to remove.{close} Attacks of "
                    f"this config: {', '.join(now)}."
                )
            del attacks[name]
        elif item[0] == "+" and name in now:
            raise ValueError(
                f"{label}={text}: the attack {name!r} is there already; its fields are set by "
                f"{FLAG}attacks.{name}.<field>."
            )
        else:
            key = name.rpartition(".")[2]  # a user's module 'package.module' is called 'module'
            attacks[key] = now.get(name) or configuration.attack_section(
                key, default_attacks.section(name, label=label)
            )
    if not attacks:
        raise ValueError(f"{label}={text}: no attack is left. {ADD_ATTACKS}.")
    return attacks


def hint(word: str, config) -> str:
    """Returns ' Did you mean --config.learner.epochs?' if an unknown flag looks like a field.

    Args:
        word: the flag, without its dashes.
        config: the config whose fields are compared.

    Returns:
        The sentence, or '' if no field is similar.
    """
    tree = config.to_dict() if hasattr(config, "to_dict") else config
    word = re.sub(r"\W", "_", word)
    if word in ("seed", "scores") and word in tree:
        return f" Did you mean {FLAG}{word}?"
    sections = [
        s
        for s in ("learner", "design", "data", "model", *settings.SECTIONS)
        if isinstance(tree.get(s), Mapping)
    ]
    known = {s: configuration.section_fields(s, tree[s].get("name", "")) for s in sections}
    exact = [f"{FLAG}{s}.{word}" for s in sections if word in known[s]]
    if word in SECTIONS:
        return f" Did you mean {FLAG}{word}.<field>?"
    similar = exact or [f"{FLAG}{s}.{f}" for s in sections for f in checks.similar(word, known[s])]
    return f" Did you mean {' or '.join(similar[:2])}?" if similar else ""
