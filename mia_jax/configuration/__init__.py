"""Reads and completes configs: their fields, types and defaults, and overrides of them.

The functions of `schema` (`configuration.complete`, `arguments`, `scores`, ...) are loaded on first
use, so that importing the other modules of this folder does not load jax.
"""

import importlib

_MODULES = ("classic", "command_line", "fields", "listing", "overrides", "schema", "settings")
_MODULES += ("shipped",)


def __getattr__(name: str):
    """Returns a name of `configuration.schema`, which is imported on first use."""
    if name in _MODULES or name.startswith("__"):
        raise AttributeError(f"module 'mia_jax.configuration' has no attribute {name!r}")
    return getattr(importlib.import_module("mia_jax.configuration.schema"), name)
