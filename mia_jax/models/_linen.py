"""The seam to flax linen: everything above this folder sees a Model of pure functions."""

from __future__ import annotations

import math

import flax.linen as nn
import jax

from mia_jax.types import Model


def as_model(module: nn.Module) -> Model:
    """The Model of a linen module whose `__call__` is (x, *, key_B=None, weight_B=None, train=False) -> out_BC."""

    def init(key, x):
        variables = module.init(key, x[:1])
        return {name: variables[name] for name in ("params", "stats") if name in variables}

    def apply(variables, x, *, key_B=None, weight_B=None, train=False):
        given = dict(key_B=key_B, weight_B=weight_B, train=train)
        if train and "stats" in variables:
            out, changed = module.apply(variables, x, mutable=["stats"], **given)
            return out, changed["stats"]
        return module.apply(variables, x, **given), variables.get("stats", {})

    return Model(init, apply, lambda x: _table(module, x), lambda variables, x: _inside(module, variables, x))


def _inside(module: nn.Module, variables, x) -> dict[str, jax.Array]:
    """The output of every layer by its path, and 'penultimate' [B,F]: what enters the last layer that owns parameters."""
    found: dict[str, jax.Array] = {}

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        path = context.module.path
        if context.method_name == "__call__" and path:
            found["/".join(path)] = out
            if any(not isinstance(leaf, dict) for leaf in context.module.variables.get("params", {}).values()):
                found["penultimate"] = args[0].reshape(args[0].shape[0], -1)
        return out

    with nn.intercept_methods(record):
        module.apply(variables, x, train=False)
    return found


def _table(module: nn.Module, x) -> str:
    """One line a layer that owns parameters: its path, its output's shape, its number of parameters; then the total."""
    shapes: dict[str, tuple] = {}

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == "__call__":
            shapes["/".join(context.module.path)] = out.shape
        return out

    with nn.intercept_methods(record):
        params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    count: dict[str, int] = dict.fromkeys(shapes, 0)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        count["/".join(p.key for p in path[:-1])] += math.prod(leaf.shape)
    rows = [("layer", "output", "parameters"), ("(input)", _text(x.shape), "0")]
    rows += [(path or type(module).__name__, _text(shapes[path]), f"{n:,}") for path, n in count.items() if n]
    rows += [("total", _text(shapes[""]), f"{sum(count.values()):,}")]
    width = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{a:<{width[0]}}  {b:<{width[1]}}  {c:>{width[2]}}" for a, b, c in rows)


def _text(shape) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
