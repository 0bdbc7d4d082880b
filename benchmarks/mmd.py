"""What MMD costs by tiles, by the plain matrix and in geomloss: ``python benchmarks/mmd.py race|memory|curve|images``

- ``race``: value and gradient of MMD² at one size, in alternating rounds in one process: five RBF widths
  (or ``--kernel imq``) against the matrix form as one writes it down, and geomloss' tensorised form (``--forms``).
- ``memory``: one call in a process of its own: seconds, and the most memory that it held above its inputs.
- ``curve``: that for sizes from 256 to 32,768, drawn to ``docs/figures/mmd-scaling.png``; the other forms stop where
  they would hold more than ``--most`` MiB.
- ``images``: that for two batches of 4,096 images of 3 x 64 x 64 numbers.

``--wrt both`` takes the gradient in both samples, as a critic needs it, and not in the generated one alone.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ipmgan.bench.race import Spread, race, ratios, timed
from ipmgan.functional import IMQ_SCALES, MMD_GAN_WIDTHS, Mixture, mmd2_biased

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "mmd-scaling.png"
SIZES = tuple(2**k for k in range(8, 16))
WARM = 2100
"""Samples of a first call, which is not measured: enough for everything to be compiled."""
FORMS = ("tiles", "matrix", "geomloss")

Form = Callable[[Tensor, Tensor, Mixture], Tensor]


def matrix(x: Tensor, y: Tensor, kernel: Mixture) -> Tensor:
    """The V-statistic as one writes it down: three matrices, a sum over the widths, autograd for the rest."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        return plain_kernel(squared, kernel).mean()

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def plain_kernel(squared: Tensor, kernel: Mixture) -> Tensor:
    """RBF and IMQ mixtures, width by width."""
    if kernel.name == "rbf":
        return sum((torch.exp(-squared / (2 * width**2)) for width in kernel.widths), torch.zeros(()))
    return sum((width / (width + squared) for width in kernel.widths), torch.zeros(()))


def geomloss(x: Tensor, y: Tensor, kernel: Mixture) -> Tensor:
    """Twice geomloss' kernel norm, tensorised, with its own squared distances."""
    from geomloss import SamplesLoss  # type: ignore[import-not-found]
    from geomloss._legacy.utils import squared_distances  # type: ignore[import-not-found]

    def own(a: Tensor, b: Tensor, **_: object) -> Tensor:
        return plain_kernel(squared_distances(a, b), kernel)

    return 2 * SamplesLoss("gaussian", kernel=own, backend="tensorized")(x, y)


def form(name: str) -> Form:
    """A form by its name."""
    return {"tiles": mmd2_biased, "matrix": matrix, "geomloss": geomloss}[name]


def samples(size: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Two normal samples with coordinates of variance 1/K, so that distances are near √2, in reach of the widths."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(size, dimension, generator=generator) / dimension**0.5 for _ in range(2))
    return x, y + 0.5 / dimension**0.5


def kernel_of(name: str) -> Mixture:
    """The five widths of MMD GAN, or the seven scales of Wasserstein auto-encoders around C = 2."""
    return Mixture("rbf", MMD_GAN_WIDTHS) if name == "rbf" else Mixture("imq", tuple(2 * s for s in IMQ_SCALES))


def call(f: Form, x: Tensor, y: Tensor, kernel: Mixture, wrt: str) -> tuple[Tensor, ...]:
    """The value and its gradients."""
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_(wrt == "both")
    value = f(x, y, kernel)
    return value.detach(), *torch.autograd.grad(value, (x, y) if wrt == "both" else (x,))


def meet(options: argparse.Namespace) -> None:
    """Race the forms, and print medians, smallest and largest."""
    kernel = kernel_of(options.kernel)
    x, y = (z.to(options.device) for z in samples(options.size, options.dimension))
    runs = {name: functools.partial(call, form(name), x, y, kernel, options.wrt) for name in options.forms}
    results = {name: run() for name, run in runs.items()}  # not timed, compared
    for name, (value, *forces) in results.items():
        right = results["tiles"]
        apart = max(float((a - b).norm() / b.norm()) for a, b in zip(forces, right[1:], strict=True))
        print(f"{name}: {float(value):.8f}, gradient {apart:.1e} from the tiles'")
    contestants = {name: timed(lambda run=run: run() and None, x.device) for name, run in runs.items()}  # type: ignore[misc]
    rates = race(contestants, rounds=options.rounds, seconds=0)
    for name in options.forms:
        seconds = Spread.of(1 / rate for rate in rates[name])
        ratio = ratios(rates["tiles"], rates[name])
        print(
            f"{name}: {seconds.median:.2f} s ({seconds.low:.2f} to {seconds.high:.2f}), "
            f"tiles {ratio.median:.2f} times as fast ({ratio.low:.2f} to {ratio.high:.2f})"
        )


def resident(field: str) -> float:
    """A field of this process' status, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(options: argparse.Namespace) -> None:
    """One call in this process: its seconds and its peak above the inputs, as JSON."""
    kernel, f = kernel_of(options.kernel), form(options.forms[0])
    x, y = samples(options.size, options.dimension)
    warm = [torch.cat([z] * -(-WARM // len(z)))[:WARM, : min(64, options.dimension)].contiguous() for z in (x, y)]
    call(f, warm[0], warm[1], kernel, options.wrt)
    del warm
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    before, start = resident("VmRSS"), time.perf_counter()
    call(f, x, y, kernel, options.wrt)
    seconds = time.perf_counter() - start
    inputs = 2 * x.numel() * x.itemsize / 2**20
    print(json.dumps({"seconds": seconds, "above": resident("VmHWM") - before, "inputs": inputs}))


def alone(name: str, size: int, dimension: int, options: argparse.Namespace) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "measure", "--kernel", options.kernel, "--wrt", options.wrt]
    command += ["--size", str(size), "--dimension", str(dimension), "--forms", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}, N = M = {size:,}, K = {dimension:,}: {result['seconds']:.2f} s, ", end="")
    print(f"{result['above']:.0f} MiB above inputs of {result['inputs']:.0f} MiB", flush=True)
    return result


def curve(options: argparse.Namespace) -> None:
    """Time and memory against the size, and their picture."""
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in options.forms}
    for size in (size for size in SIZES if size <= options.size):
        for name, results in found.items():
            if results and name != "tiles" and 4 * max(r["above"] for r in results.values()) > options.most:
                continue
            results[size] = alone(name, size, options.dimension, options)
    draw({name: results for name, results in found.items() if results}, options.dimension)


def draw(found: dict[str, dict[int, dict[str, float]]], dimension: int) -> None:
    """Both quantities against the size, on logarithmic axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = {"tiles": "tiles", "matrix": "matrix form", "geomloss": "geomloss, tensorised"}
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    titles = {"seconds": "seconds", "above": "MiB above the inputs"}
    for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for name, results in found.items():
            axes.plot(list(results), [r[key] for r in results.values()], "o-", ms=4, label=labels[name])
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES], rotation=45)
        axes.set_xlabel(f"samples a side, of {dimension} numbers")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(FIGURE, dpi=120)


def main() -> None:
    """Read the options and do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("race", "memory", "curve", "images", "measure"))
    parser.add_argument("--size", type=int, default=4096, help="samples a side; of a curve, the largest")
    parser.add_argument("--dimension", type=int, default=784)
    parser.add_argument("--kernel", choices=("rbf", "imq"), default="rbf")
    parser.add_argument("--wrt", choices=("x", "both"), default="x", help="the samples that the gradient is in")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["tiles", "matrix"])
    parser.add_argument("--device", default="cpu", help="where the race is")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most", type=float, default=8192, help="MiB beyond which a curve drops the other forms")
    options = parser.parse_args()
    if options.task == "images":
        alone("tiles", 4096, 3 * 64 * 64, options)
    elif options.task == "memory":
        for name in options.forms:
            alone(name, options.size, options.dimension, options)
    else:
        {"race": meet, "curve": curve, "measure": measure}[options.task](options)


if __name__ == "__main__":
    main()
