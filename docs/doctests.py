"""Shows the examples of docstrings as code: blocks that begin with >>> become fenced blocks."""

from __future__ import annotations

import re

import griffe

BLOCK = re.compile(r"^([ \t]*)>>> .*(?:\n(?![ \t]*$).+)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Changes the docstrings that the reference shows; the code keeps its own."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        """Fences the examples of an object's docstring."""
        if obj.docstring:
            obj.docstring.value = BLOCK.sub(
                lambda block: f"{block[1]}```pycon\n{block[0]}\n{block[1]}```", obj.docstring.value
            )
