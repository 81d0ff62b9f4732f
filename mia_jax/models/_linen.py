"""Connects flax linen to the project: code above this folder sees a Model of pure functions.

A module of this package takes (x, *, key_B=None, weight_B=None, train=False). An ordinary module,
(x) or (x, train), is accepted as well: its nn.Dropout draws from each example's key and its
nn.BatchNorm ignores padded rows, so that both keep the promises of a Model.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mia_jax.types import Model

# {name of the argument: its value in training}.
TRAIN = dict(
    train=True, training=True, is_training=True, deterministic=False, use_running_average=False
)
KEEPS = {"params", "batch_stats"}
NEEDED = (
    "it must be (x) or (x, train), where train may be called training, is_training, deterministic "
    "or use_running_average, with dropout by nn.Dropout "
    "and batch normalization by nn.BatchNorm; or mia_jax's own (x, *, key_B=None, weight_B=None, "
    "train=False), one key per example for dropout and "
    "weight 0 on padded rows (mia_jax/models/layers.py)"
)


def as_model(module: nn.Module) -> Model:
    """Returns the Model of a linen module.

    Its `__call__` is (x, *, key_B=None, weight_B=None, train=False) -> out_BC, or an ordinary (x)
    or (x, train).

    Raises:
        TypeError: for another signature, which the message shows.
    """
    takes = inspect.signature(type(module).__call__).parameters
    return _own(module) if {"key_B", "weight_B"} & set(takes) else _ordinary(module)


def taken(made: Any, *, name: str) -> Model:
    """Returns the Model of what a user's `make` returned: a Model or a linen module.

    Raises:
        ValueError: for anything else; the message says what to return.
    """
    if isinstance(made, Model):
        return made
    if isinstance(made, nn.Module):
        try:
            return as_model(made)
        except TypeError as error:
            raise ValueError(f"model {name!r}: {error}") from error
    what = (
        "a class; return a module of it, with its fields given"
        if isinstance(made, type)
        else f"a {type(made).__name__}"
    )
    raise ValueError(
        f"model {name!r}: make(...) returns {what}. It returns a flax.linen module, or a "
        "mia_jax.types.Model of pure functions."
    )


def _own(module: nn.Module) -> Model:
    """Returns the Model of a module that takes per-example keys and weights."""

    def init(key, x):
        variables = module.init(key, x[:1])
        return {name: variables[name] for name in ("params", "stats") if name in variables}

    def apply(variables, x, *, key_B=None, weight_B=None, train=False):
        given = dict(key_B=key_B, weight_B=weight_B, train=train)
        if train and "stats" in variables:
            out, changed = module.apply(variables, x, mutable=["stats"], **given)
            return out, changed["stats"]
        return module.apply(variables, x, **given), variables.get("stats", {})

    infer = lambda variables, x: module.apply(variables, x, train=False)  # noqa: E731
    return Model(
        init,
        apply,
        lambda x: _table(module, module.init, x),
        lambda variables, x: _inside(infer, variables, x),
    )


def _ordinary(module: nn.Module) -> Model:
    """Returns the Model of a module without per-example keys and padding.

    Its running statistics are {'stats': flax's batch_stats}.
    """
    flag = train_flag(module)

    def given(train: bool) -> dict[str, bool]:
        return {} if flag is None else {flag: TRAIN[flag] == train}

    def init(key, x):
        with per_example(None, None, train=False):
            variables = module.init(key, x[:1], **given(False))
        others = set(variables) - KEEPS
        if others:
            kept = ", ".join(sorted(others))
            raise ValueError(
                f"the module keeps the collections {kept}; only parameters and batch_stats "
                "(nn.BatchNorm) can be kept"
            )
        return {"params": variables.get("params", {})} | (
            {"stats": variables["batch_stats"]} if "batch_stats" in variables else {}
        )

    def apply(variables, x, *, key_B=None, weight_B=None, train=False):
        flax_variables = {"params": variables["params"]} | (
            {"batch_stats": variables["stats"]} if "stats" in variables else {}
        )
        with per_example(key_B, weight_B, train=train):
            if train and "stats" in variables:
                out, changed = module.apply(
                    flax_variables, x, mutable=["batch_stats"], **given(True)
                )
                return out, changed["batch_stats"]
            return module.apply(flax_variables, x, **given(train)), variables.get("stats", {})

    def start(key, x):
        with per_example(None, None, train=False):
            return module.init(key, x, **given(False))

    return Model(
        init,
        apply,
        lambda x: _table(module, start, x),
        lambda variables, x: _inside(lambda v, x: apply(v, x)[0], variables, x),
    )


def train_flag(module: nn.Module) -> str | None:
    """Returns the argument that says whether the module trains, or None if there is none.

    Raises:
        TypeError: if the module takes other arguments; the message shows the signature.
    """
    parameters = list(inspect.signature(type(module).__call__).parameters.values())[1:]
    named = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY, p.POSITIONAL_ONLY)
    ]
    flags = [p.name for p in named if p.name in TRAIN and p.kind != p.POSITIONAL_ONLY]
    takes_x = bool(parameters) and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.POSITIONAL_ONLY,
    )
    takes_x = takes_x or any(p.kind == p.VAR_POSITIONAL for p in parameters)
    others = [
        p for p in (named[1:] if named else []) if p.name not in TRAIN and p.default is p.empty
    ]
    if not takes_x or others or len(flags) > 1:
        raise TypeError(
            f"__call__ of {type(module).__name__} takes ({', '.join(map(str, parameters))}); "
            f"{NEEDED}."
        )
    return flags[0] if flags else None


@contextlib.contextmanager
def per_example(key_B, weight_B, *, train: bool):
    """Makes nn.Dropout use each example's key and nn.BatchNorm use rows of weight > 0 only.

    This holds within the context. If the module did not set whether a layer trains (deterministic,
    use_running_average), it is set here.
    """
    sites: dict[str, int] = {}

    def intercepted(call: Callable, args, kwargs, context):
        layer = context.module
        if context.method_name != "__call__" or not isinstance(layer, nn.Dropout | nn.BatchNorm):
            return call(*args, **kwargs)
        given = inspect.signature(type(layer).__call__).bind(layer, *args, **kwargs).arguments
        if isinstance(layer, nn.BatchNorm):
            average = given.get("use_running_average", layer.use_running_average)
            average = (not train) if average is None else average
            mask = None if average or weight_B is None else _real(weight_B, given["x"])
            how = dict(use_running_average=average) if layer.use_running_average is None else {}
            return call(given["x"], **how, mask=given.get("mask", mask))
        still = given.get("deterministic", layer.deterministic)
        still = (not train) if still is None else still
        if still or layer.rate == 0:
            return given["inputs"]
        if key_B is None:
            raise ValueError(
                "nn.Dropout with deterministic=False drops units outside training as well; leave "
                "deterministic to `train`."
            )
        path = "/".join(map(str, layer.path))
        sites[path] = sites.get(path, -1) + 1
        return _dropped(
            given["inputs"],
            key_B,
            layer.rate,
            layer.broadcast_dims,
            zlib.crc32(f"{path}#{sites[path]}".encode()),
        )

    with nn.intercept_methods(intercepted):
        yield


def _real(weight_B, x) -> jax.Array:
    """Returns the rows of weight > 0 as a mask of x's shape.

    If there is no such row, the mask holds all rows; the learner ensures that such a batch changes
    nothing.
    """
    real_B = (weight_B > 0) | ~(weight_B > 0).any()
    return jnp.broadcast_to(real_B.reshape(-1, *(1,) * (x.ndim - 1)), x.shape)


def _dropped(x, key_B, rate: float, broadcast_dims, site: int) -> jax.Array:
    """Returns x with units dropped by each example's key, scaled by 1 / (1 - rate).

    The mask is equal along `broadcast_dims` (except the batch axis).
    """
    if rate == 1:
        return jnp.zeros_like(x)
    shape = tuple(1 if axis in broadcast_dims else size for axis, size in enumerate(x.shape))[1:]
    kept = jax.vmap(
        lambda key: jax.random.bernoulli(
            jax.random.fold_in(key, site), jnp.float32(1 - rate), shape
        )
    )(key_B)
    return jnp.where(jnp.broadcast_to(kept, x.shape), x / (1 - rate), 0)


def _inside(infer: Callable, variables, x) -> dict[str, jax.Array]:
    """Returns the output of every layer by its path, and 'penultimate' [B,F].

    The latter is the input of the last layer that owns parameters.
    """
    outputs: dict[str, jax.Array] = {}

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        path = context.module.path
        if context.method_name == "__call__" and path:
            outputs["/".join(path)] = out
            if any(
                not isinstance(leaf, dict)
                for leaf in context.module.variables.get("params", {}).values()
            ):
                outputs["penultimate"] = args[0].reshape(args[0].shape[0], -1)
        return out

    with nn.intercept_methods(record):
        infer(variables, x)
    return outputs


def _table(module: nn.Module, init: Callable, x) -> str:
    """Returns one line per layer that owns parameters, then the total.

    A line has the path of the layer, the shape of its output and its number of parameters.
    """
    shapes: dict[str, tuple] = {}

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == "__call__":
            shapes["/".join(context.module.path)] = out.shape
        return out

    with nn.intercept_methods(record):
        params = jax.eval_shape(init, jax.random.key(0), x)["params"]
    count: dict[str, int] = dict.fromkeys(shapes, 0)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        where = "/".join(p.key for p in path[:-1])
        count[where] = count.get(where, 0) + math.prod(leaf.shape)
    rows = [("layer", "output", "parameters"), ("(input)", _text(x.shape), "0")]
    rows += [
        (path or type(module).__name__, _text(shapes.get(path, ())), f"{n:,}")
        for path, n in count.items()
        if n
    ]
    rows += [("total", _text(shapes[""]), f"{sum(count.values()):,}")]
    width = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{a:<{width[0]}}  {b:<{width[1]}}  {c:>{width[2]}}" for a, b, c in rows)


def _text(shape) -> str:
    """Returns a shape as '[8,8,1]'."""
    return "[" + ",".join(map(str, shape)) + "]"
