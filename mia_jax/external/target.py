"""Adds the user's target to the design: its supplied answers, or a black box that is queried."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from mia_jax import registry
from mia_jax.configuration.settings import TargetSettings
from mia_jax.external import arrays as supplied_arrays
from mia_jax.query import black_box
from mia_jax.threat_model import asked_signals
from mia_jax.types import Attack, Design, Pool


def check_signals(attacks: Mapping[str, Attack], signal: Mapping) -> None:
    """Raises ValueError if an attack needs a signal that was not supplied."""
    for name, attack in attacks.items():
        lacking = sorted(asked_signals({name: attack}) - set(signal))
        if lacking:
            raise ValueError(
                f"attack {name!r} needs the signals {', '.join(lacking)}; the arrays that were "
                f"supplied give {', '.join(sorted(signal))}."
            )


def with_target(
    path: str, *, design: Design, pool: Pool, views: int
) -> tuple[Design, dict[str, np.ndarray]]:
    """Returns the design with the supplied target as its last model, and the target's signals.

    All other models of the design are its shadows, and it is the only target.

    Args:
        path: an npz file of the target's answers; see mia_jax.external.arrays. Its rows are the
            rows of the pool in the same order, and its `member` says on which of them the target
            was trained.
        design: the design of the models that are trained here.
        pool: the data.
        views: A, the number of views that the models are asked about.

    Returns:
        (design, {name: [1,A,N..]}).

    Raises:
        ValueError: if rows, labels or views differ from those of the data.
    """
    arrays = supplied_arrays.load(path)
    arrays.setdefault("labels", pool.y)
    supplied = supplied_arrays.build(
        {k: v for k, v in arrays.items() if not k.startswith("shadow_")}, name=path
    )
    if len(supplied.pool.y) != len(pool.y):
        raise ValueError(
            f"{path} has {len(supplied.pool.y)} examples and the data {len(pool.y)}; they must be "
            "the same rows in the same order."
        )
    # Regression labels of the data are rounded to the precision in which models are trained.
    labels = supplied.pool.y.astype(pool.y.dtype)
    if not np.array_equal(labels, pool.y):
        raise ValueError(
            f"{path}: labels differ from the data's at example {int(np.argmax(labels != pool.y))}; "
            "the rows must be in the same order."
        )
    count = next(iter(supplied.signal.values())).shape[1]
    if count != views:
        raise ValueError(
            f"{path} has {count} views and config.query.views {views}; pass one answer for each "
            "view."
        )
    return with_model(design, supplied.design.member_MN[0], path=path), dict(supplied.signal)


def with_black_box(target: TargetSettings, *, design: Design, pool: Pool) -> Design:
    """Returns the design with the black box as its last model and only target.

    Args:
        target: `black_box` names the black box. `member` is an npz file with the array member [N]
            and, if only some rows are to be queried, evaluated [N].
        design: the design of the models that are trained here.
        pool: the data, N rows.

    Raises:
        ValueError: if `member` is missing or its arrays cannot be used.
    """
    if target.black_box and not target.black_box.endswith(".npz"):
        black_box.answering(target.black_box, folder=pathlib.Path())
    if not target.member:
        raise ValueError(
            "target.black_box needs target.member, an npz with member [N]: which of the data's "
            "rows the black box was trained on."
        )
    arrays = supplied_arrays.load(target.member)
    shape, path = (len(pool.y),), target.member
    evaluated_N = None
    if "evaluated" in arrays:
        evaluated_N = supplied_arrays.read_flags(arrays, "evaluated", shape, path)
    member_N = supplied_arrays.read_flags(arrays, "member", shape, path)
    return with_model(design, member_N, evaluated_N, path=path)


def check_labels_only(attacks: Mapping[str, Attack]) -> None:
    """Raises ValueError if an attack asks a black box for more than labels."""
    for name, attack in attacks.items():
        for need in sorted(asked_signals({name: attack})):
            access = registry.make("signals", need).access
            if access != "labels":
                raise ValueError(
                    f"attack {name!r} needs the signal {need!r} (access: {access}); "
                    "target.black_box answers labels alone."
                )


def with_model(
    design: Design, member_N: np.ndarray, evaluated_N: np.ndarray | None = None, *, path: str
) -> Design:
    """Returns the design with one more model, the only target, whose shadows are all others.

    Args:
        design: the design of the models that are trained here.
        member_N: on which rows the new model was trained.
        evaluated_N: which rows are scored; None: all. Population rows are never scored.
        path: the file that says so, for messages.

    Raises:
        ValueError: if a member is a population row.
    """
    if (member_N & design.population_N).any():
        raise ValueError(
            f"{path}: {int((member_N & design.population_N).sum())} of the target's members are "
            "population rows. Set design.population=0 (and design.name='bernoulli' if the number "
            "of rows is odd), or pass population_x and population_y with the data."
        )
    scored_N = ~design.population_N if evaluated_N is None else evaluated_N & ~design.population_N
    models = len(design.member_MN)
    shadow_MM = np.zeros((models + 1, models + 1), bool)
    shadow_MM[:models, :models] = design.shadow_MM
    shadow_MM[models, :models] = True
    return dataclasses.replace(
        design,
        name=f"{design.name} + supplied target",
        member_MN=np.concatenate([design.member_MN, member_N[None]]),
        evaluated_MN=np.concatenate([design.evaluated_MN, scored_N[None]]),
        shadow_MM=shadow_MM,
        unit_M=np.append(design.unit_M, design.unit_M.max() + 1),
        targets=(models,),
        supports=frozenset(needs_of_outsider(design)),
        note=f"{design.note}; the target was supplied",
        remake=None,
    )


def needs_of_outsider(design: Design) -> set[str]:
    """Returns the SHADOW_NEEDS that all models of a design meet as shadows of another model."""
    inside = bool((design.member_MN.any(0) & ~design.population_N).any())
    return {"shadow_own", "shadow_out"} | ({"shadow_in"} if inside else set())
