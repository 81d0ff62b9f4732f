"""The package's files as syntax trees, for the tests that read code; each is parsed once."""

import ast
import functools
import pathlib


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    """The syntax tree of a file. Callers share it and leave it as it is."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes(path: pathlib.Path) -> tuple[ast.AST, ...]:
    """All nodes of the tree, as ast.walk yields them."""
    return tuple(ast.walk(tree(path)))
