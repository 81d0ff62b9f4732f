"""The QUERY stage: every finished model is asked about every example and its views; one file a
signal and model.

An answer depends on the model and the example alone: inference mode, deterministic views, a fixed
batch size (short batches are padded).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mia_jax.query.interactive import check_value, place, signal_file
from mia_jax.runtime import files
from mia_jax.runtime.progress import Progress
from mia_jax.training import checkpoint, memory
from mia_jax.training.devices import spread
from mia_jax.training.programs import over_models, strict
from mia_jax.types import Examples, Model, Pool, Signal, Task

Path = pathlib.Path


def answers(
    *,
    model: Model,
    task: Task,
    signals: Mapping[str, Signal],
    views: Sequence[Callable],
    batch_size: int,
) -> Callable:
    """ask(variables, x_N.., y_N) -> {signal: [A,N..]} for N a multiple of `batch_size`; pure, to be
    vmapped over variables.
    """

    def batch(variables, x_B, y_B):
        found = {name: [] for name in signals}
        for view in views:
            seen = Examples(x=view(x_B), y=y_B, task=task)
            out, _ = model.apply(variables, seen.x, train=False)
            for name, signal in signals.items():
                value = signal.measure(
                    out if signal.transform is None else signal.transform(out), seen
                )
                check_value(value, name=name, batch=batch_size)
                found[name].append(value.astype(jnp.float32))
        return {name: jnp.stack(values) for name, values in found.items()}

    def ask(variables, x, y):
        split = lambda a: a.reshape(-1, batch_size, *a.shape[1:])  # noqa: E731
        found = lax.map(lambda xy: batch(variables, *xy), (split(x), split(y)))
        return {
            name: jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1, *a.shape[3:])
            for name, a in found.items()
        }

    return ask


def program(
    *,
    model: Model,
    task: Task,
    signals: Mapping[str, Signal],
    views: Sequence[Callable],
    batch_size: int,
    chunk: int,
) -> Callable:
    """Returns `answers` of `chunk` models at once, compiled when it is first called; one program
    serves any number of folders of the same models.
    """
    return jax.jit(
        over_models(
            strict(
                answers(model=model, task=task, signals=signals, views=views, batch_size=batch_size)
            ),
            (0, None, None),
            chunk,
        )
    )


def query(
    *,
    model: Model,
    pool: Pool,
    signals: Mapping[str, Signal],
    views: Sequence[Callable],
    models: Sequence[int],
    models_folder: Path,
    folder: Path,
    chunk: int = 8,
    batch_size: int = 500,
    devices: list | None = None,
    segment_bytes: int = 2**29,
    title: str = "query",
    ask: Callable | None = None,
    pause: Callable = lambda: None,
    on_bad: Callable[[int, str], None] | None = None,
    begin: Callable = lambda: None,
    run: str = "",
    epoch: int | None = None,
) -> None:
    """Writes folder/<signal>/<model>.npy for those of `models` that lack a file.

    A model with an answer that is not finite gets no file: on_bad(model, what happened), or
    ValueError naming model and signal without `on_bad`. One forward pass a view answers all of
    them; signals with `ask` are query/interactive.py's. `ask`: the `program` of these, if made
    before. Each file records its place (`run`, signal, model, `epoch` of a snapshot) and the digest
    of the model that answered, so that a run which is killed anywhere knows what its answers were
    made from. `begin()` is called before anything is written, if there is something to ask.
    """
    todo = [m for m in models if not all(signal_file(folder, name, m).exists() for name in signals)]
    if not todo:
        return
    begin()
    devices = devices or jax.local_devices()[:1]
    ask = ask or program(
        model=model,
        task=pool.task,
        signals=signals,
        views=views,
        batch_size=batch_size,
        chunk=chunk,
    )
    template = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *pool.x.shape[1:]), pool.x.dtype)
    )
    progress = Progress(title=title, total=len(todo), unit="model")

    def work(own: list[int], device, check: Callable) -> None:
        padded = own + [own[-1]] * (chunk - len(own))
        variables = jax.device_put(
            checkpoint.load_models(models_folder, padded, template, run=run, epoch=epoch), device
        )
        digests = {m: checkpoint.digest(models_folder, m) for m in own}
        parts = segments(pool=pool, batch_size=batch_size, segment_bytes=segment_bytes)
        found = []
        for part in parts:
            check()
            found.append(memory.fetch(ask(variables, *jax.device_put(part, device))))
        values = {
            name: np.concatenate([part[name] for part in found], axis=2)[:, :, : len(pool.y)]
            for name in signals
        }
        for i, m in enumerate(own):
            reason = next(
                filter(
                    None, (not_finite(value_MAN[i], name) for name, value_MAN in values.items())
                ),
                "",
            )
            if reason and on_bad is None:
                raise ValueError(f"model {m} {reason}.")
            if reason:
                on_bad(m, reason)
                continue
            for name, value_MAN in values.items():
                record = place(run, name, m, epoch) | dict(asked={str(m): digests[m]})
                files.write_npy(signal_file(folder, name, m), value_MAN[i], record)
        progress.advance(len(own))

    spread(work, [todo[i : i + chunk] for i in range(0, len(todo), chunk)], devices, pause=pause)
    seconds = progress.close()
    progress.line(
        f"{title}: {len(todo)} models x {len(views)} views x {len(pool.y)} examples in "
        f"{seconds:.1f} s"
    )


def not_finite(value_AN: np.ndarray, name: str) -> str:
    """Returns where an answer to signal `name` is NaN or infinite; '' if none is."""
    bad = ~np.isfinite(value_AN)
    if not bad.any():
        return ""
    view, example, *_ = (int(i) for i in np.argwhere(bad)[0])
    return f"answers signal {name!r} with NaN or infinity for view {view} of example {example}"


def segments(*, pool: Pool, batch_size: int, segment_bytes: int):
    """Returns (x, y) parts of the pool in order, all of one length (a multiple of the batch size);
    the last one is padded with its first row.
    """
    total = len(pool.y)
    row = max(1, np.asarray(pool.x).nbytes // total)
    batches = max(1, min(-(-total // batch_size), segment_bytes // (row * batch_size)))
    length = batches * batch_size
    for start in range(0, total, length):
        rows = np.arange(start, min(start + length, total))
        rows = np.concatenate([rows, np.full(length - len(rows), rows[0])])
        yield pool.x[rows], pool.y[rows]


def load(
    folder: Path, name: str, models: Sequence[int], *, run: str = "", epoch: int | None = None
) -> np.ndarray:
    """Returns one signal of several models, [M,A,N..]; FileNotFoundError that says what to type if
    one was not asked, ValueError if one does not fit.
    """
    arrays = []
    for m in models:
        path = signal_file(folder, name, m)
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist; run the query stage first "
                "(stages_wanted=query,attack,report)."
            )
        arrays.append(files.read_npy(path, record=place(run, name, m, epoch)))
    shapes = [array.shape for array in arrays]
    usual = max(shapes, key=shapes.count)
    for m, array in zip(models, arrays, strict=True):
        if array.shape != usual or array.ndim < 2 or array.dtype.kind not in "fiub":
            error = ValueError(
                f"it holds {array.dtype}{list(array.shape)}, the other models' files numbers of "
                f"shape {list(usual)}"
            )
            raise ValueError(files.damaged(signal_file(folder, name, m), error))
    return np.stack(arrays)
