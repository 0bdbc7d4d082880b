"""`ipmgan bench`: operations and bytes by hand, the roofline, the hand-written loops, and what the command prints."""

from __future__ import annotations

import functools
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from ipmgan.bench import ceilings, plain, race
from ipmgan.bench.ceilings import Ceilings, Compute, Sizes, has_bf16_units, measure_ceilings
from ipmgan.bench.modes import COMPILED, EAGER, MODES, iteration, modes
from ipmgan.bench.report import Result, bench
from ipmgan.bench.work import Work, count_work, limit
from ipmgan.bench.workloads import QUICK, WORKLOADS, workload
from ipmgan.cli.app import app
from ipmgan.config import RunConfig, configure
from ipmgan.errors import IpmganError, UsageError

CPU = torch.device("cpu")
TINY = Sizes(matrices=(8, 16), images=2, channels=4, working_sets=(1024, 4096))
CEILINGS = Ceilings(
    float32=Compute(matmul=100.0, convolution=50.0),
    bf16=Compute(matmul=400.0, convolution=200.0),
    bandwidth=((1000, 40.0), (10_000, 10.0)),
)
WORK = Work(
    matmul_flops=200,
    convolution_flops=50,
    weight_bytes=10,
    activation_bytes=20,
    update_bytes=30,
    resident_bytes=10_000,
)
TOY: dict[str, Any] = {"objective": "wgan", "source": "ring8", "latent": "normal:dim=3", "batch": 8, "n_critic": 2}


def products(sizes: tuple[int, ...], batch: int) -> list[int]:
    """Operations of each layer of an MLP, for one pass over a batch."""
    return [2 * batch * a * b for a, b in itertools.pairwise(sizes)]


def toy(lipschitz: str, activation: str = "relu", **more: Any) -> RunConfig:
    network = f"mlp:width=16,depth=2,activation={activation}"
    return configure(**{**TOY, "lipschitz": lipschitz, "generator": network, "critic": network, **more})


def work_of(config: RunConfig) -> Work:
    run = iteration(config, EAGER)
    return count_work(run, run.step.optimizers())


class TestWork:
    def test_forward_and_backward_of_an_mlp(self) -> None:
        net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))
        layers = products((3, 16, 1), 5)
        x = torch.ones(5, 3)
        assert count_work(lambda: net(x), []).flops == sum(layers)
        # Each weight's gradient costs its layer again, and so does each input's, but for the first, which is data.
        assert count_work(lambda: net(x).sum().backward(), []).flops == 2 * sum(layers) + sum(layers[1:])

    @pytest.mark.parametrize("transposed", [False, True])
    def test_forward_and_backward_of_a_convolution(self, transposed: bool) -> None:
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        layer = kind(3, 5, 4, stride=2, padding=1, bias=False)
        pixels = 16 * 16 if transposed else 8 * 8
        once = 2 * 2 * 3 * 5 * 4 * 4 * pixels
        x = torch.ones(2, 3, 16, 16, requires_grad=True)
        work = count_work(lambda: layer(x).sum().backward(), [])
        assert (work.convolution_flops, work.matmul_flops) == (3 * once, 0)

    def test_one_iteration_with_clipping(self) -> None:
        generator, critic = products((3, 16, 16, 2), 8), products((2, 16, 16, 1), 8)
        # Critic: fakes forward; real and fake forward; gradients of all weights and of all inputs but the samples.
        critic_step = sum(generator) + 2 * (2 * sum(critic) + sum(critic[1:]))
        # Generator: forward through both; the critic's inputs only; the generator's weights, all inputs but latents.
        generator_step = 2 * sum(generator) + sum(generator[1:]) + 2 * sum(critic)
        assert work_of(toy("clip")).flops == 2 * critic_step + generator_step

    def test_a_penalty_counts_its_double_backward(self) -> None:
        critic = products((2, 16, 16, 1), 8)
        penalised = work_of(toy("gp", "tanh")).flops - work_of(toy("clip", "tanh")).flops
        # Forward, then gradients of the inputs. Backward through those gradients: all weights, and all gradients that
        # came in but the constant at the top. Backward through the forward pass, which a curved activation joins to
        # it: weights and inputs of all layers but the last, and the points themselves, which are leaves with gradient.
        penalty = 2 * sum(critic) + (2 * sum(critic) - critic[-1]) + 2 * sum(critic[:-1])
        assert penalised == 2 * penalty

    def test_torchs_own_counter_agrees_where_it_can_look_on(self) -> None:
        run = iteration(toy("clip"), EAGER)
        with FlopCounterMode(display=False) as counter:
            run()
        assert counter.get_total_flops() == count_work(run, run.step.optimizers()).flops

    def test_bytes_of_one_layer(self) -> None:
        layer = nn.Linear(3, 16, bias=False)
        optimizer = torch.optim.Adam(layer.parameters())
        x = torch.ones(5, 3)

        def run() -> None:
            layer(x).sum().backward()
            optimizer.step()

        work = count_work(run, [optimizer])
        weight, counter = 4 * 3 * 16, 4
        inputs, outputs = 4 * 5 * 3, 4 * 5 * 16
        assert work.weight_bytes == weight
        # The product reads x and writes y; that of the backward pass reads both gradients' factors, and writes one.
        assert work.activation_bytes == (inputs + outputs) + (inputs + outputs + weight)
        # Adam holds two moments and a step counter.
        assert work.update_bytes == 3 * weight + 2 * (2 * weight + counter)
        assert work.resident_bytes == 4 * weight + counter

    def test_updates_are_counted_for_each_optimiser(self) -> None:
        one, two = work_of(toy("clip", n_critic=1)), work_of(toy("clip", n_critic=3))
        config = toy("clip")
        weights = sum(p.numel() for p in iteration(config, EAGER).step.optimizers()[0].param_groups[0]["params"])
        counters = 6
        assert two.update_bytes - one.update_bytes == 2 * (3 * 4 * weights + 2 * (4 * weights + 4 * counters))

    def test_hooks_are_taken_back(self) -> None:
        run = iteration(toy("clip"), EAGER)
        count_work(run, run.step.optimizers())
        assert not any(optimizer._optimizer_step_post_hooks for optimizer in run.step.optimizers())

    @pytest.mark.parametrize("held", WORKLOADS[:4], ids=lambda held: held.name)
    def test_the_hand_written_loop_does_no_other_work(self, held: Any, tmp_path: Path) -> None:
        loop = plain.loop(held.name, CPU)
        by_hand, run = count_work(loop.step, loop.optimizers), work_of(held.config(tmp_path))
        # Autograd sends the zeros that are a ReLU's second derivative back through every layer beneath; ours need not.
        penalised = held.name == "toy-gp"
        assert run.flops <= by_hand.flops if penalised else run.flops == by_hand.flops
        assert by_hand.update_bytes == run.update_bytes
        assert by_hand.resident_bytes == run.resident_bytes

    @pytest.mark.parametrize("name", ["dcgan", "dcgan-gp"])
    def test_the_hand_written_convolutions_do_the_same_work(self, name: str, tmp_path: Path) -> None:
        """One pass through each network: a whole iteration would take seconds."""
        run = iteration(workload(name).config(tmp_path), EAGER)
        by_hand = plain.MAKERS[name](CPU)
        assert run.parts.critic is not None
        fake, latents = torch.ones(2, 3, 64, 64), torch.ones(2, 100)
        with torch.no_grad():
            for ours, theirs, x in (
                (run.parts.generator, by_hand.generator, latents),
                (run.parts.critic, by_hand.critic, fake),
            ):
                y = x[..., None, None] if x.dim() == 2 else x
                counted = [count_work(functools.partial(*held), []).flops for held in ((ours, x), (theirs, y))]
                assert counted[0] == counted[1] > 0
                assert ours(x).numel() == theirs(y).numel()
                sizes = [[p.numel() for p in net.parameters()] for net in (ours, theirs)]
                assert sizes[0] == sizes[1]


class TestRoofline:
    def test_compute_and_memory(self) -> None:
        found = limit(WORK, CEILINGS)
        assert found.compute_seconds == 200 / 100 + 50 / 50
        assert found.memory_seconds == 60 / 10
        assert (found.bound, found.rate) == ("memory", 1 / 6)
        cached = limit(attrs.evolve(WORK, resident_bytes=9_999), CEILINGS)
        assert (cached.memory_seconds, cached.bound, cached.rate) == (60 / 40, "compute", 1 / 3)

    def test_bf16_raises_the_ceiling_where_there_are_units(self) -> None:
        assert limit(WORK, CEILINGS, "bf16").compute_seconds == 200 / 400 + 50 / 200
        without = attrs.evolve(CEILINGS, bf16=None)
        assert limit(WORK, without, "bf16").compute_seconds == limit(WORK, without).compute_seconds

    def test_fraction_and_ratio(self) -> None:
        rates = {"eager": (1.0, 2.0, 6.0), "plain": (1.0, 4.0, 3.0)}
        result = Result(workload="x", precision="float32", work=WORK, limit=limit(WORK, CEILINGS), rates=rates)
        assert result.fraction("eager") == pytest.approx(2.0 * 6)
        # Round by round: 1, 1/2 and 2, whose median is not the ratio of the medians, 2/3.
        assert result.ratio("eager") == race.Spread(median=1.0, low=0.5, high=2.0)
        assert result.ratio("plain") is None
        assert attrs.evolve(result, rates={"eager": (1.0,)}).ratio("eager") is None


class TestCeilings:
    def test_they_are_measured(self) -> None:
        found = measure_ceilings(CPU, seconds=0.01, sizes=TINY)
        assert found.float32.matmul > 0
        assert found.float32.convolution > 0
        assert [size for size, _ in found.bandwidth] == [1024, 4096]
        assert found.bandwidth_at(1024) >= found.bandwidth_at(4096) > 0
        assert (found.bf16 is None) == (not has_bf16_units(CPU))

    def test_a_rate_is_the_amount_over_the_time(self) -> None:
        rate = ceilings._best(lambda: time.sleep(0.02), 10, CPU, 0.1)
        assert 0.7 * 500 < rate <= 500

    def test_operations_of_the_measured_convolutions_are_those_carried_out(self) -> None:
        for run, flops in ceilings._convolutions(CPU, torch.float32, TINY):
            assert count_work(run, []).convolution_flops == flops
        for run, flops in ceilings._matmuls(CPU, torch.float32, TINY):
            assert count_work(run, []).matmul_flops == flops

    def test_emulated_bf16_is_not_timed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
        assert not has_bf16_units(CPU)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": True})
        assert has_bf16_units(CPU)


class TestRace:
    def test_contestants_take_turns_and_rounds_alternate(self) -> None:
        order: list[str] = []

        def contestant(name: str) -> race.Contestant:
            def run(seconds: float) -> float:
                order.append(name)
                return len(order) * seconds

            return run

        rates = race.race({name: contestant(name) for name in "ab"}, rounds=3, seconds=2.0)
        assert order == list("abbaab")
        assert rates == {"a": (2.0, 8.0, 10.0), "b": (4.0, 6.0, 12.0)}

    def test_a_rate_counts_whole_iterations(self) -> None:
        assert 30 < race.timed(lambda: time.sleep(0.02), CPU)(0.1) <= 50
        calls: list[int] = []
        race.timed(lambda: calls.append(1), CPU)(0.0)
        assert calls == [1]


class TestPlain:
    @pytest.mark.parametrize("name", ["small-toy", "toy-clip", "image-mlp"])
    def test_clipping_holds_after_a_step(self, name: str) -> None:
        made = plain.MAKERS[name](CPU)
        optimizer = made.optimizer(made.critic)
        plain.critic_step(made, optimizer)
        assert max(float(p.detach().abs().max()) for p in made.critic.parameters()) <= 0.01
        assert isinstance(optimizer, torch.optim.RMSprop)

    def test_slopes_are_those_of_each_sample(self) -> None:
        weight = torch.tensor([[3.0, 4.0]])
        critic = nn.Sequential(nn.Linear(2, 1, bias=False))
        with torch.no_grad():
            next(critic.parameters()).copy_(weight)
        found = plain.slopes(critic, torch.zeros(6, 2), torch.ones(6, 2))
        torch.testing.assert_close(found, torch.full((6,), 5.0))

    def test_the_generator_step_leaves_the_critic_alone(self) -> None:
        made = plain.MAKERS["small-toy"](CPU)
        made.critic.requires_grad_(False)
        before = [p.clone() for p in made.critic.parameters()]
        start = [p.clone() for p in made.generator.parameters()]
        plain.generator_step(made, made.optimizer(made.generator))
        assert all(p.grad is None for p in made.critic.parameters())
        assert all(map(torch.equal, before, made.critic.parameters()))
        assert not all(map(torch.equal, start, made.generator.parameters()))

    def test_a_loop_learns(self) -> None:
        """The critic's gap between the ring and the first fakes grows from one step to the next."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = plain.MAKERS["toy-gp"](CPU)
            optimizer = made.optimizer(made.critic)

            def gap() -> Tensor:
                with torch.no_grad():
                    fake = made.generator(made.latents(2000))
                    return made.critic(made.real(2000)).mean() - made.critic(fake).mean()

            before = gap()
            for _ in range(5):
                plain.critic_step(made, optimizer)
            assert gap() > before + 0.05

    def test_the_ring_is_the_ring(self) -> None:
        radius = plain.ring(CPU)(4000).norm(dim=1)
        assert float(radius.mean()) == pytest.approx(2 / math.sqrt(2), abs=0.01)
        assert float(radius.std()) == pytest.approx(0.02 / math.sqrt(2), rel=0.1)


class TestBench:
    def test_every_workload_has_a_hand_written_loop(self) -> None:
        assert {held.name for held in WORKLOADS} == set(plain.MAKERS)
        assert set(QUICK) < set(plain.MAKERS)

    def test_a_result_as_plain_values(self, tmp_path: Path) -> None:
        config = workload("small-toy").config(tmp_path, device="cpu")
        table = bench("small-toy", config, [EAGER], CEILINGS, against="plain", rounds=3, seconds=0.0).table()
        assert json.loads(json.dumps(table)) == table
        assert set(table) == {"workload", "precision", "flops", "bytes", "limit", "rates"}
        eager, by_hand = table["rates"]
        assert (eager["mode"], by_hand["mode"]) == ("eager", "plain")
        assert len(eager["rounds"]) == 3
        assert eager["low"] <= eager["median"] <= eager["high"]
        assert eager["fraction_of_limit"] == pytest.approx(eager["median"] / table["limit"]["rate"])
        assert eager["to_plain"]["low"] <= eager["to_plain"]["median"] <= eager["to_plain"]["high"]
        assert by_hand["to_plain"] is None

    def test_the_step_that_is_timed_is_the_one_that_trains(self) -> None:
        run = iteration(toy("clip", critic_warmup=True), EAGER)
        run()
        assert (run.step.steps, run.step.critic_steps) == (1, 2)  # Without the 100 critic steps of the first ones.

    def test_a_mode_is_the_settings_that_choose_it(self) -> None:
        for mode, setting in ((EAGER, "off"), (COMPILED, "on")):
            assert iteration(toy("clip"), mode).parts.config.schedule.compile == setting
        assert modes([], CPU) == [EAGER, COMPILED]
        assert modes(["compiled"], CPU) == [COMPILED]

    @pytest.mark.slow
    def test_the_compiled_step_takes_part(self, tmp_path: Path) -> None:
        config = workload("small-toy").config(tmp_path, device="cpu")
        result = bench("small-toy", config, modes([], CPU), CEILINGS, rounds=1, seconds=0.0)
        assert set(result.rates) == {"eager", "compiled"}

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: workload("toy-pg"), "no workload 'toy-pg': did you mean 'toy-gp'? Allowed: dcgan, dcgan-gp"),
            (lambda: modes(["eagre"], CPU), "no mode for cpu named 'eagre': did you mean 'eager'?"),
            (lambda: modes(["graph"], CPU), "no mode for cpu named 'graph'"),
            (lambda: bench("x", toy("clip"), MODES, CEILINGS, against="plain"), "no hand-written loop for x"),
            (lambda: bench("toy-gp", toy("clip"), MODES, CEILINGS, against="pain"), "did you mean 'plain'?"),
        ],
    )
    def test_mistakes(self, call: Any, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            call()
        assert text in str(caught.value)


class TestCommand:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ipmgan.bench.ceilings.measure_ceilings", lambda device: CEILINGS)

    def run(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, ["bench", *arguments, "--rounds", "1", "--seconds", "0", "--device", "cpu"])
        if isinstance(result.exception, IpmganError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    def test_a_workload_against_the_hand_written_loop(self) -> None:
        out = self.run("--workload", "small-toy", "--mode", "eager", "--against", "plain")
        assert "matrix products" in out
        assert "small-toy, float32" in out
        rows = [line.split()[0] for line in out.splitlines() if line.startswith(("eager", "plain"))]
        assert rows == ["eager", "plain"]

    def test_json(self) -> None:
        found = json.loads(self.run("--workload", "small-toy", "--mode", "eager", "--json"))
        assert set(found) == {"machine", "ceilings", "workloads"}
        assert found["machine"]["device"] == "cpu"
        assert found["ceilings"]["float32"] == {"matmul": 100.0, "convolution": 50.0}
        assert found["ceilings"]["bandwidth"][1] == {"working_set_bytes": 10_000, "bytes_per_second": 10.0}
        assert [held["workload"] for held in found["workloads"]] == ["small-toy"]

    def test_no_units_for_bf16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        without = attrs.evolve(CEILINGS, bf16=None)
        monkeypatch.setattr("ipmgan.bench.ceilings.measure_ceilings", lambda device: without)
        assert "no bf16 units" in self.run("--workload", "small-toy", "--mode", "eager")

    def test_settings_of_a_run(self) -> None:
        settings = ["--objective", "wgan", "--lipschitz", "clip", "--source", "ring8", "--batch", "8"]
        networks = ["--generator", "mlp:width=8", "--critic", "mlp:width=8"]
        out = self.run(*settings, *networks, "--mode", "eager")
        assert "wgan-clip-ring8, float32" in out
        assert "to plain" not in out

    def test_settings_beside_a_workload_are_refused(self) -> None:
        with pytest.raises(UsageError, match="give --workload or --n-critic, not both"):
            self.run("--workload", "toy-gp", "--n-critic", "1")

    def test_a_rival_for_a_run_of_ones_own_is_refused_before_anything_is_timed(self) -> None:
        with pytest.raises(UsageError, match="no hand-written loop for wgan-gp-toy: there is one for toy-gp"):
            self.run("--preset", "wgan-gp-toy", "--against", "plain")
