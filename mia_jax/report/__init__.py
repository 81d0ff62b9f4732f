"""Result rows, tables and figures."""
