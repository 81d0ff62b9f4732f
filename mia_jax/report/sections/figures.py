"""The figures that belong to no other section."""

from __future__ import annotations

from collections.abc import Sequence

from mia_jax.report import rendering

ORDER = 200
NEEDS = ("figures",)
TITLES = dict(
    roc="ROC curves",
    scores="Scores of members and non-members",
    adversarial="Adversarial examples",
    weights="Weights as images",
)


def text(*, figures: Sequence[str]) -> str:
    """Shows the figures in the order of TITLES; figures of other names are shown by their
    sections.
    """
    paths = {path.rpartition("/")[2].partition(".")[0]: path for path in figures}
    shown = [(title, paths[name]) for name, title in TITLES.items() if name in paths]
    return rendering.render("figures", figures=shown) if shown else ""
