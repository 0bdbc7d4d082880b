"""Weight clipping."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import attrs
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.lipschitz.certificate import Certificate, lipschitz_bound
from ipmgan.lipschitz.weights import NORMALISATIONS, projected, refuse_parametrized
from ipmgan.plugin import Training, option
from ipmgan.references import WGAN


@attrs.frozen(kw_only=True)
class Clip(LipschitzEnforcer):
    """Keeps every weight and bias of the critic in a box, by clipping after each of its updates.

        w <- clip(w, -c, c)

    A network of L linear layers is then Lipschitz with K <= prod_l c sqrt(n_in n_out), attained when every weight is +c
    and x > 0; `clip_bound` computes it for any critic. The class of functions is that of a K-Lipschitz one only up to
    the box's shape: a linear critic reaches c ||delta||_1 on a mean shift delta, not c ||delta||_2.

    Clips after the step, as algorithm 1 does; the authors' code clips before it, so that there the generator learns
    from a critic that is outside the box. Gains and shifts of normalisation layers stay out of the box, unlike in the
    authors' code: gains held below c = .01 would shrink every normalised layer a hundredfold, and bound nothing, since
    a batch norm divides by the spread of its batch. Use momentum-free optimisers, as the paper advises.
    """

    name = "clip"
    references = (WGAN,)
    defaults = Training(critic_optimizer="RMSprop:lr=5e-5", generator_optimizer="RMSprop:lr=5e-5")
    momentum_free = True
    elementwise = True

    c: float = option(0.01, help="the largest absolute value of a weight or bias", above=0)

    def prepare(self, critic: nn.Module) -> nn.Module:
        """The critic as it is. Raises `PairingError` where weights are computed from others."""
        refuse_parametrized(critic, self.name)
        return critic

    @torch.no_grad()
    def after_step(self, critic: nn.Module) -> None:
        """Clip in place."""
        inside = projected(critic, biases=True)
        if inside:
            torch._foreach_clamp_min_(inside, -self.c)
            torch._foreach_clamp_max_(inside, self.c)


def clip_bound(critic: nn.Module, c: float, *, shape: tuple[int, ...] | None = None) -> Certificate:
    """The Lipschitz bound that holds for every critic of this architecture whose weights lie in the box.

        K <= K(W = +c everywhere)

    The norm of a matrix or kernel is at most that of its absolute values, and grows with each of these; so the bound of
    the network filled with +c holds for the whole box. That of a linear layer is c sqrt(n_in n_out), of a convolution
    whose patches overlap o times c sqrt(C_in k^2 C_out o).

    Args:
        critic: gives the architecture; not changed.
        c: half the width of the box.
        shape: of a sample, as in `lipschitz_bound`.

    Returns:
        The certificate; without a bound across normalisation layers, whose gains are not clipped and which divide by
        the data's spread, and across layers with weights of another kind.

    >>> f"{clip_bound(nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 1)), 0.01).bound:.7f}"
    '0.0181019'

    Source: Arjovsky et al. (2017), section 3, which names the compactness and not the constant.
    """
    filled = copy.deepcopy(critic)
    with torch.no_grad():
        for weight in projected(filled, biases=True):
            weight.fill_(c)
    certificate = lipschitz_bound(filled, shape=shape)
    reasons = (*certificate.unbounded, *_open_ended(critic))
    if not reasons:
        return certificate
    return attrs.evolve(certificate, bound=float("inf"), unbounded=reasons)


def _open_ended(critic: nn.Module) -> Iterator[str]:
    """The layers about which the box says nothing."""
    for name, module in critic.named_modules():
        title = f"{name} ({type(module).__name__})" if name else type(module).__name__
        if isinstance(module, NORMALISATIONS):
            yield f"{title}: clipping leaves its gains alone, and it divides by the spread of the data"
        elif list(module.parameters(recurse=False)) and not isinstance(module, nn.Linear | _ConvNd | nn.PReLU):
            yield f"{title}: how its bound grows with its weights is not known"
