"""Describes what a private training run does to the data, as one frozen object.

This file uses the standard library only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

SAMPLINGS = ("poisson", "shuffle", "without_replacement", "balls_in_bins", "cyclic_poisson")
ADJACENCIES = ("add_remove", "zero_out", "replace_one")
OLDER = dict(bands=1)  # fields that ledgers of older versions lack, and what was true of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Describes `steps` releases of (sum of clipped gradients + Gaussian noise) / expected_batch.

    Attributes:
        sampling: which units take part in a step. 'poisson': every unit with probability `rate`.
            'shuffle': consecutive batches of a permutation that is drawn again every `epoch_steps`
            steps. 'without_replacement': a new uniform batch of rate * n units every step.
            'balls_in_bins': every unit in one uniform step of every `epoch_steps`.
            'cyclic_poisson': every unit belongs to one of `bands` groups, drawn once, uniformly and
            independently; step t takes every unit of group t mod bands with probability
            rate * bands, and no other unit.
        rate: the probability that a unit takes part in a step (batch size / rows).
        clip_norm: C, a bound on the norm of a unit's gradient over all parameters.
        noise_multiplier: the standard deviation of the noise / sensitivity.
        expected_batch: the expected number of units per step.
        steps: the number of releases.
        adjacency: which data sets are neighbors. 'add_remove': one unit is added or removed.
            'zero_out': one unit is replaced by one with a zero gradient. 'replace_one': one unit is
            replaced by any other.
        epoch_steps: the number of steps per epoch; 0 for 1 / rate, rounded up.
        cap: the most units of a Poisson batch; of a larger batch a uniform subset is kept. None: a
            batch with more units than slots stops the run.
        microbatch: if > 1, the mean gradient of this many units together is clipped (microbatches
            of TF-Privacy, which are a different mechanism).
        count_std: if > 0, every step also releases how many gradients were within the clip norm,
            with noise of this standard deviation (adaptive clipping).
        bands: the number of bands of the lower-triangular matrix C whose inverse correlates the
            noise of the steps (privacy/banded.py), and the number of groups of 'cyclic_poisson'.
            Whoever takes part in step t takes part again in step t + bands at the earliest, so that
            the columns of C that belong to the participations of a unit are orthogonal. 1 means
            independent noise.
        unit: 'example', or the column of users.
    """

    sampling: str
    rate: float
    clip_norm: float
    noise_multiplier: float
    expected_batch: float
    steps: int
    adjacency: str = "add_remove"
    epoch_steps: int = 0
    cap: int | None = None
    microbatch: int = 1
    count_std: float = 0.0
    bands: int = 1
    unit: str = "example"

    def __post_init__(self):
        for name, value, allowed in (
            ("sampling", self.sampling, SAMPLINGS),
            ("adjacency", self.adjacency, ADJACENCIES),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} is not one of {list(allowed)}.")
        if not 0 < self.rate <= 1:
            raise ValueError(
                f"rate={self.rate} must lie in (0, 1]: the probability that a unit takes part in a "
                "step (batch size / rows)."
            )
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm={self.clip_norm} must be > 0.")
        for name in ("noise_multiplier", "steps", "count_std", "epoch_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0.")
        if not self.expected_batch > 0:
            raise ValueError(f"expected_batch={self.expected_batch} must be > 0.")
        if self.microbatch < 1 or (self.cap is not None and self.cap < 1):
            raise ValueError(f"microbatch={self.microbatch} and cap={self.cap} must be at least 1.")
        if self.noise_multiplier > 0 and math.isinf(self.clip_norm):
            raise ValueError(
                "clip_norm=inf bounds no gradient, so no noise is enough; set a finite clip_norm "
                "or noise_multiplier=0."
            )
        if self.count_std and 2 * self.count_std <= self.noise_multiplier:
            raise ValueError(
                f"count_std={self.count_std} spends more than the whole privacy of "
                f"noise_multiplier={self.noise_multiplier}; it must exceed "
                f"{self.noise_multiplier / 2:g} (a usual value is expected_batch / 20)."
            )
        if self.bands < 1:
            raise ValueError(f"bands={self.bands} must be at least 1.")
        if self.bands > 1 and self.sampling != "cyclic_poisson":
            raise ValueError(
                f"bands={self.bands}: sampling={self.sampling!r} lets a unit take part in steps "
                f"that are fewer than {self.bands} apart, which noise that is correlated over them "
                "does not protect. Use sampling='cyclic_poisson', or bands=1."
            )
        if self.rate * self.bands > 1 + 1e-9:
            raise ValueError(
                f"bands={self.bands}: every unit of a group would take part with probability "
                f"rate * bands = {self.rate * self.bands:.4g}, which must be at most 1. Use at "
                f"most {int(1 / self.rate + 1e-9)} bands, or smaller batches."
            )
        changed = dict(cap=self.cap is not None, count_std=self.count_std > 0)
        changed |= dict(microbatch=self.microbatch > 1)
        if self.sampling == "cyclic_poisson" and any(changed.values()):
            name = next(name for name, set_ in changed.items() if set_)
            raise ValueError(
                f"{name}={getattr(self, name)} has no accounting with sampling='cyclic_poisson'; "
                "leave it out, or use sampling='poisson' with independent noise."
            )
        if not self.epoch_steps:
            object.__setattr__(self, "epoch_steps", math.ceil(1 / self.rate - 1e-9))

    @property
    def sensitivity(self) -> float:
        """Returns the largest change of the sum by one unit.

        It is C for add_remove and zero_out, and 2 C for replace_one and for microbatches.
        """
        return self.clip_norm * (2 if self.adjacency == "replace_one" or self.microbatch > 1 else 1)

    @property
    def num_units(self) -> int:
        """Returns the number of units n = expected_batch / rate."""
        return round(self.expected_batch / self.rate)

    @property
    def gradient_multiplier(self) -> float:
        """Returns the noise multiplier of the gradient itself.

        It is noise_multiplier z, or (z^-2 - (2 count_std)^-2)^-1/2 if a count is released as well.
        The gradient and the count together then cost what one release of multiplier z does (Andrew
        et al. 2021, arXiv:1905.03871, theorem 1).
        """
        z = self.noise_multiplier
        return (z**-2 - (2 * self.count_std) ** -2) ** -0.5 if self.count_std and z else z

    def noise_std_of_sum(self) -> float:
        """Returns the standard deviation of the noise in the sum of clipped gradients.

        It is multiplier * sensitivity, for each coordinate. With bands > 1 it is that of the
        independent noise of a step, before the inverse of C, whose columns have norm 1, correlates
        the steps.
        """
        return self.gradient_multiplier * self.sensitivity if self.noise_multiplier else 0.0

    @property
    def divisor(self) -> float:
        """Returns the divisor of the noisy sum, expected_batch / microbatch.

        It is never the size of the realized batch.
        """
        return self.expected_batch / self.microbatch

    def noise_std(self) -> float:
        """Returns the standard deviation of the noise in the gradient that the optimizer sees.

        It is that of the sum / divisor.
        """
        return self.noise_std_of_sum() / self.divisor

    @property
    def epochs(self) -> int:
        """Returns the number of epochs that were begun.

        This is the number of releases in which a unit takes part if it takes part once per epoch.
        """
        return -(-self.steps // self.epoch_steps)

    @property
    def releases(self) -> int:
        """Returns the number of releases in which a unit may take part.

        These are all steps of Poisson sampling and sampling without replacement, every `bands`-th
        of cyclic Poisson sampling, and one per epoch of the samplings in which a unit takes part
        once per epoch.
        """
        if self.sampling in ("shuffle", "balls_in_bins"):
            return self.epochs
        return -(-self.steps // self.bands)

    @property
    def release_rate(self) -> float:
        """Returns the probability with which a unit takes part in each of `releases`."""
        if self.sampling in ("shuffle", "balls_in_bins"):
            return 1.0
        return min(1.0, self.rate * self.bands)

    def after(self, steps: int) -> Mechanism:
        """Returns the same mechanism after another number of steps."""
        return dataclasses.replace(self, steps=steps)

    def to_json(self) -> dict:
        """Returns all fields as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping) -> Mechanism:
        """Returns the mechanism of these fields."""
        return cls(**fields)

    def differences(self, ran: Mapping) -> list[str]:
        """Returns one sentence per field in which a ledger of what ran differs from this mechanism.

        Numbers must agree to 1e-6 of themselves. See `ledger`.
        """
        sentences = []
        for name, declared in ledger(self).items():
            if name not in ran and name not in OLDER:
                sentences.append(f"{name}: declared {declared}, not recorded")
            elif not _same(declared, value := ran.get(name, OLDER.get(name))):
                sentences.append(f"{name}: declared {declared}, ran {value}")
        return sentences


def ledger(mechanism: Mechanism) -> dict:
    """Returns what a run must record about itself: the fields and the noise that was added."""
    return mechanism.to_json() | dict(noise_std=mechanism.noise_std())


def _same(a, b) -> bool:
    """Returns whether two values agree, numbers to 1e-6 of themselves."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=1e-6)
    return a == b
