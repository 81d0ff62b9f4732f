"""The files of a run survive kills, damage, foreign files and company: a run is continued to the
same bytes, and what is wrong is named before it is used. `python -m benchmarks.kills` and `python
-m benchmarks.damage` try many more places and damages; here is a selection of each.
"""

import errno
import io
import json
import os
import re
import stat
import threading

import numpy as np
import pytest

from benchmarks import _disk, damage, kills
from mia_jax import configuration
from mia_jax.pipeline import report
from mia_jax.query import black_box, interactive
from mia_jax.report import files as report_files
from mia_jax.report import source
from mia_jax.runtime import files, sealed
from mia_jax.runtime.store import ReportFiles, Store
from mia_jax.training import checkpoint

PLACE = dict(run="r", signal="loss", model=3, epoch=None)
ARRAY = np.arange(12, dtype=np.float32).reshape(1, 12)


# ---- formats ----


@pytest.mark.parametrize(
    "array",
    [
        ARRAY,
        ARRAY.T.copy(order="F"),
        np.zeros((0, 3)),
        np.asarray(2.5),
        np.array(["a", "bc"]),
        np.ones((2, 2), bool),
    ],
)
def test_an_array_comes_back_with_its_record_and_numpy_reads_the_same(array, tmp_path):
    files.write_npy(tmp_path / "a.npy", array, PLACE)
    stored, record = files.read_npy_and_record(tmp_path / "a.npy", record=PLACE)
    assert record == PLACE and stored.dtype == array.dtype and stored.flags.writeable
    for array_read in (stored, np.load(tmp_path / "a.npy")):
        np.testing.assert_array_equal(array_read, array)
    plain = io.BytesIO()
    np.save(plain, array)
    assert (tmp_path / "a.npy").read_bytes().startswith(plain.getvalue())
    mapped, record = files.map_npy(tmp_path / "a.npy", record=PLACE)
    np.testing.assert_array_equal(mapped, array)
    assert record == PLACE and mapped.dtype == array.dtype and type(mapped) is np.ndarray
    if array.flags.c_contiguous:
        fields = dict(shape=array.shape, dtype=array.dtype, record=PLACE)
        files.write_npy_parts(tmp_path / "b.npy", array[None], **fields)
        assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()
        with pytest.raises(ValueError, match="are no array of shape"):
            files.write_npy_parts(tmp_path / "c.npy", [array, np.zeros(1, array.dtype)], **fields)
    files.write_npz(tmp_path / "a.npz", PLACE, a=array)
    stored, record = files.read_npz_and_record(tmp_path / "a.npz", record=PLACE)
    np.testing.assert_array_equal(stored["a"], array)
    assert record == PLACE and list(stored) == ["a"]


def test_every_flipped_bit_of_an_array_file_is_noticed(tmp_path):
    """Of header, data, checksum and record alike."""
    path = tmp_path / "a.npy"
    files.write_npy(path, ARRAY, PLACE)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 32):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            for read in (files.read_npy_and_record, files.map_npy):
                with pytest.raises(
                    ValueError, match=r"a\.npy (is damaged|belongs to another place)"
                ):
                    read(path, record=PLACE)


def test_every_truncated_or_extended_array_file_is_noticed_or_has_no_record(tmp_path):
    path = tmp_path / "a.npy"
    files.write_npy(path, ARRAY, PLACE)
    whole, unrecorded = path.read_bytes(), 0
    for data in [whole[:n] for n in range(len(whole))] + [whole + b"x", whole + bytes(512)]:
        path.write_bytes(data)
        try:
            unrecorded += files.read_npy_and_record(path, record=PLACE)[1] is None
            assert files.map_npy(path, record=PLACE)[1] is None
        except ValueError as error:
            assert "is damaged" in str(error)
            with pytest.raises(ValueError, match=re.escape(str(error))):
                files.map_npy(path, record=PLACE)
        else:
            assert (
                files.read_npy_and_record(path)[1] is None
            )  # exactly what an older version would have written
    assert unrecorded == 1


def test_a_header_that_promises_terabytes_allocates_nothing(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, dict(descr="<f8", fortran_order=False, shape=(10**13,))
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue() + bytes(8))
    with pytest.raises(
        ValueError,
        match=r"a\.npy is damaged \(its header promises float64\[10{13}\], 80,000,000,000,000 "
        r"bytes, and 8 follow",
    ):
        files.read_npy(tmp_path / "a.npy")


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([print], object))
    for read, name in ((files.read_npy, "a.npy"), (files.read_npz, "a.npz")):
        with pytest.raises(
            ValueError,
            match=rf"{name} is damaged \(it holds Python objects \(a pickle\), which are never "
            r"loaded",
        ):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "wrong", [dict(run="s"), dict(model=4), dict(signal="confidence"), dict(epoch=2)]
)
def test_a_file_of_another_place_is_named(wrong, tmp_path):
    files.write_npy(tmp_path / "a.npy", ARRAY, PLACE | wrong)
    files.write_npz(tmp_path / "a.npz", PLACE | wrong, a=ARRAY)
    key = next(iter(wrong))
    for read, name in ((files.read_npy, "a.npy"), (files.read_npz, "a.npz")):
        with pytest.raises(
            ValueError,
            match=rf"{name} belongs to another place \({key}: {wrong[key]!r} in the file",
        ):
            read(tmp_path / name, record=PLACE)


def test_json_objects_are_sealed_and_say_what_they_lack(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, dict(chunk=8, seconds=0.1), seal=True)
    assert (
        files.read_json(path, needs=dict(chunk=int)) == dict(chunk=8, seconds=0.1)
        and list(json.loads(path.read_text()))[-1] == sealed.SEAL
    )
    path.write_text(path.read_text().replace("8", "9", 1))
    with pytest.raises(ValueError, match=r"a\.json is damaged \(its checksum is another one"):
        files.read_json(path, needs=dict(chunk=int))
    for text, words in {
        "{}": "has no 'chunk'; its keys are none",
        '{"chunks": 8}': "has no 'chunk'; its keys are 'chunks'",
        '{"chunk": "8"}': "chunk is '8'",
        '{"chunk": true}': "chunk is True",
        "[8]": "holds a list, expected an object",
        "": "Expecting value",
        "[" * 100_000: "nested too deeply",
        "\udcff": "utf-8",
    }.items():
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ValueError, match=rf"a\.json is damaged \(.*{words}"):
            files.read_json(path, needs=dict(chunk=int))


# ---- names, permissions, company ----


def test_files_are_their_users_alone_and_links_are_not_followed(tmp_path):
    path = tmp_path / "new" / "er" / "a.json"
    files.write_json(path, {})
    files.append_jsonl(tmp_path / "new" / "lines.jsonl", [{}])
    for place, mode in (
        (path, 0o600),
        (tmp_path / "new" / "lines.jsonl", 0o600),
        (path.parent, 0o700),
        (path.parent.parent, 0o700),
    ):
        assert stat.S_IMODE(place.stat().st_mode) == mode, place
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("link.json", "link.jsonl"):
        os.symlink(victim, tmp_path / name)
    files.write_json(tmp_path / "link.json", {})
    assert not (tmp_path / "link.json").is_symlink()
    with pytest.raises(OSError, match=r"link\.jsonl"):
        files.append_jsonl(tmp_path / "link.jsonl", [{}])
    assert victim.read_text() == "mine"


def test_two_processes_of_one_number_never_share_a_temporary_file(tmp_path, monkeypatch):
    """Containers have equal process numbers; here both are this process, and each writes while the
    other does.
    """
    monkeypatch.setattr(os, "getpid", lambda: 7)
    other = threading.Barrier(2)

    def write(value):
        files.write(tmp_path / "a", lambda file: (file.write(value), other.wait(timeout=20)))

    threads = [threading.Thread(target=write, args=(value,)) for value in (b"one" * 9, b"two")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (tmp_path / "a").read_bytes() in (b"one" * 9, b"two") and os.listdir(tmp_path) == ["a"]


def test_temporary_files_of_dead_processes_are_swept_and_no_others(tmp_path):
    gone = _disk.subprocess.Popen(["true"])
    gone.wait()
    names = {
        "dead": (files.machine(), gone.pid),
        "own": (files.machine(), os.getpid()),
        "elsewhere": ("0" * 8, gone.pid),
        "old": ("0" * 8, 1),
    }
    paths = {
        key: tmp_path / "signal" / f".00001.npy.{host}.{pid}.{'a' * 8}.tmp"
        for key, (host, pid) in names.items()
    }
    for path in paths.values():
        files.make_folder(path.parent)
        path.touch()
    os.utime(paths["old"], (0, 0))
    (tmp_path / ".someone.tmp").touch()
    assert sorted(files.sweep(tmp_path)) == sorted([paths["dead"], paths["old"]])
    assert (
        paths["own"].exists()
        and paths["elsewhere"].exists()
        and (tmp_path / ".someone.tmp").exists()
    )


def test_of_two_configs_on_one_new_folder_one_is_refused(tmp_path, monkeypatch):
    """However slow the disk: the second sees what the first has written between its look and its
    own writing.
    """
    first, create = dict(rate=0.1), files.create

    def slow(path, save):
        monkeypatch.setattr(files, "create", create)
        assert files.claim(tmp_path, first, remedy="R")  # the other process, meanwhile
        return create(path, save)

    monkeypatch.setattr(files, "create", slow)
    with pytest.raises(
        ValueError, match=r"belongs to another config:\n  rate: 0.1 on disk, 0.2 in this run\nR"
    ):
        files.claim(tmp_path, dict(rate=0.2), remedy="R")
    assert not files.claim(tmp_path, first, remedy="R") and os.listdir(tmp_path) == [
        "config.json"
    ]  # a run of an equal config is welcome


def test_a_claim_that_is_a_link_to_nowhere_is_named(tmp_path):
    os.symlink(tmp_path / "nowhere", tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"config\.json is damaged \(its target does not exist\)"):
        files.claim(tmp_path, dict(a=1), remedy="R")


def test_a_claim_without_hard_links_is_exclusive_too(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no links here"))
    )
    assert files.claim(tmp_path, dict(a=1), remedy="R") and not files.create(
        tmp_path / "config.json", lambda file: file.write(b"")
    )
    assert files.read_json(tmp_path / "config.json") == dict(a=1)


def test_lines_are_appended_whole_after_a_torn_one_and_in_short_writes(tmp_path, monkeypatch):
    path, write = tmp_path / "a.jsonl", os.write
    path.write_text('{"epoch": 1}\n{"epo')
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    files.append_jsonl(path, [dict(epoch=2), dict(epoch=3)])
    assert [line["epoch"] for line in files.read_jsonl(path)] == [1, 2, 3]


def test_a_full_disk_says_which_file(tmp_path):
    def save(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*a\.npz'"):
        files.write(tmp_path / "a.npz", save)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "/elsewhere/evil",
        "a/b",
        "",
        ".",
        "..",
        "$x^{$",
        "a" * 101,
        "é" * 51,
        "a\nb",
        "a.b",
        " a",
        "-a",
        3,
    ],
)
def test_names_of_attacks_are_no_paths(name):
    with pytest.raises(
        ValueError, match=r"the name of an attack=.* must be a name of letters, digits"
    ):
        configuration.scores(path="x", attacks={name: dict(name="lira")})
    with pytest.raises(
        ValueError, match=r"the name of an attack=.* must be a name of letters, digits"
    ):
        configuration.complete(
            data=dict(name="xor"), design=dict(name="halves"), attacks={name: dict(name="lira")}
        )


@pytest.mark.parametrize(
    "name", ["v1.2", "", " ", "$x^{$", "a" * 101, "a`b", "a|b", "a\\b", "a\nb"]
)
def test_names_of_groups_can_stand_in_tables_and_figures(name):
    with pytest.raises(ValueError, match=r"the name of a group=.* must be printable text"):
        configuration.scores(path="x", report=dict(groups={name: (1, 2)}))
    configuration.scores(path="x", report=dict(groups={"age > 60": (1, 2)}))


# ---- one file, and the files around it ----


def test_answers_and_counts_never_leave_a_run_stuck(tmp_path):
    """Whichever of the two is there: counts alone are no answers, and answers without the counts
    that they had are asked anew.
    """

    def kept():
        return interactive.Answers(tmp_path, "loss", 0, 4, run="r")

    rows = np.ones(4, bool)
    first = kept()
    first.add(np.arange(4), np.ones((1, 4), np.float32), np.full((1, 4), 7, np.int32))
    first.close()
    assert not kept().lacking(rows).any()
    for gone in (0, 1):
        first.close()
        first.paths[gone].unlink()
        assert kept().lacking(rows).all()
    first.close()
    first.save(
        first.partial
    )  # a process was killed when it had removed the partial answers and not yet their counts
    first.arrays[1][:] = 1
    first.save(first.partial)
    first.partial[0].unlink()
    again = kept()
    assert again.unfinished and (again.arrays[1] == 7).all()
    again.close()
    assert not again.partial[1].exists()


def test_a_black_box_log_asks_damaged_answers_again_and_reads_older_logs(tmp_path, capsys):
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    asked = []

    def box(log="log", name="box"):
        return black_box.BlackBox(
            lambda x: (asked.append(len(x)), x[:, 0].astype(int) % 3)[1],
            num_classes=3,
            log=tmp_path / log,
            name=name,
        )

    labels = np.asarray(box().label(x))
    data = bytearray((tmp_path / "log").read_bytes())
    data[24 * 3 + 16] ^= 1  # the label of the third answer
    (tmp_path / "log").write_bytes(data + b"torn")
    again = box()
    np.testing.assert_array_equal(again.label(x), labels)
    assert asked == [6, 1] and "1 of 6 answers" in capsys.readouterr().err
    np.testing.assert_array_equal(box().label(x), labels)
    assert asked == [6, 1]
    with pytest.raises(ValueError, match="log belongs to another black box"):
        box(name="another")
    old = np.array([(np.void(d), v) for d, v in again.labels.items()], black_box.OLD_RECORD)
    (tmp_path / "old").write_bytes(old.tobytes())
    assert box("old").known == 6


def test_a_checkpoint_of_another_run_or_other_models_is_named(tmp_path):
    state = dict(a=np.zeros((2, 3), np.float32))
    checkpoint.save_running(tmp_path, [0, 1], 5, state, dict(loss=np.zeros((5, 2))), run="r")
    (path,) = (tmp_path / "running").glob("*.npz")
    assert checkpoint.load_running(tmp_path, [0, 1], state, run="r")[0] == 5
    with pytest.raises(
        ValueError,
        match=r"00000-00001x2\.npz belongs to another place \(run: 'r' in the file, 's' expected",
    ):
        checkpoint.load_running(tmp_path, [0, 1], state, run="s")
    os.rename(path, path.with_name("00002-00003x2.npz"))
    with pytest.raises(
        ValueError,
        match=r"00002-00003x2\.npz is damaged \(it holds the models \[0, 1\], not 2 to 3",
    ):
        checkpoint.load_running(tmp_path, [2, 3], state, run="r")


def test_a_ledger_of_another_model_or_with_another_digit_is_named(tmp_path):
    for m, steps in enumerate((40, 50)):
        checkpoint.save_ledger(tmp_path, m, dict(steps=steps, noise_multiplier=1.0), run="r")
    assert checkpoint.load_ledger(tmp_path, 1, run="r") == dict(steps=50, noise_multiplier=1.0)
    path = checkpoint.ledger_file(tmp_path, 1)
    path.write_text(path.read_text().replace("50", "10"))
    with pytest.raises(
        ValueError, match=r"privacy/00001\.json is damaged \(its checksum.*train/model/00001\.npz"
    ):
        checkpoint.load_ledger(tmp_path, 1, run="r")
    path.write_bytes(checkpoint.ledger_file(tmp_path, 0).read_bytes())
    with pytest.raises(ValueError, match="belongs to another model or run"):
        checkpoint.load_ledger(tmp_path, 1, run="r")


# ---- whole runs ----


@pytest.fixture(scope="module")
def fleets(tmp_path_factory):
    return damage.Fleets(tmp_path_factory.mktemp("fleets"))


@pytest.fixture(scope="module")
def finished(fleets):
    return fleets.at("report")


DEATHS = [
    (0.02, "after"),
    (0.35, "half"),
    (0.5, "before"),
    (0.64, "after"),
    (0.93, "before"),
    (0.975, "half"),
]


@pytest.mark.parametrize(
    "share, mode",
    [*DEATHS[:2], *(pytest.param(*death, marks=pytest.mark.slow) for death in DEATHS[2:])],
)
def test_a_killed_run_is_continued_to_the_same_bytes(share, mode, fleets, finished, tmp_path):
    """Provenance included, and nothing is left over; the shares are of the file operations of a
    whole run.
    """
    whole, at = _disk.contents(finished), int(share * 640)
    outcome, where, why, left = kills.killed(
        fleets.audit(), tmp_path / "run", whole, at=at, mode=mode
    )
    assert (outcome, left) == ("identical", 0), (where, why)


CASES = {
    ("signal", "flipped at 1/2"): "named",
    ("signal", "of another learning rate"): "named",
    ("signal", "without its record"): "flagged",
    ("counts of queries", "sibling in its place"): "named",
    ("signal after an epoch", "of another seed"): "named",
    ("model", "of another learning rate"): "named",
    ("model, finished run", "flipped at 1/2"): "named",
    ("scores", "of another learning rate"): "named",
    ("plan.json", "{}"): "named",
    ("run.json", "a key renamed"): "remade",
    ("report.md", "flipped at 1/2"): "remade",
    ("report.json", "of another seed"): "remade",
}


OTHERS = ("counts of queries", "signal after an epoch", "model, finished run", "report.json")
OTHERS += ("report.md", "model", "scores", "plan.json")


@pytest.mark.parametrize(
    "kind, how",
    [pytest.param(*c, marks=pytest.mark.slow) if c[0] in OTHERS else c for c in CASES],
)
def test_a_damaged_file_is_named_remade_or_flagged(kind, how, fleets):
    outcome, why, held = damage.case(fleets, damage.KINDS[kind], damage.DAMAGES[how])
    assert outcome == CASES[kind, how] and held is not False, why


def test_a_finished_workdir_can_be_read_on_a_read_only_disk(fleets, finished, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("write", "create", "append", "set_aside", "make_folder"):
        monkeypatch.setattr(files, name, refused)
    with _disk.quiet():
        returned = _disk.run(fleets.audit(), finished)
    assert returned == source.load(finished / "report" / "report.json")
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_a_run_that_made_nothing_does_not_own_its_workdir(fleets, tmp_path):
    with _disk.quiet(), pytest.raises(FileNotFoundError, match="run the attack stage first"):
        _disk.run(fleets.audit(), tmp_path / "empty", stages=["report"])
    assert not (tmp_path / "empty").exists()

    def failing(*_, **__):
        raise ValueError("the first step fails")

    with (
        _disk.quiet(),
        pytest.MonkeyPatch.context() as patched,
        pytest.raises(ValueError, match="the first step fails"),
    ):
        patched.setattr("mia_jax.training.fleet.train", failing)
        _disk.run(fleets.audit(), tmp_path / "failed", stages=["train"])
    assert {path.name for path in (tmp_path / "failed").rglob("*") if path.is_file()} <= {
        "run.json"
    }
    with _disk.quiet():
        _disk.run(fleets.audit(learning_rate=0.2), tmp_path / "failed", stages=["train"])
    with (
        _disk.quiet(),
        pytest.raises(
            ValueError,
            match=r"belongs to another config:\n  learner.learning_rate: 0.2 on disk, 0.1 in this "
            r"run",
        ),
    ):
        _disk.run(fleets.audit(), tmp_path / "failed", stages=["train"])


def test_a_run_that_fails_leaves_a_workdir_that_another_process_began(fleets, tmp_path):
    experiment, folder = fleets.audit(), tmp_path / "shared"
    train = Store(folder, experiment.run).train
    files.claim(train.folder, experiment.train_config, remedy="")

    def failing(*_, **__):
        raise ValueError("the first step fails")

    with (
        _disk.quiet(),
        pytest.MonkeyPatch.context() as patched,
        pytest.raises(ValueError, match="the first step fails"),
    ):
        patched.setattr("mia_jax.training.fleet.train", failing)
        _disk.run(experiment, folder, stages=["train"])
    assert train.claim.exists() and Store(folder).membership.exists()


def test_a_report_over_seeds_that_was_edited_is_set_aside(tmp_path, capsys):
    made_from = dict(seeds=[0])
    files.write_text(tmp_path / "report" / "report.md", "as it was")
    report_files.finish(tmp_path / "report", made_from)
    assert report.finished(ReportFiles(tmp_path / "report"), made_from)
    (tmp_path / "report" / "report.md").write_text("edited")
    assert (
        not report.finished(ReportFiles(tmp_path / "report"), made_from)
        and "report.md in report/ changed" in capsys.readouterr().err
    )
    assert (tmp_path / "report.1" / "report.md").read_text() == "edited"
