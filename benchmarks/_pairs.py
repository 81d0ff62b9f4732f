"""Holds what all benchmarks share: contenders timed in turns, and the ratio of their times.

Contenders take turns (A B A B ...), so that a machine that slows down slows all of them; a result
is the median of a contender's runs. Each run is a fresh interpreter: nothing is compiled yet, the
threads of one library do not compete with those of another, and peak memory is per contender.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORCH = (
    "PyTorch is not installed here, and it is the peer of this benchmark: pip install -r "
    "requirements-bench.txt (or --peers none)."
)


class Missing(Exception):
    """Is raised if a library is absent or a contender failed; the message says what to do."""


def parser(doc: str, *, peers: Sequence[str], cases: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Returns a parser of --quick, --runs, --peers, and --cases if there are several."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and one run each: shows that it works, its ratios mean little",
    )
    made.add_argument(
        "--runs", type=int, help="runs of each contender, in turns (default 3; 1 with --quick)"
    )
    made.add_argument(
        "--peers",
        type=names(peers),
        default=list(peers),
        help=f"any of {','.join(peers)}; 'none' times ours alone (default: all)",
    )
    if cases:
        made.add_argument(
            "--cases",
            type=names(tuple(cases)),
            default=list(cases),
            help=f"any of {','.join(cases)} (default: all)",
        )
    return made


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Returns an argparse type: a comma-separated list of known names; 'none' is the empty list."""

    def parse(text: str) -> list[str]:
        chosen = [] if text == "none" else [name for name in text.split(",") if name]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; known: {', '.join(known)}")
        return chosen

    return parse


def run(
    benchmark: Callable,
    answer: Callable,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> int:
    """Runs a benchmark from the command line and returns its exit status.

    `Missing` becomes one message and status 1. In the process of a `contender`, prints
    answer(**request).
    """
    argv = sys.argv[1:] if argv is None else argv
    if list(argv[:1]) == ["--contender"]:
        print(json.dumps(answer(**json.loads(argv[1]))))
        return 0
    try:
        benchmark(parser.parse_args(argv))
    except Missing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def need(library: str, message: str) -> None:
    """Raises Missing with the message unless the library is installed."""
    if importlib.util.find_spec(library) is None:
        raise Missing(message)


# Runs
# --------------------------------------------------------------------------------


def contender(module: str, **request) -> dict:
    """Runs `python -m module --contender REQUEST` and returns the JSON object of its last line.

    `others` is added: the share of this machine that other processes used meanwhile. There is no
    compilation cache, whatever the environment says.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= dict(JAX_PLATFORMS="cpu", JAX_ENABLE_COMPILATION_CACHE="false")
    command = [sys.executable, "-m", module, "--contender", json.dumps(request)]
    before = busy_elsewhere()
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    spent = (time.perf_counter() - start) * (os.cpu_count() or 1)
    if done.returncode:
        raise Missing(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) | dict(
        others=max(0.0, busy_elsewhere() - before) / spent
    )


def busy_elsewhere() -> float:
    """Returns the processor seconds of all processes except this one's finished children.

    They count from the start of the machine; the result is 0 where they are unknown.
    """
    try:
        user, nice, system = (
            int(value) for value in pathlib.Path("/proc/stat").read_text().split()[1:4]
        )
    except (OSError, ValueError):
        return 0.0
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - children.ru_utime - children.ru_stime


def interleaved(contenders: Mapping[str, Callable[[], dict]], runs: int) -> dict[str, list[dict]]:
    """Runs all contenders in turns, `runs` times, and returns {name: samples}."""
    samples: dict[str, list[dict]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, run in contenders.items():
            samples[name].append(run())
    return samples


def median(samples: Sequence[Mapping], field: str) -> float:
    """Returns the median of a field over the runs."""
    return statistics.median(sample[field] for sample in samples)


def peak_bytes() -> int:
    """Returns the most memory that this process ever held."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (
        OSError,
        IndexError,
    ):  # not Linux; ru_maxrss would also count the parent that started this process
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


def resident_bytes() -> int:
    """Returns the memory that this process holds now; the most it ever held where it is unknown."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return peak_bytes()


def peak_beyond(run: Callable[[], object]) -> int:
    """Returns by how much the memory of this process rises while run() runs.

    On Linux the peak of the process is reset before (read `peak_bytes` first if it is needed).
    """
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    before = resident_bytes()
    run()
    return max(0, peak_bytes() - before)


# Results
# --------------------------------------------------------------------------------


def comparison(
    *, benchmark: str, case: str, ours_s: float, peer: str, peer_s: float, **extra
) -> dict:
    """Returns the record of a comparison; ratio = peer / ours, so above 1 ours is faster."""
    fixed = dict(
        benchmark=benchmark,
        case=case,
        ours_s=ours_s,
        peer=peer,
        peer_s=peer_s,
        ratio=peer_s / ours_s,
    )
    tunables = os.environ.get("GLIBC_TUNABLES")
    return (
        fixed
        | extra
        | (dict(glibc_tunables=tunables) if tunables else {})
        | dict(cores=os.cpu_count())
    )


def line(record: Mapping) -> str:
    """Returns the JSON line of a comparison with four significant digits.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(
        {
            key: float(f"{value:.4g}") if isinstance(value, float) else value
            for key, value in record.items()
        },
        allow_nan=False,
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a text table: the first column is left-aligned, the others are right-aligned."""
    lines = [list(header), *[list(row) for row in rows]]
    width = [max(len(row[i]) for row in lines) for i in range(len(header))]

    def pad(row):
        return "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, width, strict=True))
        ).rstrip()

    return "\n".join(
        [pad(lines[0]), "  ".join("-" * w for w in width), *[pad(row) for row in lines[1:]]]
    )


def seconds(value: float) -> str:
    """Returns a text such as '12.3 s' or '45.6 ms'."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns the exponent a of y ~ x^a, the slope of the least-squares line of log y on log x."""
    u, v = [math.log(value) for value in x], [math.log(value) for value in y]
    center_u, center_v = statistics.fmean(u), statistics.fmean(v)
    return sum((a - center_u) * (b - center_v) for a, b in zip(u, v, strict=True)) / sum(
        (a - center_u) ** 2 for a in u
    )
