"""The section of exposed records on both pages: its numbers are those of report.json, names are
text, none is shown where none is significant, and contents only where they may be.
"""

import json
import re

import numpy as np
import pytest

import mia_jax
from mia_jax.measures import exposed_records
from mia_jax.report import answer, html, page
from mia_jax.report import tables as report_tables
from mia_jax.report.sections import records as section
from tests.report.html_test import EVIL, Reader

N, M, EXPOSED = 60, 32, (4, 9, 33)


def audit(gap: float = 6.0, **more):
    """An audit of 32 models in turn, of which three records leak; rows 4 and 50 are equal."""
    rng = np.random.default_rng(0)
    member_MN = rng.random((M, N)) < 0.5
    loss_MN = 6 + rng.normal(size=(M, N))
    loss_MN[:, EXPOSED] -= gap * member_MN[:, EXPOSED]
    x = rng.normal(size=(N, 9))
    x[50] = x[4]
    return mia_jax.audit(
        shadow_loss=loss_MN,
        shadow_member=member_MN,
        labels=np.arange(N) % 2,
        x=x,
        attacks=dict(by_loss=dict(name="threshold", signal="loss")),
        slices=(),
        draws=40,
        **more,
    )


@pytest.fixture(scope="module")
def shown():
    """A report that may hold copies of records, whose ids are hostile."""
    ids = np.array([f"{EVIL[n % len(EVIL)]} {n}" for n in range(N)])
    return audit(report=dict(show_records="contents"), column_id=ids).report


@pytest.fixture(scope="module")
def numbers():
    """The default report of the same audit."""
    return audit().report


def part(text: str) -> str:
    """The section of report.html."""
    return text.partition('id="section-records"')[2].partition('id="section-identification"')[0]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table of a part of a page."""
    return [
        [
            [
                re.sub(r"<[^>]+>|\xa0", " ", cell).strip()
                for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
            ]
            for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
        ]
        for body in re.findall(r"<table.*?</table>", text, re.DOTALL)
    ]


def test_the_exposed_records_are_shown_and_no_others(shown):
    cards = shown["shown_records"]["cards"]
    assert {card["record"] for card in cards} == set(EXPOSED)
    assert {entry["record"] for entry in shown["records"]["by_loss"]["listed"]} == set(EXPOSED)
    ids = re.findall(r'data-record="(\d+)"', html.report(shown))
    assert list(map(int, ids)) == [card["record"] for card in cards]


def test_the_numbers_of_the_cards_are_those_of_the_report(shown):
    text = part(html.report(shown))
    entries = {entry["record"]: entry for entry in shown["records"]["by_loss"]["listed"]}
    for card, block in zip(
        shown["shown_records"]["cards"], text.split('<li class="record"')[1:], strict=True
    ):
        rates, values, *_ = tables(block)
        entry = entries[card["record"]]
        assert rates[0][1].startswith(
            f"{entry['auc']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
        )
        for line, side in zip(rates[1:], ("trained", "others"), strict=True):
            assert line[1] == f"mean loss {card[side]['loss']:.3g}"
        assert [line[:3] for line in values[1:]] == [
            [f["name"], f"{f['value']:g}", f"{f['z']:+.1f}"] for f in card["content"]["features"]
        ]
        near = [f"<b>{n['record']}</b>, label {n['content']['label']}" for n in card["neighbors"]]
        places = [block.index(words) for words in near]
        assert len(places) == 3 and places == sorted(places)
    first = next(c for c in shown["shown_records"]["cards"] if c["record"] == 4)
    assert first["neighbors"][0]["record"] == 50 and "distance 0.00, identical" in text


def test_the_numbers_of_the_markdown_are_those_of_the_report(shown):
    lines = [
        line for line in page.report(shown).splitlines() if re.match(r"\| \d+ \| [01] \|", line)
    ]
    cards = {card["record"]: card for card in shown["shown_records"]["cards"]}
    assert len(lines) == len(EXPOSED)
    for line, entry in zip(lines, shown["records"]["by_loss"]["listed"], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        near = cards[entry["record"]]["neighbors"][0]
        assert int(cells[0]) == entry["record"] and cells[2] == f"{entry['ranked_auc']:.3f}"
        assert cells[3].startswith(f"{entry['auc']:.3f} [") and cells[-1].startswith(
            f"{near['record']} ("
        )
    assert "data:image" not in page.report(shown)


def test_pooled_rates_and_rates_per_record_are_next_to_each_other(shown):
    table = shown["records"]["by_loss"]
    rows = table["at_fpr"]["rates"]
    assert [row["fpr"] for row in rows] == [0.001, 0.01, 0.1]
    markdown, line = page.report(shown), answer.per_record(shown)
    shown_rows = [cells for body in tables(html.report(shown)) for cells in body]
    for row in rows:
        of = [report_tables.tpr(row[kind]) for kind in ("pooled", "per_record")]
        name = f"TPR at {100 * row['fpr']:g}% FPR"
        assert f"| {name} | {of[0]} | {of[1]} |" in markdown
        assert any(cells[1:3] == of for cells in shown_rows)
    stated = next(row for row in rows if line.startswith(f"TPR at {100 * row['fpr']:g}% FPR "))
    assert line.endswith(
        f"{report_tables.tpr(stated['pooled'])} pooled over records, "
        f"{report_tables.tpr(stated['per_record'])} with a threshold per record "
        "(shadow models of the other fold)"
    )
    assert line in "\n".join(answer.lines(shown)) and table["pool"]["fraction"] < 1
    assert table["at_fpr"]["models"] >= 2 and "Rates that hold per record" in markdown


def test_the_page_says_of_how_many_records_it_holds_copies(shown, numbers):
    rows = {
        n["record"] for card in shown["shown_records"]["cards"] for n in (card, *card["neighbors"])
    }
    assert shown["shown_records"]["copies"] == len(rows) and shown["about"]["contents"] is True
    for text in (html.report(shown), page.report(shown)):
        assert f"copies of {len(rows)} records" in text
    for text in (html.report(numbers), page.report(numbers)):
        assert "no copy of a record" in text and "records of the data" not in text
    footer = html.report(shown).partition("<footer>")[2]
    assert f"copies of {len(rows)} records of the data" in footer
    with_figure = html.report(numbers, images=dict(adversarial=b"a picture"))
    assert "pictures of records (adversarial examples)" in with_figure.partition("<footer>")[2]
    assert 'data-testid="disclosure"' not in html.report(numbers)


def test_by_default_a_report_of_your_own_data_holds_numbers_only(numbers):
    """Neither ids, labels nor values; neighbors and losses are there."""
    shown = numbers["shown_records"]
    assert numbers["about"]["contents"] is False and shown["copies"] == 0
    assert not re.search('content"|predicted|label', json.dumps(shown))
    card = shown["cards"][0]
    assert len(card["neighbors"]) == 3 and card["trained"]["models"] + card["others"]["models"] == M
    text = part(html.report(numbers))
    assert 'data-testid="record-rates"' in text and "record-values" not in text
    assert "label <b>" not in text and "<img" not in text


def test_names_from_data_are_text(shown):
    """Ids of ten thousand characters are shortened, and none is an element or a link."""
    text = part(html.report(shown))
    assert len(text) < 60_000 and not re.search("<script|<img src=x", text)
    for tag, attributes in Reader(text).elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert not str(attributes.get("href", "#")).startswith("javascript")
    hostile = json.loads(json.dumps(shown))
    for card in hostile["shown_records"]["cards"]:
        card["content"] |= dict(label=EVIL[0], picture="javascript:alert(1)", id=EVIL[5])
        card["content"]["features"][0]["name"] = EVIL[3]
        card["neighbors"][0]["content"] |= dict(label=EVIL[1], picture=EVIL[3])
    text = part(html.report(hostile))
    kinds = {tag for tag, _ in Reader(text).elements}
    assert not {"script", "img"} & kinds and 'javascript:alert(1)"' not in text
    assert "n" * 41 not in text and "&lt;/script&gt;" in text
    markdown = section.text(records=hostile["records"], shown_records=hostile["shown_records"])
    assert "<script" not in markdown and "n" * 41 not in markdown


def test_every_exposed_record_is_listed_or_counted():
    """Of the record 3 all models of one half are trained; of the record 5 the halves know both."""
    arrays = dict(
        q_N=np.array([0.5, 0.5, 0.5, 0.01, 0.5, 0.02]),
        auc_N=np.full(6, 0.9),
        inside_N=np.full(6, 16),
        fold_T=np.arange(32) % 2,
        ranked_N=np.array([0.9, 0.9, 0.9, np.nan, 0.9, 0.8]),
        held_N=np.full(6, 0.9),
        held_low_N=np.full(6, 0.8),
        held_high_N=np.full(6, 1.0),
    )
    table = exposed_records.significance(arrays, level=0.95)
    assert table["unranked"] == 1 and [entry["record"] for entry in table["listed"]] == [5]
    text = section.of_attack(
        "a",
        dict(table, level=0.95, targets=32, tested=6, mean_auc=0.9, most_exposed=dict(records=0)),
    )
    assert "1 more cannot be ranked" in text and "| 5 |" in text and "| 3 |" not in text


def test_none_is_shown_where_none_is_significant():
    report = audit(gap=0.0, report=dict(show_records="contents")).report
    table = report["records"]["by_loss"]
    assert table["significant"] == 0 == len(table["listed"]) and report["shown_records"] is None
    for text in (html.report(report), page.report(report)):
        assert "No record can be singled out" in text and "none is listed" in text
        assert f"its AUC were at least {table['alone']:.3f}" in re.sub("<[^>]*>", "", text)
    assert 0.9 < table["alone"] < 1 and 'data-testid="records"' not in html.report(report)


def test_a_report_of_an_older_version_lists_its_records(shown):
    old = {key: value for key, value in shown.items() if key != "shown_records"}
    old["records"] = json.loads(json.dumps(old["records"]))
    for key in ("alone", "attacks"):
        del old["records"]["by_loss"][key]
    text = page.report(old)
    assert all(f"| {record} | " in text for record in EXPOSED) and "copies of" not in text
    assert 'data-testid="records"' not in html.report(old)


def pictured() -> dict:
    """A report of images, of which record 8 leaks."""
    x = np.random.default_rng(0).random((N, 6, 5, 3))
    rng = np.random.default_rng(1)
    member_MN = rng.random((M, N)) < 0.5
    loss_MN = rng.normal(size=(M, N)) - 9 * member_MN * (np.arange(N) == 8)
    return mia_jax.audit(
        shadow_loss=loss_MN,
        shadow_member=member_MN,
        x=x,
        attacks=dict(by_loss=dict(name="threshold", signal="loss")),
        draws=40,
        report=dict(show_records="contents"),
    ).report


def test_pictures_have_alternative_texts_and_are_in_the_page():
    report = pictured()
    text = part(html.report(report))
    pictures = [a for tag, a in Reader(text).elements if tag == "img"]
    near = report["shown_records"]["cards"][0]["neighbors"]
    assert [a["alt"] for a in pictures] == ["Record 8", *(f"Record {n['record']}" for n in near)]
    assert all(a["src"].startswith("data:image/png;base64,") for a in pictures)


def test_what_may_be_shown_is_one_of_three():
    with pytest.raises(ValueError, match="report show_records='all'"):
        audit(report=dict(show_records="all"))


def test_names_of_features_and_classes_are_those_of_the_arrays(shown):
    """Names that the caller passes; a wrong number of them is refused."""
    names = dict(
        feature_names=[f"{EVIL[0]}{f}" for f in range(9)], class_names=np.array(["no", EVIL[3]])
    )
    report = audit(report=dict(show_records="contents"), **names).report
    card = next(c for c in report["shown_records"]["cards"] if c["record"] == 9)
    assert card["content"]["label"] == EVIL[3]
    found = {feature["name"] for feature in card["content"]["features"]}
    assert found < set(names["feature_names"]) and len(found) == 8
    assert "<script>alert" not in part(html.report(report))
    with pytest.raises(ValueError, match="feature_names holds 2 names, and there are 9 numbers"):
        audit(feature_names=["a", "b"])
    with pytest.raises(ValueError, match="class_names holds 3 names, and there are 2 classes"):
        audit(class_names=["a", "b", "c"])
