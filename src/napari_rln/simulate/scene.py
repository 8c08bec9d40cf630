"""Canvas of synthetic objects: geometry, random numbers and compositing."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import Box, FloatArray

Vector = tuple[float, float, float]

_CUBE = 128**3  # volume to which numbers of objects refer


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Geometry, number and brightness of objects, and the random generator.

    All lengths and positions are in lateral voxels, also along z: voxel ``i`` of an axis with
    voxels of size ``s`` extends from ``i * s`` to ``(i + 1) * s``. ``step`` is the distance of the
    canvas's planes, and ``field`` start and end of the field of view along z, y and x. Density and
    brightness are as for :class:`napari_rln.simulate.structures.StructureSettings`.
    """

    shape: tuple[int, int, int]
    step: float
    field: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    density: float
    brightness: tuple[float, float]
    rng: np.random.Generator

    @property
    def steps(self) -> Vector:
        """Size of a voxel (z, y, x), lateral voxels."""
        return (self.step, 1.0, 1.0)

    @property
    def extent(self) -> Vector:
        """Size of the canvas (z, y, x), lateral voxels."""
        z, y, x = self.shape
        return (z * self.step, float(y), float(x))

    @property
    def roomy(self) -> float:
        """Largest radius of a hollow object whose wall is still visible in the field of view."""
        return 0.35 * min(high - low for low, high in self.field[1:])

    def count(self, per_cube: float) -> int:
        """Return the number of objects, at least one, from that per 128 x 128 x 128 voxels."""
        return max(1, round(per_cube * self.density * math.prod(self.extent) / _CUBE))

    def evenly(self, n: int) -> FloatArray:
        """Return (n,) emissions, uniformly distributed as in the reference."""
        return self.rng.uniform(*self.brightness, n).astype(np.float32)

    def lights(self, n: int) -> FloatArray:
        """Return (n,) emissions, log-uniformly distributed."""
        return self.between(*self.brightness, n)

    def between(self, low: float, high: float, n: int) -> FloatArray:
        """Return (n,) log-uniform random numbers."""
        spread = self.rng.uniform(math.log(low), math.log(max(low, high)), n)
        return np.exp(spread).astype(np.float32)

    def one(self, low: float, high: float) -> float:
        """Return one log-uniform random number."""
        return float(self.between(low, high, 1)[0])

    def places(self, n: int) -> FloatArray:
        """Return (n, 3) random positions, the first near the middle of the field of view."""
        places = self.rng.uniform(0, self.extent, (n, 3)).astype(np.float32)
        low, high = np.transpose(self.field)
        places[0] = low + (high - low) * self.rng.uniform(0.3, 0.7, 3)
        return places

    def box(self, centre: npt.ArrayLike, radius: npt.ArrayLike) -> tuple[Box, list[FloatArray]]:
        """Return the part of the canvas within a distance of a point, and its coordinates.

        Point (3,) and distance, scalar or (3,), are in lateral voxels. Slices are empty where the
        part lies outside; the coordinates along z, y and x are relative to the point, shaped for
        broadcasting.
        """
        slices, offsets = [], []
        middle, far = np.broadcast_arrays(np.asarray(centre), np.asarray(radius))
        for axis, (c, r, n, s) in enumerate(
            zip(middle.tolist(), far.tolist(), self.shape, self.steps, strict=True)
        ):
            low = min(n, max(0, math.floor((c - r) / s)))
            high = max(low, min(n, math.ceil((c + r) / s)))
            slices.append(slice(low, high))
            offset = ((np.arange(low, high) + 0.5) * s - c).astype(np.float32)
            offsets.append(offset.reshape([-1 if i == axis else 1 for i in range(3)]))
        return (slices[0], slices[1], slices[2]), offsets

    def smooth_field(self, sigma: float) -> FloatArray:
        """Return a smooth Gaussian random field (Z, Y, X), mean 0 and variance 1.

        ``sigma`` is the standard deviation of the smoothing Gaussian, in lateral voxels.
        """
        # White noise on a grid as coarse as the smoothing allows: three small matrix products.
        weights = []
        for n, s in zip(self.shape, self.steps, strict=True):
            x = (np.arange(n) + 0.5) * s
            nodes = np.arange(-3 * sigma, n * s + 3 * sigma, 0.9 * sigma)
            kernel = np.exp(-0.5 * ((x[:, None] - nodes) / sigma) ** 2)
            kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
            weights.append(kernel.astype(np.float32))
        along_z, along_y, along_x = weights
        size = (along_z.shape[1], along_y.shape[1], along_x.shape[1])
        rows = along_y @ (self.rng.standard_normal(size, dtype=np.float32) @ along_x.T)
        field: FloatArray = (along_z @ rows.reshape(size[0], -1)).reshape(self.shape)
        return field


def soft(depth: FloatArray) -> FloatArray:
    """Return the filled fraction of voxels from the depth of their centres inside the object."""
    filled: FloatArray = np.clip(depth + np.float32(0.5), 0, 1)
    return filled


def overwrite(canvas: FloatArray, part: Box, filled: FloatArray, light: float) -> None:
    """Draw an object over the contents of a part of the canvas."""
    view = canvas[part]
    view += filled * (np.float32(light) - view)


def brighten(canvas: FloatArray, part: Box, light: FloatArray) -> None:
    """Draw the maximum of an object and the contents of a part of the canvas."""
    np.maximum(canvas[part], light, out=canvas[part])
