"""Measures bounds on the epsilon of labels, where the mechanism and the proxy's shift are known.

    python -m benchmarks.label_inference [--quick] [--repeats 200]

A mechanism with epsilon releases every label of two classes by randomized response: as it is with
probability e^epsilon / (1 + e^epsilon), else the other one. The true label of a row is 1 with a
probability that is uniform in [0.2, 0.8]; the proxy draws from the same odds times e^shift. The
attacker scores a label by its log-likelihood given the release and by log p - log q: it uses all
that the release and the shift tell. On control rows the release is that of another label, drawn
from the true distribution, as if the model had been trained on it.

For N rows the table has the median bound, and the share of repetitions in which it exceeds epsilon
('level'; at most 5% but for chance): uncorrected, with the shift known, and with one estimated
from N control rows.
"""

from __future__ import annotations

import argparse
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
    shown = {}
    of = rows_of(rng, case)
    arrays, fields = label_inference.prepared(of, fields=dict(guesses=(SHARE,)), seed=0)
    design = supplied_arrays.build(arrays).design
    counts = privacy_audit.counts(arrays["score"], design, 0, SHARE)
    chosen = privacy_audit.FIELDS | fields | dict(level=LEVEL)
    estimated, left = privacy_audit.shift_of(chosen)
    for name, shift, alpha in (
        ("uncorrected", Shift(), 1 - LEVEL),
        ("known", Shift(case.shift), 1 - LEVEL),
        ("estimated", estimated, left),
    ):
        shown[name] = audit.one_run(counts, delta=0.0, alpha=alpha, shift=shift)
    return shown


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


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small cases, 40 repetitions")
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    cases = [case for case in CASES if not args.quick or case.rows < 10_000]
    print(table(cases, 40 if args.quick else args.repeats))


if __name__ == "__main__":
    main()
