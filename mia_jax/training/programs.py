"""Compiles the programs of a chunk of models: plan an epoch, run (a part of) it, finish it.

Each program runs on one device and maps the program of one model over a chunk. There are several
forms of such a map, with other speed, memory and last bits:

- `turns`: the models are trained one after the other inside the program (`lax.map`);
- `grouped`: `vmap`, in which XLA's convolution takes all kernels at once;
- `patches`: `vmap`, in which a convolution is a batched product of patches and kernels;
- `layers`: `turns`, in which every function of every convolution has the program that was measured
  to be the fastest for its size (`training/layerwise.py`).

Without convolutions the second and third are the same program, and so are the first and last.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mia_jax.learners import _shards
from mia_jax.models.kernels import convolution
from mia_jax.privacy import gradients
from mia_jax.runtime import machine
from mia_jax.types import Learner, Pool, TrainState

FORMS = ("turns", "grouped", "patches", "layers")

# fold_in(root, ATTEMPTS) is the root of the keys of further attempts at models that failed. No
# model has this number.
ATTEMPTS = 2**32 - 1
# fold_in(state.key, PLAN_KEY) draws the plans. Steps use fold_in(state.key, step), and no step has
# this number.
PLAN_KEY = 2**31 - 1
# For a program that runs once per chunk: most of its cost is its compilation.
ONCE = {"xla_backend_optimization_level": 0}
# For a learner with shards on a CPU. How XLA's algebraic simplification rewrites divisions depends
# on the passes before it, and a program for several devices has other ones: without it, all give
# the same bits.
SHARDED = {"xla_disable_hlo_passes": "algsimp"}


class Programs(NamedTuple):
    """Holds the compiled programs of a chunk of M models.

    Attributes:
        init: init(key_M, pool) -> state.
        plan: plan(key_M, epoch, rows_MK, weight_MK) -> (index_MSB, weight_MSB).
        run: run(state, pool, index_MSB, weight_MSB) -> (state, sums).
        finish: finish(state, sums, pool, epoch, rows_MV, weight_MV) -> (state, metrics).
    """

    init: Callable
    plan: Callable
    run: Callable
    finish: Callable


def default_form(platform: str | None = None) -> str:
    """Returns the form of a platform ('cpu', 'gpu', 'tpu') for which nothing was measured.

    It is never measured at run time, so that the same command gives the same bits in every workdir.
    None is the platform for which programs are traced.
    """
    return convolution.way(platform).batched


def candidates(platform: str | None = None) -> tuple[str, ...]:
    """Returns the forms that are worth a measurement on a platform, its default first.

    XLA's grouped convolutions take up to 20 times as long as patches on a CPU (the table in
    models/kernels/convolution.py), so there they are no candidate. The programs of single layers
    are those of a CPU.
    """
    first = default_form(platform)
    rest = [form for form in FORMS if form != first]
    rest.remove("grouped" if (platform or machine.platform()) == "cpu" else "layers")
    return (first, *rest)


def make(
    *,
    learner: Learner,
    chunk: int,
    validation: bool = False,
    form: str = "",
    choice=None,
    devices: _shards.Devices | None = None,
    units: int = 0,
) -> Programs:
    """Returns the programs of `chunk` models; `run` donates the state.

    Args:
        learner: the learning rule.
        chunk: the number of models.
        validation: whether `finish` evaluates the models.
        form: one of FORMS; '' for that of the platform.
        choice: for the form 'layers', the programs of the layers (`convolution.chosen`).
        devices: the devices over which the shards of a batch are spread; None for one device.
        units: how many units of a private step are computed together, where the learner leaves it
            to the plan (Learner.units); 0 for all of a shard.
    """

    def plan(key, epoch, rows_K, weight_K):
        return learner.plan(jax.random.fold_in(key, PLAN_KEY), epoch, rows_K, weight_K)

    def run(state: TrainState, pool: Pool, index_SB, weight_SB):
        new, sums = learner.epoch(state, pool, index_SB, weight_SB)
        return (freeze(state, new) if learner.stopping else new), sums

    def finish(state: TrainState, sums, pool: Pool, epoch, rows_V, weight_V):
        metrics = averages(sums)
        if validation:
            shown = learner.released(state) if learner.released else state.variables
            metrics |= {
                f"val_{name}": value
                for name, value in averages(learner.evaluate(shown, pool, rows_V, weight_V)).items()
            }
        if learner.stopping:
            stop = learner.stopping.update(
                state.stop, metrics[learner.stopping.monitor], epoch, state.variables
            )
            state = state._replace(stop=stop)
        return state, metrics

    plan, run, finish = strict(plan), strict(run), strict(finish)
    cpu, sharded = machine.platform() == "cpu", learner.shards > 1
    options = SHARDED if cpu and sharded else None

    # Models are initialized one at a time: random bits under vmap double the compilation time.
    @strict
    def init(key_M, pool: Pool):
        return jax.lax.map(lambda key: learner.init(key, pool), key_M)

    def over(function: Callable, *states: bool) -> Callable:
        """Returns the function for these devices; `states` says which of its results is a state."""
        if devices is None:
            return function

        @functools.wraps(function)
        def spread(*args):
            with _shards.over(devices):
                results = function(*args)
            if len(states) == 1:
                return _shards.placed(results, devices, state=states[0])
            return tuple(
                _shards.placed(result, devices, state=state)
                for result, state in zip(results, states, strict=True)
            )

        return spread

    return Programs(
        init=jax.jit(over(init, True), compiler_options=ONCE | (options or {}) if cpu else options),
        plan=jax.jit(
            over(over_models(plan, (0, None, 0, 0), chunk), False, False), compiler_options=options
        ),
        run=jax.jit(
            over(over_models(run, (0, None, 0, 0), chunk, form, choice, units), True, False),
            donate_argnums=(0,),
            compiler_options=options,
        ),
        finish=jax.jit(
            over(over_models(finish, (0, 0, None, None, 0, 0), chunk, form, choice), True, False),
            compiler_options=options,
        ),
    )


def strict(function: Callable) -> Callable:
    """Returns the function, traced with rank promotion as an error.

    An operation on [B] and [B,C] is a mistake that would otherwise broadcast silently to garbage.
    """

    @functools.wraps(function)
    def traced(*args):
        with jax.numpy_rank_promotion("raise"):
            return function(*args)

    return traced


def over_models(
    function: Callable, in_axes: tuple, chunk: int, form: str = "", choice=None, units: int = 0
) -> Callable:
    """Returns the function mapped over a leading axis of `chunk` models, in one of FORMS.

    A chunk of one model is not batched at all, which keeps the faster forms of a convolution
    available.

    Args:
        function: the function of one model.
        in_axes: 0 for an argument with a leading axis, None for one that all models share.
        chunk: the number of models.
        form: one of FORMS; '' for that of the platform.
        choice: for the form 'layers', the programs of the layers (`convolution.chosen`).
        units: see `make`.
    """

    def single(*args):
        first = [
            jax.tree.map(lambda a: a[0], arg) if axis == 0 else arg
            for arg, axis in zip(args, in_axes, strict=True)
        ]
        return jax.tree.map(lambda a: a[None], function(*first))

    def in_turn(*args):
        def turn(given):
            given = iter(given)
            return function(
                *(
                    next(given) if axis == 0 else arg
                    for arg, axis in zip(args, in_axes, strict=True)
                )
            )

        return jax.lax.map(
            turn, tuple(arg for arg, axis in zip(args, in_axes, strict=True) if axis == 0)
        )

    turns = form in ("turns", "layers")
    mapped = single if chunk == 1 else in_turn if turns else jax.vmap(function, in_axes)

    def traced(*args):
        layers = convolution.batched("" if turns else form), convolution.chosen(choice)
        with layers[0], layers[1], gradients.together(units):
            return mapped(*args)

    traced.__name__ = getattr(function, "__name__", "mapped")
    return traced


def freeze(old: TrainState, new: TrainState) -> TrainState:
    """Returns `new`, or `old` for a model that has stopped."""
    done = old.stop.done
    keep = lambda a, b: jax.tree.map(lambda x, y: jnp.where(done, x, y), a, b)  # noqa: E731
    return TrainState(
        keep(old.step, new.step),
        keep(old.variables, new.variables),
        keep(old.opt, new.opt),
        old.key,
        old.stop,
    )


def averages(sums: dict) -> dict:
    """Returns weighted means from weighted sums; an empty sum gives 0 and never NaN."""
    return {
        name: value / jnp.maximum(sums["weight"], 1e-12)
        for name, value in sums.items()
        if name != "weight"
    }


def model_keys(*, seed: int, models, attempt: int = 0) -> jax.Array:
    """Returns one threefry key per model from (seed, model index, attempt) only, [M].

    All bits of the seed count (jax.random.key takes only its last 32).
    """
    root, rest = jax.random.key(seed & 0xFFFFFFFF, impl="threefry2x32"), seed >> 32
    root = jax.random.fold_in(root, rest) if rest else root
    root = jax.random.fold_in(jax.random.fold_in(root, ATTEMPTS), attempt) if attempt else root
    return jax.vmap(lambda m: jax.random.fold_in(root, m))(jnp.asarray(models, jnp.uint32))
