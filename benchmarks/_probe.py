"""Measures on a device under a deadline: every measurement is a JSON line as soon as it is there.

A run that is cut off keeps what it has. A program that would not fit, by the compiler's own figure,
is not run; one that fails is a line with `error`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
import traceback
from collections.abc import Callable

import jax
import numpy as np


class Over(Exception):
    """Is raised when the deadline has passed."""


@dataclasses.dataclass
class Probe:
    """Collects the measurements of one run.

    Attributes:
        tiny: whether sizes are the smallest, which shows only that everything runs.
        deadline: seconds after the start at which no further measurement begins.
        out: the file to which lines are appended, or None.
        records: all measurements so far.
    """

    tiny: bool
    deadline: float
    out: pathlib.Path | None = None
    start: float = dataclasses.field(default_factory=time.perf_counter)
    records: list[dict] = dataclasses.field(default_factory=list)

    def say(self, **record) -> dict:
        """Prints and keeps one measurement; `at` is the second at which it was made."""
        record = {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}
        record = dict(benchmark="accelerator") | record
        record["at"] = round(time.perf_counter() - self.start, 1)
        self.records.append(record)
        line = json.dumps(record)
        print(line, flush=True)
        if self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        return record

    def left(self) -> float:
        """Returns the seconds until the deadline."""
        return self.deadline - (time.perf_counter() - self.start)

    def attempt(self, measure: Callable[[], dict | None], **names) -> dict | None:
        """Returns measure(), or its failure as a measurement.

        Raises:
            Over: if the deadline has passed.
        """
        if self.left() < 0:
            raise Over
        try:
            return measure()
        except Over:
            raise
        except Exception as error:  # any failure is a result: the other sections go on
            if self.tiny:
                traceback.print_exc()
            text = str(error).split("\n")[0][:300]
            return self.say(**names, error=f"{type(error).__name__}: {text}")

    def median_seconds(
        self, run: Callable[[], object], *, seconds: float = 0.4, least: int = 3
    ) -> float:
        """Returns the median seconds of run(), which must block; a first run does not count."""
        run()
        if self.tiny:
            seconds, least = 0.02, 1
        spent: list[float] = []
        begin = time.perf_counter()
        while len(spent) < least or (time.perf_counter() - begin < seconds and len(spent) < 200):
            started = time.perf_counter()
            run()
            spent.append(time.perf_counter() - started)
        return float(np.median(spent))


def limit_bytes() -> float:
    """Returns what a program may take: 0.9 of the device's memory, 4 GB where it is unknown."""
    return 0.9 * (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 4.5e9)


def program_bytes(compiled) -> int:
    """Returns the memory that a compiled program needs, by the compiler's figure."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return int(
        memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )


def program_flops(compiled) -> float:
    """Returns the floating-point operations of a compiled program; 0 where they are unknown."""
    cost = compiled.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    return float(cost.get("flops", 0.0))


def compiled_in(function, *args) -> tuple[object, float]:
    """Returns (the compiled program of a jitted function at these arguments, seconds)."""
    lowered = function.lower(*args)
    started = time.perf_counter()
    compiled = lowered.compile()
    return compiled, time.perf_counter() - started
