"""Compares what --plan says with what a run then takes, stage by stage, in CPU seconds.

    python -m benchmarks.plan                       # the first four cases
    python -m benchmarks.plan --cases quickstart zoo
    python -m benchmarks.plan --cases h100 v5e --nets conv

The cases:

    quickstart  configs/quickstart.py as it is
    stream      6 small CNNs on random images of 28 x 28 pixels, 4,000 of them as bytes in a file,
                streamed to the device
    zoo         configs/attack_zoo.py with 8 models and 20 epochs
    records     losses of 30,000 examples x 16 models that a user supplies, 4 attacks

    h100, v5e   training steps of benchmarks.accelerator compiled for these accelerators, where
                their compilers are (docs/before_a_long_start.md): memory, traffic, launches

Plan and run are processes of their own, without compiled programs of earlier ones. Wall-clock
seconds are those of a machine that other work may share; CPU seconds are of the process, and of the
plan those it predicts. The last columns are the peak memory of the process in the run, and the
seconds that the plan itself took. Every stage prints a line of a table and a JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import accelerator
from mia_jax.configuration.settings import RunSettings
from mia_jax.pipeline import estimate, rehearsal
from mia_jax.pipeline.plan import FleetPlan
from mia_jax.runtime import machine, precision
from mia_jax.training import compilers

CASES = ("quickstart", "stream", "zoo", "records")
ELSEWHERE = tuple(compilers.TARGETS)
NETS = tuple(accelerator.FLEETS)
STAGES = ("train", "query", "attack", "report")


def main(argv: list[str] | None = None) -> int:
    """Runs the cases that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=(*CASES, *ELSEWHERE), default=CASES)
    parser.add_argument("--nets", nargs="+", choices=accelerator.FLEETS, default=NETS)
    parser.add_argument("--one", nargs=3, default=(), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        what, case, folder = args.one
        run = planned if what == "plan" else trained
        print(json.dumps(run(case, pathlib.Path(folder))))
        return 0
    print(
        f"{'case':<11}{'stage':<8}{'plan CPU s':>11}{'run CPU s':>11}{'ratio':>7}{'plan s':>9}"
        f"{'run s':>8}"
    )
    for case in args.cases:
        if case in ELSEWHERE:
            for net in args.nets:
                for row in compiled(case, net):
                    record = dict(benchmark="plan", case=case, net=net) | row._asdict()
                    print(json.dumps(record | dict(per_model=row.per_model)), flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            made = {what: separately(what, case, folder) for what in ("plan", "run")}
        report(case, made["plan"], made["run"])
    return 0


def separately(what: str, case: str, folder: str) -> dict[str, Any]:
    """Plans or runs a case in a process of its own and returns its numbers."""
    environment = os.environ | dict(JAX_PLATFORMS="cpu")
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "benchmarks.plan", "--one", what, case, folder]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def report(case: str, plan: dict[str, Any], run: dict[str, Any]) -> None:
    """Prints the lines of a case."""
    for stage in (s for s in STAGES if s in run and s in plan["stages"]):
        said, took = plan["stages"][stage], run[stage]
        record = dict(
            benchmark="plan",
            case=case,
            stage=stage,
            plan_cpu_s=round(said["cpu_seconds"], 2),
            run_cpu_s=took["cpu_s"],
            plan_wall_s=round(said["seconds"], 2),
            run_wall_s=took["wall_s"],
            plan_disk=said["disk"],
            run_disk=took["disk"],
        )
        ratio = record["plan_cpu_s"] / max(0.01, record["run_cpu_s"])
        print(
            f"{case:<11}{stage:<8}{record['plan_cpu_s']:>11.1f}{record['run_cpu_s']:>11.1f}"
            f"{ratio:>7.2f}{record['plan_wall_s']:>9.1f}{record['run_wall_s']:>8.1f}"
        )
        print(json.dumps(record), flush=True)
    whole = dict(benchmark="plan", case=case, stage="plan", **plan["itself"])
    print(json.dumps(whole | dict(peak_gb=run["peak_gb"])), flush=True)


def config_of(case: str, folder: pathlib.Path):
    """Returns the config of a case; its data are made in `folder` where it needs some."""
    from mia_jax import configuration
    from mia_jax.configuration import command_line, shipped

    if case == "quickstart":
        return command_line.config_of(shipped.path_of("quickstart"))
    if case == "zoo":
        return command_line.config_of(shipped.path_of("attack_zoo"), "models=8,epochs=20")
    rng = np.random.default_rng(0)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    if case == "stream":
        if not (data / "x.npy").exists():
            np.save(data / "x.npy", rng.integers(0, 256, (4_000, 28, 28, 1), np.uint8))
            np.save(data / "y.npy", rng.integers(0, 10, 4_000).astype(np.int32))
        return configuration.complete(
            data=dict(name="npy", folder=str(data)),
            design=dict(name="halves", models=6),
            model=dict(name="small_cnn", num_conv=2),
            learner=dict(learning_rate=0.01, batch_size=100, epochs=6),
            query=dict(views=("identity", "flip")),
            attacks=dict(lira=dict(), loss=dict(name="threshold", signal="loss")),
            run=dict(pool_bytes=2**20, chunk=2),
        )
    member = rng.random((16, 30_000)) < 0.5
    loss = np.abs(
        rng.standard_normal(member.shape) * 0.3 + rng.exponential(1.0, 30_000) - 0.3 * member
    )
    np.savez(data / "scores.npz", shadow_loss=loss.astype(np.float32), shadow_member=member)
    return configuration.scores(
        path=str(data / "scores.npz"),
        attacks=dict(
            lira=dict(signal="loss"),
            lira_pooled=dict(name="lira", variance="pooled", signal="loss"),
            reference=dict(signal="loss"),
            threshold_loss=dict(name="threshold", signal="loss"),
        ),
    )


def compiled(
    name: str, net: str, *, chunk: int = 8, forms: Sequence[str] = (), batch: int = 0, **fields
) -> Iterator[compilers.Compiled]:
    """Yields what the compiler of an accelerator says of the training steps of a net.

    Args:
        name: the accelerator, one of compilers.TARGETS.
        net: one of accelerator.FLEETS.
        chunk: the number of models that train together.
        forms: of the program; () for those that --plan compiles.
        batch: examples per step; 0 for those of the case.
        fields: further fields of the model.
    """
    target, case = compilers.TARGETS[name], accelerator.FLEETS[net]
    case = case._replace(batch=batch or case.batch, fields=case.fields | fields, steps=2)
    pool = accelerator.pool_of(case.shape, case.batch * case.steps)
    learner = accelerator.learner_of(case, pool)
    rows_MK = np.arange(len(pool.y), dtype=np.int32)[None]
    weight_MK = np.ones(rows_MK.shape, np.float32)
    rows = dict(rows_MK=rows_MK, weight_MK=weight_MK)
    plan = FleetPlan(learner=learner, pool=pool, validation=None, seed=0, **rows)
    pairs = [(form, chunk) for form in forms]
    pairs = pairs or estimate.pairs_of(RunSettings(), models=chunk, platform=target.platform)
    device, work = compilers.device_of(target), rehearsal.step_flops(plan)
    for form, count in pairs:
        with machine.compiling_for(target.platform), precision.products("float32"):
            yield compilers.compiled(
                target,
                device=device,
                learner=learner,
                pool=pool,
                rows_K=rows_MK[0],
                weight_K=weight_MK[0],
                chunk=count,
                form=form,
                work=work,
                precision="float32",
            )


def planned(case: str, folder: pathlib.Path) -> dict[str, Any]:
    """Plans a case in this process."""
    config = config_of(case, folder)
    begin, cpu = time.time(), time.process_time()
    made = estimate.estimate(config, workdir_path=folder / "run").plain()
    itself = dict(cpu_s=round(time.process_time() - cpu, 2), wall_s=round(time.time() - begin, 2))
    return dict(stages={stage["stage"]: stage for stage in made["stages"]}, itself=itself)


def trained(case: str, folder: pathlib.Path) -> dict[str, Any]:
    """Runs the stages of a case one after the other in this process."""
    import resource

    from mia_jax.pipeline import run

    config, took = config_of(case, folder), {}
    workdir = folder / "run"
    assert not workdir.exists(), "a plan has written into the workdir"
    done: list[str] = []
    parts = dict(train=("train",), query=("signal",), attack=("attack",), report=("report",))
    for stage in STAGES:
        if stage == "train" and "scores" in config:
            continue
        begin, cpu = time.time(), time.process_time()
        run.run(config, workdir_path=workdir, stages_wanted=[stage])
        wall, used = time.time() - begin, time.process_time() - cpu
        files = [path for part in parts[stage] for path in (workdir / part).rglob("*")]
        took[stage] = dict(
            cpu_s=round(used, 2),
            wall_s=round(wall, 2),
            disk=sum(path.stat().st_size for path in files if path.is_file()),
        )
        done.append(stage)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return took | dict(peak_gb=round(peak, 3))


if __name__ == "__main__":
    sys.exit(main())
