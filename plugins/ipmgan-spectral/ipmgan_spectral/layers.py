"""Which layers of a critic are constrained, how their weights come to be computed, and the rule that bounds them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from ipmgan import PairingError, UsageError, lipschitz_rule
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ipmgan_spectral.lattice import CONVOLUTIONS, TRANSPOSED, Convolution, Lattice, Shape, Shapes, is_convolution

Answer = float | str | Sequence[nn.Module]
"""What a rule says: a bound, why there is none, or the parts that the layer is the composition of."""
ROUNDING = 1e-12
"""Relative room for the rounding of a bound that is itself computed in double precision."""


class Bound(Protocol):
    """What a rule is given: the walk over a module, which bounds parts and knows the shapes that layers see."""

    effort: float

    def __call__(self, module: nn.Module) -> float:
        """The bound of a part."""

    def shapes(self, layer: nn.Module) -> Shapes | None:
        """What a layer gets and gives for one sample, where that is known."""


def constrained(critic: nn.Module, enforcer: str, types: tuple[type[nn.Module], ...] = ()) -> dict[str, nn.Module]:
    """The linear and convolution layers of a critic by name, each once; raises `PairingError` where there is none.

    Or where weights are computed from others already, or shared between layers, so that each would change the other.
    """
    types = types or (nn.Linear, *CONVOLUTIONS)
    found: dict[str, nn.Module] = {}
    owners: dict[Tensor, str] = {}
    for name, layer in critic.named_modules():
        if parametrize.is_parametrized(layer):
            raise PairingError(f"{enforcer} computes weights, and those of the critic's layer {name!r} are already")
        if isinstance(layer, types):
            weight = layer.get_parameter("weight")
            if weight in owners:
                raise PairingError(
                    f"{enforcer}: the critic's layers {owners[weight]!r} and {name!r} share their weight"
                )
            found[name], owners[weight] = layer, name
    if not found:
        raise PairingError(f"{enforcer} constrains linear and convolution layers, and the critic has none")
    return found


def lattices(critic: nn.Module, layers: dict[str, nn.Module], shape: Shape | None, enforcer: str) -> dict[str, Lattice]:
    """The layers' lattices; raises `PairingError` for padding that shows values twice, which no lattice knows."""
    seen = {} if shape is None else trace(critic, shape)
    found = {}
    for name, layer in layers.items():
        lattice = Lattice.of(layer, seen.get(name))
        if lattice is None:
            raise PairingError(
                f"{enforcer} bounds convolutions that are padded with zeros, or circularly around their input, and the "
                f"critic's layer {name!r} is not"
            )
        found[name] = lattice
    return found


def trace(critic: nn.Module, shape: Shape) -> dict[str, Shapes]:
    """What each layer gets and gives for one sample of a shape; layers that see several are left out."""
    seen: dict[str, set[Shapes]] = {}
    twin = copy.deepcopy(critic).eval()
    for name, layer in twin.named_modules():

        def record(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor, name: str = name) -> None:
            seen.setdefault(name, set()).add((tuple(inputs[0].shape[1:]), tuple(out.shape[1:])))

        if is_convolution(layer):
            layer.register_forward_hook(record)
    like = next(twin.parameters())
    try:
        with torch.no_grad():
            twin(torch.zeros(2, *shape, dtype=like.dtype, device=like.device))
    except RuntimeError as error:
        raise UsageError(f"shape = {shape}: the critic does not run on such samples: {error}") from error
    return {name: next(iter(shapes)) for name, shapes in seen.items() if len(shapes) == 1}


def parametrise(layer: nn.Module, parametrisation: nn.Module) -> None:
    """Let a layer's weight be computed, and its bound be the tightest that is known."""
    parametrize.register_parametrization(layer, "weight", parametrisation, unsafe=True)
    if is_convolution(layer):
        # The class is of this layer alone: torch makes one for each that it parametrises.
        type(layer).lipschitz_rule = convolution_rule  # type: ignore[union-attr]


def parametrisations(critic: nn.Module, kind: type[nn.Module]) -> list[tuple[nn.Module, Tensor]]:
    """The parametrisations of a kind in a critic, each with the tensor that it computes a weight from."""
    lists = [module for module in critic.modules() if isinstance(module, parametrize.ParametrizationList)]
    return [(found[0], found.get_parameter("original")) for found in lists if isinstance(found[0], kind)]


@torch.no_grad()
def convolution_rule(layer: Convolution, bound: Bound) -> Answer:
    """The least of three proven bounds: ipmgan's own, the torus's where the sample's shape is known, and the exact norm
    of the convolution as a matrix, where that can be afforded."""
    kind = next(kind for kind in CONVOLUTIONS if isinstance(layer, kind))
    known, shapes = lipschitz_rule.dispatch(kind)(layer, bound), bound.shapes(layer)
    if shapes is None or not isinstance(known, float) or not math.isfinite(known):
        return known
    weight = layer.weight.detach()
    short, long = sorted(math.prod(shape) for shape in shapes)
    if short**2 * long <= bound.effort:
        return min(known, exact_norm(layer, shapes[0]) * (1 + ROUNDING))
    lattice = Lattice.of(layer, shapes)
    if lattice is not None and lattice.cost * 4 * weight.numel() * min(weight.shape[:2]) <= bound.effort:
        return min(known, float(lattice.norm(weight.double())) * (1 + ROUNDING))
    return known


def exact_norm(layer: Convolution, shape: Shape) -> float:
    """The largest singular value of a convolution's dense matrix on samples of a shape, in double precision."""
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
    if isinstance(layer, TRANSPOSED):
        names.append("output_padding")
    options = {name: getattr(layer, name) for name in names}
    kind = next(kind for kind in CONVOLUTIONS if isinstance(layer, kind))
    weight = layer.weight.detach().double()
    # A layer of its own: parametrised ones share their class with their copies, and cannot be undone by themselves.
    like = {"dtype": weight.dtype, "device": weight.device}
    plain = nn.utils.skip_init(kind, **options, bias=False, **like)  # type: ignore[no-untyped-call]
    plain.weight = nn.Parameter(weight)
    identity = torch.eye(math.prod(shape), **like)  # type: ignore[call-overload]
    return float(torch.linalg.matrix_norm(plain(identity.reshape(-1, *shape)).flatten(1), 2))
