"""report.html: the numbers of report.json, safe from what names hold, and loading nothing."""

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import mia_jax
from mia_jax.measures import curves, verdict
from mia_jax.metrics import bootstrap, roc, summary
from mia_jax.metrics import rows as result_rows
from mia_jax.report import files, glossary, html, page, rendering, tables
from mia_jax.runtime.store import ReportFiles

LONG = "n" * 10_000
EVIL = (
    "</script><script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "=cmd()|' /C calc'!A0",
    '<img src=x onerror="alert(1)">',
    r"\input{/etc/passwd}$x$",
    LONG,
)


def evil_study():
    """A report whose attacks, slices, data, classes, checks and notes have hostile names."""
    rng = np.random.default_rng(0)
    member = np.arange(400)[None] % 2 < 1
    attacks = {
        name: dict(score_TN=rng.normal(size=400)[None] + member, knows="nothing") for name in EVIL
    }
    draws = bootstrap.make(400, np.arange(1), draws=50)
    evaluated = np.ones(member.shape, bool)
    rows = summary.rows(attacks, member, evaluated, draws=draws)
    drawn, histograms = curves.of(attacks, member, evaluated, draws)
    entry = dict(auc=0.6, low=0.55, high=0.65, excess=0.1, excess_low=0.05, excess_high=0.15)
    entry |= dict(p_holm=0.001, n_records=40, post_hoc=False)
    sliced = [dict(row, slice=name) for name in EVIL for row in rows if row["target"] is None]
    return dict(
        about=dict(data=EVIL[0], examples=400, model=EVIL[1], said=list(EVIL), seed=0, level=0.95),
        results=rows + sliced,
        verdict=verdict.decide(result_rows.main_rows(rows)),
        curves=drawn,
        histograms=histograms,
        attacks={name: dict(needs=["loss"], knows="nothing", note=EVIL[3]) for name in EVIL},
        slices=dict(
            wanted=list(EVIL),
            ranking={name: [dict(entry, slice=other) for other in EVIL] for name in EVIL},
            too_small=0,
            said=list(EVIL),
        ),
        validity=dict(blind=dict(why=EVIL[0]), power=[], records=single()),
        versions=dict(packages={EVIL[2]: EVIL[0]}),
    )


def single():
    return dict(p_smallest=0.5, p_needed=0.001, targets=1, targets_needed=20)


class Reader(HTMLParser):
    """Collects the elements of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def embedded(text):
    """The JSON of a page."""
    return json.loads(re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def study():
    """The report of a small audit with shadow models, and its page."""
    rng = np.random.default_rng(0)
    member = rng.random((16, 300)) < 0.5
    member[1::2] = ~member[::2]
    loss = np.abs(rng.normal(size=member.shape) + 3 - 1.5 * member)
    results = mia_jax.audit(
        shadow_loss=loss,
        shadow_member=member,
        labels=np.arange(300) % 3,
        attacks="lira, threshold_loss",
        draws=40,
        slices="class",
        report=dict(shadow_curve=("lira",)),
    )
    return results, html.report(results.report)


@pytest.fixture(scope="module")
def evil():
    report = evil_study()
    return report, html.report(report)


def test_the_numbers_of_the_page_are_those_of_the_report(study):
    """Every (attack, slice, metric) of the means over targets, or pooled where there is no mean."""
    report, data = study[0].report, embedded(study[1])
    held = {}
    for row in data["rows"]:
        cells = dict(zip(data["columns"], row, strict=True))
        key = (
            data["attacks"][cells["attack"]],
            data["slices"][cells["slice"]],
            data["metrics"][cells["metric"]]["key"],
        )
        assert key not in held
        held[key] = cells
    keys = {
        (r["attack"], r["slice"], r["metric"]) for r in report["results"] if r["target"] is None
    }
    assert set(held) >= keys and len(held) > 20
    for (attack, piece, metric), cells in held.items():
        target = "pooled" if cells["pooled"] else None
        row = result_rows.find(report["results"], attack, metric, target, piece)
        assert all(cells[name] == row.get(name) for name in html.NUMBERS)
        if cells["pooled"]:
            mean = result_rows.find(report["results"], attack, metric, None, piece)
            assert mean is None or mean["value"] is None
    for section in ("curves", "histograms"):
        assert {data["attacks"][int(at)]: part for at, part in data[section].items()} == report[
            section
        ]
    assert data["level"] == report["verdict"]["level"]


def test_the_roc_table_holds_the_rates_of_the_scores(study):
    results, _ = study
    evaluated, member = (results.evidence[key] for key in ("evaluated_TN", "member_TN"))
    table = html.curve_table(results.report)
    whole = roc.roc(results.target_scores("lira")[evaluated], member[evaluated])
    cells = dict(
        zip(table["fprs"], next(x for x in table["lines"] if x["attack"] == "lira")["cells"])
    )
    for fpr in (0.01, 0.1, 0.5):
        cell = cells[f"TPR at {tables.rate_name(fpr)} FPR"]
        assert cell.startswith(tables.percent(roc.tpr_at_fpr(whole, fpr).tpr) + "% [")


def test_the_head_says_the_verdict_its_interval_and_what_it_is_about(study):
    report, text = study[0].report, study[1]
    head = html.headline(report)
    leading = report["verdict"]["strongest"]
    row = study[0].row(leading, "tpr@0.01")
    assert head["tone"] == "leak" and head["label"] == "Leak shown"
    assert tables.number(row).rstrip("†") in head["sentence"] and leading in head["sentence"]
    assert "16 targets" in head["about"]
    order = [text.index(f'data-testid="{name}"') for name in ("verdict", "best-table", "roc-plot")]
    assert order == sorted(order) and order[-1] < text.index('id="details"')
    kinds = [
        line["knows"] for line in html.best_table(report["results"], report["verdict"])["lines"]
    ]
    assert sorted(kinds) == ["shadow models", "target's outputs only"]


def test_a_failed_check_stands_in_the_place_of_the_verdict(study):
    report = json.loads(json.dumps(study[0].report))
    report["validity"]["files"] = dict(stale=["signal/loss/00000.npy"], unknown=0, checked=3)
    text = html.report(report)
    head = html.headline(report)
    assert head["tone"] == "open" and head["label"].startswith("Verdict withheld")
    assert text.index('data-testid="failed-checks"') < text.index('data-testid="best-table"')
    assert 'data-check="files"\n data-standing="fail"' in text


def test_without_a_leak_the_page_says_what_would_have_been_seen():
    rng = np.random.default_rng(3)
    member = np.arange(600) % 2 < 1
    report = mia_jax.audit(loss=rng.normal(size=600), member=member, draws=40).report
    head = html.headline(report)
    assert (head["tone"], head["label"]) == ("none", "No leak shown")
    assert "not distinguishable from random guessing" in head["sentence"]
    smallest = report["verdict"]["detectable"]["auc"]
    assert f"with 80% probability: an AUC of {smallest:.3f} (random" in head["sentence"]


def test_the_head_quotes_a_number_that_shows_the_leak(study):
    """Where TPR at 1% FPR and the AUC show none, the metric that does is quoted."""
    report = json.loads(json.dumps(study[0].report))
    decided, rows = report["verdict"], result_rows.main_rows(report["results"])
    leading = decided["strongest"]
    for shown in (["auc"], ["balanced_accuracy"], ["tpr@0.1"], ["tpr@0.01", "auc"]):
        decided["attacks"][leading]["shown"] = shown
        row = html.leading_row(rows, decided)
        assert (row["attack"], row["metric"]) == (leading, shown[0])
        assert tables.number(row).rstrip("†") in html.headline(report)["sentence"]
    assert f"correction for {decided['tests']} tests" in html.headline(report)["sentence"]


def test_an_attack_that_is_undecided_is_named_and_does_not_look_reassuring(study):
    report = json.loads(json.dumps(study[0].report))
    decided = report["verdict"]
    for entry in decided["attacks"].values():
        entry |= dict(shown=[], alone=[], standing="open")
    decided |= dict(leak="none", detectable=dict(auc=0.6))
    decided["attacks"]["lira"]["alone"] = ["auc"]
    report |= dict(slices=None, records=None)
    head = html.headline(report)
    assert (head["tone"], head["label"]) == ("open", "No leak shown, but undecided")
    assert "Undecided: lira is above random guessing by its own 95%" in head["sentence"]
    assert "distinguishable" not in head["sentence"] and "AUC of 0.600" in head["sentence"]


def test_a_study_that_could_see_no_leak_does_not_look_reassuring():
    member = np.arange(6) % 2 < 1
    loss = np.random.default_rng(1).random(6) + 1 - member * 0.5
    report = mia_jax.audit(loss=loss, member=member, draws=40).report
    assert report["verdict"]["leak"] == "none" and not report["verdict"]["detectable"]
    head = html.headline(report)
    assert (head["tone"], head["label"]) == (
        "open",
        "No leak shown, by a study too small to see one",
    )
    assert "too small to see any leak" in head["sentence"]


def test_names_from_data_are_text_everywhere(evil):
    """No element, attribute or link comes from a name, and the JSON ends where it should."""
    report, text = evil
    page_of_good = Reader(html.report(renamed(report)))
    reader = Reader(text)
    count = lambda r: {tag: sum(t == tag for t, _ in r.elements) for tag, _ in r.elements}  # noqa: E731
    assert count(reader) == count(page_of_good)
    for tag, attributes in reader.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert not str(attributes.get("href", "")).startswith("javascript")
        assert (attributes.get("src") or "data:").startswith("data:")
    assert [tag for tag, _ in reader.elements].count("script") == 3
    data = embedded(text)
    assert set(EVIL) <= set(data["attacks"]) and set(EVIL) <= set(data["slices"])
    assert "".join(reader.texts).count("alert(1)</script>") > 3  # shown, as text


def renamed(report):
    """The report with harmless names of the same kinds."""
    text = json.dumps(report)
    for at, name in enumerate(EVIL):
        text = text.replace(json.dumps(name)[1:-1], f"harmless{at}")
    return json.loads(text)


def test_names_from_data_are_text_in_the_other_files(evil, tmp_path):
    report, _ = evil
    (tmp_path / "report.json").write_text(json.dumps(report))
    files.write_texts(tmp_path)
    place = ReportFiles(tmp_path)
    markdown = place.markdown.read_text()
    outside = re.sub(r"(`+)(?:.*?[^`])\1(?!`)", "", markdown)
    assert "<script" not in outside and "<img" not in outside
    assert not re.search(r"(?<!\\)\]\(javascript", outside)
    for row in csv.reader(io.StringIO(place.results.read_text())):
        assert not any(cell.startswith(("=", "@", "\t")) for cell in row)
    latex = place.latex.read_text()
    assert r"</script>" in latex and r"\textbackslash{}input\{" in latex
    assert r"\input" not in latex and "$x$" not in latex
    assert place.html.read_text() == html.report(report)


def test_nothing_is_loaded_from_elsewhere(study, evil):
    """No address in an attribute or a style that a browser follows, and a policy that forbids it,
    under which exactly the page's own scripts run.
    """
    for text in (study[1], evil[1]):
        reader = Reader(text)
        for tag, attributes in reader.elements:
            for name in ("src", "srcset", "data", "poster", "action", "background", "ping"):
                assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
            if tag in ("link", "base"):
                assert attributes["href"] == "data:,"
            if tag == "a":
                assert attributes["href"].startswith("#")
        style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
        assert style and "@import" not in style and "url(" not in style
        policy = next(a["content"] for t, a in reader.elements if "http-equiv" in a)
        assert policy.startswith("default-src 'none'") and "connect-src" not in policy
        scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        allowed = re.findall(r"'sha256-([^']+)'", policy)
        digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
        assert allowed == digests and len(digests) == 2
        for script in scripts[1:]:
            assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|innerHTML", script)


def test_the_page_is_small(study, evil):
    """What every page has takes less than 120 kB, and a name of 10,000 characters is kept once in
    the data.
    """
    assert len(study[1]) < 400_000
    assert json.dumps(embedded(evil[1])).count(LONG) == 2  # as an attack and as a slice


def test_figures_are_in_the_file(study):
    """Those of sections as SVG, from report.json; those drawn from data as the PNG given."""
    report, text = study[0].report, study[1]
    section = text.partition('id="section-shadows"')[2].partition("</details>")[0]
    source = dict(Reader(section).elements)["img"]["src"]
    drawn = base64.b64decode(source.removeprefix("data:image/svg+xml;base64,"))
    assert drawn.startswith(b"<?xml") and b"number of shadow models" in drawn
    assert 'id="section-figures"' not in text
    with_weights = html.report(report, images=dict(weights=b"a picture"))
    section = with_weights.partition('id="section-figures"')[2]
    assert f"data:image/png;base64,{base64.b64encode(b'a picture').decode()}" in section


def test_a_report_of_an_older_version_has_no_figure(study):
    report = {key: v for key, v in study[0].report.items() if key not in ("curves", "histograms")}
    text = html.report(report)
    assert 'id="roc"' not in text and 'id="section-histograms"' not in text
    assert 'data-testid="best-table"' in text and embedded(text)["curves"] == {}


def test_every_section_of_the_markdown_is_on_the_page(study):
    report, text = study[0].report, study[1]
    headings = re.findall(r"^## (.*)$", page.report(report), re.MULTILINE)
    shown = re.sub(r"\s+", " ", "".join(Reader(text).texts))
    assert len(headings) > 8
    other = {"All attacks, strongest first": "All attacks"}
    missing = [h for h in headings if other.get(h, h).replace("`", "") not in shown]
    assert not missing


def test_sections_are_rendered_without_tags_links_and_strange_images():
    title, body = rendering.as_html(
        "## A *title*\n\n<b>x</b> [y](http://a.b) ![z](http://a.b/c.png) <http://a.b>\n\n"
        "[y]: http://a.b\n\n![p](figures/p.png)\n\n### Below\n\n"
        "| a | b |\n|--|--|\n| `<i>` | 2 |\n",
        {"figures/p.png": "data:image/png;base64,AA"},
    )
    assert title.replace("*", "") == "A title"
    tags = Reader(body).elements
    assert [tag for tag, _ in tags if tag in ("a", "b", "i", "img", "h4")] == ["img", "h4"]
    assert dict(tags)["img"]["src"] == "data:image/png;base64,AA"
    assert "<code>&lt;i&gt;</code>" in body


def test_a_head_of_a_table_that_says_nothing_is_left_out():
    body = rendering.as_html("| | |\n|--|--|\n| a | b |\n\n| | c |\n|--|--|\n| d | e |\n")[1]
    tags = [tag for tag, _ in Reader(body).elements]
    assert (tags.count("thead"), tags.count("th"), tags.count("td")) == (1, 1, 5)


def test_terms_of_the_glossary_have_a_tooltip_once():
    text = rendering.as_html("The AUC and the AUC of members at 1% FPR.\n")[1]
    assert text.count("<abbr") == 3  # AUC once, members and FPR
    assert f'title="{glossary.TERMS["FPR"]}"' in text
    assert "<abbr" not in rendering.with_terms("&lt; AUCx")


def test_the_same_report_gives_the_same_page(study):
    assert html.report(study[0].report) == study[1]


def test_a_script_that_would_end_its_own_tag_is_refused(monkeypatch):
    monkeypatch.setattr(html, "asset", lambda name: "a = '</script>'")
    with pytest.raises(ValueError, match="would end it"):
        html.script("page.js")


def test_several_seeds_have_a_page():
    report = dict(
        about=dict(data="<b>"),
        seeds=[0, 1],
        answers={"0": "NO LEAK SHOWN", "1": "NO LEAK SHOWN"},
        results=[],
    )
    text = html.seeds(report)
    assert "&lt;b&gt;" in text and text.count("NO LEAK SHOWN") == 2


def test_every_slice_is_on_the_page_and_the_first_are_in_the_markdown(study):
    """12 slices of one attack: report.md says that 8 of them are shown, the page has all."""
    report = json.loads(json.dumps(study[0].report))
    entry = report["slices"]["ranking"]["lira"][0]
    report["slices"]["ranking"] = {
        name: [entry | dict(slice=f"piece={at}") for at in range(12)]
        for name in report["slices"]["ranking"]
    }
    section = html.report(report).partition('id="section-slices"')[2].partition("</details>")[0]
    assert [f"<code>piece={at}</code>" in section for at in range(12)] == [True] * 12
    markdown = page.report(report)
    assert markdown.count("| `piece=") == 8 and "The 8 most exposed of 12 are shown" in markdown
