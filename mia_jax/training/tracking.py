"""Passes a fleet's training metrics to trackers: of every model, and their mean over the fleet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

Log = Callable[[int, Mapping[str, float]], None]


class FleetMetrics:
    """Logs '<metric>/model_00003' of every model and '<metric>/mean' over all models of a run.

    Chunks of models are trained one after the other, so the mean of an epoch is logged when the
    last model has reached it. Models that stopped early or failed are missing in it.

    Args:
        log: log(step, values) of the trackers; the step is the epoch.
        models: all models of the run, also those that are trained already.
        earlier: the records of earlier starts, as in metrics.jsonl; they are not logged again.

    >>> logged = []
    >>> fleet = FleetMetrics(lambda step, values: logged.append((step, values)), [0, 1])
    >>> fleet.record([dict(model=0, epoch=1, loss=3.0)])
    >>> fleet.record([dict(model=1, epoch=1, loss=1.0)])
    >>> logged[-2:]
    [(1, {'loss/model_00001': 1.0}), (1, {'loss/mean': 2.0})]
    """

    def __init__(self, log: Log, models: Sequence[int], earlier: Iterable[Mapping] = ()):
        self.log, self.models, self.lock = log, set(models), threading.Lock()
        self.of_epoch: dict[int, dict[int, dict[str, float]]] = {}
        for record in earlier:
            if record.get("stage", "train") == "train" and record.get("model") in self.models:
                self._keep(record)
        self.logged = {epoch for epoch in self.of_epoch if self._complete(epoch)}

    def record(self, records: Sequence[Mapping]) -> None:
        """Logs the metrics of some models after one epoch, {model, epoch, <metric>: number}."""
        with self.lock:
            kept = [self._keep(record) for record in records]
            for epoch in sorted({epoch for epoch, _, _ in kept}):
                values = {
                    f"{name}/model_{m:05d}": value
                    for at, m, numbers in kept
                    for name, value in numbers.items()
                    if at == epoch
                }
                if values:
                    self.log(epoch, values)
                if self._complete(epoch) and epoch not in self.logged:
                    self._log_mean(epoch)

    def finish(self) -> None:
        """Logs the means of the epochs that not all models reached; for the end of training."""
        with self.lock:
            for epoch in sorted(set(self.of_epoch) - self.logged):
                self._log_mean(epoch)

    def _keep(self, record: Mapping) -> tuple[int, int, dict[str, float]]:
        epoch, m = int(record["epoch"]), int(record["model"])
        numbers = {
            name: value
            for name, value in record.items()
            if name not in ("stage", "model", "epoch") and value is not None
        }
        self.of_epoch.setdefault(epoch, {})[m] = numbers
        return epoch, m, numbers

    def _complete(self, epoch: int) -> bool:
        return len(self.of_epoch[epoch]) == len(self.models)

    def _log_mean(self, epoch: int) -> None:
        self.logged.add(epoch)
        of_model = self.of_epoch[epoch].values()
        names = dict.fromkeys(name for numbers in of_model for name in numbers)
        values = {name: [n[name] for n in of_model if name in n] for name in names}
        if values:
            self.log(epoch, {f"{name}/mean": sum(v) / len(v) for name, v in values.items()})
