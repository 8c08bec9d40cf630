"""Settings, presets and reports of a training."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.tiles import STEP
from napari_rln.core.volume import FloatArray
from napari_rln.networks.architectures.base import Views
from napari_rln.networks.architectures.registry import TITLES, ArchitectureName, class_of
from napari_rln.networks.initial_estimate import StartMethod, StartSettings
from napari_rln.networks.model import Model
from napari_rln.networks.normalisation import NormalisationMethod
from napari_rln.networks.rln import RECEPTIVE_FIELD

EDGE = 3
"""Voxels at the border of a patch that a refinement is not judged by."""

LEAST_SIDE = 5
"""Side in voxels of the smallest patch that a refinement can be judged by."""

Preset = Literal["quick", "full", "universal", "paper"]

VIEWS_WORDS: dict[Views, str] = {
    "single": "one",
    "averaged": "two, their sum",
    "concatenated": "two, each",
}
"""Words of forms for the views of a network."""

_PAPER = {"paper": "as in the paper"}


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a training.

    Parameters
    ----------
    steps
        Number of training steps; by default as many as the time allows. Leave it out to choose the
        time instead.
    minutes
        Duration in minutes where no number of steps is given, with the preparation; converted to a
        number of steps from the time of the first ones, and corrected at every test. Give more
        where the quality still rises at the end.
    architecture
        Architecture of the network: rln; or, to compare it with, care, rcan (3D-RCAN), ddn
        (DenseDeconNet), ista and ista-large (ISTA-Net+), admm (ADMM-Net), kld (kernel learning
        deconvolution), which start from the image. Keep rln for a model to work with.
    variant
        Input of the network: a classical deconvolution with the PSF (started), or the image
        (paper). Keep started for a model that also serves similar PSFs.
    views
        Views of the input: a ``single`` one, or two, added (``averaged``) or as two channels
        (``concatenated``). The started variant starts from their joint deconvolution. Choose two
        only for images taken from two sides.
    start
        What the network starts from: ``image`` as it is, its deconvolution by ``matched`` or
        ``wiener-butterworth``, or ``ladder``, from which the number of iterations is predicted.
        Keep the choice of the preset or initial model.
    start_iterations
        Number of accelerated iterations of the initial deconvolution; ``auto``: from the noise of
        the image. Keep ``auto`` unless all your images have the same noise.
    start_beyond
        Factor on the automatic number of iterations. Raise it for a sharper and noisier input of
        the network.
    refine
        Fraction of the steps, at the end, that train a refinement behind the network instead of the
        network; 0: no refinement. Keep 0 unless you train for hours.
    refine_rate
        Highest learning rate of these steps. Lower it if the loss jumps.
    learning_rate
        How far each step changes the network, after the first steps. Lower it if the loss jumps or
        the training diverges.
    schedule
        Learning rate over the training: ``cosine``, to 0 at the last step; or that of the
        architecture's authors (``paper``), for rln 5 % less every 600 steps. Keep ``cosine`` unless
        you repeat the paper.
    batch
        Patches per step. Lower it if the memory does not suffice.
    patch
        Side length of a patch in voxels, even. Lower it if the memory does not suffice.
    margin
        Border of patches in voxels that the loss excludes, since its context is cut off. Keep 0
        unless results differ at the edges of tiles.
    fullness
        Minimum mean brightness of a patch, relative to its volume; dimmer ones are redrawn a few
        times. Lower it for sparse structures.
    augment
        Mirror patches and exchange x and y as the PSF's symmetry allows. Keep it on for more
        variety from the same volumes.
    mirror
        Apply the trained network to mirrored images too, as the PSF's symmetry allows, and average
        the results, at up to four times its time; not the paper's variant. Switch it off for a
        faster model.
    loss
        Measure of error to reduce: the logarithm of each patch's own error and its structural
        similarity (``relative``), in windows for several initial estimates; or that of the
        architecture's authors (``paper``). Keep ``relative`` unless you repeat the paper.
    clip
        Maximum norm of the gradient; 0: no limit. Lower it if the loss jumps.
    initial
        Initial weights: passing the initial estimate through (``estimate``), or random ones
        (``paper``). Keep the first for short trainings; an initial model replaces both.
    bn_momentum
        Weight of a batch in the running statistics of batch normalisation. Keep the value of the
        preset; it has no effect on fixed statistics.
    frozen
        Fraction of the steps, at the end, with fixed statistics of batch normalisation, as in
        inference; 1: those of the initial weights or model throughout. Keep 1 unless you repeat the
        paper.
    last_beta
        Initial beta of the last batch normalisation; training lowers it slowly. Keep the value of
        the preset.
    examples
        Maximum number of volumes, each created when first needed. Raise it for long trainings.
    steps_per_example
        Number of steps between new volumes. Raise it if drawing volumes delays the steps.
    shape
        Size (z, y, x) of a simulated volume in voxels. Lower it for a faster preparation; it must
        hold a patch.
    normalisation
        Scale of the network's input: ``brightness`` preserves intensities; ``percentiles`` scales
        each patch and its ground truth, as in the paper; ``photons`` is the square root of photons.
        Keep ``brightness`` unless you repeat the paper.
    validate
        Number of test volumes, held out from the training, for selecting the best weights; 0 keeps
        the last weights. Simulated volumes cycle through the kinds of structures, 20 without haze.
        Lower it for a faster preparation.
    validate_every
        Number of steps between tests on these volumes. Lower it to follow the quality more closely.
    seed
        Seed of all random numbers. Change it for other volumes; keep it to repeat a training.
    device
        Device: auto, cpu, cuda, cuda:1, mps. Choose cpu if the memory of the GPU does not suffice.
    """

    steps: Annotated[int | None, {"min": 1, "max": 10_000_000, "none": "by time"}] = None
    minutes: Annotated[float, {"min": 0.05, "max": 100_000.0, "label": "Time (minutes)"}] = 5.0
    architecture: Annotated[ArchitectureName, {"words": TITLES}] = "rln"
    variant: Literal["started", "paper"] = "started"
    views: Annotated[Views, {"words": VIEWS_WORDS}] = "single"
    start: Annotated[
        StartMethod,
        {
            "label": "Initial estimate",
            "words": {
                "image": "the image",
                "matched": "Richardson-Lucy",
                "wiener-butterworth": "Wiener-Butterworth",
                "ladder": "several estimates",
            },
        },
    ] = "matched"
    start_iterations: Annotated[
        int | Literal["auto"], {"min": 1, "max": 1000, "label": "Initial iterations"}
    ] = "auto"
    start_beyond: Annotated[float, {"min": 0.1, "max": 10.0, "label": "Iterations factor"}] = 1.4
    refine: Annotated[float, {"min": 0.0, "max": 1.0, "label": "Refinement"}] = 0.0
    refine_rate: Annotated[float, {"min": 1e-7, "max": 1.0, "label": "Refinement rate"}] = 0.002
    learning_rate: Annotated[float, {"min": 1e-7, "max": 1.0}] = 0.02
    schedule: Annotated[
        Literal["cosine", "paper"], {"label": "Rate over time", "words": _PAPER}
    ] = "cosine"
    batch: Annotated[int, {"min": 1, "max": 1024, "label": "Patches per step"}] = 4
    patch: Annotated[int, {"min": 8, "max": 512, "label": "Patch (voxels)"}] = 32
    margin: Annotated[int, {"min": 0, "max": RECEPTIVE_FIELD, "label": "Patch border (voxels)"}] = 0
    fullness: Annotated[float, {"min": 0.0, "max": 1.0, "label": "Least brightness"}] = 0.4
    augment: Annotated[bool, {"label": "Mirror and turn patches"}] = True
    mirror: Annotated[bool, {"label": "Average mirrored images"}] = False
    loss: Annotated[
        Literal["relative", "paper"], {"label": "Measure of error", "words": _PAPER}
    ] = "relative"
    clip: Annotated[float, {"min": 0.0, "max": 1e6, "label": "Limit of a step"}] = 5.0
    initial: Annotated[
        Literal["estimate", "paper"],
        {"label": "New weights", "words": {"estimate": "pass the estimate on", **_PAPER}},
    ] = "estimate"
    bn_momentum: Annotated[float, {"min": 0.0, "max": 1.0, "label": "Statistics per step"}] = 0.1
    frozen: Annotated[float, {"min": 0.0, "max": 1.0, "label": "Fixed statistics"}] = 1.0
    last_beta: Annotated[float, {"min": -10.0, "max": 10.0, "label": "Initial beta"}] = -1.0
    examples: Annotated[int, {"min": 1, "max": 100_000, "label": "Most volumes"}] = 48
    steps_per_example: Annotated[
        int, {"min": 1, "max": 10_000, "label": "Steps per new volume"}
    ] = 12
    shape: Annotated[tuple[int, int, int], {"label": "Volume (voxels)"}] = (64, 64, 64)
    normalisation: Annotated[NormalisationMethod, {"label": "Normalisation"}] = "brightness"
    validate: Annotated[int, {"min": 0, "max": 1000, "label": "Test volumes"}] = 11
    validate_every: Annotated[int, {"min": 1, "max": 1_000_000, "label": "Steps between tests"}] = (
        100
    )
    seed: Annotated[int, {"min": 0, "label": "Random seed"}] = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self)
        if self.patch % 2:
            raise RlnError(
                f"`patch` is {self.patch} voxels but must be even; give {self.patch + 1}."
            )
        step = class_of(self.architecture).step
        if self.patch % step:
            raise RlnError(
                f"`patch` is {self.patch} voxels; for {self.architecture} it must be a multiple of "
                f"{step}: give {self.patch + -self.patch % step}."
            )
        if 2 * self.margin >= self.patch:
            raise RlnError(
                f"`margin` is {self.margin} but must be less than half of `patch`, {self.patch}; "
                "make it smaller."
            )
        if min(self.shape) < self.patch:
            raise RlnError(
                f"`patch` is {self.patch} voxels, more than the {self.shape} of `shape`; make "
                "patches smaller or volumes larger."
            )
        if self.architecture != "rln" and (self.variant != "paper" or self.views != "single"):
            raise RlnError(
                f"`architecture` is {self.architecture}, which starts from the image of a single "
                "view; give `variant` paper and `views` single."
            )
        if class_of(self.architecture).needs_psf and self.normalisation != "brightness":
            raise RlnError(
                f"`normalisation` is {self.normalisation}, but the blur by the PSF, a part of "
                f"{self.architecture}, is of light; give brightness."
            )
        if self.variant == "started" and self.start == "image":
            raise RlnError(
                "`start=image` does not go with the started variant, which starts from a "
                "deconvolution; choose another one (`start=matched`)."
            )
        several = self.start_settings.method == "ladder"
        photons = self.normalisation == "photons"
        if (photons and not several) or (several and self.normalisation == "percentiles"):
            raise RlnError(
                f"`start={self.start}` does not go with `normalisation={self.normalisation}`: "
                "several estimates (`start=ladder`) need the normalisation brightness or photons, "
                "and photons several estimates; change one of them."
            )
        if self.refine and not photons:
            raise RlnError(
                f"`refine` is {self.refine:g}; a refinement needs the normalisation photons."
            )
        least = LEAST_SIDE + 2 * max(self.margin, EDGE)
        if self.refine and (self.patch % STEP or self.patch < least):
            raise RlnError(
                f"`patch` is {self.patch} voxels; to train a refinement with a `margin` of "
                f"{self.margin} it must be a multiple of {STEP} of at least {least}."
            )
        if several and self.views != "single":
            raise RlnError(
                "a network for two views cannot start from a ladder of estimates; choose another "
                "start (`start=matched`)."
            )

    @property
    def start_settings(self) -> StartSettings:
        """Settings of the initial estimate."""
        method: StartMethod = "image" if self.variant == "paper" else self.start
        auto = method == "ladder" or (method != "image" and self.start_iterations == "auto")
        beyond = self.start_beyond if auto else 1.0
        return StartSettings(method=method, iterations=self.start_iterations, beyond=beyond)


PRESETS: dict[Preset, TrainSettings] = {
    "quick": TrainSettings(learning_rate=0.001, examples=64, steps_per_example=6, validate=20),
    "full": TrainSettings(minutes=30.0, examples=200, steps_per_example=10, mirror=True),
    "universal": TrainSettings(
        steps=4_000,
        start="ladder",
        learning_rate=0.006,
        mirror=True,
        examples=1500,
        steps_per_example=1,
        validate=22,
        validate_every=500,
    ),
    "paper": TrainSettings(
        steps=20_000,
        variant="paper",
        learning_rate=0.015,
        schedule="paper",
        patch=64,
        shape=(128, 128, 128),
        fullness=0.8,
        augment=False,
        loss="paper",
        clip=0.0,
        initial="paper",
        bn_momentum=0.01,
        frozen=0.0,
        last_beta=0.0,
        examples=20,
        normalisation="percentiles",
        validate=0,
    ),
}
"""Presets: quick adapts an existing model, full trains one for a PSF, universal the shipped one for
any PSF; paper follows the paper's authors."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Agreement with ground truth after fitting scale and offset, mean over volumes.

    Peak signal-to-noise ratio, the peak being the range of the ground truth, and windowed
    structural similarity.
    """

    psnr_db: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Scores of the unprocessed image and of classical results on the held-out volumes.

    The results are of matched Richardson-Lucy, and of 1 to 5 iterations with the Wiener-Butterworth
    back projector, the best iteration selected by ground truth; none without a PSF.
    """

    image: Quality
    rld: Quality | None = None
    wiener_butterworth: Quality | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Preview:
    """Preview of a held-out volume: its middle planes (Y, X) and (Z, X) in normalised units.

    Of image, initial estimate, present result and ground truth. There is no initial estimate where
    the network starts from the image, and no result before the network is applied.
    """

    image: tuple[FloatArray, FloatArray]
    start: tuple[FloatArray, FloatArray] | None
    result: tuple[FloatArray, FloatArray] | None
    truth: tuple[FloatArray, FloatArray]


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """Progress of a training.

    Attributes
    ----------
    phase
        ``"examples"`` while the first volumes are created, ``"baseline"`` while classical results
        and the initial model are scored, then ``"train"``.
    step, total
        Number done and in total, of the phase. The total of steps is a guess until the first are
        timed.
    seconds, seconds_left
        Computing time since the start, without pauses, and remaining, where known.
    preparation_left
        Time until the first step in seconds, from the volumes created so far; none before any, and
        in training.
    learning_rate
        Learning rate of the last step.
    loss, mse, ssim, e_mse
        Losses of the last step; see :mod:`napari_rln.train.loss`.
    quality
        Scores of the network on the held-out volumes, directly after a validation.
    baseline
        Scores of classical results, from the end of that phase on.
    best_step
        Step of the best weights so far; 0 before any, or for those of the initial model.
    preview
        Preview directly after a validation, and, without a result, of the first volume as soon as
        it exists.
    """

    phase: Literal["examples", "baseline", "train"]
    step: int
    total: int
    seconds: float
    seconds_left: float | None = None
    preparation_left: float | None = None
    learning_rate: float = 0.0
    loss: float | None = None
    mse: float | None = None
    ssim: float | None = None
    e_mse: float | None = None
    quality: Quality | None = None
    baseline: Baseline | None = None
    best_step: int = 0
    preview: Preview | None = None
    _model: Callable[[], Model] | None = field(default=None, repr=False, compare=False)
    _preview: Callable[[], Preview] | None = field(default=None, repr=False, compare=False)

    def preview_now(self) -> Preview | None:
        """Return a preview by the present weights, none before the first volume.

        It takes a fraction of a second, which is not counted as computing time. Call it before the
        next report is requested.
        """
        return self._preview() if self._preview else None

    def model(self) -> Model:
        """Return the best model so far, also of a cancelled training.

        Raises
        ------
        RlnError
            Before the first step.
        """
        if self._model is None:
            raise RlnError("there is no model yet: the first step is not complete.")
        return self._model()
