"""The paths of a workdir are spelled in runtime/store.py alone, the config ends in the build, and
membership is cut to the targets in one place.

The tests read the syntax trees of the package.
"""

import ast
import pathlib

from tests import sources

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "mia_jax"
STORE = "runtime/store.py"
# files that join paths of something else than a workdir
OTHER_PATHS = {
    "results.py": "Results.plot writes figures into a folder that the user chose",
    "external/arrays.py": "the layout of LiRA's released code, which is read and never written",
    "configuration/shipped.py": "the folder of the shipped configs",
    "commands/__init__.py": "the files of the subcommands",
    "runtime/accelerators.py": "/proc and /dev",
    "__main__.py": "the cache of compiled programs in the user's home, and .venv of a checkout",
    "training/memory.py": "/proc and cgroups",
}
FILES = {
    "config.json",
    "run.json",
    "metrics.jsonl",
    "membership.npz",
    "plan.json",
    "inputs.json",
    "scores.npz",
    "report.json",
    "report.html",
    "report.md",
    "results.csv",
    "table.tex",
    "records.csv",
    "records.npz",
    "epochs.csv",
    "evidence.npz",
    "unanswered.npz",
}
BELOW_BUILD = ("pipeline", "query", "training", "measures", "report", "runtime")
# where configs live: they build an experiment, run it or say what it takes, and claim its folder
BUILDS = (
    "pipeline/build.py",
    "pipeline/run.py",
    "pipeline/estimate.py",
    "pipeline/miniature.py",
    "pipeline/place.py",
    "pipeline/grid.py",
)
CUTS = {
    "types.py": "Design.of_targets is the place",
    "measures/two_audits.py": "reads the arrays of design/membership.npz, when no Design is there",
    "external/design.py": "no Design is there yet: it asks whether the counts of shadows tell",
    "metrics/membership.py": "checks plain arrays, of which a design may be made",
}


def trees(*folders: str):
    """Yields (path below the package, syntax tree) of every module, or of those in folders."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not folders or name.split("/")[0] in folders:
            yield name, sources.tree(path)


def is_text(node: ast.AST) -> bool:
    """Whether an expression is a text or an f-string."""
    if isinstance(node, ast.JoinedStr):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def joined_paths(tree: ast.AST):
    """Yields `folder / "name"` and `folder / f"{m:05d}.npz"`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            if is_text(node.left) or is_text(node.right):
                yield node


def test_paths_of_a_workdir_are_spelled_in_the_store():
    spelled = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, tree in trees()
        if name not in (STORE, *OTHER_PATHS)
        for node in joined_paths(tree)
    ]
    assert not spelled, spelled


def test_names_of_files_of_a_workdir_are_spelled_in_the_store():
    spelled = [
        f"{name}:{node.lineno}: {node.value}"
        for name, tree in trees()
        if name not in (STORE, "runtime/files.py")  # which has the name of the claim
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in FILES
    ]
    assert not spelled, spelled


def test_no_function_below_the_build_takes_a_config_or_the_whole_experiment():
    taking = []
    for name, tree in trees(*BELOW_BUILD):
        if name in BUILDS:
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            for argument in arguments:
                kind = ast.unparse(argument.annotation) if argument.annotation else ""
                # `audit` in a section of the report is that part of report.json about epsilon
                words = ("config", "experiment") + ("audit",) * (not name.startswith("report/"))
                named = argument.arg in words
                if named or "Experiment" in kind or "ConfigDict" in kind:
                    taking.append(f"{name}:{node.lineno}: {node.name}({argument.arg}: {kind})")
    assert not taking, taking


def test_membership_is_cut_to_the_targets_in_one_place():
    cut = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, tree in trees()
        if name not in CUTS
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and ast.unparse(node.value).endswith(("member_MN", "evaluated_MN"))
        and "targets" in ast.unparse(node.slice)
    ]
    assert not cut, cut
