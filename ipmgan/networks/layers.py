"""The layers that families share: activations, norms, output heads, initial weights, and the checks before them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ipmgan.data.base import SampleSpec
from ipmgan.errors import PairingError
from ipmgan.networks.base import Network
from ipmgan.objectives.base import CriticKind

ACTIVATIONS = ("relu", "leaky-relu", "tanh", "softplus")
OUTPUTS = ("auto", "identity", "tanh", "sigmoid", "softplus")
_RANGES = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}


class Interval(nn.Module):
    """x -> (low + high)/2 + (high - low)/2 * tanh(x), elementwise: any real number into an interval.

    >>> import torch
    >>> Interval(0.0, 10.0)(torch.tensor([-100.0, 0.0, 100.0]))
    tensor([ 0.,  5., 10.])
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """The values inside the interval."""
        return torch.tanh(x) * ((self.high - self.low) / 2) + (self.high + self.low) / 2

    def lipschitz_rule(self, bound: Callable[[nn.Module], float]) -> float:
        """Half the interval's length, the steepest slope of the tanh being 1."""
        return abs(self.high - self.low) / 2

    def extra_repr(self) -> str:
        """The interval, for `print`."""
        return f"low={self.low:g}, high={self.high:g}"


def activation(name: str) -> nn.Module:
    """The activation of this name; none works in place, so that gradients of gradients exist."""
    match name:
        case "relu":
            return nn.ReLU()
        case "leaky-relu":
            return nn.LeakyReLU(0.2)
        case "tanh":
            return nn.Tanh()
        case "sigmoid":
            return nn.Sigmoid()
        case _:
            return nn.Softplus()


def samples_head(network: Network, output: str, sample: SampleSpec) -> list[nn.Module]:
    """What closes a generator: nothing, or a map into the samples' interval.

    Raises `PairingError` where the output asked for cannot cover that interval.
    """
    bounds = sample.bounds
    if output == "auto":
        if bounds is None:
            return []
        for name, interval in _RANGES.items():
            if bounds == interval:
                return [activation(name)]
        return [Interval(*bounds)]
    if bounds is not None and output in _RANGES and bounds != _RANGES[output]:
        raise PairingError(
            f"output = {output!r} of {network.name!r} reaches {_RANGES[output]}, the samples lie in {bounds}: "
            "take output=auto"
        )
    return [] if output == "identity" else [activation(output)]


def critic_head(kind: CriticKind, output: str = "auto") -> list[nn.Module]:
    """What closes a critic, after a layer of as many outputs as the kind asks for: (N,), or (N, K) for features."""
    if output == "auto":
        output = "softplus" if kind is CriticKind.ENERGY else "identity"
    last = [] if output == "identity" else [activation(output)]
    return [*last, nn.Flatten(1 if kind is CriticKind.FEATURES else 0)]


def check_kind(network: Network, kind: CriticKind) -> None:
    """Raises `PairingError` where the network, as configured, has no critic of this kind."""
    if kind not in network.critic_kinds:
        allowed = ", ".join(sorted(k.value for k in network.critic_kinds)) or "none"
        raise PairingError(
            f"the critic of {network.name!r}, as configured, cannot put out {kind.value!r}; it can: {allowed}"
        )


def critic_norm(network: Network, norm: str, *, per_sample: bool) -> str:
    """The norm of a critic: 'auto' is batch, or layer where the output for a sample must depend on it alone."""
    if norm == "auto":
        return "layer" if per_sample else "batch"
    if norm == "batch" and per_sample:
        raise PairingError(
            f"norm = 'batch' in the critic of {network.name!r} mixes the samples of a batch, and the enforcer needs "
            "each by itself: take norm=layer or norm=none"
        )
    return norm
