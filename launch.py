"""Audits how much a trained model tells about who was in its training set.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart

A config takes arguments after a colon and any of its fields as a flag; several seeds repeat the run and report mean and sd:

    python launch.py --config=configs/quickstart.py:models=16,quick --workdir=runs/small --config.learner.learning_rate=0.1 --config.seed=0,1,2

The run has four stages (train, query, attack, report) that talk through plain files in the workdir. The same command continues an interrupted
run and skips what is done; a workdir of another config is left alone and the differing keys are named. The result is workdir/report/report.md.
"""

import os
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: a file of configs/, with its arguments after a colon.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; created if absent.")
_STAGES = flags.DEFINE_list("stages", ["train", "query", "attack", "report"], "Stages to run, in their order; finished work is skipped.")
_EXTEND = flags.DEFINE_bool("extend", False, "Let the fleet of this workdir grow to the config's number of models; the first ones are kept.")
_DEBUG = flags.DEFINE_bool("debug", False, "A tiny fleet in workdir/debug, step by step: jit off, NaN raises where it arises, tracebacks whole.")
_CACHE = flags.DEFINE_string(
    "compile_cache", "auto", "Folder of compiled programs, kept between runs; 'auto' is ~/.cache/mia_jax/xla, 'off' keeps none."
)
_SUMMARY = flags.DEFINE_bool("summary", False, "Print the model's layers, shapes and parameters, and stop.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}; every option is a flag (--workdir=..., --config.seed=1).")
    for flag in (_CONFIG,) if _SUMMARY.value else (_CONFIG, _WORKDIR):
        if flag.value is None:
            raise ValueError(f"--{flag.name} is missing. Try: python launch.py --config=configs/quickstart.py --workdir=runs/quickstart")
    set_compile_cache(_CACHE.value)
    from mia_jax import experiment

    config, workdir = _CONFIG.value, pathlib.Path(_WORKDIR.value or ".")
    if _SUMMARY.value:
        print(experiment.model_summary(config))
        return
    if _DEBUG.value:
        config, workdir = experiment.debug_config(config), workdir / "debug"
        set_debug()
    experiment.run(config, workdir_path=workdir, stages_wanted=_STAGES.value, extend=_EXTEND.value)
    if "report" in _STAGES.value:
        print(f"report: {workdir / 'report' / 'report.md'}")


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
    except (ValueError, FileNotFoundError, FloatingPointError, flags.Error, AttributeError, KeyError, TypeError) as error:
        if "--debug" in sys.argv or not users_own(error, function):
            raise
        text = str(error.args[0] if error.args else error).split("\n--------------------\n")[0]  # without JAX's note on tracebacks
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)


def users_own(error: Exception, function) -> bool:
    """Whether an error is the user's to mend: a ValueError, a missing file, a NaN; while flags are read, whatever a flag or a config file raises."""
    return function is parse or isinstance(error, ValueError | FileNotFoundError | FloatingPointError | flags.Error)


def parse(argv):
    """absl's parser; config files run here."""
    return flags.FLAGS(argv)


if __name__ == "__main__":
    flags.FLAGS.set_default("showprefixforinfo", False)
    app.run(lambda argv: guarded(main, argv), flags_parser=lambda argv: guarded(app.parse_flags_with_usage if "--help" in argv else parse, argv))
