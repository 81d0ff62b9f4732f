"""Times attacks and metrics against the usual implementations of the same numbers.

A comparison whose numbers differ is an error.

    python -m benchmarks.attacks [--quick] [--cases threshold,logistic,bootstrap,lira,rmia,scaling]
        [--runs 3] [--peers sklearn,newton,scipy,direct,lean]

The cases:

    threshold  ROC, AUC, TPR@1%FPR and the largest TPR - FPR of the losses of 50,000 members and
               10,000 non-members in 11 slices (all rows, 10 classes).
               Peer: scikit-learn's roc_curve.
               `whole` is the report's table of these slices, with thresholds, intervals and
               p-values from 200 draws.
    logistic   attack_model on the same rows, pooled and per class (10 probabilities and the loss,
               10 values of C, 3 inner folds, 2 halves).
               Peers: GridSearchCV over LogisticRegression on the same folds, with its default
               solver (sklearn) and with newton-cholesky (newton). The peers' seconds are those of
               scikit-learn's calls only, ours those of the whole attack.
    bootstrap  1,000 resamples of AUC and TPR@1%FPR of 50,000 + 50,000 scores.
               Peer: resampling with roc_curve (fewer resamples, scaled).
    lira       One target, 64 shadow models, 50,000 examples, 2 views, online.
               Peer: a loop over examples with scipy.stats.norm (fewer examples, scaled).
    rmia       One target, 20,000 examples, 2,000 population rows, from the ratios
               p(x | target) / p(x) to the scores.
               Peers: all N x Z quotients (direct), and N x Z comparisons in blocks without a
               division (lean).
               `whole` is the attack from the probabilities of 16 shadow models.
    scaling    ROC, AUC and TPR@1%FPR of 10^4 to 10^7 scores: how seconds and memory grow.
               Peer: roc_curve.

All cases run on one thread, because products of this size are slower on two. Times are medians;
every function runs once before it is timed. Memory is what one call adds at its peak. `processor`
is the ratio of processor seconds, which other processes on the machine change less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import _attack_ways, _pairs

PEERS = ("sklearn", "newton", "scipy", "direct", "lean")


class Case(NamedTuple):
    """Holds the peers and the sizes of a case.

    Attributes:
        peers: the implementations to compare with.
        sizes: the arguments of the function that draws the data.
        repeats: how often a function is timed in each run.
        relative: by how much the numbers may differ relatively, one limit for all or for each.
        absolute: by how much they may differ in addition.
    """

    peers: tuple[str, ...]
    sizes: dict
    repeats: int = 1
    relative: tuple[float, ...] = (0.0,)
    absolute: float = 0.0


CASES = dict(
    threshold=Case(("sklearn",), dict(members=50_000, nonmembers=10_000), 15, absolute=1e-12),
    logistic=Case(("sklearn", "newton"), dict(members=50_000, nonmembers=10_000), 3, absolute=1e-3),
    bootstrap=Case(
        ("sklearn",), dict(rows=50_000, draws=1000, part=60), 1, relative=(0.01, 0.1, 0.5, 0.5)
    ),
    lira=Case(
        ("scipy",),
        dict(shadows=64, examples=50_000, views=2, part=1000),
        7,
        relative=(1e-8,),
        absolute=1e-8,
    ),
    rmia=Case(
        ("direct", "lean"), dict(shadows=16, examples=20_000, population=2000), 7, absolute=1e-3
    ),
    scaling=Case(("sklearn",), dict(counts=[10**4, 10**5, 10**6, 10**7]), absolute=1e-12),
)
QUICK = dict(
    threshold=dict(members=5000, nonmembers=2000),
    logistic=dict(members=1500, nonmembers=1000),
    bootstrap=dict(rows=2000, draws=100, part=30),
    lira=dict(examples=2000, part=100),
    rmia=dict(examples=2000, population=1000),
    scaling=dict(counts=[10**3, 10**4, 10**5]),
)


def main(argv: list[str] | None = None) -> int:
    parser = _pairs.parser(__doc__, peers=PEERS, cases=CASES)
    return _pairs.run(benchmark, answer, parser, argv)


def benchmark(args: argparse.Namespace) -> None:
    """Runs the cases in turn and prints a table and a JSON line for each comparison."""
    runs = args.runs or (1 if args.quick else 3)
    for name in args.cases:
        case = CASES[name]
        case = case._replace(sizes=case.sizes | QUICK[name], repeats=1) if args.quick else case
        roles = ["ours", *(peer for peer in case.peers if peer in args.peers)]
        print(
            f"{name}: {runs} run{'s' * (runs > 1)} of each of {', '.join(roles)}, in turns",
            file=sys.stderr,
            flush=True,
        )
        (scaling if name == "scaling" else compared)(name, case, roles, runs)


def call(**request) -> dict:
    """Returns a contender's answer from a fresh process."""
    return _pairs.contender("benchmarks.attacks", **request)


def compared(name: str, case: Case, roles: list[str], runs: int) -> None:
    """Runs one case and prints its table and JSON lines."""
    request = dict(case=name, sizes=case.sizes, repeats=case.repeats)
    samples = _pairs.interleaved(
        {role: lambda role=role: call(role=role, **request) for role in roles}, runs
    )
    middle = {
        role: {
            field: _pairs.median(samples[role], field)
            for field in ("seconds", "cpu_s", "added_mb", "others")
        }
        for role in roles
    }
    whole = (
        dict(whole_s=_pairs.median(samples["ours"], "whole_s"))
        if "whole_s" in samples["ours"][0]
        else {}
    )
    rows, records = [], []
    for role in roles:
        ours, medians = middle["ours"], middle[role]
        far = differ(
            case, samples["ours"][0]["numbers"], samples[role][0]["numbers"], f"{name}, {role}"
        )
        cells = [
            f"{medians['added_mb']:,.3g} MB",
            f"{medians['seconds'] / ours['seconds']:.1f}",
            f"{medians['cpu_s'] / ours['cpu_s']:.1f}",
            f"{far:.1g}",
        ]
        rows.append([role, _pairs.seconds(medians["seconds"]), *cells])
        if role == "ours":
            continue
        record = _pairs.comparison(
            benchmark="attacks",
            case=name,
            ours_s=ours["seconds"],
            peer=role,
            peer_s=medians["seconds"],
        )
        record |= dict(
            ratio_cpu=medians["cpu_s"] / ours["cpu_s"],
            largest_difference=far,
            others=max(ours["others"], medians["others"]),
        )
        record |= dict(ours_added_mb=ours["added_mb"], peer_added_mb=medians["added_mb"])
        records.append(record | case.sizes | dict(runs=runs) | whole)
    print(
        f"\n{name}: "
        + ", ".join(f"{size:,} {field}" for field, size in case.sizes.items() if field != "part")
    )
    print(_pairs.table(["", "seconds", "memory", "ratio", "processor", "difference"], rows))
    if whole:
        print(f"whole: {_pairs.seconds(whole['whole_s'])}")
    if "part" in case.sizes:
        print(f"the peer did {case.sizes['part']:,}; its seconds are scaled to the whole")
    for record in records:
        print(_pairs.line(record), flush=True)


def scaling(name: str, case: Case, roles: list[str], runs: int) -> None:
    """Prints seconds and memory at every number of scores, and how they grow."""
    counts = case.sizes["counts"]

    def request(role, n):
        return dict(case=name, role=role, sizes=dict(count=n), repeats=max(1, 10**6 // n))

    contenders = {
        (role, n): lambda role=role, n=n: call(**request(role, n)) for n in counts for role in roles
    }
    samples = _pairs.interleaved(contenders, runs)
    spent = {role: [_pairs.median(samples[role, n], "cpu_s") for n in counts] for role in roles}
    each = {
        role: [_pairs.median(samples[role, n], "added_mb") * 1e6 / n for n in counts]
        for role in roles
    }
    for key, answers in samples.items():
        differ(
            case,
            samples["ours", key[1]][0]["numbers"],
            answers[0]["numbers"],
            f"{name}, {key[0]}, {key[1]:,} scores",
        )
    rows = [
        [
            role,
            *(_pairs.seconds(s) for s in spent[role]),
            f"{_pairs.slope(counts, spent[role]):.2f}",
            f"{max(each[role]):.0f}",
        ]
        for role in roles
    ]
    print(
        f"\n{name}: processor seconds of ROC, AUC and TPR@1%FPR, and the most bytes a score that a "
        "call adds (the scores themselves: 9)"
    )
    print(_pairs.table(["", *(f"{n:,}" for n in counts), "exponent", "bytes"], rows))
    for role in roles[1:]:
        ours_s, peer_s = (_pairs.median(samples[r, counts[-1]], "seconds") for r in ("ours", role))
        record = _pairs.comparison(
            benchmark="attacks", case=name, ours_s=ours_s, peer=role, peer_s=peer_s
        ) | dict(scores=counts, runs=runs)
        for which, r in (("ours", "ours"), ("peer", role)):
            record |= {
                f"{which}_exponent": _pairs.slope(counts, spent[r]),
                f"{which}_bytes_per_score": max(each[r]),
            }
        print(_pairs.line(record), flush=True)


def differ(case: Case, ours: list[float], other: list[float], label: str) -> float:
    """Returns the largest difference of the numbers.

    Raises:
        Missing: if a difference is larger than the case allows.
    """
    gap, limit = (
        np.abs(np.subtract(ours, other)),
        case.absolute + np.multiply(case.relative, np.abs(other)),
    )
    if (gap > limit).any():
        raise _pairs.Missing(
            f"{label}: the numbers differ by up to {gap.max():.3g}, at least one of them by more "
            "than allowed."
        )
    return float(gap.max())


# Contenders
# --------------------------------------------------------------------------------


def answer(*, case: str, role: str, sizes: dict, repeats: int) -> dict:
    """Runs one contender in this process.

    Returns:
        Median seconds, the numbers, the memory that one call adds, `whole_s` of the larger task.
    """
    import threadpoolctl

    os.environ |= dict(
        OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"
    )  # for libraries that are loaded from here on
    ways = _attack_ways.WAYS[case]
    with threadpoolctl.threadpool_limits(1):
        data = ways["data"](**sizes)
        numbers, _ = ways[role](data)
        spent = [timed(ways[role], data) for _ in range(repeats)]
        tracemalloc.start()
        ways[role](data)
        added = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        result = dict(zip(("seconds", "cpu_s"), map(statistics.median, zip(*spent)))) | dict(
            numbers=np.ravel(numbers).tolist(), added_mb=added / 1e6
        )
        if role == "ours" and "whole" in ways:
            result["whole_s"] = statistics.median(
                [timed(ways["whole"], data)[0] for _ in range(repeats + 1)][1:]
            )
    return result


def timed(way: Callable, data: dict) -> list[float]:
    """Returns wall and processor seconds of one call, or those that the call returns."""
    start = _attack_ways.clock()
    _, spent = way(data)
    return (_attack_ways.clock() - start if spent is None else spent).tolist()


if __name__ == "__main__":
    sys.exit(main())
