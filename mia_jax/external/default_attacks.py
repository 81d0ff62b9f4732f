"""The attacks that an audit of supplied arrays runs unless it is told which: all that are quick and
that the arrays allow, and why not the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax import checks, registry, threat_model
from mia_jax.attacks import quantile
from mia_jax.external.arrays import Supplied
from mia_jax.types import Attack

FEWEST = 10  # members and non-members that a classifier or a threshold is fitted on


def sections(found: Supplied) -> dict[str, dict]:
    """Returns {name: section of config.attacks} of the standard set for these arrays."""
    return sections_of(set(found.signal), classes=found.pool.task.has_classes)


def sections_of(have: set[str], *, classes: bool) -> dict[str, dict]:
    """Returns {name: section of config.attacks}: LiRA and its like read the rescaled logit, without
    one the loss, without that the score.
    """
    best = next((s for s in ("rescaled_logit", "loss", "score") if s in have), "rescaled_logit")
    plain = "loss" if "loss" in have or "score" not in have else "score"
    own, simple = (dict(signal=s) | (dict(sign=1) if s == "score" else {}) for s in (best, plain))
    likelihood = dict(signal="logits") if "logits" in have else dict(signal="loss", temperature=1.0)
    learned = dict(features=("probabilities", "loss") if "logits" in have else (plain,))
    scalars = dict(
        loss="loss",
        confidence="max_confidence",
        entropy="entropy",
        modified_entropy="modified_entropy",
        hinge="hinge",
    )
    wanted = dict(gap=dict())
    if "score" in have:
        wanted["threshold_score"] = dict(name="threshold", signal="score", sign=1)
    wanted |= {
        f"threshold_{name}": dict(name="threshold", signal=signal)
        for name, signal in scalars.items()
    }
    wanted |= dict(
        attack_model_target=dict(learned, name="attack_model", fit="target"),
        lira=dict(own, variance="gaussian"),
        lira_shrunk=dict(own, name="lira", variance="shrunk"),
        lira_offline=dict(own, name="lira", mode="offline"),
        multi_signal=dict(),
        offset=simple,
        reference=simple,
        base=likelihood,
        base_offline=dict(likelihood, name="base", mode="offline"),
        rmia=likelihood,
        rmia_offline=dict(likelihood, name="rmia", mode="offline"),
        population=simple,
        quantile=dict(own, features=("x",)),
        class_threshold=simple
        if classes and "logits" not in have
        else dict(signal="modified_entropy"),
        privacy_risk_score=dict(signal=plain),
        attack_model=learned,
    )
    return {name: dict(dict(name=name) | fields) for name, fields in wanted.items()}


def allowed(found: Supplied) -> tuple[dict[str, dict], list[str]]:
    """Returns the sections of the attacks that the arrays allow, and a sentence that says which
    they do not and what would have to be supplied.
    """
    kept, left = {}, {}
    fleet = threat_model.FleetSignals(
        design=found.design, signal={}, num_classes=found.pool.num_classes
    )
    for name, section in sections(found).items():
        attack = registry.make(
            "attacks", section["name"], {k: v for k, v in section.items() if k != "name"}
        )
        reason = lacking(name, attack, found, fleet)
        if reason:
            left.setdefault(reason, []).append(name)
        else:
            kept[name] = section
    if not kept:
        raise ValueError(
            f"the arrays give the signals {', '.join(found.signal)}, which no attack of the "
            "standard set can use."
        )
    reasons = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in left.items())
    return kept, [f"Not run: {reasons}."] if left else []


def lacking(name: str, attack: Attack, found: Supplied, fleet: threat_model.FleetSignals) -> str:
    """Returns what the arrays lack for this attack, in words; '' for nothing."""
    design, pool = found.design, found.pool
    missing = threat_model.asked_signals({name: attack}) - set(found.signal)
    if missing == {"loss"}:
        return "no loss"
    if missing or ("y" in attack.needs and not pool.task.has_classes):
        return "they need logits or probs, and class labels"
    if "population" in attack.needs and not design.population_N.any():
        return "no examples that no model saw: pass population_<key>"
    if {"population", "x"} <= set(attack.needs) and design.population_N.sum() < quantile.FEWEST:
        return (
            f"fewer than {quantile.FEWEST} examples that no model saw: pass more population_<key>"
        )
    if "x" in attack.needs and not pool.x[0].size:
        return "no x: the examples themselves"
    if any(n in threat_model.SHADOW_NEEDS for n in attack.needs) and len(design.member_MN) == 1:
        return "no shadow models: pass shadow_<key> and shadow_member"
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


SECTIONS = sections_of(
    {"logits", "rescaled_logit", "loss"}, classes=True
)  # of nets that give logits


def section(name: str, *, label: str = "attacks") -> dict:
    """Returns the fields of an attack of the standard set, or {'name': name} of any other;
    ValueError that lists the names.
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


def chosen(
    wanted: str | Sequence[str] | Mapping | None, found: Supplied
) -> tuple[dict[str, dict], list[str]]:
    """Returns sections of the attacks that are run, and sentences about those that are not.

    None: all that the arrays allow; '+rmia,-gap': these and rmia without gap; anything else: those
    alone.
    """
    items = wanted.split(",") if isinstance(wanted, str) else []
    if wanted is not None and not any(item.strip()[:1] in ("+", "-") for item in items):
        return named(wanted, found), []
    kept, left_out = allowed(found)
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
            kept |= named(name, found)
    if not kept:
        raise ValueError(f"attacks={wanted}: no attack is left.")
    return kept, left_out


def named(wanted: str | Sequence[str] | Mapping, found: Supplied) -> dict[str, dict]:
    """Returns sections of the attacks that a user names: of the standard set, any other attack with
    its defaults, or a mapping of sections as it is.
    """
    if isinstance(wanted, Mapping):
        return {name: dict(dict(name=name) | section) for name, section in wanted.items()}
    names = [n.strip() for n in wanted.split(",")] if isinstance(wanted, str) else list(wanted)
    known = sections(found)
    return {
        name.rpartition(".")[2]: known.get(name, dict(name=name)) for name in names
    }  # a module of a user's own goes by its last name
