"""The two kinds of failure: what the user can mend, and what the computation met."""


class RlnError(ValueError):
    """A mistake that the user can mend; the message says what, the limit, and the next step."""


class ComputeError(Exception):
    """The computation itself failed, for instance for want of memory.

    Deliberately no ``RuntimeError``: GUI workers take a ``RuntimeError`` raised in a generator
    for their own deletion and lose it.
    """


class RlnWarning(UserWarning):
    """Something was done that the user should know about, such as clipped voxels."""
