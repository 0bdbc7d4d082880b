"""The yardstick: the named workloads as one writes them by hand in eager torch, with care and without this package.

Care means: fakes for the critic without graph, no gradients of the critic's weights in the generator's step, gradients
set to None, data that lie on the device, nothing read back from it. It does not mean compiling, fused optimisers, or
another layout of memory. Networks are those of `ipmgan.bench.workloads`, by their shapes.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import attrs
import torch
from torch import Tensor, nn, optim

from ipmgan.bench.race import Contestant, timed, warm_up

Draw = Callable[[int], Tensor]
"""So many samples or latents."""
N_CRITIC = 5


@attrs.frozen(kw_only=True)
class Plain:
    """What a hand-written loop trains, and how: with clipped weights, or with a penalty of this weight."""

    generator: nn.Module
    critic: nn.Module
    real: Draw
    latents: Draw
    batch: int = 64
    clip: float | None = None
    penalty: float | None = None

    def optimizer(self, network: nn.Module) -> optim.Optimizer:
        """Adam beside a penalty, RMSprop, which has no momentum, beside clipping."""
        if self.penalty is not None:
            return optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.9))
        return optim.RMSprop(network.parameters(), lr=5e-5)


@attrs.frozen(kw_only=True)
class Loop:
    """A loop that is ready to run: `step` is one generator step with its critic steps."""

    step: Callable[[], None]
    optimizers: tuple[optim.Optimizer, ...]


def loop(name: str, device: torch.device) -> Loop:
    """The loop for the workload of this name, on a device."""
    plain = MAKERS[name](device)
    plain.generator.to(device)
    plain.critic.to(device)
    critic_optimizer, generator_optimizer = plain.optimizer(plain.critic), plain.optimizer(plain.generator)

    def step() -> None:
        plain.critic.requires_grad_(True)
        for _ in range(N_CRITIC):
            critic_step(plain, critic_optimizer)
        plain.critic.requires_grad_(False)
        generator_step(plain, generator_optimizer)

    return Loop(step=step, optimizers=(critic_optimizer, generator_optimizer))


@contextlib.contextmanager
def racing(name: str, device: torch.device) -> Iterator[Contestant]:
    """The loop as a contestant in a process of its own, as whoever writes it by hand has it.

    There, the engine's heap and compiled code neither help it nor stand in its way.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, name, device, torch.get_num_threads()), daemon=True)
    process.start()
    there.close()

    def contestant(seconds: float) -> float:
        here.send(seconds)
        rate: float = here.recv()
        return rate

    try:
        here.recv()  # It is warm.
        yield contestant
    finally:
        here.close()
        process.join()


def _serve(asked: Connection, name: str, device: torch.device, threads: int) -> None:
    torch.set_num_threads(threads)
    step = loop(name, device).step
    warm_up(step)
    asked.send(None)
    run = timed(step, device)
    with contextlib.suppress(EOFError):
        while True:
            asked.send(run(asked.recv()))


def critic_step(plain: Plain, optimizer: optim.Optimizer) -> None:
    """One update of the critic, on fresh samples and fresh latents."""
    critic = plain.critic
    real = plain.real(plain.batch)
    with torch.no_grad():
        fake = plain.generator(plain.latents(plain.batch))
    loss = critic(fake).mean() - critic(real).mean()
    if plain.penalty is not None:
        loss = loss + plain.penalty * (slopes(critic, real, fake) - 1).square().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if plain.clip is not None:
        with torch.no_grad():
            for weight in critic.parameters():
                weight.clamp_(-plain.clip, plain.clip)


def slopes(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Norms of the critic's gradient, one a sample, at random points between real samples and fakes."""
    share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = torch.lerp(fake, real, share).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return norms


def generator_step(plain: Plain, optimizer: optim.Optimizer) -> None:
    """One update of the generator, against a critic that takes no gradients."""
    loss = -plain.critic(plain.generator(plain.latents(plain.batch))).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def perceptron(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """Three hidden layers with ReLU."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


def image_generator(filters: int = 64) -> nn.Sequential:
    """DCGAN's, from (N, 100, 1, 1) to (N, 3, 64, 64)."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(100, 8 * filters, 4, bias=False)]
    for width in (8 * filters, 4 * filters, 2 * filters):
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers.append(nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False))
    layers += [nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(filters, 3, 4, stride=2, padding=1, bias=False), nn.Tanh())


def image_critic(filters: int = 64, *, norm: bool) -> nn.Sequential:
    """DCGAN's, from (N, 3, 64, 64) to (N, 1, 1, 1), with batch norm or without any."""
    layers: list[nn.Module] = [nn.Conv2d(3, filters, 4, stride=2, padding=1, bias=False)]
    for width in (filters, 2 * filters, 4 * filters):
        layers.append(nn.LeakyReLU(0.2, inplace=True))
        layers.append(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False))
        if norm:
            layers.append(nn.BatchNorm2d(2 * width))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(8 * filters, 1, 4, bias=False))


def ring(device: torch.device) -> Draw:
    """Draws from eight Gaussians of width .02 on a circle of radius 2, all over the square root of 2."""
    angles = torch.arange(8, device=device) * (math.pi / 4)
    centres = math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=1)

    def draw(count: int) -> Tensor:
        modes = torch.randint(8, (count,), device=device)
        return centres[modes] + (0.02 / math.sqrt(2)) * torch.randn(count, 2, device=device)

    return draw


def images(shape: tuple[int, ...], device: torch.device) -> Draw:
    """Draws, with replacement, from random numbers in (-1, 1) that lie on the device."""
    held = torch.rand(shape, device=device).mul_(2).sub_(1)

    def draw(count: int) -> Tensor:
        return held[torch.randint(len(held), (count,), device=device)]

    return draw


def normal(shape: tuple[int, ...], device: torch.device) -> Draw:
    """Standard normal latents."""

    def draw(count: int) -> Tensor:
        return torch.randn(count, *shape, device=device)

    return draw


def _toy(device: torch.device, width: int = 512, batch: int = 64, penalty: float | None = None) -> Plain:
    return Plain(
        generator=perceptron(2, 2, width),
        critic=perceptron(2, 1, width),
        real=ring(device),
        latents=normal((2,), device),
        batch=batch,
        clip=0.01 if penalty is None else None,
        penalty=penalty,
    )


def _image_mlp(device: torch.device) -> Plain:
    return Plain(
        generator=perceptron(100, 784, 512),
        critic=perceptron(784, 1, 512),
        real=images((6400, 784), device),
        latents=normal((100,), device),
        clip=0.01,
    )


def _dcgan(device: torch.device, penalty: float | None = None) -> Plain:
    return Plain(
        generator=image_generator(),
        critic=image_critic(norm=penalty is None),
        real=images((640, 3, 64, 64), device),
        latents=normal((100, 1, 1), device),
        clip=0.01 if penalty is None else None,
        penalty=penalty,
    )


MAKERS: dict[str, Callable[[torch.device], Plain]] = {
    "toy-gp": lambda device: _toy(device, batch=256, penalty=0.1),
    "toy-clip": _toy,
    "small-toy": lambda device: _toy(device, width=64),
    "image-mlp": _image_mlp,
    "dcgan": _dcgan,
    "dcgan-gp": lambda device: _dcgan(device, penalty=10.0),
}
