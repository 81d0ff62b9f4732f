"""Templates of the report: mia_jax/report/templates/<name>.md.j2 and <name>.html.j2, rendered by
jinja2.

A section is written once, as Markdown; the page report.html shows the same text through
markdown-it-py (`as_html`), a small library that is kept, knows tables and, with html=False, passes
no tag of a text through. So a number has one template for both
files, and only what is interactive has a template of HTML.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import jinja2
import markdown_it
from markupsafe import Markup, escape

from mia_jax.report import glossary, tables

REFUSED = ("link", "autolink", "linkify", "html_inline", "html_block", "reference")


def render(template: str, /, **values) -> str:
    """Renders templates/<template>.md.j2; a name that `values` lacks is an error.

    Text from data or a config passes the filter `plain` (text) or `code` (code font), so that
    nothing in it is markup. The filter `line` joins the lines of a paragraph.
    """
    return environment().get_template(f"{template}.md.j2").render(**values)


def render_html(template: str, /, **values) -> Markup:
    """Renders templates/<template>.html.j2; every value that is no Markup is escaped."""
    return Markup(environment().get_template(f"{template}.html.j2").render(**values))


def macros(template: str):
    """Returns templates/<template>.md.j2 as a module: each of its macros is a function."""
    return environment().get_template(f"{template}.md.j2").module


@functools.cache
def environment() -> jinja2.Environment:
    """Makes the one environment of all templates, on first use."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("mia_jax.report", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=is_html,
    )
    made.filters |= dict(
        code=tables.code,
        epsilon=tables.epsilon,
        line=line,
        metric=tables.metric_name,
        percent=tables.percent,
        plain=tables.plain,
        rate=tables.rate_name,
        amount=tables.amount,
        number=tables.number,
        sentence=tables.sentence,
        shown=tables.shown,
        terms=with_terms,
    )
    made.globals |= dict(names=tables.names, table=tables.markdown, code=tables.code)
    return made


def is_html(template: str | None) -> bool:
    """Tells whether a template's values are escaped for HTML.

    The others are Markdown; `plain` and `code` escape for it.
    """
    return template is not None and template.endswith(".html.j2")


def line(text: str) -> str:
    """Joins the lines of a paragraph, so that a template may wrap them.

    >>> line('One sentence.\\n  Another one.\\n')
    'One sentence. Another one.'
    """
    return " ".join(text.split())


def as_html(text: str, images: Mapping[str, str] = {}, heading: int = 4) -> tuple[str, Markup]:
    """Returns a section's Markdown as (its title, the HTML of the rest).

    No tag of the text is passed through, and nothing is a link. Terms of the glossary have a
    tooltip where they occur first.

    Args:
        text: Markdown; its first heading is the title.
        images: {path: data URI} of the images that may be shown; others are left out.
        heading: the level of the headings below the title.

    >>> as_html('## A title\\n\\n<b>1</b> [x](javascript:y) `z`\\n')
    ('A title', Markup('<p>&lt;b&gt;1&lt;/b&gt; [x](javascript:y) <code>z</code></p>\\n'))
    """
    reader = parser()
    tokens, title = reader.parse(text), ""
    if tokens and tokens[0].type == "heading_open":
        title = "".join(part.content for part in tokens[1].children or () if part.content)
        tokens = tokens[3:]
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{heading}"
    tokens = _without_empty_heads(tokens)
    env = dict(images=images, terms=set())
    return title, Markup(reader.renderer.render(tokens, reader.options, env))


def _without_empty_heads(tokens: list) -> list:
    """Returns the tokens without heads of tables that say nothing; an empty cell of another head is
    no heading.
    """
    kept, at = [], 0
    while at < len(tokens):
        if tokens[at].type == "thead_open":
            end = next(i for i in range(at, len(tokens)) if tokens[i].type == "thead_close")
            cells = [i for i in range(at, end) if tokens[i].type == "inline"]
            if not any(tokens[i].content for i in cells):
                at = end + 1
                continue
            for i in cells:
                if not tokens[i].content:
                    tokens[i - 1].tag = tokens[i + 1].tag = "td"
        kept.append(tokens[at])
        at += 1
    return kept


@functools.cache
def parser() -> markdown_it.MarkdownIt:
    """Makes the reader of Markdown."""
    made = markdown_it.MarkdownIt("commonmark", dict(html=False)).enable("table")
    made.disable(list(REFUSED))
    made.add_render_rule("text", _text)
    made.add_render_rule("image", _image)
    made.add_render_rule("table_open", _table)
    made.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return made


def _table(renderer, tokens, at, options, env) -> str:
    return '<div class="scroll" tabindex="0"><table data-download>\n'


def _text(renderer, tokens, at, options, env) -> str:
    # an interval stays on one line
    text = re.sub(r"\[[^\[\]]{1,40}\]", lambda m: m[0].replace(" ", "\xa0"), tokens[at].content)
    return str(with_terms(text, env["terms"]))


def _image(renderer, tokens, at, options, env) -> str:
    token = tokens[at]
    source = env["images"].get(token.attrs["src"])
    if source is None:
        return ""
    return str(
        Markup('<img class="figure" src="{}" alt="{}" loading="lazy">').format(
            source, token.content
        )
    )


def with_terms(text: str, seen: set | None = None) -> Markup:
    """Returns escaped text in which terms of the glossary have a tooltip.

    Args:
        text: plain text.
        seen: terms that have a tooltip already; those of this text are added.

    >>> str(with_terms('they score lower; a score')).count('<abbr')
    1
    """
    seen = set() if seen is None else seen

    def tooltip(match: re.Match) -> str:
        text = match[0]
        term = text if text in glossary.TERMS else text[:1].lower() + text[1:]
        term = glossary.ALIASES.get(term, term)
        before = match.string[: match.start()].split()
        verb = (
            term in ("score", "slice", "target")
            and before[-1:]
            and (before[-1].lower() in glossary.BEFORE_VERBS)
        )
        if term in seen or term not in glossary.TERMS or verb:
            return text
        seen.add(term)
        return str(Markup('<abbr title="{}">{}</abbr>').format(glossary.TERMS[term], text))

    return Markup(_pattern().sub(tooltip, str(escape(text))))


@functools.cache
def _pattern() -> re.Pattern:
    # the longest first; letters alone, so that no part of an entity is a term
    terms = sorted([*glossary.TERMS, *glossary.ALIASES], key=len, reverse=True)
    either = [re.sub("^[a-z]", lambda m: f"[{m[0]}{m[0].upper()}]", re.escape(t)) for t in terms]
    return re.compile(r"(?<![\w&-])(" + "|".join(either) + r")(?![\w;-])")
