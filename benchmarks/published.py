"""Races against published trainers: ``python benchmarks/published.py [torchgan] [vegans] [--rounds 7] [--seconds 2]``

Each trains the workloads toy-gp and toy-clip of ``ipmgan bench`` through its own training loop, with the same
networks, batches, optimisers and draws from the ring of eight, in turns with ipmgan's modes and with the hand-written
loop, in one process. An iteration is one generator step with five critic steps. Prints the rates, and ipmgan's over
each rival's.

Both packages come from PyPI: ``pip install --no-deps torchgan vegans wget imageio`` and ``pip install tensorboard``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ipmgan.bench import plain
from ipmgan.bench.modes import iteration, modes
from ipmgan.bench.race import Contestant, Spread, race, ratios, timed, warm_up
from ipmgan.bench.workloads import workload

CPU = torch.device("cpu")
N_CRITIC = plain.N_CRITIC
ENDLESS = 10**9


class Timed(DataLoader[Tensor]):
    """Batches for a trainer that insists on a loader, until the time is up; then it knows the rate."""

    def __init__(self, draw: plain.Draw, batch: int, seconds: float, a_step: int) -> None:
        super().__init__(range(ENDLESS), batch_size=batch)
        self.draw, self.seconds, self.a_step, self.rate = draw, seconds, a_step, 0.0

    def __iter__(self) -> Iterator[Tensor]:
        return Turn(self)


class Turn(Iterator[Tensor]):
    """One pass over a `Timed`, with the method `next` that loaders of old had."""

    def __init__(self, loader: Timed) -> None:
        self.loader, self.batches, self.start = loader, 0, 0.0

    def __next__(self) -> Tensor:
        now = time.perf_counter()
        if self.batches == 0:
            self.start = now
        steps, between = divmod(self.batches, self.loader.a_step)
        if steps and not between and now - self.start >= self.loader.seconds:
            self.loader.rate = steps / (now - self.start)
            raise StopIteration
        self.batches += 1
        return self.loader.draw(self.loader.batch_size or 1)

    next = __next__


def optimiser(penalty: float | None) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """As in the workload, with its settings."""
    if penalty is not None:
        return torch.optim.Adam, {"lr": 1e-4, "betas": (0.5, 0.9)}
    return torch.optim.RMSprop, {"lr": 5e-5}


def torchgan_class(base: Any, network: nn.Module) -> type:
    """The class by which torchgan makes a network itself: this one."""

    class Made(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(2)
            self.net = network

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.net(x)
            return made

    return Made


def torchgan(made: plain.Plain, folder: Path) -> Contestant:
    """torchgan's `Trainer`. It has the penalty as a loss apart, with a backward pass and an Adam step of its own."""
    os.environ["CONSOLE_LOGGING"] = "0"
    from torchgan.losses import WassersteinDiscriminatorLoss, WassersteinGeneratorLoss, WassersteinGradientPenalty
    from torchgan.models import Discriminator, Generator
    from torchgan.trainer import Trainer

    kind, settings = optimiser(made.penalty)
    optimizer = {"name": kind, "args": settings}
    losses = [WassersteinGeneratorLoss(), WassersteinDiscriminatorLoss(clip=made.clip and (-made.clip, made.clip))]
    if made.penalty is not None:
        losses.append(WassersteinGradientPenalty(lambd=made.penalty))
    models = {
        "generator": {"name": torchgan_class(Generator, made.generator), "optimizer": optimizer},
        "discriminator": {"name": torchgan_class(Discriminator, made.critic), "optimizer": optimizer},
    }
    # It counts an update for each loss of the critic, so that two losses need twice as many for a generator step.
    updates = N_CRITIC * (len(losses) - 1)
    places = {"checkpoints": str(folder / "model" / "gan"), "recon": str(folder / "images")}
    trainer = Trainer(models, losses, device=CPU, ncritic=updates, epochs=1, **places)

    def contestant(seconds: float) -> float:
        loader = Timed(made.real, made.batch, seconds, N_CRITIC)
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.logger.logger_end_epoch.clear()  # Pictures of points are none.
            trainer(loader)
        return loader.rate

    return contestant


def vegans(made: plain.Plain, folder: Path) -> Contestant:
    """vegans' `fit`. It forgets the numbers of steps that it is given, hence the subclass."""
    from vegans.GAN import WassersteinGAN, WassersteinGANGP

    base: Any = WassersteinGAN if made.penalty is None else WassersteinGANGP

    class Five(base):
        def _create_steps(self, steps: Any) -> dict[str, int]:
            return {"Generator": 1, "Adversary": N_CRITIC}

    kind, settings = optimiser(made.penalty)
    constraint = {"clip_val": made.clip} if made.penalty is None else {"lmbda_grad": made.penalty}
    networks = {"generator": made.generator, "adversary": made.critic}
    both = {"Generator": settings, "Adversary": settings}
    gan = Five(**networks, x_dim=2, z_dim=2, optim=kind, optim_kwargs=both, device="cpu", folder=None, **constraint)
    quiet = {"print_every": None, "save_losses_every": None}

    def contestant(seconds: float) -> float:
        loader = Timed(made.real, made.batch, seconds, 1)
        with contextlib.redirect_stdout(io.StringIO()):
            gan.fit(loader, epochs=1, batch_size=made.batch, **quiet)
        return loader.rate

    return contestant


RIVALS: dict[str, Callable[[plain.Plain, Path], Contestant]] = {"torchgan": torchgan, "vegans": vegans}


def meet(name: str, rivals: list[str], rounds: int, seconds: float) -> None:
    """Race a workload, and print the rates."""
    with tempfile.TemporaryDirectory() as folder:
        config = workload(name).config(Path(folder), device="cpu")
        ours = {mode.name: iteration(config, mode) for mode in modes([], CPU)}
        runs: dict[str, Callable[[], None]] = {**ours, "plain": plain.loop(name, CPU).step}
        for run in runs.values():
            warm_up(run)
        contestants = {key: timed(run, CPU) for key, run in runs.items()}
        for rival in rivals:
            contestants[rival] = RIVALS[rival](plain.MAKERS[name](CPU), Path(folder))
            contestants[rival](0.0)
        rates = race(contestants, rounds=rounds, seconds=seconds)
    for key, held in rates.items():
        spread = Spread.of(held)
        print(f"{name}  {key:<9} {spread.median:8.3f} it/s ({spread.low:.3f} to {spread.high:.3f})", end="")
        for mode in ours if key not in ours else ():
            over = ratios(rates[mode], held)
            print(f"   {mode} is {over.median:.2f} times as fast ({over.low:.2f} to {over.high:.2f})", end="")
        print()


def main() -> None:
    """Race the workloads against the rivals that were named, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rivals", nargs="*", help=", ".join(RIVALS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    for name in ("toy-gp", "toy-clip"):
        meet(name, asked.rivals or list(RIVALS), asked.rounds, asked.seconds)


if __name__ == "__main__":
    main()
