"""Times one private training step against the plain step, Opacus and jax-privacy.

    python -m benchmarks.dp_step [--quick] [--cases mlp,conv] [--runs 3]
        [--peers plain,box_muller,layers,plain_layers,vmap,opacus,opacus_ghost,jax_privacy]
    python -m benchmarks.dp_step --pieces [--quick] [--cases mlp,conv]

The cases:

    mlp   784-256-10, batches of 256
    conv  the conv net (1,250,858 parameters) on 32x32x3 images, batches of 64

Clip norm 1, noise multiplier 1, SGD, and the same batch size for all. Ours is the epoch of the
learner: steps inside one lax.scan, with batches gathered from the pool. `clipping alone` is the
private step without noise. `plain` is the same learner with gradient='mean', `vmap` with
method='vmap', `box_muller` with privacy.normals='box_muller'; `layers` and `plain_layers` are the
private and the plain step with run.form='layers', the programs of their convolutions measured in
their processes before. The peers repeat one step on one batch that is already in memory; their
threads or microbatches are chosen by a short trial. Seconds are per step, without compilation; CPU
time is that of all threads. "peak" is the most memory that a contender's process held, "by steps"
by how much its first two calls raised it, when everything was built (jax-privacy's compile).

`--pieces` prints where the time of our step goes: CPU milliseconds of one core, all pieces in turns
in one process, medians. Each piece is a program of its own, so they do not add up exactly. "plain
step + noise" is what no clipping can be faster than.

Measured (CPU ms per step of one core, under much other load; in brackets times the plain step):

                       mlp                          conv
    plain              2.81                         186
    clipping alone     2.88 (1.02)                  204 (1.10)
    whole step         3.99 (1.42)                  208 (1.12)
    with Box-Muller    3.53 (1.25)                  207 (1.12)
    by steps           15 MB                        101 MB (plain 60)
    Opacus ghost       20 MB                        209 MB

What remains of the mlp's step is its noise: plain step + noise is 1.40 (Box-Muller 1.22). On an
idle machine, before the sums became faster, whole step, plain step and Opacus ghost took 2.14, 1.41
and 4.88 ms (mlp) and 99.0, 74.3 and 158 ms (conv) of wall time on 2 cores.
"""

from __future__ import annotations

import os
import sys

from benchmarks import _dp_ours, _dp_peers, _pairs

OURS = ("whole", "clipping")
VARIANTS = ("plain", "box_muller", "layers", "plain_layers", "vmap")
PEERS = (*VARIANTS, "opacus", "opacus_ghost", "jax_privacy")
LIBRARIES = dict(opacus="opacus", opacus_ghost="opacus", jax_privacy="jax_privacy")
NAMES = dict(
    whole="ours, whole private step",
    clipping="ours, clipping alone",
    plain="ours, plain step",
    box_muller="ours, Box-Muller normals",
    layers="ours, measured programs",
    plain_layers="ours, plain, measured programs",
    vmap="ours, vmap",
    opacus="Opacus hooks",
    opacus_ghost="Opacus ghost",
    jax_privacy="jax-privacy",
)

CASES = dict(
    mlp=_dp_ours.Case("mlp", 256, (28, 28, 1), 40, 15, False),
    conv=_dp_ours.Case("conv", 64, (32, 32, 3), 6, 5, True),
)


def main(argv: list[str] | None = None) -> int:
    parser = _pairs.parser(__doc__, peers=PEERS, cases=CASES)
    parser.add_argument(
        "--pieces", action="store_true", help="only the pieces of our step, on one core"
    )
    return _pairs.run(benchmark, answer, parser, argv)


def benchmark(args) -> None:
    """Runs the cases in turn and prints a table and a JSON line for each comparison."""
    if args.pieces:
        for name in args.cases:
            print_pieces(name, quick=args.quick)
        return
    for peer in args.peers:
        if peer in LIBRARIES:
            _pairs.need(
                LIBRARIES[peer],
                f"{LIBRARIES[peer]} is not installed: pip install -r requirements-bench.txt (or "
                "choose other --peers).",
            )
    for name in args.cases:
        measure(
            name, runs=args.runs or (1 if args.quick else 3), peers=args.peers, quick=args.quick
        )


def print_pieces(name: str, *, quick: bool) -> None:
    """Prints the CPU milliseconds of the pieces of our step, as a table and a JSON line."""
    table = _pairs.contender("benchmarks.dp_step", role="pieces", case=name, quick=quick)
    others = table.pop("others")
    print(_dp_ours.text(name, table))
    print(f"other processes used {100 * others:.0f}% of the machine\n")
    for form, pieces in table.items():
        record = dict(benchmark="dp_step", case=name, form=form, others=others)
        record |= {f"{piece}, cpu_ms": ms for piece, ms in pieces.items()}
        print(_pairs.line(record), flush=True)


def measure(name: str, *, runs: int, peers: list[str], quick: bool) -> None:
    """Runs all contenders of one case in turns."""
    roles = [role for role in (*OURS, *peers) if CASES[name].layers or not role.endswith("layers")]
    contenders = {
        role: lambda role=role: _pairs.contender(
            "benchmarks.dp_step", role=role, case=name, quick=quick
        )
        for role in roles
    }
    samples = _pairs.interleaved(contenders, runs)
    seconds, cpu, peak, held = (
        {role: _pairs.median(samples[role], field) for role in roles}
        for field in ("seconds", "cpu_s", "peak_mb", "step_mb")
    )
    noise = max(0.0, seconds["whole"] - seconds["clipping"])
    rows = []
    for role in roles:
        plain = "plain_layers" if role == "layers" else "plain"
        rows.append(
            [
                NAMES[role],
                _pairs.seconds(seconds[role]),
                f"{seconds[role] / seconds['whole']:.2f}",
                _pairs.seconds(cpu[role]),
                f"{cpu[role] / cpu[plain]:.2f}" if plain in cpu else "",
                f"{peak[role]:,.0f} MB",
                f"{held[role]:,.0f} MB",
            ]
        )
    print(
        f"\n{name}: batch {CASES[name].batch}, median of {runs} run{'s' * (runs > 1)}; noise by "
        f"itself {_pairs.seconds(_pairs.median(samples['whole'], 'noise_s'))}, by difference "
        f"{_pairs.seconds(noise)}\n"
    )
    header = ["", "step", "x whole", "CPU time", "x plain", "peak", "of it by steps"]
    print(_pairs.table(header, rows))
    others = max(sample["others"] for role_samples in samples.values() for sample in role_samples)
    print(f"other processes used {100 * others:.0f}% of the machine at most\n")
    for peer in roles[len(OURS) :]:
        extra = dict(
            clipping_s=seconds["clipping"],
            noise_s=noise,
            clipping_ratio=seconds[peer] / seconds["clipping"],
            cpu_s=cpu["whole"],
            peer_cpu_s=cpu[peer],
            ours_mb=peak["whole"],
            peer_mb=peak[peer],
            ours_step_mb=held["whole"],
            peer_step_mb=held[peer],
        )
        record = _pairs.comparison(
            benchmark="dp_step",
            case=name,
            ours_s=seconds["whole"],
            peer=peer,
            peer_s=seconds[peer],
            **extra,
        )
        print(_pairs.line(record), flush=True)


def answer(*, role: str, case: str, quick: bool) -> dict:
    """Runs one contender's step in this process."""
    sizes = CASES[case]._replace(**(dict(steps=3, repeats=2) if quick else {}))
    if role == "pieces":
        if hasattr(os, "sched_setaffinity"):  # one core, or XLA takes as many threads as there are
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return _dp_ours.pieces(sizes, rounds=2 if quick else 15)
    if role in (*OURS, *VARIANTS):
        return _dp_ours.timed(role, sizes)
    x, y = (a[: sizes.batch] for a in _dp_ours.data(sizes))
    count = 3 if quick else max(5, min(30, sizes.steps * sizes.repeats // 4))
    if role.startswith("opacus"):
        return _dp_peers.opacus(x=x, y=y, ghost=role.endswith("ghost"), count=count)
    from mia_jax import registry

    model = registry.make("models", sizes.model, num_classes=10)
    return _dp_peers.jax_privacy(model=model, x=x, y=y, count=min(count, 10))


if __name__ == "__main__":
    sys.exit(main())
