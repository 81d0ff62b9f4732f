"""Times one private step of the peers of `benchmarks.dp_step`: Opacus and jax-privacy.

Opacus runs with hooks and with ghost clipping. Each step is on one batch; compilation is excluded.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import _pairs

CLIP, NOISE, RATE = 1.0, 1.0, 0.1


class Spent(NamedTuple):
    """Holds the seconds of one call: by the clock, and of all threads of this process."""

    wall_s: float
    cpu_s: float


def repeated(step: Callable[[], object], *, count: int, warm: int = 2) -> list[Spent]:
    """Returns the seconds of each of `count` calls after `warm` calls that are not measured."""
    for _ in range(warm):
        step()
    spent = []
    for _ in range(count):
        start, busy = time.perf_counter(), time.process_time()
        step()
        spent.append(Spent(time.perf_counter() - start, time.process_time() - busy))
    return spent


def typical(step: Callable[[], object], *, count: int, steps: int = 1, warm: int = 2) -> dict:
    """Returns what a contender reports: seconds per step (medians) and memory.

    Args:
        step: runs `steps` steps; everything is compiled, nothing was run.
        count: the calls that are measured.
        steps: the steps of a call.
        warm: the calls before.

    Returns:
        seconds and cpu_s per step; step_mb, by how much the first two calls raise the memory of
        the process; peak_mb, the most that the process ever held.
    """
    before = _pairs.peak_bytes()
    beyond = _pairs.peak_beyond(lambda: (step(), step()))
    wall_s, cpu_s = np.median(repeated(step, count=count, warm=max(0, warm - 2)), axis=0) / steps
    peak = max(before, _pairs.peak_bytes())
    return dict(seconds=float(wall_s), cpu_s=float(cpu_s), step_mb=beyond / 1e6, peak_mb=peak / 1e6)


def best(ways: Sequence, make: Callable, *, count: int):
    """Returns the setting whose step is fastest in a short trial."""
    seconds = {}
    for way in ways:
        spent = repeated(make(way), count=count, warm=1)
        seconds[way] = float(np.median([call.wall_s for call in spent]))
    return min(seconds, key=seconds.get)


def opacus(*, x, y, ghost: bool, count: int) -> dict:
    """Times a DP-SGD step of Opacus, with 1 thread or all, whichever is faster."""
    import os

    import torch

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    images = (
        torch.tensor(np.moveaxis(x, -1, 1).copy())
        if x.shape[-1] == 3
        else torch.tensor(x.reshape(len(x), -1))
    )
    labels = torch.tensor(y).long()
    step = torch_step(torch, images, labels, ghost=ghost)
    threads = (1, os.cpu_count() or 1)

    def using(n):
        torch.set_num_threads(n)
        return step

    first = _pairs.peak_bytes()
    beyond = _pairs.peak_beyond(lambda: (step(), step()))  # before any other step
    n = best(threads, using, count=3)
    torch.set_num_threads(n)
    result = typical(step, count=count) | dict(step_mb=beyond / 1e6, threads=n)
    return result | dict(peak_mb=max(first / 1e6, result["peak_mb"]))


def torch_step(torch, images, labels, *, ghost: bool) -> Callable[[], None]:
    """Returns a function that does one step: gradients, clipping, noise, SGD."""
    from opacus import PrivacyEngine

    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, labels), batch_size=len(labels)
    )
    model = torch_model(torch, images)
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=RATE), torch.nn.CrossEntropyLoss()
    how = dict(
        module=model,
        optimizer=optimizer,
        data_loader=data,
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        poisson_sampling=False,
    )
    if ghost:
        made = PrivacyEngine().make_private(**how, criterion=criterion, grad_sample_mode="ghost")
        model, optimizer, criterion = made[:3]
    else:
        model, optimizer, _ = PrivacyEngine().make_private(**how)

    def step():
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()

    return step


def torch_model(torch, images):
    """Builds the same network: 784-256-10, or the conv net of mia_jax/models/conv.py."""
    nn = torch.nn
    if images.ndim == 2:
        return nn.Sequential(nn.Linear(images.shape[1], 256), nn.ReLU(), nn.Linear(256, 10))
    blocks, features = [], 3
    for width in (32, 64):
        for channels, padding in ((features, 1), (width, 0)):
            blocks += [nn.Conv2d(channels, width, 3, padding=padding), nn.ReLU()]
        blocks += [nn.MaxPool2d(2)]
        features = width
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(2304, 512), nn.ReLU(), nn.Linear(512, 10))


def jax_privacy(*, model, x, y, count: int) -> dict:
    """Times a DP-SGD step of jax-privacy on our network; its microbatch is 1, 16 or all.

    The fastest of the three is used.
    """
    import dp_accounting
    import jax
    import jax.numpy as jnp
    import optax
    from jax_privacy import clipped_grad, noise_addition

    variables = model.init(jax.random.key(0), jnp.asarray(x[:1]))

    def loss(params, x, y):
        out, _ = model.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()

    def make(microbatch):
        gradient = clipped_grad(
            loss,
            l2_clip_norm=CLIP,
            batch_argnums=(1, 2),
            keep_batch_dim=True,
            microbatch_size=microbatch,
        )
        std = NOISE * gradient.sensitivity(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
        noise, tx = (
            noise_addition.gaussian_privatizer(stddev=std, prng_key=jax.random.key(1)),
            optax.sgd(RATE),
        )

        def update(params, states, x, y):
            noisy, first = noise.update(gradient(params, x, y), states[0])
            updates, second = tx.update(jax.tree.map(lambda g: g / len(x), noisy), states[1])
            return optax.apply_updates(params, updates), (first, second)

        step, images, labels = jax.jit(update), jnp.asarray(x), jnp.asarray(y)
        held = [
            variables["params"],
            (noise.init(variables["params"]), tx.init(variables["params"])),
        ]

        def run():
            held[:] = step(*held, images, labels)
            jax.block_until_ready(held[0])

        return run

    microbatch = best((1, 16, None), make, count=2)
    return typical(make(microbatch), count=count) | dict(microbatch=microbatch)
