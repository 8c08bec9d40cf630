"""Runs of methods on images: plan, tiles, workers, results."""
