"""Diffraction integrals for the intensity around the focus of an objective.

The objective is free of aberrations for a point at the coverslip; a point at depth is imaged
through sample, coverslip and immersion. For a ray, ``s = n sin(theta)`` is equal in all layers
(Snell), whereas ``c = n cos(theta) = sqrt(n^2 - s^2)`` differs: in the sample it is imaginary
where ``s`` exceeds the sample index, and light evanescent. The optical path of the three layers
(Gibson and Lanni, J. Opt. Soc. Am. A 8, 1601 (1991); F. Aguet et al., Opt. Express 17, 6829
(2009)), less that of the design, is then::

    depth c_sample - focus c_immersion

where ``focus`` is the distance by which the focus drive has brought objective and sample closer
from the position in which the coverslip's lower face is in focus. Coverslip and immersion are those
of the design and add no path; the immersion layer becomes thinner by the movement of the drive.

By reciprocity a point detector on the optical axis collects from a point source what a source in
place of the detector would focus there. The vectorial integrals are therefore those of focusing
through a stratified medium: B. Richards and E. Wolf, Proc. R. Soc. A 253, 358 (1959); P. Török and
P. Varga, Appl. Opt. 36, 2305 (1997).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from napari_rln.core.volume import Float64Array

ComplexArray = npt.NDArray[np.complex128]

_COVERSLIP = 1.515  # refractive index; no less than the immersion's, as for solid immersion
_RESERVE = 16  # in addition to those that the phase needs; see _count
_DECAYED = 40.0  # evanescent light weaker than exp(-40) is ignored
_BLOCK = 64  # planes at a time, to limit memory


@dataclass(frozen=True, kw_only=True)
class Optics:
    """Objective, light and layers below the objective; the indices are refractive indices.

    ``depth_um`` is the distance of the point source from the coverslip.
    """

    model: Literal["scalar", "vectorial"]
    na: float
    wavelength_um: float
    immersion_index: float
    sample_index: float
    depth_um: float

    @property
    def wavenumber(self) -> float:
        """Wavenumber in vacuum, radians per micrometre."""
        return 2 * math.pi / self.wavelength_um


def intensity(optics: Optics, focus_um: Float64Array, radii_um: Float64Array) -> Float64Array:
    """Return the intensity of a point source, (Z, R) in arbitrary units.

    Scalar: ``|I|^2`` with the Kirchhoff integral ``I = int J0(k s r) exp(i k path) s ds``;
    vectorial: ``|I0|^2 + 2 |I1|^2 + |I2|^2``, the mean over the directions of polarisation.
    ``focus_um`` (Z,) are positions of the focus drive, from the coverslip into the sample, and
    ``radii_um`` (R,) distances from the optical axis, in the sample.
    """
    s, weight = _aperture(optics, focus_um, float(radii_um.max()))
    terms = list(_terms(optics, s, weight, radii_um))
    axial = 1j * optics.wavenumber * np.sqrt(optics.immersion_index**2 - s**2)
    light = np.zeros((len(focus_um), len(radii_um)))
    for start in range(0, len(focus_um), _BLOCK):
        part = slice(start, start + _BLOCK)
        phase = np.exp(-focus_um[part, None] * axial)
        for factor, amplitude, bessel in terms:
            field = (phase * amplitude) @ bessel
            light[part] += factor * (field.real**2 + field.imag**2)
    return light


def _terms(
    optics: Optics, s: Float64Array, weight: Float64Array, radii_um: Float64Array
) -> Iterator[tuple[float, ComplexArray, Float64Array]]:
    """Yield factor, amplitude (N,) and Bessel function (N, R) of each integral, without the focus.

    The vectorial integrals are those of an aplanatic lens, whose ``sqrt(cos) sin dtheta`` is
    ``s ds / sqrt(c)`` up to a constant.
    """
    sample = np.sqrt(optics.sample_index**2 - s**2 + 0j)
    path = weight * np.exp(1j * optics.wavenumber * optics.depth_um * sample)
    x = optics.wavenumber * np.outer(s, radii_um)
    j0 = special.j0(x)
    if optics.model == "scalar":
        yield 1.0, path, j0
        return
    path = path / (optics.immersion_index**2 - s**2) ** 0.25
    j1 = special.j1(x)
    j2 = 2 * np.divide(j1, x, out=np.full_like(x, 0.5), where=x > 0) - j0
    ts, tp = _transmission(optics, s)
    across, along = tp * sample / optics.sample_index, tp * s / optics.sample_index
    yield 1.0, path * (ts + across), j0
    yield 2.0, path * along, j1
    yield 1.0, path * (ts - across), j2


def _transmission(optics: Optics, s: Float64Array) -> tuple[ComplexArray, ComplexArray]:
    """Return Fresnel's amplitudes (N,) for s and p waves from the immersion into the sample."""
    glass = max(_COVERSLIP, optics.immersion_index)
    indices = (optics.immersion_index, glass, optics.sample_index)
    cosines = [np.sqrt(n**2 - s**2 + 0j) for n in indices]
    ts, tp = np.ones((2, s.size), dtype=np.complex128)
    for i in (0, 1):
        n, m, c, d = indices[i], indices[i + 1], cosines[i], cosines[i + 1]
        ts *= 2 * c / (c + d)
        tp *= 2 * n * m * c / (m**2 * c + n**2 * d)
    return ts, tp


def _aperture(
    optics: Optics, focus_um: Float64Array, radius_um: float
) -> tuple[Float64Array, Float64Array]:
    """Return Gauss-Legendre nodes ``s`` and weights of ``s ds``, (N,) each.

    The variable is the angle in the rarer of the outer layers, in which the integrand is smooth
    where that layer's cosine vanishes. Beyond 90 degrees, for evanescent light, it is
    complex: ``sin(pi/2 - i u) = cosh u``.
    """
    n = min(optics.immersion_index, optics.sample_index)
    segments = [(0j, complex(math.asin(min(1.0, optics.na / n))))]
    if optics.na > n:
        decay = optics.wavenumber * n * optics.depth_um
        u = min(math.acosh(optics.na / n), math.asinh(_DECAYED / max(decay, 1e-9)))
        segments.append((complex(math.pi / 2), math.pi / 2 - 1j * u))
    nodes, weights = [], []
    for start, end in segments:
        probes = n * np.sin(np.linspace(start, end, 200)).real
        count = _count(optics, probes, focus_um, radius_um)
        x, w = special.roots_legendre(count)
        angle = start + (end - start) * (x + 1) / 2
        nodes.append(n * np.sin(angle).real)
        weights.append((n**2 * np.sin(angle) * np.cos(angle) * w * (end - start) / 2).real)
    return np.concatenate(nodes), np.concatenate(weights)


def _count(optics: Optics, s: Float64Array, focus_um: Float64Array, radius_um: float) -> int:
    """Return the number of nodes for an evenly sampled segment of the aperture.

    ``exp(i w x)`` on -1 <= x <= 1 is a polynomial of degree w except for a remainder that falls
    faster than exponentially, and N nodes are exact to degree 2 N - 1. So w/2 nodes and a reserve,
    w being the fastest change of the path plus that of the Bessel functions' argument.
    """
    sample = optics.depth_um * np.sqrt(optics.sample_index**2 - s**2 + 0j)
    immersion = np.sqrt(optics.immersion_index**2 - s**2)
    steps = [np.abs(np.diff(sample - z * immersion)) for z in (focus_um.min(), focus_um.max())]
    fastest = float((np.maximum(*steps) + radius_um * np.abs(np.diff(s))).max())
    phase = optics.wavenumber * fastest * (s.size - 1) / 2
    return math.ceil(phase / 2) + _RESERVE
