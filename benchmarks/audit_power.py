"""Measures what audits of epsilon can show, and whether their bounds hold.

    python -m benchmarks.audit_power [--quick] [--trained] [--cases gaussian,...] [--seeds 100]
        [--workdir runs/audit_power] [--figure docs/audit_power.png]

The cases:

    gaussian_eps3_n1000   scores N(mu coin, 1) of 1,000 canaries, with mu so that epsilon is 3 at
                          delta 1e-5: an ideal attacker of a Gaussian mechanism
    growing_eps3_n1000    the same in 8 runs, added up by a bound that holds after every run
    shuffle_poisson2.4    runs with shuffled batches; an accountant for Poisson sampling says 2.4
    poisson_poisson2.4    the same with Poisson batches
    trained_eps3          correct private models on Fashion-MNIST, one run each, white box
                          (benchmarks/_audit_trained.py; with --trained, 10 CPU seconds per model;
                          finished models are read from WORKDIR)

Per case and method a line of JSON: `bound` is the median over `seeds`; `ideal` what it is compared
with, for the sums the true epsilon, for methods that count guesses the best that counting shows of
an ideal attacker with as many canaries, else the true or claimed epsilon; `ratio` = bound / ideal
(0 if the ideal is 0);
`level` the share of seeds that refute the true epsilon, at most 0.05 but for chance (for shuffled
batches: that refute the epsilon of Poisson sampling, as they should).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mia_jax.privacy import accounting, audit, audit_order, audit_runs, audit_shuffle, audit_sums
from mia_jax.privacy.audit import Guesses
from mia_jax.privacy.audit_sums import Sums
from mia_jax.privacy.mechanism import Mechanism

DELTA, ALPHA, SHARE = 1e-5, 0.05, 0.05
EPSILONS, CANARIES = (1.0, 3.0, 8.0), (100, 300, 1000, 5000)
RUNS = 8  # of a growing audit
# (epochs, batches, noise multiplier) whose epsilon for Poisson sampling is 2.4
SHUFFLED = (5, 100, 0.8)
GROUPS = ("gaussian", "growing", "shuffle")
SHOWN = ("one_run", "gdp", "order", "sum", "rank_sum")  # in the figure
FOLDER = "/usr/share/datasets/fashion-mnist"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints its tables and lines."""
    args = parser().parse_args(argv)
    started, rows = time.process_time(), []
    cases = args.cases.split(",") if args.cases else GROUPS
    unknown = sorted(set(cases) - set(GROUPS))
    if unknown:
        raise SystemExit(f"--cases: {unknown[0]!r} is not one of {', '.join(GROUPS)}.")
    for made in measured(cases, args):
        rows += made
        show(made)
    print(f"{time.process_time() - started:.0f} CPU seconds")
    for row in rows:
        print(json.dumps(dict(benchmark="audit_power") | row))
    if args.figure:
        figure(rows, pathlib.Path(args.figure))
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="20 seeds, two sizes")
    made.add_argument("--trained", action="store_true", help="also trained models")
    made.add_argument("--cases", default="", help=f"among {','.join(GROUPS)}")
    made.add_argument("--seeds", type=int, default=0, help="for the level (default 200)")
    made.add_argument("--workdir", default="runs/audit_power")
    made.add_argument("--folder", default=FOLDER, help="of Fashion-MNIST")
    made.add_argument("--models", type=int, default=5, help="trained models per epsilon")
    made.add_argument("--figure", default="", help="writes a figure of level and power")
    return made


def measured(cases: Sequence[str], args: argparse.Namespace) -> Iterator[list[dict]]:
    """Yields the rows of one case after the other."""
    seeds = args.seeds or (20 if args.quick else 200)
    sizes = (100, 1000) if args.quick else CANARIES
    if "gaussian" in cases:
        for epsilon in EPSILONS[1:] if args.quick else EPSILONS:
            for canaries in sizes:
                drawn = [ideal_scores(epsilon, canaries, seed) for seed in range(seeds)]
                yield one_run_rows(f"gaussian_eps{epsilon:g}_n{canaries}", drawn, epsilon)
    if "growing" in cases:
        yield growing_rows(epsilon=3.0, canaries=1000, seeds=max(5, seeds // 5))
    if "shuffle" in cases:
        yield shuffle_rows(seeds=2 if args.quick else 5, runs=10_000 if args.quick else 40_000)
    if args.trained:
        from benchmarks import _audit_trained

        for epsilon in (3.0, 8.0):
            runs = [
                _audit_trained.kept(
                    pathlib.Path(args.workdir),
                    epsilon=epsilon,
                    delta=DELTA,
                    seed=seed,
                    data_folder=args.folder,
                )
                for seed in range(args.models)
            ]
            drawn = [(run.score_C, run.inside_C) for run in runs]
            accuracy = float(np.median([run.accuracy for run in runs]))
            rows = one_run_rows(f"trained_eps{epsilon:g}", drawn, epsilon)
            yield [row | dict(accuracy=round(accuracy, 3)) for row in rows]


def ideal_scores(epsilon: float, canaries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (score_N, inside_N) of an ideal attacker of the Gaussian mechanism."""
    rng = np.random.default_rng([seed, canaries, round(1000 * epsilon)])
    inside_N = rng.random(canaries) < 0.5
    return rng.normal(size=canaries) + audit.gaussian_mu(epsilon, DELTA) * inside_N, inside_N


def statistics(score_N, inside_N, method: str) -> Guesses | Sums:
    """Returns what a method reads of the scores of canaries."""
    if method in audit_sums.METHODS:
        return audit_sums.sums(score_N, inside_N)
    each = guesses_of(len(score_N), method) // 2
    return audit.guess(score_N, inside_N, high=each, low=each)


def guesses_of(canaries: int, method: str) -> int:
    """Returns the number of guesses, half of them IN."""
    return 2 * round((audit_order.SHARE if method == "order" else SHARE) * canaries)


def refuted(observed: Guesses | Sums, method: str, *, epsilon: float, mu: float) -> bool:
    """Returns whether a method refutes the true parameter at level ALPHA."""
    if isinstance(observed, Sums):
        return audit_sums.p_value(observed, mu=mu, method=method) <= ALPHA
    counts = observed._asdict()
    if method == "order":
        return audit_order.p_value(**counts, mu=mu) <= ALPHA
    if method == "order_dp":
        return audit_order.p_value_dp(**counts, epsilon=epsilon, delta=DELTA) <= ALPHA
    if method == "one_run":
        return audit.p_value(**counts, epsilon=epsilon, delta=DELTA) <= ALPHA
    curve = audit.approximate(epsilon, DELTA) if method == "fdp" else audit.gaussian(mu)
    return audit.fdp_rejected(curve, **counts, alpha=ALPHA)


def one_run_rows(case: str, drawn: Sequence[tuple], epsilon: float) -> list[dict]:
    """Returns a row per method of runs that are audited one by one.

    The level is that of all runs. The bound rises with the statistic, so its median is the bound of
    the median run.
    """
    mu, canaries, rows = audit.gaussian_mu(epsilon, DELTA), len(drawn[0][0]), []
    counting = max(
        audit.ideal(mu, canaries=canaries, guesses=guesses_of(canaries, m), delta=DELTA, method=m)
        for m in audit.COUNTING
    )
    for method in audit.METHODS:
        observed = [statistics(*each, method) for each in drawn]
        order = sorted(observed, key=lambda each: audit.strength(each, method))
        bound = audit.one_run(order[(len(order) - 1) // 2], delta=DELTA, method=method)
        level = np.mean([refuted(each, method, epsilon=epsilon, mu=mu) for each in observed])
        ideal = epsilon if method in audit_sums.METHODS else counting
        rows.append(line(case, method, bound, ideal, level, len(drawn)))
    return rows


def growing_rows(*, epsilon: float, canaries: int, seeds: int) -> list[dict]:
    """Returns a row per method that adds up runs; the level is that of refuting it ever."""
    mu, rows = audit.gaussian_mu(epsilon, DELTA), []
    for method in ("order", "rank_sum"):
        ever, bounds = 0, []
        for seed in range(seeds):
            counts = [
                statistics(*ideal_scores(epsilon, canaries, 1000 * (seed + 1) + run), method)
                for run in range(RUNS)
            ]
            evidence = [
                audit_runs.log_e_value(counts[:end], parameter=mu, delta=DELTA, method=method)
                for end in range(1, RUNS + 1)
            ]
            ever += max(evidence) >= -np.log(ALPHA)
            if seed < 5:
                bounds.append(audit_runs.running(counts, delta=DELTA, method=method)[-1])
        case = f"growing_eps{epsilon:g}_n{canaries}"
        rows.append(line(case, method, float(np.median(bounds)), epsilon, ever / seeds, seeds))
    return rows


def shuffle_rows(*, seeds: int, runs: int) -> list[dict]:
    """Returns a row for shuffled and one for Poisson batches, against the Poisson epsilon."""
    epochs, batches, multiplier = SHUFFLED
    claimed = accounting.epsilon(
        Mechanism(
            sampling="poisson",
            rate=1 / batches,
            clip_norm=1.0,
            noise_multiplier=multiplier,
            expected_batch=10.0,
            steps=epochs * batches,
        ),
        delta=DELTA,
    )
    rows = []
    for sampling in audit_shuffle.SAMPLINGS:
        bounds = []
        for seed in range(seeds):
            signal, inside = audit_shuffle.game(
                runs=runs,
                epochs=epochs,
                batches=batches,
                multiplier=multiplier,
                sampling=sampling,
                seed=seed,
            )
            score = audit_shuffle.log_ratio(signal, multiplier=multiplier, sampling=sampling)
            bounds.append(audit_runs.best_threshold(score, inside, delta=DELTA)[0])
        above = float(np.mean(np.array(bounds) > claimed))
        case = f"{sampling}_poisson{claimed:.2g}"
        rows.append(line(case, "likelihood_ratio", float(np.median(bounds)), claimed, above, seeds))
    return rows


def line(
    case: str, method: str, bound: float, ideal: float, level: float, seeds: int
) -> dict[str, Any]:
    """Returns a row with rounded numbers."""
    numbers = dict(bound=bound, ideal=ideal, ratio=bound / ideal if ideal else 0.0, level=level)
    rounded = {key: round(float(value), 3) for key, value in numbers.items()}
    return dict(case=case, method=method, **rounded, seeds=seeds)


def show(rows: Sequence[Mapping]) -> None:
    """Prints a table of one case."""
    for row in rows:
        print(
            f"{row['case']:<24}{row['method']:<18}bound {row['bound']:>6.2f}   "
            f"of {row['ideal']:>5.2f} ({row['ratio']:.2f})   level {row['level']:.3f}   "
            f"{row['seeds']} seeds",
            flush=True,
        )


def figure(rows: Sequence[Mapping], path: pathlib.Path) -> None:
    """Draws the power of the methods over the canaries, and their level."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    gaussian = [row for row in rows if row["case"].startswith("gaussian")]
    epsilons = sorted({case_of(row)[0] for row in gaussian})
    drawing, axes = pyplot.subplots(1, len(epsilons) + 1, figsize=(11, 3.4), layout="constrained")
    for ax, epsilon in zip(axes, epsilons, strict=False):
        for method in SHOWN:
            points = [
                (case_of(row)[1], row["bound"])
                for row in gaussian
                if row["method"] == method and case_of(row)[0] == epsilon
            ]
            ax.plot(*zip(*points, strict=True), marker="o", ms=3, label=method)
        ax.axhline(epsilon, color="black", lw=0.8, ls="--")
        ax.set(xscale="log", xlabel="canaries", title=f"median bound, epsilon {epsilon:g}")
        ax.set_ylim(0, 1.05 * epsilon)
    axes[0].legend(fontsize=7)
    for method in SHOWN:
        levels = [row["level"] for row in gaussian if row["method"] == method]
        axes[-1].plot(sorted(levels), "o", ms=3, label=method)
    axes[-1].axhline(ALPHA, color="black", lw=0.8, ls="--")
    axes[-1].set(xlabel="cases, sorted", title="bounds above epsilon", ylim=(0, 0.12))
    drawing.savefig(path, dpi=120)


def case_of(row: Mapping) -> tuple[float, int]:
    """Returns (epsilon, canaries) of a case 'gaussian_eps3_n1000'."""
    _, epsilon, canaries = row["case"].split("_")
    return float(epsilon.removeprefix("eps")), int(canaries.removeprefix("n"))


if __name__ == "__main__":
    sys.exit(main())
