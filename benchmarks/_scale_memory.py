"""The cases of benchmarks.scale about memory: queries and pools larger than the memory.

    python -m benchmarks._scale_memory [--quick] [--cases query,pool] [--folder /tmp]

    query  10^6 examples x 32 linear models x 18 query views (576 million answers) in at most 2 GB,
           killed twice (SIGKILL) and started again. The files of the first 8 models are compared
           with those of a query that nobody kills: they must be equal byte for byte.
    pool   Two linear models train for an epoch on a pool of 8 GB of bytes on disk, under
           RLIMIT_DATA of 4 GB (the kernel refuses more private memory; pages of the mapped file are
           no private memory). The models must be those of the same pool in memory, to the bit.

`--quick` has 10^5 examples x 8 models, and 1 GB with 0.5 GB above what the process has before it
reads the pool. `peak_gb` of a process is that of its anonymous pages, read 20 times a second
(RssAnon): pages of files are the system's to drop. Each case prints a line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

import numpy as np

Path = pathlib.Path
ROOT = Path(__file__).resolve().parent.parent
GB = 1e9
SHIFTS = tuple(f"shift:{dy},{dx}" for dy in (-1, 0, 1) for dx in (-2, -1, 0, 1, 2) if dy or dx)
VIEWS = ("identity", "flip", *SHIFTS, "shift:2,0", "shift:-2,0")
CASES = ("query", "pool")


class Size(NamedTuple):
    """Holds the sizes of both cases.

    Attributes:
        examples, models: of the query.
        answer_bytes: the answers of a chunk that are held at once.
        kills: after how many segments on disk the query is killed.
        rows: the images 32 x 32 x 3 of the pool.
        limit: RLIMIT_DATA of the training in bytes; 0 for `above`.
        above: bytes above what the process has before it reads the pool.
        pool_bytes: config.run.pool_bytes of the training.
    """

    examples: int
    models: int
    answer_bytes: int
    kills: tuple[int, ...]
    rows: int
    limit: int
    above: int
    pool_bytes: int


FULL = Size(10**6, 32, 2**28, (3, 9), 2_700_000, 4 * 10**9, 0, 10**9)
QUICK = Size(10**5, 8, 2**24, (1, 2), 340_000, 0, 5 * 10**8, 3 * 10**8)


class Peak:
    """Records, in a thread, the most anonymous memory that this process has."""

    def __init__(self):
        self.start = self.bytes = anonymous()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            self.bytes = max(self.bytes, anonymous())

    def stop(self) -> int:
        """Returns the peak in bytes."""
        self._end.set()
        self._thread.join()
        return max(self.bytes, anonymous())


def anonymous() -> int:
    """Returns the bytes of anonymous pages of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def usage(peak: Peak, start: float) -> dict:
    """Returns what this process has used."""
    times = resource.getrusage(resource.RUSAGE_SELF)
    return dict(
        cpu_s=times.ru_utime + times.ru_stime,
        wall_s=time.monotonic() - start,
        peak_gb=peak.stop() / GB,
        above_gb=(peak.bytes - peak.start) / GB,
    )


def child(case: str, folder: Path, **fields) -> subprocess.Popen:
    """Starts a part of a case in a process of its own."""
    text = json.dumps(dict(case=case, folder=str(folder)) | fields)
    command = [sys.executable, "-m", "benchmarks._scale_memory", "--child", text]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finished(process: subprocess.Popen) -> dict:
    """Returns what a part printed last.

    Raises:
        RuntimeError: it failed.
    """
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args[-1]} ended with {process.returncode}")
    return json.loads(out.splitlines()[-1])


# ---- query ----


def ask(folder: Path, *, out: str, examples: int, models: int, answer_bytes: int) -> None:
    """Queries the first `models` linear models in the folder, which are made if they lack."""
    import jax

    from mia_jax import query_views, registry
    from mia_jax.query import forward
    from mia_jax.training import checkpoint
    from mia_jax.types import Pool, classification

    start, rng = time.monotonic(), np.random.default_rng(0)
    pool = Pool(
        x=rng.random((examples, 4, 4, 1), np.float32),
        y=rng.integers(0, 10, examples).astype(np.int32),
        task=classification(10),
    )
    model = registry.make("models", "mlp", dict(widths=()), num_classes=10)
    for m in range(models):
        if not checkpoint.model_file(folder, m).exists():
            variables = model.init(jax.random.key(m), pool.x[:1])
            checkpoint.save_model(folder, m, jax.device_get(variables), {})
    peak = Peak()
    forward.query(
        model=model,
        pool=pool,
        signals=dict(loss=registry.make("signals", "loss")),
        views=query_views.make(VIEWS),
        models=range(models),
        models_folder=folder,
        folder=folder / out,
        chunk=8,
        batch_size=5000,
        answer_bytes=answer_bytes,
    )
    print(json.dumps(usage(peak, start)))


def digests(folder: Path, models: int) -> list[str]:
    """Returns the SHA-256 of the answers of the first models."""
    digest = []
    for m in range(models):
        with open(folder / "loss" / f"{m:05d}.npy", "rb") as file:
            digest.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digest


def query(size: Size, folder: Path) -> dict:
    """Runs the case `query`."""
    counts = dict(examples=size.examples, models=size.models)
    common = counts | dict(answer_bytes=size.answer_bytes)
    for count in size.kills:
        process = child("ask", folder, out="killed", **common)
        kept = folder / "killed" / "loss"
        while process.poll() is None and len(list(kept.rglob("*.npy"))) < 8 * count:
            time.sleep(0.02)
        if process.poll() is not None:
            raise RuntimeError("the query ended before it was killed")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    used = finished(child("ask", folder, out="killed", **common))
    alone = finished(child("ask", folder, out="whole", **common | dict(models=8)))
    equal = digests(folder / "killed", 8) == digests(folder / "whole", 8)
    lasting = len(list((folder / "killed").rglob("*.rows-*")))
    used["peak_gb"] = max(used["peak_gb"], alone["peak_gb"])
    answers = size.examples * size.models * len(VIEWS)
    found = dict(kills=len(size.kills), equal=equal, left_over=lasting)
    return used | counts | dict(views=len(VIEWS), answers=answers) | found


# ---- pool ----


def write_pool(folder: Path, rows: int) -> None:
    """Writes x.npy and y.npy of random images, block by block."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with open(folder / "x.npy", "wb") as file:
        header = dict(descr="|u1", fortran_order=False, shape=(rows, 32, 32, 3))
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, 10_000):
            file.write(rng.bytes(3072 * min(10_000, rows - start)))
    np.save(folder / "y.npy", rng.integers(0, 10, rows).astype(np.int32))


def train(folder: Path, *, out: str, pool_bytes: int, limit: int, above: int) -> None:
    """Trains two linear models on the pool in the folder, through the pipeline."""
    import jax

    from mia_jax import configuration
    from mia_jax.pipeline import run

    jax.device_put(np.zeros(1)).block_until_ready()
    start, peak = time.monotonic(), Peak()
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    config = configuration.complete(
        data=dict(name="npy", folder=str(folder / "pool")),
        design=dict(name="halves", models=2),
        model=dict(name="mlp", widths=()),
        learner=dict(epochs=1, batch_size=500, optimizer="sgd", learning_rate=0.01),
        attacks=dict(loss=dict(name="threshold", signal="loss")),
        run=dict(chunk=2, pool_bytes=pool_bytes),
    )
    run.run(config, workdir_path=folder / out, stages_wanted=("train",))
    used = usage(peak, start)
    if above and used["above_gb"] > above / GB:
        raise MemoryError(f"{used['above_gb']:.3f} GB above the start, {above / GB:.3f} allowed")
    print(json.dumps(used))


def pool(size: Size, folder: Path) -> dict:
    """Runs the case `pool`."""
    write_pool(folder / "pool", size.rows)
    common = dict(limit=size.limit, above=size.above)
    used = finished(child("train", folder, out="streamed", pool_bytes=size.pool_bytes, **common))
    within = finished(child("train", folder, out="whole", pool_bytes=2**40, limit=0, above=0))
    from mia_jax.runtime import files
    from mia_jax.training import checkpoint

    def variables(name: str, m: int) -> dict:
        stored = files.read_npz(checkpoint.model_file(folder / name / "train", m))
        return {k: v for k, v in stored.items() if k.startswith("variables/")}

    equal = all(
        a.tobytes() == variables("whole", m)[name].tobytes()
        for m in range(2)
        for name, a in variables("streamed", m).items()
    )
    stored_gb = size.rows * 3072 / GB
    return used | dict(
        examples=size.rows,
        models=2,
        pool_gb=stored_gb,
        limit_gb=(size.limit or size.above) / GB,
        in_memory_gb=within["peak_gb"],
        equal=equal,
    )


def run_case(name: str, *, quick: bool, folder: str | None = None) -> dict:
    """Runs one of CASES in a temporary folder.

    Args:
        name: the case.
        quick: takes the smaller sizes.
        folder: where the temporary folder is made.

    Returns:
        The line of the case: {benchmark, case, cpu_s, wall_s, peak_gb, examples, models, ...}.
    """
    place = Path(tempfile.mkdtemp(prefix="mia_jax_scale_", dir=folder))
    try:
        row = dict(query=query, pool=pool)[name](QUICK if quick else FULL, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return dict(benchmark="scale", case=f"{name}_in_fixed_memory", attacks=0) | row


def main() -> int:
    """Runs the cases, and returns 1 if one is not equal or needs more memory than it may."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="smaller sizes")
    made.add_argument("--cases", default=",".join(CASES), help=f"some of {', '.join(CASES)}")
    made.add_argument("--folder", default=None, help="where the files are written")
    made.add_argument("--child", default="", help=argparse.SUPPRESS)
    flags = made.parse_args()
    if flags.child:
        fields = json.loads(flags.child)
        case, folder = fields.pop("case"), Path(fields.pop("folder"))
        dict(ask=ask, train=train)[case](folder, **fields)
        return 0
    failed = 0
    for name in flags.cases.split(","):
        row = run_case(name, quick=flags.quick, folder=flags.folder)
        print(json.dumps(row), flush=True)
        most = 2.0 if name == "query" else 4.0
        failed += not row["equal"] or row["peak_gb"] > most
    return int(bool(failed))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
