"""Makes the attacks of config.attacks and decides for each its defense, key and signal files."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import jax

from mia_jax import defenses, registry
from mia_jax.external import default_attacks
from mia_jax.pipeline.attack import own_fields
from mia_jax.pipeline.build_parts import make
from mia_jax.threat_model import PlannedAttack, asked_signals
from mia_jax.types import Attack


def make_attacks(
    sections: Mapping[str, Mapping], *, have: Iterable[str] | None = None
) -> dict[str, Attack]:
    """Returns {name: Attack} of config.attacks.

    Args:
      sections: config.attacks.
      have: the signals that the user supplied, which are all that can be read; None: others can be
        asked.
    """
    if have is not None:
        sections = {n: default_attacks.readable(section, have) for n, section in sections.items()}
    return {name: make("attacks", own_fields(section)) for name, section in sections.items()}


def plan_attacks(
    attacks: Mapping[str, Attack], sections: Mapping[str, Mapping], *, seed: int
) -> tuple[PlannedAttack, ...]:
    """Returns the planned attacks, each with its defense, key and signal files.

    The key derives from (seed, name). An attack behind a defense has the key of the same attack
    without a defense, if there is one, so that equal answers give equal scores.

    Args:
      attacks: {name: Attack}.
      sections: config.attacks.
      seed: the seed of the run.
    """
    planned = []
    for name, attack in attacks.items():
        section = sections[name]
        defense, adaptive = section.get("defense", ""), section.get("adaptive", False)
        same = [
            other
            for other, its in sections.items()
            if own_fields(its) == own_fields(section) and not its.get("defense")
        ]
        key_name = name if name in same or not same else same[0]
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(key_name.encode()))
        signals = asked_signals({name: attack})
        signal_files = {n: defended(n, defense) for n in attack.needs if n in signals}
        planned.append(
            PlannedAttack(
                name=name,
                attack=attack,
                section=section,
                key=key,
                defense=defense,
                adaptive=adaptive,
                files=signal_files,
            )
        )
    return tuple(planned)


def defended(name: str, defense: str) -> str:
    """Returns the name of a signal's files behind a defense.

    It is '<signal>@<defense>'. A signal that reads labels only keeps its name behind a defense that
    does not change labels, because the answers are the same.
    """
    if not defense:
        return name
    labels = registry.make("signals", name).access == "labels"
    if labels and defenses.make(defense).keeps_labels:
        return name
    return f"{name}@{defense}"
