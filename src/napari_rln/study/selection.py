"""Selections of the results of a study: methods, test images, and results to compare."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from napari_rln.study.intervals import Interval, interval
from napari_rln.study.results import Cell, CellResult

Kind = Literal["classical", "network", "trained"]
"""Kind of method: without parameters; a network made elsewhere; one trained in the study."""

_PSF_WORDS = (
    "psf", "wavelength", "depth", "aberration", "spherical", "z step", "z-step", "refractive",
    "immersion", "aperture", "defocus",
)  # fmt: skip


class ImageKey(NamedTuple):
    """What tells one test image from another."""

    psf: str
    photons: float
    tested_on: str
    condition: str
    seed: int

    @property
    def object(self) -> "ObjectKey":
        """The object; images of it differ in the PSF, the photons or the condition."""
        return self.tested_on, self.seed


ByImage = dict[ImageKey, float]
"""Value of a method on each test image."""

ObjectKey = tuple[str, int]
"""What tells one simulated object from another: its structures and its seed."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of a study.

    Attributes
    ----------
    name
        Name in the study.
    kind
        Whether it is a network, and trained in the study.
    oracle
        Whether it needs the truth, for instance to stop: it is shown, but cannot be used.
    parameters
        Number of trained parameters, if known.
    """

    name: str
    kind: Kind
    oracle: bool
    parameters: int | None


def methods_of(results: Iterable[CellResult]) -> tuple[Method, ...]:
    """Return the methods of results by kind and name, those of networks last."""
    by_name: defaultdict[str, list[CellResult]] = defaultdict(list)
    for result in results:
        by_name[result.cell.method].append(result)
    methods = []
    for name, own in by_name.items():
        parameters = max((r.parameters for r in own if r.parameters is not None), default=None)
        kind = _kind(own, parameters)
        oracle = any(r.facts.get("oracle") is True for r in own)
        methods.append(Method(name=name, kind=kind, oracle=oracle, parameters=parameters))
    order = ("classical", "network", "trained")
    return tuple(sorted(methods, key=lambda m: (order.index(m.kind), m.name)))


def _kind(results: Sequence[CellResult], parameters: int | None) -> Kind:
    """Return the kind of a method, as its results say, or as they look."""
    if any(r.facts.get("kind") == "train" or r.cell.trained_on is not None for r in results):
        return "trained"
    ready = parameters or any(r.facts.get("kind") == "model" for r in results)
    return "network" if ready else "classical"


def several_machines(results: Iterable[CellResult]) -> bool:
    """Tell whether results are of more than one machine, or number of threads."""
    machines, threads = set(), set()
    for result in results:
        machines.add(result.facts.get("machine"))
        threads |= {result.facts.get(fact) for fact in ("threads", "training_threads")}
    return max(len(machines - {None}), len(threads - {None})) > 1


def image_of(cell: Cell) -> ImageKey:
    """Return the test image of a cell."""
    return ImageKey(cell.psf, cell.photons, cell.tested_on, cell.condition, cell.seed)


def conventional_tests(results: Iterable[CellResult]) -> list[CellResult]:
    """Return the conventional tests on images that methods are compared on."""
    return with_networks([r for r in results if r.cell.test == "conventional"])


def with_networks(results: Sequence[CellResult]) -> list[CellResult]:
    """Return the results on images that a network trained in the study was tested on.

    On the others the rest of the methods would be alone. Without such networks, return all.
    """
    trained = {image_of(r.cell) for r in results if r.cell.trained_on is not None}
    return [r for r in results if not trained or image_of(r.cell) in trained]


def mean_of(values: Mapping[ImageKey, float]) -> Interval:
    """Return the mean over test images, and its interval over their objects."""
    return interval(values.values(), (image.object for image in values))


class SharedImages(NamedTuple):
    """Test images that methods share, so that means over them can be compared.

    Attributes
    ----------
    images
        The images, sorted; none if there is none that all methods share.
    left_out
        Numbers of images of methods that are left out, as they have fewer than half of all.
    every
        Number of all images.
    """

    images: tuple[ImageKey, ...]
    left_out: dict[str, int]
    every: int

    def of(self, results: Iterable[CellResult]) -> list[CellResult]:
        """Return the results on these images, of methods that are not left out."""
        images = set(self.images)
        return [
            r for r in results
            if r.cell.method not in self.left_out and image_of(r.cell) in images
        ]  # fmt: skip


def shared_images(values: Mapping[str, Collection[ImageKey]]) -> SharedImages:
    """Return the test images that methods share, from those of each method."""
    every = {image for own in values.values() for image in own}
    left_out = {name: len(own) for name, own in values.items() if 2 * len(own) < len(every)}
    kept = [set(own) for name, own in values.items() if own and name not in left_out]
    common = sorted(set.intersection(*kept)) if kept else []
    return SharedImages(tuple(common), left_out, len(every))


def on_common_images(results: Sequence[CellResult]) -> tuple[Sequence[CellResult], SharedImages]:
    """Return the results on the images that all methods share; if they share none, all results."""
    shared = shared_images({n: v.keys() for n, v in by_image(results, "psnr_db").items()})
    return (shared.of(results) if shared.images else results), shared


def of_untrained(
    everything: Iterable[CellResult], images: Collection[ImageKey]
) -> list[CellResult]:
    """Return the results on some images of the methods that were not trained in the study."""
    return [r for r in everything if r.cell.trained_on is None and image_of(r.cell) in images]


def concerns_psf(result: CellResult, conditions: Collection[str] | None = None) -> bool:
    """Tell whether the condition of a result is a wrong PSF.

    The result may say so in its fact ``wrong_psf``; otherwise it is one of ``conditions``; without
    these, the words of its name tell, such as "wavelength".
    """
    stated = result.facts.get("wrong_psf")
    if isinstance(stated, bool):
        return stated
    if conditions is not None:
        return result.cell.condition in conditions
    return any(word in result.cell.condition.lower() for word in _PSF_WORDS)


def fully_trained(results: Iterable[CellResult]) -> list[CellResult]:
    """Return the results of each method's largest number of training volumes."""
    results = list(results)
    most: dict[str, int] = {}
    for result in results:
        volumes = result.cell.training_volumes
        most[result.cell.method] = max(most.get(result.cell.method, 0), volumes or 0)
    return [r for r in results if (r.cell.training_volumes or 0) == most[r.cell.method]]


def by_image(results: Iterable[CellResult], measure: str) -> dict[str, ByImage]:
    """Return the finite values of a measure by method and test image, as means over trainings."""
    return _means((r.cell, measured(r, measure)) for r in results)


def losses(
    results: Iterable[CellResult], everything: Iterable[CellResult], measure: str
) -> dict[str, ByImage]:
    """Return by how much a measure falls from a method's own clean result, by test image.

    For a result with a condition that is the one without it, from the same training; for another
    one the conventional one: on the same image, after training on its structures and photons with
    as many volumes. ``everything`` are the results to find them in.
    """
    known = {result.cell: measured(result, measure) for result in everything}
    return _means(
        (r.cell, known.get(clean_cell(r.cell), math.nan) - measured(r, measure)) for r in results
    )


def clean_cell(cell: Cell) -> Cell:
    """Return the cell that shows what a condition, or another training, costs."""
    if cell.condition:
        return replace(cell, condition="")
    return replace(
        cell,
        trained_on=None if cell.trained_on is None else cell.tested_on,
        trained_photons=None if cell.trained_photons is None else cell.photons,
    )


def _means(values: Iterable[tuple[Cell, float]]) -> dict[str, ByImage]:
    """Return the means of finite values of cells by method and test image."""
    lists: defaultdict[str, defaultdict[ImageKey, list[float]]]
    lists = defaultdict(lambda: defaultdict(list))
    for cell, value in values:
        if math.isfinite(value):
            lists[cell.method][image_of(cell)].append(value)
    return {
        method: {image: float(np.mean(of_image)) for image, of_image in images.items()}
        for method, images in lists.items()
    }


def measured(result: CellResult, measure: str) -> float:
    """Return a score, the seconds or the training's seconds of a result; NaN if unknown."""
    value = result.scores.get(measure)
    if measure in ("seconds", "training_seconds"):
        value = getattr(result, measure)
    return math.nan if value is None or result.error is not None else float(value)
