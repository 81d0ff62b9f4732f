"""Times HopSkipJump against the Adversarial Robustness Toolbox, which loops over examples.

Ours is batched over examples.

    python -m benchmarks.label_only [--quick] [--runs 3] [--peers art] [--batch 25] [--chunk 4]
        [--lanes CORES]

The only case, hop_skip_jump, attacks a small CNN (two convolutions) on 28x28 images: 10 iterations
from 100 evaluations (about 2,400 queries per sample), l2, box [0, 1]. The peer runs the same
weights in PyTorch with the same iterations and evaluations, on the first samples only. Compared
are:

  * seconds per sample (compilation excluded), and the same at other batch sizes,
  * the median distance over the samples that both attack,
  * queries per second, next to those of the plain forward pass at its best batch size,
  * as a second ratio, the seconds until our median distance is no larger than the peer's last one
    (seconds in proportion to the queries asked until then).
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile

from benchmarks import _boundary_ways, _pairs

PEERS = ("art",)
ART = (
    "The Adversarial Robustness Toolbox and PyTorch are the peer of this benchmark: pip install -r "
    "requirements-bench.txt (or --peers none)."
)
SIZES = (1, 10, 25, 50, 100)


def main(argv: list[str] | None = None) -> int:
    parser = _pairs.parser(__doc__, peers=PEERS)
    parser.add_argument(
        "--batch", type=int, default=25, help="examples that walk at once (default 25)"
    )
    parser.add_argument(
        "--chunk",
        type=int,
        default=4,
        help="directions an example that are asked at once (default 4)",
    )
    parser.add_argument(
        "--lanes",
        type=int,
        default=os.cpu_count() or 1,
        help="batches that walk at a time, each in a thread (default: the cores)",
    )
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(n) for n in text.split(",") if n],
        help="batch sizes of the cost table; '' for none",
    )
    return _pairs.run(benchmark, answer, parser, argv)


def answer(*, role: str, **request) -> dict:
    """Runs one contender in this process."""
    return dict(ours=_boundary_ways.ours, art=_boundary_ways.art)[role](**request)


def call(role: str, **request) -> dict:
    """Returns a contender's answer from a fresh process."""
    return _pairs.contender("benchmarks.label_only", role=role, **request)


def benchmark(args) -> None:
    """Prints the table, the cost at other batch sizes, and a JSON line."""
    for library in ("torch", "art") if args.peers else ():
        _pairs.need(library, ART)
    runs = args.runs or (1 if args.quick else 3)
    side, iterations, samples, peer_samples = (
        (16, 2, args.batch, 5) if args.quick else (28, 10, max(100, args.batch), 25)
    )
    samples = -(-samples // args.batch) * args.batch
    settings = dict(iterations=iterations, evaluations=100)
    with tempfile.TemporaryDirectory(prefix="mia_jax_label_only_") as folder:
        path = str(pathlib.Path(folder) / "weights.npz")
        _boundary_ways.weights(path, examples=samples, side=side, epochs=2 if args.quick else 3)
        settings_of_ours = dict(
            path=path,
            chunk=args.chunk,
            lanes=args.lanes,
            compared=min(samples, peer_samples),
            **settings,
        )
        contenders = dict(ours=lambda: call("ours", batch_size=args.batch, **settings_of_ours))
        if args.peers:
            contenders["art"] = lambda: call(
                "art", path=path, samples=peer_samples, threads=os.cpu_count() or 1, **settings
            )
        samples_of = _pairs.interleaved(contenders, runs)
        sizes = (
            args.sizes
            if args.sizes is not None
            else ([] if args.quick else [n for n in SIZES if n <= samples])
        )
        costs = {n: call("ours", batch_size=n, **settings_of_ours) for n in sizes}
    report(samples_of, costs, args, runs)


def report(samples_of: dict, costs: dict, args, runs: int) -> None:
    """Prints the tables for people, then a JSON line for the peer."""
    middle = lambda name, field: _pairs.median(samples_of[name], field)  # noqa: E731
    rows = [
        [
            name,
            _pairs.seconds(middle(name, "seconds")),
            f"{middle(name, 'distance'):.4g}",
            f"{middle(name, 'queries'):,.0f}",
        ]
        + [f"{middle(name, 'queries_per_s'):,.0f}", f"{middle(name, 'peak_mb'):,.0f} MB"]
        for name in samples_of
    ]
    print(
        f"hop_skip_jump: {runs} run{'s' * (runs != 1)}, batches of {args.batch}, chunks of "
        f"{args.chunk} directions, {args.lanes} batches at a time"
    )
    print(
        _pairs.table(
            ["", "a sample", "median distance", "queries", "queries/s", "peak memory"], rows
        )
    )
    forward = middle("ours", "forward_per_s")
    share = middle("ours", "queries_per_s") / forward
    print(
        f"plain forward pass {forward:,.0f} images/s at its best batch size: the walk asks "
        f"{share:.0%} as many labels a second"
    )
    print(f"compile {_pairs.seconds(middle('ours', 'compile_s'))}")
    for size, cost in costs.items():
        print(
            f"batches of {size}: {_pairs.seconds(cost['seconds'])} a sample, "
            f"{cost['queries_per_s']:,.0f} queries/s"
        )
    others = max(_pairs.median(samples, "others") for samples in samples_of.values())
    if others > 0.05:
        print(
            f"other processes used {others:.0%} of the machine meanwhile: repeat this when it is "
            "idle"
        )
    for peer in (name for name in samples_of if name != "ours"):
        record = _pairs.comparison(
            benchmark="label_only",
            case="hop_skip_jump",
            ours_s=middle("ours", "seconds"),
            peer=peer,
            peer_s=middle(peer, "seconds"),
            per="sample",
        )
        record |= at_equal_distance(
            samples_of["ours"], peer_s=record["peer_s"], distance=middle(peer, "distance")
        )
        record |= dict(
            forward_share=share,
            runs=runs,
            batch=args.batch,
            chunk=args.chunk,
            lanes=args.lanes,
            others=others,
        )
        record |= {
            f"{who}_{field}": middle(name, field)
            for who, name in (("ours", "ours"), ("peer", peer))
            for field in ("distance", "queries")
        }
        print(_pairs.line(record), flush=True)


def at_equal_distance(ours: list[dict], *, peer_s: float, distance: float) -> dict:
    """Returns our cost after the first iteration whose median distance is at most `distance`.

    The result is empty if there is no such iteration.
    """
    steps = ours[0]["steps"]  # of the same keys in every run
    reached = next((step for step in steps if step[1] <= distance), None)
    if reached is None:
        return {}
    seconds = _pairs.median(ours, "seconds") * reached[0] / steps[-1][0]
    return dict(
        equal_distance_s=seconds,
        equal_distance_queries=reached[0],
        equal_distance_ratio=peer_s / seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
