"""A fresh critic against a run's generator as a checkpoint left it: training, with the generator's steps left out."""

from __future__ import annotations

import functools
import math
from typing import Any

import attrs
import torch
from torch import Tensor

from ipmgan.config import RunConfig, configure
from ipmgan.engine.build import Data, build
from ipmgan.engine.checkpoint import Snapshot
from ipmgan.engine.checks import check
from ipmgan.engine.draws import CriticDraws
from ipmgan.engine.losses import GeneratorLoss
from ipmgan.engine.measure import unmoved
from ipmgan.engine.run import Run
from ipmgan.engine.state import put_weights
from ipmgan.engine.step import Step
from ipmgan.errors import PairingError
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.perturbations.base import Perturbation
from ipmgan.registry import registry


@attrs.frozen(kw_only=True)
class Held(Perturbation):
    """A perturbation as it is once a share `done` of a run is done, at whatever time it is asked."""

    name = "held"

    inner: Perturbation
    done: float

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, *, done: float) -> Tensor | None:
        """As at that moment."""
        return self.inner.draw(shape, generator, done=self.done)

    def perturb(self, samples: Tensor, drawn: Tensor | None) -> Tensor:
        """As ever."""
        return self.inner.perturb(samples, drawn)


def against(run: Run, *, objective: str | Objective, steps: int, seed: int, device: str, **choices: Any) -> RunConfig:
    """The configuration in which a fresh critic is trained against a run's generator.

    What is not chosen of `lipschitz`, `critic` and `critic_optimizer` is the run's where that fits the objective, else
    its default. Raises `PairingError` for an objective without a critic.
    """
    trained = run.config
    made = registry().make("objective", objective) if isinstance(objective, str) else objective
    assert isinstance(made, Objective)
    chosen = {key: value for key, value in choices.items() if value is not None}
    if "lipschitz" not in chosen and made.needs_lipschitz:
        chosen["lipschitz"] = trained.lipschitz if trained.lipschitz.enforces else "gp"
    if trained.critic is not None and made.critic in trained.critic.critic_kinds:
        chosen.setdefault("critic", trained.critic)
    same = {key: getattr(trained, key) for key in ("source", "generator", "latent", "perturbation")}
    plain = {key: getattr(trained.schedule, key) for key in ("batch", "precision", "held_out_batches", "workers")}
    config = configure(
        objective=made, **chosen, **same, **plain, metrics=[], steps=steps, seed=seed, device=device, n_critic=1,
        compile="off",
    )  # fmt: skip
    if config.critic is None:
        raise PairingError(f"{made.name} has no critic to train: give it one with --critic, or choose another")
    return config


class Frozen:
    """A run's generator, frozen, and a critic that is trained against it.

    Both networks are in training mode, as in the run: where they normalise over the batch, the numbers are those of
    batches treated as in training.
    """

    def __init__(self, snapshot: Snapshot, config: RunConfig, data: Data | None = None) -> None:
        check(config)
        self.parts = build(config, data)
        put_weights(self.parts.generator, snapshot, "generator")
        self.step = Step(self.parts)
        self._held_out_draws = functools.cache(self._draw_held_out)

    def train(self, steps: int) -> None:
        """So many more critic steps; raises `DivergedError` where something is not finite after them."""
        for _ in range(steps):
            with self.parts.streams.global_draws("layers", self.step.steps):
                self.step.begin()
                self.step.train_critic([self.step.critic_draws()])
                self.step.count(1)
        self.step.check_finite()

    def see(self, split: str) -> list[dict[str, float]]:
        """Loss, penalty, accuracy and estimate of the critic as it stands, on each of several batches.

        ``train``: the batches of the coming critic steps; ``held-out``: the same ones each time.
        """
        seen = []
        step, parts = self.step, self.parts
        with unmoved(step.critic_loss), unmoved(parts.generator), parts.streams.global_draws("probe-layers", 0):
            for number in range(parts.config.schedule.held_out_batches):
                drawn = step.critic_draws(number) if split == "train" else self._held_out_draws(number)
                seen.append(self._see(drawn))
        return seen

    def _see(self, drawn: CriticDraws) -> dict[str, float]:
        (inputs,) = self.step.critic_inputs([drawn])
        _, seen = self.step.critic_loss(*inputs)
        objective = self.parts.config.objective
        found = {"loss": float(seen["loss"])} | {k: float(seen[k]) for k in ("penalty",) if k in seen}
        told_apart = accuracy(objective.critic, seen["real"], seen["fake"])
        return found | told_apart | {"estimate": float(objective.estimate(seen["real"], seen["fake"]))}

    def _draw_held_out(self, number: int) -> CriticDraws:
        parts, config = self.parts, self.parts.config
        real = parts.held_out.batch(number)
        on_real, on_fake = (parts.noise(f"held-out-noise-{side}", number, len(real), 0) for side in ("real", "fake"))
        latents = config.latent.draw(len(real), parts.streams.at("held-out-latents", number))
        drawn = config.lipschitz.draw(real, parts.streams.at("held-out-penalty", number))
        return CriticDraws(config.perturbation.perturb(real, on_real), latents, on_fake, drawn)

    def gradients(self, cost: Objective, draws: int) -> dict[str, float]:
        """Norm and variance of the gradient that the generator would get under a cost, over so many batches.

            norm = ‖ḡ‖₂,   variance = Σ_b ‖g_b - ḡ‖² / (B - 1)

        g_b is the gradient of batch b by all the generator's weights, ḡ the mean: the variance is the trace of the
        covariance of one batch's gradient. The batches are the same each time.
        """
        parts = self.parts
        loss_of = GeneratorLoss(attrs.evolve(parts, config=attrs.evolve(parts.config, objective=cost)))
        weights = list(loss_of.weights().values())
        found = []
        with unmoved(loss_of), parts.streams.global_draws("probe-layers", 1):
            for number in range(draws):
                loss, _ = loss_of(*self._generator_inputs(cost, number))
                parted = torch.autograd.grad(loss, weights, materialize_grads=True)
                found.append(torch.cat([part.flatten() for part in parted]))
        rows = torch.stack(found)
        mean = rows.mean(0)
        variance = (rows - mean).square().sum() / (draws - 1)
        return {"norm": float(torch.linalg.vector_norm(mean)), "variance": float(variance)}

    def _generator_inputs(self, cost: Objective, number: int) -> tuple[Tensor | None, Tensor, Tensor | None]:
        parts, config = self.parts, self.parts.config
        batch, real = config.schedule.batch, None
        if cost.generator_uses_real:
            real = parts.train.batch(number)
            real = config.perturbation.perturb(real, parts.noise("probe-noise-real", number, batch, 0))
        latents = config.latent.draw(batch, parts.streams.at("probe-latents", number))
        return real, latents, parts.noise("probe-noise-fake", number, batch, 0)


def accuracy(kind: CriticKind, real: Tensor, fake: Tensor) -> dict[str, float]:
    """The share of samples on the right side of a threshold, both sides counted alike; nothing for features.

    The threshold is 0 for log-odds, and halfway between the two means for scores and energies, which have no other.
    """
    if kind in (CriticKind.FEATURES, CriticKind.NONE):
        return {}
    real, fake = (side[:, 0] if side.dim() == 2 else side for side in (real, fake))
    if kind is CriticKind.ENERGY:
        real, fake = -real, -fake
    threshold = 0.0 if kind is CriticKind.LOGIT else (real.mean() + fake.mean()) / 2
    shares = (real > threshold).double().mean() + (fake <= threshold).double().mean()
    return {"accuracy": float(shares) / 2}


def means(seen: list[dict[str, float]]) -> dict[str, float]:
    """The mean over batches of each number."""
    return {key: math.fsum(each[key] for each in seen) / len(seen) for key in seen[0]}
