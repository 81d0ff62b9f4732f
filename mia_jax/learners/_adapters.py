"""Adds low-rank adapters to the kernels of a network, so that few parameters are trained.

A layer with the kernel W [F,O] computes x W + (x A) B with A [F,r] and B [r,O] (LoRA, Hu et al.
2021, arXiv:2106.09685). For a convolution W [I,J,C,O], A is a convolution with r outputs and B
mixes them. A starts normal with variance 1 / fan-in and B at 0, so that the network starts as it is
without adapters. The layers of mia_jax/models/layers.py compute the adapters that are among their
parameters; every gradient of an adapter is one of A and B, never of W.
"""

from __future__ import annotations

import math
import re
import zlib

import jax
import jax.numpy as jnp

from mia_jax import checks
from mia_jax.learners import _parameters as parameters
from mia_jax.models.kernels.taps import DOWN, UP
from mia_jax.types import Model

PATTERN = rf"/({DOWN}|{UP})$"  # of the paths of adapters


def adapted(model: Model, *, rank: int, layers: str) -> Model:
    """Returns the model with adapters among its parameters; its answers do not change at the start.

    Args:
        model: the network.
        rank: r.
        layers: the pattern of the paths of the kernels that have an adapter; '' for all.

    Raises:
        ValueError: from `init`, if no kernel matches, a rank is too large, or a layer ignores its
            adapter.
    """
    checks.at_least(1, **{"learner.adapter_rank": rank})

    def init(key, x):
        variables = model.init(key, x)
        flat = parameters.paths(variables["params"])
        chosen = [path for path in flat if path.endswith("/kernel") and re.search(layers, path)]
        if not chosen:
            raise ValueError(
                f"learner.adapter_layers={layers!r} matches no kernel; the kernels are "
                f"{', '.join(p for p in flat if p.endswith('/kernel')) or 'none'}."
            )
        new = {}
        for path in chosen:
            *window, features, outputs = flat[path].shape
            fan_in = math.prod(window) * features
            if rank > min(fan_in, outputs) or len(window) not in (0, 2):
                raise ValueError(
                    f"learner.adapter_rank={rank}: the kernel {path} has the shape "
                    f"{tuple(flat[path].shape)}, and an adapter needs a rank of at most "
                    f"{min(fan_in, outputs)} and a dense or convolutional kernel. Lower it, or "
                    "choose other layers by learner.adapter_layers."
                )
            layer = path.removesuffix("kernel")
            # No layer's adapter depends on which other layers have one.
            own = jax.random.fold_in(key, jnp.uint32(zlib.crc32((layer + DOWN).encode())))
            down = jax.random.normal(own, (*window, features, rank), jnp.float32)
            new[layer + DOWN] = down / jnp.float32(math.sqrt(fan_in))
            new[layer + UP] = jnp.zeros((rank, outputs), jnp.float32)
        variables = {**variables, "params": parameters.nested({**flat, **new})}
        if ignored := unread(model, variables, x, tuple(new)):
            raise ValueError(
                f"learner.adapter_rank={rank}: the layer of {ignored} does not compute adapters; "
                "layers.Dense and layers.Conv of mia_jax.models do. Choose the layers by "
                "learner.adapter_layers, or set adapter_rank=0."
            )
        return variables

    return model._replace(init=init)


def unread(model: Model, variables, x, names: tuple[str, ...]) -> str:
    """Returns the first of these parameters that the outputs do not depend on; '' for none."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (variables, x))
    flat = parameters.paths(shapes[0]["params"])

    def outputs(chosen, x):
        params = parameters.nested(flat_zeros | chosen)
        return model.apply({**rest, "params": params}, x)[0]

    zeros = lambda tree: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), tree)  # noqa: E731
    with jax.ensure_compile_time_eval():
        flat_zeros = zeros({path: leaf for path, leaf in flat.items() if path not in names})
        rest = zeros({k: v for k, v in shapes[0].items() if k != "params"})
    chosen = {name: flat[name] for name in names}
    jaxpr = jax.make_jaxpr(outputs)(chosen, shapes[1]).jaxpr
    used = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    return next(
        (
            name
            for name, variable in zip(sorted(names), jaxpr.invars, strict=False)
            if id(variable) not in used
        ),
        "",
    )


def trained(pattern: str) -> str:
    """Returns the pattern of what is trained: the adapters, and what `pattern` matches if any."""
    return f"(?:{pattern})|{PATTERN}" if pattern else PATTERN
