"""Templates of the report: mia_jax/report/templates/<name>.md.j2, rendered by jinja2."""

from __future__ import annotations

import functools

import jinja2

from mia_jax.report import tables


def render(template: str, /, **values) -> str:
    """Renders templates/<template>.md.j2; a name that `values` lacks is an error.

    Text from data or a config passes the filter `plain` (text) or `code` (code font), so that
    nothing in it is markup. The filter `line` joins the lines of a paragraph.
    """
    return environment().get_template(f"{template}.md.j2").render(**values)


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
        autoescape=False,  # the output is Markdown; `plain` and `code` escape for it
    )
    made.filters |= dict(
        code=tables.code,
        epsilon=tables.epsilon,
        line=line,
        metric=tables.metric_name,
        percent=tables.percent,
        plain=tables.plain,
        rate=tables.rate_name,
        number=tables.number,
        sentence=tables.sentence,
        shown=tables.shown,
    )
    made.globals |= dict(names=tables.names, table=tables.markdown)
    return made


def line(text: str) -> str:
    """Joins the lines of a paragraph, so that a template may wrap them.

    >>> line('One sentence.\\n  Another one.\\n')
    'One sentence. Another one.'
    """
    return " ".join(text.split())
