"""The configs that come with mia_jax, chosen by name from any folder: 'quickstart', 'zoo/lenet'.

A wheel has them as mia_jax.configs, a checkout in configs/ next to the package.
"""

from __future__ import annotations

import pathlib

Path = pathlib.Path
PACKAGE = Path(__file__).resolve().parents[1]


def folder(package: Path = PACKAGE) -> Path:
    """Returns the folder of the shipped configs, of an installed package or of a checkout."""
    installed = package.joinpath("configs")
    return installed if installed.is_dir() else package.parent.joinpath("configs")


def names() -> tuple[str, ...]:
    """Returns the names of all shipped configs, sorted.

    >>> 'quickstart' in names() and 'zoo/lenet' in names()
    True
    """
    return tuple(
        sorted(
            path.relative_to(folder()).with_suffix("").as_posix()
            for path in folder().rglob("*.py")
            if not path.stem.startswith("_")
        )
    )


def path_of(name: str) -> Path | None:
    """Returns the file of a shipped config, or None if there is none of that name.

    >>> path_of('zoo/lenet').name, path_of('lenet')
    ('lenet.py', None)
    """
    return folder() / f"{name}.py" if name in names() else None


def is_shipped(path: Path) -> bool:
    """Returns whether a file is one of the shipped configs."""
    return folder() in path.resolve().parents
