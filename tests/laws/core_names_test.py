"""The core names no plug-in: what a plug-in needs of it, the plug-in declares itself, so that a
stranger's can ask for the same.
"""

import ast
import pathlib

from mia_jax import registry

ROOT = pathlib.Path(__file__).parents[2] / "mia_jax"
CORE = ("pipeline", "runtime", "api", "results", "registry", "threat_model")
# Plug-ins that are ordinary words as well: as identifiers they name nothing, as texts they count.
WORDS = {"base", "chosen", "class", "column", "correct", "flip", "function"}
WORDS |= {"group", "identity", "linear"}
WORDS |= {"loss", "offset", "population", "range", "reference", "shift", "threshold", "tokens"}
# Plug-in -> in how many files the core names it, and why. Numbers only fall: lower them with what
# you take out, and do not raise them.
ALLOWED = {
    "canaries": (4, "data.canaries are inserted, and a design of that name is audited by default"),
    "correct": (3, "accuracies of the report are read from this signal"),
    "embedding": (1, "the registry knows its old name"),
    "folds": (1, "a design's own sentence in the report"),
    "identity": (1, "the first query view must be the unchanged example"),
    "logits": (2, "query.save_logits; attacks on logits are refused where labels are no classes"),
    "loss": (5, "losses of the report are read from this signal; a learner's argument `loss`"),
    "population": (4, "rows outside all models have the name of an attack and of a validation"),
    "threshold": (1, "the report of pairs reads this field of an objective"),
    "trajectory": (2, "the losses at snapshots, which several attacks share"),
}


def core() -> list[pathlib.Path]:
    """Returns the files of the core that exist; a folder stands for its files."""
    paths = [path for name in CORE for path in (ROOT / f"{name}.py", *(ROOT / name).glob("*.py"))]
    return [path for path in paths if path.exists()]


def plug_ins() -> set[str]:
    """Returns the names of all files that can be chosen; sections of the report and optax's
    functions are none.
    """
    return {name for kind in registry.KINDS if kind != "sections" for name in registry.files(kind)}


def named(text: str) -> set[str]:
    """Returns the plug-ins that a module names in its texts and identifiers; documentation may name
    any.
    """
    tree, known = ast.parse(text), plug_ins()
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
    }
    texts, identifiers = set(), set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation
        ):
            texts.add(node.value)
        elif isinstance(node, ast.Name | ast.Attribute):
            identifiers.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.alias):
            identifiers.add(node.name.split(".")[-1])
    return (texts & known) | (identifiers & known - WORDS)


def test_the_core_names_no_plug_in():
    where: dict[str, list[str]] = {}
    for path in core():
        for name in named(path.read_text(encoding="utf-8")):
            where.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    more = {
        name: files for name, files in where.items() if len(files) > ALLOWED.get(name, (0, ""))[0]
    }
    assert not more, f"the core names plug-ins, let them declare what they need instead: {more}"
    fewer = {
        name: len(where.get(name, ()))
        for name, (count, _) in ALLOWED.items()
        if len(where.get(name, ())) < count
    }
    assert not fewer, (
        "the core names these plug-ins in fewer files than ALLOWED says; lower its numbers: "
        f"{fewer}"
    )


def test_texts_and_identifiers_are_found_and_documentation_is_not():
    text = (
        '"""About lira."""\nfrom mia_jax.attacks import rmia\nloss = memguard\nx = {"halves": '
        '1}\ndef f():\n    """mlp"""\n'
    )
    assert named(text) == {"rmia", "memguard", "halves"}
