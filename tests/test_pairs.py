"""Every objective with every enforcer trains and resumes to the bit, or is refused; the page of pairs has them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipmgan.config import configure
from ipmgan.engine.rundir import RunDir
from ipmgan.testing.base import ConformanceError
from ipmgan.testing.pairs import PACKAGE, SMALL, SOURCES, Pair, pairs, table, verdicts
from ipmgan.testing.training import compare

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "pairs.md"
PAIRS = pairs()
KNOWN = verdicts(PAGE.read_text(encoding="utf-8"))


def cells() -> Iterator[Any]:
    """What is built in on the points always, all else only where there is time."""
    for pair in PAIRS:
        for number, source in enumerate(SOURCES):
            marks = [] if pair.builtin and number == 0 else [pytest.mark.slow]
            yield pytest.param(pair, number, marks=marks, id=f"{pair} on {source}")


@pytest.fixture(scope="module", autouse=True)
def pictures_cost_nothing() -> Iterator[None]:
    """Drawing them takes longer than the training here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipmgan.engine.loop.draw_samples", lambda path, *_: path.touch())
        yield


@pytest.mark.parametrize(("pair", "source"), list(cells()))
def test_every_pair_trains_and_resumes_to_the_bit_or_is_refused(pair: Pair, source: int, tmp_path: Path) -> None:
    reason = pair.outcome(tmp_path, source)
    assert reason == "" or ":" in reason, "a refusal says why, and what to do"
    if PACKAGE in reason:
        pytest.skip(reason)
    said = KNOWN[str(pair)]
    assert not said or said[source] == (not reason), f"docs/pairs.md says otherwise of {pair}: make pairs"
    if not reason:
        assert configure(**pair.settings(tmp_path, source)) == RunDir(tmp_path / "half").config()


def test_the_page_lists_the_pairs_that_there_are() -> None:
    """Of the plugins that are installed here; whoever installs others has them checked all the same."""
    assert KNOWN.keys() == {str(pair) for pair in PAIRS}


def test_known_outcomes() -> None:
    assert KNOWN["wgan-clip"] == KNOWN["nonsaturating-none"] == KNOWN["mmd+critic-sphere"] == (True, True)
    assert KNOWN["wgan-none"] == KNOWN["mmd-clip"] == KNOWN["mmd+critic-gp"] == (False, False)


def test_the_table_of_a_few() -> None:
    few = [
        Pair(objective="a-b", enforcer="e", builtin=True),
        Pair(objective="a-b", enforcer="f", builtin=True),
        Pair(objective="c", features=True, enforcer="e", builtin=True),
        Pair(objective="c", features=True, enforcer="f", builtin=True),
    ]
    reasons = [("", ""), ("f refuses a-b: no", "f refuses a-b: no"), ("", "e refuses c: see me"), ("", "")]
    page = table(zip(few, reasons, strict=True))
    assert "| `a-b` | yes | no: (a) |" in page
    assert "| `c` with a critic | in part: (b, on 28x28 pictures) | yes |" in page
    assert "(a) The enforcer refuses the objective: no." in page
    assert verdicts(page) == {
        "a-b-e": (True, True), "a-b-f": (False, False), "c+critic-e": (True, False), "c+critic-f": (True, True)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "critic"),
    [
        ("mmd:estimator=linear", "mlp:width=8,depth=1,features=4"),
        ("ebgan:pulling_away=0.1", "autoencoder:hidden=8,code=4,with_code=true"),
    ],
)
@pytest.mark.parametrize("enforcer", ["none", "clip", "sphere"])
def test_objectives_with_options_resume_too(objective: str, critic: str, enforcer: str, tmp_path: Path) -> None:
    from ipmgan.engine.loop import Trainer

    chosen = {"objective": objective, "critic": critic, "lipschitz": enforcer, "source": "ring8"}
    settings = SMALL | chosen | {"generator": "mlp:width=8,depth=1", "steps": 4}
    whole = Trainer(out=tmp_path / "whole", **settings).train()
    half = Trainer(out=tmp_path / "half", **settings)
    for _ in half:
        if half.step == 2:
            half.stop()
    resumed = Trainer.resume(half.run_dir.path).train()
    compare(whole, resumed, "a resumed run")
    other = Trainer(out=tmp_path / "other", **settings | {"seed": 1}).train()
    with pytest.raises(ConformanceError, match="ends with another"):
        compare(whole, other, "a resumed run")
