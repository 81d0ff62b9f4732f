"""Measures bounds on the epsilon of labels, where the mechanism and the proxy's shift are known.

    python -m benchmarks.label_inference [--quick] [--repeats 200] [--trained]

A mechanism with epsilon releases every label of two classes by randomized response: as it is with
probability e^epsilon / (1 + e^epsilon), else the other one. The true label of a row is 1 with a
probability that is uniform in [0.2, 0.8]; the proxy draws from the same odds times e^shift. The
attacker scores a label by its log-likelihood given the release and by log p - log q: it uses all
that the release and the shift tell. On control rows the release is that of another label, drawn
from the true distribution, as if the model had been trained on it.

For N rows the table has the median bound, and the share of repetitions in which it exceeds epsilon
('level'; at most 5% but for chance): uncorrected, with the shift known, and with one estimated
from N control rows.

With --trained, models of scikit-learn are trained on 2,000 rows whose labels went through
randomized response with epsilon 1, and the proxy is a logistic regression on 2,000 other rows (or
the same with log odds that are off by 1). The attacker scores a label by the model's probability.
Control rows are other rows, on which the model was not trained, so that the shift is estimated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from mia_jax.external import arrays as supplied_arrays
from mia_jax.external import label_inference
from mia_jax.external.label_inference import LabelInference
from mia_jax.measures import privacy_audit
from mia_jax.privacy import audit
from mia_jax.privacy.audit_shift import Shift

LEVEL, SHARE = 0.95, 0.25


class Case(NamedTuple):
    """Describes a mechanism and a proxy: epsilon, the proxy's log odds, and the number of rows."""

    epsilon: float
    shift: float
    rows: int


CASES = [
    Case(epsilon, shift, rows)
    for rows in (2000, 20000)
    for epsilon in (1.0, 3.0)
    for shift in (0.0, 0.5)
]


def released(rng: np.random.Generator, case: Case, *, trained: bool = True) -> dict:
    """Returns label, proxy_label and the scores of both, of rows that were trained on or not."""
    true = rng.uniform(0.2, 0.8, case.rows)
    proxy = special.expit(special.logit(true) + case.shift)
    label, proxy_label = (rng.random(case.rows) < share for share in (true, proxy))
    used = label if trained else rng.random(case.rows) < true
    kept = rng.random(case.rows) < special.expit(case.epsilon)
    release = np.where(kept, used, ~used)

    def score(given: np.ndarray) -> np.ndarray:
        prior = np.where(given, np.log(true / proxy), np.log((1 - true) / (1 - proxy)))
        return case.epsilon * (release == given) + prior

    return dict(
        label=label, proxy_label=proxy_label, score=score(label), proxy_score=score(proxy_label)
    )


def rows_of(rng: np.random.Generator, case: Case, **more) -> LabelInference:
    """Returns the argument `label_inference` of audit() with control rows."""
    control = {f"control_{k}": v for k, v in released(rng, case, trained=False).items()}
    return LabelInference(**released(rng, case), **control, **more)


def bounds(rng: np.random.Generator, case: Case) -> dict[str, float]:
    """Returns the bound of 'one_run' without a correction, with the shift known and estimated."""
    return bounds_of(rows_of(rng, case), case.shift)


def bounds_of(of: LabelInference, known: float) -> dict[str, float]:
    """Returns the same of given rows."""
    shown = {}
    arrays, fields = label_inference.prepared(of, fields=dict(guesses=(SHARE,)), seed=0)
    design = supplied_arrays.build(arrays).design
    counts = privacy_audit.counts(arrays["score"], design, 0, SHARE)
    chosen = privacy_audit.FIELDS | fields | dict(level=LEVEL)
    estimated, left = privacy_audit.shift_of(chosen)
    for name, shift, alpha in (
        ("uncorrected", Shift(), 1 - LEVEL),
        ("known", Shift(known), 1 - LEVEL),
        ("estimated", estimated, left),
    ):
        shown[name] = audit.one_run(counts, delta=0.0, alpha=alpha, shift=shift)
    return shown | dict(shift=estimated.odds)


def trained_rows(seed: int, model, *, off: float, rows: int = 2000) -> LabelInference:
    """Returns label inference against a model that is trained on privatized labels.

    Args:
        seed: the seed of the data.
        model: an estimator of scikit-learn.
        off: the log odds by which the proxy is off beyond its own error.
        rows: the number of rows of each of the three parts.
    """
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    direction = rng.normal(size=10)

    def drawn():
        x = rng.normal(size=(rows, 10))
        share = special.expit(0.6 * x @ direction + 0.5 * np.sin(3 * x[:, 0]))
        return x, (rng.random(rows) < share).astype(int)

    (other_x, other_y), (x, label), (new_x, new_label) = drawn(), drawn(), drawn()
    proxy = LogisticRegression(max_iter=500).fit(other_x, other_y)
    kept = rng.random(rows) < special.expit(1.0)
    model.fit(x, np.where(kept, label, 1 - label))
    given = {}
    for prefix, of_x, of_y in (("", x, label), ("control_", new_x, new_label)):
        second = rng.random(rows) < special.expit(proxy.decision_function(of_x) + off)
        for name, y in (("", of_y), ("proxy_", second.astype(int))):
            given[f"{prefix}{name}label"] = y
            given[f"{prefix}{name}score"] = model.predict_proba(of_x)[np.arange(rows), y]
    return LabelInference(**given)


def trained_table(repeats: int) -> str:
    """Returns a Markdown table of the bounds about trained models."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    lines = [
        "| model | proxy off by | uncorrected: bound, level | estimated: bound, level | shift |",
        "|:--|--:|--:|--:|--:|",
    ]
    makers = {
        "decision tree": lambda seed: DecisionTreeClassifier(random_state=seed),
        "random forest": lambda seed: RandomForestClassifier(30, random_state=seed),
    }
    for name, make in makers.items():
        for off in (0.0, 1.0):
            of = [trained_rows(seed, make(seed), off=off) for seed in range(repeats)]
            made = [bounds_of(each, 0.0) for each in of]
            cells = [
                f"{np.median(value):.2f}, {np.mean(value > 1.0):.3f}"
                for value in (
                    np.array([each[kind] for each in made]) for kind in ("uncorrected", "estimated")
                )
            ]
            shift = np.median([each["shift"] for each in made])
            lines.append(f"| {name} | {off:g} | {' | '.join(cells)} | {shift:.2f} |")
    return "\n".join(lines)


def table(cases: Sequence[Case], repeats: int) -> str:
    """Returns a Markdown table of bounds and levels."""
    names = ("uncorrected", "known", "estimated")
    lines = [
        "| rows | epsilon | shift | " + " | ".join(f"{n}: bound, level" for n in names) + " |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for case in cases:
        made = [bounds(np.random.default_rng([3, r]), case) for r in range(repeats)]
        value = {name: np.array([each[name] for each in made]) for name in names}
        cells = [
            f"{np.median(value[name]):.2f}, {np.mean(value[name] > case.epsilon):.3f}"
            for name in names
        ]
        lines.append(
            f"| {case.rows:,} | {case.epsilon:g} | {case.shift:g} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the small cases, 40 repetitions")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--trained", action="store_true", help="trained models alone, 100 audits")
    args = parser.parse_args(argv)
    if args.trained:
        print(trained_table(20 if args.quick else 100))
        return 0
    cases = [case for case in CASES if not args.quick or case.rows < 10_000]
    print(table(cases, 40 if args.quick else args.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
