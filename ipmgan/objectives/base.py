"""The contract of an objective: the distance that training minimises."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ipmgan.plugin import Plugin, Quantity


class CriticKind(enum.Enum):
    """What a critic must put out for an objective, for N samples."""

    NONE = "none"
    """No critic needed: the objective compares the flattened samples, or the features of a critic if one is given."""
    SCORE = "score"
    """Any real number a sample, shape (N,)."""
    LOGIT = "logit"
    """The log-odds of being real, shape (N,)."""
    ENERGY = "energy"
    """A non-negative number a sample, shape (N,); or (N, 1 + K) with the energy first and then a code of K numbers."""
    FEATURES = "features"
    """K numbers a sample, shape (N, K)."""


class Objective(Plugin):
    """A divergence between the real and the model's distribution, through the outputs of a critic.

    Orientation: the critic is high on real samples (an energy is low there), and every loss is minimised. Losses are
    means over the batch. The methods are pure: they draw nothing, change nothing, and move nothing.
    """

    kind = "objective"
    critic: ClassVar[CriticKind]
    """What the critic must put out."""
    needs_lipschitz: ClassVar[bool] = False
    """Meaningless unless the critic's Lipschitz constant is held down."""
    generator_uses_real: ClassVar[bool] = False
    """The generator's loss depends on the real batch."""
    whole_batch: ClassVar[bool] = False
    """Not a mean over samples, so that a batch must not be split."""
    min_batch: ClassVar[int] = 1
    vectorises: ClassVar[bool] = True
    """Works under `torch.func.vmap`, by which several seeds are trained at once."""
    estimates: ClassVar[Quantity]
    """What `estimate` returns."""

    @property
    def needs_code(self) -> bool:
        """Whether it uses the code that an energy critic puts out behind the energy."""
        return False

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """The scalar that the critic minimises, from its outputs on real and on fake samples."""

    @abstractmethod
    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """The scalar that the generator minimises; `real` is empty unless `generator_uses_real`."""

    @abstractmethod
    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        """The estimate of the divergence, a scalar, from critic outputs."""

    def state(self) -> Mapping[str, Tensor]:
        """What the objective keeps between critic steps, as it is at the start: small tensors, such as a multiplier.

        The engine holds the copies that move, one for each run, and saves and restores them.
        """
        return {}

    def critic_loss_and_state(
        self, real: Tensor, fake: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The critic's loss, given what is kept, and what is kept after this critic step, without graph.

        An objective that keeps nothing has no need of it.
        """
        return self.critic_loss(real, fake), state
