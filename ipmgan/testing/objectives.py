"""The properties of an objective, on critic outputs that are made up: where it points, and that it is a function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ipmgan.errors import IpmganError
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.testing.base import (
    NotApplicable,
    close,
    derivative_is_right,
    first_line,
    is_scalar,
    keeps_state,
    no_global_draws,
    normal,
    on_devices,
    require,
    start_of,
    unchanged,
)

COUNT = 9
SAMPLES = (CriticKind.NONE, CriticKind.FEATURES)
"""Kinds of critics whose outputs are compared as samples are."""


def outputs(plugin: Objective, count: int = COUNT, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """What a critic for this objective might put out for so many samples."""
    values = normal(count, seed=seed, dtype=dtype)
    if plugin.critic in SAMPLES:
        return normal(count, 3, seed=seed, dtype=dtype)
    if plugin.critic is CriticKind.ENERGY:
        values = 0.1 + values.abs()
    return with_code(values, seed) if plugin.needs_code else values


def level(plugin: Objective, value: float, count: int = COUNT) -> Tensor:
    """The output of a critic that is as high as this on all samples; an energy as low, from 1 on."""
    if plugin.critic is CriticKind.ENERGY:
        value = 1 - value
    values = torch.full((count,), value, dtype=torch.float64)
    return with_code(values) if plugin.needs_code else values


def with_code(energies: Tensor, seed: int = 0) -> Tensor:
    """Energies (N,) with a code behind them, (N, 4)."""
    return torch.cat([energies[:, None], normal(len(energies), 3, seed=seed + 100, dtype=energies.dtype)], dim=1)


def critic_loss(plugin: Objective) -> Callable[[Tensor, Tensor], Tensor]:
    """The critic's loss in the first step."""
    return lambda real, fake: plugin.critic_loss_and_state(real, fake, start_of(plugin, real.device))[0]


def generator_loss(plugin: Objective) -> Callable[[Tensor, Tensor], Tensor]:
    """The generator's loss as the engine calls it."""
    return lambda real, fake: plugin.generator_loss(real if plugin.generator_uses_real else real.new_empty(0), fake)


def terms(plugin: Objective) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """All that an objective computes, by name."""
    losses = {"critic_loss": critic_loss(plugin), "generator_loss": generator_loss(plugin)}
    return losses | {"estimate": plugin.estimate}


def orientation(plugin: Objective) -> None:
    """The critic's loss falls as it tells real from generated, the generator's as its samples come closer."""
    if plugin.critic in SAMPLES:
        _orientation_of_samples(plugin)
    else:
        _orientation_of_scores(plugin)


def _orientation_of_scores(plugin: Objective) -> None:
    start = 0.9 if plugin.critic is CriticKind.ENERGY else 0.0
    high = "low (an energy)" if plugin.critic is CriticKind.ENERGY else "high"
    sign = -1 if plugin.critic is CriticKind.ENERGY else 1
    real, fake = (level(plugin, start).requires_grad_() for _ in range(2))
    push = torch.autograd.grad(critic_loss(plugin)(real, fake), (real, fake), materialize_grads=True)
    on_real, on_fake = (sign * float(_values(plugin, slopes).sum()) for slopes in push)
    require(on_real <= 0, f"critic_loss rises as the critic rises on real samples: it must be {high} there")
    require(on_fake >= 0, f"critic_loss falls as the critic rises on generated samples: it must be {high} on real ones")
    require(on_real < on_fake, "critic_loss has no slope where the critic tells nothing apart: it would learn nothing")
    real, fake = level(plugin, 0.5), level(plugin, -0.5).requires_grad_()
    (pull,) = torch.autograd.grad(generator_loss(plugin)(real, fake), fake, materialize_grads=True)
    climb = sign * float(_values(plugin, pull).sum())
    require(climb < 0, "generator_loss does not fall as generated samples go where the critic takes them for real")
    right, wrong = plugin.estimate(real, fake.detach()), plugin.estimate(fake.detach(), real)
    require(right > wrong, f"estimate reads {float(right):.3g} for a critic that is right, {float(wrong):.3g} reversed")


def _values(plugin: Objective, slopes: Tensor) -> Tensor:
    return slopes[:, 0] if plugin.needs_code else slopes


def _orientation_of_samples(plugin: Objective) -> None:
    real = normal(64, 3)
    near, far = (real * (1 + distance) + distance for distance in (1.0, 1.1))
    for name, rises in (("critic_loss", False), ("generator_loss", True), ("estimate", True)):
        term = terms(plugin)[name]
        change = float(term(real, far) - term(real, near))
        verb = "rise" if rises else "fall"
        require((change > 0) if rises else (change < 0), f"{name} does not {verb} as generated samples move away")


def scalars(plugin: Objective) -> None:
    """Losses and estimate are finite scalars of the inputs' type, with finite gradients, on awkward outputs too."""
    for dtype in (torch.float32, torch.float64):
        real, fake = outputs(plugin, dtype=dtype), outputs(plugin, seed=1, dtype=dtype)
        cases = {"": (real, fake), " of large outputs": (30 * real, 30 * fake)}
        cases[" of outputs that are all the same"] = (real[:1].expand_as(real), real[:1].expand_as(real))
        for where, pair in cases.items():
            for name, term in terms(plugin).items():
                leaves = [x.clone().requires_grad_() for x in pair]
                value = is_scalar(f"{name}{where}", term(*leaves), dtype)
                if name != "estimate":
                    require(value.requires_grad, f"{name} has no graph: it must depend on the critic's outputs")
                    slopes = torch.autograd.grad(value, leaves, allow_unused=True)
                    finite = all(slope is None or torch.isfinite(slope).all() for slope in slopes)
                    require(finite, f"the gradient of {name}{where} is not finite")


def gradients(plugin: Objective) -> None:
    """The losses' gradients are those of finite differences, in float64."""
    count = max(4, plugin.min_batch)
    real, fake = outputs(plugin, count), outputs(plugin, count, seed=1)
    derivative_is_right("critic_loss", critic_loss(plugin), (real, fake))
    derivative_is_right("generator_loss", lambda x: generator_loss(plugin)(real, x), (fake,))


def means(plugin: Objective) -> None:
    """The losses are means over the batch: every sample twice changes nothing."""
    if plugin.whole_batch:
        raise NotApplicable("whole_batch: not a mean over samples")
    if plugin.needs_code:
        raise NotApplicable("needs_code: codes are compared in pairs")
    real, fake = outputs(plugin), outputs(plugin, seed=1)
    for name, term in terms(plugin).items():
        once, twice = term(real, fake), term(torch.cat([real, real]), torch.cat([fake, fake]))
        require(
            close(once, twice),
            f"{name} is {float(once):.6g}, and {float(twice):.6g} with every sample twice: take means over the batch",
        )


def whole_batch(plugin: Objective) -> None:
    """`whole_batch` is true where, and only where, parts of a batch do not add up to it by their sizes."""
    if plugin.needs_code:
        raise NotApplicable("needs_code: codes are compared in pairs")
    apart = [name for name, term in list(terms(plugin).items())[:2] if not _adds_up(plugin, term)]
    if plugin.whole_batch:
        require(apart, "whole_batch is declared, but both losses are means over samples: leave it out")
    else:
        told = " and ".join(apart)
        require(not apart, f"{told} of a batch is not the mean of its parts: declare whole_batch = True")


def _adds_up(plugin: Objective, term: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether some batches are the means of their parts by size."""
    first = max(3, plugin.min_batch)
    for seed in range(5):
        real, fake = outputs(plugin, 3 * first, seed=seed), outputs(plugin, 3 * first, seed=seed + 10)
        parts = (term(real[:first], fake[:first]) + 2 * term(real[first:], fake[first:])) / 3
        if not close(parts, term(real, fake)):
            return False
    return True


def min_batch(plugin: Objective) -> None:
    """The losses work on the smallest batch that is declared."""
    count = plugin.min_batch
    for name, term in terms(plugin).items():
        try:
            value = term(outputs(plugin, count), outputs(plugin, count, seed=1))
        except (IpmganError, RuntimeError, ValueError, IndexError) as error:
            require(False, f"{name} fails on batches of min_batch = {count}: {first_line(error)}")
        require(torch.isfinite(value), f"{name} is {float(value)} on batches of min_batch = {count}")


def generator_uses_real(plugin: Objective) -> None:
    """`generator_uses_real` is true where the generator's loss depends on the real batch; without it, that is empty."""
    real, other, fake = outputs(plugin), outputs(plugin, seed=2), outputs(plugin, seed=1)
    if plugin.generator_uses_real:
        same = torch.equal(plugin.generator_loss(real, fake), plugin.generator_loss(other, fake))
        require(not same, "generator_uses_real is declared, but generator_loss does not depend on the real batch")
        return
    try:
        without = plugin.generator_loss(fake.new_empty(0), fake)
    except (IpmganError, RuntimeError, ValueError, IndexError) as error:
        require(False, f"generator_loss fails without a real batch: {first_line(error)}; declare generator_uses_real")
    same = torch.equal(without, plugin.generator_loss(real, fake))
    require(same, "generator_loss depends on the real batch: declare generator_uses_real = True")


def needs_code(plugin: Objective) -> None:
    """`needs_code` is true where the losses depend on the code behind an energy; without it, a code does no harm."""
    if plugin.critic is not CriticKind.ENERGY:
        require(not plugin.needs_code, "needs_code is for objectives whose critic puts out an energy")
        raise NotApplicable(f"the critic puts out a {plugin.critic.value}, with no code behind it")
    energies = [0.1 + normal(COUNT, seed=seed).abs() for seed in (0, 1)]
    changes = []
    for name, term in terms(plugin).items():
        try:
            values = [term(*(with_code(energy, seed) for energy in energies)) for seed in (0, 1)]
        except (IpmganError, RuntimeError, ValueError, IndexError) as error:
            require(False, f"{name} fails on outputs (N, 1 + K), an energy and a code: {first_line(error)}")
        changes += [] if close(values[0], values[1]) else [name]
    told = " and ".join(changes)
    require(plugin.needs_code or not changes, f"{told} depends on the code behind the energy: declare needs_code")
    require(changes or not plugin.needs_code, "needs_code is declared, but nothing depends on the code")


def needs_lipschitz(plugin: Objective) -> None:
    """`needs_lipschitz` is declared where a steeper critic's loss falls without end."""
    if plugin.critic in SAMPLES:
        raise NotApplicable("the features' slope is no slope of a critic")
    if plugin.critic is CriticKind.ENERGY:
        raise NotApplicable("an energy has a floor")
    small, large = (float(critic_loss(plugin)(level(plugin, h), level(plugin, -h))) for h in (1e4, 1e8))
    endless = large < small - 1e3
    undeclared = "critic_loss falls without end as the critic gets steeper: declare needs_lipschitz = True"
    require(plugin.needs_lipschitz or not endless, undeclared)


def no_draws(plugin: Objective) -> None:
    """Nothing is drawn, from any global generator."""
    for name, term in terms(plugin).items():
        with no_global_draws(name):
            first = term(outputs(plugin), outputs(plugin, seed=1))
            second = term(outputs(plugin), outputs(plugin, seed=1))
        require(torch.equal(first, second), f"{name} gives two values for the same outputs: it is no function of them")


def inputs_unchanged(plugin: Objective) -> None:
    """The critic's outputs, and what is kept between steps, are left as they are."""
    for name, term in terms(plugin).items():
        real, fake = outputs(plugin), outputs(plugin, seed=1)
        with unchanged(name, real=real, fake=fake):
            term(real, fake)


def no_waiting(plugin: Objective) -> None:
    """No number is read back from the device, and none is made on another."""
    for name, term in terms(plugin).items():

        def prepare(device: torch.device, term: Callable[[Tensor, Tensor], Tensor] = term) -> Callable[[], object]:
            real, fake = (outputs(plugin, seed=k, dtype=torch.float32).to(device).requires_grad_() for k in (0, 1))
            return lambda: torch.autograd.grad(term(real, fake), (real, fake), allow_unused=True)

        on_devices(name, prepare)


def state(plugin: Objective) -> None:
    """What is kept between steps stays of its shape and type, without graph, and is changed by nobody else."""
    start = dict(plugin.state())
    if not start:
        raise NotApplicable("it keeps nothing between steps")
    real, fake = outputs(plugin, dtype=torch.float32), outputs(plugin, seed=1, dtype=torch.float32)
    with unchanged("critic_loss_and_state", **start):
        loss, after = plugin.critic_loss_and_state(real.requires_grad_(), fake.requires_grad_(), start)
    keeps_state("critic_loss_and_state", start, after)
    require(close(loss.detach(), plugin.critic_loss(real, fake).detach(), 1e-6), "critic_loss is not the first step's")
    again = {name: torch.equal(value, plugin.state()[name]) for name, value in start.items()}
    require(all(again.values()), "state() is not what it was at the start: it must give the same values at every call")
