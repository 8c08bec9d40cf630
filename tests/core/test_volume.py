import numpy as np
import pytest

from napari_rln.core.errors import RlnError
from napari_rln.core.record import Record
from napari_rln.core.volume import Volume, check_finite, same_grid, voxel_um_problem

VOXEL_UM = (0.3, 0.1, 0.2)


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i1", "<u2", ">u2", "<i4", ">i4", "<f2", "<f4", ">f4", "<f8", ">f8"]
)
def test_any_real_type_becomes_native_float32(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    volume = Volume.from_array(array, VOXEL_UM)
    assert volume.data.dtype == np.dtype("=f4")
    assert volume.data.flags.c_contiguous
    np.testing.assert_array_equal(volume.data, array.astype(np.float32))


def test_the_array_given_is_not_modified():
    array = np.arange(24, dtype=">u2").reshape(2, 3, 4)
    before = array.copy()
    Volume.from_array(array, VOXEL_UM).data[:] = 0
    np.testing.assert_array_equal(array, before)


def test_a_plane_is_a_volume_of_one():
    volume = Volume.from_array(np.ones((3, 4), np.uint8), VOXEL_UM, name="plane")
    assert volume.shape == (1, 3, 4)


def test_views_become_contiguous():
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2).T[::-1]
    volume = Volume.from_array(array, VOXEL_UM)
    assert volume.data.flags.c_contiguous
    np.testing.assert_array_equal(volume.data, array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 5, 6, 3)), r"cell.*4 axes.*\(4, 5, 6, 3\)"),
        (np.ones(4), "cell.*1 axes"),
        (np.ones((0, 4, 5)), r"cell.*\(0, 4, 5\)"),
        (np.ones((2, 3, 4), complex), "cell.*complex128"),
        (np.full((2, 3, 4), "a"), "cell.*<U1"),
    ],
)
def test_what_cannot_be_a_volume_is_refused(array, message):
    with pytest.raises(RlnError, match=message):
        Volume.from_array(array, VOXEL_UM, name="cell")


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf], [1e39]])
def test_voxels_that_are_not_finite_are_counted_and_the_first_is_named(bad):
    array = np.ones((3, 4, 5))
    array[1, 2, 3 : 3 + len(bad)] = bad
    message = rf"cell holds {len(bad)} of 60 voxels .* the first at \(1, 2, 3\)"
    with pytest.raises(RlnError, match=message):
        Volume.from_array(array, VOXEL_UM, name="cell")


def test_finite_values_whose_sum_overflows_are_accepted():
    check_finite(np.full(4, 1e308), "bright")


@pytest.mark.parametrize(
    "voxel_um",
    [(0, 1, 1), (1, -1, 1), (1, 1, np.nan), (1, np.inf, 1), (1, 1), (1, 1, 1, 1)],
)
def test_bad_voxel_sizes_are_refused(voxel_um):
    with pytest.raises(RlnError, match=r"cell.*voxel size.*three"):
        Volume.from_array(np.ones((2, 3, 4)), voxel_um, name="cell")


@pytest.mark.parametrize(
    ("voxel_um", "hint"),
    [
        ((200, 65, 65), r"mean 0\.2 0\.065 0\.065 \(200 65 65 nm\)\?"),
        ((0.3, 50, 50), r"mean 0\.05 0\.05 \(50 50 nm\)\?"),
        ((25400, 352.8, 352.8), "printing resolution"),
    ],
)
def test_voxel_sizes_in_nanometres_or_dots_per_inch_are_said_to_be_so(voxel_um, hint):
    with pytest.raises(RlnError, match=f"cell.*{hint}.* 25"):
        Volume.from_array(np.ones((2, 3, 4)), voxel_um, name="cell")


@pytest.mark.parametrize(
    ("voxel_um", "doubt"),
    [
        ((0.3, 0.1, 0.1), ""),
        ((5, 0.5, 0.52), ""),
        ((6.5, 0.3, 0.3), "along z"),
        ((1, 6.5, 6.5), "magnification"),
        ((0.3, 0.1, 0.2), "not square"),
    ],
)
def test_unlikely_voxel_sizes_are_doubted(voxel_um, doubt):
    found = voxel_um_problem(voxel_um)
    assert doubt in found
    assert bool(doubt) == bool(found)


def test_a_bad_voxel_size_of_an_array_reads_as_numbers():
    with pytest.raises(RlnError, match=r"\(0\.0, 1\.0, 1\.0\) um"):
        Volume.from_array(np.ones((2, 3, 4)), np.array([0, 1, 1]))


@pytest.mark.parametrize("voxel_um", [[1, 2, 3], np.array([1, 2, 3], np.float32)])
def test_voxel_sizes_become_a_tuple_of_floats(voxel_um):
    held = Volume.from_array(np.ones((2, 3, 4)), voxel_um).voxel_um
    assert held == (1, 2, 3)
    assert type(held) is tuple
    assert {type(v) for v in held} == {float}


@pytest.mark.parametrize("data", [np.ones((2, 3, 4)), np.ones((3, 4), np.float32)])
def test_the_constructor_takes_volumes_of_float32_only(data):
    with pytest.raises(RlnError, match=r"Volume\.from_array"):
        Volume(data=data, voxel_um=VOXEL_UM)


def test_hash_depends_on_values_and_shape_not_on_byte_order_or_layout():
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    volume = Volume.from_array(array, VOXEL_UM)
    assert Volume.from_array(array.astype(">f4"), (1, 1, 1), name="other").hash == volume.hash
    assert Volume.from_array(np.asfortranarray(array), VOXEL_UM).hash == volume.hash
    assert Volume.from_array(array.reshape(4, 3, 5), VOXEL_UM).hash != volume.hash
    assert Volume.from_array(array + 1, VOXEL_UM).hash != volume.hash


def test_with_data_keeps_what_is_not_named():
    record = Record(method="rld")
    volume = Volume.from_array(np.ones((2, 3, 4)), VOXEL_UM, name="cell", record=record)
    other = volume.with_data(np.zeros((4, 3, 2)).T, name="dark")
    assert (other.name, other.voxel_um, other.record) == ("dark", VOXEL_UM, record)
    assert other.data.dtype == np.float32
    assert other.data.flags.c_contiguous
    assert volume.data.sum() == 24


def test_grids_agree_within_a_hundredth():
    assert same_grid((0.3, 0.1, 0.1), (0.301, 0.1, 0.1))
    assert not same_grid((0.3, 0.1, 0.1), (0.3, 0.102, 0.1))
