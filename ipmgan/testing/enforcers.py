"""The properties of an enforcer, on small critics that are made up: that it holds slopes down, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ipmgan.engine.stack import Projection
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.testing.base import (
    NotApplicable,
    close,
    derivative_is_right,
    is_scalar,
    no_global_draws,
    number,
    on_devices,
    require,
    rng,
    start_of,
    unchanged,
)
from ipmgan.testing.critics import make_critic, penalty_on, samples, settled, steepness

STEPS = 20


def holds_down(plugin: LipschitzEnforcer) -> None:
    """A critic that is too steep becomes less so; where `enforces` is false, nothing is done to it."""
    real, fake = samples()
    before = steepness(make_critic(plugin, scale=5.0, prepared=False), real, fake)
    critic = make_critic(plugin, scale=5.0)
    penalised = _enforce(plugin, critic, real, fake)
    after = steepness(critic, real, fake)
    if plugin.enforces:
        require(after < 0.99 * before, f"a critic of slope {before:.4g} still has {after:.4g} after {STEPS} steps")
    else:
        require(after == before and not penalised, "enforces = False is declared, but it changes or charges the critic")


def _enforce(plugin: LipschitzEnforcer, critic: nn.Module, real: Tensor, fake: Tensor) -> bool:
    """Some steps down the penalty alone, a hundredth of the weights each, with the projection; whether it charged."""
    state, charged = plugin.state(), False
    for step in range(STEPS):
        penalty, state = plugin.penalty_and_state(critic, real, fake, plugin.draw(real, rng(step)), state)
        weights = [p for p in critic.parameters() if p.requires_grad]
        slopes: tuple[Tensor | None, ...] = (None,) * len(weights)
        if penalty is not None:
            slopes, charged = torch.autograd.grad(penalty, weights, allow_unused=True), True
        length = sum((slope.square().sum() for slope in slopes if slope is not None), torch.zeros(())).sqrt()
        size = torch.stack([weight.detach().norm() for weight in weights]).norm()
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                if slope is not None and length > 0:
                    weight.sub_(0.01 * size * slope / length)
            plugin.after_step(critic)
    return charged


def penalty_is_scalar(plugin: LipschitzEnforcer) -> None:
    """The penalty is a finite scalar of the inputs' type with a finite gradient, for flat critics, for equal laws."""
    for dtype in (torch.float32, torch.float64):
        for where, scale in (("", 1.0), (" of a flat critic", 0.0), (" of a steep critic", 30.0)):
            penalised, real, fake, drawn = penalty_on(plugin, dtype, scale=scale)
            for other, what in ((fake, where), (real.clone(), f"{where} on equal laws")):
                value = is_scalar(f"the penalty{what}", penalised(real, other, drawn), dtype)
                require(value.requires_grad, "the penalty has no graph: it must depend on the critic's weights")
                weights = [p for p in penalised.critic.parameters() if p.requires_grad]
                slopes = torch.autograd.grad(value, weights, allow_unused=True)
                finite = all(slope is None or torch.isfinite(slope).all() for slope in slopes)
                require(finite, f"the gradient of the penalty{what} is not finite")


def penalty_gradients(plugin: LipschitzEnforcer) -> None:
    """The penalty's gradient in the critic's weights is that of finite differences, in float64."""
    penalised, real, fake, drawn = penalty_on(plugin)
    names, weights = zip(*((n, p.detach()) for n, p in penalised.named_parameters()), strict=True)

    def value(*given: Tensor) -> Tensor:
        found: Tensor = functional_call(penalised, dict(zip(names, given, strict=True)), (real, fake, drawn))
        return found

    value(*weights)
    derivative_is_right("the penalty", value, weights)


def penalty_is_mean(plugin: LipschitzEnforcer) -> None:
    """The penalty is a mean over the batch: every sample twice changes nothing."""
    penalised, real, fake, drawn = penalty_on(plugin)
    each = drawn is not None and drawn.dim() > 0 and len(drawn) == len(real)
    twice_drawn = torch.cat([drawn, drawn]) if drawn is not None and each else drawn
    once = penalised(real, fake, drawn)
    twice = penalised(torch.cat([real, real]), torch.cat([fake, fake]), twice_drawn)
    told = f"the penalty is {number(once):.6g}, and {number(twice):.6g} with every sample twice"
    require(close(once, twice), f"{told}: take means over the batch")


def no_draws(plugin: LipschitzEnforcer) -> None:
    """Random numbers come from the generator that `draw` gets, and are the same for the same seed."""
    critic = settled(make_critic(plugin))
    real, fake = samples()
    with no_global_draws("draw"):
        first, second = plugin.draw(real, rng(3)), plugin.draw(real, rng(3))
    same = (first is None and second is None) or (first is not None and second is not None and close(first, second))
    require(same, "draw gives two values for the same seed")
    with no_global_draws("penalty"):
        plugin.penalty_and_state(critic, real, fake, first, plugin.state())
    with no_global_draws("after_step"), torch.no_grad():
        plugin.after_step(critic)


def inputs_unchanged(plugin: LipschitzEnforcer) -> None:
    """The penalty leaves samples, draws, weights, buffers and gradients as they are."""
    critic = settled(make_critic(plugin))
    real, fake = samples()
    drawn = plugin.draw(real, rng())
    held = {name.replace(".", "_"): value for name, value in critic.state_dict(keep_vars=True).items()}
    with unchanged("penalty", real=real, fake=fake, drawn=drawn, **held, **dict(plugin.state())):
        plugin.penalty_and_state(critic, real, fake, drawn, plugin.state())
    require(
        all(p.grad is None for p in critic.parameters()), "penalty leaves gradients behind: the engine goes backward"
    )


def projects_in_place(plugin: LipschitzEnforcer) -> None:
    """The projection writes into the weights that there are, which the optimiser and replicates hold."""
    critic = make_critic(plugin, scale=5.0)
    before = {name: (p, p.data_ptr(), p.requires_grad) for name, p in critic.named_parameters()}
    with torch.no_grad():
        plugin.after_step(critic)
    after = {name: (p, p.data_ptr(), p.requires_grad) for name, p in critic.named_parameters()}
    require(after.keys() == before.keys(), "after_step adds or removes weights: do that in prepare")
    for name, (p, memory, trained) in before.items():
        now, there, still = after[name]
        require(now is p and there == memory, f"after_step replaces {name}: write into it")
        require(still == trained, f"after_step changes whether {name} is trained")
        require(torch.isfinite(p).all(), f"after_step leaves {name} with numbers that are not finite")


def elementwise(plugin: LipschitzEnforcer) -> None:
    """What says that it projects every number by itself projects a stack of critics as each of them alone."""
    if not plugin.elementwise:
        raise NotApplicable("elementwise = True is not declared")
    critics = [make_critic(plugin, scale=scale) for scale in (0.01, 1.0, 5.0)]
    projections = [Projection(plugin, critic) for critic in critics]
    stack = {
        name: torch.stack([projection.get_parameter(name).detach() for projection in projections])
        for name, _ in projections[0].named_parameters()
    }
    with torch.no_grad():
        functional_call(projections[0], stack, ())
        for place, projection in enumerate(projections):
            projection()
            for name, p in projection.named_parameters():
                told = f"elementwise = True is declared, but after_step treats {name} otherwise in a stack of critics"
                require(close(stack[name][place], p, 1e-12), told)


def no_waiting(plugin: LipschitzEnforcer) -> None:
    """No number is read back from the device, and none is made on another."""

    def prepare(device: torch.device) -> Callable[[], object]:
        real, fake = samples(torch.float32)
        drawn = plugin.draw(real, rng())
        critic = make_critic(plugin, dtype=torch.float32).to(device)
        given = (real.to(device), fake.to(device), drawn if drawn is None else drawn.to(device))
        state = start_of(plugin, device)

        def run() -> None:
            value, _ = plugin.penalty_and_state(critic, *given, state)
            loss = critic(given[0]).mean() + (0 if value is None else value)
            torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
            with torch.no_grad():
                plugin.after_step(critic)

        return run

    on_devices("the enforcer", prepare)
