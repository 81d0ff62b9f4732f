"""Measures the most exposed records as a reader of the report sees them.

For each record that is significantly exposed: what the audited models answer about it, those that
were trained on it and those that were not, and the nearest records on which audited models were
trained. `contents` adds copies of what the records hold: a thumbnail, the most unusual values or
the first tokens, with label and id. Without it, nothing here is derived from examples, labels or
columns but distances and how right models are.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mia_jax.metrics import neighbors
from mia_jax.types import Pool, Presentation, TargetRows

MOST = 20  # records that are shown, over all attacks
NEIGHBORS = 3  # of each record
FEATURES = 8  # values of a record, the most unusual ones
TOKENS = 20  # of a record, the first ones
PIXELS, NEIGHBOR_PIXELS = 64, 32  # of the longer side of a thumbnail
NEAR = 0.1  # a near duplicate is nearer than this share of the typical distance
TEXT = 200  # characters of a name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """Holds one value of a record.

    Attributes:
        name: the feature's name, or its place among the numbers of an example.
        value: its value, with four digits.
        z: (value - mean) / standard deviation over the rows that audited models trained on.
    """

    name: str
    value: float
    z: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """Holds copies of what the data say about a record; None for what there is not.

    Attributes:
        label: its label in words.
        id: the column `id` of the data.
        picture: a thumbnail, as a data URI of a PNG.
        features: the record's most unusual values, by |z|; of a neighbor the values of the same
            features.
        tokens: its first tokens.
    """

    label: str | None
    id: str | None
    picture: str | None
    features: Sequence[Feature] | None
    tokens: Sequence[int] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """Holds what some of the audited models answer about a record; None for what was not measured.

    Attributes:
        models: the number of models.
        correct: how many of them predict the record's label.
        confidence: their mean probability of the label.
        loss: their mean loss.
        predicted: the class that most of them predict, or their mean prediction in a regression;
            only with contents.
        predicted_by: how many of them predict that class.
    """

    models: int
    correct: int | None = None
    confidence: float | None = None
    loss: float | None = None
    predicted: str | None = None
    predicted_by: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbor:
    """Holds a near record on which audited models were trained.

    Attributes:
        record: its row number.
        distance: see `Shown.distance`.
        duplicate: 'identical' (distance 0), 'near' (at most NEAR of the typical distance) or ''.
        content: copies of its contents.
    """

    record: int
    distance: float
    duplicate: str
    content: Content | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Holds what is shown about one exposed record.

    Attributes:
        record: its row number.
        trained: the answers of the audited models that were trained on it.
        others: the answers of those that were not.
        neighbors: the nearest records, the nearest first.
        content: copies of its contents.
    """

    record: int
    trained: Answers
    others: Answers
    neighbors: Sequence[Neighbor]
    content: Content | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """Holds the records that the report shows.

    Attributes:
        copies: the number of records of which copies are in the report.
        candidates: the number of rows on which audited models were trained: where neighbors are
            sought.
        distance: 'euclidean', the distance of standardized values; 'tokens', the share of the
            positions with different tokens; '' without examples.
        typical: the root mean square distance of two candidates; for tokens 1.
        near: the largest distance of a near duplicate.
        has_logits: whether it was measured which class each model predicts.
        cards: the records.
    """

    copies: int
    candidates: int
    distance: str
    typical: float
    near: float
    has_logits: bool
    cards: Sequence[Card]


def chosen(exposed: Mapping[str, Mapping]) -> list[int]:
    """Returns the records that are shown: the first of each attack, then the second of each, ...

    Args:
        exposed: {attack: the table of `exposed_records.measure`}.

    >>> lists = dict(lira=[4, 2], rmia=[2])
    >>> chosen({name: dict(listed=[dict(record=n) for n in of]) for name, of in lists.items()})
    [4, 2]
    """
    lists = [[entry["record"] for entry in table.get("listed", ())] for table in exposed.values()]
    longest = max(map(len, lists), default=0)
    rounds = [listed[i] for i in range(longest) for listed in lists if i < len(listed)]
    return list(dict.fromkeys(rounds))[:MOST]


def measure(
    records: Sequence[int],
    *,
    pool: Pool,
    rows: TargetRows,
    signal: Callable[[str, int], np.ndarray],
    has: Callable[[str], bool],
    contents: bool,
    cross_entropy: bool,
) -> Shown | None:
    """Returns what is shown of the given records; None if there are none.

    Args:
        records: their row numbers.
        pool: the examples. Without numbers in x there are no neighbors.
        rows: the audited models and who trained on what.
        signal: maps (name, model) to the answers [N,..] about all examples.
        has: whether a signal of all audited models was measured.
        contents: whether copies of contents are shown.
        cross_entropy: whether the signal `loss` is -log of the label's probability.
    """
    if not records:
        return None
    candidates = np.flatnonzero(rows.member_TN.any(0))
    place = Place.of(pool, records, candidates)
    asked = Asked(records, pool, rows, signal=signal, has=has, cross_entropy=cross_entropy)
    shown = sorted({*records, *place.near.row_QK[place.near.row_QK >= 0].tolist()})
    copier = Copier(pool, place, shown) if contents else None
    cards = [
        Card(
            record=int(record),
            trained=asked.of(at, trained=True, named=contents),
            others=asked.of(at, trained=False, named=contents),
            neighbors=[
                Neighbor(
                    record=int(n),
                    distance=float(distance),
                    duplicate=duplicate(distance, place.typical),
                    content=copier.of(n, beside=record) if copier else None,
                )
                for n, distance in zip(place.near.row_QK[at], place.near.distance_QK[at])
                if n >= 0
            ],
            content=copier.of(record) if copier else None,
        )
        for at, record in enumerate(records)
    ]
    return Shown(
        copies=len(shown) if contents else 0,
        candidates=len(candidates),
        distance=place.distance,
        typical=place.typical,
        near=NEAR * place.typical,
        has_logits=asked.named,
        cards=cards,
    )


class Place(NamedTuple):
    """Holds where records are among the rows on which audited models were trained.

    Attributes:
        distance, typical: see `Shown`.
        near: the nearest rows of each record.
        x: the examples as they are compared; images are [N,H,W,C].
        image: whether they are images.
        scale: the scale of the values; None for tokens, and without examples.
    """

    distance: str
    typical: float
    near: neighbors.Neighbors
    x: Any
    image: bool
    scale: neighbors.Scale | None

    @classmethod
    def of(cls, pool: Pool, records: Sequence[int], candidates: np.ndarray) -> Place:
        """Finds the nearest candidates of the records."""
        x = pool.x  # may be larger than the memory: only indexed rows are read
        if not math.prod(x.shape):
            nobody = np.zeros((len(records), 0))
            return cls("", 0.0, neighbors.Neighbors(nobody.astype(int), nobody), x, False, None)
        if pool.task.vocabulary is not None:
            near = neighbors.mismatches(x, records, candidates, count=NEIGHBORS)
            return cls("tokens", 1.0, near, x, False, None)
        images = images_of(x, pool.presentation)
        image, x = images is not None, x if images is None else images
        scale = neighbors.scale(x, candidates, channels=image)
        near = neighbors.euclidean(x, records, candidates, given=scale, count=NEIGHBORS)
        return cls("euclidean", scale.typical, near, x, image, scale)


def duplicate(distance: float, typical: float) -> str:
    """Returns whether a neighbor at this distance is 'identical', a 'near' duplicate or neither.

    >>> duplicate(0.0, 5.0), duplicate(0.5, 5.0), duplicate(0.6, 5.0)
    ('identical', 'near', '')
    """
    return "identical" if distance == 0 else "near" if distance <= NEAR * typical else ""


class Asked:
    """Reads what the audited models answer about a few records.

    Attributes:
        named: whether the predicted classes or numbers were measured.
    """

    def __init__(
        self,
        records: Sequence[int],
        pool: Pool,
        rows: TargetRows,
        *,
        signal: Callable[[str, int], np.ndarray],
        has: Callable[[str], bool],
        cross_entropy: bool,
    ):
        records = list(records)
        inside = rows.member_TN[:, records]
        evaluated = rows.evaluated_TN[:, records]
        self._sides = {True: inside & evaluated, False: ~inside & evaluated}
        task = pool.task
        self._classes = pool.presentation.classes
        self._value: dict[str, np.ndarray] = {}
        names = ["correct", "loss"] + ["confidence"] * task.has_classes
        for name in filter(has, names):
            self._value[name] = np.stack([signal(name, t)[records] for t in rows.targets])
        if task.has_classes and cross_entropy and "loss" in self._value:
            self._value.setdefault("confidence", np.exp(-self._value["loss"].astype(np.float64)))
        outputs = "predictions" if has("predictions") else "logits"
        self.named = (task.has_classes or task.kind == "regression") and has(outputs)
        if self.named:
            out = np.stack([signal(outputs, t)[records] for t in rows.targets])
            self._has_classes = task.has_classes
            self._value["predicted"] = (
                out.argmax(-1) if task.has_classes else out.reshape(len(out), len(records))
            )

    def of(self, place: int, *, trained: bool, named: bool) -> Answers:
        """Returns the answers about record number `place` of the models on one side.

        Args:
            place: the place of the record among those that were asked about.
            trained: the models that were trained on the record; False: the others.
            named: whether the predicted class or number is returned as well.
        """
        side_T = self._sides[trained][:, place]
        value = {name: value_TQ[side_T, place] for name, value_TQ in self._value.items()}
        mean = {name: float(np.mean(v)) if len(v) else None for name, v in value.items()}
        predicted, by = None, None
        if named and self.named and side_T.any():
            if self._has_classes:
                counts = np.bincount(value["predicted"].astype(int))
                predicted, by = class_name(int(counts.argmax()), self._classes), int(counts.max())
            else:
                predicted = f"{mean['predicted']:.4g}"
        return Answers(
            models=int(side_T.sum()),
            correct=int(value["correct"].sum()) if "correct" in value else None,
            confidence=mean.get("confidence"),
            loss=mean.get("loss"),
            predicted=predicted,
            predicted_by=by,
        )


class Copier:
    """Copies the contents of records.

    Args:
        pool: the examples.
        place: how they are compared.
        shown: the records that are shown; their values set the range of brightness of pictures.
    """

    def __init__(self, pool: Pool, place: Place, shown: Sequence[int]):
        self._pool, self._place = pool, place
        self._range = brightness(place.x[list(shown)]) if place.image else (0.0, 1.0)

    def of(self, record: int, *, beside: int | None = None) -> Content:
        """Returns the contents of a record.

        Args:
            record: its row number.
            beside: the record whose neighbor it is, and whose features are shown.
        """
        pool, place = self._pool, self._place
        ids, picture, features, tokens = pool.columns.get("id"), None, None, None
        if place.image:
            most = PIXELS if beside is None else NEIGHBOR_PIXELS
            low, high = self._range
            picture = data_uri(png(place.x[[record]][0], most, low=low, high=high))
        elif place.scale is not None:
            features = self._features(record, record if beside is None else beside)
        elif place.distance:
            tokens = place.x[[record]].reshape(-1)[:TOKENS].tolist()
        return Content(
            label=label_of(pool, record),
            id=None if ids is None else cut(ids[record]),
            picture=picture,
            features=features,
            tokens=tokens,
        )

    def _features(self, record: int, chosen_by: int) -> list[Feature]:
        """Returns the values of a record in the features in which another is most unusual."""
        x, scale = self._place.x, self._place.scale
        assert scale is not None
        z_F, by_F = (scale.standardized(x[[n]])[0] for n in (record, chosen_by))
        value_F, shape = x[[record]].reshape(-1), x.shape[1:]
        names = self._pool.presentation.features
        return [
            Feature(
                name=cut(names[f]) if names else place_name(f, shape),
                value=float(f"{value_F[f]:.4g}"),
                z=round(float(z_F[f]), 2),
            )
            for f in np.argsort(-np.abs(by_F), kind="stable")[:FEATURES].tolist()
        ]


def place_name(f: int, shape: Sequence[int]) -> str:
    """Names a value without a name by its place in an example.

    >>> place_name(7, (9,)), place_name(7, (3, 4))
    ('feature 7', 'feature 1,3')
    """
    return "feature " + ",".join(str(int(i)) for i in np.unravel_index(f, shape))


def label_of(pool: Pool, record: int) -> str | None:
    """Returns a record's label in words; None if it has none or is a sequence."""
    task, label = pool.task, np.asarray(pool.y[record])
    if task.has_classes:
        return class_name(int(label), pool.presentation.classes)
    if task.kind == "multilabel":
        return ", ".join(map(str, np.flatnonzero(label).tolist())) or "none"
    if task.kind == "regression":
        return ", ".join(f"{value:.4g}" for value in label.reshape(-1)[:FEATURES])
    return None


def class_name(number: int, classes: Sequence[str]) -> str:
    """Returns the name of a class, or its number.

    >>> class_name(1, ('cat', 'dog')), class_name(1, ())
    ('dog', '1')
    """
    return cut(classes[number]) if number < len(classes) else str(number)


def cut(text) -> str:
    """Returns a text from data, shortened to TEXT characters.

    >>> len(cut('n' * 10_000)), cut('short')
    (200, 'short')
    """
    text = str(text)
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


class Images:
    """Shows examples as images [N,H,W,C], arranged where rows are indexed.

    Args:
        x: the examples, of which rows can be indexed.
        arrange: maps rows of x to images [B,H,W,C].
    """

    def __init__(self, x: Any, arrange: Callable[[np.ndarray], np.ndarray]):
        self._x, self._arrange = x, arrange
        self.shape = (len(x), *self[[0]].shape[1:])

    def __getitem__(self, rows) -> np.ndarray:
        return self._arrange(np.asarray(self._x[rows]))


def images_of(x: Any, presentation: Presentation) -> Images | None:
    """Returns examples as images; None for examples that are none.

    Images are rows of pixels (`Presentation.picture`), or [N,H,W,C] or [N,C,H,W] with 1 or 3
    channels.

    >>> images_of(np.zeros((5, 3, 8, 9)), Presentation()).shape
    (5, 8, 9, 3)
    >>> images_of(np.zeros((5, 6)), Presentation()) is None
    True
    """
    if presentation.picture:
        return Images(x, lambda rows: rows.reshape(len(rows), *presentation.picture))
    if len(x.shape) != 4 or not {x.shape[1], x.shape[3]} & {1, 3}:
        return None
    last = x.shape[3] in (1, 3)
    return Images(x, lambda rows: rows if last else np.moveaxis(rows, 1, -1))


def brightness(images: np.ndarray) -> tuple[float, float]:
    """Returns the values that are shown as black and white: (0, 1) or (0, 255) if all values are
    between them, else the lowest and the highest value.

    >>> [brightness(np.array(values)) for values in ([0, 0.5], [0, 9], [-1, 2])]
    [(0.0, 1.0), (0.0, 255.0), (-1.0, 2.0)]
    """
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 255:
        return 0.0, 1.0 if high <= 1 else 255.0
    return low, high


def png(image: np.ndarray, most: int, *, low: float = 0.0, high: float = 1.0) -> bytes:
    """Returns an image as a PNG.

    Args:
        image: its values [H,W,C], with C = 1 or 3; `low` is black and `high` white.
        most: the pixels of the longer side. A larger image is averaged over boxes.
        low, high: the range of the values; what lies outside is clipped.
    """
    scaled = np.clip((np.asarray(image, np.float64) - low) / (high - low or 1), 0, 1)
    pixels = np.round(255 * scaled).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    longer = max(picture.size)
    if longer > most:
        size = tuple(max(1, round(side * most / longer)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def data_uri(content: bytes) -> str:
    """Returns a PNG as the address of an image in a page."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
