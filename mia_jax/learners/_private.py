"""The private part of a learner: settings -> mechanism, plan and the noisy gradient of one step,
all from one object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import checks
from mia_jax.privacy import accounting, gradients, noise
from mia_jax.privacy import clipping as clips
from mia_jax.privacy import sampling as samplings
from mia_jax.privacy.guarantee import Guarantee
from mia_jax.privacy.independence import proof, trials
from mia_jax.privacy.mechanism import Mechanism
from mia_jax.types import Plan

NOISE_KEY, COUNT_KEY = (
    2**32 - 2,
    2**32 - 3,
)  # fold_in(step's key, NOISE_KEY); slots use fold_in(step's key, slot)


class Private(NamedTuple):
    """`plan` draws batches of U * rows_each rows; `gradient(losses, params, rows, weight_B, key,
    clip) -> (gradient, clip, Clipped, numbers)`.

    `epochs` are those that the budget allows. `clip` is C, which the adaptive rule moves.
    `choose(losses, params, rows, tried)` settles method 'auto' and refuses a loss that mixes the
    examples of a batch.
    """

    guarantee: Guarantee
    plan: Plan
    epochs: int
    clip: float
    choose: Callable[..., Private]
    gradient: Callable[..., tuple[Any, Any, gradients.Clipped, dict]]


def make(
    *,
    num_rows: int,
    batch_size: int,
    epochs: int,
    padded: bool = False,
    started: bool = False,
    columns: Mapping[str, np.ndarray] = {},
    clip_norm: float = 1.0,
    noise_multiplier: float | None = 1.0,
    epsilon: float | None = None,
    delta: float = 1e-5,
    accountant: str = "pld",
    sampling: str = "poisson",
    adjacency: str = "add_remove",
    clipping: str = "flat",
    method: str = "auto",
    physical_batch: int = 0,
    overflow: str = "stop",
    max_batch: int = 0,
    augmentations: int = 1,
    microbatch: int = 1,
    user: str = "",
    user_rows: int = 1,
    quantile: float = 0.5,
    quantile_rate: float = 0.2,
    count_std: float = 0.0,
) -> Private:
    """Per-example clipping and Gaussian noise: (sum_u clipped gradient_u + noise) / expected batch.

    (Abadi et al. 2016, arXiv:1607.00133.)

    A unit is an example, or with `user` all rows of one value of that column of the pool
    (`user_rows` of them a step); `batch_size` is the expected number of units a step, rate =
    batch_size / units. `epsilon` is a budget: training stops before the epoch that would exceed it;
    with noise_multiplier=None the noise is what `epochs` need. `clipping`, `method`, `sampling`,
    `adjacency`, `accountant`: see mia_jax/privacy. `overflow` is 'stop', or 'truncate' Poisson
    batches to `max_batch` units (0: exceeded once in 10,000 steps), which is accounted.
    `physical_batch` units at a time fit into memory (0: all). `augmentations` copies of every
    example are averaged before clipping (De et al. 2022). `started`: from brought parameters, which
    is said. `microbatch` > 1 clips means of that many examples. `quantile`, `quantile_rate`,
    `count_std` (0: batch_size / 20) belong to clipping='adaptive'.
    """
    units, rows_each = _units(num_rows, columns, user, user_rows)
    checks.one_of(("stop", "truncate"), overflow=overflow)
    checks.one_of(gradients.METHODS, method=method)
    checks.at_least(
        1,
        batch_size=batch_size,
        augmentations=augmentations,
        microbatch=microbatch,
        user_rows=user_rows,
    )
    checks.at_least(0, physical_batch=physical_batch, max_batch=max_batch)
    checks.fraction(closed="neither", quantile=quantile, delta=delta)
    checks.positive(clip_norm=clip_norm)
    if batch_size > units:
        raise ValueError(
            f"rate = batch_size / units = {batch_size} / {units} must be at most 1; lower "
            "learner.batch_size."
        )
    if microbatch > 1 and user:
        raise ValueError(
            "microbatch > 1 cannot be combined with user-level clipping; a user's rows are "
            "averaged anyway (user_rows)."
        )
    if padded and sampling == "without_replacement":
        raise ValueError(
            "sampling='without_replacement' needs the same number of rows for every model; this "
            "design's differ. Use 'poisson'."
        )
    if (
        user and sampling == "without_replacement"
    ):  # its rate is batch / users, and a model may have rows of fewer
        raise ValueError(
            "sampling='without_replacement' needs the number of users of every model, which is not "
            "public here. Use 'poisson'."
        )
    if overflow == "truncate" and sampling != "poisson":
        raise ValueError(
            f"overflow='truncate' is accounted for sampling='poisson' alone, not {sampling!r}; use "
            "overflow='stop'."
        )
    rule, steps = clips.rule(clipping), math.ceil(units / batch_size)
    cap = max_batch or _cap(units, batch_size) if overflow == "truncate" else None
    mechanism = Mechanism(
        sampling=sampling,
        rate=batch_size / units,
        clip_norm=float(rule.bound(clip_norm)),
        noise_multiplier=1.0 if noise_multiplier is None else noise_multiplier,
        expected_batch=batch_size,
        steps=steps * epochs,
        adjacency=adjacency,
        epoch_steps=steps,
        cap=cap,
        microbatch=microbatch,
        count_std=(count_std or batch_size / 20) if clipping == "adaptive" else 0.0,
        unit=user or "example",
    )
    mechanism, fit = _budgeted(mechanism, noise_multiplier, epsilon, delta, accountant, epochs)
    size = _slots(mechanism, epochs)
    draw = _plan(mechanism, size, columns, user, rows_each, augmentations, physical_batch)
    notes = _notes(mechanism, delta, epsilon, epochs, fit, augmentations, accountant, units)
    if started:
        notes.append(
            "Training starts from another run's parameters; what they tell about the rows of that "
            "run is not covered."
        )
    guarantee = Guarantee(
        mechanism=mechanism,
        delta=delta,
        accountant=accountant,
        budget=epsilon,
        wanted_epochs=epochs,
        method=method,
        notes=tuple(notes),
        plan=draw,
    )
    adaptive = dict(quantile=quantile, rate=quantile_rate) if clipping == "adaptive" else None
    each = rows_each * augmentations * microbatch
    at_once = physical_batch or size  # examples or users whose gradients are computed together
    return _finished(
        guarantee,
        draw,
        fit,
        clip_norm,
        rule,
        each,
        physical_batch // microbatch,
        at_once // microbatch,
        adaptive,
    )


def _finished(
    guarantee, plan, epochs, clip, rule, rows_each, physical_units, units, adaptive
) -> Private:
    mechanism = guarantee.mechanism

    def choose(losses, params, rows, tried) -> Private:
        """The same with the method settled: what the settings say, or for 'auto' bookkeeping where
        taps see every parameter and the units of a batch are proved to stay apart, else vmap.
        `rows` are one example's as shapes; `tried(rounds)` is the Trial of so many rounds.

        ValueError if the wanted method cannot be, and for every method if a trial batch shows that
        examples are mixed.
        """
        many = separation(guarantee.method, losses, params, rows, units=units, rows_each=rows_each)
        trial = tried(1 if many.proved else 3)
        if trial.mixes:
            raise ValueError(
                "gradient='private': the loss of an example depends on the other examples of its "
                "batch"
                f"{f', which meet in {many.meeting}' if many.meeting else ''}, so no example's "
                "gradient is its own. Use norms and means over the "
                "features of one example (model.norm='group' or 'layer') and an objective of "
                "single examples."
            )
        method, many = settled_method(guarantee.method, many, losses, params, rows)
        said = (
            "Per-example gradients by "
            f"{method!r}{f', because {many.untapped}' if many.untapped else ''}.",
            many.note(method, trial),
        )
        settled = Guarantee(
            **{**vars(guarantee), "method": method, "notes": (*guarantee.notes, *said)}
        )
        return _finished(
            settled, plan, epochs, clip, rule, rows_each, physical_units, units, adaptive
        )

    def checked(losses, params, rows, size: int) -> None:
        """ValueError if a batch of another size than the plan's mixes units: a program may depend
        on the size of its batch.
        """
        many = physical_units or size // rows_each
        if guarantee.method in ("tapped", "bookkeeping") and many != units:
            params, batch = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, rows)
            )
            batch = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct((many * rows_each, *a.shape[1:]), a.dtype), batch
            )
            if met := proof.meeting(losses, params, batch, many):
                raise ValueError(
                    f"in a batch of {many * rows_each} rows, other than the plan's "
                    f"{units * rows_each}, examples may meet in {met}."
                )

    def gradient(losses, params, rows, weight_B, key, clip):
        """The noisy gradient (float32), the next C, and {clipped, nonfinite, noise_multiplier,
        clip_norm} of this step.
        """
        checked(losses, params, rows, weight_B.shape[0])
        how = dict(
            units=weight_B.shape[0] // rows_each,
            rule=rule,
            clip=clip,
            method=guarantee.method,
            physical_units=physical_units,
        )
        found = gradients.clipped_sum(losses, params, rows, weight_B, **how)
        scale = clip / mechanism.clip_norm if adaptive else 1.0
        std = mechanism.noise_std_of_sum() * scale
        drawn = noise.gaussian(jax.random.fold_in(key, jnp.uint32(NOISE_KEY)), found.total, std)
        noisy = jax.tree.map(lambda total, z: (total + z) / mechanism.divisor, found.total, drawn)
        real = jnp.maximum(found.real_U.sum(), 1)
        numbers = dict(
            clipped=(found.counted_U & (found.norm_U > clip)).sum() / real,
            nonfinite=(found.real_U & ~found.counted_U).sum() / real,
            noise_multiplier=std / (mechanism.sensitivity * scale),
            clip_norm=clip,
        )
        if adaptive:
            counts_U = found.counted_U & (
                found.norm_U > 0
            )  # without a gradient a unit is as good as absent: it moves the count by 1/2 alone
            inside = jnp.where(counts_U, jnp.where(found.norm_U <= clip, 0.5, -0.5), 0).sum()
            wide = mechanism.count_std * mechanism.sensitivity / mechanism.clip_norm
            draw = wide * jax.random.normal(
                jax.random.fold_in(key, jnp.uint32(COUNT_KEY)), (), jnp.float32
            )
            clip = clips.moved_clip(
                clip, inside, draw, expected_batch=mechanism.divisor, **adaptive
            )
        return noisy, clip, found, numbers

    here = Private(guarantee, plan, epochs, clip, choose, gradient)
    return here


class Separation(NamedTuple):
    """How the units of a batch are kept apart: `proved` by the analysis of the program of `rows`
    rows, or `meeting` says where it could not rule out that they meet; `untapped`: why taps cannot
    be used; `foreign`: an operation that brings its own batching.
    """

    rows: int
    proved: bool = False
    meeting: str = ""
    untapped: str = ""
    foreign: str = ""

    def note(self, method: str, trial: trials.Trial) -> str:
        """The sentence of the guarantee: which check was made, and which could not be."""
        trials = (
            f"{trial.batches} trial batches agree"
            if not trial.unable
            else f"trial batches could not be compared, because {trial.unable}"
        )
        if self.proved:
            return (
                f"Checked on the program of a batch of {self.rows} rows: what is clipped for a "
                "unit depends on that unit's rows only "
                f"(data-flow analysis; {trials})."
            )
        why = (
            "The data-flow analysis could not rule out that examples of a batch meet in "
            f"{self.meeting}. "
            if self.meeting
            else ""
        )
        if self.meeting and not trial.unable:
            trials += (
                "; if examples do meet, training sees batches of one unit, evaluation larger ones"
            )
        foreign = (
            f" The batching of {self.foreign}, which is not JAX's own, is trusted to keep the "
            "models of a fleet apart."
            if self.foreign
            else ""
        )
        return (
            f"{why}By construction, what is clipped for a unit depends on that unit's rows only: "
            f"{method!r} computes each gradient from a batch of "
            f"its own ({trials}).{foreign}"
        )


def separation(method: str, losses, params, rows, *, units: int, rows_each: int) -> Separation:
    """How this method may keep units apart.

    `rows` are one example's as shapes; `units` are computed together. ValueError for a missing tap.
    """
    many = Separation(rows=units * rows_each)
    if method in ("vmap", "scan"):
        return many
    why = gradients.untapped(losses, params, rows)
    if why and method != "auto":
        raise ValueError(
            f"privacy.method={method!r} needs models whose every parameter has a tap "
            f"(mia_jax/models/layers.py): {why}. Use method='auto' or 'vmap'."
        )
    if why:
        return many._replace(untapped=why)
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((many.rows, *leaf.shape[1:]), leaf.dtype), rows
    )
    met = proof.meeting(losses, params, batch, units)
    return many._replace(proved=not met, meeting=met)


def settled_method(method: str, many: Separation, losses, params, rows) -> tuple[str, Separation]:
    """(the method that 'auto' stands for, how it keeps units apart).

    ValueError for a method whose sum would have no bound, with one that has.
    """
    if not many.proved and method in ("tapped", "bookkeeping"):
        raise ValueError(
            f"privacy.method={method!r}: it cannot be ruled out that the examples of a batch meet "
            f"in {many.meeting}, and then no clipped sum by "
            "taps has a bound. Use method='auto' or 'vmap', which compute every example's gradient "
            "from a batch of its own."
        )
    if method == "tapped" and (own := proof.foreign_derivative(losses, params, rows)):
        raise ValueError(
            "privacy.method='tapped' needs derivatives that are linear in their cotangent, and "
            f"{own} brings its own. "
            "Use method='auto' or 'bookkeeping'."
        )
    if many.proved:
        return "bookkeeping" if method == "auto" else method, many
    foreign = proof.foreign_batching(losses, params, rows)
    if foreign and method == "vmap":
        raise ValueError(
            f"privacy.method='vmap': {foreign} is batched by code of its own, which may mix "
            "examples. Use method='scan', one example at a time."
        )
    return ("scan" if foreign else "vmap") if method == "auto" else method, many._replace(
        foreign=foreign
    )


def _units(num_rows: int, columns: Mapping, user: str, user_rows: int) -> tuple[int, int]:
    """(number of units, rows a unit brings)."""
    if not user:
        if user_rows != 1:
            raise ValueError(
                f"user_rows={user_rows} needs privacy.user, the column that names each row's user."
            )
        return num_rows, 1
    checks.one_of(columns, **{"privacy.user": user})
    return len(np.unique(columns[user])), user_rows


def _cap(units: int, batch_size: int) -> int:
    """The size that a Poisson batch exceeds once in 10,000 steps."""
    return samplings.slots(
        sampling="poisson",
        num_units=units,
        rate=batch_size / units,
        expected_batch=batch_size,
        steps=1,
        cap=None,
        chance=1e-4,
    )


def _budgeted(
    mechanism, noise_multiplier, epsilon, delta, accountant, epochs
) -> tuple[Mechanism, int]:
    """The mechanism with its noise and the steps that the budget allows, and those epochs.

    ValueError if not one epoch fits.
    """
    accounting.event(mechanism, accountant=accountant)
    if epsilon is None:
        if noise_multiplier is None:
            raise ValueError(
                "privacy.noise_multiplier=None needs privacy.epsilon, the budget that the noise is "
                "chosen for."
            )
        if noise_multiplier > 0:
            accounting.epsilon(
                mechanism.after(1), delta=delta, accountant=accountant
            )  # refuses a pair without a bound
        return mechanism, epochs
    checks.positive(**{"privacy.epsilon": epsilon})
    if noise_multiplier == 0 and math.isfinite(epsilon):
        raise ValueError(
            f"privacy.epsilon={epsilon} cannot be had with noise_multiplier=0; set "
            "noise_multiplier=None to have it chosen."
        )
    common = dict(delta=delta, accountant=accountant)
    if noise_multiplier is None:
        chosen = accounting.noise_for(epsilon, mechanism, **common)
        return Mechanism(**mechanism.to_json() | dict(noise_multiplier=chosen)), epochs
    fit = accounting.epochs_for(epsilon, mechanism, **common, most=epochs)
    if not fit and epochs:
        after = accounting.epsilon(mechanism.after(mechanism.epoch_steps), **common)
        raise ValueError(
            f"privacy.epsilon={epsilon}: not one epoch fits, the first one costs {after:.3g} "
            f"({accountant}, delta {delta:.3g}). Raise the budget or "
            "noise_multiplier, lower batch_size, or set noise_multiplier=None to have the noise "
            "chosen for the epochs."
        )
    return mechanism.after(fit * mechanism.epoch_steps), fit


def _slots(mechanism: Mechanism, epochs: int) -> int:
    """The slots of a batch, a multiple of the microbatch."""
    size = samplings.slots(
        sampling=mechanism.sampling,
        num_units=mechanism.num_units,
        rate=mechanism.rate,
        expected_batch=round(mechanism.expected_batch),
        steps=epochs * mechanism.epoch_steps,
        cap=mechanism.cap,
    )
    if size % mechanism.microbatch and (
        mechanism.cap is not None or mechanism.sampling in ("shuffle", "without_replacement")
    ):
        raise ValueError(f"microbatch={mechanism.microbatch} must divide the batch of {size}.")
    return -(-size // mechanism.microbatch) * mechanism.microbatch


def _plan(
    mechanism: Mechanism,
    size: int,
    columns,
    user: str,
    rows_each: int,
    augmentations: int,
    physical_batch: int,
) -> Plan:
    if physical_batch % mechanism.microbatch:
        raise ValueError(
            f"physical_batch={physical_batch} must be a multiple of "
            f"microbatch={mechanism.microbatch}."
        )
    common = dict(
        sampling=mechanism.sampling, rate=mechanism.rate, size=size, steps=mechanism.epoch_steps
    )
    plan = samplings.plan(**common, cap=mechanism.cap is not None, spread=mechanism.microbatch > 1)
    plan = samplings.rounded(plan, physical_batch)
    if user:
        plan = samplings.of_groups(
            plan, group_N=np.unique(columns[user], return_inverse=True)[1], rows_each=rows_each
        )
    return samplings.repeated(plan, augmentations)


def _notes(
    mechanism: Mechanism, delta, epsilon, epochs, fit, augmentations, accountant, units
) -> list[str]:
    notes = []
    if delta >= 1 / units:
        notes.append(
            f"Warning: delta={delta:.3g} is not below 1/n = {1 / units:.3g}; publishing one whole "
            "row would satisfy it."
        )
    if fit < epochs:
        notes.append(
            f"The budget epsilon={epsilon:g} ends training after {fit} of {epochs} epochs."
        )
    if mechanism.noise_multiplier == 0:
        notes.append("No noise is added: epsilon is infinite.")
    elif mechanism.noise_std() >= mechanism.clip_norm:
        notes.append(
            "Warning: the noise dominates. Every coordinate of every step's gradient gets noise "
            f"of standard deviation {mechanism.noise_std():.3g} "
            f"(noise multiplier {mechanism.noise_multiplier:.3g} * sensitivity "
            f"{mechanism.sensitivity:.3g} / expected batch {mechanism.divisor:g}), "
            f"and the mean of the clipped gradients has a norm of at most {mechanism.clip_norm:g} "
            "over all coordinates together: training learns "
            "next to nothing and may diverge. A larger learner.batch_size or privacy.epsilon, or "
            "fewer epochs, need less noise."
        )
    if mechanism.sampling in ("shuffle", "balls_in_bins"):
        notes.append(
            f"sampling={mechanism.sampling!r} is not amplified: every unit takes part once an "
            "epoch, and no Poisson epsilon is claimed."
        )
    if mechanism.microbatch > 1:
        notes.append(
            f"Means of {mechanism.microbatch} examples are clipped, so one example moves the sum "
            "by 2 C: not the usual per-example mechanism."
        )
    if augmentations > 1:
        notes.append(
            f"{augmentations} augmentations of every example are averaged before clipping."
        )
    if accountant == "gdp":
        notes.append(
            f"Epsilon by the central limit theorem of Gaussian DP: {accounting.APPROXIMATION}."
        )
    return notes
