"""Defines the layout of a workdir; no other module spells the paths of its files.

```
config.json  run.json  metrics.jsonl     each task of a job array has its own of the last two
tracker/<name>/                          files of a tracker (--tracker=tensorboard)
profile/epoch-<epoch>/                   traces of jax.profiler (run.profile)
jobs/                                    scripts and outputs of the jobs of a cluster (--slurm=8)
design/membership.npz                    who trained on what
train/                Trained            config.json plan.json model/ privacy/ running/ failed/
train/snapshot/<epoch>/                  a Trained of the variables after an epoch
signal/<name>/        Answers            <model>.npy <model>.queries.npy partial/
signal/loss_at/<epoch>/, epoch/<epoch>/signal/   Answers of snapshots
attack/<name>/                           config.json scores.npz
report/               ReportFiles        report.json report.html report.md results.csv ... figures/
models/               ExternalModels     config.json answers/<model>.npz repeated.json
setting/<digest>/     a workdir per setting of a model selection
```

The modules that know the content of a kind of file write and read it, with the functions of
`mia_jax.runtime.files`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mia_jax.runtime import files

Path = pathlib.Path
CLAIM = files.CLAIM  # config.json: which config a folder belongs to


class Trained(NamedTuple):
    """Locates the files of trained models: `train/` of a workdir, or snapshots after an epoch."""

    folder: Path

    @property
    def claim(self) -> Path:
        """Returns the file that records what determines the models."""
        return self.folder / CLAIM

    @property
    def plan(self) -> Path:
        """Returns the file of the training plan: chunk, steps, parameters and memory."""
        return self.folder / "plan.json"

    def model(self, m: int) -> Path:
        """Returns the file of finished model m."""
        return self.folder / "model" / f"{m:05d}.npz"

    def ledger(self, m: int) -> Path:
        """Returns the file of what private training recorded about model m."""
        return self.folder / "privacy" / f"{m:05d}.json"

    def failed(self, m: int) -> Path:
        """Returns the file that records why model m cannot be used."""
        return self.folder / "failed" / f"{m:05d}.json"

    def failed_model(self, m: int) -> Path:
        """Returns the file of the variables of a model whose answers were not finite."""
        return self.failed(m).with_suffix(".npz")

    def running(self, models: Sequence[int], attempt: int = 0) -> Path:
        """Returns the checkpoint of a group of models in training.

        Args:
            models: the models of the group.
            attempt: the number of the attempt; each attempt has its own file.
        """
        retry = f"r{attempt}" if attempt else ""
        group = f"{models[0]:05d}-{models[-1]:05d}x{len(models)}{retry}"
        return self.folder / "running" / f"{group}.npz"

    def running_groups(self) -> list[Path]:
        """Returns the checkpoints of all groups, sorted by name."""
        return sorted((self.folder / "running").glob("[0-9]*.npz"))

    def models(self) -> list[Path]:
        """Returns the files of all finished models, sorted by name."""
        return sorted((self.folder / "model").glob("[0-9]*.npz"))

    def failures(self) -> list[Path]:
        """Returns the records of all models that failed, sorted by name."""
        return sorted((self.folder / "failed").glob("[0-9]*.json"))

    def snapshot(self, epoch: int) -> Trained:
        """Returns the files of the variables as they were after an epoch."""
        return Trained(self.folder / "snapshot" / f"{epoch:05d}")

    def snapshots_of(self, m: int) -> list[Path]:
        """Returns the snapshots of model m, of all epochs."""
        return list(self.folder.glob(f"snapshot/*/model/{m:05d}.npz"))

    def started(self) -> bool:
        """Returns whether any model is finished, in training, or failed."""
        return any(any((self.folder / part).glob("*")) for part in ("model", "running", "failed"))

    def has_models(self) -> bool:
        """Returns whether there is a folder of finished models."""
        return (self.folder / "model").exists()


class Answers(NamedTuple):
    """Locates the files of measured signals: of finished models, or of snapshots after an epoch.

    `name` is the canonical spelling of a signal with its settings (`registry.identity`).
    """

    folder: Path

    def of(self, name: str) -> Path:
        """Returns the folder of one signal."""
        return self.folder / name

    def signal(self, name: str, m: int) -> Path:
        """Returns the file of one signal of one model, an array [A,N,...]."""
        return self.of(name) / f"{m:05d}.npy"

    def counts(self, name: str, m: int) -> Path:
        """Returns the file of how many queries each answer of a model took, [A,N] or [A,N,P]."""
        return self.signal(name, m).with_suffix(".queries.npy")

    def counted(self) -> dict[str, int]:
        """Returns {signal: of how many models there are answers}, sorted by name."""
        names = (path.name for path in self.folder.glob("*") if path.is_dir())
        counts = {name: len(list(self.of(name).glob("[0-9]*[0-9].npy"))) for name in sorted(names)}
        return {name: count for name, count in counts.items() if count}

    def unfinished(self, path: Path) -> Path:
        """Returns the file that keeps the answers of `path` until all of them are computed."""
        return path.parent / "partial" / path.name

    def segment(self, name: str, m: int, start: int, stop: int) -> Path:
        """Returns the file that keeps the answers about the examples start .. stop - 1 until those
        about all examples are computed.
        """
        return self.of(name) / "partial" / f"{m:05d}.rows-{start:010d}-{stop:010d}.npy"

    def segments(self, name: str, m: int) -> list[Path]:
        """Returns the files of all segments of a model's answers, sorted by rows."""
        return sorted((self.of(name) / "partial").glob(f"{m:05d}.rows-*.npy"))

    def segmented(self, name: str) -> list[int]:
        """Returns the models of which there are segments."""
        paths = (self.of(name) / "partial").glob("*.rows-*.npy")
        return sorted({int(path.name.split(".")[0]) for path in paths})

    def losses_after(self, epoch: int) -> Answers:
        """Returns the files of the losses after an epoch, from which loss trajectories are made."""
        return Answers(self.folder / "loss_at" / f"{epoch:05d}")

    def files_of(self, m: int) -> Iterator[Path]:
        """Returns every file of model m."""
        for name in (f"{m:05d}.npy", f"{m:05d}.queries.npy", f"{m:05d}.rows-*.npy"):
            yield from self.folder.rglob(name)

    @property
    def black_box(self) -> Path:
        """Returns the folder of a black box; its name on disk is that of older versions."""
        return self.folder / "oracle"

    @property
    def black_box_log(self) -> Path:
        """Returns the file that logs every query to the black box and its answer."""
        return self.black_box / "log"

    @property
    def older_inputs(self) -> Path:
        """Returns the file in which older versions recorded the models that answered."""
        return self.folder / "inputs.json"


def unanswered(folder: Path) -> Path:
    """Returns the file of the queries to which the user's table of a black box has no answer."""
    return folder / "unanswered.npz"


class ReportFiles(NamedTuple):
    """Locates the files of a report."""

    folder: Path

    @property
    def required(self) -> tuple[Path, ...]:
        """Returns the files that every report has."""
        return self.json, self.markdown, self.results, self.latex

    @property
    def json(self) -> Path:
        """Returns the file of all numbers of the report."""
        return self.folder / "report.json"

    @property
    def markdown(self) -> Path:
        """Returns the file of the report as a page."""
        return self.folder / "report.md"

    @property
    def html(self) -> Path:
        """Returns the file of the report as one interactive page, which opens offline."""
        return self.folder / "report.html"

    @property
    def results(self) -> Path:
        """Returns the CSV file of the rows of report.json."""
        return self.folder / "results.csv"

    @property
    def latex(self) -> Path:
        """Returns the file of the main table in LaTeX."""
        return self.folder / "table.tex"

    @property
    def records(self) -> Path:
        """Returns the CSV file of how exposed every record is."""
        return self.folder / "records.csv"

    @property
    def record_arrays(self) -> Path:
        """Returns the file of how exposed every record is, as arrays."""
        return self.folder / "records.npz"

    @property
    def epochs(self) -> Path:
        """Returns the CSV file of the attacks repeated after epochs."""
        return self.folder / "epochs.csv"

    def figure(self, name: str) -> Path:
        """Returns the file of one figure."""
        return self.folder / "figures" / f"{name}.png"

    def has_figures(self) -> bool:
        """Returns whether figures were drawn."""
        return (self.folder / "figures").is_dir()

    def figures(self) -> list[Path]:
        """Returns the files of all figures, sorted by name."""
        return sorted((self.folder / "figures").glob("*.png"))

    @property
    def pieces(self) -> Path:
        """Returns the folder of what was measured before the report was interrupted."""
        return self.folder / "pieces"

    @property
    def claim(self) -> Path:
        """Returns the file of the report's inputs and of its files' digests; it is written last."""
        return self.folder / CLAIM


class ScoreFiles(NamedTuple):
    """Locates the files of one attack."""

    folder: Path

    @property
    def scores(self) -> Path:
        """Returns the file of score_TN of the models that were scored."""
        return self.folder / "scores.npz"

    @property
    def pieces(self) -> Path:
        """Returns the folder of the scores of single models before the attack was interrupted."""
        return self.folder / "pieces"

    @property
    def claim(self) -> Path:
        """Returns the file that records what determines the scores."""
        return self.folder / CLAIM

    @property
    def older_inputs(self) -> Path:
        """Returns the file in which older versions recorded the signals that were read."""
        return self.folder / "inputs.json"


@dataclasses.dataclass(frozen=True)
class Store:
    """Locates the files of a workdir of one seed.

    Args:
        root: the workdir.
        run: the digest of what determines the models; every file records the run it belongs to.
    """

    root: Path
    run: str = ""

    @property
    def config(self) -> Path:
        """Returns the file of the config as it was last given."""
        return self.root / CLAIM

    def log(self, task: tuple[int, int] | None = None) -> Path:
        """Returns the file of the versions, devices and times of every start.

        Args:
            task: (i, n) for the file of task i of n; None for that of a run without tasks.
        """
        return self.root / ("run.json" if task is None else f"run.task-{task[0]}-of-{task[1]}.json")

    def logs(self) -> list[Path]:
        """Returns the run.json of a run without tasks and those of all tasks that exist."""
        return sorted(self.root.glob("run.json")) + sorted(self.root.glob("run.task-*-of-*.json"))

    def training_metrics(self, task: tuple[int, int] | None = None) -> Path:
        """Returns the file of the training metrics, one JSON object per line.

        Args:
            task: (i, n) for the file of task i of n, because appending to one file is not atomic
                on every file system; None for that of a run without tasks.
        """
        of_task = "" if task is None else f".task-{task[0]}-of-{task[1]}"
        return self.root / f"metrics{of_task}.jsonl"

    def all_training_metrics(self) -> list[Path]:
        """Returns the files of the training metrics of a run without tasks and of all tasks that
        exist; tasks of older versions shared the first.
        """
        first, tasks = self.training_metrics(), self.root.glob("metrics.task-*-of-*.jsonl")
        return [first] * first.exists() + sorted(tasks)

    @property
    def trackers(self) -> Path:
        """Returns the folder of the files of all trackers."""
        return self.root / "tracker"

    def tracker(self, name: str, task: tuple[int, int] | None = None) -> Path:
        """Returns the folder of the files of one tracker; each task of a job array has its own."""
        folder = self.trackers / name
        return folder if task is None else folder / f"task-{task[0]}-of-{task[1]}"

    @property
    def profiles(self) -> Path:
        """Returns the folder of the traces of all profiled epochs."""
        return self.root / "profile"

    def profile(self, epoch: int) -> Path:
        """Returns the folder of the traces of one epoch, a subfolder per start of the run."""
        return self.profiles / f"epoch-{epoch:05d}"

    @property
    def jobs(self) -> Path:
        """Returns the folder of the scripts and the outputs of the jobs of a cluster."""
        return self.root / "jobs"

    def job_script(self, stage: str) -> Path:
        """Returns the file of the batch script of one stage."""
        return self.jobs / f"{stage}.sh"

    def job_output(self, stage: str, *, array: bool) -> Path:
        """Returns the file of what a job prints; '%a' is its number in an array."""
        return self.jobs / (f"{stage}-%a.out" if array else f"{stage}.out")

    def job_outputs(self) -> list[Path]:
        """Returns the files of what the jobs of a cluster printed, sorted by name."""
        return sorted(self.jobs.glob("*.out"))

    @property
    def membership(self) -> Path:
        """Returns the file that records which model trained on which examples."""
        return self.root / "design" / "membership.npz"

    @property
    def train(self) -> Trained:
        """Returns the files of the trained models."""
        return Trained(self.root / "train")

    @property
    def answers(self) -> Answers:
        """Returns the files of the measured signals."""
        return Answers(self.root / "signal")

    def after(self, epoch: int) -> Answers:
        """Returns the files of the signals after an epoch, for the report over epochs."""
        return Answers(self.root / "epoch" / f"{epoch:05d}" / "signal")

    def answers_of(self, m: int) -> Iterator[Path]:
        """Returns every file of answers of model m, including those of snapshots."""
        for folder in (self.root / "signal", self.root / "epoch"):
            yield from Answers(folder).files_of(m)

    @property
    def attacks(self) -> Path:
        """Returns the folder of the scores of all attacks."""
        return self.root / "attack"

    def attack(self, name: str) -> ScoreFiles:
        """Returns the files of one attack."""
        return ScoreFiles(self.attacks / name)

    def attacked(self) -> list[ScoreFiles]:
        """Returns the files of every attack that has a claimed folder on disk."""
        return [ScoreFiles(path.parent) for path in sorted(self.attacks.glob(f"*/{CLAIM}"))]

    @property
    def report(self) -> ReportFiles:
        """Returns the files of the report."""
        return ReportFiles(self.root / "report")

    @property
    def external_models(self) -> ExternalModels:
        """Returns the answers of models that the user's own `fit` trained."""
        return ExternalModels(self.root / "models")

    def setting(self, digest: str) -> Store:
        """Returns the workdir of one setting of a model selection."""
        return Store(self.root / "setting" / digest)

    def has_settings(self) -> bool:
        """Returns whether a model of any setting was trained."""
        every = (self.root / "setting").glob("*")
        return any(Store(folder).external_models.has_answers() for folder in every)

    def holds(self, stage: str) -> bool:
        """Returns whether the workdir holds anything of a stage: 'train', 'query' or 'attack'."""
        if stage == "train":
            return self.train.has_models()
        return dict(query=self.answers.folder, attack=self.attacks)[stage].exists()

    def provenance(self) -> set[str]:
        """Returns the names of the files that describe runs and hold no results."""
        metrics = {path.name for path in self.all_training_metrics()}
        return {self.config.name, self.log().name, *metrics}


def kept_digests(file: str) -> Path:
    """Returns the file, in the user's cache, of the digests of the rows of a large file.

    Args:
        file: the digest of what identifies that file.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return caches / "mia_jax" / "rows" / f"{file}.npy"


def seed_folder(root: Path, seed: int) -> Path:
    """Returns the workdir of one of several seeds."""
    return root / f"seed-{seed}"


def runs_below(root: Path) -> list[Path]:
    """Returns the workdirs of single runs that a path stands for: itself, or those of its seeds or
    variants, sorted by name.
    """
    if Store(root).config.exists() or Store(root).logs():
        return [root]
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    return [folder for folder in folders if Store(folder).logs()] or [root]


def debug_folder(root: Path) -> Path:
    """Returns the workdir of a run with --debug."""
    return root / "debug"


class ExternalModels(NamedTuple):
    """The files of models that the user's own `fit` trained: `models/` of an audit's folder."""

    folder: Path

    @property
    def claim(self) -> Path:
        """Returns the file that says of which rows, labels, members and seed the models are."""
        return self.folder / CLAIM

    def answers(self, m: int) -> Path:
        """Returns the file of what model m answers about all rows."""
        return self.folder / "answers" / f"{m:05d}.npz"

    def has_answers(self) -> bool:
        """Returns whether the answers of any model are there."""
        return any(self.answers(0).parent.glob("[0-9]*.npz"))

    @property
    def repeated(self) -> Path:
        """Returns the file that says by how much two fits of model 0 differed."""
        return self.folder / "repeated.json"


class SavedResults(NamedTuple):
    """Locates the files of `mia_jax.Results.save`."""

    folder: Path

    @property
    def report(self) -> ReportFiles:
        """Returns the files of the report, in the folder itself."""
        return ReportFiles(self.folder)

    @property
    def evidence(self) -> Path:
        """Returns the file of the membership and of the evaluated rows of the targets."""
        return self.folder / "evidence.npz"

    def scores(self, attack: str) -> Path:
        """Returns the file of the scores of one attack."""
        return self.folder / "scores" / f"{attack}.npz"

    def all_scores(self) -> list[Path]:
        """Returns the files of the scores of all attacks, sorted by name."""
        return sorted((self.folder / "scores").glob("*.npz"))


def report_json(path: Path) -> Path:
    """Returns the report.json that a path names: itself, or that of a folder of a report or of
    saved Results, or of a workdir.

    Raises:
        FileNotFoundError: there is none; the message says where it was looked for.
    """
    if path.is_file():
        return path
    places = (ReportFiles(path).json, Store(path).report.json)
    there = [place for place in places if place.is_file()]
    if not there:
        looked = " or ".join(str(place) for place in places) if path.is_dir() else str(path)
        raise FileNotFoundError(
            f"no report: there is no {looked}. Name a report.json, the workdir of a finished run, "
            "or the folder of saved Results."
        )
    return there[0]


def reports_below(path: Path) -> tuple[list[Path], list[str]]:
    """Returns the report.json files that a path names, and the runs below it that have none.

    Args:
        path: what `report_json` takes, or the folder of a grid, whose runs have a folder each.

    Raises:
        FileNotFoundError: there is no report.
    """
    try:
        return [report_json(path)], []
    except FileNotFoundError:
        folders = sorted(child for child in path.glob("*") if child.is_dir())
        reports, without = [], []
        for folder in folders:
            try:
                reports.append(report_json(folder))
            except FileNotFoundError:
                if Store(folder).config.exists():
                    without.append(folder.name)
        if not reports:
            raise
        return reports, without


def workdir_of(report: Path) -> Store | None:
    """Returns the workdir of a report.json; None if it is not in one."""
    store = Store(report.resolve().parent.parent)
    inside = store.report.json == report.resolve() and store.config.exists()
    return store if inside else None


def run_parts(report: Path) -> tuple[str, ...]:
    """Returns the parts of the path that name the run of a report.json, the most general first.

    >>> run_parts(Path("/runs/a/report/report.json")), run_parts(Path("/runs/b.json"))
    (('/', 'runs', 'a'), ('/', 'runs', 'b.json'))
    """
    if report.name != ReportFiles(report.parent).json.name:
        return report.parts
    folder = report.parent
    return (folder.parent if folder == Store(folder.parent).report.folder else folder).parts


def tracked_lines(folder: Path) -> Path:
    """Returns the file of the tracker 'jsonl' in its folder."""
    return folder / "metrics.jsonl"


class MonitorFiles(NamedTuple):
    """Locates the files of a `mia_jax.Monitor`."""

    folder: Path

    @property
    def rows(self) -> Path:
        """Returns the file of what was measured after every epoch, one JSON object per line."""
        return tracked_lines(self.folder)

    @property
    def table(self) -> Path:
        """Returns the file of the table over epochs, as text."""
        return self.folder / "monitor.txt"

    @property
    def figure(self) -> Path:
        """Returns the file of the figure over epochs."""
        return self.folder / "monitor.png"

    def tracker(self, name: str) -> Path:
        """Returns the folder of the files of one tracker."""
        return Store(self.folder).tracker(name)


class GridFiles(NamedTuple):
    """Locates the files of a grid: one workdir per variant, and what is written over all."""

    folder: Path

    def variant(self, name: str) -> Path:
        """Returns the workdir of one variant."""
        return self.folder / name

    def table(self, ending: str) -> Path:
        """Returns the file of the table over the variants, with the ending 'csv', 'md' or 'png'."""
        return self.folder / f"table.{ending}"

    @property
    def epochs(self) -> Path:
        """Returns the file of the figure over epochs."""
        return self.folder / "epochs.png"

    def matrix(self, ending: str) -> Path:
        """Returns a file of the matrix of defenses and attacks: 'json', 'md', 'html' or 'png'."""
        return self.folder / "report" / f"matrix.{ending}"
