"""Trains adversarially: softmax cross-entropy at a perturbed point near each example.

A few gradient steps search for the perturbation with the largest loss.
"""

from __future__ import annotations

import dataclasses

import jax

from mia_jax import checks
from mia_jax.evasion import _points
from mia_jax.evasion.pgd import pgd
from mia_jax.objectives import cross_entropy
from mia_jax.types import Aux, Batch, Loss, Model, Variables

BOXES = dict(unit=(0.0, 1.0), none=None)


def make(
    *,
    model: Model,
    epsilon: float = 0.1,
    steps: int = 1,
    step_size: float = 0.0,
    norm: str = "linf",
    box: str = "unit",
    label_smoothing: float = 0.0,
) -> Loss:
    """Returns loss_B = cross_entropy(x + d) with d = argmax_{|d| <= epsilon} of the cross-entropy.

    While training, d is approximated by `steps` steps of PGD from a start that is drawn uniformly
    from the ball with each example's key. The inner steps query the model in inference mode.
    Evaluation (train=False) uses the example itself. Metric: 'accuracy' [B], in training that of
    the perturbed example.

    Sources: Madry et al. 2018 (arXiv:1706.06083), eq. 2.1; for one step Wong et al. 2020
    (arXiv:2001.03994).

    Args:
        model: the model.
        epsilon: the radius of the ball.
        steps: the number of steps of PGD.
        step_size: 0 for 1.25 epsilon for one step (FGSM from a random start), and 2.5 epsilon /
            steps for several.
        norm: the norm of the ball.
        box: 'unit' keeps x + d in [0, 1], 'none' does not restrict it.
        label_smoothing: see cross_entropy.
    """
    checks.at_least(0, epsilon=epsilon, step_size=step_size)
    checks.at_least(1, steps=steps)
    checks.one_of(_points.NORMS, norm=norm)
    checks.one_of(BOXES, box=box)
    clean = cross_entropy.make(model=model, label_smoothing=label_smoothing)
    size = step_size or (1.25 * epsilon if steps == 1 else 2.5 * epsilon / steps)
    settings = dict(
        epsilon=epsilon, steps=steps, step_size=size, norm=norm, keep="last", box=BOXES[box]
    )

    def loss(
        variables: Variables, batch: Batch, *, key_B=None, train: bool = False
    ) -> tuple[jax.Array, Aux]:
        batch.task.require(
            ("classification",),
            of="the objective 'adversarial'",
            remedy="use 'squared' or 'cross_entropy'",
        )
        if train:
            out = lambda x: model.apply(variables, x, train=False)[0]  # noqa: E731
            x = pgd(out, batch.x, batch.y, key_B, restarts=0 if key_B is None else 1, **settings)
            batch = dataclasses.replace(batch, x=jax.lax.stop_gradient(x))
        return clean(variables, batch, key_B=key_B, train=train)

    return loss
