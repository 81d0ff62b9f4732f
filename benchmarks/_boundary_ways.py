"""Runs HopSkipJump here and in the Adversarial Robustness Toolbox, for `benchmarks.label_only`.

Both attack the same small CNN.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks import _pairs

CLASSES = 10


def weights(path: str, *, examples: int, side: int, epochs: int) -> None:
    """Trains the CNN on images of ten noisy prototypes and saves what both sides read.

    They are the weights and further images.
    """
    import jax
    import jax.numpy as jnp

    from mia_jax import registry
    from mia_jax.learners import backprop
    from mia_jax.objectives import cross_entropy
    from mia_jax.types import Pool, classification

    rng = np.random.default_rng(0)
    prototypes = rng.random((CLASSES, side // 4, side // 4, 1)).repeat(4, 1).repeat(4, 2)
    y = rng.integers(0, CLASSES, 1000 + examples).astype(np.int32)
    x = (
        (0.5 + 0.4 * (prototypes[y] - 0.5) + 0.15 * rng.normal(size=(len(y), side, side, 1)))
        .clip(0, 1)
        .astype(np.float32)
    )
    model = registry.make("models", "small_cnn", dict(num_conv=2), num_classes=CLASSES)
    learner = backprop.make(
        model=model,
        loss=cross_entropy.make(model=model),
        num_rows=1000,
        epochs=epochs,
        batch_size=50,
    )
    pool, rows_K = (
        Pool(x=x, y=y, name="prototypes", task=classification(CLASSES)),
        jnp.arange(1000, dtype=jnp.int32),
    )
    state, run = learner.init(jax.random.key(0), pool), jax.jit(learner.epoch)
    for epoch in range(1, epochs + 1):
        state, _ = run(state, pool, *learner.plan(jax.random.key(1), epoch, rows_K, jnp.ones(1000)))
    leaves = {
        "/".join(str(k.key) for k in p): np.asarray(a)
        for p, a in jax.tree_util.tree_leaves_with_path(state.variables["params"])
    }
    np.savez(path, x=x[1000:], y=y[1000:], **leaves)


def ours(
    *,
    path: str,
    iterations: int,
    evaluations: int,
    batch_size: int,
    chunk: int,
    lanes: int,
    compared: int,
) -> dict:
    """Returns seconds, distances and queries of HopSkipJump here, without compilation.

    The result also has the labels per second of the plain forward pass at its best batch size.

    Args:
        path: the file of `weights`.
        iterations, evaluations: HopSkipJump's query budget.
        batch_size: examples that are attacked at once.
        chunk: directions per example that are queried at once.
        lanes: batches that are attacked at a time, each in a thread, as the QUERY stage does for
            several models.
        compared: distances are medians over this many first samples, which the peer attacks too;
            `steps` has (queries, median distance) after each iteration.
    """
    import jax
    import jax.numpy as jnp

    from mia_jax import registry
    from mia_jax.evasion.hop_skip_jump import hop_skip_jump

    file = np.load(path)
    params: dict = {}
    for name in (n for n in file.files if "/" in n):
        layer, leaf = name.split("/")
        params.setdefault(layer, {})[leaf] = jnp.asarray(file[name])
    model = registry.make("models", "small_cnn", dict(num_conv=2), num_classes=CLASSES)
    label = lambda params, x: model.apply(dict(params=params), x)[0].argmax(-1)  # noqa: E731
    x, y = file["x"], file["y"]

    @jax.jit
    def walk(params, x, y, key_B):
        return hop_skip_jump(
            lambda x: label(params, x),
            x,
            y,
            key_B,
            iterations=iterations,
            evaluations=evaluations,
            max_evaluations=10_000,
            chunk=chunk,
        )

    key_N = jax.random.split(jax.random.key(0), len(x))
    parts = [
        slice(start, start + batch_size) for start in range(0, len(x) - batch_size + 1, batch_size)
    ]
    start = time.perf_counter()
    compiled = walk.lower(params, x[parts[0]], y[parts[0]], key_N[parts[0]]).compile()
    compile_s = time.perf_counter() - start
    start = time.perf_counter()
    with ThreadPoolExecutor(lanes) as pool:
        walks = list(
            pool.map(
                lambda part: jax.device_get(compiled(params, x[part], y[part], key_N[part])), parts
            )
        )
    seconds = time.perf_counter() - start
    distance_SB, queries_SB = (
        np.concatenate([getattr(batch, name) for batch in walks], 1)
        for name in ("distance_SB", "queries_SB")
    )
    rate, best = forward_rate(jax, lambda x: label(params, x), x, lanes)
    right_B = distance_SB[-1] > 0
    distance_SB, queries_SB, right_B = (
        a[..., :compared] for a in (distance_SB, queries_SB, right_B)
    )
    steps = [
        (float(q_B[right_B].mean()), float(np.median(d_B[right_B])))
        for q_B, d_B in zip(queries_SB, distance_SB, strict=True)
    ]
    return dict(
        seconds=seconds / len(key_N),
        compile_s=compile_s,
        queries=steps[-1][0],
        distance=steps[-1][1],
        steps=steps,
        right=float(right_B.mean()),
        queries_per_s=sum(float(batch.queries_B.sum()) for batch in walks) / seconds,
        forward_per_s=rate,
        forward_batch=best,
        peak_mb=_pairs.peak_bytes() / 1e6,
    )


def forward_rate(jax, label, x, lanes: int) -> tuple[float, int]:
    """Returns (images per second, batch size) of the plain forward pass at its fastest batch size.

    Each size is run by one thread and by `lanes` threads.
    """
    run, rates = jax.jit(label), {}
    with ThreadPoolExecutor(lanes) as pool:
        for size in (50, 100, 200, 500, 1000, 2000):
            batch = jax.device_put(np.resize(x, (size, *x.shape[1:])))
            ask = lambda _, batch=batch: run(batch).block_until_ready()  # noqa: E731
            ask(0)
            times = {1: [], lanes: []}
            for together in times:
                for _ in range(max(3, 4000 // size)):
                    start = time.perf_counter()
                    ask(0) if together == 1 else list(pool.map(ask, range(together)))
                    times[together].append((time.perf_counter() - start) / together)
            rates[size] = size / min(float(np.median(values)) for values in times.values())
    best = max(rates, key=rates.get)
    return rates[best], best


def art(*, path: str, iterations: int, evaluations: int, samples: int, threads: int) -> dict:
    """Returns seconds, distances and queries of ART's HopSkipJump on a PyTorch network.

    The network has the same weights, and queries are counted at the network.
    """
    import torch
    from art.attacks.evasion import HopSkipJump
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    torch.set_num_threads(threads)
    np.random.seed(0)
    file = np.load(path)
    x, y = file["x"][:samples].transpose(0, 3, 1, 2), file["y"][:samples]
    net = network(torch, nn, file, side=x.shape[-1])
    asked = [0]
    net.register_forward_pre_hook(
        lambda module, inputs: asked.__setitem__(0, asked[0] + len(inputs[0]))
    )
    classifier = PyTorchClassifier(
        net,
        loss=nn.CrossEntropyLoss(),
        input_shape=x.shape[1:],
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
    )
    right = classifier.predict(x).argmax(1) == y
    attack = HopSkipJump(
        classifier,
        batch_size=1000,
        max_iter=iterations,
        max_eval=10_000,
        init_eval=evaluations,
        init_size=100,
        verbose=False,
    )
    asked[0], start = 0, time.perf_counter()
    adversarial = attack.generate(x)
    seconds = time.perf_counter() - start
    distance = np.linalg.norm((adversarial - x).reshape(len(x), -1), axis=1)[right]
    return dict(
        seconds=seconds / len(x),
        distance=float(np.median(distance)),
        right=float(right.mean()),
        queries=asked[0] / len(x),
    ) | dict(queries_per_s=asked[0] / seconds, peak_mb=_pairs.peak_bytes() / 1e6)


def network(torch, nn, file, *, side: int):
    """Builds the same network with the same weights in PyTorch.

    Images are [B,C,H,W]; the flattened features have the order of the JAX network.
    """

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            inner = ((side - 2) // 2 - 2) // 2
            self.conv = nn.Sequential(
                nn.Conv2d(1, 32, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(32, 32, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
            )
            self.dense = nn.Sequential(
                nn.Linear(32 * inner * inner, 64), nn.ReLU(), nn.Linear(64, CLASSES)
            )

        def forward(self, x):
            return self.dense(self.conv(x.float()).permute(0, 2, 3, 1).flatten(1))

    net = Net().eval()
    layers = [
        ("Conv_0", net.conv[0]),
        ("Conv_1", net.conv[3]),
        ("Dense_0", net.dense[0]),
        ("Dense_1", net.dense[2]),
    ]
    with torch.no_grad():
        for name, layer in layers:
            kernel = torch.tensor(file[f"{name}/kernel"])
            layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
            layer.bias.copy_(torch.tensor(file[f"{name}/bias"]))
    return net
