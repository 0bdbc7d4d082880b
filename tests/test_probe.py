"""A fresh critic against a frozen generator: the gradients at a known optimum, what is recorded, what is left alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from typer.testing import CliRunner

import ipmgan
from ipmgan.cli.app import app
from ipmgan.engine.checkpoint import load_latest
from ipmgan.errors import CheckpointError, PairingError, UsageError
from ipmgan.evaluation.frozen import Frozen, Held, accuracy, against, means
from ipmgan.evaluation.probe import Probe, costs, probe, read_probe
from ipmgan.objectives import EBGAN, MMD, WGAN, Minimax, NonSaturating
from ipmgan.objectives.base import CriticKind
from ipmgan.perturbations import Noise

AFFINE: dict[str, Any] = {"generator": "mlp:depth=0", "latent": "normal:dim=1", "device": "cpu", "checkpoint_every": 1}
QUICK: dict[str, Any] = {"steps": 4, "every": 2, "draws": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the line, N(0, 1), whose generator is affine."""
    path = tmp_path_factory.mktemp("probe") / "run"
    settings = {"source": "gaussian:mean=[0.0]", "critic": "mlp:width=8", "batch": 256, "steps": 2}
    ipmgan.train(objective="wgan", lipschitz="clip", out=path, **settings, **AFFINE)
    return path


def frozen(path: Path, **choices: Any) -> Frozen:
    run = ipmgan.load(path)
    settings = {"objective": "nonsaturating", "steps": 100, "seed": 0, "device": "cpu"}
    return Frozen(run.dir.snapshot(), against(run, **{**settings, **choices}))


def put(made: Frozen, mean: float, std: float) -> None:
    """Let the generator's law be N(mean, std²)."""
    with torch.no_grad():
        made.parts.generator[0].weight.fill_(std)  # type: ignore[index, operator, union-attr]
        made.parts.generator[0].bias.fill_(mean)  # type: ignore[index, operator, union-attr]


def test_gradients_at_the_optimal_discriminator(line: Path) -> None:
    """N(0, 1) against N(θ, 1), θ = 1: log p/q = 1/2 - x. By θ: ∇E[log(1 - D)] = 2 ∇JSD; ∇E[-log D] = ∇[KL - 2 JSD]."""
    made = frozen(line, critic="mlp:depth=0")
    put(made, 1.0, 1.0)
    made.parts.generator[0].weight.requires_grad_(False)  # type: ignore[index, operator, union-attr]
    with torch.no_grad():
        made.step.critic_loss.critic[0].weight.fill_(-1.0)  # type: ignore[index, operator, union-attr]
        made.step.critic_loss.critic[0].bias.fill_(0.5)  # type: ignore[index, operator, union-attr]
    draws = 200
    found = {cost.name: made.gradients(cost, draws) for cost in costs(NonSaturating())}
    for name, exact in (("minimax", 2 * 0.1989864336), ("nonsaturating", 0.6020271328), ("wgan", 1.0)):
        error = math.sqrt(found[name]["variance"] / draws)
        assert found[name]["norm"] == pytest.approx(exact, abs=4 * error + 1e-6)
        assert error < 0.01
    # One sample's gradient is 1 - D or D at logit 1/2 - x, x ~ N(1, 1); that of a batch varies 256 times less.
    x = 1 + torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d = torch.sigmoid(0.5 - x)
    assert found["nonsaturating"]["variance"] == pytest.approx(float((1 - d).var()) / 256, rel=0.4)
    assert found["minimax"]["variance"] == pytest.approx(float(d.var()) / 256, rel=0.4)


def test_gradients_are_by_all_weights_and_leave_nothing_behind(line: Path) -> None:
    made = frozen(line)
    before = [p.clone() for net in (made.parts.generator, made.step.critic_loss.critic) for p in net.parameters()]  # type: ignore[union-attr]
    found = made.gradients(NonSaturating(), 3)
    assert made.gradients(NonSaturating(), 3) == found
    rows = []
    for number in range(3):
        latents = made.parts.config.latent.draw(256, made.parts.streams.at("probe-latents", number))
        weights = list(made.parts.generator.parameters())
        cost = torch.nn.functional.softplus(-made.parts.outputs(made.parts.generator(latents))).mean()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(cost, weights)]))
    table = torch.stack(rows).double()
    assert found["norm"] == pytest.approx(float(table.mean(0).norm()), rel=1e-5)
    assert found["variance"] == pytest.approx(float(table.var(0).sum()), rel=1e-4)
    after = [p for net in (made.parts.generator, made.step.critic_loss.critic) for p in net.parameters()]  # type: ignore[union-attr]
    assert all(torch.equal(old, new) and new.grad is None for old, new in zip(before, after, strict=True))


def test_the_minimax_gradient_vanishes_and_that_of_log_d_does_not(line: Path) -> None:
    """Figures 2 and 3 of the paper in small: laws that hardly overlap, and a discriminator that gets better."""
    made = frozen(line, critic="mlp:width=32,depth=1", critic_optimizer="Adam:lr=1e-2")
    put(made, 8.0, 0.5)
    records = []
    for steps in (0, 50, 250):
        made.train(steps)
        told = {cost.name: made.gradients(cost, 2)["norm"] for cost in costs(NonSaturating())}
        records.append(told | means(made.see("held-out")))
    assert records[-1]["minimax"] < records[0]["minimax"] / 10
    assert records[-1]["nonsaturating"] > records[0]["nonsaturating"]
    assert records[-1]["accuracy"] > 0.999
    assert records[-1]["estimate"] == pytest.approx(math.log(2), abs=0.01)


def test_what_is_seen_is_what_the_next_steps_see(line: Path) -> None:
    """The loss on training data is that of the coming critic steps, and looking changes none of them."""
    made, twin = frozen(line), frozen(line)
    seen = made.see("train")
    assert len(seen) == 8
    twin.train(1)
    assert seen[0]["loss"] == float(twin.step.last.critic_loss)  # type: ignore[arg-type]
    made.gradients(Minimax(), 2)
    held_out = made.see("held-out")
    assert held_out == made.see("held-out") != seen
    made.train(3)
    twin.train(2)
    for p, q in zip(made.step.critic_loss.weights().values(), twin.step.critic_loss.weights().values(), strict=True):
        assert torch.equal(p, q)


def test_the_generator_is_the_checkpoints_and_stays_it(line: Path) -> None:
    made = frozen(line)
    snapshot = load_latest(line / "checkpoints")
    assert snapshot is not None
    made.train(3)
    for key, value in made.parts.generator.state_dict().items():
        assert torch.equal(value, snapshot.tensors[f"generator.{key}"])
    first = ipmgan.load(line).dir.snapshot(1)
    assert first.step == 1
    assert not torch.equal(first.tensors["generator.0.bias"], snapshot.tensors["generator.0.bias"])


@pytest.mark.parametrize(
    ("kind", "real", "fake", "exact"),
    [
        (CriticKind.LOGIT, [1.0, 2.0], [-1.0, 0.5], 0.75),
        (CriticKind.LOGIT, [0.0, 0.0], [0.0, 0.0], 0.5),
        (CriticKind.SCORE, [11.0, 12.0], [9.0, 10.5], 1.0),
        (CriticKind.ENERGY, [1.0, 1.0], [4.0, 0.5], 0.75),
    ],
)
def test_accuracy(kind: CriticKind, real: list[float], fake: list[float], exact: float) -> None:
    assert accuracy(kind, torch.tensor(real), torch.tensor(fake)) == {"accuracy": exact}
    codes = [torch.tensor(side)[:, None].expand(-1, 3) for side in (real, fake)]
    assert accuracy(kind, *codes) == {"accuracy": exact}
    assert accuracy(CriticKind.FEATURES, *codes) == {}


def test_costs_are_those_that_mean_something_for_the_critic() -> None:
    assert [cost.name for cost in costs(Minimax())] == ["minimax", "nonsaturating", "wgan"]
    assert costs(WGAN()) == (WGAN(),)
    assert costs(EBGAN(margin=3.0)) == (EBGAN(margin=3.0),)
    assert costs(MMD()) == (MMD(),)


def test_what_is_not_chosen_is_the_runs_where_it_fits(line: Path) -> None:
    run = ipmgan.load(line)
    plain = against(run, objective="nonsaturating", steps=5, seed=3, device="cpu")
    assert (plain.lipschitz.name, plain.critic, plain.critic_optimizer.name) == ("none", run.config.critic, "Adam")
    assert plain.schedule.batch == 256
    clipped = against(run, objective="wgan", steps=5, seed=3, device="cpu")
    assert clipped.lipschitz == run.config.lipschitz
    assert clipped.critic_optimizer.name == "RMSprop"
    chosen = against(run, objective="wgan", steps=5, seed=3, device="cpu", lipschitz="gp", critic="mlp:width=3")
    assert (chosen.lipschitz.name, chosen.critic and chosen.critic.width) == ("gp", 3)  # type: ignore[attr-defined]
    with pytest.raises(PairingError, match="no critic to train"):
        against(run, objective="mmd", steps=5, seed=3, device="cpu")


def test_noise_is_as_strong_as_at_the_checkpoint(tmp_path: Path) -> None:
    noise = Noise(sd=2.0, anneal="linear")
    held = Held(inner=noise, done=0.25)
    generator = torch.Generator()
    drawn = [plugin.draw((3, 2), generator.manual_seed(0), done=done) for plugin, done in ((held, 0.9), (noise, 0.25))]
    assert torch.equal(*drawn)
    assert torch.equal(held.perturb(torch.ones(3, 2), drawn[0]), 1 + drawn[1])
    settings = {"source": "gaussian:mean=[0.0]", "critic": "mlp:width=8", "batch": 16, "steps": 2}
    ipmgan.train(objective="nonsaturating", perturbation=noise, out=tmp_path / "run", **settings, **AFFINE)
    made = Probe(tmp_path / "run", checkpoint=1, **QUICK)
    assert made._frozen.parts.config.perturbation == Held(inner=noise, done=0.5)
    assert made.config.perturbation == noise


def test_a_probe_is_written_beside_the_run(line: Path) -> None:
    before = {path: path.read_bytes() for path in line.rglob("*") if path.is_file()}
    made = probe(line, name="mine", **QUICK)
    assert [record["step"] for record in made.records] == [0, 2, 4]
    assert len(made) == 3
    assert read_probe(made.path) == made.records
    assert made.path == line / "probes" / "mine"
    assert (made.path / "probe.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((made.path / "probe.json").read_text())["checkpoint"] == 2
    assert ipmgan.configure(config=made.path / "config.toml") == made.config
    assert all(path.read_bytes() == text for path, text in before.items())
    expected = {"step", *(f"{where}{key}" for where in ("", "held_out_") for key in ("loss", "accuracy", "estimate"))}
    expected |= {f"gradient_{key}_{cost}" for key in ("norm", "variance") for cost in made.table()["costs"]}
    assert set(made.records[0]) == expected
    assert list(made) == []
    again = probe(line, **QUICK)
    assert again.records == made.records
    assert (again.path.name, Probe(line, **QUICK).path.name) == ("nonsaturating-2", "nonsaturating-2-2")
    assert probe(line, seed=1, **QUICK).records != made.records


@pytest.mark.parametrize("objective", ["wgan", "mmd:estimator=unbiased"])
def test_any_objective_with_a_critic(line: Path, objective: str) -> None:
    made = probe(
        line, objective=objective, critic="mlp:width=8", lipschitz="gp" if objective == "wgan" else "clip", **QUICK
    )
    name = objective.partition(":")[0]
    assert [cost.name for cost in made.costs] == [name]
    assert made.records[-1][f"gradient_norm_{name}"] > 0
    assert ("penalty" in made.records[0]) == ("accuracy" in made.records[0]) == (name == "wgan")


def test_energies_and_batch_norm(tmp_path: Path) -> None:
    settings = {"source": "ring8", "batch": 32, "steps": 1, "latent": "normal:dim=2", "device": "cpu"}
    ipmgan.train(objective="minimax", generator="mlp:width=8,depth=1,norm=batch", out=tmp_path / "run", **settings)
    made = probe(tmp_path / "run", objective="ebgan", critic="autoencoder:hidden=8,code=2", **QUICK)
    assert 0 <= made.records[-1]["accuracy"] <= 1
    assert made.records[-1]["gradient_norm_ebgan"] > 0


def test_command(line: Path) -> None:
    options = ["--steps", "4", "--every", "2", "--draws", "2", "--device", "cpu"]
    result = CliRunner().invoke(app, ["probe", str(line), *options, "--json", "--checkpoint", "1"])
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)
    assert table["checkpoint"] == 1
    assert [record["step"] for record in table["records"]] == [0, 2, 4]
    printed = CliRunner().invoke(app, ["probe", str(line), *options])
    assert "‖∇‖ minimax" in printed.stdout
    assert "written to" in printed.stdout


def test_a_probe_refuses_what_is_not_there(line: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Allowed: 1, 2"):
        Probe(line, checkpoint=7, **QUICK)
    with pytest.raises(CheckpointError, match="not a run"):
        Probe(tmp_path, **QUICK)
    with pytest.raises(CheckpointError, match="not a probe"):
        read_probe(line)
    for name in ("a/b", "..", ""):
        with pytest.raises(UsageError, match="must be a new name"):
            Probe(line, name=name, **QUICK)
    with pytest.raises(UsageError, match="objective"):
        Probe(line, objective="wgna", **QUICK)
    with pytest.raises(UsageError, match="every"):
        Probe(line, **QUICK | {"every": 0})
    damaged = attrs.evolve(ipmgan.load(line).dir.snapshot(), tensors={"generator.0.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="does not fit"):
        Frozen(damaged, against(ipmgan.load(line), objective="minimax", steps=1, seed=0, device="cpu"))
