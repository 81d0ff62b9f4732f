"""Signals that ask a model more than one forward pass (`Signal.ask`): their own batches, one key an
example, only the rows that are needed.

An example's key derives from (seed, signal, example), so its answer is the same alone or in any
batch of the same size. What was asked so far is kept in signal/<name>/partial/ and never asked
again.
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
from mia_jax.runtime import files, jobs
from mia_jax.runtime.progress import Progress
from mia_jax.runtime.store import Answers as AnswerFiles
from mia_jax.training import checkpoint, memory
from mia_jax.training.devices import spread
from mia_jax.training.programs import over_models, strict
from mia_jax.types import Design, Model, Pool, Probe, Shadows, Signal

Path = pathlib.Path
SAVE_EVERY = 30.0  # seconds


def signal_file(folder: Path, name: str, m: int) -> Path:
    """Returns the file of one signal of one model, [A,N..] float32; a name with settings has one
    spelling.
    """
    return AnswerFiles(folder).signal(registry.identity("signals", name), m)


def place(run: str, name: str, m: int, epoch: int | None = None) -> dict:
    """Returns the record of one signal of one model; {} without a run."""
    return (
        dict(run=run, signal=registry.identity("signals", name), model=m, epoch=epoch)
        if run
        else {}
    )


def count_file(folder: Path, name: str, m: int) -> Path:
    """Returns how many queries each answer of one model took, [A,N] or [A,N,P] int32; there for
    signals that count.
    """
    return AnswerFiles(folder).counts(registry.identity("signals", name), m)


def probe_of(model: Model, variables, shadows=(), *, signal: Signal) -> Probe:
    """Returns what `signal` may ask of a model with these variables: no more than its access.

    `shadows`: (variables [S,...], member_SB) or ().
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
    """Returns the attacker's own models as a question sees them."""
    return Shadows(
        lambda x: jax.lax.map(
            lambda variables: model.apply(variables, x, train=False)[0], variables_S
        ),
        jnp.asarray(member_SB),
    )


def own_models(design: Design, m: int, count: int, available: int) -> np.ndarray:
    """Returns the first `count` models, of those with numbers below `available`, that an attacker
    of m may use; fewer are repeated, none is [0].
    """
    usable = np.flatnonzero(design.shadow_MM[m][:available])
    return np.resize(usable, count) if len(usable) else usable


def example_keys(*, seed: int, name: str, index_B) -> jax.Array:
    """Returns one threefry key an example, [B]: fold_in(fold_in(seed, signal), number of the
    example in the pool).
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
    """ask(variables, shadows, x_B.., y_B, key_B) -> (value_AB.. float32,) and, of a signal that
    counts, (value_AB.., count_AB.. int32).

    `probe(variables, shadows)` is what the signal asks.
    """

    def ask(variables, shadows, x_B, y_B, key_B):
        found = [signal.ask(probe(variables, shadows), view(x_B), y_B, key_B) for view in views]
        parts = list(
            zip(*(one if isinstance(one, tuple) else (one,) for one in found), strict=True)
        )
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
) -> None:
    """Writes folder/<signal>/<model>.npy, [A,N..] with NaN outside the rows `rows[signal]` [M,N]
    (indexed by model number) that are asked.

    A signal that needs shadows takes them from `design`; a model that has none is not asked, its
    file is all NaN. Rows that a file lacks are asked and added. A model with an answer that is not
    finite gets no file: on_bad(model, what happened), or ValueError without `on_bad`. A file
    records its place (`run`, signal, model) and the digests of the models that were asked.
    `begin()` is called before anything is written, if there is something to ask.
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
    load = lambda own: checkpoint.load_models(models_folder, own, template, run=run)  # noqa: E731
    for name, signal in signals.items():
        common = dict(run=run, counts=counts_queries(signal))
        found = {
            m: Answers(folder, name, m, len(pool.y), **common) for m in models if m not in failed
        }
        ask = asking(functools.partial(probe_of, model, signal=signal), signal, views, name=name)
        program = jax.jit(over_models(strict(ask), (0, 0, None, None, None), chunk))
        own = (
            {m: own_models(design, m, signal.shadows, max(models) + 1) for m in models}
            if signal.shadows
            else {}
        )
        for m in (m for m, shadows in own.items() if not len(shadows)):
            found.pop(m).nothing(len(views), begin)
        shadows = (own, None if design is None else design.member_MN) if own else None
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
        _one(program, load, found, rows[name], shadows, **common)


def _one(
    program: Callable,
    load: Callable,
    found: Mapping[int, Answers],
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
    """Returns one signal of several models, a chunk at a time; `shadows`: ({model: its shadows},
    member_MN) or None.
    """
    lacking = {m: one.lacking(rows_MN[m]) for m, one in found.items()}
    for m in (m for m, one in found.items() if one.unfinished and not lacking[m].any()):
        begin()
        found[m].close()  # a process was killed between its last answer and its files
    todo = [m for m in found if lacking[m].any()]
    if not todo:
        return
    begin()
    name = found[todo[0]].name
    progress = Progress(
        title=f"query {name}", total=sum(int(lacking[m].sum()) for m in todo), unit="example"
    )

    def work(own: list[int], device, check: Callable) -> None:
        padded = own + [own[-1]] * (chunk - len(own))
        variables, alive = jax.device_put(load(padded), device), set(own)
        helpers = (
            ()
            if shadows is None
            else jax.device_put(_stacked([load(shadows[0][m].tolist()) for m in padded]), device)
        )
        for m in own:
            found[m].asked |= {
                str(n): digest(n) for n in {m, *(() if shadows is None else shadows[0][m].tolist())}
            }
        wanted_N = np.any([lacking[m] for m in own], 0)
        for index_B, count in batches(np.flatnonzero(wanted_N), batch_size):
            try:
                check()
            except jobs.Paused:
                for m in sorted(alive):
                    found[m].save(found[m].partial)
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
            for i, m in enumerate(own):
                new_B = np.flatnonzero(lacking[m][index_B[:count]])
                progress.advance(len(new_B))
                if m not in alive or not len(
                    new_B
                ):  # another model of the chunk lacks these examples
                    continue
                reason = not_finite(index_B[new_B], parts[0][i][:, new_B], name)
                if reason:
                    alive.remove(m)
                    bad(m, reason)
                else:
                    found[m].add(index_B[new_B], *(part[i][:, new_B] for part in parts))
        for m in sorted(alive):
            found[m].close()

    spread(work, [todo[i : i + chunk] for i in range(0, len(todo), chunk)], devices, pause=pause)
    seconds = progress.close()
    progress.line(
        f"query: {name} of {len(todo)} models, {progress.total} examples in {seconds:.1f} s"
    )


def _stacked(trees: Sequence):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def batches(rows: np.ndarray, size: int):
    """Returns (row numbers [size], how many of them are real) in order; the last batch is filled up
    with its last row.
    """
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield np.concatenate([part, np.full(size - len(part), part[-1])]), len(part)


def not_finite(index_B: np.ndarray, value_AB: np.ndarray, name: str) -> str:
    """Returns where an answer to signal `name` about the examples `index_B` is NaN or infinite; ''
    if none is.
    """
    bad = ~np.isfinite(value_AB.reshape(*value_AB.shape[:2], -1)).all((0, 2))
    return (
        f"answers signal {name!r} with NaN or infinity for example {index_B[int(np.argmax(bad))]}"
        if bad.any()
        else ""
    )


def counts_queries(signal: Signal) -> bool:
    """Tells whether the signal is known to count the queries of each answer: those whose number
    depends on the example declare no fixed one.
    """
    return callable(signal.queries)


class Answers:
    """The answers of one model to one signal on disk: what is there, what is added, and the counts
    of queries beside it.

    Counts are written before their answers, and are read only if those are there: a process that is
    killed between the two asks again. `counts`: answers without their counts are worth nothing and
    are asked anew. `asked` {model: digest} is recorded with the answers.
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
        self.partial = [AnswerFiles(folder).unfinished(path) for path in self.paths]
        self.arrays: list[np.ndarray] = []
        self.unfinished = any(path.exists() for path in self.partial)
        for paths in (self.partial, self.paths):
            if not self.arrays and paths[0].exists():
                self._read(paths, counts)
        self.saved = time.monotonic()

    def _read(self, paths: Sequence[Path], counts: bool) -> None:
        """Takes the answers of one pair of files, unless they lack their counts."""
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

    def nothing(self, views: int, begin: Callable) -> None:
        """Returns a file without answers, of a model that cannot be asked."""
        if not self.arrays:
            begin()
            self.arrays = [np.full((views, self.num_examples), np.nan, np.float32)]
            self.close()

    def add(self, index_B: np.ndarray, value_AB: np.ndarray, *count_AB: np.ndarray) -> None:
        """Adds answers; on disk every SAVE_EVERY seconds.

        ValueError naming model, signal and example if one is not finite.
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
        """Counts first: an answer never stands there without them."""
        record = self.place | dict(asked=self.asked, counts=len(self.arrays) > 1)
        for path, array in reversed(list(zip(paths, self.arrays))):
            files.write_npy(path, array, record)
        self.saved = time.monotonic()

    def close(self) -> None:
        """Returns the finished files; the partial ones go, answers first: counts alone are never
        read.
        """
        self.save(self.paths)
        for path in self.partial:
            path.unlink(missing_ok=True)
