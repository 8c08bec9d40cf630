"""Inference with the Richardson-Lucy Network: equal to the module, many times faster.

Batch normalisation in inference is affine. After a convolution it is folded into its weights and a
bias; after a division or a product it remains a scale and a shift.

On CPUs with numba (the extra "fast") :mod:`napari_rln.networks.cpu_kernels.compiled` is used, else
torch; the choice is made once per network.
"""

import functools
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from torch.nn.functional import avg_pool3d, conv3d, conv_transpose3d, softplus

from napari_rln.core.errors import RlnError
from napari_rln.core.limits import NUMBER_TYPES
from napari_rln.core.memory import keep_freed_memory
from napari_rln.networks.architectures.base import check_input
from napari_rln.networks.rln import RECEPTIVE_FIELD, RLN, ConvBN, UpBN

if TYPE_CHECKING:
    from napari_rln.networks.cpu_kernels.compiled import Compiled

Precision = Annotated[Literal["float32", "float64", "float16"], {"words": NUMBER_TYPES}]
TORCH_VOXEL_BYTES = {"float64": 840, "float32": 420, "float16": 210}
"""Memory of torch per voxel, beside input and output, in bytes, by precision; measured."""

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]
Mirrors = tuple[bool, bool, bool]
"""Whether an input may be mirrored along z, y and x."""

NOT_MIRRORED: Mirrors = (False, False, False)

MIRROR_BYTES = 24
"""Memory of mirroring per voxel in bytes: the mirrored input and output, and the sum."""


class InferenceNetwork:
    """A trained network prepared for inference, with folded batch normalisation.

    It holds a copy of the weights: further training of the module does not change it. Calls are
    thread-safe. Equal calls return equal bits if torch has equally many threads.

    Parameters
    ----------
    network
        In any mode; the running statistics of its batch normalisations are used.
    device
        Compute device.
    precision
        Number type; ``"float16"`` is for the convolutions on GPUs only.
    compiled
        Whether to use the compiled kernels on CPUs in float32, if numba is installed. The first
        network on a machine then takes some twenty seconds to prepare, less after
        :func:`compile_in_background`.
    mirrors
        Whether the input is mirrored along z, y and x; see :func:`orientations`.

    Attributes
    ----------
    path
        Implementation: ``"compiled"`` or ``"torch"``.
    bytes_per_voxel
        Memory of a call beside input and output, measured; compiled, each thread has a further
        workspace of some MB.
    halo
        Voxels around a tile that it reads.

    Raises
    ------
    RlnError
        For float16 on the CPU.
    """

    def __init__(
        self,
        network: RLN,
        device: torch.device,
        precision: Precision = "float32",
        *,
        compiled: bool = True,
        mirrors: Mirrors = NOT_MIRRORED,
    ) -> None:
        if precision == "float16" and device.type == "cpu":
            raise RlnError(
                "float16 is no faster on the CPU; use precision float32 there, or a GPU."
            )
        self.device, self.precision = device, precision
        self.halo = RECEPTIVE_FIELD
        self._settings = network.settings
        self._orientations = orientations(mirrors)
        self._dtype = torch.float64 if precision == "float64" else torch.float32
        layers, norms = fold(network)
        self._compiled: Compiled | None = None
        if compiled and device.type == "cpu" and precision == "float32":
            self._compiled = _compile(layers, norms, network.settings.division_eps)
        self.path = "torch" if self._compiled is None else "compiled"
        own = TORCH_VOXEL_BYTES[precision] if self._compiled is None else 32
        self.bytes_per_voxel = own + MIRROR_BYTES * any(mirrors)
        if self._compiled is not None:
            return
        if device.type == "cpu":
            keep_freed_memory()
        # torch uses oneDNN for few channels on request only; it is fastest with channels last.
        self._onednn = (
            device.type == "cpu" and precision == "float32" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        )
        last = self._onednn or precision == "float16"
        self._format = torch.channels_last_3d if last else torch.contiguous_format
        half = torch.float16 if precision == "float16" else self._dtype
        self._layers = {
            name: (w.to(device, half, memory_format=self._format), b.to(device, half))
            for name, (w, b) in layers.items()
        }
        self._norms = {
            name: tuple(t.to(device, self._dtype).reshape(-1, 1, 1, 1) for t in pair)
            for name, pair in norms.items()
        }

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, E0: torch.Tensor | None = None) -> torch.Tensor:
        """Return the network's output, (1, D, H, W), or (N, 1, D, H, W) for N inputs.

        Parameters
        ----------
        x
            (C, D, H, W) or (N, C, D, H, W), the normalised image; even sizes. C is 2 for
            concatenated views, else 1.
        E0
            Initial estimate, of the shape of ``x``; the image when none.

        Raises
        ------
        RlnError
            If a shape differs from these.
        """
        images = self._batch(x)
        starts = images if E0 is None else self._batch(E0)
        if starts.shape != images.shape:
            raise RlnError(
                f"the initial estimate is {tuple(starts.shape)} but the image "
                f"{tuple(images.shape)}; give both in one shape."
            )
        y = self._once(images, starts)
        for axes in self._orientations[1:]:
            mirrored = images.flip(axes)
            y += self._once(mirrored, mirrored if E0 is None else starts.flip(axes)).flip(axes)
        if len(self._orientations) > 1:
            y *= 1 / len(self._orientations)
        return y if x.ndim == 5 else y[0]

    def _once(self, images: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Return the outputs (N, 1, D, H, W) of one orientation."""
        if self._compiled is not None:
            pairs = [(i.numpy(), s.numpy()) for i, s in zip(images, starts, strict=True)]
            outputs = [self._compiled(i, i if starts is images else s) for i, s in pairs]
            return torch.stack([torch.from_numpy(output) for output in outputs])
        # TensorFloat-32, torch's default for convolutions, has three digits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._apply(images, starts)

    def _batch(self, x: torch.Tensor) -> torch.Tensor:
        x = x if x.ndim == 5 else x[None]
        check_input(x, self._settings.channels, RLN.step)
        return x.detach().to(self.device, self._dtype).contiguous()

    def _apply(self, x: torch.Tensor, E0: torch.Tensor) -> torch.Tensor:
        c, mean, eps = self._convolve, self._mean, self._settings.division_eps
        estimate = avg_pool3d(E0, 2)
        a = c("e_1", estimate)
        b = c("e_2", a)
        FP1 = mean(c("e_3", a, b)) + softplus(mean(estimate))
        g = c("e_4", self._affine("DV1", avg_pool3d(x, 2) / (FP1 + eps)))
        h = c("e_5", g)
        u = softplus(conv_transpose3d(c("e_6", h, g), *self._layers["e_7"], stride=2))
        E1 = softplus(self._affine("e", mean(E0) * mean(c("e_8", u))))
        FP2 = mean(c("u_2", c("u_1", E0))) + softplus(mean(E0))
        BP2 = mean(c("u_4", c("u_3", self._affine("DV2", x / (FP2 + eps))))) + 1
        E2 = softplus(self._affine("e2", E1 * BP2))
        m1 = c("u_5", E2)
        m2 = c("u_6", m1, E2, E1)
        return mean(c("u_7", m1, m2)).contiguous()

    def _convolve(self, name: str, *parts: torch.Tensor) -> torch.Tensor:
        w, bias = self._layers[name]
        x = torch.cat([part.to(w.dtype) for part in parts], 1)
        x = x.contiguous(memory_format=self._format)
        if self._onednn:
            one = [1, 1, 1]
            return softplus(torch.ops.aten.mkldnn_convolution(x, w, bias, one, one, one, 1))
        return softplus(conv3d(x, w, bias, padding=1))

    def _mean(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1, keepdim=True, dtype=self._dtype)

    def _affine(self, name: str, x: torch.Tensor) -> torch.Tensor:
        scale, shift = self._norms[name]
        return x * scale + shift


def orientations(mirrors: Mirrors) -> Sequence[tuple[int, ...]]:
    """Return the axes (of z, y and x, as -3, -2 and -1) that are mirrored in each orientation.

    The first orientation is that of the input, with none. If all three axes may be mirrored, these
    are the four orientations with an even number of mirrored axes: all eight are no better.
    """
    axes = [axis for axis, allowed in zip((-3, -2, -1), mirrors, strict=True) if allowed]
    step = 2 if len(axes) == 3 else 1
    numbers = range(0, len(axes) + 1, step)
    return [chosen for number in numbers for chosen in combinations(axes, number)]


@functools.cache
def compile_in_background() -> "subprocess.Popen[bytes] | None":
    """Compile the network's kernels in the background, unless cached; return the process.

    In a separate process, as a thread would hold Python's lock. numba caches compiled code beside
    the kernels or, where that is not writable, in the user's cache folder. A network prepared
    meanwhile waits for it.
    """
    try:
        from napari_rln.networks.cpu_kernels.chain import is_cached
    except (ImportError, RuntimeError):  # no numba, or no writable cache folder
        return None
    if is_cached() or getattr(sys, "frozen", False):  # frozen programs have no interpreter to start
        return None
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _COMPILE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:  # the first network compiles them
        return None


def is_compiling() -> bool:
    """Return whether kernels are being compiled in the background."""
    process = compile_in_background() if compile_in_background.cache_info().currsize else None
    return process is not None and process.poll() is None


_COMPILE = """
import torch
from napari_rln.networks.inference import InferenceNetwork
from napari_rln.networks.rln import RLN, NetworkSettings
InferenceNetwork(RLN(NetworkSettings()), torch.device("cpu"))
"""


def _compile(layers: Pairs, norms: Pairs, eps: float) -> "Compiled | None":
    """Return the compiled network; none if numba is missing, too old, or unable to compile it."""
    try:
        from numba.core.errors import NumbaError

        from napari_rln.networks.cpu_kernels.compiled import Compiled
    except (ImportError, RuntimeError):
        return None
    channels = layers["e_1"][0].shape[1]
    least = np.zeros((channels, 2, 2, 2), np.float32)
    process = compile_in_background() if compile_in_background.cache_info().currsize else None
    if process is not None:
        process.wait()
    try:
        compiled = Compiled(layers, norms, eps)
        compiled(least, least)  # compiles, or loads the cache
    except NumbaError:  # a future numba may not support the kernels
        return None
    return compiled


def fold(network: RLN) -> tuple[Pairs, Pairs]:
    """Return weight and bias of each convolution, and scale and shift of the other layers.

    float64, by the paper's names: ``e_1`` to ``u_7``; ``DV1``, ``e``, ``DV2`` and ``e2``.
    """
    H1, H2, H3 = network.H1, network.H2, network.H3
    layers = {
        name: _fold(layer)
        for part in (H1, H2, H3)
        for name, layer in part.named_children()
        if isinstance(layer, ConvBN | torch.nn.Conv3d)
    }
    norms = {"DV1": H1.DV.bn, "e": H1.e_bn, "DV2": H2.DV.bn, "e2": H2.e2_bn}
    return layers, {name: _affine(bn) for name, bn in norms.items()}


def _fold(layer: ConvBN | torch.nn.Conv3d) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(layer, torch.nn.Conv3d):
        weight = layer.weight.detach().cpu().double()  # not every device has float64
        return weight, weight.new_zeros(len(weight))
    weight = layer.conv.weight.detach().cpu().double()  # type: ignore[operator]
    scale, shift = _affine(layer.bn)
    outputs = [1, -1, 1, 1, 1] if isinstance(layer, UpBN) else [-1, 1, 1, 1, 1]
    return weight * scale.reshape(outputs), shift


def _affine(bn: torch.nn.BatchNorm3d) -> tuple[torch.Tensor, torch.Tensor]:
    mean, variance = bn.running_mean, bn.running_var
    assert mean is not None
    assert variance is not None
    weight, bias, mean, variance = (
        t.detach().cpu().double() for t in (bn.weight, bn.bias, mean, variance)
    )
    scale = weight / torch.sqrt(variance + bn.eps)
    return scale, bias - mean * scale
