"""Synthetic structures along curves: filaments, networks, tubes, coils, trees, worms and asters.

A curve is a row of points less than a voxel apart. Thin curves are light distributed over the
voxels around each point; thick ones follow from the distance of every voxel to the nearest point.
Lengths and positions are in lateral voxels, also along z. Structures are drawn in place.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from napari_rln.core.volume import FloatArray
from napari_rln.simulate.scene import Scene, soft

_STEP = 0.8  # distance between points of a curve
_THIN = 0.8  # radius below which a curve is thinner than the voxels
_LINE = 3.0  # emission of a thin curve per length over that of a voxel, for equal brightness
_AT_A_TIME = 400_000  # voxels around points, limited by the cache
_FINE = 1024  # resolution of distances per voxel
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Strokes:
    """Points of curves: (P, 3) positions z, y, x, (P,) radii of the curves and (P,) emissions."""

    points: FloatArray
    radii: FloatArray
    lights: FloatArray

    def where(self, keep: npt.NDArray[np.bool_]) -> "Strokes":
        """Return the points of a mask (P,)."""
        return Strokes(points=self.points[keep], radii=self.radii[keep], lights=self.lights[keep])


def walks(scene: Scene, n: int, length: float, persistence: float) -> FloatArray:
    """Return smooth random curves, (n, P, 3) points, the first in the field of view.

    They are centred at random positions; length and persistence length are in lateral voxels.
    """
    size = max(8, round(length / _STEP))
    sigma = persistence / _STEP / 2
    noise = scene.rng.standard_normal((n, size, 3), dtype=np.float32)
    tangents = gaussian_filter1d(noise, sigma, axis=1, truncate=2.5, mode="wrap")
    tangents *= np.float32(math.sqrt(2 * sigma * math.sqrt(math.pi)))  # to variance 1
    aim = scene.rng.standard_normal((n, 1, 3), dtype=np.float32)
    tangents += aim * scene.rng.uniform(0, 2, (n, 1, 1)).astype(np.float32)
    tangents[..., 0] *= np.float32(scene.rng.choice([0.25, 1.0]))  # flat, as in cells on glass
    tangents /= np.linalg.norm(tangents, axis=2, keepdims=True) + np.float32(1e-6)
    path = np.cumsum(tangents * np.float32(_STEP), axis=1, dtype=np.float32)
    path += (scene.places(n) - path[:, size // 2])[:, None]
    return path


def _varied(scene: Scene, n: int, size: int, length: float, most: float) -> FloatArray:
    """Return (n, size) factors around 1 that vary smoothly along each of n curves."""
    sigma = max(0.5, length / _STEP / 2)
    noise = scene.rng.standard_normal((n, size), dtype=np.float32)
    smooth = gaussian_filter1d(noise, sigma, axis=1, truncate=2.5, mode="wrap")
    smooth *= np.float32(math.sqrt(2 * sigma * math.sqrt(math.pi)))
    swing = scene.rng.uniform(0, most, (n, 1)).astype(np.float32)
    factors: FloatArray = np.exp(swing * np.clip(smooth, -3, 2))
    return factors


def _strokes(path: FloatArray, radii: FloatArray, lights: FloatArray) -> Strokes:
    """Return the points of (n, P, 3) curves with radii and lights that broadcast to (n, P)."""
    shape = path.shape[:2]
    return Strokes(
        points=path.reshape(-1, 3),
        radii=np.broadcast_to(radii, shape).ravel(),
        lights=np.broadcast_to(lights, shape).ravel(),
    )


def _near(scene: Scene, strokes: Strokes) -> Strokes:
    """Return the points whose light falls into the canvas."""
    margin = (strokes.radii + 1)[:, None]
    outside = (strokes.points < -margin) | (strokes.points > np.array(scene.extent) + margin)
    return strokes.where(np.logical_not(outside.any(axis=1)))


def _draw_lines(canvas: FloatArray, scene: Scene, strokes: Strokes) -> None:
    """Add the light of thin curves, distributed over the eight voxels around each point."""
    position = strokes.points / np.array(scene.steps, np.float32) - np.float32(0.5)
    base = np.floor(position).astype(np.int64)
    after = position - base
    light = strokes.lights * np.float32(_LINE * _STEP / scene.step)
    indices, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        index = base + corner
        inside = ((index >= 0) & (index < scene.shape)).all(axis=1)
        fractions = np.where(corner, after, 1 - after).prod(axis=1)
        indices.append(np.ravel_multi_index(tuple(index[inside].T), scene.shape))
        weights.append((fractions * light)[inside])
    flat = np.concatenate(indices)
    np.add.at(canvas.reshape(-1), flat, np.concatenate(weights))


def _nearest(
    scene: Scene, strokes: Strokes
) -> tuple[npt.NDArray[np.int64], FloatArray, npt.NDArray[np.int64]]:
    """Return the voxels in thick curves or within a voxel of them, (V,) each.

    Their flat indices in the canvas, their depths within the curves in lateral voxels, negative
    outside, and the indices of the points in which they lie deepest.
    """
    # One integer per voxel encodes distance and point, so that a single minimum yields both.
    ends = [math.ceil((float(strokes.radii.max()) + 1.5) / s) + 1 for s in scene.steps]
    padded = tuple(n + 4 * e for n, e in zip(scene.shape, ends, strict=True))
    keys = np.full(math.prod(padded), _FAR)
    coarse = np.ceil(strokes.radii * 2).astype(int)
    for group in np.unique(coarse):
        members = np.flatnonzero(coarse == group)
        radius = group / 2 + 1
        spans = [np.arange(-k, k + 1) for k in (math.ceil(radius / s) for s in scene.steps)]
        chunk = max(1, _AT_A_TIME // math.prod(len(span) for span in spans))
        for first in range(0, len(members), chunk):
            ids = members[first : first + chunk]
            squares, index = np.zeros(1, np.float32), np.zeros(1, np.int64)
            for axis, (span, s) in enumerate(zip(spans, scene.steps, strict=True)):
                at = strokes.points[ids, axis] / np.float32(s)
                voxel = np.floor(at).astype(np.int64)[:, None] + span
                off = (voxel + np.float32(0.5) - at[:, None]) * np.float32(s)
                place = [-1 if i == axis else 1 for i in range(3)]
                squares = squares + np.square(off, dtype=np.float32).reshape(len(ids), *place)
                stride = math.prod(padded[axis + 1 :])
                index = index + ((voxel + 2 * ends[axis]) * stride).reshape(len(ids), *place)
            outer = (strokes.radii[ids] + 1)[:, None, None, None]
            close = np.nonzero(squares.reshape(len(ids), -1) < np.square(outer[..., 0, 0]))
            which = ids[close[0]]
            radii = strokes.radii[which]
            distance = np.sqrt(squares.reshape(len(ids), -1)[close]) - radii
            key = ((distance + 512) * _FINE).astype(np.int64) << 32 | which
            np.minimum.at(keys, index.reshape(len(ids), -1)[close], key)
    cut = tuple(slice(2 * e, 2 * e + n) for n, e in zip(scene.shape, ends, strict=True))
    keys = keys.reshape(padded)[cut].reshape(-1)
    flat = np.flatnonzero(keys < _FAR)
    depth = 512 - ((keys[flat] >> 32) + 0.5) / _FINE
    return flat, depth.astype(np.float32), keys[flat] & 0xFFFFFFFF


def draw_strokes(canvas: FloatArray, scene: Scene, strokes: Strokes) -> None:
    """Add the light of curves, thick ones solid."""
    strokes = _near(scene, strokes)
    thin = strokes.radii < _THIN
    if thin.any():
        _draw_lines(canvas, scene, strokes.where(thin))
    if not thin.all():
        thick = strokes.where(~thin)
        flat, depth, point = _nearest(scene, thick)
        canvas.reshape(-1)[flat] += soft(depth) * thick.lights[point]


def _spaced(path: FloatArray, radius: float) -> FloatArray:
    """Return (n, P, 3) curves with the points thinned out as far as their radius allows."""
    return path[:, :: max(1, int(radius / 2 / _STEP))]


def filaments(canvas: FloatArray, scene: Scene) -> None:
    """Draw curved fibres, single or in bundles, most of them thinner than three voxels."""
    rng, wide = scene.rng, max(scene.extent)
    n = scene.count(80)
    bundles = rng.random() < 0.4
    fold = int(rng.integers(3, 10)) if bundles else 1
    parents = max(1, round(n / fold))
    path = walks(scene, parents, min(scene.one(40, 250), 1.7 * wide), scene.one(12, 120))
    size = path.shape[1]
    if bundles:
        apart = gaussian_filter1d(
            rng.standard_normal((parents, fold, size, 3), dtype=np.float32),
            20, axis=2, truncate=2.5, mode="wrap",
        ) * np.float32(8.4)  # fmt: skip
        path = (path[:, None] + apart * np.float32(scene.one(1, 4))).reshape(-1, size, 3)
    n = len(path)
    usual = scene.one(0.4, 3.0)
    radii = np.minimum(usual * scene.between(0.6, 1.6, n), 4)
    lights = scene.lights(n)[:, None] * _varied(scene, n, size, scene.one(1.5, 30), 0.6)
    # Some curves are shortened, but never to less than half.
    end = size * rng.uniform(0.55, 1, (n, 1))
    visible = np.abs(np.arange(size) - size // 2) < end / 2
    strokes = _strokes(path, radii[:, None], lights)
    draw_strokes(canvas, scene, strokes.where(visible.ravel()))


def networks(canvas: FloatArray, scene: Scene) -> None:
    """Draw nodes joined to neighbours by curved edges, like a reticulum or mitochondria."""
    rng = scene.rng
    spacing = scene.one(9, 24) / scene.density ** (1 / 3)
    n = int(np.clip(math.prod(scene.extent) / spacing**3, 8, 6000))
    nodes = scene.places(n)
    if rng.random() < 0.5:  # within a cell instead of everywhere
        middle, semi_axes = nodes[0], np.array(scene.extent) * rng.uniform(0.3, 0.6, 3)
        near = (((nodes - middle) / np.maximum(semi_axes, spacing)) ** 2).sum(axis=1) < 1
        nodes = nodes[near] if near.sum() >= 5 else nodes
    _, others = cKDTree(nodes).query(nodes, k=min(4, len(nodes)))
    pairs = np.column_stack([np.repeat(np.arange(len(nodes)), 3), others[:, 1:4].ravel()])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    gaps = np.linalg.norm(nodes[pairs[:, 1]] - nodes[pairs[:, 0]], axis=1)
    keep = (rng.random(len(pairs)) < rng.uniform(0.45, 1)) & (gaps < 2 * np.median(gaps))
    keep |= (pairs == 0).any(axis=1)  # keep the node in the field of view
    start, stop, gaps = nodes[pairs[keep, 0]], nodes[pairs[keep, 1]], gaps[keep]
    size = max(4, math.ceil(1.3 * float(gaps.max()) / _STEP))
    t = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    bend = (rng.standard_normal((2, len(gaps), 1, 3)) * 0.13 * gaps[:, None, None]).astype("f4")
    path = start[:, None] + t * (stop - start)[:, None]
    path += np.sin(np.pi * t) * bend[0] + np.sin(2 * np.pi * t) * bend[1] / 2
    m = len(path)
    radii = scene.one(0.45, 2.6) * scene.between(0.8, 1.25, m)[:, None]
    lights = scene.one(*scene.brightness) * _varied(scene, m, size, 12, 0.4)
    lights *= (gaps / (size * _STEP))[:, None] ** (radii < _THIN)  # corrects for closer points
    draw_strokes(canvas, scene, _strokes(path, radii, lights))


def tubes(canvas: FloatArray, scene: Scene) -> None:
    """Draw hollow tubes along curves, closed at their ends, with little light inside."""
    n = scene.count(24)
    usual = scene.one(2.5, min(8, scene.roomy))
    path = walks(scene, n, min(scene.one(40, 160), 1.5 * max(scene.extent)), 10 * usual)
    path = _spaced(path, usual * 0.4)
    size = path.shape[1]
    radii = usual * scene.between(0.7, 1.4, n)[:, None] * _varied(scene, n, size, 25, 0.12)
    lights = scene.lights(n)[:, None] * _varied(scene, n, size, 20, 0.4)
    walls, lumen = scene.one(0.8, 2.2), np.float32(scene.rng.uniform(0, 0.15))
    strokes = _near(scene, _strokes(path, radii, lights))
    flat, depth, point = _nearest(scene, strokes)
    wall = soft(depth) - (1 - lumen) * soft(depth - np.float32(walls))
    canvas.reshape(-1)[flat] += wall * strokes.lights[point]


def coils(canvas: FloatArray, scene: Scene) -> None:
    """Draw thick fibres coiled around curves, like chromosomes."""
    rng, n = scene.rng, scene.count(16)
    thick = scene.one(1.2, 2.4)
    wound = min(scene.one(3.5, 7), scene.roomy)
    pitch = thick * rng.uniform(2.5, 4.5)
    axis = walks(scene, n, min(scene.one(30, 90), max(scene.extent)), 12 * wound)
    # Points in proportion to the length of the fibre over that of its axis.
    dense = math.ceil(axis.shape[1] * math.hypot(1, 2 * math.pi * wound / pitch))
    at = np.linspace(0, axis.shape[1] - 1.001, dense)
    low, part = at.astype(int), (at % 1).astype(np.float32)[:, None]
    axis = axis[:, low] * (1 - part) + axis[:, low + 1] * part
    tangent = np.gradient(axis, axis=1)
    tangent /= np.linalg.norm(tangent, axis=2, keepdims=True)
    least = np.abs(tangent.mean(axis=1)).argmin(axis=1)
    first = np.cross(tangent, np.eye(3, dtype=np.float32)[least][:, None])
    first /= np.linalg.norm(first, axis=2, keepdims=True) + np.float32(1e-6)
    angle = (2 * math.pi * _STEP / pitch * at + rng.uniform(0, 7, (n, 1)))[..., None]
    radial = np.cos(angle) * first + np.sin(angle) * np.cross(tangent, first)
    path = _spaced((axis + wound * radial).astype(np.float32), thick)
    lights = scene.lights(n)[:, None] * _varied(scene, n, path.shape[1], 20, 0.3)
    draw_strokes(canvas, scene, _strokes(path, np.full((n, 1), thick, np.float32), lights))


def _together(parts: list[Strokes]) -> Strokes:
    """Return the points of several strokes."""
    return Strokes(
        points=np.concatenate([part.points for part in parts]),
        radii=np.concatenate([part.radii for part in parts]),
        lights=np.concatenate([part.lights for part in parts]),
    )


def trees(canvas: FloatArray, scene: Scene) -> None:
    """Draw branched trees that taper, like neurons and vessels, some with a body at the root."""
    rng = scene.rng
    n, stems = scene.count(scene.one(3, 24)), int(rng.integers(1, 6))
    roots, light = scene.places(n), scene.lights(n)
    at, lights = np.repeat(roots, stems, axis=0), np.repeat(light, stems)
    radii = scene.one(0.5, 4.5) * scene.between(0.7, 1.3, len(at))
    taper, spread, wander = rng.uniform((0.6, 0.4, 0.1), (0.95, 1.2, 1.0))
    length = scene.one(6, 45)
    depths = np.array([rng.choice([0.3, 1.0]), 1, 1], np.float32)  # flat, as in cells on glass
    towards = rng.standard_normal((len(at), 3)).astype(np.float32) * depths
    parts = []
    if rng.random() < 0.5:
        bodies = np.minimum(radii[::stems] * scene.one(1.5, 4), 8)
        parts.append(Strokes(points=roots, radii=bodies, lights=light))
    for _ in range(rng.integers(3, 8)):
        m, size = len(at), max(4, round(length / _STEP))
        towards /= np.linalg.norm(towards, axis=1, keepdims=True) + np.float32(1e-6)
        turns = np.cumsum(rng.standard_normal((m, size, 3), dtype=np.float32), axis=1) * depths
        tangents = towards[:, None] + turns * np.float32(wander / math.sqrt(size))
        tangents /= np.linalg.norm(tangents, axis=2, keepdims=True) + np.float32(1e-6)
        path = at[:, None] + np.cumsum(tangents * np.float32(_STEP), axis=1)
        ends = rng.integers(size // 2, size, m)
        along = np.arange(size)
        thinner = radii[:, None] * np.linspace(1, taper, size, dtype=np.float32)
        every = max(1, int(float(np.median(radii)) / 2 / _STEP))
        drawn = (along <= ends[:, None]) & (along % every == 0)
        parts.append(_strokes(path, thinner, lights[:, None]).where(drawn.ravel()))
        kept = np.repeat(np.flatnonzero(rng.random(m) < 0.93), 2)
        at, towards = path[kept, ends[kept]], tangents[kept, ends[kept]]
        aside = rng.standard_normal(towards.shape).astype(np.float32) * depths
        towards = towards + np.float32(spread) * aside
        radii = np.maximum(radii[kept] * np.float32(taper), 0.4) * scene.between(0.8, 1, len(at))
        lights, length = lights[kept], length * rng.uniform(0.7, 1.0)
        if not len(at):
            break
    draw_strokes(canvas, scene, _together(parts))


def worms(canvas: FloatArray, scene: Scene) -> None:
    """Draw short thick rods, straight or bent, like bacteria; some hollow, with poles or septa."""
    rng = scene.rng
    usual = scene.one(0.9, min(7, scene.roomy))
    length = usual * scene.one(3, 24)
    share = scene.one(0.003, 0.15)  # of the volume
    n = scene.count(min(500, share * 128**3 / (math.pi * usual**2 * length)))
    path = _spaced(walks(scene, n, length, length * scene.one(0.5, 6)), usual)
    size = path.shape[1]
    radii = usual * scene.between(0.8, 1.25, n)[:, None]
    lights = scene.lights(n)[:, None] * _varied(scene, n, size, length / 3, 0.3)
    ends = size * rng.uniform(0.5, 1, (n, 1))
    off = np.abs(np.arange(size) - size // 2, dtype=np.float32)
    near = np.float32(max(1.0, 0.15 * size))
    style = rng.random()
    if style < 0.25:  # bright poles
        lights = lights * (1 + scene.one(1, 8) * (ends / 2 - off < near))
    elif style < 0.5:  # a septum in the middle
        lights = lights * (1 + scene.one(1, 8) * (off < max(0.6, near / 3)))
    strokes = _strokes(path, radii.astype(np.float32), lights.astype(np.float32))
    visible = np.abs(np.arange(size) - size // 2) <= ends / 2
    strokes = _near(scene, strokes.where(visible.ravel()))
    flat, depth, point = _nearest(scene, strokes)
    filled = soft(depth)
    if rng.random() < 0.3:
        filled -= np.float32(rng.uniform(0.3, 1)) * soft(depth - np.float32(scene.one(0.8, 2)))
    canvas.reshape(-1)[flat] += filled * strokes.lights[point]


def asters(canvas: FloatArray, scene: Scene) -> None:
    """Draw slightly bent fibres that radiate from bright centres."""
    rng, n = scene.rng, scene.count(scene.one(1, 8))
    fibres, length = round(scene.one(15, 150)), scene.one(15, 80)
    centres, light = scene.places(n), scene.lights(n)
    size = round(length / _STEP)
    along = np.linspace(rng.uniform(1, 4), length, size, dtype=np.float32)[:, None]
    towards = rng.standard_normal((n * fibres, 3), dtype=np.float32)
    towards[:, 0] *= np.float32(rng.choice([0.3, 1.0]))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    bent = rng.standard_normal((n * fibres, 3), dtype=np.float32) * np.float32(rng.uniform(0, 0.3))
    path = towards[:, None] * along + bent[:, None] * along**2 / np.float32(length)
    path += np.repeat(centres, fibres, axis=0)[:, None]
    ends = rng.uniform(0.3, 1, (n * fibres, 1)) * size
    lights = np.repeat(light, fibres)[:, None] * _varied(scene, n * fibres, size, 8, 0.5)
    radii = np.full((1, 1), scene.one(0.4, 1.2), np.float32)
    rays = _strokes(path, radii, lights).where((np.arange(size) < ends).ravel())
    hubs = Strokes(points=centres, radii=scene.between(1, 5, n), lights=light * scene.one(1, 5))
    draw_strokes(canvas, scene, _together([rays, hubs]))
