"""Says when there is an accelerator that JAX does not use.

Several devices: a fleet is trained and queried over them by training/devices.py (`run.devices`).
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping

import jax

CUDA = ("jax-cuda13-plugin", "jax-cuda12-plugin")
TPU = ("libtpu",)


ROOT = pathlib.Path("/")


def present(root: pathlib.Path = ROOT) -> dict[str, str]:
    """Returns {'gpu' or 'tpu': where it shows} of this machine, whatever JAX can do with it."""
    accelerators = {}
    nvidia = [*sorted((root / "dev").glob("nvidia[0-9]*")), root / "proc" / "driver" / "nvidia"]
    there = next((str(path) for path in nvidia if path.exists()), None) or (
        shutil.which("nvidia-smi") if root == ROOT else None
    )
    if there:
        accelerators["gpu"] = there
    tpu = next((str(path) for path in sorted((root / "dev").glob("accel[0-9]*"))), None)
    return accelerators | ({"tpu": tpu} if tpu else {})


def installed(names: tuple[str, ...]) -> str:
    """Returns the first of these packages that is installed; '' if none is."""
    for name in names:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name
    return ""


def unused(
    *,
    platform: str | None = None,
    probe: Callable[[], Mapping[str, str]] = present,
    plugin: Callable[[tuple[str, ...]], str] = installed,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Returns what to tell a user whose run goes to the CPU although an accelerator is there; '' if
    none is, if it is used, or if JAX_PLATFORMS says cpu.
    """
    if environment.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return ""
    there = probe()
    if not there or (platform or jax.default_backend()) != "cpu":
        return ""
    name, packages, extra, backend = (
        ("a GPU", CUDA, "cuda13", "cuda") if "gpu" in there else ("a TPU", TPU, "tpu", "tpu")
    )
    text = f"running on the CPU although {name} is here ({next(iter(there.values()))})"
    have = plugin(packages)
    if have:
        return (
            f"{text}: {have} is installed but did not start. JAX says why: python -c 'import jax; "
            f'jax.devices("{backend}")\''
        )
    return (
        f"{text}: this jaxlib does not support it. Install it with: pip install "
        f'"jax[{extra}]=={jax.__version__}"'
    )
