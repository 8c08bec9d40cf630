"""Time of a training: the volumes and steps that fit its minutes, and the time left."""

from napari_rln.core.generators import Stopwatch
from napari_rln.train.training_settings import TrainSettings

_PREPARATION = 0.3  # of the minutes of a training, at most
_LEAST = (4, 3)  # held-out and first examples of a training that is short of time
_LARGEST_SHARE = 1.4  # of the time for a volume: its classical results with one initial estimate
_SCORING = {"ladder": 0.4}  # the same, for starts with fewer iterations to search
_VALIDATION = 0.1  # the same, for the initial model's result


class Timing:
    """Durations of the parts of a training so far, and what follows from them.

    Attributes
    ----------
    clock
        Computing time, without pauses.
    held_out
        Number of held-out volumes.
    timed_from
        Step from which steps are timed.
    validation
        Duration of the last validation, seconds; 0 before one.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self.clock = Stopwatch()
        self.held_out = settings.validate
        self.timed_from = 0
        self.validation = 0.0
        self._settings = settings
        self._timed = self._validating = 0.0  # start of the timed steps; validations since then
        self._began: float | None = None  # of the preparation
        self._volume = 0.0  # seconds for one
        self._scoring: tuple[float, int] | None = None  # time at which it began, examples by then

    @property
    def seconds(self) -> float:
        """Computing time so far, seconds."""
        return self.clock.seconds

    def from_here(self, step: int) -> None:
        """Time the steps from this one on."""
        self._timed, self.timed_from, self._validating = self.seconds, step, 0.0

    def add_validation(self, began: float) -> None:
        """Add a validation that began at a time and ends now."""
        self.validation = self.seconds - began
        self._validating += self.validation

    def each_step(self, step: int) -> float:
        """Return the duration of a step, without validations, from those up to this one."""
        took = self.seconds - self._timed - self._validating
        return took / (step - self.timed_from)

    def volumes_in_time(self, seconds: float, most: tuple[int, int]) -> tuple[int, int]:
        """Return how many held-out and first volumes fit the time, if one took so long.

        So that a training of a minute takes a minute.
        """
        count = _PREPARATION * 60 * self._settings.minutes / seconds
        fraction = min(1.0, count / sum(most))
        held_out, first = (
            min(n, max(least, round(fraction * n))) for n, least in zip(most, _LEAST, strict=True)
        )
        return held_out, first

    def steps_in_time(self, step: int, each: float) -> int:
        """Return the number of steps that fits the time limit, if each takes so long."""
        each += self.validation / self._settings.validate_every
        left = 60 * self._settings.minutes - self.seconds - self.validation  # of the last
        return max(step + 1, step + int(left / each))

    def steps_left(self, step: int, total: int) -> float:
        """Return the time for the steps to the last one, with validations as frequent as so far."""
        return (self.seconds - self._timed) / (step - self.timed_from) * (total - step)

    def volumes_left(self, done: int, total: int, *, scored: bool) -> float | None:
        """Return the time of the rest of the preparation while volumes are created.

        None before the first. If classical results are ``scored`` already, these are not counted.
        """
        if self._began is None:
            self._began = self.seconds
        if not done:
            return None
        self._volume = (self.seconds - self._began) / done
        later = _VALIDATION + (0.0 if scored else self._score)
        return self._volume * (total - done + self.held_out * later)

    def scores_left(self, done: int) -> float:
        """Return the time of the rest of the preparation while classical results are scored."""
        if self._scoring is None:
            self._scoring = self.seconds, done
        began, before = self._scoring
        each = self._volume * self._score
        if done > before:
            each = (self.seconds - began) / (done - before)
        return each * (self.held_out - done) + self._volume * _VALIDATION * self.held_out

    @property
    def _score(self) -> float:
        """Expected time for the classical results of a volume, as a fraction of its own."""
        return _SCORING.get(self._settings.start_settings.method, _LARGEST_SHARE)
