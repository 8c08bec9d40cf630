"""What a training is told, what it reports, and the recipes that have names."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import check_limits
from napari_rln.core.volume import FloatArray
from napari_rln.networks.initial_estimate import StartMethod, StartSettings
from napari_rln.networks.model import Model
from napari_rln.networks.normalisation import Method
from napari_rln.networks.rln import REACH, Views

Preset = Literal["quick", "full", "universal", "paper"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a training.

    Parameters
    ----------
    steps
        How many; with none, ``minutes`` decides.
    minutes
        How long to train when ``steps`` are not given, after the first volumes are made: the number
        of steps is set when some of them were timed.
    variant
        started begins with a classical deconvolution by the PSF at hand; paper with the image.
    views
        One view of the object; or two, which the network is given as their sum (averaged) or each
        (concatenated). Their joint deconvolution is the start of the started variant.
    start
        Back projector of that deconvolution.
    start_iterations
        Its accelerated iterations; auto stops it by the image's own noise.
    start_beyond
        Factor on the iterations where auto stops.
    learning_rate
        The highest, after the first steps.
    schedule
        cosine to 0 at the last step; or as the paper's authors, 5 % less every 600 steps.
    batch
        Patches per step.
    patch
        Side of a patch in voxels, even.
    margin
        Voxels at the patches' sides that the loss leaves out: they see less than the volume would
        show them.
    fullness
        A patch of less mean brightness than this share of its volume's is drawn again, some times.
    augment
        Mirror and turn patches as the PSF's symmetry allows.
    loss
        relative weighs every patch by its own error, in the logarithm, as decibels do; paper is the
        authors' loss.
    clip
        Largest norm of the gradient; 0 for any.
    initial
        First weights: estimate hands the first estimate on and learns to correct it; paper is as
        the authors do.
    bn_momentum
        Share of a batch in the running statistics of batch normalisation.
    frozen
        Share of the steps, the last ones, that are done with the statistics held, so that the
        network is trained as it will be used; 1 to hold those of the first weights throughout, or
        those that the model to begin with has.
    last_beta
        First value of the last batch normalisation's beta, which has a long way to go down.
    examples
        Most volumes to learn from, each made when it is first needed.
    every
        Steps between one new example and the next.
    shape
        (Z, Y, X) of a synthetic volume.
    normalisation
        brightness keeps intensities; percentiles is the authors', of each patch and its truth.
    validate
        Volumes held out to choose the best weights by; 0 keeps the last. Synthetic ones show the
        kinds of structures by turns, of which there are 11 by default.
    validate_every
        Steps between two such examinations.
    seed
        Of everything random.
    device
        auto, cpu, cuda, cuda:1, mps.
    """

    steps: Annotated[int | None, {"min": 1, "max": 10_000_000}] = None
    minutes: Annotated[float, {"min": 0.05, "max": 100_000.0}] = 5.0
    variant: Literal["started", "paper"] = "started"
    views: Views = "single"
    start: StartMethod = "matched"
    start_iterations: Annotated[int | Literal["auto"], {"min": 1, "max": 1000}] = "auto"
    start_beyond: Annotated[float, {"min": 0.1, "max": 10.0}] = 1.4
    learning_rate: Annotated[float, {"min": 1e-7, "max": 1.0}] = 0.02
    schedule: Literal["cosine", "paper"] = "cosine"
    batch: Annotated[int, {"min": 1, "max": 1024}] = 4
    patch: Annotated[int, {"min": 8, "max": 512}] = 32
    margin: Annotated[int, {"min": 0, "max": REACH}] = 0
    fullness: Annotated[float, {"min": 0.0, "max": 1.0}] = 0.4
    augment: bool = True
    loss: Literal["relative", "paper"] = "relative"
    clip: Annotated[float, {"min": 0.0, "max": 1e6}] = 5.0
    initial: Literal["estimate", "paper"] = "estimate"
    bn_momentum: Annotated[float, {"min": 0.0, "max": 1.0}] = 0.1
    frozen: Annotated[float, {"min": 0.0, "max": 1.0}] = 1.0
    last_beta: Annotated[float, {"min": -10.0, "max": 10.0}] = -1.0
    examples: Annotated[int, {"min": 1, "max": 100_000}] = 48
    every: Annotated[int, {"min": 1, "max": 10_000}] = 12
    shape: tuple[int, int, int] = (64, 64, 64)
    normalisation: Method = "brightness"
    validate: Annotated[int, {"min": 0, "max": 1000}] = 11
    validate_every: Annotated[int, {"min": 1, "max": 1_000_000}] = 100
    seed: Annotated[int, {"min": 0}] = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_limits(self)
        if self.patch % 2:
            raise RlnError(f"`patch` is {self.patch} voxels but must be even.")
        if 2 * self.margin >= self.patch:
            raise RlnError(f"a margin of {self.margin} leaves nothing of patches of {self.patch}.")
        if min(self.shape) < self.patch:
            raise RlnError(
                f"patches are {self.patch} voxels wide but the volumes {self.shape}; make the "
                "patches smaller or the volumes larger."
            )
        if self.variant == "started" and self.start == "image":
            raise RlnError("the started variant needs a start: matched or wiener-butterworth.")

    @property
    def start_settings(self) -> StartSettings:
        """How the first estimate is made."""
        method: StartMethod = "image" if self.variant == "paper" else self.start
        auto = method != "image" and self.start_iterations == "auto"
        beyond = self.start_beyond if auto else 1.0
        return StartSettings(method=method, iterations=self.start_iterations, beyond=beyond)


PRESETS: dict[Preset, TrainSettings] = {
    "quick": TrainSettings(learning_rate=0.001, examples=64, every=6),
    "full": TrainSettings(minutes=30.0, examples=200, every=10),
    "universal": TrainSettings(
        steps=13_000,
        learning_rate=0.015,
        examples=400,
        every=32,
        shape=(64, 96, 96),
        validate=18,
        validate_every=1000,
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
"""quick adapts a model that exists, full trains one for a PSF, universal the shipped one for any
PSF; paper does as the paper's authors do."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Agreement with the truth after the fit of scale and offset, mean over volumes.

    Attributes
    ----------
    psnr_db
        Peak signal-to-noise ratio; the peak is the truth's range.
    ssim
        Structural similarity, windowed.
    """

    psnr_db: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What the network is to beat on the held-out volumes.

    Attributes
    ----------
    image
        The image as it is.
    rld
        Matched Richardson-Lucy, stopped where it is best: by the truth, as no user could. None
        for pairs without a PSF.
    wiener_butterworth
        The best of 1 to 5 iterations of that back projector; none without a PSF.
    """

    image: Quality
    rld: Quality | None = None
    wiener_butterworth: Quality | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Preview:
    """One held-out volume as the network sees it now: planes (Y, X) and (Z, X), network's scale.

    Attributes
    ----------
    image, start, now, truth
        The xy and the xz plane of each.
    """

    image: tuple[FloatArray, FloatArray]
    start: tuple[FloatArray, FloatArray]
    now: tuple[FloatArray, FloatArray]
    truth: tuple[FloatArray, FloatArray]


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """Where a training stands.

    Attributes
    ----------
    phase
        ``"examples"`` while the first volumes are made, ``"baseline"`` while it is found what is to
        be beaten and a model to begin with is examined, then ``"train"``.
    step, total
        Done and to do, of the phase. The total of steps is a guess until the first were timed.
    seconds, seconds_left
        Of work since the start, pauses left out, and to go.
    learning_rate
        Of the last step.
    loss, mse, ssim, e_mse
        Of the last step; see :mod:`napari_rln.train.loss`.
    quality
        Of the network on the held-out volumes, where it was just examined.
    baseline
        What it is to beat; known from the end of the phase of that name on.
    best_step
        That of the best weights so far; 0 where there are none yet, or they are those of the model
        to begin with.
    preview
        Where it was just examined, and of a model to begin with as soon as there is something to
        see.
    """

    phase: Literal["examples", "baseline", "train"]
    step: int
    total: int
    seconds: float
    seconds_left: float | None = None
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

    def model(self) -> Model:
        """Return the best model so far: what a cancelled training leaves.

        Raises
        ------
        RlnError
            If no step was done yet.
        """
        if self._model is None:
            raise RlnError("there is no model yet: the first step was not done.")
        return self._model()
