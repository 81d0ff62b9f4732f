"""Says in words what a run will take, from the numbers of --plan --json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mia_jax.runtime.progress import duration, size


def lines(numbers: Mapping[str, Any]) -> list[str]:
    """Returns the lines of --plan.

    Args:
        numbers: `Estimate.plain()` of pipeline/estimate.py.
    """
    made = [f"plan of {numbers['workdir']}, nothing is written there"]
    seeds = numbers["seeds"]
    if seeds > 1:
        made[0] += f"; {seeds} seeds, of which one was measured"
    made += training(numbers["training"]) if numbers["training"] else []
    made += ["", f"{'stage':<8}{'about':>9}{'CPU':>9}{'memory':>10}{'disk':>10}  work"]
    for stage in numbers["stages"]:
        made.append(
            f"{stage['stage']:<8}{seconds(stage['seconds']):>9}{seconds(stage['cpu_seconds']):>9}"
            f"{size(stage['memory']):>10}{size(stage['disk']):>10}  {stage['units']}"
        )
    if numbers["stages"]:
        total = [sum(stage[key] or 0 for stage in numbers["stages"]) for key in KEYS]
        made.append(
            f"{'all':<8}{seconds(total[0]):>9}{seconds(total[1]):>9}{'':>10}{size(total[2]):>10}"
        )
    made += ["", *demands(numbers["demands"])]
    return made + [f"note: {text}" for text in numbers["notes"]]


def _step(seconds: float) -> str:
    """Returns the time of a step as text.

    >>> _step(0.0103), _step(7.88e-08)
    ('10.3 ms', '0.0788 us')
    """
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def elsewhere(numbers: Mapping[str, Any]) -> list[str]:
    """Returns the lines of --plan=h100.

    Args:
        numbers: `Elsewhere.plain()` of pipeline/estimate.py.
    """
    name = numbers["target"]
    made = [
        f"plan of {numbers['workdir']} on one {numbers['kind']}, compiled and not run; nothing is "
        "written",
        *training(numbers["training"]),
        "",
        f"{'form':<9}{'chunk':>6}{'per model':>10}{'total':>10}{'traffic':>10}{'launches':>10}"
        f"{'at least':>11}  bound by",
    ]
    for row in numbers["rows"]:
        short = "" if row["fits"] else "; does not fit"
        made.append(
            f"{row['form']:<9}{row['chunk']:>6}{size(row['bytes_per_model']):>10}"
            f"{size(row['bytes']):>10}{size(row['traffic']):>10}{row['launches']:>10,.0f}"
            f"{_step(row['seconds']):>11}  {row['bound']}{short}"
        )
    made.append(
        "per model, total: memory; traffic, at least: per step and model; launches: per step of "
        "the whole chunk"
    )
    limit = f"{size(numbers['memory'])}, {numbers['memory_note']}"
    if numbers["seconds"] is None:
        made.append(
            f"does not fit: the least program needs more than {limit}; set run.chunk, "
            "run.form='turns', run.pool_bytes, learner.batch_size"
        )
    else:
        chosen = numbers["training"]
        made.append(
            f"it fits into {limit}; chunk {chosen['chunk']} in the form {chosen['form']} trains in "
            f"at least {duration(numbers['seconds'])} on one {name}. Queries, attacks and report "
            "are not part of this"
        )
    return made + [f"note: {text}" for text in numbers["notes"]]


KEYS = ("seconds", "cpu_seconds", "disk")


def training(numbers: Mapping[str, Any]) -> list[str]:
    """Returns the lines about what is trained."""
    there = f" ({numbers['on_disk']} on disk)" if numbers["on_disk"] else ""
    return [
        f"{numbers['models']} models{there} of {numbers['parameters']:,} parameters, "
        f"{numbers['epochs']} epochs x {numbers['steps']} steps; chunk {numbers['chunk']}, form "
        f"{numbers['form']}, {numbers['lanes']} at a time, {numbers['precision']}",
        f"{numbers['step_flops']:.3g} FLOPs per step and model, {numbers['flops']:.3g} in all "
        "(products and convolutions)",
    ]


def seconds(value: float | None) -> str:
    """Returns seconds as text; '-' if they were not measured.

    >>> seconds(90.0), seconds(None)
    ('90 s', '-')
    """
    return "-" if value is None else duration(value)


def demands(rows: list[Mapping[str, Any]]) -> list[str]:
    """Returns what is short, or what would be short first, and the fields that help."""
    made = []
    for row in rows:
        if row["share"] > 1:
            made.append(f"does not fit: {demand(row)}; set {row['fields']}")
    if not made and rows:
        made.append(f"it fits; short first: {demand(rows[0])}; it depends on {rows[0]['fields']}")
    return made


def demand(row: Mapping[str, Any]) -> str:
    """Returns what is needed of what there is."""
    return (
        f"{row['what']} of {row['stage'] or 'all'}, {size(row['needed'])} of "
        f"{size(row['available'])} ({row['source']}, {row['share']:.0%})"
    )
