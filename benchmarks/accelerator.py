"""Measures what a fleet costs on one accelerator: a GPU or a TPU.

    python -m benchmarks.accelerator --out=accelerator.jsonl     # under 8 minutes on one H100
    python -m benchmarks.accelerator --tiny                      # under a minute on 2 CPU cores
    python -m benchmarks.accelerator --sections=device,fleet_wrn --deadline=200
    python -m benchmarks.accelerator --list                      # the sections

It needs jax, flax, optax, numpy, scipy and this checkout; no data set has to be there. Every
measurement is one line of JSON, printed and appended to --out as soon as it is there, so that a run
that is cut off keeps what it has; tables come at the end. Sections run in their order until
--deadline seconds are over. A program that would not fit, by the compiler's own figure, is not run;
one that fails is a line with `error`. --tiny shows only that everything runs.

The sections:

    device      what the platform is; how fast a copy and a matrix product are, and whether a
                float32 product rounds its factors (TF32, bfloat16)
    mlp         64 MLPs on 64 features: steps per second and compile time against the chunk
    fleet_*     small_cnn, conv, WRN-28-2: milliseconds per step and model, bytes and compile time
                at chunks 1 to 64 in each form of convolution
    end_to_end  64 small ResNets in bfloat16 on Fashion-MNIST (through tensorflow_datasets or
                --data, otherwise random images of that size): train, query, attack, and the
                seconds of each stage
    bits        whether the same program, run again and compiled again, gives the same bits
    lira        LiRA's scores of all targets on the host against the same sums on the device
    dp          a private step by each method against the plain one: conv net and WRN-16-4
    boundary    HopSkipJump: labels per second beside the bare forward pass
    precision   the same training step in float32, TF32 and bfloat16
    pieces      noise, max pooling, augmentation and the plan of an epoch
    files       the fleet with its files and metrics against the bare program
    sync        eight chunks of a fleet on 1, 2 and 4 lanes of one device
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import _probe
from benchmarks._probe import Probe
from mia_jax import registry
from mia_jax.learners import backprop
from mia_jax.learners import plan as plans
from mia_jax.objectives import cross_entropy
from mia_jax.runtime import precision
from mia_jax.training import programs
from mia_jax.types import Learner, Pool, classification

CLASSES = 10


class Case(NamedTuple):
    """Describes the training step of a net: `steps` of them are one run of the program."""

    model: str
    fields: dict
    shape: tuple[int, ...]
    batch: int
    steps: int
    augment: tuple[str, ...] = ()


class Step(NamedTuple):
    """Holds a compiled epoch of `chunk` models and its arguments."""

    compiled: Callable
    state: object
    args: tuple
    compile_s: float


SMALL_CNN = Case("small_cnn", {}, (28, 28, 1), 100, 10)
CONV = Case("conv", {}, (32, 32, 3), 64, 10)
WRN = Case("wide_resnet", dict(depth=28, width=2), (32, 32, 3), 256, 3, ("flip", "crop:4"))
WRN_16_4 = Case("wide_resnet", dict(depth=16, width=4, norm="group"), (32, 32, 3), 64, 3)
MLP = Case("mlp", dict(widths=(256,)), (64,), 32, 26)
SMALL_RESNET = Case("wide_resnet", dict(depth=10, width=1), (28, 28, 1), 128, 1)
TINY = dict(
    small_cnn=SMALL_CNN._replace(shape=(22, 22, 1), batch=8, steps=2),
    conv=CONV._replace(shape=(14, 14, 3), batch=4, steps=2),
    wrn=WRN._replace(fields=dict(depth=10, width=1), shape=(8, 8, 3), batch=4, steps=1),
    mlp=MLP._replace(steps=5),
)
FLEETS = dict(small_cnn=SMALL_CNN, conv=CONV, wrn=WRN)
# The most telling first: what comes last may fall to the deadline.
FORMS = dict(
    small_cnn=[
        ("grouped", 1), ("patches", 16), ("patches", 64), ("grouped", 16), ("turns", 16),
        ("grouped", 64), ("turns", 64), ("patches", 4), ("grouped", 4),
    ],
    conv=[
        ("grouped", 1), ("patches", 16), ("grouped", 16), ("turns", 16), ("patches", 64),
        ("turns", 4), ("patches", 4), ("grouped", 4),
    ],
    wrn=[("grouped", 1), ("turns", 4), ("patches", 4), ("grouped", 4), ("turns", 16)],
)  # fmt: skip
TINY_FORMS = dict(small_cnn=[("grouped", 2)], conv=[], wrn=[("turns", 2)])


# A training step
# --------------------------------------------------------------------------------


def pool_of(shape: tuple[int, ...], n: int) -> Pool:
    """Draws random examples x [n, *shape] in [0,1) with labels."""
    rng = np.random.default_rng(0)
    x, y = rng.random((n, *shape), np.float32), rng.integers(0, CLASSES, n).astype(np.int32)
    return Pool(x=x, y=y, task=classification(CLASSES))


def learner_of(
    case: Case, pool: Pool, *, private: str = "", rounding: str = precision.DEFAULT, **fields
) -> Learner:
    """Returns a learner of the case's net.

    Args:
        case: the training step.
        pool: what it trains on.
        private: the method of private gradients; '' for plain ones.
        rounding: one of precision.PRECISIONS.
        fields: further arguments of the learner.
    """
    model = registry.make("models", case.model, dict(case.fields), num_classes=CLASSES)
    model = precision.computing(model, rounding)
    common = dict(model=model, loss=cross_entropy.make(model=model), num_rows=len(pool.y))
    common |= dict(epochs=1, batch_size=case.batch, augment=case.augment)
    common |= dict(optimizer=dict(name="sgd", momentum=0.9), learning_rate=0.05)
    if private:
        privacy = dict(clip_norm=1.0, noise_multiplier=1.0, sampling="shuffle")
        privacy |= dict(adjacency="zero_out", method=private)
        sample = dataclasses.replace(pool, x=pool.x[:1], y=pool.y[:1])
        common |= dict(gradient="private", privacy=privacy, sample=sample)
    return backprop.make(**common | fields)


def step_of(
    case: Case, *, chunk: int, form: str = "", private: str = "", rounding: str = precision.DEFAULT
) -> Step:
    """Compiles an epoch of `case.steps` steps of `chunk` models, as fleets run it.

    Args:
        case: the training step.
        chunk: models per program.
        form: of the program; '' for that of the platform.
        private, rounding: see learner_of.
    """
    pool = pool_of(case.shape, case.batch * case.steps)
    learner = learner_of(case, pool, private=private, rounding=rounding)
    keys = programs.model_keys(seed=0, models=np.arange(chunk))
    rows_MK = np.tile(np.arange(len(pool.y), dtype=np.int32), (chunk, 1))
    plan = jax.jit(jax.vmap(lambda k, r, w: learner.plan(k, jnp.uint32(1), r, w)))
    index, weight = plan(keys, rows_MK, np.ones(rows_MK.shape, np.float32))
    sample = dataclasses.replace(pool, x=pool.x[:1], y=pool.y[:1])
    single = jax.jit(learner.init)(jax.random.key(0), sample)
    state = jax.tree.map(lambda a: jnp.stack([a] * chunk), single)
    args = jax.device_put(pool), index, weight
    run = programs.make(learner=learner, chunk=chunk, form=form).run
    with precision.products(rounding):
        compiled, compile_s = _probe.compiled_in(run, state, *args)
    return Step(compiled, state, args, compile_s)


def time_step(probe: Probe, section: str, case: Case, *, chunk: int, form: str = "", **more):
    """Measures milliseconds per step and model of `chunk` models.

    Args:
        probe: collects the measurement.
        section: its section.
        case: the training step.
        chunk: models per program.
        form: of the program; '' for that of the platform.
        more: `private` and `rounding` of learner_of; `name`, what the measurement is called.
    """
    labels = dict(section=section, case=more.pop("name", case.model), chunk=chunk)
    labels |= dict(form=form or programs.default_form(), batch=case.batch) | more

    def measure() -> dict:
        step = step_of(case, form=form, chunk=chunk, **more)
        size = _probe.program_bytes(step.compiled)
        measured = labels | dict(compile_s=step.compile_s, gigabytes=size / 1e9)
        if size > _probe.limit_bytes():
            return probe.say(**measured, skipped=f"needs {size / 1e9:.1f} GB")
        state = step.state

        def once() -> None:
            nonlocal state
            state, sums = step.compiled(state, *step.args)
            jax.block_until_ready(sums)

        seconds = probe.median_seconds(once)
        per_step = seconds / (case.steps * chunk)
        measured |= dict(ms_per_model_step=1e3 * per_step, images_per_s=case.batch / per_step)
        flops = _probe.program_flops(step.compiled)
        return probe.say(**measured, tflops=flops / seconds / 1e12)

    return probe.attempt(measure, **labels)


def without_accounting() -> None:
    """Replaces the accountant where dp-accounting is not installed: no epsilon is printed here."""
    from mia_jax.privacy import accounting

    accounting.event = lambda *args, **fields: None
    accounting.epsilon = lambda *args, **fields: 1.0


# Sections
# --------------------------------------------------------------------------------


def device(probe: Probe) -> None:
    """Names the device and measures products, copies and the cost of a launch."""
    import flax
    import optax

    first = jax.devices()[0]
    probe.say(
        section="device",
        case="what",
        platform=jax.default_backend(),
        kind=first.device_kind,
        devices=len(jax.devices()),
        jax=jax.__version__,
        flax=flax.__version__,
        optax=optax.__version__,
        python=sys.version.split()[0],
        bytes_limit=(first.memory_stats() or {}).get("bytes_limit"),
    )
    n = 512 if probe.tiny else 8192
    a = jax.random.normal(jax.random.key(0), (n, n))
    exact = np.asarray(a[:64], np.float64) @ np.asarray(a, np.float64)
    for name in ("default", "highest") if probe.tiny else ("default", "high", "highest"):
        product = jax.jit(lambda a, p=name: jnp.matmul(a, a, precision=p))

        def measure(product=product, name=name):
            seconds = probe.median_seconds(lambda: product(a).block_until_ready())
            error = np.abs(np.asarray(product(a)[:64]) - exact).max() / np.abs(exact).max()
            speed = dict(tflops=2 * n**3 / seconds / 1e12, relative_error=float(error))
            probe.say(section="device", case="product", form=name, **speed)

        probe.attempt(measure, section="device", case="product", form=name)
    half, product = a.astype(jnp.bfloat16), jax.jit(lambda a: a @ a)
    seconds = probe.median_seconds(lambda: product(half).block_until_ready())
    speed = 2 * n**3 / seconds / 1e12
    probe.say(section="device", case="product", form="bfloat16", tflops=speed)
    big, add = jnp.zeros(1 << (20 if probe.tiny else 28)), jax.jit(lambda x: x + 1)
    seconds = probe.median_seconds(lambda: add(big).block_until_ready())
    probe.say(section="device", case="copy", gigabytes_per_s=2 * big.nbytes / seconds / 1e9)
    seconds = probe.median_seconds(lambda: add(jnp.zeros(())).block_until_ready())
    probe.say(section="device", case="dispatch", microseconds=1e6 * seconds)
    count = 1000
    turn = lambda c, _: (jnp.sort(c), None)  # noqa: E731, nothing fuses with a sort
    loop = jax.jit(lambda x: lax.scan(turn, x, None, length=count)[0])
    seconds = probe.median_seconds(lambda: loop(jnp.zeros(8)).block_until_ready())
    probe.say(section="device", case="turn of a scan", microseconds=1e6 * seconds / count)
    asked = jax.jit(
        lambda x: lax.while_loop(
            lambda c: c[0] < count, lambda c: (c[0] + 1, jnp.sort(c[1])), (0, x)
        )
    )
    seconds = probe.median_seconds(lambda: jax.block_until_ready(asked(jnp.zeros(8))))
    probe.say(section="device", case="turn of a while loop", microseconds=1e6 * seconds / count)


def mlp(probe: Probe) -> None:
    """Measures MLPs, for which launches count most, against the chunk."""
    for chunk in (8,) if probe.tiny else (1, 8, 64, 256):
        time_step(probe, "mlp", TINY["mlp"] if probe.tiny else MLP, chunk=chunk, name="64-256-10")


def fleet_of(name: str) -> Callable[[Probe], None]:
    """Returns the section of one convolutional net in all forms and chunks."""

    def section(probe: Probe) -> None:
        case = TINY[name] if probe.tiny else FLEETS[name]
        for form, chunk in (TINY_FORMS if probe.tiny else FORMS)[name]:
            time_step(probe, f"fleet_{name}", case, form=form, chunk=chunk, name=name)

    return section


def images(data: pathlib.Path | None, n: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns x [n,28,28,1] in [0,1], y and where they are from.

    Args:
        data: an npz file with x and y; None: Fashion-MNIST where tensorflow_datasets has it,
            otherwise random images.
        n: how many.
    """
    if data is not None:
        with np.load(data) as file:
            x, y = file["x"][:n], file["y"][:n]
        x = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
        return x.reshape(len(x), 28, 28, 1), y.astype(np.int32), data.name
    try:
        pool = registry.make("data", "tfds", dict(dataset="fashion_mnist"))
    except Exception:  # not installed, or not on this machine
        random = pool_of((28, 28, 1), n)
        return random.x, random.y, "random images"
    return np.asarray(pool.x[:n]), np.asarray(pool.y[:n]), "Fashion-MNIST"


def end_to_end(probe: Probe, data: pathlib.Path | None = None) -> None:
    """Trains, queries and attacks a fleet of small ResNets, and times each stage."""
    from mia_jax.attacks import lira as attack
    from mia_jax.designs import halves
    from mia_jax.metrics import roc
    from mia_jax.query import forward
    from mia_jax.threat_model import FleetSignals
    from mia_jax.training import fleet

    models, n, epochs, chunk = (4, 32, 1, 4) if probe.tiny else (64, 20_000, 10, 16)
    case = SMALL_RESNET._replace(model="mlp", fields={}, batch=16) if probe.tiny else SMALL_RESNET

    def measure() -> dict:
        x, y, source = images(data, n)
        pool = Pool(x=x, y=y, task=classification(CLASSES))
        design = halves.make(num_examples=len(y), models=models, seed=0, population=0.0)
        signals = dict(rescaled_logit=registry.make("signals", "rescaled_logit"))
        rows_MK = np.stack([np.flatnonzero(row) for row in design.member_MN]).astype(np.int32)
        weight_MK = np.ones(rows_MK.shape, np.float32)
        fields = dict(num_rows=rows_MK.shape[1], epochs=epochs)
        learner = learner_of(case, pool, rounding="bfloat16", **fields)
        model = registry.make("models", case.model, case.fields, num_classes=CLASSES)
        numbers, stages = list(range(models)), {}
        with tempfile.TemporaryDirectory() as text:
            folder = pathlib.Path(text)
            start = time.perf_counter()
            common = dict(learner=learner, pool=pool, rows_MK=rows_MK, weight_MK=weight_MK)
            common |= dict(seed=0, models=numbers, folder=folder / "train", chunk=chunk)
            fleet.train(**common)
            stages["train_s"], start = time.perf_counter() - start, time.perf_counter()
            forward.query(
                model=model,
                pool=pool,
                signals=signals,
                views=[lambda x: x],
                models=numbers,
                models_folder=folder / "train",
                folder=folder / "signal",
                chunk=chunk,
                batch_size=16 if probe.tiny else 500,
            )
            stages["query_s"], start = time.perf_counter() - start, time.perf_counter()
            value = forward.load(folder / "signal", "rescaled_logit", numbers)
        signal_of = dict(rescaled_logit=value)
        evidence = FleetSignals(design=design, signal=signal_of, num_classes=CLASSES)
        score_TN = attack.make().score_all(evidence, None)
        targets = zip(score_TN, design.member_MN[list(design.targets)], strict=True)
        auc = float(np.mean([roc.auc(roc.roc(s, member)) for s, member in targets]))
        stages["attack_s"] = time.perf_counter() - start
        what = dict(models=models, examples=len(y), epochs=epochs, chunk=chunk, data=source)
        return probe.say(section="end_to_end", case=name, **what, **stages, auc=auc)

    name = f"{case.model}, bfloat16"
    probe.attempt(measure, section="end_to_end", case=name)


def bits(probe: Probe) -> None:
    """Checks whether a program gives the same bits again, and compiled again."""
    case = TINY["mlp"]._replace(shape=(8,), batch=4, steps=2) if probe.tiny else CONV
    for chunk in (2,) if probe.tiny else (1, 4):

        def measure(chunk=chunk) -> dict:
            results = []
            for fresh in (True, False, True):
                if fresh:
                    jax.clear_caches()
                    step = step_of(case, chunk=chunk)
                state = jax.tree.map(jnp.copy, step.state)
                state, _ = step.compiled(state, *step.args)
                leaves = jax.tree.leaves(jax.device_get(state.variables))
                results.append([np.asarray(leaf) for leaf in leaves])
            same = [
                all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))
                for other in results[1:]
            ]
            off = max(
                float(np.abs(a - b).max())
                for other in results[1:]
                for a, b in zip(results[0], other, strict=True)
            )
            outcome = dict(again=same[0], compiled_again=same[1], largest_difference=off)
            return probe.say(section="bits", case=case.model, chunk=chunk, **outcome)

        probe.attempt(measure, section="bits", case=case.model, chunk=chunk)


def lira(probe: Probe) -> None:
    """Compares LiRA on the host with the same sums in float32 on the device."""
    from mia_jax.attacks import lira as attack
    from mia_jax.designs import halves
    from mia_jax.threat_model import FleetSignals

    models, examples = (16, 500) if probe.tiny else (64, 200_000)
    rng = np.random.default_rng(0)
    design = halves.make(num_examples=examples, models=models, seed=0, population=0.0)
    noise = rng.normal(size=(models, examples)) * 0.5
    signal = rng.normal(size=examples) * 2 + noise + 0.3 * design.member_MN
    signal = signal.astype(np.float32)
    seen = dict(rescaled_logit=signal[:, None])
    evidence = FleetSignals(design=design, signal=seen, num_classes=CLASSES)
    start = time.perf_counter()
    host_TN = attack.make(variance="per_example").score_all(evidence, None)
    host_s = time.perf_counter() - start
    sizes = dict(models=models, examples=examples)
    probe.say(section="lira", case="host", **sizes, seconds=host_s)
    unit_M = np.unique(np.asarray(design.unit_M), return_inverse=True)[1]

    @jax.jit
    def on_device(value_MN, member_MN, unit_M):
        value_MN = value_MN - value_MN.mean(0, keepdims=True)
        same_MM = (unit_M[:, None] == unit_M[None]).astype(jnp.float32)

        def side(where_MN):
            powers = jnp.ones_like(value_MN), value_MN, value_MN**2
            sums = [jnp.where(where_MN, power, 0) for power in powers]
            count, total, square = (
                s.sum(0, keepdims=True) - jnp.matmul(same_MM, s, precision="highest") for s in sums
            )
            mean = total / count
            variance = jnp.maximum(square - count * mean**2, 0) / (count - 1)
            return -0.5 * jnp.log(variance) - 0.5 * (value_MN - mean) ** 2 / variance

        return side(member_MN) - side(~member_MN)

    def measure() -> dict:
        member = np.asarray(design.member_MN)
        args = jax.device_put((signal, member, unit_M))
        compiled, compile_s = _probe.compiled_in(on_device, *args)
        seconds = probe.median_seconds(lambda: compiled(*args).block_until_ready())
        start = time.perf_counter()
        score_TN = np.asarray(compiled(*jax.device_put((signal, member, unit_M))))
        whole_s = time.perf_counter() - start
        fewest_UN = [
            np.stack([side_MN[unit_M != u].sum(0) for u in np.unique(unit_M)]).min(0)
            for side_MN in (member, ~member)
        ]
        # With fewer than 4 shadows on a side the host pools variances.
        known = design.evaluated_MN[list(design.targets)] & (np.min(fewest_UN, 0) >= 4)
        difference = np.abs(np.where(known, score_TN - host_TN, 0))
        outcome = dict(seconds=seconds, with_transfers_s=whole_s, compile_s=compile_s)
        outcome |= dict(host_ratio=host_s / whole_s, largest_difference=float(difference.max()))
        return probe.say(section="lira", case="device", **sizes, **outcome)

    probe.attempt(measure, section="lira", case="device")


def dp(probe: Probe) -> None:
    """Measures a private step by each method against the plain one."""
    if importlib.util.find_spec("dp_accounting") is None:
        without_accounting()
    if probe.tiny:
        cases = dict(mlp=TINY["mlp"]._replace(shape=(16,), batch=8, steps=2))
    else:
        cases = dict(conv=CONV._replace(steps=6), wrn_16_4=WRN_16_4)
    for name, case in cases.items():
        for method in ("bookkeeping",) if probe.tiny else ("", "bookkeeping", "tapped", "vmap"):
            label = f"{name} {method or 'plain'}"
            time_step(probe, "dp", case, chunk=1, name=label, private=method)
    if not probe.tiny:
        label = "conv bookkeeping, fleet"
        time_step(probe, "dp", cases["conv"], chunk=8, name=label, private="bookkeeping")


def boundary(probe: Probe) -> None:
    """Measures labels per second of HopSkipJump beside the bare forward pass."""
    from mia_jax.evasion.hop_skip_jump import hop_skip_jump

    side, iterations, evaluations = (22, 1, 20) if probe.tiny else (28, 5, 100)
    model = registry.make("models", "small_cnn", dict(num_conv=2), num_classes=CLASSES)
    x = jax.random.uniform(jax.random.key(1), (8 if probe.tiny else 4096, side, side, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])

    def label(variables, x):
        return model.apply(variables, x)[0].argmax(-1).astype(jnp.int32)

    forward = jax.jit(label)
    for size in (8,) if probe.tiny else (100, 2000, 20_000):
        batch = jnp.resize(x, (size, side, side, 1))
        ask = lambda batch=batch: forward(variables, batch).block_until_ready()  # noqa: E731
        speed = size / probe.median_seconds(ask)
        probe.say(section="boundary", case="forward", batch=size, labels_per_s=speed)
    sizes = ((8, 4),) if probe.tiny else ((100, 20), (400, 20), (1600, 20), (100, 200))
    for batch, directions in sizes:

        def measure(batch=batch, directions=directions) -> dict:
            def walk(variables, x, y, keys):
                ask = lambda q: label(variables, q)  # noqa: E731
                how = dict(iterations=iterations, evaluations=evaluations, chunk=directions)
                return hop_skip_jump(ask, x, y, keys, **how)

            y = forward(variables, x[:batch])
            args = variables, x[:batch], y, jax.random.split(jax.random.key(2), batch)
            compiled, compile_s = _probe.compiled_in(jax.jit(walk), *args)
            queries = int(jax.device_get(compiled(*args).queries_B).sum())
            least = 1 if probe.tiny else 2
            run = lambda: jax.block_until_ready(compiled(*args))  # noqa: E731
            seconds = probe.median_seconds(run, least=least)
            speed = dict(labels_per_s=queries / seconds, ms_per_example=1e3 * seconds / batch)
            what = dict(batch=batch, directions=directions, compile_s=compile_s)
            return probe.say(section="boundary", case="walk", **what, **speed)

        probe.attempt(measure, section="boundary", case="walk", batch=batch)


def rounding(probe: Probe) -> None:
    """Measures a step in each precision of networks."""
    cases = dict(mlp=TINY["mlp"]) if probe.tiny else dict(conv=CONV, wrn=WRN)
    for name, case in cases.items():
        for kind in ("bfloat16",) if probe.tiny else precision.PRECISIONS:
            time_step(probe, "precision", case, chunk=1, name=f"{name} {kind}", rounding=kind)


def pieces(probe: Probe) -> None:
    """Measures pieces whose form was chosen on a CPU."""
    from mia_jax import augmentations
    from mia_jax.models.kernels import pooling
    from mia_jax.privacy import noise

    size = 10_000 if probe.tiny else 36_000_000
    draws = dict(unrolled=lambda k: noise.normal(k, (size,)))
    draws["jax.random"] = lambda k: jax.random.normal(k, (size,))
    for name, draw in draws.items():
        compiled, compile_s = _probe.compiled_in(jax.jit(draw), jax.random.key(0))
        run = lambda c=compiled: c(jax.random.key(1)).block_until_ready()  # noqa: E731
        times = dict(seconds=probe.median_seconds(run), compile_s=compile_s)
        probe.say(section="pieces", case="normals", form=name, count=size, **times)
    batch = 8 if probe.tiny else 256
    x = jax.random.normal(jax.random.key(0), (batch, 32, 32, 64))
    for window, stride in ((3, 2),) if probe.tiny else ((2, 2), (3, 2)):
        for form in ("auto", "lax"):

            def square(x, form=form, window=window, stride=stride):
                return (pooling.max_pool(x, window, stride, form=form) ** 2).sum()

            program = jax.jit(jax.grad(square))
            run = lambda p=program: p(x).block_until_ready()  # noqa: E731
            case = f"max pool {window} stride {stride}, gradient"
            seconds = probe.median_seconds(run)
            probe.say(section="pieces", case=case, form=form, seconds=seconds)
    pictures, keys = x[..., :3], jax.random.split(jax.random.key(3), batch)
    for specs in (("flip", "crop:4"),) if probe.tiny else (("flip",), ("crop:4",), ("rotate:10",)):
        program = jax.jit(augmentations.make(specs))
        run = lambda p=program: p(pictures, keys).block_until_ready()  # noqa: E731
        what = dict(form="+".join(specs), batch=batch)
        seconds = probe.median_seconds(run)
        probe.say(section="pieces", case="augmentation", **what, seconds=seconds)
    rows = 1000 if probe.tiny else 1_000_000
    permutation = plans.permutation(batch_size=256)
    order = lambda k: permutation(k, jnp.uint32(1), jnp.arange(rows), jnp.ones(rows))  # noqa: E731
    program = jax.jit(order)
    seconds = probe.median_seconds(lambda: jax.block_until_ready(program(jax.random.key(0))))
    probe.say(section="pieces", case="plan of an epoch", rows=rows, seconds=seconds)


def train_digits(*, epochs: int, models: int, chunk: int, rows: int, **more) -> float:
    """Trains a fleet of MLPs with all its files and returns the seconds."""
    from mia_jax.training import fleet

    pool = pool_of(MLP.shape, 2 * rows)
    learner = learner_of(MLP, pool, num_rows=rows, epochs=epochs)
    rows_MK = np.tile(np.arange(rows, dtype=np.int32), (models, 1))
    with tempfile.TemporaryDirectory() as text:
        folder = pathlib.Path(text)
        start = time.perf_counter()
        fleet.train(
            learner=learner,
            pool=pool,
            rows_MK=rows_MK,
            weight_MK=np.ones(rows_MK.shape, np.float32),
            seed=0,
            models=list(range(models)),
            folder=folder,
            chunk=chunk,
            metrics_file=folder / "metrics.jsonl",
            **more,
        )
        return time.perf_counter() - start


def files(probe: Probe) -> None:
    """Compares a fleet, files and metrics included, with the bare program."""
    models, rows, ends = (4, 64, (1, 2)) if probe.tiny else (64, 808, (10, 110))

    def measure() -> dict:
        spent = [
            train_digits(epochs=epochs, models=models, chunk=models, rows=rows) for epochs in ends
        ]
        epoch_s = (spent[1] - spent[0]) / (ends[1] - ends[0])  # free of compilation
        bare = MLP._replace(steps=plans.steps_per_epoch(num_rows=rows, batch_size=MLP.batch))
        step = step_of(bare, chunk=models)
        state = step.state

        def once() -> None:
            nonlocal state
            state, sums = step.compiled(state, *step.args)
            jax.block_until_ready(sums)

        bare_s = probe.median_seconds(once)
        times = dict(epoch_ms=1e3 * epoch_s, device_epoch_ms=1e3 * bare_s)
        ratio = epoch_s / bare_s
        return probe.say(section="files", case="digits", models=models, **times, ratio=ratio)

    probe.attempt(measure, section="files", case="digits")


def sync(probe: Probe) -> None:
    """Measures whether a device idles between chunks."""
    for lanes in () if probe.tiny else (1, 2, 4):

        def measure(lanes=lanes) -> dict:
            what = dict(models=64, chunk=8)
            seconds = train_digits(epochs=20, rows=808, lanes=lanes, **what)
            what |= dict(lanes=lanes, seconds_with_compilation=seconds)
            return probe.say(section="sync", case="digits", **what)

        probe.attempt(measure, section="sync", case="digits", lanes=lanes)


SECTIONS = dict(
    device=device,
    mlp=mlp,
    fleet_small_cnn=fleet_of("small_cnn"),
    fleet_conv=fleet_of("conv"),
    end_to_end=end_to_end,
    bits=bits,
    lira=lira,
    dp=dp,
    boundary=boundary,
    fleet_wrn=fleet_of("wrn"),
    precision=rounding,
    pieces=pieces,
    files=files,
    sync=sync,
)


# Results
# --------------------------------------------------------------------------------


def table(records: Sequence[dict]) -> str:
    """Returns the steps as a table, the fastest form of each net, and what failed."""
    steps = [r for r in records if "ms_per_model_step" in r or "skipped" in r]
    lines = []
    if steps:
        lines.append(
            f"{'section':<16}{'case':<26}{'form':<9}{'chunk':>6}{'ms/model step':>15}"
            f"{'images/s':>12}{'GB':>8}{'compile s':>11}"
        )
    for r in steps:
        ms = f"{r['ms_per_model_step']:.4g}" if "ms_per_model_step" in r else "skipped"
        lines.append(
            f"{r['section']:<16}{r['case']:<26}{r['form']:<9}{r['chunk']:>6}{ms:>15}"
            f"{r.get('images_per_s', 0):>12,.0f}{r['gigabytes']:>8.2f}{r['compile_s']:>11.1f}"
        )
    fastest: dict[str, dict] = {}
    for r in steps:
        if "ms_per_model_step" in r and r["section"].startswith("fleet"):
            before = fastest.get(r["case"], r)
            fastest[r["case"]] = min(before, r, key=lambda r: r["ms_per_model_step"])
    lines += [
        f"fastest {name}: {r['form']} at chunk {r['chunk']}, {r['ms_per_model_step']:.4g} ms per "
        "step and model"
        for name, r in fastest.items()
    ]
    for r in records:
        if r["section"] == "end_to_end" and "train_s" in r:
            lines.append(
                f"{r['models']} x {r['case']} on {r['data']} ({r['examples']:,} examples, "
                f"{r['epochs']} epochs): train {r['train_s']:.1f} s, query {r['query_s']:.1f} s, "
                f"attack {r['attack_s']:.1f} s, AUC {r['auc']:.3f}"
            )
        if "error" in r:
            lines.append(f"failed: {r}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="smallest sizes: does it run?")
    parser.add_argument("--out", type=pathlib.Path, help="file to which JSON lines are appended")
    parser.add_argument("--sections", default="", help="comma-separated (default: all)")
    parser.add_argument(
        "--deadline",
        type=float,
        default=450.0,
        help="seconds after which no further measurement begins (default 450)",
    )
    parser.add_argument("--list", action="store_true", help="print the sections")
    parser.add_argument("--data", type=pathlib.Path, help="npz file of 28x28 images x and y")
    args = parser.parse_args(argv)
    if args.list:
        print(" ".join(SECTIONS))
        return 0
    names = [name for name in args.sections.split(",") if name] or list(SECTIONS)
    for name in names:
        if name not in SECTIONS:
            parser.error(f"there is no section {name!r}; known: {', '.join(SECTIONS)}")
    if args.tiny:  # only whether it runs: compiled with few optimizations
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {flags}".strip()
    probe = Probe(tiny=args.tiny, deadline=args.deadline, out=args.out)
    missed = []
    for name in names:
        started = time.perf_counter()
        try:
            if probe.left() < 0:
                raise _probe.Over
            SECTIONS[name](probe, args.data) if name == "end_to_end" else SECTIONS[name](probe)
        except _probe.Over:
            missed.append(name)
        except Exception as error:  # a section's failure does not end the others
            traceback.print_exc()
            probe.say(section=name, case="section", error=f"{type(error).__name__}: {error}"[:300])
        probe.say(section=name, case="section", seconds=time.perf_counter() - started)
    print(table(probe.records))
    rest = f"; not finished before the deadline: {', '.join(missed)}" if missed else ""
    print(f"{time.perf_counter() - probe.start:.0f} s{rest}")
    return 1 if args.tiny and any("error" in record for record in probe.records) else 0


if __name__ == "__main__":
    raise SystemExit(main())
