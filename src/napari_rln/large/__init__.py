"""Volumes larger than memory: planned, divided among workers, resumed after interruptions."""
