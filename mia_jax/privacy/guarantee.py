"""States what a private training run promises and does not promise, and checks what it did.

This file does not use jax.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from mia_jax.privacy import accounting, risk
from mia_jax.privacy.mechanism import Mechanism, ledger


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarantee:
    """Holds the mechanism of a whole run and how it is accounted.

    Attributes:
        mechanism: the mechanism.
        delta: the delta of the claim.
        accountant: the accountant of the claim.
        budget: the epsilon that no epoch may exceed; None if there is none.
        requested_epochs: the number of requested epochs; mechanism.epochs of them fit the budget.
        method: how the clipped gradients are computed, which does not affect the guarantee.
        notes: sentences for the log and the report.
        coefficients: with correlated noise, the first column of the matrix (privacy/banded.py).
        plan: the sampler that was made from the mechanism.
    """

    mechanism: Mechanism
    delta: float
    accountant: str
    budget: float | None = None
    requested_epochs: int = 0
    method: str = ""
    notes: tuple[str, ...] = ()
    coefficients: tuple[float, ...] = (1.0,)
    plan: Callable | None = dataclasses.field(default=None, compare=False, repr=False)

    def epsilon(self, epochs: int) -> float:
        """Returns epsilon after this number of whole epochs; 0 after none, inf without noise."""
        released = self.mechanism.after(epochs * self.mechanism.epoch_steps)
        return accounting.epsilon(released, delta=self.delta, accountant=self.accountant)

    def ran(self, *, steps: int, noise_multiplier: float, plan: Callable | None) -> dict:
        """Returns the ledger of a run: the mechanism with what was counted during the training.

        Args:
            steps: the steps that were taken.
            noise_multiplier: the multiplier of the noise that was added.
            plan: the plan that drew the batches; the ledger records whether it is that of the
                mechanism.
        """
        declared = self.mechanism
        entry = ledger(declared.after(steps))
        if declared.bands > 1:
            entry |= dict(coefficients=list(self.coefficients))
        if plan is not self.plan:
            entry |= dict(sampling=OTHER_PLAN)
        if not steps:  # Nothing was released, so there was no noise to measure.
            return entry
        if declared.gradient_multiplier:
            share = noise_multiplier / declared.gradient_multiplier
        else:
            share = math.inf if noise_multiplier else 1.0
        return entry | dict(
            noise_multiplier=declared.noise_multiplier * share, noise_std=entry["noise_std"] * share
        )

    def differences(self, ran: Mapping) -> list[str]:
        """Returns the differences between a ledger and this mechanism.

        The mechanism is compared after the steps that the ledger records, if they are at most those
        declared.
        """
        steps = ran.get("steps")
        if isinstance(steps, int) and 0 <= steps <= self.mechanism.steps:
            return self.mechanism.after(steps).differences(ran)
        return self.mechanism.differences(ran)

    def claim(self, ledgers: Sequence[Mapping], *, delta: float | None = None) -> dict:
        """Returns the claim of the model that took most steps, as a dict of plain values.

        Args:
            ledgers: the ledgers of the models.
            delta: None for that of the guarantee.

        Returns:
            {epsilon, delta, accountant, adjacency, sampling, unit, others, ...}. `epsilon` is None
                if a ledger differs from the mechanism, or if it is not finite (no noise). `proven`
                is what privacy loss distributions say about attacks (privacy/risk.py; None where
                they say nothing), `last_iterate` a heuristic for the final model alone. `others`
                are the epsilons of the other accountants that support the mechanism. `refused`
                lists the differences of the ledgers.
        """
        delta = self.delta if delta is None else delta
        refused = [text for entry in ledgers for text in self.differences(entry)]
        ran = self.mechanism
        if not refused:
            ran = ran.after(max((entry["steps"] for entry in ledgers), default=0))
        claim = dict(
            epsilon=None,
            delta=delta,
            accountant=self.accountant,
            adjacency=ran.adjacency,
            sampling=ran.sampling,
            bands=ran.bands,
            unit=ran.unit,
        )
        claim |= dict(
            noise_multiplier=ran.noise_multiplier,
            clip_norm=ran.clip_norm,
            steps=ran.steps,
            expected_batch=ran.expected_batch,
        )
        claim |= dict(
            others={},
            proven=None,
            last_iterate=None,
            method=self.method,
            refused=sorted(set(refused)),
            notes=list(self.notes),
            covers=COVERS,
            not_covered=list(NOT_COVERED),
        )
        if refused:
            return claim
        if ran.noise_multiplier:
            claim |= about_attacks(ran, delta=delta)
        for accountant in accounting.ACCOUNTANTS:
            try:
                bound = accounting.bound(ran, delta=delta, accountant=accountant)
            except ValueError:
                continue
            value = bound.epsilon if math.isfinite(bound.epsilon) else None  # JSON has no infinity.
            if accountant == self.accountant:
                claim |= dict(epsilon=value, accountant=bound.accountant)
                claim["notes"] += unanswered(
                    bound, requested=accountant, delta=delta, noise=ran.noise_multiplier
                )
            # If RDP already answered for the accountant of the claim, it is not repeated here.
            elif bound.accountant == accountant != claim["accountant"]:
                name = accountant
                if accountant == "gdp":
                    name = f"{accountant} ({accounting.APPROXIMATION})"
                claim["others"][name] = value
        return claim


def about_attacks(mechanism: Mechanism, *, delta: float) -> dict:
    """Returns {proven, last_iterate} of a mechanism with noise.

    `proven` holds {epsilon, remove, add}, pairs of (epsilon, delta) from which the largest TPR at
    every FPR follows, and {advantage, rates}: the largest TPR - FPR, and {fpr, tpr, posterior} at
    RATES with the largest precision at each of PRIORS.
    """
    heuristic = risk.last_iterate_epsilon(mechanism, delta=delta)
    if heuristic is not None and not math.isfinite(heuristic):
        heuristic = None  # JSON has no infinity.
    try:
        result = risk.proven(mechanism)
    except ValueError:  # Privacy loss distributions do not support this mechanism.
        return dict(proven=None, last_iterate=heuristic)
    rates = [
        dict(
            fpr=fpr,
            tpr=float(result.tpr(fpr)),
            posterior=[result.posterior(prior=prior, fpr=fpr) for prior in PRIORS],
        )
        for fpr in RATES
    ]
    proven = risk.to_json(result) | dict(
        advantage=result.advantage, rates=rates, priors=list(PRIORS)
    )
    return dict(proven=proven, last_iterate=heuristic)


def unanswered(bound: accounting.Bound, *, requested: str, delta: float, noise: float) -> list[str]:
    """Returns a note about an accountant without a finite epsilon; usually []."""
    why = (
        f"The accountant {requested!r} has no finite epsilon at noise multiplier {noise:.3g} and "
        f"delta {delta:.3g}, which floats do not resolve"
    )
    if bound.accountant != requested:
        return [f"{why}; the number is that of {bound.accountant!r}, an upper bound too."]
    return (
        [f"{why}. Raise noise_multiplier or delta."]
        if noise and not math.isfinite(bound.epsilon)
        else []
    )


RATES = (0.001, 0.01, 0.1)  # false-positive rates at which the report says what is proven
PRIORS = (0.5, 0.1)  # shares of members among the units that an attack decides about
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
