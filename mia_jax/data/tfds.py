"""Loads image-classification sets that TensorFlow Datasets (TFDS) has prepared.

They must be in a random-access format, and are read without TensorFlow.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mia_jax import checks
from mia_jax.data._pool import checked
from mia_jax.runtime import digests
from mia_jax.runtime.rows import Rows
from mia_jax.types import Pool, Presentation, classification

_CHUNK = 2000  # The number of examples that are decoded together.


def load(
    *,
    dataset: str = "cifar10",
    data_dir: str | None = None,
    splits: str | Sequence[str] = ("train", "test"),
    image_key: str = "image",
    label_key: str = "label",
    examples: int | None = None,
) -> Pool:
    """Returns images [N,H,W,C] in [0,1] of the splits one after the other, in the order of TFDS.

    They are kept as bytes, which are divided by 255 where a batch of them is used. Nothing is
    downloaded.

    Args:
        dataset: may include a config and a version ('emnist/letters:3.1.0').
        data_dir: where TFDS keeps its data; None is its default, ~/tensorflow_datasets.
        splits: may be slices ('train[:20%]').
        image_key: the feature with the images.
        label_key: the feature with the labels.
        examples: the number of first rows that are used; None for all.

    Raises:
        FileNotFoundError: if the data set is not prepared; the message says what to type.
        ValueError: if it is prepared as tfrecord, or for an unknown name, split or key.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"data.name=tfds needs tensorflow_datasets, which is not installed ({error}); type "
            'pip install "mia_jax[tfds]" (in a checkout: pip install -r requirements.txt).'
        ) from error

    with _quiet():
        try:
            builder = tfds.builder(dataset, **({} if data_dir is None else {"data_dir": data_dir}))
        except tfds.core.DatasetNotFoundError as error:
            known = tfds.list_builders(with_community_datasets=False)
            raise ValueError(
                "TensorFlow Datasets has no data set "
                f"{dataset!r}.{checks.closest(dataset.split('/')[0], known)}"
            ) from error
        feature = _features(builder, dataset, image_key, label_key)
        sources = [
            _source(builder, dataset, data_dir, split)
            for split in ((splits,) if isinstance(splits, str) else splits)
        ]
        settings = f"{splits} {image_key} first {examples}"
        origin = _origin(pathlib.Path(builder.data_dir), how=settings)
        x, y = _read(sources, image_key, label_key, examples, dataset)
    return checked(
        Pool(
            x=Rows(x, factor=1 / 255, origin=origin),
            y=y,
            name=dataset.replace("/", "-"),
            task=classification(feature.num_classes),
            presentation=Presentation(classes=tuple(map(str, feature.names or ()))),
        )
    )


def _origin(folder: pathlib.Path, *, how: str) -> digests.Origin | None:
    """Returns the origin of what is read from the files of a prepared data set."""
    if not folder.is_dir():
        return None  # a data set in memory, or in object storage
    return digests.origin(*sorted(file for file in folder.iterdir() if file.is_file()), how=how)


def _features(builder: Any, name: str, image_key: str, label_key: str) -> Any:
    """Returns the feature of the label, which has the number of classes."""
    features = builder.info.features
    for key in (image_key, label_key):
        if key not in features:
            raise ValueError(checks.lacks(name, "feature", key, features))
    if not getattr(features[label_key], "num_classes", None):
        raise ValueError(
            f"{name}: the feature {label_key!r} is {type(features[label_key]).__name__}, not a "
            "class label."
        )
    return features[label_key]


def _source(builder: Any, name: str, data_dir: str | None, split: str) -> Any:
    """Returns the data source of a split."""
    try:
        return builder.as_data_source(split=split)
    except Exception as error:
        if not builder.is_prepared():
            raise FileNotFoundError(_not_prepared(builder, name, data_dir)) from error
        if isinstance(error, NotImplementedError):
            text = (
                f"{name} is prepared in {builder.data_dir}, but as "
                f"{builder.info.file_format.value}, which cannot be read without TensorFlow."
            )
            other = f"{data_dir or '~/tensorflow_datasets'}-array-record"
            raise ValueError(
                f"{text} Prepare it once more elsewhere:\n{_commands(name, other)}\nand set "
                f"data_dir to {other!r}."
            ) from error
        known = list(builder.info.splits)
        if split.split("[")[0] not in known:
            raise ValueError(checks.lacks(name, "split", split, known)) from error
        raise ValueError(
            f"{name}: split {split!r} in {builder.data_dir} cannot be read: {error}"
        ) from error


def _not_prepared(builder: Any, name: str, data_dir: str | None) -> str:
    """Returns the message that a data set is not prepared, with the commands that prepare it."""
    try:
        urls = list(builder.url_infos)[:6]
    except Exception:  # The data set has no registered downloads, or a package is missing.
        urls = []
    files = (
        "".join(f"\n  {url}" for url in urls) or " (see the data set's page in the TFDS catalog)"
    )
    return (
        f"{name} is not prepared in {builder.data_dir}. On a machine with network access type "
        f"once:\n{_commands(name, data_dir)}\n"
        "Without network access, put the original files, under their own names, in a folder "
        f"FOLDER:{files}\nand type:\n"
        f"{_commands(name, data_dir, 'FOLDER')}"
    )


def _commands(name: str, data_dir: str | None, manual_dir: str | None = None) -> str:
    """Returns the shell commands that prepare a data set."""
    where = f", data_dir='{data_dir}'" if data_dir else ""
    config = (
        f"download_config=tfds.download.DownloadConfig(manual_dir='{manual_dir}')"
        if manual_dir
        else ""
    )
    call = (
        f"tfds.builder('{name}'{where}, file_format='array_record').download_and_prepare({config})"
    )
    return f'  pip install tensorflow-cpu\n  python -c "import tensorflow_datasets as tfds; {call}"'


def _read(
    sources: list, image_key: str, label_key: str, examples: int | None, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (x [N,H,W,C] uint8, y [N]) of the sources."""
    lengths = [len(s) for s in sources]
    rows = sum(lengths) if examples is None else examples
    checks.positive(examples=rows)
    if rows > sum(lengths):
        raise ValueError(f"examples={rows} but {name} has only {sum(lengths)} in these splits.")
    x, y, at = None, np.empty(rows, np.int64), 0
    for source, length in zip(sources, lengths):
        stop = min(length, rows - at)
        for start in range(0, stop, _CHUNK):
            for example in _examples(source, range(start, min(start + _CHUNK, stop))):
                image = np.asarray(example[image_key])
                if x is None:
                    x = np.empty((rows, *image.shape), np.uint8)
                if image.shape != x.shape[1:] or image.dtype != np.uint8:
                    raise ValueError(
                        f"{name}: image {at} is {image.dtype} {image.shape}, expected uint8 "
                        f"{x.shape[1:]}; images must have one size."
                    )
                x[at], y[at] = image, example[label_key]
                at += 1
    return x, y


def _examples(source: Any, rows: range) -> list:
    """Returns these rows of a source.

    They are read together, which is 2-3 times faster. Sources that cannot do this (plain sequences,
    TFDS's mock data) are read one by one.
    """
    try:
        return source.__getitems__(list(rows))
    except (AttributeError, TypeError):
        return [source[i] for i in rows]


@contextlib.contextmanager
def _quiet():
    """Hides the notices of TFDS (one for every file it opens).

    Warnings and errors of other packages are still shown.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
