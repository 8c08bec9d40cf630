"""Two views of one object: better together than either alone, wherever the second lies."""

from dataclasses import replace

import numpy as np
import phantoms
import pytest
from scipy import ndimage
from scipy.signal import fftconvolve

from napari_rln import cli
from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish, relay
from napari_rln.core.metrics import nrmse
from napari_rln.core.volume import Volume
from napari_rln.deconvolution.classical import RichardsonLucy
from napari_rln.deconvolution.settings import start_iteration
from napari_rln.deconvolution.views import DualSettings, pair_views_iter, rotated
from napari_rln.engine.in_memory import deconvolve, deconvolve_iter
from napari_rln.io.volumes import read, write
from napari_rln.networks.model import load_model
from napari_rln.networks.network import Network
from napari_rln.networks.rln import combine_views

VOXEL_UM = (0.1, 0.1, 0.1)
SHAPE = (48, 56, 52)


def _psf(sigma):
    data = phantoms.gaussian_psf((19, 19, 19), sigma).data
    return Volume(data=data, voxel_um=VOXEL_UM, name="psf")


PSF_A, PSF_B = _psf((3.5, 1.2, 1.2)), _psf((1.2, 1.2, 3.5))


@pytest.fixture(scope="module")
def truth():
    """Return spots and filaments in all directions."""
    rng = np.random.default_rng(1)
    lines = np.zeros(SHAPE)
    for _ in range(20):
        start, way = rng.uniform(8, 44, 3), rng.normal(size=3)
        for step in np.linspace(-20, 20, 160):
            at = np.rint(start + step * way / np.linalg.norm(way)).astype(int)
            if all(0 <= i < n for i, n in zip(at, SHAPE, strict=True)):
                lines[tuple(at)] = 1
    return phantoms.spots(SHAPE, seed=1, count=80, level=150) + 900 * ndimage.gaussian_filter(
        lines, 0.8
    )


def _image(truth, psf, seed, name):
    blurred = fftconvolve(truth, psf.data, mode="same").clip(0) + 10
    photons = np.random.default_rng(seed).poisson(blurred)
    return Volume.from_array(photons, VOXEL_UM, name=name)


@pytest.fixture(scope="module")
def views(truth):
    """Return both views as their cameras took them, and the second's PSF."""
    second = _image(truth, PSF_B, 1, "second")
    return _image(truth, PSF_A, 0, "first"), rotated(second, "y-90"), rotated(PSF_B, "y-90")


def _pair(views, **changes):
    first, second, psf_b = views
    settings = DualSettings(**({"rotation": "y+90", "transform": "none"} | changes))
    return finish(pair_views_iter(first, second, PSF_A, psf_b, settings=settings))


@pytest.mark.parametrize("rotation", ["x+90", "x-90", "y+90", "y-90"])
def test_a_rotation_and_its_inverse_leave_a_volume_as_it_was(rotation):
    volume = Volume.from_array(np.arange(60.0).reshape(3, 4, 5), (0.3, 0.2, 0.1))
    back = rotation[:1] + {"+": "-", "-": "+"}[rotation[1]] + "90"
    there = rotated(volume, rotation)
    assert there.shape != volume.shape
    assert sorted(there.voxel_um) == sorted(volume.voxel_um)
    again = rotated(there, back)
    np.testing.assert_array_equal(again.data, volume.data)
    assert again.voxel_um == volume.voxel_um


@pytest.mark.parametrize("projector", ["matched", "wiener-butterworth"])
def test_both_together_are_better_than_either(views, truth, projector):
    first, second, _ = views
    plain = "none" if projector != "matched" else "biggs-andrews"
    settings = RichardsonLucy(
        iterations=20 if projector == "matched" else 5, back_projector=projector,
        acceleration=plain,
    )  # fmt: skip
    joint = deconvolve(_pair(views), method=settings)
    alone = [
        deconvolve(first, PSF_A, settings).data,
        deconvolve(rotated(second, "y+90"), PSF_B, settings).data,
    ]
    errors = [nrmse(data, truth) for data in (joint.data, *alone)]
    assert errors[0] < 0.85 * min(errors[1:])
    assert joint.record.method == "rld dual"
    assert joint.record.inputs.keys() == {"image", "image_b", "psf", "psf_b"}


def test_iterations_stop_by_themselves(views, truth):
    joint = deconvolve(_pair(views))
    assert 3 <= joint.record.facts["iterations"] < 100
    assert joint.record.facts["stopped_by"] == "held-out photons"
    assert nrmse(joint.data, truth) < nrmse(deconvolve(views[0], PSF_A).data, truth)


def test_light_stays(views):
    pair = _pair(views)
    joint = deconvolve(pair, method=RichardsonLucy(iterations=20))
    light = (
        pair.first.image.data.sum(dtype=np.float64)
        - pair.first.calibration.background * pair.first.image.data.size
    )
    assert joint.data.sum(dtype=np.float64) == pytest.approx(light, rel=0.1)


def test_a_brighter_second_view_on_its_own_background_changes_nothing(views):
    first, second, psf_b = views
    brighter = second.with_data(3 * second.data)
    settings = RichardsonLucy(iterations=10)
    one = deconvolve(_pair(views), method=settings)
    pair = finish(
        pair_views_iter(
            first, brighter, PSF_A, psf_b,
            settings=DualSettings(rotation="y+90", transform="none"),
        )
    )  # fmt: skip
    assert pair.facts["brightness_b"] == pytest.approx(3, rel=0.05)
    other = deconvolve(pair, method=settings)
    np.testing.assert_allclose(other.data, one.data, rtol=1e-3, atol=1e-3 * one.data.max())


_INSIDE = (slice(6, -6),) * 3


@pytest.fixture(scope="module")
def errors(views, truth):
    """Return the errors with two aligned views, and with the first alone."""
    method = RichardsonLucy(iterations=20)
    results = (deconvolve(_pair(views), method=method), deconvolve(views[0], PSF_A, method))
    return [nrmse(result.data[_INSIDE], truth[_INSIDE]) for result in results]


@pytest.mark.parametrize("transform", ["rigid", "affine"])
def test_a_second_view_that_lies_elsewhere_is_found(views, truth, errors, transform):
    pytest.importorskip("SimpleITK")
    first, second, psf_b = views
    shifted = second.with_data(
        ndimage.shift(second.data, (2.0, -3.0, 1.5), order=1, mode="nearest")
    )
    moved = _pair((first, shifted, psf_b), transform=transform)
    result = deconvolve(moved, method=RichardsonLucy(iterations=20))
    assert moved.second.mask.mean() > 0.8
    best, alone = errors
    reached = nrmse(result.data[_INSIDE], truth[_INSIDE])
    assert reached < best + 0.4 * (alone - best)


def test_coarse_planes_become_as_fine_as_the_second_view_shows(views):
    first, second, psf_b = views
    coarse = Volume.from_array(first.data[::3], (0.3, 0.1, 0.1))
    pair = finish(
        pair_views_iter(
            coarse, second, _coarse(PSF_A), psf_b,
            settings=DualSettings(rotation="y+90", transform="none"),
        )
    )  # fmt: skip
    assert pair.first.image.voxel_um == pytest.approx(VOXEL_UM)
    assert pair.first.image.shape == SHAPE
    assert pair.first.psf.data.sum() == pytest.approx(1, abs=1e-3)


def _coarse(psf):
    data = psf.data[::3]
    return Volume(data=data / data.sum(), voxel_um=(0.3, 0.1, 0.1))


def test_where_the_second_view_shows_nothing_it_corrects_nothing(views):
    pair = _pair(views)
    settings = RichardsonLucy(iterations=5)
    import torch

    cpu = torch.device("cpu")

    def estimate(second, seen):
        run = start_iteration([pair.first, replace(pair.second, image=second, mask=seen)],
                              settings, cpu)  # fmt: skip
        for _ in range(5):
            run.step()
        return run.field_of_view().numpy().copy()

    seen = np.zeros(SHAPE, bool)
    seen[:, :, :26] = True
    garbage = pair.second.image.data.copy()
    garbage[~seen] = 5000
    spoiled = estimate(pair.second.image.with_data(garbage), seen)
    clean = estimate(pair.second.image, seen)
    np.testing.assert_array_equal(spoiled, clean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rotation": "none"}, "on one grid"),
        ({"background_b": 1e6}, "the background is 1e.06"),
    ],
)
def test_views_that_do_not_go_together(views, change, message):
    with pytest.raises(RlnError, match=message):
        _pair(views, **change)


def test_two_views_that_outgrow_the_memory_are_refused(views, monkeypatch):
    monkeypatch.setattr("napari_rln.core.device.free_bytes", lambda device: 1)
    with pytest.raises(RlnError, match=r"two views .*\d\.\d+ GB.*`memory_gb`"):
        deconvolve(_pair(views), method=RichardsonLucy(iterations=2, device="cpu"))


def test_the_command_writes_both(views, tmp_path, capsys):
    first, second, psf_b = views
    for name, volume in (("a", first), ("b", second), ("pa", PSF_A), ("pb", psf_b)):
        write(volume, tmp_path / f"{name}.ome.tif")
    files = {name: str(tmp_path / f"{name}.ome.tif") for name in ("a", "b", "pa", "pb", "r", "reg")}
    code = cli.run(["dual", files["a"], files["b"], "--psf", files["pa"], "--psf-b", files["pb"],
                    "--rotation", "y+90", "--transform", "none", "--iterations", "5",
                    "--precision", "float64", "--registered", files["reg"],
                    "-o", files["r"]])  # fmt: skip
    assert code == 0
    assert read(files["r"]).record.settings["precision"] == "float64"
    assert "5 iterations" in capsys.readouterr().out
    assert read(files["r"]).record.facts["dual"]["rotation"] == "y+90"
    assert read(files["reg"]).shape == SHAPE


def test_a_model_of_single_views_is_better_with_both_than_with_either(views, truth):
    first, second, _ = views
    both = deconvolve(_pair(views), method=Network())
    alone = (
        deconvolve(first, PSF_A, Network()),
        deconvolve(rotated(second, "y+90"), PSF_B, Network()),
    )
    errors = [nrmse(volume.data, truth) for volume in (both, *alone)]
    assert errors[0] < 0.85 * min(errors[1:])
    record = both.record
    assert record.method == "rln dual"
    assert record.inputs.keys() == {"image", "image_b", "psf", "psf_b", "model"}
    assert record.facts["start_iterations"] > 3
    assert 0.5 < record.facts["chi2"] < 1.5
    assert record.settings["model"] == "universal"


def test_tiles_of_two_views_are_the_whole(views):
    pair = _pair(views)
    whole = deconvolve(pair, method=Network())
    reports = []
    steps = relay(deconvolve_iter(pair, method=Network(), tile=24), reports.append)
    tiled = finish(steps)
    np.testing.assert_allclose(tiled.data, whole.data, atol=2e-5 * whole.data.max())
    pieces = [report for report in reports if report.tile is not None]
    assert len(pieces) > 8
    # How bright it has to be is known when all of it is there.
    factor = np.float32(tiled.record.facts["consistency"]["result"])
    np.testing.assert_array_equal(factor * pieces[0].piece, tiled.data[pieces[0].tile.core])
    assert tiled.record.facts["reblur_scale"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("normalisation", ["brightness", "percentiles"])
def test_where_the_second_view_shows_nothing_a_network_sees_the_first(views, normalisation):
    pair = _pair(views)
    model = phantoms.small_model(psf=None)  # of three iterations
    if normalisation == "percentiles":
        model = phantoms.small_model(
            "paper", views="averaged", psf=PSF_A, normalisation=normalisation
        )
    seen = np.zeros(SHAPE, bool)
    seen[:, :, :26] = True
    garbage = pair.second.image.data.copy()
    garbage[~seen] = 5000
    shown = replace(pair.second, mask=seen)
    spoiled = replace(shown, image=shown.image.with_data(garbage))
    spoiled = deconvolve(replace(pair, second=spoiled), method=Network(model=model))
    clean = deconvolve(replace(pair, second=shown), method=Network(model=model))
    np.testing.assert_array_equal(spoiled.data, clean.data)


@pytest.mark.parametrize("views_of", ["averaged", "concatenated"])
@pytest.mark.parametrize("variant", ["started", "paper"])
def test_networks_of_two_views_are_given_both(views, views_of, variant):
    pair = _pair(views)
    model = phantoms.small_model(variant, views=views_of, psf=PSF_A)
    result = deconvolve(pair, method=Network(model=model))
    assert result.shape == SHAPE
    assert np.isfinite(result.data).all()
    # It depends on both.
    second = pair.second.image
    darker = replace(pair.second, image=second.with_data(0.5 * second.data))
    darker = replace(pair, second=darker)
    assert not np.allclose(deconvolve(darker, method=Network(model=model)).data, result.data)
    with pytest.raises(RlnError, match="napari-rln dual"):
        deconvolve(pair.first.image, PSF_A, Network(model=model))


def test_views_become_channels_as_the_network_was_trained():
    a, b = np.full((2, 2, 2), 1.0, np.float32), np.full((2, 2, 2), 3.0, np.float32)
    assert [float(x.max()) for x in combine_views("single", a, b)] == [2]
    assert [float(x.max()) for x in combine_views("averaged", a, b)] == [4]
    assert [float(x.max()) for x in combine_views("concatenated", a, b)] == [1, 3]


def test_models_that_cannot_see_two_views_are_refused(views):
    with pytest.raises(RlnError, match="single view"):
        deconvolve(_pair(views), method=Network(model=load_model("bead-paper")))
    other = phantoms.small_model("started")  # of other voxels
    with pytest.raises(RlnError, match="was trained for"):
        deconvolve(_pair(views), method=Network(model=other))


def test_the_command_applies_a_model_to_both(views, tmp_path, capsys):
    first, second, psf_b = views
    for name, volume in (("a", first), ("b", second), ("pa", PSF_A), ("pb", psf_b)):
        write(volume, tmp_path / f"{name}.ome.tif")
    files = {name: str(tmp_path / f"{name}.ome.tif") for name in ("a", "b", "pa", "pb", "r")}
    words = ["dual", files["a"], files["b"], "--psf", files["pa"], "--psf-b", files["pb"],
             "--rotation", "y+90", "--transform", "none", "-o", files["r"],
             "-m", "universal"]  # fmt: skip
    assert cli.run([*words[:-2], "--tile", "32"]) == 1
    assert "name its --model" in capsys.readouterr().err
    assert cli.run([*words, "--iterations", "5"]) == 1
    assert "--iterations applies" in capsys.readouterr().err
    assert not (tmp_path / "r.ome.tif").exists()
    assert cli.run([*words[:-1], "bead-paper"]) == 1
    assert "bead-paper" in capsys.readouterr().err
    assert cli.run(words) == 0
    assert "model universal" in capsys.readouterr().out
    assert read(files["r"]).record.settings["model"] == "universal"
