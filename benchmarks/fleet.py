"""Times the training of a fleet of models against PyTorch.

    python -m benchmarks.fleet [--quick] [--cases digits_mlp,small_cnn,conv] [--runs 3]
        [--peers torch,torch_stacked]

The cases:

    digits_mlp  64 MLPs (64-256-10) on halves of the digits, 100 epochs. Peers: PyTorch one model
                at a time (ours with compilation), and PyTorch with all models stacked in batched
                matrix products (ours without compilation); both columns are printed. Also how the
                cost grows with the numbers of models and of examples, as exponents.
    small_cnn   4 small CNNs on 2,000 random 28x28x1 images, batches of 100. Peer: PyTorch one model
                at a time.
    conv        A training step of the conv net inside the fleet's epoch, 32x32x3 images, batches of
                64. Peer: PyTorch's step.

Ours is mia_jax.training.fleet.train, with its files on disk and metrics; the PyTorch side keeps
everything in memory. Data, epochs, batches, shuffling and optimizer (Adam) are the same. A short
trial first chooses the peers' threads, Adam form, memory layout and stack size.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from benchmarks import _pairs

PEERS = ("torch", "torch_stacked")


class Case(NamedTuple):
    """Holds the sizes of a case; its seconds are per 'fleet' (all training) or per 'step'."""

    peers: tuple[str, ...]
    models: int
    epochs: int
    batch_size: int
    learning_rate: float
    chunk: int
    examples: int
    shape: tuple[int, ...]
    per: str


CASES = dict(
    digits_mlp=Case(PEERS, 64, 100, 32, 3e-3, 8, 1797, (64,), "fleet"),
    small_cnn=Case(("torch",), 4, 5, 100, 1e-3, 1, 2000, (28, 28, 1), "fleet"),
    conv=Case(("torch",), 1, 8, 64, 1e-3, 1, 512, (32, 32, 3), "step"),
)
QUICK = dict(
    digits_mlp=dict(models=8, epochs=10),
    small_cnn=dict(models=2, epochs=2, examples=500),
    conv=dict(epochs=4, examples=256),
)


def main(argv: list[str] | None = None) -> int:
    parser = _pairs.parser(__doc__, peers=PEERS, cases=CASES)
    parser.add_argument(
        "--models",
        type=int,
        help="models of digits_mlp (an even number; default 64, 8 with --quick)",
    )
    parser.add_argument(
        "--epochs", type=int, help="epochs of digits_mlp (default 100, 10 with --quick)"
    )
    parser.add_argument(
        "--chunk",
        type=int,
        help="models that our program trains at a time, in every case (default: 8 MLPs, 1 "
        "convolutional net)",
    )
    parser.add_argument(
        "--exponents",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the exponents of digits_mlp",
    )
    return _pairs.run(benchmark, answer, parser, argv)


def benchmark(args) -> None:
    """Runs the cases in turn and prints a table and a JSON line for each comparison."""
    if args.peers:
        _pairs.need("torch", _pairs.TORCH)
    runs = args.runs or (1 if args.quick else 3)
    with tempfile.TemporaryDirectory(prefix="mia_jax_fleet_") as folder:
        for name in args.cases:
            sizes = dict(QUICK[name]) if args.quick else {}
            if name == "digits_mlp":
                sizes |= {
                    field: value
                    for field in ("models", "epochs")
                    if (value := getattr(args, field))
                }
            if args.chunk:
                sizes["chunk"] = args.chunk
            measure(
                name,
                CASES[name]._replace(**sizes),
                pathlib.Path(folder),
                runs,
                [p for p in args.peers if p in CASES[name].peers],
                args,
            )


def measure(name: str, case: Case, folder: pathlib.Path, runs: int, peers: list[str], args) -> None:
    """Chooses the peers' settings, runs one case in turns, and prints the results."""
    arrays = save_arrays(folder / f"{name}.npz", name, case)
    common = dict(
        case=name,
        arrays=str(arrays),
        models=case.models,
        epochs=case.epochs,
        batch_size=case.batch_size,
        learning_rate=case.learning_rate,
    )
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    contenders, chosen = {"ours": lambda: call("ours", chunk=case.chunk, **common)}, {}
    for peer in peers:
        say(f"{name}: finding the best settings of {peer}")
        chosen[peer] = call("settings", peer=peer, rounds=1 if args.quick else 3, **common)[
            "settings"
        ]
        contenders[peer] = lambda peer=peer: call("peer", peer=peer, **common, **chosen[peer])
    say(f"{name}: {runs} run{'s' * (runs > 1)} of each of {', '.join(contenders)}, in turns")
    samples = _pairs.interleaved(contenders, runs)
    exponents = {}
    if name == "digits_mlp" and args.exponents:
        say(f"{name}: exponents")
        exponents = measured_exponents(common, case, folder, quick=args.quick)
    report(name, case, samples, chosen, exponents, runs)


def call(role: str, **request) -> dict:
    """Returns a contender's answer from a fresh process."""
    return _pairs.contender("benchmarks.fleet", role=role, **request)


def answer(*, role: str, **request) -> dict:
    """Runs one contender in this process."""
    if role == "ours":
        return ours(**request)
    from benchmarks import _torch_fleet

    return (
        dict(settings=_torch_fleet.settings(**request))
        if role == "settings"
        else _torch_fleet.run(**request)
    )


# What is printed
# --------------------------------------------------------------------------------


def report(name: str, case: Case, samples: dict, chosen: dict, exponents: dict, runs: int) -> None:
    """Prints the table of a case and one JSON line for each peer."""
    steps = case.models * case.epochs * -(-rows_per_model(name, case) // case.batch_size)
    unit = 1 if case.per == "fleet" else steps // case.epochs
    with_compile, without = (
        _pairs.median(samples["ours"], "seconds"),
        _pairs.median(samples["ours"], "without_compile_s"),
    )
    compile_s, ours_s = _pairs.median(samples["ours"], "compile_s"), without
    if case.per == "step":
        ours_s = _pairs.median(samples["ours"], "epoch_s") / unit
    others = max(_pairs.median(runs_of, "others") for runs_of in samples.values())
    what = ", ".join(
        count(n, word)
        for n, word in (
            (case.models, "model"),
            (case.epochs, "epoch"),
            (steps, "step"),
            (runs, "run"),
        )
    )
    print(f"\n{name}: {what}, batches of {case.batch_size}")
    rows, records = [], []
    rows.append(["ours", *cells(case, samples["ours"], with_compile, ours_s, steps, 1.0, 1.0)])
    for peer, settings in chosen.items():
        peer_s = (
            _pairs.median(samples[peer], "seconds" if case.per == "fleet" else "epoch_s") / unit
        )
        rows.append(
            [
                peer,
                *cells(
                    case,
                    samples[peer],
                    peer_s,
                    peer_s,
                    steps,
                    peer_s / with_compile,
                    peer_s / ours_s,
                ),
            ]
        )
        includes = name == "digits_mlp" and peer == "torch"
        both = (
            dict(ours_with_compile_s=with_compile, ratio_with_compile=peer_s / with_compile)
            if case.per == "fleet"
            else {}
        )
        records.append(
            _pairs.comparison(
                benchmark="fleet",
                case=name,
                ours_s=with_compile if includes else ours_s,
                peer=peer,
                peer_s=peer_s,
                per=case.per,
            )
            | dict(
                includes_compile=includes,
                ours_without_compile_s=ours_s,
                ratio_without_compile=peer_s / ours_s,
                compile_s=compile_s,
                **both,
            )
            | dict(
                models=case.models,
                epochs=case.epochs,
                steps=steps,
                chunk=case.chunk,
                runs=runs,
                peer_settings=settings,
                others=others,
            )
            | {
                f"ours_{field}": _pairs.median(samples["ours"], field)
                for field in ("accuracy", "peak_mb", "cpu_s")
            }
            | {
                f"peer_{field}": _pairs.median(samples[peer], field)
                for field in ("accuracy", "peak_mb", "cpu_s")
            }
            | {f"exponent_{what}": value for what, value in exponents.items()}
        )
    print(
        _pairs.table(
            [
                "",
                "with compile",
                "without",
                "steps/s",
                "peak memory",
                "accuracy",
                "ratio with",
                "ratio without",
            ],
            rows,
        )
    )
    print(
        f"compile {_pairs.seconds(compile_s)}"
        + "".join(f"; {peer}: {text(settings)}" for peer, settings in chosen.items())
    )
    if others > 0.05:
        print(
            f"other processes used {others:.0%} of the machine meanwhile: repeat this when it is "
            "idle"
        )
    if exponents:
        print(
            "cost grows as "
            + ", ".join(f"{what}^{value:.2f}" for what, value in exponents.items())
            + " (ours, without compile)"
        )
    for record in records:
        print(_pairs.line(record), flush=True)


def cells(
    case: Case,
    samples: list[dict],
    with_compile: float,
    without: float,
    steps: int,
    ratio_with: float,
    ratio_without: float,
) -> list[str]:
    """Returns a contender's row; a step has no column with compilation."""
    fleet = case.per == "fleet"
    rate = steps / without if fleet else 1 / without
    memory, right = _pairs.median(samples, "peak_mb"), _pairs.median(samples, "accuracy")
    first = (_pairs.seconds(with_compile), f"{ratio_with:.2f}") if fleet else ("", "")
    return [
        first[0],
        _pairs.seconds(without),
        f"{rate:,.0f}",
        f"{memory:,.0f} MB",
        f"{right:.3f}",
        first[1],
        f"{ratio_without:.2f}",
    ]


def count(number: int, word: str) -> str:
    """Returns a text such as '1 run' or '2,080 steps'."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def text(settings: dict) -> str:
    """Returns a text such as 'threads 2, form fused'."""
    return ", ".join(f"{key} {value}" for key, value in settings.items())


# Data
# --------------------------------------------------------------------------------


def save_arrays(path: pathlib.Path, name: str, case: Case) -> pathlib.Path:
    """Writes x, y and rows_MK of a case to one file that all contenders read.

    The rows are halves of the digits, or random images that every model trains on.
    """
    if name == "digits_mlp":
        from mia_jax.data import digits

        pool = digits.load(flat=True)
        keep = np.random.default_rng(0).permutation(len(pool.y))[: case.examples]
        np.savez(path, x=np.asarray(pool.x)[keep], y=np.asarray(pool.y)[keep], rows_MK=halves(case))
        return path
    rng = np.random.default_rng(0)
    x, y = (
        rng.random((case.examples, *case.shape), np.float32),
        rng.integers(0, 10, case.examples).astype(np.int32),
    )
    np.savez(
        path, x=x, y=y, rows_MK=np.tile(np.arange(case.examples, dtype=np.int32), (case.models, 1))
    )
    return path


def halves(case: Case) -> np.ndarray:
    """Returns rows_MK of the design `halves`, as in configs/quickstart.py.

    A tenth of the examples trains no model.
    """
    from mia_jax.designs import halves

    member_MN = halves.make(num_examples=case.examples, seed=0, models=case.models).member_MN
    return np.stack([np.flatnonzero(member_N) for member_N in member_MN]).astype(np.int32)


def rows_per_model(name: str, case: Case) -> int:
    """Returns K, the number of examples that a model trains on."""
    return halves(case).shape[1] if name == "digits_mlp" else case.examples


def measured_exponents(
    common: dict, case: Case, folder: pathlib.Path, *, quick: bool
) -> dict[str, float]:
    """Returns {'models': a, 'examples': b} where our seconds grow as models^a examples^b.

    Compilation is excluded, and there are fewer epochs than in the comparison.
    """
    epochs = max(1, case.epochs // (2 if quick else 5))
    exponents = {}
    for what, sizes in (
        ("models", (4, 8) if quick else (8, 16, 32, 64)),
        ("examples", (450, 1797) if quick else (450, 900, 1797)),
    ):
        spent = []
        for size in sizes:
            changed = case._replace(**({"models": 8 if quick else 16} | {what: size}))
            arrays = save_arrays(folder / "exponents.npz", "digits_mlp", changed)
            request = common | dict(arrays=str(arrays), models=changed.models, epochs=epochs)
            spent.append(
                call("ours", chunk=min(case.chunk, changed.models), **request)["without_compile_s"]
            )
        exponents[what] = _pairs.slope(sizes, spent)
    return exponents


# Ours
# --------------------------------------------------------------------------------


def ours(
    *,
    case: str,
    arrays: str,
    models: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    chunk: int,
) -> dict:
    """Runs fleet.train into a temporary folder, in a process that has compiled nothing yet."""
    import jax

    from mia_jax import registry
    from mia_jax.learners import backprop
    from mia_jax.objectives import cross_entropy
    from mia_jax.training import checkpoint, fleet
    from mia_jax.types import Pool, classification

    with np.load(arrays) as file:
        pool, rows_MK = (
            Pool(x=file["x"], y=file["y"], name=case, task=classification(10)),
            file["rows_MK"],
        )
    model = registry.make("models", {"digits_mlp": "mlp"}.get(case, case), num_classes=10)
    loss = cross_entropy.make(model=model)
    learner = backprop.make(
        model=model,
        loss=loss,
        num_rows=rows_MK.shape[1],
        epochs=epochs,
        batch_size=batch_size,
        optimizer="adam",
        learning_rate=learning_rate,
    )
    stamps: list[float] = []
    hooks = [lambda *_: stamps.append(time.perf_counter())] if models == 1 else []
    compiling = Compiling(jax)
    weight_MK = np.ones(rows_MK.shape, np.float32)
    with tempfile.TemporaryDirectory(prefix="mia_jax_fleet_") as folder:
        place = pathlib.Path(folder)
        start, processor = time.perf_counter(), time.process_time()
        fleet.train(
            learner=learner,
            pool=pool,
            rows_MK=rows_MK,
            weight_MK=weight_MK,
            seed=0,
            models=range(models),
            folder=place,
            chunk=chunk,
            on_epoch=hooks,
        )
        seconds, compile_s = time.perf_counter() - start, compiling.seconds()
        processor = time.process_time() - processor
        peak = _pairs.peak_bytes()
        template = jax.eval_shape(model.init, jax.random.key(0), pool.x[:1])
        variables = checkpoint.load_models(place, range(models), template)
    right = [
        accuracy(jax, model, jax.tree.map(lambda a, m=m: a[m], variables), pool, rows_MK[m])
        for m in range(models)
    ]
    epoch_s = float(np.median(np.diff(stamps))) if len(stamps) > 1 else None
    times = dict(
        seconds=seconds,
        compile_s=compile_s,
        without_compile_s=seconds - compile_s,
        epoch_s=epoch_s,
        cpu_s=processor,
    )
    return times | dict(peak_mb=peak / 1e6, accuracy=float(np.mean(right)))


def accuracy(jax, model, variables, pool, rows_K, limit: int = 500) -> float:
    """Returns a model's accuracy on its training set (the first rows)."""
    rows_K = rows_K[:limit]
    out_BC, _ = jax.jit(model.apply)(variables, pool.x[rows_K])
    return float((np.asarray(out_BC).argmax(1) == pool.y[rows_K]).mean())


class Compiling:
    """Measures the time in which any thread traced, lowered or compiled a program.

    It is the union of the intervals that JAX reports.
    """

    def __init__(self, jax):
        self.intervals: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._record)

    def _record(self, name: str, duration: float, **_) -> None:
        if name.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self.intervals.append((now - duration, now))

    def seconds(self) -> float:
        total, end = 0.0, float("-inf")
        for low, high in sorted(self.intervals):
            total, end = total + max(0.0, high - max(low, end)), max(high, end)
        return total


if __name__ == "__main__":
    sys.exit(main())
