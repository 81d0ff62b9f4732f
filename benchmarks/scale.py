"""Measures how an audit's time and memory grow with examples, models and attacks.

    python -m benchmarks.scale                              # the first four cases
    python -m benchmarks.scale --cases audit full --workdir runs/scale
    python -m benchmarks.scale --quick

The cases:

    audit     mia_jax.audit of 10^6 x 8 float32 losses, attacks='lira', everything else as it is
    examples  the same for 10^5, 3 x 10^5 and 10^6 examples, and the exponents
    models    8, 16 and 32 models, 50,000 examples
    attacks   1, 4 and 14 attacks, 8 models, 50,000 examples
    full      10^6 examples x 64 models x 14 attacks: attack and report
    query     10^6 examples x 32 models x 18 query views are asked in 2 GB, killed twice
    pool      8 GB of bytes on disk are trained on under a limit of 4 GB

Every audit runs in a process of its own. CPU seconds are those of the call, without the imports of
the package, so that other work on the machine does not count (much of it makes caches cold and
still costs). Peak memory is that of the whole process, with its arrays. Each audit prints a line
of a table and a JSON line; exponents are the slopes of logarithms between the first and the last
line of a case. 'full' keeps its scores in WORKDIR: a run that was interrupted goes on. 'query' and
'pool' are described in benchmarks/_scale_memory.py.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Mapping

from benchmarks import _scale_memory

CASES = ("audit", "examples", "models", "attacks", "full")
ATTACKS: Mapping[str, Mapping] = {
    "lira": dict(name="lira", signal="loss"),
    "reference": dict(name="reference", signal="loss"),
    "threshold_loss": dict(name="threshold", signal="loss"),
    "offset": dict(name="offset", signal="loss"),
    "lira_offline": dict(name="lira", mode="offline", signal="loss"),
    "lira_pooled": dict(name="lira", variance="pooled", signal="loss"),
    "lira_global": dict(name="lira", variance="global", signal="loss"),
    "lira_gaussian": dict(name="lira", variance="gaussian", signal="loss"),
    "lira_both": dict(name="lira", variance_side="both", signal="loss"),
    "lira_in": dict(name="lira", variance_side="in", signal="loss"),
    "lira_out": dict(name="lira", variance_side="out", signal="loss"),
    "lira_density": dict(name="lira", mode="offline", offline_score="log_pdf", signal="loss"),
    "lira_offline_pooled": dict(name="lira", mode="offline", variance="pooled", signal="loss"),
    "lira_offline_global": dict(name="lira", mode="offline", variance="global", signal="loss"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the cases that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = (*CASES, *_scale_memory.CASES)
    parser.add_argument("--cases", nargs="+", choices=every, default=CASES[:-1])
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the examples")
    parser.add_argument("--workdir", default="", help="where 'full' keeps its scores")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(audited(**json.loads(args.one))))
        return 0
    print(f"{'case':>9}{'examples':>11}{'models':>8}{'attacks':>9}{'CPU s':>9}{'s':>9}{'GB':>7}")
    for case in args.cases:
        if case in _scale_memory.CASES:
            print(json.dumps(_scale_memory.run_case(case, quick=args.quick)), flush=True)
            continue
        lines = [measured(case, workdir=args.workdir, **size) for size in sizes(case, args.quick)]
        if len(lines) > 1:
            print(f"{case:>9}: {exponents(case, lines)}", flush=True)
    return 0


def sizes(case: str, quick: bool) -> list[dict[str, int]]:
    """Returns the sizes {examples, models, attacks} of the audits of a case."""
    least = 50 if quick else 1
    table = {
        "audit": [(1_000_000, 8, 1)],
        "examples": [(100_000, 8, 1), (300_000, 8, 1), (1_000_000, 8, 1)],
        "models": [(50_000, m, 1) for m in (8, 16, 32)],
        "attacks": [(50_000, 8, a) for a in (1, 4, 14)],
        "full": [(1_000_000, 64, 14)],
    }
    return [
        dict(examples=max(examples // least, 1000), models=models, attacks=attacks)
        for examples, models, attacks in table[case]
    ]


def measured(case: str, *, workdir: str = "", **size: int) -> dict:
    """Measures an audit in a process of its own, prints its lines and returns the record."""
    ask = json.dumps(dict(size, folder=workdir if case == "full" else ""))
    command = [sys.executable, "-m", "benchmarks.scale", "--one", ask]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    record = dict(benchmark="scale", case=case) | json.loads(done.stdout.splitlines()[-1])
    numbers = (record["cpu_s"], record["wall_s"], record["peak_gb"])
    print(
        f"{case:>9}{size['examples']:>11,}{size['models']:>8}{size['attacks']:>9}"
        + "{:>9.1f}{:>9.1f}{:>7.2f}".format(*numbers)
    )
    print(json.dumps(record), flush=True)
    return record


def exponents(case: str, lines: list[dict]) -> str:
    """Returns how time and memory grow with what a case varies, in words."""
    first, last = lines[0], lines[-1]
    ratio = math.log(last[case] / first[case]) if last[case] != first[case] else 1.0
    time_, memory = (math.log(last[k] / first[k]) / ratio for k in ("cpu_s", "peak_gb"))
    return f"CPU seconds grow like {case}^{time_:.2f}, peak memory like {case}^{memory:.2f}"


def audited(*, examples: int, models: int, attacks: int, folder: str = "") -> dict:
    """Audits drawn losses in this process and returns the record."""
    import numpy as np

    import mia_jax

    rng = np.random.default_rng(0)
    member = rng.random((models, examples), np.float32) < 0.5
    hard = rng.exponential(1.0, examples).astype(np.float32)
    loss = 0.3 * rng.standard_normal((models, examples), np.float32)
    loss += hard
    loss -= 0.3 * member
    np.abs(loss, out=loss)
    chosen = "lira" if attacks == 1 else {k: ATTACKS[k] for k in list(ATTACKS)[:attacks]}
    _ = mia_jax.audit  # imports are not part of the time
    cpu, wall = time.process_time(), time.time()
    mia_jax.audit(
        shadow_loss=loss,
        shadow_member=member,
        attacks=chosen,
        folder=pathlib.Path(folder) if folder else None,
    )
    return dict(
        cpu_s=round(time.process_time() - cpu, 2),
        wall_s=round(time.time() - wall, 2),
        peak_gb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
        examples=examples,
        models=models,
        attacks=attacks,
    )


if __name__ == "__main__":
    sys.exit(main())
