"""Asks models for signals that take more than one forward pass (`Signal.ask`).

These signals choose their own batches, have one key per example, and are asked only about the rows
that are needed. The key of an example derives from (seed, signal, example), so its answer does not
depend on the other examples of a batch of the same size. Answers are kept in
signal/<name>/partial/ while a signal is asked, and are never asked for again.
"""

from __future__ import annotations

import functools
import pathlib
import time
import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import registry
from mia_jax.runtime import files, jobs, store
from mia_jax.runtime.progress import Progress
from mia_jax.training import checkpoint, memory
from mia_jax.training.devices import spread
from mia_jax.training.programs import over_models, strict
from mia_jax.types import Design, Model, Pool, Probe, Shadows, Signal

Path = pathlib.Path
SAVE_EVERY = 30.0  # seconds


def signal_file(folder: Path, name: str, m: int) -> Path:
    """Returns the path of one signal of one model, an array [A,N..] float32.

    All spellings of a name with settings have the same file.
    """
    return store.Answers(folder).signal(registry.identity("signals", name), m)


def place(run: str, name: str, m: int, epoch: int | None = None) -> dict:
    """Returns what the file of a signal records: run, signal, model, epoch; {} without a run."""
    return (
        dict(run=run, signal=registry.identity("signals", name), model=m, epoch=epoch)
        if run
        else {}
    )


def count_file(folder: Path, name: str, m: int) -> Path:
    """Returns the path of the numbers of queries per answer, an array [A,N] or [A,N,P] int32.

    Only signals that count their queries have this file.
    """
    return store.Answers(folder).counts(registry.identity("signals", name), m)


def probe_of(model: Model, variables, shadows=(), *, signal: Signal) -> Probe:
    """Returns the Probe by which a signal asks a model: it offers no more than the signal's access.

    Args:
        model: the network.
        variables: the variables of the model that is asked.
        shadows: (variables [S,...], member_SB) of the attacker's models, or ().
        signal: the signal, whose `access` and `transform` are applied.
    """
    change = signal.transform or (lambda out_BC: out_BC)
    out = lambda x: change(model.apply(variables, x, train=False)[0])  # noqa: E731
    label = lambda x: out(x).argmax(-1).astype(jnp.int32)  # noqa: E731
    inside = (
        None
        if model.inside is None or signal.access != "white_box"
        else lambda x: model.inside(variables, x)
    )
    return Probe(
        label,
        out if signal.access != "labels" else None,
        inside,
        shadows_of(model, *shadows) if shadows else None,
    )


def shadows_of(model: Model, variables_S, member_SB) -> Shadows:
    """Returns the attacker's S models as a signal sees them.

    Args:
        model: the network.
        variables_S: the variables, with a leading axis S.
        member_SB: which shadow was trained on which example of the batch.
    """
    return Shadows(
        lambda x: jax.lax.map(
            lambda variables: model.apply(variables, x, train=False)[0], variables_S
        ),
        jnp.asarray(member_SB),
    )


def attacker_models(design: Design, m: int, count: int, available: int) -> np.ndarray:
    """Returns the numbers [count] of models that an attacker of model m may use.

    They are the first ones with numbers below `available`. If there are fewer than `count`, they
    are repeated; if there is none, the array is empty.
    """
    usable = np.flatnonzero(design.shadow_MM[m][:available])
    return np.resize(usable, count) if len(usable) else usable


def example_keys(*, seed: int, name: str, index_B) -> jax.Array:
    """Returns one threefry key per example, [B].

    The key is fold_in(fold_in(key(seed), crc32(signal)), number of the example in the pool).
    """
    root = jax.random.fold_in(
        jax.random.key(seed, impl="threefry2x32"),
        zlib.crc32(registry.identity("signals", name).encode()),
    )
    return jax.vmap(lambda n: jax.random.fold_in(root, n))(jnp.asarray(index_B, jnp.uint32))


def check_value(value, *, name: str, batch: int) -> None:
    """Raises ValueError unless a signal's value is one number or one vector per example."""
    shape = tuple(np.shape(value))
    if len(shape) not in (1, 2) or shape[0] != batch:
        raise ValueError(
            f"signal {name!r} of {batch} examples has shape {shape}; it must be one number or one "
            f"vector per example, ({batch},) or ({batch}, K): reduce over outputs and positions, "
            "never over the batch."
        )


def asking(
    probe: Callable[..., Probe], signal: Signal, views: Sequence[Callable], *, name: str = ""
) -> Callable:
    """Returns a function that asks a signal in all views.

    The function is ask(variables, shadows, x_B.., y_B, key_B) -> (value_AB.. float32,), or
    (value_AB.. float32, count_AB.. int32) for a signal that counts its queries.

    Args:
        probe: probe(variables, shadows) -> Probe.
        signal: a signal with `ask`.
        views: the A query views.
        name: the name of the signal, for messages.
    """

    def ask(variables, shadows, x_B, y_B, key_B):
        answers = [signal.ask(probe(variables, shadows), view(x_B), y_B, key_B) for view in views]
        answers = [answer if isinstance(answer, tuple) else (answer,) for answer in answers]
        parts = list(zip(*answers, strict=True))
        for value in (value for part in parts for value in part):
            check_value(value, name=name, batch=len(x_B))
        return tuple(
            jnp.stack(part).astype(kind) for part, kind in zip(parts, (jnp.float32, jnp.int32))
        )

    return ask


def query(
    *,
    model: Model,
    pool: Pool,
    signals: Mapping[str, Signal],
    views: Sequence[Callable],
    rows: Mapping[str, np.ndarray],
    models: Sequence[int],
    models_folder: Path,
    folder: Path,
    seed: int,
    chunk: int,
    batch_size: int,
    devices: list | None = None,
    design: Design | None = None,
    pause: Callable = lambda: None,
    on_bad: Callable[[int, str], None] | None = None,
    begin: Callable = lambda: None,
    run: str = "",
    available: int | None = None,
) -> None:
    """Asks models for signals with `ask` and writes folder/<signal>/<model>.npy [A,N..].

    Rows that are not asked about are NaN. Rows that a file lacks are asked and added. A model
    without shadows is not asked for signals that need them, and its file is all NaN. A file records
    its place (run, signal, model) and the digests of the models that were asked.

    Args:
        model: the network.
        pool: the N examples.
        signals: {name: signal} with `ask`.
        views: the A query views.
        rows: {name: which rows [M,N] each model is asked about}, indexed by the model's number.
        models: the numbers of the models.
        models_folder: the folder of their variables.
        folder: where the answers are written.
        seed: the seed of the run.
        chunk: models that are asked at once.
        batch_size: examples per call of a signal.
        devices: the devices that are used; None: the first one.
        design: where signals that need shadows take them from.
        pause: called between batches; it may raise jobs.Paused.
        on_bad: on_bad(model, what happened) is called for a model with an answer that is not
            finite, which gets no file.
        begin: called before anything is written, if there is something to ask.
        run: the identity of the run, recorded in the files.
        available: the models with smaller numbers may be an attacker's; None: up to the last of
            `models`.

    Raises:
        ValueError: if an answer is not finite and `on_bad` is None.
    """
    failed: set[int] = set()

    def bad(m: int, reason: str) -> None:
        if on_bad is None:
            raise ValueError(f"model {m} {reason}.")
        failed.add(m)
        on_bad(m, reason)

    template = jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *pool.x.shape[1:]), pool.x.dtype)
    )
    load = lambda some: checkpoint.load_models(models_folder, some, template, run=run)  # noqa: E731
    for name, signal in signals.items():
        common = dict(run=run, counts=counts_queries(signal))
        answers = {
            m: Answers(folder, name, m, len(pool.y), **common) for m in models if m not in failed
        }
        ask = asking(functools.partial(probe_of, model, signal=signal), signal, views, name=name)
        program = jax.jit(over_models(strict(ask), (0, 0, None, None, None), chunk))
        numbers = {}
        if signal.shadows:
            numbers = {
                m: attacker_models(design, m, signal.shadows, available or max(models) + 1)
                for m in models
            }
        for m in (m for m, usable in numbers.items() if not len(usable)):
            answers.pop(m).write_empty(len(views), begin)
        shadows = (numbers, None if design is None else design.member_MN) if numbers else None
        common = dict(
            pool=pool,
            seed=seed,
            chunk=chunk,
            batch_size=batch_size,
            devices=devices or jax.local_devices()[:1],
        )
        common |= dict(
            pause=pause,
            bad=bad,
            begin=begin,
            digest=functools.partial(checkpoint.digest, models_folder),
        )
        _query_signal(program, load, answers, rows[name], shadows, **common)


def _query_signal(
    program: Callable,
    load: Callable,
    answers: Mapping[int, Answers],
    rows_MN: np.ndarray,
    shadows: tuple | None,
    *,
    pool: Pool,
    seed: int,
    chunk: int,
    batch_size: int,
    devices: list,
    pause: Callable,
    bad: Callable,
    begin: Callable,
    digest: Callable,
) -> None:
    """Asks several models for one signal, a chunk of models at a time.

    Args:
        program: the compiled `asking` of `chunk` models.
        load: load(models) -> their variables, stacked.
        answers: {model: its Answers}.
        rows_MN: which rows each model is asked about.
        shadows: ({model: the numbers of its shadows}, member_MN), or None.
        pool, seed, chunk, batch_size, devices, pause, begin: as in `query`.
        bad: bad(model, what happened) for an answer that is not finite.
        digest: digest(model) of a model's variables.
    """
    lacking = {m: files_of_m.lacking(rows_MN[m]) for m, files_of_m in answers.items()}
    for m in (
        m for m, files_of_m in answers.items() if files_of_m.unfinished and not lacking[m].any()
    ):
        begin()
        answers[m].close()  # The process was killed after its last answer.
    todo = [m for m in answers if lacking[m].any()]
    if not todo:
        return
    begin()
    name = answers[todo[0]].name
    progress = Progress(
        title=f"query {name}", total=sum(int(lacking[m].sum()) for m in todo), unit="example"
    )

    def work(group: list[int], device, check: Callable) -> None:
        padded = group + [group[-1]] * (chunk - len(group))
        variables, alive = jax.device_put(load(padded), device), set(group)
        helpers = (
            ()
            if shadows is None
            else jax.device_put(_stacked([load(shadows[0][m].tolist()) for m in padded]), device)
        )
        for m in group:
            answers[m].asked |= {
                str(n): digest(n) for n in {m, *(() if shadows is None else shadows[0][m].tolist())}
            }
        needed_N = np.any([lacking[m] for m in group], 0)
        for index_B, count in batches(np.flatnonzero(needed_N), batch_size):
            try:
                check()
            except jobs.Paused:
                for m in sorted(alive):
                    answers[m].save(answers[m].partial)
                raise
            extra = (
                ()
                if shadows is None
                else (helpers, np.stack([shadows[1][shadows[0][m]][:, index_B] for m in padded]))
            )
            key_B = example_keys(seed=seed, name=name, index_B=index_B)
            parts = memory.fetch(
                program(
                    variables,
                    extra,
                    *jax.device_put((pool.x[index_B], pool.y[index_B], key_B), device),
                )
            )
            for i, m in enumerate(group):
                new_B = np.flatnonzero(lacking[m][index_B[:count]])
                progress.advance(len(new_B))
                if m not in alive or not len(new_B):
                    continue  # Only another model of the chunk lacks these examples.
                reason = not_finite(index_B[new_B], parts[0][i][:, new_B], name)
                if reason:
                    alive.remove(m)
                    bad(m, reason)
                else:
                    answers[m].add(index_B[new_B], *(part[i][:, new_B] for part in parts))
        for m in sorted(alive):
            answers[m].close()

    spread(work, [todo[i : i + chunk] for i in range(0, len(todo), chunk)], devices, pause=pause)
    seconds = progress.close()
    progress.line(
        f"query: {name} of {len(todo)} models, {progress.total} examples in {seconds:.1f} s"
    )


def _stacked(trees: Sequence):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def batches(rows: np.ndarray, size: int):
    """Yields batches (row numbers [size], how many of them are real) in order.

    The last batch is padded with its last row.
    """
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield np.concatenate([part, np.full(size - len(part), part[-1])]), len(part)


def not_finite(index_B: np.ndarray, value_AB: np.ndarray, name: str) -> str:
    """Returns in words which of the examples `index_B` has NaN or infinity in its answer, or ''."""
    bad = ~np.isfinite(value_AB.reshape(*value_AB.shape[:2], -1)).all((0, 2))
    if not bad.any():
        return ""
    example = index_B[int(np.argmax(bad))]
    return f"answers signal {name!r} with NaN or infinity for example {example}"


def counts_queries(signal: Signal) -> bool:
    """Returns whether a signal counts the queries of each answer.

    Such a signal declares a function instead of a fixed number, because the number depends on the
    example.
    """
    return callable(signal.queries)


class Answers:
    """Holds the answers of one model to one signal, as they are on disk and as they are added.

    The numbers of queries are written before their answers and are read only if the answers exist,
    so a process that was killed between the two asks again.

    Args:
        folder: the folder of the answers.
        name: the name of the signal.
        m: the number of the model.
        num_examples: N.
        run: the identity of the run, recorded in the files.
        counts: whether the signal counts its queries; answers without their counts are then asked
            for again.

    Attributes:
        asked: {model: digest} of the models that were asked, recorded with the answers.
        arrays: [value_AN..], or [value_AN.., count_AN..]; empty if there is no answer yet.
        unfinished: whether there are answers of an earlier, interrupted run.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        m: int,
        num_examples: int,
        *,
        run: str = "",
        counts: bool = False,
    ):
        self.name, self.m, self.num_examples = name, m, num_examples
        self.place, self.asked = place(run, name, m), {}
        self.paths = [signal_file(folder, name, m), count_file(folder, name, m)]
        self.partial = [store.Answers(folder).unfinished(path) for path in self.paths]
        self.arrays: list[np.ndarray] = []
        self.unfinished = any(path.exists() for path in self.partial)
        for paths in (self.partial, self.paths):
            if not self.arrays and paths[0].exists():
                self._read(paths, counts)
        self.saved = time.monotonic()

    def _read(self, paths: Sequence[Path], counts: bool) -> None:
        """Reads the answers of one pair of files, unless they lack their counts."""
        value_AN, record = files.read_npy_and_record(paths[0], record=self.place)
        if not paths[1].exists() and (record or {}).get("counts", counts):
            return
        self.asked = dict((record or {}).get("asked", {}))
        self.arrays = [
            value_AN,
            *(files.read_npy(path, record=self.place) for path in paths[1:] if path.exists()),
        ]
        for path, array, kinds in zip(paths, self.arrays, ("f", "iu"), strict=False):
            if (
                array.ndim < 2
                or array.shape[:2] != (len(self.arrays[0]), self.num_examples)
                or array.dtype.kind not in kinds
            ):
                error = ValueError(
                    f"it holds {array.dtype}{list(array.shape)}, expected numbers of "
                    f"{self.num_examples} examples"
                )
                raise ValueError(files.damaged(path, error))

    def lacking(self, rows_N: np.ndarray) -> np.ndarray:
        """Returns which of these rows have no answer yet."""
        if not self.arrays:
            return rows_N
        value_AN = self.arrays[0]
        return rows_N & np.isnan(value_AN.reshape(*value_AN.shape[:2], -1)).any((0, 2))

    def write_empty(self, views: int, begin: Callable) -> None:
        """Writes a file without answers, for a model that cannot be asked."""
        if not self.arrays:
            begin()
            self.arrays = [np.full((views, self.num_examples), np.nan, np.float32)]
            self.close()

    def add(self, index_B: np.ndarray, value_AB: np.ndarray, *count_AB: np.ndarray) -> None:
        """Adds answers, and writes all of them every SAVE_EVERY seconds.

        Args:
            index_B: the numbers of the examples.
            value_AB: the values, [A,B] or [A,B,K].
            count_AB: the numbers of queries, if the signal counts them.

        Raises:
            ValueError: if a value is not finite; it names model, signal and example.
        """
        reason = not_finite(index_B, value_AB, self.name)
        if reason:
            raise ValueError(f"model {self.m} {reason}.")
        if not self.arrays:

            def empty(part, fill):
                return np.full((len(part), self.num_examples, *part.shape[2:]), fill, part.dtype)

            self.arrays = [empty(value_AB, np.nan), *(empty(part, 0) for part in count_AB)]
        for array, part in zip(self.arrays, (value_AB, *count_AB), strict=True):
            array[:, index_B] = part
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save(self.partial)

    def save(self, paths: Sequence[Path]) -> None:
        """Writes the counts and then the answers, which are thus never without their counts."""
        record = self.place | dict(asked=self.asked, counts=len(self.arrays) > 1)
        for path, array in reversed(list(zip(paths, self.arrays))):
            files.write_npy(path, array, record)
        self.saved = time.monotonic()

    def close(self) -> None:
        """Writes the finished files and deletes the partial ones.

        Partial answers are deleted before their counts, because counts alone are never read.
        """
        self.save(self.paths)
        for path in self.partial:
            path.unlink(missing_ok=True)
