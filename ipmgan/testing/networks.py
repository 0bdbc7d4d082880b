"""The properties of a network family: shapes, kinds, weights and gradients of what it makes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ipmgan.data.base import SampleSpec
from ipmgan.errors import PairingError
from ipmgan.networks.base import Network
from ipmgan.objectives.base import CriticKind
from ipmgan.testing.base import (
    ConformanceError,
    NotApplicable,
    close,
    first_line,
    normal,
    number,
    on_devices,
    require,
    unchanged,
)
from ipmgan.testing.modes import BF16, vectorises

LATENT, COUNT = 5, 6
SPECS = (
    SampleSpec(shape=(2,)),
    SampleSpec(shape=(1, 28, 28), bounds=(-1.0, 1.0)),
    SampleSpec(shape=(3, 64, 64), bounds=(0.0, 1.0)),
)
"""Samples that families are tried on: points and pictures."""


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose weights are the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def generators(plugin: Network) -> Iterator[tuple[SampleSpec, nn.Module]]:
    """A generator for each kind of sample that the family can make."""
    for spec in SPECS:
        try:
            yield spec, seeded(functools.partial(plugin.generator, LATENT, spec))
        except PairingError:
            continue


def critics(plugin: Network) -> Iterator[tuple[SampleSpec, CriticKind, nn.Module]]:
    """A critic of each kind for the first kind of sample that the family can judge."""
    for spec in SPECS:
        made = False
        for kind in sorted(plugin.critic_kinds, key=lambda kind: kind.value):
            try:
                yield spec, kind, seeded(functools.partial(plugin.critic, spec, kind, per_sample=True))
                made = True
            except PairingError:
                continue
        if made:
            return


def modules(plugin: Network) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """A generator and critics, each with an input of some samples."""
    for _, net in list(generators(plugin))[:1]:
        yield "the generator", net, normal(COUNT, LATENT, dtype=torch.float32)
    for spec, kind, net in critics(plugin):
        yield f"the {kind.value} critic", net, normal(COUNT, *spec.shape, dtype=torch.float32).tanh()


def shapes(plugin: Network) -> None:
    """Generators make samples of the shape asked for; critics put out what their kind says."""
    made = 0
    for spec, net in generators(plugin):
        out, made = net(normal(3, LATENT, dtype=torch.float32)), made + 1
        require(out.shape == (3, *spec.shape), f"the generator makes {tuple(out.shape)} of 3 latents for {spec.shape}")
        require(torch.isfinite(out).all(), "the generator makes numbers that are not finite")
    for spec, kind, net in critics(plugin):
        out, made = net(normal(3, *spec.shape, dtype=torch.float32)), made + 1
        _check_outputs(kind, out)
    require(made, "it makes neither a generator nor a critic, for points nor for pictures")


def bounds(plugin: Network) -> None:
    """Generated samples stay inside the bounds that are asked for, whatever the latents."""
    tried = 0
    for spec, net in generators(plugin):
        if spec.bounds is not None:
            out, tried = net(1e3 * normal(8, LATENT, dtype=torch.float32)), tried + 1
            low, high = spec.bounds
            require(out.min() >= low and out.max() <= high, f"the generator leaves the samples' bounds {spec.bounds}")
    if not tried:
        raise NotApplicable("it makes no pictures")


def _check_outputs(kind: CriticKind, out: Tensor) -> None:
    what = f"the {kind.value} critic puts out {tuple(out.shape)} for 3 samples"
    if kind is CriticKind.FEATURES:
        require(out.dim() == 2 and len(out) == 3, f"{what}: must be (N, K)")
    elif kind is CriticKind.ENERGY:
        require(out.shape == (3,) or (out.dim() == 2 and len(out) == 3), f"{what}: must be (N,) or (N, 1 + K)")
        energy = out if out.dim() == 1 else out[:, 0]
        require(energy.min() >= 0, "the energy critic puts out a negative energy")
    else:
        require(out.shape == (3,), f"{what}: must be (N,)")


def seeded_weights(plugin: Network) -> None:
    """The weights follow torch's global seed alone, in float32."""
    for (what, net, _), (_, again, _) in zip(modules(plugin), modules(plugin), strict=True):
        for (name, p), q in zip(net.named_parameters(), again.parameters(), strict=True):
            require(p.dtype == torch.float32, f"{what}'s weight {name} is {p.dtype}, not torch.float32")
            require(torch.equal(p, q), f"{what}'s weight {name} does not follow torch's global seed")


def per_sample(plugin: Network) -> None:
    """A critic asked to be `per_sample` treats each sample by itself."""
    tried = 0
    for spec, kind, net in critics(plugin):
        x, tried = normal(4, *spec.shape, dtype=torch.float32), tried + 1
        other = torch.cat([x[:1], normal(3, *spec.shape, seed=1, dtype=torch.float32)])
        told = f"the {kind.value} critic's output for a sample depends on the others, though per_sample was asked for"
        require(close(net(x)[0], net(other)[0], 1e-5), told)
    if not tried:
        raise NotApplicable("it has no critic of that sort")


def gradients(plugin: Network) -> None:
    """Gradients in the inputs are those of finite differences, in float64, and reach every trained weight's network."""
    for what, net, x in modules(plugin):
        net, point = net.double(), x.double()
        direction = normal(*x.shape, seed=7)
        direction /= direction.norm()
        point.requires_grad_()
        value = net(point).square().sum()
        (slope,) = torch.autograd.grad(value, point, retain_graph=True)
        reached = torch.autograd.grad(value, list(net.parameters()), allow_unused=True)
        require(any(g is not None and g.abs().sum() > 0 for g in reached), f"no gradient reaches a weight of {what}")
        with torch.no_grad():
            step = 1e-6
            ahead, behind = (net(point + side * step * direction).square().sum() for side in (1, -1))
        told, found = float((slope * direction).sum()), float(ahead - behind) / (2 * step)
        wrong = f"the gradient of {what} is {told:.6g} along a direction, by finite differences {found:.6g}"
        require(math.isclose(told, found, rel_tol=1e-3, abs_tol=1e-6), wrong)


def inputs_unchanged(plugin: Network) -> None:
    """The inputs are left as they are."""
    for what, net, x in modules(plugin):
        with unchanged(what, its_input=x):
            net(x)


def no_waiting(plugin: Network) -> None:
    """No number is read back from the device, and none is made on another."""
    for what, net, x in modules(plugin):

        def prepare(device: torch.device, net: nn.Module = net, x: Tensor = x) -> Callable[[], object]:
            there, given = net.to(device), x.to(device)
            return lambda: there(given).square().sum().backward()

        on_devices(what, prepare)


def autocast(plugin: Network) -> None:
    """Outputs under bf16 autocast are finite, and those without up to rounding."""
    for what, net, x in modules(plugin):
        plain = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            try:
                half = net(x).float()
            except RuntimeError as error:
                raise ConformanceError(f"{what} fails under bf16 autocast: {first_line(error)}") from error
        apart = number((half - plain).norm() / (plain.norm() + 1e-3))
        require(apart < 2 * BF16, f"{what} under bf16 autocast is off by {apart:.2g} of its size")


def vectorised(plugin: Network) -> None:
    """Networks under `torch.func.vmap` are those of each seed alone, or `vectorises = False` is declared."""
    for what, net, x in modules(plugin):
        state = {name: value.detach() for name, value in net.state_dict().items()}
        stack = {name: torch.stack([value, value]) for name, value in state.items()}

        def run(state: dict[str, Tensor], net: nn.Module = net, x: Tensor = x) -> Tensor:
            kept = {name: value.clone() for name, value in state.items()}
            out: Tensor = functional_call(net, kept, (x,))
            return out

        try:
            together = vmap(run)(stack)
        except RuntimeError as error:
            if not vectorises(plugin):
                raise NotApplicable("vectorises = False is declared") from error
            told = f"{what} cannot be vectorised: declare vectorises = False ({first_line(error)})"
            raise ConformanceError(told) from error
        require(close(together[0], run(state), 1e-4), f"{what} under torch.func.vmap is not that of a seed alone")
