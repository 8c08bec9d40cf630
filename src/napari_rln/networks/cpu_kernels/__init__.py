"""Compiled kernels of the network for CPUs."""
