"""Trains M models with one learner: in chunks, checkpointed, resumable and extensible.

A chunk is a number of models that one program trains together on one device. The key and the rows
of a model derive from (seed, model index) only (the key in training/programs.py, `model_keys`), and
its lane of the program does not read the other lanes. Therefore a resumed run equals an
uninterrupted one, and a fleet can grow without retraining (bit for bit for the same chunk on CPU).
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.learners import stopping
from mia_jax.runtime import distributed, files, jobs
from mia_jax.runtime.progress import Progress, duration
from mia_jax.training import checkpoint, failures, memory, mesh, profiling, programs, stream
from mia_jax.training.devices import Cancelled, share_programs, spread
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
    run: str = "",
    chunk: int = 8,
    program: programs.Programs | None = None,
    devices: list | None = None,
    lanes: int | None = None,
    checkpoint_every: int = 25,
    checkpoint_minutes: float = 10.0,
    pool_bytes: int = 2**31,
    on_epoch: Sequence[Callable] = (),
    metrics_file: Path | None = None,
    track: Callable[[list[dict]], None] | None = None,
    pause: Callable = lambda: None,
    attempts: Mapping[int, int] = {},
    profiler: profiling.Profiler | None = None,
) -> dict[int, dict]:
    """Trains those of `models` that are not on disk and writes one file per model to folder/model.

    A model fails if its loss becomes NaN or infinite, or if a variable is so in the end. It leaves
    a record in folder/failed instead of a model, and all others are trained as if it had not
    failed.

    Args:
        learner: the learning rule.
        pool: all examples.
        rows_MK: the rows of each model, indexed by the number of the model.
        weight_MK: the weights of these rows; 0 on padding.
        validation: (rows_MV, weight_MV), likewise; None for no validation.
        seed: the seed from which the models' keys derive.
        models: the numbers of the models.
        folder: the train folder.
        run: recorded in every file (checkpoint.place).
        chunk: the number of models that a program trains together.
        program: the programs of such a chunk, which may be compiled already; None makes them.
        devices: the devices to use, or groups of them (training/mesh.py); None for the first one.
        lanes: the number of chunks that train at the same time on each device. None means one per
            core on CPU and one elsewhere.
        checkpoint_every: the state of a chunk is saved every so many epochs; 0 for no such period.
        checkpoint_minutes: the state is also saved after this many minutes, within an epoch as well
            if the pool is streamed, so that a job that must end at once loses little; 0 for never.
        pool_bytes: a pool larger than this is streamed.
        on_epoch: hooks hook(models, epoch, state, metrics) that see the state after each epoch.
        metrics_file: the file to which the metrics of every epoch are appended.
        track: called with the same records, from the thread that trains these models.
        pause: called before each epoch, and before each part of an epoch if the pool is streamed;
            it may raise to end the run, and every chunk's state is then on disk.
        attempts: {model: number of the attempt, from 1 on} of the failed models that are trained
            again, with a key derived from (seed, model, attempt). Other failed models are not
            trained again.
        profiler: traces chosen epochs; of a streamed pool, the first part of them.

    Returns:
        {model: record} of those of `models` that failed, now or earlier.
    """
    num_rows = rows_MK.shape[1]
    check_monitor(learner=learner, pool=pool, num_rows=num_rows, validation=validation is not None)
    have = set(checkpoint.finished(folder, models)) | (
        set(failures.known(folder, models)) - set(attempts)
    )
    todo = [m for m in models if m not in have]
    group = lambda m: (attempts.get(m, 0), m // chunk)  # noqa: E731
    groups = sorted(set(map(group, todo)))
    chunks = [[m for m in todo if group(m) == number] for number in groups]
    devices = devices or jax.local_devices()[:1]
    program = program or programs.make(
        learner=learner,
        chunk=chunk,
        validation=validation is not None,
        devices=mesh.over(devices[0]),
    )
    source = _Source(pool, pool_bytes, devices)
    progress = Progress(title="train", total=len(todo) * max(1, learner.epochs), unit="epoch")
    begin, finished = time.monotonic(), 0

    def work(chunk_models: list[int], device, check: Callable) -> None:
        nonlocal finished
        start = time.monotonic()
        attempt = attempts.get(chunk_models[0], 0)
        part = _Chunk(
            learner,
            program,
            source,
            chunk_models,
            chunk,
            rows_MK,
            weight_MK,
            validation,
            seed,
            folder,
            device,
            attempt,
            run,
            profiler,
        )
        distributed.wait()  # all have read the chunk's state before one writes it
        part.train(
            checkpoint_every=checkpoint_every,
            checkpoint_minutes=checkpoint_minutes,
            on_epoch=on_epoch,
            progress=progress,
            metrics_file=metrics_file,
            track=track,
            check=check,
        )
        seconds = time.monotonic() - start
        part.save(seconds=seconds)
        finished += len(chunk_models)
        left = len(todo) - finished
        rest = (
            f"; {left} left, about {duration((time.monotonic() - begin) / finished * left)}"
            if left
            else ""
        )
        first, last = chunk_models[0], chunk_models[-1]
        span = f"model {first}" if first == last else f"models {first}-{last}"
        progress.line(f"train: {span} done in {duration(seconds)} ({part.note()}){rest}")

    spread(work, chunks, devices, lanes, pause, first_alone=share_programs(devices))
    progress.close()
    failed = failures.known(folder, models)
    checkpoint.discard_running(folder, {m: entry["attempt"] for m, entry in failed.items()})
    return failed


def check_monitor(*, learner: Learner, pool: Pool, num_rows: int, validation: bool) -> None:
    """Raises ValueError if the stopping rule watches a metric that this run does not have.

    Nothing is computed. Batches have the sizes of those of `num_rows` rows, as the learner may cut
    them into shards.
    """
    if not learner.stopping:
        return
    sample = stream.bare(pool, np.arange(1))
    rows = jnp.zeros(num_rows, jnp.int32), jnp.ones(num_rows, jnp.float32)

    def metrics(key):
        state = learner.init(key, sample)
        trained = learner.epoch(state, sample, *learner.plan(key, jnp.uint32(1), *rows))[1]
        return trained, learner.evaluate(state.variables, sample, *rows)

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
    """Provides the pool to the programs: resident on every device, or gathered part by part."""

    def __init__(self, pool: Pool, limit: int, devices: list):
        self.pool, self.limit = stream.bare(pool), limit
        whole = stream.loaded(self.pool) if stream.num_bytes(pool) <= limit else None
        self.resident = {device: mesh.put(whole, device) for device in devices} if whole else {}

    def sample(self, device) -> Pool:
        """Returns a pool of one row, from which the shapes are known."""
        return mesh.put(stream.bare(self.pool, np.arange(1)), device)

    def parts(self, index, weight, device, first: int):
        """Yields (pool, index, weight) of consecutive steps, from step `first` on."""
        if device in self.resident:
            yield self.resident[device], index[:, first:], weight[:, first:]
            return
        parts = stream.parts(
            pool=self.pool,
            index_MSB=np.asarray(index),
            weight_MSB=np.asarray(weight),
            limit=self.limit,
            first=first,
        )
        yield from stream.ahead(parts, lambda part: mesh.put(part, device))

    def subset(self, rows_MV: np.ndarray, device) -> tuple[Pool, np.ndarray]:
        """Returns a pool that contains these rows, and the numbers of the rows in it."""
        if device in self.resident:
            return self.resident[device], rows_MV
        rows, local = np.unique(rows_MV, return_inverse=True)
        return mesh.put(stream.bare(self.pool, rows), device), local.reshape(rows_MV.shape).astype(
            np.int32
        )


class _Chunk:
    """Trains a chunk of models on one device.

    A short chunk is padded with copies of its last model, which are dropped at the end. `failed`
    {model: what happened} are the models whose numbers are not finite any more. They continue as
    NaN in their lane of the program, which no other lane reads. The other models are therefore
    trained by the same program on the same numbers as without them.
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
        profiler=None,
    ):
        self.learner, self.program, self.source, self.models, self.folder, self.device = (
            learner,
            program,
            source,
            models,
            folder,
            device,
        )
        self.run, self.profiler = run, profiler or profiling.Profiler((), Path)
        padded = models + [models[-1]] * (chunk - len(models))
        sample = source.sample(device)
        self.attempt, self.failed = attempt, {}
        keys = programs.model_keys(seed=seed, models=padded, attempt=attempt)
        keys, self.rows, self.weight = mesh.put((keys, rows_MK[padded], weight_MK[padded]), device)
        self.epoch, self.history = 0, {}
        # Of an epoch that was interrupted: the steps that are done, and their sums.
        self.partial: tuple | None = None
        self.overflow = []  # private training: whose batches had too many units, [M] per epoch
        saved = checkpoint.load_running(
            folder, models, jax.eval_shape(program.init, keys, sample), attempt, run=run
        )
        if saved is None:
            self.state = program.init(keys, sample)
        else:
            self.epoch, state, history, partial = saved
            self.state = mesh.put_state(state, device)
            self.partial = None if partial is None else mesh.put(partial, device)
            self.history = {name: list(values) for name, values in history.items()}
            self.overflow = self.history.pop("overflow", [])
            for epoch, loss in enumerate(self.history.get("loss", ()), 1):
                self._overflowed(
                    epoch, self.overflow[epoch - 1] if self.overflow else np.zeros(0, bool)
                )
                self._diverged(epoch, loss, self._active(epoch))
        self.validation = (
            sample,
            *mesh.put((np.zeros((chunk, 1), np.int32), np.zeros((chunk, 1), np.float32)), device),
        )
        if validation is not None:
            pool, rows = source.subset(validation[0][padded], device)
            self.validation = (pool, *mesh.put((rows, validation[1][padded]), device))

    def train(
        self,
        *,
        checkpoint_every: int,
        checkpoint_minutes: float,
        on_epoch,
        progress: Progress,
        metrics_file: Path | None,
        track: Callable[[list[dict]], None] | None,
        check: Callable,
    ) -> None:
        """Trains until the last epoch, or until every model has stopped or failed."""
        progress.advance(self.epoch * len(self.models))
        kept = time.monotonic()
        # Metrics are read one epoch late, so that the device never waits for the host.
        pending = None
        stop = False

        def late() -> bool:
            """Returns whether the state has to be saved because of the time."""
            return distributed.agree(0 < 60 * checkpoint_minutes < time.monotonic() - kept)

        def safe_place() -> None:
            """Saves the state if the run has to end here, or within an epoch if it is time."""
            nonlocal pending, stop, kept
            try:
                check()
            except (jobs.Paused, Cancelled):
                if pending is not None:
                    self._record(*pending, progress, metrics_file, track)
                if self.epoch or self.partial:
                    self._keep()
                raise
            if self.partial and late():
                if pending is not None:
                    stop, pending = self._record(*pending, progress, metrics_file, track), None
                self._keep()
                kept = time.monotonic()

        while self.epoch < self.learner.epochs and not stop:
            safe_place()
            metrics = self._epoch(safe_place)
            self.epoch += 1
            if pending is not None:
                stop, pending = self._record(*pending, progress, metrics_file, track), None
            pending = (self.epoch, metrics)
            due = (
                (checkpoint_every and self.epoch % checkpoint_every == 0) or late()
            ) and self.epoch < self.learner.epochs
            if due or on_epoch:
                stop, pending = self._record(*pending, progress, metrics_file, track) or stop, None
                for hook in on_epoch:
                    hook(
                        self.models,
                        self.epoch,
                        mesh.whole(self.state),
                        {name: values[-1] for name, values in self.history.items()},
                    )
            if due and not stop:
                self._keep()
                kept = time.monotonic()
        if pending is not None:
            self._record(*pending, progress, metrics_file, track)
        progress.advance((self.learner.epochs - self.epoch) * len(self.models))

    def _keep(self) -> None:
        """Saves the state of the chunk, its history, and how far it is within an epoch."""
        memory.wait(self.state)
        history = {
            name: np.stack(values)
            for name, values in (
                self.history | ({"overflow": self.overflow} if self.overflow else {})
            ).items()
        }
        checkpoint.save_running(
            self.folder,
            self.models,
            self.epoch,
            mesh.whole(self.state),
            history,
            self.attempt,
            partial=self.partial,
            run=self.run,
        )

    def _epoch(self, safe_place: Callable):
        """Trains the next epoch, or the rest of one that was interrupted.

        Args:
            safe_place: called between the parts of an epoch; it may raise to end the run.

        Returns:
            The metrics and which models are done, both on the device.
        """
        number = self.epoch + 1
        index, weight = self.program.plan(self.state.key, np.uint32(number), self.rows, self.weight)
        steps, sums = self.partial or (0, None)
        first = int(steps)
        parts = self.source.parts(index, weight, self.device, first)
        done = first
        for pool, index_part, weight_part in parts:
            if done > first:
                self.partial = (done, sums)
                safe_place()
            done += index_part.shape[1]
            with self.profiler.of(number) as traced:
                self.state, part = self.program.run(self.state, pool, index_part, weight_part)
                if traced:
                    memory.wait((self.state, part))
            if not self.source.resident:
                memory.wait(part)  # or the parts of all steps would be waiting for the device
            sums = part if sums is None else jax.tree.map(jnp.add, sums, part)
        pool, rows, weight = self.validation
        self.state, metrics = self.program.finish(
            self.state, sums, pool, np.int32(number), rows, weight
        )
        self.partial = None
        done = self.state.stop.done if self.learner.stopping else None
        return metrics, (done if done is None else jnp.array(done))

    def _record(
        self,
        epoch: int,
        result,
        progress: Progress,
        metrics_file: Path | None,
        track: Callable[[list[dict]], None] | None,
    ) -> bool:
        """Keeps the metrics of one epoch; returns whether every model has stopped or failed."""
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
        if metrics_file is not None or track is not None:
            running = [(i, m) for i, m in enumerate(self.models) if active[i]]
            # JSON has no infinity, which is the epsilon of training without noise.
            plain = {
                name: [float(x) if np.isfinite(x) else None for x in v]
                for name, v in metrics.items()
            }
            records = [
                dict(stage="train", model=m, epoch=epoch)
                | {name: v[i] for name, v in plain.items()}
                for i, m in running
            ]
            if metrics_file is not None:
                files.append_jsonl(metrics_file, records)
            if track is not None:
                track(records)
        over = self._failed_M()
        progress.advance(
            len(self.models), note="" if over.all() else f"loss {loss[~over].mean():.4g}"
        )
        return bool((over if done is None else over | done[: len(self.models)]).all())

    def _diverged(self, epoch: int, loss_M: np.ndarray, active_M: np.ndarray) -> None:
        """Marks as failed the models that trained in this epoch and whose loss is not finite."""
        for i in np.flatnonzero(active_M & ~np.isfinite(loss_M)):
            self._fail(
                i, f"its loss became {loss_M[i]} in epoch {epoch}", epoch=epoch, loss=str(loss_M[i])
            )

    def _overflowed(self, epoch: int, over_M: np.ndarray) -> None:
        """Marks as failed the models of private training whose batches exceeded their slots."""
        for i in np.flatnonzero(over_M):
            reason = (
                f"a batch of epoch {epoch} drew more units than it has slots, and dropping some is "
                "not what is accounted (privacy.overflow)"
            )
            self._fail(i, reason, epoch=epoch)

    def _fail(self, i: int, reason: str, **more) -> None:
        """Marks model i of the chunk as failed; the first reason is kept."""
        self.failed.setdefault(self.models[i], dict(reason=reason, **more))

    def _failed_M(self) -> np.ndarray:
        """Returns which models of the chunk have failed."""
        return np.isin(self.models, list(self.failed))

    def _accounted(self, epoch: int, metrics: dict) -> dict:
        """Returns the metrics of a private learner with the epsilon after this epoch.

        A model whose batch had more units than slots is marked as failed.
        """
        guarantee = self.learner.guarantee
        if guarantee is None:
            return metrics
        self.overflow.append(metrics.pop("overflow")[: len(self.models)] > 0)
        self._overflowed(epoch, self.overflow[-1])
        return metrics | dict(epsilon=np.full(len(metrics["loss"]), guarantee.epsilon(epoch)))

    def _active(self, epoch: int) -> np.ndarray:
        """Returns which models were still training in this epoch."""
        if not self.learner.stopping:
            return np.ones(len(self.models), bool)
        stopped = np.asarray(jax.device_get(self.state.stop.stopped_epoch))[: len(self.models)]
        return (stopped == 0) | (epoch <= stopped)

    def save(self, *, seconds: float) -> None:
        """Writes the file of each finished model or failure, and removes the checkpoint."""
        released = self.learner.released or (
            lambda state: stopping.best_variables(state.stop, state.variables)
        )
        variables = jax.jit(jax.vmap(released))(self.state)
        variables, stop = memory.fetch(mesh.whole((variables, self.state.stop)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            for i in np.flatnonzero(
                ~np.isfinite(leaf.reshape(len(leaf), -1)).all(1)[: len(self.models)]
                & ~self._failed_M()
            ):
                self._fail(i, f"{name} is not finite after training", epoch=self.lengths()[i])
        for m, failure in self.failed.items():
            failures.record(self.folder, m, stage="train", attempt=self.attempt, **failure)
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
            trained = jax.tree.map(lambda a, i=i: a[i], variables)
            if self.learner.guarantee is not None:
                checkpoint.save_ledger(self.folder, m, self._ledger(i, history), run=self.run)
            summary |= dict(attempt=np.int32(self.attempt)) if self.attempt else {}
            checkpoint.save_model(
                self.folder,
                m,
                trained,
                history | {f"summary/{k}": v for k, v in summary.items()},
                run=self.run,
            )
            failures.failed_file(self.folder, m).unlink(missing_ok=True)
        checkpoint.discard_running(self.folder, dict.fromkeys(self.failed, self.attempt))

    def _ledger(self, i: int, history: dict) -> dict:
        """Returns what training model i really did: its steps and its least noise in any epoch."""
        noise = history.get("noise_multiplier", np.zeros(0))
        least = float(noise[noise > 0].min()) if (noise > 0).any() else 0.0
        steps = int(jax.device_get(self.state.step)[i])
        return self.learner.guarantee.ran(
            steps=steps, noise_multiplier=least, plan=self.learner.plan
        )

    def note(self) -> str:
        """Returns '100 epochs, loss 0.012, accuracy 1.000': the chunk's mean last values."""
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
        """Returns the number of epochs that each model was trained."""
        run = len(next(iter(self.history.values()), ()))
        stopped = (
            jax.device_get(self.state.stop.stopped_epoch)
            if self.state.stop is not None
            else np.zeros(len(self.models), int)
        )
        return [int(stopped[i]) or run for i in range(len(self.models))]
