"""What to do after the verdict: decide, change, compare, hold a limit; where the numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mia_jax.report import rendering, scope

ORDER = 64
NEEDS = ("results", "verdict")


def text(*, results: Sequence[Mapping], verdict: Mapping, epochs: Any = None, **report: Any) -> str:
    """Writes the steps that suit the verdict, in the commands of the caller's interface."""
    facts = scope.of(dict(report, results=results, verdict=verdict))
    code = facts.origin in ("arrays", "model", "recipe")
    return rendering.render("next_steps", f=facts, epochs=bool(epochs), code=code)
