"""Synthetic solids, membranes, nuclei, pollen and haze.

Lengths are in lateral voxels, also along z. Edges are one voxel soft, so that objects between two
planes are not lost. Sizes and numbers of the kinds of the reference are those of the reference, per
128 x 128 x 128 voxels. Structures are drawn in place.
"""

import math
from collections.abc import Sequence

import numpy as np

from napari_rln.core.volume import FloatArray
from napari_rln.simulate.scene import Scene, brighten, overwrite, soft


def _cuboids(canvas: FloatArray, scene: Scene, limits: Sequence[Sequence[int]]) -> None:
    """Draw axis-aligned boxes of random integer sizes between inclusive limits per axis."""
    n = scene.count(50)
    low, high = np.transpose(limits)
    sizes = scene.rng.integers(low, high, (n, 3), endpoint=True).astype(np.float32)
    for centre, half, light in zip(scene.places(n), sizes / 2, scene.evenly(n), strict=True):
        part, offsets = scene.box(centre, half + 1)
        z, y, x = (
            np.clip((h - np.abs(offset)) / s + 0.5, 0, 1)
            for h, offset, s in zip(half, offsets, scene.steps, strict=True)
        )
        overwrite(canvas, part, z * y * x, light)


def dots(canvas: FloatArray, scene: Scene) -> None:
    """Draw cubes of two voxels."""
    _cuboids(canvas, scene, [(2, 2)] * 3)


def rods(canvas: FloatArray, scene: Scene) -> None:
    """Draw rods along each of the axes."""
    for axis in range(3):
        _cuboids(canvas, scene, [(2, 10) if i == axis else (2, 2) for i in range(3)])


def plates(canvas: FloatArray, scene: Scene) -> None:
    """Draw plates across each of the axes."""
    for axis in range(3):
        _cuboids(canvas, scene, [(2, 2) if i == axis else (2, 10) for i in range(3)])


def boxes(canvas: FloatArray, scene: Scene) -> None:
    """Draw small boxes."""
    _cuboids(canvas, scene, [(2, 6)] * 3)


def spheres(canvas: FloatArray, scene: Scene) -> None:
    """Draw solid spheres."""
    n = scene.count(100)
    radii = scene.rng.uniform(4, 7, n).astype(np.float32)
    for centre, radius, light in zip(scene.places(n), radii, scene.evenly(n), strict=True):
        part, (z, y, x) = scene.box(centre, radius + 1)
        overwrite(canvas, part, soft(radius - np.sqrt(z * z + y * y + x * x)), light)


def shells(canvas: FloatArray, scene: Scene) -> None:
    """Draw hollow axis-aligned ellipsoids."""
    n = scene.count(100)
    axes = scene.rng.uniform(4, 7, (n, 3)).astype(np.float32)
    for centre, (a, b, c), light in zip(scene.places(n), axes, scene.evenly(n), strict=True):
        part, (z, y, x) = scene.box(centre, np.array((a, b, c)) * 1.2 + 1)
        radius = np.sqrt((z / a) ** 2 + (y / b) ** 2 + (x / c) ** 2)
        mean = (a + b + c) / 3
        wall = np.minimum(np.float32(1.3**0.5) - radius, radius - np.float32(0.8**0.5))
        overwrite(canvas, part, soft(wall * mean), light)


def _ellipsoid_matrix(scene: Scene, radius: float, flat: float) -> FloatArray:
    """Return the matrix (3, 3) from offsets (z, y, x) to the unit sphere of an ellipsoid."""
    angle = scene.rng.uniform(0, math.pi)
    tilt = scene.rng.uniform(-0.4, 0.4)
    a, b = scene.rng.uniform(0.75, 1.3, 2)
    about_z = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)],
                        [0, math.sin(angle), math.cos(angle)]])  # fmt: skip
    about_x = np.array([[math.cos(tilt), -math.sin(tilt), 0],
                        [math.sin(tilt), math.cos(tilt), 0], [0, 0, 1]])  # fmt: skip
    stretch = np.diag([1 / (radius * flat), 1 / (radius * a), 1 / (radius * b)])
    matrix: FloatArray = (stretch @ about_x @ about_z).astype(np.float32)
    return matrix


def _transformed(matrix: FloatArray, offsets: list[FloatArray]) -> list[FloatArray]:
    """Return transformed coordinates from broadcastable offsets along z, y and x."""
    z, y, x = offsets
    return [row[0] * z + row[1] * y + row[2] * x for row in matrix]


def nuclei(canvas: FloatArray, scene: Scene) -> None:
    """Draw large smooth bodies with grainy chromatin and dim nucleoli."""
    rng, n = scene.rng, scene.count(8)
    radii = scene.between(8, min(26, 3 * scene.roomy), n)
    flats = rng.uniform(0.45, 1.1, n)
    wobble = scene.smooth_field(9) * np.float32(rng.uniform(0.05, 0.16))
    grain = scene.smooth_field(scene.one(1.2, 3.5))
    contrast, rim = np.float32(rng.uniform(0.15, 0.8)), np.float32(rng.choice([0.0, 0.7]))
    for centre, radius, flat, light in zip(
        scene.places(n), radii, flats, scene.lights(n), strict=True
    ):
        part, offsets = scene.box(centre, 1.6 * radius * np.array([max(0.7, flat), 1, 1]))
        a, b, c = _transformed(_ellipsoid_matrix(scene, radius, flat), offsets)
        depth = (1 - np.sqrt(a * a + b * b + c * c) - wobble[part]) * np.float32(radius * flat)
        chromatin = np.exp(contrast * np.minimum(grain[part], 2))
        if rim:
            chromatin += rim * np.exp(-np.square(depth * np.float32(0.5)))
        brighten(canvas, part, soft(depth) * chromatin * np.float32(light * 0.6))
        for _ in range(rng.integers(0, 4)):
            size = radius * rng.uniform(0.12, 0.28)
            aside = rng.uniform(-0.45, 0.45, 3) * radius * np.array([flat, 1, 1])
            hole, (z, y, x) = scene.box(centre + aside, size + 1)
            inside = soft(np.float32(size) - np.sqrt(z * z + y * y + x * x))
            canvas[hole] *= 1 - np.float32(rng.uniform(0.5, 0.9)) * inside


def sheets(canvas: FloatArray, scene: Scene) -> None:
    """Draw membranes: curved sheets through the whole volume, or outlines of cells."""
    kinds = [(_folds,), (_cells,), (_tissue,), (_folds, _cells)]
    for kind in kinds[scene.rng.integers(len(kinds))]:
        kind(canvas, scene)


def _folds(canvas: FloatArray, scene: Scene) -> None:
    """Draw an isosurface of a smooth random field, through a point in the field of view."""
    sigma = scene.one(7, 22) / scene.density ** (1 / 3)
    thick = scene.one(0.7, 3.0)
    height, veil = scene.smooth_field(sigma), scene.smooth_field(scene.one(5, 20))
    anchor = tuple((scene.places(1)[0] / scene.steps).astype(int))
    height -= height[anchor]
    veil -= veil[anchor]
    flat = np.flatnonzero(np.abs(height) < 2.0 * (thick + 1) / sigma)
    index = np.unravel_index(flat, scene.shape)
    squared = np.zeros(len(flat), np.float32)
    for axis, (n, s) in enumerate(zip(scene.shape, scene.steps, strict=True)):
        after, before = list(index), list(index)
        after[axis] = np.minimum(index[axis] + 1, n - 1)
        before[axis] = np.maximum(index[axis] - 1, 0)
        span = np.maximum(after[axis] - before[axis], 1).astype(np.float32) * np.float32(s)
        squared += ((height[tuple(after)] - height[tuple(before)]) / span) ** 2
    slope = np.sqrt(np.maximum(squared, np.float32((0.3 / sigma) ** 2)))
    away = (np.abs(height.ravel()[flat]) / slope).astype(np.float32)
    light = soft(np.float32(thick / 2) - away)
    light *= np.exp(0.4 * np.clip(veil.ravel()[flat], -3, 2)) * scene.lights(1)
    if scene.rng.random() < 0.5:  # torn, with edges
        light *= np.clip(3 * veil.ravel()[flat] + 2, 0, 1)
    canvas.ravel()[flat] += light


def _cells(canvas: FloatArray, scene: Scene) -> None:
    """Draw closed outlines, some with a dim interior."""
    rng, n = scene.rng, scene.count(10)
    radii = scene.between(6, min(28, scene.roomy), n)
    wobble = scene.smooth_field(10) * np.float32(rng.uniform(0.05, 0.2))
    thick, fill = np.float32(scene.one(0.7, 2.5)), np.float32(rng.choice([0.0, rng.random() / 4]))
    for centre, radius, light in zip(scene.places(n), radii, scene.lights(n), strict=True):
        part, offsets = scene.box(centre, 1.6 * radius)
        a, b, c = _transformed(_ellipsoid_matrix(scene, radius, rng.uniform(0.7, 1.2)), offsets)
        depth = (1 - np.sqrt(a * a + b * b + c * c) - wobble[part]) * np.float32(radius)
        outline = soft(thick / 2 - np.abs(depth)) + fill * soft(depth)
        canvas[part] += outline * np.float32(light)


def _tissue(canvas: FloatArray, scene: Scene) -> None:
    """Draw the walls between space-filling cells, rounded where they have no neighbour."""
    size = scene.one(8, max(10, min(30, scene.roomy))) / min(1.0, scene.density) ** (1 / 3)
    n = max(2, round(math.prod(scene.extent) / size**3))
    first, second = (np.full(scene.shape, size, np.float32) for _ in range(2))
    for centre in scene.places(n):
        part, (z, y, x) = scene.box(centre, size)
        distance = np.sqrt(z * z + y * y + x * x)
        nearest, next_nearest = first[part], second[part]
        np.minimum(next_nearest, np.maximum(nearest, distance), out=next_nearest)
        np.minimum(nearest, distance, out=nearest)
    wall = soft(np.float32(scene.one(0.7, 2.5) / 2) - (second - first) * np.float32(0.5))
    veil = np.exp(0.4 * np.clip(scene.smooth_field(size), -3, 2))
    canvas += wall * (first < size) * veil * scene.lights(1)


def haze(canvas: FloatArray, scene: Scene) -> None:
    """Draw a few large clouds, above and below the field of view where there is room."""
    rng, n = scene.rng, int(scene.rng.integers(1, 5))
    (low, high), depth = scene.field[0], scene.extent[0]
    margins = np.array([low, depth - high])
    clouds = np.exp(0.6 * np.clip(scene.smooth_field(scene.one(4, 12)), -3, 2))
    for centre, light in zip(scene.places(n), scene.lights(n), strict=True):
        if margins.sum() > 0:
            above = rng.random() * margins.sum() > margins[0]
            margin = margins[int(above)]
        else:  # no margin: at the ends of the field of view
            above, margin = rng.random() < 0.5, max(0.25 * (high - low), 2 * scene.step)
        sigma = scene.one(min(3, margin / 2), min(margin / 2, 20))
        out = min(margin, sigma * rng.uniform(0.7, 2.5))
        edge = (high, low) if margins.sum() > 0 else (depth - margin, margin)
        middle = edge[0] + out if above else edge[1] - out
        wide = scene.between(8, 40, 2)
        part, (z, y, x) = scene.box((middle, *centre[1:]), 4 * np.array([sigma, *wide]))
        profiles = (
            np.exp(-0.5 * (o / w) ** 2) for o, w in ((z, sigma), (y, wide[0]), (x, wide[1]))
        )
        blob = math.prod(profiles, start=np.float32(light * rng.uniform(0.3, 1.5)))
        canvas[part] += blob * clouds[part]


def bars(canvas: FloatArray, scene: Scene) -> None:
    """Draw hollow bars of rectangular section in any orientation, open or closed at the ends."""
    rng, n = scene.rng, scene.count(12)
    walls = scene.between(1.2, 3.0, n)
    for centre, wall, light in zip(scene.places(n), walls, scene.lights(n), strict=True):
        half: FloatArray = np.array([rng.uniform(15, 45), *rng.uniform(4, 8, 2)], np.float32)
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
        part, offsets = scene.box(centre, np.abs(rotation.T) @ half + 1)
        along, a, b = (
            h - np.abs(o) for h, o in zip(half, _transformed(rotation, offsets), strict=True)
        )  # fmt: skip
        across = np.minimum(a, b)
        outer = np.minimum(across, along)
        inner = outer if rng.random() < 0.5 else across
        brighten(canvas, part, (soft(outer) - soft(inner - wall)).clip(0) * np.float32(light))


def pollen(canvas: FloatArray, scene: Scene) -> None:
    """Draw closed round walls with spikes or ridges, dim inside."""
    rng, n = scene.rng, scene.count(scene.one(4, 12))
    largest = max(6, min(26, 1.5 * scene.roomy))
    radii = scene.between(max(5, largest / 3), largest, n)
    thick, fill = np.float32(scene.one(1, 3)), np.float32(rng.uniform(0, 0.2))
    spots, ridged = round(scene.one(15, 120)), rng.random() < 0.5
    tall = np.float32(rng.uniform(0.1, 0.4) if not ridged else rng.uniform(0.05, 0.15))
    # Points spread evenly over the unit sphere.
    height = 1 - (2 * np.arange(spots) + 1) / spots
    angle = math.pi * (1 + 5**0.5) * np.arange(spots) + rng.normal(0, 0.2, spots)
    flat = np.sqrt(1 - height**2)
    tips = np.stack([height, flat * np.cos(angle), flat * np.sin(angle)]).astype(np.float32)
    apart = np.float32(2 / math.sqrt(spots))  # half the distance of neighbours
    for centre, radius, light in zip(scene.places(n), radii, scene.lights(n), strict=True):
        part, offsets = scene.box(centre, (1.4 + tall) * radius + 1)
        matrix = _ellipsoid_matrix(scene, radius, rng.uniform(0.75, 1.2))
        a, b, c = np.broadcast_arrays(*_transformed(matrix, offsets))
        away = np.sqrt(a * a + b * b + c * c)
        depth = (1 - away) * radius
        wall = soft(depth) - (1 - fill) * soft(depth - thick)
        near = (away < 1 + tall + 1 / radius) & (away > 1 - thick / radius)
        towards = np.stack([a[near], b[near], c[near]], axis=1) / away[near, None]
        cosines = towards @ tips
        if ridged:
            two = np.partition(cosines, spots - 2, axis=1)[:, -2:]
            gap = np.arccos(two[:, 0].clip(-1, 1)) - np.arccos(two[:, 1].clip(-1, 1))
            ornament = np.clip(1 - gap / (0.7 * apart), 0, 1)
        else:
            ornament = np.clip(1 - np.arccos(cosines.max(axis=1).clip(-1, 1)) / apart, 0, 1)
        raised = soft(depth[near] + tall * radius * ornament)
        raised *= np.minimum(1, 3 * ornament) if ridged else 1
        wall[near] = np.maximum(wall[near], raised * soft(thick - depth[near]))
        brighten(canvas, part, wall * light)
