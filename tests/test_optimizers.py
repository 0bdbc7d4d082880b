"""How optimisers are made: with the quickest of torch's ways to step, the same numbers, and without its compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ipmgan.settings import IN_CACHE, Optimizer, optimizers

FUSED = ("Adam", "AdamW", "Adagrad", "SGD")


def made(name: str, parameters: list[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    return Optimizer.from_table({"name": name, "lr": 0.05, **options}, what="optimizer").make(parameters)


def weights(shape: tuple[int, ...] = (5, 7)) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64)) for size in (shape, shape[:1])]


def steps(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], count: int = 5) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()


def options(optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    (group,) = optimizer.param_groups
    return group.get("foreach"), group.get("fused")


@pytest.mark.parametrize("name", FUSED)
def test_one_kernel_steps_all_parameters_where_there_is_one(name: str) -> None:
    assert options(made(name, weights())) == (None, True)


def test_few_parameters_are_stepped_together_and_many_one_by_one() -> None:
    assert options(made("RMSprop", weights())) == (True, None)
    assert options(made("RMSprop", [nn.Parameter(torch.zeros(IN_CACHE + 1))])) == (None, None)


def test_what_a_user_says_wins() -> None:
    assert options(made("Adam", weights(), foreach=True)) == (True, None)
    assert options(made("Adam", weights(), fused=False)) == (None, False)
    assert options(made("RMSprop", weights(), foreach=False)) == (False, None)


def test_parameters_beyond_the_kernels_are_left_to_torch() -> None:
    gaps = nn.Parameter(torch.zeros(4, 4)[:, :2])
    assert options(made("Adam", [gaps])) == (None, None)


@pytest.mark.parametrize("name", sorted(optimizers()))
def test_the_quickest_way_gives_the_same_numbers(name: str) -> None:
    one, other = (weights() if name != "Muon" else weights()[:1] for _ in range(2))
    plain = optimizers()[name](other, lr=0.05)  # type: ignore[call-arg]
    steps(made(name, one), one)
    steps(plain, other)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)  # ASGD keeps its rate in float32.


def transposed(tensor: Tensor) -> Tensor:
    return torch.empty(tuple(reversed(tensor.shape)), dtype=tensor.dtype).t().copy_(tensor)


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.channels_last)


def repeated(tensor: Tensor) -> Tensor:
    return tensor[:, :1].expand(tensor.shape)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize(("layout", "shape"), [(transposed, (5, 7)), (repeated, (5, 7)), (channels_last, (4, 3, 5, 5))])
def test_gradients_in_another_order_of_memory_count_as_what_they_are(name: str, layout: Any, shape: Any) -> None:
    (one, *_), (other, *_) = weights(shape), weights(shape)
    ours, plain = made(name, [one]), optimizers()[name]([other], lr=0.05, foreach=False)  # type: ignore[call-arg]
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        one.grad = layout(torch.randn(shape, generator=generator, dtype=one.dtype))
        assert one.grad.stride() != one.stride()
        other.grad = one.grad.contiguous()
        ours.step()
        plain.step()
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", FUSED)
def test_moments_in_another_order_of_memory_count_as_what_they_are(name: str) -> None:
    shape = (4, 3, 5, 5)
    one, other = (nn.Parameter(channels_last(weights(shape)[0].detach())) for _ in range(2))
    momentum = {"momentum": 0.9} if name == "SGD" else {}
    ours, plain = made(name, [one], **momentum), made(name, [other], fused=False, **momentum)
    steps(ours, [one], 2)
    steps(plain, [other], 2)
    for state in ours.state.values():
        state |= {key: value.contiguous() for key, value in state.items()}  # As a file gives them back.
    steps(ours, [one], 2)
    steps(plain, [other], 2)
    torch.testing.assert_close(one, other)


def test_hooks_that_a_user_registers_are_called() -> None:
    optimizer, calls = made("RMSprop", parameters := weights()), []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    steps(optimizer, parameters, 1)
    assert calls == ["before", "after"]


def test_stepping_does_not_load_torchs_compiler() -> None:
    code = """
import sys, torch
from ipmgan.settings import Optimizer
weight = torch.nn.Parameter(torch.zeros(2, 2))
for name in ("Adam", "RMSprop"):
    optimizer = Optimizer(name=name, lr=0.1).make([weight])
    weight.grad = torch.ones(2, 2)
    optimizer.step()
assert (weight < 0).all()
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
