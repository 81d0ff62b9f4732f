"""Contains the per-example losses, one file each with make(...) -> Loss; they are never reduced."""
