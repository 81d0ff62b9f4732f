"""Audits how much a trained model reveals about its training data.

    mia-jax --config=quickstart --workdir=runs/quickstart

`python -m mia_jax` is the same command, and so is `python launch.py` in a checkout. A config is the
name of a shipped one (--list=configs) or a file, such as --config=configs/quickstart.py. It takes
arguments after a colon and any of its fields as a flag, in any order; several seeds repeat the run
and report mean and sd:

    mia-jax --config=quickstart:models=16,quick --workdir=runs/small
    --config.learner.learning_rate=0.1 --config.seed=0,1,2
    mia-jax --config=quickstart --workdir=runs/cnn --config.data.flat=false
    --config.model.name=small_cnn --attacks=+rmia,-gap

--list=attacks, --list=models, --list=fields:learner, ... print what can be chosen, and --list=kinds
prints these lists; they need no config. A list is typed as a,b,c. A config file is Python code that
runs, and model.name, model.path and target.black_box may import modules: run only configs that you
trust.

A file that defines grid() is a list of runs to compare: --grid runs them one after the other in
workdir/<name> and writes workdir/table.md.

The run has four stages (train, query, attack, report) that exchange plain files in the workdir. The
same command continues an interrupted run and skips what is done. A workdir of another config is not
touched, and the differing keys are named. The result is workdir/report/report.html (--open opens
it) and report.md.

On a cluster, --task=0/8 .. --task=7/8 train shares of one fleet at the same time (docs/slurm.sh is
an array job). On SIGTERM, SIGUSR1 or Ctrl-C, a run saves its state and exits with code 75 within 20
seconds; the same command resumes it. A second signal stops it at once. A model that diverges does
not end the run: it is left out and the report says so; --config.run.retries=1 trains it again with
another key.
"""

import contextlib
import importlib.util
import json
import logging
import os
import pathlib
import re
import sys
import traceback
import webbrowser

PACKAGES = (  # what pyproject.toml depends on, as modules
    "absl",
    "ml_collections",
    "jax",
    "flax",
    "optax",
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "jinja2",
    "markdown_it",
    "PIL",
    "tqdm",
    "threadpoolctl",
    "dp_accounting",
)


ROOT = pathlib.Path(__file__).resolve().parents[1]  # of a checkout, or site-packages


def check_packages(root: pathlib.Path = ROOT) -> None:
    """Exits with one sentence if this Python is too old or lacks packages.

    In a checkout the virtual environment is most often not active; of an installed package, which
    `root` shows by having no pyproject.toml, dependencies were left out or removed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    old = sys.version_info < (3, 11)
    if not (missing or old):
        return
    version = ".".join(map(str, sys.version_info[:2]))
    lack = f"is {version} and 3.11 is needed" if old else f"has no {', '.join(missing)}"
    if not (root / "pyproject.toml").exists():
        install = "-m pip install --upgrade --force-reinstall mia_jax"
        remedy = (
            "make a virtual environment with a newer one and type `pip install mia_jax` there"
            if old
            else f"type `{sys.executable} {install}`"
        )
    elif (root / ".venv").exists():
        remedy = "type `. .venv/bin/activate`"
    else:
        remedy = (
            "type `make quickstart`, which installs them into .venv, and `. .venv/bin/activate`"
        )
    sys.exit(
        f"error: this Python ({sys.executable}) {lack}; {remedy}, then the same command again."
    )


check_packages()

from absl import app, flags  # noqa: E402

from mia_jax.configuration import command_line  # noqa: E402

_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "The experiment: the name of a shipped config (--list=configs) or a file, with its arguments "
    "after a colon. Its fields are flags: --config.learner.epochs=10.",
)
_ATTACKS = flags.DEFINE_string(
    "attacks",
    "",
    "Attacks to run: '+rmia,-gap' adds and removes, 'lira,rmia' runs only these; default: those of "
    "the config.",
)
_LIST = flags.DEFINE_string(
    "list",
    "",
    "Print what can be chosen and stop: attacks, models, signals, data, designs, objectives, "
    "learners, optimizers, schedules, defenses, configs, fields:learner, fields:model:mlp, ...; "
    "kinds lists them.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; created if absent.")
_STAGES = flags.DEFINE_list(
    "stages",
    ["train", "query", "attack", "report"],
    "Stages to run, in their order; finished work is skipped.",
)
_EXTEND = flags.DEFINE_bool(
    "extend",
    False,
    "Let the fleet of this workdir grow to the config's number of models; the first ones are kept.",
)
_DEBUG = flags.DEFINE_bool(
    "debug",
    False,
    "Run a tiny fleet in workdir/debug without jit; NaN raises where it arises, and tracebacks are "
    "complete.",
)
_GRID = flags.DEFINE_bool(
    "grid",
    False,
    "Run every variant of the config file's grid() in workdir/<name> and write a table over them.",
)
_CACHE = flags.DEFINE_string(
    "compile_cache",
    "auto",
    "Folder of compiled programs, kept between runs; 'auto' is ~/.cache/mia_jax/xla, 'off' keeps "
    "none.",
)
_TASK = flags.DEFINE_string(
    "task",
    "",
    "i/n, one of n jobs on one workdir: trains its share of the models; with --stages=query asks "
    "its share of the models, with --stages=attack scores with its share of the attacks, each when "
    "the stage before is done (--grid: runs its share of the variants). The rest is left to the "
    "same command without --task.",
)
_DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    "",
    "Train each model on several hosts at the same time, on which this command is started: 'slurm' "
    "(by srun), 'tpu' (the hosts of a slice), 'auto' (what JAX detects), or host:port,n,i: the "
    "address of process 0, how many there are, and which one this is. It is never guessed; shares "
    "of a fleet of independent models need only --task.",
)
_SLURM = flags.DEFINE_integer(
    "slurm",
    None,
    "Submit the run as jobs of a Slurm cluster, and stop: an array of so many jobs that train, one "
    "that asks the models (--grid: one that runs the variants), and after them a job that needs no "
    "accelerator. Scripts and outputs are in WORKDIR/jobs.",
)
_SLURM_OPTIONS = flags.DEFINE_string(
    "slurm_options",
    "",
    "With --slurm: options of sbatch for the arrays, such as '--gpus-per-task=1 --time=4:00:00'.",
)
_SLURM_REST_OPTIONS = flags.DEFINE_string(
    "slurm_rest_options", "", "With --slurm: options of sbatch for the last job."
)
_STATUS = flags.DEFINE_bool(
    "status",
    False,
    "Print how far the run of --workdir is, from its files alone, and stop (mia-jax status).",
)
_TRACKER = flags.DEFINE_list(
    "tracker",
    [],
    "Where training metrics go besides metrics.jsonl: tensorboard (event files in "
    "WORKDIR/tracker/tensorboard) or a module of your own; --list=trackers.",
)
_PLAN = flags.DEFINE_string(
    "plan",
    "",
    "Measure small parts of all stages and print what the run will take: seconds, memory, disk, "
    "what is short first and which field helps; and stop. Nothing is written into WORKDIR. The "
    "exit code is 1 if something does not fit. --plan=h100 and --plan=v5e compile the training for "
    "an accelerator that is not here, where its compiler is installed.",
)
_JSON = flags.DEFINE_bool("json", False, "With --plan: print a JSON object.")
_OPEN = flags.DEFINE_bool("open", False, "Open the report in the browser when it is written.")
_SUMMARY = flags.DEFINE_bool(
    "summary", False, "Print the model's layers, shapes and parameters, and stop."
)


def main(argv):
    """Runs the command whose flags have been parsed."""
    if len(argv) > 1:
        raise ValueError(
            f"unexpected argument {argv[1]!r}; every option is a flag (--workdir=..., "
            "--config.seed=1)."
        )
    if _LIST.value:
        from mia_jax.configuration import listing

        print(listing.text(_LIST.value))
        return
    if _STATUS.value and _WORKDIR.value is not None:
        from mia_jax.commands import status

        sys.exit(status.main([_WORKDIR.value]))
    needed = (_WORKDIR,) if _STATUS.value else (_CONFIG, _WORKDIR)
    for flag in (_CONFIG,) if _SUMMARY.value else needed:
        if flag.value is None:
            raise ValueError(
                f"--{flag.name} is missing. Try: {program()} --config=quickstart "
                "--workdir=runs/quickstart"
            )
    path, _, argument = _CONFIG.value.partition(":")
    path = command_line.check_file(path)
    # The user's modules are in the current folder or in that of the config.
    sys.path += [str(pathlib.Path.cwd()), str(path.resolve().parent)]
    from mia_jax.runtime import distributed, jobs

    task, pause = jobs.task(_TASK.value), jobs.Pause(leave=distributed.leave)
    pause.listen()
    check_together()
    # Which backends jax tries is not worth a line; that it falls back to the CPU is a warning.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    set_compile_cache(_CACHE.value)
    distributed.initialize(_DISTRIBUTED.value)
    distributed.listen(pause)
    with place_of(_WORKDIR.value or ".") as workdir:
        run_in(workdir, path, argument, task=task, pause=pause)


def run_in(workdir: pathlib.Path, path: pathlib.Path, argument: str, *, task, pause) -> None:
    """Does what the flags say in a workdir.

    Args:
        workdir: the folder.
        path: the config file.
        argument: what was typed after the colon of --config.
        task: (i, n) of --task, or None.
        pause: called at safe places; it may raise to end the run.
    """
    from mia_jax.pipeline import run
    from mia_jax.report import answer
    from mia_jax.runtime import accelerators, distributed, jobs, remote, store

    options = dict(stages_wanted=_STAGES.value, extend=_EXTEND.value, task=task, pause=pause)
    options |= dict(tracker=_TRACKER.value)
    if unused := accelerators.unused():
        jobs.say(f"warning: {unused}")
    if _PLAN.value and (_GRID.value or _SLURM.value is not None):
        raise ValueError("--plan is about one run; it does not go with --grid or --slurm.")
    if _JSON.value and not _PLAN.value:
        raise ValueError("--json goes with --plan alone.")
    if _SLURM.value is not None:
        submit(workdir, path, argument)
        return
    from mia_jax.pipeline import grid

    if _GRID.value or (grid.implied(path, argument) and not _SUMMARY.value):
        if _DISTRIBUTED.value:
            raise ValueError("--distributed does not go with a grid: --task shares its variants.")
        run_grid(workdir, path, argument, **options)
        return
    config = with_overrides(command_line.config_of(path, argument))
    if _SUMMARY.value:
        print(run.model_summary(config))
        return
    if _PLAN.value:
        sys.exit(plan(config, workdir, pause=pause))
    if _DEBUG.value:
        config, workdir = run.debug_config(config), store.debug_folder(workdir)
        set_debug()
    with distributed.quiet():
        results = run.run(config, workdir_path=workdir, **options)
    writer = distributed.is_writer()
    distributed.finish()
    if not writer:
        return
    if task is not None:
        print(
            f"task {task[0]} of {task[1]} has done its share of the stage "
            f"{next(stage for stage in run.STAGES if stage in _STAGES.value)}; when all have, the "
            "same command without --task continues, or with --task and the next of "
            "--stages=query, --stages=attack."
        )
    elif "report" in _STAGES.value:
        path = store.Store(workdir).report.html
        print(remote.named(answer.terminal(results, path=path)))
        if _OPEN.value:
            webbrowser.open(path.resolve().as_uri())


def check_together() -> None:
    """Raises ValueError for flags that do not go with --distributed."""
    from mia_jax.runtime import distributed

    if not _DISTRIBUTED.value:
        return
    distributed.parsed(_DISTRIBUTED.value)
    reasons = (
        (_TASK, "--task shares a fleet among processes that know nothing of one another"),
        (_GRID, "the variants of a grid are shared by --task"),
        (_SLURM, "write a batch script that starts this command with srun"),
        (_DEBUG, "without jit there are no programs over several hosts"),
        (_SUMMARY, "--summary prints one model and stops"),
    )
    for flag, reason in reasons:
        if flag.value:
            raise ValueError(f"--distributed does not go with --{flag.name}: {reason}.")


@contextlib.contextmanager
def place_of(text: str):
    """Returns a context with the folder of a run; of a remote workdir with its local mirror.

    Raises:
        ValueError: the folder is a file, there is no such store, or a flag needs a local folder.
    """
    from mia_jax.runtime import files, remote

    scheme = remote.scheme_of(text)
    if scheme in ("", "file"):
        yield folder_of(text.removeprefix("file://") if scheme else text)
        return
    for flag in (_DISTRIBUTED, _SLURM, _OPEN):
        if flag.value:
            raise ValueError(f"--{flag.name} needs a local --workdir, and {text} is remote.")
    remote.sweep(files.machine())
    owner = f"{files.machine()}.{os.getpid()}"
    folder = remote.mirrored(text, argument="--workdir", owner=owner)
    size = sum(size for size, _ in folder.mirror.kept.values())
    where = os.path.join(folder)
    print(
        f"{text}: {len(folder.mirror.kept)} files ({size / 1e6:.3g} MB) are copied to {where}; "
        "every file of the run is written to both, and the copy is removed at the end.",
        file=sys.stderr,
    )
    try:
        yield folder
    finally:
        try:
            folder.mirror.finish()
        finally:
            remote.remove(folder)


def folder_of(text: str) -> pathlib.Path:
    """Returns the folder of a run, '~' expanded; ValueError if a file is in its place."""
    from mia_jax.runtime import files

    folder = files.folder_at(text, argument="--workdir")
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise ValueError(
                    f"--workdir={text}: {place} is a file; name a folder (it is created if absent)."
                )
            break
    return folder


def with_overrides(config):
    """Returns the config with the fields and attacks that were typed."""
    from mia_jax.configuration import overrides

    return overrides.override(
        config, GIVEN, attacks=_ATTACKS.value, prefix=overrides.FLAG, warn=note
    )


# The fields of the config on the command line, such as {'learner.epochs': '10'}; `parse` fills it.
GIVEN: dict = {}


def note(text: str) -> None:
    """Prints a note on stderr."""
    print(f"note: {text}", file=sys.stderr)


def run_grid(workdir: pathlib.Path, path: pathlib.Path, argument: str, **options) -> None:
    """Runs every variant of the config file's grid, or a task's share of them.

    Args:
        workdir: the folder of the grid; a variant runs in workdir/<name>.
        path: the config file.
        argument: what was typed after the colon of --config.
        options: further arguments of `pipeline.grid.run`.

    Raises:
        ValueError: if a variant failed, after the others have run.
    """
    if _SUMMARY.value:
        raise ValueError("--summary prints one model; it does not go with --grid.")
    from mia_jax.pipeline import grid
    from mia_jax.runtime import remote
    from mia_jax.runtime.store import GridFiles

    module = grid.load(path)
    variants = grid.variants(module, argument or None, finished=with_overrides)
    if _DEBUG.value:
        set_debug()
    failed = grid.run(module, variants, workdir_path=workdir, debug=_DEBUG.value, **options)
    table = GridFiles(workdir).table("md")
    if options["task"] is None and table.exists():
        print(remote.named(f"table: {table}"))
    if failed:
        reasons = "; ".join(f"{name}: {' '.join(why.split())}" for name, why in failed.items())
        raise ValueError(f"{len(failed)} of {len(variants)} variants failed: {reasons}")


def plan(config, workdir: pathlib.Path, *, pause) -> int:
    """Prints what the run of a config will take; returns 1 if something does not fit.

    Raises:
        ValueError: for flags that do not go with --plan, or a workdir of another config.
    """
    from mia_jax import checks
    from mia_jax.pipeline import estimate
    from mia_jax.report import estimate as words
    from mia_jax.training import compilers

    checks.one_of(("here", *compilers.TARGETS), **{"--plan": _PLAN.value})
    for flag in (_TASK, _DEBUG, _OPEN):
        if flag.value:
            raise ValueError(f"--plan is about the whole run; leave --{flag.name} out.")
    if _PLAN.value == "here":
        made, lines = estimate.estimate(config, workdir_path=workdir, pause=pause), words.lines
    else:
        set_compile_cache("off")  # which cannot read programs for a device that is not there
        common = dict(workdir_path=workdir, target=_PLAN.value, pause=pause)
        made, lines = estimate.elsewhere(config, **common), words.elsewhere
    numbers = made.plain()
    print(json.dumps(numbers, indent=1) if _JSON.value else "\n".join(lines(numbers)))
    return 0 if made.fits else 1


def submit(workdir: pathlib.Path, path: pathlib.Path, argument: str) -> None:
    """Submits the run, or the grid, as jobs of a Slurm cluster, after its config was read.

    Raises:
        ValueError: for a config that cannot be read, flags that do not go together, or what Slurm
            refuses.
    """
    from mia_jax.pipeline import grid
    from mia_jax.runtime import slurm, store

    for flag in (_TASK, _DEBUG, _SUMMARY, _OPEN):
        if flag.value:
            raise ValueError(f"--slurm submits jobs that run elsewhere; leave --{flag.name} out.")
    if set(_STAGES.value) != set(_STAGES.default):
        raise ValueError("--slurm submits a job for each of the stages; leave --stages out.")
    if _GRID.value:
        grid.variants(grid.load(path), argument or None, finished=with_overrides)
    else:
        with_overrides(command_line.config_of(path, argument))
    ours = [flag.name for flag in (_SLURM, _SLURM_OPTIONS, _SLURM_REST_OPTIONS)]
    words = [sys.executable, *slurm.without_flags(sys.argv[1:], ours)]
    words[1:1] = ["-m", "mia_jax"]
    jobs = slurm.planned(
        words,
        tasks=_SLURM.value,
        store=store.Store(workdir.resolve()),
        name=workdir.name,
        grid=_GRID.value,
        options=_SLURM_OPTIONS.value.split(),
        rest_options=_SLURM_REST_OPTIONS.value.split(),
    )
    slurm.write(jobs)
    number_of = slurm.submit(jobs)
    for job in jobs:
        what = f"{job.array} jobs" if job.array else "1 job"
        what += f", after {number_of[job.after]}" if job.after else ""
        print(f"submitted {job.name} ({number_of[job.name]}): {what}; {job.path}")
    print(f"how far it is: mia-jax status {workdir}")


def set_compile_cache(folder: str) -> None:
    """Makes jax keep compiled programs, so that the next start of the same run compiles nothing.

    Args:
        folder: the folder of the programs, to which only this user may write; 'auto' for
            ~/.cache/mia_jax/xla, 'off' to keep none.
    """
    import jax

    from mia_jax.runtime import files

    ours = False
    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder == "auto":
        if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            return
        caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        folder, ours = str(caches / "mia_jax" / "xla"), True
    folder = str(pathlib.Path(folder).expanduser())
    warning = files.private_folder(pathlib.Path(folder), ours=ours)
    if warning:
        print(warning, file=sys.stderr)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def set_debug() -> None:
    """Turns jit off and makes NaN raise an error where it arises."""
    import jax

    jax.config.update("jax_disable_jit", True)
    jax.config.update("jax_debug_nans", True)


def guarded(function, *args):
    """Runs a function; an error that the user can fix becomes one message and exit code 1.

    A paused run exits with code 75 (jobs.PAUSED). With --debug every error is raised.
    """
    try:
        return function(*args)
    except (Exception, KeyboardInterrupt) as error:
        from mia_jax.runtime import jobs

        if isinstance(error, KeyboardInterrupt):  # before the run handles signals
            jobs.say("stopped before the run began.")
            jobs.leave(130)
        from mia_jax.runtime import distributed

        if isinstance(error, jobs.Paused):
            if distributed.is_writer():
                jobs.say("paused: what is done is on disk; start the same command again.")
            distributed.leave(jobs.PAUSED)
        if "--debug" in sys.argv:
            raise
        expected = isinstance(error, (*jobs.MENDABLE, flags.Error))
        sentence = distributed.lost(error)
        sentence = sentence or (message(error) if expected else unexpected(error))
        jobs.say(f"error: {sentence}")
        together = distributed.here().count > 1
        distributed.tell("failed", sentence)
        if isinstance(error, MemoryError) or together:
            jobs.leave(1)  # a device whose program failed, or a lost process, may never return
        sys.exit(1)


def message(error: Exception) -> str:
    """Returns the message of an error without the tracebacks that libraries write into it."""
    if isinstance(error, UnicodeDecodeError):
        return (
            f"a file is not {error.encoding.upper()} ({error.reason} at byte {error.start:,}); "
            "save it as UTF-8."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}."
    text = (error.args[0] if error.args and isinstance(error.args[0], str) else str(error)).split(
        "\n--------------------\n"
    )[0]
    if "Traceback (most recent call last)" in text:
        text = re.split(r"\n(?:[\w.]+\.)?\w*(?:Error|Exception): ", text)[-1]
    return in_flags(text.strip().replace("\\'", "'").replace("\\n", "\n"))


def unexpected(error: Exception) -> str:
    """Returns one line about an error of the program itself, and how to see its traceback."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = " ".join(str(error).split())
    return (
        f"{type(error).__name__} in {last.filename}, line {last.lineno}: {what[:500]} This is a "
        "mistake in that code, not in what was typed; the same command with --debug shows the "
        "whole traceback."
    )


# What a message asks of the caller of a function -> the flag that does it.
REMEDIES = {
    "another workdir": "another --workdir",
    "extend=True": "--extend",
    "stages_wanted=": "--stages=",
    "task=": "--task=",
    "run it as a grid": "add --grid",
}


def in_flags(text: str) -> str:
    """Returns a message with the fields of the config written as the flags that set them.

    learner.epochs becomes --config.learner.epochs.
    """
    from mia_jax.configuration import listing

    def flag(match: re.Match) -> str:
        section, field = match[1], match[2].split(".")[0]
        known = field in listing.field_names(section) or (section == "attacks" and "." in match[2])
        return f"--config.{match[0]}" if known else match[0]

    for call, option in REMEDIES.items():
        text = re.sub(rf"(?<![\w-]){call}", option, text)
    return re.sub(
        r"(?<![\w./'-])(?:config\.)?"
        r"(data|design|model|learner|query|report|run|target|attacks)\.(\w+(?:\.\w+)*)",
        flag,
        text,
    )


def parse(argv):
    """Parses the flags with absl, after moving the fields of the config into GIVEN."""
    if any(word in argv for word in ("--help", "-h", "-help", "--helpshort")):
        show_help()
    argv = ["--plan=here" if word in ("--plan", "-plan") else word for word in argv]
    if "--helpfull" in argv:
        return app.parse_flags_with_usage(argv)
    argv, given = command_line.split_arguments(
        flags.FLAGS.read_flags_from_files(argv, force_gnu=False), warn=note
    )
    GIVEN.update(given)
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        raise flags.Error(f"{error}." + flag_hint(argv, error.flagname)) from None


def show_help() -> None:
    """Prints what can be typed and ends with 0."""
    from mia_jax import commands
    from mia_jax.runtime import jobs

    module = sys.argv[0] if __name__ == "__main__" else __name__  # as absl calls it
    options = flags.FLAGS.module_help(module).split(":\n", 1)[1]
    jobs.say(f"{__doc__}\n{commands.described()}\n\nFlags:\n\n{options}", file=sys.stdout)
    jobs.leave(0)


def flag_hint(argv, word: str) -> str:
    """Returns ' Did you mean --config.seed?' if an unknown flag is a field of the config."""
    from mia_jax.configuration import overrides

    values = [config_word(w, nxt) for w, nxt in zip(argv, [*argv[1:], ""], strict=True)]
    paths = ["quickstart", *filter(None, values)]
    try:
        path, _, argument = paths[-1].partition(":")
        return overrides.hint(word, command_line.config_of(command_line.check_file(path), argument))
    except (ValueError, OSError):
        return ""


def config_word(word: str, following: str) -> str:
    """Returns the value of --config=VALUE or --config VALUE; '' if the word is another flag."""
    name, equals, value = word.lstrip("-").partition("=")
    if name != "config" or not word.startswith("-"):
        return ""
    return value if equals else following


def program() -> str:
    """Returns the command that was typed, as a person would type it."""
    typed = pathlib.Path(sys.argv[0])
    if typed.suffix != ".py":
        return typed.name
    return "python -m mia_jax" if typed.name == "__main__.py" else f"python {typed.name}"


def start() -> None:
    """Runs the command that was typed: a subcommand, if the first word is no flag, or a run."""
    from mia_jax import commands

    word = next(iter(sys.argv[1:]), "-")
    if not word.startswith("-"):
        sys.exit(commands.run(word, sys.argv[2:]))
    app.run(lambda argv: guarded(main, argv), flags_parser=lambda argv: guarded(parse, argv))


if __name__ == "__main__":
    start()
