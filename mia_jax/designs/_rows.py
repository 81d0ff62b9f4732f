"""Contains what the designs share: random generators, population rows, row lists and checks."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Collection, Sequence

import numpy as np
from scipy.special import bdtrc

from mia_jax import checks
from mia_jax.threat_model import SHADOW_NEEDS
from mia_jax.types import Design

TAIL = 1e-12  # A binomial number of rows exceeds k_max with at most this probability.


def generator(seed: int, tag: str, index: int = 0) -> np.random.Generator:
    """Returns a NumPy generator that depends on (seed, tag, index) only.

    Adding models therefore does not change the draws of the first ones.
    """
    checks.at_least(0, seed=seed)
    return np.random.default_rng(
        np.random.SeedSequence(int(seed), spawn_key=(zlib.crc32(tag.encode()), index))
    )


def kept_aside(
    num_examples: int, seed: int, population: float, given_population_N, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (population_N, rows that models may use).

    At least round(population * N) rows are kept aside. Rows that the data marks count toward that
    share, and the rest is drawn. Up to multiple - 1 further rows are drawn to make the number of
    usable rows divisible by `multiple`.

    Raises:
        ValueError: if fewer than `multiple` rows remain.
    """
    checks.positive(num_examples=num_examples)
    checks.fraction(closed="left", population=population)
    population_N = np.zeros(num_examples, bool)
    if given_population_N is not None:
        checks.shape(
            "N", num_examples=population_N, given_population=np.asarray(given_population_N)
        )
        population_N |= np.asarray(given_population_N, bool)
    free = np.flatnonzero(~population_N)
    draw = min(max(0, round(population * num_examples) - int(population_N.sum())), len(free))
    draw += (len(free) - draw) % multiple
    if len(free) - draw < max(multiple, 2):
        raise ValueError(
            f"num_examples={num_examples} leaves {len(free) - draw} rows for the models after "
            f"{int(population_N.sum()) + draw} population rows; "
            f"at least {max(multiple, 2)} are needed: use more data or a smaller design.population."
        )
    population_N[generator(seed, "population").permutation(free)[:draw]] = True
    return population_N, np.flatnonzero(~population_N)


def drawn_aside(
    usable: np.ndarray, num_examples: int, seed: int, share: float, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (extra_N, rows that are left): rows that learners may use beside their members.

    The number of rows that are left is divisible by `multiple`.

    Args:
        usable: the rows outside the population.
        num_examples: N.
        seed: the seed of the draw.
        share: the share of the N rows that is drawn; 0 draws none.
        multiple: see above.

    Raises:
        ValueError: if fewer than `multiple` rows remain.
    """
    checks.fraction(closed="left", extra=share)
    extra_N = np.zeros(num_examples, bool)
    if not share:
        return extra_N, usable
    draw = min(round(share * num_examples), len(usable))
    draw += (len(usable) - draw) % multiple
    if len(usable) - draw < max(multiple, 2):
        raise ValueError(
            f"extra={share} leaves {len(usable) - draw} of {num_examples} rows for the models; use "
            "a smaller design.extra."
        )
    extra_N[generator(seed, "extra").permutation(usable)[:draw]] = True
    return extra_N, usable[~extra_N[usable]]


def k_max(num_examples: int, probability: float) -> int:
    """Returns the smallest K that a binomial number exceeds with probability <= 1e-12.

    The number is Binomial(num_examples, probability).
    """
    checks.positive(num_examples=num_examples)
    checks.fraction(probability=probability)
    return int(np.argmax(bdtrc(np.arange(num_examples + 1.0), num_examples, probability) <= TAIL))


def rows(member_N: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows_K int32, weight_K float32): the row numbers of the members, padded to k rows.

    Padding is row 0 with weight 0.

    Raises:
        ValueError: if there are more than k members.
    """
    index = np.flatnonzero(member_N)
    if len(index) > k:
        raise ValueError(f"a model has {len(index)} rows but the design holds at most K={k}.")
    pad = (0, k - len(index))
    return np.pad(index, pad).astype(np.int32), np.pad(np.ones(len(index), np.float32), pad)


def all_rows(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows_MK int32, weight_MK float32) of every model, with K = design.num_rows."""
    rows_MK, weight_MK = zip(
        *(rows(member_N, design.num_rows) for member_N in design.member_MN), strict=True
    )
    return np.stack(rows_MK), np.stack(weight_MK)


def extra_rows(design: Design) -> np.ndarray:
    """Returns the rows outside each model's training set that its learner may use, [M,E] int32.

    E is 0 in a design without such rows.
    """
    if design.extra_MN is None:
        return np.zeros((len(design.member_MN), 0), np.int32)
    return np.stack([np.flatnonzero(extra_N) for extra_N in design.extra_MN]).astype(np.int32)


def chosen(targets: int | Sequence[int] | None, models: int) -> tuple[int, ...]:
    """Returns the audited models: None = all, an int n = the first n, or their numbers.

    Raises:
        ValueError: if one of them does not exist.
    """
    if targets is None:
        return tuple(range(models))
    if isinstance(targets, (int, np.integer)):
        if not 1 <= targets <= models:
            raise ValueError(f"targets={targets} must lie in 1..{models}, the number of models.")
        return tuple(range(targets))
    numbers = tuple(int(t) for t in targets)
    if not numbers or len(set(numbers)) < len(numbers) or not all(0 <= t < models for t in numbers):
        raise ValueError(f"targets={numbers} must be different model numbers in 0..{models - 1}.")
    return numbers


def remade(grown: Callable[[int, dict], dict] | None = None, *, more: str = "") -> Callable:
    """Returns a decorator for the `make` of a design, which adds `remake(models)`.

    `remake` calls `make` again with the same arguments, replaced by those of
    `grown(models, arguments)`. Without `grown` the number of models is fixed, and another number
    raises a ValueError that says what to do for `more`.
    """

    def decorate(make: Callable[..., Design]) -> Callable[..., Design]:
        @functools.wraps(make)
        def made(**arguments) -> Design:
            design = make(**arguments)

            def remake(models: int) -> Design:
                if grown is None and models != len(design.member_MN):
                    raise ValueError(
                        f"models={models}: {design.name} has exactly {len(design.member_MN)} here; "
                        f"{more}."
                    )
                return made(**arguments | (grown(models, arguments) if grown else {}))

            return dataclasses.replace(design, remake=remake)

        return made

    return decorate


def checked(
    labels_N=None,
    *,
    member_MN: np.ndarray,
    population_N: np.ndarray,
    evaluated_MN: np.ndarray | None = None,
    unit_M: np.ndarray | None = None,
    shadow_MM: np.ndarray | None = None,
    targets: int | Sequence[int] | None = None,
    supports: Collection[str] = SHADOW_NEEDS,
    **fields,
) -> Design:
    """Returns the Design after the checks.

    Population rows must not be used, members and non-members must be evaluated, and every class
    must have a member.

    Args:
        labels_N: the labels, for the check of classes; None for no check.
        member_MN: see Design, as the following ones.
        population_N: the population rows.
        evaluated_MN: None evaluates every row outside the population.
        unit_M: None makes every model a separate unit.
        shadow_MM: None makes the models of all other units shadows of a target.
        targets: see `chosen`.
        supports: the shadow needs that the design satisfies; all by default.
        fields: the other fields of Design.
    """
    models = len(member_MN)
    evaluated_MN = np.tile(~population_N, (models, 1)) if evaluated_MN is None else evaluated_MN
    unit_M = np.arange(models) if unit_M is None else unit_M
    design = Design(
        member_MN=member_MN,
        evaluated_MN=evaluated_MN,
        shadow_MM=unit_M[:, None] != unit_M[None] if shadow_MM is None else shadow_MM,
        population_N=population_N,
        unit_M=unit_M,
        targets=chosen(targets, models),
        supports=frozenset(supports),
        **fields,
    )
    if ((member_MN | evaluated_MN) & design.population_N).any():
        raise ValueError("population rows must lie outside every model and outside the evaluation.")
    for t in design.targets:
        inside, outside = (
            int((member_MN[t] & evaluated_MN[t]).sum()),
            int((~member_MN[t] & evaluated_MN[t]).sum()),
        )
        if not inside or not outside:
            raise ValueError(
                f"model {t} would be audited on {inside} members and {outside} non-members; both "
                "must be at least 1."
            )
    if labels_N is not None:
        _every_class_has_members(member_MN, evaluated_MN, np.asarray(labels_N))
    return design


def _every_class_has_members(
    member_MN: np.ndarray, evaluated_MN: np.ndarray, labels_N: np.ndarray
) -> None:
    """Raises ValueError if a class of the used rows has no member in some model."""
    checks.shape("N", member=member_MN[0], labels=labels_N)
    used_N = (member_MN | evaluated_MN).any(0)
    labels, code_N = np.unique(labels_N, return_inverse=True)
    pool = np.bincount(code_N[used_N], minlength=len(labels))
    for m, member_N in enumerate(member_MN):
        empty = np.flatnonzero(
            (np.bincount(code_N[member_N], minlength=len(labels)) == 0) & (pool > 0)
        )
        if len(empty):
            c = empty[0]
            raise ValueError(
                f"class {labels[c]} has no member in model {m} (the pool has {pool[c]} rows of "
                f"that class and {len(empty)} such classes): "
                "drop or merge rare classes, or draw the rows at random if the data is sorted by "
                "class."
            )
