"""Per-example losses, one file each with make(...) -> Loss; never reduced."""
