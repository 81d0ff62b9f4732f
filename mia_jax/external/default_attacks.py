"""Chooses the attacks that an audit of supplied arrays runs unless the user names some.

These are all quick attacks that the arrays allow; the report says why the others are not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mia_jax import checks, registry, threat_model
from mia_jax.attacks import quantile
from mia_jax.external.arrays import Supplied
from mia_jax.types import Attack

FEWEST = 10  # members, and as many non-members, that a classifier or a threshold is fitted on


def standard_sections(supplied: Supplied) -> dict[str, dict]:
    """Returns {name: section of config.attacks}: the standard set for these arrays."""
    return sections_of(set(supplied.signal), classes=supplied.pool.task.has_classes)


def sections_of(have: set[str], *, classes: bool) -> dict[str, dict]:
    """Returns {name: section of config.attacks}: the standard set for answers with these signals.

    LiRA and similar attacks read the rescaled logit; without it the loss, and without that the
    score.

    Args:
        have: the names of the signals that can be read.
        classes: whether every label is one class number.
    """
    best = next((s for s in ("rescaled_logit", "loss", "score") if s in have), "rescaled_logit")
    plain = "loss" if "loss" in have or "score" not in have else "score"
    gaussian, simple = (
        dict(signal=s) | (dict(sign=1) if s == "score" else {}) for s in (best, plain)
    )
    likelihood = dict(signal="logits") if "logits" in have else dict(signal="loss", temperature=1.0)
    ratios = {} if "log_probability" in have else likelihood
    learned = dict(features=("probabilities", "loss") if "logits" in have else (plain,))
    scalars = dict(
        loss="loss",
        confidence="max_confidence",
        entropy="entropy",
        modified_entropy="modified_entropy",
        hinge="hinge",
    )
    settings = dict(gap=dict())
    if "score" in have:
        settings["threshold_score"] = dict(name="threshold", signal="score", sign=1)
    settings |= {
        f"threshold_{name}": dict(name="threshold", signal=signal)
        for name, signal in scalars.items()
    }
    settings |= dict(
        attack_model_target=dict(learned, name="attack_model", fit="target"),
        lira=dict(gaussian, variance="gaussian"),
        lira_shrunk=dict(gaussian, name="lira", variance="shrunk"),
        lira_offline=dict(gaussian, name="lira", mode="offline"),
        multi_signal=dict(),
        offset=simple,
        reference=simple,
        base=likelihood,
        base_offline=dict(likelihood, name="base", mode="offline"),
        rmia=ratios,
        rmia_offline=dict(ratios, name="rmia", mode="offline"),
        population=simple,
        quantile=dict(gaussian, features=("x",)),
        class_threshold=simple
        if classes and "logits" not in have
        else dict(signal="modified_entropy"),
        privacy_risk_score=dict(signal=plain),
        attack_model=learned,
    )
    return {name: dict(dict(name=name) | fields) for name, fields in settings.items()}


# What a caller can do for attacks that need more than there is: with arrays, and with models.
ARRAYS = dict(
    population="pass population_<key>",
    more="pass more population_<key>",
    shadows="pass shadow_<key> and shadow_member",
)
MODELS = dict(
    population="pass population=0.1, the share of the rows that is kept aside",
    more="pass a larger population=",
    shadows="pass fit=..., which trains them",
)


def allowed_sections(
    supplied: Supplied, remedy: Mapping[str, str] = ARRAYS
) -> tuple[dict[str, dict], list[str]]:
    """Returns the sections of the standard set that the arrays allow, and notes about the others.

    Args:
        supplied: the checked arrays.
        remedy: what the caller can do, ARRAYS or MODELS.

    Returns:
        ({name: section}, notes). The notes are empty, or one sentence that says which attacks are
        not run and what would have to be supplied for them.

    Raises:
        ValueError: if the arrays allow no attack of the standard set.
    """
    kept, left = {}, {}
    fleet = threat_model.FleetSignals(
        design=supplied.design, signal={}, num_classes=supplied.pool.num_classes
    )
    for name, section in standard_sections(supplied).items():
        attack = registry.make(
            "attacks", section["name"], {k: v for k, v in section.items() if k != "name"}
        )
        reason = why_not(name, attack, supplied, fleet, remedy)
        if reason:
            left.setdefault(reason, []).append(name)
        else:
            kept[name] = section
    if not kept:
        raise ValueError(
            f"the arrays give the signals {', '.join(supplied.signal)}, which no attack of the "
            "standard set can use."
        )
    reasons = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in left.items())
    return kept, [f"Not run: {reasons}."] if left else []


def why_not(
    name: str,
    attack: Attack,
    supplied: Supplied,
    fleet: threat_model.FleetSignals,
    remedy: Mapping[str, str] = ARRAYS,
) -> str:
    """Returns in words what the arrays lack for this attack; '' if it can be run.

    Args:
        name: the name of the attack.
        attack: the attack.
        supplied: the checked arrays.
        fleet: the design of the arrays with an empty `signal`; it is asked whether it refuses the
            attack.
        remedy: what the caller can do, ARRAYS or MODELS.
    """
    design, pool = supplied.design, supplied.pool
    missing = threat_model.asked_signals({name: attack}) - set(supplied.signal)
    if missing == {"loss"}:
        return "no loss"
    if missing or ("y" in attack.needs and not pool.task.has_classes):
        return "they need logits or probs, and class labels"
    if "population" in attack.needs and not design.population_N.any():
        return f"no examples that no model saw: {remedy['population']}"
    if {"population", "x"} <= set(attack.needs) and design.population_N.sum() < quantile.FEWEST:
        return f"fewer than {quantile.FEWEST} examples that no model saw: {remedy['more']}"
    if "x" in attack.needs and not pool.x[0].size:
        return "no x: the examples themselves"
    if any(n in threat_model.SHADOW_NEEDS for n in attack.needs) and len(design.member_MN) == 1:
        return f"no shadow models: {remedy['shadows']}"
    if fleet.refuse(attack, name):
        return design.note
    for t in design.targets:
        learned_MN = (
            design.evaluated_MN[[t]]
            if "member" in attack.needs
            else design.evaluated_MN & design.shadow_MM[t][:, None]
        )
        member_MN = design.member_MN[[t]] if "member" in attack.needs else design.member_MN
        if {"member", "shadow_own"} & set(attack.needs) and min(
            (learned_MN & member_MN).sum(), (learned_MN & ~member_MN).sum()
        ) < FEWEST:
            return f"fewer than {FEWEST} members or non-members to learn from"
    return ""


# The standard set for classifiers that answer with logits and can be asked for every signal.
SECTIONS = sections_of({"log_probability", "logits", "rescaled_logit", "loss"}, classes=True)


def readable(section: Mapping, have: Iterable[str]) -> Mapping:
    """Returns the section with which an attack is made where only these signals can be read.

    It reads the logits in place of the signal that it reads by default, if only they were supplied.

    Args:
        section: its section of config.attacks.
        have: the names of the signals that were supplied.
    """
    name, known = section["name"], set(have)
    keywords = registry.keywords("attacks", name)
    if "signal" not in keywords or "logits" not in known:
        return section
    if section.get("signal", keywords["signal"].default) != keywords["signal"].default:
        return section
    attack = registry.make("attacks", name, {k: v for k, v in section.items() if k in keywords})
    if threat_model.asked_signals({name: attack}) <= known:
        return section
    return dict(section) | dict(signal="logits")


def section(name: str, *, label: str = "attacks") -> dict:
    """Returns the fields of an attack of the standard set, or {'name': name} for any other attack.

    Args:
        name: the name of the attack.
        label: what a message calls the place where the attack was named.

    Raises:
        ValueError: if there is no such attack; it lists all names.
    """
    if (
        name not in SECTIONS
        and name not in registry.names("attacks")
        and not registry.outside("attacks", name)
    ):
        known = list(dict.fromkeys([*registry.names("attacks"), *SECTIONS]))
        raise ValueError(
            f"{label}: there is no attack {name!r}.{checks.closest(name, known)} Known: "
            f"{', '.join(known)}."
        )
    return dict(SECTIONS.get(name, dict(name=name)))


def check_names(attacks: str | Sequence[str] | Mapping | None) -> None:
    """Raises ValueError for a name of an attack that does not exist, before anything is trained."""
    if isinstance(attacks, Mapping):
        names = [section.get("name", name) for name, section in attacks.items()]
    else:
        names = attacks.split(",") if isinstance(attacks, str) else attacks or ()
    for name in names:
        section(str(name).strip().lstrip("+-"))


def choose(
    attacks: str | Sequence[str] | Mapping | None,
    supplied: Supplied,
    remedy: Mapping[str, str] = ARRAYS,
) -> tuple[dict[str, dict], list[str]]:
    """Returns the sections of the attacks that are run, and notes about those that are not.

    Args:
        attacks: what the user asked for. None: all attacks that the arrays allow. '+rmia,-gap':
            these, with rmia and without gap. Anything else: only the attacks it names, see
            `named_sections`.
        supplied: the checked arrays.
        remedy: what the caller can do about an attack that is not run, ARRAYS or MODELS.

    Raises:
        ValueError: if an attack that is to be left out is not run anyway, or if none is left.
    """
    items = attacks.split(",") if isinstance(attacks, str) else []
    if attacks is not None and not any(item.strip()[:1] in ("+", "-") for item in items):
        return named_sections(attacks, supplied), []
    kept, left_out = allowed_sections(supplied, remedy)
    for item in (item.strip() for item in items):
        name = item[1:]
        if item[0] == "-" and name not in kept:
            raise ValueError(
                f"attacks={item}: the attack {name!r} is not among those that are run: "
                f"{', '.join(kept)}.{checks.closest(name, kept)}"
            )
        if item[0] == "-":
            del kept[name]
        else:
            kept |= named_sections(name, supplied)
    if not kept:
        raise ValueError(f"attacks={attacks}: no attack is left.")
    return kept, left_out


def named_sections(attacks: str | Sequence[str] | Mapping, supplied: Supplied) -> dict[str, dict]:
    """Returns {name: section} of the attacks that a user names.

    Args:
        attacks: names, in one text with commas or in a sequence: attacks of the standard set, or
            any other attack with its defaults. A mapping {name: section} is returned as it is, with
            the name filled in.
        supplied: the checked arrays.
    """
    if isinstance(attacks, Mapping):
        return {name: dict(dict(name=name) | section) for name, section in attacks.items()}
    names = [n.strip() for n in attacks.split(",")] if isinstance(attacks, str) else list(attacks)
    known = standard_sections(supplied)
    # A user's module 'package.module' is called 'module'.
    return {name.rpartition(".")[2]: known.get(name, dict(name=name)) for name in names}
