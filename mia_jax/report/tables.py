"""Result rows as text: CSV, Markdown and LaTeX.

An attack that knows more than a real attacker could is never ranked with the rest.
"""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from mia_jax.metrics.rows import COLUMNS, OPTIMISTIC, find, fprs, resolved

UNRESOLVED = "not resolvable"
ABSENT = "–"
ATTACKER_HAS = dict(
    nothing="target's outputs only",
    shadows="shadow models",
    population="population rows",
    half_of_target_members="half of the target's members",
)


def epsilon(value: float | None) -> str:
    """Writes an epsilon with three digits: '3.27', '0', 'infinite'."""
    return (
        ABSENT
        if value is None
        else "infinite"
        if math.isinf(value)
        else f"{value:.3g}"
        if value
        else "0"
    )


def section_name(section) -> str:
    """Returns the name in a config section, or the text itself."""
    return str(section.get("name", "")) if isinstance(section, Mapping) else str(section or "")


def data_name(about: Mapping) -> str:
    """Returns the name of the data; 'your data' for rows that came without one, with models.

    >>> data_name(dict(data="arrays")), data_name(dict(data="arrays", asked="model"))
    ('arrays', 'your data')
    """
    name = section_name(about.get("data"))
    return "your data" if about.get("asked") and name == "arrays" else name


def signed(value: float, show) -> str:
    """Writes a difference with its sign: '+1.2' or '-0.3'."""
    return ("+" if value >= 0 else "-") + show(abs(value))


def p_text(p: float) -> str:
    """Writes a p-value: '0.031', '< 0.001'."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(value: float) -> str:
    """Writes a rate in percent: 0.0961 -> '9.6', 0.0043 -> '0.43'."""
    digits = 2 if abs(value) < 0.00995 else 1
    return f"{100 * value:.{digits}f}"


def tpr(rate: Mapping) -> str:
    """Writes a TPR {tpr, low, high} with its interval.

    >>> tpr(dict(tpr=0.0812, low=0.0702, high=0.0931)), tpr(dict(tpr=0.5, low=None, high=None))
    ('8.1% [7.0, 9.3]', '50.0%')
    """
    if rate["tpr"] is None:
        return UNRESOLVED
    ends = [percent(rate[end]) for end in ("low", "high") if rate[end] is not None]
    return f"{percent(rate['tpr'])}%" + (f" [{', '.join(ends)}]" if ends else "")


def amount(value: float) -> str:
    """Writes a count or a mean of counts.

    >>> amount(1212.0), amount(33.46)
    ('1,212', '33.5')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def rate_name(fpr: float) -> str:
    """Writes an FPR in percent: 0.001 -> '0.1%'."""
    return f"{100 * fpr:g}%"


def metric_name(metric: str) -> str:
    """Writes a metric as it is spelled in prose.

    Its key ('tpr@0.01') is used in report.json and CSV files only.

    >>> [metric_name(m) for m in ('auc', 'tpr@0.01', 'ppv@1', 'balanced_accuracy')]
    ['AUC', 'TPR at 1% FPR', 'precision at 1:1', 'balanced accuracy']
    """
    kind, at, rate = metric.partition("@")
    if at and kind == "tpr":
        return f"TPR at {rate_name(float(rate))} FPR"
    if at and kind == "ppv":
        return f"precision at 1:{float(rate):g}"
    return {"auc": "AUC", "tpr": "TPR", "fpr": "FPR"}.get(metric) or metric.replace("_", " ")


def number(row: Mapping | None, *, bounds: bool = True, unit: str = "%") -> str:
    """Writes a value with its interval.

    Examples are '9.6% [7.4, 12.1]', '0.645 [0.622, 0.668]' for an AUC, 'not resolvable', and a dash
    where there is no such row.
    """
    if row is None:
        return ABSENT
    if row["value"] is None:
        return UNRESOLVED if row["method"].startswith(UNRESOLVED) else ABSENT
    if row["metric"] == "auc":
        show, unit = lambda v: f"{v:.3f}", ""
    else:
        show = percent
    text = show(row["value"]) + unit
    if bounds and row["low"] is not None:
        text += f" [{show(row['low'])}, {show(row['high'])}]"
    return text + ("†" if row["target"] == "pooled" else "")


def attacker_has(knows: str) -> str:
    """Writes what an attack knows (`Attack.knows`).

    >>> attacker_has("nothing"), attacker_has("half_of_target_members")
    ("target's outputs only", "half of the target's members")
    """
    return ATTACKER_HAS.get(knows, knows)


def grid(
    rows: Sequence[Mapping], names: Sequence[str], unit: str = "%"
) -> tuple[list[str], list[list[str]]]:
    """Returns (header, lines) of the table of attacks.

    Its columns are AUC, TPR at each FPR, and balanced accuracy and advantage at the shadow-chosen
    threshold.
    """
    metrics = {
        metric_name(m): m
        for m in ("auc", *(f"tpr@{f:g}" for f in fprs(rows)), "balanced_accuracy", "advantage")
    }
    known = {row["attack"]: row["knows"] for row in rows if row["metric"] not in OPTIMISTIC}
    lines = [
        [
            n,
            *(number(resolved(rows, n, m), unit=unit) for m in metrics.values()),
            attacker_has(known[n]),
        ]
        for n in names
    ]
    return ["attack", *metrics, "attacker has"], lines


def optimistic_grid(
    rows: Sequence[Mapping], names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Returns (header, lines) of the rates at the oracle threshold, next to those of random scores.

    The oracle threshold is chosen with the true membership.
    """
    lines = []
    for name in names:
        advantage, balanced = (find(rows, name, m) for m in OPTIMISTIC)
        if advantage and balanced:
            nulls = (
                percent(r["null_mean"]) + "%" if "null_mean" in r else ABSENT
                for r in (advantage, balanced)
            )
            lines.append(
                [
                    name,
                    *(
                        cell
                        for row, null in zip((advantage, balanced), nulls)
                        for cell in (number(row), null)
                    ),
                ]
            )
    header = [
        "attack",
        "advantage at the oracle threshold",
        "by chance",
        "balanced accuracy at the oracle threshold",
        "by chance",
    ]
    return header, lines


def to_csv(rows: Sequence[Mapping]) -> str:
    """Writes the rows as CSV with a header: COLUMNS, then whatever else the rows carry.

    An empty field is null (see `method`).
    """
    return lines_csv(rows, COLUMNS)


def lines_csv(rows: Sequence[Mapping], columns: Sequence[str] = ()) -> str:
    """Writes mappings as CSV with a header: `columns`, then whatever else the rows carry.

    An empty field is null.
    """
    file = io.StringIO()
    columns = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({k: cell(v) for k, v in row.items()} for row in rows)
    return file.getvalue()


def columns_csv(parts: Iterable[Mapping[str, Sequence]], columns: Sequence[str]) -> str:
    """Writes parts of a long table, each by its columns, as CSV with a header, as `lines_csv` does.

    >>> columns_csv([dict(a=[1, 2], b=['x', '=y']), dict(a=[0.5], b=[None])], 'ab')
    "a,b\\n1,x\\n2,'=y\\n0.5,\\n"
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for part in parts:
        writer.writerows(zip(*(_cells(part[key]) for key in columns), strict=True))
    return file.getvalue()


def _cells(values: Sequence) -> list:
    """Returns the values of a column as `csv` writes them; equal ones are written once."""
    if values and isinstance(values[0], int):
        return list(values)
    written = {value: cell(value) for value in set(values)}
    for value, of_value in written.items():
        if isinstance(of_value, float):
            written[value] = repr(of_value)
    return [written[value] for value in values]


def cell(value):
    """Returns a value as it is written in a CSV file.

    Text that a spreadsheet would run as a formula (it begins with = + - @ or a control character)
    gets an apostrophe.

    >>> cell(None), cell(-1.5), cell('lira'), cell('=1+2'), cell('-x')
    ('', -1.5, 'lira', "'=1+2", "'-x")
    """
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return "" if value is None else value


def shown(text) -> str:
    """Writes a name from data or a config on one line of printable characters.

    Control characters (also those of a terminal) become spaces.

    >>> shown('a\\x1b[31m\\nb')
    'a [31m b'
    """
    return "".join(c if c.isprintable() else " " for c in str(text))


def plain(text) -> str:
    """Writes a name as plain text in Markdown.

    Nothing in it is markup, HTML or the end of a table cell.

    >>> plain('<img src=x>|*a*_'), plain('small_cnn')
    ('&lt;img src=x&gt;\\\\|\\\\*a\\\\*\\\\_', 'small_cnn')
    """
    text = shown(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(
        r"[\\`*\[\]|~$]|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])", lambda match: "\\" + match[0], text
    )


def sentence(text: str) -> str:
    """Returns the text with a capital letter and a full stop.

    >>> sentence('no two rows are identical')
    'No two rows are identical.'
    """
    return text[:1].upper() + text[1:] + ("" if text.rstrip(")").endswith((".", "?", "!")) else ".")


def names(listed: Sequence[str], name: Callable[[str], str], most: int = 3) -> str:
    """Writes 'a, b, c and 2 more', each name by `name`: `shown`, `plain` or `code`."""
    first = ", ".join(map(name, listed[:most]))
    return first + (f" and {len(listed) - most} more" if len(listed) > most else "")


def code(text) -> str:
    """Writes a name in code font, with a longer fence where it holds backticks.

    >>> code('lira'), code('a`b')
    ('`lira`', '`` a`b ``')
    """
    text = shown(text).strip() or " "
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " * bool(longest)
    return fence + space + text + space + fence


def markdown(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    code_first: bool = True,
    align: str = "right",
) -> str:
    """Writes a pipe table.

    The first column is aligned left (in code font if it holds names), the others as `align` says.

    Pipes are escaped; names from data that stand in other cells must have passed `plain` or `code`.
    """

    def inner(text: str) -> str:
        return re.sub(r"(?<!\\)\|", r"\\|", str(text)).replace("\n", " ")

    rule = "|:--" + ("|--:" if align == "right" else "|:--") * (len(header) - 1) + "|"
    body = [
        [inner(code(line[0]) if code_first else line[0]), *map(inner, line[1:])] for line in lines
    ]
    return (
        "\n".join(
            [
                "| " + " | ".join(map(inner, header)) + " |",
                rule,
                *("| " + " | ".join(line) + " |" for line in body),
            ]
        )
        + "\n"
    )


def web(text) -> str:
    """Writes a name as text in HTML; nothing in it is a tag, an attribute or an entity.

    >>> web('<img src=x onerror="alert(1)">')
    '&lt;img src=x onerror=&quot;alert(1)&quot;&gt;'
    """
    return html.escape(shown(text), quote=True)


def web_table(header: Sequence[str], lines: Sequence[Sequence]) -> str:
    """Writes an HTML table without scripts or styles of other places; every cell is escaped.

    >>> web_table(['attack'], [['<b>']])
    '<table><thead><tr><th>attack</th></tr></thead><tbody><tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    row = lambda cells, tag: (  # noqa: E731
        "<tr>" + "".join(f"<{tag}>{web(cell)}</{tag}>" for cell in cells) + "</tr>"
    )
    body = "".join(row(line, "td") for line in lines)
    return f"<table><thead>{row(header, 'th')}</thead><tbody>{body}</tbody></table>"


def text_table(header: Sequence[str], lines: Sequence[Sequence]) -> list[str]:
    """Writes a table for a terminal: the first column is aligned left, the others right.

    >>> text_table(['attack', 'AUC'], [['lira', '0.657']])
    ['attack    AUC', 'lira    0.657']
    """
    cells = [[shown(cell) for cell in line] for line in (header, *lines)]
    width = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(n) if at else cell.ljust(n) for at, (cell, n) in enumerate(zip(line, width))
        ).rstrip()
        for line in cells
    ]


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "†": r"$^\dagger$",
    "–": "--",
    "±": r"$\pm$",
}
LATEX |= {c: "\\" + c for c in "&%$#_{}"}


def escape(text: str) -> str:
    """Returns text with LaTeX's special characters escaped."""
    return "".join(LATEX.get(c, c) for c in shown(text))


def latex(
    header: Sequence[str], groups: Sequence[Sequence[Sequence[str]]], *, caption: str, label: str
) -> str:
    """Writes a booktabs table (\\usepackage{booktabs}) with a rule between groups of lines."""
    body = [[" & ".join(map(escape, line)) + r" \\" for line in group] for group in groups if group]
    text = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{{label}}}",
    ]
    text += [
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 2)}l}}",
        r"\toprule",
        " & ".join(map(escape, header)) + r" \\",
        r"\midrule",
    ]
    text += ("\n" + r"\midrule" + "\n").join("\n".join(group) for group in body).split("\n")
    return "\n".join([*text, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def results_latex(
    rows: Sequence[Mapping],
    ranked: Sequence[str],
    apart: Sequence[str] = (),
    *,
    caption: str,
    label: str = "tab:membership",
) -> str:
    """Writes the table of attacks for a paper.

    Ranked attacks come first, then those that know more than a real attacker.
    """
    header, lines = grid(rows, ranked)
    return latex(header, [lines, grid(rows, apart)[1]], caption=caption, label=label)


def statistic(values: Sequence[float], show=percent, unit: str = "%") -> str:
    """Writes 'mean ± sd' over models, or the value of the only model."""
    values = [v for v in values if v is not None]
    if not values:
        return ABSENT
    mean = sum(values) / len(values)
    if len(values) == 1:
        return show(mean) + unit
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return f"{show(mean)} ± {show(deviation if deviation > 1e-12 * abs(mean) else 0.0)}{unit}"


def mean_sd(row: Mapping | None) -> str:
    """Writes mean ± sd over seeds: '0.645 ± 0.012', '9.6 ± 1.1%', 'not resolvable'."""
    if row is None or row["value"] is None:
        return UNRESOLVED
    pooled = "†" * (row["target"] == "pooled")
    if row["metric"] == "auc":
        return f"{row['value']:.3f} ± {row['sd_over_seeds']:.3f}{pooled}"
    return f"{percent(row['value'])} ± {percent(row['sd_over_seeds'])}%{pooled}"


def models(table: Sequence[Mapping], most: int = 8) -> tuple[list[str], list[list[str]]]:
    """Returns (header, lines) of accuracies and losses model by model (up to `most`).

    The last line has their mean ± sd.
    """
    names = {
        "train_accuracy": "train accuracy",
        "validation_accuracy": "validation accuracy",
        "train_loss": "train loss",
    }
    names |= {"population_accuracy": "population accuracy"}
    names |= {"validation_loss": "validation loss", "epochs": "epochs", "seconds": "seconds"}
    names = {k: v for k, v in names.items() if any(row.get(k) is not None for row in table)}

    def show(key: str):
        return (percent, "%") if key.endswith("accuracy") else ((lambda v: f"{v:.3g}"), "")

    lines = [
        [str(row.get("model", i)), *(statistic([row.get(k)], *show(k)) for k in names)]
        for i, row in enumerate(table[:most])
    ]
    if len(table) > most:
        lines.append(["...", *("" for _ in names)])
    if len(table) > 1:
        lines.append(
            [
                f"all {len(table)}",
                *(statistic([row.get(k) for row in table], *show(k)) for k in names),
            ]
        )
    return ["model", *names.values()], lines
