"""Phases of a training with their progress and time, as rich text."""

from napari_rln.core.report import duration
from napari_rln.train.training_settings import TrainReport

_PHASES = (
    ("", "prepare the PSF and the image"),
    ("examples", "simulate volumes with your PSF, light and noise"),
    ("baseline", "measure RLD on the test volumes, to compare with"),
    ("train", "train the network"),
)
_DONE, _NOW, _LATER = "\N{CHECK MARK}", "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}", "\N{MIDDLE DOT}"


def phases_text(report: TrainReport | None) -> str:
    """Return the phases of a training by its last report, or before the first."""
    now = "" if report is None else report.phase
    present = [phase for phase, _ in _PHASES].index(now)
    rows = []
    for number, (_, text) in enumerate(_PHASES):
        mark = _DONE if number < present else _NOW if number == present else _LATER
        shown = f"{text[:1].upper()}{text[1:]}"
        if number == present:
            shown = f"<b>{shown}</b>"
            if report is not None and report.total:
                shown += f": {report.step} of {report.total}"
        rows.append(f"<tr><td>{mark}&nbsp;</td><td>{shown}</td></tr>")
    return f"<table cellpadding='3'>{''.join(rows)}</table><p>{_times(report)}</p>"


def _times(report: TrainReport | None) -> str:
    if report is None or report.preparation_left is None:
        return "The time is known after the first volume, in a few seconds."
    left, preparation = report.seconds_left, report.preparation_left
    text = f"The training starts in {duration(preparation, approximate=True)}"
    if left is not None and left - preparation >= 1:
        text += f" and takes {duration(left - preparation, approximate=True)}"
    return f"{text}."
