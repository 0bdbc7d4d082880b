"""Which of a critic's parameters a projection moves."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from ipmgan.errors import PairingError

NORMALISATIONS: tuple[type[nn.Module], ...] = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def projected(critic: nn.Module, *, biases: bool) -> list[Tensor]:
    """The parameters outside normalisation layers, each once; without biases, those of two or more axes.

    >>> critic = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 1))
    >>> [tuple(weight.shape) for weight in projected(critic, biases=False)]
    [(2, 3), (1, 2)]
    """
    tables = [module._parameters for module in critic.modules() if not isinstance(module, NORMALISATIONS)]
    found = (parameter for table in tables for parameter in table.values() if parameter is not None)
    return list(dict.fromkeys(parameter for parameter in found if biases or parameter.dim() > 1))


def refuse_parametrized(critic: nn.Module, enforcer: str) -> None:
    """Raises `PairingError` where a layer's weight is computed from other tensors, so that projecting these is moot."""
    for name, module in critic.named_modules():
        if parametrize.is_parametrized(module):
            raise PairingError(
                f"{enforcer} projects weights, and those of the critic's layer {name!r} are computed from others: "
                "remove that parametrisation, or use another enforcer, such as --lipschitz gp"
            )
