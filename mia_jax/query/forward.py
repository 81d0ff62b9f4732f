"""Queries finished models by forward passes: every example in every view, one file per signal and
model.

An answer depends only on the model and the example: models run in inference mode, views are
deterministic, and the batch size is fixed (short batches are padded).
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mia_jax.query import segmented
from mia_jax.query.interactive import check_value, place, signal_file
from mia_jax.runtime import files, rows
from mia_jax.runtime.progress import Progress
from mia_jax.training import checkpoint, memory
from mia_jax.training.devices import default_lanes, spread
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
    """Returns a pure function that asks one model for all signals of one forward pass.

    The function is ask(variables, x_N.., y_N) -> {signal: [A,N..] float32}, for N a multiple of
    `batch_size` and x an array or Rows. It is made to be vmapped over the variables.

    Args:
        model: the network.
        task: what the labels are.
        signals: {name: signal} with `measure`.
        views: the A query views, functions of x_B...
        batch_size: examples per forward pass.
    """

    def batch(variables, x_B, y_B):
        values = {name: [] for name in signals}
        for view in views:
            asked = Examples(x=view(rows.seen(x_B)), y=y_B, task=task)
            out, _ = model.apply(variables, asked.x, train=False)
            for name, signal in signals.items():
                value = signal.measure(
                    out if signal.transform is None else signal.transform(out), asked
                )
                check_value(value, name=name, batch=batch_size)
                values[name].append(value.astype(jnp.float32))
        return {name: jnp.stack(value_AB) for name, value_AB in values.items()}

    def ask(variables, x, y):
        split = lambda a: a.reshape(-1, batch_size, *a.shape[1:])  # noqa: E731
        values = lax.map(lambda xy: batch(variables, *xy), jax.tree.map(split, (x, y)))
        return {
            name: jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1, *a.shape[3:])
            for name, a in values.items()
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
    """Returns `answers` for `chunk` models at once, which is compiled when it is first called.

    The program can be used for any number of folders of the same kind of models.
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
    answer_bytes: int = 2**28,
    title: str = "query",
    ask: Callable | None = None,
    pause: Callable = lambda: None,
    on_bad: Callable[[int, str], None] | None = None,
    begin: Callable = lambda: None,
    run: str = "",
    epoch: int | None = None,
) -> None:
    """Queries models for all signals of one forward pass and writes folder/<signal>/<model>.npy.

    Models that have all files are skipped. One forward pass per view answers all signals; signals
    with `ask` are asked in query/interactive.py. Each file records its place (run, signal, model,
    epoch) and the digest of the model that answered, so that a run that was killed at any time
    knows from which models its answers were made.

    Args:
        model: the network.
        pool: the N examples.
        signals: {name: signal} with `measure`.
        views: the A query views.
        models: the numbers of the models.
        models_folder: the folder of their variables.
        folder: where the answers are written, [A,N..] float32 per file.
        chunk: models that are queried at once.
        batch_size: examples per forward pass.
        devices: the devices that are used; None: the first one.
        segment_bytes: the bytes of examples that are on a device at once.
        answer_bytes: the bytes of answers of a chunk of models that are held at once. If there are
            more, the examples are asked in segments (query/segmented.py).
        title: what the progress line calls the work.
        ask: the `program` of these arguments, if it exists already.
        pause: called between segments; it may raise jobs.Paused.
        on_bad: on_bad(model, what happened) is called for a model with an answer that is not
            finite, which gets no file.
        begin: called before anything is written, if there is something to ask.
        run: the identity of the run, recorded in the files.
        epoch: the epoch of a snapshot; None for finished models.

    Raises:
        ValueError: if an answer is not finite and `on_bad` is None; it names model and signal.
    """
    segmented.discard_finished(folder, signals)
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

    lanes = min(len(devices) * default_lanes(devices), -(-len(todo) // chunk))
    length = segment_length(pool=pool, batch_size=batch_size, limit=segment_bytes // lanes)

    def work(group: list[int], device, check: Callable) -> None:
        padded = group + [group[-1]] * (chunk - len(group))
        variables = jax.device_put(
            checkpoint.load_models(models_folder, padded, template, run=run, epoch=epoch), device
        )
        program = functools.partial(ask, variables)
        size = shorter(
            program, pool=pool, length=length, batch_size=batch_size, limit=answer_bytes // lanes
        )
        kept: dict[int, dict[str, segmented.Segments]] = {}
        for m in group:
            asked = dict(asked={str(m): checkpoint.digest(models_folder, m)})
            kept[m] = {
                name: segmented.Segments(
                    folder,
                    name,
                    m,
                    num_examples=len(pool.y),
                    record=place(run, name, m, epoch) | asked,
                )
                for name in signals
            }
        answering = dict(kept)
        for start, stop in segmented.rows_of(len(pool.y), size):
            check()
            if all(
                part.has(start, stop) for parts in answering.values() for part in parts.values()
            ):
                continue
            part = jax.device_put(segment(pool, start, stop, length=size), device)
            values = {
                name: value_MAN[:, :, : stop - start]
                for name, value_MAN in memory.fetch(program(*part)).items()
            }
            for m in list(answering):
                answers = {name: values[name][group.index(m)] for name in signals}
                bad = (not_finite(value_AN, name, start) for name, value_AN in answers.items())
                reason = next(filter(None, bad), "")
                if reason and on_bad is None:
                    raise ValueError(f"model {m} {reason}.")
                if reason:
                    on_bad(m, reason)
                    del answering[m]
                    continue
                for name, value_AN in answers.items():
                    answering[m][name].add(start, value_AN)
        for m, parts in kept.items():
            for part in parts.values():
                part.close() if m in answering else part.discard()
        progress.advance(len(group))

    spread(work, [todo[i : i + chunk] for i in range(0, len(todo), chunk)], devices, pause=pause)
    seconds = progress.close()
    progress.line(
        f"{title}: {len(todo)} models x {len(views)} views x {len(pool.y)} examples in "
        f"{seconds:.1f} s"
    )


def not_finite(value_AN: np.ndarray, name: str, first: int = 0) -> str:
    """Returns in words where an answer [A,N..] is NaN or infinite; '' if none is.

    Args:
        value_AN: the answers.
        name: the name of the signal.
        first: the number of the example of column 0.
    """
    bad = ~np.isfinite(value_AN)
    if not bad.any():
        return ""
    view, example, *_ = (int(i) for i in np.argwhere(bad)[0])
    return (
        f"answers signal {name!r} with NaN or infinity for view {view} of example {first + example}"
    )


def segment_length(*, pool: Pool, batch_size: int, limit: int) -> int:
    """Returns how many examples are asked together: whole batches of at most `limit` bytes of x."""
    total = len(pool.y)
    row = max(1, pool.x.nbytes // total)
    return batch_size * max(1, min(-(-total // batch_size), limit // (row * batch_size)))


def shorter(ask: Callable, *, pool: Pool, length: int, batch_size: int, limit: int) -> int:
    """Returns `length`, or so many fewer examples that their answers have at most `limit` bytes.

    Args:
        ask: ask(x, y) -> answers, a compiled program, which is traced here if it is not yet.
        pool: all examples.
        length: how many examples are asked together.
        batch_size: what the result is a multiple of.
        limit: bytes.
    """
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((length, *a.shape[1:]), a.dtype), (pool.x, pool.y)
    )
    answers = jax.tree.leaves(jax.eval_shape(ask, *like))
    row = sum(a.dtype.itemsize * math.prod(a.shape) for a in answers) / length
    return min(length, batch_size * max(1, int(limit / (row * batch_size))))


def segment(pool: Pool, start: int, stop: int, *, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (x, y) of the examples start .. stop - 1, padded with the first one to `length`."""

    def padded(a) -> np.ndarray:
        part, lacking = a[start:stop], length - (stop - start)
        return np.concatenate([part, np.repeat(part[:1], lacking, 0)]) if lacking else part

    return jax.tree.map(padded, (pool.x, pool.y))


def load(
    folder: Path, name: str, models: Sequence[int], *, run: str = "", epoch: int | None = None
) -> np.ndarray:
    """Returns one signal of several models, [M,A,N..].

    Raises:
        FileNotFoundError: if a model was not asked; it says what to type.
        ValueError: if a file is damaged, belongs to another run or has another shape.
    """
    arrays = [mapped(folder, name, m, run=run, epoch=epoch) for m in models]
    shapes = [array.shape for array in arrays]
    usual = max(shapes, key=shapes.count)
    for m, array in zip(models, arrays, strict=True):
        if array.shape != usual:
            raise ValueError(_unlike(signal_file(folder, name, m), array, usual))
    return np.stack(arrays)


def mapped(
    folder: Path, name: str, m: int, *, run: str = "", epoch: int | None = None
) -> np.ndarray:
    """Returns one signal of one model, [A,N..], which stays in its file (`files.map_npy`).

    Raises:
        FileNotFoundError: if the model was not asked; it says what to type.
        ValueError: if the file is damaged, belongs to another run or holds no answers.
    """
    path = signal_file(folder, name, m)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; run the query stage first (stages_wanted=query,attack,report)."
        )
    array, _ = files.map_npy(path, record=place(run, name, m, epoch))
    if array.ndim < 2 or array.dtype.kind not in "fiub":
        raise ValueError(_unlike(path, array, ("views", "examples")))
    return array


def _unlike(path: Path, array: np.ndarray, usual: Sequence) -> str:
    """Returns the message about a file that holds another kind of array than the others."""
    expected = "[" + ", ".join(map(str, usual)) + "]"
    error = ValueError(
        f"it holds {array.dtype}{list(array.shape)}, the other models' files numbers of shape "
        f"{expected}"
    )
    return files.damaged(path, error)
