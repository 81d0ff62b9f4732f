"""Models, design, attacks and versions, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import rendering, tables

ORDER = 230
NEEDS = ()
DESIGN = dict(
    supports="attacks may use",
    shadows_min="fewest shadow models per target",
    shadows_max="most shadow models per target",
    train_rows="training rows per model",
    evaluated_rows="scored rows",
    population_rows="population rows (in no model's training set)",
)
SHADOWS = dict(
    shadow_in="shadow models trained on the record",
    shadow_out="shadow models not trained on the record",
    shadow_own="each shadow model's own scored rows",
)


def text(
    *,
    models: Sequence[Mapping] = (),
    design: Mapping = {},
    attacks: Mapping = {},
    versions: Mapping = {},
    about: Mapping = {},
) -> str:
    """Writes what a reader needs to reproduce the run."""
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
            (DESIGN.get(key, key), tables.plain(design_value(key, value)))
            for key, value in design.items()
            if value not in (None, "", [], ())
        ],
        attacks=[
            (
                name,
                tables.plain(compact(row.get("needs", ""))),
                tables.plain(tables.attacker_has(row.get("knows", ""))),
                tables.plain(row.get("note", "")),
            )
            for name, row in attacks.items()
        ],
        facts=[f"{key.replace('_', ' ')} {tables.plain(value)}" for key, value in facts.items()],
    )


def design_value(key: str, value) -> str:
    """Writes a field of the design; of `supports`, what attacks may use."""
    if key == "supports":
        return "; ".join(SHADOWS.get(need, need) for need in value)
    return compact(value)


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
