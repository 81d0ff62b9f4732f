"""Measures what it costs to share batches among devices, on the fake devices of a CPU.

    python -m benchmarks.mesh                   # the conv net on 1, 2, 4 and 8 devices
    python -m benchmarks.mesh --net mlp --devices 1 2

Weak scaling: every device has two shards of a batch (learner.shards = 2 D), so that the work of a
device stays the same, and what CPU seconds per step and device rise by is what sharing costs:
dispatching the programs, exchanging gradients, waiting by turning in circles. All numbers of
devices are measured in turn, in one process whose thread pool has as many threads as there are
devices, and the least of the repeats counts, because other work on the machine only adds to them.
Each prints a line of a table and a JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

NETS = ("conv", "mlp")


def main(argv: list[str] | None = None) -> int:
    """Measures in a process that has enough devices; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", choices=NETS, default="conv")
    parser.add_argument("--devices", nargs="+", type=int, default=(1, 2, 4, 8))
    parser.add_argument("--rows", type=int, default=32, help="examples in a shard")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.inside:
        measure(args)
        return 0
    flag = f"--xla_force_host_platform_device_count={max(args.devices)}"
    given = sys.argv[1:] if argv is None else argv
    environment = os.environ | dict(XLA_FLAGS=flag, JAX_PLATFORMS="cpu")
    command = [sys.executable, "-m", "benchmarks.mesh", "--inside", *given]
    return subprocess.run(command, env=environment, check=False).returncode


def measure(args: argparse.Namespace) -> None:
    """Prints the lines of all numbers of devices, the smallest first."""
    counts = sorted(args.devices)
    epochs = {count: epoch_of(args.net, count, rows=args.rows) for count in counts}
    times: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for _ in range(args.repeats):
        for count, (run, steps) in epochs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            per = steps * count
            times[count].append(
                ((time.process_time() - cpu) / per, (time.perf_counter() - wall) / steps)
            )
    print(f"{'net':>6}{'devices':>9}{'shards':>8}{'CPU ms / step and device':>26}{'overhead':>10}")
    least = {count: min(cpu for cpu, _ in times[count]) for count in counts}
    for count in counts:
        overhead = least[count] / least[counts[0]] - 1
        print(
            f"{args.net:>6}{count:>9}{2 * count:>8}{1e3 * least[count]:>26.1f}{overhead:>10.1%}",
            flush=True,
        )
        record = dict(benchmark="mesh", net=args.net, devices=count, shards=2 * count)
        record |= dict(rows=args.rows, cpu_s=round(least[count], 6), overhead=round(overhead, 4))
        record |= dict(wall_s=round(min(wall for _, wall in times[count]), 6))
        print(json.dumps(record), flush=True)


def epoch_of(net: str, count: int, *, rows: int, steps: int = 4):
    """Returns (a function that trains an epoch on so many devices, its steps)."""
    import jax
    import numpy as np

    from mia_jax import registry
    from mia_jax.learners import backprop
    from mia_jax.objectives import cross_entropy
    from mia_jax.training import mesh, programs
    from mia_jax.types import Pool, classification

    rng, batch = np.random.default_rng(0), 2 * count * rows
    pool = Pool(
        x=rng.random((batch * steps, 32, 32, 3), np.float32),
        y=rng.integers(0, 10, batch * steps).astype(np.int32),
        task=classification(10),
    )
    model = registry.make("models", net, {}, num_classes=10)
    learner = backprop.make(
        model=model,
        loss=cross_entropy.make(model=model),
        num_rows=batch * steps,
        batch_size=batch,
        shards=2 * count,
    )
    (place,) = mesh.make(devices=jax.devices(), shards=2 * count, data=count)
    program = programs.make(learner=learner, chunk=1, devices=mesh.over(place))
    keys, pool, weight = mesh.put(
        (
            programs.model_keys(seed=0, models=[0]),
            pool,
            np.ones((1, batch * steps), np.float32),
        ),
        place,
    )
    rows_1K = mesh.put(np.arange(batch * steps, dtype=np.int32)[None], place)
    index, weight = program.plan(keys, np.uint32(1), rows_1K, weight)
    kept = [program.init(keys, pool)]

    def run() -> None:
        kept[0], sums = program.run(kept[0], pool, index, weight)
        jax.block_until_ready((kept[0], sums))

    run()
    return run, steps


if __name__ == "__main__":
    sys.exit(main())
