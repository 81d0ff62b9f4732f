"""Tests the tfds source on mock CIFAR-10 and on the real Fashion-MNIST.

TFDS's own builder prepared the latter from Debian's files.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mia_jax.data import idx, tfds
from tests import fashion_mnist

real = pytest.mark.skipif(not fashion_mnist.available(), reason=fashion_mnist.REASON)


@pytest.fixture(scope="module")
def data_dir() -> str:
    return str(fashion_mnist.prepared())


def test_mock_cifar10():
    from tensorflow_datasets import testing

    with testing.mock_data(num_examples=7):
        pool = tfds.load(dataset="cifar10")
        assert (
            pool.x.shape == (14, 32, 32, 3)
            and pool.x.dtype == np.float32
            and pool.y.dtype == np.int32
        )
        assert (
            0.9 < pool.x.max() <= 1
            and pool.x.min() >= 0
            and pool.num_classes == 10
            and pool.name == "cifar10"
        )
        fewer = tfds.load(dataset="cifar10", examples=9)
        np.testing.assert_array_equal(fewer.x, pool.x[:9])
        np.testing.assert_array_equal(fewer.y, pool.y[:9])
        with pytest.raises(ValueError, match=r"examples=15 but cifar10 has only 14"):
            tfds.load(dataset="cifar10", examples=15)
        with pytest.raises(ValueError, match=r"no feature 'lable'.*Did you mean 'label'"):
            tfds.load(dataset="cifar10", label_key="lable")
        with pytest.raises(ValueError, match="'image' is Image, not a class label"):
            tfds.load(dataset="cifar10", label_key="image")


def test_images_of_several_sizes_are_refused():
    from tensorflow_datasets import testing

    def as_data_source(self, split, **kwargs):
        return [dict(image=np.zeros((4, 4 + i % 2, 3), np.uint8), label=i % 2) for i in range(4)]

    with (
        testing.mock_data(as_data_source_fn=as_data_source),
        pytest.raises(ValueError, match=r"image 1 is uint8 \(4, 5, 3\).*one size"),
    ):
        tfds.load(dataset="cifar10")


def test_not_prepared_says_what_to_type(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        tfds.load(dataset="cifar10", data_dir=str(tmp_path))
    text = str(error.value)
    assert "pip install tensorflow-cpu" in text and "cifar-10-binary.tar.gz" in text
    call = (
        f"tfds.builder('cifar10', data_dir='{tmp_path}', "
        "file_format='array_record').download_and_prepare()"
    )
    assert f'python -c "import tensorflow_datasets as tfds; {call}"' in text
    assert "download_config=tfds.download.DownloadConfig(manual_dir='FOLDER')" in text


def test_unknown_name():
    with pytest.raises(ValueError, match=r"no data set 'cifar1O'. Did you mean 'cifar10'"):
        tfds.load(dataset="cifar1O")


@pytest.mark.slow
@real
def test_fashion_mnist_equals_the_original_files(data_dir):
    ours = tfds.load(dataset="fashion_mnist", data_dir=data_dir, splits="test")
    files = idx.load(folder=str(fashion_mnist.DEBIAN))
    assert ours.x.shape == (10000, 28, 28, 1) and ours.num_classes == files.num_classes == 10
    assert _rows(ours.x, ours.y) == _rows(
        files.x[60000:], files.y[60000:]
    )  # TFDS shuffles each split once
    both = tfds.load(
        dataset="fashion_mnist", data_dir=data_dir, splits=("train[:1%]", "test"), examples=700
    )
    assert both.x.shape == (700, 28, 28, 1) and set(_rows(both.x[:600], both.y[:600])) <= set(
        _rows(files.x, files.y)
    )
    np.testing.assert_array_equal(both.x[600:], ours.x[:100])


@real
def test_prepared_as_tfrecord_says_what_to_type(data_dir, tmp_path):
    folder = tmp_path / "fashion_mnist"
    shutil.copytree(pathlib.Path(data_dir) / "fashion_mnist", folder)
    info = next(folder.glob("*/dataset_info.json"))
    old = json.loads(info.read_text())
    splits = [
        s | dict(filepathTemplate="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
        for s in old["splits"]
    ]
    info.write_text(json.dumps(old | dict(fileFormat="tfrecord", splits=splits)))
    for file in folder.glob("*/*.array_record-*"):
        file.rename(file.with_name(file.name.replace("array_record", "tfrecord")))
    with pytest.raises(ValueError) as error:
        tfds.load(dataset="fashion_mnist", data_dir=str(tmp_path))
    text = str(error.value)
    assert (
        "as tfrecord" in text
        and "pip install tensorflow-cpu" in text
        and f"data_dir='{tmp_path}-array-record', file_format='array_record'" in text
    )


@real
def test_unknown_split(data_dir):
    with pytest.raises(ValueError, match=r"no split 'tset'\. Did you mean 'test'\? Splits: "):
        tfds.load(dataset="fashion_mnist", data_dir=data_dir, splits=["tset"])


@real
def test_reads_quietly_and_without_tensorflow(data_dir):
    code = f"""
import sys
from mia_jax.data import tfds
tfds.load(dataset="fashion_mnist", data_dir={data_dir!r}, examples=50)
assert "tensorflow" not in sys.modules
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _rows(x, y) -> list[bytes]:
    pixels = np.round(np.asarray(x) * 255).astype(np.uint8)
    return sorted(row.tobytes() + bytes([label]) for row, label in zip(pixels, y))


def test_without_the_extra_the_remedy_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r'pip install "mia_jax\[tfds\]"'):
        tfds.load(dataset="cifar10")
