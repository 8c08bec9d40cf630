"""Synthetic structures that fill space: beads, foam, textures, stripes and lattices.

They lie within bodies like cells, or everywhere. Their sizes and contrasts are drawn from wide
ranges, since real textures have no typical ones. Lengths and positions are in lateral voxels, also
along z. Structures are drawn in place.
"""

import math

import numpy as np
import numpy.typing as npt

from napari_rln.core.volume import FloatArray
from napari_rln.simulate.curves import Strokes, draw_strokes
from napari_rln.simulate.scene import Scene, brighten, soft

_MOST = 1500  # elements of a lattice or a foam


def _voxel(scene: Scene, place: npt.ArrayLike) -> tuple[int, int, int]:
    """Return the indices of the voxel at a point in the canvas."""
    z, y, x = (np.asarray(place) / scene.steps).astype(int).clip(0, np.array(scene.shape) - 1)
    return int(z), int(y), int(x)


def _rotation(scene: Scene) -> FloatArray:
    """Return a random rotation matrix (3, 3)."""
    rotation: FloatArray = np.linalg.qr(scene.rng.standard_normal((3, 3)))[0].astype(np.float32)
    return rotation


def _turned(scene: Scene, centre: FloatArray, matrix: FloatArray) -> list[FloatArray]:
    """Return the coordinates (Z, Y, X) of all voxels about a centre, transformed."""
    _, (z, y, x) = scene.box(centre, 2 * max(scene.extent))
    return [row[0] * z + row[1] * y + row[2] * x for row in matrix]


def _bodies(scene: Scene, everywhere: float = 0.4) -> tuple[FloatArray, FloatArray]:
    """Return the filled fraction of voxels (Z, Y, X) and a point (3,) inside, in the field of view.

    Bodies are irregular like cells; a fraction of the scenes is filled everywhere.
    """
    rng = scene.rng
    if rng.random() < everywhere:
        return np.ones(scene.shape, np.float32), scene.places(1)[0]
    n = int(rng.choice([1, 1, 2, 5]))
    filled, places = np.zeros(scene.shape, np.float32), scene.places(n)
    usual = scene.one(9, 0.6 * max(scene.extent))
    wobble = scene.smooth_field(max(3, 0.5 * usual)) * np.float32(rng.uniform(0.02, 0.3))
    for centre, radius in zip(places, usual * scene.between(0.7, 1.4, n), strict=True):
        wobble_here = wobble - wobble[_voxel(scene, centre)]
        axes = radius * scene.between(0.6, 1.5, 3)
        part, (z, y, x) = scene.box(centre, 1.6 * axes)
        u, v = np.float32(math.cos(angle := rng.uniform(0, math.pi))), np.float32(math.sin(angle))
        a, b, c = z / axes[0], (u * y + v * x) / axes[1], (u * x - v * y) / axes[2]
        depth = (1 - np.sqrt(a * a + b * b + c * c) - wobble_here[part]) * axes.min()
        brighten(filled, part, soft(depth))
    return filled, places[0]


def _octaves(scene: Scene, fine: float, coarse: float, exponent: float) -> FloatArray:
    """Return a random field (Z, Y, X) of variance 1, structured between two lengths.

    Amplitudes grow with the length to the power of the exponent.
    """
    n = 1 + round(math.log2(max(1.0, coarse / fine)))
    field, power = np.zeros(scene.shape, np.float32), 0.0
    for i in range(n):
        amplitude = 2.0 ** (i * exponent)
        field += np.float32(amplitude) * scene.smooth_field(fine * 2**i)
        power += amplitude**2
    field /= np.float32(math.sqrt(power))
    return field


def _lit(scene: Scene, field: FloatArray, inside: FloatArray) -> FloatArray:
    """Return emission between 0 and about 10 by a random function of a field, 1 at a point."""
    rng = scene.rng
    here = field[_voxel(scene, inside)]
    match rng.choice(["exp", "threshold", "ridge", "square"]):
        case "exp":
            shifted = np.float32(rng.uniform(0.3, 2.0)) * (field - min(here, np.float32(0)))
            light = np.exp(np.minimum(shifted, math.log(10)))
        case "threshold":
            level = min(here - np.float32(0.1), np.float32(rng.uniform(-1, 2)))
            light = np.clip((field - level) * np.float32(scene.one(1, 20)), 0, 1)
        case "ridge":
            light = np.clip(1 - np.abs(field - here) / np.float32(scene.one(0.08, 0.8)), 0, 1)
        case _:
            light = np.square(field - np.clip(here, -1, 1) + 1)
            np.minimum(light, 10, out=light)
    floor = np.float32(rng.choice([0, rng.uniform(0, 0.5)]))
    lit: FloatArray = floor + (1 - floor) * light
    return lit


def beads(canvas: FloatArray, scene: Scene) -> None:
    """Draw points and small balls, a few of them far brighter than the others."""
    rng = scene.rng
    radius = scene.one(0.2, 3)
    n = scene.count(scene.one(15, min(4000, 60_000 / max(1, radius) ** 3)))
    places = scene.places(n)
    if rng.random() < 0.6:
        filled, inside = _bodies(scene, 0.0)
        if rng.random() < 0.5:  # in clusters
            filled *= _octaves(scene, scene.one(3, 10), 10, 1.0) > rng.uniform(0, 1.5)
        index = (places / scene.steps).astype(int).clip(0, np.array(scene.shape) - 1)
        kept = filled[tuple(index.T)] > rng.uniform(0, 1, n)
        places = np.concatenate([inside[None], places[kept]])
    n = len(places)
    tail = np.minimum(1 + rng.pareto(rng.uniform(0.7, 3), n), 50).astype(np.float32)
    low, high = scene.brightness
    radii = radius * scene.between(1 / (spread := rng.uniform(1, 1.5)), spread, n)
    draw_strokes(
        canvas, scene,
        Strokes(points=places, radii=radii, lights=tail * scene.one(low, math.sqrt(low * high))),
    )  # fmt: skip


def _bubbles(scene: Scene) -> tuple[FloatArray, FloatArray]:
    """Return centres (n, 3) and radii (n,) of bubbles that touch but do not overlap."""
    rng = scene.rng
    least = scene.one(1.5, 8)
    most = scene.one(least, min(35, max(2 * least, 2 * scene.roomy)))
    drawn = scene.between(least, most, _MOST)
    drawn[0] = min(drawn[0], scene.roomy)
    drawn[1:] = -np.sort(-drawn[1:])  # small ones fit between large ones
    places = scene.places(_MOST)
    heaped = rng.random() < 0.7
    if heaped:
        reach = (2 * float((drawn**3).sum())) ** (1 / 3) * scene.one(0.3, 1)
        places[1:] = places[0] + reach / 2 * rng.standard_normal((_MOST - 1, 3))
        inside = ((places > 0) & (places < scene.extent)).all(axis=1)
        places, drawn = places[inside], drawn[inside]
    radii = np.zeros(len(places), np.float32)
    radii[0], n = drawn[0], 1
    for place, radius in zip(places[1:], drawn[1:], strict=True):
        off = place - places[:n]
        away = np.sqrt(np.einsum("ij,ij->i", off, off))
        gaps = away - radii[:n]
        near = int(gaps.argmin())
        gap = float(gaps[near])
        if gap < least:
            continue
        at, radius = place, min(gap, radius)
        if heaped and gap > radius:  # moved up to its neighbour
            at = place - off[near] * ((gap - radius) / away[near])
        places[n], radii[n] = at, radius
        n += 1
    return places[:n], radii[:n]


def foam(canvas: FloatArray, scene: Scene) -> None:
    """Draw touching bubbles of very different sizes, or the membranes between packed ones."""
    rng = scene.rng
    centres, radii = _bubbles(scene)
    thick = np.float32(scene.one(0.6, 2))
    lights = scene.one(*scene.brightness) * scene.between(1 / (s := scene.one(1, 2)), s, len(radii))
    if rng.random() < 0.6:
        fill = np.float32(rng.choice([0, rng.uniform(0, 0.4)]))
        for centre, radius, light in zip(centres, radii, lights, strict=True):
            part, (z, y, x) = scene.box(centre, radius + 1.5)
            depth = radius - np.sqrt(z * z + y * y + x * x)
            wall = soft(thick / 2 - np.abs(depth)) + fill * soft(depth)
            brighten(canvas, part, wall * light)
        return
    reach = np.float32(scene.one(1, 6))
    first, second = (np.full(scene.shape, reach, np.float32) for _ in range(2))
    for centre, radius in zip(centres, radii, strict=True):
        part, (z, y, x) = scene.box(centre, radius + reach)
        distance = np.sqrt(z * z + y * y + x * x) - radius
        nearest, next_nearest = first[part], second[part]
        np.minimum(next_nearest, np.maximum(nearest, distance), out=next_nearest)
        np.minimum(nearest, distance, out=nearest)
    wall = soft(thick / 2 - (second - first) * np.float32(0.5))
    canvas += wall * (first < reach) * lights[0]


def chromatin(canvas: FloatArray, scene: Scene) -> None:
    """Draw nuclei, or whole fields, of chromatin with bright foci and dark nucleoli."""
    rng = scene.rng
    filled, inside = _bodies(scene, 0.3)
    fine = scene.one(1.0, 5)
    texture = _octaves(scene, fine, fine * scene.one(1, 6), rng.uniform(-0.3, 0.8))
    light = _lit(scene, texture, inside)
    if rng.random() < 0.6:
        n = scene.count(scene.one(5, 120))
        foci = scene.between(1, 5, n)
        draw_strokes(
            light, scene,
            Strokes(points=scene.places(n), radii=foci, lights=scene.between(0.5, 6, n)),
        )  # fmt: skip
    if rng.random() < 0.6:
        _hollow(light, scene, scene.count(scene.one(3, 40)), scene.one(3, 9), inside)
    canvas += light * filled * scene.lights(1)


def _hollow(light: FloatArray, scene: Scene, n: int, usual: float, spared: FloatArray) -> None:
    """Darken round holes that spare a point."""
    left = np.float32(scene.rng.uniform(0, 0.5))
    for centre, radius in zip(scene.places(n), usual * scene.between(0.5, 1.6, n), strict=True):
        if np.linalg.norm(centre - spared) > radius + 3:
            part, (z, y, x) = scene.box(centre, radius + 1)
            hole = soft(radius - np.sqrt(z * z + y * y + x * x))
            np.minimum(light[part], light[part] * (1 - (1 - left) * hole), out=light[part])


def cytoplasm(canvas: FloatArray, scene: Scene) -> None:
    """Draw dense bodies, unevenly bright, with dark vacuoles and bright granules."""
    rng = scene.rng
    filled, inside = _bodies(scene, 0.15)
    uneven = scene.smooth_field(scene.one(8, 40)) * np.float32(rng.uniform(0, 0.6))
    if rng.random() < 0.7:
        uneven += scene.smooth_field(scene.one(1, 6)) * np.float32(rng.uniform(0.02, 0.4))
    slope = _rotation(scene)[:1] * np.float32(rng.uniform(0, 2) / max(scene.extent))
    uneven += _turned(scene, inside, slope)[0]
    light = np.exp(np.minimum(uneven - uneven[_voxel(scene, inside)], 2))
    if rng.random() < 0.7:
        _hollow(light, scene, scene.count(scene.one(5, 300)), scene.one(1.5, 8), inside)
    if rng.random() < 0.7:
        n = scene.count(scene.one(20, 1500))
        grains = scene.one(0.3, 2) * scene.between(0.6, 1.6, n)
        brighter = scene.one(0.3, 8) * scene.between(0.3, 2, n)
        draw_strokes(
            light, scene, Strokes(points=scene.places(n), radii=grains, lights=brighter)
        )  # fmt: skip
    canvas += light * filled * scene.lights(1)


def stripes(canvas: FloatArray, scene: Scene) -> None:
    """Draw periodic bands: gratings, or bundles of fibres with bands like sarcomeres."""
    rng = scene.rng
    filled, inside = _bodies(scene)
    period, faint = scene.one(2.5, 30), np.float32(scene.one(0.1, 1))
    along, across, up = _turned(scene, inside, _rotation(scene))
    bend = scene.smooth_field(scene.one(10, 40)) * np.float32(scene.one(0.05, 1) * period / 2)
    bend -= bend[_voxel(scene, inside)]
    along += bend
    light = filled
    if rng.random() < 0.5:  # fibres side by side
        apart = scene.one(3, 16)
        half = np.float32(apart * rng.uniform(0.3, 0.5))
        rows = [np.rint((c + bend) / np.float32(apart)) for c in (across, up)]
        off = [c + bend - r * np.float32(apart) for c, r in zip((across, up), rows, strict=True)]
        light = light * soft(half - np.sqrt(off[0] * off[0] + off[1] * off[1]))
        shifts = rng.normal(0, 1, (64, 64)).astype(np.float32)
        shift = shifts[rows[0].astype(np.int8) % 64, rows[1].astype(np.int8) % 64]
        along += np.float32(period * rng.choice([0, rng.uniform(0, 0.5)])) * shift
    wave = 0.5 + 0.5 * np.cos(np.float32(2 * math.pi / period) * along)
    bands = np.power(wave, np.float32(scene.one(0.5, 8)))
    if rng.random() < 0.3:  # a thin line between the bands
        bands += np.float32(rng.uniform(0.2, 1)) * np.square(np.square(np.square(1 - wave)))
    canvas += light * (1 - faint * (1 - bands)) * scene.lights(1)


def lattice(canvas: FloatArray, scene: Scene) -> None:
    """Draw a crystal of dots, short rods or shells with some disorder, in a finite patch."""
    rng = scene.rng
    lengths = scene.one(3, 16) * scene.between(0.75, 1.35, 3)
    skewed = np.eye(3) + np.triu(rng.uniform(-0.5, 0.5, (3, 3)) * rng.choice([0, 1]), 1)
    cell = (lengths[:, None] * skewed @ _rotation(scene)).astype(np.float32)
    reach = round(scene.one(3, 40) / 2) + 1
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3), -1).reshape(-1, 3)
    steps = steps[np.argsort(np.linalg.norm(steps * rng.uniform(0.5, 1.5, 3), axis=1))]
    centre = scene.places(1)[0]
    spots = centre + (steps.astype(np.float32) @ cell)
    spots += rng.standard_normal(spots.shape).astype("f4") * np.float32(
        lengths.min() * rng.choice([0, scene.one(0.01, 0.25)])
    )
    kept = ((spots > 0) & (spots < scene.extent)).all(axis=1) & (rng.random(len(spots)) > 0.05)
    spots = np.concatenate([centre[None], spots[kept]])[: round(scene.one(30, _MOST))]
    n, room = len(spots), float(lengths.min())
    lights = scene.one(*scene.brightness) * scene.between(1 / (s := scene.one(1, 2)), s, n)
    if room > 7 and rng.random() < 0.4:
        outer, thick = np.float32(room * rng.uniform(0.3, 0.5)), np.float32(scene.one(0.8, 2))
        for spot, light in zip(spots, lights, strict=True):
            part, (z, y, x) = scene.box(spot, outer + 1)
            depth = outer - np.sqrt(z * z + y * y + x * x)
            brighten(canvas, part, soft(np.minimum(depth, thick - depth)) * light)
        return
    radius = min(scene.one(0.3, 4), 0.35 * room)
    if rng.random() < 0.4:  # rods along one direction
        towards = _rotation(scene)[0] * np.float32(room * rng.uniform(0.5, 1))
        size = max(2, math.ceil(room / max(0.8, radius / 2)))
        spots = (spots[:, None] + towards * np.linspace(-0.5, 0.5, size)[:, None]).reshape(-1, 3)
        lights = np.repeat(lights, size)
    radii = np.full(len(spots), radius, np.float32)
    draw_strokes(canvas, scene, Strokes(points=spots.astype("f4"), radii=radii, lights=lights))


def fractal(canvas: FloatArray, scene: Scene) -> None:
    """Draw textures without a typical length, by a random function of a random field."""
    filled, inside = _bodies(scene)
    field = _octaves(scene, scene.one(0.9, 2), scene.one(8, 40), scene.rng.uniform(-0.4, 1.3))
    canvas += _lit(scene, field, inside) * filled * scene.lights(1)
