"""Models, design, attacks and versions, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import rendering, tables

ORDER = 230
NEEDS = ()


def text(
    *,
    models: Sequence[Mapping] = (),
    design: Mapping = {},
    attacks: Mapping = {},
    versions: Mapping = {},
    about: Mapping = {},
) -> str:
    """Writes what a reader needs to reproduce the run."""
    fields = ("needs", "knows", "note")
    facts = {
        **versions.get("packages", {}),
        **{k: compact(v) for k, v in versions.items() if k != "packages" and v is not None},
    }
    facts |= {key: about[key] for key in ("seed", "pool") if key in about}
    if not (models or design or attacks or facts):
        return ""
    return rendering.render(
        "appendix",
        models=tables.models(models) if models else None,
        design=[
            (key, tables.plain(compact(value)))
            for key, value in design.items()
            if value not in (None, "", [], ())
        ],
        attacks=[
            (name, *(tables.plain(compact(row.get(field, ""))) for field in fields))
            for name, row in attacks.items()
        ],
        facts=[f"{key} {tables.plain(value)}" for key, value in facts.items()],
    )


def compact(value) -> str:
    """Writes a value on one line; a long run of whole numbers as '0..63'."""
    if isinstance(value, list | tuple):
        values = list(value)
        if (
            len(values) > 4
            and all(isinstance(v, int) for v in values)
            and values == list(range(values[0], values[-1] + 1))
        ):
            return f"{values[0]}..{values[-1]}"
        return ", ".join(map(str, values))
    return str(value)
