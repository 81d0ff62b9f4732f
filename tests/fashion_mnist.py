"""Fashion-MNIST as TensorFlow Datasets builds it, from Debian's package dataset-fashion-mnist and
without TensorFlow or network.

Debian ships the original compressed streams in gzip files whose header was rewritten; with the
header restored the files have the checksums that TFDS knows. TFDS's own builder then runs on them,
with stand-ins for the three TensorFlow functions that it would call.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import pathlib
import shutil
import struct
import tempfile
import types
from unittest import mock

from mia_jax.data import idx

DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")
CACHE = (
    pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    / "mia_jax"
    / "tfds-tests"
)
REASON = "type `apt-get install dataset-fashion-mnist` to run this"
STAMP = dict(train=1504176606, t10k=1504176627)  # modification times in the original headers
SHA256 = (
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)


def available() -> bool:
    """Whether Debian's files are on this machine."""
    return all((DEBIAN / f"{name}.gz").is_file() for name in idx.FILES)


def originals(folder: pathlib.Path) -> None:
    """Writes the four original .gz files, checked by their SHA-256, to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sha256 in zip(idx.FILES, SHA256, strict=True):
        stream = (DEBIAN / f"{name}.gz").read_bytes()[
            10:
        ]  # after Debian's header, which has no file name
        flags = 8  # a file name follows the header
        header = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, flags, STAMP[name.split("-")[0]], 0, 3)
        data = header + name.encode() + b"\0" + stream
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(
                f"{DEBIAN / name}.gz is not a rewrapped original: its restored SHA-256 differs."
            )
        (folder / f"{name}.gz").write_bytes(data)


def prepared() -> pathlib.Path:
    """The folder in which TFDS has prepared fashion_mnist as array_record; built on first use
    (about ten seconds), then cached.
    """
    import tensorflow_datasets as tfds

    done = CACHE / f"fashion-mnist-{tfds.__version__}"
    if done.is_dir():
        return done
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock, tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one builds
        if done.is_dir():
            return done
        manual, data = pathlib.Path(scratch, "manual"), pathlib.Path(scratch, "data")
        originals(manual)
        with _without_tensorflow():
            builder = tfds.builder("fashion_mnist", data_dir=data, file_format="array_record")
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual)
            )
        shutil.rmtree(data / "downloads", ignore_errors=True)
        data.rename(done)
    return done


@contextlib.contextmanager
def _without_tensorflow():
    """Stand-ins, under private names of TFDS 4.9.10, for what its MNIST builder asks of TensorFlow:
    file access, text, PNG.
    """
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.core.features import image_feature
    from tensorflow_datasets.image_classification import mnist

    stand_in = types.SimpleNamespace(
        io=types.SimpleNamespace(gfile=types.SimpleNamespace(GFile=open)),
        compat=types.SimpleNamespace(as_text=os.fsdecode),
    )
    with (
        mock.patch.object(extractor, "tf", stand_in),
        mock.patch.object(mnist, "tf", stand_in),
        mock.patch.object(image_feature._ImageEncoder, "_encode_image", _png),
    ):
        yield


def _png(encoder, image) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "PNG", compress_level=1)  # 70,000 of them
    return buffer.getvalue()
