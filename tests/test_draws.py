"""What updates draw: batches of their own, whatever was drawn before, and for several seeds what each seed draws."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ipmgan.config import configure
from ipmgan.engine.blocks import IN_BLOCK, Blocks
from ipmgan.engine.build import Data, build
from ipmgan.engine.checks import check
from ipmgan.engine.draws import Draws, StackedDraws
from ipmgan.engine.fakes import AT_ONCE, LARGEST, Fakes, Together
from ipmgan.engine.step import Step
from ipmgan.engine.streams import Streams

TINY: dict[str, Any] = {
    "objective": "wgan",
    "lipschitz": "gp",
    "source": "ring8",
    "generator": "mlp:width=8,depth=1",
    "critic": "mlp:width=8,depth=2",
    "latent": "normal:dim=3",
    "device": "cpu",
    "batch": 6,
    "n_critic": 2,
    "compile": "off",
}


class Counted:
    """A normal law in the plane that notes how much is asked of it at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        self.asked.append(n)
        return torch.randn(n, 2, generator=generator)


def blocks(law: Any, batch: int = 1024, seed: int = 0) -> Blocks:
    return Blocks(law, batch, Streams(seed, torch.device("cpu")), "law")


def start(seed: int = 0, **settings: Any) -> Step:
    config = configure(**{**TINY, **settings, "seed": seed})
    check(config)
    return Step(build(config, Data.of(config)))


# Blocks


def test_a_batch_is_the_same_whatever_was_drawn_before() -> None:
    straight = blocks(Counted())
    batches = [straight.batch(number) for number in range(3 * straight.count)]
    jumping = blocks(Counted())
    for number in random.Random(0).sample(range(len(batches)), len(batches)):
        assert torch.equal(jumping.batch(number), batches[number])
    assert not torch.equal(blocks(Counted(), seed=1).batch(0), batches[0])
    assert all(tuple(batch.shape) == (1024, 2) for batch in batches)


def test_no_sample_comes_twice_and_all_are_the_laws() -> None:
    law = blocks(Counted())
    seen = torch.cat([law.batch(number) for number in range(2 * law.count)])
    assert len(seen.unique(dim=0)) == len(seen)
    # Of 131,072 normal numbers, the mean has sd .0028, the variance .0039.
    assert float(seen.mean().abs()) < 0.012
    assert float((seen.var() - 1).abs()) < 0.016


def test_many_batches_are_one_draw_and_a_large_one_is_a_block_by_itself() -> None:
    law = Counted()
    small = blocks(law, 64)
    assert small.count == IN_BLOCK // 128 == 512
    for number in range(1024):
        small.batch(number)
    assert law.asked == [1, 64 * 512, 64 * 512]
    assert blocks(law, 40_000).count == 1


# Several seeds


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"source": "digits"},
        {"perturbation": "noise:sd=0.5,anneal=cosine"},
        {"source": "digits", "lipschitz": "clip", "perturbation": "noise:sd=0.5"},
        {"objective": "mmd", "lipschitz": "clip", "critic": "mlp:width=8,features=3", "latent": "uniform:dim=3"},
        {"objective": "mmd", "lipschitz": "none", "critic": "none"},
    ],
    ids=str,
)
def test_several_seeds_draw_what_each_draws(settings: dict[str, Any]) -> None:
    steps = [start(seed, **settings) for seed in (3, 4, 5)]
    together_ = StackedDraws([step.draws for step in steps])
    for number, step in [(0, 0), (1, 0), (2, 1), (700, 300), (40_000, 20_000)]:
        for kind in ("critic", "generator"):
            stacked = getattr(together_, kind)(number, step)
            alone = [getattr(run.draws, kind)(number, step) for run in steps]
            for name in stacked._fields:
                values = [getattr(each, name) for each in alone]
                if values[0] is None:
                    assert getattr(stacked, name) is None
                else:
                    assert torch.equal(getattr(stacked, name), torch.stack(values))
                    assert not torch.equal(values[0], values[1])


def test_streamed_samples_of_several_seeds(tmp_path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    config = configure(**TINY | {"source": f"folder:root={tmp_path},size=8,memory=0", "batch": 4})
    steps = [Step(build(config, Data.of(config))) for _ in range(2)]
    stacked = StackedDraws([step.draws for step in steps]).critic(1, 0)
    assert tuple(stacked.real.shape) == (2, 4, 3, 8, 8)
    assert torch.equal(stacked.real[0], Draws(steps[0].parts).critic(1, 0).real)


# Fakes


def sizes(generator: nn.Module) -> list[int]:
    """The sizes of the batches that a layer of the generator will see."""
    seen: list[int] = []
    layer = next(layer for layer in generator.modules() if isinstance(layer, nn.Linear))
    layer.register_forward_hook(lambda _, args, out: seen.append(len(out)))
    return seen


def test_fakes_of_several_critic_steps_are_made_at_once_and_are_those_of_each() -> None:
    step = start(n_critic=AT_ONCE + 2)
    draws = [step.critic_draws(ahead) for ahead in range(AT_ONCE)]
    each = [Fakes(step.parts)(drawn.latents) for drawn in draws]
    seen = sizes(step.parts.generator)
    for (_, fake, *_rest), own in zip(step.critic_inputs(draws), each, strict=True):
        assert fake is not None
        assert not fake.requires_grad
        torch.testing.assert_close(fake, own, atol=1e-6, rtol=1e-6)
    assert seen == [6 * AT_ONCE]
    seen.clear()
    step.run()
    assert seen == [6 * AT_ONCE, 6 * 2, 6]
    seen.clear()
    step.train_critic(draws * 2)
    assert seen == [6 * AT_ONCE] * 2


@pytest.mark.parametrize("generator", ["mlp:width=8,norm=batch", "mlp:width=8"])
def test_what_can_tell_gets_each_batch_by_itself(generator: str) -> None:
    step = start(generator=generator)
    if "batch" not in generator:
        step.parts.generator.register_forward_pre_hook(lambda *_: None)
    seen = sizes(step.parts.generator)
    step.run()
    assert seen == [6, 6, 6]


def test_large_batches_are_made_one_by_one() -> None:
    fits = LARGEST // (2 * AT_ONCE)
    assert [Fakes(start(batch=batch).parts).steps for batch in (fits, fits + 1)] == [AT_ONCE, 1]


def test_stacked_batches_are_joined_and_parted_along_their_own_axis() -> None:
    linear = nn.Linear(3, 2)
    batches = [torch.randn(4, 5, 3) for _ in range(3)]
    made = Together(Fakes(start().parts), linear, batch_dim=1)(batches)
    for batch, fake in zip(batches, made, strict=True):
        torch.testing.assert_close(fake, linear(batch))


def test_all_latents_of_a_run_differ() -> None:
    step = start()
    numbers = range(50)
    drawn = [
        *(step.draws.critic(n, 0).latents for n in numbers),
        *(step.draws.generator(0, n).latents for n in numbers),
    ]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))
