"""Whether the parts of a run fit together: asked once, before anything large is allocated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ipmgan.config import RunConfig
from ipmgan.engine.build import choose_device, critic_kind, make_networks
from ipmgan.engine.facts import known
from ipmgan.engine.streams import Streams
from ipmgan.errors import PairingError, PluginError, UsageError
from ipmgan.objectives.base import CriticKind

BATCH_NORM = nn.modules.batchnorm._BatchNorm
SMALL = 2**24
"""Networks of up to so many weights are made and tried in a blink; torch's meta device takes seconds to load."""


def check(config: RunConfig) -> list[str]:
    """Warnings about the combination; raises `PairingError`, with reason and remedy, where it makes no sense.

    Allocates nothing that is large: such networks are tried on the meta device.
    """
    device = choose_device(config.schedule.device)
    if config.schedule.compile == "graph" and device.type != "cuda":
        raise UsageError(f"compile = graph needs a CUDA device, and this is {device.type}: use --compile on")
    _check_names(config)
    for metric in config.metrics:
        reason = metric.refuses(known(config.source))
        if reason:
            raise PairingError(f"{metric.name}: {reason}")
    generator, critic = make_networks(config)
    place, streams = torch.device("meta"), Streams(0, torch.device("cpu"))
    if sum(p.numel() for net in (generator, critic) if net for p in net.parameters()) <= SMALL:
        place, (generator, critic) = streams.device, make_networks(config, streams)
    with streams.global_draws("probe", 0):
        _check_generator(config, generator, place)
        if critic is not None:
            _check_critic(config, critic, place)
    has_batch_norm = any(
        isinstance(module, BATCH_NORM) for net in (generator, critic) if net for module in net.modules()
    )
    if has_batch_norm and config.schedule.batch < 2:
        raise PairingError("batch norm needs batches of at least 2: raise --batch or choose norm=none")
    return _warnings(config, device)


def _check_names(config: RunConfig) -> None:
    objective, enforcer, schedule = config.objective, config.lipschitz, config.schedule
    if enforcer.enforces and config.critic is None:
        raise PairingError(
            f"{enforcer.name} constrains a critic, and {objective.name} without one has nothing to constrain: "
            "give it a critic with --critic, or use --lipschitz none"
        )
    if objective.needs_lipschitz and not enforcer.enforces:
        raise PairingError(
            f"{objective.name} means nothing over all functions: its critic must be kept Lipschitz. "
            "Choose an enforcer, such as --lipschitz clip or --lipschitz gp"
        )
    if config.critic is not None and schedule.n_critic < 1:
        raise PairingError("n_critic = 0 leaves the critic as it was initialised: use --n-critic 1 or more")
    if schedule.batch < objective.min_batch:
        raise PairingError(
            f"batch = {schedule.batch}: {objective.name} needs batches of at least {objective.min_batch}"
        )
    kind = critic_kind(config)
    if config.critic is not None and kind not in config.critic.critic_kinds:
        can = ", ".join(sorted(kind.value for kind in config.critic.critic_kinds)) or "nothing"
        raise PairingError(
            f"{objective.name} needs a critic that puts out a {kind.value}; {config.critic.name}, as configured, "
            f"puts out {can}: change its options or choose another with --critic"
        )


def _check_generator(config: RunConfig, generator: nn.Module, place: torch.device) -> None:
    spec = config.source.spec()
    fake = _probe(generator, torch.zeros(2, config.latent.dim, device=place), config.generator.name)
    if fake.shape != (2, *spec.shape):
        raise PluginError(
            f"the generator {config.generator.name} makes {tuple(fake.shape)} of 2 latents, but 2 samples are "
            f"{(2, *spec.shape)}"
        )


def _check_critic(config: RunConfig, critic: nn.Module, place: torch.device) -> None:
    assert config.critic is not None
    objective, enforcer = config.objective, config.lipschitz
    if enforcer.per_sample:
        names = [name for name, module in critic.named_modules() if isinstance(module, BATCH_NORM)]
        if names:
            raise PairingError(
                f"{enforcer.name} needs a critic whose output for a sample depends on that sample alone, and "
                f"{config.critic.name} has batch norm ({names[0]}): choose norm=layer or norm=none"
            )
    out = _probe(critic, torch.zeros(2, *config.source.spec().shape, device=place), config.critic.name)
    shapes = {
        CriticKind.SCORE: "(N,)",
        CriticKind.LOGIT: "(N,)",
        CriticKind.ENERGY: "(N,) or (N, 1 + K)",
        CriticKind.FEATURES: "(N, K)",
    }
    allowed = shapes[critic_kind(config)]
    fits = out.shape[:1] == (2,) and ((out.dim() == 1 and "(N,)" in allowed) or (out.dim() == 2 and "K" in allowed))
    if not fits:
        raise PluginError(f"the critic {config.critic.name} puts out {tuple(out.shape)} for N = 2; must be {allowed}")
    if enforcer.scalar_critic and out.dim() != 1:
        raise PairingError(
            f"{enforcer.name} needs one number a sample from the critic; for {objective.name} it puts out "
            f"{out.shape[1]}: use another enforcer, such as --lipschitz clip"
        )
    if objective.needs_code and out.dim() != 2:
        raise PairingError(
            f"{objective.name} compares the codes of an auto-encoder, as configured, and {config.critic.name} puts out "
            "an energy alone: let the critic put out its code, or switch the term off"
        )


def _probe(module: nn.Module, sample: Tensor, name: str) -> Tensor:
    try:
        out = module(sample)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise PluginError(f"the network {name} fails on an input of shape {tuple(sample.shape)}: {error}") from error
    if not isinstance(out, Tensor):
        raise PluginError(f"the network {name} puts out a {type(out).__name__}, not a tensor")
    return out


def _warnings(config: RunConfig, device: torch.device) -> list[str]:
    found = []
    momentum = config.critic_optimizer.momentum
    if config.critic is not None and config.lipschitz.momentum_free and momentum:
        found.append(
            f"the critic's {config.critic_optimizer.name} has momentum {momentum}, which {config.lipschitz.name} makes "
            "unstable (Wasserstein GAN, section 4): prefer --critic-optimizer RMSprop:lr=5e-5"
        )
    if (
        config.schedule.precision == "bf16"
        and device.type == "cpu"
        and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    ):
        found.append("this CPU has no instructions for bf16: the run takes many times as long as in float32")
    return found
