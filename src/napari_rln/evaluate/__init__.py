"""Evaluation of results: scores, resolution, tables and figures."""
