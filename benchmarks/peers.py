"""Other implementations of Richardson-Lucy, each behind one call.

A loader imports its package, sets the number of threads and returns
``run(image, psf, iterations) -> result``; arrays are (Z, Y, X) float32, the PSF sums to 1 with its
centre on voxel ``n // 2``. Each takes the fastest path on a CPU that its package offers through a
public function, with a fixed number of iterations. ``border`` and ``start`` say what that path
does, from reading its code.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Run = Callable[[Array, Array, int], Array]


class Absent(Exception):
    """A method cannot be measured here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to deconvolve.

    Attributes
    ----------
    label
        Name in tables.
    package
        Distribution whose version is reported.
    modules
        Modules that must be importable.
    border
        What it takes to lie beyond the image.
    start
        Its first estimate.
    padded
        Whether it transforms a volume larger than the image.
    load
        From a number of threads to the call.
    """

    label: str
    package: str
    modules: tuple[str, ...]
    border: str
    start: str
    padded: bool
    load: Callable[[int], Run]

    def version(self) -> str:
        """Return the version of the package.

        Raises
        ------
        Absent
            If a module is missing.
        """
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise Absent(f"{' and '.join(missing)} not installed; see benchmarks/README.md")
        return importlib.metadata.version(self.package)


def _skip_init(package: str) -> None:
    """Make a package's modules importable without what its ``__init__`` imports."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise Absent(f"{package} not installed; see benchmarks/README.md")
    sys.modules[package] = importlib.util.module_from_spec(spec)


def _scikit_image(threads: int) -> Run:
    import scipy.fft
    from skimage.restoration import richardson_lucy

    def run(image: Array, psf: Array, iterations: int) -> Array:
        with scipy.fft.set_workers(threads):
            return richardson_lucy(image, psf, num_iter=iterations, clip=False)

    return run


def _redlionfish(threads: int) -> Run:
    import scipy.fft
    from RedLionfishDeconv import doRLDeconvolutionFromNpArrays

    def run(image: Array, psf: Array, iterations: int) -> Array:
        with scipy.fft.set_workers(threads):
            return doRLDeconvolutionFromNpArrays(image, psf, niter=iterations, method="cpu")

    return run


def _sdeconv(pad: int) -> Callable[[int], Run]:
    def load(threads: int) -> Run:
        import torch
        from sdeconv.core import SSettings

        _skip_init("sdeconv.deconv")  # which imports torchvision, for its networks
        from sdeconv.deconv.richardson_lucy import SRichardsonLucy

        torch.set_num_threads(threads)
        SSettings.instance().device = "cpu"

        def run(image: Array, psf: Array, iterations: int) -> Array:
            kernel = np.zeros_like(image)  # it wants a PSF of the shape of the image
            kernel[
                tuple(
                    slice(n // 2 - p // 2, n // 2 - p // 2 + p)
                    for n, p in zip(image.shape, psf.shape, strict=True)
                )
            ] = psf
            deconvolve = SRichardsonLucy(torch.from_numpy(kernel), niter=iterations, pad=pad)
            return deconvolve(torch.from_numpy(image)).numpy()

        return run

    return load


def _ci_deconvolve(**options: Any) -> Callable[[int], Run]:
    def load(threads: int) -> Run:
        import torch
        from core.deconvolve_ci import ci_rl_deconvolve  # its package has this name

        torch.set_num_threads(threads)

        def run(image: Array, psf: Array, iterations: int) -> Array:
            return ci_rl_deconvolve(
                image,
                psf,
                niter=iterations,
                convergence="fixed",
                check_every=iterations,
                device="cpu",
                tiling="none",
                **options,
            )["result"]

        return run

    return load


def _tnia(*, extended: bool) -> Callable[[int], Run]:
    def load(threads: int) -> Run:  # numpy.fft, on one thread whatever is asked
        from tnia.deconvolution.richardson_lucy_np import richardson_lucy_np

        def run(image: Array, psf: Array, iterations: int) -> Array:
            return richardson_lucy_np(image, psf, iterations, noncirc=extended)

        return run

    return load


def _napari_kld(back_projector: str) -> Callable[[int], Run]:
    def load(threads: int) -> Run:
        import torch

        _skip_init("napari_kld")  # which imports Qt and napari
        deconvolution = importlib.import_module("napari_kld.base.deconvolution")
        torch.set_num_threads(threads)

        def run(image: Array, psf: Array, iterations: int) -> Array:
            return deconvolution.Deconvolution(psf, bp_type=back_projector).deconv(
                image, iterations
            )

        return run

    return load


def _flowdec(threads: int) -> Run:
    import tensorflow
    from flowdec.data import Acquisition
    from flowdec.restoration import RichardsonLucyDeconvolver

    session = tensorflow.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1
    )

    def run(image: Array, psf: Array, iterations: int) -> Array:
        deconvolver = RichardsonLucyDeconvolver(image.ndim).initialize()
        acquisition = Acquisition(data=image, kernel=psf)
        return deconvolver.run(acquisition, iterations, session_config=session).data

    return run


_KLD_NEEDS = ("napari_kld", "torch", "fft_conv_pytorch", "pydicom", "skimage", "tqdm")

PEERS: dict[str, Method] = {
    "scikit-image": Method(
        label="scikit-image",
        package="scikit-image",
        modules=("skimage",),
        border="dark outside (zeros), no weights",
        start="flat",
        padded=True,
        load=_scikit_image,
    ),
    "redlionfish": Method(
        label="RedLionfish",
        package="RedLionfish",
        modules=("RedLionfishDeconv",),
        border="periodic",
        start="image",
        padded=False,
        load=_redlionfish,
    ),
    "sdeconv": Method(
        label="sdeconv, pad 0",
        package="sdeconv",
        modules=("sdeconv", "torch", "skimage"),
        border="periodic",
        start="image",
        padded=False,
        load=_sdeconv(0),
    ),
    "sdeconv-pad": Method(
        label="sdeconv, its form's pad 13",
        package="sdeconv",
        modules=("sdeconv", "torch", "skimage"),
        border="image mirrored by 13, periodic beyond",
        start="image",
        padded=True,
        load=_sdeconv(13),
    ),
    "tnia": Method(
        label="tnia-python",
        package="tnia-python",
        modules=("tnia",),
        border="periodic",
        start="image",
        padded=False,
        load=_tnia(extended=False),
    ),
    "tnia-extended": Method(
        label="tnia-python, noncirc",
        package="tnia-python",
        modules=("tnia",),
        border="extended, weights",
        start="flat",
        padded=True,
        load=_tnia(extended=True),
    ),
    "flowdec": Method(
        label="flowdec",
        package="flowdec",
        modules=("flowdec", "tensorflow"),
        border="image mirrored up to a power of 2, periodic beyond",
        start="flat",
        padded=False,
        load=_flowdec,
    ),
    "ci-deconvolve": Method(
        label="ci-deconvolve, defaults",
        package="ci-deconvolve",
        modules=("ci_deconvolve", "torch"),
        border="extended, weights",
        start="automatic, by its statistics",
        padded=True,
        load=_ci_deconvolve(),
    ),
    "ci-deconvolve-flat": Method(
        label="ci-deconvolve, flat start, offset 0",
        package="ci-deconvolve",
        modules=("ci_deconvolve", "torch"),
        border="extended, weights",
        start="flat",
        padded=True,
        load=_ci_deconvolve(start="flat", offset=0.0),
    ),
    "napari-kld": Method(
        label="napari-kld, traditional",
        package="napari-kld",
        modules=_KLD_NEEDS,
        border="estimate mirrored",
        start="image",
        padded=True,
        load=_napari_kld("traditional"),
    ),
    "napari-kld-wb": Method(
        label="napari-kld, wiener-butterworth",
        package="napari-kld",
        modules=_KLD_NEEDS,
        border="estimate mirrored",
        start="image",
        padded=True,
        load=_napari_kld("wiener-butterworth"),
    ),
}
