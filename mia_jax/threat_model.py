"""Defines what an attacker of one target may see, between the fleet's files and an attack.

Arrays only; NumPy only.

Law: an attacker of target t never sees t's row nor its twin's among the shadows, never t's
membership, and nothing outside the attack's `needs`. The only exception is the need 'member', for
attacks that declare `knows='half_of_target_members'`: they are cross-fitted on the target's own
answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mia_jax.runtime.stacks import Stack

if TYPE_CHECKING:
    from mia_jax.types import Attack, Design

SHADOW_NEEDS = ("shadow_in", "shadow_out", "shadow_own")
OTHER_NEEDS = ("x", "y", "columns", "population", "member")
NEEDED = dict(
    shadow_in="shadow models that trained on some of the scored examples",
    shadow_out="shadow models that did not train on some of the scored examples",
    shadow_own="shadow models with members and non-members among the scored examples",
)
# What an attack with the need 'member' must declare in `knows`.
CROSS_FITTED = "half_of_target_members"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence against one target; a field outside the attack's needs is None, {} or NaN.

    Args:
        target: {signal: [A,N..]} of the target, NaN on rows that are neither evaluated nor (if
            needed) population rows.
        shadow: {signal: [M,A,N..]} of the M usable shadows only, NaN where `visible_MN` is False.
            The need 'shadow_in' shows a shadow's signals on the target's evaluated rows that it
            trained on, 'shadow_out' on those that it did not, 'shadow_own' on the shadow's own
            evaluated rows. Of large fleets a Stack.
        shadow_member_MN: which rows each shadow trained on; False where not visible.
        shadow_evaluated_MN: each shadow's own evaluated rows; False where not visible.
        visible_MN: where the shadows' signals are shown.
        evaluated_N: the rows that the attack scores.
        population_N: rows that no model trained on; the need 'population' also shows the target's
            and the shadows' signals there.
        num_classes: the number of classes; 0 where labels are not class numbers.
        x, y, columns: the examples, their labels and the user's columns.
        member_N: the target's own membership on its evaluated rows; only for cross-fitted attacks
            (need 'member').
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
    """Everything that was measured of a fleet.

    An attack's `score_all` reads it whole; `evidence_against` selects what an attacker of one
    target may see.

    Args:
        design: which model trained on what; model m is row m.
        signal: {name: [M,A,N..]} float32 (float64 for external arrays); of large fleets a Stack,
            which stays in its files.
        num_classes: the number of classes; 0 where labels are not class numbers.
        x, y, columns: the examples, their labels and the user's columns.
    """

    design: Design
    signal: Mapping[str, np.ndarray]
    num_classes: int
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def evidence_against(self, t: int, needs: tuple[str, ...], knows: str = "shadows") -> Evidence:
        """Returns the evidence of an attacker of model t, by what its attack needs and knows.

        Args:
            t: number of the target.
            needs: the attack's `needs`: names of signals and of other evidence.
            knows: the attack's `knows`.

        Raises:
            ValueError: The attack needs 'member' and does not declare it in `knows`.
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

    def of_records(self, record_K: np.ndarray) -> FleetSignals:
        """Returns what was measured about some of the examples."""
        d = self.design
        part = dict(
            member_MN=d.member_MN[:, record_K],
            evaluated_MN=d.evaluated_MN[:, record_K],
            population_N=d.population_N[record_K],
            extra_MN=None if d.extra_MN is None else d.extra_MN[:, record_K],
            coin_N=None if d.coin_N is None else d.coin_N[record_K],
            remake=None,
        )
        return dataclasses.replace(
            self,
            design=dataclasses.replace(d, **part),
            signal={name: value[:, :, record_K] for name, value in self.signal.items()},
            x=None if self.x is None else self.x[record_K],
            y=None if self.y is None else self.y[record_K],
            columns={name: np.asarray(value)[record_K] for name, value in self.columns.items()},
        )

    def refuse(self, attack: Attack, name: str) -> str:
        """Returns why this design cannot support the attack, or '' if it can."""
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
    """An attack of the audit, with everything that is decided before any stage runs.

    Args:
        name: its name in the config; also the folder of its scores.
        attack: the attack itself.
        section: its fields as configured, which its scores are claimed by and the report shows.
        key: PRNG key from (seed, name). Behind a defense it is the key of the same attack without
            the defense, so that equal answers give equal scores.
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
        """Returns whose knowledge fitted the attack."""
        return self.attack.knows

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the signals that it reads, without a defense, in the order of its needs."""
        return tuple(self.files)

    @property
    def signals(self) -> list[str]:
        """Returns the signals whose files it reads, without and with its defense, sorted."""
        return sorted({*self.files, *self.files.values()})

    @property
    def behind(self) -> tuple[str, bool]:
        """Returns (defense, adaptive): attacks with equal values read the same files."""
        return self.defense, self.adaptive

    def file(self, signal: str, *, target: bool) -> str:
        """Returns the name of the signal's file for a target, or for a shadow."""
        return self.files[signal] if target or self.adaptive else signal


def by_name(attacks: Sequence[PlannedAttack]) -> dict[str, PlannedAttack]:
    """Returns {name: attack}, in the given order."""
    return {attack.name: attack for attack in attacks}


def knowledge(attack: Attack) -> str:
    """Returns what an attack knows, 'population' if it reads rows that no model saw and no shadow.

    The scores of such an attack on one model depend on no other model.
    """
    if "population" in attack.needs and not set(attack.needs) & {*SHADOW_NEEDS, "member"}:
        return "population"
    return attack.knows


def asked_signals(attacks: Mapping[str, Attack]) -> set[str]:
    """Returns the names of the signals that the attacks need."""
    others = SHADOW_NEEDS + OTHER_NEEDS
    return {need for attack in attacks.values() for need in attack.needs if need not in others}


def balanced(inside_MN: np.ndarray, evaluated_N: np.ndarray, *, seed: int, t: int) -> np.ndarray:
    """Returns a mask that gives every evaluated row equally many IN and equally many OUT shadows.

    Where every example is in exactly k of the models, leaving the target out would leave k - 1 IN
    shadows to members and k to non-members, which reveals membership.

    Args:
        inside_MN: which rows each shadow trained on.
        evaluated_N: the rows that are scored.
        seed, t: the shadows that are kept are drawn from (seed, t) only.

    Returns:
        keep_MN, True where the shadow is kept for the row.
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


def _hide(value: Any, visible: np.ndarray) -> Any:
    """Returns signals [A,N..] or [M,A,N..] with NaN where `visible` [1,N] or [M,1,N] is False."""
    if isinstance(value, Stack):
        return value.hidden(visible[:, 0])
    visible = visible.reshape(visible.shape + (1,) * (value.ndim - visible.ndim))
    return np.where(visible, value, np.float32(np.nan))
