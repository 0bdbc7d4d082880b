"""Trains the classifier of digits that the metrics come with: ``python benchmarks/train_digit_classifier.py``

It needs MNIST (IPMGAN_DATA, or --download) and takes some minutes on a core. Trained on the 60,000 training digits,
moved about or magnified, and tested once, at the end, on the 10,000 test digits as they are. The weights go where the
package has them, with what is known of them in the file's header.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ipmgan.data.images import data_root
from ipmgan.metrics.networks import MNIST as FILE
from ipmgan.metrics.stored import StoredNetwork


def convolution(inputs: int, outputs: int, size: int, stride: int) -> list[tuple[str, dict[str, Any]]]:
    """A convolution with batch norm and ReLU."""
    options = {"in_channels": inputs, "out_channels": outputs, "kernel_size": size, "stride": stride}
    padded = options | {"padding": size // 2, "bias": False}
    return [("Conv2d", padded), ("BatchNorm2d", {"num_features": outputs}), ("ReLU", {})]


BODY = [
    *convolution(1, 24, 5, 2),
    *convolution(24, 48, 3, 2),
    *convolution(48, 64, 3, 1),
    ("MaxPool2d", {"kernel_size": 2}),
    ("Flatten", {}),
    ("Linear", {"in_features": 576, "out_features": 64}),
    ("ReLU", {}),
]
HEAD = [("Linear", {"in_features": 64, "out_features": 10})]


def digits(root: Path, *, train: bool, download: bool) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) from 0 to 1, and labels."""
    from torchvision import datasets

    found = datasets.MNIST(root, train=train, download=download)
    return found.data.unsqueeze(1).float() / 255, found.targets


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """A batch moved by up to two pixels either way, or, every other time, without its margin and of another resolution.

    Digits of other collections fill their frame, and come in as few as eight by eight pixels.
    """
    rows, columns, margin, size, kind = (
        int(torch.randint(low, high, (), generator=generator))
        for low, high in ((-2, 3), (-2, 3), (0, 5), (8, 29), (0, 2))
    )
    if kind == 0:
        return images.roll((rows, columns), (2, 3))
    inner = images[..., margin : 28 - margin, margin : 28 - margin]
    coarse = F.interpolate(inner, (size, size), mode="bilinear", antialias=True)
    return F.interpolate(coarse, (28, 28), mode="bilinear", antialias=True)


@torch.no_grad()
def accuracy(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images whose class is the right one."""
    module.eval()
    right = sum((module(x).argmax(1) == y).sum() for x, y in zip(images.split(1000), labels.split(1000), strict=True))
    return float(right) / len(images)


def main() -> None:
    """Train, test, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--download", action="store_true")
    settings = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images, labels = digits(data_root(None), train=True, download=settings.download)
    network = StoredNetwork(layers=(*BODY, *HEAD), features=len(BODY), shape=(1, 28, 28), interval=(0.0, 1.0))
    module = network.module()
    steps = settings.epochs * (len(images) // 128)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-2)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for epoch in range(settings.epochs):
        module.train()
        for index in torch.randperm(len(images), generator=generator)[: len(images) // 128 * 128].split(128):
            loss = F.cross_entropy(module(varied(images[index], generator)), labels[index], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.4f}", flush=True)
    reached = accuracy(module, *digits(data_root(None), train=False, download=False))
    about = {"task": "MNIST digits", "trained on": "the 60,000 training digits", "test accuracy": f"{reached:.4f}"}
    described = StoredNetwork(
        layers=network.layers, features=network.features, shape=network.shape, interval=network.interval, about=about
    )
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    described.save(settings.out, module)
    print(f"{reached:.2%} of the test digits right; {settings.out.stat().st_size:,} bytes in {settings.out}")


if __name__ == "__main__":
    main()
