"""Foundations of all other subpackages: volumes, records, settings, devices."""
