"""Audits how much a trained model tells about who was in its training set.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart

A config takes arguments after a colon and any of its fields as a flag; several seeds repeat the run and report mean and sd:

    python launch.py --config=configs/quickstart.py:models=16,quick --workdir=runs/small --config.learner.learning_rate=0.1 --config.seed=0,1,2

A file that defines grid() is a list of runs to compare: --grid runs them one after the other in workdir/<name> and writes workdir/table.md.

The run has four stages (train, query, attack, report) that talk through plain files in the workdir. The same command continues an interrupted
run and skips what is done; a workdir of another config is left alone and the differing keys are named. The result is workdir/report/report.md.

On a cluster, --task=0/8 .. --task=7/8 train shares of one fleet beside each other (docs/slurm.sh is an array job). Asked to stop (SIGTERM, SIGUSR1,
Ctrl-C), a run keeps what it has and ends with code 75 within 20 seconds: start the same command again. A second signal stops it at once. A model that
diverges does not end the run: it is left out, and said so; --config.run.retries=1 trains it again with another key.
"""

import difflib
import logging
import os
import pathlib
import re
import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: a file of configs/, with its arguments after a colon.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; created if absent.")
_STAGES = flags.DEFINE_list("stages", ["train", "query", "attack", "report"], "Stages to run, in their order; finished work is skipped.")
_EXTEND = flags.DEFINE_bool("extend", False, "Let the fleet of this workdir grow to the config's number of models; the first ones are kept.")
_DEBUG = flags.DEFINE_bool("debug", False, "A tiny fleet in workdir/debug, step by step: jit off, NaN raises where it arises, tracebacks whole.")
_GRID = flags.DEFINE_bool("grid", False, "Run every member of the config file's grid() in workdir/<name> and write one table over them.")
_CACHE = flags.DEFINE_string(
    "compile_cache", "auto", "Folder of compiled programs, kept between runs; 'auto' is ~/.cache/mia_jax/xla, 'off' keeps none."
)
_TASK = flags.DEFINE_string(
    "task",
    "",
    "i/n, one of n jobs on one workdir: trains its share of the models (--grid: runs its share of the members). The rest is left to the "
    "same command without --task.",
)
_SUMMARY = flags.DEFINE_bool("summary", False, "Print the model's layers, shapes and parameters, and stop.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}; every option is a flag (--workdir=..., --config.seed=1).")
    for flag in (_CONFIG,) if _SUMMARY.value else (_CONFIG, _WORKDIR):
        if flag.value is None:
            raise ValueError(f"--{flag.name} is missing. Try: python launch.py --config=configs/quickstart.py --workdir=runs/quickstart")
    check_config_file()
    from mia_jax import jobs

    task, pause = jobs.task(_TASK.value), jobs.Pause()
    pause.listen()
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # which backends it tried is no news, that it fell back to the CPU is
    set_compile_cache(_CACHE.value)
    from mia_jax import accelerators, experiment
    from mia_jax.report import answer

    options = dict(stages_wanted=_STAGES.value, extend=_EXTEND.value, task=task, pause=pause)
    if unused := accelerators.unused():
        jobs.say(f"warning: {unused}")
    config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value or ".")
    if _GRID.value:
        run_grid(workdir, **options)
        return
    if _SUMMARY.value:
        print(experiment.model_summary(config))
        return
    if _DEBUG.value:
        config, workdir = experiment.debug_config(config), workdir / "debug"
        set_debug()
    found = experiment.run(config, workdir_path=workdir, **options)
    if task is not None:
        print(f"task {task[0]} of {task[1]} has trained its share; when all have, the same command without --task goes on.")
    elif "report" in _STAGES.value:
        print(answer.terminal(found, report=workdir / "report" / "report.md"))


def run_grid(workdir: pathlib.Path, **options) -> None:
    """Every member of the config file's grid (or a task's share); exits with 1 if one failed, after the others have run."""
    if _SUMMARY.value:
        raise ValueError("--summary prints one model; it does not go with --grid.")
    from mia_jax import grid

    path, _, arg = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    module = grid.load(path)
    found = grid.members(module, arg or None, config_flags.get_override_values(flags.FLAGS["config"]))
    if _DEBUG.value:
        set_debug()
    failed = grid.run(module, found, workdir_path=workdir, debug=_DEBUG.value, **options)
    if options["task"] is None and (workdir / "table.md").exists():
        print(f"table: {workdir / 'table.md'}")
    if failed:
        reasons = "; ".join(f"{name}: {' '.join(why.split())}" for name, why in failed.items())
        raise ValueError(f"{len(failed)} of {len(found)} members failed: {reasons}")


def set_compile_cache(folder: str) -> None:
    """Compiled programs are kept in a folder, so that the next start of the same program compiles nothing."""
    import jax

    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if folder == "auto":
        if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            return
        folder = str(pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mia_jax" / "xla")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def set_debug() -> None:
    """jit off and NaN raises where it arises."""
    import jax

    jax.config.update("jax_disable_jit", True)
    jax.config.update("jax_debug_nans", True)


def guarded(function, *args):
    """Runs a function; what a user can mend is printed as one message and exits with 1."""
    try:
        return function(*args)
    except (Exception, KeyboardInterrupt) as error:
        from mia_jax import jobs

        if isinstance(error, KeyboardInterrupt):  # before the run listens to signals
            jobs.say("stopped before anything was begun.")
            jobs.leave(130)
        if isinstance(error, jobs.Paused):
            jobs.say("paused: what is done is on disk; start the same command again.")
            jobs.leave(jobs.PAUSED)
        own = isinstance(error, (*jobs.MENDABLE, flags.Error))
        if "--debug" in sys.argv or not (own or function is parse):  # while flags are read, a config file may raise anything
            raise
        jobs.say(f"error: {message(error)}")
        if isinstance(error, MemoryError):
            jobs.leave(1)  # a device that has lost a program never ends by itself
        sys.exit(1)


def message(error: Exception) -> str:
    """The words of an error without the tracebacks that libraries write into them."""
    text = (error.args[0] if error.args and isinstance(error.args[0], str) else str(error)).split("\n--------------------\n")[0]
    if "Traceback (most recent call last)" in text:
        text = re.split(r"\n(?:[\w.]+\.)?\w*(?:Error|Exception): ", text)[-1]
    text = text.strip()
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    return of_empty_section(text.replace("\\'", "'").replace("\\n", "\n"))


REMEDIES = dict(
    privacy="Private training is chosen in the config file, learner=dict(gradient='private', privacy=dict(clip_norm=1.0, ...)), as in "
    "configs/dp_fashion_mnist.py and configs/dp_label_only.py (configs/label_only.py: the argument defense=dp); every field of learner.privacy is a "
    "flag there. --config.learner.gradient=private alone takes all of them at their defaults.",
    stop="A stopping rule is chosen in the config file, learner=dict(stop=dict(monitor='loss', patience=20)); its fields are flags there.",
    audit="Give the whole of it in the config file, report=dict(audit=dict(...)).",
)


def of_empty_section(text: str) -> str:
    """ml_collections' message about a flag inside a section that is None, with the remedy; any other text as it is."""
    found = re.match(r'Override (\S+) can not be applied because field "(\w+)" is None', text)
    if not found:
        return text
    flag, section = found.groups()
    return f"--config.{flag} cannot be set: this config has no {section}. {REMEDIES.get(section, 'Give it in the config file.')}"


def check_config_file() -> None:
    """FileNotFoundError with the configs that exist, if --config names a file that does not."""
    path = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":", 1)[0])
    if not path.exists():
        known = sorted(str(p) for p in pathlib.Path("configs").rglob("*.py"))
        close = difflib.get_close_matches(str(path), known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise FileNotFoundError(f"--config: there is no file {path}. Known: {', '.join(known) or 'none here'}.{hint}")


def parse(argv):
    """absl's parser; config files run here."""
    if any(word in argv for word in ("--help", "-h", "-help", "--helpfull", "--helpshort")):
        return app.parse_flags_with_usage(argv)
    return flags.FLAGS(argv)


if __name__ == "__main__":
    app.run(lambda argv: guarded(main, argv), flags_parser=lambda argv: guarded(parse, argv))
