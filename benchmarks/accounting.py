"""Measures what computing an epsilon costs: CPU seconds, peak memory and value.

Noise multipliers, steps and deltas vary, and the accountants are privacy loss distributions (PLD)
and Rényi orders (RDP).

    python -m benchmarks.accounting                      # 80 mechanisms; 15 minutes on 2 cores
    python -m benchmarks.accounting --cases calibration  # only what privacy.noise_for takes
    python -m benchmarks.accounting --quick

The cases:

    epsilon      the epsilon of each mechanism, each in a fresh process without caches
    calibration  the noise multiplier (privacy.noise_for) for several budgets

CPU seconds are those of the process that computes, without its imports, so that other work on the
machine does not count. The peer is the accountant 'rdp', a looser bound of the same mechanism.
"""

from __future__ import annotations

import sys
import time

from benchmarks import _pairs

PEERS = ("rdp",)
CASES = ("epsilon", "calibration")
RATE, UNITS = 0.04, 2500
NOISE, STEPS, DELTAS = (
    (0.01, 0.05, 0.1, 0.5, 1.0),
    (100, 1_000, 10_000, 100_000),
    (1e-5, 1e-15, 1e-18, 1e-30),
)
BUDGETS = (0.01, 0.1, 1.0, 10.0, 1000.0)


def main(argv: list[str] | None = None) -> int:
    return _pairs.run(benchmark, answer, _pairs.parser(__doc__, peers=PEERS, cases=CASES), argv)


def benchmark(args) -> None:
    """Prints a table for each case."""
    runs, accountants = args.runs or 1, ("pld", *args.peers)
    noise, steps, deltas = (
        ((0.05, 1.0), (1_000,), (1e-5, 1e-30)) if args.quick else (NOISE, STEPS, DELTAS)
    )
    if "epsilon" in args.cases:
        jobs = [dict(number=z, steps=n, delta=d) for z in noise for n in steps for d in deltas]
        show("epsilon", jobs, ("noise", "steps", "delta"), accountants, runs)
    if "calibration" in args.cases:
        jobs = [
            dict(number=b, steps=1_000, delta=d)
            for b in ((1.0,) if args.quick else BUDGETS)
            for d in (1e-5, 1e-18)
        ]
        show("calibration", jobs, ("budget", "steps", "delta"), accountants, runs)


def show(
    case: str, jobs: list[dict], names: tuple[str, ...], accountants: tuple[str, ...], runs: int
) -> None:
    """Prints one line per job: value, CPU seconds and memory by every accountant."""
    print(
        "  ".join(
            f"{word:>9}"
            for word in (
                *names,
                *(f"{a} {what}" for a in accountants for what in ("value", "CPU s", "MB")),
            )
        )
    )
    for job in jobs:
        ask = {
            a: lambda a=a, job=job: _pairs.contender(
                "benchmarks.accounting", case=case, accountant=a, **job
            )
            for a in accountants
        }
        cells = [f"{job['number']:g}", f"{job['steps']:,}", f"{job['delta']:g}"]
        for samples in _pairs.interleaved(ask, runs).values():
            cells += [
                f"{samples[0]['value']:.5g}",
                f"{_pairs.median(samples, 'seconds'):.2f}",
                f"{_pairs.median(samples, 'mb'):.0f}",
            ]
        print("  ".join(f"{cell:>9}" for cell in cells), flush=True)


def answer(*, case: str, accountant: str, number: float, steps: int, delta: float) -> dict:
    """Computes an epsilon, or the noise multiplier for a budget, in this process.

    Returns:
        {value, seconds, mb}; `mb` is the memory that was held in addition to the imports.
    """
    import dp_accounting.pld
    import dp_accounting.rdp  # noqa: F401

    from mia_jax.privacy import accounting
    from mia_jax.privacy.mechanism import Mechanism

    noise = number if case == "epsilon" else 1.0
    fields = dict(sampling="poisson", rate=RATE, clip_norm=1.0, expected_batch=RATE * UNITS)
    mechanism = Mechanism(noise_multiplier=noise, steps=steps, **fields)
    before, start = _pairs.peak_bytes(), time.process_time()
    if case == "epsilon":
        value = accounting.epsilon(mechanism, delta=delta, accountant=accountant)
    else:
        value = accounting.noise_for(number, mechanism, delta=delta, accountant=accountant)
    return dict(
        value=value, seconds=time.process_time() - start, mb=(_pairs.peak_bytes() - before) / 2**20
    )


if __name__ == "__main__":
    sys.exit(main())
