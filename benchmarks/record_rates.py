"""Compares rates pooled over records with rates that hold for each of them, where both are known.

    python -m benchmarks.record_rates [--quick] [--repeats 200] [--figure docs/record_rates.png]

A fleet has units of two complementary targets. The signal of record n is d_n + mu_n member + N(0,
1), where mu_n is 0.3 for 80% of the records, 1.5 for 15% and 3 for 5% ('null': 0 for all); the
members of 'shifted targets' share a further N(0, 0.09) of their target. Two attacks read it:

  * 'likelihood ratio' knows d_n and mu_n, so that its score is mu_n (signal - d_n) - mu_n^2 / 2.
    One threshold for all records spends its false positives on those that are exposed.
  * 'threshold' takes the signal as it is, with d_n of standard deviation 2. One threshold accuses
    the records with a large d_n and no others.

The pooled TPR and the TPR of an attacker who knows the distributions of every record are integrals
of normal distributions. The per-record rate of a report is that of an attacker who compares with
k models; where the variances are equal it is a closed form too (`of_k_models`), otherwise it is
measured on large fleets. 'Own model included' standardizes each score by the mean and variance of
all models without the record, the scored model among them: the mistake.

For every number the table has its true value, the mean of the estimates and the share of intervals
that contain the true value.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from mia_jax.metrics import record_rates

FPRS = (0.01, 0.1)
LEAKS = {0.3: 0.8, 1.5: 0.15, 3.0: 0.05}  # mu: share of the records
NO_LEAK = {0.0: 1.0}
LARGE = 4000  # records of the fleets that measure what has no closed form
SPREAD = 2.0  # of d_n, for 'threshold'


class Case(NamedTuple):
    """Describes a population of fleets.

    Attributes:
        attack: 'likelihood ratio' or 'threshold'.
        units: pairs of complementary targets.
        leaks: the share of the records with each mu.
        records: the number of records.
        shift: the standard deviation of a shift that all members of a target share.
    """

    attack: str
    units: int
    leaks: dict[float, float] = LEAKS
    records: int = 300
    shift: float = 0.0

    @property
    def models(self) -> int:
        """Returns k: a unit has one model without the record, and a fold half of the units."""
        return self.units // 2 - 1


CASES = {
    "likelihood ratio, 16 targets": Case("likelihood ratio", 8),
    "likelihood ratio, 64 targets": Case("likelihood ratio", 32),
    "threshold, 16 targets": Case("threshold", 8),
    "threshold, 64 targets": Case("threshold", 32),
    "threshold, shifted targets, 64 targets": Case("threshold", 32, shift=0.3),
    "null, 16 targets": Case("threshold", 8, NO_LEAK),
    "null, 64 targets": Case("threshold", 32, NO_LEAK),
}


def fleet(
    rng: np.random.Generator, case: Case, *, records: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws (score_TN, member_TN) of one fleet."""
    n = records or case.records
    first = rng.random((case.units, n)) < 0.5
    member = np.stack([first, ~first], 1).reshape(-1, n)
    mu = rng.choice(list(case.leaks), p=list(case.leaks.values()), size=n)
    shift = case.shift * rng.normal(size=(len(member), 1))
    signal = (mu + shift) * member + rng.normal(size=member.shape)
    if case.attack == "likelihood ratio":
        return mu * signal - mu**2 / 2, member
    return SPREAD * rng.normal(size=n) + signal, member


def measured(score, member, fprs: Sequence[float] = FPRS, seed: int = 0) -> dict:
    """Returns `record_rates.measure` of a fleet of complementary targets in two folds."""
    unit = np.arange(len(score)) // 2
    return record_rates.measure(
        score, member, np.ones_like(member), unit_T=unit, fold_T=unit % 2, fprs=fprs, seed=seed
    )


def pooled(case: Case, fpr: float) -> float:
    """Returns the true TPR of one threshold for all records, at a mean FPR of `fpr`."""
    mu, share = np.array(list(case.leaks)), np.array(list(case.leaks.values()))
    if case.attack == "threshold":
        threshold = -special.ndtri(fpr) * np.hypot(1, SPREAD)
        return float(share @ special.ndtr((mu - threshold) / np.hypot(SPREAD, member_sd(case))))

    def rate(threshold: float, member: int) -> float:
        return float(share @ special.ndtr((mu**2 * (member - 0.5) - threshold) / mu))

    threshold = optimize.brentq(lambda c: rate(c, 0) - fpr, -20, 40)
    return rate(threshold, 1)


def ideal(case: Case, fpr: float) -> float:
    """Returns the mean over records of the largest TPR at this FPR: Phi(mu + Phi^-1(fpr)).

    Of one threshold on the signal; the shifts of targets add to the variance of members.
    """
    return sum(
        s * float(special.ndtr((mu + special.ndtri(fpr)) / member_sd(case)))
        for mu, s in case.leaks.items()
    )


def member_sd(case: Case) -> float:
    """Returns the standard deviation of a member's signal."""
    return float(np.hypot(1, case.shift))


def of_k_models(case: Case, fpr: float) -> float:
    """Returns the mean over records of the TPR of a threshold from k models, equal variances.

    A non-member differs from the mean of k others by N(0, 1 + 1/k).
    """
    error = np.sqrt(1 / case.models)
    threshold = -special.ndtri(fpr) * np.hypot(1, error)
    return sum(
        s * float(special.ndtr((mu - threshold) / np.hypot(member_sd(case), error)))
        for mu, s in case.leaks.items()
    )


def truth(case: Case, fpr: float, repeats: int = 40) -> float:
    """Returns the true per-record rate of an attacker who compares with k models."""
    if case.attack == "threshold":
        return of_k_models(case, fpr)
    rates = []
    for repeat in range(repeats):
        score, member = fleet(np.random.default_rng([9, repeat]), case, records=LARGE)
        unit = np.arange(len(score)) // 2
        scored = record_rates.Scored(score, member, ~member, unit, unit % 2)
        p, _ = record_rates.calibrated(scored)
        rates.append(np.mean(p[member] <= np.quantile(p[~member], fpr)))
    return float(np.mean(rates))


def own_included(score, member, fpr: float) -> float:
    """Returns the rate if each score is standardized by all models without the record."""
    hidden = np.where(member, np.nan, score)
    z = (score - np.nanmean(hidden, 0)) / np.nanstd(hidden, 0, ddof=1)
    return float(np.mean(z[member] > np.quantile(z[~member], 1 - fpr)))


class Row(NamedTuple):
    """Holds what many fleets of one case show at one FPR."""

    name: str
    fpr: float
    models: int
    pooled: float
    pooled_mean: float
    pooled_cover: float
    ideal: float
    truth: float
    mean: float
    cover: float
    own: float
    again: float


def rows(name: str, repeats: int, fprs: Sequence[float] = FPRS) -> list[Row]:
    """Simulates `repeats` fleets of a case."""
    case, made = CASES[name], []
    true = {fpr: (pooled(case, fpr), truth(case, fpr)) for fpr in fprs}
    seen: dict[float, list] = {fpr: [] for fpr in fprs}
    for repeat in range(repeats):
        score, member = fleet(np.random.default_rng([1, repeat]), case)
        for row in measured(score, member, fprs, seed=repeat)["rates"]:
            one = [own_included(score, member, row["fpr"])]
            for kind, at in zip(("pooled", "per_record"), true[row["fpr"]], strict=True):
                rate = row[kind]
                covers = rate["low"] is not None and rate["low"] <= at <= rate["high"]
                one += [rate["tpr"], covers]
            one.append(np.nan if row["again"] is None else row["again"])
            seen[row["fpr"]].append(one)
    for fpr in fprs:
        own, p, p_cover, r, r_cover, again = np.nanmean(np.array(seen[fpr], float), 0)
        made.append(
            Row(
                name,
                fpr,
                case.models,
                true[fpr][0],
                p,
                p_cover,
                ideal(case, fpr),
                true[fpr][1],
                r,
                r_cover,
                own,
                again,
            )
        )
    return made


HEADER = (
    "| case | FPR | k | pooled: true, mean estimate, coverage | per record, distributions known "
    "| per record from k models: true, mean estimate, coverage | own model included "
    "| accused again by the pooled threshold |"
)


def table(made: Sequence[Row]) -> str:
    """Returns the rows as a Markdown table, rates in percent."""
    lines = [HEADER, "|:--|--:|--:|--:|--:|--:|--:|--:|"]
    for r in made:
        cells = [
            r.name,
            f"{100 * r.fpr:g}%",
            str(r.models),
            f"{100 * r.pooled:.1f}, {100 * r.pooled_mean:.1f}, {r.pooled_cover:.3f}",
            f"{100 * r.ideal:.1f}",
            f"{100 * r.truth:.1f}, {100 * r.mean:.1f}, {r.cover:.3f}",
            f"{100 * r.own:.1f}",
            f"{100 * r.again:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(path: pathlib.Path) -> None:
    """Draws true TPRs over the FPR, with those of one fleet of 64 targets and their intervals."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    fpr = np.geomspace(1e-3, 0.3, 60)
    shown, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, attack in zip(axes, ("likelihood ratio", "threshold"), strict=True):
        case = Case(attack, 32)
        axis.plot(fpr, [pooled(case, f) for f in fpr], label="pooled over records")
        axis.plot(fpr, [ideal(case, f) for f in fpr], label="per record, distributions known")
        axis.plot(fpr, fpr, color="gray", linestyle=":", label="random guessing")
        score, member = fleet(np.random.default_rng(0), case, records=1000)
        of = measured(score, member, (0.001, 0.003, 0.01, 0.03, 0.1))["rates"]
        for kind, color in (("pooled", "C0"), ("per_record", "C1")):
            at = [r for r in of if r[kind]["low"] is not None]
            value = np.array([r[kind]["tpr"] for r in at])
            bars = np.abs(np.array([[r[kind]["low"], r[kind]["high"]] for r in at]).T - value)
            name = f"measured, {kind.replace('_', ' ')}" + " (k = 15)" * (kind == "per_record")
            axis.errorbar(
                [r["fpr"] for r in at], value, bars, fmt="o", ms=3, color=color, label=name
            )
        axis.set(xscale="log", yscale="log", xlabel="FPR", ylabel="TPR", title=attack)
        axis.legend(fontsize=7)
    shown.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table of all cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20 fleets of the small cases")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--figure", type=pathlib.Path, help="draws the figure into this file")
    args = parser.parse_args(argv)
    if args.figure:
        figure(args.figure)
    names = [name for name in CASES if not args.quick or "16" in name]
    made = [row for name in names for row in rows(name, 20 if args.quick else args.repeats)]
    print(table(made), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
