"""The dock that deconvolves and compares."""
