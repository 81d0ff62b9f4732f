"""The most exposed records, ranked on one half of the targets and measured on the other."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from mia_jax.report import rendering, tables

ORDER = 160
NEEDS = ("records",)
TITLE = "Which records are most exposed"
SIDES = dict(trained="models trained on it", others="other models")
DUPLICATES = dict(identical=", identical", near=", near duplicate")
CELL = 40  # characters of a name in a table


def text(
    *,
    records: Mapping[str, Mapping],
    validity: Mapping = {},
    about: Mapping = {},
    shown_records: Mapping = {},
) -> str:
    """Writes what each measured attack says about single records."""
    cards = of_record(shown_records)
    return rendering.render(
        "records",
        parts=[
            of_attack(name, table, validity=validity, about=about, cards=cards)
            for name, table in records.items()
        ],
        shown=shown_records,
        disclosure=notes(shown_records, about, page="This report holds"),
    )


def html(
    *,
    records: Mapping[str, Mapping],
    validity: Mapping = {},
    about: Mapping = {},
    shown_records: Mapping = {},
) -> Markup:
    """Writes the same with a card for each record that is shown."""
    cards = of_record(shown_records)
    common = dict(validity=validity, about=about)
    written = [card_of(card, records) for card in cards.values()]
    intro, listed = [], []
    for name, table in records.items():
        intro.append(of_attack(name, table, **common, tabled=not cards))
        header, lines = table_of(table, cards)
        if lines:
            listed.append(tables.code(name) + ":\n\n" + tables.markdown(header, lines))
    return rendering.render_html(
        "records",
        intro=rendering.as_html("\n".join(intro))[1],
        cards=written,
        wide=any(card["features"] or card["tokens"] for card in written),
        disclosure=copies(shown_records, about, page="This page holds") if cards else "",
        compared=compared(cards),
        note=notes(shown_records, about) if cards else "",
        table=rendering.as_html("\n".join(listed))[1],
    )


def of_record(shown: Mapping) -> dict[int, Mapping]:
    """Returns {row number: card} of the records that are shown, in their order."""
    return {card["record"]: card for card in (shown or {}).get("cards", ())}


def copies(shown: Mapping, about: Mapping, *, page: str) -> str:
    """Writes of how many records the report holds copies; `page` says where: 'This page holds'."""
    words = rendering.macros("records_words")
    return rendering.line(words.disclosure(shown, bool(about.get("contents")), page))


def compared(cards: Mapping[int, Mapping]) -> str:
    """Writes what the answers on the cards are."""
    answers = {key for card in cards.values() for side in SIDES for key in card[side]}
    return rendering.line(rendering.macros("records_words").compared(answers))


def notes(shown: Mapping, about: Mapping, *, page: str = "") -> str:
    """Writes how to read what is shown, after `copies` if there is a `page`."""
    if not shown:
        return ""
    words = rendering.macros("records_words")
    parts = [copies(shown, about, page=page)] if page else []
    parts += [words.distance(shown)]
    parts += [words.answers(shown)] if about.get("contents") else []
    return rendering.line(" ".join(parts))


def of_attack(
    name: str,
    table: Mapping,
    *,
    validity: Mapping = {},
    about: Mapping = {},
    cards: Mapping[int, Mapping] = {},
    tabled: bool = True,
) -> str:
    """Writes the records under one attack; they are listed only where some are significantly
    exposed.

    Args:
        name, table: the attack and its table.
        validity, about: the keys of report.json.
        cards: {row number: card} of the records that are shown.
        tabled: whether the listed records follow as a table.
    """
    if "why" in table:
        kind = (
            "model"
            if about.get("asked") == "model"
            else "arrays"
            if about.get("arrays")
            else "target"
            if about.get("target")
            else "fleet"
        )
        return rendering.render(
            "records_missing", attack=name, why=table["why"], few=bool(table.get("few")), kind=kind
        )
    winners, alpha = table.get("most_exposed", {}), 1 - table["level"]
    header, lines = table_of(table, cards)
    bounds = "" if winners.get("low") is None else f" [{winners['low']:.3f}, {winners['high']:.3f}]"
    attacks = table.get("attacks", 1)
    return rendering.render(
        "records_attack",
        attack=name,
        measured=dict(dict(alone=0.0), **table),
        rate=f"{100 * alpha:.3g}%",
        together=f" over all records and {attacks} attacks together" if attacks > 1 else "",
        bounds=bounds,
        single=(validity or {}).get("records"),
        listed=len(lines),
        unranked=table.get("unranked", 0),
        header=header,
        lines=lines if tabled else [],
        rates=rate_lines(table),
        at_fpr=dict(dict(why=""), **(table.get("at_fpr") or {})),
        pool=table.get("pool"),
    )


def rate_lines(table: Mapping) -> list[list[str]]:
    """Writes a line per FPR: the TPR pooled over records, and with a threshold per record."""
    return [
        [
            f"TPR at {tables.rate_name(row['fpr'])} FPR",
            tables.tpr(row["pooled"]),
            tables.tpr(row["per_record"]),
            tables.ABSENT if row["again"] is None else f"{tables.percent(row['again'])}%",
        ]
        for row in (table.get("at_fpr") or {}).get("rates", ())
    ]


def table_of(table: Mapping, cards: Mapping[int, Mapping]) -> tuple[list[str], list[list[str]]]:
    """Returns (header, lines) of the listed records, with what is shown of them."""
    header = ["record", "AUC where it was ranked", "AUC on the held-out half"]
    header += ["q-value (false discovery rate), all targets"]
    listed = [entry for entry in table.get("listed", ()) if entry["q"] <= 1 - table["level"]]
    known = [cards[entry["record"]] for entry in listed if entry["record"] in cards]
    labeled = any((card.get("content") or {}).get("label") is not None for card in known)
    near = any(card["neighbors"] for card in known)
    header[1:1] = ["label"] * labeled
    header += [f"{name}: right" for name in SIDES.values()] * bool(known)
    header += ["nearest training record"] * near
    lines = []
    for entry in listed:
        card = cards.get(entry["record"])
        line = [str(entry["record"])]
        label = (card.get("content") or {}).get("label") if card else None
        line += [tables.ABSENT if label is None else tables.plain(short(label))] * labeled
        line += [f"{entry['ranked_auc']:.3f}", rate_of(entry), tables.p_text(entry["q"])]
        if known:
            line += [right(card[side]) if card else tables.ABSENT for side in SIDES]
        if near:
            first = card["neighbors"][0] if card and card["neighbors"] else None
            line += [
                tables.ABSENT if first is None else f"{first['record']} ({distance_of(first)})"
            ]
        lines.append(line)
    return header, lines


def card_of(card: Mapping, records: Mapping[str, Mapping]) -> dict:
    """Returns what the template of a card shows, as text.

    Args:
        card: the card, see measures/shown_records.py.
        records: {attack: its table}.
    """
    content = card.get("content") or {}
    neighbors = [
        dict(
            record=neighbor["record"],
            distance=distance_of(neighbor),
            **contents(neighbor.get("content") or {}),
        )
        for neighbor in card["neighbors"]
    ]
    beside = [(n.get("content") or {}).get("features") or () for n in card["neighbors"]]
    features = [
        dict(
            name=short(feature["name"]),
            cells=[
                f"{feature['value']:g}",
                f"{feature['z']:+.1f}",
                *(f"{of[at]['value']:g}" for of in beside if at < len(of)),
            ],
        )
        for at, feature in enumerate(content.get("features") or ())
    ]
    return dict(
        record=card["record"],
        **contents(content),
        rates=[
            dict(
                attack=name if len(records) > 1 else "",
                text=rate_of(entry),
                q=tables.p_text(entry["q"]),
            )
            for name, table in records.items()
            for entry in table.get("listed", ())
            if entry["record"] == card["record"]
        ],
        sides=[
            dict(name=name, text=said(card[side], label=content.get("label")))
            for side, name in SIDES.items()
        ],
        features=features,
        neighbors=neighbors,
    )


def contents(content: Mapping) -> dict:
    """Returns the label, id, picture and tokens of a record as text; None for what there is not."""
    label, name, tokens = (content.get(key) for key in ("label", "id", "tokens"))
    picture = str(content.get("picture") or "")
    return dict(
        label=None if label is None else short(label),
        id=None if name is None else short(name),
        picture=picture if picture.startswith("data:image/png;base64,") else "",
        tokens="" if not tokens else " ".join(str(int(token)) for token in tokens),
    )


def short(name) -> str:
    """Writes a name from data on one line of at most CELL characters.

    >>> len(short('n' * 10_000)), short('benign')
    (40, 'benign')
    """
    text = tables.shown(name)
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def rate_of(entry: Mapping) -> str:
    """Writes the AUC of a record on the held-out half, with its interval."""
    return f"{entry['auc']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def distance_of(neighbor: Mapping) -> str:
    """Writes how far a neighbor is.

    >>> distance_of(dict(distance=0.0, duplicate='identical'))
    'distance 0.00, identical'
    """
    return f"distance {neighbor['distance']:#.3g}".rstrip(".") + DUPLICATES.get(
        neighbor["duplicate"], ""
    )


def right(answers: Mapping) -> str:
    """Writes how many models of one side predict the label: '31 of 32'."""
    if answers.get("correct") is None:
        return tables.ABSENT
    return f"{answers['correct']} of {answers['models']}"


def said(answers: Mapping, label: str | None = None) -> str:
    """Writes what the models of one side answer about a record.

    Args:
        answers: see measures/shown_records.py.
        label: the record's label; that those who predict it are right needs no words.

    >>> said(dict(models=32, correct=31, confidence=0.987))
    '31 of 32 right, confidence 98.7%'
    >>> said(dict(models=4, predicted='cat', predicted_by=3))
    '3 of 4 predict cat'
    """
    models, parts = answers["models"], []
    if not models:
        return "none"
    if answers.get("predicted_by") is not None:
        parts.append(f"{answers['predicted_by']} of {models} predict {short(answers['predicted'])}")
    elif answers.get("predicted") is not None:
        parts.append(f"mean prediction {short(answers['predicted'])}")
    named = answers.get("predicted_by") is not None and answers["predicted"] == label
    if answers.get("correct") is not None and not named:
        of = "" if answers.get("predicted_by") is not None else f" of {models}"
        parts.append(f"{answers['correct']}{of} right")
    if answers.get("confidence") is not None:
        parts.append(f"confidence {tables.percent(answers['confidence'])}%")
    elif answers.get("loss") is not None:
        parts.append(f"mean loss {answers['loss']:.3g}")
    return ", ".join(parts) or f"{models} models, answers not measured"
