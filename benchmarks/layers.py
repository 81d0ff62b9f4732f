"""Times every layer of a classic net in its default form, with measured programs, and in PyTorch.

    python -m benchmarks.layers --net lenet [--quick] [--rounds 7]

It explains the ratios of `benchmarks.zoo`. The layers are those of the PyTorch net there, at the
sizes of a batch; each is timed forward and backward by itself, one thread on both sides, in CPU
seconds: the least of several calls, contenders in turns. The first layers' gradient of the images
is not computed, and ours have no biases. "measured" is the layer with the programs that
run.form='layers' would choose.
A JSON line per layer, then a table. Times of single layers do not add up to those of a step, where
XLA computes several layers in one loop; the last line has the whole step.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np

from benchmarks import _pairs, zoo

NAMES = dict(
    Conv2d="conv",
    Linear="dense",
    MaxPool2d="max pool",
    AvgPool2d="average pool",
    BatchNorm2d="batch norm",
    BatchNorm1d="batch norm",
    GroupNorm="group norm",
    Sigmoid="sigmoid",
    ReLU="relu",
    Resized="resize",
)


def main(argv: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--net", choices=list(zoo.CASES), default="lenet", help="a case of zoo")
    made.add_argument("--rounds", type=int, default=7, help="calls of each contender (default 7)")
    made.add_argument("--quick", action="store_true", help="one call each, without measured forms")
    args = made.parse_args(argv)
    try:
        _pairs.need("torch", _pairs.TORCH)
    except _pairs.Missing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if hasattr(os, "sched_setaffinity"):  # one core, or XLA takes as many threads as there are
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    benchmark(args.net, rounds=1 if args.quick else args.rounds, measured=not args.quick)
    return 0


def benchmark(net: str, *, rounds: int, measured: bool) -> None:
    """Prints a JSON line for every layer, and a table of all."""
    import torch

    torch.set_num_threads(1)
    rows, seen = [], {}
    for kind, module, shape in layers_of(net):
        text = f"{NAMES[kind]} {described(kind, module)}".strip()
        key = (text, shape)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            continue
        contenders = dict(default=ours(kind, module, shape, choice=None))
        if measured and kind == "Conv2d":
            contenders["measured"] = ours(kind, module, shape, choice=table(kind, module, shape))
        contenders["torch"] = theirs(module, shape)
        ms = least(contenders, rounds=rounds)
        rows.append((key, ms))
    for (text, shape), ms in rows:
        record = dict(benchmark="layers", net=net, layer=text, input=list(shape))
        record |= dict(times=seen[text, shape], cpu_ms=ms, threads=1)
        print(_pairs.line(flat(record)), flush=True)
    header = ["layer", "input", "times", "default", "measured", "torch"]
    lines = [
        [text, "x".join(map(str, shape)), str(seen[text, shape])]
        + [f"{ms[name]:.3f}" if name in ms else "" for name in header[3:]]
        for (text, shape), ms in rows
    ]
    sums = [sum(seen[key] * ms.get(name, ms["default"]) for key, ms in rows) for name in header[3:]]
    lines.append(["all", "", "", *(f"{value:.3f}" for value in sums)])
    whole = steps(net, rounds=rounds, measured=measured)
    lines.append(["step", "", "", *(f"{whole[n]:.3f}" if n in whole else "" for n in header[3:])])
    print(_pairs.line(flat(dict(benchmark="layers", net=net, layer="step", cpu_ms=whole))))
    print(f"\n{net}: CPU milliseconds, forward and backward, batch {zoo.CASES[net][2]}, one thread")
    print(_pairs.table(header, lines))


def flat(record: dict) -> dict:
    """Returns the record with its CPU milliseconds as fields of their own."""
    ms = record.pop("cpu_ms")
    return record | {f"{name}_cpu_ms": value for name, value in ms.items()}


def layers_of(net: str):
    """Returns (kind, module, shape of its input [B,H,W,F] or [B,F]) of the PyTorch net's layers."""
    import torch

    from benchmarks import _torch_zoo

    model, calls = _torch_zoo.network(net), []

    def note(module, inputs, _):
        shape = tuple(inputs[0].shape)
        shape = (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape
        calls.append((type(module).__name__, module, shape))

    known = [module for module in model.modules() if type(module).__name__ in NAMES]
    hooks = [module.register_forward_hook(note) for module in known]
    model(torch.zeros(zoo.CASES[net][2], 1, 28, 28))
    for hook in hooks:
        hook.remove()
    return calls


def described(kind: str, module) -> str:
    """Returns the sizes of a layer in words."""
    if kind == "Conv2d":
        stride = f" / {module.stride[0]}" if module.stride[0] > 1 else ""
        window = "x".join(map(str, module.kernel_size))
        return f"{window}{stride} {module.in_channels} -> {module.out_channels}"
    if kind == "Linear":
        return f"{module.in_features} -> {module.out_features}"
    if "Pool" in kind:
        return f"{module.kernel_size} / {module.stride}"
    return ""


def layer(kind: str, module):
    """Returns f(x, w), our layer with the hyperparameters of a PyTorch module; w [] or a kernel."""
    import flax.linen as nn
    import jax

    from mia_jax.models import layers

    if kind == "Conv2d":
        return lambda x, w: layers.convolution(
            x, w, module.stride[0], ((module.padding[0],) * 2, (module.padding[1],) * 2)
        )
    if kind == "Linear":
        return lambda x, w: x @ w
    if "Norm" in kind:
        norm = layers.GroupNorm(module.num_groups) if kind == "GroupNorm" else layers.BatchNorm()
        train = {} if kind == "GroupNorm" else dict(train=True)

        def normalized(x, w):
            variables = norm.init(jax.random.key(0), x)
            return nn.apply(lambda m, x: m(x, **train), norm, mutable=["stats"])(variables, x)[0]

        return normalized
    pads = getattr(module, "padding", 0)
    simple = dict(
        MaxPool2d=lambda x, w: layers.max_pool(
            x, module.kernel_size, module.stride, ((pads, pads), (pads, pads))
        ),
        AvgPool2d=lambda x, w: layers.avg_pool(x, module.kernel_size, module.stride),
        Sigmoid=lambda x, w: jax.nn.sigmoid(x),
        ReLU=lambda x, w: jax.nn.relu(x),
        Resized=lambda x, w: layers.resized(x, module.side),
    )
    return simple[kind]


def arrays(kind: str, module, shape) -> tuple[np.ndarray, np.ndarray]:
    """Returns (x, w) in our layout; w is a number where there is no kernel."""
    rng = np.random.default_rng(0)
    size = ()
    if kind == "Conv2d":
        size = (*module.kernel_size, module.in_channels, module.out_channels)
    elif kind == "Linear":
        size = (module.in_features, module.out_features)
    return rng.standard_normal(shape, np.float32), rng.standard_normal(size, np.float32)


def ours(kind: str, module, shape, *, choice):
    """Returns a call of our layer, forward and backward."""
    import jax

    from mia_jax.models.kernels import convolution

    f, (x, w), first = layer(kind, module), arrays(kind, module, shape), shape[-1] == 1

    def both(x, w):
        y, pull = jax.vjp(f, x, w)
        dx, dw = pull(jax.numpy.ones_like(y))
        return y, (() if first else dx), dw

    with convolution.chosen(choice):
        run = jax.jit(both).lower(x, w).compile()
    x, w = jax.device_put(x), jax.device_put(w)
    return lambda: jax.block_until_ready(run(x, w))


def table(kind: str, module, shape):
    """Returns the programs that are measured to be the fastest for a convolution."""
    import jax

    from mia_jax.models.kernels import candidates, convolution
    from mia_jax.training import layerwise

    f, given, recorder = layer(kind, module), arrays(kind, module, shape), candidates.Recorder()

    def both(x, w):
        y, pull = jax.vjp(f, x, w)
        return pull(y)

    with convolution.chosen(recorder):
        jax.eval_shape(both, *given)
    return layerwise.chosen(list(recorder.layers))


def theirs(module, shape):
    """Returns a call of PyTorch's layer, forward and backward, in its default layout."""
    import torch

    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal(shape, np.float32))
    x = (x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x).detach()
    x.requires_grad_(shape[-1] != 1)
    trained = [p for p in module.parameters()]
    if not x.requires_grad and not trained:
        return lambda: module(x)
    one = torch.ones_like(module(x))

    def both():
        for tensor in (x, *trained):
            tensor.grad = None
        module(x).backward(one)

    return both


def least(contenders: dict, *, rounds: int) -> dict[str, float]:
    """Returns {contender: the least CPU milliseconds of a call}, contenders in turns."""
    ms = dict.fromkeys(contenders, np.inf)
    for call in contenders.values():
        call()
    for _ in range(rounds):
        for name, call in contenders.items():
            repeats, start = 0, time.process_time()
            while repeats < 3 or (time.process_time() - start < 0.01 and rounds > 1):
                call()
                repeats += 1
            ms[name] = min(ms[name], (time.process_time() - start) / repeats * 1e3)
    return {name: float(value) for name, value in ms.items()}


def steps(net: str, *, rounds: int, measured: bool) -> dict[str, float]:
    """Returns the CPU milliseconds of a whole training step of every contender."""
    from benchmarks import _torch_zoo

    x, y = zoo.images(zoo.CASES[net][2])
    contenders = dict(default=zoo.epoch(net))
    if measured:
        contenders["measured"] = zoo.epoch(net, form="layers")
    for layout in ("contiguous", "channels_last"):
        contenders[layout] = _torch_zoo.trainer(
            case=net, x=x, y=y, batch=zoo.CASES[net][2], layout=layout
        )
    ms = {name: value / zoo.STEPS for name, value in least(contenders, rounds=rounds).items()}
    return ms | dict(torch=min(ms.pop("contiguous"), ms.pop("channels_last")))


if __name__ == "__main__":
    sys.exit(main())
