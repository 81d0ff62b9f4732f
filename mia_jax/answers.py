"""Which answers on disk an attack reads: its signals, changed by a defense where it has one, of every model.

An attack's general fields: `defense` (mia_jax/signals/transforms.py) stands between the attacker and the target's outputs; with `adaptive` the
attacker defends the shadows in the same way, without it the shadows answer undefended, thresholds included. A signal under a defense is a file of
its own, '<signal>@<defense>', unless it reads labels only and the defense leaves labels alone: then it is the same answer.
"""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np

from mia_jax import checks, registry, settings, views, workdir
from mia_jax.signals import transforms
from mia_jax.training import probing
from mia_jax.training import query as queries
from mia_jax.types import ACCESS, Attack, Design, Learner, Model, Pool, Signal

Path = pathlib.Path
GENERAL = settings.defaults(settings.AttackSettings)
LONGEST = 250  # bytes of a signal's name with its settings: a folder's name has at most 255


def own_fields(section: Mapping) -> dict:
    """A section of config.attacks without the general fields."""
    return {k: v for k, v in section.items() if k not in GENERAL}


def without_defaults(section: Mapping) -> dict:
    """A section of config.attacks without the general fields that are off."""
    return {k: v for k, v in section.items() if k not in GENERAL or v != GENERAL[k]}


def defense_of(audit, attack: str) -> tuple[str, bool]:
    """(defense, adaptive) of an attack."""
    section = audit.config["attacks"][attack]
    return section.get("defense", ""), section.get("adaptive", False)


def key_of(audit, attack: str):
    """The PRNG key of an attack, from (seed, name); behind a defense that of the same attack without one, so that equal answers give equal scores."""
    sections = audit.config["attacks"]
    same = [n for n, one in sections.items() if own_fields(one) == own_fields(sections[attack]) and not one.get("defense")]
    name = attack if attack in same or not same else same[0]
    return jax.random.fold_in(jax.random.key(audit.seed), zlib.crc32(name.encode()))


def check_defenses(sections: Mapping[str, Mapping], *, design: Design) -> None:
    """ValueError for an unknown defense, and for one of the target alone under a design whose targets are also shadows."""
    targets = list(design.targets)
    for name, section in sections.items():
        if section.get("defense"):
            transforms.make(section["defense"])
            if not section.get("adaptive") and design.shadow_MM[np.ix_(targets, targets)].any():
                raise ValueError(
                    f"attack {name!r}: defense={section['defense']!r} of the target alone needs targets that are nobody's shadows, and under the "
                    f"design {design.name!r} they are; set adaptive=True, or use the design blocks or disjoint, or bring a target."
                )
        elif section.get("adaptive"):
            raise ValueError(f"attack {name!r}: adaptive=True without a defense has nothing to adapt to.")


def defended(name: str, defense: str) -> str:
    """The name of a signal's file under a defense."""
    if not defense or (registry.make("signals", name).access == "labels" and transforms.make(defense).keeps_labels):
        return name
    return f"{name}@{defense}"


def check_real_attacks(attacks: Mapping[str, Attack]) -> None:
    """ValueError for an attack that reads the logits of classes where the data has real targets."""
    for name, attack in attacks.items():
        if "logits" in attack.needs:
            raise ValueError(
                f"attack {name!r} reads the logits of classes and the data has real targets (num_classes=0); give it a signal='loss' where it has "
                "that field, or use threshold, lira, reference, offset or population."
            )


def asked_signals(attacks: Mapping[str, Attack]) -> set[str]:
    """The signals that the attacks need."""
    return {need for attack in attacks.values() for need in attack.needs if need not in views.SHADOW_NEEDS + views.OTHER_NEEDS}


def names(attacks: Mapping[str, Attack], sections: Mapping[str, Mapping]) -> set[str]:
    """Every signal that the attacks need, without and with their defenses."""
    found = set()
    for name, one in attacks.items():
        needed = asked_signals({name: one})
        found |= {*needed, *(defended(need, sections[name].get("defense", "")) for need in needed)}
    return found


def read_by(audit, attack: str) -> list[str]:
    """The signals whose files an attack reads, sorted."""
    needed = sorted(set(audit.attacks[attack].needs) & audit.asked)
    return sorted({*needed, *(defended(need, defense_of(audit, attack)[0]) for need in needed)})


def make_signals(wanted: Iterable[str], *, pool: Pool, model: Model) -> dict[str, Signal]:
    """{the signal's one spelling: Signal}; ValueError for a signal that cannot be asked about these examples or of this model."""
    made = {}
    for name in sorted({registry.identity("signals", n) for n in wanted}):
        if len(name.encode()) > LONGEST:
            raise ValueError(f"signal {name!r} names a folder with all its settings, {len(name.encode())} bytes; at most {LONGEST} fit.")
        base, _, defense = name.partition("@")
        signal = registry.make("signals", base)
        checks.one_of(ACCESS, **{f"access of signal {base}": signal.access})
        if signal.check is not None:
            signal.check(pool.x)
        if signal.access == "white_box" and model.inside is None:
            raise ValueError(f"signal {base!r} looks inside the model, and this one has no Model.inside; models made by layers.as_model have.")
        if signal.access == "white_box" and not signal.shadows:
            check_inside(signal, pool=pool, model=model)
        if not pool.num_classes:
            check_real_targets(base, signal)
        made[name] = signal._replace(transform=transforms.make(defense).apply) if defense else signal
    return made


def check_inside(signal: Signal, *, pool: Pool, model: Model) -> None:
    """ValueError, before anything is trained, if the signal looks for something inside the model that is not there."""

    def ask(key, x, y, key_B):
        return signal.ask(probing.probe_of(model, model.init(key, x), signal=signal), x, y, key_B)

    key = jax.random.key(0)
    jax.eval_shape(ask, key, jax.numpy.asarray(pool.x[:1]), jax.numpy.asarray(pool.y[:1]), jax.random.split(key, 1))


def check_objective(learner: Learner, *, pool: Pool) -> None:
    """ValueError, before anything is trained, if the objective cannot measure this model's answers to these examples."""
    one = Pool(x=pool.x[:1], y=pool.y[:1], num_classes=pool.num_classes)

    def evaluate(key):
        return learner.evaluate(learner.init(key, one).variables, one, np.zeros(1, np.int32), np.ones(1, np.float32))

    jax.eval_shape(evaluate, jax.random.key(0))


def check_real_targets(name: str, signal: Signal) -> None:
    """ValueError that lists the signals for real targets if this one needs classes."""

    def takes(one: Signal) -> bool:
        try:
            jax.eval_shape(one.measure, jax.ShapeDtypeStruct((1, 1), np.float32), jax.ShapeDtypeStruct((1,), np.float32))
        except (ValueError, TypeError):
            return False
        return True

    if signal.measure is None or not takes(signal):
        others = {n: registry.make("signals", n) for n in registry.names("signals")}
        known = [n for n, one in others.items() if one.measure is not None and takes(one)]
        raise ValueError(
            f"signal {name!r} needs classes and the data has real targets (num_classes=0); signals for real targets: {', '.join(known)}."
        )


def wanted_rows(audit, name: str) -> np.ndarray:
    """[M,N]: the examples that a signal with questions of its own is asked about, model by model; those that some attack can read.

    A model's own evaluated rows; those of all models if an attack looks at shadows on the target's rows or no attack names the signal; and the
    population if an attack wants it. Under a defense of the target alone, the targets only.
    """
    design, same = audit.design, lambda n: registry.identity("signals", n)
    readers = [a for a in audit.attacks if same(name) in map(same, read_by(audit, a))]
    needs = [set(audit.attacks[a].needs) for a in readers]
    wanted_MN = design.evaluated_MN.copy()
    if not readers or any({"shadow_in", "shadow_out"} & own for own in needs):
        wanted_MN |= design.evaluated_MN.any(0)
    if any("population" in own for own in needs):
        wanted_MN |= design.population_N
    if "@" in name and not any(defense_of(audit, a)[1] for a in readers):
        wanted_MN[[m for m in range(len(wanted_MN)) if m not in design.targets]] = False
    return wanted_MN


def save_given(audit, *, folder: Path, begin: Callable = lambda: None) -> None:
    """The brought signals as files, of the design's last models."""
    for name, value_MAN in audit.given.items():
        first = len(audit.design.member_MN) - len(value_MAN)
        for i, value_AN in enumerate(value_MAN):
            path = queries.signal_file(folder / "signal", name, first + i)
            if not path.exists():
                begin()
                workdir.write_npy(path, value_AN, probing.place(audit.run, name, first + i))


def claim_signals(audit, *, folder: Path, begin: Callable = lambda: None) -> None:
    """Claims the folders of the answers; ValueError if those on disk are of other views or batches than this config's."""
    for own, config in _claims(audit, folder=folder):
        if not (own / "config.json").exists():
            begin()
        workdir.claim(own, config, remedy=_REMEDY)


def check_signals(audit, *, folder: Path) -> None:
    """ValueError if the answers on disk are of other views or batches than this config's."""
    for own, config in _claims(audit, folder=folder):
        workdir.check_claim(own, config, remedy=_REMEDY)


_REMEDY = "Use another workdir, or delete the folder signal/ to ask anew (and attack/, report/ with it)."


def _claims(audit, *, folder: Path) -> list[tuple[Path, dict]]:
    found = [(folder / "signal", {k: audit.config["query"][k] for k in ("views", "batch_size")})]
    asking = [name for name, signal in audit.signals.items() if signal is not None and signal.ask is not None]
    return found + [(folder / "signal" / name, dict(ask_batch_size=audit.config["query"]["ask_batch_size"])) for name in asking]


def load_fleet(audit, *, folder: Path, names: Sequence[str], attack: str | None = None, epoch: int | None = None) -> views.Fleet:
    """The measured signals of the whole fleet, as the attacker behind `attack` sees them (None: no defense); of snapshots after `epoch`."""
    check_signals(audit, folder=folder)
    defense, adaptive = defense_of(audit, attack) if attack else ("", False)
    signal = {}
    for name in names:
        there = [m for m in range(len(audit.design.member_MN)) if m not in audit.failed]
        files = [defended(name, defense if adaptive or m in audit.design.targets else "") for m in there]
        parts = [queries.load(folder / "signal", file, [m], run=audit.run, epoch=epoch) for m, file in zip(there, files, strict=True)]
        check_shapes(parts, [queries.signal_file(folder / "signal", file, m) for m, file in zip(there, files, strict=True)], audit)
        whole = max(parts, key=np.ndim)  # the file of a model that could not be asked has NaN and no components
        parts = [
            one if one.ndim == whole.ndim else np.broadcast_to(one.reshape(*one.shape, *(1,) * (whole.ndim - one.ndim)), whole.shape) for one in parts
        ]
        signal[name] = np.concatenate(parts)
        if audit.failed:  # NaN in the rows of the models that failed, which no attacker sees
            answered = signal[name]
            signal[name] = np.full((len(audit.design.member_MN), *answered.shape[1:]), np.nan, answered.dtype)
            signal[name][there] = answered
    pool = audit.pool
    return views.Fleet(design=audit.design, signal=signal, num_classes=pool.num_classes, x=pool.x, y=pool.y, columns=pool.columns)


def check_shapes(parts: Sequence[np.ndarray], paths: Sequence[Path], audit) -> None:
    """ValueError naming the file whose answers are not [1, views, examples, ...] like those of the other models."""
    views, examples = len(audit.config["query"]["views"]), len(audit.pool.y)
    rests = [one.shape[3:] for one in parts if one.ndim > 3]
    usual = max(rests, key=rests.count) if rests else ()
    for one, path in zip(parts, paths, strict=True):
        if one.shape[1:3] != (views, examples) or (one.ndim > 3 and one.shape[3:] != usual):
            error = ValueError(f"it holds an array of shape {list(one.shape[1:])}, expected {[views, examples, *usual]}")
            raise ValueError(workdir.damaged(path, error))
