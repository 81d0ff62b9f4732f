"""Writes and submits the jobs of a run on a Slurm cluster.

A fleet is an array of jobs that train shares of it in one workdir, an array that asks the models,
and one job after them that needs no accelerator, for attacks and report. A job that is preempted
or runs out of time ends with code 75 and puts itself back into the queue.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mia_jax.runtime import files, jobs
from mia_jax.runtime.store import Store

NOTICE = 120  # seconds before the time limit at which a job is asked to pause
DEFAULTS = (  # of both kinds of jobs; what a user adds comes later and wins
    "--ntasks=1",
    "--cpus-per-task=2",
    "--requeue",
    "--open-mode=append",
    f"--signal=USR1@{NOTICE}",
    "--kill-on-invalid-dep=yes",
)


class Job(NamedTuple):
    """Describes a job.

    Attributes:
        name: what the queue calls it.
        script: the batch script, of which `path` is the file.
        path: where the script is written.
        array: how many jobs there are of it; 0 for a single one.
        after: the name of the job that must have succeeded before; '' for none.
    """

    name: str
    script: str
    path: Path
    array: int = 0
    after: str = ""


def script(command: Sequence[str], *, options: Sequence[str], output: str, task: bool) -> str:
    """Returns a batch script that runs a command and is queued again when that was paused.

    Args:
        command: the words of the command.
        options: options of sbatch, such as '--time=4:00:00'.
        output: the pattern of the file of what the job prints.
        task: whether the job is one of an array, which takes its share by --task.
    """
    words = " ".join(shlex.quote(word) for word in command)
    share = ' "--task=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"' if task else ""
    # sbatch reads quotes in these lines as a shell does: a folder may have spaces
    header = [f"#SBATCH {option}" for option in (*options, f"--output={shlex.quote(output)}")]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *header,
            f"srun --unbuffered {words}{share}",
            "status=$?",
            f'if [ "$status" = {jobs.PAUSED} ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
            'exit "$status"',
            "",
        ]
    )


def planned(
    command: Sequence[str],
    *,
    tasks: int,
    store: Store,
    name: str,
    grid: bool = False,
    options: Sequence[str] = (),
    rest_options: Sequence[str] = (),
) -> list[Job]:
    """Returns the jobs of a run: arrays that train and ask its models, and a job for the rest.

    Args:
        command: the words of the command that runs it in one process.
        tasks: the number of jobs of an array.
        store: the workdir, in which scripts and outputs are written.
        name: what the queue calls the run.
        grid: whether the command runs a grid. Then one array runs whole variants, and the last
            job writes the table.
        options: options of sbatch for the arrays, which ask for accelerators.
        rest_options: options of sbatch for the last job, which needs none.

    Raises:
        ValueError: the number of tasks is below 1, or an option is none of sbatch's form.
    """
    if tasks < 1:
        raise ValueError(f"--slurm={tasks} must be the number of jobs of an array, at least 1.")
    for flag, given in dict(slurm_options=options, slurm_rest_options=rest_options).items():
        for option in given:
            if not re.fullmatch(r"-[A-Za-z]\S*|--[a-z][a-z0-9-]*(=.*)?", option):
                raise ValueError(
                    f"--{flag} has {option!r}; options of sbatch look like --time=4:00:00, "
                    "separated by spaces."
                )
    shared = [("variants", [])] if grid else [(s, [f"--stages={s}"]) for s in ("train", "query")]
    made: list[Job] = []
    for stage, flags in shared:
        text = script(
            [*command, *flags],
            options=(*DEFAULTS, *options),
            output=str(store.job_output(stage, array=True)),
            task=True,
        )
        after = made[-1].name if made else ""
        made.append(Job(f"{name}-{stage}", text, store.job_script(stage), tasks, after))
    text = script(
        command_on_any_machine(command, grid=grid),
        options=(*DEFAULTS, *rest_options),
        output=str(store.job_output("rest", array=False)),
        task=False,
    )
    return [*made, Job(f"{name}-rest", text, store.job_script("rest"), after=made[-1].name)]


def command_on_any_machine(command: Sequence[str], *, grid: bool) -> list[str]:
    """Returns the command of the last job, which needs no accelerator.

    It attacks and reports; answers of models that are missing are an error there, because another
    kind of machine would give other ones.
    """
    kept = without_flags(command, ["config.run.platform"])
    return kept if grid else [*kept, "--stages=attack,report"]


def without_flags(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """Returns a command line without some flags and their values.

    >>> without_flags(["--a=1", "--slurm", "8", "--slurm_options=--time=1", "--b"], ["slurm",
    ...               "slurm_options"])
    ['--a=1', '--b']
    """
    kept, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.lstrip("-").partition("=")
        if word.startswith("-") and name in names:
            rest = rest if equals else rest[1:]
        else:
            kept.append(word)
    return kept


def write(planned_jobs: Sequence[Job]) -> None:
    """Writes the scripts of the jobs."""
    for job in planned_jobs:
        job.path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(job.path, job.script)


def submit(planned_jobs: Sequence[Job]) -> dict[str, str]:
    """Submits jobs in their order and returns {name: number}.

    Raises:
        ValueError: there is no sbatch here, or it refused a job; the message has its words, and
            says which jobs were submitted before.
    """
    if shutil.which("sbatch") is None:
        where = planned_jobs[0].path.parent
        raise ValueError(
            "--slurm submits jobs with sbatch, and there is none on this machine. The scripts are "
            f"in {where}; submit them on a login node of the cluster, or start the same command "
            "with --task=0/n, --task=1/n, ... on n machines."
        )
    number_of: dict[str, str] = {}
    for job in planned_jobs:
        command = ["sbatch", "--parsable", f"--job-name={job.name}"]
        command += [f"--array=0-{job.array - 1}"] if job.array else []
        command += [f"--dependency=afterok:{number_of[job.after]}"] if job.after else []
        done = subprocess.run([*command, str(job.path)], capture_output=True, text=True)
        if done.returncode:
            before = ", ".join(f"{name} ({number})" for name, number in number_of.items())
            cancel = f" Already submitted: {before}; scancel removes it." if before else ""
            raise ValueError(f"sbatch refused {job.path}: {done.stderr.strip()}{cancel}")
        number_of[job.name] = done.stdout.strip().split(";")[0]
    return number_of
