"""Tests the messages to callers of mia_jax.audit: they name its arguments before anything runs.

Reference models without members or without non-members do not crash an audit.
"""

import io
import json
import pathlib
import zipfile

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import mia_jax
from mia_jax.data import npz
from mia_jax.external import arrays as supplied_arrays
from tests.answered import QUICK, arrays

RNG = np.random.default_rng(0)
MEMBER = np.arange(200) < 100
LOSS = RNG.gamma(2.0, 1.0, 200) * np.exp(-0.5 * MEMBER)
GIVEN = dict(loss=LOSS, member=MEMBER)
FLAGS = (
    "--workdir",
    "--config",
    "drop_duplicates=True",
    "design.population",
    "design.name",
    "allow_pickle",
    "report.draws",
    "config.",
)

REFUSED = [
    (
        lambda: mia_jax.audit(np.zeros((3, 2))),
        "the first argument is a ndarray and must be a mapping of arrays or a path; name an array",
    ),
    (lambda: mia_jax.audit([1, 2]), "the first argument is a list"),
    (lambda: mia_jax.audit(GIVEN, loss=LOSS), "loss is given twice"),
    (lambda: mia_jax.audit(GIVEN, attacks=["gap", 3]), r"attacks=\['gap', 3\] must be names"),
    (lambda: mia_jax.audit(GIVEN, attacks=3), "attacks=3 must be names"),
    (lambda: mia_jax.audit(GIVEN, attacks=[]), r"attacks=\[\] must be names"),
    (
        lambda: mia_jax.audit(GIVEN, attacks=dict(gap=3)),
        "attacks: 'gap': 3 must be a name and its fields",
    ),
    (lambda: mia_jax.audit(GIVEN, groups={"v1.2": [1]}), "groups: 'v1.2' holds a dot"),
    (lambda: mia_jax.audit(GIVEN, groups={1: [1], "1": [2]}), "two groups are called '1'"),
    (lambda: mia_jax.audit(GIVEN, groups=[1]), "groups must be {name: row numbers} and is a list"),
    (lambda: mia_jax.audit(GIVEN, slices=3), "slices=3 must be texts"),
    (lambda: mia_jax.audit(GIVEN, report=3), "report=3 must be a mapping"),
    (lambda: mia_jax.audit(GIVEN, draws=3), "draws=3 must be at least 40"),
    (lambda: mia_jax.audit(GIVEN, report=dict(level=95)), r"level=95 must lie in \(0, 1\)"),
    (
        lambda: mia_jax.audit(GIVEN, report=dict(fprs=(1, 10))),
        r"fprs=\(1, 10\) must be false-positive rates in \[0, 1\)",
    ),
    (lambda: mia_jax.audit(GIVEN, report=dict(fprs=())), r"fprs=\(\) must be false-positive rates"),
    (
        lambda: mia_jax.audit(GIVEN, report=dict(fpr=0.1)),
        "report has no field 'fpr'.* Did you mean 'fprs'",
    ),
    (
        lambda: mia_jax.audit(GIVEN, report=dict(audit=dict(eps=3))),
        "audit has no field 'eps'",
    ),
    (
        lambda: mia_jax.audit(GIVEN, report=dict(audit={})),
        "needs canaries, rows that independent fair coins put into the training set",
    ),
    (
        lambda: mia_jax.audit(GIVEN, attacks="lira"),
        "needs shadow models that trained on some of the scored examples .* Pass shadow_<key>",
    ),
    (
        lambda: mia_jax.audit(arrays(examples=40), attacks="rmia"),
        "needs population rows that no model trained on, and there are none: pass",
    ),
]


@pytest.mark.parametrize("call, message", REFUSED, ids=range(len(REFUSED)))
def test_messages_name_the_arguments_of_the_caller_before_anything_runs(call, message, monkeypatch):
    monkeypatch.setattr(
        "mia_jax.pipeline.run.attack", lambda *args, **kwargs: pytest.fail("attacks ran")
    )
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert not [
        flag
        for flag in FLAGS
        if flag in str(refusal.value).replace("configs/dp_fashion_mnist.py", "")
    ]


def test_messages_about_another_folder_and_about_duplicates_name_no_flags(tmp_path):
    x = RNG.normal(size=(200, 3))
    x[150] = x[3]
    results = mia_jax.audit(GIVEN, x=x, folder=tmp_path / "w", **QUICK)
    assert "Duplicates" in results.markdown and not [
        flag for flag in FLAGS if flag in results.markdown
    ]
    with pytest.raises(ValueError, match="other arrays or settings"):
        mia_jax.audit(loss=LOSS + 1, member=MEMBER, folder=tmp_path / "w", **QUICK)


def test_the_tpr_without_a_false_positive_can_be_asked_for():
    want = float((-LOSS[MEMBER] > (-LOSS[~MEMBER]).max()).mean())
    for fprs in ((0.0,), (0.0, 0.1)):
        results = mia_jax.audit(GIVEN, report=dict(fprs=fprs), **QUICK)
        row = results.row("threshold_loss", "tpr@0")
        assert (
            row["value"] == want
            and row["low"] is None
            and "highest non-member" in row["method"]
            and "TPR at 0% FPR" in results.markdown
        )


def test_keys_of_groups_may_be_any_values():
    results = mia_jax.audit(
        GIVEN,
        groups={c: np.flatnonzero(np.arange(200) % 2 == c) for c in np.unique([0, 1])},
        **QUICK,
    )
    assert {row["slice"] for row in results.table} == {"all", "group=0", "group=1"}


def test_a_tilde_is_the_home_folder_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "mine.npz", **GIVEN)
    results = mia_jax.audit("~/mine.npz", folder="~/work", **QUICK)
    results.save("~/out")
    assert (tmp_path / "work" / "report" / "report.md").exists() and mia_jax.Results.load(
        "~/out"
    ).report == results.report
    assert (
        results.plot(folder="~/figures")
        and (tmp_path / "figures" / "roc.png").exists()
        and not pathlib.Path("~").exists()
    )
    (tmp_path / "lira" / "experiment-0" / "logits").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/lira needs y_train.npy"):
        supplied_arrays.load("~/lira")


def test_the_last_step_has_the_largest_number_and_models_are_ordered_by_number(tmp_path):
    for m in range(11):
        folder = tmp_path / f"experiment-{m}" / "logits"
        folder.mkdir(parents=True)
        np.save(folder.parent / "keep.npy", np.arange(6) % 2 == m % 2)
        for step in (9, 90, 100):
            np.save(folder / f"{step}.npy", np.full((6, 3), 1000 * m + step))
    np.save(tmp_path / "y_train.npy", np.zeros(6))
    assert supplied_arrays.load(tmp_path)["shadow_logits"][:, 0, 0].tolist() == [
        1000 * m + 100 for m in range(11)
    ]
    np.save(tmp_path / "experiment-3" / "logits" / "100.npy", np.zeros((6, 2)))
    with pytest.raises(
        ValueError,
        match=r"logits/100\.npy of experiment-0 has shape \(6, 3\) and that of experiment-3 \(6, "
        r"2\); they must agree",
    ):
        supplied_arrays.load(tmp_path)
    np.save(
        tmp_path / "experiment-3" / "logits" / "100.npy", np.array([{}], object), allow_pickle=True
    )
    with pytest.raises(
        ValueError, match=r"100\.npy cannot be read as one array .*pickles.*, which are never read"
    ):
        supplied_arrays.load(tmp_path)


# --------------------------------------------------------------------------------
# reference models without members or without non-members


def reference(kinds):
    """Returns losses and membership of a target and its shadows.

    A shadow of kind 'out' was trained on no scored row, 'in' on all, 'coins' on a random half.
    """
    rng = np.random.default_rng(1)
    rows = dict(out=lambda: np.zeros(200, bool), coins=lambda: rng.random(200) < 0.5)
    rows["in"] = lambda: np.ones(200, bool)
    member_MN = np.stack([rows[kind]() for kind in kinds])
    hard = rng.gamma(2.0, 1.0, 200)
    answers = np.stack(
        [
            hard * np.exp(-0.5 * member_N + 0.3 * rng.normal(size=200))
            for member_N in (MEMBER, *member_MN)
        ]
    )
    return dict(loss=answers[0], member=MEMBER, shadow_loss=answers[1:], shadow_member=member_MN)


KINDS = (
    ["out"] * 6,
    ["in"] * 6,
    ["coins"] * 6 + ["out"],
    ["coins"] * 6 + ["in"],
    ["in", "out"],
    ["coins", "out"],
)


@pytest.mark.parametrize("population", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kinds",
    [*KINDS[:2], *(pytest.param(kinds, marks=pytest.mark.slow) for kinds in KINDS[2:])],
    ids=str,
)
def test_shadows_without_members_or_without_non_members_do_not_crash(kinds, population):
    """All that can be computed is reported, the rest is left out with a reason, and JSON has null
    where there is no number.
    """
    given = reference(kinds)
    if population:
        given |= dict(
            population_loss=LOSS[:30], population_shadow_loss=np.stack([LOSS[:30]] * len(kinds))
        )
    results = mia_jax.audit(given, figures=not population, **QUICK)
    json.dumps(results.report, allow_nan=False)
    assert results.value("threshold_loss", "auc") == pytest.approx(
        roc_auc_score(MEMBER, -given["loss"])
    )
    rows = {row["model"]: row for row in results.report["models"]}
    for m, kind in enumerate(kinds, start=1):
        assert (rows[m]["train_loss"] is None) == (kind == "out") and (
            rows[m]["validation_loss"] is None
        ) == (kind == "in")
    ran = set(results.scores)
    assert {"lira_offline", "offset", "reference", "base_offline"} <= ran or not {
        "out",
        "coins",
    } & set(kinds)
    assert ("lira" in ran) == (len({"in", "out"} & set(kinds)) == 2 or "coins" in kinds)
    if set(kinds) == {"out"}:
        assert any(
            "lira, lira_shrunk" in note and "no usable shadow trained on a scored example" in note
            for note in results.report["about"]["said"]
        )


# --------------------------------------------------------------------------------
# files


def archive(path, name: str, shape: str, data: bytes = b"", descr: str = "<f8"):
    """Writes an npz of one array with a header of the caller's choice."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)


def saved(**values) -> bytes:
    file = io.BytesIO()
    np.savez(file, **values)
    return file.getvalue()


def test_files_that_are_no_archive_of_arrays_are_named(tmp_path):
    path = tmp_path / "mine.npz"
    cases = [
        (
            "a table",
            lambda: path.write_text("loss,member\n1,0\n"),
            "it is a text file, not an archive of arrays .*np.genfromtxt",
        ),
        ("nothing", lambda: path.write_bytes(b""), "it is empty"),
        ("gzip", lambda: path.write_bytes(b"\x1f\x8b\x08\x00abc"), "it is a gzip file"),
        ("a pickle", lambda: path.write_bytes(b"\x80\x04\x95abc."), "it is a file of another kind"),
        (
            "44 TB",
            lambda: archive(path, "loss.npy", "(5500000000000,)"),
            "'loss.npy' claims an array of 44,000,000,000,000 bytes and 0 are",
        ),
        ("negative", lambda: archive(path, "loss.npy", "(-1,)"), "claims an array of"),
        (
            "short",
            lambda: archive(path, "loss.npy", "(3,)", bytes(16)),
            "claims an array of 24 bytes and 16 are there",
        ),
        (
            "objects",
            lambda: archive(path, "loss.npy", "(3,)", bytes(16), "|O"),
            "it holds Python objects .*, which are never read",
        ),
        ("header", lambda: archive(path, "loss.npy", "(3,", bytes(16)), "it is damaged"),
        (
            "text member",
            lambda: zipfile.ZipFile(path, "w").writestr("loss.npy", "hello"),
            "its entry 'loss.npy' is no array",
        ),
        (
            "truncated",
            lambda: path.write_bytes(saved(**GIVEN)[:-200]),
            "it is damaged|File is not a zip file",
        ),
    ]
    for name, write, message in cases:
        write()
        with pytest.raises(
            ValueError, match=rf"mine\.npz cannot be read as an \.npz of plain arrays .*{message}"
        ) as refusal:
            mia_jax.audit(path, **QUICK)
        assert "allow_pickle" not in str(refusal.value), name


def test_an_archive_larger_than_memory_is_refused_unread(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", loss=np.zeros(2_000_000))
    monkeypatch.setattr(npz.os, "sysconf", lambda name: 1000)
    with pytest.raises(
        ValueError, match="its arrays need 0 GiB of memory and this machine has 0 GiB"
    ):
        npz.read(tmp_path / "bomb.npz")
