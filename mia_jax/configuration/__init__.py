"""Config files: their fields, types and defaults, and what is set from outside.

`configuration.complete`, `arguments`, `scores` and the rest of `schema` are loaded on first use, so
that the modules of this folder that read text load no jax.
"""

import importlib

_MODULES = (*("classic", "command_line", "fields", "listing", "overrides", "schema", "settings"),)


def __getattr__(name: str):
    """Returns a function or a table of `configuration.schema`."""
    if name in _MODULES or name.startswith("__"):
        raise AttributeError(f"module 'mia_jax.configuration' has no attribute {name!r}")
    return getattr(importlib.import_module("mia_jax.configuration.schema"), name)
