"""Times training steps of the classic nets against PyTorch.

    python -m benchmarks.zoo [--quick] [--cases lenet,...] [--runs 3] [--peers torch,layers]

Each case is a net of configs/zoo at the size of its run there, on random 28x28x1 images, with SGD
and batches of 32. Ours is one epoch of 5 steps of the fleet's compiled program (chunk 1), with
resizing, dropout and running statistics. PyTorch's is the same 5 steps with tensors in memory, with
the threads and the memory layout that a short trial measures as the fastest. Compilation is not
timed. `layers` is ours with run.form='layers', the programs of its convolutions measured in its
process before. Times are seconds per step: medians over the runs, contenders in turns, each in a
separate process.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks import _pairs

STEPS = 5
CASES = dict(  # name: (model, fields, batch)
    softmax=("linear", {}, 32),
    mlp=("mlp", dict(widths=(256,)), 32),
    dropout=("mlp", dict(widths=(256, 256), dropout=(0.2, 0.5)), 32),
    lenet=("lenet", {}, 32),
    lenet_bn=("lenet_bn", {}, 32),
    alexnet=("alexnet", dict(resize=65, divide=2), 32),
    vgg=("vgg", dict(resize=32), 32),
    nin=("nin", dict(resize=67), 32),
    googlenet=("googlenet", dict(resize=0), 32),
    resnet18=("resnet18", dict(resize=0), 32),
    wide_resnet=("wide_resnet", dict(depth=10, width=1, norm="group"), 32),
)


def main(argv: list[str] | None = None) -> int:
    parser = _pairs.parser(__doc__, peers=("torch", "layers"), cases=CASES)
    return _pairs.run(benchmark, answer, parser, argv)


def benchmark(args) -> None:
    """Prints a table line and a JSON line for every case."""
    if "torch" in args.peers:
        _pairs.need("torch", _pairs.TORCH)
    runs, repeats = args.runs or (1 if args.quick else 3), 2 if args.quick else 6
    rows, records = [], []
    for case in args.cases:
        roles = ["ours", *args.peers]
        contenders = {
            role: lambda role=role, case=case: _pairs.contender(
                "benchmarks.zoo", role=role, case=case, repeats=repeats
            )
            for role in roles
        }
        samples = _pairs.interleaved(contenders, runs)
        ours_s = _pairs.median(samples["ours"], "seconds")
        rows.append(
            [case, _pairs.seconds(ours_s), *("" for _ in args.peers), *("" for _ in args.peers)]
        )
        for peer in args.peers:
            peer_s = _pairs.median(samples[peer], "seconds")
            at = 2 + args.peers.index(peer)
            rows[-1][at] = _pairs.seconds(peer_s)
            rows[-1][at + len(args.peers)] = f"{peer_s / ours_s:.2f}"
            others = max(_pairs.median(role_samples, "others") for role_samples in samples.values())
            extra = dict(
                per="step",
                batch=CASES[case][2],
                steps=STEPS,
                runs=runs,
                peer_settings=samples[peer][-1].get("settings"),
                others=others,
            )
            extra |= dict(compile_s=_pairs.median(samples["ours"], "compile_s"))
            records.append(
                _pairs.comparison(
                    benchmark="zoo", case=case, ours_s=ours_s, peer=peer, peer_s=peer_s, **extra
                )
            )
            print(_pairs.line(records[-1]), flush=True)
    print(
        _pairs.table(["net", "ours", *args.peers, *(f"{peer} / ours" for peer in args.peers)], rows)
    )


def answer(*, role: str, case: str, repeats: int) -> dict:
    """Runs one contender in this process."""
    if role == "torch":
        from benchmarks import _torch_zoo

        x, y = images(CASES[case][2])
        return _torch_zoo.run(case=case, x=x, y=y, repeats=repeats, batch=CASES[case][2])
    return ours(case=case, repeats=repeats, form="layers" if role == "layers" else "")


def images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws x [N,28,28,1] in [0,1) and labels of 10 classes, the rows of 5 steps."""
    rng = np.random.default_rng(0)
    return rng.random((STEPS * batch, 28, 28, 1), np.float32), rng.integers(
        0, 10, STEPS * batch
    ).astype(np.int32)


def ours(*, case: str, repeats: int, form: str = "") -> dict:
    """Times the program with which the fleet runs an epoch, on one model."""
    start = time.perf_counter()
    run = epoch(case, form=form)
    compile_s, times = time.perf_counter() - start, []
    for _ in range(repeats + 1):
        start, busy = time.perf_counter(), time.process_time()
        run()
        spent = (time.perf_counter() - start, time.process_time() - busy)
        times.append(np.array(spent) / STEPS)
    seconds, cpu_s = np.median(times[1:], axis=0)
    return dict(
        seconds=float(seconds),
        cpu_s=float(cpu_s),
        compile_s=compile_s,
        peak_mb=_pairs.peak_bytes() / 1e6,
    )


def epoch(case: str, *, form: str = ""):
    """Returns a function that trains one epoch of one model by the fleet's compiled program.

    The form 'layers' is measured first (training/layerwise.py).
    """
    import jax

    from mia_jax import registry
    from mia_jax.learners import backprop
    from mia_jax.objectives import cross_entropy
    from mia_jax.training import layerwise, programs
    from mia_jax.types import Pool, classification

    name, fields, batch = CASES[case]
    x, y = images(batch)
    pool = jax.device_put(Pool(x=x, y=y, task=classification(10)))
    model = registry.make("models", name, dict(fields), num_classes=10)
    loss = cross_entropy.make(model=model)
    learner = backprop.make(
        model=model,
        loss=loss,
        num_rows=len(y),
        epochs=1,
        batch_size=batch,
        optimizer="sgd",
        learning_rate=0.01,
    )
    rows, weight = np.arange(len(y), dtype=np.int32)[None], np.ones((1, len(y)), np.float32)
    choice = None
    if form == "layers":
        choice = layerwise.fastest(
            learner=learner,
            pool=pool,
            rows_K=rows[0],
            weight_K=weight[0],
            log=lambda text: print(text, file=sys.stderr),
        )
    program = programs.make(learner=learner, chunk=1, form=form, choice=choice)
    keys = programs.model_keys(seed=0, models=[0])
    index, weight = program.plan(keys, np.uint32(1), rows, weight)
    held = [program.init(keys, pool)]
    run = program.run.lower(held[0], pool, index, weight).compile()

    def trained():
        held[0], _ = jax.block_until_ready(run(held[0], pool, index, weight))

    return trained


if __name__ == "__main__":
    sys.exit(main())
