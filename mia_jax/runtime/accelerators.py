"""Finds an accelerator that is present on the machine but not used by JAX, for a warning.

Several devices are no matter of this file: training/devices.py distributes a fleet over them
(`run.devices`).
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
    """Returns the accelerators of this machine, whether or not JAX can use them.

    Args:
        root: the root of the file system; another one in tests.

    Returns:
        {'gpu' or 'tpu': the path at which the operating system shows it}.
    """
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
    """Returns a warning if the run uses the CPU although an accelerator is present.

    Args:
        platform: the platform of the run; None for JAX's default backend.
        probe: finds accelerators, see `present`.
        plugin: finds an installed plug-in of JAX, see `installed`.
        environment: the environment variables.

    Returns:
        The warning with its remedy. It is '' if there is no accelerator, if JAX uses it, or if
        JAX_PLATFORMS asks for the CPU.
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
