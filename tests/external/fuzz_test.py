"""Fuzzes arrays and files: each ends in sensible numbers or in a ValueError or OSError that a user
can understand, never in another exception or in wrong numbers without a message.
"""

import io
import math
import re
import time
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import mia_jax
from mia_jax.external import arrays as supplied_arrays

RAW = (  # words of NumPy, SciPy, Python and JSON that do not help a user to find the mistake
    r"inhomogeneous|broadcast|out of bounds|truth value|could not convert|unsupported operand|not "
    r"supported between|object is not|has no attribute"
    r"|not subscriptable|JSON|allow_pickle|invalid literal|zero-size array|division by zero|cannot "
    r"reshape|dimension|np\.float64\("
)
FLAGS = r"--workdir|--config|config\.|design\.|data\.drop"


def rows(rng):
    return int(rng.choice([2, 3, 5, 12, 24, 40]))


def special(rng, value):
    """Returns the array with a few values replaced by extreme ones."""
    value = np.array(value, np.float64)
    flat = value.reshape(-1)
    at = rng.integers(0, flat.size, max(1, flat.size // 10)) if flat.size else []
    flat[at] = rng.choice(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, -1e300, 1e160, 5e-324, 1e39, 2.0**53, 1.0]
    )
    return value


def kinds(rng, value):
    """Returns the array in another container or dtype."""
    value = np.asarray(value)
    makers = [
        lambda: value,
        lambda: value.tolist(),
        lambda: value.astype(np.float32),
        lambda: value.astype(np.float16),
        lambda: jnp.asarray(value, jnp.bfloat16),
        lambda: (value * 1000).astype(np.int64),
        lambda: 10**12 + (value * 1000).astype(np.int64),
        lambda: 1e9 + value,
        lambda: value > 0,
        lambda: value.astype(object),
        lambda: value.astype("U8"),
        lambda: value.astype("S8"),
        lambda: value.astype(complex),
        lambda: value.astype(np.longdouble),
        lambda: np.ma.masked_array(value, rng.random(value.shape) < 0.2),
        lambda: (value * 100).astype("datetime64[s]"),
        lambda: value[..., None],
        lambda: value[None],
        lambda: value.T,
        lambda: value[:-1],
        lambda: value.reshape(-1),
        lambda: list(value) + [[1.0]],
        lambda: iter(value),
        lambda: dict(a=value),
        lambda: None,
        lambda: special(rng, value),
        lambda: special(rng, value),
    ]
    return makers[rng.choice(len(makers))]()


def arrays(rng):
    """Returns correct arrays of which some are damaged at random."""
    n, m, c = rows(rng), int(rng.integers(0, 4)), int(rng.choice([1, 2, 3, 10]))
    y = rng.integers(0, max(c, 2), n)
    member = rng.random((m + 1, n)) < rng.choice([0.0, 0.5, 0.5, 0.5, 1.0])
    member[0] = rng.permutation(np.arange(n) % 2 == 0)
    form = str(rng.choice(["score", "loss", "logits", "probs", "predictions"]))
    z = rng.normal(size=(m + 1, n, c)) * 3
    answers = dict(score=z[..., 0], loss=z[..., 0] ** 2, logits=z, predictions=z[..., 0])
    answers["probs"] = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    given = {form: answers[form][0], "member": member[0]}
    if form in ("logits", "probs", "predictions") or rng.random() < 0.3:
        given["labels"] = y if form != "predictions" else z[0, :, 0] + 1
    if m and rng.random() < 0.8:
        given |= {f"shadow_{form}": answers[form][1:], "shadow_member": member[1:]}
    if rng.random() < 0.2:
        given["x"] = rng.normal(size=(n, 2))
    if rng.random() < 0.2:
        given["column_a"] = rng.choice([1.0, 2.0, 3.0], n)
    if rng.random() < 0.15:
        last = (form, f"shadow_{form}")
        given |= {
            f"population_{k}": v[..., :3] if k in last and v.ndim <= 2 else v[:3]
            for k, v in given.items()
            if "member" not in k
        }
    for key in list(given):
        if rng.random() < 0.18:
            given[key] = kinds(rng, given[key])
    if rng.random() < 0.08:
        given.pop(str(rng.choice(list(given))))
    if rng.random() < 0.08:
        given[
            str(
                rng.choice(
                    [
                        "X",
                        "logits",
                        "probs",
                        "loss",
                        "shadow_loss",
                        "pair",
                        "population_x",
                        "column_",
                    ]
                )
            )
        ] = rng.normal(size=n)
    return given


def check_sensible(results, given):
    """Checks that every number of the table is finite or null and that shares are in [0, 1].

    The AUC of the threshold attack must be the AUC of the numbers that were supplied.
    """
    for row in results.table:
        for field in ("value", "low", "high"):
            assert row[field] is None or math.isfinite(row[field]), row
        if row["value"] is not None and (row["metric"] == "auc" or row["metric"].startswith("tpr")):
            assert 0 <= row["value"] <= 1, row
    form = next(
        (f for f in ("score", "loss") if f in given and f"threshold_{f}" in results.scores), None
    )
    if form is None or np.ndim(given[form]) != 1:
        return
    value = np.asarray(np.asarray(given[form]), np.float64) * (1 if form == "score" else -1)
    want = roc_auc_score(np.asarray(given["member"]).astype(bool), value)
    assert results.value(f"threshold_{form}", "auc") == pytest.approx(want, abs=1e-9)


def attempt(call, what):
    """Returns what `call` returns, or None after a ValueError or OSError with a clear message.

    Any other exception fails the test and shows what was supplied.
    """
    try:
        return call()
    except (ValueError, OSError) as error:
        text = str(error)
        assert len(text) > 20 and not re.search(RAW, text) and not re.search(FLAGS, text), (
            text,
            what,
        )
    except Exception as error:
        pytest.fail(f"{type(error).__name__}: {error}; given {what}")
    return None


def shown(given):
    return {
        k: (type(v).__name__, getattr(v, "dtype", ""), getattr(v, "shape", ""))
        for k, v in given.items()
    }


@pytest.mark.parametrize(
    "block", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 6))]
)
def test_random_arrays_end_in_numbers_or_in_a_clear_message(block):
    accepted = 0
    for i in range(50):
        rng = np.random.default_rng([17, block, i])
        given = arrays(rng)
        names = [
            "threshold_loss",
            "gap",
            "lira_offline",
            "lira_shrunk",
            "offset",
            "reference",
            "class_threshold",
            "population",
        ]
        form = "score" if "score" in given else "loss"
        attacks = [f"threshold_{form}", *rng.choice(names, 1)] if rng.random() < 0.95 else None

        def call(given=given, attacks=attacks):
            return mia_jax.audit(given, attacks=attacks, slices=(), draws=40)

        results = attempt(call, (block, i, shown(given), attacks))
        if results is not None:
            accepted += 1
            check_sensible(results, given)
    assert accepted >= 3, "nearly everything is refused: the fuzzer tests only refusals"


def files(rng, path):
    """Writes an npz of correct arrays, damaged in one of many ways."""
    good = dict(loss=rng.random(30), member=np.arange(30) % 2, column_a=np.array(list("ab") * 15))
    buffer = io.BytesIO()
    (np.savez_compressed if rng.random() < 0.5 else np.savez)(buffer, **good)
    raw = bytearray(buffer.getvalue())

    def member(name, content):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)

    def header(shape, descr="<f8", data=b""):
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
        text += b" " * (-(len(text) + 11) % 64) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data

    def flipped():
        for at in rng.integers(0, len(raw), int(rng.integers(1, 4))):
            raw[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bytes(raw))

    ways = [
        lambda: path.write_bytes(bytes(raw[: int(rng.integers(0, len(raw)))])),
        flipped,
        flipped,
        flipped,
        lambda: member("loss.npy", header(f"({10 ** int(rng.integers(3, 14))},)")),
        lambda: member("loss.npy", header("(-1, 3)")),
        lambda: member("loss.npy", header("(3,)", "|O", bytes(24))),
        lambda: member("loss.npy", header("(3,)", "<f8", bytes(23))),
        lambda: member("loss.npy", header("(((", "<f8", bytes(24))),
        lambda: member("loss.npy", header("(3,)", "<q9", bytes(24))),
        lambda: member("../../evil.npy", header("(3,)", "<f8", bytes(24))),
        lambda: member("/etc/passwd", b"root"),
        lambda: member("loss", header("(3,)", "<f8", bytes(24))),
        lambda: np.savez(path, loss=np.array([{}, 1], object), member=[0, 1]),
        lambda: np.savez(path, **{"population_../x": np.zeros(3)}, **good),
        lambda: np.savez_compressed(path, **good, x=np.zeros((30, 5000))),
        lambda: path.write_bytes(rng.bytes(int(rng.integers(0, 300)))),
        lambda: path.write_bytes(b"PK\x03\x04" + rng.bytes(200)),
    ]
    ways[int(rng.choice(len(ways)))]()


def test_random_files_end_in_arrays_or_in_a_clear_message_and_no_other_file_is_written(tmp_path):
    started, folder = time.monotonic(), tmp_path / "files"
    folder.mkdir()
    for i in range(60):
        path = folder / "mine.npz"
        path.unlink(missing_ok=True)
        files(np.random.default_rng([23, i]), path)
        loaded = attempt(lambda path=path: supplied_arrays.load(path), i)
        if loaded is not None:
            attempt(lambda loaded=loaded: supplied_arrays.build(loaded), i)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [
        "mine.npz"
    ] and time.monotonic() - started < 60
