"""Convolutions of small channel counts, compiled by numba: the inner loops of :mod:`compiled`.

Half of a 3x3x3 convolution's multiplications along y are saved by Winograd's F(4, 3) (Lavin and
Gray, CVPR 2016): six input rows are transformed to six others, whose products with transformed
weights transform back to four output rows, called a strip. Along x a vector holds neighbouring
voxels, so transforms are vertical and shifts by a voxel are unaligned loads.

What decides the speed is the product in the middle. Left to itself the compiler does not keep its
sums in registers, so :func:`_accumulator` writes that loop in LLVM's own language: 8 channels x 32
voxels of sums with AVX-512, 4 x 16 with the smaller registers of AVX2 and NEON.

Layout: a plane is (channels, rows, pitch) with ``LANES`` zeros before each row, which serve the end
of the row before as well. A ring is (4, strips, 6, channels, pitch): the transformed rows of the
last four planes, plane z in slot ``z & 3``.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = npt.NDArray[np.float32]
_Function = TypeVar("_Function", bound=Callable[..., Any])

LANES = 16
STRIP = 4  # output rows at a time
POINTS = 6  # transformed rows for them

_FEATURES = numba.config.CPU_FEATURES or binding.get_host_cpu_features().flatten()
WIDE = "+avx512f" in _FEATURES
GROUP = 8 if WIDE else 4
"""The most output channels summed at once."""

DIVIDE, MULTIPLY, MEAN, KEEP = range(4)
"""What a chain of convolutions ends in, see :func:`_finish`."""

_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""F(4, 3) at 0, 1, -1, 2, -2 and infinity. In float32 it costs one digit at most."""

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)

# Only what does not change the order of sums: softplus rounds by adding a large number.
_kernel: Callable[[_Function], _Function] = njit(
    nogil=True, fastmath={"nsz", "contract"}, error_model="numpy", cache=True
)
# Where lengths are made: so the compiler sees that they are whole vectors, worth 8 % of the time.
_inlined: Callable[[_Function], _Function] = njit(inline="always")
_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic


def transform_weights(weight: npt.NDArray[np.float64]) -> Array:
    """Return the weights of a 3x3x3 convolution as :func:`chain` takes them.

    Parameters
    ----------
    weight
        (outputs, inputs, 3, 3, 3).

    Returns
    -------
    numpy.ndarray
        (6, groups, inputs, 3, 3, outputs per group) float32, with z and x the axes of 3.
    """
    outputs, inputs = weight.shape[:2]
    size = min(outputs, GROUP)
    points = np.einsum("ty,oizyx->toizx", _G, weight)
    points = points.reshape(POINTS, outputs // size, size, inputs, 3, 3)
    return np.ascontiguousarray(np.moveaxis(points, 2, -1), np.float32)


def padded(width: int) -> int:
    """Return the length of the vectors that cover a row."""
    return (width + LANES - 1) // LANES * LANES


def workspace(width: int, strips: int, channels: tuple[int, int, int]) -> int:
    """Return how many float32 :func:`chain` needs for a block of so many strips.

    Parameters
    ----------
    width
        Of the rows.
    strips
        In the block.
    channels
        Of the source, after the first and after the second convolution.
    """
    inner = padded(width)
    pitch, rows = inner + LANES, STRIP * (strips + 2) + 2
    rings = sum(4 * (strips + 2) * POINTS * c * pitch + LANES for c in channels)
    planes = (channels[0] + 8) * rows * pitch
    return rings + planes + (POINTS * 8 + STRIP + 2) * inner


def _polynomial(function: Callable[..., Any], degree: int, domain: list[float]) -> list[float]:
    fit = np.polynomial.Chebyshev.interpolate(function, degree, domain)
    return [float(np.float32(c)) for c in fit.convert(kind=np.polynomial.Polynomial).coef]


_EXP2 = _polynomial(np.exp2, 5, [-0.5, 0.5])
_LOG1P = _polynomial(lambda e: np.log1p(e) / e, 8, [0.0, 1.0])


@_intrinsic
def softplus(_: Any, x: Any) -> Any:
    """Return ``max(x, 0) + log1p(exp(-|x|))`` of a float32, to 6e-7 of itself or 1e-38.

    Without branches or calls, so that loops over it become vectors.
    """

    def generate(_: Any, build: Any, __: Any, arguments: Any) -> Any:
        (x,) = arguments

        def const(value: float) -> Any:
            return ir.Constant(_FLOAT, value)

        def call(name: str, *values: Any) -> Any:
            kind = ir.FunctionType(_FLOAT, [_FLOAT] * len(values))
            return build.call(cgutils.get_or_insert_function(build.module, kind, name), values)

        def larger(a: Any, b: Any) -> Any:
            return build.select(build.fcmp_ordered(">", a, b), a, b)

        def polynomial(coefficients: list[float], at: Any, plus: Any = None) -> Any:
            *rest, value = map(const, coefficients)
            for c in reversed(rest):
                value = call("llvm.fmuladd.f32", value, at, c)
            return value if plus is None else call("llvm.fmuladd.f32", value, at, plus)

        # exp(-|x|) = 2**n 2**f: the sum with 1.5 * 2**23 has n in its lowest bits.
        t = build.fmul(call("llvm.fabs.f32", x), const(-1.4426950216293335))
        t = larger(t, const(-126.0))
        magic = const(12582912.0)
        n = build.fadd(t, magic)
        power = polynomial(_EXP2, build.fsub(t, build.fsub(n, magic)))
        exponent = build.shl(build.bitcast(n, _INT), ir.Constant(_INT, 23))
        e = build.bitcast(build.add(build.bitcast(power, _INT), exponent), _FLOAT)
        return polynomial(_LOG1P, e, plus=larger(x, const(0.0)))

    return types.float32(types.float32), generate


def _accumulator(outputs: int, vectors: int) -> Any:
    """Return the loop that adds a convolution's products for some channels and voxels."""

    @_intrinsic
    def accumulate(
        _: Any,
        out: Any,
        out_pitch: Any,
        below: Any,
        here: Any,
        above: Any,
        pitch: Any,
        channels: Any,
        weights: Any,
        fresh: Any,
    ) -> Any:
        """Add (``fresh``: write) to ``out`` (outputs, 16 vectors) over channels, z and x.

        ``out``, the three planes and ``weights`` are addresses, pitches are in bytes.
        """

        def generate(context: Any, build: Any, __: Any, arguments: Any) -> Any:
            out, out_pitch, *planes, pitch, channels, weights, fresh = arguments
            kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
            name = f"llvm.fmuladd.v{LANES}f32"
            fma = cgutils.get_or_insert_function(build.module, kind, name)
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            spread = ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            cells = [(o, v) for o in range(outputs) for v in range(vectors)]

            def pointer(address: Any, floats: int, kind: Any) -> Any:
                shifted = build.add(address, ir.Constant(_LONG, 4 * floats))
                return build.inttoptr(shifted, kind.as_pointer())

            def target(o: int, v: int) -> Any:
                row = build.add(out, build.mul(out_pitch, ir.Constant(_LONG, o)))
                return pointer(row, LANES * v, _VECTOR)

            def broadcast(address: Any, floats: int) -> Any:
                value = build.load(pointer(address, floats, _FLOAT), align=4)
                value = build.insert_element(undefined, value, ir.Constant(_INT, 0))
                return build.shuffle_vector(value, undefined, spread)

            entry = build.block
            more, loop, done = (build.append_basic_block(n) for n in ("more", "loop", "done"))
            build.cbranch(build.icmp_signed("!=", fresh, fresh.type(0)), loop, more)
            build.position_at_end(more)
            standing = [build.load(target(o, v), align=4) for o, v in cells]
            build.branch(loop)

            build.position_at_end(loop)
            moving = []  # each with the step that takes it to the next channel
            tap = ir.Constant(_LONG, 4 * 9 * outputs)
            starts = [(channels, _LONG(-1)), (weights, tap), *((p, pitch) for p in planes)]
            for start, step in starts:
                phi = build.phi(_LONG)
                phi.add_incoming(start, entry)
                phi.add_incoming(start, more)
                moving.append((phi, step))
            (left, _), (w, _), *at = moving
            phis = [build.phi(_VECTOR) for _ in cells]
            for phi, value in zip(phis, standing, strict=True):
                phi.add_incoming(zero, entry)
                phi.add_incoming(value, more)
            sums = dict(zip(cells, phis, strict=True))
            for z in range(3):
                for x in range(3):
                    voxels = [
                        build.load(pointer(at[z][0], LANES * v + x - 1, _VECTOR), align=4)
                        for v in range(vectors)
                    ]
                    for o in range(outputs):
                        weight = broadcast(w, (3 * z + x) * outputs + o)
                        for v in range(vectors):
                            sums[o, v] = build.call(fma, [weight, voxels[v], sums[o, v]])
            for phi, step in moving:
                phi.add_incoming(build.add(phi, step), loop)
            for phi, cell in zip(phis, cells, strict=True):
                phi.add_incoming(sums[cell], loop)
            build.cbranch(build.icmp_signed(">", left, _LONG(1)), loop, done)

            build.position_at_end(done)
            for o, v in cells:
                build.store(sums[o, v], target(o, v), align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9), generate

    return accumulate


_add_4x16, _add_4x32 = _accumulator(4, 1), _accumulator(4, 2)
_add_8x16, _add_8x32 = _accumulator(8, 1), _accumulator(8, 2)


@_kernel
def _convolve(
    one: Array, many: int, two: Array, more: int, z: int, strip: int, weight: Array, out: Array
) -> None:
    """Fill ``out`` (6, outputs, width) from channels of one ring and, where ``more``, of another.

    What lies there is still to be transformed back.
    """
    outputs = weight.shape[-1]
    out_pitch, width = 4 * out.shape[-1], out.shape[-1]
    for point in range(POINTS):
        for group in range(weight.shape[1]):
            start = out[point, group * outputs].ctypes.data
            w = weight[point, group].ctypes.data
            for part in range(2 if more else 1):
                ring, channels = (two, more) if part else (one, many)
                below = ring[(z - 1) & 3, strip, point].ctypes.data
                here = ring[z & 3, strip, point].ctypes.data
                above = ring[(z + 1) & 3, strip, point].ctypes.data
                pitch = 4 * ring.shape[-1]
                fresh = 1 - part
                x = 0
                while x < width:
                    d = 4 * (x + LANES)
                    o, p, q, r = start + 4 * x, below + d, here + d, above + d
                    if WIDE and x + 2 * LANES <= width:
                        if outputs == 8:
                            _add_8x32(o, out_pitch, p, q, r, pitch, channels, w, fresh)
                        else:
                            _add_4x32(o, out_pitch, p, q, r, pitch, channels, w, fresh)
                        x += 2 * LANES
                    else:
                        if WIDE and outputs == 8:
                            _add_8x16(o, out_pitch, p, q, r, pitch, channels, w, fresh)
                        else:
                            _add_4x16(o, out_pitch, p, q, r, pitch, channels, w, fresh)
                        x += LANES
                w += 4 * 9 * outputs * channels


@_kernel
def _transform(plane: Array, ring: Array, z: int, strip: int) -> None:
    """Fill a strip of the ring's slot z from rows 4 s to 4 s + 5 of a plane."""
    four, five, two = np.float32(4), np.float32(5), np.float32(2)
    out = ring[z & 3, strip]
    k = STRIP * strip
    for c in range(out.shape[1]):
        r0, r1, r2 = plane[c, k], plane[c, k + 1], plane[c, k + 2]
        r3, r4, r5 = plane[c, k + 3], plane[c, k + 4], plane[c, k + 5]
        t0, t1, t2 = out[0, c], out[1, c], out[2, c]
        t3, t4, t5 = out[3, c], out[4, c], out[5, c]
        for x in range(r0.size):
            d0, d1, d2, d3, d4, d5 = r0[x], r1[x], r2[x], r3[x], r4[x], r5[x]
            p, q = d4 - four * d2, d3 - four * d1
            u, v = d4 - d2, two * (d3 - d1)
            t0[x] = four * d0 - five * d2 + d4
            t1[x] = p + q
            t2[x] = p - q
            t3[x] = u + v
            t4[x] = u - v
            t5[x] = four * d1 - five * d3 + d5


@_kernel
def _activate(
    points: Array,
    o: int,
    bias: float,
    out: Array,
    row: int,
    start: int,
    limit: tuple[int, int, int, int],
) -> None:
    """Transform back, add the bias, softplus: four rows of ``out`` from ``row`` and ``start`` on.

    They are 0 from ``limit`` on.
    """
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    zero = np.float32(0)
    m0, m1, m2 = points[0, o], points[1, o], points[2, o]
    m3, m4, m5 = points[3, o], points[4, o], points[5, o]
    # Rows of contiguous arrays, or the compiler gives up its vectors.
    y0, y1 = out[row, start:], out[row + 1, start:]
    y2, y3 = out[row + 2, start:], out[row + 3, start:]
    n0, n1, n2, n3 = limit
    for x in range(m0.size):
        p, q = m1[x] + m2[x], m1[x] - m2[x]
        u, v = m3[x] + m4[x], m3[x] - m4[x]
        v0 = softplus(m0[x] + p + u + bias)
        v1 = softplus(q + two * v + bias)
        v2 = softplus(p + four * u + bias)
        v3 = softplus(q + eight * v + m5[x] + bias)
        y0[x] = v0 if x < n0 else zero
        y1[x] = v1 if x < n1 else zero
        y2[x] = v2 if x < n2 else zero
        y3[x] = v3 if x < n3 else zero


@_kernel
def _mean(points: Array, bias: Array, out: Array) -> None:
    """Transform back, add the bias, softplus: the mean over outputs, ``out`` (4, width)."""
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    share = np.float32(1 / bias.size)
    y0, y1, y2, y3 = out[0], out[1], out[2], out[3]
    out[:] = 0
    for o in range(bias.size):
        m0, m1, m2 = points[0, o], points[1, o], points[2, o]
        m3, m4, m5 = points[3, o], points[4, o], points[5, o]
        b = bias[o]
        for x in range(m0.size):
            p, q = m1[x] + m2[x], m1[x] - m2[x]
            u, v = m3[x] + m4[x], m3[x] - m4[x]
            y0[x] += share * softplus(m0[x] + p + u + b)
            y1[x] += share * softplus(q + two * v + b)
            y2[x] += share * softplus(p + four * u + b)
            y3[x] += share * softplus(q + eight * v + m5[x] + b)


@_kernel
def _load(volume: Array, z: int, top: int, out: Array) -> None:
    """Fill a plane with rows of ``volume`` (C, D, H, W) from ``top`` on, zeros outside."""
    width = volume.shape[3]
    for c in range(volume.shape[0]):
        for r in range(out.shape[1]):
            y = top + r
            target = out[c, r]
            if 0 <= y < volume.shape[2]:
                source = volume[c, z, y]
                for x in range(width):
                    target[LANES + x] = source[x]
            else:
                target[:] = 0


@_kernel
def _load_doubled(
    volume: Array, z: int, top: int, out: Array, weight: Array, bias: Array, pair: Array
) -> None:
    """Fill a plane as :func:`_load` from the transposed convolution of a volume of half the size.

    ``volume`` is (8, d, h, w), ``weight`` (8, outputs, 2, 2, 2) and ``pair`` (2, >= w) scratch.
    """
    half = volume.shape[3]
    for r in range(out.shape[1]):
        y = top + r
        for c in range(out.shape[0]):
            target = out[c, r]
            if not 0 <= y < 2 * volume.shape[2]:
                target[:] = 0
                continue
            for odd in range(2):
                # Four channels at a time: with eight the compiler gives up its vectors.
                part = pair[odd]
                for x in range(half):
                    part[x] = bias[c]
                for k in range(0, 8, 4):
                    s0, s1 = volume[k, z >> 1, y >> 1], volume[k + 1, z >> 1, y >> 1]
                    s2, s3 = volume[k + 2, z >> 1, y >> 1], volume[k + 3, z >> 1, y >> 1]
                    w = weight[k : k + 4, c, z & 1, y & 1, odd]
                    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
                    for x in range(half):
                        part[x] += w0 * s0[x] + w1 * s1[x] + w2 * s2[x] + w3 * s3[x]
            left, right = pair[0], pair[1]
            for x in range(half):
                target[LANES + 2 * x] = softplus(left[x])
                target[LANES + 2 * x + 1] = softplus(right[x])


@_kernel
def _finish(
    end: int,
    mean: Array,
    out: Array,
    z: int,
    y: int,
    one: Array,
    two: Array,
    scale: Array,
    shift: Array,
    plus: np.float32,
) -> None:
    """Write a row of the chain's result from the mean over the channels of its last convolution.

    DIVIDE: the image ``one`` over the projection of the estimate ``two``, ``plus`` its eps.
    MULTIPLY: the estimate ``one`` times the correction, to which ``plus`` is added; softplus.
    """
    width = out.shape[3]
    if end == DIVIDE:
        channels = two.shape[0]
        share = np.float32(1 / channels)
        first, last = two[0, z, y], two[channels - 1, z, y]
        for c in range(channels):
            a, b, image, target = scale[c], shift[c], one[c, z, y], out[c, z, y]
            for x in range(width):
                estimate = first[x] if channels == 1 else share * (first[x] + last[x])
                target[x] = a * (image[x] / (mean[x] + softplus(estimate) + plus)) + b
    elif end == MULTIPLY:
        channels = one.shape[0]
        share = np.float32(1 / channels)
        first, last = one[0, z, y], one[channels - 1, z, y]
        a, b, target = scale[0], shift[0], out[0, z, y]
        for x in range(width):
            estimate = first[x] if channels == 1 else share * (first[x] + last[x])
            target[x] = softplus(a * (estimate * (mean[x] + plus)) + b)
    else:
        target = out[0, z, y]
        for x in range(width):
            target[x] = mean[x]


@_kernel
def halve(volume: Array, out: Array, z: int) -> None:
    """Fill plane z of ``out`` (C, d, h, w) with the means of 2x2x2 voxels of ``volume``."""
    eighth = np.float32(0.125)
    for c in range(out.shape[0]):
        for y in range(out.shape[2]):
            a, b = volume[c, 2 * z, 2 * y], volume[c, 2 * z, 2 * y + 1]
            d, e = volume[c, 2 * z + 1, 2 * y], volume[c, 2 * z + 1, 2 * y + 1]
            target = out[c, z, y]
            for x in range(target.size):
                i, j = 2 * x, 2 * x + 1
                target[x] = eighth * (a[i] + b[i] + d[i] + e[i] + (a[j] + b[j] + d[j] + e[j]))


@_inlined
def _ring(space: Array, used: int, strips: int, channels: int, pitch: int) -> tuple[Array, int]:
    """Return a ring and how much of the workspace is used then."""
    size = 4 * strips * POINTS * channels * pitch
    ring = space[used : used + size].reshape((4, strips, POINTS, channels, pitch))
    used += size
    # A row is ended by the zeros before the next one. The last row of a plane is by those of a
    # slot that may not be filled yet, the very last by no slot's.
    for slot in range(4):
        ring[slot, 0, 0, 0, :LANES] = 0
    space[used : used + LANES] = 0
    return ring, used + LANES


@_inlined
def _carve(
    space: Array, width: int, strips: int, channels: tuple[int, int, int]
) -> tuple[tuple[Array, Array, Array], Array, Array, Array, Array, Array]:
    """Return the parts of a workspace: rings, two planes of zeros, and scratch for one strip."""
    inner = (width + LANES - 1) // LANES * LANES
    pitch, rows = inner + LANES, STRIP * strips + 2
    ring0, used = _ring(space, 0, strips, channels[0], pitch)
    ring1, used = _ring(space, used, strips, channels[1], pitch)
    ring2, used = _ring(space, used, strips, channels[2], pitch)
    size = channels[0] * rows * pitch
    loaded = space[used : used + size].reshape((channels[0], rows, pitch))
    used += size
    size = 8 * rows * pitch
    plane = space[used : used + size].reshape((8, rows, pitch))
    used += size
    loaded[:] = 0
    plane[:] = 0
    points = space[used : used + POINTS * 8 * inner]
    used += points.size
    results = space[used : used + STRIP * inner].reshape((STRIP, inner))
    used += results.size
    pair = space[used : used + 2 * inner].reshape((2, inner))
    return (ring0, ring1, ring2), loaded, plane, points, results, pair


@_kernel
def chain(
    end: int,
    count: int,
    source: Array,
    weights: tuple[Array, Array, Array],
    biases: tuple[Array, Array, Array],
    doubling: Array,
    doubling_bias: Array,
    out: Array,
    one: Array,
    two: Array,
    scale: Array,
    shift: Array,
    plus: np.float32,
    block: tuple[int, int, int, int],
    space: Array,
) -> None:
    """Compute a block of a chain of convolutions, each with bias and softplus, plane after plane.

    Each takes the output of the one before, and the rest of its input channels from what that
    one took. So no more than four planes of each are in use at a time, and stay in the cache.

    Parameters
    ----------
    end
        What is made of the last output: ``KEEP`` it, or :func:`_finish` its mean over channels.
    count
        Convolutions, at most 3.
    source
        (C, D, H, W); if of half the size of ``out``, it passes the transposed convolution first.
    weights, biases
        As :func:`transform_weights` returns them, and (outputs,); always three.
    doubling, doubling_bias
        Of the transposed convolution.
    out
        (C', D, H, W), filled in the block.
    one, two, scale, shift, plus
        See :func:`_finish`.
    block
        First plane and plane after the last; first strip and strip after the last.
    space
        As large as :func:`workspace` says.
    """
    z0, z1, first, last = block
    depth, height, width = out.shape[1], out.shape[2], out.shape[3]
    doubled = source.shape[3] != width
    # A strip more on either side holds the rows that the next convolutions look at.
    g0, g1 = max(first - 1, 0), min(last + 1, (height + STRIP - 1) // STRIP)
    strips = g1 - g0
    top = STRIP * g0 - 1

    c0 = doubling.shape[1] if doubled else source.shape[0]
    channels = (c0, biases[0].size, biases[1].size)
    rings, loaded, plane, scratch, results, pair = _carve(space, width, strips, channels)

    for p in range(z0 - count, z1 + count):
        if p < 0 or p >= depth:
            rings[0][p & 3] = 0
        else:
            if doubled:
                _load_doubled(source, p, top, loaded, doubling, doubling_bias, pair)
            else:
                _load(source, p, top, loaded)
            for strip in range(strips):
                _transform(loaded, rings[0], p, strip)
        for i in range(1, count + 1):
            z, halo = p - i, count - i
            if z < z0 - halo or z >= z1 + halo:
                continue
            if z < 0 or z >= depth:
                rings[i][z & 3] = 0
                continue
            weight, bias = weights[i - 1], biases[i - 1]
            before, further = rings[i - 1], rings[max(i - 2, 0)]
            many = min(weight.shape[2], before.shape[3])
            more = weight.shape[2] - many
            length = POINTS * bias.size * results.shape[1]
            points = scratch[:length].reshape((POINTS, bias.size, results.shape[1]))
            for strip in range(strips) if halo else range(first - g0, last - g0):
                _convolve(before, many, further, more, z, strip, weight, points)
                y = STRIP * (g0 + strip)
                inside = (
                    width if y < height else 0,
                    width if y + 1 < height else 0,
                    width if y + 2 < height else 0,
                    width if y + 3 < height else 0,
                )
                if halo:
                    k = STRIP * strip + 1
                    for o in range(bias.size):
                        _activate(points, o, bias[o], plane[o], k, LANES, inside)
                    if strip:  # the strip before now has all its rows, fresh in the cache
                        _transform(plane, rings[i], z, strip - 1)
                elif end == KEEP:
                    for o in range(bias.size):
                        _activate(points, o, bias[o], results, 0, 0, inside)
                        for r in range(min(STRIP, height - y)):
                            for x in range(width):  # numba takes seconds over a slice here
                                out[o, z, y + r, x] = results[r, x]
                else:
                    _mean(points, bias, results)
                    for r in range(min(STRIP, height - y)):
                        row = results[r]
                        _finish(end, row, out, z, y + r, one, two, scale, shift, plus)
            if halo:
                _transform(plane, rings[i], z, strips - 1)
