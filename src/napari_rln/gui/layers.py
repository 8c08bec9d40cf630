"""Conversion between layers and volumes.

Voxel sizes are in micrometres, whatever the unit of a layer, and include its affine transform. A
result layer copies scale, unit, axes, translation, rotation, shear and affine of its source.
"""

import dataclasses
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from napari.layers import Image, Layer
from napari.utils.transforms import Affine
from pint import DimensionalityError

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Shape, Volume, VoxelUm, shape_on
from napari_rln.psf.optics import Optics

LayerData = tuple[Any, dict[str, Any], str]

KEY = "napari-rln"
"""Metadata key of a layer's record."""

CHANNEL = "napari-rln channel"
"""Metadata key of a layer's channel in a file with several."""

SERIES = "napari-rln series"
"""Metadata key of a layer's image in a file with several."""

OPTICS = "napari-rln optics"
"""Metadata key of the optics that a layer's file states, as of :meth:`Optics.as_json`."""

SAVED = "napari-rln saved as"
"""Metadata key of the path of the file that a layer's volume was saved in."""

COMPUTED = "napari-rln computed from the file"
"""Metadata key of a PSF that a run computed for its image; it is not offered for others."""

UNFINISHED = "napari-rln unfinished"
"""Metadata key of a layer whose result is still being computed."""

DISPLAY_ONLY = "napari-rln display only"
"""Metadata key of a layer for display only, such as a preview, which is not an input."""

TIMES, CHANNELS = ("t", "time"), ("c", "channel")
"""Labels of the axes of time points and of channels, in lower case."""

_UM = ("um", "um", "um")
_ZYX = ("z", "y", "x")
_TRANSFORM = ("scale", "units", "translate", "rotate", "shear", "affine")
# Percentile of the upper contrast limit: above most structures, below hot voxels.
_BRIGHTEST = 99.97
_SAMPLE = 250_000  # voxels that contrast limits are computed from


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerImage:
    """One volume of a layer, not read yet, for a background job."""

    layer: Image
    data: Any  # (Z, Y, X) or (Y, X), of any type, in memory or lazy
    voxel_um: VoxelUm  # (z, y, x)
    name: str  # of the layer, with the time point and channel where there are several
    transform: dict[str, Any]  # layer options with the same transform
    indices: dict[str, int] = field(default_factory=dict)  # along the leading axes, by label
    box: tuple[slice, ...] | None = None  # (z, y, x), part of the layer's volume; None for all
    record: Record | None = None  # of the data

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (z, y, x)."""
        z, y, x = (1,) * (3 - self.data.ndim) + tuple(self.data.shape)
        return z, y, x

    def shape_on(self, voxel_um: VoxelUm) -> Shape:
        """Return the number of voxels (z, y, x) after resampling to a voxel size."""
        return shape_on(self, voxel_um)

    @property
    def unlabelled(self) -> list[int]:
        """Lengths of the leading axes without a label."""
        lengths = zip(self.indices, self.layer.data.shape, strict=False)
        return [length for label, length in lengths if _has_no_label(label)]

    @property
    def lateral_transform(self) -> dict[str, Any]:
        """Layer options with the same lateral transform, without the z axis."""
        kept = {name: self.transform[name][-2:] for name in ("scale", "units", "translate")}
        affine = np.asarray(self.transform["affine"])[-3:, -3:]
        return kept | {"axis_labels": self.transform["axis_labels"][-2:], "affine": affine}

    @property
    def key(self) -> Hashable:
        """Identity of the volume."""
        return id(self.layer), *self.indices.items(), *self.voxel_um, str(self.box)

    def read(self) -> Volume:
        """Return the volume, which may take a while: call it in a worker thread."""
        return Volume.from_array(
            np.asarray(self.data), self.voxel_um, name=self.name, record=self.record
        )

    def cropped(self, box: Sequence[slice]) -> "LayerImage":
        """Return the part between slices (z, y, x), which have starts and stops.

        Raises :class:`RlnError` if the layer is rotated or sheared.
        """
        self.check_upright()
        cut = tuple(box)[-self.data.ndim :]
        start = np.array([part.start for part in cut])
        translate = self.transform["translate"] + start * self.transform["scale"]
        return dataclasses.replace(
            self,
            data=self.data[cut],
            transform=self.transform | {"translate": translate},
            name=f"{self.name} (crop)",
            box=tuple(box),
        )

    def on_voxels(self, volume: Volume) -> "LayerImage":
        """Return a volume on another grid with the same corner; errors as in :meth:`cropped`."""
        if volume.shape == self.shape:
            return dataclasses.replace(self, data=volume.data)
        self.check_upright()
        before = self.transform["scale"]
        scale = before * np.divide(volume.voxel_um, self.voxel_um)
        moved = {"scale": scale, "translate": self.transform["translate"] + (scale - before) / 2}
        transform, voxel_um = self.transform | moved, volume.voxel_um
        return dataclasses.replace(self, data=volume.data, voxel_um=voxel_um, transform=transform)

    def check_upright(self) -> None:
        """Raise a :class:`RlnError` if the layer is rotated, sheared or mirrored."""
        linear = _linear(self.layer)
        edges = np.diag(linear)
        if np.any(edges <= 0) or not np.allclose(linear, np.diag(edges), atol=1e-6 * edges.max()):
            raise RlnError(f"{self.name} is rotated or sheared in napari; undo that.")

    @property
    def in_memory(self) -> bool:
        """Whether the data are in memory, neither on disk nor lazy."""
        return isinstance(self.data, np.ndarray) and not isinstance(self.data, np.memmap)

    def layer_of(self, volume: Volume, **options: Any) -> Image:
        """Return a layer of a volume on the same grid, with the same transform."""
        data = volume.data[0] if self.data.ndim == 2 else volume.data
        return Image(
            data, **(self.transform | {"name": volume.name, "metadata": metadata(volume)} | options)
        )

    def result_layer(self, data: Any, **options: Any) -> Image:
        """Return a layer of an array, or pyramid, with the same axes, transform and colours."""
        shown: dict[str, Any] = {
            "colormap": self.layer.colormap,
            "gamma": self.layer.gamma,
            "blending": "additive" if self.layer.blending == "additive" else "translucent",
        }
        return Image(data, **(self.transform | shown | options))


def source_of(layer: Layer, point: Sequence[float]) -> LayerImage:
    """Return the displayed volume of a layer, not read yet.

    Of a multiscale image that is the finest level, of a time series the displayed time point.

    Raises :class:`RlnError` if the layer is not a plane or volume, or its voxel size is unknown.

    ``point`` is the position of the viewer's sliders in world coordinates.
    """
    check_kind(layer)
    data, before = displayed_data(layer, point)
    if data.ndim < 2 or 0 in data.shape:
        raise RlnError(f"{layer.name} has shape {tuple(data.shape)}; choose a plane or a stack.")
    voxel_um = voxel_um_of(layer)
    if voxel_um is None:
        raise RlnError(
            f"the voxel size of {layer.name} is unknown; choose the layer as the image or PSF on "
            "the page Deconvolve, and type it there."
        )
    indices = dict(zip(layer.axis_labels, before, strict=False))
    place = ", ".join(_place(label, i, indices) for label, i in indices.items())
    name = f"{layer.name} {place}" if place else layer.name
    transform = _transform_of(layer, before)
    return LayerImage(
        layer=layer,
        data=data,
        voxel_um=voxel_um,
        name=name,
        transform=transform,
        indices=indices,
        record=record_of(layer),
    )


def check_kind(layer: Layer) -> None:
    """Raise a :class:`RlnError` if a layer is no image, or one in colours."""
    if not isinstance(layer, Image):
        raise RlnError(f"{layer.name} is a {type(layer).__name__} layer; choose an image layer.")
    if layer.rgb:
        raise RlnError(
            f"{layer.name} is an RGB image; split it into its channels (right click on the layer) "
            "and choose one."
        )


def _place(label: str, index: int, indices: Collection[str]) -> str:
    """Return an index on a leading axis in words."""
    if label.lower() in CHANNELS:
        return f"channel {index}"
    if label.lower() in TIMES or (len(indices) == 1 and _has_no_label(label)):
        return f"t={index}"
    return f"axis {label.lstrip('-')}={index}" if _has_no_label(label) else f"{label}={index}"


def _has_no_label(label: str) -> bool:
    """Return whether a label is napari's number of an axis without one."""
    return label.startswith("-")


def displayed_data(layer: Image, point: Sequence[float]) -> tuple[Any, tuple[int, ...]]:
    """Return displayed data, (Z, Y, X) or (Y, X), and the indices along the leading axes.

    Of a multiscale image that is the finest level; ``point`` is as for :func:`source_of`.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    if hasattr(data, "chunks") and not hasattr(data, "dask"):  # Zarr and HDF5 read when indexed
        data = da.from_array(data)  # type: ignore[no-untyped-call]
    if data.ndim <= 3:
        return data, ()
    index = np.rint(layer.world_to_data(point)).astype(int)[: data.ndim - 3]
    indices = tuple(int(np.clip(i, 0, n - 1)) for i, n in zip(index, data.shape, strict=False))
    return data[indices], indices


def voxel_um_of(layer: Layer) -> VoxelUm | None:
    """Return a layer's voxel size (z, y, x) in micrometres; None without a unit of length.

    Of a rotated or sheared layer these are the lengths of the voxels' edges.
    """
    units = units_um(layer.units)
    return None if units is None else zyx_sizes(edges_of(layer, units))


def zyx_sizes(sizes: Sequence[float] | npt.NDArray[np.float64]) -> VoxelUm:
    """Return sizes (z, y, x); a plane, whose depth has no effect, gets that of y for z."""
    *z, y, x = (float(size) for size in sizes)
    return (z[0] if z else y), y, x


def edges_of(layer: Layer, units: npt.ArrayLike = 1.0) -> npt.NDArray[np.float64]:
    """Return the lengths of the edges of a layer's voxels along its last three, or two, axes.

    ``units`` are the sizes of these axes' units, in the unit of the result.
    """
    edges = np.asarray(_linear(layer) * np.reshape(units, (-1, 1)))
    lengths = np.linalg.norm(edges, axis=0)
    upright = np.count_nonzero(edges, axis=0) == 1  # whose sum is exact
    return np.where(upright, np.abs(edges).sum(axis=0), lengths)


def _linear(layer: Layer) -> npt.NDArray[np.float64]:
    """Return the matrix from data to world coordinates of the last three, or two, axes."""
    n = min(layer.ndim, 3)
    own = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim)
    return np.asarray(layer.affine.linear_matrix @ own.linear_matrix)[-n:, -n:]


def units_um(units: Sequence[Any] | None) -> npt.NDArray[np.float64] | None:
    """Return the last three units of a layer or viewer in micrometres.

    None if they are not lengths, or the layers of a viewer have no common unit.
    """
    if not units:
        return None
    try:
        return np.array([float((1 * unit).to("um").magnitude) for unit in units[-3:]])
    except DimensionalityError:
        return None


def set_voxel_um(layer: Layer, voxel_um: VoxelUm) -> None:
    """Set a layer's voxel size (z, y, x), micrometres; its translation in voxels stays."""
    n = min(layer.ndim, 3)
    stretched = edges_of(layer) / layer.scale[-n:]  # scale of the affine
    scale = (*layer.scale[:-n], *np.divide(voxel_um[-n:], stretched))
    translate = layer.translate / layer.scale * scale
    layer.units = (*layer.units[:-n], *_UM[-n:])
    layer.scale, layer.translate = scale, translate


def record_of(layer: Layer) -> Record | None:
    """Return the record of a layer; None without one."""
    try:
        return Record.from_dict(layer.metadata[KEY])
    except (KeyError, ValueError):  # missing, or another program's
        return None


def optics_of(layer: Layer) -> Optics | None:
    """Return the optics that a layer's file states; None if it states none."""
    try:
        return Optics.from_json(layer.metadata[OPTICS])
    except (KeyError, RlnError):  # missing, or another version's
        return None


def is_image(layer: Layer) -> bool:
    """Return whether a layer is an image that may be an input."""
    return isinstance(layer, Image) and DISPLAY_ONLY not in layer.metadata


def is_psf(layer: Layer) -> bool:
    """Return whether a layer is a PSF, by its record or its name."""
    record = record_of(layer)
    made = record is not None and record.method.startswith("psf")
    return is_image(layer) and (made or names_psf(layer.name))


def names_psf(name: str) -> bool:
    """Return whether a name says that a layer or file is a PSF."""
    return "psf" in name.lower()


def is_raw(layer: Layer) -> bool:
    """Return whether a layer is an image to deconvolve: neither PSF, result nor ground truth."""
    record = record_of(layer)
    made = UNFINISHED in layer.metadata
    if record is not None:
        made = record.method != "simulate" or layer.name.endswith("truth")
    return is_image(layer) and not made and not is_psf(layer)


def metadata(volume: Volume) -> dict[str, Any]:
    """Return the metadata of a volume's layer."""
    return {KEY: volume.record.as_dict()} if volume.record else {}


def layer_data(volume: Volume, **options: Any) -> LayerData:
    """Return the layer data of a volume, as napari's readers do."""
    shown = {
        "name": volume.name,
        "scale": volume.voxel_um,
        "units": _UM,
        "axis_labels": _ZYX,
        "metadata": metadata(volume),
        "contrast_limits": contrast_limits([volume.data]),
    }
    return volume.data, shown | options, "image"


def contrast_limits(arrays: Iterable[npt.NDArray[Any]]) -> tuple[float, float]:
    """Return common contrast limits of several arrays."""
    lows, highs = [], []
    for array in arrays:
        flat = array.reshape(-1)
        some = flat[:: max(1, flat.size // _SAMPLE)]
        lows.append(float(some.min()))
        highs.append(float(np.percentile(some, _BRIGHTEST)))
    low, high = min(lows), max(highs)
    return low, high if high > low else low + 1.0


def _transform_of(layer: Image, indices: Sequence[int]) -> dict[str, Any]:
    """Return layer options with the transform of the last axes, at indices of the leading ones."""
    n = min(layer.ndim, 3)
    labels = _ZYX[-n:] if layer.ndim > n else layer.axis_labels
    if layer.ndim == n:
        transform = {name: getattr(layer, name) for name in _TRANSFORM}
        return transform | {"axis_labels": labels, "affine": layer.affine.affine_matrix}
    transform = {name: getattr(layer, name)[-n:] for name in ("scale", "units", "translate")}
    # The affine includes rotation and shear.
    affine = np.eye(n + 1)
    affine[:-1, :-1] = _linear(layer) / transform["scale"]
    corner = np.array(layer.data_to_world((*indices, *np.zeros(n))))[-n:]
    affine[:-1, -1] = corner - affine[:-1, :-1] @ transform["translate"]
    return transform | {"axis_labels": labels, "affine": affine}
