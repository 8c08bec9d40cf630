"""How good a result is: scores, resolution, tables and figures."""
