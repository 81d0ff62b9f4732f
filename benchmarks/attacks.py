"""The attacks and their metrics against the usual ways to the same numbers; a comparison whose numbers differ is an error.

python -m benchmarks.attacks [--quick] [--cases threshold,logistic,bootstrap,lira,rmia,scaling] [--runs 3] [--peers sklearn,newton,scipy,direct,lean]

threshold  the losses of 50,000 members and 10,000 non-members in 11 slices (all, 10 classes): ROC, AUC, TPR@1%FPR, largest TPR - FPR; against
           scikit-learn's roc_curve. Beside it the whole table of the slices, with intervals and p-values from 200 draws.
logistic   attack_model on the same rows (10 probabilities and the loss, 10 C, 3 inner folds, 2 halves), pooled and per class; against GridSearchCV
           over LogisticRegression on the same folds: the default solver (sklearn) and newton-cholesky (newton). The peers' time is that of
           scikit-learn's calls alone, ours that of the whole attack.
bootstrap  1,000 resamples of AUC and TPR@1%FPR of 50,000 + 50,000 scores; against resampling with roc_curve (fewer resamples, scaled).
lira       one target, 64 shadows, 50,000 examples, 2 views, online; against a loop over the examples with scipy.stats.norm (fewer, scaled).
rmia       one target, 20,000 examples, 2,000 population rows: from the ratios p(x | target) / p(x) to the scores; against all N x Z quotients
           (direct) and against N x Z comparisons in blocks, without a division (lean). Beside it the whole attack with 16 shadows.
scaling    ROC, AUC and TPR@1%FPR of 10^4 to 10^7 scores: how time and memory grow; against roc_curve.

Figures are medians, and every function runs once before it is timed. Memory is what the arrays of one call add at their peak.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
import tracemalloc
from typing import NamedTuple

import numpy as np

from benchmarks import _pairs

PEERS = ("sklearn", "newton", "scipy", "direct", "lean")
FPR = 0.01


class Case(NamedTuple):
    """The peers and sizes of a case, how often a function is timed in each run, and by how much its numbers may differ (relative, absolute)."""

    peers: tuple[str, ...]
    sizes: dict
    repeats: int
    tolerance: tuple[float, float]


CASES = dict(
    threshold=Case(("sklearn",), dict(members=50_000, others=10_000), 15, (0, 1e-12)),
    logistic=Case(("sklearn", "newton"), dict(members=50_000, others=10_000), 3, (0, 2e-3)),
    bootstrap=Case(("sklearn",), dict(members=50_000, others=50_000, draws=1000, part=60), 1, (0.35, 1e-3)),
    lira=Case(("scipy",), dict(shadows=64, examples=50_000, views=2, part=1000), 5, (1e-6, 1e-6)),
    rmia=Case(("direct", "lean"), dict(shadows=16, examples=20_000, population=2000), 5, (0, 1e-3)),
    scaling=Case(("sklearn",), dict(counts=[10**4, 10**5, 10**6, 10**7]), 1, (0, 1e-12)),
)
QUICK = dict(
    threshold=dict(members=5000, others=1000),
    logistic=dict(members=2000, others=1000),
    bootstrap=dict(members=2000, others=2000, draws=100, part=30),
    lira=dict(examples=2000, part=100),
    rmia=dict(examples=2000, population=200),
    scaling=dict(counts=[10**3, 10**4, 10**5]),
)


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--contender"]:
        print(json.dumps(answer(**json.loads(argv[1]))))
        return 0
    parser = _pairs.parser(__doc__, peers=PEERS)
    parser.add_argument("--cases", type=_pairs.names(tuple(CASES)), default=list(CASES), help=f"any of {','.join(CASES)} (default: all)")
    return _pairs.guarded(benchmark, parser.parse_args(argv))


def benchmark(args: argparse.Namespace) -> None:
    """Every case in turn: a table, then a JSON line for each comparison."""
    if {"sklearn", "newton"} & set(args.peers):
        _pairs.need("sklearn", "scikit-learn is not installed here: pip install -r requirements.txt (or --peers none).")
    runs = args.runs or (1 if args.quick else 3)
    for name in args.cases:
        case = CASES[name]
        case = case._replace(sizes=case.sizes | QUICK[name], repeats=1) if args.quick else case
        request = dict(case=name, sizes=case.sizes, repeats=case.repeats)
        roles = {"ours": dict(role="ours")} | {peer: dict(role=peer) for peer in case.peers if peer in args.peers}
        if name == "logistic":
            roles = {role: fields | dict(threads=fewer_threads(fields, request)) for role, fields in roles.items()}
        print(f"{name}: {runs} run{'s' * (runs > 1)} of each of {', '.join(roles)}, in turns", file=sys.stderr, flush=True)
        report(name, case, _pairs.interleaved({role: lambda fields=fields: call(**request, **fields) for role, fields in roles.items()}, runs), runs)


def fewer_threads(fields: dict, request: dict) -> int | None:
    """1 if one thread of BLAS and OpenMP is faster than as many as there are cores (None): so small a product can lose by sharing."""
    spent = {threads: call(**request, **fields, threads=threads)["seconds"] for threads in (1, None)}
    return min(spent, key=spent.get)


def call(**request) -> dict:
    """A contender's answer from a fresh process."""
    return _pairs.contender("benchmarks.attacks", **request)


def answer(*, case: str, role: str, sizes: dict, repeats: int, threads: int | None = None) -> dict:
    """What a contender's process prints."""
    import threadpoolctl

    from benchmarks import _attacks

    with threadpoolctl.threadpool_limits(threads) if threads else contextlib.nullcontext():
        data = _attacks.DATA[case](**sizes)
        found = measured(_attacks.WAYS[case][role], data, repeats)
        if role == "ours" and case in _attacks.WHOLE:
            found["whole_s"] = measured(_attacks.WHOLE[case], data, repeats)["seconds"]
    return found | dict(threads=threads)


def measured(function, data, repeats: int) -> dict:
    """The median seconds of function(data) -> (numbers, seconds or None), the numbers, and the memory that one call adds at its peak."""
    raise NotImplementedError
