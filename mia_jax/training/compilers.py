"""Compiles the programs of a fleet for accelerators that are not there, by their own compilers.

XLA:GPU (the packages of jax[cuda13]) and libtpu compile for a description of a device, on any
machine. What they say is exact about memory and about the kernels that would run, and silent about
time: below that is a bound, the largest of what the memory, the arithmetic units and the launches
of kernels need at their best. No autotuning takes place, so a GPU may run other kernels.

The packages are large and no requirement. They are looked for among the installed ones and in the
folder that the environment variable MIA_JAX_COMPILERS names.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mia_jax.runtime import accelerators, machine
from mia_jax.training import cost, programs
from mia_jax.training.hlo import Kernels, kernels
from mia_jax.types import Learner, Pool

FOLDER = "MIA_JAX_COMPILERS"
# Set, the plug-in of CUDA does not look for the libraries that only a device needs.
UNCHECKED = "JAX_SKIP_CUDA_CONSTRAINTS_CHECK"
LAUNCH = 4e-6  # seconds from one kernel to the next on a GPU, an assumption
_LOWERED = dict(gpu="cuda", tpu="tpu")  # what JAX calls the platforms when it lowers
# What XLA:GPU must know of a device to compile for it: the limits of the CUDA programming guide for
# compute capability 9.0, and the sizes of NVIDIA's data sheet of the H100 SXM.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


WITHOUT_TPU = dict(
    TPU_SKIP_MDS_QUERY="1", TPU_ACCELERATOR_TYPE="v5litepod-4", TPU_WORKER_HOSTNAMES="localhost"
)


class Target(NamedTuple):
    """Describes an accelerator for which programs are compiled.

    Attributes:
        name: what a user types.
        platform: 'gpu' or 'tpu'.
        kind: the name of the device.
        memory: the bytes that a program may use.
        memory_note: which part of the device's memory that is.
        bandwidth: bytes per second between memory and units, from the data sheet.
        flops: {precision: FLOPs per second of products}, from the data sheet.
        launch: the seconds from one kernel to the next; 0 where kernels form one program.
        topology: the arguments of `jax.experimental.topologies.get_topology_desc`.
    """

    name: str
    platform: str
    kind: str
    memory: int
    memory_note: str
    bandwidth: float
    flops: Mapping[str, float]
    launch: float
    topology: Mapping[str, Any]


TARGETS = {
    target.name: target
    for target in (
        Target(
            "h100",
            "gpu",
            "NVIDIA H100 80GB HBM3",
            int(0.75 * 84942979072),
            "the 75% of an H100's memory that JAX takes by default",
            3.35e12,
            dict(float32=67e12, tf32=495e12, bfloat16=989e12),
            LAUNCH,
            dict(platform="cuda", topology="1x1x1", target_config=_H100),
        ),
        Target(
            "v5e",
            "tpu",
            "TPU v5 lite",
            16 * 2**30,
            "the memory of a v5e chip",
            819e9,
            # float32 takes 6 products of bfloat16 parts, tf32 (three parts) 3
            dict(float32=197e12 / 6, tf32=197e12 / 3, bfloat16=197e12),
            0.0,
            dict(platform="tpu", topology_name="v5e:2x2"),
        ),
    )
}


class Compiled(NamedTuple):
    """Holds what the compiler of a target says of a program of `chunk` models.

    Attributes:
        form: one of programs.FORMS.
        chunk: models that train together.
        bytes: what the program needs on the device, with its examples.
        shared: the part of `bytes` that are examples.
        traffic: bytes that the kernels of a step read and write, over `chunk`: per model.
        launches: kernels of a step of all models of the chunk.
        seconds: the least time of a step and model.
        bound: what that time is bound by: 'memory', 'arithmetic' or 'launches'.
        compile_seconds: what compiling took here.
        steps: the steps of an epoch.
        parameters: the parameters of one model.
    """

    form: str
    chunk: int
    bytes: int
    shared: int
    traffic: float
    launches: float
    seconds: float
    bound: str
    compile_seconds: float
    steps: int
    parameters: int

    @property
    def per_model(self) -> float:
        """Returns the bytes per model, without the examples."""
        return (self.bytes - self.shared) / self.chunk


def missing(target: Target) -> str:
    """Returns a sentence if the compiler of a target is not installed, else ''."""
    folder = os.environ.get(FOLDER, "")
    if folder and folder not in sys.path:
        jax.local_devices()  # or JAX would try to start the devices of these compilers as well
        sys.path.append(folder)
        importlib.invalidate_caches()
    if target.platform == "tpu":
        there, packages = importlib.util.find_spec("libtpu") is not None, [_libtpu()]
    else:
        there = any("cuda" in point.value for point in _plugins())
        version = jax.__version__
        packages = [f"jax-cuda13-plugin=={version}", f"jax-cuda13-pjrt=={version}"]
    if there:
        return ""
    return (
        f"the compiler for {target.name} is not installed here. Into a folder of its own: pip "
        f"install --no-deps --target FOLDER {' '.join(packages)}; then set {FOLDER}=FOLDER."
    )


def _plugins() -> Sequence[importlib.metadata.EntryPoint]:
    """Returns the plug-ins of JAX that are installed."""
    return importlib.metadata.entry_points(group="jax_plugins")


def _libtpu() -> str:
    """Returns the requirement of the libtpu that fits this JAX, such as 'libtpu==0.0.42.*'."""
    for line in importlib.metadata.requires("jax") or ():
        if line.startswith("libtpu"):
            return line.partition(";")[0].strip().replace(" ", "")
    return "libtpu"


def device_of(target: Target):
    """Returns a device that only exists for the compiler.

    Raises:
        ValueError: the compiler is not installed; the message says how to install it.
    """
    from jax.experimental import topologies

    if sentence := missing(target):
        raise ValueError(sentence)
    jax.local_devices()  # the backends of this process start before the plug-in is registered
    if target.platform == "tpu" and "tpu" not in accelerators.present():
        # there is no TPU whose metadata to ask, which libtpu would complain about
        for name, value in WITHOUT_TPU.items():
            os.environ.setdefault(name, value)
    try:
        return topologies.get_topology_desc(**target.topology).devices[0]
    except NotImplementedError:
        _register()
        return topologies.get_topology_desc(**target.topology).devices[0]


def _register() -> None:
    """Registers the plug-ins of JAX that were not on the path when JAX started."""
    from jax._src import xla_bridge

    logger, level = logging.getLogger("jax._src.xla_bridge"), logging.CRITICAL
    before, checks_before = logger.level, os.environ.get(UNCHECKED)
    logger.setLevel(level)  # it complains about libraries that only a device needs
    os.environ[UNCHECKED] = "1"
    try:
        xla_bridge.discover_pjrt_plugins()
    finally:
        logger.setLevel(before)
        if checks_before is None:
            del os.environ[UNCHECKED]
        else:
            os.environ[UNCHECKED] = checks_before


def compiled(
    target: Target,
    *,
    device,
    learner: Learner,
    pool: Pool,
    rows_K: np.ndarray,
    weight_K: np.ndarray,
    chunk: int,
    form: str,
    work: int,
    precision: str,
    pool_bytes: int = cost.WHOLE,
) -> Compiled:
    """Returns what the compiler of a target says of the training of a chunk of models.

    Args:
        target: the accelerator.
        device: the result of `device_of`.
        learner: the learning rule.
        pool: all examples.
        rows_K: the rows of one model.
        weight_K: the weights of these rows.
        chunk: the number of models that train together.
        form: one of programs.FORMS.
        work: the FLOPs of a step of one model (training/flops.py).
        precision: the precision of the training, one of runtime.precision.PRECISIONS.
        pool_bytes: a pool larger than this is streamed.
    """
    start = time.perf_counter()
    with machine.compiling_for(target.platform):
        program = programs.make(learner=learner, chunk=chunk, form=form)
        price, run, steps = cost.compiled(
            learner=learner,
            pool=pool,
            rows_K=rows_K,
            weight_K=weight_K,
            chunk=chunk,
            pool_bytes=pool_bytes,
            program=program,
            device=device,
            platform=_LOWERED[target.platform],
        )
    counted = kernels(run.as_text())
    traffic, launches = counted.bytes / steps, counted.launches / steps
    bounds = bounds_of(target, Kernels(traffic, launches), work=work * chunk, precision=precision)
    bound = max(bounds, key=bounds.__getitem__)
    return Compiled(
        form,
        chunk,
        price.bytes,
        price.shared,
        traffic / chunk,
        launches,
        bounds[bound] / chunk,
        bound,
        time.perf_counter() - start,
        price.steps,
        price.parameters,
    )


def bounds_of(target: Target, step: Kernels, *, work: float, precision: str) -> dict[str, float]:
    """Returns {what: the least seconds of a step by it}.

    Args:
        target: the accelerator.
        step: the kernels of a step.
        work: its FLOPs.
        precision: at which products are computed.
    """
    return dict(
        memory=step.bytes / target.bandwidth,
        arithmetic=work / target.flops[precision],
        launches=step.launches * target.launch,
    )


def best(rows: Sequence[Compiled], target: Target) -> Compiled | None:
    """Returns the program with the least time per model among those that fit; None if none does.

    A later one must win by 3%, as where programs are timed (`cost.fastest`).
    """
    chosen, least = None, math.inf
    for row in rows:
        if row.bytes <= target.memory and row.seconds < 0.97 * least:
            chosen, least = row, row.seconds
    return chosen
