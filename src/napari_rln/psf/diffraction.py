"""Light around the focus of an objective, by diffraction integrals over its aperture.

The objective is free of aberrations for a point at the coverslip; a point at depth is seen through
sample, coverslip and immersion. A ray leaves the sample with ``s = n sin(theta)``, alike in all
layers (Snell), and ``c = n cos(theta) = sqrt(n^2 - s^2)`` differs: in the sample it is imaginary
from ``s`` = its index on, where light is evanescent. The optical path of the three layers (Gibson
and Lanni, J. Opt. Soc. Am. A 8, 1601 (1991); F. Aguet et al., Opt. Express 17, 6829 (2009)),
less that of the design, is then::

    depth c_sample - focus c_immersion

where ``focus`` is how far the focus drive has moved objective and sample together from where the
coverslip's lower face is sharp. Coverslip and immersion are those of the design, so that they add
no path of their own; the immersion thins by what the drive moves.

By reciprocity the light that a detector on the optical axis takes from a point is that which its
image brings there. The vectorial integrals are therefore those of focusing through a stratified
medium: B. Richards and E. Wolf, Proc. R. Soc. A 253, 358 (1959); P. Török and P. Varga,
Appl. Opt. 36, 2305 (1997).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

Float64Array = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

_COVERSLIP = 1.515  # refractive index; no less than the immersion's, as for solid immersion
_SPARE_NODES = 16  # beyond those that the phase needs; see _count
_FADED = 40.0  # evanescent light weaker than exp(-40) is left out
_BLOCK = 64  # planes at a time, for memory


@dataclass(frozen=True, kw_only=True)
class Optics:
    """An objective, the light and the layers below it.

    Attributes
    ----------
    model
        ``scalar`` or ``vectorial``.
    na
        Numerical aperture, below the immersion index.
    wavelength_um
        In vacuum.
    immersion_index, sample_index
        Refractive indices.
    depth_um
        Distance of the point from the coverslip.
    """

    model: Literal["scalar", "vectorial"]
    na: float
    wavelength_um: float
    immersion_index: float
    sample_index: float
    depth_um: float

    @property
    def wavenumber(self) -> float:
        """In vacuum, radians per micrometre."""
        return 2 * math.pi / self.wavelength_um


def intensity(optics: Optics, focus_um: Float64Array, radii_um: Float64Array) -> Float64Array:
    """Return the light of a point, (Z, R) in arbitrary units.

    Scalar it is ``|I|^2`` with the Kirchhoff integral ``I = int J0(k s r) exp(i k path) s ds``;
    vectorial it is ``|I0|^2 + 2 |I1|^2 + |I2|^2``, the mean over the directions of polarisation.

    Parameters
    ----------
    optics
        Objective, light and layers.
    focus_um
        (Z,) positions of the focus drive, from the coverslip into the sample.
    radii_um
        (R,) distances from the optical axis, in the sample.
    """
    s, weight = _aperture(optics, focus_um, float(radii_um.max()))
    terms = list(_terms(optics, s, weight, radii_um))
    axial = 1j * optics.wavenumber * np.sqrt(optics.immersion_index**2 - s**2)
    light = np.zeros((len(focus_um), len(radii_um)))
    for start in range(0, len(focus_um), _BLOCK):
        part = slice(start, start + _BLOCK)
        phase = np.exp(-focus_um[part, None] * axial)
        for share, amplitude, bessel in terms:
            field = (phase * amplitude) @ bessel
            light[part] += share * (field.real**2 + field.imag**2)
    return light


def _terms(
    optics: Optics, s: Float64Array, weight: Float64Array, radii_um: Float64Array
) -> Iterator[tuple[float, ComplexArray, Float64Array]]:
    """Yield share, amplitude (N,) and Bessel function (N, R) of each integral, without the focus.

    The vectorial integrals are those of an aplanatic lens, whose ``sqrt(cos) sin dtheta`` is
    ``s ds / sqrt(c)`` but for a constant.
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
    where that layer's cosine vanishes. Beyond 90 degrees, for evanescent light, it turns into the
    complex plane: ``sin(pi/2 - i u) = cosh u``.
    """
    n = min(optics.immersion_index, optics.sample_index)
    legs = [(0j, complex(math.asin(min(1.0, optics.na / n))))]
    if optics.na > n:
        fading = optics.wavenumber * n * optics.depth_um
        u = min(math.acosh(optics.na / n), math.asinh(_FADED / max(fading, 1e-9)))
        legs.append((complex(math.pi / 2), math.pi / 2 - 1j * u))
    nodes, weights = [], []
    for start, end in legs:
        probes = n * np.sin(np.linspace(start, end, 200)).real
        count = _count(optics, probes, focus_um, radius_um)
        x, w = special.roots_legendre(count)
        angle = start + (end - start) * (x + 1) / 2
        nodes.append(n * np.sin(angle).real)
        weights.append((n**2 * np.sin(angle) * np.cos(angle) * w * (end - start) / 2).real)
    return np.concatenate(nodes), np.concatenate(weights)


def _count(optics: Optics, s: Float64Array, focus_um: Float64Array, radius_um: float) -> int:
    """Return how many nodes an evenly probed stretch of the aperture needs.

    ``exp(i w x)`` on -1 <= x <= 1 is a polynomial of degree w but for a remainder that falls
    faster than exponentially, and N nodes are exact to degree 2 N - 1. So w/2 nodes and some
    to spare, w being the fastest change of the path plus that of the Bessel functions' argument.
    """
    sample = optics.depth_um * np.sqrt(optics.sample_index**2 - s**2 + 0j)
    immersion = np.sqrt(optics.immersion_index**2 - s**2)
    steps = [np.abs(np.diff(sample - z * immersion)) for z in (focus_um.min(), focus_um.max())]
    fastest = float((np.maximum(*steps) + radius_um * np.abs(np.diff(s))).max())
    turns = optics.wavenumber * fastest * (s.size - 1) / 2
    return math.ceil(turns / 2) + _SPARE_NODES
