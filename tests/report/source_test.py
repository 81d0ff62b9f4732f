"""report.json: the same content comes back, small, whatever version wrote it."""

import json

import numpy as np
import pytest

import mia_jax
import mia_jax.report
from mia_jax import commands
from mia_jax.report import files as report_files
from mia_jax.report import packed, source


@pytest.fixture(scope="module")
def report():
    """The report of 8 targets with slices: rows of several kinds."""
    rng = np.random.default_rng(0)
    member = rng.random((8, 200)) < 0.5
    return mia_jax.audit(
        shadow_loss=np.abs(rng.normal(size=member.shape) + 2 - member),
        shadow_member=member,
        labels=np.arange(200) % 2,
        slices="class",
        attacks="lira, threshold_loss",
        draws=40,
    ).report


def test_the_content_comes_back_key_by_key_in_its_order(report, tmp_path):
    source.write(tmp_path / "report.json", report)
    again = source.load(tmp_path / "report.json")
    assert again == report and json.dumps(again) == json.dumps(report)
    assert source.read(tmp_path) == (tmp_path / "report.json", report)


def test_the_file_says_its_form_and_its_rows_take_a_third_of_the_space(report, tmp_path):
    text = source.text(report)
    assert json.loads(text)["schema"] == source.SCHEMA
    assert len(text) < len(json.dumps(report, indent=1)) / 3
    assert text.count('"threshold_loss"') < 60 and len(report["results"]) > 200
    long = max(text.splitlines(), key=len)
    assert len(long) < len(text) / 3  # a row is a line: a change of one number is one of a line


def test_a_report_of_an_older_version_is_read(report, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(report, indent=1))
    assert source.load(tmp_path / "report.json") == report
    page = report_files.render(tmp_path / "report.json").read_bytes()
    (tmp_path / "new").mkdir()
    source.write(tmp_path / "new" / "report.json", report)
    assert report_files.render(tmp_path / "new").read_bytes() == page


@pytest.mark.parametrize("schema", [3, 0, "two", None, 1.5])
def test_a_report_of_a_newer_version_is_refused_in_a_sentence(report, tmp_path, capsys, schema):
    text = json.dumps(json.loads(source.text(report)) | dict(schema=schema))
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match=rf"has schema={schema!r}.* reads 1 to 2\. Read it with"):
        source.load(tmp_path / "report.json")
    for name, more in (("render", []), ("gate", ["--limit", "auc <= 1"])):
        assert commands.run(name, [str(tmp_path), *more]) == commands.MISTAKE
        assert f"schema={schema!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "table",
    [
        {},
        dict(kinds=[], texts={}, rows=[[0, 1]]),
        dict(kinds=[["a"]], texts={}, rows=[[0]]),
        dict(kinds=[["a"]], texts={}, rows=[[-1, 2]]),
        dict(kinds=[["a"]], texts={}, rows=[3]),
        dict(kinds=[["a"]], texts=dict(a=["x"]), rows=[[0, 1]]),
        dict(kinds=[["a"]], texts=dict(a=["x"]), rows=[[0, -1]]),
        dict(kinds=[["a"]], texts=dict(a=["x"]), rows=[[0, True]]),
        dict(kinds=[["a"]], texts=[], rows=[[0, 1]]),
        dict(kinds=[["a"]], texts={}, rows=[[]]),
    ],
)
def test_a_damaged_table_is_a_sentence(tmp_path, table):
    (tmp_path / "report.json").write_text(json.dumps(dict(schema=2, results=table)))
    with pytest.raises(ValueError, match=r"report\.json is damaged \(a packed table"):
        source.read(tmp_path)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}],
        [dict(a=1), {}, dict(b=None, a="x"), dict(a="x", b="y"), dict(b=True, a=0.1)],
        [dict(target=None), dict(target="pooled"), dict(target=3)],
        [dict(name="=cmd()", x=[1, {"y": 2}]), dict(name="", x=None)],
    ],
)
def test_rows_come_back_as_they_were(rows):
    again = packed.unpack(json.loads(json.dumps(packed.pack(rows))))
    assert again == rows and [list(row) for row in again] == [list(row) for row in rows]
    assert [type(v) for row in again for v in row.values()] == [
        type(v) for row in rows for v in row.values()
    ]


def test_a_script_reads_it_by_the_package(report, tmp_path):
    source.write(tmp_path / "report.json", report)
    assert mia_jax.report.read(tmp_path) == report
