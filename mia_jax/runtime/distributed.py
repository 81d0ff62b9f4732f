"""Lets the processes of several hosts run one training together (`--distributed`).

Every process runs the same program on the same numbers. Process 0 writes the files of the run, the
others only read them. A process that reads what another one writes, or that has to decide
something of its own (to pause, to save), asks all of them first: `agree`, `wait` and `read` must
be called by all processes in the same order. In a run of one process they do nothing.

The processes exchange their notes through the key-value store that `jax.distributed` starts in
process 0, so that the devices are not needed for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from mia_jax.runtime import jobs

T = TypeVar("T")
WORDS = ("auto", "slurm", "tpu")
FORMS = "auto, slurm, tpu, or host:port,n,i (the address of process 0, their number, this one's)"
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
START = 300  # seconds within which all processes must have started
SLICE = 1.0  # seconds after which a process that waits looks up, for signals
LOOK = 0.5  # seconds between two looks at the notes of other processes
SILENT = 90.0  # seconds without a sign of life after which a process is taken for dead
GOODBYE = 10.0  # seconds that process 0, which holds the notes, waits for the others to leave
# What JAX says when it cannot reach another process.
SIGNS = ("Gloo", "NCCL", "UNAVAILABLE", "CoordinationService", "coordination service")
NOTES, BEATS = "mia_jax/note", "mia_jax/beat"  # keys of the store that all share
ROUNDS, COUNTS = "mia_jax/round", "mia_jax/count"


@dataclasses.dataclass(frozen=True)
class Processes:  # no NamedTuple, whose index and count are methods
    """Says which of how many processes this is.

    Attributes:
        index: the number of this process; 0 writes.
        count: how many there are.
    """

    index: int = 0
    count: int = 1


class Address(NamedTuple):
    """Holds what 'host:port,n,i' says: where process 0 listens, and which process this is."""

    coordinator: str
    processes: Processes


def parsed(text: str) -> str | Address:
    """Returns a word of WORDS, or the address that a text gives.

    >>> parsed("slurm")
    'slurm'
    >>> parsed("10.0.0.1:1234,2,1")
    Address(coordinator='10.0.0.1:1234', processes=Processes(index=1, count=2))

    Raises:
        ValueError: it is neither, or this process is none of those.
    """
    if text in WORDS:
        return text
    match = re.fullmatch(r"(?P<address>[^\s,]+:(?P<port>\d+)),(?P<n>\d+),(?P<i>\d+)", text)
    if not match or not 0 < int(match["port"]) < 65536:
        raise ValueError(f"--distributed={text}: expected {FORMS}, as in 10.0.0.1:1234,2,0.")
    count, index = int(match["n"]), int(match["i"])
    if index >= count:
        raise ValueError(
            f"--distributed={text}: there is no process {index} of {count}; they are numbered "
            f"from 0 on{f' to {count - 1}' if count > 1 else ''}. Were more hosts started than "
            "asked for?"
        )
    return Address(match["address"], Processes(index, count))


def initialize(text: str, *, seconds: float = START) -> Processes:
    """Joins the processes of a run, before anything asks JAX for its devices.

    The process ends with a sentence if the others do not come in time.

    Args:
        text: one of FORMS; '' for a run of one process.
        seconds: within which all processes must have started.

    Raises:
        ValueError: the text has another form, or nothing says who belongs together.
    """
    if not text:
        return Processes()
    asked = parsed(text)
    import jax

    # JAX's service takes SIGTERM away from jobs.Pause, and nobody asks it here.
    jax.config.update("jax_enable_preemption_service", False)
    logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
    # JAX would abort the process, with the addresses of its functions.
    late = threading.Timer(seconds, _late, args=(text, seconds))
    late.daemon = True
    late.start()
    common: dict = dict(initialization_timeout=int(seconds) + 60)
    try:
        if isinstance(asked, Address):
            _check_host(text, asked)
            jax.distributed.initialize(
                asked.coordinator,
                asked.processes.count,
                asked.processes.index,
                cluster_detection_method="deactivate",
                **common,
            )
        else:
            jax.distributed.initialize(cluster_detection_method=_method(text), **common)
    except ValueError as error:
        if str(error).startswith("--distributed"):
            raise
        raise ValueError(_alone(text)) from error
    except (RuntimeError, KeyError, OSError) as error:
        raise ValueError(_failure(text, error)) from error
    finally:
        late.cancel()
    return here()


def _late(text: str, seconds: float) -> None:
    """Ends the process because the others did not come."""
    jobs.say(
        f"error: --distributed={text}: not all processes came together within {seconds:.0f} s. Is "
        "process 0 running, is its address reachable from the others, and were as many started as "
        "asked for?"
    )
    jobs.leave(1)


def _method(word: str) -> str | None:
    """Returns JAX's name for a word of WORDS, None where it shall look for itself.

    Raises:
        ValueError: this process was not started by that.
    """
    if word == "slurm" and (missing := [name for name in SLURM if name not in os.environ]):
        raise ValueError(
            f"--distributed=slurm: this process was not started by srun ({', '.join(missing)} "
            "not set); start it with srun, or name the processes: --distributed=host:port,n,i."
        )
    if word == "tpu":
        return "gketpu" if "TPU_WORKER_HOSTNAMES" in os.environ else "gcetpu"
    return "slurm" if word == "slurm" else None


def _check_host(text: str, asked: Address) -> None:
    """Raises ValueError if the name of the host of process 0 is not known here."""
    host = asked.coordinator.rpartition(":")[0].strip("[]")
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise ValueError(
            f"--distributed={text}: the address of process 0, {host}, is not known on this "
            f"machine ({error.strerror})."
        ) from error


def _alone(text: str) -> str:
    return (
        f"--distributed={text}: nothing here says which processes belong together. Start them with "
        "srun or on the hosts of a TPU, or name them: --distributed=host:port,n,i with the address "
        "of process 0, their number n and the number i of each (0 to n-1)."
    )


def _failure(text: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"--distributed={text}: the processes did not come together; two of them may have the same "
        f"number, or the port is in use. (JAX says: {reason[:300]})"
    )


def here() -> Processes:
    """Returns which process this is; the only one, unless `initialize` was called."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return Processes()
    return Processes(jax.process_index(), jax.process_count())


def is_writer() -> bool:
    """Returns whether this process writes the files of the run."""
    return here().index == 0


def agree(flag: bool) -> bool:
    """Returns whether `flag` is true in any process; all of them wait for one another."""
    us = here()
    if us.count == 1:
        return flag
    client = _client()
    number = client.key_value_increment(f"{COUNTS}/{us.index}", 1)
    place = f"{ROUNDS}/{number}"
    client.key_value_set(f"{place}/{us.index}", str(int(flag)))
    if us.index == 0:
        flags = [_get(client, f"{place}/{i}") for i in range(us.count)]
        client.key_value_set(f"{place}/any", str(int("1" in flags)))
        if number > 1:  # every process has left that round, as it has come to this one
            client.key_value_delete(f"{ROUNDS}/{number - 1}")
    return _get(client, f"{place}/any") == "1"


def wait() -> None:
    """Waits until all processes have come here."""
    agree(False)


def read(function: Callable[[], T]) -> T:
    """Returns function(), which reads what process 0 writes.

    It reads when all processes have come here, and none goes on before all have read.
    """
    wait()
    value = function()
    wait()
    return value


class Together:
    """Pauses all processes at the same safe place: called like the `jobs.Pause` that it holds.

    Args:
        pause: what each process calls; it raises jobs.Paused to end the run.
    """

    def __init__(self, pause: Callable):
        self.pause = pause

    def __call__(self) -> None:
        """Raises jobs.Paused in all processes if one of them was asked to stop."""
        try:
            self.pause()
            asked = False
        except jobs.Paused:
            asked = True
        if agree(asked):
            raise jobs.Paused

    @contextlib.contextmanager
    def deferred(self):
        """Returns a context in which a signal waits for a safe place of all processes."""
        with jobs.waiting(self.pause):
            yield
        self()


def listen(pause: jobs.Pause) -> None:
    """Hears, in a thread of its own, what other processes say; called once after `initialize`.

    If one is asked to stop, all are; if one fails or falls silent, this one ends with a sentence.
    """
    if here().count > 1:
        pause.hear()
        # No daemon: a thread that Python stops within a call of JAX aborts the process.
        threading.Thread(target=_listen, args=(pause,), name="processes").start()


def _listen(pause: jobs.Pause) -> None:
    us, client, told = here(), _client(), False
    beats: dict[str, tuple[str, float]] = {}
    main = threading.main_thread()
    for beat in itertools.count():
        if not main.is_alive():
            return
        try:
            if pause.asked and not told:
                told = True
                client.key_value_set(f"{NOTES}/{us.index}/asked", "1")
            client.key_value_set(f"{BEATS}/{us.index}", str(beat), allow_overwrite=True)
            notes = client.key_value_dir_get(f"{NOTES}/")
            signs = client.key_value_dir_get(f"{BEATS}/")
        except Exception:  # process 0 has ended: JAX ends this process
            return
        for key, value in notes:
            process, kind = key.rsplit("/", 2)[1:]
            if kind == "done":
                return
            if int(process) == us.index:
                continue
            if kind in ("asked", "paused"):
                pause.ask(f"process {process} was asked to stop")
            elif kind == "failed":
                _say(f"process {process} failed, so this one ends: {value}")
                tell("gone")
                jobs.leave(1)
        now = time.monotonic()
        for key, value in signs:
            if beats.get(key, ("", 0.0))[0] != value:
                beats[key] = value, now
        for key, (_, at) in beats.items():
            process = key.rpartition("/")[2]
            if now - at > SILENT and int(process) != us.index:
                _say(
                    f"process {process} has given no sign of life for {SILENT:.0f} s, so this one "
                    "ends; the same command on all hosts resumes the run from the files on disk."
                )
                tell("gone")
                jobs.leave(1)
        main.join(LOOK)


@contextlib.contextmanager
def quiet():
    """Returns a context in which the lines of a run are printed by process 0 alone."""
    if is_writer():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def finish() -> None:
    """Ends the work of this process: the others wait until process 0 has done the rest.

    Raises:
        RuntimeError: process 0 was lost.
    """
    us = here()
    if us.count > 1:
        import jax

        client = _client()
        if us.index == 0:
            client.key_value_set(f"{NOTES}/0/done", "1")
        _get(client, f"{NOTES}/0/done")
        jax.distributed.shutdown()  # waits for all; JAX aborts those that process 0 leaves behind


def tell(kind: str, text: str = "1") -> None:
    """Tells the other processes that this one ends.

    Process 0, which holds the notes, then waits for the others to leave, up to GOODBYE seconds.

    Args:
        kind: 'paused', 'failed', or 'gone' if another one was the first.
        text: why.
    """
    us = here()
    if us.count == 1:
        return
    with contextlib.suppress(Exception):  # the store of notes may be gone
        client = _client()
        client.key_value_set(f"{NOTES}/{us.index}/{kind}", text or "1", allow_overwrite=True)
        client.key_value_set(f"{NOTES}/{us.index}/gone", "1", allow_overwrite=True)
        end = time.monotonic() + GOODBYE
        while us.index == 0 and time.monotonic() < end:
            keys = [key for key, _ in client.key_value_dir_get(f"{NOTES}/")]
            if sum(key.endswith("/gone") for key in keys) >= us.count:
                break
            time.sleep(LOOK / 5)


def lost(error: BaseException) -> str:
    """Returns a sentence for an error of JAX that says that another process is gone; else ''.

    >>> lost(ValueError("a field of the config"))
    ''
    """
    words = " ".join(str(error).split())
    if here().count == 1 or not any(sign in words for sign in SIGNS):
        return ""
    return (
        "another process of this run was lost; start the same command on all hosts again, which "
        f"resumes it from the files on disk (JAX says: {words[:200]})."
    )


def leave(code: int) -> None:
    """Ends this process at once, after it has told the others that it does."""
    tell(*(("paused",) if code == jobs.PAUSED else ("failed", "it was stopped.")))
    jobs.leave(code)


def _say(text: str) -> None:
    """Prints a line, also where the lines of the run are those of process 0."""
    jobs.say(text, file=sys.__stderr__)


def _client():
    """Returns the client of the key-value store, for which JAX has no public name."""
    from jax._src import distributed

    return distributed.global_state.client


def _get(client, key: str) -> str:
    """Returns the value of a key, once it is there."""
    while True:
        try:
            return client.blocking_key_value_get(key, int(1000 * SLICE))
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise ValueError(lost(error) or str(error)) from error
