"""Collects the functions that are worth using when you write an attack. It is no attack itself.

An attack is a file with `make(...) -> Attack` (mia_jax/types.py). Its `score(evidence, key)`
returns score_N [N] float64, HIGHER = MORE LIKELY A MEMBER, for the rows `evidence.evaluated_N`.
`Evidence` (mia_jax/threat_model.py) holds only what the attack's `needs` name. Axis letters: A
query views, M shadow models, N pool examples, C classes, K chosen rows, F features. Statistics
that attacks fit (moments, logistic regression, networks) are in mia_jax/fitting/.

Signals, and scores of some rows:

* `sign_of(signal, sign)`: returns the given sign, or the one that the signal declares.
* `scalar(value, axes, signal)`: checks that a signal is one number per example.
* `part(value, prefix, signal)`: selects one component of a signal with several per example.
* `spread_out(value_K, chosen_N)`: returns [N] with the values on the chosen rows, NaN elsewhere.

Shadow models that trained on an example (IN) and that did not (OUT):

* `IN`, `OUT`: the names of the two sides.
* `masks_of(evidence, columns, sides)`: returns a mask [M,K] of the visible shadows of each side.
* `attack_on_sides(...)`: makes an attack from the moments of an example's shadows, such as LiRA.
* `pool(own_N, sides, fitted)`: sums the moments over examples; a `step` of `attack_on_sides`.
* `centers(sides, pools)`: returns the centers, also where an example lacks a side's shadows.
* `regressions(...)`, `predictive(...)`: fit distributions that shrink toward the other examples.
* `normality_diagnosis(signal, sides)`: makes a `diagnose` that tests the Gaussian assumption.
* `evidence_of_shadows(evidence, needs, limit=)`: returns the evidence against each shadow, with
  the shadow's membership: what parameters are tuned on.

Densities of where the next model's signal should be:

* `Predictive`: holds center, variance and degrees of freedom (inf: Gaussian) per example.
* `log_density(squares_N, dof)`: returns the log density of a Student-t or Gaussian.
* `log_cdf(z_N, dof)`: returns log P(T <= z), accurate in both tails.

Probabilities of the true label, as logarithms:

* `attack_on_probabilities(score, ...)`: makes an attack on log p_y from logits, loss or confidence.
* `log_softmax_at(z, y_N, temperature)`: returns log softmax(z / temperature) at the labels.
* `log_mean(value_MN, where_MN)`: returns the log of the mean of exponentials over a mask.
* `log_mean_over_examples(log_p_N)`: returns the log of the mean probability of the examples.
* `offline(log_out_N, a)`: estimates log p from the OUT models only.

Features that a classifier of members learns from:

* `make_features(names, columns, views)`: checks a choice of features and returns `Features`.
* `feature_matrix(features, signal, evidence, rows_K)`: returns the features [K,F] of rows.
* `labels(evidence, rows_K)`: returns the class numbers [K] of rows.
* `salt(key)`: returns a number from a JAX key, for NumPy's generators.

Example: an attack that subtracts from the target's signal the mean of the shadows that did not
train on the example. As a file my_attack.py it is chosen by `attacks.mine.name='my_attack'`.

>>> import numpy as np
>>> from mia_jax.attacks import toolkit
>>> from mia_jax.fitting.moments import moments
>>> from mia_jax.types import Attack
>>> def make(*, signal: str = "loss", sign: int | None = None) -> Attack:
...     sign = toolkit.sign_of(signal, sign)  # -1: members have the smaller loss
...
...     def score(evidence, key):
...         del key  # nothing is drawn at random
...         rows = np.flatnonzero(evidence.evaluated_N)
...         (out_MK,) = toolkit.masks_of(evidence, rows, [toolkit.OUT])
...         target_AN = toolkit.scalar(evidence.target[signal], "AN", signal)
...         total_K = np.zeros(len(rows))
...         for view, target_N in enumerate(target_AN):
...             shadow_MK = evidence.shadow[signal][:, view, rows]
...             total_K += sign * (target_N[rows] - moments(shadow_MK, out_MK).center)
...         return toolkit.spread_out(total_K / len(target_AN), evidence.evaluated_N)
...
...     return Attack(score, (signal, "shadow_out"), note=f"{signal} minus its OUT mean")

Two shadow models did not train on example 0, and one of them trained on example 1:

>>> from mia_jax.threat_model import Evidence
>>> evidence = Evidence(
...     target=dict(loss=np.array([[0.5, 3.0, np.nan]])),
...     shadow=dict(loss=np.array([[[2.0, np.nan, np.nan]], [[1.0, 2.5, np.nan]]])),
...     shadow_member_MN=np.array([[False, True, False], [False, False, False]]),
...     shadow_evaluated_MN=None,
...     visible_MN=np.array([[True, False, False], [True, True, False]]),
...     evaluated_N=np.array([True, True, False]),
...     population_N=None,
...     num_classes=2,
... )
>>> make().score(evidence, None).tolist()
[1.0, -0.5, nan]
"""

from __future__ import annotations

from mia_jax.attacks._features import Features, labels, salt
from mia_jax.attacks._features import make as make_features
from mia_jax.attacks._features import matrix as feature_matrix
from mia_jax.attacks._inner import evidence_of_shadows
from mia_jax.attacks._normality import diagnosis as normality_diagnosis
from mia_jax.attacks._probability import attack as attack_on_probabilities
from mia_jax.attacks._probability import log_mean, log_mean_over_examples, log_softmax_at, offline
from mia_jax.attacks._shrinkage import predictive, regressions
from mia_jax.attacks._sides import IN, OUT, centers, masks_of, pool, spread_out
from mia_jax.attacks._sides import attack as attack_on_sides
from mia_jax.attacks._signals import part, scalar, sign_of
from mia_jax.attacks._student import Predictive, log_cdf, log_density

__all__ = [
    "IN",
    "OUT",
    "Features",
    "Predictive",
    "attack_on_probabilities",
    "attack_on_sides",
    "centers",
    "evidence_of_shadows",
    "feature_matrix",
    "labels",
    "log_cdf",
    "log_density",
    "log_mean",
    "log_mean_over_examples",
    "log_softmax_at",
    "make_features",
    "masks_of",
    "normality_diagnosis",
    "offline",
    "part",
    "pool",
    "predictive",
    "regressions",
    "salt",
    "scalar",
    "sign_of",
    "spread_out",
]
