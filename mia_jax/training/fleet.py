"""M runs of one learner: `chunk` models a device at a time, checkpointed, resumable and extensible.

A model's key and rows derive from (seed, model index) alone and its lane of the program does not
know the others, so that a resumed run equals an uninterrupted one and a fleet can grow without
retraining (bit for bit for the same chunk on CPU).
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.learners import stopping
from mia_jax.runtime import files, jobs
from mia_jax.runtime.progress import Progress, duration
from mia_jax.training import checkpoint, failures, memory, programs, stream
from mia_jax.training.spread import Cancelled, spread
from mia_jax.types import Learner, Pool

Path = pathlib.Path
KEEP = 300.0  # seconds


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
    run: str = "",
    chunk: int = 8,
    devices: list | None = None,
    lanes: int | None = None,
    checkpoint_every: int = 25,
    pool_bytes: int = 2**31,
    on_epoch: Sequence[Callable] = (),
    metrics_file: Path | None = None,
    pause: Callable = lambda: None,
    attempts: Mapping[int, int] = {},
) -> dict[int, dict]:
    """Trains those of `models` that are not on disk yet and leaves one file a model in
    folder/model; `run` is recorded in every file.

    `rows_MK`, `weight_MK` are indexed by model number, `validation` = (rows_MV, weight_MV)
    likewise. `lanes` chunks train at a time on each device (None: one a core on CPU, one
    elsewhere). A chunk's state is on disk every `checkpoint_every` epochs (0: only at its end), and
    after KEEP seconds, so that long epochs lose no more to a job that must end at once. A pool
    larger than `pool_bytes` is streamed. `on_epoch(models, epoch, state, metrics)` hooks see the
    state after each epoch. `pause()`, called before each epoch, may raise to end the run; every
    chunk's state is on disk then.

    A model whose loss, or in the end a variable, is NaN or infinite has failed: it leaves a record
    in folder/failed in place of a model, all others are trained as if it had not. Returns the
    records of those of `models` that failed, now or before. A failed model is trained again only if
    `attempts` {model: number of the attempt, from 1 on} says so, with a key of (seed, model,
    attempt).
    """
    check_monitor(learner=learner, pool=pool, validation=validation is not None)
    have = set(checkpoint.finished(folder, models)) | (
        set(failures.known(folder, models)) - set(attempts)
    )
    todo = [m for m in models if m not in have]
    group = lambda m: (attempts.get(m, 0), m // chunk)  # noqa: E731
    chunks = [[m for m in todo if group(m) == one] for one in sorted(set(map(group, todo)))]
    devices = devices or jax.local_devices()[:1]
    program = programs.make(learner=learner, chunk=chunk, validation=validation is not None)
    source = _Source(pool, pool_bytes, devices)
    progress = Progress(title="train", total=len(todo) * max(1, learner.epochs), unit="epoch")
    begin, finished = time.monotonic(), 0

    def work(own: list[int], device, check: Callable) -> None:
        nonlocal finished
        start = time.monotonic()
        attempt = attempts.get(own[0], 0)
        part = _Chunk(
            learner,
            program,
            source,
            own,
            chunk,
            rows_MK,
            weight_MK,
            validation,
            seed,
            folder,
            device,
            attempt,
            run,
        )
        part.train(
            checkpoint_every=checkpoint_every,
            on_epoch=on_epoch,
            progress=progress,
            metrics_file=metrics_file,
            check=check,
        )
        seconds = time.monotonic() - start
        part.save(seconds=seconds)
        finished += len(own)
        left = len(todo) - finished
        rest = (
            f"; {left} left, about {duration((time.monotonic() - begin) / finished * left)}"
            if left
            else ""
        )
        span = f"model {own[0]}" if len(own) == 1 else f"models {own[0]}-{own[-1]}"
        progress.line(f"train: {span} done in {duration(seconds)} ({part.note()}){rest}")

    spread(work, chunks, devices, lanes, pause)
    progress.close()
    failed = failures.known(folder, models)
    checkpoint.discard_running(folder, {m: one["attempt"] for m, one in failed.items()})
    return failed


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
        raise ValueError(
            f"learner.stop.monitor={learner.stopping.monitor!r} is not a metric of this run. "
            f"Metrics: {', '.join(known)}{hint}."
        )


class _Source:
    """The pool as the programs take it: resident on every device, or gathered a part at a time."""

    def __init__(self, pool: Pool, limit: int, devices: list):
        self.pool, self.limit = stream.bare(pool), limit
        fits = stream.num_bytes(pool) <= limit
        self.resident = (
            {device: jax.device_put(self.pool, device) for device in devices} if fits else {}
        )

    def sample(self, device) -> Pool:
        return jax.device_put(stream.bare(self.pool, np.arange(1)), device)

    def parts(self, index, weight, device):
        """(pool, index, weight) of consecutive steps."""
        if device in self.resident:
            yield self.resident[device], index, weight
            return
        for part in stream.parts(
            pool=self.pool,
            index_MSB=np.asarray(index),
            weight_MSB=np.asarray(weight),
            limit=self.limit,
        ):
            yield jax.device_put(part, device)

    def subset(self, rows_MV: np.ndarray, device) -> tuple[Pool, np.ndarray]:
        """A pool that has these rows, and their numbers in it."""
        if device in self.resident:
            return self.resident[device], rows_MV
        rows, local = np.unique(rows_MV, return_inverse=True)
        return jax.device_put(stream.bare(self.pool, rows), device), local.reshape(
            rows_MV.shape
        ).astype(np.int32)


class _Chunk:
    """A chunk of models in training on one device; a short one is padded with copies of its last
    model, which are dropped at the end.

    `failed` {model: what happened} are those whose numbers are not finite any more. They go on as
    NaN in their lane of the program, which no other lane reads, so that the others are trained by
    the same program on the same numbers as without them.
    """

    def __init__(
        self,
        learner,
        program,
        source,
        models,
        chunk,
        rows_MK,
        weight_MK,
        validation,
        seed,
        folder,
        device,
        attempt=0,
        run="",
    ):
        self.learner, self.program, self.source, self.models, self.folder, self.device = (
            learner,
            program,
            source,
            models,
            folder,
            device,
        )
        self.run = run
        padded = models + [models[-1]] * (chunk - len(models))
        sample = source.sample(device)
        self.attempt, self.failed = attempt, {}
        keys = programs.model_keys(seed=seed, models=padded, attempt=attempt)
        keys, self.rows, self.weight = jax.device_put(
            (keys, rows_MK[padded], weight_MK[padded]), device
        )
        self.epoch, self.history, self.overflow = (
            0,
            {},
            [],
        )  # overflow: of private training, which models' batches had too many units, [M] per epoch
        saved = checkpoint.load_running(
            folder, models, jax.eval_shape(program.init, keys, sample), attempt, run=run
        )
        if saved is None:
            self.state = program.init(keys, sample)
        else:
            self.epoch, state, history = saved
            self.state = jax.device_put(state, device)
            self.history = {name: list(values) for name, values in history.items()}
            self.overflow = self.history.pop("overflow", [])
            for epoch, loss in enumerate(self.history.get("loss", ()), 1):
                self._overflowed(
                    epoch, self.overflow[epoch - 1] if self.overflow else np.zeros(0, bool)
                )
                self._diverged(epoch, loss, self._active(epoch))
        self.validation = (
            sample,
            *jax.device_put(
                (np.zeros((chunk, 1), np.int32), np.zeros((chunk, 1), np.float32)), device
            ),
        )
        if validation is not None:
            pool, rows = source.subset(validation[0][padded], device)
            self.validation = (pool, *jax.device_put((rows, validation[1][padded]), device))

    def train(
        self,
        *,
        checkpoint_every: int,
        on_epoch,
        progress: Progress,
        metrics_file: Path | None,
        check: Callable,
    ) -> None:
        """Epochs until the last one, or until every model has stopped."""
        progress.advance(self.epoch * len(self.models))
        kept = time.monotonic()
        pending = (
            None  # metrics are read one epoch late, so that the device never waits for the host
        )
        stop = False
        while self.epoch < self.learner.epochs and not stop:
            try:
                check()
            except (jobs.Paused, Cancelled):
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
            due = (
                checkpoint_every
                and (self.epoch % checkpoint_every == 0 or time.monotonic() - kept > KEEP)
                and self.epoch < self.learner.epochs
            )
            if due or on_epoch:
                stop, pending = self._record(*pending, progress, metrics_file) or stop, None
                for hook in on_epoch:
                    hook(
                        self.models,
                        self.epoch,
                        self.state,
                        {name: values[-1] for name, values in self.history.items()},
                    )
            if due and not stop:
                self._keep()
                kept = time.monotonic()
        if pending is not None:
            self._record(*pending, progress, metrics_file)
        progress.advance((self.learner.epochs - self.epoch) * len(self.models))

    def _keep(self) -> None:
        """The chunk's state on disk; its history goes to this epoch."""
        memory.wait(self.state)
        history = {
            name: np.stack(values)
            for name, values in (
                self.history | ({"overflow": self.overflow} if self.overflow else {})
            ).items()
        }
        checkpoint.save_running(
            self.folder, self.models, self.epoch, self.state, history, self.attempt, run=self.run
        )

    def _epoch(self):
        epoch = jnp.uint32(self.epoch)
        index, weight = self.program.plan(self.state.key, epoch, self.rows, self.weight)
        sums = None
        for pool, index_part, weight_part in self.source.parts(index, weight, self.device):
            self.state, part = self.program.run(self.state, pool, index_part, weight_part)
            sums = part if sums is None else jax.tree.map(jnp.add, sums, part)
        pool, rows, weight = self.validation
        self.state, metrics = self.program.finish(
            self.state, sums, pool, jnp.int32(self.epoch), rows, weight
        )
        done = self.state.stop.done if self.learner.stopping else None
        return metrics, (done if done is None else jnp.array(done))

    def _record(self, epoch: int, result, progress: Progress, metrics_file: Path | None) -> bool:
        """Keeps one epoch's metrics; returns whether every model of the chunk has stopped or
        failed.
        """
        metrics, done = memory.fetch(result)
        before = dict(self.failed)
        active = self._active(epoch) & ~self._failed_M()
        metrics = self._accounted(epoch, metrics)
        for name, values in metrics.items():
            self.history.setdefault(name, []).append(values[: len(self.models)])
        loss = metrics["loss"][: len(self.models)]
        self._diverged(epoch, loss, active)
        for m in [m for m in self.failed if m not in before]:
            progress.line(
                f"train: model {m} has failed, {self.failed[m]['reason']}; the other models go on."
            )
        if metrics_file is not None:
            running = [(i, m) for i, m in enumerate(self.models) if active[i]]
            plain = {
                name: [float(x) if np.isfinite(x) else None for x in v]
                for name, v in metrics.items()
            }  # JSON has no infinity: epsilon without noise
            records = [
                dict(stage="train", model=m, epoch=epoch)
                | {name: v[i] for name, v in plain.items()}
                for i, m in running
            ]
            files.append_jsonl(metrics_file, records)
        over = self._failed_M()
        progress.advance(
            len(self.models), note="" if over.all() else f"loss {loss[~over].mean():.4g}"
        )
        return bool((over if done is None else over | done[: len(self.models)]).all())

    def _diverged(self, epoch: int, loss_M: np.ndarray, active_M: np.ndarray) -> None:
        """Marks the models that trained in this epoch and whose loss is not finite."""
        for i in np.flatnonzero(active_M & ~np.isfinite(loss_M)):
            self._fail(
                i, f"its loss became {loss_M[i]} in epoch {epoch}", epoch=epoch, loss=str(loss_M[i])
            )

    def _overflowed(self, epoch: int, over_M: np.ndarray) -> None:
        """Marks the models of private training whose batches did not fit."""
        for i in np.flatnonzero(over_M):
            reason = (
                f"a batch of epoch {epoch} drew more units than it has slots, and dropping some is "
                "not what is accounted (privacy.overflow)"
            )
            self._fail(i, reason, epoch=epoch)

    def _fail(self, i: int, reason: str, **more) -> None:
        """Model i of the chunk has failed; the first reason stays."""
        self.failed.setdefault(self.models[i], dict(reason=reason, **more))

    def _failed_M(self) -> np.ndarray:
        """Which models of the chunk have failed."""
        return np.isin(self.models, list(self.failed))

    def _accounted(self, epoch: int, metrics: dict) -> dict:
        """A private learner's metrics with the epsilon so far; a model whose batch had more units
        than slots has failed.
        """
        guarantee = self.learner.guarantee
        if guarantee is None:
            return metrics
        self.overflow.append(metrics.pop("overflow")[: len(self.models)] > 0)
        self._overflowed(epoch, self.overflow[-1])
        return metrics | dict(epsilon=np.full(len(metrics["loss"]), guarantee.epsilon(epoch)))

    def _active(self, epoch: int) -> np.ndarray:
        """Which models were still training in this epoch."""
        if not self.learner.stopping:
            return np.ones(len(self.models), bool)
        stopped = np.asarray(jax.device_get(self.state.stop.stopped_epoch))[: len(self.models)]
        return (stopped == 0) | (epoch <= stopped)

    def save(self, *, seconds: float) -> None:
        """One file a finished model, or the record of one that failed; then the chunk's checkpoint
        goes.
        """
        released = self.learner.released or (
            lambda state: stopping.best_variables(state.stop, state.variables)
        )
        variables = jax.jit(jax.vmap(released))(self.state)
        variables, stop = memory.fetch((variables, self.state.stop))
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            for i in np.flatnonzero(
                ~np.isfinite(leaf.reshape(len(leaf), -1)).all(1)[: len(self.models)]
                & ~self._failed_M()
            ):
                self._fail(i, f"{name} is not finite after training", epoch=self.lengths()[i])
        for m, one in self.failed.items():
            failures.record(self.folder, m, stage="train", attempt=self.attempt, **one)
        for i, (m, epochs) in enumerate(zip(self.models, self.lengths(), strict=True)):
            if m in self.failed:
                continue
            history = {name: np.stack(values)[:epochs, i] for name, values in self.history.items()}
            summary = dict(
                epochs=np.int32(epochs),
                best_epoch=np.int32(stop.best_epoch[i] if stop is not None else epochs),
            )
            summary |= dict(
                stopped=np.bool_(stop.done[i] if stop is not None else False),
                seconds=np.float64(seconds / len(self.models)),
            )
            own = jax.tree.map(lambda a, i=i: a[i], variables)
            if self.learner.guarantee is not None:
                checkpoint.save_ledger(self.folder, m, self._ledger(i, history), run=self.run)
            summary |= dict(attempt=np.int32(self.attempt)) if self.attempt else {}
            checkpoint.save_model(
                self.folder,
                m,
                own,
                history | {f"summary/{k}": v for k, v in summary.items()},
                run=self.run,
            )
            failures.failed_file(self.folder, m).unlink(missing_ok=True)
        checkpoint.discard_running(self.folder, dict.fromkeys(self.failed, self.attempt))

    def _ledger(self, i: int, history: dict) -> dict:
        """What model i of the chunk really did: the steps it took and the least noise that it added
        in any epoch.
        """
        noise = history.get("noise_multiplier", np.zeros(0))
        least = float(noise[noise > 0].min()) if (noise > 0).any() else 0.0
        steps = int(jax.device_get(self.state.step)[i])
        return self.learner.guarantee.ran(
            steps=steps, noise_multiplier=least, plan=self.learner.plan
        )

    def note(self) -> str:
        """'100 epochs, loss 0.012, accuracy 1.000': each model's last values, averaged over the
        chunk.
        """
        if len(self.failed) == len(self.models):
            return "all failed"
        ends = {
            i: epochs - 1
            for i, epochs in enumerate(self.lengths())
            if self.models[i] not in self.failed
        }
        mean = {
            name: np.mean([values[end][i] for i, end in ends.items()])
            for name, values in self.history.items()
            if values
        }
        first, last = min(ends.values()) + 1, max(ends.values()) + 1
        span = f"{first}" if first == last else f"{first}-{last}"
        failed = [f"{len(self.failed)} failed"] if self.failed else []
        return ", ".join(
            [f"{span} epochs"] + [f"{name} {value:.4g}" for name, value in mean.items()] + failed
        )

    def lengths(self) -> list[int]:
        """How many epochs each model was trained."""
        run = len(next(iter(self.history.values()), ()))
        stopped = (
            jax.device_get(self.state.stop.stopped_epoch)
            if self.state.stop is not None
            else np.zeros(len(self.models), int)
        )
        return [int(stopped[i]) or run for i in range(len(self.models))]
