"""Reads the user's own arrays: the answers of a target and of shadow models, and who was a member.

The arrays come from an npz file, from a folder in the layout of LiRA's released code, or from
memory. `load` reads a file or folder, and `build` checks the arrays and makes a pool, a design and
signals of them.

The axes are A views, M shadow models, N examples, C classes and F numbers per label. The view axis
may be left out of every key. The keys are:

* `score` [A,N] (larger for members), `loss` [A,N], `probs` [A,N,C], `logits` [A,N,C] or
  `predictions` [A,N] or [A,N,F]: what the target answers.
* `shadow_score`, `shadow_loss`, `shadow_probs`, `shadow_logits`, `shadow_predictions`: what the
  shadow models answer, the same shapes with an axis M in front.
* `labels` [N]: class numbers, or real numbers with `predictions` (regression). [N,C] of 0 and 1
  for several labels per example.
* `member` [N] and `shadow_member` [M,N] of 0 and 1: who was trained on which example.
* `pair` [M]: shadow models with the same number never attack each other.
* `coin` [N]: True for canaries, examples about which an independent fair coin decided whether they
  are members; or the number of that coin, where two examples with one number are alternatives, and
  -1 for all others. Only canaries are then scored, and epsilon is audited.
* `x` [N,..]: the examples themselves. `column_<name>` [N]: further columns of the examples; `id` is
  how a report calls them.
* `feature_names` [F] and `class_names` [C]: what a report calls the numbers of `x` and the classes.
* `population` [N] of 0 and 1: examples on which no model was trained; they are not scored.
* `population_<key>`: the same keys for further such examples, which follow those of the others.

If labels are 0 and 1, `logits` may be [N] or [N,1]: the logit z of class 1, which is read as
(0, z). Without arrays of a target, every shadow model is the target in turn. Numbers keep the
precision in which they were passed, up to float64.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax import checks, types
from mia_jax.data import _arrays, npz
from mia_jax.external import design as supplied_design
from mia_jax.external import signals
from mia_jax.metrics.record_groups import EXACT
from mia_jax.types import Design, Pool, Presentation, Task

# The forms of answers and the number of axes after N; None: as many as the labels have after N.
FORMS = dict(score=0, loss=0, probs=1, logits=1, predictions=None)
NAME_KEYS = ("feature_names", "class_names")
OTHER_KEYS = ("labels", "member", "shadow_member", "pair", "coin", "x", "population", *NAME_KEYS)
PREFIXED_KEYS = "shadow_<key>, population_<key>, column_<name>"
MOST_CLASSES = 1_000_000  # A larger label is an identifier and no class number.
LARGEST_NUMBER = 1e150  # The square of a larger number does not fit into float64.
# A supplied loss may differ, absolutely and relatively, by this much from the loss that follows
# from the logits, probabilities or predictions that were supplied with it.
LOSS_TOLERANCE = 0.01


class Supplied(NamedTuple):
    """Holds what the supplied arrays say, in the form that an audit reads.

    Attributes:
        pool: the N examples.
        design: which model was trained on which example and who may attack whom.
        signal: {name: [M,A,N..]}, every signal that the arrays give.
        notes: sentences for the report.
    """

    pool: Pool
    design: Design
    signal: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def load(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file or of a folder in the layout of LiRA's released code.

    Raises:
        FileNotFoundError: if the path or a file of the folder does not exist.
        ValueError: if a file cannot be read as plain arrays.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        return load_lira_folder(path)
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


def load_lira_folder(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a folder in the layout of LiRA's released code.

    The folder holds y_train.npy and, for each model, <model>/keep.npy [N] and
    <model>/logits/<step>.npy of shape [N,C], [N,A,C] or [N,1,A,C]. The last step that all models
    have is read.

    Returns:
        {'shadow_logits': [M,N,C] or [M,A,N,C], 'shadow_member': [M,N], 'labels': [N]}.

    Raises:
        FileNotFoundError: if y_train.npy or every keep.npy is missing.
        ValueError: if the models share no step, or if their arrays differ in shape.
    """
    models = sorted(
        (p.parent for p in folder.glob("*/keep.npy")), key=lambda p: natural_order(p.name)
    )
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
    last, logits = max(steps, key=natural_order), []
    for model in models:
        out = read_npy(model / "logits" / last)
        if out.ndim == 4 and out.shape[1] == 1:
            out = out[:, 0]
        logits.append(np.moveaxis(out, 0, -2) if out.ndim == 3 else out)  # [N,A,C] to [A,N,C]
    keep = [read_npy(m / "keep.npy") for m in models]
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
        shadow_logits=np.stack(logits),
        shadow_member=np.stack(keep),
        labels=read_npy(labels).reshape(-1),
    )


def read_npy(path: pathlib.Path) -> np.ndarray:
    """Returns the array of a .npy file; raises ValueError that names the file if it is not one."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy's reader raises many types on damaged bytes.
        what = (
            "it holds Python objects (pickles), which are never read"
            if "pickle" in str(error)
            else f"{type(error).__name__}: {error}"
        )
        raise ValueError(
            f"{path} cannot be read as one array of numbers (np.save): {what}."
        ) from error


def natural_order(name: str) -> list:
    """Returns a key that sorts names by the numbers in them: '90.npy' comes before '100.npy'.

    >>> max(['0090.npy', '100.npy', '90.npy'], key=natural_order)
    '100.npy'
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]


def build(arrays: Mapping[str, np.ndarray], *, name: str = "supplied", seed: int = 0) -> Supplied:
    """Checks the arrays and makes a pool, a design and signals of them.

    Args:
        arrays: {key: array}; the module's docstring lists the keys.
        name: what the arrays are called in messages, such as their path.
        seed: the seed of the shadow models that are hidden if the design is balanced.

    Raises:
        ValueError: if a key or an array cannot be used; it names the key, its shape and the shape
            that was expected.
    """
    unknown = [k for k in arrays if not isinstance(k, str) or not is_known_key(k)]
    if unknown:
        raise ValueError(
            f"{name}: unknown key {unknown[0]!r}.{key_hint(unknown[0])} Keys: "
            f"{', '.join([*FORMS, *OTHER_KEYS])}, {PREFIXED_KEYS}."
        )
    names = {key: read_names(key, arrays[key], name) for key in NAME_KEYS if key in arrays}
    arrays = {k: read_array(k, value, name) for k, value in arrays.items() if k not in names}
    parts = [
        (prefix, form) for prefix in ("", "shadow_") for form in FORMS if prefix + form in arrays
    ]
    if not parts:
        raise ValueError(
            f"{name}: none of {', '.join(FORMS)} (or shadow_*) is there; the keys are "
            f"{', '.join(arrays) or 'none'}."
        )
    check_forms({form for _, form in parts}, name)
    arrays = {key: expand_binary_logits(key, value, arrays, name) for key, value in arrays.items()}
    coin = arrays.pop("coin", None)
    arrays, population_N = append_population(arrays, name)
    examples = len(population_N)
    labels, task = labels_and_task(arrays, parts, examples, name)
    answers = {
        form: stack_answers(arrays, parts, form, examples, labels, name)
        for form in FORMS
        if any(f == form for _, f in parts)
    }
    member_MN = membership_matrix(arrays, parts, population_N, name)
    signal = signals.make(answers, labels, name=name)
    check_loss(answers, signal, name)
    target, shadows = (any(p == prefix for p, _ in parts) for prefix in ("", "shadow_"))
    design, notes = supplied_design.make(
        member_MN,
        population_N,
        target=target,
        shadows=shadows,
        pair_M=pair_numbers(arrays, name),
        coin_N=None if coin is None else coin_numbers(coin, population_N, name),
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
        notes.append(
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
    check_names(names, name, feature_names=int(np.prod(x.shape[1:])), class_names=task.num_classes)
    pool = Pool(
        x=x,
        y=y,
        columns=columns | dict(population=population_N),
        name=name,
        task=task,
        presentation=Presentation(
            features=names.get("feature_names", ()), classes=names.get("class_names", ())
        ),
    )
    return Supplied(pool, design, signal, tuple(notes))


def read_names(key: str, value, name: str) -> tuple[str, ...]:
    """Returns the names under a key; raises ValueError unless they are a list of them."""
    names = np.asarray(value)
    if names.ndim != 1:
        raise ValueError(f"{name}: {key} has shape {names.shape}; expected a list of names.")
    return tuple(map(str, names.tolist()))


def check_names(names: Mapping[str, Sequence[str]], name: str, **counts: int) -> None:
    """Raises ValueError if there are not as many names as `counts` says."""
    for key, given in names.items():
        if len(given) != counts[key]:
            what = "numbers in an example of x" if key == "feature_names" else "classes"
            raise ValueError(
                f"{name}: {key} holds {len(given)} names, and there are {counts[key]} {what}."
            )


def read_array(key: str, value, name: str) -> np.ndarray:
    """Returns a supplied array: numbers, words (labels and columns) or dates (columns).

    Raises:
        ValueError: if it holds anything else; it names the key.
    """
    value, base_key = _arrays.array(f"{name}: {key}", value), key.removeprefix("population_")
    if base_key.startswith("column_"):
        return _arrays.column(f"{name}: {key}", value)
    if base_key == "x" and not _arrays.numeric(value.dtype) and value.dtype.kind != "O":
        raise ValueError(
            f"{name}: {key} must be numbers; its dtype is {value.dtype}. Encode words as numbers, "
            "or pass them as column_<name>."
        )
    if base_key in ("labels", "member", "shadow_member", "pair") and value.dtype.kind in "SUT":
        return value  # Each key is refused, with its own remedy, where it is used.
    return _arrays.numbers(f"{name}: {key}", value)


def expand_binary_logits(key: str, value: np.ndarray, arrays: Mapping, name: str) -> np.ndarray:
    """Returns logits [..,N,2] = (0, z) for the single logit z of a model of two classes.

    Args:
        key: the key of the array; arrays that are no logits, or that have several columns, are
            returned unchanged.
        value: the logit z of class 1, [N] or [..,N,1].
        arrays: all supplied arrays; their labels must be 0 and 1.
        name: what the arrays are called in messages.

    Raises:
        ValueError: if there is one column and the labels are not 0 and 1.
    """
    base_key = key.removeprefix("population_")
    if base_key not in ("logits", "shadow_logits"):
        return value
    flat = value.ndim == 1 + (base_key == "shadow_logits")
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
            return value  # `stack_answers` refuses its shape.
        raise ValueError(
            f"{name}: {key} has one column, the logit of class 1 of two, so labels must hold 0 and "
            "1; pass a column per class (np.stack([0 * z, z], -1))."
        )
    value = value[..., None] if flat else value
    return np.concatenate([np.zeros_like(value), value], -1)


def check_forms(forms: set[str], name: str) -> None:
    """Raises ValueError if more than one of probs, logits and predictions is given."""
    several = [form for form in ("probs", "logits", "predictions") if form in forms]
    if len(several) > 1:
        raise ValueError(
            f"{name}: {' and '.join(several)} are both given, and both say what the model answers; "
            "pass one of them."
        )


def check_loss(
    answers: Mapping[str, np.ndarray], signal: Mapping[str, np.ndarray], name: str
) -> None:
    """Raises ValueError if the supplied loss is not the loss of the other supplied answers.

    Args:
        answers: {form: [M,A,N..]}.
        signal: what `signals.make` returned; its entry `from_answers` is removed.
        name: what the arrays are called in messages.
    """
    if "loss" not in answers or "from_answers" not in signal:
        return
    given_MAN, computed_MAN = answers["loss"], signal.pop("from_answers")
    if given_MAN.shape != computed_MAN.shape:
        raise ValueError(
            f"{name}: loss and the other answers differ in models or views: {given_MAN.shape} "
            f"and {computed_MAN.shape}."
        )
    wrong = np.abs(given_MAN - computed_MAN) > LOSS_TOLERANCE * (1 + np.abs(computed_MAN))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        form = next(form for form in ("logits", "probs", "predictions") if form in answers)
        raise ValueError(
            f"{name}: loss contradicts {form}: the loss of example {at[-1]} is "
            f"{given_MAN[at]:.6g}, and {form} and labels give {computed_MAN[at]:.6g} "
            f"({int(wrong.sum()):,} of {wrong.size:,} differ). Pass one of them, or a loss of "
            "another kind as score = -loss."
        )


def key_hint(key: str) -> str:
    """Returns a sentence about what a user may have meant by a key that does not exist."""
    words, key = [*FORMS, *OTHER_KEYS, *(f"shadow_{form}" for form in FORMS)], str(key)
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


def is_known_key(key: str) -> bool:
    """Returns whether arrays may be supplied under this key."""
    key = key.removeprefix("population_")
    return (
        key in FORMS
        or key in OTHER_KEYS
        or key.startswith("column_")
        or (key.startswith("shadow_") and key.removeprefix("shadow_") in FORMS)
    )


def append_population(arrays: dict, name: str) -> tuple[dict, np.ndarray]:
    """Returns the arrays with their population rows appended, and population_N.

    Membership of appended population rows is False for every model. Rows that the key `population`
    marks stay where they are.

    Raises:
        ValueError: if the population rows lack a key that the other rows have, or the reverse; if
            marked rows are members of a model.
    """
    if "population" in arrays:
        return marked_population(arrays, name)
    main = {k: v for k, v in arrays.items() if not k.startswith("population_")}
    more = {
        k.removeprefix("population_"): v for k, v in arrays.items() if k.startswith("population_")
    }
    count = count_examples(main, name)
    if not more:
        return main, np.zeros(count, bool)
    extra = count_examples(more, f"{name}: population")
    for key in main:
        if key in ("member", "shadow_member"):
            more.setdefault(key, np.zeros((*main[key].shape[:-1], extra), main[key].dtype))
        elif key != "pair" and key not in more:
            if not key.startswith("column_"):
                raise ValueError(
                    f"{name}: population_{key} is missing; {key} is there and population rows need "
                    "it too."
                )
            more[key] = np.zeros(extra, main[key].dtype)
    unmatched = [key for key in more if key not in main]
    if unmatched:
        raise ValueError(
            f"{name}: population_{unmatched[0]} is there and {unmatched[0]} is not; population "
            f"rows are appended to the rows of {unmatched[0]}."
        )
    joined = {
        k: v if k == "pair" else append_rows(k, v, more[k], np.ndim(main.get("labels")), name)
        for k, v in main.items()
    }
    return joined, np.arange(count + extra) >= count


def marked_population(arrays: dict, name: str) -> tuple[dict, np.ndarray]:
    """Returns the arrays without the key `population`, and what it marks.

    Raises:
        ValueError: if its shape is wrong, if marked rows are members of a model, or if there are
            further population rows.
    """
    main = {k: v for k, v in arrays.items() if k != "population"}
    further = next((k for k in main if k.startswith("population_")), None)
    if further is not None:
        raise ValueError(
            f"{name}: population and {further} are both given; mark rows or append them."
        )
    population_N = read_flags(arrays, "population", (count_examples(main, name),), name)
    for key in ("member", "shadow_member"):
        if key in main and main[key].shape[-1:] == population_N.shape:
            inside_N = population_N & (main[key] != 0).reshape(-1, len(population_N)).any(0)
            if inside_N.any():
                raise ValueError(
                    f"{name}: population marks {int(inside_N.sum())} rows that {key} says a model "
                    f"was trained on; the first is row {int(inside_N.argmax())}."
                )
    return main, population_N


def append_rows(
    key: str, value: np.ndarray, more: np.ndarray, label_axes: int, name: str
) -> np.ndarray:
    """Returns the array with its population rows appended on the axis of examples.

    That axis is counted from the end, because a view axis may come first.

    Args:
        key: the key of both arrays, without `population_`.
        value: the array of the rows that are scored.
        more: the array of the population rows.
        label_axes: the number of axes of the labels.
        name: what the arrays are called in messages.

    Raises:
        ValueError: if any other axis differs in length.
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


def count_examples(arrays: Mapping, name: str) -> int:
    """Returns N, the number of examples, from labels, x, losses, scores or membership."""
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


def membership_matrix(
    arrays: Mapping, parts: list, population_N: np.ndarray, name: str
) -> np.ndarray:
    """Returns member_MN: the target first (if its answers were supplied), then the shadows.

    Args:
        arrays: all supplied arrays.
        parts: the (prefix, form) of every array of answers; the prefix is '' or 'shadow_'.
        population_N: which rows are population rows.
        name: what the arrays are called in messages.

    Raises:
        ValueError: if a key is missing, a shape is wrong, or a target lacks members or non-members.
    """
    rows, examples, target = [], len(population_N), any(prefix == "" for prefix, _ in parts)
    if target:
        rows.append(read_flags(arrays, "member", (examples,), name)[None])
    if any(prefix for prefix, _ in parts):
        models = {p + f: len(arrays[p + f]) for p, f in parts if p}
        if len(set(models.values())) > 1:
            raise ValueError(
                f"{name}: {', '.join(f'{k} has {m} models' for k, m in models.items())}; they must "
                "be the same M models."
            )
        shape = (next(iter(models.values())), examples)
        rows.append(read_flags(arrays, "shadow_member", shape, name))
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


def read_flags(arrays: Mapping, key: str, shape: tuple, name: str) -> np.ndarray:
    """Returns the array of zeros and ones under a key as booleans.

    Raises:
        ValueError: if the key is missing, the shape differs or another value is in it.
    """
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
            f"{shape}{', one row per shadow model' * (len(shape) == 2)}.{remedy}"
        )
    # The dtype is checked first, because words would not compare with 0 and 1.
    if value.dtype.kind not in "biuf" or not np.isin(value, (0, 1)).all():
        raise ValueError(
            f"{name}: {key} must hold 0 and 1 only (1: trained on the example); it holds "
            f"{np.unique(value)[:5]}."
        )
    return value.astype(bool)


def coin_numbers(coin: np.ndarray, population_N: np.ndarray, name: str) -> np.ndarray:
    """Returns the number of the coin of each example, [N], and -1 for examples without one.

    Args:
        coin: flags or numbers of the examples; further population rows may follow them.
        population_N: which rows are population rows.
        name: what the arrays are called in messages.

    Raises:
        ValueError: if the shape is wrong, no example has a coin, a coin decides about more than two
            examples, or a population row has one.
    """
    total = len(population_N)
    if coin.ndim != 1 or len(coin) > total or not population_N[len(coin) :].all():
        raise ValueError(
            f"{name}: coin has shape {coin.shape}; expected one flag or number per example, [N]."
        )
    if coin.dtype.kind not in "biuf":
        raise ValueError(f"{name}: coin must hold flags or whole numbers, not {coin.dtype}.")
    wrong = (coin != np.floor(coin)) | (np.abs(coin) > 2.0**53)
    if wrong.any():
        raise ValueError(
            f"{name}: coin has {coin[wrong][0]} in row {np.flatnonzero(wrong)[0]}; it must hold "
            "flags or whole numbers, and -1 (or False) for examples that no coin decided about."
        )
    flags = coin.dtype.kind == "b" or bool(np.isin(coin, (0, 1)).all())
    number = np.where(coin != 0, np.cumsum(coin != 0) - 1, -1) if flags else coin.astype(np.int64)
    coin_N = np.append(number, np.full(total - len(coin), -1))
    marked = coin_N >= 0
    values, inverse, count = np.unique(coin_N[marked], return_inverse=True, return_counts=True)
    if not len(values):
        raise ValueError(f"{name}: coin marks no example; leave it out, or mark the canaries.")
    if len(set(count)) > 1 or count[0] > 2:
        raise ValueError(
            f"{name}: coins decide about {sorted(set(count.tolist()))} examples; each must decide "
            "about one, or each between two."
        )
    if (marked & population_N).any():
        raise ValueError(
            f"{name}: {int((marked & population_N).sum())} population rows have a coin; no model "
            "trains on population rows, so leave them out of coin."
        )
    coin_N[marked] = inverse
    return coin_N


def pair_numbers(arrays: Mapping, name: str) -> np.ndarray | None:
    """Returns the array `pair` [M] after checking its shape; None if it was not supplied."""
    if "pair" not in arrays:
        return None
    models = len(arrays.get("shadow_member", ()))
    if arrays["pair"].shape != (models,):
        raise ValueError(
            f"{name}: pair has shape {arrays['pair'].shape}; expected ({models},): one number per "
            "shadow model."
        )
    return arrays["pair"]


def labels_and_task(
    arrays: Mapping, parts: list, examples: int, name: str
) -> tuple[np.ndarray | None, Task]:
    """Returns the labels and the task that they state.

    Returns:
        (labels, task). The labels are int32 [N] if they are class numbers (whole numbers), float64
        [N] or [N,F] for regression, float32 [N,C] of 0 and 1 for several labels per example, or
        None if none were supplied.

    Raises:
        ValueError: if the answers need labels that are missing or of another kind.
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
        return check_multilabel(labels, name), types.multilabel()
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
    if not whole:
        return labels.astype(np.float64), types.regression()
    return labels.astype(np.int32), types.classification(int(labels.max()) + 1)


def check_multilabel(labels: np.ndarray, name: str) -> np.ndarray:
    """Returns labels [N,C] of 0 and 1 (several labels per example) as float32.

    Raises:
        ValueError: if they are of another shape, hold other numbers, or if every row is one-hot,
            which means one label per example.
    """
    if labels.ndim != 2 or labels.shape[1] == 1:
        raise ValueError(
            f"{name}: labels has shape {labels.shape}; pass [N] class numbers (labels[:, 0]?) or "
            "[N,C] of 0 and 1."
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"{name}: labels [N,C] must hold 0 and 1 only (several labels per example); it holds "
            f"{np.unique(labels)[:5]}."
        )
    if (labels.sum(1) == 1).all():
        raise ValueError(
            f"{name}: labels {labels.shape} are one-hot, one class per example; pass class "
            "numbers: labels.argmax(1)."
        )
    return labels.astype(np.float32)


def stack_answers(
    arrays: Mapping, parts: list, form: str, examples: int, labels, name: str
) -> np.ndarray:
    """Returns the answers of the target and then of the shadows in one form, [M,A,N..].

    They are float64. Logits, and all answers about more than `EXACT` examples, stay float32 if they
    are.

    Args:
        arrays: all supplied arrays.
        parts: the (prefix, form) of every array of answers; the prefix is '' or 'shadow_'.
        form: one of FORMS.
        examples: N.
        labels: what `labels_and_task` returned.
        name: what the arrays are called in messages.

    Raises:
        ValueError: if target and shadows differ in forms, views or classes, if a shape is wrong, or
            if a number is not finite or too large.
    """
    after = FORMS[form] if FORMS[form] is not None else labels.ndim - 1
    stacks = []
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
            binary = ""
            if form == "probs" and value.ndim == base - 1:
                binary = " One probability p of class 1 per example: pass np.stack([1 - p, p], -1)."
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
        most = max(float(value.max()), -float(value.min())) if value.size else 0.0
        if most > LARGEST_NUMBER:
            raise ValueError(
                f"{name}: {key} holds numbers as large as {most:.3g}, whose squares float64 cannot "
                "hold: take logarithms."
            )
        kept = value.dtype == np.float32 and (form == "logits" or examples > EXACT)
        stacks.append(value if kept else value.astype(np.float64))
    if len({stack.shape[1:] for stack in stacks}) > 1:
        raise ValueError(
            f"{name}: {form} and shadow_{form} differ in views or classes: {stacks[0].shape[1:]} "
            f"and {stacks[1].shape[1:]}."
        )
    return np.concatenate(stacks) if len(stacks) > 1 else stacks[0]
