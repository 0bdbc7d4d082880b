"""Makes the objects of a run from its configuration, once `checks.check` has found that they fit together."""

from __future__ import annotations

import copy
import functools

import attrs
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ipmgan.config import RunConfig
from ipmgan.data.base import Resident, Sampler, Samples, SampleSpec
from ipmgan.engine.feed import Feed, fingerprint
from ipmgan.engine.kept import Kept
from ipmgan.engine.streams import Streams
from ipmgan.errors import DataError, PairingError, UsageError
from ipmgan.objectives.base import CriticKind
from ipmgan.perturbations.base import Perturbation


@attrs.define(kw_only=True, eq=False)
class Parts:
    """The live objects of a run."""

    config: RunConfig
    device: torch.device
    streams: Streams
    shape: tuple[int, ...]
    """That of a sample."""
    generator: nn.Module
    critic: nn.Module | None
    average: AveragedModel | None
    generator_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer | None
    objective_state: Kept
    enforcer_state: Kept
    train: Feed
    held_out: Feed
    fingerprint: str
    """What tells the training data from another."""

    @property
    def best_generator(self) -> nn.Module:
        """The averaged generator where there is one, else the generator."""
        return self.generator if self.average is None else self.average.module

    def noise(self, stream: str, number: int, batch: int, step: int) -> Tensor | None:
        """What perturbs a batch at a step; None, without asking, where nothing is ever drawn."""
        config = self.config
        if type(config.perturbation).draw is Perturbation.draw:
            return None
        done = step / config.schedule.steps
        return config.perturbation.draw((batch, *self.shape), self.streams.at(stream, number), done=done)

    def outputs(self, samples: Tensor) -> Tensor:
        """The critic's outputs, or the flattened samples where there is no critic."""
        return samples.flatten(1) if self.critic is None else self.critic(samples)


def choose_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``; raises `UsageError` where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"no device {name!r}: allowed are auto, cpu, cuda, cuda:N, mps") from error
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if (device.index or 0) >= present.get(device.type, 0):
        here = ", ".join(kind for kind, count in present.items() if count)
        raise UsageError(f"device {name!r} is not on this machine: it has {here}")
    return device


def make_networks(config: RunConfig, streams: Streams | None = None) -> tuple[nn.Module, nn.Module | None]:
    """The generator and the critic, initialised from their own streams; on the meta device without streams."""
    spec = config.source.spec()
    generator = functools.partial(config.generator.generator, config.latent.dim, spec)
    critic = functools.partial(_make_critic, config, spec)
    if streams is None:
        with torch.device("meta"):
            return generator(), critic()
    with streams.initialising("generator-weights"):
        made = generator()
    with streams.initialising("critic-weights"):
        return made, critic()


def _make_critic(config: RunConfig, spec: SampleSpec) -> nn.Module | None:
    if config.critic is None:
        return None
    return config.critic.critic(spec, critic_kind(config), per_sample=config.lipschitz.per_sample)


def critic_kind(config: RunConfig) -> CriticKind:
    """What a critic must put out, if there is one: features where the objective can do without."""
    kind = config.objective.critic
    return CriticKind.FEATURES if kind is CriticKind.NONE else kind


@attrs.frozen(kw_only=True, eq=False)
class Data:
    """Both splits of a source, and what tells the training samples from others."""

    train: Samples
    held_out: Samples
    fingerprint: str

    @classmethod
    def of(cls, config: RunConfig) -> Data:
        """The data of a run, on its device where it is held in memory."""
        device = choose_device(config.schedule.device)
        train, held_out = config.source.open("train"), config.source.open("held-out")
        told = fingerprint(train)
        train, held_out = (part.to(device) if isinstance(part, Resident) else part for part in (train, held_out))
        return cls(train=train, held_out=held_out, fingerprint=told)


def placed(net: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device, with the channels of images last where convolutions are faster so."""
    if device.type in ("cpu", "cuda") and all(p.dim() < 5 for p in net.parameters()):
        return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return net.to(device)


def build(config: RunConfig, data: Data | None = None) -> Parts:
    """The live objects, on their device; call `check` first. `data` saves opening the source once more."""
    schedule = config.schedule
    device = choose_device(schedule.device)
    data = data or Data.of(config)
    streams = Streams(schedule.seed, device)
    generator, critic = (net and placed(net, device) for net in make_networks(config, streams))
    assert generator is not None
    if critic is not None:
        critic = config.lipschitz.prepare(critic)
        _check_penalty(config, critic, device)
    average = None
    if schedule.average:
        average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(schedule.average))  # type: ignore[no-untyped-call]
    held_out = data.held_out
    held_out_batch = schedule.batch if isinstance(held_out, Sampler) else min(schedule.batch, len(held_out))
    if held_out_batch < min(schedule.batch, max(config.objective.min_batch, 2)):
        raise DataError(f"{held_out_batch} held-out samples are too few: hold more out, or give more data")
    return Parts(
        config=config,
        device=device,
        streams=streams,
        shape=config.source.spec().shape,
        generator=generator,
        critic=critic,
        average=average,
        generator_optimizer=config.generator_optimizer.make(list(generator.parameters())),
        critic_optimizer=None if critic is None else config.critic_optimizer.make(list(critic.parameters())),
        objective_state=Kept(config.objective.state()).to(device),
        enforcer_state=Kept(config.lipschitz.state()).to(device),
        train=Feed(data.train, schedule.batch, streams, "train", schedule.workers),
        held_out=Feed(held_out, held_out_batch, streams, "held-out"),
        fingerprint=data.fingerprint,
    )


def _check_penalty(config: RunConfig, critic: nn.Module, device: torch.device) -> None:
    """Differentiate the penalty once, so that a critic that cannot be is refused before the first step."""
    if not config.lipschitz.needs_double_backward:
        return
    streams = Streams(0, device)
    sample = torch.randn(4, *config.source.spec().shape, generator=streams.at("probe", 0), device=device)
    twin = copy.deepcopy(critic)
    try:
        with streams.global_draws("probe", 2):
            drawn = config.lipschitz.draw(sample[:2], streams.at("probe", 1))
            penalty = config.lipschitz.penalty(twin, sample[:2], sample[2:], drawn)
            if penalty is None:
                return
            # As in training: `torch.autograd.grad` would leave out the branch of a layer that cannot be differentiated.
            penalty.backward()  # type: ignore[no-untyped-call]
        if all(p.grad is None for p in twin.parameters()):
            raise RuntimeError("its gradient depends on none of its weights")
    except RuntimeError as error:
        raise PairingError(
            f"{config.lipschitz.name} differentiates the critic twice, and {config.critic and config.critic.name} "
            f"cannot be: {error}"
        ) from error
