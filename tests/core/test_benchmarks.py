"""The benchmark's own scoring, which is faster than the package's, against that."""

import sys
from pathlib import Path

import numpy as np
import phantoms
import pytest

from napari_rln.core.volume import Volume
from napari_rln.evaluate.scores import score

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from cells import Judge


def test_the_benchmark_scores_as_the_package_does():
    truth = phantoms.spots((20, 24, 28))
    truth[:, :3] = 0  # flat planes do not count
    result = 2 * truth + np.random.default_rng(0).normal(0, 0.1, truth.shape).astype(np.float32)
    found = Judge(truth)(result)
    volumes = [Volume.from_array(a, phantoms.VOXEL_UM) for a in (result, truth)]
    for suffix, plane in (("", None), ("_xz", "xz")):
        expected = score(*volumes, plane)
        assert found[f"psnr{suffix}"] == pytest.approx(expected.psnr_db, abs=1e-4)
        assert found[f"ssim{suffix}"] == pytest.approx(expected.ssim, abs=1e-4)
