"""What a private training run promises about its data, whether it kept to it, and what the promise
leaves out. No jax.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from mia_jax.privacy import accounting
from mia_jax.privacy.mechanism import Mechanism, ledger


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarantee:
    """The mechanism of a whole run, how it is accounted, and by which method its gradients are
    computed (which plays no part in the guarantee).

    `plan` is the sampler that was made from the mechanism. `budget`: the epsilon that no epoch may
    exceed (None: none was set); `wanted_epochs` were asked for, mechanism.epochs fit. `notes` are
    sentences for log and report.
    """

    mechanism: Mechanism
    delta: float
    accountant: str
    budget: float | None = None
    wanted_epochs: int = 0
    method: str = ""
    notes: tuple[str, ...] = ()
    plan: Callable | None = dataclasses.field(default=None, compare=False, repr=False)

    def epsilon(self, epochs: int) -> float:
        """Epsilon after so many whole epochs; 0 after none, inf without noise."""
        one = self.mechanism
        return accounting.epsilon(
            one.after(epochs * one.epoch_steps), delta=self.delta, accountant=self.accountant
        )

    def ran(self, *, steps: int, noise_multiplier: float, plan: Callable | None) -> dict:
        """The ledger of a run: the mechanism with what was counted while it trained, the steps and
        the multiplier of the noise that was added, and whether its batches were drawn by the
        mechanism's own `plan`.
        """
        one = self.mechanism
        found = ledger(one.after(steps)) | ({} if plan is self.plan else dict(sampling=OTHER_PLAN))
        if not steps:  # nothing was released, and no noise was there to be measured
            return found
        share = (
            noise_multiplier / one.gradient_multiplier
            if one.gradient_multiplier
            else math.inf
            if noise_multiplier
            else 1.0
        )
        return found | dict(
            noise_multiplier=one.noise_multiplier * share, noise_std=found["noise_std"] * share
        )

    def differences(self, ran: Mapping) -> list[str]:
        """In what a ledger is not this mechanism, stopped after the steps that it says it took (at
        most those declared).
        """
        steps = ran.get("steps")
        if isinstance(steps, int) and 0 <= steps <= self.mechanism.steps:
            return self.mechanism.after(steps).differences(ran)
        return self.mechanism.differences(ran)

    def claim(self, ledgers: Sequence[Mapping], *, delta: float | None = None) -> dict:
        """{epsilon, delta, accountant, adjacency, sampling, unit, others}, of the model that took
        most steps; epsilon None where a ledger differs, and where none is finite (no noise).

        `others` are the other accountants' epsilons where they support the mechanism; `refused`
        says in what ledgers differ.
        """
        delta = self.delta if delta is None else delta
        refused = [text for one in ledgers for text in self.differences(one)]
        one = (
            self.mechanism.after(max((entry["steps"] for entry in ledgers), default=0))
            if not refused
            else self.mechanism
        )
        found = dict(
            epsilon=None,
            delta=delta,
            accountant=self.accountant,
            adjacency=one.adjacency,
            sampling=one.sampling,
            unit=one.unit,
        )
        found |= dict(
            noise_multiplier=one.noise_multiplier,
            clip_norm=one.clip_norm,
            steps=one.steps,
            expected_batch=one.expected_batch,
        )
        found |= dict(
            others={},
            method=self.method,
            refused=sorted(set(refused)),
            notes=list(self.notes),
            covers=COVERS,
            not_covered=list(NOT_COVERED),
        )
        if refused:
            return found
        for accountant in accounting.ACCOUNTANTS:
            try:
                bound = accounting.bound(one, delta=delta, accountant=accountant)
            except ValueError:
                continue
            value = bound.epsilon if math.isfinite(bound.epsilon) else None  # JSON has no infinity
            if accountant == self.accountant:
                found |= dict(epsilon=value, accountant=bound.accountant)
                found["notes"] += unanswered(
                    bound, wanted=accountant, delta=delta, noise=one.noise_multiplier
                )
            elif (
                bound.accountant == accountant != found["accountant"]
            ):  # and not RDP's number a second time
                found["others"][
                    f"{accountant} ({accounting.APPROXIMATION})"
                    if accountant == "gdp"
                    else accountant
                ] = value
        return found


def unanswered(bound: accounting.Bound, *, wanted: str, delta: float, noise: float) -> list[str]:
    """What to tell of an accountant that has no finite epsilon, [] as a rule."""
    why = (
        f"The accountant {wanted!r} has no finite epsilon at noise multiplier {noise:.3g} and "
        f"delta {delta:.3g}, which floats do not resolve"
    )
    if bound.accountant != wanted:
        return [f"{why}; the number is that of {bound.accountant!r}, an upper bound too."]
    return (
        [f"{why}. Raise noise_multiplier or delta."]
        if noise and not math.isfinite(bound.epsilon)
        else []
    )


OTHER_PLAN = "a plan that is not the mechanism's"
COVERS = "the final variables, and all intermediate ones, of one model of the fleet"
NOT_COVERED = (
    "several models together: M models of overlapping rows compose, and so does everything that is "
    "computed from their answers",
    "losses, accuracies and shares of clipped gradients in metrics.jsonl and in this report: they "
    "are computed from private rows without noise",
    "the choice of hyper-parameters on these rows, and standardization or other preparation fitted "
    "on them",
    "readers of the seed: whoever knows it, or can try all seeds of its size, subtracts the noise; "
    "and the gaps of floating-point noise",
)
