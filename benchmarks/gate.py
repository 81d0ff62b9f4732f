"""How often does the gate exit wrongly?

Simulated studies (benchmarks/coverage.py) whose true numbers are known, with a limit just below, at
and just above the true value.

python -m benchmarks.gate [--quick] [--workdir runs/gate] [--cases names] [--repeats 200]

A wrong exit is 0 (within) while the true value is just above the limit, or 1 (above) while it is at
the limit or just below. Both are most likely where limit and value meet; 2 (undecided) is never
wrong. A limit is about the attack with the highest true value, or about all attacks at once, or it
is one of three limits (AUC, TPR at 10% FPR and advantage), each at the highest true value: then a
wrong exit 1 is that of any of them. The last columns say what a study of this size decides: how
often it exits with 1 where the limit allows half of the excess over guessing, and with 0 where it
allows 1.5 of it. 'By the report's interval': what the printed upper end would do (measures/gate.py
stretches the ends where models are resampled).

Finished cases are read from WORKDIR; the table is written to WORKDIR/gate.md.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import coverage
from mia_jax.measures import gate, verdict
from mia_jax.report import gate as spoken
from mia_jax.runtime import files

NAMES = (
    "one target",
    "one target, few records",
    "4 targets, records only",
    "no shadows, hard",
    "shadows, easy",
    "shadows, hard",
    "shadows, hard, few records",
    "shadows, hard, many records",
    "shadows, hard, strong leak",
    "shadows, hard, 10 targets",
)
METRICS = ("auc", "tpr@0.01", "tpr@0.1", "advantage")
JOINT = ("auc", "tpr@0.1", "advantage")
JUST = 1e-9  # by how much a limit is just above or just below the true value


def guess(metric: str) -> float:
    """What guessing reaches; an advantage of 0."""
    return 0.0 if metric == "advantage" else verdict.guess(metric)


def report_of(rows: Mapping[tuple, Mapping]) -> dict:
    """report.json of one simulated study, as far as the gate reads it."""
    return dict(results=[row for (name, *_), row in rows.items() if " - " not in name])


def exit_code(report: Mapping, limits: Mapping[str, float], attacks: Sequence[str]) -> int:
    """The exit code of limits {metric: largest value}."""
    asked = [gate.Limit(f"{m} <= {most}", m, most) for m, most in limits.items()]
    decisions = gate.decide(report, asked, attacks=attacks)
    return spoken.Gate(tuple(decisions)).exit_code


def printed(report: Mapping, limits: Mapping[str, float], attacks: Sequence[str]) -> bool:
    """Whether the upper ends of the report's own intervals are within the limits."""
    rows = [gate.row_of(report["results"], name, m, "all") for m in limits for name in attacks]
    return all(row is not None and row["high"] <= limits[row["metric"]] for row in rows)


def questions(truth: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], tuple]:
    """{(limit, attacks): ({metric: true value}, attacks)}; the value is that of the worst one."""
    asked = {}
    top = {m: max(of_attack[m] for of_attack in truth.values()) for m in METRICS}
    for metric in METRICS:
        worst = max(truth, key=lambda name, metric=metric: truth[name][metric])
        for name in truth:
            asked[metric, name] = ({metric: truth[name][metric]}, [name])
        asked[metric, "all"] = ({metric: truth[worst][metric]}, list(truth))
    asked["three limits", "all"] = ({m: top[m] for m in JOINT}, list(truth))
    return asked


def simulate(case: coverage.Case, *, repeats: int, draws: int = 200, seed: int = 0) -> list[dict]:
    """Rows {limit, attacks, value, wrong_0, wrong_1, fails, passes, printed_0}: shares of the
    studies; `printed_0` is `wrong_0` by the report's own intervals.
    """
    expected, shift_U = coverage.truth(case), coverage.fixed_shifts(case)
    truth = {name: {m: at[None, m] for m in METRICS} for name, at in expected.items()}
    asked = questions(truth)
    counts = {key: np.zeros(5) for key in asked}
    for repeat in range(repeats):
        study = coverage.fleet(np.random.default_rng([seed, repeat]), case, shift_U=shift_U)
        rows = coverage.intervals_of(*study, case, seed=repeat + 10**6, draws=draws)
        report = report_of(rows)
        for key, (values, attacks) in asked.items():
            at = lambda change, values=values: {m: change(m, v) for m, v in values.items()}  # noqa: E731
            limits = (
                at(lambda _, v: v - JUST),
                at(lambda _, v: v),
                at(lambda m, v: guess(m) + 0.5 * (v - guess(m))),
                at(lambda m, v: min(guess(m) + 1.5 * (v - guess(m)), 1.0)),
            )
            for column, (limit, code) in enumerate(zip(limits, (0, 1, 1, 0), strict=True)):
                counts[key][column] += exit_code(report, limit, attacks) == code
            counts[key][4] += printed(report, limits[0], attacks)
    return [
        dict(limit=key[0], attacks=key[1], value=value_of(asked[key][0]))
        | dict(
            zip(("wrong_0", "wrong_1", "fails", "passes", "printed_0"), (count / repeats).tolist())
        )
        for key, count in counts.items()
    ]


def value_of(values: Mapping[str, float]) -> float | None:
    """The true value of the only metric; None for several."""
    return next(iter(values.values())) if len(values) == 1 else None


def overview(rows_of_case: Mapping[str, Sequence[Mapping]]) -> str:
    """Markdown: a case per line, the highest shares of wrong exits, and what is decided."""
    lines = [
        "| case | wrong exit 0, all attacks | wrong exit 0, one attack | "
        "the same by the report's interval | wrong exit 1, one attack | "
        "wrong exit 1, all attacks | wrong exit 1, three limits | exit 1 at half the excess | "
        "exit 0 at 1.5 of it |",
        "|:--" + "|--:" * 8 + "|",
    ]
    for name, rows in rows_of_case.items():
        single = [r for r in rows if r["attacks"] != "all"]
        every = [r for r in rows if r["attacks"] == "all" and r["limit"] != "three limits"]
        joint = next(r for r in rows if r["limit"] == "three limits")
        auc = next(r for r in every if r["limit"] == "auc")
        cells = [
            max(r["wrong_0"] for r in (*every, joint)),
            max(r["wrong_0"] for r in single),
            max(r["printed_0"] for r in single),
            max(r["wrong_1"] for r in single),
            max(r["wrong_1"] for r in every),
            joint["wrong_1"],
            auc["fails"],
            auc["passes"],
        ]
        lines.append(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def table(rows_of_case: Mapping[str, Sequence[Mapping]]) -> str:
    """Markdown: a limit per line."""
    lines = [
        "| case | limit | attacks | true value | wrong exit 0 | wrong exit 1 | exit 1 at half the "
        "excess | exit 0 at 1.5 of it |",
        "|:--|:--|:--" + "|--:" * 5 + "|",
    ]
    for name, rows in rows_of_case.items():
        for r in rows:
            value = "–" if r["value"] is None else f"{r['value']:.4f}"
            shares = (f"{r[key]:.3f}" for key in ("wrong_0", "wrong_1", "fails", "passes"))
            lines.append(
                f"| {name} | {r['limit']} | {r['attacks']} | {value} | {' | '.join(shares)} |"
            )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="10 studies per case: its shares mean little"
    )
    parser.add_argument(
        "--workdir",
        type=pathlib.Path,
        default=pathlib.Path("runs/gate"),
        help="results of finished cases and the table",
    )
    parser.add_argument(
        "--cases", default=None, help=f"any of these, separated by semicolons: {'; '.join(NAMES)}"
    )
    parser.add_argument("--repeats", type=int, default=200, help="studies per case")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other studies")
    args = parser.parse_args(argv)
    names = list(NAMES) if args.cases is None else [name.strip() for name in args.cases.split(";")]
    for name in names:
        if name not in coverage.CASES:
            parser.error(f"there is no case {name!r}; known: {'; '.join(coverage.CASES)}")
    repeats = 10 if args.quick else args.repeats
    args.workdir.mkdir(parents=True, exist_ok=True)
    rows_of_case = {}
    for name in names:
        stem = name.replace(", ", "_").replace(" ", "-")
        path = args.workdir / f"{stem}.{repeats}.{args.seed}.json"
        if not path.exists():
            started = time.monotonic()
            rows = simulate(coverage.CASES[name], repeats=repeats, seed=args.seed)
            files.write_json(path, dict(rows=rows))
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        rows_of_case[name] = files.read_json(path)["rows"]
    text = overview(rows_of_case) + "\n" + table(rows_of_case)
    (args.workdir / "gate.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
