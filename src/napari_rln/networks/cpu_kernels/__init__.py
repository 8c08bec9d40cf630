"""Compiled kernels of the network for CPUs, fenced off from the rest of the package.

Only :mod:`napari_rln.networks.inference` imports from here, where numba is installed (the extra
"fast"). Without numba, or where it cannot compile the kernels, torch computes the same network
there, in a quarter of the speed; it is also the reference that the kernels are tested against.

From the bottom up: :mod:`simd` has the vector operations, :mod:`winograd` one convolution,
:mod:`chain_ends` the first and the last step of a chain of convolutions, :mod:`chain` the chain,
and :mod:`compiled` the network as six chains on several threads.
"""
