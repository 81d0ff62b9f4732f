"""Makes the private part of a learner from its settings: mechanism, plan and noisy gradient.

All three derive from one object, so that what is accounted is what runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax import checks
from mia_jax.privacy import accounting, banded, gradients, risk
from mia_jax.privacy import clipping as clip_rules
from mia_jax.privacy import noise as noises
from mia_jax.privacy import sampling as sampling_plans
from mia_jax.privacy.guarantee import Guarantee
from mia_jax.privacy.independence import proof, trials
from mia_jax.privacy.mechanism import Mechanism
from mia_jax.types import Plan

# The noise of a step uses fold_in(step's key, NOISE_KEY); slots use fold_in(step's key, slot).
NOISE_KEY, COUNT_KEY = 2**32 - 2, 2**32 - 3
NOISES = ("gaussian", "banded")
AUTO = "auto"  # privacy.physical_batch: as many units as fit into memory


class Private(NamedTuple):
    """Holds the private part of a learner.

    Attributes:
        guarantee: the mechanism and its accounting.
        plan: draws batches of U * rows_each rows.
        epochs: the number of epochs that the budget allows.
        start: start(params) -> what the steps carry on, a part of the optimizer's state: the clip
            norm C, which the adaptive rule changes, and the state of correlated noise.
        units: the units of a shard, if the plan of a run says how many are computed together; else
            0.
        choose: choose(losses, params, rows, tried) -> Private with the method settled. It refuses a
            loss that mixes the examples of a batch.
        clipped: clipped(losses, params, rows, weight_B, clip) -> Clipped of a shard of a batch.
        noisy: noisy(Clipped of a batch, key, carried) -> (gradient, carried, numbers), where
            `carried` is what `start` returned or a dict with these keys.
    """

    guarantee: Guarantee
    plan: Plan
    epochs: int
    start: Callable[..., dict]
    units: int
    choose: Callable[..., Private]
    clipped: Callable[..., gradients.Clipped]
    noisy: Callable[..., tuple[Any, Any, dict]]


def make(
    *,
    num_rows: int,
    batch_size: int,
    epochs: int,
    padded: bool = False,
    started: bool = False,
    shards: int = 1,
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
    physical_batch: int | str = 0,
    overflow: str = "stop",
    max_batch: int = 0,
    augmentations: int = 1,
    microbatch: int = 1,
    user: str = "",
    user_rows: int = 1,
    quantile: float = 0.5,
    quantile_rate: float = 0.2,
    count_std: float = 0.0,
    max_tpr: float | None = None,
    at_fpr: float | None = None,
    max_advantage: float | None = None,
    noise: str = "gaussian",
    bands: int = 1,
    normals: str = "inverse",
) -> Private:
    """Returns private training: (sum_u clipped gradient_u + Gaussian noise) / expected batch.

    A unit u is an example, or with `user` all rows with the same value of that column of the pool.
    Source: Abadi et al. 2016 (arXiv:1607.00133).

    Args:
        num_rows: the number of rows of a model.
        batch_size: the expected number of units per step; rate = batch_size / units.
        epochs: the requested number of epochs.
        padded: whether models have different numbers of rows.
        started: whether training starts from external parameters, which is noted in the report.
        shards: the number of shards of a batch, whose clipped sums are added before the noise.
        columns: the columns of the pool.
        clip_norm: the clip norm C.
        noise_multiplier: None chooses the noise that `epochs` need under the budget or the risk.
        epsilon: a budget. Training stops before the epoch that would exceed it.
        delta: the delta of the claim.
        accountant: see privacy/accounting.py.
        sampling: see privacy/sampling.py.
        adjacency: see privacy/mechanism.py.
        clipping: see privacy/clipping.py.
        method: see privacy/gradients.py.
        physical_batch: the number of units that fit into memory together; 0 for all of a shard.
            'auto' takes as many as fit into the memory of the device (train/plan.json keeps the
            number, which changes last bits only).
        overflow: 'stop', or 'truncate' Poisson batches to `max_batch` units, which is accounted.
        max_batch: 0 for a size that is exceeded once in 10,000 steps.
        augmentations: the number of copies of every example that are averaged before clipping (De
            et al. 2022).
        microbatch: if > 1, means of this many examples are clipped.
        user: the column of users; '' for none.
        user_rows: the number of rows of a user per step.
        quantile: for clipping='adaptive', as the two below: the target share of gradients within C.
        quantile_rate: how fast C changes.
        count_std: the noise of the count; 0 for batch_size / 20.
        max_tpr: with at_fpr and noise_multiplier=None, the largest true-positive rate that any
            attack may have at that false-positive rate (privacy/risk.py).
        at_fpr: the false-positive rate of max_tpr.
        max_advantage: with noise_multiplier=None, the largest TPR - FPR that any attack may have.
        noise: 'gaussian', independent in every step, or 'banded', correlated over `bands` steps
            (privacy/banded.py), which needs sampling='cyclic_poisson' and jax_privacy.
        bands: the bands of the matrix, and the groups of cyclic Poisson sampling, each of which
            takes part in every bands-th step; 1 is independent noise and Poisson sampling.
        normals: how random bits become normals: 'inverse', jax.random.normal bit for bit, or
            'box_muller', which takes about half the time on a CPU (privacy/noise.py).
    """
    check_noise(noise, bands=bands, sampling=sampling, clipping=clipping)
    units, rows_each = _units(num_rows, columns, user, user_rows)
    checks.one_of(("stop", "truncate"), overflow=overflow)
    checks.one_of(gradients.METHODS, method=method)
    checks.one_of(noises.NORMALS, **{"privacy.normals": normals})
    checks.at_least(
        1,
        batch_size=batch_size,
        augmentations=augmentations,
        microbatch=microbatch,
        user_rows=user_rows,
    )
    automatic = physical_batch == AUTO
    if isinstance(physical_batch, str) and not automatic:
        raise ValueError(
            f"privacy.physical_batch={physical_batch!r} must be a number of units, or 'auto' for "
            "as many as fit into memory."
        )
    physical_batch = 0 if automatic else physical_batch
    checks.at_least(0, physical_batch=physical_batch, max_batch=max_batch)
    checks.fraction(closed="neither", quantile=quantile, delta=delta)
    checks.positive(clip_norm=clip_norm)
    if physical_batch % microbatch:
        raise ValueError(
            f"physical_batch={physical_batch} must be a multiple of microbatch={microbatch}."
        )
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
    # The rate is batch / users, and a model may have rows of fewer users.
    if user and sampling == "without_replacement":
        raise ValueError(
            "sampling='without_replacement' needs the number of users of every model, which is not "
            "public here. Use 'poisson'."
        )
    if overflow == "truncate" and sampling != "poisson":
        raise ValueError(
            f"overflow='truncate' is accounted for sampling='poisson' alone, not {sampling!r}; use "
            "overflow='stop'."
        )
    rule, steps = clip_rules.rule(clipping), math.ceil(units / batch_size)
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
        bands=bands,
        unit=user or "example",
    )
    asked = dict(max_tpr=max_tpr, at_fpr=at_fpr, max_advantage=max_advantage)
    if any(value is not None for value in asked.values()):
        risk.check_risk(**asked)
        if noise_multiplier is not None or epsilon is not None:
            raise ValueError(
                f"privacy.noise_multiplier={noise_multiplier} and epsilon={epsilon}: the noise is "
                f"chosen for {risk.wanted(**asked)}; set both to None."
            )
        noise_multiplier = risk.noise_for(mechanism, **asked) if epochs else 1.0
        mechanism = Mechanism(**mechanism.to_json() | dict(noise_multiplier=noise_multiplier))
    mechanism, fit = _budgeted(mechanism, noise_multiplier, epsilon, delta, accountant, epochs)
    column = banded.coefficients(steps=mechanism.steps, bands=bands)
    size = _slots(mechanism, epochs)
    # Empty slots fill the last physical batch, and all shards have as many.
    multiple = shards * (physical_batch or mechanism.microbatch) if shards > 1 else physical_batch
    draw = _plan(mechanism, size, columns, user, rows_each, augmentations, multiple)
    size = -(-size // multiple) * multiple // shards if shards > 1 else size
    notes = _notes(mechanism, delta, epsilon, epochs, fit, augmentations, accountant, units)
    if any(value is not None for value in asked.values()):
        notes.append(
            f"The noise multiplier {mechanism.noise_multiplier:.4g} was chosen for "
            f"{risk.wanted(**asked)}, whatever the attack."
        )
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
        requested_epochs=epochs,
        method=method,
        notes=tuple(notes),
        coefficients=column,
        plan=draw,
    )
    adaptive = dict(quantile=quantile, rate=quantile_rate) if clipping == "adaptive" else None
    each = rows_each * augmentations * microbatch
    at_once = physical_batch or size  # The units of a shard whose gradients are computed together.
    return _finished(
        guarantee,
        draw,
        fit,
        clip_norm,
        rule,
        each,
        AUTO if automatic else physical_batch // microbatch,
        at_once // microbatch,
        adaptive,
        normals,
    )


def _finished(
    guarantee, plan, epochs, clip, rule, rows_each, physical_units, units, adaptive, normals
) -> Private:
    """Returns the private part whose functions use these settings."""
    mechanism = guarantee.mechanism

    def start(params) -> dict:
        """Returns what the steps carry on."""
        carried = dict(clip_norm=jnp.float32(clip))
        if mechanism.bands > 1:
            carried |= dict(noise=banded.start(guarantee.coefficients, params))
        return carried

    def choose(losses, params, rows, tried) -> Private:
        """Returns the same private part with the method settled.

        'auto' becomes bookkeeping if taps see every parameter and the units of a batch are proved
        to stay separate, and vmap otherwise.

        Args:
            losses: the objective (privacy/gradients.py).
            params: the parameters as shapes.
            rows: the rows of one example as shapes.
            tried: tried(rounds) -> the Trial of this number of rounds.

        Raises:
            ValueError: if the requested method is impossible; for every method, if a trial batch
                shows that examples are mixed.
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
        sentences = (
            "Per-example gradients by "
            f"{method!r}{f', because {many.untapped}' if many.untapped else ''}.",
            many.note(method, trial),
        )
        settled = Guarantee(
            **{**vars(guarantee), "method": method, "notes": (*guarantee.notes, *sentences)}
        )
        return _finished(
            settled, plan, epochs, clip, rule, rows_each, physical_units, units, adaptive, normals
        )

    def at_once(many: int) -> int:
        """Returns how many of `many` units are computed together; 0 for all."""
        if physical_units != AUTO:
            return physical_units
        # One unit at a time is what 'scan' means.
        return 0 if guarantee.method == "scan" else min(gradients.planned_units(), many)

    def checked(losses, params, rows, size: int) -> None:
        """Raises ValueError if a batch of another size than the plan's mixes units.

        A program may depend on the size of its batch.
        """
        many = at_once(size // rows_each) or size // rows_each
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

    def clipped(losses, params, rows, weight_B, clip) -> gradients.Clipped:
        """Returns the clipped sum of the rows of a shard of a batch."""
        checked(losses, params, rows, weight_B.shape[0])
        many, size = weight_B.shape[0] // rows_each, at_once(weight_B.shape[0] // rows_each)
        how = dict(rule=rule, clip=clip, method=guarantee.method, physical_units=size)
        if physical_units != AUTO or not size:
            return gradients.clipped_sum(losses, params, rows, weight_B, units=many, **how)
        rows, padded_B = gradients.filled(rows, weight_B, units=many, size=size)
        filled = gradients.clipped_sum(
            losses, params, rows, padded_B, units=padded_B.shape[0] // rows_each, **how
        )
        by_unit = {name: getattr(filled, name)[:many] for name in gradients.BY_UNIT}
        by_row = jax.tree.map(
            lambda a: a[: many * rows_each], dict(loss_B=filled.loss_B, aux=filled.aux)
        )
        return filled._replace(**by_unit, **by_row)

    def noisy(clipped: gradients.Clipped, key, carried):
        """Returns the noisy gradient of a batch (float32), what is carried on, and numbers.

        The numbers are {clipped, nonfinite, noise_multiplier, clip_norm}.
        """
        clip = carried["clip_norm"]
        scale = clip / mechanism.clip_norm if adaptive else 1.0
        std = mechanism.noise_std_of_sum() * scale
        drawn = noises.gaussian(
            jax.random.fold_in(key, jnp.uint32(NOISE_KEY)), clipped.total, std, normals
        )
        after = {}
        if mechanism.bands > 1:
            drawn, after["noise"] = banded.correlated(drawn, carried["noise"])
        gradient = jax.tree.map(
            lambda total, z: (total + z) / mechanism.divisor, clipped.total, drawn
        )
        real = jnp.maximum(clipped.real_U.sum(), 1)
        numbers = dict(
            clipped=(clipped.counted_U & (clipped.norm_U > clip)).sum() / real,
            nonfinite=(clipped.real_U & ~clipped.counted_U).sum() / real,
            noise_multiplier=std / (mechanism.sensitivity * scale),
            clip_norm=clip,
        )
        if adaptive:
            # A unit without a gradient is treated as absent, so that it changes the count by 1/2
            # only.
            counts_U = clipped.counted_U & (clipped.norm_U > 0)
            inside = jnp.where(counts_U, jnp.where(clipped.norm_U <= clip, 0.5, -0.5), 0).sum()
            wide = mechanism.count_std * mechanism.sensitivity / mechanism.clip_norm
            draw = wide * jax.random.normal(
                jax.random.fold_in(key, jnp.uint32(COUNT_KEY)), (), jnp.float32
            )
            clip = clip_rules.moved_clip(
                clip, inside, draw, expected_batch=mechanism.divisor, **adaptive
            )
        return gradient, after | dict(clip_norm=clip), numbers

    left = units if physical_units == AUTO else 0
    return Private(guarantee, plan, epochs, start, left, choose, clipped, noisy)


def check_noise(noise: str, *, bands: int, sampling: str, clipping: str) -> None:
    """Raises ValueError unless the noise goes with the sampling and the clipping rule.

    Args:
        noise, bands, sampling, clipping: see `make`.
    """
    checks.one_of(NOISES, noise=noise)
    checks.at_least(1, bands=bands)
    if noise == "gaussian":
        if bands > 1:
            raise ValueError(
                f"privacy.bands={bands} is for noise that is correlated over the steps; set "
                "privacy.noise='banded', or bands=1."
            )
        if sampling == "cyclic_poisson":
            raise ValueError(
                "privacy.sampling='cyclic_poisson' is for privacy.noise='banded'; independent "
                "noise needs no distance between the participations of a unit: use "
                "sampling='poisson'."
            )
        return
    if sampling != "cyclic_poisson":
        raise ValueError(
            f"privacy.noise='banded' with sampling={sampling!r}: a unit could take part in two "
            "steps that are fewer than `bands` apart, which correlated noise does not protect. Use "
            "sampling='cyclic_poisson', where a unit takes part in every bands-th step at most."
        )
    if clipping == "adaptive":
        raise ValueError(
            "privacy.noise='banded' with clipping='adaptive': the noise of a step cancels that of "
            "earlier steps only if all have the scale of one clip norm; use clipping='flat'."
        )


class Separation(NamedTuple):
    """Holds how the units of a batch are kept separate.

    Attributes:
        rows: the number of rows of the analyzed program.
        proved: whether the analysis of the program proved the separation.
        meeting: the operation in which units may meet, if it could not.
        untapped: why taps cannot be used.
        foreign: an operation with its own batching rule.
    """

    rows: int
    proved: bool = False
    meeting: str = ""
    untapped: str = ""
    foreign: str = ""

    def note(self, method: str, trial: trials.Trial) -> str:
        """Returns the sentence of the guarantee about which checks were made and which were not."""
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
            "models of a fleet separate."
            if self.foreign
            else ""
        )
        return (
            f"{why}By construction, what is clipped for a unit depends on that unit's rows only: "
            f"{method!r} computes each gradient from a batch of "
            f"its own ({trials}).{foreign}"
        )


def separation(method: str, losses, params, rows, *, units: int, rows_each: int) -> Separation:
    """Returns how this method may keep units separate.

    Args:
        method: one of gradients.METHODS.
        losses: the objective.
        params: the parameters as shapes.
        rows: the rows of one example as shapes.
        units: the number of units whose gradients are computed together.
        rows_each: the rows of a unit.

    Raises:
        ValueError: if the method needs a tap that is missing.
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
    """Returns (the method that 'auto' means, how it keeps units separate).

    Raises:
        ValueError: for a method whose sum would have no bound; the message suggests one that has.
    """
    if not many.proved and method in ("tapped", "bookkeeping"):
        raise ValueError(
            f"privacy.method={method!r}: it cannot be ruled out that the examples of a batch meet "
            f"in {many.meeting}, and then no clipped sum by "
            "taps has a bound. Use method='auto' or 'vmap', which compute every example's gradient "
            "from a batch of its own."
        )
    if method == "tapped" and (operation := proof.foreign_derivative(losses, params, rows)):
        raise ValueError(
            "privacy.method='tapped' needs derivatives that are linear in their cotangent, and "
            f"{operation} has its own rule. "
            "Use method='auto' or 'bookkeeping'."
        )
    if many.proved:
        return "bookkeeping" if method == "auto" else method, many
    foreign = proof.foreign_batching(losses, params, rows)
    if foreign and method == "vmap":
        raise ValueError(
            f"privacy.method='vmap': {foreign} is batched by its own code, which may mix "
            "examples. Use method='scan', one example at a time."
        )
    return ("scan" if foreign else "vmap") if method == "auto" else method, many._replace(
        foreign=foreign
    )


def _units(num_rows: int, columns: Mapping, user: str, user_rows: int) -> tuple[int, int]:
    """Returns (number of units, rows per unit)."""
    if not user:
        if user_rows != 1:
            raise ValueError(
                f"user_rows={user_rows} needs privacy.user, the column that names each row's user."
            )
        return num_rows, 1
    checks.one_of(columns, **{"privacy.user": user})
    return len(np.unique(columns[user])), user_rows


def _cap(units: int, batch_size: int) -> int:
    """Returns the size that a Poisson batch exceeds once in 10,000 steps."""
    return sampling_plans.slots(
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
    """Returns the mechanism with its noise and the steps that the budget allows, and the epochs.

    Raises:
        ValueError: if not even one epoch fits.
    """
    accounting.event(mechanism, accountant=accountant)
    if epsilon is None:
        if noise_multiplier is None:
            raise ValueError(
                "privacy.noise_multiplier=None needs privacy.epsilon, the budget that the noise is "
                "chosen for; or a risk, max_tpr with at_fpr or max_advantage."
            )
        if noise_multiplier > 0:
            # This raises if the pair of sampling and adjacency has no bound.
            accounting.epsilon(mechanism.after(1), delta=delta, accountant=accountant)
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
    """Returns the number of slots of a batch, a multiple of the microbatch."""
    size = sampling_plans.slots(
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
    multiple: int,
) -> Plan:
    """Returns the plan that draws the batches of the mechanism, with a multiple of slots."""
    common = dict(
        sampling=mechanism.sampling, rate=mechanism.rate, size=size, steps=mechanism.epoch_steps
    )
    common |= dict(groups=mechanism.bands)
    plan = sampling_plans.plan(
        **common, cap=mechanism.cap is not None, spread=mechanism.microbatch > 1
    )
    plan = sampling_plans.rounded(plan, multiple)
    if user:
        plan = sampling_plans.of_groups(
            plan, group_N=np.unique(columns[user], return_inverse=True)[1], rows_each=rows_each
        )
    return sampling_plans.repeated(plan, augmentations)


def _notes(
    mechanism: Mechanism, delta, epsilon, epochs, fit, augmentations, accountant, units
) -> list[str]:
    """Returns the sentences about the mechanism for log and report."""
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
    if mechanism.sampling == "cyclic_poisson" and mechanism.bands > 1:
        notes.append(
            "The noise of a step is correlated with that of earlier steps, by the inverse of a "
            f"Toeplitz matrix of {mechanism.bands} bands. Participation: "
            f"every {mechanism.unit if mechanism.unit == 'example' else 'user'} is in one of "
            f"{mechanism.bands} groups, drawn once, uniformly and independently; step t takes "
            f"every one of group t mod {mechanism.bands} with probability "
            f"{mechanism.release_rate:.4g}. So nobody takes part in two steps that are fewer than "
            f"{mechanism.bands} apart, and the accounting is that of "
            f"{mechanism.releases:,} Poisson-sampled releases at that rate."
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
