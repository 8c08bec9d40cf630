"""The volume: input and output of every processing step.

Data are (Z, Y, X) float32, C-contiguous, finite; a single plane is a volume with Z = 1. Voxel sizes
are (z, y, x) in micrometres. Channels and time points are not axes of a volume: they are chosen
when a file is read, and processed one volume at a time.
A point spread function (PSF) is a volume too, with non-negative data that sum to 1 and its centre
on voxel ``n // 2`` of every axis.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record, array_hash

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Shape = tuple[int, int, int]
VoxelUm = tuple[float, float, float]

Box = tuple[slice, slice, slice]
"""Part (z, y, x) of a volume, with starts and stops."""

LARGEST_VOXEL_UM = 25.0
"""Largest accepted voxel size along any axis, micrometres."""

UNUSUAL_VOXEL_UM = 5.0
"""Voxel size above which a mistake is likely and a warning is issued, micrometres."""


class OnGrid(Protocol):
    """Protocol of data with voxels: a volume, or a lazy image."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (z, y, x)."""

    @property
    def voxel_um(self) -> VoxelUm:
        """Voxel size (z, y, x) in micrometres."""

    @property
    def name(self) -> str:
        """Name in messages."""


class ImageLike(OnGrid, Protocol):
    """Protocol of volumes of one channel that are read by boxes."""

    @property
    def times(self) -> int:
        """Number of volumes."""

    @property
    def fill(self) -> float | None:
        """Value of unmeasured voxels, where there are any."""

    def read(self, box: Box, time: int = 0) -> FloatArray:
        """Return a part of a volume, (z, y, x) float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """One volume with its voxel size and record.

    Attributes
    ----------
    data
        (Z, Y, X) float32, finite.
    voxel_um
        Voxel size (z, y, x) in micrometres.
    name
        Name in tables, figures and layers.
    record
        Record of the processing; None for raw data of a microscope.
    fill
        Value of unmeasured voxels, where there are any: planes or chunks that are missing in the
        file, for instance.
    """

    data: FloatArray
    voxel_um: VoxelUm
    name: str = "volume"
    record: Record | None = None
    fill: float | None = None

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or self.data.dtype != np.float32:
            raise RlnError(
                f"{self.name} is {self.data.dtype} of shape {self.data.shape}; a volume is "
                "float32 (Z, Y, X): make it with Volume.from_array."
            )
        check_voxel_um(self.voxel_um, self.name)
        z, y, x = (float(v) for v in self.voxel_um)  # of arrays and numpy's numbers too
        object.__setattr__(self, "voxel_um", (z, y, x))

    @classmethod
    def from_array(
        cls,
        array: npt.ArrayLike,
        voxel_um: VoxelUm,
        *,
        name: str = "volume",
        record: Record | None = None,
    ) -> Self:
        """Return a volume from any real 2D (Y, X) or 3D (Z, Y, X) array of any type and byte order.

        Parameters
        ----------
        array
            (Z, Y, X) or (Y, X), integers, floats or booleans; not modified.
        voxel_um
            Voxel size (z, y, x) in micrometres.
        name
            Name in messages and results.
        record
            Record of the processing.

        Raises
        ------
        RlnError
            If the array is empty, complex, not 2D or 3D, or holds NaN or infinities.
        """
        data = np.asarray(array)
        if data.ndim not in (2, 3):
            raise RlnError(
                f"{name} has {data.ndim} axes (shape {data.shape}); choose one channel and time "
                "point so that (Z, Y, X) or (Y, X) remains."
            )
        if data.size == 0:
            raise RlnError(f"{name} is empty: its shape is {data.shape}.")
        if data.dtype.kind not in "buif":
            raise RlnError(f"{name} is of type {data.dtype}; it must be integer or float.")
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported as infinite
            data = np.ascontiguousarray(data if data.ndim == 3 else data[None], dtype=np.float32)
        check_finite(data, name)
        return cls(data=data, voxel_um=voxel_um, name=name, record=record)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (z, y, x)."""
        return self.data.shape

    @property
    def times(self) -> int:
        """Number of volumes: one."""
        return 1

    def read(self, box: Box, time: int = 0) -> FloatArray:
        """Return a part of the volume, (z, y, x) float32, without a copy."""
        return self.data[box]

    @property
    def hash(self) -> str:
        """Hash of the values, which identifies the volume in a record."""
        return array_hash(self.data)

    def with_data(self, data: FloatArray, **changes: Any) -> Self:
        """Return a copy with other data and, where named, other fields."""
        return replace(self, data=np.ascontiguousarray(data, dtype=np.float32), **changes)


def check_finite(data: npt.NDArray[Any], name: str) -> None:
    """Raise an RlnError if an array contains NaN or infinities."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = data.sum(dtype=np.float64)  # one pass, no second array: enough for most
    if np.isfinite(total):
        return
    bad = ~np.isfinite(data)
    if not bad.any():  # finite values whose sum overflowed
        return
    first = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), data.shape))
    raise RlnError(
        f"{name} holds {int(bad.sum())} of {data.size} voxels that are NaN or infinite in float32, "
        f"the first at {first}; replace them, for instance by the median of their neighbours."
    )


def check_voxel_um(voxel_um: VoxelUm, name: str) -> None:
    """Raise an RlnError unless a voxel size is three positive, plausible lengths in micrometres.

    No microscope for deconvolution has voxels above 25 um: such numbers are nanometres, or the dots
    per inch of a printer.
    """
    sizes = tuple(map(float, voxel_um))
    if len(sizes) != 3 or not all(0 < v < math.inf for v in sizes):
        raise RlnError(
            f"{name} has voxel size {sizes} um; give three positive numbers (z y x) in micrometres."
        )
    if max(sizes) > LARGEST_VOXEL_UM:
        large = [v for v in sizes if v > LARGEST_VOXEL_UM]
        hint = (
            "did you mean " + " ".join(f"{v / 1000:g}" for v in large)
            + f" ({' '.join(f'{v:g}' for v in large)} nm)?"
            if max(large) <= 5000
            else "that is a printing resolution, not a microscope's; give the true one."
        )  # fmt: skip
        raise RlnError(
            f"{name} has voxel size {' '.join(f'{v:g}' for v in sizes)} um (z y x); {hint} Voxel "
            f"sizes are in micrometres, each at most {LARGEST_VOXEL_UM:g}."
        )


def voxel_um_problem(voxel_um: VoxelUm) -> str:
    """Return why a voxel size (z, y, x) in micrometres is likely wrong; empty if it is plausible.

    Voxels above 5 um are mostly the camera's pixels without the magnification, and pixels that are
    not square are rare.
    """
    z, y, x = voxel_um
    if max(y, x) > UNUSUAL_VOXEL_UM:
        return (
            f"pixels of {y:g} x {x:g} um (y x) are large for a microscope: the camera's pixels "
            "have to be divided by the magnification"
        )
    if z > UNUSUAL_VOXEL_UM:
        return f"a step of {z:g} um along z is large for a microscope"
    if not math.isclose(y, x, rel_tol=0.1):
        return f"pixels of {y:g} x {x:g} um (y x) are not square"
    return ""


def same_grid(a: VoxelUm, b: VoxelUm, tolerance: float = 0.01) -> bool:
    """Tell whether two voxel sizes (z, y, x) agree within a relative tolerance on every axis."""
    return all(abs(p - q) <= tolerance * q for p, q in zip(a, b, strict=True))


def check_on_grid(volume: OnGrid, image: OnGrid) -> None:
    """Raise an RlnError unless a volume, such as a result, has an image's shape and voxel size."""
    if volume.shape != image.shape:
        raise RlnError(
            f"{volume.name} is {volume.shape} but the image {image.name} is {image.shape}; crop or "
            "resample it to the image's shape."
        )
    if not same_grid(volume.voxel_um, image.voxel_um):
        raise RlnError(voxel_message(volume, image, "correct the one that is wrong"))


def voxel_message(volume: OnGrid, image: OnGrid, advice: str) -> str:
    """Return the sentence on two voxel sizes that differ."""
    return (
        f"{volume.name} has voxel size {volume.voxel_um} um but the image {image.name} has "
        f"{image.voxel_um} um (z, y, x); {advice}."
    )


def on_one_grid(psf: OnGrid, image: OnGrid) -> bool:
    """Tell whether a PSF has the voxels of an image; the depth of a 2D PSF does not count."""
    depth = image.voxel_um[0] if psf.shape[0] == 1 else psf.voxel_um[0]
    return same_grid((depth, *psf.voxel_um[1:]), image.voxel_um)


def shape_on(data: OnGrid, voxel_um: VoxelUm) -> Shape:
    """Return the number of voxels (z, y, x) of data on other voxels; one plane stays one."""
    sizes = zip(data.shape, data.voxel_um, voxel_um, strict=True)
    z, y, x = (n if n == 1 else max(1, round(n * own / new)) for n, own, new in sizes)
    return z, y, x
