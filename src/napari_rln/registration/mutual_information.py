"""Climbing mutual information with one kind of transform, by SimpleITK."""

import importlib
import itertools
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np

from napari_rln.core.errors import ComputeError, RlnError
from napari_rln.core.volume import Volume
from napari_rln.registration.similarity import Float64, Pair, moved, size_um

Phase = Literal["translation", "rigid", "affine"]

SAMPLES = 2**14
"""Random points at which mutual information is taken."""

CHUNKS, ITERATIONS = 6, 6
"""Chunks per level, each with other points and half the steps; iterations per chunk."""


def simpleitk() -> ModuleType:
    """Return SimpleITK.

    Raises
    ------
    RlnError
        If it is not installed.
    """
    try:
        return importlib.import_module("SimpleITK")  # optional, and slow to import
    except ImportError as missing:
        raise RlnError(
            "registration needs SimpleITK; pip install 'napari-rln[registration]'."
        ) from missing


def climb(
    pairs: Sequence[Pair], phase: Phase, matrix: Float64, seed: int, sitk: ModuleType
) -> Iterator[Float64]:
    """Yield matrices of one kind of transform with more and more mutual information.

    Parameters
    ----------
    pairs
        From coarse to fine.
    phase
        The kind.
    matrix
        To begin with.
    seed
        Of the points that are looked at.
    sitk
        As :func:`simpleitk` returns it.

    Raises
    ------
    ComputeError
        If SimpleITK fails.
    """
    for pair, chunk in itertools.product(pairs, range(CHUNKS)):
        transform = _transform(phase, matrix, size_um(pair.image) / 2, sitk)
        method = sitk.ImageRegistrationMethod()
        method.SetInitialTransform(transform, inPlace=True)
        method.SetNumberOfWorkUnits(1)  # sums in one order: a seed gives one result everywhere
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricAsMattesMutualInformation()
        method.SetMetricSamplingStrategy(method.RANDOM)
        share = min(1.0, SAMPLES / pair.image.data.size)
        method.SetMetricSamplingPercentage(share, 1 + seed + chunk)  # seed 0 means the clock
        # gradients of whole volumes take longer than those at the points
        method.SetMetricUseFixedImageGradientFilter(False)
        method.SetMetricUseMovingImageGradientFilter(False)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0,
            minStep=1e-4,
            numberOfIterations=ITERATIONS,
            estimateLearningRate=method.EachIteration,
            maximumStepSizeInPhysicalUnits=pair.width_um * 0.5**chunk,
        )
        try:
            method.Execute(*(_itk(part, sitk) for part in (pair.image, pair.reference)))
        except RuntimeError as failure:
            if "outside moving image" in str(failure):
                return  # it ran off: this kind of transform will be dropped
            raise ComputeError(f"SimpleITK could not register: {failure}") from failure
        matrix = _matrix(transform)
        yield matrix


def _itk(volume: Volume, sitk: ModuleType) -> Any:
    """Return a volume as SimpleITK's image, whose axes are (x, y, z)."""
    image = sitk.GetImageFromArray(volume.data)
    image.SetSpacing(volume.voxel_um[::-1])
    image.SetOrigin([v / 2 for v in volume.voxel_um[::-1]])
    return image


def _transform(phase: Phase, matrix: Float64, centre_um: Float64, sitk: ModuleType) -> Any:
    """Return SimpleITK's transform of a kind, about a centre, that a matrix describes."""
    linear = matrix[:3, :3]
    shift = linear @ centre_um + matrix[:3, 3] - centre_um
    if phase == "translation":
        return sitk.TranslationTransform(3, shift[::-1].tolist())
    transform = sitk.Euler3DTransform() if phase == "rigid" else sitk.AffineTransform(3)
    transform.SetCenter(centre_um[::-1].tolist())
    transform.SetMatrix(linear[::-1, ::-1].ravel().tolist())
    transform.SetTranslation(shift[::-1].tolist())
    return transform


def _matrix(transform: Any) -> Float64:
    """Return the matrix of SimpleITK's transform."""
    points = np.vstack([np.zeros(3), np.eye(3)])
    found = np.array([transform.TransformPoint(p[::-1].tolist())[::-1] for p in points])
    matrix = moved(found[0])
    matrix[:3, :3] = (found[1:] - found[0]).T
    return matrix
