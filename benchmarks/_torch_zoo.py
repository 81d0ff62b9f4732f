"""Trains the PyTorch peers of `benchmarks.zoo`: the same nets, by plain SGD."""

from __future__ import annotations

import itertools
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mia_jax.models.googlenet import STAGES


class Resized(nn.Module):
    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x):
        return functional.interpolate(
            x, size=(self.side, self.side), mode="bilinear", align_corners=False
        )


class Inception(nn.Module):
    def __init__(self, inputs, pointwise, three, five, pooled):
        super().__init__()
        self.pointwise = conv(inputs, pointwise, 1)
        self.three = nn.Sequential(conv(inputs, three[0], 1), conv(three[0], three[1], 3, 1, 1))
        self.five = nn.Sequential(conv(inputs, five[0], 1), conv(five[0], five[1], 5, 1, 2))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, pooled, 1))

    def forward(self, x):
        return torch.cat([self.pointwise(x), self.three(x), self.five(x), self.pooled(x)], 1)


class Residual(nn.Module):
    def __init__(self, inputs, features, stride):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(inputs, features, 3, stride, 1),
            nn.Conv2d(features, features, 3, 1, 1),
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(features), nn.BatchNorm2d(features)])
        self.skip = nn.Conv2d(inputs, features, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = self.norms[1](self.second(self.norms[0](self.first(x)).relu()))
        return (y + self.skip(x)).relu()


class PreActivation(nn.Module):
    """Is the block of a wide residual network with group normalization."""

    def __init__(self, inputs, features, stride):
        super().__init__()
        self.norms = nn.ModuleList(
            [nn.GroupNorm(min(16, inputs), inputs), nn.GroupNorm(min(16, features), features)]
        )
        self.first = nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.skip = (
            nn.Conv2d(inputs, features, 1, stride, bias=False)
            if (inputs, stride) != (features, 1)
            else None
        )

    def forward(self, x):
        before = self.norms[0](x).relu()
        short = x if self.skip is None else self.skip(before)
        return short + self.second(self.norms[1](self.first(before)).relu())


def conv(inputs, features, window, stride=1, padding=0):
    return nn.Sequential(nn.Conv2d(inputs, features, window, stride, padding), nn.ReLU())


def dense(*widths, rate=0.0, activation=nn.ReLU):
    """Returns linear layers with an activation and dropout between them."""
    made: list[nn.Module] = [nn.Flatten()]
    for a, b in itertools.pairwise(widths[:-1]):
        made += [nn.Linear(a, b), activation(), *([nn.Dropout(rate)] if rate else [])]
    return [*made, nn.Linear(*widths[-2:])]


def network(case: str) -> nn.Module:
    """Builds the net of a case of benchmarks/zoo.py with 10 classes; images are [B,1,28,28]."""
    if case == "softmax":
        return nn.Sequential(*dense(784, 10))
    if case == "mlp":
        return nn.Sequential(*dense(784, 256, 10))
    if case == "dropout":
        first, second = (
            [nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.2)],
            [nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.5)],
        )
        return nn.Sequential(*first, *second, nn.Linear(256, 10))
    if case == "lenet":
        body = [
            nn.Conv2d(1, 6, 5, padding=2),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
        ]
        return nn.Sequential(*body, *dense(400, 120, 84, 10, activation=nn.Sigmoid))
    if case == "lenet_bn":
        body = [
            nn.Conv2d(1, 6, 5),
            nn.BatchNorm2d(6),
            nn.Sigmoid(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.BatchNorm2d(16),
            nn.Sigmoid(),
        ]
        head = [
            nn.Linear(256, 120),
            nn.BatchNorm1d(120),
            nn.Sigmoid(),
            nn.Linear(120, 84),
            nn.BatchNorm1d(84),
            nn.Sigmoid(),
            nn.Linear(84, 10),
        ]
        return nn.Sequential(*body, nn.AvgPool2d(2), nn.Flatten(), *head)
    if case == "alexnet":
        body = [
            Resized(65),
            conv(1, 48, 11, 4, 1),
            nn.MaxPool2d(3, 2),
            conv(48, 128, 5, 1, 2),
            nn.MaxPool2d(3, 2),
        ]
        body += [
            conv(128, 192, 3, 1, 1),
            conv(192, 192, 3, 1, 1),
            conv(192, 128, 3, 1, 1),
            nn.MaxPool2d(3, 2),
        ]
        return nn.Sequential(*body, *dense(128, 2048, 2048, 10, rate=0.5))
    if case == "vgg":
        body, inputs = [Resized(32)], 1
        for count, features in ((1, 16), (1, 32), (2, 64), (2, 128), (2, 128)):
            for _ in range(count):
                body, inputs = [*body, conv(inputs, features, 3, 1, 1)], features
            body.append(nn.MaxPool2d(2))
        return nn.Sequential(*body, *dense(128, 4096, 4096, 10, rate=0.5))
    if case == "nin":
        body, inputs = [Resized(67)], 1
        for features, window, stride, padding in (
            (96, 11, 4, 0),
            (256, 5, 1, 2),
            (384, 3, 1, 1),
            (10, 3, 1, 1),
        ):
            body += [
                conv(inputs, features, window, stride, padding),
                conv(features, features, 1),
                conv(features, features, 1),
            ]
            body, inputs = (
                [
                    *body,
                    *([nn.MaxPool2d(3, 2)] if features > 10 else []),
                    *([nn.Dropout(0.5)] if features == 384 else []),
                ],
                features,
            )
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if case == "googlenet":
        body, inputs = (
            [conv(1, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1), conv(64, 64, 1), conv(64, 192, 3, 1, 1)],
            192,
        )
        for stage in STAGES:
            body.append(nn.MaxPool2d(3, 2, 1))
            for pointwise, three, five, pooled in stage:
                body, inputs = (
                    [*body, Inception(inputs, pointwise, three, five, pooled)],
                    pointwise + three[1] + five[1] + pooled,
                )
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))
    if case == "resnet18":
        body, inputs = (
            [nn.Conv2d(1, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)],
            64,
        )
        for features, stride in (
            (64, 1),
            (64, 1),
            (128, 2),
            (128, 1),
            (256, 2),
            (256, 1),
            (512, 2),
            (512, 1),
        ):
            body, inputs = [*body, Residual(inputs, features, stride)], features
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    body, inputs = [nn.Conv2d(1, 16, 3, padding=1, bias=False)], 16
    for features, stride in ((16, 1), (32, 2), (64, 2)):
        body, inputs = [*body, PreActivation(inputs, features, stride)], features
    return nn.Sequential(
        *body,
        nn.GroupNorm(16, 64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def run(*, case: str, x: np.ndarray, y: np.ndarray, repeats: int, batch: int) -> dict:
    """Returns the seconds per step on images x [N,H,W,F] in the fastest setting.

    Two epochs with each number of threads and each memory layout decide which setting is fastest.
    """
    best = None
    for threads, layout in itertools.product(
        sorted({1, os.cpu_count() or 1}), ("contiguous", "channels_last")
    ):
        torch.set_num_threads(threads)
        epoch = trainer(case=case, x=x, y=y, batch=batch, layout=layout)
        epoch()
        seconds = min(timed(epoch) for _ in range(2))
        if best is None or seconds < best[0]:
            best = (seconds, threads, layout, epoch)
    _, threads, layout, epoch = best
    torch.set_num_threads(threads)
    return dict(
        seconds=float(np.median([timed(epoch) for _ in range(repeats)])) / (len(y) // batch),
        settings=dict(threads=threads, layout=layout),
    )


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def trainer(*, case: str, x: np.ndarray, y: np.ndarray, batch: int, layout: str):
    """Returns a function that trains one epoch by SGD over shuffled batches of all images."""
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    x, y, net = (
        x.permute(0, 3, 1, 2).contiguous(memory_format=form),
        y.long(),
        network(case).to(memory_format=form),
    )
    opt = torch.optim.SGD(net.parameters(), lr=0.01)

    def epoch():
        for index in torch.randperm(len(y)).split(batch):
            opt.zero_grad(set_to_none=True)
            functional.cross_entropy(net(x[index]), y[index]).backward()
            opt.step()

    return epoch
