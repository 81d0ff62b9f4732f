"""A fall back to the CPU is said, with what to install; no word where none is there, where it is
used, or where the CPU was asked for.
"""

import jax
import pytest

from mia_jax.runtime import accelerators


def machine(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def test_a_gpu_and_a_tpu_show_in_dev_and_proc(tmp_path):
    assert accelerators.present(tmp_path) == {}
    assert accelerators.present(machine(tmp_path / "a", "dev/nvidiactl", "dev/nvidia0")) == {
        "gpu": str(tmp_path / "a/dev/nvidia0")
    }
    assert accelerators.present(machine(tmp_path / "b", "proc/driver/nvidia/version")) == {
        "gpu": str(tmp_path / "b/proc/driver/nvidia")
    }
    assert accelerators.present(machine(tmp_path / "c", "dev/accel0")) == {
        "tpu": str(tmp_path / "c/dev/accel0")
    }


UNSUPPORTED = (
    "running on the CPU although {} is here ({}): this jaxlib does not support it. Install it "
    "with: pip install "
)


@pytest.mark.parametrize(
    ("there", "plugin", "says"),
    [
        (
            dict(gpu="/dev/nvidia0"),
            "",
            UNSUPPORTED.format("a GPU", "/dev/nvidia0") + f'"jax[cuda13]=={jax.__version__}"',
        ),
        (
            dict(tpu="/dev/accel0"),
            "",
            UNSUPPORTED.format("a TPU", "/dev/accel0") + f'"jax[tpu]=={jax.__version__}"',
        ),
        (
            dict(gpu="/dev/nvidia0"),
            "jax-cuda12-plugin",
            "jax-cuda12-plugin is installed but did not start. JAX says why: python -c",
        ),
    ],
)
def test_an_accelerator_that_is_not_used_is_said_with_the_remedy(there, plugin, says):
    warning = accelerators.unused(
        platform="cpu", probe=lambda: there, plugin=lambda names: plugin, environment={}
    )
    assert says in warning


def test_nothing_is_said_without_a_reason():
    gpu = dict(probe=lambda: dict(gpu="/dev/nvidia0"), plugin=lambda names: "")
    assert accelerators.unused(platform="gpu", **gpu, environment={}) == ""
    assert accelerators.unused(platform="cpu", **gpu, environment=dict(JAX_PLATFORMS="cpu")) == ""
    assert accelerators.unused(platform="cpu", probe=dict, environment={}) == ""
