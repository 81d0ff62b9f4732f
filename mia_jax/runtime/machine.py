"""Says on what a run computes, and what another machine does to the bits of its results.

The same program gives the same bits on the same kind of machine with the same number of cores. XLA
cuts the sums of a CPU program by the threads that it has, and every kind of device adds up in an
order of its own, so elsewhere the last bits of a model may differ.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import platform as system
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

PLATFORMS = ("cpu", "gpu", "tpu")
# Packages whose versions decide which program a device runs; those that are installed count.
COMPILERS = (
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "jax-cuda12-plugin",
    "jax-rocm7-plugin",
    "libtpu",
)
CPUINFO = pathlib.Path("/proc/cpuinfo")
# The platform of the programs that are traced in this context; '' is that on which JAX computes.
# The caches of jax.jit know it.
_compiled_for = jax.make_user_context("")
ELSEWHERE = (
    "Models that are trained from here on are as good, but can differ in their last bits from "
    "those that the first machine would have made: the same bits need the same kind of machine, "
    "the same number of cores and the same versions."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Holds on what a program runs.

    Attributes:
        platform: 'cpu', 'gpu' or 'tpu'.
        device_kind: the name of the device, such as 'NVIDIA H100 80GB HBM3'; 'cpu' for a CPU.
        devices: how many of them are used.
        processor: the name of the machine's processor; '' if it is not known.
        cores: how many cores this process may use (its affinity, not those of the machine).
        versions: {package: version} of JAX and its compilers.
    """

    platform: str
    device_kind: str
    devices: int
    processor: str
    cores: int
    versions: Mapping[str, str]

    def __str__(self) -> str:
        """Returns the machine in words, such as '1 device (cpu, 2 cores); jax 0.10.2'."""
        return f"{self.hardware}; {self.software}"

    @property
    def hardware(self) -> str:
        """Returns the devices in words, such as '1 device (cpu, 2 cores)'."""
        cores = f"{self.cores} core{'s' * (self.cores != 1)}"
        kind = "" if self.platform == "cpu" else f"{self.device_kind}, "
        return f"{self.devices} device{'s' * (self.devices != 1)} ({self.platform}, {kind}{cores})"

    @property
    def software(self) -> str:
        """Returns the versions in words, such as 'jax 0.10.2'; jaxlib's where it is another."""
        versions = dict(self.versions)
        if versions.get("jaxlib") == versions.get("jax"):
            versions.pop("jaxlib", None)
        return " and ".join(f"{name} {version}" for name, version in versions.items())

    def plain(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return dataclasses.asdict(self) | dict(versions=dict(self.versions))


def here(devices: Sequence | None = None) -> Machine:
    """Returns on what a run with these devices computes; None for all local ones."""
    devices = list(devices or jax.local_devices())
    return Machine(
        platform=devices[0].platform,
        device_kind=devices[0].device_kind,
        devices=len(devices),
        processor=processor(),
        cores=cores(),
        versions=installed(COMPILERS),
    )


def platform() -> str:
    """Returns the platform for which programs are traced: 'cpu', 'gpu' or 'tpu'.

    It is that on which JAX computes, or within `compiling_for` another one.
    """
    return _compiled_for.value or jax.default_backend()


def compiling_for(name: str):
    """Returns a context in which programs are traced for another platform than that at hand.

    Args:
        name: one of PLATFORMS; '' for that on which JAX computes.
    """
    if name not in ("", *PLATFORMS):
        raise ValueError(f"name={name!r} is neither '' nor one of {', '.join(PLATFORMS)}.")
    return _compiled_for(name)


def of(record: Mapping[str, Any] | None) -> Machine | None:
    """Returns the machine that `Machine.plain` recorded.

    None for a file of an older version, or for one that is not such a record.
    """
    fields = {field.name for field in dataclasses.fields(Machine)}
    if not isinstance(record, Mapping) or not fields <= set(record):
        return None
    return Machine(**{name: record[name] for name in fields})


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor(path: pathlib.Path = CPUINFO) -> str:
    """Returns the name of the machine's processor; '' if the system does not say it."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or system.processor()


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Returns {package: version} of those packages that are installed, each once."""
    versions = {}
    for name in dict.fromkeys(packages):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def other_kind(then: Machine, now: Machine) -> bool:
    """Returns whether the device is of another kind, so that a plan of the first does not hold."""
    return (then.platform, then.device_kind) != (now.platform, now.device_kind)


def other_bits(then: Machine, now: Machine) -> str:
    """Returns in words why the same program may give other bits now; '' if nothing has changed.

    The number of devices is no reason: each chunk of models runs on one of them. The cores and the
    processor matter where the CPU computes.
    """
    changes = []
    if other_kind(then, now):
        changes.append(f"on {then.device_kind} ({then.platform}), now {now.device_kind}")
    if now.platform == "cpu" and then.platform == "cpu":
        if then.cores != now.cores:
            changes.append(f"with {then.cores} core{'s' * (then.cores != 1)}, now {now.cores}")
        if then.processor != now.processor:
            changes.append(
                f"on {then.processor or 'another CPU'}, now {now.processor or 'another'}"
            )
    for name in dict.fromkeys([*then.versions, *now.versions]):
        before, after = then.versions.get(name), now.versions.get(name)
        if before != after:
            changes.append(f"with {name} {before or 'not installed'}, now {after or 'none'}")
    return "; ".join(changes)


def require(platform: str, *, remedy: str = "") -> None:
    """Raises ValueError unless JAX computes on this platform; '' allows all.

    Args:
        platform: '' or one of PLATFORMS.
        remedy: what keeps JAX from the accelerator of this machine, if that is known.
    """
    actual = jax.default_backend()
    if platform in ("", actual):
        return
    allocation = {
        "gpu": "Ask the scheduler for a GPU (docs/slurm.sh does)",
        "tpu": "Start it on a machine with a TPU",
        "cpu": "Set JAX_PLATFORMS=cpu",
    }[platform]
    what = f" {remedy[0].upper()}{remedy[1:]}." if remedy else ""
    raise ValueError(
        f"run.platform={platform!r}, but JAX computes on the platform {actual!r} here "
        f"({here().hardware}).{what} {allocation}, or leave run.platform out to take what there is."
    )
