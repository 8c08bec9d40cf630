"""A method of somebody else: one dataclass, and its place in the table of methods."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import phantoms
import pytest
from scipy.ndimage import gaussian_filter

from napari_rln.core.errors import RlnError
from napari_rln.core.generators import finish
from napari_rln.core.limits import as_dict, check_limits
from napari_rln.core.report import Report
from napari_rln.deconvolution.calibration import calibrate
from napari_rln.deconvolution.method import Method, SampleEstimates, WholeResult
from napari_rln.deconvolution.settings import check_psf_fits
from napari_rln.engine.execution import Execution, Output
from napari_rln.engine.forecast import forecast
from napari_rln.engine.in_memory import deconvolve
from napari_rln.engine.in_parts import run_task_iter
from napari_rln.engine.job import Job, PsfFile
from napari_rln.engine.methods import METHODS
from napari_rln.engine.run import run
from napari_rln.engine.task import Task
from napari_rln.io.image import ImageFile
from napari_rln.io.volumes import read, write

SHAPE = (20, 70, 90)


@dataclass(frozen=True, kw_only=True)
class Sharpen(Method):
    """An unsharp mask, in whole photons so that blending equal tiles gives just these."""

    kind: ClassVar[str] = "sharpen"
    title: ClassVar[str] = "Sharpened"
    needs_psf: ClassVar[bool] = True
    blocks: ClassVar[None] = None

    amount: float = 1.0
    background: float | str = "auto"
    offset: float | str = "auto"
    gain: float | str = "auto"
    repair_image: bool = False
    negatives: str = "keep"
    device: str = "cpu"
    table: Path | None = None

    def __post_init__(self):
        check_limits(self)

    @property
    def files(self):
        return () if self.table is None else (self.table,)

    @property
    def tiles(self):
        return SharpenTiles(self)

    def check(self, image, psf, *, views=1):
        check_psf_fits(image, psf)

    def needed_bytes(self, shape, psf_shape):
        return 20 * math.prod(shape)

    def whole(self, observation):
        if not observation.fits_whole(self.needed_bytes(observation.image.shape, None)):
            return None
        data = self.sharpened(observation.image, observation.calibration)
        yield Report(phase="deconvolve", done=1, total=1, seconds=0.0)
        return WholeResult(data, {})

    @classmethod
    def from_json(cls, fields, folder):
        made = super().from_json(fields, folder)
        return made if made.table is None else replace(made, table=folder / made.table)

    def sharpened(self, image, calibration):
        blurred = gaussian_filter(image.data, 1.0, radius=2, mode="nearest")
        sharp = image.data + self.amount * (image.data - blurred)
        return np.rint(sharp - calibration.background).astype(np.float32)


class SharpenTiles:
    depends_on_image = False
    estimates = 1

    def __init__(self, method):
        self.method = method

    def memory_bytes(self, shape, psf_shape):
        return self.method.needed_bytes(shape, psf_shape)

    def search_bytes(self, shape, psf_shape):
        return 0

    def search(self, crop, device, started):
        yield from ()
        return {}, None

    def sample(self, crops, shared, level, device, started):
        yield from ()
        sharpened = [self.method.sharpened(crop.image, crop.calibration) for crop in crops]
        return SampleEstimates({}, sharpened)

    def halo(self, psf, shared):
        return 4, 4, 4  # of which two are blended, and two are the mask's radius

    def margin(self, psf_shape):
        return 0, 0, 0

    def check_division(self):
        pass

    def tile(self, crop, shared, level, device, part):
        return self.method.sharpened(crop.image, crop.calibration)[part]

    def expected(self, *, most=False):
        return {}

    def facts(self, shared):
        return {}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(METHODS, Sharpen.kind, Sharpen)


@pytest.fixture
def psf(tmp_path):
    found = phantoms.gaussian_psf()
    write(found, tmp_path / "psf.ome.tif")
    return found


@pytest.fixture
def image(psf, tmp_path):
    found = phantoms.noisy_image(phantoms.spots(SHAPE, level=300.0), psf)
    write(found, tmp_path / "image.ome.tif")
    return found


def test_it_gives_one_result_whole_in_tiles_and_in_parts(image, psf, tmp_path):
    method = Sharpen(amount=0.7)
    whole = deconvolve(image, psf, method)
    assert whole.record.method == "sharpen"
    assert whole.record.settings == as_dict(method)
    assert whole.name == "image · Sharpened"
    expected = method.sharpened(image, calibrate(image, method))
    np.testing.assert_array_equal(whole.data, expected)
    tiles = deconvolve(image, psf, method, tile=32)
    assert tiles.record.facts["halo"] == [4, 4, 4]
    np.testing.assert_array_equal(tiles.data, whole.data)
    task = Task(
        image=ImageFile(path=str(tmp_path / "image.ome.tif")), psf=psf, method=method,
        output=Output(path=tmp_path / "r.ome.zarr"), execution=Execution(tile=32),
    )  # fmt: skip
    assert len(forecast(task).plan.tiles) == 9
    assert finish(run_task_iter(task)).computed
    parts = read(tmp_path / "r.ome.zarr")
    np.testing.assert_array_equal(parts.data, whole.data)
    assert parts.record.method == "sharpen"
    assert not finish(run_task_iter(task)).computed


def test_it_goes_into_a_job_like_any_other(image, psf, tmp_path):
    job = Job(
        image=ImageFile(path=str(tmp_path / "image.ome.tif")),
        psfs=(PsfFile(file=ImageFile(path=str(tmp_path / "psf.ome.tif")), repair=False),),
        methods=(Sharpen(amount=0.7),),
        output=Output(path=tmp_path / "r.tif"),
    )
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json") == job
    (outcome,) = run(Job.load(tmp_path / "job.json"))
    assert not outcome.in_parts
    whole = deconvolve(image, psf, Sharpen(amount=0.7))
    np.testing.assert_array_equal(read(tmp_path / "r.tif").data, whole.data)


@pytest.mark.parametrize("name", ["r.tif", "r.ome.zarr"])
def test_a_result_never_replaces_a_file_of_a_method(image, tmp_path, name):
    table = tmp_path / name
    job = Job(
        image=ImageFile(path=str(tmp_path / "image.ome.tif")),
        psfs=(PsfFile(file=ImageFile(path=str(tmp_path / "psf.ome.tif")), repair=False),),
        methods=(Sharpen(table=table),),
        output=Output(path=table, overwrite=True),
    )
    with pytest.raises(RlnError, match=name):
        run(job)
    assert not table.exists()
