"""An upper bound on the Lipschitz constant of a module, composed from one rule a layer type.

A layer's rule is found in this order, and answers with one of three things.

1. The module's own method `lipschitz_rule(self, bound)`: nothing needs to be imported to offer it.
2. The function registered for its class, or for the nearest parent whose `forward` it has kept:

       @lipschitz_rule.register
       def _(layer: MyLayer, bound: Callable[[nn.Module], float]) -> float:
           return 1 + bound(layer.block)        # x + block(x)

The answer is a number K, |f(x) - f(y)|_2 <= K |x - y|_2 for flattened samples; or a list of modules of which this one
is the composition, first to be applied first; or a sentence, why there is no bound. `bound` gives that of a part,
infinite where it has none, in which case any number computed from it is overruled.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import attrs
import torch
from torch import nn
from torch.nn.utils import parametrize

from ipmgan.errors import UsageError

Answer = float | str | Sequence[nn.Module]
Shape = tuple[int, ...]


@functools.singledispatch
def lipschitz_rule(layer: nn.Module, bound: Callable[[nn.Module], float]) -> Answer:
    """What is known of a layer's Lipschitz constant; `lipschitz_rule.register` adds a layer type."""
    return f"there is no rule for {type(layer).__name__}: register one with ipmgan.lipschitz.lipschitz_rule"


@attrs.frozen(kw_only=True)
class Factor:
    """What one layer contributes: its name in the module, its type, and its own Lipschitz constant at most."""

    name: str
    layer: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name} ({self.layer})" if self.name else self.layer


@attrs.frozen(kw_only=True)
class Certificate:
    """A Lipschitz constant that a module cannot exceed, from l2 to l2 over flattened samples."""

    bound: float
    """The product of the factors, rounded up; infinite where a layer has no bound."""
    factors: tuple[Factor, ...]
    """One for each layer in the order of application; those of sequences within sequences in one row."""
    unbounded: tuple[str, ...] = ()
    """The layers that have no bound, and why."""

    def __str__(self) -> str:
        if self.unbounded:
            return "no Lipschitz bound: " + "; ".join(self.unbounded)
        rows = [f"  {factor.bound:<12.6g} {factor}" for factor in self.factors if factor.bound != 1]
        return "\n".join([f"Lipschitz constant at most {self.bound:.6g}", *rows])


class Walk:
    """One pass over a module: asks each layer's rule, and keeps what it learns on the way. Called, it bounds a part."""

    def __init__(self, root: nn.Module, shape: Shape | None = None, effort: float = 2e9) -> None:
        self.root = root
        self.effort = effort
        self.unbounded: list[str] = []
        self._names = {module: name for name, module in root.named_modules()}
        self._shapes = {} if shape is None else _trace(root, shape)

    def __call__(self, module: nn.Module) -> float:
        """The bound of a part, infinite where it has none."""
        return _product(factor.bound for factor in self.factors(module))

    def certificate(self) -> Certificate:
        """The bound of the whole."""
        factors = tuple(self.factors(self.root))
        bound = math.inf if self.unbounded else _product(factor.bound for factor in factors)
        return Certificate(bound=bound, factors=factors, unbounded=tuple(dict.fromkeys(self.unbounded)))

    def shapes(self, layer: nn.Module) -> tuple[Shape, Shape] | None:
        """The shapes of what a layer gets and gives for one sample, where the walk was told a sample's shape."""
        return self._shapes.get(self._names.get(layer, "?"))

    def factors(self, module: nn.Module) -> Iterator[Factor]:
        """The factors of a part, in the order of application."""
        factor = Factor(name=self._names.get(module, "?"), layer=_type_name(module), bound=math.inf)
        known = len(self.unbounded)
        answer = self._ask(module)
        if isinstance(answer, Sequence) and not isinstance(answer, str):
            for part in answer:
                yield from self.factors(part)
            return
        if not isinstance(answer, str) and math.isnan(answer):
            answer = "its weights are not finite"
        elif not isinstance(answer, str) and math.isinf(answer) and len(self.unbounded) == known:
            answer = "its slope has no limit"
        if isinstance(answer, str):
            self.unbounded.append(f"{factor}: {answer}")
            answer = math.inf
        yield attrs.evolve(factor, bound=math.inf if len(self.unbounded) > known else float(answer))

    def _ask(self, layer: nn.Module) -> Answer:
        if layer._forward_pre_hooks or layer._forward_hooks:
            return "it has forward hooks, which may change what it computes"
        if parametrize.is_parametrized(layer):
            original, layer = layer, copy.deepcopy(layer).eval()
            self._names[layer] = self._names.get(original, "?")
        own = getattr(layer, "lipschitz_rule", None)
        if callable(own):
            answer: Answer = own(self)
            return answer
        ruled = next(cls for cls in type(layer).__mro__ if cls in lipschitz_rule.registry)
        if issubclass(ruled, nn.Module) and ruled is not nn.Module and type(layer).forward is not ruled.forward:
            return f"it overrides the forward of {ruled.__name__}, so that its rule does not apply"
        return lipschitz_rule(layer, self)


@torch.no_grad()
def lipschitz_bound(module: nn.Module, *, shape: Shape | None = None, effort: float = 2e9) -> Certificate:
    """A certified upper bound on the Lipschitz constant of a module, as it stands.

        |f(x) - f(y)|_2 <= K |x - y|_2 for all samples x, y;    K = prod_l K_l

    Linear layers count with their spectral norm, convolutions with a proven bound (`functional.norms`), others by the
    rule of their type. It holds for the module in its current mode: batch norm has a bound in evaluation mode only. The
    module is not changed. The bound is of the network as a real function; rounding in its own forward pass is left out.

    Args:
        module: the critic, usually.
        shape: of one sample, without the batch; optional. A convolution that covers its whole input is then known to be
            applied once, which makes its bound up to a kernel's width tighter, and adaptive pooling is resolved.
        effort: multiplications that one convolution's bound may cost beyond the least; more makes it tighter.

    Returns:
        The certificate, with each layer's factor, and with the layers that have none.

    Raises:
        UsageError: where the module does not run on samples of that shape.

    >>> import torch
    >>> critic = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> for layer in critic[::2]:
    ...     _ = nn.init.constant_(layer.weight, 3.0)
    >>> print(lipschitz_bound(critic))
    Lipschitz constant at most 25.4558
      6            0 (Linear)
      4.24264      2 (Linear)
    """
    return Walk(module, shape, effort).certificate()


def _trace(module: nn.Module, shape: Shape) -> dict[str, tuple[Shape, Shape]]:
    """The shapes each layer sees, from running a copy on zeros; layers used at several shapes are left out."""
    twin = copy.deepcopy(module).eval()
    seen: dict[str, set[tuple[Shape, Shape]]] = {}
    for name, layer in twin.named_modules():

        def record(_: nn.Module, inputs: tuple[object, ...], out: object, name: str = name) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor) and isinstance(out, torch.Tensor):
                seen.setdefault(name, set()).add((tuple(inputs[0].shape[1:]), tuple(out.shape[1:])))

        layer.register_forward_hook(record)
    like = next(twin.parameters(), torch.empty(()))
    try:
        twin(torch.zeros(2, *shape, dtype=like.dtype, device=like.device))
    except RuntimeError as error:
        raise UsageError(f"shape = {shape}: the module does not run on such samples: {error}") from error
    return {name: next(iter(shapes)) for name, shapes in seen.items() if len(shapes) == 1}


def _product(bounds: Iterator[float]) -> float:
    """Rounded up, and infinite if one of them is."""
    total = 1.0
    for bound in bounds:
        if math.isinf(bound) or math.isinf(total):
            total = math.inf
        elif 1.0 in (bound, total):
            total *= bound
        else:
            total = math.nextafter(total * bound, math.inf) if total and bound else 0.0
    return total


def _type_name(module: nn.Module) -> str:
    """The class as its author named it."""
    cls = type(module)
    return cls.__base__.__name__ if parametrize.is_parametrized(module) and cls.__base__ else cls.__name__
