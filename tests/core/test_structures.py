"""Made-up objects: the same for a seed, bright in the field, as long along z as across."""

import time
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.simulate import shapes
from napari_rln.simulate.scene import Scene
from napari_rln.simulate.structures import (
    HELD_OUT,
    REFERENCE,
    TRAINING,
    Structure,
    StructureSettings,
    draw,
)

EVERY = get_args(Structure)
SHAPE = (24, 40, 40)
FIELD = (slice(8, 16), slice(8, 32), slice(8, 32))


def _only(word, **changes):
    return StructureSettings(structures=(word,), **changes)


def _scene(shape, step, seed=0):
    z, y, x = shape
    return Scene(
        shape=shape, step=step, field=((0, z * step), (0, y), (0, x)), density=1.0,
        brightness=(100.0, 100.0), rng=np.random.default_rng(seed),
    )  # fmt: skip


@pytest.mark.parametrize("word", EVERY)
@pytest.mark.parametrize("z_ratio", [0.5, 1.0, 3.3, 8.0])
def test_every_kind_shines_in_the_field_and_is_fit_for_use(word, z_ratio):
    for seed in range(3):
        drawing = draw(SHAPE, _only(word), seed=(seed, 7), z_ratio=z_ratio, field=FIELD)
        data = drawing.data
        assert drawing.structures == (word,)
        assert data.shape == SHAPE
        assert data.dtype == np.float32
        assert data.flags.c_contiguous
        assert np.isfinite(data).all()
        assert data.min() >= 0
        assert data[FIELD].max() > 1


@pytest.mark.parametrize("word", EVERY)
def test_a_seed_gives_its_own_objects_again(word):
    first, again, other = (
        draw(SHAPE, _only(word), seed=seed, z_ratio=2.0).data for seed in ([4, 1], [4, 1], [4, 2])
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("word", EVERY)
@pytest.mark.parametrize("z_ratio", [2, 4])
def test_coarse_planes_hold_the_light_of_the_fine_ones_between_them(word, z_ratio):
    """So they are isotropic: 4 planes a quarter as far apart average to one."""
    fine = draw((32, 36, 36), _only(word), seed=3).data
    coarse = draw((32 // z_ratio, 36, 36), _only(word), seed=3, z_ratio=z_ratio).data
    expected = fine.reshape(-1, z_ratio, 36, 36).mean(axis=1)
    assert np.allclose(coarse, expected, rtol=1e-4, atol=1e-3 * expected.max())


@pytest.mark.parametrize("kind", [shapes.spheres, shapes.shells])
@pytest.mark.parametrize("step", [0.5, 1.25])
def test_round_objects_are_as_long_along_z_as_across(kind, step):
    lengths = []
    for seed in range(20):
        scene = _scene((round(40 / step), 40, 40), step, seed)
        scene = replace(scene, density=1e-3)  # one of them, near the middle
        canvas = np.zeros(scene.shape, np.float32)
        kind(canvas, scene)
        weights = canvas / canvas.sum()
        spread = []
        for grid, s in zip(np.indices(scene.shape), scene.steps, strict=True):
            mean = (weights * grid).sum()
            spread.append(s**2 * (weights * (grid - mean) ** 2).sum())
        lengths.append(spread)
    z, y, x = np.mean(lengths, axis=0)
    assert z == pytest.approx((y + x) / 2, rel=0.01 if kind is shapes.spheres else 0.15)


def test_spheres_have_their_volume_and_their_brightness():
    settings = _only("spheres", density=0.01, brightness=(200.0, 200.0), smooth_voxels=0.0)
    for z_ratio, planes in ((1.0, 48), (3.0, 16)):
        data = draw((planes, 48, 48), settings, seed=5, z_ratio=z_ratio).data
        radius = (data.sum() * z_ratio / 200 * 3 / 4 / np.pi) ** (1 / 3)
        assert 4 <= radius <= 7
        assert data.max() == pytest.approx(200)


def test_the_last_gaussian_keeps_the_light():
    sharp, smooth = (
        draw((20, 30, 30), _only("shells", smooth_voxels=s), seed=1, z_ratio=2.5).data
        for s in (0.0, 1.0)
    )
    assert smooth.sum() == pytest.approx(sharp.sum(), rel=1e-4)
    assert smooth.max() < sharp.max()


@pytest.mark.parametrize("z_ratio", [1.0, 3.0])
def test_haze_lies_mostly_outside_the_field(z_ratio):
    field = (slice(16, 32), slice(None), slice(None))
    shares = []
    for seed in range(12):
        data = draw((48, 40, 40), _only("haze"), seed=seed, z_ratio=z_ratio, field=field).data
        shares.append(data[field].sum() / data.sum())
    assert max(shares) < 0.5
    assert np.mean(shares) < 0.25


def test_haze_comes_on_top_of_other_kinds_at_its_own_rate():
    settings = StructureSettings(structures=("dots", "haze"), haze=0.5)
    drawn = [draw((4, 16, 16), settings, seed=seed).structures for seed in range(40)]
    assert set(drawn) == {("dots",), ("dots", "haze")}
    assert 10 <= sum("haze" in words for words in drawn) <= 30


def test_held_out_kinds_are_kept_from_training():
    assert HELD_OUT == ("coils", "bars", "asters", "pollen")
    assert set(EVERY) - set(TRAINING) == set(HELD_OUT)
    assert set(REFERENCE) < set(TRAINING)
    assert StructureSettings().structures == TRAINING


def test_a_volume_gets_one_to_so_many_kinds():
    settings = StructureSettings(structures=REFERENCE, at_once=2)
    numbers = {len(draw((4, 16, 16), settings, seed=seed).structures) for seed in range(20)}
    assert numbers == {1, 2}


@pytest.mark.parametrize("at_once", [0, 6, 12])
def test_the_mixture_of_the_reference_holds_all_of_its_kinds(at_once):
    settings = StructureSettings(
        structures=REFERENCE[::-1], at_once=at_once, density_jitter=(1.0, 1.0), smooth_voxels=0
    )
    drawing = draw((64, 64, 64), settings, seed=0)
    assert drawing.structures == REFERENCE
    assert drawing.data.max() <= 850  # later objects hide earlier ones; light does not add up
    assert 0.02 < (drawing.data > 0).mean() < 0.15


def test_more_objects_with_a_higher_density():
    light = [
        draw(
            (32, 48, 48), _only("spheres", density=d, density_jitter=(1.0, 1.0)), seed=2
        ).data.sum()
        for d in (0.5, 4.0)
    ]
    assert light[1] > 3 * light[0]


def test_a_single_plane_can_be_drawn():
    for seed in range(6):
        assert draw((1, 32, 32), StructureSettings(), seed=seed).data.max() > 1


def test_drawing_takes_milliseconds():
    start = time.perf_counter()
    for seed in range(10):
        draw((64, 64, 64), StructureSettings(), seed=seed)
    assert time.perf_counter() - start < 3  # a tenth of that when the machine is idle


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structures": ()}, "empty"),
        ({"structures": ("dots", "snakes")}, "'snakes'"),
        ({"structures": ("dots", "dots")}, "once"),
        ({"density": 0.0}, "`density` is 0.0"),
        ({"at_once": -1}, "at_once"),
        ({"haze": 1.5}, "haze"),
        ({"density_jitter": (2.0, 1.0)}, "density_jitter"),
        ({"brightness": (0.0, 1.0)}, "brightness"),
        ({"brightness": (1.0, float("nan"))}, "brightness"),
        ({"smooth_voxels": -0.1}, "smooth_voxels"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(RlnError, match=message):
        StructureSettings(**changes)


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((8, 8, 8), {"z_ratio": 0.4}, "z_ratio"),
        ((8, 8, 8), {"z_ratio": 9.0}, "z_ratio"),
        ((8, 8, 8), {"z_ratio": float("nan")}, "z_ratio"),
    ],
)
def test_places_that_cannot_be_are_refused(shape, changes, message):
    with pytest.raises(RlnError, match=message):
        draw(shape, StructureSettings(), seed=0, **changes)
