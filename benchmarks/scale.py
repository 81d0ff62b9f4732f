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
line of a case. 'full' keeps its scores in WORKDIR: a run that was interrupted goes on, and its
seconds are those of all its starts (WORKDIR.used.json). 'query' and 'pool' are described in
benchmarks/_scale_memory.py. `--quick` runs the first four cases with 2,500 to 50,000 examples;
the quick audits with more than 20,000 are drawn in groups, as large ones.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import resource
import subprocess
import sys
import threading
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
    parser.add_argument("--quick", action="store_true", help="small sizes of every case")
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
    table = {
        "audit": [(1_000_000, 8, 1)],
        "examples": [(100_000, 8, 1), (300_000, 8, 1), (1_000_000, 8, 1)],
        "models": [(50_000, m, 1) for m in (8, 16, 32)],
        "attacks": [(50_000, 8, a) for a in (1, 4, 14)],
        "full": [(1_000_000, 64, 14)],
    }
    small = {
        "audit": [(50_000, 8, 1)],
        "examples": [(25_000, 8, 1), (50_000, 8, 1)],
        "models": [(25_000, 8, 1), (25_000, 16, 1)],
        "attacks": [(2_500, 8, 1), (2_500, 8, 14)],
        "full": [(25_000, 12, 14)],
    }
    chosen = small[case] if quick else table[case]
    return [dict(zip(("examples", "models", "attacks"), size, strict=True)) for size in chosen]


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
    used = Used(pathlib.Path(f"{folder}.used.json") if folder else None)
    mia_jax.audit(
        shadow_loss=loss,
        shadow_member=member,
        attacks=chosen,
        folder=pathlib.Path(folder) if folder else None,
    )
    return used.stop() | dict(examples=examples, models=models, attacks=attacks)


class Used:
    """Measures what this process uses, and adds what earlier ones used for the same folder.

    Args:
        path: the file in which the sums are kept, every 10 seconds; None for one process.
    """

    def __init__(self, path: pathlib.Path | None):
        self.path, self.cpu, self.wall = path, time.process_time(), time.time()
        there = path is not None and path.exists()
        self.before = json.loads(path.read_text()) if there else dict(cpu_s=0, wall_s=0, peak_gb=0)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def sums(self) -> dict[str, float]:
        """Returns CPU and wall seconds of all processes and the peak memory of the largest."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return dict(
            cpu_s=round(self.before["cpu_s"] + time.process_time() - self.cpu, 2),
            wall_s=round(self.before["wall_s"] + time.time() - self.wall, 2),
            peak_gb=round(max(self.before["peak_gb"], peak), 3),
        )

    def _keep(self) -> None:
        while self.path is not None and not self._end.wait(10):
            self.path.write_text(json.dumps(self.sums()))

    def stop(self) -> dict[str, float]:
        """Returns `sums` and removes the file: the audit is done."""
        self._end.set()
        self._thread.join()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        return self.sums()


if __name__ == "__main__":
    sys.exit(main())
