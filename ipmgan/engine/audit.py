"""Audits the critic of a run."""

from __future__ import annotations

from pathlib import Path

import attrs
import torch
from torch import Tensor

from ipmgan.engine.build import Parts, build
from ipmgan.engine.checks import check
from ipmgan.engine.measure import BOUND_EFFORT, unmoved
from ipmgan.engine.run import Run
from ipmgan.engine.state import put_weights
from ipmgan.errors import PairingError, UsageError
from ipmgan.lipschitz import Clip
from ipmgan.lipschitz.audit import Audit, audit

SAMPLES = 64
BRIEF = {"samples": 16, "steps": 10}
"""What an audit in training begins at, and goes on for: some fifty gradients of a batch of 64."""


def audit_parts(parts: Parts, *, samples: int = SAMPLES, steps: int = 20, seed: int = 0) -> Audit:
    """The critic of a run as it stands, from so many held-out and generated samples; nothing is changed."""
    assert parts.critic is not None
    enforcer = parts.config.lipschitz
    real = parts.held_out.some(samples)
    return audit(
        parts.critic,
        real,
        _generated(parts, len(real)),
        bounds=parts.config.source.spec().bounds,
        clip=enforcer.c if isinstance(enforcer, Clip) else None,
        steps=steps,
        seed=seed,
        effort=BOUND_EFFORT,
    )


def audit_record(parts: Parts) -> dict[str, float]:
    """What a line of metrics says of a brief audit; nothing without a critic."""
    if parts.critic is None:
        return {}
    found = audit_parts(parts, **BRIEF)
    edge = {} if found.at_edge is None else {"weights_at_edge": found.at_edge}
    return {"lipschitz_found": found.empirical} | edge


@torch.no_grad()
def _generated(parts: Parts, count: int) -> Tensor:
    latents = parts.config.latent.draw(count, parts.streams.at("audit-latents", 0))
    with unmoved(parts.generator), parts.streams.global_draws("audit", 0):
        generated: Tensor = parts.generator(latents).float()
    return generated


def audit_run(
    run: str | Path | Run,
    *,
    checkpoint: int | None = None,
    samples: int = SAMPLES,
    steps: int = 20,
    seed: int = 0,
    device: str = "auto",
) -> Audit:
    """Audit the critic of a run, as a checkpoint left it.

    Args:
        run: a run or its directory.
        checkpoint: the checkpoint's step; else the last.
        samples: held-out samples that the ascent begins at, and as many generated ones.
        steps: of the ascent.
        seed: of its random directions.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        As `ipmgan.audit`.

    Raises:
        CheckpointError: where there is no such run or checkpoint.
        PairingError: where the run has no critic.
        UsageError: for numbers that are out of range.
    """
    for name, number, least in (("samples", samples, 1), ("steps", steps, 0)):
        if number < least:
            raise UsageError(f"{name} = {number}: must be at least {least}")
    opened = run if isinstance(run, Run) else Run(run)
    config = attrs.evolve(opened.config, schedule=attrs.evolve(opened.config.schedule, device=device))
    if config.critic is None:
        raise PairingError(f"{opened.path} has no critic to audit: {config.objective.name} was trained without one")
    snapshot = opened.dir.snapshot(checkpoint)
    check(config)
    parts = build(config)
    assert parts.critic is not None
    put_weights(parts.generator, snapshot, "generator")
    put_weights(parts.critic, snapshot, "critic")
    return audit_parts(parts, samples=samples, steps=steps, seed=seed)
