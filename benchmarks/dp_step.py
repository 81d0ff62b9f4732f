"""Times one private training step against the plain step, Opacus and jax-privacy.

    python -m benchmarks.dp_step [--quick] [--cases mlp,conv] [--runs 3]
        [--peers plain,vmap,opacus,opacus_ghost,jax_privacy]

The cases:

    mlp   784-256-10, batches of 256
    conv  the conv net (1,250,858 parameters) on 32x32x3 images, batches of 64

Clip norm 1, noise multiplier 1, SGD, and the same batch size for all. Ours is the epoch of the
learner: steps inside one lax.scan, with batches gathered from the pool. `clipping alone` is the
private step without noise, and `noise` the difference to the whole step. `plain` is the same
learner with gradient='mean', `vmap` with method='vmap'. The peers repeat one step on one batch that
is already in memory; their threads or microbatches are chosen by a short trial. Seconds are per
step, without compilation; memory is the peak of a contender's process.

Measured (2 CPU cores, no other load, medians of 2 runs):

                       mlp                          conv
    whole step         2.14 ms, 605 MB              99.0 ms, 1,093 MB
    clipping alone     1.56 ms, 581 MB              99.9 ms, 1,058 MB
      against plain    1.11 x                       1.34 x
    plain              1.41 ms, 523 MB              74.3 ms, 788 MB
    Opacus ghost       4.88 ms, 434 MB              158 ms, 625 MB
    vmap               48.1 ms, 816 MB              222 ms, 1,091 MB
    noise              0.59 ms                      below the spread
    jax-privacy        60.6 ms, 1,200 MB            120 ms, 1,882 MB
    Opacus hooks       165 ms, 851 MB               332 ms, 1,172 MB

The last two rows are from single runs, in which the whole step took 2.08 and 97.3 ms. Steps of 2 ms
vary by a quarter from process to process; in an earlier run of three, the clipping of the mlp took
1.05 times the plain step.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np

from benchmarks import _dp_peers, _pairs

PEERS = ("plain", "vmap", "opacus", "opacus_ghost", "jax_privacy")
OURS = ("whole", "clipping")
LIBRARIES = dict(opacus="opacus", opacus_ghost="opacus", jax_privacy="jax_privacy")


class Case(NamedTuple):
    """Holds the sizes of a case: `steps` steps in one scan, which is measured `repeats` times."""

    model: str
    batch: int
    shape: tuple[int, ...]
    steps: int
    repeats: int


CASES = dict(mlp=Case("mlp", 256, (28, 28, 1), 40, 15), conv=Case("conv", 64, (32, 32, 3), 6, 5))


def main(argv: list[str] | None = None) -> int:
    parser = _pairs.parser(__doc__, peers=PEERS, cases=CASES)
    return _pairs.run(benchmark, answer, parser, argv)


def benchmark(args) -> None:
    """Runs the cases in turn and prints a table and a JSON line for each comparison."""
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


def measure(name: str, *, runs: int, peers: list[str], quick: bool) -> None:
    """Runs all contenders of one case in turns."""
    contenders = {
        role: lambda role=role: _pairs.contender(
            "benchmarks.dp_step", role=role, case=name, quick=quick
        )
        for role in (*OURS, *peers)
    }
    samples = _pairs.interleaved(contenders, runs)
    seconds = {
        role: _pairs.median(role_samples, "seconds") for role, role_samples in samples.items()
    }
    memory = {
        role: _pairs.median(role_samples, "peak_mb") for role, role_samples in samples.items()
    }
    noise, alone = (
        seconds["whole"] - seconds["clipping"],
        _pairs.median(samples["whole"], "noise_s"),
    )
    names = dict(
        whole="ours, whole private step",
        clipping="ours, clipping alone",
        plain="plain step",
        vmap="vmap",
        opacus="Opacus hooks",
    )
    names |= dict(opacus_ghost="Opacus ghost", jax_privacy="jax-privacy")
    rows = [
        [
            names[role],
            _pairs.seconds(s),
            f"{s / seconds['whole']:.2f}",
            f"{memory[role]:,.0f} MB",
            _pairs.seconds(max(noise, 0)) if role == "whole" else "",
        ]
        for role, s in seconds.items()
    ]
    print(
        f"\n{name}: batch {CASES[name].batch}, median of {runs} run{'s' * (runs > 1)}; noise by "
        f"itself {_pairs.seconds(alone)}\n"
    )
    print(_pairs.table(["", "step", "x whole", "peak", "noise"], rows))
    others = max(sample["others"] for role_samples in samples.values() for sample in role_samples)
    print(f"other processes used {100 * others:.0f}% of the machine at most\n")
    for peer in peers:
        extra = dict(
            clipping_s=seconds["clipping"],
            noise_s=max(noise, 0.0),
            ours_mb=memory["whole"],
            peer_mb=memory[peer],
        )
        extra |= dict(clipping_ratio=seconds[peer] / seconds["clipping"])
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
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sizes.batch * sizes.steps, *sizes.shape)).astype(np.float32)
    y = rng.integers(0, 10, len(x)).astype(np.int32)
    count = 3 if quick else max(5, min(30, sizes.steps * sizes.repeats // 4))
    if role.startswith("opacus"):
        return _dp_peers.opacus(
            x=x[: sizes.batch], y=y[: sizes.batch], ghost=role.endswith("ghost"), count=count
        )
    from mia_jax import registry

    model = registry.make("models", sizes.model, num_classes=10)
    if role == "jax_privacy":
        return _dp_peers.jax_privacy(
            model=model, x=x[: sizes.batch], y=y[: sizes.batch], count=min(count, 10)
        )
    return ours(role=role, model=model, x=x, y=y, sizes=sizes)


def ours(*, role: str, model, x, y, sizes: Case) -> dict:
    """Times the learner's epoch on batches of one permutation."""
    import jax
    import jax.numpy as jnp

    from mia_jax.learners import backprop
    from mia_jax.objectives import cross_entropy
    from mia_jax.privacy import noise
    from mia_jax.types import Pool, classification

    pool = Pool(x=jnp.asarray(x), y=jnp.asarray(y), task=classification(10))
    common = dict(
        model=model,
        loss=cross_entropy.make(model=model),
        num_rows=len(x),
        epochs=1,
        batch_size=sizes.batch,
    )
    common |= dict(optimizer="sgd", learning_rate=_dp_peers.RATE)
    if role != "plain":
        settings = dict(
            clip_norm=_dp_peers.CLIP,
            noise_multiplier=0.0 if role == "clipping" else _dp_peers.NOISE,
        )
        settings |= dict(
            sampling="shuffle", adjacency="zero_out", method="vmap" if role == "vmap" else "auto"
        )
        common |= dict(gradient="private", privacy=settings, sample=pool)
    learner = backprop.make(**common)
    state = learner.init(jax.random.key(0), pool)
    index, weight = learner.plan(
        jax.random.key(1), jnp.uint32(1), jnp.arange(len(x), dtype=jnp.int32), jnp.ones(len(x))
    )
    epoch = jax.jit(learner.epoch)
    repeats = 2 if role == "vmap" else sizes.repeats
    spent = _dp_peers.repeated(
        lambda: jax.block_until_ready(epoch(state, pool, index, weight)), count=repeats, warm=1
    )
    result = dict(seconds=float(np.median(spent)) / sizes.steps, peak_mb=_pairs.peak_bytes() / 1e6)
    if role == "whole":
        params = state.variables["params"]

        def draws(total):
            return jax.lax.scan(
                lambda t, s: (
                    jax.tree.map(
                        jnp.add, t, noise.gaussian(jax.random.fold_in(state.key, s), t, 1.0)
                    ),
                    None,
                ),
                total,
                jnp.arange(sizes.steps),
            )[0]

        alone = jax.jit(draws)
        result["noise_s"] = (
            float(
                np.median(
                    _dp_peers.repeated(
                        lambda: jax.block_until_ready(alone(params)), count=repeats, warm=1
                    )
                )
            )
            / sizes.steps
        )
    return result


if __name__ == "__main__":
    sys.exit(main())
