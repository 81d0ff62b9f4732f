"""The packages of the wheel; everything else is in pyproject.toml.

There is no list to update: the wheel has the folders of mia_jax, and as mia_jax.configs the
configs, which a checkout keeps next to the package.
"""

from setuptools import find_namespace_packages, setup


def folders(name: str) -> list[str]:
    """Returns the dotted names of a folder and of those within it."""
    return find_namespace_packages(include=[name, f"{name}.*"], exclude=["*.__pycache__"])


setup(
    packages=folders("mia_jax") + [f"mia_jax.{name}" for name in folders("configs")],
    package_dir={"mia_jax.configs": "configs"},
)
