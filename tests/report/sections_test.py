"""The sections of report.md: an open table of files, and a page that report.json alone
determines.
"""

import inspect
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import jinja2
import numpy as np
import pytest

import mia_jax
import mia_jax.report.sections
from mia_jax import configuration, registry, report
from mia_jax.pipeline import report as report_stage
from mia_jax.pipeline import run
from mia_jax.report import page, rendering
from mia_jax.runtime import files as workdir
from mia_jax.runtime.store import Store

ROOT = pathlib.Path(report.__file__).parent
OWN = '''"""A section of the user's own."""
from matplotlib.figure import Figure

ORDER = 65
NEEDS = ("about",)


def text(*, about, audit=None):
    return f"## My section\\n\\n{about['examples']} examples, {audit}.\\n"


def figure(*, about):
    return Figure()
'''


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a small finished run with a figure of a section."""
    rng = np.random.default_rng(0)
    member = rng.random((16, 120)) < 0.5
    member[1::2] = ~member[::2]
    loss = np.abs(rng.normal(size=member.shape) + 3 - 1.5 * member)
    folder = tmp_path_factory.mktemp("sections") / "w"
    settings = dict(shadow_curve=("lira",))
    mia_jax.audit(
        shadow_loss=loss,
        shadow_member=member,
        attacks="lira, threshold_loss",
        draws=40,
        figures=True,
        report=settings,
        folder=folder,
    )
    return folder


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def clear():
    """Forgets which files there are."""
    registry._stems.cache_clear()
    registry.files.cache_clear()
    registry.names.cache_clear()


@pytest.mark.parametrize("name", registry.names("sections"))
def test_a_section_says_what_it_needs(name):
    """NEEDS are the arguments without a default, of `text` and `figure` alike; every section has a
    place of its own.
    """
    module = registry.load("sections", name)
    makers = (module.text, getattr(module, "figure", None), getattr(module, "html", None))
    for function in filter(None, makers):
        needed = [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.default is p.empty and p.kind is not p.VAR_KEYWORD
        ]
        assert set(needed) <= set(module.NEEDS), (name, function)
    assert [section.order for section in page.sections()].count(
        module.ORDER
    ) == 1 and module.__doc__


def test_a_section_is_left_out_where_something_is_missing():
    def text(*, records, about={}):
        return f"{records} {about}"

    assert page.arguments(text, ("records",), dict(about=dict(a=1))) is None
    assert page.arguments(text, ("records",), dict(records={}, about=dict(a=1))) is None
    assert page.arguments(text, ("records",), dict(records=dict(b=2), about=None, other=3)) == dict(
        records=dict(b=2)
    )


def test_a_file_in_the_folder_of_sections_is_on_the_page(tmp_path, monkeypatch):
    (tmp_path / "added_here.py").write_text(OWN)
    monkeypatch.setattr(
        mia_jax.report.sections, "__path__", [*mia_jax.report.sections.__path__, str(tmp_path)]
    )
    clear()
    try:
        text = page.report(
            dict(
                results=[],
                about=dict(examples=7),
                attacks=dict(a=dict(needs=("loss",), knows="nothing", note="")),
            )
        )
        assert (
            text.index("## What was attacked")
            < text.index("## My section\n\n7 examples, None.")
            < text.index("## Attacks")
        )
        assert "added_here" in page.figures(dict(results=[], about=dict(examples=7)))
    finally:
        clear()
        sys.modules.pop("mia_jax.report.sections.added_here", None)


def test_a_section_of_the_user_s_own_is_named_by_its_path(tmp_path, monkeypatch):
    """config.report.sections; one that does not exist, or has no text, is refused before anything
    runs.
    """
    (tmp_path / "own_section_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    member = np.arange(60) % 2 < 1
    arrays = dict(loss=np.random.default_rng(0).normal(size=60) + 3 - member, member=member)
    common = dict(attacks="threshold_loss", draws=40, figures=True)
    results = mia_jax.audit(arrays, **common, report=dict(sections=("own_section_of_mine",)))
    assert (
        "## My section\n\n60 examples, None.\n\n![My section](figures/own_section_of_mine.png)"
        in results.markdown
    )
    assert (
        results.report["sections"] == ["own_section_of_mine"]
        and "own_section_of_mine.png" in results.pictures
    )
    for name, message in (
        ("my_missing.section", "no module 'my_missing.section'"),
        ("json.decoder", "has no function text"),
    ):
        with pytest.raises(ValueError, match=message):
            mia_jax.audit(arrays, **common, report=dict(sections=(name,)))


@pytest.mark.slow
def test_a_report_is_rewritten_from_report_json_alone(finished, tmp_path):
    """The same report.md, tables, figures and record of the files, without scores, signals and
    data; by function and by command.
    """
    before = files(finished / "report")
    assert {
        "report.md",
        "results.csv",
        "table.tex",
        "figures/shadows.png",
        "figures/roc.png",
    } <= set(before)
    for folder in (tmp_path / "a", tmp_path / "b"):
        shutil.copytree(finished / "report", folder / "report")
        for name in ("report.md", "results.csv", "table.tex", "figures/shadows.png"):
            (folder / "report" / name).write_text("changed")
    assert report.rewrite(tmp_path / "a") == tmp_path / "a" / "report" / "report.md"
    assert files(tmp_path / "a" / "report") == before
    run = subprocess.run(
        [sys.executable, "-m", "mia_jax.report", str(tmp_path / "b" / "report")],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (run.returncode, run.stderr) == (0, "") and run.stdout.strip().endswith("report.md")
    assert files(tmp_path / "b" / "report") == before
    with pytest.raises(FileNotFoundError, match=r"holds no report\.json"):
        report.rewrite(tmp_path)


def test_a_rewritten_report_is_taken_for_the_one_of_the_run(finished, tmp_path, capsys):
    """A changed template changes report.md, and config.json follows: the same command finds nothing
    to do, and sets nothing aside.
    """
    shutil.copytree(finished, tmp_path / "w")
    text = json.loads((tmp_path / "w" / "report" / "report.json").read_text())
    text["about"]["said"] = ["a further note"]
    (tmp_path / "w" / "report" / "report.json").write_text(json.dumps(text))
    report.rewrite(tmp_path / "w")
    assert "- a further note" in (tmp_path / "w" / "report" / "report.md").read_text()
    made_from = workdir.read_json(tmp_path / "w" / "report" / "config.json", needs={})
    made_from.pop("files")
    assert (
        report_stage.finished(Store(tmp_path / "w").report, made_from)
        and "nothing changed since it was written" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_several_seeds_are_rewritten(tmp_path):
    config = configuration.complete(
        seed=(0, 1),
        data=dict(name="synthetic", examples=80, features=4, classes=2),
        design=dict(name="halves", models=4),
        model=dict(name="mlp", widths=(4,)),
        learner=dict(epochs=1, batch_size=20),
        attacks=dict(threshold_loss=dict(name="threshold", signal="loss")),
        report=dict(draws=40, figures=False, records=(), shadow_curve=()),
        run=dict(chunk=4),
    )
    run.run(config, workdir_path=tmp_path)
    before = files(tmp_path / "report")
    (tmp_path / "report" / "report.md").write_text("changed")
    report.rewrite(tmp_path)
    assert files(tmp_path / "report") == before


def test_every_template_is_whole_and_a_missing_name_is_an_error():
    names = rendering.environment().list_templates()
    assert names and all(rendering.environment().get_template(name) for name in names)
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        rendering.render("privacy_audit_missing", why="it is a test")


def test_the_report_is_written_in_the_words_of_the_field(finished):
    """No home-made words in templates and on a page, and every number has a leading zero."""
    home_made = re.compile(
        r"\b(anew|beside|told apart|brought|nobody|so many|false alarms? in|names? the)\b",
        re.IGNORECASE,
    )
    page_text = (finished / "report" / "report.md").read_text()
    for text in (
        page_text,
        *(
            (ROOT / "templates" / name).read_text()
            for name in rendering.environment().list_templates()
        ),
    ):
        assert not home_made.search(text), home_made.search(text)
    assert not re.search(r"(?<![\w.])\.\d", page_text)


def test_a_wheel_ships_the_templates():
    tool = tomllib.loads((ROOT.parent.parent / "pyproject.toml").read_text())["tool"]
    for folder in ("templates", "assets"):
        patterns = tool["setuptools"]["package-data"][f"mia_jax.report.{folder}"]
        shipped = {path for pattern in patterns for path in (ROOT / folder).glob(pattern)}
        assert shipped == set((ROOT / folder).iterdir())
