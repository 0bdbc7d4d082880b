"""The properties of a perturbation: drawn from what is given, pure, and differentiable in the samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from ipmgan.perturbations.base import Perturbation
from ipmgan.testing.base import (
    ConformanceError,
    NotApplicable,
    close,
    derivative_is_right,
    first_line,
    no_global_draws,
    normal,
    on_devices,
    require,
    rng,
    unchanged,
)
from ipmgan.testing.modes import vectorises

SHAPES = ((6, 3), (4, 1, 4, 4))
SHARES = (0.0, 0.5, 1.0)
"""Shares of a run's steps that are done."""


def drawn_for(plugin: Perturbation, shape: tuple[int, ...], done: float = 0.0, seed: int = 0) -> Tensor | None:
    """What one batch needs."""
    return plugin.draw(shape, rng(seed), done=done)


def shapes(plugin: Perturbation) -> None:
    """Perturbed samples keep shape and type, and are finite, throughout a run."""
    for shape in SHAPES:
        for done in SHARES:
            x = normal(*shape, dtype=torch.float32)
            y = plugin.perturb(x, drawn_for(plugin, shape, done))
            require(y.shape == x.shape, f"samples of shape {shape} become {tuple(y.shape)}")
            require(y.dtype == x.dtype, f"samples of {x.dtype} become {y.dtype}")
            require(torch.isfinite(y).all(), f"perturbed samples are not finite where {done:g} of the run is done")


def gradients(plugin: Perturbation) -> None:
    """The gradient passes through to the samples, and is that of finite differences."""
    for shape in SHAPES:
        drawn = drawn_for(plugin, shape)
        wide = drawn.double() if drawn is not None and drawn.is_floating_point() else drawn
        x = normal(*shape).requires_grad_()
        y = plugin.perturb(x, wide)
        require(y.requires_grad, "no gradient passes to the samples: the generator would learn nothing")
        derivative_is_right("perturb", lambda x, wide=wide: plugin.perturb(x, wide), (normal(*shape),))


def no_draws(plugin: Perturbation) -> None:
    """Random numbers come from the generator that `draw` gets, and `perturb` is a function."""
    for done in SHARES:
        with no_global_draws("draw"):
            first, second = (drawn_for(plugin, SHAPES[0], done) for _ in range(2))
        same = (first is None and second is None) or (first is not None and second is not None and close(first, second))
        require(same, "draw gives two values for the same seed")
        x = normal(*SHAPES[0], dtype=torch.float32)
        with no_global_draws("perturb"):
            pair = [plugin.perturb(x, first) for _ in range(2)]
        require(torch.equal(*pair), "perturb gives two values for the same samples and draws")


def inputs_unchanged(plugin: Perturbation) -> None:
    """Samples and draws are left as they are."""
    x, drawn = normal(*SHAPES[0], dtype=torch.float32), drawn_for(plugin, SHAPES[0])
    with unchanged("perturb", samples=x, drawn=drawn):
        plugin.perturb(x, drawn)


def no_waiting(plugin: Perturbation) -> None:
    """No number is read back from the device, and none is made on another."""

    def prepare(device: torch.device) -> Callable[[], object]:
        x, drawn = normal(*SHAPES[0], dtype=torch.float32).to(device), drawn_for(plugin, SHAPES[0])
        there = drawn if drawn is None else drawn.to(device)
        return lambda: plugin.perturb(x, there)

    on_devices("perturb", prepare)


def vectorised(plugin: Perturbation) -> None:
    """Perturbing under `torch.func.vmap` is that of each seed alone, or `vectorises = False` is declared."""
    x = torch.stack([normal(*SHAPES[0], seed=seed, dtype=torch.float32) for seed in range(3)])
    draws = [drawn_for(plugin, SHAPES[0], seed=seed) for seed in range(3)]
    given = [drawn for drawn in draws if drawn is not None]
    stack = torch.stack(given) if given else None
    try:
        together = vmap(plugin.perturb, in_dims=(0, None if stack is None else 0))(x, stack)
    except RuntimeError as error:
        if not vectorises(plugin):
            raise NotApplicable("vectorises = False is declared") from error
        told = f"perturb cannot be vectorised: declare vectorises = False ({first_line(error)})"
        raise ConformanceError(told) from error
    alone = torch.stack([plugin.perturb(*pair) for pair in zip(x, draws, strict=True)])
    require(close(together, alone, 1e-6), "perturb under torch.func.vmap is not that of each seed alone")
