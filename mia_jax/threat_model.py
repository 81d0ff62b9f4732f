"""What an attacker of one target may see: the only door between the fleet's files and an attack.

Arrays only; NumPy only.

Law: an attacker of t never sees t's row nor its twin's among the shadows, never t's membership, and
nothing outside the attack's `needs`. The one exception is the need 'member', for attacks that say
`knows='half_of_target_members'`: cross-fits on the target's own answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mia_jax.types import Attack, Design

SHADOW_NEEDS = ("shadow_in", "shadow_out", "shadow_own")
OTHER_NEEDS = ("x", "y", "columns", "population", "member")
NEEDED = dict(
    shadow_in="shadow models that trained on some of the scored examples",
    shadow_out="shadow models that did not train on some of the scored examples",
    shadow_own="shadow models with members and non-members among the scored examples",
)
CROSS_FITTED = (
    "half_of_target_members"  # what an attack with the need 'member' must say that it knows
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence against one target; a field outside the attack's needs is None, {} or NaN.

    `target[name]` is [A,N..]: the target's signal, NaN on rows that are neither evaluated nor (if
    needed) population rows. `shadow[name]` is [M,A,N..] over the M usable shadows only, NaN where
    `visible_MN` is False. `shadow_member_MN` is False where not visible. 'shadow_in'/'shadow_out'
    show a shadow's signals on the target's evaluated rows that it did / did not train on;
    'shadow_own' shows each shadow on its own evaluated rows (`shadow_evaluated_MN`); 'population'
    adds the population rows of target and shadows. `member_N`, the target's own membership on its
    evaluated rows, is None but for cross-fitted attacks ('member').
    """

    target: Mapping[str, np.ndarray]
    shadow: Mapping[str, np.ndarray]
    shadow_member_MN: np.ndarray | None
    shadow_evaluated_MN: np.ndarray | None
    visible_MN: np.ndarray | None
    evaluated_N: np.ndarray
    population_N: np.ndarray | None
    num_classes: int
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    member_N: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetSignals:
    """Everything that was measured: `signal[name]` is [M,A,N..] float32 (float64 where arrays were
    supplied), model m = row m of the design.

    An attack's `score_all` reads it whole; `evidence_against` cuts out what an attacker of one
    target may see.
    """

    design: Design
    signal: Mapping[str, np.ndarray]
    num_classes: int
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def evidence_against(self, t: int, needs: tuple[str, ...], knows: str = "shadows") -> Evidence:
        """Returns the Evidence of an attacker of model t whose attack declares `needs` and `knows`;
        ValueError if it needs 'member' and does not say so.
        """
        if "member" in needs and knows != CROSS_FITTED:
            raise ValueError(
                "an attack that needs the target's membership must declare "
                f"knows={CROSS_FITTED!r}, not {knows!r}."
            )
        d = self.design
        shadows = np.flatnonzero(d.shadow_MM[t])
        uses = [n for n in needs if n in SHADOW_NEEDS]
        signals = [n for n in needs if n not in SHADOW_NEEDS + OTHER_NEEDS]
        evaluated_N = d.evaluated_MN[t]
        population_N = d.population_N if "population" in needs else None
        target_N = evaluated_N if population_N is None else evaluated_N | population_N
        member_MN = visible_MN = own_MN = None
        shadow = {}
        if uses:
            inside_MN, own_MN = d.member_MN[shadows], d.evaluated_MN[shadows]
            visible_MN = np.zeros_like(inside_MN)
            if "shadow_in" in uses:
                visible_MN |= inside_MN & evaluated_N
            if "shadow_out" in uses:
                visible_MN |= ~inside_MN & evaluated_N
            if "shadow_own" in uses:
                visible_MN |= own_MN
            if population_N is not None:
                visible_MN |= population_N & ~inside_MN
            if d.balance:
                visible_MN &= balanced(inside_MN, evaluated_N, seed=d.seed, t=t) | ~evaluated_N
            member_MN, own_MN = inside_MN & visible_MN, own_MN & visible_MN
            shadow = {n: _hide(self.signal[n][shadows], visible_MN[:, None]) for n in signals}
        return Evidence(
            target={n: _hide(self.signal[n][t], target_N[None]) for n in signals},
            shadow=shadow,
            shadow_member_MN=member_MN,
            shadow_evaluated_MN=own_MN,
            visible_MN=visible_MN,
            evaluated_N=evaluated_N,
            population_N=population_N,
            num_classes=self.num_classes,
            x=self.x if "x" in needs else None,
            y=self.y if "y" in needs else None,
            columns=self.columns if "columns" in needs else {},
            member_N=d.member_MN[t] & evaluated_N if "member" in needs else None,
        )

    def refuse(self, attack: Attack, name: str) -> str:
        """Why this design cannot carry the attack ('' if it can)."""
        d = self.design
        if "member" in attack.needs and attack.knows != CROSS_FITTED:
            return (
                f"attack {name!r} needs the target's membership and must declare "
                f"knows={CROSS_FITTED!r}, not {attack.knows!r}."
            )
        lacking = [n for n in attack.needs if n in SHADOW_NEEDS and n not in d.supports]
        if lacking:
            if d.name == "supplied":
                needed = " and ".join(NEEDED[n] for n in lacking)
                return (
                    f"attack {name!r} needs {needed}: {d.note}. Pass shadow_<key> and "
                    "shadow_member of such models."
                )
            return (
                f"attack {name!r} needs {', '.join(lacking)}, which the design {d.name!r} cannot "
                f"give ({d.note})."
            )
        if "population" in attack.needs and not d.population_N.any():
            if d.name == "supplied":
                return (
                    f"attack {name!r} needs population rows that no model trained on, and there "
                    "are none: pass population_<key>."
                )
            remedy = "set design.population, or pass population_x with the data"
            return (
                f"attack {name!r} needs population rows that no model trained on, and the design "
                f"{d.name!r} keeps none: {remedy}."
            )
        return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedAttack:
    """One attack of an audit.

    Args:
      name: its name in the config; also the folder of its scores.
      attack: the attack itself.
      section: its fields as configured, which its scores are claimed by and the report shows.
      key: PRNG key from (seed, name); behind a defense that of the same attack without one, so
        that equal answers give equal scores.
      defense: what changes the target's outputs before the attacker sees them; '' for none.
      adaptive: whether the attacker defends the shadows in the same way.
      files: {signal that it reads: the signal's name behind the defense}.
    """

    name: str
    attack: Attack
    section: Mapping[str, Any]
    key: Any
    defense: str = ""
    adaptive: bool = False
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def knows(self) -> str:
        """Whose knowledge fitted the attack."""
        return self.attack.knows

    @property
    def reads(self) -> tuple[str, ...]:
        """The signals that it reads, in the order of the attack's needs, without defense."""
        return tuple(self.files)

    @property
    def signals(self) -> list[str]:
        """The signals whose files it reads, without and with its defense, sorted."""
        return sorted({*self.files, *self.files.values()})

    @property
    def behind(self) -> tuple[str, bool]:
        """(defense, adaptive): attacks behind the same one read the same files."""
        return self.defense, self.adaptive

    def file(self, signal: str, *, target: bool) -> str:
        """The name of the signal's file for a target, or for a shadow."""
        return self.files[signal] if target or self.adaptive else signal


def by_name(attacks: Sequence[PlannedAttack]) -> dict[str, PlannedAttack]:
    """{name: attack}, in their order."""
    return {attack.name: attack for attack in attacks}


def asked_signals(attacks: Mapping[str, Attack]) -> set[str]:
    """The signals that attacks need."""
    others = SHADOW_NEEDS + OTHER_NEEDS
    return {need for attack in attacks.values() for need in attack.needs if need not in others}


def balanced(inside_MN: np.ndarray, evaluated_N: np.ndarray, *, seed: int, t: int) -> np.ndarray:
    """keep_MN with the same number of IN and the same number of OUT shadows on every evaluated row,
    drawn from (seed, t) alone.

    With every example in exactly k of the models, leaving the target out would leave k - 1 IN
    shadows to members and k to non-members.
    """
    rank_MN = np.random.default_rng([seed, t]).permuted(
        np.broadcast_to(np.arange(len(inside_MN))[:, None], inside_MN.shape), axis=0
    )
    keep_MN = np.zeros_like(inside_MN)
    for side_MN in (inside_MN, ~inside_MN):
        fewest = int(side_MN[:, evaluated_N].sum(0).min())
        order_MN = np.argsort(np.where(side_MN, rank_MN, len(inside_MN)), axis=0)
        place_MN = np.argsort(order_MN, axis=0)
        keep_MN |= side_MN & (place_MN < fewest)
    return keep_MN


def _hide(value: np.ndarray, visible: np.ndarray) -> np.ndarray:
    visible = visible.reshape(visible.shape + (1,) * (value.ndim - visible.ndim))
    return np.where(visible, value, np.float32(np.nan))
