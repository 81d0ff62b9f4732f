"""Gives every canary a parameter that no other example touches, and reads what training released.

A Dirac canary is a row whose loss is a large multiple of one parameter of a table that is appended
to the model. Its gradient lies on that coordinate alone and is longer than the clip norm, so that
its clipped gradient is C there; the gradients of all other rows are 0 there. The coordinate takes
the same way as every parameter of the model (per-example gradient, clipping, sum, noise, division),
and what is released there in step t is

    r_t = (size * [the canary took part] + noise) / divisor,

the worst case that the accounting is about. An auditor who reads r_t sees noise that is missing or
too small, gradients that are not clipped, a reused key and batches that are not drawn as claimed
within seconds, with any model and data (Nasr et al. 2023, arXiv:2302.07956, section 4).

The mechanism that is audited is that of the extended model: the table is part of its parameters.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import logsumexp
from scipy import stats

from mia_jax import checks
from mia_jax.models.kernels import taps
from mia_jax.privacy import canary_scores, clipping
from mia_jax.privacy.gradients import paths
from mia_jax.privacy.mechanism import Mechanism
from mia_jax.types import Batch, Learner, Loss, Model, Pool, TrainState

NODE = "dirac"  # of the parameters: {'dirac': {'table': [C,1]}}
PART = "dirac"  # of Model.parts, by which a learner knows that the table is there
# Scores of canaries, higher = member. The first two are those of canary_scores.py.
SIGNALS = ("update_alignment", "update_change", "privacy_loss", "fixed_order")
# Sums that `checked` reads.
MOMENTS = ("release_sum", "release_square", "release_lag", "release_place")
STRENGTH = 10.0  # The norm of a canary's gradient before it is clipped, in clip norms.


class Canaries(NamedTuple):
    """Says which rows of a pool are Dirac canaries.

    Attributes:
        number_N: the number of the row's canary 0..C-1, and -1 for other rows, [N].
        count: C.
        norm: the norm of a canary's gradient before it is clipped.
    """

    number_N: np.ndarray
    count: int
    norm: float


def canaries(rows: np.ndarray, *, num_examples: int, norm: float) -> Canaries:
    """Returns the Dirac canaries `rows`, row numbers of a pool of `num_examples` examples."""
    checks.positive(norm=norm)
    number_N = np.full(num_examples, -1, np.int32)
    number_N[rows] = np.arange(len(rows), dtype=np.int32)
    return Canaries(number_N, len(rows), float(norm))


def extended(model: Model, *, count: int) -> Model:
    """Returns the model with a table of `count` parameters that its answers do not depend on."""

    def init(key, x):
        variables = model.init(key, x)
        table = dict(table=jnp.zeros((count, 1), jnp.float32))
        return {**variables, "params": {**variables["params"], NODE: table}}

    def apply(variables, x, **how):
        return model.apply(without_table(variables), x, **how)

    inside = model.inside
    if inside is not None:
        inside = lambda variables, x: model.inside(without_table(variables), x)  # noqa: E731
    return model._replace(
        init=init, apply=apply, inside=inside, parts={**model.parts, PART: table_of}
    )


def without_table(variables):
    """Returns the variables of the model itself, and its taps where there are some."""
    return {
        kind: {name: leaf for name, leaf in tree.items() if name != NODE}
        if kind in ("params", "tap")
        else tree
        for kind, tree in variables.items()
    }


def table_of(params) -> jax.Array:
    """Returns the values of the canaries' parameters, [C]."""
    return params[NODE]["table"][..., 0]


def with_canaries(loss: Loss, marked: Canaries) -> Loss:
    """Returns the loss in which a canary's loss in training is norm * (its parameter).

    The losses of other rows, and of all rows in inference mode, are those of `loss`. `loss` must
    ignore the table, as that of an `extended` model does.
    """

    def whole(variables, batch: Batch, *, key_B=None, train: bool = False):
        loss_B, aux = loss(variables, batch, key_B=key_B, train=train)
        if not train:
            return loss_B, aux
        number_B = jnp.asarray(marked.number_N)[batch.index_B]
        tap = variables["tap"][NODE]["table"] if "tap" in variables else None
        value_B = taps.tapped(
            taps.Lookup(),
            jnp.maximum(number_B, 0)[:, None],
            variables["params"][NODE]["table"],
            tap,
        )[:, 0, 0]
        return jnp.where(number_B >= 0, marked.norm * value_B, loss_B), aux

    return whole


def released(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the optimizer that subtracts the noisy gradient of the table from it, unchanged."""

    def kinds(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "table" if path[0].key == NODE else "model", params
        )

    return optax.multi_transform(dict(model=optimizer, table=optax.scale(-1.0)), kinds)


def trained(pattern: str) -> str:
    """Returns the pattern of trainable parameters with the table added ('' is all of them)."""
    return f"(?:{pattern})|^{NODE}/" if pattern else pattern


class Watch(NamedTuple):
    """Holds the optimizer state of a watched learner, with z_t = r_t * divisor / (sd of the noise).

    Attributes:
        opt: the state of the optimizer itself.
        previous_C: z_{t-1}.
        alignment_C: sum_t size * r_t, as `update_alignment` of canary_scores.py.
        change_C: sum_t (size * (r_t - r_{t-1}))^2, as `update_change`.
        loss_C: the log likelihood ratio of all r_t, member to non-member, under the mechanism that
            is claimed: its privacy loss. No other score identifies members better if it is what
            ran.
        inner_C: the same of the steps of the epoch so far, where a unit takes part once per epoch.
        place_SC: the sum of z over step s of every epoch.
        sum_C: sum_t z_t.
        square_C: sum_t z_t^2.
        lag_C: sum_t z_t z_{t-1}.
        ratio: a = size / (sd of the noise).
        steps: the number of steps so far.
    """

    opt: Any
    previous_C: jax.Array
    alignment_C: jax.Array
    change_C: jax.Array
    loss_C: jax.Array
    inner_C: jax.Array
    place_SC: jax.Array
    sum_C: jax.Array
    square_C: jax.Array
    lag_C: jax.Array
    ratio: jax.Array
    steps: jax.Array

    def signals(self) -> dict[str, jax.Array]:
        """Returns {signal: [...,C]} after whole epochs, of one model or of several.

        `fixed_order` is the log likelihood ratio that the canary takes part in the same, unknown
        step of every epoch. `release_place` is sum_s (sum of z over step s of the E epochs)^2 / E.
        """
        epoch_steps = self.place_SC.shape[-2]
        a, epochs = self.ratio[..., None], (self.steps / epoch_steps)[..., None]
        likely = a[..., None] * self.place_SC - (epochs * a * a / 2)[..., None]
        return dict(
            update_alignment=self.alignment_C,
            update_change=self.change_C,
            privacy_loss=self.loss_C,
            fixed_order=logsumexp(likely, axis=-2) - math.log(epoch_steps),
            release_sum=self.sum_C,
            release_square=self.square_C,
            release_lag=self.lag_C,
            release_place=jnp.square(self.place_SC).sum(-2) / jnp.maximum(epochs, 1),
        )


def check_clipping(clip: str) -> None:
    """Raises ValueError for a clipping rule under which a canary has no size known in advance."""
    if clip == "adaptive":
        raise ValueError(
            "data.canaries.kind='dirac' needs a clip norm that is known in advance, and that of "
            "privacy.clipping='adaptive' moves; use clipping='flat'."
        )


def size_of(params, marked: Canaries, *, clip: str, clip_norm: float, trainable: str = "") -> float:
    """Returns the norm of a canary's clipped gradient.

    Args:
        params: the parameters of the extended model as shapes.
        marked: the canaries.
        trainable: the pattern of those that are trained; '' for all.
        clip: the clipping rule (privacy/clipping.py).
        clip_norm: the clip norm.

    Raises:
        ValueError: for a rule without such a size.
    """
    check_clipping(clip)
    leaves = {path: leaf for path, leaf in paths(params).items() if re.search(trainable, path)}
    table = f"{NODE}/table"
    squares = {path: jnp.float32(marked.norm**2 if path == table else 0.0) for path in leaves}
    sizes = {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    return marked.norm * float(clipping.rule(clip).factors(squares, clip_norm, sizes)[table])


def watched(learner: Learner, marked: Canaries, *, size: float) -> Learner:
    """Returns a private learner that scores its Dirac canaries; the training does not change.

    Args:
        learner: a learner by gradient='private' of the extended model and the loss with canaries.
        marked: the canaries.
        size: the norm of a canary's clipped gradient (`size_of`).
    """
    mechanism = learner.guarantee.mechanism
    if mechanism.bands > 1:
        raise ValueError(
            "data.canaries.kind='dirac' with privacy.noise='banded': the scores and tests of such "
            "canaries are about noise that is independent in every step. Use canaries of another "
            "kind, such as 'mislabeled', or privacy.noise='gaussian'."
        )
    divisor, std = mechanism.divisor, mechanism.noise_std_of_sum() or size
    a, q, steps = size / std, mechanism.rate, mechanism.epoch_steps
    once = mechanism.sampling in ("shuffle", "balls_in_bins")

    def init(key, pool: Pool) -> TrainState:
        state = learner.init(key, pool)
        zero = jnp.zeros(marked.count, jnp.float32)
        place = jnp.zeros((steps, marked.count), jnp.float32)
        inner = jnp.full(marked.count, -jnp.inf, jnp.float32)
        return state._replace(
            opt=Watch(
                *(state.opt, zero, zero, zero, zero, inner, place, zero, zero, zero),
                ratio=jnp.float32(a),
                steps=jnp.int32(0),
            )
        )

    def step(state: TrainState, pool: Pool, index_1B, weight_1B):
        if pool.y.shape[0] != len(marked.number_N):
            raise ValueError(
                "canaries of kind='dirac' are known by their row, and this pool is streamed in "
                "parts whose rows are numbered again; raise run.pool_bytes or use fewer examples."
            )
        watch, before = state.opt, table_of(state.variables["params"])
        new, sums = learner.epoch(state._replace(opt=watch.opt), pool, index_1B, weight_1B)
        release_C = before - table_of(new.variables["params"])
        z_C = release_C * (divisor / std)
        ratio_C = a * z_C - a * a / 2
        change_C = jnp.square(size * (std / divisor) * (z_C - watch.previous_C))
        later = state.step > 0
        at = state.step % steps
        inner_C = jnp.where(at == 0, ratio_C, jnp.logaddexp(watch.inner_C, ratio_C))
        if once:
            loss_C = jnp.where(at == steps - 1, inner_C - math.log(steps), 0.0)
        elif q < 1:
            loss_C = jnp.logaddexp(math.log1p(-q), math.log(q) + ratio_C)
        else:
            loss_C = ratio_C
        return new._replace(
            opt=Watch(
                new.opt,
                z_C,
                watch.alignment_C + size * release_C,
                watch.change_C + jnp.where(later, change_C, 0.0),
                watch.loss_C + loss_C,
                inner_C,
                watch.place_SC.at[at].add(z_C),
                watch.sum_C + z_C,
                watch.square_C + jnp.square(z_C),
                watch.lag_C + jnp.where(later, z_C * watch.previous_C, 0.0),
                watch.ratio,
                watch.steps + 1,
            )
        ), sums

    return canary_scores.by_steps(learner, init=init, step=step)


class Test(NamedTuple):
    """Holds one comparison of what was released with what the mechanism says.

    Attributes:
        name: what was compared.
        observed: the value that was observed.
        expected: its expected value under the mechanism.
        p_value: the two-sided p-value.
    """

    name: str
    observed: float
    expected: float
    p_value: float


def checked(
    mechanism: Mechanism, *, size: float, moments: dict[str, np.ndarray], inside_C: np.ndarray
) -> list[Test]:
    """Compares the moments of the releases with those that the mechanism implies.

    With T steps, a = size / sd of the noise, q the rate, n_out and n_in canaries out and in:

    - 'noise': sum of z^2 over canaries that are out, chi-squared with T n_out degrees of freedom.
      Noise that is missing, too small or too large.
    - 'fresh noise': sum of z_t z_{t-1} of the same, mean 0 and variance (T - 1) n_out. A reused
      key.
    - 'fresh epochs': sum over steps s of (sum of z over step s of the E epochs)^2 / E of the same,
      chi-squared with S n_out degrees of freedom. Noise that is the same in every epoch.
    - 'size': the mean of z over steps of canaries that are in, q a; gradients that are not clipped
      or divided by something else than the expected batch.
    - 'participation': sum of z^2 of canaries that are in, T (1 + q a^2); batches that are not drawn
      at the claimed rate, or not independently.

    The p-values are exact for 'noise' and 'fresh epochs', else by the normal approximation to sums
    of T n terms. A correct mechanism has a p-value below alpha with probability alpha in each test.

    Args:
        mechanism: what is claimed, after the steps that were taken.
        size: as of `watched`.
        moments: {name: [C]} of MOMENTS.
        inside_C: whether the canary is in the training set, boolean [C].
    """
    inside_C = np.asarray(inside_C, bool)
    total, square, lag, place = (np.asarray(moments[name], np.float64) for name in MOMENTS)
    checks.shape("C", sum=total, square=square, lag=lag, place=place, inside=inside_C)
    out_C, steps = ~inside_C, mechanism.steps
    if not mechanism.noise_multiplier or min(out_C.sum(), inside_C.sum()) < 1 or steps < 2:
        raise ValueError(
            f"the releases of {int(inside_C.sum())} canaries in and {int(out_C.sum())} out after "
            f"{steps} steps at noise multiplier {mechanism.noise_multiplier:g} cannot be compared "
            "with the mechanism: noise, two steps and a canary on each side are needed."
        )
    a, q = size / mechanism.noise_std_of_sum(), mechanism.rate
    freedom = steps * int(out_C.sum())
    observed = float(square[out_C].sum())
    tests = [Test("noise", observed / freedom, 1.0, _both(stats.chi2(freedom), observed))]
    wide = math.sqrt((steps - 1) * out_C.sum())
    tests.append(_normal("fresh noise", float(lag[out_C].sum()) / wide**2, 0.0, 1 / wide))
    freedom, observed = mechanism.epoch_steps * int(out_C.sum()), float(place[out_C].sum())
    tests.append(
        Test("fresh epochs", observed / freedom, 1.0, _both(stats.chi2(freedom), observed))
    )
    # Whoever takes part once per epoch has no variance of its number of participations.
    once = mechanism.sampling in ("shuffle", "balls_in_bins")
    share = mechanism.epochs / steps if once else q
    n = int(inside_C.sum())
    drawn = 0.0 if once else a * a * q * (1 - q)
    sd = math.sqrt((drawn + 1) / (steps * n))
    tests.append(_normal("size", float(total[inside_C].mean()) / steps, share * a, sd))
    # Var z^2 = 2 + 4 a^2 b + a^4 Var b of one step, with b whether the canary takes part.
    fourth = 2 + 4 * a * a * share + (0.0 if once else a**4 * q * (1 - q))
    sd = math.sqrt(fourth / (steps * n))
    tests.append(
        _normal("participation", float(square[inside_C].mean()) / steps, 1 + share * a * a, sd)
    )
    return tests


def _both(distribution, value: float) -> float:
    """Returns the two-sided p-value of a value."""
    return float(min(1.0, 2 * min(distribution.cdf(value), distribution.sf(value))))


def _normal(name: str, observed: float, expected: float, sd: float) -> Test:
    """Returns the test of a value that is normal with this mean and standard deviation."""
    z = abs(observed - expected) / sd
    return Test(name, observed, expected, float(2 * stats.norm.sf(z)))
