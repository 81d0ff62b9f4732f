"""The pages of docs/ and the README are true where a machine can tell: links, commands, tests and
configs that they name exist.
"""

import ast
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").rglob("*.md"))]


def text(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site spell them."""
    content = text(page)
    for included in re.findall(r'^--8<-- "(.+)"$', content, flags=re.M):
        content += text(ROOT / included)
    heads = re.findall(r"^#+ (.+)$", content, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text(page)):
        link = "".join(target)
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_configs_and_flags_that_exist(page):
    defined = (ROOT / "mia_jax" / "__main__.py").read_text(encoding="utf-8")
    flags = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', defined)) | {"help"}
    commands = re.findall(r"(?:mia-jax|launch\.py|python -m mia_jax) (--[^`\n#|]*)", text(page))
    for command in commands:
        for config in re.findall(r"--config=([\w/.]+)", command):
            path = config if config.endswith(".py") else f"configs/{config}.py"
            assert (ROOT / path).exists(), f"{page.name}: {command}"
        unquoted = re.sub(r"'[^']*'", "", command)  # options of another program
        for flag in re.findall(r"(?<!\S)--(?:no)?(\w+)(?=[=\s]|$)", unquoted):
            assert flag in flags, f"{page.name}: --{flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_are_python(page):
    for block in re.findall(r"^```python\n(.*?)^```", text(page), flags=re.M | re.S):
        ast.parse(block)


def test_every_pitfall_names_a_test_that_exists():
    page, last, count = text(ROOT / "docs" / "pitfalls.md"), "", 0
    for path, function in re.findall(r"`(tests/[\w/]+\.py|)(?:::(test_\w+))?`", page):
        last = path or last
        if not path and not function:
            continue
        assert (ROOT / last).exists(), last
        assert not function or f"def {function}(" in text(ROOT / last), function
        count += 1
    assert count >= 15


def test_the_readme_stays_short():
    assert len(text(ROOT / "README.md").splitlines()) <= 120


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": ([\w/]+\.md)$", text(ROOT / "mkdocs.yml"), flags=re.M))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages == listed


def test_what_tools_make_is_not_kept():
    """Caches, builds and environments are ignored by git, and none of their files is tracked."""
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "rev-parse"], capture_output=True).returncode:
        pytest.skip("this is no git checkout")
    listed = subprocess.run([*git, "ls-files"], capture_output=True, text=True, check=True).stdout
    made = re.compile(
        r"(^|/)(\.[a-z_]*cache|__pycache__|build|dist|runs|\.venv)/|\.egg-info|\.whl$"
    )
    assert not [path for path in listed.splitlines() if made.search(path)]
