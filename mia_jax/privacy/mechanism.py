"""What a private training run does to the data, as one frozen object. Standard library alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

SAMPLINGS = ("poisson", "shuffle", "without_replacement", "balls_in_bins")
ADJACENCIES = ("add_remove", "zero_out", "replace_one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mechanism:
    """`steps` releases of (sum of clipped gradients + Gaussian noise) / expected_batch.

    `sampling` says who takes part in a step: 'poisson' (every unit with probability `rate`),
    'shuffle' (consecutive batches of a permutation drawn anew every `epoch_steps` steps),
    'without_replacement' (a fresh uniform batch of rate * n every step), 'balls_in_bins' (every
    unit in one uniform step of every `epoch_steps`). `clip_norm` C bounds the norm of a unit's
    gradient over all parameters. `adjacency`: two data sets are neighbors if one unit is added or
    removed, is replaced by one of zero gradient ('zero_out'), or by any other ('replace_one').

    `cap`: the most units of a Poisson batch; beyond it a uniform subset is kept (None: an overflow
    stops the run). `microbatch` > 1 clips the mean gradient of that many units together
    (TF-Privacy's microbatches: another mechanism). `count_std` > 0: every step also releases how
    many gradients were within the clip norm, with noise of this standard deviation (adaptive
    clipping). `unit` is 'example' or the column of users.
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
        if not self.epoch_steps:
            object.__setattr__(self, "epoch_steps", math.ceil(1 / self.rate - 1e-9))

    @property
    def sensitivity(self) -> float:
        """The most that one unit changes the sum: C for add_remove and zero_out, 2 C for
        replace_one and for microbatches.
        """
        return self.clip_norm * (2 if self.adjacency == "replace_one" or self.microbatch > 1 else 1)

    @property
    def num_units(self) -> int:
        """n = expected_batch / rate."""
        return round(self.expected_batch / self.rate)

    @property
    def gradient_multiplier(self) -> float:
        """The multiplier of the gradient's own noise: noise_multiplier z, or (z^-2 - (2
        count_std)^-2)^-1/2 when the count takes its share.

        The gradient and the count together then cost what one release of multiplier z does. (Andrew
        et al. 2021, arXiv:1905.03871, theorem 1.)
        """
        z = self.noise_multiplier
        return (z**-2 - (2 * self.count_std) ** -2) ** -0.5 if self.count_std and z else z

    def noise_std_of_sum(self) -> float:
        """Standard deviation of the noise of the sum of clipped gradients: multiplier *
        sensitivity, each coordinate.
        """
        return self.gradient_multiplier * self.sensitivity if self.noise_multiplier else 0.0

    @property
    def divisor(self) -> float:
        """What the noisy sum is divided by: expected_batch / microbatch, never the realized
        batch.
        """
        return self.expected_batch / self.microbatch

    def noise_std(self) -> float:
        """Standard deviation of the noise of the gradient that the optimizer sees: that of the sum
        / divisor.
        """
        return self.noise_std_of_sum() / self.divisor

    @property
    def epochs(self) -> int:
        """The epochs that were begun: in how many releases a unit takes part when it takes part
        once an epoch.
        """
        return -(-self.steps // self.epoch_steps)

    def after(self, steps: int) -> Mechanism:
        """The same mechanism after another number of steps."""
        return dataclasses.replace(self, steps=steps)

    def to_json(self) -> dict:
        """All fields as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping) -> Mechanism:
        """The mechanism of these fields."""
        return cls(**fields)

    def differences(self, ran: Mapping) -> list[str]:
        """One sentence a field in which a ledger of what ran (see ledger) is not this mechanism;
        numbers must agree to 1e-6 of themselves.
        """
        found = []
        for name, declared in ledger(self).items():
            if name not in ran:
                found.append(f"{name}: declared {declared}, not recorded")
            elif not _same(declared, ran[name]):
                found.append(f"{name}: declared {declared}, ran {ran[name]}")
        return found


def ledger(mechanism: Mechanism) -> dict:
    """What a run must record about itself: the fields and the noise that was added."""
    return mechanism.to_json() | dict(noise_std=mechanism.noise_std())


def _same(a, b) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=1e-6)
    return a == b
