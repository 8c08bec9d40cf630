"""Vector operations (SIMD) of the kernels of :mod:`chain`, written in LLVM.

Along x a vector holds neighbouring voxels, one in each of its lanes, and shifts by a voxel are
unaligned loads. The network's speed is that of the loop over the products of a convolution.
The compiler alone does not keep its sums in registers, so :func:`_accumulator` writes it
in LLVM: 8 channels x 32 voxels of sums with AVX-512, 4 x 16 with the smaller registers of AVX2 and
NEON. Options of the compiler and the length of a vector are here too.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

Function = TypeVar("Function", bound=Callable[..., Any])

LANES = 16

_FEATURES = numba.config.CPU_FEATURES or binding.get_host_cpu_features().flatten()
WIDE = "+avx512f" in _FEATURES
GROUP = 8 if WIDE else 4
"""Number of output channels summed at once."""

OPTIONS = {
    "nogil": True,
    # No reordering of sums: softplus rounds by adding a large number.
    "fastmath": {"nsz", "contract"},
    "error_model": "numpy",
}
kernel: Callable[[Function], Function] = njit(**OPTIONS)
"""Compiles a function together with its callers; only those are cached, see :mod:`chain`."""
# For computing lengths, which the compiler then knows to be whole vectors: saves 8 % of the time.
inlined: Callable[[Function], Function] = register_jitable(inline="always")
_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


@inlined
def padded(width: int) -> int:
    """Return the length of the vectors that cover a row."""
    return (width + LANES - 1) // LANES * LANES


# Softplus


def _fit(function: Callable[..., Any], degree: int, domain: list[float]) -> list[float]:
    """Return the coefficients of a polynomial, constant first, rounded to float32."""
    fit = np.polynomial.Chebyshev.interpolate(function, degree, domain)
    return [float(np.float32(c)) for c in fit.convert(kind=np.polynomial.Polynomial).coef]


_EXP2 = _fit(np.exp2, 5, [-0.5, 0.5])
_LOG1P = _fit(lambda e: np.log1p(e) / e, 8, [0.0, 1.0])
_MINUS_LOG2_E = float(np.float32(-np.log2(np.e)))
_ROUNDING = 1.5 * 2**23  # a float32 near it is whole


@_intrinsic
def softplus(_: Any, x: Any) -> Any:
    """Return ``max(x, 0) + log1p(exp(-|x|))`` of a float32, to 6e-7 of itself or 1e-38.

    Without branches or calls, so that loops over it become vectors.
    """

    def generate(_: Any, build: Any, __: Any, arguments: Any) -> Any:
        (x,) = arguments
        # exp(-|x|) = 2**n 2**f: the sum with _ROUNDING has n in its lowest bits.
        t = build.fmul(_call(build, "llvm.fabs.f32", x), _FLOAT(_MINUS_LOG2_E))
        t = _larger(build, t, _FLOAT(-126.0))
        rounded = build.fadd(t, _FLOAT(_ROUNDING))
        f = build.fsub(t, build.fsub(rounded, _FLOAT(_ROUNDING)))
        power = _horner(build, _EXP2, f)
        exponent = build.shl(build.bitcast(rounded, _INT), _INT(23))
        e = build.bitcast(build.add(build.bitcast(power, _INT), exponent), _FLOAT)
        quotient = _horner(build, _LOG1P, e)
        return _call(build, "llvm.fmuladd.f32", quotient, e, _larger(build, x, _FLOAT(0.0)))

    return types.float32(types.float32), generate


def _call(build: Any, name: str, *values: Any) -> Any:
    kind = ir.FunctionType(values[0].type, [value.type for value in values])
    return build.call(cgutils.get_or_insert_function(build.module, kind, name), values)


def _larger(build: Any, a: Any, b: Any) -> Any:
    return build.select(build.fcmp_ordered(">", a, b), a, b)


def _horner(build: Any, coefficients: list[float], at: Any) -> Any:
    """Return the value of a polynomial."""
    *rest, value = map(_FLOAT, coefficients)
    for c in reversed(rest):
        value = _call(build, "llvm.fmuladd.f32", value, at, c)
    return value


# The products of a convolution


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
            cells = [(o, v) for o in range(outputs) for v in range(vectors)]

            def target(o: int, v: int) -> Any:
                row = build.add(out, build.mul(out_pitch, _LONG(o)))
                return _pointer(build, row, LANES * v, _VECTOR)

            entry = build.block
            more, loop, done = (build.append_basic_block(n) for n in ("more", "loop", "done"))
            build.cbranch(build.icmp_signed("!=", fresh, fresh.type(0)), loop, more)
            build.position_at_end(more)
            standing = [build.load(target(o, v), align=4) for o, v in cells]
            build.branch(loop)

            build.position_at_end(loop)
            taps = _LONG(4 * 9 * outputs)
            starts = [(channels, _LONG(-1)), (weights, taps), *((p, pitch) for p in planes)]
            moving = []  # each with the step that takes it to the next channel
            for start, step in starts:
                moving.append((_phi(build, (entry, start), (more, start)), step))
            (left, _), (weight, _), *places = moving
            zero = _VECTOR([0.0] * LANES)
            phis = [_phi(build, (entry, zero), (more, value)) for value in standing]
            sums = dict(zip(cells, phis, strict=True))
            _multiply(build, sums, weight, [place for place, _ in places])
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


def _multiply(build: Any, sums: dict[tuple[int, int], Any], weight: Any, planes: list[Any]) -> None:
    """Add the 3x3 products of an input channel to the sums of (output, vector)."""
    outputs, vectors = (n + 1 for n in max(sums))
    for z, plane in enumerate(planes):
        for x in range(3):
            voxels = [
                build.load(_pointer(build, plane, LANES * v + x - 1, _VECTOR), align=4)
                for v in range(vectors)
            ]
            for o in range(outputs):
                factor = _broadcast(build, weight, (3 * z + x) * outputs + o)
                for v in range(vectors):
                    terms = factor, voxels[v], sums[o, v]
                    sums[o, v] = _call(build, f"llvm.fmuladd.v{LANES}f32", *terms)


def _pointer(build: Any, address: Any, floats: int, kind: Any) -> Any:
    """Return a pointer to an address plus a number of float32."""
    return build.inttoptr(build.add(address, _LONG(4 * floats)), kind.as_pointer())


def _broadcast(build: Any, address: Any, floats: int) -> Any:
    """Return a vector with one float32 in all lanes."""
    undefined = _VECTOR(ir.Undefined)
    value = build.load(_pointer(build, address, floats, _FLOAT), align=4)
    value = build.insert_element(undefined, value, _INT(0))
    return build.shuffle_vector(value, undefined, ir.VectorType(_INT, LANES)([0] * LANES))


def _phi(build: Any, *incoming: tuple[Any, Any]) -> Any:
    """Return a value that depends on the preceding block."""
    phi = build.phi(incoming[0][1].type)
    for block, value in incoming:
        phi.add_incoming(value, block)
    return phi


add_4x16, add_4x32 = _accumulator(4, 1), _accumulator(4, 2)
add_8x16, add_8x32 = _accumulator(8, 1), _accumulator(8, 2)
