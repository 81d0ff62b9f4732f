"""Arrays of your own: a target's answers, shadows' answers and who was a member, from an npz file,
a folder of LiRA's released code, or memory.

Keys (A views, M shadow models, N examples, C classes; a view axis may be left out): score [A,N]
(higher = member) | loss [A,N] | probs [A,N,C] | logits [A,N,C] | predictions [A,N] or [A,N,F]   the
target shadow_score | shadow_loss | shadow_probs | shadow_logits | shadow_predictions
the same with M in front labels [N] (or [N,C] of 0/1: several labels an example; real numbers with
predictions: regression) logits [N] or [N,1] with labels of 0 and 1: the logit z of class 1, taken
as (0, z) member [N], shadow_member [M,N] of 0/1; pair [M]: models that share a number never attack
each other; x [N,..]; column_<name> [N] population_<key>: the same keys for further rows that no
model trained on Without target arrays every model of shadow_* is a target in turn. Numbers keep the
precision in which they were passed, up to float64.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mia_jax import checks, types
from mia_jax.data import _arrays as given
from mia_jax.data import npz
from mia_jax.external import design as designs
from mia_jax.external import signals
from mia_jax.types import Design, Pool, Task

FORMS = dict(
    score=0, loss=0, probs=1, logits=1, predictions=None
)  # axes after N; None: as many as the labels have after N
OTHERS = ("labels", "member", "shadow_member", "pair", "x")
MOST_CLASSES = 1_000_000  # a larger label is an identifier
LARGEST = 1e150
# by how much a loss may differ, absolutely and relatively, from that of logits, probabilities or
# predictions beside it
SAME = 0.01


class Supplied(NamedTuple):
    """A pool, a design over its models, and every signal that the arrays give, `signal[name]`
    [M,A,N..]; `said` are sentences for the report.
    """

    pool: Pool
    design: Design
    signal: Mapping[str, np.ndarray]
    said: tuple[str, ...]


def load(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file or of a folder in the layout of LiRA's released code."""
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        return lira_folder(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; supply an npz file or a folder with one experiment-* folder "
            "per model."
        )
    try:
        return npz.read(path)
    except ValueError as error:
        if "it is a text file" not in str(error):
            raise
        remedy = (
            "Read it (np.genfromtxt(path, delimiter=',', names=True), pandas.read_csv) and pass "
            "its columns: loss=table['loss'], member=..."
        )
        raise ValueError(f"{error} {remedy}") from error


def lira_folder(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns arrays of <model>/keep.npy, <model>/logits/<step>.npy ([N,C], [N,A,C] or [N,1,A,C];
    the last step that all have) and y_train.npy.
    """
    models = sorted((p.parent for p in folder.glob("*/keep.npy")), key=lambda p: numbered(p.name))
    labels = folder / "y_train.npy"
    if not models or not labels.exists():
        raise FileNotFoundError(
            f"{folder} needs y_train.npy and, for each model, <model>/keep.npy and "
            "<model>/logits/<step>.npy."
        )
    steps = set.intersection(*({p.name for p in (m / "logits").glob("*.npy")} for m in models))
    if not steps:
        raise ValueError(
            f"{folder}: all models must share a file logits/<step>.npy (the last one is read); "
            "they share none."
        )
    last, logits = max(steps, key=numbered), []
    for model in models:
        one = npy(model / "logits" / last)
        one = one[:, 0] if one.ndim == 4 and one.shape[1] == 1 else one
        logits.append(np.moveaxis(one, 0, -2) if one.ndim == 3 else one)
    keep = [npy(m / "keep.npy") for m in models]
    for what, parts in (("keep.npy", keep), (f"logits/{last}", logits)):
        odd = next(
            (m for m, part in zip(models, parts, strict=True) if part.shape != parts[0].shape), None
        )
        if odd is not None:
            other = parts[models.index(odd)].shape
            raise ValueError(
                f"{folder}: {what} of {models[0].name} has shape {parts[0].shape} and that of "
                f"{odd.name} {other}; they must agree."
            )
    return dict(
        shadow_logits=np.stack(logits), shadow_member=np.stack(keep), labels=npy(labels).reshape(-1)
    )


def npy(path: pathlib.Path) -> np.ndarray:
    """Returns the array of a .npy file of the user's; ValueError that names it."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy's reader raises many types on damaged bytes
        what = (
            "it holds Python objects (pickles), which are never read"
            if "pickle" in str(error)
            else f"{type(error).__name__}: {error}"
        )
        raise ValueError(
            f"{path} cannot be read as one array of numbers (np.save): {what}."
        ) from error


def numbered(name: str) -> list:
    """Returns a key that sorts names by the numbers in them: '90.npy' before '100.npy',
    'experiment-2' before 'experiment-10'.

    >>> max(['0090.npy', '100.npy', '90.npy'], key=numbered)
    '100.npy'
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]


def build(arrays: Mapping[str, np.ndarray], *, name: str = "supplied", seed: int = 0) -> Supplied:
    """Checks the arrays and makes them a pool, a design and signals.

    ValueError names the key, its shape and the shape that was expected.
    """
    unknown = [k for k in arrays if not isinstance(k, str) or not known(k)]
    if unknown:
        raise ValueError(
            f"{name}: unknown key {unknown[0]!r}.{hint(unknown[0])} Keys: "
            f"{', '.join([*FORMS, *OTHERS])}, {FURTHER}."
        )
    arrays = {key: read(key, value, name) for key, value in arrays.items()}
    parts = [
        (prefix, form) for prefix in ("", "shadow_") for form in FORMS if prefix + form in arrays
    ]
    if not parts:
        raise ValueError(
            f"{name}: none of {', '.join(FORMS)} (or shadow_*) is there; the keys are "
            f"{', '.join(arrays) or 'none'}."
        )
    check_forms({form for _, form in parts}, name)
    arrays = {key: two_columns(key, value, arrays, name) for key, value in arrays.items()}
    arrays, population_N = with_population(arrays, name)
    examples = len(population_N)
    labels, task = labels_of(arrays, parts, examples, name)
    answers = {
        form: stacked(arrays, parts, form, examples, labels, name)
        for form in FORMS
        if any(f == form for _, f in parts)
    }
    member_MN = membership(arrays, parts, population_N, name)
    signal = signals.make(answers, labels, name=name)
    check_loss(answers, signal, name)
    target, shadows = (any(p == prefix for p, _ in parts) for prefix in ("", "shadow_"))
    design, said = designs.make(
        member_MN,
        population_N,
        target=target,
        shadows=shadows,
        pair_M=pairs(arrays, name),
        seed=seed,
    )
    for key in (k for k in arrays if k == "x" or k.startswith("column_")):
        if arrays[key].shape[:1] != (examples,) or (key != "x" and arrays[key].ndim > 1):
            raise ValueError(
                f"{name}: {key} has shape {arrays[key].shape}; expected "
                f"{'[N, ..]' if key == 'x' else '[N]'} with N={examples}."
            )
    if "x" in arrays:
        checks.finite(x=arrays["x"])
    if "loss" in answers and (answers["loss"] < 0).any():
        said.append(
            f"{int((answers['loss'] < 0).sum()):,} losses are negative. A loss is lower on "
            "members; of log-likelihoods pass the negative."
        )
    columns = {k.removeprefix("column_"): v for k, v in arrays.items() if k.startswith("column_")}
    x = arrays.get("x", np.zeros((examples, 0), np.float32))
    y = np.zeros(examples, np.int32) if labels is None else labels
    x = (
        x.astype(np.float64)
        if x.dtype.itemsize > 4 or x.dtype.kind in "iu"
        else x.astype(np.float32)
    )
    pool = Pool(x=x, y=y, columns=columns | dict(population=population_N), name=name, task=task)
    return Supplied(pool, design, signal, tuple(said))


def read(key: str, value, name: str) -> np.ndarray:
    """Returns one array of a user's own, of numbers, words (labels, and columns) or dates
    (columns); ValueError that names the key.
    """
    value, own = given.array(f"{name}: {key}", value), key.removeprefix("population_")
    if own.startswith("column_"):
        return given.column(f"{name}: {key}", value)
    if own == "x" and not given.numeric(value.dtype) and value.dtype.kind != "O":
        raise ValueError(
            f"{name}: {key} must be numbers; its dtype is {value.dtype}. Encode words as numbers, "
            "or pass them as column_<name>."
        )
    if own in ("labels", "member", "shadow_member", "pair") and value.dtype.kind in "SUT":
        return value  # refused with the remedy of each where it is read
    return given.numbers(f"{name}: {key}", value)


def two_columns(key: str, value: np.ndarray, arrays: Mapping, name: str) -> np.ndarray:
    """Returns logits (0, z) of the one logit z of class 1 that a model of two classes answers with,
    [N] or [..,N,1]; any other array as it is.
    """
    own = key.removeprefix("population_")
    if own not in ("logits", "shadow_logits"):
        return value
    flat = value.ndim == 1 + (own == "shadow_logits")
    if not flat and (value.ndim < 2 or value.shape[-1] != 1):
        return value
    labels = arrays.get("labels")
    if (
        labels is None
        or labels.ndim != 1
        or labels.dtype.kind not in "biuf"
        or not np.isin(labels, (0, 1)).all()
    ):
        if flat:
            return value  # its shape is refused
        raise ValueError(
            f"{name}: {key} has one column, the logit of class 1 of two, so labels must hold 0 and "
            "1; pass a column per class "
            "(np.stack([0 * z, z], -1))."
        )
    value = value[..., None] if flat else value
    return np.concatenate([np.zeros_like(value), value], -1)


def check_forms(forms: set[str], name: str) -> None:
    """Raises ValueError for two forms of which each says all that the other does."""
    several = [form for form in ("probs", "logits", "predictions") if form in forms]
    if len(several) > 1:
        raise ValueError(
            f"{name}: {' and '.join(several)} are both given, and both say what the model answers; "
            "pass one of them."
        )


def check_loss(
    answers: Mapping[str, np.ndarray], signal: Mapping[str, np.ndarray], name: str
) -> None:
    """Raises ValueError if a loss was supplied beside answers of which it is not the loss."""
    if "loss" not in answers or "from_answers" not in signal:
        return
    given_MAN, own_MAN = answers["loss"], signal.pop("from_answers")
    if given_MAN.shape != own_MAN.shape:
        raise ValueError(
            f"{name}: loss and the answers beside it differ in models or views: {given_MAN.shape} "
            f"and {own_MAN.shape}."
        )
    wrong = np.abs(given_MAN - own_MAN) > SAME * (1 + np.abs(own_MAN))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        form = next(form for form in ("logits", "probs", "predictions") if form in answers)
        raise ValueError(
            f"{name}: loss contradicts {form}: of example {at[-1]} it is {given_MAN[at]:.6g} and "
            f"by {form} and labels {own_MAN[at]:.6g} "
            f"({int(wrong.sum()):,} of {wrong.size:,} differ). Pass one of them, or a loss of "
            "another kind as score = -loss."
        )


FURTHER = "shadow_<key>, population_<key>, column_<name>"


def hint(key: str) -> str:
    """Returns what a user may have meant by a key that does not exist."""
    words, key = [*FORMS, *OTHERS, *(f"shadow_{form}" for form in FORMS)], str(key)
    lower = key.lower()
    meant = dict(
        y="labels",
        label="labels",
        targets="labels",
        target="labels",
        members="member",
        is_member="member",
        features="x",
        data="x",
    )
    if lower in words or lower in meant:
        return f" Did you mean {meant.get(lower, lower)!r}?"
    return checks.closest(key, words) or f" A further column of the examples is column_{key}."


def known(key: str) -> bool:
    """Returns whether a key means something."""
    key = key.removeprefix("population_")
    return (
        key in FORMS
        or key in OTHERS
        or key.startswith("column_")
        or (key.startswith("shadow_") and key.removeprefix("shadow_") in FORMS)
    )


def with_population(arrays: dict, name: str) -> tuple[dict, np.ndarray]:
    """Returns the arrays with their population rows appended, and population_N.

    Membership of those rows is False everywhere.
    """
    own = {k: v for k, v in arrays.items() if not k.startswith("population_")}
    more = {
        k.removeprefix("population_"): v for k, v in arrays.items() if k.startswith("population_")
    }
    count = count_of(own, name)
    if not more:
        return own, np.zeros(count, bool)
    extra = count_of(more, f"{name}: population")
    for key in own:
        if key in ("member", "shadow_member"):
            more.setdefault(key, np.zeros((*own[key].shape[:-1], extra), own[key].dtype))
        elif key != "pair" and key not in more:
            if not key.startswith("column_"):
                raise ValueError(
                    f"{name}: population_{key} is missing; {key} is there and population rows need "
                    "it too."
                )
            more[key] = np.zeros(extra, own[key].dtype)
    alone = [key for key in more if key not in own]
    if alone:
        raise ValueError(
            f"{name}: population_{alone[0]} is there and {alone[0]} is not; population rows go "
            f"behind the rows of {alone[0]}."
        )
    joined = {
        k: v if k == "pair" else with_rows(k, v, more[k], np.ndim(own.get("labels")), name)
        for k, v in own.items()
    }
    return joined, np.arange(count + extra) >= count


def with_rows(
    key: str, value: np.ndarray, more: np.ndarray, label_axes: int, name: str
) -> np.ndarray:
    """Returns the array with its population rows behind it on the axis of examples, which is
    counted from behind where a view axis may lead.
    """
    form = key.removeprefix("shadow_")
    after = FORMS[form] if form in FORMS and FORMS[form] is not None else max(label_axes - 1, 0)
    axis = value.ndim - 1 - after if form in FORMS else int(key == "shadow_member")
    if (
        value.ndim != more.ndim
        or not 0 <= axis < value.ndim
        or np.delete(value.shape, axis).tolist() != np.delete(more.shape, axis).tolist()
    ):
        raise ValueError(
            f"{name}: population_{key} has shape {more.shape} and {key} {value.shape}; all axes "
            "but that of the examples must agree."
        )
    return np.concatenate([value, more], axis=axis)


def count_of(arrays: Mapping, name: str) -> int:
    """N, from labels, losses, scores or membership."""
    for key in (
        "labels",
        "x",
        "loss",
        "score",
        "shadow_loss",
        "shadow_score",
        "member",
        "shadow_member",
    ):
        if key in arrays and arrays[key].ndim:
            return arrays[key].shape[0 if key in ("labels", "x", "member") else -1]
    raise ValueError(
        f"{name}: labels [N] or member [N] is needed to know the number of examples; the keys are "
        f"{', '.join(arrays)}."
    )


def membership(arrays: Mapping, parts: list, population_N: np.ndarray, name: str) -> np.ndarray:
    """Returns member_MN with the target first (if its answers are there), then the shadows.

    ValueError for a target without members or non-members.
    """
    rows, examples, target = [], len(population_N), any(prefix == "" for prefix, _ in parts)
    if target:
        rows.append(truth(arrays, "member", (examples,), name)[None])
    if any(prefix for prefix, _ in parts):
        models = {p + f: len(arrays[p + f]) for p, f in parts if p}
        if len(set(models.values())) > 1:
            raise ValueError(
                f"{name}: {', '.join(f'{k} has {m} models' for k, m in models.items())}; they must "
                "be the same M models."
            )
        rows.append(truth(arrays, "shadow_member", (next(iter(models.values())), examples), name))
    for m, row_N in enumerate(rows[0]):
        inside, outside = int(row_N[~population_N].sum()), int((~row_N[~population_N]).sum())
        if not inside or not outside:
            key = "member" if target else f"shadow_member[{m}]"
            raise ValueError(
                f"{name}: {key} has {inside} members and {outside} non-members; an audit compares "
                "the two and needs some of each: pass answers "
                "on examples that the model was trained on and on examples that it was not."
            )
    return np.concatenate(rows)


def truth(arrays: Mapping, key: str, shape: tuple, name: str) -> np.ndarray:
    """Returns a boolean array of one shape."""
    axes = "[M,N]" if len(shape) == 2 else "[N]"
    if key not in arrays:
        raise ValueError(
            f"{name}: {key} {axes} = {list(shape)} is missing; it says who was a member. The keys "
            f"are {', '.join(arrays)}."
        )
    value = arrays[key]
    if value.shape != shape:
        numbers = value.ndim == 1 and value.dtype.kind in "iu" and value.max(initial=0) > 1
        remedy = f" Row numbers? Pass np.isin(np.arange({shape[-1]}), {key})." if numbers else ""
        raise ValueError(
            f"{name}: {key} has shape {value.shape}; expected {axes} = "
            f"{shape}{', one row a shadow model' * (len(shape) == 2)}.{remedy}"
        )
    if (
        value.dtype.kind not in "biuf" or not np.isin(value, (0, 1)).all()
    ):  # words are refused here as well
        raise ValueError(
            f"{name}: {key} must hold 0 and 1 only (1: trained on the example); it holds "
            f"{np.unique(value)[:5]}."
        )
    return value.astype(bool)


def pairs(arrays: Mapping, name: str) -> np.ndarray | None:
    """Returns `pair` [M], checked; None if it was not supplied."""
    if "pair" not in arrays:
        return None
    models = len(arrays.get("shadow_member", ()))
    if arrays["pair"].shape != (models,):
        raise ValueError(
            f"{name}: pair has shape {arrays['pair'].shape}; expected ({models},): one number a "
            "shadow model."
        )
    return arrays["pair"]


def labels_of(
    arrays: Mapping, parts: list, examples: int, name: str
) -> tuple[np.ndarray | None, Task]:
    """Returns the labels and the task that they state.

    Labels are int32 [N] (whole numbers are class numbers), float64 [N] or [N,F] for predictions,
    0/1 [N,C] for several labels per example, or None.
    """
    forms = {form for _, form in parts}
    if "labels" not in arrays:
        if forms & {"probs", "logits", "predictions"}:
            raise ValueError(f"{name}: labels [N] is missing; {', '.join(sorted(forms))} need it.")
        return None, types.unlabeled()
    labels = arrays["labels"]
    if labels.shape[:1] != (examples,):
        raise ValueError(f"{name}: labels has shape {labels.shape}; expected ({examples},).")
    if labels.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: labels are {labels.dtype}; pass class numbers 0, 1, ..: np.unique(labels, "
            "return_inverse=True)[1] makes them."
        )
    checks.finite(labels=labels)
    if "predictions" in forms:
        return labels.astype(np.float64), types.regression(
            num_outputs=labels.shape[1] if labels.ndim == 2 else None
        )
    if labels.ndim > 1:
        return several(labels, name), types.multilabel()
    whole = labels.dtype.kind != "f" or np.array_equal(labels, labels.round())
    if not whole and forms & {"probs", "logits"}:
        raise ValueError(
            f"{name}: labels must be class numbers; the first that is not is "
            f"{labels[labels != labels.round()][0]}."
        )
    if whole and labels.max() >= MOST_CLASSES:
        raise ValueError(
            f"{name}: label {labels.max()} is no class number 0, 1, ..: np.unique(labels, "
            "return_inverse=True)[1] makes them."
        )
    if whole and labels.min() < 0:
        raise ValueError(
            f"{name}: labels must be class numbers from 0 on; label {labels.min()} of example "
            f"{int(labels.argmin())} is not."
        )
    return (
        (labels.astype(np.int32), types.classification(int(labels.max()) + 1))
        if whole
        else (labels.astype(np.float64), types.regression())
    )


def several(labels: np.ndarray, name: str) -> np.ndarray:
    """Returns Labels [N,C] of 0 and 1: several an example; ValueError for one-hot rows, which are
    one label an example.
    """
    if labels.ndim != 2 or labels.shape[1] == 1:
        raise ValueError(
            f"{name}: labels has shape {labels.shape}; pass [N] class numbers (labels[:, 0]?) or "
            "[N,C] of 0 and 1."
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"{name}: labels [N,C] must hold 0 and 1 only (several labels an example); it holds "
            f"{np.unique(labels)[:5]}."
        )
    if (labels.sum(1) == 1).all():
        raise ValueError(
            f"{name}: labels {labels.shape} are one-hot, one class an example; pass class "
            "numbers: labels.argmax(1)."
        )
    return labels.astype(np.float32)


def stacked(
    arrays: Mapping, parts: list, form: str, examples: int, labels, name: str
) -> np.ndarray:
    """Returns [M,A,N..] float64 answers of the target and the shadows in one form."""
    after = FORMS[form] if FORMS[form] is not None else labels.ndim - 1
    found = []
    for prefix in ("", "shadow_"):
        if not any(p == prefix for p, _ in parts):
            continue
        if (prefix, form) not in parts:
            other = "shadow_" + form if prefix else form
            raise ValueError(
                f"{name}: {'shadow_' * (not prefix) + form} is there but {other} is not; target "
                "and shadows must have the same forms."
            )
        value, key = arrays[prefix + form], prefix + form
        base = after + 1 + bool(prefix)
        if value.ndim not in (base, base + 1):
            axes = ["M"] * bool(prefix) + ["A (optional)", "N"] + ["C"] * after
            binary = " One probability p of class 1 an example: pass np.stack([1 - p, p], -1)." * (
                form == "probs" and value.ndim == base - 1
            )
            raise ValueError(
                f"{name}: {key} has shape {value.shape}; expected [{', '.join(axes)}] with "
                f"N={examples}.{binary}"
            )
        value = value if prefix else value[None]
        value = value if value.ndim == base + 1 + (not prefix) else value[:, None]
        if value.shape[2] != examples:
            axes = (
                ["M"] * bool(prefix)
                + ["A"] * (arrays[key].ndim == base + 1)
                + [f"N={examples}"]
                + ["C"] * after
            )
            raise ValueError(
                f"{name}: {key} has shape {arrays[key].shape}; expected [{', '.join(axes)}]."
            )
        checks.finite(**{key: arrays[key]})
        if value.size and float(np.abs(value).max()) > LARGEST:
            most = float(np.abs(value).max())
            raise ValueError(
                f"{name}: {key} holds numbers as large as {most:.3g}, whose squares float64 cannot "
                "hold: take logarithms."
            )
        found.append(value.astype(np.float64))
    if len({v.shape[1:] for v in found}) > 1:
        raise ValueError(
            f"{name}: {form} and shadow_{form} differ in views or classes: {found[0].shape[1:]} "
            f"and {found[1].shape[1:]}."
        )
    return np.concatenate(found)
