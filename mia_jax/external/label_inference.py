"""Audits label privacy without canaries or retraining, from scores of two labels of every row.

A model was trained on rows (x, y) and promises to protect the labels (label differential privacy).
A proxy model that never saw these labels gives a second label to each row. If the proxy draws
labels from the distribution of y given x, then which of the two was trained on is a fair coin given
both, and an attacker of an epsilon-label-DP model tells them apart with probability
e^epsilon / (1 + e^epsilon) at most (observational auditing of label privacy, arXiv:2511.14084).
What a proxy that draws from another distribution costs is derived in privacy/audit_shift.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mia_jax import checks
from mia_jax.data import _arrays
from mia_jax.measures import privacy_audit
from mia_jax.privacy import audit

NOTE = (
    "Each pair of rows is one training row with two labels: a member has the label that the model "
    "was trained on, a non-member that of the proxy model. All rates are about telling the two "
    "apart, so they also show how far the proxy's labels are from the true distribution; only the "
    "audited bound on epsilon is corrected for that."
)


# The score is the attack: other ones would share the level with it.
ATTACKS = dict(threshold_score=dict(name="threshold", signal="score", sign=1))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelInference:
    """Holds what an attacker sees of N rows that a model was trained on.

    Attributes:
        label: the labels that the model was trained on, [N].
        proxy_label: the labels of the proxy model, [N]. The proxy has not seen `label`; it should
            draw from its predictive distribution (of its most likely label, a row's attacker would
            know which one it is).
        score: how well the trained model fits each row's `label`, [N], larger = better (minus the
            loss, a logit, a log-probability).
        proxy_score: how well the same model fits `proxy_label`, [N].
        shift: how far the proxy's distribution q is from the true one p, as log odds: for all rows
            and labels a, b, p(a) q(b) / (p(b) q(a)) is at most e^shift. 0.0 for a proxy that draws
            from p. None estimates it from the control rows.
        slack: the probability, of a row and its two labels, up to which `shift` holds.
        control_label, control_proxy_label, control_score, control_proxy_score: the same of C rows
            on which the model was not trained. They show whether `shift` is too small, and estimate
            it if it is None.

    Raises:
        ValueError: an array has a wrong shape or holds no numbers where scores are expected, no two
            labels differ, some of the control arrays are missing, or the shift is neither given nor
            can be estimated.
    """

    label: Any
    proxy_label: Any
    score: Any
    proxy_score: Any
    shift: float | None = None
    slack: float = 0.0
    control_label: Any = None
    control_proxy_label: Any = None
    control_score: Any = None
    control_proxy_score: Any = None

    def __post_init__(self):
        pairs_of(self)
        control = [name for name in CONTROL if getattr(self, name) is not None]
        if control and len(control) < len(CONTROL):
            missing = next(name for name in CONTROL if name not in control)
            raise ValueError(
                f"label_inference: {missing} is missing and {control[0]} is there; control rows "
                f"need {', '.join(CONTROL)}."
            )
        if control:
            pairs_of(self, "control_")
        elif self.shift is None:
            raise ValueError(
                "label_inference: how far the proxy's labels are from the true distribution is "
                "unknown. Pass shift=0.0 if the proxy draws labels from that distribution, "
                "shift=... (log odds) if it is known how far it is, or control_label=..., "
                "control_proxy_label=..., control_score=... and control_proxy_score=... of rows on "
                "which the model was not trained."
            )


ROWS = ("label", "proxy_label", "score", "proxy_score")
CONTROL = tuple(f"control_{name}" for name in ROWS)


def read(given) -> LabelInference:
    """Returns the argument `label_inference` of audit(), which may be a mapping of its fields."""
    if isinstance(given, LabelInference):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(
            f"label_inference is a {type(given).__name__}; pass mia_jax.LabelInference(label=..., "
            "proxy_label=..., score=..., proxy_score=..., shift=...) or a mapping of these fields."
        )
    known = [field.name for field in dataclasses.fields(LabelInference)]
    for name in given:
        if name not in known:
            raise ValueError(checks.lacks("label_inference", "field", name, known))
    missing = [name for name in ROWS if given.get(name) is None]
    if missing:
        raise ValueError(
            f"label_inference: {missing[0]} is missing; it needs {', '.join(ROWS)}, [N] each."
        )
    return LabelInference(**given)


def pairs_of(rows: LabelInference, prefix: str = "") -> np.ndarray:
    """Returns the scores [P,2] of the rows whose two labels differ: of the label, of the proxy's.

    Rows with equal labels have no coin: neither order of them says anything.

    Args:
        rows: the rows.
        prefix: 'control_' for the control rows.
    """
    name = {key: f"label_inference: {prefix}{key}" for key in ROWS}
    value = {key: _arrays.array(name[key], getattr(rows, prefix + key)) for key in ROWS}
    expected = value["label"].shape[:1]
    for key, array in value.items():
        if array.ndim != 1 or array.shape != expected:
            raise ValueError(
                f"{name[key]} has shape {array.shape}; expected one number per row, [N]"
                f"{'' if key == 'label' else f' with N={(*expected, 0)[0]}'}."
            )
    scores = []
    for key in ("score", "proxy_score"):
        score_N = _arrays.numbers(name[key], value[key]).astype(np.float64)
        if not np.isfinite(score_N).all():
            raise ValueError(
                f"{name[key]} has {score_N[~np.isfinite(score_N)][0]} in row "
                f"{int(np.flatnonzero(~np.isfinite(score_N))[0])}; scores must be finite numbers."
            )
        scores.append(score_N)
    differ_N = np.asarray(value["label"] != value["proxy_label"])
    if differ_N.shape != expected or not differ_N.any():
        raise ValueError(
            f"label_inference: {prefix}label and {prefix}proxy_label are equal in all rows (or of "
            "kinds that cannot be compared), so there is nothing to tell apart. Draw the proxy's "
            "labels from its predictive distribution instead of taking the most likely ones."
        )
    return np.stack(scores, 1)[differ_N]


def prepared(
    rows: LabelInference, *, fields: Mapping, seed: int
) -> tuple[dict[str, np.ndarray], dict]:
    """Returns the arrays that are audited (external/arrays.py) and report.audit.

    Each pair of different labels is two rows with one coin, in an order that a fair coin decides:
    where scores tie, a guess is right half of the time.

    Args:
        rows: the labels and scores.
        fields: the caller's report.audit.
        seed: the seed of the orders.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(
            f"report: audit={fields!r} must be a mapping of further settings, such as "
            "dict(epsilon=1.0, delta=0.0)."
        )
    for name in ("labels", "shift", "slack", "control"):
        if name in fields:
            raise ValueError(
                f"report: audit has the field {name!r}, which label_inference=... sets; pass it "
                "there."
            )
    rng = np.random.default_rng((seed, len("label_inference")))
    score_P2, first_P = ordered(pairs_of(rows), rng)
    control = None
    if rows.control_score is not None:
        apart_P2, before_P = ordered(pairs_of(rows, "control_"), rng)
        counts = [
            audit.guess_pairs(
                apart_P2,
                before_P,
                guesses=privacy_audit.guesses_about(len(apart_P2), float(share), paired=True),
            )
            for share in fields.get("guesses", privacy_audit.FIELDS["guesses"])
        ]
        control = dict(
            pairs=[c.canaries for c in counts],
            guesses=[c.guesses for c in counts],
            correct=[c.correct for c in counts],
        )
    arrays = dict(
        score=score_P2.ravel(),
        member=np.stack([first_P, ~first_P], 1).ravel(),
        coin=np.repeat(np.arange(len(first_P)), 2),
    )
    more = dict(labels=True, shift=rows.shift, slack=rows.slack, control=control)
    return arrays, dict(fields) | more


def ordered(pair_P2: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns (score_P2, first_P): pairs in random order, and whether the label comes first."""
    first_P = rng.random(len(pair_P2)) < 0.5
    return np.where(first_P[:, None], pair_P2, pair_P2[:, ::-1]), first_P
