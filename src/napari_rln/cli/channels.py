"""Stacks of several channels, each with its own PSF, into one file."""

from collections.abc import Sequence
from pathlib import Path

from napari_rln.cli.options import ImageSource
from napari_rln.core.errors import RlnError
from napari_rln.io.volumes import contents


def channels_of(image: Path, source: ImageSource, psfs: Sequence[Path]) -> list[tuple[int, Path]]:
    """Return the channels that go into one file, each with its PSF's file; none where one does.

    They do where there is a PSF for each: a file for each, or one file with as many channels.

    Raises
    ------
    RlnError
        If there are several PSFs, but not one for each channel.
    """
    if len(psfs) == 0:
        return []
    single = source.channel is not None or source.planes_are == "channel"
    count = 1 if single else contents(image).channels
    if len(psfs) not in (1, count):
        raise RlnError(
            f"there are {len(psfs)} PSFs but {image.name} has {count} "
            f"{'channel' if count == 1 else 'channels'} to deconvolve; give one for each."
        )
    if count == 1 or (len(psfs) == 1 and contents(psfs[0], 0).channels != count):
        return []
    return [(channel, psfs[channel % len(psfs)]) for channel in range(count)]
