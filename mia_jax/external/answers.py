"""What a trained model answers about all rows: asked, checked, and its form and columns settled.

Whether numbers are logits, probabilities or predictions is read from the framework or from the
values, never assumed without a note, and what is none of them is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.data import _arrays as given
from mia_jax.external import labels as label_columns
from mia_jax.external import rows
from mia_jax.external.frameworks import FORMS, Predictor
from mia_jax.external.labels import Labels

AGAIN = 32  # rows that are asked again
SUM = 1e-3  # by how much probabilities of a row may miss 1
# By how much an answer may change, as a share of the largest one: when the same rows are asked
# again, and when they are asked in another batch (arithmetic of low precision depends on it).
SAME, SAME_BATCH = 1e-3, 0.02


class Answers(NamedTuple):
    """Holds what one model answers about all rows.

    Attributes:
        value: [N,C] logits or probabilities, [N] or [N,F] predictions.
        form: one of FORMS.
        column_C: what each column stands for, a position in `Labels.values` or a negative number
            for a class that no row has; None where columns are no classes.
        words: the model, for the report.
        notes: what was read from the values.
    """

    value: np.ndarray
    form: str
    column_C: np.ndarray | None
    words: str
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[int]:
        """Returns `column_C` as a list; empty where columns are no classes."""
        return [] if self.column_C is None else self.column_C.tolist()


def check_form(form: str | None) -> None:
    """Raises ValueError unless the argument `form` is one of FORMS or None."""
    if form is not None:
        checks.one_of(FORMS, form=form)


def ask(
    predictor: Predictor, x, labels: Labels, *, form: str | None = None, name: str = "predict"
) -> Answers:
    """Returns what a model answers about all rows x.

    Args:
        predictor: the model as a function.
        x: all rows.
        labels: of the same rows.
        form: what the user says that the answers are; None reads it.
        name: of the model, for messages.

    Raises:
        ValueError: the model fails, or its answers cannot be audited; one sentence says why.
    """
    count = len(labels.code_N)
    value = asked(predictor.answer, x, count=count, name=name)
    if form is None and predictor.form is None:
        check_no_labels(value, labels, name)
    value = numbers_of(value, name)
    check_same(predictor.answer, x, value, name=name)
    classes = len(labels.values if predictor.classes is None else predictor.classes)
    form, notes = form_of(value, labels, classes, form=form or predictor.form, name=name)
    if form == "predictions" and labels.code_N.ndim == 1:
        value = value.reshape(count)
    if form == "predictions" or labels.kind == "several":
        return Answers(value, form, None, predictor.words, notes)
    value = in_columns(value, classes, form, name)
    if predictor.classes is not None and len(predictor.classes) == value.shape[1]:
        column_C = label_columns.columns_of(predictor.classes, labels)
    elif predictor.classes is not None:
        raise ValueError(
            f"{name} answers with {value.shape[1]} columns and has {len(predictor.classes)} "
            f"classes ({label_columns.shown(predictor.classes.tolist())}); return one column each."
        )
    else:
        column_C, more = label_columns.assumed_columns(value.shape[1], labels)
        notes = (*notes, *more)
    return Answers(value, form, column_C, predictor.words, notes)


def asked(answer: Callable, x, *, count: int, name: str) -> np.ndarray:
    """Returns answer(x) as an array [N,..]; ValueError if the model fails or skips rows."""
    try:
        value = answer(x)
    except Exception as error:
        raise ValueError(
            f"{name} failed when it was asked about rows of x: {reason(error)}{text_hint(x)}"
        ) from error
    value = given.array(f"{name}(x)", value)
    if value.ndim > 1 and value.shape[0] == 1 != count and value.shape[1] == count:
        value = value[0]
    if value.shape[:1] != (count,):
        raise ValueError(
            f"{name} returns an array of shape {value.shape} for {count} rows; it must return one "
            "answer per row, in the order of the rows."
        )
    if value.ndim > 2:
        raise ValueError(
            f"{name} returns an array of shape {value.shape}; expected [N,C], a column per class, "
            "or [N]. Answers of another kind can be audited as arrays, such as loss=..."
        )
    return value


def reason(error: BaseException) -> str:
    """Returns an error in one line, 'TypeError: ...', that ends with a full stop."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, ValueError) and text else type(error).__name__
    line = f"{kind}: {text}" if kind and text else kind or text
    return (line if len(line) <= 400 else line[:400] + " ..").rstrip(".") + "."


def text_hint(x) -> str:
    """Returns what to do about a model of numbers that was given texts; '' for other rows."""
    if not rows.holds_text(x):
        return ""
    return (
        " x holds text: put what turns it into numbers in front of the model, such as "
        "sklearn.pipeline.make_pipeline(TfidfVectorizer(), model), or a OneHotEncoder for columns."
    )


def check_no_labels(value: np.ndarray, labels: Labels, name: str) -> None:
    """Raises ValueError for predicted labels in place of probabilities or logits: texts, booleans,
    whole numbers that are labels, one-hot rows.
    """
    remedy = (
        "pass predict_proba (or logits), because labels alone say too little for these attacks. "
        f"If they are no labels, say what they are, form={' or '.join(map(repr, FORMS))}"
    )
    if value.dtype.kind in "USOb" or "T" in value.dtype.kind:
        raise ValueError(f"{name} returns labels ({value.dtype}); {remedy}.")
    if labels.kind != "classes":
        return
    if value.ndim == 1 or value.shape[1] == 1:
        flat = value.reshape(-1)
        known = [v for v in labels.values if not isinstance(v, str)] or range(len(labels.values))
        if np.isin(flat, [*known, 0, 1]).all():
            raise ValueError(
                f"{name} returns labels ({label_columns.shown(np.unique(flat).tolist())}); "
                f"{remedy}."
            )
    elif np.isin(value, (0, 1)).all() and (value.sum(1) == 1).all():
        raise ValueError(f"{name} returns labels (one-hot rows of 0 and 1); {remedy}.")


def numbers_of(value: np.ndarray, name: str) -> np.ndarray:
    """Returns the answers as floats; ValueError for NaN and infinities."""
    if value.dtype.kind in "USO":
        raise ValueError(f"{name} returns {value.dtype} and must return numbers.")
    value = given.numbers(f"{name}(x)", value)
    value = value.astype(np.float64 if value.dtype.itemsize > 4 else np.float32)
    wrong = ~np.isfinite(value)
    if wrong.any():
        first = int(np.argwhere(wrong)[0][0])
        bad = value[wrong][0]
        remedy = (
            "log(0)? Pass probabilities."
            if np.isneginf(bad)
            else "leave such rows out, or mend the model."
        )
        count = int(wrong.reshape(len(value), -1).any(1).sum())
        raise ValueError(
            f"{name} returns NaN or infinite numbers for {count} of {len(value)} rows; the first "
            f"is {bad} in row {first}: {remedy}"
        )
    return value


def check_same(answer: Callable, x, value: np.ndarray, *, name: str) -> None:
    """Raises ValueError if answers change from call to call, or with the other rows of a batch.

    A few rows, spread over all, are asked twice in one batch of their own.
    """
    count = len(value)
    picked = np.unique(np.linspace(0, count - 1, min(AGAIN, count)).astype(int))
    few = rows.take(x, picked)
    first, second = (
        numbers_of(asked(answer, few, count=len(picked), name=name), name) for _ in range(2)
    )
    largest = max(float(np.abs(value).max()), 1e-30)
    change = float(np.abs(first - second).max())
    if change > SAME * largest:
        raise ValueError(
            f"{name} answers differently when the same {len(picked)} rows are asked again (by up "
            f"to {change:.3g}): switch dropout and other randomness off (evaluation mode), or "
            "return the mean of several calls."
        )
    change = float(np.abs(first - value[picked].reshape(first.shape)).max())
    if change > SAME_BATCH * largest:
        raise ValueError(
            f"{name} answers differently when {len(picked)} rows are asked without the others (by "
            f"up to {change:.3g}): an answer must not depend on the other rows of the call; switch "
            "to evaluation mode (batch normalization), and normalize with the training set's "
            "numbers."
        )


def form_of(
    value: np.ndarray, labels: Labels, classes: int, *, form: str | None, name: str
) -> tuple[str, tuple[str, ...]]:
    """Returns the form of the answers, and a note if it was read from their values."""
    low, high = float(value.min()), float(value.max())
    span = f"[{low:.4g}, {high:.4g}]"
    if form is not None:
        check_stated(value, labels, form=form, span=span, name=name)
        return form, ()
    flat = value.ndim == 1 or value.shape[1] == 1
    if labels.kind == "numbers":
        return "predictions", ("Labels y are real numbers: the answers are read as predictions.",)
    if labels.kind == "several":
        inside = 0 <= low and high <= 1
        what = "probabilities of each label" if inside else "logits of each label"
        return "probs" if inside else "logits", (f"The answers in {span} are read as {what}.",)
    if flat:
        check_two(classes, name)
        inside = 0 <= low and high <= 1
        what = (
            "the probability of the second of two classes"
            if inside
            else ("the logit of the second of two classes")
        )
        return "probs" if inside else "logits", (f"The answers [N] in {span} are read as {what}.",)
    total_N = value.sum(1, dtype=np.float64)
    off = float(np.abs(total_N - 1).max())
    if low < 0 and off <= SUM:
        raise ValueError(
            f"{name} returns numbers in {span} whose rows sum to 1, and some are negative: neither "
            "probabilities nor logits. Clip them to [0, 1], or pass form='logits'."
        )
    if low >= 0 and high <= 1 + 1e-6:
        if off <= SUM:
            return "probs", ("The answers lie in [0, 1] and sum to 1: read as probabilities.",)
        row = int(np.abs(total_N - 1).argmax())
        raise ValueError(
            f"{name} returns numbers in {span} whose rows do not sum to 1 (row {row}: "
            f"{total_N[row]:.4g}), which are neither probabilities nor, by their look, logits. "
            "Return predict_proba or the outputs before the softmax; if these are such outputs, "
            "pass form='logits'."
        )
    if low >= 0 and len(value) > 1 and float(np.ptp(total_N)) <= SUM * float(total_N.max()):
        raise ValueError(
            f"{name} returns numbers in {span} whose rows all sum to {total_N[0]:.6g}: neither "
            f"probabilities nor logits. Divide by {total_N[0]:.6g} if they are shares or votes."
        )
    return "logits", (f"The answers lie in {span} and do not sum to 1: read as logits.",)


def check_stated(value: np.ndarray, labels: Labels, *, form: str, span: str, name: str) -> None:
    """Raises ValueError if the answers contradict the form that the user or a framework states."""
    if form == "predictions":
        if labels.kind == "several" or not (labels.kind == "numbers" or labels.whole):
            raise ValueError(
                f"{name} gives predictions (a regression) and y holds labels "
                f"{label_columns.shown(labels.values)}; pass numbers as y, or a classifier."
            )
        outputs = labels.code_N.shape[1:]
        if value.shape[1:] not in (outputs, (1,) * (not outputs)):
            raise ValueError(
                f"{name} returns predictions of shape {value.shape} and y has shape "
                f"{labels.code_N.shape}; they must agree."
            )
        return
    if labels.kind == "numbers":
        raise ValueError(
            f"{name} gives {form} of classes, and y holds real numbers; pass class labels as y, or "
            "form='predictions' for a regression."
        )
    if form == "probs":
        total_N = value.reshape(len(value), -1).sum(1, dtype=np.float64)
        many = value.ndim == 2 and value.shape[1] > 1 and labels.kind == "classes"
        if value.min() < 0 or value.max() > 1 + SUM:
            raise ValueError(
                f"{name} gives probabilities, and its answers lie in {span}; they must lie in [0, "
                "1]. Outputs before the softmax are form='logits'."
            )
        if many and np.abs(total_N - 1).max() > SUM:
            row = int(np.abs(total_N - 1).argmax())
            raise ValueError(
                f"{name} gives probabilities, and those of row {row} sum to {total_N[row]:.4g}; "
                "they must sum to 1. (Several labels per row: pass y [N,C] of 0 and 1.)"
            )


def check_two(classes: int, name: str) -> None:
    """Raises ValueError for one number per row that cannot be about one of two classes."""
    if classes > 2:
        raise ValueError(
            f"{name} returns one number per row and there are {classes} different labels; return a "
            "column per class, or pass form='predictions' if it is a regression."
        )


def in_columns(value: np.ndarray, classes: int, form: str, name: str) -> np.ndarray:
    """Returns answers [N,C]; one number per row is that of the second of two classes."""
    if value.ndim == 2 and value.shape[1] > 1:
        return value
    check_two(classes, name)
    second = value.reshape(-1)
    first = np.zeros_like(second) if form == "logits" else 1 - second
    return np.stack([first, second], 1)


def global_columns(first: Answers, labels: Labels) -> np.ndarray:
    """Returns the columns of all models: those of the first model, then the labels of y that it
    does not know, sorted.
    """
    rest = [c for c in range(len(labels.values)) if c not in first.columns]
    return np.array([*first.columns, *rest], np.int64)


def aligned(answers: Answers, columns: np.ndarray, labels: Labels, *, name: str) -> np.ndarray:
    """Returns [N,C] answers in the columns of all models.

    A class that the model does not know has the probability 0, which is its answer. A logit of such
    a class does not exist.

    Raises:
        ValueError: logits lack a class, or the model knows a class that the first one does not.
    """
    here = answers.columns
    more = [c for c in here if c not in columns.tolist()]
    if more:
        raise ValueError(
            f"{name} answers about {len(here)} classes, {len(more)} of which neither y nor the "
            "first model has; all models must be about the same classes."
        )
    missing = [c for c in columns.tolist() if c not in here]
    if missing and answers.form == "logits":
        lacks = label_columns.shown([labels.values[c] for c in missing if c >= 0])
        raise ValueError(
            f"{name} gives no logit for the label {lacks or 'of another model'}: no row of it was "
            "in its training set, or its columns are fewer. Merge rare labels, leave their rows "
            "out, or return probabilities, of which a missing one is 0."
        )
    value = np.zeros((len(answers.value), len(columns)), answers.value.dtype)
    value[:, [columns.tolist().index(c) for c in here]] = answers.value
    return value
