"""M runs of one learner: `chunk` models a device at a time, checkpointed, resumable and extensible.

A model's key and rows derive from (seed, model index) alone and its lane of the program does not know the others, so that a resumed run equals an
uninterrupted one and a fleet can grow without retraining (bit for bit for the same chunk on CPU).
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import jobs, workdir
from mia_jax.learners import stopping
from mia_jax.progress import Progress, duration
from mia_jax.training import checkpoint, programs, stream
from mia_jax.training.spread import spread
from mia_jax.types import Learner, Pool

Path = pathlib.Path


def train(
    *,
    learner: Learner,
    pool: Pool,
    rows_MK: np.ndarray,
    weight_MK: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int,
    models: Sequence[int],
    folder: Path,
    chunk: int = 8,
    devices: list | None = None,
    lanes: int | None = None,
    checkpoint_every: int = 25,
    pool_bytes: int = 2**31,
    on_epoch: Sequence[Callable] = (),
    metrics_file: Path | None = None,
    pause: Callable = lambda: None,
) -> None:
    """Trains those of `models` that are not on disk yet and leaves one file a model in folder/model.

    `rows_MK`, `weight_MK` are indexed by model number, `validation` = (rows_MV, weight_MV) likewise. `lanes` chunks train at a time on each
    device (None: one a core on CPU, one elsewhere). A chunk's state is on disk every `checkpoint_every` epochs (0: only at its end). A pool
    larger than `pool_bytes` is streamed. `on_epoch(models, epoch, state, metrics)` hooks see the state after each epoch. `pause()`, called
    before each epoch, may raise to end the run; every chunk's state is on disk then. Raises FloatingPointError that names model and epoch when a loss
    is NaN or infinite.
    """
    check_monitor(learner=learner, pool=pool, validation=validation is not None)
    have = set(checkpoint.finished(folder, models))
    todo = [m for m in models if m not in have]
    chunks = [[m for m in todo if m // chunk == group] for group in sorted({m // chunk for m in todo})]
    devices = devices or jax.local_devices()[:1]
    program = programs.make(learner=learner, chunk=chunk, validation=validation is not None)
    source = _Source(pool, pool_bytes, devices)
    progress = Progress(title="train", total=len(todo) * max(1, learner.epochs), unit="epoch")
    begin, finished = time.monotonic(), 0

    def work(own: list[int], device, check: Callable) -> None:
        nonlocal finished
        start = time.monotonic()
        run = _Chunk(learner, program, source, own, chunk, rows_MK, weight_MK, validation, seed, folder, device)
        run.train(checkpoint_every=checkpoint_every, on_epoch=on_epoch, progress=progress, metrics_file=metrics_file, check=check)
        seconds = time.monotonic() - start
        run.save(seconds=seconds)
        finished += len(own)
        left = len(todo) - finished
        rest = f"; {left} left, about {duration((time.monotonic() - begin) / finished * left)}" if left else ""
        span = f"model {own[0]}" if len(own) == 1 else f"models {own[0]}-{own[-1]}"
        progress.line(f"train: {span} done in {duration(seconds)} ({run.note()}){rest}")

    spread(work, chunks, devices, lanes, pause)
    progress.close()
    checkpoint.discard_running(folder)


def check_monitor(*, learner: Learner, pool: Pool, validation: bool) -> None:
    """ValueError if the stopping rule watches a metric that this run does not have."""
    if not learner.stopping:
        return
    sample = stream.bare(pool, np.arange(1))
    one = jnp.zeros(1, jnp.int32), jnp.ones(1, jnp.float32)

    def metrics(key):
        state = learner.init(key, sample)
        trained = learner.epoch(state, sample, *learner.plan(key, jnp.uint32(1), *one))[1]
        return trained, learner.evaluate(state.variables, sample, *one)

    trained, evaluated = jax.eval_shape(metrics, jax.random.key(0))
    known = [name for name in trained if name != "weight"]
    known += [f"val_{name}" for name in evaluated if name != "weight"] if validation else []
    if learner.stopping.monitor not in known:
        hint = "" if validation else " (val_* need learner.validation)"
        raise ValueError(f"learner.stop.monitor={learner.stopping.monitor!r} is not a metric of this run. Metrics: {', '.join(known)}{hint}.")


class _Source:
    """The pool as the programs take it: resident on every device, or gathered a part at a time."""

    def __init__(self, pool: Pool, limit: int, devices: list):
        self.pool, self.limit = stream.bare(pool), limit
        fits = stream.num_bytes(pool) <= limit
        self.resident = {device: jax.device_put(self.pool, device) for device in devices} if fits else {}

    def sample(self, device) -> Pool:
        return jax.device_put(stream.bare(self.pool, np.arange(1)), device)

    def parts(self, index, weight, device):
        """(pool, index, weight) of consecutive steps."""
        if device in self.resident:
            yield self.resident[device], index, weight
            return
        for part in stream.parts(pool=self.pool, index_MSB=np.asarray(index), weight_MSB=np.asarray(weight), limit=self.limit):
            yield jax.device_put(part, device)

    def subset(self, rows_MV: np.ndarray, device) -> tuple[Pool, np.ndarray]:
        """A pool that has these rows, and their numbers in it."""
        if device in self.resident:
            return self.resident[device], rows_MV
        rows, local = np.unique(rows_MV, return_inverse=True)
        return jax.device_put(stream.bare(self.pool, rows), device), local.reshape(rows_MV.shape).astype(np.int32)


class _Chunk:
    """A chunk of models in training on one device; a short one is padded with copies of its last model, which are dropped at the end."""

    def __init__(self, learner, program, source, models, chunk, rows_MK, weight_MK, validation, seed, folder, device):
        self.learner, self.program, self.source, self.models, self.folder, self.device = learner, program, source, models, folder, device
        padded = models + [models[-1]] * (chunk - len(models))
        sample = source.sample(device)
        keys, self.rows, self.weight = jax.device_put((programs.model_keys(seed=seed, models=padded), rows_MK[padded], weight_MK[padded]), device)
        self.epoch, self.history = 0, {}
        saved = checkpoint.load_running(folder, models, jax.eval_shape(program.init, keys, sample))
        if saved is None:
            self.state = program.init(keys, sample)
        else:
            self.epoch, state, history = saved
            self.state = jax.device_put(state, device)
            self.history = {name: list(values) for name, values in history.items()}
        self.validation = (sample, *jax.device_put((np.zeros((chunk, 1), np.int32), np.zeros((chunk, 1), np.float32)), device))
        if validation is not None:
            pool, rows = source.subset(validation[0][padded], device)
            self.validation = (pool, *jax.device_put((rows, validation[1][padded]), device))

    def train(self, *, checkpoint_every: int, on_epoch, progress: Progress, metrics_file: Path | None, check: Callable) -> None:
        """Epochs until the last one, or until every model has stopped."""
        progress.advance(self.epoch * len(self.models))
        pending = None  # metrics are read one epoch late, so that the device never waits for the host
        stop = False
        while self.epoch < self.learner.epochs and not stop:
            try:
                check()
            except jobs.Paused:
                if pending is not None:
                    self._record(*pending, progress, metrics_file)
                if self.epoch:
                    self._keep()
                raise
            self.epoch += 1
            metrics = self._epoch()
            if pending is not None:
                stop, pending = self._record(*pending, progress, metrics_file), None
            pending = (self.epoch, metrics)
            due = checkpoint_every and self.epoch % checkpoint_every == 0 and self.epoch < self.learner.epochs
            if due or on_epoch:
                stop, pending = self._record(*pending, progress, metrics_file) or stop, None
                for hook in on_epoch:
                    hook(self.models, self.epoch, self.state, {name: values[-1] for name, values in self.history.items()})
            if due and not stop:
                self._keep()
        if pending is not None:
            self._record(*pending, progress, metrics_file)
        progress.advance((self.learner.epochs - self.epoch) * len(self.models))

    def _keep(self) -> None:
        """The chunk's state on disk; its history goes to this epoch."""
        history = {name: np.stack(values) for name, values in self.history.items()}
        checkpoint.save_running(self.folder, self.models, self.epoch, self.state, history)

    def _epoch(self):
        epoch = jnp.uint32(self.epoch)
        index, weight = self.program.plan(self.state.key, epoch, self.rows, self.weight)
        sums = None
        for pool, index_part, weight_part in self.source.parts(index, weight, self.device):
            self.state, part = self.program.run(self.state, pool, index_part, weight_part)
            sums = part if sums is None else jax.tree.map(jnp.add, sums, part)
        pool, rows, weight = self.validation
        self.state, metrics = self.program.finish(self.state, sums, pool, jnp.int32(self.epoch), rows, weight)
        done = self.state.stop.done if self.learner.stopping else None
        return metrics, (done if done is None else jnp.array(done))

    def _record(self, epoch: int, result, progress: Progress, metrics_file: Path | None) -> bool:
        """Keeps one epoch's metrics; returns whether every model of the chunk has stopped."""
        metrics, done = jax.device_get(result)
        active = self._active(epoch)
        metrics = self._accounted(epoch, metrics)
        for name, values in metrics.items():
            self.history.setdefault(name, []).append(values[: len(self.models)])
        loss = metrics["loss"][: len(self.models)]
        if not np.isfinite(loss[active]).all():
            bad = self.models[int(np.flatnonzero(active & ~np.isfinite(loss))[0])]
            raise FloatingPointError(
                f"the loss of model {bad} became {loss[self.models.index(bad)]} in epoch {epoch}. A lower learner.learning_rate is the usual remedy; "
                f"finished models and the last checkpoint are kept."
            )
        if metrics_file is not None:
            running = [(i, m) for i, m in enumerate(self.models) if active[i]]
            plain = {
                name: [float(x) if np.isfinite(x) else None for x in v] for name, v in metrics.items()
            }  # JSON has no infinity: epsilon without noise
            records = [dict(stage="train", model=m, epoch=epoch) | {name: v[i] for name, v in plain.items()} for i, m in running]
            workdir.append_jsonl(metrics_file, records)
        progress.advance(len(self.models), note=f"loss {loss.mean():.4g}")
        return done is not None and bool(done.all())

    def _accounted(self, epoch: int, metrics: dict) -> dict:
        """A private learner's metrics with the epsilon so far; RuntimeError if a batch had more units than slots."""
        guarantee = self.learner.guarantee
        if guarantee is None:
            return metrics
        over = metrics.pop("overflow")[: len(self.models)] > 0
        if over.any():
            raise RuntimeError(
                f"a batch of model {self.models[int(np.argmax(over))]} in epoch {epoch} drew more units than it has slots, and dropping some is not "
                "what is accounted. Train with another seed, or set privacy.overflow='truncate'."
            )
        return metrics | dict(epsilon=np.full(len(metrics["loss"]), guarantee.epsilon(epoch)))

    def _active(self, epoch: int) -> np.ndarray:
        """Which models were still training in this epoch."""
        if not self.learner.stopping:
            return np.ones(len(self.models), bool)
        stopped = np.asarray(jax.device_get(self.state.stop.stopped_epoch))[: len(self.models)]
        return (stopped == 0) | (epoch <= stopped)

    def save(self, *, seconds: float) -> None:
        """One file a finished model; then the chunk's checkpoint goes."""
        released = self.learner.released or (lambda state: stopping.best_variables(state.stop, state.variables))
        variables = jax.jit(jax.vmap(released))(self.state)
        variables, stop = jax.device_get((variables, self.state.stop))
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            bad = ~np.isfinite(leaf.reshape(len(leaf), -1)).all(1)[: len(self.models)]
            if bad.any():
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise FloatingPointError(
                    f"{name} of model {self.models[int(np.argmax(bad))]} is not finite after training; lower learner.learning_rate."
                )
        for i, (m, epochs) in enumerate(zip(self.models, self.lengths(), strict=True)):
            history = {name: np.stack(values)[:epochs, i] for name, values in self.history.items()}
            summary = dict(epochs=np.int32(epochs), best_epoch=np.int32(stop.best_epoch[i] if stop is not None else epochs))
            summary |= dict(stopped=np.bool_(stop.done[i] if stop is not None else False), seconds=np.float64(seconds / len(self.models)))
            own = jax.tree.map(lambda a, i=i: a[i], variables)
            if self.learner.guarantee is not None:
                workdir.write_json(checkpoint.ledger_file(self.folder, m), self._ledger(i, history))
            checkpoint.save_model(self.folder, m, own, history | {f"summary/{k}": v for k, v in summary.items()})
        checkpoint.discard_running(self.folder)

    def _ledger(self, i: int, history: dict) -> dict:
        """What model i of the chunk really did: the steps it took and the least noise that it added in any epoch."""
        noise = history.get("noise_multiplier", np.zeros(0))
        least = float(noise[noise > 0].min()) if (noise > 0).any() else 0.0
        steps = int(jax.device_get(self.state.step)[i])
        return self.learner.guarantee.ran(steps=steps, noise_multiplier=least, plan=self.learner.plan)

    def note(self) -> str:
        """'100 epochs, loss 0.012, accuracy 1.000': each model's last values, averaged over the chunk."""
        ends = [epochs - 1 for epochs in self.lengths()]
        mean = {name: np.mean([values[end][i] for i, end in enumerate(ends)]) for name, values in self.history.items() if values}
        span = f"{min(ends) + 1}" if len(set(ends)) == 1 else f"{min(ends) + 1}-{max(ends) + 1}"
        return ", ".join([f"{span} epochs"] + [f"{name} {value:.4g}" for name, value in mean.items()])

    def lengths(self) -> list[int]:
        """How many epochs each model was trained."""
        run = len(next(iter(self.history.values()), ()))
        stopped = jax.device_get(self.state.stop.stopped_epoch) if self.state.stop is not None else np.zeros(len(self.models), int)
        return [int(stopped[i]) or run for i in range(len(self.models))]
