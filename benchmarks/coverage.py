"""Measures whether the intervals of a report cover the true values.

It simulates fleets whose true AUC and rates are known, in easy and in hard cases.

    python -m benchmarks.coverage [--quick] [--workdir runs/coverage] [--cases names]
        [--repeats 200] [--groups 8]

A fleet consists of 2 x units complementary targets. Signals are hardness of the record + (gain + a
shift of the unit) x member + noise. There are two kinds of attacks:

  * Attacks without shadow models: their scores are these signals.
  * Attacks with shadow models: they compare a target with the models of all other units, so that
    all targets share the shifts of their shadow models. They are rerun without each group of units,
    as in a run.

'Hard' cases have strong shifts (0.3 standard deviations of the noise per unit of models), 'null'
cases no gain. With fewer than 5 units the intervals hold for these models only; their shifts are
then the same in every repetition. TPR, FPR and precision at a threshold hold for these shadow
models only, so they are evaluated for attacks without shadow models.

For every interval the table has the share of fleets in which it contains the true value, its mean
width, and this width divided by 2 x 1.96 standard deviations of the estimates, the width that an
interval of known variance would need. Finished cases are read from WORKDIR; the table is written to
WORKDIR/coverage.md.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.configuration import settings
from mia_jax.metrics import bootstrap, comparisons, jackknife, outcomes, summary
from mia_jax.runtime import files

FPRS, RATIO, CUT = (0.01, 0.1), 10.0, 0.8
GROUPS = settings.ReportSettings().jackknife  # of units that are left out, as in a run
TRUE_FLEETS, TRUE_RECORDS = (
    600,
    2000,
)  # the true values of attacks that know shadows are means over so many large fleets


class Case(NamedTuple):
    """Describes a population of fleets.

    Attributes:
        units: pairs of complementary targets.
        records: the number of records.
        shadows: whether the attacks know shadow models.
        gain: the mean gain of a member's signal.
        by_unit: the standard deviation of a unit's shift.
        by_record: the standard deviation of a record's gain.
        spread: the standard deviation of hardness.
        single_target: whether only the first target is kept.
    """

    units: int
    records: int
    shadows: bool = True
    gain: float = 0.36
    by_unit: float = 0.0
    by_record: float = 0.3
    spread: float = 1.0
    single_target: bool = False

    @property
    def fixed(self) -> bool:
        """Tells whether the intervals hold for these models only."""
        return self.units < bootstrap.FEWEST_UNITS


CASES = {
    "no shadows, easy": Case(8, 300, shadows=False),
    "no shadows, hard": Case(8, 300, shadows=False, by_unit=0.3, spread=0.2),
    "no shadows, null": Case(8, 300, shadows=False, gain=0.0, by_record=0.0),
    "shadows, easy": Case(8, 300),
    "shadows, hard": Case(8, 400, by_unit=0.3),
    "shadows, hard, few records": Case(8, 200, by_unit=0.3),
    "shadows, hard, many records": Case(8, 1000, by_unit=0.3),
    "shadows, hard, strong leak": Case(8, 300, gain=2.0, by_unit=0.3),
    "shadows, hard, 10 targets": Case(5, 300, by_unit=0.3),
    "shadows, easy, 32 targets": Case(16, 300),
    "shadows, hard, 32 targets": Case(16, 300, by_unit=0.3),
    "shadows, null, 32 targets": Case(16, 300, gain=0.0, by_record=0.0),
    "shadows, hard, 64 targets": Case(32, 200, by_unit=0.3),
    "shadows, null": Case(8, 300, gain=0.0, by_record=0.0),
    "4 targets, records only": Case(2, 300, by_unit=0.3),
    "8 targets, records only": Case(4, 300, by_unit=0.3),
    "one target": Case(1, 1000, shadows=False, single_target=True),
    "one target, few records": Case(1, 200, shadows=False, single_target=True),
}
ATTACKS = {False: ("signal", "noisy"), True: ("likelihood", "distance")}


def signals(
    rng: np.random.Generator, case: Case, *, shift_U=None, records: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws (signal_TN, member_TN) of one fleet."""
    n, units = records or case.records, case.units
    member = np.zeros((2 * units, n), bool)
    for u in range(units):
        member[2 * u, rng.permutation(n)[: n // 2]] = True
        member[2 * u + 1] = ~member[2 * u]
    shift_U = case.by_unit * rng.normal(size=units) if shift_U is None else shift_U
    gain = case.gain + np.repeat(shift_U, 2)[:, None] + case.by_record * rng.normal(size=n)
    return case.spread * rng.normal(size=n) + gain * member + rng.normal(size=member.shape), member


def scores_of(signal: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Returns scores [T,N] of two attacks that compare a target with all other units' models."""
    units, n = len(member) // 2, member.shape[1]
    sides = [np.where(side, signal, 0.0).reshape(units, 2, n).sum(1) for side in (member, ~member)]
    inside, outside = (
        np.repeat((side.sum(0) - side) / (units - 1), 2, axis=0) for side in sides
    )  # the target's unit left out
    distance = signal - (inside + outside) / 2
    return dict(likelihood=(inside - outside) * distance, distance=distance)


def fleet(
    rng: np.random.Generator,
    case: Case,
    *,
    shift_U=None,
    records: int | None = None,
    groups: int = GROUPS,
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, list[jackknife.Rerun]]]:
    """Draws one fleet.

    Returns:
        Scores [T,N] of two attacks, member_TN, and the reruns without each group of units of the
        attacks that know shadow models.
    """
    signal, member = signals(rng, case, shift_U=shift_U, records=records)
    if not case.shadows:
        scores = dict(signal=signal, noisy=signal + rng.normal(size=signal.shape))
        kept = slice(0, 1) if case.single_target else slice(None)
        return {name: score[kept] for name, score in scores.items()}, member[kept], {}
    scores = scores_of(signal, member)
    if case.fixed or records:
        return scores, member, {}
    groups, without = min(groups, case.units), {name: [] for name in scores}
    group = np.repeat(np.arange(case.units) * groups // case.units, 2)
    for g in range(groups):
        left = group == g
        common = dict(evaluated_TN=np.ones_like(member[~left]), fprs=FPRS)
        for name, score in scores_of(signal[~left], member[~left]).items():
            rerun_numbers = jackknife.numbers(
                score, np.full(len(score), CUT), member_TN=member[~left], **common
            )
            without[name].append(jackknife.Rerun(left, rerun_numbers))
    return scores, member, without


def metrics_of(score: np.ndarray, member: np.ndarray) -> dict[str, float]:
    """Returns the metrics of one large target.

    A TPR is between the vertices on either side of its FPR.
    """
    inside, outside = score[member], np.sort(score[~member])
    j = len(outside)
    metrics = {"auc": float(np.mean(np.searchsorted(outside, inside)) / j)}
    for f in FPRS:
        k = round(f * j)
        metrics[f"tpr@{f:g}"] = float(
            np.mean([(inside > outside[j - i]).mean() for i in (k, k + 1)])
        )
    return metrics | {
        m: float(v)
        for m, v in outcomes.at_threshold(
            (inside >= CUT).mean(), (outside >= CUT).mean(), RATIO
        ).items()
    }


def truth(case: Case) -> dict[str, dict]:
    """Returns {attack: {(target, metric): value}}, means over large fleets.

    Pooled rates at a threshold are the rates of all pairs.
    """
    shift_U = fixed_shifts(case)
    targets_of_attack = {name: [] for name in ATTACKS[case.shadows]}
    for i in range(max(10, 4 * TRUE_FLEETS // case.units)):
        scores, member, _ = fleet(
            np.random.default_rng([3, i]), case, shift_U=shift_U, records=TRUE_RECORDS
        )
        for name, score in scores.items():
            targets_of_attack[name] += [metrics_of(s, m) for s, m in zip(score, member)]
    expected = {}
    for name, targets in targets_of_attack.items():
        mean = {
            metric: float(np.mean([target[metric] for target in targets])) for metric in targets[0]
        }
        pooled = {
            m: float(v) for m, v in outcomes.at_threshold(mean["tpr"], mean["fpr"], RATIO).items()
        }
        expected[name] = {(None, m): v for m, v in mean.items()} | {
            ("pooled", m): pooled.get(m, v) for m, v in mean.items()
        }
    return expected


def fixed_shifts(case: Case) -> np.ndarray | None:
    """Returns the units' shifts if the intervals hold for these models only, otherwise None."""
    return case.by_unit * np.random.default_rng(17).normal(size=case.units) if case.fixed else None


def intervals_of(
    scores: dict, member: np.ndarray, without: dict, case: Case, *, seed: int, draws: int
) -> dict[tuple, dict]:
    """Returns {(attack or pair, target, metric): row} of one fleet."""
    unit = np.arange(len(member)) // 2
    drawn, kept = bootstrap.make(member.shape[1], unit, draws=draws, seed=seed), {}
    known = "shadows" if case.shadows else "nothing"
    attacks = {
        name: dict(
            score_TN=score,
            threshold_T=np.full(len(score), CUT),
            knows=known,
            without=without.get(name, ()),
        )
        for name, score in scores.items()
    }
    everyone, names = np.ones_like(member), list(scores)
    rows = summary.rows(
        attacks,
        member,
        everyone,
        unit_T=unit,
        draws=drawn,
        fprs=FPRS,
        ppv_ratio=RATIO,
        keep=kept,
        detail=1,
    )
    row_of = {(r["attack"], r["target"], r["metric"]): r for r in rows}
    both = comparisons.rows(kept, names) + comparisons.accuracies(
        attacks, member, everyone, names=names, draws=drawn
    )
    row_of |= {(f"{r['attack']} - {r['versus']}", r["target"], r["metric"]): r for r in both}
    return {
        key: row
        for key, row in row_of.items()
        if row["low"] is not None and key[1] in (None, "pooled")
    }


def simulate(
    case: Case, *, repeats: int, draws: int = 200, seed: int = 0, groups: int = GROUPS
) -> list[dict]:
    """Simulates fleets and counts how often each interval contains the true value.

    Returns:
        Rows {attack, target, metric, interval, truth, estimate, cover, width, needed, shown}.
        `needed` is the width divided by 2 x 1.96 standard deviations of the estimates.
    """
    expected, shift_U, intervals = truth(case), fixed_shifts(case), {}
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        simulated = fleet(rng, case, shift_U=shift_U, groups=groups)
        for key, row in intervals_of(*simulated, case, seed=repeat + 10**6, draws=draws).items():
            intervals.setdefault(key, []).append(
                (row["value"], row["low"], row["high"], row["interval"])
            )
    report, names = [], ATTACKS[case.shadows]
    for (attack, target, metric), values in intervals.items():
        if (None, metric) not in expected[names[0]] or (
            case.shadows and metric in ("tpr", "fpr", f"ppv@{RATIO:g}")
        ):
            continue
        at = (None if case.single_target else target, metric)
        want = (
            expected[attack][at]
            if attack in expected
            else expected[names[0]][at] - expected[names[1]][at]
        )
        value, low, high = np.array([v[:3] for v in values]).T
        cover = float(((low <= want) & (want <= high)).mean())
        width, spread = float((high - low).mean()), float(value.std())
        report.append(
            dict(
                attack=attack,
                target=target,
                metric=metric,
                interval=values[0][3],
                truth=want,
                estimate=float(value.mean()),
                cover=cover,
            )
            | dict(
                width=width, needed=width / (3.92 * spread) if spread else None, shown=len(values)
            )
        )
    return report


def table(rows_of_case: dict[str, list[dict]]) -> str:
    """Returns Markdown with a line per interval."""
    lines = [
        "| case | attack | scope | metric | interval | true | mean estimate | coverage | width | "
        "times the needed |"
    ]
    lines.append("|:--|:--|:--|:--|:--|--:|--:|--:|--:|--:|")
    for name, rows in rows_of_case.items():
        for r in rows:
            scope = "mean" if r["target"] is None else r["target"]
            needed = "–" if r["needed"] is None else f"{r['needed']:.2f}"
            lines.append(
                f"| {name} | {r['attack']} | {scope} | {r['metric']} | {r['interval']} | "
                f"{r['truth']:.4f} | {r['estimate']:.4f} | {r['cover']:.3f} "
                f"| {r['width']:.4f} | {needed} |"
            )
    return "\n".join(lines) + "\n"


KINDS = {
    "AUC": lambda row: row["metric"] == "auc" and " - " not in row["attack"],
    "TPR at 1%": lambda row: row["metric"] == "tpr@0.01" and " - " not in row["attack"],
    "TPR at 10%": lambda row: row["metric"] == "tpr@0.1" and " - " not in row["attack"],
    "at a threshold": lambda row: (
        row["metric"] not in ("auc", "tpr@0.01", "tpr@0.1") and " - " not in row["attack"]
    ),
    "differences": lambda row: " - " in row["attack"],
}


def overview(rows_of_case: dict[str, list[dict]]) -> str:
    """Returns Markdown with a line per case.

    For each kind of interval it has the lowest and the highest coverage, and the greatest width in
    multiples of the needed one.
    """
    lines = [f"| case | {' | '.join(KINDS)} |", "|:--" + "|--:" * len(KINDS) + "|"]
    for name, rows in rows_of_case.items():
        cells = []
        for of_kind in KINDS.values():
            cover, widths = zip(
                *((r["cover"], r["needed"]) for r in rows if of_kind(r)), strict=True
            )
            cells.append(
                f"{min(cover):.3f} to {max(cover):.3f}; {max(width or 0.0 for width in widths):.2f}"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="10 repetitions: shows that it works, its shares mean little",
    )
    parser.add_argument(
        "--workdir",
        type=pathlib.Path,
        default=pathlib.Path("runs/coverage"),
        help="results of finished cases and the table",
    )
    parser.add_argument(
        "--cases",
        default=None,
        help=f"any of these, separated by semicolons: {'; '.join(CASES)} (default: all)",
    )
    parser.add_argument("--repeats", type=int, default=200, help="fleets per case")
    parser.add_argument(
        "--groups", type=int, default=GROUPS, help="groups of units, as report.jackknife"
    )
    args = parser.parse_args(argv)
    names = list(CASES) if args.cases is None else [name.strip() for name in args.cases.split(";")]
    for name in names:
        if name not in CASES:
            parser.error(f"there is no case {name!r}; known: {'; '.join(CASES)}")
    repeats = 10 if args.quick else args.repeats
    args.workdir.mkdir(parents=True, exist_ok=True)
    rows_of_case = {}
    for name in names:
        of_groups = "" if args.groups == GROUPS else f".{args.groups}-groups"
        stem = f"{name.replace(', ', '_').replace(' ', '-')}.{repeats}{of_groups}"
        path = args.workdir / f"{stem}.json"
        if not path.exists():
            started = time.monotonic()
            rows = simulate(CASES[name], repeats=repeats, groups=args.groups)
            files.write_json(path, dict(rows=rows))
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        rows_of_case[name] = files.read_json(path)["rows"]
    text = overview(rows_of_case) + "\n" + table(rows_of_case)
    (args.workdir / "coverage.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
