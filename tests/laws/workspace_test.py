"""WORKSPACE.md is true: what it names exists, and its reading path stays short."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "WORKSPACE.md").read_text(encoding="utf-8")
MOST_LINES = 1500


def test_the_reading_path_explains_the_whole_in_at_most_1500_lines():
    section = TEXT.split("## Reading path")[1].split("\n## ")[0]
    paths = re.findall(r"^\d\. `([^`]+)`", section, flags=re.M)
    assert len(paths) >= 6
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in paths}
    assert sum(lines.values()) <= MOST_LINES, lines


def test_every_file_and_folder_that_the_map_names_exists():
    named = set(re.findall(r"`((?:mia_jax|tests|configs|benchmarks|docs)/[\w/.]+)`", TEXT))
    missing = {path for path in named if not (ROOT / path.rstrip("/")).exists()}
    assert named and not missing, missing


def test_the_map_has_every_folder_of_the_package():
    folders = {p.name for p in (ROOT / "mia_jax").iterdir() if (p / "__init__.py").exists()}
    rooms = TEXT.split("## The rooms")[1].split("\n## ")[0]
    named = set(re.findall(r"([a-z_]+)/", rooms))
    assert folders <= named, folders - named


def test_the_commands_of_the_map_name_modules_and_tests_that_exist():
    commands = TEXT.split("## Commands")[1].split("```")[1]
    for module in re.findall(r"python -m (benchmarks\.\w+|mia_jax\.\w+)", commands):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for path in re.findall(r"tests/[\w/]+\.py|configs/\w+\.py", commands):
        assert (ROOT / path).exists(), path
