"""Order of methods on the test images that they share, and against a baseline."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from napari_rln.study.intervals import Interval
from napari_rln.study.results import CellResult
from napari_rln.study.selection import ByImage, ImageKey, by_image, mean_of, shared_images

Verdict = Literal["better", "worse", "no difference shown", "too few objects"]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Methods by their mean over the test images that all of them have.

    Attributes
    ----------
    images
        These images.
    means
        Mean of each method over them, the best method first.
    behind
        By how much each other method is behind the best one, paired by image; positive.
    left_out
        Methods with fewer than half of all images, with the number of theirs.
    every
        Number of images that any method has.
    """

    images: tuple[ImageKey, ...]
    means: Mapping[str, Interval]
    behind: Mapping[str, Interval]
    left_out: Mapping[str, int]
    every: int

    @property
    def best(self) -> str:
        """Name of the best method."""
        return next(iter(self.means))

    @property
    def equal_within_noise(self) -> tuple[str, ...]:
        """Methods whose difference from the best one may be chance: its interval includes 0."""
        return tuple(name for name, difference in self.behind.items() if difference.includes(0))


def rank(values: Mapping[str, ByImage], *, lowest_first: bool = False) -> Ranking | None:
    """Return the order of methods by the means of their values; None without a common image."""
    common, left_out, every = shared_images(values)
    if not common:
        return None
    kept = {name: own for name, own in values.items() if own and name not in left_out}
    sign = -1 if lowest_first else 1
    means = {name: mean_of({image: own[image] for image in common}) for name, own in kept.items()}
    names = sorted(means, key=lambda name: (-sign * means[name].mean, name))
    best = kept[names[0]]
    return Ranking(
        images=common,
        means={name: means[name] for name in names},
        behind={
            name: mean_of({image: sign * (best[image] - kept[name][image]) for image in common})
            for name in names[1:]
        },
        left_out=left_out,
        every=every,
    )


@dataclass(frozen=True, kw_only=True)
class AgainstBaseline:
    """A method against the baseline, on the test images of one photon level or structure.

    Attributes
    ----------
    method
        Name of the method.
    by, level
        What the images have in common: ``photons`` or ``tested_on``, and its value.
    gain
        Its value minus that of the baseline, paired by test image.
    """

    method: str
    by: Literal["photons", "tested_on"]
    level: str | float
    gain: Interval

    @property
    def verdict(self) -> Verdict:
        """Whether the interval of the gain lies above 0 or below."""
        if not self.gain.bounded:
            return "too few objects"
        if self.gain.lower > 0:
            return "better"
        return "worse" if self.gain.upper < 0 else "no difference shown"


def against_baseline(
    results: Iterable[CellResult], baseline: str, measure: str = "psnr_db"
) -> tuple[AgainstBaseline, ...]:
    """Return all other methods against a baseline, by photon level and then by structure."""
    values = by_image(results, measure)
    reference = values.pop(baseline, {})
    rows: list[AgainstBaseline] = []
    kinds: Sequence[Literal["photons", "tested_on"]] = ("photons", "tested_on")
    for by in kinds:
        levels = sorted({getattr(image, by) for image in reference})
        for name, own in sorted(values.items()):
            for level in levels:
                common = [i for i in own if i in reference and getattr(i, by) == level]
                if common:
                    gain = mean_of({image: own[image] - reference[image] for image in common})
                    rows.append(AgainstBaseline(method=name, by=by, level=level, gain=gain))
    return tuple(rows)
