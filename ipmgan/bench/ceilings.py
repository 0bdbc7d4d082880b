"""What this machine can do at most, as torch reaches it: products of matrices, convolutions, traffic with memory."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

from ipmgan.bench.race import synchronize

SECONDS = 1.0
"""For how long each measurement is repeated; the best repetition counts."""
BANDWIDTH_BYTES = tuple(2**20 * mib for mib in (1, 4, 16, 64, 256))


@attrs.frozen(kw_only=True)
class Sizes:
    """How large the operands are: the ceiling is what the best of them reaches."""

    matrices: tuple[int, ...]
    images: int
    channels: int
    working_sets: tuple[int, ...] = BANDWIDTH_BYTES

    @classmethod
    def of(cls, device: torch.device) -> Sizes:
        """Large enough to keep the device busy, small enough to take a few seconds."""
        if device.type == "cpu":
            return cls(matrices=(512, 1024, 2048), images=16, channels=128)
        return cls(matrices=(2048, 4096, 8192), images=256, channels=256)


@attrs.frozen(kw_only=True)
class Compute:
    """Floating-point operations a second in one type of numbers."""

    matmul: float
    convolution: float


@attrs.frozen(kw_only=True)
class Ceilings:
    """The ceilings of a device.

    `bandwidth` holds pairs of a working set in bytes and the bytes a second that move while it is read and written:
    small sets stay in a cache. `bf16` is None where the hardware has no units for it.
    """

    float32: Compute
    bf16: Compute | None
    bandwidth: tuple[tuple[int, float], ...]

    def compute(self, precision: str) -> Compute:
        """The ceiling for networks of this precision; that of float32 where there are no bf16 units."""
        return self.bf16 if precision == "bf16" and self.bf16 is not None else self.float32

    def bandwidth_at(self, size: int) -> float:
        """Bytes a second for a working set of `size` bytes; never less than is reached with a larger one.

        Between two measured sets the smaller counts, so that the result is not below what the machine can do.

        >>> compute = Compute(matmul=1.0, convolution=1.0)
        >>> ceilings = Ceilings(float32=compute, bf16=None, bandwidth=((10, 3.0), (100, 5.0), (1000, 2.0)))
        >>> ceilings.bandwidth_at(5), ceilings.bandwidth_at(500), ceilings.bandwidth_at(5000)
        (5.0, 5.0, 2.0)
        """
        start = max((held for held, _ in self.bandwidth if held <= size), default=0)
        return max(rate for held, rate in self.bandwidth if held >= start)

    def table(self) -> dict[str, Any]:
        """The ceilings as plain values."""
        return {
            "float32": attrs.asdict(self.float32),
            "bf16": None if self.bf16 is None else attrs.asdict(self.bf16),
            "bandwidth": [
                {"working_set_bytes": size, "bytes_per_second": self.bandwidth_at(size)} for size, _ in self.bandwidth
            ],
        }


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures are figures of."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())
    return {
        "device": str(device),
        "name": name,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def has_bf16_units(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return any(bool(has) for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    return False


def measure_ceilings(device: torch.device, *, seconds: float = SECONDS, sizes: Sizes | None = None) -> Ceilings:
    """The ceilings of a device, each the best of what fits into `seconds`; takes ten times that or so."""
    sizes = sizes or Sizes.of(device)
    return Ceilings(
        float32=_compute(device, torch.float32, sizes, seconds),
        bf16=_compute(device, torch.bfloat16, sizes, seconds) if has_bf16_units(device) else None,
        bandwidth=tuple((size, _bandwidth(device, size, seconds)) for size in sizes.working_sets),
    )


def _compute(device: torch.device, dtype: torch.dtype, sizes: Sizes, seconds: float) -> Compute:
    matmuls, convolutions = list(_matmuls(device, dtype, sizes)), list(_convolutions(device, dtype, sizes))
    return Compute(
        matmul=max(_best(run, flops, device, seconds / len(matmuls)) for run, flops in matmuls),
        convolution=max(_best(run, flops, device, seconds / len(convolutions)) for run, flops in convolutions),
    )


def _matmuls(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> Iterator[tuple[Callable[[], object], int]]:
    for n in sizes.matrices:
        a, b = _random((n, n), device, dtype), _random((n, n), device, dtype)
        out = torch.empty_like(a)
        yield lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 2 * n**3  # type: ignore[misc]


def _convolutions(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> Iterator[tuple[Callable[[], object], int]]:
    """Same-size 3x3 convolutions and halving 4x4 ones of 32 x 32 images, in both layouts of memory."""
    n, c = sizes.images, sizes.channels
    for layout in (torch.contiguous_format, torch.channels_last):
        images = _random((n, c, 32, 32), device, dtype).to(memory_format=layout)
        for kernel, stride, side in ((3, 1, 32), (4, 2, 16)):
            weight = _random((c, c, kernel, kernel), device, dtype).to(memory_format=layout)
            run = lambda x=images, w=weight, s=stride: torch.conv2d(x, w, stride=s, padding=1)  # noqa: E731
            yield run, 2 * n * (c * kernel * side) ** 2


def _random(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(0), device=device).to(dtype)


def _bandwidth(device: torch.device, size: int, seconds: float) -> float:
    """Bytes a second while two halves of a working set are copied, or added, one into the other."""
    a, b = torch.zeros(2, max(size // 8, 1), device=device)
    with torch.no_grad():
        copying = _best(lambda: b.copy_(a), 2 * a.nbytes, device, seconds / 2)
        return max(copying, _best(lambda: b.add_(a), 3 * a.nbytes, device, seconds / 2))


def _best(run: Callable[[], object], amount: int, device: torch.device, seconds: float) -> float:
    """The largest amount a second, over repetitions of about a hundredth of a second each."""
    run()
    repeat = 1
    best, start = 0.0, time.perf_counter()
    while best == 0.0 or time.perf_counter() - start < seconds:
        synchronize(device)
        began = time.perf_counter()
        for _ in range(repeat):
            run()
        synchronize(device)
        took = time.perf_counter() - began
        best = max(best, repeat * amount / took)
        repeat = max(1, min(10_000, round(repeat * 0.01 / took)))
    return best
