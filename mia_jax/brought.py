"""Arrays of your own: a target's answers, shadows' answers and who was a member, from an npz file, a folder of LiRA's released code, or memory.

Keys (A views, M shadow models, N examples, C classes; a view axis may be left out):
  score [A,N] (higher = member) | loss [A,N] | probs [A,N,C] | logits [A,N,C] | predictions [A,N] or [A,N,F]   the target
  shadow_score | shadow_loss | shadow_probs | shadow_logits | shadow_predictions                               the same with M in front
  labels [N] (or [N,C] of 0/1: several labels an example; real numbers with predictions: regression)
  member [N], shadow_member [M,N] of 0/1; pair [M]: models that share a number never attack each other; x [N,..]; column_<name> [N]
  population_<key>: the same keys for further rows that no model trained on
Without target arrays every model of shadow_* is a target in turn.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mia_jax import checks, registry, workdir
from mia_jax.designs import _rows
from mia_jax.types import Design, Pool
from mia_jax.views import SHADOW_NEEDS

FORMS = dict(score=0, loss=0, probs=1, logits=1, predictions=None)  # axes after N; None: as many as the labels have after N
FROM_LOGITS = ("loss", "confidence", "max_confidence", "rescaled_logit", "entropy", "modified_entropy", "hinge", "correct", "logits")
OTHERS = ("labels", "member", "shadow_member", "pair", "x")


class Brought(NamedTuple):
    """A pool, a design over its models, and every signal that the arrays give, `signal[name]` [M,A,N..]; `said` are sentences for the report."""

    pool: Pool
    design: Design
    signal: Mapping[str, np.ndarray]
    said: tuple[str, ...]


def load(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file or of a folder in the layout of LiRA's released code."""
    path = pathlib.Path(path)
    if path.is_dir():
        return lira_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; bring an npz file or a folder with one experiment-* folder a model.")
    return workdir.read_npz(path)


def lira_folder(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays of experiment*/keep.npy, experiment*/logits/<step>.npy ([N,C], [N,A,C] or [N,1,A,C]) and y_train.npy, as shadow_* keys."""
    models = sorted(p.parent for p in folder.glob("*/keep.npy"))
    labels = folder / "y_train.npy"
    if not models or not labels.exists():
        raise FileNotFoundError(f"{folder} needs y_train.npy and, for each model, <model>/keep.npy and <model>/logits/<step>.npy.")
    steps = set.intersection(*({p.name for p in (m / "logits").glob("*.npy")} for m in models))
    if len(steps) != 1:
        raise ValueError(f"{folder}: all models must share exactly one file logits/<step>.npy; they share {sorted(steps) or 'none'}.")
    logits = []
    for model in models:
        one = workdir.read_npy(model / "logits" / next(iter(steps)))
        one = one[:, 0] if one.ndim == 4 and one.shape[1] == 1 else one
        logits.append(np.moveaxis(one, 0, -2) if one.ndim == 3 else one)
    keep = np.stack([workdir.read_npy(m / "keep.npy") for m in models])
    return dict(shadow_logits=np.stack(logits), shadow_member=keep, labels=workdir.read_npy(labels).reshape(-1))


def build(arrays: Mapping[str, np.ndarray], *, name: str = "brought", seed: int = 0) -> Brought:
    """Checks the arrays and makes them a pool, a design and signals. ValueError names the key, its shape and the shape that was expected."""
    arrays = {key: np.asarray(value) for key, value in arrays.items()}
    unknown = [k for k in arrays if not known(k)]
    if unknown:
        raise ValueError(f"{name}: unknown key {unknown[0]!r}. Keys: {', '.join([*FORMS, *OTHERS])}, shadow_<key>, population_<key>, column_<name>.")
    arrays, population_N = with_population(arrays, name)
    parts = [(prefix, form) for prefix in ("", "shadow_") for form in FORMS if prefix + form in arrays]
    if not parts:
        raise ValueError(f"{name}: none of {', '.join(FORMS)} (or shadow_*) is there; the keys are {', '.join(arrays)}.")
    examples = len(population_N)
    member_MN, said = membership(arrays, parts, examples, name)
    labels = labels_of(arrays, parts, examples, name)
    answers = {form: stacked(arrays, parts, form, examples, labels, name) for form in FORMS if any(f == form for _, f in parts)}
    signal = signals(answers, labels, name)
    design = design_of(arrays, member_MN, population_N, seed=seed)
    said += said_of(design, member_MN)
    columns = {k.removeprefix("column_"): v for k, v in arrays.items() if k.startswith("column_")}
    x = arrays.get("x", np.zeros((examples, 0)))
    y = np.zeros(examples, np.int32) if labels is None else labels
    classes = int(y.max()) + 1 if y.dtype.kind in "iu" and y.ndim == 1 and labels is not None else 0
    pool = Pool(x=np.asarray(x, np.float32), y=y, columns=columns | dict(population=population_N), name=name, num_classes=classes)
    return Brought(pool, design, signal, tuple(said))


def known(key: str) -> bool:
    """Whether a key means something."""
    key = key.removeprefix("population_")
    return key in FORMS or key in OTHERS or key.startswith("column_") or (key.startswith("shadow_") and key.removeprefix("shadow_") in FORMS)


def with_population(arrays: dict, name: str) -> tuple[dict, np.ndarray]:
    """The arrays with their population rows appended, and population_N. Membership of those rows is False everywhere."""
    own = {k: v for k, v in arrays.items() if not k.startswith("population_")}
    more = {k.removeprefix("population_"): v for k, v in arrays.items() if k.startswith("population_")}
    count = count_of(own, name)
    if not more:
        return own, np.zeros(count, bool)
    extra = count_of(more, f"{name}: population")
    for key in own:
        if key in ("member", "shadow_member"):
            more.setdefault(key, np.zeros((*own[key].shape[:-1], extra), own[key].dtype))
        elif key != "pair" and key not in more:
            if not key.startswith("column_"):
                raise ValueError(f"{name}: population_{key} is missing; {key} is there and population rows need it too.")
            more[key] = np.zeros(extra, own[key].dtype)
    joined = {k: v if k == "pair" else np.concatenate([v, more[k]], axis=axis_of(k, v, count)) for k, v in own.items()}
    return joined, np.arange(count + extra) >= count


def count_of(arrays: Mapping, name: str) -> int:
    """N, from labels or membership."""
    for key in ("labels", "member", "loss", "score", "shadow_member"):
        if key in arrays:
            return arrays[key].shape[-1] if key in ("shadow_member", "loss", "score") else len(arrays[key])
    raise ValueError(f"{name}: labels [N] or member [N] is needed to know the number of examples; the keys are {', '.join(arrays)}.")


def axis_of(key: str, value: np.ndarray, count: int) -> int:
    """The axis of examples."""
    if key in ("labels", "x", "member") or key.startswith("column_"):
        return 0
    if key == "shadow_member":
        return 1
    matching = [axis for axis in range(value.ndim) if value.shape[axis] == count]
    return matching[-1] if matching else 0


def membership(arrays: Mapping, parts: list, examples: int, name: str) -> tuple[np.ndarray, list[str]]:
    """member_MN with the target first (if its answers are there), then the shadows."""
    rows, said = [], []
    if any(prefix == "" for prefix, _ in parts):
        rows.append(truth(arrays, "member", (examples,), name)[None])
    if any(prefix for prefix, _ in parts):
        shadow = arrays.get("shadow_member", np.zeros((0, 0)))
        rows.append(truth(arrays, "shadow_member", (len(shadow), examples), name))
    return np.concatenate(rows), said


def truth(arrays: Mapping, key: str, shape: tuple, name: str) -> np.ndarray:
    """A boolean array of one shape."""
    if key not in arrays:
        raise ValueError(f"{name}: {key} {list(shape)} is missing; it says who was a member. The keys are {', '.join(arrays)}.")
    value = arrays[key]
    if value.shape != shape:
        raise ValueError(f"{name}: {key} has shape {value.shape}; expected {shape}.")
    if not np.isin(value, (0, 1)).all():
        raise ValueError(f"{name}: {key} must hold 0 and 1 only; it holds {np.unique(value)[:5]}.")
    return value.astype(bool)


def labels_of(arrays: Mapping, parts: list, examples: int, name: str) -> np.ndarray | None:
    """Labels: int32 [N], float32 [N] or [N,F] for predictions, 0/1 [N,C] for several labels an example; None where no answer needs them."""
    forms = {form for _, form in parts}
    if "labels" not in arrays:
        if forms & {"probs", "logits", "predictions"}:
            raise ValueError(f"{name}: labels [N] is missing; {', '.join(sorted(forms))} need it.")
        return None
    labels = arrays["labels"]
    if len(labels) != examples:
        raise ValueError(f"{name}: labels has shape {labels.shape}; expected ({examples},).")
    checks.finite(labels=labels)
    if "predictions" in forms or labels.ndim == 2:
        return labels.astype(np.float32)
    if labels.dtype.kind == "f" and not np.array_equal(labels, labels.round()):
        raise ValueError(f"{name}: labels must be class numbers; the first that is not is {labels[labels != labels.round()][0]}.")
    return labels.astype(np.int32)


def stacked(arrays: Mapping, parts: list, form: str, examples: int, labels, name: str) -> np.ndarray:
    """[M,A,N..] float64 answers of the target and the shadows in one form."""
    after = FORMS[form] if FORMS[form] is not None else labels.ndim - 1
    found = []
    for prefix in ("", "shadow_"):
        if not any(p == prefix for p, _ in parts):
            continue
        if (prefix, form) not in parts:
            other = "shadow_" + form if prefix else form
            raise ValueError(f"{name}: {'shadow_' * (not prefix) + form} is there but {other} is not; target and shadows must bring the same forms.")
        value, key = arrays[prefix + form], prefix + form
        base = after + 1 + bool(prefix)
        if value.ndim not in (base, base + 1):
            axes = ["M"] * bool(prefix) + ["A (optional)", "N"] + ["C"] * after
            raise ValueError(f"{name}: {key} has shape {value.shape}; expected [{', '.join(axes)}] with N={examples}.")
        value = value if prefix else value[None]
        value = value if value.ndim == base + 1 + (not prefix) else value[:, None]
        if value.shape[2] != examples or (prefix and "shadow_member" in arrays and len(value) != len(arrays["shadow_member"])):
            models = f"M={len(arrays['shadow_member'])}, " if prefix else ""
            raise ValueError(f"{name}: {key} has shape {arrays[key].shape}; expected {models}N={examples}.")
        checks.finite(**{key: value})
        found.append(value.astype(np.float64))
    if len({v.shape[1:] for v in found}) > 1:
        raise ValueError(f"{name}: {form} and shadow_{form} differ in views or classes: {found[0].shape[1:]} and {found[1].shape[1:]}.")
    return np.concatenate(found)


def signals(answers: Mapping[str, np.ndarray], labels, name: str) -> dict[str, np.ndarray]:
    """Every signal that the answers give, [M,A,N..] float32."""
    found = {form: answers[form].astype(np.float32) for form in ("score", "loss") if form in answers}
    if "predictions" in answers:
        error = (answers["predictions"] - labels[None, None]) ** 2
        found["loss"] = error.reshape(*error.shape[:3], -1).sum(-1).astype(np.float32)
    logits = answers.get("logits")
    if logits is None and "probs" in answers:
        logits = log_probabilities(answers["probs"], several=labels.ndim == 2, name=name)
    if logits is None:
        return found
    if labels.ndim == 2:
        if logits.shape[-1] != labels.shape[-1]:
            raise ValueError(f"{name}: labels has {labels.shape[-1]} columns and the answers {logits.shape[-1]}.")
        losses = np.logaddexp(0, logits) - logits * labels[None, None]
        return found | dict(loss=losses.sum(-1).astype(np.float32))
    outside = (labels < 0) | (labels >= logits.shape[-1])
    if outside.any():
        n = int(np.argmax(outside))
        raise ValueError(f"{name}: label {labels[n]} of example {n} lies outside 0..{logits.shape[-1] - 1} ({logits.shape[-1]} columns of answers).")
    measured = {n: registry.make("signals", n).measure for n in FROM_LOGITS}
    return {n: per_view(measure, logits, labels) for n, measure in measured.items()} | found


def per_view(measure, logits_MANC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """measure(out_NC, y_N) for every model and view."""
    return np.stack([np.stack([np.asarray(measure(out_NC.astype(np.float32), labels_N)) for out_NC in out_ANC]) for out_ANC in logits_MANC])


def log_probabilities(probs: np.ndarray, *, several: bool, name: str) -> np.ndarray:
    """log p (or log odds where labels are independent), zeros at the smallest float32. ValueError unless rows are probabilities."""
    low, high = float(probs.min()), float(probs.max())
    total = np.ones(1) if several else probs.sum(-1)
    if low < 0 or high > 1 or np.abs(total - 1).max() > 1e-3:
        worst = total.flat[int(np.abs(total - 1).argmax())]
        raise ValueError(f"{name}: probs must lie in [0, 1] and sum to 1; they lie in [{low:.4g}, {high:.4g}] and one row sums to {worst:.4g}.")
    tiny = np.finfo(np.float32).tiny
    clipped = np.clip(probs, tiny, 1.0)
    return np.log(clipped) - (np.log(np.clip(1 - probs, tiny, 1.0)) if several else 0.0)


def design_of(arrays: Mapping, member_MN: np.ndarray, population_N: np.ndarray, *, seed: int) -> Design:
    """Who may attack whom: a target that was brought is attacked by all shadows; without one, every model by all but its pair."""
    models = len(member_MN)
    evaluated_MN = np.tile(~population_N, (models, 1))
    alone = not any(k.startswith("shadow_") and k != "shadow_member" for k in arrays)
    brought_target = any(form in arrays for form in FORMS)
    unit_M = np.arange(models)
    if not brought_target or models > 2:
        unit_M = pairs(arrays, member_MN[:, ~population_N], first=int(brought_target))
    shadow_MM = unit_M[:, None] != unit_M[None]
    if brought_target:
        shadow_MM[:, 0] = False
    counts = member_MN[int(brought_target) :][:, ~population_N].sum(0)
    balance = not brought_target and models > 2 and len(np.unique(counts)) == 1 and len(np.unique(unit_M)) == models
    return _rows.checked(
        name="brought",
        member_MN=member_MN,
        evaluated_MN=evaluated_MN,
        shadow_MM=shadow_MM,
        population_N=population_N,
        unit_M=unit_M,
        targets=(0,) if brought_target else tuple(range(models)),
        supports=frozenset() if alone else frozenset(SHADOW_NEEDS),
        note="no shadow models were brought" if alone else "arrays of the user's own",
        num_rows=int(member_MN.sum(1).max()),
        balance=balance,
        seed=seed,
    )


def pairs(arrays: Mapping, member_MN: np.ndarray, first: int) -> np.ndarray:
    """unit_M: `pair` where it was brought, else complementary rows of membership are twins."""
    models = len(member_MN)
    unit_M = np.arange(models)
    if "pair" in arrays:
        if arrays["pair"].shape != (models - first,):
            raise ValueError(f"pair has shape {arrays['pair'].shape}; expected ({models - first},): one number a shadow model.")
        unit_M[first:] = np.unique(arrays["pair"], return_inverse=True)[1] + first
        return unit_M
    rows = {row.tobytes(): m for m, row in enumerate(member_MN) if m >= first}
    for m in range(first, models):
        twin = rows.get((~member_MN[m]).tobytes())
        if twin is not None and twin < m:
            unit_M[m] = unit_M[twin]
    return unit_M


def said_of(design: Design, member_MN: np.ndarray) -> list[str]:
    """What the membership matrix told."""
    said = []
    sizes = np.unique(design.unit_M, return_counts=True)[1]
    if (sizes > 1).any():
        said.append(f"{int((sizes > 1).sum())} pairs of models have complementary members: no model attacks its twin.")
    if design.balance:
        said.append(
            "Every example is in the same number of models, so that leaving the target out would tell whether it is a member: for every example the "
            "same number of IN and of OUT shadows is drawn."
        )
    return said
