"""Divides the logits of another network by a temperature, which is a parameter."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from mia_jax import registry
from mia_jax.types import Model

PACE = 10.0  # log T per unit of the parameter: a step that fits weights is small for log T


def make(*, num_classes: int, body: str | Mapping = "mlp") -> Model:
    """Returns logits z(x) / T [B,C] of the network `body`, where T = exp(PACE * p) is trained.

    p is the parameter 'temperature/p' and starts at 0. With learner.train_on='members_then_extra'
    and learner.extra_trainable='temperature/', the members train the body, and T is fitted to rows
    that no audited model was trained on. That is temperature scaling (Guo et al. 2017,
    arXiv:1706.04599), which purifies outputs of the confidence that the labels of members gave
    them: predicted labels stay, and a body that was trained until its loss is near 0 has T > 1. A
    body with dropout has it while T is fitted, too. Parameters: those of the body, and one.

    Args:
        num_classes: C.
        body: the network: a name of mia_jax/models, or {'name': ..., argument: value}.
    """
    given = dict(name=body) if isinstance(body, str) else dict(body)
    if "name" not in given:
        raise ValueError(
            f"model.body={given!r} names no network; e.g. dict(name='mlp', widths=(256,))."
        )
    net = registry.make("models", given.pop("name"), given, num_classes=num_classes)

    def init(key, x):
        variables = net.init(key, x)
        start = dict(p=jnp.zeros((), jnp.float32))
        return variables | {"params": dict(variables["params"]) | dict(temperature=start)}

    def split(variables):
        """Returns (the variables of the body, T)."""
        params = dict(variables["params"])
        p = params.pop("temperature")["p"]
        return {**variables, "params": params}, jnp.exp(PACE * p)

    def apply(variables, x, **how):
        rest, t = split(variables)
        out_BC, stats = net.apply(rest, x, **how)
        return out_BC / t, stats

    def inside(variables, x):
        return net.inside(split(variables)[0], x)

    return net._replace(init=init, apply=apply, inside=inside if net.inside else None)
