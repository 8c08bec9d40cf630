"""Tiles: every voxel has one, windows hold what the network sees, memory is kept to."""

import itertools
import math

import numpy as np
import pytest

from napari_rln.core.tiles import STEP, largest_core, plan_tiles

SHAPES = [(1, 1, 1), (1, 7, 64), (2, 3, 5), (16, 24, 24), (17, 33, 49), (31, 40, 2), (5, 5, 101)]
CORES = [(1, 1, 1), (2, 2, 2), (3, 5, 7), (16, 16, 16), (4, 9, 200), (99, 99, 99)]
HALOS = [(0, 0, 0), (16, 16, 16), (1, 2, 3)]
PLANS = list(itertools.product(SHAPES, CORES, HALOS))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_voxel_is_in_one_core(shape):
    for core, halo in itertools.product(CORES, HALOS):
        times = np.zeros(shape, int)
        for tile in plan_tiles(shape, core, halo):
            times[tile.core] += 1
        assert (times == 1).all()


def test_cores_and_windows_begin_on_multiples_of_the_step():
    for shape, core, halo in PLANS:
        for tile in plan_tiles(shape, core, halo):
            assert not any(part.start % STEP for part in (*tile.core, *tile.window))


def test_cores_are_no_larger_than_asked_for():
    for shape, core, halo in PLANS:
        for tile in plan_tiles(shape, core, halo):
            for part, asked in zip(tile.core, core, strict=True):
                assert 0 < part.stop - part.start <= max(STEP, asked)


def test_windows_hold_the_halo_or_end_at_the_border():
    for shape, core, halo in PLANS:
        for tile in plan_tiles(shape, core, halo):
            for c, w, h, n in zip(tile.core, tile.window, halo, shape, strict=True):
                assert w.start == 0 or c.start - h - STEP < w.start <= c.start - h
                assert w.stop == n or c.stop + h <= w.stop < c.stop + h + STEP
                assert 0 <= w.start < w.stop <= n


def test_inner_is_where_the_core_lies_in_the_window():
    volume = np.arange(17 * 33 * 49).reshape(17, 33, 49)
    for tile in plan_tiles(volume.shape, (8, 10, 12), (2, 4, 6)):
        window = volume[tile.window]
        assert window.shape == tile.shape
        np.testing.assert_array_equal(window[tile.inner], volume[tile.core])


def test_a_core_as_large_as_the_volume_gives_one_tile_of_odd_size():
    (tile,) = plan_tiles((17, 33, 49), (17, 33, 49), (16, 16, 16))
    assert tile.core == tile.window
    assert tile.shape == (17, 33, 49)


@pytest.mark.parametrize("halo", [(0, 0, 0), (16, 16, 16), (2, 8, 4)])
def test_the_largest_core_keeps_windows_to_their_bound(halo):
    for shape, voxels in itertools.product(
        [(31, 64, 65), (200, 50, 7), (100, 100, 100)], [80_000, 10**5, 3 * 10**5, 10**9]
    ):
        core = largest_core(shape, halo, voxels)
        for tile in plan_tiles(shape, core, halo):
            assert math.prod(tile.shape) <= voxels
        if math.prod(shape) <= voxels:
            assert core == shape


def test_the_largest_core_uses_at_least_a_third_of_its_bound():
    # The longest axis is halved, and halves of odd sizes are made even.
    for voxels in (10**4, 10**5, 9 * 10**5):
        core = largest_core((100, 100, 100), (0, 0, 0), voxels)
        assert math.prod(core) > voxels / 3


def test_an_impossible_bound_ends_at_the_smallest_cores():
    assert largest_core((100, 31, 64), (16, 16, 16), 1) == (4, 4, 4)
    assert largest_core((1, 31, 64), (16, 16, 16), 1) == (1, 4, 4)
