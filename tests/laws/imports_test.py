"""Imports point one way, and only the named folders know the heavy libraries: read with ast, and
seen in a fresh interpreter.
"""

import ast
import functools
import os
import pathlib
import subprocess
import sys

import pytest

from tests import sources

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "mia_jax").rglob("*.py"))

# A file imports from its own level or lower ones; within a level the folders' imports form no
# cycle.
LEVELS = (
    # the registry imports by name, at run time, and knows no folder
    ("types", "checks", "runtime", "threat_model", "registry", "configuration.fields"),
    ("trackers", "configuration.settings", "configuration.command_line", "configuration.shipped"),
    ("objectives", "models", "privacy", "evasion", "metrics", "fitting"),
    ("optimizers", "schedules", "augmentations", "query_views", "defenses", "slices"),
    ("learners", "signals", "attacks", "designs", "data"),
    ("training", "query", "measures", "external.rows", "external.frameworks"),
    ("report", "external", "configuration"),
    ("pipeline", "results"),
    ("selection",),
    ("api", "monitor"),
    ("sklearn",),
    ("commands",),  # a subcommand may read everything
    ("__main__",),
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
ONLY_IN = {  # library -> the parts that may import it, anywhere in a file
    "flax": {"models", "external.frameworks"},
    "tensorflow_datasets": {"data"},
    "tensorflow": set(),
    "torch": {"external.frameworks"},
    "keras": {"external.frameworks"},
    "joblib": {"external"},
    "tensorboardX": {"trackers"},
    "rich": {"commands"},
    "pandas": {"results"},  # Results.to_frame
    "absl": {"__main__"},
    "ml_collections": {"configuration"},
    "matplotlib": {"report"},
    "PIL": {"measures", "data"},  # thumbnails; images in array_record files
    "array_record": {"data"},
    "jinja2": {"report"},
    "markdown_it": {"report"},
    "markupsafe": {"report"},
    "dp_accounting": {"privacy"},
    "jax_privacy": {"privacy"},
    "optax": {"learners", "optimizers", "privacy", "schedules"},
}
WITHOUT_JAX = (
    "checks",
    "threat_model",
    "registry",
    "configuration.fields",
    "configuration.command_line",
    "configuration.settings",
    "configuration.shipped",
    "fitting.logistic",
    "fitting.moments",
    "fitting.rows",
    "trackers",
    "runtime.files",
    "runtime.sealed",
    "runtime.store",
    "metrics",
    "measures.gate",
    "measures.selection",
    "measures.comparison",
    "report",
    "results",
    "selection",
    "commands.gate",
    "commands.compare",
    "commands.watch",
    "runtime.state",
    "commands.render",
    "privacy.mechanism",
    "privacy.accounting",
    "privacy.losses",
    "privacy.risk",
    "privacy.audit",
)


def part(module: str) -> str:
    """mia_jax.attacks.lira -> attacks; a module that has a level of its own is its own part."""
    inside = module.split(".")[1:]
    two_parts = ".".join(inside[:2])
    return two_parts if two_parts in LEVEL else inside[0]


def module_of(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imported(path: pathlib.Path) -> frozenset[str]:
    """The modules that a file imports anywhere, those under `if TYPE_CHECKING` excepted."""
    typing_only = {
        id(node)
        for guard in sources.nodes(path)
        if isinstance(guard, ast.If) and ast.unparse(guard.test).endswith("TYPE_CHECKING")
        for statement in guard.body
        for node in ast.walk(statement)
    }
    imports = set()
    for node in sources.nodes(path):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            imports |= (
                {f"{node.module}.{a.name}" for a in node.names}
                if node.module.split(".")[0] == "mia_jax"
                else {node.module}
            )
    return frozenset(imports)


def own_imports(path: pathlib.Path) -> set[str]:
    return {m for m in imported(path) if m.startswith("mia_jax.")}


INSIDE = [path for path in FILES if module_of(path) != "mia_jax"]


@pytest.mark.parametrize("path", INSIDE, ids=module_of)
def test_imports_point_one_way(path):
    here = part(module_of(path))
    assert here in LEVEL, f"give mia_jax.{here} a level in this test"
    upward = {m for m in own_imports(path) if LEVEL[part(m)] > LEVEL[here]}
    assert not upward, f"{module_of(path)} imports from a higher level: {upward}"


def test_parts_of_a_level_form_no_cycle():
    edges: dict[str, set[str]] = {}
    for path in INSIDE:
        here = part(module_of(path))
        edges.setdefault(here, set()).update({part(m) for m in own_imports(path)} - {here})
    while edges:
        free = {here for here, there in edges.items() if not there & set(edges)}
        assert free, f"cycle among {sorted(edges)}"
        edges = {here: there for here, there in edges.items() if here not in free}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_heavy_libraries_stay_in_their_folder(path):
    here, modules = part(module_of(path) + "."), imported(path)
    for library, parts in ONLY_IN.items():
        used = {m for m in modules if m.split(".")[0] == library}
        assert not used or here in parts, f"{module_of(path)} imports {used}"


@pytest.mark.parametrize("path", sorted((ROOT / "mia_jax" / "attacks").glob("*.py")), ids=module_of)
def test_an_attack_imports_no_other_attack(path):
    for module in own_imports(path):
        if part(module) == "attacks":
            helper = module.split(".")[2]
            assert helper.startswith("_") or helper == "toolkit", (
                f"{module_of(path)} imports {module}; share code in mia_jax/fitting/"
            )
        else:
            assert part(module) in (
                "fitting",
                "metrics",
                "types",
                "checks",
                "threat_model",
                "registry",
            ), f"{module_of(path)} imports {module}"


def fresh(code: str, **environment: str) -> str:
    """Standard output of `code` in a new interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def modules(*prefixes: str) -> list[str]:
    return [
        m
        for m in map(module_of, FILES)
        if any(m == f"mia_jax.{p}" or m.startswith(f"mia_jax.{p}.") for p in prefixes)
    ]


def test_the_package_and_the_host_side_load_no_jax():
    lines = [
        f"import {m}\nassert 'jax' not in sys.modules, '{m} loads jax'"
        for m in ["mia_jax", *modules(*WITHOUT_JAX)]
    ]
    fresh("import sys\n" + "\n".join(lines))


def test_attacks_signals_and_designs_load_neither_flax_nor_tfds_nor_absl():
    names = modules("attacks", "signals", "designs")
    loaded = fresh(
        f"import sys, {', '.join(names)}\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    ).split()
    assert not {
        "flax",
        "tensorflow_datasets",
        "tensorflow",
        "absl",
        "ml_collections",
        "optax",
        "matplotlib",
    } & set(loaded)


def test_no_module_computes_at_import():
    """A platform that does not exist: the first array or device query would fail."""
    fresh(f"import {', '.join(map(module_of, FILES))}", JAX_PLATFORMS="there_is_no_such_platform")


SILENT = ("attacks", "signals", "designs", "metrics", "fitting", "threat_model", "registry")


def test_imports_print_nothing():
    assert fresh(f"import {', '.join(modules(*SILENT))}") == ""
