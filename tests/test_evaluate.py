"""Evaluation of runs and of stored samples: what is drawn, told and refused; from Python and from the command line."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import ipmgan
from ipmgan.cli.app import main
from ipmgan.config import configure
from ipmgan.data import Resident, Sampler, SampleSpec
from ipmgan.engine.checks import check
from ipmgan.engine.facts import known
from ipmgan.engine.streams import Streams
from ipmgan.errors import CheckpointError, DataError, PairingError, UsageError
from ipmgan.evaluation.evaluate import Evaluator, evaluate
from ipmgan.evaluation.pools import Pool, passes
from ipmgan.evaluation.results import Estimate
from ipmgan.evaluation.stored import read_samples
from ipmgan.metrics import Metric

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "objective": "nonsaturating",
    "generator": "mlp:width=8,depth=1",
    "critic": "mlp:width=8,depth=1",
    "batch": 8,
    "steps": 2,
    "device": "cpu",
    "compile": "off",
}
QUICK = ("sliced-wasserstein:directions=8", "sharpness", "fid", "modes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on the ring and one on digits."""
    folder = tmp_path_factory.mktemp("runs")
    for source in ("ring8", "digits"):
        ipmgan.train(**TINY, source=source, out=folder / source, average=0.5)
    return folder


@pytest.fixture
def ipmgan_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ipmgan", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return (int(stopped.value.code or 0), *capsys.readouterr())

    return call


# --- draws -----------------------------------------------------------------------------------------------------------


def numbers(size: int, repeats: int, seed: int = 0) -> Pool:
    samples = Resident(samples=torch.arange(size, dtype=torch.float32)[:, None])
    return Pool(samples, Streams(seed, CPU), "numbers", repeats)


def test_draws_share_no_samples_where_there_are_enough() -> None:
    pool = numbers(12, 4)
    found = torch.cat([pool.draw(3, repeat) for repeat in range(4)])
    assert sorted(found.flatten().tolist()) == list(range(12))
    assert pool.how(3) == "disjoint"
    assert torch.equal(numbers(12, 4).draw(3, 2), pool.draw(3, 2))
    assert torch.equal(pool.draw(12, 2)[:2], pool.draw(2, 2))
    assert not torch.equal(numbers(12, 4, seed=1).draw(3, 2), pool.draw(3, 2))


def test_draws_overlap_where_there_are_too_few_and_say_so() -> None:
    pool = numbers(12, 4)
    assert (pool.how(4), pool.how(12), pool.how(20)) == ("overlapping", "all", "all")
    sets = [pool.draw(4, repeat) for repeat in range(4)]
    assert all(len(found.unique()) == 4 for found in sets)
    assert len({tuple(found.flatten().tolist()) for found in sets}) == 4
    assert sorted(pool.draw(20, 0).flatten().tolist()) == list(range(12))


def test_a_law_without_end_is_drawn_afresh() -> None:
    law = Sampler(draw=lambda n, generator: torch.rand(n, 2, generator=generator))
    pool = Pool(law, Streams(0, CPU), "law", 2)
    assert (pool.how(5), pool.size) == ("fresh", None)
    assert not torch.equal(pool.draw(5, 0), pool.draw(5, 1))
    assert passes(law) is None


def test_training_samples_are_all_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmgan.evaluation.pools.PASS", 5)
    batches = passes(Resident(samples=torch.arange(12, dtype=torch.float32)[:, None]))
    assert batches is not None
    for _ in range(2):
        assert [len(batch) for batch in batches()] == [5, 5, 2]
        assert torch.equal(torch.cat(list(batches())).flatten(), torch.arange(12.0))


# --- results ---------------------------------------------------------------------------------------------------------


def test_standard_errors_by_hand() -> None:
    assert Estimate.over([1.0, 2.0, 6.0]) == Estimate(value=3.0, standard_error=pytest.approx(math.sqrt(7 / 3)))
    assert Estimate.over([2.0]) == Estimate(value=2.0, standard_error=None)
    assert Estimate.over([2.0], 0.5).standard_error == 0.5


def test_a_result_says_all_that_its_number_hangs_on(runs: Path) -> None:
    found = evaluate(runs / "digits", metrics=["fid", "sliced-wasserstein:directions=8"], samples=100, repeats=3)
    fid, sliced = found.results
    assert fid is found["fid"]
    assert (fid.split, fid.real, fid.generated) == ("held-out", 100, 100)
    assert (fid.real_draws, fid.generated_draws) == ("disjoint", "fresh")
    assert (fid.network, fid.resizing) == ("mnist", "8x8 to 28x28, bilinear, antialiased")
    assert len(fid.checksum) == 64
    assert len(fid.values) == 3
    assert fid.value == pytest.approx(sum(fid.values) / 3)
    assert fid.standard_error == pytest.approx(np.std(fid.values, ddof=1) / 3**0.5)
    assert (sliced.network, sliced.resizing, sliced.title) == ("none", "none", "sliced-wasserstein:directions=8")
    assert (found.step, found.repeats, found.source["name"]) == (2, 3, "digits")
    assert set(found.versions) == {"python", "torch", "ipmgan"}
    saved = json.loads((runs / "digits" / "evaluation.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(found.table()))
    assert saved["results"][0]["unit"] == "squared units of the features"
    with pytest.raises(UsageError, match="no result of a metric named 'kid'"):
        found["kid"]


def test_the_same_seed_gives_the_same_numbers(runs: Path) -> None:
    def values(**more: Any) -> list[tuple[float, ...]]:
        settings = {
            "metrics": ["sliced-wasserstein", "kid:features=none,subset=20,subsets=3"],
            "samples": 50,
            "repeats": 2,
        }
        return [result.values for result in evaluate(runs / "ring8", **settings | more).results]

    first = values()
    assert values() == first
    assert values(seed=1) != first
    assert values(average=False) != first
    assert values(metrics=["sliced-wasserstein"]) == first[:1]
    assert len(set(first[0])) == 2


def test_one_draw_has_the_metric_s_own_error(runs: Path) -> None:
    found = evaluate(runs / "ring8", metrics=["sliced-wasserstein", "exact-w1"], samples=50, repeats=1)
    sliced, exact = found.results
    assert sliced.standard_error is not None
    assert sliced.standard_error > 0
    assert exact.standard_error is None
    assert 0 < sliced.value < exact.value


def test_without_metrics_all_that_apply_are_taken(runs: Path) -> None:
    ring = Evaluator(runs / "ring8", samples=40, repeats=1)
    names = {job.metric.name for job in ring.jobs}
    assert {"modes", "sliced-wasserstein", "exact-w2", "prdc", "c2st"} <= names
    assert set(ring.skipped) == {"memorisation", "sharpness", "inception-score", "classes", "ngram-jsd"}
    digits = Evaluator(runs / "digits", samples=40, repeats=1)
    assert set(digits.skipped) == {"modes", "ngram-jsd"}
    assert {job.metric.name for job in digits.jobs} | set(digits.skipped) == {
        kind.name for kind in ipmgan.metrics.BUILTIN
    }
    for _ in digits:
        pass
    found = digits.evaluation()
    assert all(math.isfinite(result.value) for result in found.results)
    assert found["memorisation"].more["median_held_out"].value > 0


def test_a_metric_of_the_run_that_is_not_installed_is_left_out(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "ring8", tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('"sliced-wasserstein"', '"of-somebody-else"'))
    evaluator = Evaluator(tmp_path / "run", samples=10)
    assert "no metric 'of-somebody-else'" in evaluator.skipped["of-somebody-else"]
    assert evaluator.jobs


def test_sides_are_equal_unless_more_is_asked_for(runs: Path) -> None:
    def counts(**settings: Any) -> tuple[int, int]:
        (job,) = Evaluator(runs / "digits", metrics=["fid"], **settings).jobs
        return job.real, job.generated

    assert counts() == (359, 359)
    assert counts(split="train") == (1438, 1438)
    assert counts(samples=500) == (359, 500)
    assert counts(samples=20) == (20, 20)


def test_a_network_of_ones_own_and_a_metric_object(runs: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    found = evaluate(
        runs / "digits", metrics=[ipmgan.FID(features="mine")], samples=30, repeats=2, networks={"mine": network}
    )
    assert found["fid"].network == "mine"


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"metrics": ["sharpness"]}, "sharpness: it is for grey and colour images"),
        ({"metrics": ["memorisation"]}, "memorisation: no training samples"),
        ({"metrics": ["fud"]}, "no metric 'fud': did you mean 'fid'"),
        ({"metrics": ["fid:features=inception"]}, "it takes grey or colour images"),
        ({"metrics": ["exact-w1:memory=1"], "samples": 5000}, r"the largest size that does is \d+ a side"),
        ({"source": "digits"}, r"the run's samples are \(2,\), and those of --source \(1, 8, 8\)"),
        ({"split": "test"}, "no split 'test'"),
        ({"repeats": 0}, "repeats = 0: must be at least 1"),
        ({"samples": 0}, "samples = 0"),
    ],
)
def test_refusals(runs: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Evaluator(runs / "ring8", **settings)


def test_exact_transport_among_all_takes_what_fits(runs: Path) -> None:
    evaluator = Evaluator(runs / "ring8", samples=50_000)
    (job,) = (job for job in evaluator.jobs if job.metric.name == "exact-w1")
    assert job.real == job.generated == job.metric.most((2,))


def test_nothing_is_computed_before_it_is_asked_for(runs: Path) -> None:
    with pytest.raises(UsageError, match="iterate over"):
        Evaluator(runs / "ring8").evaluation()


def test_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    from ipmgan.engine.rundir import RunDir

    RunDir.create(configure(**TINY, source="ring8"), tmp_path / "fresh")
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        Evaluator(tmp_path / "fresh")


def test_training_refuses_metrics_that_do_not_apply_before_it_starts() -> None:
    for metric in ("sharpness", "memorisation"):
        with pytest.raises(PairingError, match=metric):
            check(configure(**TINY, source="ring8", metrics=[metric]))


def test_training_logs_metrics_that_need_to_know_the_source(tmp_path: Path) -> None:
    settings = TINY | {"metrics": ["modes", "fid"], "sample_every": 1}
    run = ipmgan.train(**settings, source="ring8", out=tmp_path / "run")
    assert 0 <= run.metrics[-1]["modes"] <= 8
    assert run.metrics[-1]["fid"] > 0


def test_what_a_source_tells() -> None:
    ring = known(ipmgan.Ring8())
    assert ring.modes is not None
    assert ring.modes.centres.shape == (8, 2)
    assert ring.bounds is None
    digits = known(ipmgan.Digits(bounds=(0.0, 1.0)))
    assert (digits.modes, digits.bounds, digits.shape) == (None, (0.0, 1.0), (1, 8, 8))


# --- stored samples --------------------------------------------------------------------------------------------------


def bytes_(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


GREY, COLOUR = SampleSpec(shape=(1, 8, 8), bounds=(-1.0, 1.0)), SampleSpec(shape=(3, 4, 6), bounds=(0.0, 1.0))


def test_samples_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    images = bytes_(5, 1, 8, 8)
    np.save(tmp_path / "a.npy", images.numpy())
    np.savez(tmp_path / "b.npz", images.numpy())
    np.savez(tmp_path / "c.npz", samples=images.numpy(), labels=np.zeros(5))
    save_file({"samples": images}, tmp_path / "d.safetensors")
    np.save(tmp_path / "e.npy", images[:, 0].numpy())
    truth = images.float() / 127.5 - 1
    for name in ("a.npy", "b.npz", "c.npz", "d.safetensors", "e.npy"):
        found = read_samples(tmp_path / name, GREY)
        torch.testing.assert_close(found.take(torch.arange(5)), truth)
    colour = bytes_(5, 3, 4, 6)
    np.savez(tmp_path / "last.npz", colour.permute(0, 2, 3, 1).numpy())
    torch.testing.assert_close(read_samples(tmp_path / "last.npz", COLOUR).take(torch.arange(5)), colour.float() / 255)
    half = torch.rand(3, 1, 8, 8).half()
    np.save(tmp_path / "half.npy", half.numpy())
    assert torch.equal(read_samples(tmp_path / "half.npy", GREY).take(torch.arange(3)), half.float())


def test_samples_are_read_from_a_folder_of_images(tmp_path: Path) -> None:
    for number, pixels in enumerate(bytes_(3, 8, 8)):
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{number}.png")
    found = read_samples(tmp_path, GREY)
    torch.testing.assert_close(found.take(torch.arange(3)), bytes_(3, 8, 8)[:, None].float() / 127.5 - 1)


def test_stored_samples_that_cannot_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "shape.npy", np.zeros((5, 3)))
    np.save(tmp_path / "nan.npy", np.full((5, 1, 8, 8), np.nan))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    (tmp_path / "empty").mkdir()
    for name, reason in {
        "pickle.npy": "cannot read",
        "shape.npy": r"shape \(3,\), and those of the source are \(1, 8, 8\)",
        "nan.npy": "not finite",
        "words.npy": "must be real numbers",
        "two.npz": "no array in",
        "empty": "holds no images",
        "nothing.npy": "no run, file or folder",
    }.items():
        with pytest.raises(DataError, match=reason):
            read_samples(tmp_path / name, GREY)
    (tmp_path / "text.txt").touch()
    with pytest.raises(UsageError, match="samples are read from"):
        read_samples(tmp_path / "text.txt", GREY)


def test_stored_samples_need_a_source_and_are_split_into_draws(tmp_path: Path) -> None:
    path = tmp_path / "ring.npy"
    sampler = ipmgan.Ring8().open("held-out")
    np.save(path, sampler.draw(4000, torch.Generator().manual_seed(0)).numpy())
    with pytest.raises(UsageError, match="such as --source mnist"):
        Evaluator(path)
    found = evaluate(path, source="ring8", metrics=["modes", "c2st"], samples=1000, repeats=4)
    assert found.step is None
    assert found["modes"].generated_draws == "disjoint"
    assert found["modes"].value == 8
    assert found["modes"].more["high_quality"].value == pytest.approx(1 - math.exp(-4.5), abs=0.008)
    error = found["c2st"].standard_error
    assert error is not None
    assert abs(found["c2st"].value - 0.5) < 6 * max(error, 0.01)
    assert not list(tmp_path.glob("*.json"))
    with pytest.raises(DataError, match="holds 4,000 samples, fewer than 5,000"):
        Evaluator(path, source="ring8", samples=5000)


def test_sequences_of_text(tmp_path: Path) -> None:
    """Two halves of one text are nearer to each other than to the text spelt backwards."""
    text = ("to be or not to be that is the question whether tis nobler in the mind to suffer " * 60).encode()
    rows = torch.frombuffer(bytearray(text[: 150 * 32]), dtype=torch.uint8).reshape(-1, 32).float()
    np.save(tmp_path / "real.npy", rows.numpy())
    np.save(tmp_path / "alike.npy", rows[:75].numpy())
    np.save(tmp_path / "backwards.npy", rows.flip(1).numpy())
    source = f'tensor:path="{tmp_path / "real.npy"}",held_out=0.5'
    values = [
        evaluate(tmp_path / name, source=source, metrics=["ngram-jsd:n=3"], repeats=2)["ngram-jsd"].value
        for name in ("alike.npy", "backwards.npy")
    ]
    assert values[0] < 0.2 < 0.5 < values[1]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_the_file(runs: Path, ipmgan_: Any, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    chosen = ["--metric", "modes", "--metric", "fid", "--samples", "60", "--repeats", "2", "--device", "cpu"]
    code, printed, told = ipmgan_("evaluate", str(runs / "ring8"), *chosen, "--out", str(out))
    assert code == 0
    assert "modes covered" in printed
    assert "high_quality" in printed
    assert "against ring8, held-out; means over 2 draws" in printed
    assert "overlap" not in printed
    assert [line.split("  ")[1] for line in told.splitlines()][:2] == ["modes, draw 1 of 2", "fid, draw 1 of 2"]
    assert {result["metric"] for result in json.loads(out.read_text())["results"]} == {"modes", "fid"}


def test_the_command_prints_json(runs: Path, ipmgan_: Any) -> None:
    arguments = ["--metric", "sliced-wasserstein:directions=4", "--samples", "20", "--repeats", "2", "--json"]
    code, printed, _ = ipmgan_("evaluate", str(runs / "ring8"), *arguments, "--split", "train")
    assert code == 0
    (result,) = json.loads(printed)["results"]
    assert (result["split"], result["options"], len(result["values"])) == ("train", {"directions": 4}, 2)


def test_the_command_says_what_is_wrong_or_doubtful(runs: Path, ipmgan_: Any) -> None:
    printed = ipmgan_("evaluate", str(runs / "digits"), "--metric", "fid", "--samples", "300", "--repeats", "2")[1]
    assert "real samples are from sets that overlap in every draw, so the standard error is too small: fid" in printed
    assert re.search(r"by features of mnist \([0-9a-f]{8}\), 8x8 to 28x28, bilinear, antialiased: fid", printed)
    code, _, told = ipmgan_("evaluate", str(runs / "ring8"), "--metric", "sharpness")
    assert code == 2
    assert told.startswith("error: sharpness: it is for grey and colour images")
    assert ipmgan_("evaluate", str(runs / "nothing"))[0] == 2
    assert ipmgan_("evaluate", str(runs / "nothing"), "--source", "ring8")[0] == 3


def test_a_third_party_s_metric_of_the_first_kind_still_works(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ipmgan.plugin import Quantity

    @attrs.frozen(kw_only=True)
    class Gap(Metric):
        name = "gap"
        measures = Quantity(name="gap", unit="data units")
        samples = 10

        def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
            return fake.mean() - real.mean()

    with pytest.raises(UsageError, match="no metric 'gap'"):
        Evaluator(runs / "ring8", metrics=[Gap()])
    monkeypatch.setattr("ipmgan.evaluation.evaluate.versions", lambda plugins: {})
    found = evaluate(runs / "ring8", metrics=[Gap()], repeats=2, out=runs / "gap.json")
    assert (found["gap"].real, found["gap"].generated) == (10, 10)


@pytest.fixture(scope="module")
def replicates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replicates") / "ring"
    ipmgan.train(**TINY, source="ring8", replicates=3, seed=9, out=path)
    return path


def test_every_seed_of_replicates_is_evaluated(replicates: Path, ipmgan_: Any) -> None:
    chosen = ["--metric", "sliced-wasserstein", "--metric", "modes", "--samples", "60", "--repeats", "2"]
    code, printed, told = ipmgan_("evaluate", str(replicates), *chosen)
    assert code == 0
    assert "ring, 3 seeds, step 2, against ring8, held-out; means over 2 draws" in printed
    assert "high_quality" in printed
    assert "seed-9, sliced-wasserstein, draw 1 of 2" in told
    saved = json.loads((replicates / "evaluation.json").read_text())
    values = []
    for number, seed in enumerate((9, 10, 11)):
        alone = evaluate(replicates / f"seed-{seed}", metrics=["sliced-wasserstein"], samples=60, repeats=2, out=None)
        values.append(alone["sliced-wasserstein"].value)
        assert saved["seeds"][number]["subject"] == str(replicates / f"seed-{seed}")
    sliced, modes = saved["results"]
    assert sliced["value"]["values"] == values
    assert sliced["value"]["mean"] == pytest.approx(np.mean(values))
    assert sliced["value"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (modes["metric"], modes["unit"]) == ("modes", "modes")
    assert len(modes["more"]["high_quality"]["values"]) == 3
    code, printed, _ = ipmgan_("evaluate", str(replicates), *chosen, "--json", "--out", str(replicates / "found.json"))
    assert json.loads(printed) == json.loads((replicates / "found.json").read_text())


def test_a_seed_without_a_checkpoint_is_left_out(replicates: Path, ipmgan_: Any, tmp_path: Path) -> None:
    shutil.copytree(replicates, tmp_path / "ring")
    chosen = ["--metric", "sliced-wasserstein", "--samples", "60", "--repeats", "1", "--json"]
    shutil.rmtree(tmp_path / "ring" / "seed-10" / "checkpoints")
    code, printed, told = ipmgan_("evaluate", str(tmp_path / "ring"), *chosen)
    assert (code, len(json.loads(printed)["seeds"])) == (0, 2)
    assert "left out" in told
    assert "seed-10 has no checkpoint yet" in told
    for seed in (9, 11):
        shutil.rmtree(tmp_path / "ring" / f"seed-{seed}" / "checkpoints")
    assert ipmgan_("evaluate", str(tmp_path / "ring"), *chosen)[0] == 4


def test_replicates_are_no_run_but_hold_some(replicates: Path) -> None:
    several = "holds runs of several seeds: give one of them, .*seed-9, .*seed-10, .*seed-11"
    with pytest.raises(CheckpointError, match=several):
        evaluate(replicates, source="ring8")
    for side in (replicates, f"run:{replicates}"):
        with pytest.raises(CheckpointError, match=several):
            ipmgan.distance("ring8", side)
