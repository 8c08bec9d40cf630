"""What is found in a file or folder before any of its values are read."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from napari_rln.record import Record
from napari_rln.volume import VoxelUm


class Lazy(Protocol):
    """An array whose values are read when it is indexed: zarr's, numpy's memory maps, dask's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""

    def __getitem__(self, index: Any, /) -> Any:
        """Read a part."""


class Held(NamedTuple):
    """An image on disk.

    Attributes
    ----------
    array
        Its values.
    axes
        A letter for each axis.
    voxel_um
        Voxel size (z, y, x) in micrometres, where it says it.
    name
        What to call it.
    record
        How it was made, where napari-rln made it.
    """

    array: Lazy
    axes: str
    voxel_um: VoxelUm | None
    name: str
    record: Record | None = None
