"""Config files: arguments after the colon, typed and checked; every field filled in, so that any of them can be overridden on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import ml_collections

from mia_jax import checks, registry
from mia_jax.learners import _private as private
from mia_jax.learners import stopping

# What experiment.py passes itself; everything else in a maker's signature is a field of the config.
PASSED = dict(
    data=(),
    design=("num_examples", "seed", "given_population_N", "given_canary_N", "labels_N"),
    model=("num_classes",),
    learner=("model", "loss", "num_rows", "num_extra", "padded", "stopping", "labels_N", "sample", "initial"),
    attacks=(),
)
OWN = "own"  # learner.objective of a learning rule that takes no objective
PRIVATE_PASSED = ("num_rows", "batch_size", "epochs", "padded", "started", "columns")  # what the learner passes to its private part
LEARNER = dict(objective="cross_entropy", validation="none", stop=None, snapshots=(), init_from="", watch=False)  # watch: privacy/watch.py
DATA = dict(standardize=False, drop_duplicates=False, canaries=None)  # canaries: fields of data/_canaries.py
QUERY = dict(views=("identity",), batch_size=500, ask_batch_size=100, signals=(), save_logits=False)
ATTACK = dict(defense="", adaptive=False)  # of every attack: mia_jax/answers.py
REPORT = dict(fprs=(0.001, 0.01, 0.1), ppv_ratio=1.0, draws=200, level=0.95, shadow_curve=("lira",), figures=True)
REPORT |= dict(slices=("class",), groups={}, records=None)  # slices: mia_jax/metrics/slices.py; groups: {name: row numbers}; records: attacks whose
# exposed records are looked for (None: the attack that leads the ranking, (): none)
REPORT |= dict(epochs=())  # attacks that are repeated on the models of learner.snapshots: mia_jax/over_epochs.py
REPORT |= dict(audit=None)  # fields of report/privacy.py; None: with its defaults under the design canaries, else no audit
RUN = dict(chunk=8, lanes=0, devices=0, query_chunk=0, checkpoint_every=25, pool_bytes=2**31)  # how, not what: outside every config hash
RUN |= dict(memory_bytes=0, retries=0)  # memory_bytes: what the training may use (0: what is available); retries: of models that failed
TARGET = dict(signals="", oracle="", member="", rate=0.0, batch_size=256)  # a target of your own: its answers, or a black box that is asked


def arguments(text: str | None, /, **defaults) -> ml_collections.ConfigDict:
    """Typed arguments of a config file: 'models=16,quick' with defaults models=64, quick=False gives models=16, quick=True.

    A value takes the type of its default; a bare name sets a boolean. ValueError names unknown keys and wrong values.

    >>> arguments('models=16,quick', models=64, quick=False).models
    16
    """
    found = dict(defaults)
    for item in filter(None, (text or "").split(",")):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in defaults:
            raise ValueError(f"the config has no argument {name!r}. Arguments: {', '.join(defaults)}.{checks.closest(name, defaults)}")
        kind = type(defaults[name])
        try:
            found[name] = _convert(value if equals else None, kind)
        except ValueError:
            raise ValueError(f"config argument {item!r}: expected {name}={kind.__name__}, as in {name}={defaults[name]}.") from None
    return ml_collections.ConfigDict(found)


def _convert(text: str | None, kind: type):
    if kind is bool:
        words = {None: True, "true": True, "1": True, "false": False, "0": False}
        text = text.lower() if text else text
        if text not in words:
            raise ValueError
        return words[text]
    if text is None:
        raise ValueError
    return kind(text)


def chosen(among: Mapping, /, **given):
    """among[value] of the one config argument given; ValueError that lists the keys otherwise.

    >>> chosen(dict(a=1, b=2), rule='b')
    2
    """
    ((name, value),) = given.items()
    checks.one_of(among, **{f"config argument {name}": value})
    return among[value]


def complete(
    *, seed=0, data: Mapping, design: Mapping, attacks: Mapping, model: Mapping = {}, learner: Mapping = {}, shadow: Mapping = {}, **sections
) -> ml_collections.ConfigDict:
    """The whole config with every field of the chosen modules at its default unless given; ValueError for a field that does not exist.

    `query`, `report`, `run` and `target` are optional sections. Beside a target of your own (target.signals or target.oracle) all models that are
    trained are its shadows: `shadow` {model, learner} then are `model` and `learner` under another name. The result is locked: an override of a
    field that does not exist is an error.
    """
    model, learner = _shadows(shadow, sections.get("target", {}), model=model, learner=learner)
    one_kind(learner=learner, model=model)
    for name in sections:
        checks.one_of(("query", "report", "run", "target"), section=name)
    config = dict(
        seed=tuple(seed) if isinstance(seed, tuple | list) else (seed,),
        data=_filled("data", "data", data, DATA),
        design=_filled("design", "designs", design),
        model=_filled("model", "models", model),
        learner=_learner(dict(name="backprop") | dict(learner)),
        query=_section("query", QUERY, sections.get("query", {})),
        attacks={name: _attack(name, attack) for name, attack in attacks.items()},
        report=_section("report", REPORT, sections.get("report", {})),
        run=_section("run", RUN, sections.get("run", {})),
        target=_section("target", TARGET, sections.get("target", {})),
    )
    stop = config["learner"]["stop"]
    if stop is not None:
        fields = {k: p.default for k, p in inspect.signature(stopping.make).parameters.items()}
        config["learner"]["stop"] = _section("learner.stop", fields, stop)
    if config["learner"].get("gradient") == "private":  # all fields, so that the command line can set any of them
        fields = {k: p.default for k, p in inspect.signature(private.make).parameters.items() if k not in PRIVATE_PASSED}
        config["learner"]["privacy"] = _section("learner.privacy", fields, config["learner"]["privacy"] or {})
    config = _overridable(config)
    config["run"]["chunk"] = ml_collections.FieldReference(config["run"]["chunk"], field_type=object)  # a number or 'auto'
    return ml_collections.ConfigDict(config, type_safe=False).lock()


def _shadows(shadow: Mapping, target: Mapping, **given: Mapping) -> list[Mapping]:
    """The sections model and learner, from config.shadow where that has them."""
    for name in shadow:
        checks.one_of(given, shadow=name)
        if given[name]:
            raise ValueError(f"{name} and shadow.{name} are both given; beside a target of your own they are the same section: give one of them.")
    if shadow and not (target.get("signals") or target.get("oracle")):
        raise ValueError(
            "shadow: the models of a fleet are each other's shadows, so all have the same model and learner. Shadows of another kind than the target "
            "are for a target of your own: set target.signals to the file of its answers (or target.oracle), or leave shadow out."
        )
    return [shadow.get(name, section) for name, section in given.items()]


def one_kind(**sections) -> None:
    """ValueError that names the remedy if a section asks for several kinds at once: a fleet has one learner and one model."""
    for section, given in sections.items():
        name = given.get("name", "") if isinstance(given, Mapping) else given
        if not isinstance(name, str) or "," in name:
            raise ValueError(
                f"{section}={given!r}: a mixed fleet is not possible, all models of one fleet have one {section}. To compare several, let the config "
                "file define grid() (mia_jax/grid.py says how) and add --grid: each becomes a run of its own, with one table over them."
            )


def scores(*, path: str, seed: int = 0, attacks: Mapping | Sequence[str] | str | None = None, report: Mapping = {}) -> ml_collections.ConfigDict:
    """The config of an audit of arrays that were brought (keys and shapes: mia_jax.brought).

    `attacks`: sections as in other configs, or names; None: all quick ones that the arrays allow (mia_jax.standard).
    """
    attacks = {name: _attack(name, attack) for name, attack in attacks.items()} if isinstance(attacks, Mapping) else attacks
    config = dict(seed=(seed,), scores=str(path), attacks=attacks, report=_section("report", REPORT, report))
    return ml_collections.ConfigDict(_overridable(config), type_safe=False).lock()


def _overridable(value):
    """None becomes a placeholder, which the command line can set (to a number, text or tuple literal)."""
    if isinstance(value, Mapping):
        return {k: _overridable(v) for k, v in value.items()}
    return ml_collections.config_dict.placeholder(object) if value is None else value


def _filled(section: str, kind: str, given: Mapping, more: Mapping = {}) -> dict:
    """Name, given fields and the defaults of the maker's other fields."""
    given = dict(given)
    if "path" in given and "name" not in given:  # a module outside the package
        given["name"] = given.pop("path")
    if "name" not in given:
        raise ValueError(f"{section} needs a name. Known: {', '.join(registry.names(kind))}.")
    fields = {k: p.default for k, p in registry.keywords(kind, given["name"]).items() if k not in PASSED[section]} | dict(more)
    filled = _section(f"{section} ({given['name']})", dict(name=given["name"]) | fields, given)
    return {k: v for k, v in filled.items() if v is not inspect.Parameter.empty}


def _learner(given: Mapping) -> dict:
    """A learning rule that takes no objective has its own, and says so."""
    name = given.get("path", given["name"])
    fields = registry.keywords("learners", name)
    if "gradient" not in fields and ("privacy" in given or "gradient" in given):
        raise ValueError(
            f"learner {name!r} has no private gradient, so no epsilon can be had for it: learner.name='backprop' has one, for objectives of single "
            "examples (learner.objective='forward_forward' is one; pairs and closed forms are not)."
        )
    objective = given.get("objective")
    if isinstance(objective, Mapping) and "path" in objective:  # a module outside the package
        given = dict(given, objective=dict(name=objective["path"]) | {k: v for k, v in objective.items() if k != "path"})
    takes = "loss" in fields
    return _filled("learner", "learners", given, LEARNER | ({} if takes else dict(objective=OWN)))


def _attack(name: str, given: Mapping) -> dict:
    """An attack without a name is the one its key names."""
    return _filled("attacks", "attacks", given if "path" in given else dict(name=name) | dict(given), ATTACK)


def _section(label: str, defaults: Mapping, given: Mapping) -> dict:
    for field in given:
        if field not in defaults:
            raise ValueError(f"{label} has no field {field!r}. Fields: {', '.join(defaults)}.{checks.closest(field, defaults)}")
    return dict(defaults) | dict(given)
