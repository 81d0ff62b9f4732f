"""Trains the PyTorch peers of `benchmarks.fleet`: networks one by one, or stacked in one batch.

They are written to be fast: tensors are in memory, there is no DataLoader, and the settings
(threads, Adam's form, memory layout, how many networks a stack holds) are those that a short trial
on this machine measured as the fastest.
"""

from __future__ import annotations

import itertools
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import _pairs


def network(case: str) -> nn.Module:
    """Builds the architectures of mia_jax.models.mlp, small_cnn and conv at the benchmark's sizes.

    Images are [B,C,H,W].
    """
    if case == "digits_mlp":
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    if case == "small_cnn":
        blocks = [
            layer
            for inputs in (1, 32, 32)
            for layer in (nn.Conv2d(inputs, 32, 3), nn.ReLU(), nn.MaxPool2d(2))
        ]
        return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    blocks = []
    for inputs, features in ((3, 32), (32, 64)):
        blocks += [
            nn.Conv2d(inputs, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(2304, 512), nn.ReLU(), nn.Linear(512, 10))


def adam(parameters, *, rate: float, form: str):
    return torch.optim.Adam(parameters, lr=rate, eps=1e-8, **{form: True})


class Task:
    """Holds the arrays of a case as tensors, and builds its networks."""

    def __init__(
        self,
        *,
        case: str,
        arrays: str,
        batch_size: int,
        learning_rate: float,
        layout: str = "contiguous",
        **_,
    ):
        with np.load(arrays) as file:
            x, y, rows = (torch.from_numpy(file[name]) for name in ("x", "y", "rows_MK"))
        self.case, self.batch_size, self.rate = case, batch_size, learning_rate
        self.y, self.rows = y.long(), rows.long()
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.x = x.permute(0, 3, 1, 2).contiguous(memory_format=self.format) if x.ndim == 4 else x

    def network(self) -> nn.Module:
        made = network(self.case)
        return made.to(memory_format=self.format) if self.x.ndim == 4 else made


def one_by_one(
    task: Task, *, models: int, epochs: int, form: str, stamp=lambda: None
) -> list[nn.Module]:
    """Trains the first `models` networks, one after the other; calls `stamp()` after each epoch."""
    done = []
    for m in range(models):
        net = task.network()
        opt = adam(net.parameters(), rate=task.rate, form=form)
        x, y = task.x[task.rows[m]], task.y[task.rows[m]]
        for _ in range(epochs):
            for index in torch.randperm(len(y)).split(task.batch_size):
                opt.zero_grad(set_to_none=True)
                functional.cross_entropy(net(x[index]), y[index]).backward()
                opt.step()
            stamp()
        done.append(net)
    return done


def stacked(
    task: Task, *, models: int, epochs: int, form: str, stack: int
) -> list[list[torch.Tensor]]:
    """Trains MLPs as batched matrix products, `stack` models at a time, with one Adam.

    Returns:
        For each stack its parameters [w, b, v, c].
    """
    done = []
    for start in range(0, models, stack):
        rows = task.rows[start : min(start + stack, models)]
        m, k = rows.shape
        kernels = [torch.randn(m, a, b) * (2 / a) ** 0.5 for a, b in ((64, 256), (256, 10))]
        params = [kernels[0], torch.zeros(m, 1, 256), kernels[1], torch.zeros(m, 1, 10)]
        w, b, v, c = (p.requires_grad_() for p in params)
        opt = adam(params, rate=task.rate, form=form)
        for _ in range(epochs):
            shuffled = rows.gather(1, torch.rand(m, k).argsort(1))
            for index in shuffled.split(task.batch_size, 1):
                opt.zero_grad(set_to_none=True)
                out = torch.baddbmm(c, torch.baddbmm(b, task.x[index], w).relu(), v)
                loss = (
                    functional.cross_entropy(
                        out.flatten(0, 1), task.y[index].flatten(), reduction="sum"
                    )
                    / index.shape[1]
                )
                loss.backward()
                opt.step()
        done.append(params)
    return done


def accuracy(task: Task, done: list, *, limit: int = 500) -> float:
    """Returns the mean accuracy of the trained networks on their training sets (the first rows).

    Both sides must have learned the same task.
    """
    correct = []
    with torch.no_grad():
        for number, trained in enumerate(done):
            if isinstance(trained, nn.Module):
                index = task.rows[number][:limit]
                correct.append(
                    (trained(task.x[index]).argmax(1) == task.y[index]).float().mean().item()
                )
                continue
            w, b, v, c = trained
            index = task.rows[number * len(done[0][0]) :][: len(w), :limit]
            out = torch.baddbmm(c, torch.baddbmm(b, task.x[index], w).relu(), v)
            correct += (out.argmax(2) == task.y[index]).float().mean(1).tolist()
    return float(np.mean(correct))


def settings(peer: str, *, models: int, rounds: int, **request) -> dict:
    """Returns the fastest settings in a short trial.

    Every combination runs in turns, `rounds` times; the best time of each counts.
    """
    threads, forms = sorted({1, os.cpu_count()}), ("fused", "foreach")
    if peer == "torch_stacked":
        grid = [
            dict(threads=t, form=f, stack=s)
            for t, f, s in itertools.product(
                threads, forms, sorted({min(s, models) for s in (8, 16, 32, 64)})
            )
        ]
    else:
        layouts = (
            ("contiguous",) if request["case"] == "digits_mlp" else ("contiguous", "channels_last")
        )
        grid = [
            dict(threads=t, form=f, layout=a)
            for t, f, a in itertools.product(threads, forms, layouts)
        ]
    size = (
        dict(models=models, epochs=1)
        if peer == "torch_stacked"
        else dict(models=1, epochs=10 if request["case"] == "digits_mlp" else 1)
    )
    best = [float("inf")] * len(grid)
    for _ in range(rounds):
        for i, setting in enumerate(grid):
            best[i] = min(best[i], _train(peer, **(request | size | setting))["seconds"])
    return grid[best.index(min(best))]


def _train(
    peer: str, *, models: int, epochs: int, threads: int, form: str, stack: int = 1, **request
) -> dict:
    torch.set_num_threads(threads)
    task = Task(**request)
    start = time.perf_counter()
    if peer == "torch_stacked":
        done = stacked(task, models=models, epochs=epochs, form=form, stack=stack)
        return dict(seconds=time.perf_counter() - start, task=task, done=done, epoch_seconds=[])
    stamps = [start]
    done = one_by_one(
        task,
        models=models,
        epochs=epochs,
        form=form,
        stamp=lambda: stamps.append(time.perf_counter()),
    )
    return dict(
        seconds=stamps[-1] - start, task=task, done=done, epoch_seconds=np.diff(stamps).tolist()
    )


def run(peer: str, **request) -> dict:
    """Does a short untimed run and a timed one.

    Returns:
        {'seconds', 'epoch_s', 'cpu_s', 'accuracy', 'peak_mb'}.
    """
    _train(
        peer, **(request | dict(models=min(request["models"], request.get("stack", 1)), epochs=1))
    )
    processor = time.process_time()
    timed = _train(peer, **request)
    processor = time.process_time() - processor
    peak, epochs = _pairs.peak_bytes(), timed["epoch_seconds"]
    right = accuracy(timed["task"], timed["done"])
    return dict(
        seconds=timed["seconds"],
        epoch_s=float(np.median(epochs)) if epochs else None,
        cpu_s=processor,
        accuracy=right,
        peak_mb=peak / 1e6,
    )
