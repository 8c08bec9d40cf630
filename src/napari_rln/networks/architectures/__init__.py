"""Architectures of networks beside the Richardson-Lucy Network, to compare it with."""
