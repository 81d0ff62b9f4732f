"""Measures what a model reveals about its training data while it is trained: `mia_jax.Monitor`.

The attack is chosen before the training, because the best of several after every epoch would look
stronger than it is. A stop by a limit is a sequential test, one look per measured epoch: `share`
says how its probability of error is spent.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mia_jax import checks, registry, threat_model, trackers
from mia_jax.external import answers as asked
from mia_jax.external import arrays, default_attacks, frameworks, models, rows
from mia_jax.external import labels as label_columns
from mia_jax.external.arrays import Supplied
from mia_jax.external.frameworks import Predictor
from mia_jax.measures import gate
from mia_jax.metrics import bootstrap, outcomes, summary
from mia_jax.pipeline import build_attacks
from mia_jax.report import tables
from mia_jax.runtime import files, precision
from mia_jax.runtime.store import MonitorFiles

FPR = 0.01
OTHER = "Give this monitor another folder=, or pass what is on disk."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leakage:
    """Holds what was measured after one epoch, of the first attack of the monitor.

    Attributes:
        epoch: the number of the epoch.
        attack: the name of the attack.
        auc, auc_low, auc_high: its AUC with interval; the ends are None with too few rows.
        tpr, tpr_low, tpr_high: its TPR at 1% FPR; None with fewer than 100 non-members.
        member_accuracy, nonmember_accuracy: the model's accuracies; None without classes.
        stop: whether this epoch exceeds a limit.
    """

    epoch: int
    attack: str
    auc: float
    auc_low: float | None
    auc_high: float | None
    tpr: float | None
    tpr_low: float | None
    tpr_high: float | None
    member_accuracy: float | None
    nonmember_accuracy: float | None
    stop: bool


class Monitor:
    """Measures leakage after epochs, from any training loop.

    `monitor(epoch, logits)` takes the model's answers about all rows; `torch`, `keras`, `flax` and
    `asks` ask a model themselves. `rows`, `table()` and `plot()` show all epochs, `stop` says
    whether a limit was exceeded.

    Args:
        x: the rows, members and non-members; only for a monitor that asks the model itself.
        y: the labels of all rows, of any kind; None if only losses are passed.
        member: True for the rows that the model is trained on.
        every: measures each epoch that is divisible by it, and the last one if `epochs` is given.
        limit: such as 'auc <= 0.6' or 'tpr@1% <= 5%', one or several. The training should stop when
            an interval's lower end passes the limit; over all epochs this happens to a model
            within the limits with probability 1 - level at most.
        epochs: the planned number of epochs. With it the test has the same power at every look;
            without it the power falls with every look, and no epoch is too late.
        attacks: the attacks, named before the training; each must do with the answers of the
            model alone. The first one is what `Leakage` and the figure's title are about.
        fprs: the false-positive rates of tpr@FPR; 0.01 is always one.
        form: 'logits', 'probs' or 'predictions'; None reads it from the values.
        batch_size: rows per call of a model.
        device: where a PyTorch model is asked; None: where it is.
        draws: bootstrap draws per interval.
        seed: the seed of attacks and draws.
        level: the confidence level of the intervals.
        folder: keeps what was measured after every epoch; a monitor of the same data and settings
            continues from it.
        tracker: a name such as 'tensorboard', an object with log(step, values) and close(), or
            a list of both.

    Raises:
        ValueError: an argument cannot be used, or the folder belongs to other data or settings.

    >>> rng = np.random.default_rng(0)
    >>> member = np.arange(400) < 200
    >>> y = rng.integers(0, 2, 400)
    >>> logits = rng.normal(size=(400, 2)) + 3 * np.eye(2)[y] * member[:, None]
    >>> monitor = Monitor(y=y, member=member, limit="auc <= 0.6", draws=40)
    >>> leakage = monitor(1, logits)
    >>> leakage.auc_low > 0.6, monitor.stop
    (True, True)
    """

    def __init__(
        self,
        x=None,
        y=None,
        member=None,
        *,
        every: int = 1,
        limit: str | Sequence[str] | None = None,
        epochs: int | None = None,
        attacks: Mapping | Sequence[str] | str = "threshold_loss",
        fprs: Sequence[float] = (FPR,),
        form: str | None = None,
        batch_size: int | None = None,
        device=None,
        draws: int = 200,
        seed: int = 0,
        level: float = 0.95,
        folder: str | pathlib.Path | None = None,
        tracker=None,
    ):
        checks.at_least(1, every=every)
        checks.at_least(40, draws=draws)
        checks.at_least(0, seed=seed)
        checks.fraction(closed="neither", level=level)
        checks.fraction(closed="neither", **{f"fprs: {fpr}": fpr for fpr in fprs})
        if epochs is not None:
            checks.at_least(1, epochs=epochs)
        asked.check_form(form)
        if member is None:
            raise ValueError(
                "member=... is missing; pass True for every row that the model is trained on, "
                "False for the others."
            )
        counted = member if x is None and y is None else y if x is None else x
        count = rows.count(
            counted, name="x" if x is not None else "y" if y is not None else "member"
        )
        self.member_N = models.member_of(member, count)
        self.labels = None if y is None else label_columns.read(y)
        if self.labels is not None and len(self.labels.code_N) != count:
            raise ValueError(f"y has {len(self.labels.code_N)} rows and x {count}.")
        self.x, self.every, self.epochs, self.form = x, int(every), epochs, form
        self.batch_size, self.device = batch_size, device
        self.draws, self.seed, self.level = int(draws), int(seed), float(level)
        self.fprs = tuple(sorted({FPR, *map(float, fprs)}))
        self.attacks = named(attacks)
        self.limits = [self._limit(text) for text in _texts(limit)]
        self.rows: list[dict] = []
        self.looks, self.notes = 0, self.labels.notes if self.labels is not None else ()
        self._answers: dict[int, str] = {}
        self._form: str | None = None  # as which the answers of the first epoch were read
        self._warned = False
        self.files = (
            None if folder is None else MonitorFiles(files.folder_at(folder, argument="folder"))
        )
        self.trackers = trackers.make(
            tracker, place=None if self.files is None else self.files.tracker
        )
        self._claim = self._settings(y)
        if self.files is not None:
            files.claim(self.files.folder, self._claim, remedy=OTHER)
            self._continue()

    # --- measuring ---

    def __call__(self, epoch: int, answers=None, *, loss=None) -> Leakage | None:
        """Measures one epoch.

        Args:
            epoch: its number, from 0 or 1 on. The same answers again change nothing; other answers
                of an epoch that was measured mean that the training went back to it.
            answers: logits, probabilities [N,C] or predictions of all rows, in their order: a NumPy
                or JAX array or a PyTorch tensor.
            loss: the losses [N] of all rows, instead of answers.

        Returns:
            What was measured; None for an epoch that is not measured (`due`).

        Raises:
            ValueError: the answers cannot be used.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int | np.integer) or epoch < 0:
            raise ValueError(f"epoch={epoch!r} must be a whole number >= 0.")
        if (answers is None) == (loss is None):
            raise ValueError("pass the answers of the model about all rows, or loss=..., not both.")
        if not self.due(epoch):
            return None
        if loss is not None:
            value = on_host(loss)
            return self._measure(int(epoch), value, lambda: self._of_loss(value))
        if self.labels is None:
            raise ValueError(
                "answers need the labels: pass y=... to the monitor, or loss=... here."
            )
        value = on_host(answers)
        predictor = Predictor(lambda rows: _of(value, rows, self.member_N), None, None, "the model")
        return self._asked(int(epoch), predictor, np.arange(len(self.member_N)), "the model")

    def due(self, epoch: int) -> bool:
        """Returns whether an epoch is measured; others need no answers."""
        return epoch % self.every == 0 or epoch == self.epochs

    @property
    def stop(self) -> bool:
        """Returns whether a limit was exceeded at an epoch."""
        return any(row["stop"] for row in self.rows)

    def asks(self, model, *, framework: str | None = None) -> Callable[[int], Leakage | None]:
        """Returns monitor(epoch) that asks a model of any framework itself.

        The model is asked in evaluation mode and put back as it was.

        Args:
            model: what `predict=` of mia_jax.audit takes, such as a fitted estimator.
            framework: the name of its adapter; None recognizes it.
        """
        if self.x is None:
            raise ValueError("the monitor asks the model about x=..., which was not passed.")

        def ask(epoch: int) -> Leakage | None:
            if not self.due(epoch):
                return None
            predictor = frameworks.predictor(
                model,
                framework=framework,
                batch_size=self.batch_size,
                device=self.device,
                argument="model",
            )
            return self._asked(epoch, predictor, self.x, "model")

        return ask

    def torch(self, model) -> Callable[[int], Leakage | None]:
        """Returns monitor(epoch) that asks a torch.nn.Module, in evaluation mode and without
        gradients; afterwards the module is as it was.
        """
        return self.asks(model, framework="torch")

    def keras(self):
        """Returns a keras.callbacks.Callback for fit(callbacks=[...]): measures at the end of
        epochs (1, 2, ...) and sets stop_training when a limit is exceeded.
        """

        def ended(model, epoch: int) -> bool:
            self.asks(model, framework="keras")(epoch)
            return self.stop

        if self.x is None:
            raise ValueError("the monitor asks the model about x=..., which was not passed.")
        return registry.load("frameworks", "keras").after_epochs(ended)

    def flax(self, apply: Callable) -> Callable[[int, object], Leakage | None]:
        """Returns monitor(epoch, params) that asks apply(params, x) in batches.

        Args:
            apply: a function of parameters (of any kind) and rows in inference mode, such as
                jax.jit(lambda params, x: net.apply({'params': params}, x)).
        """

        def ask(epoch: int, params) -> Leakage | None:
            return self.asks(lambda x: apply(params, x), framework="function")(epoch)

        return ask

    # --- showing ---

    def table(self) -> str:
        """Returns a table over epochs as text."""
        inside, outside = int(self.member_N.sum()), int((~self.member_N).sum())
        head = (
            f"Leakage to {', '.join(self.attacks)}, chosen before the training: {inside:,} "
            f"members, {outside:,} non-members, {100 * self.level:.3g}% intervals"
        )
        if self.limits:
            asked_for = ", ".join(limit.text for limit in self.limits)
            head += f"; limit {asked_for}, p corrected for all looks"
        if not self.rows:
            return f"{head}. No epoch was measured."
        metrics = ["auc", *(f"tpr@{fpr:g}" for fpr in self.fprs)]
        header = ["epoch", "attack", *map(tables.metric_name, metrics)]
        header += ["accuracy, members", "non-members", *(["p", "stop"] if self.limits else [])]
        lines = []
        for row in self.rows:
            line = [str(row["epoch"]), row["attack"], *(_interval(row, m) for m in metrics)]
            line += [_shown(row["member_accuracy"]), _shown(row["nonmember_accuracy"])]
            if self.limits:
                line += [_shown(row["p"]), "stop" if row["stop"] else ""]
            lines.append(line)
        return "\n".join([head + ".", *tables.text_table(header, lines)])

    def plot(self, metric: str = "auc"):
        """Returns a matplotlib figure: leakage over epochs with its band, and accuracies below.

        Args:
            metric: 'auc', or 'tpr@0.01' and the like.

        Raises:
            ValueError: nothing was measured, or there is no such metric.
        """
        checks.one_of(["auc", *(f"tpr@{fpr:g}" for fpr in self.fprs)], metric=metric)
        if not self.rows:
            raise ValueError("no epoch was measured yet, so there is nothing to draw.")
        from mia_jax.report import figures

        limits = [limit.most for limit in self.limits if limit.metric == metric]
        return figures.training(self.rows, metric, limits=limits)

    def save(self, folder: str | pathlib.Path | None = None) -> pathlib.Path:
        """Writes the rows, the table and the figure into a folder and returns it.

        Args:
            folder: None: the monitor's own.

        Raises:
            ValueError: there is no folder, or it belongs to other data or settings.
        """
        if folder is None and self.files is None:
            raise ValueError("the monitor has no folder; pass save(folder).")
        place = (
            self.files
            if folder is None
            else MonitorFiles(files.folder_at(folder, argument="folder"))
        )
        assert place is not None
        files.claim(place.folder, self._claim, remedy=OTHER)
        if self.files is None or place.folder.resolve() != self.files.folder.resolve():
            files.write(place.rows, lambda file: None)
            files.append_jsonl(place.rows, self._records())
        files.write_text(place.table, self.table() + "\n")
        if self.rows:
            from mia_jax.report import figures

            figures.save(self.plot(), place.figure)
        return place.folder

    def close(self) -> None:
        """Closes the trackers."""
        self.trackers.close()

    # --- within ---

    def _limit(self, text: str) -> gate.Limit:
        """Returns a limit; ValueError in the words of the monitor."""
        metrics = ["auc", *(f"tpr@{fpr:g}" for fpr in self.fprs)]
        try:
            return gate.parse(text, metrics)
        except ValueError as error:
            words = str(error).replace("this report has", "this monitor has")
            words = words.replace("Metrics of this report", "Metrics of this monitor")
            raise ValueError(
                words.replace("a setting of the audit (report.fprs)", "the argument fprs=(0.001,)")
            ) from error

    def _settings(self, y) -> dict:
        """Returns what a folder is claimed by: the data and all that decides about numbers."""
        return dict(
            labels="" if y is None else rows.digest(y),
            member=files.digest(self.member_N),
            attacks={name: dict(section) for name, section in self.attacks.items()},
            limits=[limit.text for limit in self.limits],
            every=self.every,
            epochs=self.epochs,
            fprs=self.fprs,
            form=self.form,
            draws=self.draws,
            seed=self.seed,
            level=self.level,
        )

    def _asked(self, epoch: int, predictor: Predictor, x, name: str) -> Leakage | None:
        """Measures what a model answers about all rows."""
        form = self.form if self.form is not None else predictor.form
        answer = asked.ask(predictor, x, self.labels, form=form, name=name)
        return self._measure(epoch, answer.value, lambda: self._of_answers(answer))

    def _of_answers(self, answer: asked.Answers) -> Supplied:
        if self._form not in (None, answer.form):
            raise ValueError(
                f"the answers look like {answer.form}, and those of earlier epochs like "
                f"{self._form}; pass the same at every epoch, or say what they are: "
                f"Monitor(..., form={self._form!r})."
            )
        made, more = models.in_one_form([answer], [], self.labels)
        if self._form is None:
            self._form = answer.form
            self.notes = tuple(dict.fromkeys([*self.notes, *answer.notes, *more]))
        return arrays.build(made | dict(member=self.member_N), name="monitor", seed=self.seed)

    def _of_loss(self, loss: np.ndarray) -> Supplied:
        return arrays.build(dict(loss=loss, member=self.member_N), name="monitor", seed=self.seed)

    def _measure(self, epoch: int, value: np.ndarray, supply: Callable[[], Supplied]) -> Leakage:
        digest = files.digest(np.asarray(value))
        if self._answers.get(epoch) != digest:
            supplied = supply()
            self.rows = [row for row in self.rows if row["epoch"] < epoch]
            self._answers = {at: kept for at, kept in self._answers.items() if at < epoch}
            self.looks += 1
            measured = self._look(epoch, supplied)
            self.rows += measured
            self._answers[epoch] = digest
            if self.files is not None:
                files.append_jsonl(self.files.rows, self._records(epoch))
            for row in measured:
                self.trackers.log(epoch, _numbers(row))
        return _leakage(next(row for row in self.rows if row["epoch"] == epoch))

    def _look(self, epoch: int, supplied: Supplied) -> list[dict]:
        """Returns a row per attack."""
        fleet = threat_model.FleetSignals(
            design=supplied.design,
            signal=supplied.signal,
            num_classes=supplied.pool.num_classes,
            y=supplied.pool.y,
        )
        target, sections = supplied.design.of_targets(), self.attacks
        counts = bootstrap.make(len(self.member_N), target.unit_T, draws=self.draws, seed=self.seed)
        with precision.single():
            made = build_attacks.make_attacks(sections)
            planned = build_attacks.plan_attacks(made, sections, seed=self.seed)
            for name, attack in made.items():
                reason = default_attacks.why_not(name, attack, supplied, fleet)
                if reason:
                    raise ValueError(
                        f"attacks: {name!r} cannot be run on the answers of one model: {reason}."
                    )
            evidence = {
                plan.name: dict(
                    score_TN=plan.attack.score(
                        fleet.evidence_against(0, plan.attack.needs, plan.knows), plan.key
                    )[None],
                    knows=plan.knows,
                )
                for plan in planned
            }
        numbers = summary.rows(
            evidence,
            target.member_TN,
            target.evaluated_TN,
            draws=counts,
            fprs=self.fprs,
            level=self.level,
        )
        of = {(row["attack"], row["metric"]): row for row in numbers if row["target"] is None}
        spent = share(self.looks, self._planned) / max(1, len(self.limits) * len(evidence))
        self._warn(epoch)
        made_rows = []
        for name, attack in evidence.items():
            row: dict = dict(epoch=epoch, attack=name, look=self.looks)
            for metric in ("auc", *(f"tpr@{fpr:g}" for fpr in self.fprs)):
                number = of[name, metric]
                row |= {metric: number["value"]}
                row |= {f"{metric}_low": number["low"], f"{metric}_high": number["high"]}
            row |= self._of_model(supplied)
            p_values = [
                self._p(attack["score_TN"][0], of[name, limit.metric], limit, spent)
                for limit in self.limits
            ]
            row |= dict(p=min(p_values, default=None))
            made_rows.append(row | dict(stop=any(p <= 1 - self.level for p in p_values)))
        return made_rows

    @property
    def _planned(self) -> int | None:
        return None if self.epochs is None else -(-self.epochs // self.every)

    def _warn(self, epoch: int) -> None:
        """Warns once that an epoch is beyond the plan."""
        if self.limits and self.epochs is not None and epoch > self.epochs and not self._warned:
            self._warned = True
            warnings.warn(
                f"epoch {epoch} is beyond epochs={self.epochs}, for which the limit was planned: "
                "no later epoch can exceed it.",
                stacklevel=6,
            )

    def _p(self, score_N: np.ndarray, row: Mapping, limit: gate.Limit, spent: float) -> float:
        """Returns the p-value of 'at most the limit' after correction for all looks.

        It is two-sided, divided by the share of the error that this look may spend. Of an AUC it is
        the gate's. Of a TPR it is that of the exact interval, however few rows decide: the
        bootstrap does not know such small probabilities.
        """
        if spent == 0 or row["value"] is None:
            return 1.0
        if limit.metric == "auc":
            p = gate.p_above(row, limit.most, self.level)
            return 1.0 if p is None else min(1.0, p / spent)
        fpr = float(limit.metric.partition("@")[2])
        return min(1.0, 2 * outcomes.box_p(score_N, self.member_N, fpr, limit.most) / spent)

    def _of_model(self, supplied: Supplied) -> dict:
        """Returns the model's accuracies and mean losses on members and non-members."""
        values: dict = {}
        for name, signal in dict(accuracy="correct", loss="loss").items():
            value_N = supplied.signal[signal][0].mean(0) if signal in supplied.signal else None
            for side, row_N in dict(member=self.member_N, nonmember=~self.member_N).items():
                values[f"{side}_{name}"] = None if value_N is None else float(value_N[row_N].mean())
        return values

    def _records(self, epoch: int | None = None) -> list[dict]:
        """Returns the lines of the file of rows, of one epoch or of all."""
        return [
            row | dict(answers=self._answers[row["epoch"]], form=self._form)
            for row in self.rows
            if epoch is None or row["epoch"] == epoch
        ]

    def _continue(self) -> None:
        """Reads what earlier processes measured."""
        assert self.files is not None
        if not self.files.rows.exists():
            return
        looks: dict[int, dict[str, dict]] = {}
        for record in files.read_jsonl(self.files.rows):
            if {"look", "epoch", "attack", "answers", "stop"} <= set(record):
                looks.setdefault(record["look"], {})[record["attack"]] = record
        for look, records in sorted(looks.items()):
            self.looks = max(self.looks, look)
            if set(records) != set(self.attacks):
                continue  # its process was killed while it wrote
            first = next(iter(records.values()))
            epoch, self._form = first["epoch"], first["form"]
            self.rows = [row for row in self.rows if row["epoch"] < epoch]
            self._answers = {at: kept for at, kept in self._answers.items() if at < epoch}
            self._answers[epoch] = first["answers"]
            self.rows += [
                {
                    key: value
                    for key, value in records[name].items()
                    if key not in ("answers", "form")
                }
                for name in self.attacks
            ]


def share(look: int, planned: int | None) -> float:
    """Returns which share of the probability of error look number `look` (1, 2, ...) may spend.

    The shares of all looks sum to 1 at most, so that the probability that any look errs is at most
    the sum of theirs, however they depend on each other: 1/planned each, and 0 after the plan;
    6/(pi^2 look^2) without a plan.

    >>> share(1, 4), share(5, 4), round(share(1, None), 3)
    (0.25, 0.0, 0.608)
    """
    if planned is not None:
        return 1 / planned if look <= planned else 0.0
    return 6 / (math.pi * look) ** 2


def named(attacks) -> dict[str, dict]:
    """Returns {name: section} of the attacks of a monitor.

    Raises:
        ValueError: there is no such attack, or none is named.

    >>> named("threshold_loss")
    {'threshold_loss': {'name': 'threshold', 'signal': 'loss'}}
    """
    if isinstance(attacks, Mapping):
        sections = {str(name): dict(dict(name=name) | fields) for name, fields in attacks.items()}
    else:
        names = (
            [name.strip() for name in attacks.split(",")] if isinstance(attacks, str) else attacks
        )
        sections = {str(name): default_attacks.section(str(name)) for name in names}
    if not sections:
        raise ValueError("attacks= is empty; name one, such as 'threshold_loss'.")
    return sections


def on_host(value) -> np.ndarray:
    """Returns a NumPy array of an array or a tensor on any device, with or without gradients."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        if value.dtype.is_floating_point and value.dtype.itemsize < 4:
            value = value.float()  # bfloat16 has no dtype in NumPy
    return np.asarray(value)


def _of(value: np.ndarray, rows: np.ndarray, member_N: np.ndarray) -> np.ndarray:
    """Returns the answers about some rows; all of them where their number is wrong, which is then
    refused with the shape that was passed.
    """
    return value[rows] if value.shape[:1] == member_N.shape else value


def _texts(limit) -> list[str]:
    if limit is None:
        return []
    return [limit] if isinstance(limit, str) else list(limit)


def _numbers(row: Mapping) -> dict[str, float]:
    """Returns what trackers get of a row."""
    skipped = ("epoch", "attack", "look", "stop")
    return {
        f"{row['attack']}/{key}": value
        for key, value in row.items()
        if key not in skipped and value is not None
    }


def _leakage(row: Mapping) -> Leakage:
    return Leakage(
        epoch=row["epoch"],
        attack=row["attack"],
        **{f"auc{end}": row[f"auc{end}"] for end in ("", "_low", "_high")},
        **{f"tpr{end}": row[f"tpr@{FPR:g}{end}"] for end in ("", "_low", "_high")},
        member_accuracy=row["member_accuracy"],
        nonmember_accuracy=row["nonmember_accuracy"],
        stop=row["stop"],
    )


def _shown(value: float | None) -> str:
    return (
        tables.ABSENT if value is None else f"{value:.3g}" if 0 < value < 0.001 else f"{value:.3f}"
    )


def _interval(row: Mapping, metric: str) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    ends = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return _shown(row[metric]) + ends
