"""The table of the 60 systems in RESULTS.md is complete, and every command in it can be typed."""

import ast
import pathlib
import re
import shlex

import pytest

from mia_jax.pipeline import grid
from tests.configs import configs_test

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERDICTS = r"works|works, reduced|reduced|differs|not measured"
COLUMNS = ("row", "system", "printed", "measured", "data and time", "command", "verdict")


def table() -> list[dict]:
    """Returns the rows of the table, by the names of its columns."""
    page = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    section = page.split("\n## The systems, printed against measured\n")[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    assert cells[0] == list(COLUMNS)
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[1:]]


def commands() -> list[str]:
    """Returns every command of the table once."""
    spans = [span for row in table() for span in re.findall(r"`([^`]+)`", row["command"])]
    return sorted(set(spans))


def named(path: pathlib.Path) -> list[str]:
    """Returns the names of the tests of a file, as `-k` sees them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        f"{path.name} {node.name}".lower()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    ]


def selects(words: str, name: str) -> bool:
    """Returns whether `-k words` selects a test of that name; words are joined by 'or'."""
    return any(word.strip() in name for word in words.lower().split(" or "))


def test_all_60_systems_are_there_in_order_with_a_verdict_and_a_command():
    rows = table()
    assert [row["row"] for row in rows] == [str(n) for n in range(1, 61)]
    for row in rows:
        assert all(row[column] for column in COLUMNS), row
        assert re.match(rf"({VERDICTS})\b", row["verdict"]), row["verdict"]
        assert "`" in row["command"], row["row"]
        unmeasured = row["measured"].startswith("not measured")
        assert unmeasured == (row["verdict"] == "not measured"), row["row"]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_table_can_be_typed(command):
    program, *words = shlex.split(command)
    if program in ("launch.py", "mia-jax"):
        config, *flags = (word for word in words if not word.startswith("--workdir="))
        path, _, argument = config.removeprefix("--config=").partition(":")
        path = path if path.endswith(".py") else f"configs/{path}.py"
        name = path.removeprefix("configs/").removesuffix(".py")
        assert configs_test.load(name, argument)
        assert flags in ([], ["--grid"]) and (not flags or grid.load(ROOT / path))
    elif program == "pytest":
        files, expression = words, ""
        if "-k" in words:
            files, expression = words[: words.index("-k")], words[words.index("-k") + 1]
        for file in files:
            assert any(selects(expression, name) for name in named(ROOT / file)), (file, expression)
    else:
        assert program == "python", command
        module = words[words.index("-m") + 1].replace(".", "/")
        assert (ROOT / f"{module}.py").exists(), command
