"""Study of several methods on a real image, without ground truth.

What can be measured there:

- how well each result, blurred again, explains the image: without any fit of its brightness;
- how far the results of two halves of the photons repeat each other;
- where all methods agree, and where one stands alone;
- and, if there is an image of the same object by another microscope, registered: how much each
  result is like it. That image has noise and a blur of its own: a reference and not the truth.

Every method starts afresh and shares no work with the others, so that their times can be compared.
"""

import dataclasses
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_rln.core.errors import ComputeError, RlnError, warn
from napari_rln.core.generators import finish, relay
from napari_rln.core.metrics import fitted
from napari_rln.core.report import Report
from napari_rln.core.volume import Box, Mask, Volume, check_on_grid
from napari_rln.deconvolution.method import Method
from napari_rln.deconvolution.shared import Shared
from napari_rln.engine.in_memory import deconvolve_iter
from napari_rln.evaluate.agreement import Agreement, AgreementSettings, agreement
from napari_rln.evaluate.comparison import CompareReport, CompareSettings, compare_iter
from napari_rln.evaluate.half_photons import (
    HalfPhotons,
    correlate,
    half_photons_iter,
    split_photons,
)
from napari_rln.evaluate.reference import Reference, box_of
from napari_rln.study.real_data_result import (
    COLUMNS,
    RealStudy,
    RealStudySettings,
    file_name,
)

_RESIDUAL = ("seconds", "peak_mb", "chi2", "reblur_scale", "flux_ratio")

Row = dict[str, Any]
"""Row of the table, with the keys of :data:`.real_data_result.COLUMNS`."""


@dataclass(frozen=True, kw_only=True)
class RealStudyReport:
    """Progress: the method at work, its number from 1 and their number, and its own report.

    The last steps, comparisons of all results, have no name.
    """

    name: str
    done: int
    total: int
    inner: Report | CompareReport


def study_volume(
    image: Volume,
    psf: Volume | None,
    methods: Mapping[str, Method],
    *,
    reference: Volume | None = None,
    covered: Mask | None = None,
    others: Sequence[Volume] = (),
    settings: RealStudySettings | None = None,
    agreement_settings: AgreementSettings | None = None,
) -> RealStudy:
    """Return the study of a real image; see :func:`study_volume_iter`."""
    return finish(
        study_volume_iter(
            image, psf, methods, reference=reference, covered=covered, others=others,
            settings=settings, agreement_settings=agreement_settings,
        )
    )  # fmt: skip


def study_volume_iter(
    image: Volume,
    psf: Volume | None,
    methods: Mapping[str, Method],
    *,
    reference: Volume | None = None,
    covered: Mask | None = None,
    others: Sequence[Volume] = (),
    settings: RealStudySettings | None = None,
    agreement_settings: AgreementSettings | None = None,
) -> Generator[RealStudyReport, None, RealStudy]:
    """Yield reports, return the study of methods on a real image.

    A method that fails on the way is reported in its row, and the others go on. Closing the
    generator cancels.

    Parameters
    ----------
    image
        (Z, Y, X), as acquired.
    psf
        On the image's voxels, sum 1; without it there is no residual.
    methods
        Methods by their names in table and figure.
    reference
        Image of the same object by another microscope, on the image's grid, see
        :func:`napari_rln.registration.register.register`.
    covered
        (Z, Y, X) bool, where the reference was measured, see
        :func:`napari_rln.evaluate.reference.covered_by`; all if None.
    others
        Results of other programs on the image's grid, named.
    settings, agreement_settings
        Settings; the defaults if None.

    Raises
    ------
    RlnError
        If there is no method, two have one name, grids differ, a method does not match image and
        PSF, or the reference has no contrast.
    """
    settings = settings or RealStudySettings()
    box = _checked(image, psf, methods, reference, covered, others, settings)
    compared = None
    if reference is not None:
        compared = Reference.of(reference, box, covered=covered, threshold=settings.inside)
    rows: dict[str, Row] = {image.name: _row(image.name, "image")}
    if settings.halves:
        rows[image.name] |= _raw_halves(image, psf, settings)
    results: list[Volume] = []
    halves: dict[str, HalfPhotons] = {}
    for number, (name, method) in enumerate(methods.items(), 1):
        result, half, rows[name] = yield from relay(
            _run(image, psf, name, method, settings),
            lambda r, n=name, i=number: RealStudyReport(  # type: ignore[misc]
                name=n, done=i, total=len(methods), inner=r
            ),
        )
        results += [result] if result else []
        halves |= {name: half} if half else {}
    rows |= {other.name: _row(other.name, "other") for other in others}
    shown = [*results, *others]
    known = {name: getattr(settings, name) for name in ("background", "offset", "gain")}
    compare = CompareSettings(planes=False, **known)
    table = yield from relay(
        compare_iter(image, shown, psf=psf, settings=compare),
        lambda r: RealStudyReport(name="", done=len(methods), total=len(methods), inner=r),
    )
    for found in table.rows:
        rows[found.name] |= {k: v for k, v in found.cells().items() if k in _RESIDUAL}
    agreed = _agreement(results, others, settings, agreement_settings)
    for alone in agreed.alone if agreed else ():
        shares = {"added": alone.added, "missing": alone.missing, "voxels": alone.voxels}
        rows[alone.name] |= {f"alone_{kind}": share for kind, share in shares.items()}
    if compared is not None:
        for volume in (image, *shown):
            rows[volume.name] |= compared.scores(volume)
    return RealStudy(
        image=image,
        psf=psf,
        results=tuple(results),
        others=tuple(others),
        reference=reference,
        box=box,
        rows=tuple(rows.values()),
        agreement=agreed,
        halves=halves,
        notes=_notes(compared, reference, halves.values(), others, settings),
        settings=settings,
    )


def _run(
    image: Volume, psf: Volume | None, name: str, method: Method, settings: RealStudySettings
) -> Generator[Report, None, tuple[Volume | None, HalfPhotons | None, Row]]:
    """Yield reports, return the result of a method, those of halves of the photons, and its row.

    What failed is none, and the reason in the row.
    """
    row, result, half = _row(name, "method"), None, None
    try:
        made = yield from deconvolve_iter(image, psf, method)
        result = dataclasses.replace(made, name=name)
        facts = made.record.facts if made.record else {}
        row["iterations"] = facts.get("iterations", facts.get("start_iterations"))
        if settings.halves:
            half = yield from half_photons_iter(image, psf, method, seed=settings.seed)
            row |= {"halves_lateral_um": half.lateral_um, "halves_axial_um": half.axial_um}
    except (RlnError, ComputeError) as failure:
        row["error"] = str(failure) if result is None else f"halves of the photons: {failure}"
        warn(f"{name}: {row['error']}")
    return result, half, row


def _checked(
    image: Volume,
    psf: Volume | None,
    methods: Mapping[str, Method],
    reference: Volume | None,
    covered: Mask | None,
    others: Sequence[Volume],
    settings: RealStudySettings,
) -> Box:
    """Return the part to compare and show; raise unless the inputs match."""
    if not methods:
        raise RlnError("the study has no method; name at least one (`methods`).")
    names = [image.name, *methods, *(other.name for other in others)]
    for name in names:
        if names.count(name) > 1:
            raise RlnError(f"{name!r} names two columns of the study; give them different names.")
    if len({file_name(name) for name in methods}) < len(methods):
        raise RlnError("names of methods may not differ in punctuation alone; rename one.")
    for volume in (*others, *((reference,) if reference else ())):
        check_on_grid(volume, image)
    for method in methods.values():
        method.check(image, psf)
    if settings.box is not None:
        for (start, stop), n, axis in zip(settings.box, image.shape, "zyx", strict=True):
            if stop > n:
                raise RlnError(
                    f"`box` is {start}:{stop} along {axis} but {image.name} has {n} voxels there."
                )
        z, y, x = (slice(start, stop) for start, stop in settings.box)
        return z, y, x
    if covered is None:
        z, y, x = (slice(0, n) for n in image.shape)
        return z, y, x
    return box_of(covered)


def _row(name: str, kind: str) -> dict[str, Any]:
    """Return a row without values."""
    return dict.fromkeys(COLUMNS) | {"name": name, "kind": kind}


def _raw_halves(image: Volume, psf: Volume | None, settings: RealStudySettings) -> dict[str, Any]:
    """Return the resolution of the image itself, by its halves; empty without photon noise."""
    shared = Shared()
    calibration = shared.calibrate(image, settings)
    if not calibration.camera.counts_photons:
        return {}
    clean, _, _ = shared.prepare(image, psf, calibration, repair=True)
    halves = split_photons(clean, calibration, settings.seed)
    lateral, axial = correlate(*(image.with_data(half) for half in halves[:2]))
    return {
        "halves_lateral_um": None if lateral is None else lateral.resolution_um,
        "halves_axial_um": None if axial is None else axial.resolution_um,
    }


def _agreement(
    results: Sequence[Volume],
    others: Sequence[Volume],
    settings: RealStudySettings,
    agreement_settings: AgreementSettings | None,
) -> Agreement | None:
    """Return the agreement of methods and other programs; none with fewer than two."""
    if len(results) + len(others) < 2:
        return None
    scaled = list(others)
    if results and settings.fit_others:
        middle = np.median(np.stack([result.data for result in results]), axis=0)
        scaled = [o.with_data(fitted(o.data, middle).astype(np.float32)) for o in others]
    return agreement([*results, *scaled], settings=agreement_settings)


def _notes(
    compared: Reference | None,
    reference: Volume | None,
    halves: Iterable[HalfPhotons],
    others: Sequence[Volume],
    settings: RealStudySettings,
) -> tuple[str, ...]:
    """Return the sentences that belong to the numbers."""
    notes = []
    if others and settings.fit_others:
        notes.append(
            f"For the agreement, scale and offset of {', '.join(o.name for o in others)} were "
            "fitted to the median of the methods; chi squared is of the result as it is."
        )
    if compared is not None and reference is not None:
        where = " ".join(f"{part.start}:{part.stop}" for part in compared.box)
        how = "Otsu's method" if settings.inside == "auto" else "as given"
        notes.append(
            f"Compared with {reference.name} in voxels {where} (z y x), without what it does not "
            f"cover; inside the object is where it exceeds {compared.threshold:.5g} ({how}), "
            f"{compared.inside.mean():.1%} of them."
        )
    for half in halves:
        notes += [caution for caution in half.cautions if caution not in notes]
    return tuple(notes)
