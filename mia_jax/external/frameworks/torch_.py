"""PyTorch modules: asked in evaluation mode, without gradients, in batches, and put back as they
were.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping

import numpy as np

from mia_jax.external import rows
from mia_jax.external.frameworks import Predictor

BATCH_SIZE = 1024
NEEDED = "one tensor [rows, classes], or an object with .logits"


def takes(model) -> bool:
    """Returns whether a model is a torch.nn.Module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def predictor(model, *, batch_size: int | None, device=None) -> Predictor:
    """Returns the module as a function of rows.

    Rows may be arrays, tensors, frames, or dicts of these (passed as keyword arguments, as
    transformers do). Floating-point rows are converted to the dtype of the module's parameters.

    Args:
        model: a torch.nn.Module; nobody else may change its mode while it is asked.
        batch_size: rows per call; None: 1,024.
        device: where to compute; the module is moved there for each question and back. None:
            where its parameters are.

    Raises:
        ValueError: the device is not available, or the module has no data (device 'meta').
    """
    home = _home(model)
    where = home if device is None else _available(device)
    size = BATCH_SIZE if batch_size is None else batch_size

    def answer(x) -> np.ndarray:
        with _evaluating(model, home=home, device=where):
            return rows.in_batches(lambda part: _ask(model, part, device=where), x, size)

    return Predictor(
        answer=answer, form=None, classes=None, words=f"PyTorch {type(model).__name__}"
    )


def trainer(model) -> None:
    """Returns None: a module does not say how it is trained."""


def _home(model):
    """Returns the device of the module's parameters; ValueError where its data cannot be read."""
    torch = sys.modules["torch"]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if any(device.type == "meta" for device in devices):
        raise ValueError(
            f"predict is the PyTorch module {type(model).__name__} on the device 'meta', which "
            "holds no data; load its parameters first (load_state_dict(..., assign=True))."
        )
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise ValueError(
            f"predict is the PyTorch module {type(model).__name__} on several devices ({names}); "
            "pass a function of rows that moves them."
        )
    return _available(next(iter(devices), torch.device("cpu")))


def _available(device):
    """Returns the torch.device; ValueError if nothing can be computed there."""
    torch = sys.modules["torch"]
    try:
        where = torch.device(device)
        torch.zeros(1, device=where).cpu()
    except Exception as error:  # torch raises RuntimeError, AssertionError and more
        reason = str(error).split("\n")[0].rstrip(".")
        raise ValueError(
            f"device {str(device)!r} cannot be used ({reason}); move the module to another one, "
            "such as model.to('cpu'), or pass device='cpu'."
        ) from error
    return where


@contextlib.contextmanager
def _evaluating(model, *, home, device) -> Iterator[None]:
    """Switches the module to evaluation mode, without gradients, on `device`; then puts it back."""
    torch = sys.modules["torch"]
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        if device != home:
            model.to(device)
        with torch.inference_mode():
            yield
    finally:
        if device != home:
            model.to(home)
        for module, mode in training.items():
            module.training = mode


def _ask(model, part, *, device) -> np.ndarray:
    """Returns the answers about one batch, on the host."""
    torch = sys.modules["torch"]
    dtype = next((p.dtype for p in model.parameters() if p.dtype.is_floating_point), None)

    def tensor(values):
        if not isinstance(values, torch.Tensor):
            values = _from_host(values)
        real = values.dtype.is_floating_point and dtype is not None
        return values.to(device=device, dtype=dtype if real else None)

    if isinstance(part, Mapping):
        out = model(**{key: tensor(values) for key, values in part.items()})
    else:
        out = model(tensor(part))
    out = getattr(out, "logits", out)
    if not isinstance(out, torch.Tensor):
        raise ValueError(
            f"predict is the PyTorch module {type(model).__name__}, which returns a "
            f"{type(out).__name__}; an audit needs {NEEDED}: pass a function of rows that selects "
            "it."
        )
    return (out.float() if out.dtype.is_floating_point and out.itemsize < 4 else out).cpu().numpy()


def _from_host(values):
    """Returns a tensor of an array, a frame, a list of rows or of tensors."""
    torch = sys.modules["torch"]
    if isinstance(values, list | tuple) and values and isinstance(values[0], torch.Tensor):
        return torch.stack(list(values))
    array = np.asarray(rows.for_net(values))
    array = array.astype(np.int64) if array.dtype.kind == "u" and array.itemsize > 1 else array
    return torch.from_numpy(np.array(array))  # a copy: x stays as it is, and may be read-only
