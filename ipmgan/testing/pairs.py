"""Every objective with every enforcer: trains and resumes to the bit, or is refused with a reason.

``python -m ipmgan.testing.pairs docs/pairs.md`` writes the table of outcomes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from ipmgan.config import configure
from ipmgan.engine.checks import check
from ipmgan.engine.loop import Trainer
from ipmgan.errors import UsageError
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.registry import Entry, registry
from ipmgan.testing.training import compare, pictures

STEPS = 20
SOURCES = ("ring8", "28x28 pictures")
ENERGIES = ("autoencoder:hidden=8,code=2", "dcgan:nf=2")
SCORES = ("mlp:width=8,depth=2", "dcgan:nf=2")
FEATURES = ("mlp:width=8,depth=2,features=3", "dcgan:nf=2,features=3")
GENERATORS = ("mlp:width=8,depth=1", "dcgan:nf=2")
PACKAGE = "pip install"
"""What the refusal of a plugin says whose own package is missing."""
SMALL: dict[str, Any] = {
    "latent": "normal:dim=3",
    "batch": 8,
    "n_critic": 1,
    "steps": STEPS,
    "device": "cpu",
    "workers": 0,
    "compile": "off",
    "log_every": STEPS,
    "sample_every": STEPS,
    "held_out_batches": 1,
    "metrics": [],
}
HEAD = """# Which pairs train

Every objective with every enforcer, of ipmgan and of the distributions under `plugins/`, with small networks, for
{steps} steps on `ring8` and on pictures of 28x28. "yes": it trains, and a run that stops half-way and resumes ends with
the same bits. "no": it is refused before the first step, with the reason below. "if installed": the plugin needs a
package that was not there when this page was made. `make pairs` writes it, and `make slow` goes through all of it. What
each pair means is said in [Choosing](choosing.md).
"""


@attrs.frozen(kw_only=True)
class Pair:
    """An objective, the kind of critic that it gets, and an enforcer."""

    objective: str
    features: bool = False
    """A critic for an objective that can do without."""
    enforcer: str
    builtin: bool

    @property
    def row(self) -> str:
        """The pair's row in the table."""
        return f"`{self.objective}`" + (" with a critic" if self.features else "")

    def __str__(self) -> str:
        return f"{self.objective}{'+critic' if self.features else ''}-{self.enforcer}"

    def settings(self, folder: Path, source: int) -> dict[str, Any]:
        """The settings of a run on the first source or the second, with files in a folder."""
        kind = _objective(self.objective).critic
        critics = {CriticKind.NONE: FEATURES, CriticKind.FEATURES: FEATURES, CriticKind.ENERGY: ENERGIES}
        critic: Any = critics.get(kind, SCORES)[source]
        if kind is CriticKind.NONE and not self.features:
            critic = "none"
        place = "ring8" if source == 0 else pictures(folder)
        chosen = {"objective": self.objective, "lipschitz": self.enforcer, "source": place, "critic": critic}
        return SMALL | chosen | {"generator": GENERATORS[source]}

    def start(self, folder: Path, source: int) -> Trainer | str:
        """A run at its start, or why the pair is refused."""
        settings = self.settings(folder, source)
        try:
            check(configure(**settings))
            return Trainer(out=folder / "whole", **settings)
        except UsageError as error:
            return " ".join(str(error).split())

    def outcome(self, folder: Path, source: int) -> str:
        """Why the pair is refused; empty where it trains and resumes. Raises `ConformanceError` where it does not."""
        whole = self.start(folder, source)
        if isinstance(whole, str):
            return whole
        half = Trainer(whole.config, out=folder / "half")
        for _ in half:
            if half.step == STEPS // 2:
                half.stop()
        compare(whole.train(), Trainer.resume(half.run_dir.path).train(), f"{self}, resumed,")
        return ""


def pairs() -> list[Pair]:
    """All pairs of the plugins that are installed."""
    found = []
    for objective in _entries("objective"):
        ways = (False, True) if _objective(objective.plugin.name).critic is CriticKind.NONE else (False,)
        for features in ways:
            for enforcer in _entries("lipschitz"):
                own = objective.distribution == enforcer.distribution == "ipmgan"
                names = {"objective": objective.plugin.name, "enforcer": enforcer.plugin.name}
                found.append(Pair(**names, features=features, builtin=own))
    return found


def _entries(kind: str) -> list[Entry]:
    return registry().entries(kind)


def _objective(name: str) -> type[Objective]:
    plugin = registry().find("objective", name).plugin
    assert issubclass(plugin, Objective)
    return plugin


def table(outcomes: Iterable[tuple[Pair, Sequence[str]]]) -> str:
    """The page of outcomes: each pair's reasons, a source each, empty where it trains."""
    known = list(outcomes)
    enforcers = list(dict.fromkeys(pair.enforcer for pair, _ in known))
    notes: dict[str, str] = {}
    rows: dict[str, list[str]] = {}
    for pair, reasons in known:
        rows.setdefault(pair.row, []).append(_cell(pair, reasons, notes))
    head = [f"| objective | {' | '.join(f'`{name}`' for name in enforcers)} |", "|---" * (len(enforcers) + 1) + "|"]
    body = [f"| {row} | {' | '.join(cells)} |" for row, cells in rows.items()]
    reasons = [f"({letter}) {reason}\n" for reason, letter in notes.items()]
    return "\n".join([HEAD.format(steps=STEPS), *head, *body, "", *reasons])


def _cell(pair: Pair, reasons: Sequence[str], notes: dict[str, str]) -> str:
    letters: list[str] = []
    for source, reason in zip(SOURCES, reasons, strict=True):
        if reason:
            general = _without_names(pair, reason)
            letter = notes.setdefault(general, _letter(len(notes)))
            letters.append(letter if all(reasons) else f"{letter}, on {source}")
    if not letters:
        return "yes"
    if all(PACKAGE in reason for reason in reasons):
        return f"if installed: ({letters[0]})"
    return f"{'no' if all(reasons) else 'in part'}: ({', '.join(dict.fromkeys(letters))})"


def _without_names(pair: Pair, reason: str) -> str:
    """The reason with the pair's names replaced, so that pairs share it."""
    for name, what in ((pair.objective, "the objective"), (pair.enforcer, "the enforcer")):
        reason = re.sub(rf"(?<![\w\[.'-]){re.escape(name)}(?![\w\].-])", what, reason)
    reason = re.sub(r"/\S*/", "", reason)
    return reason[:1].upper() + reason[1:].rstrip(".") + "."


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else _letter(number // 26 - 1) + _letter(number % 26)


def verdicts(page: str) -> dict[str, tuple[bool, ...]]:
    """What a page says: whether each pair, as it writes itself, trains on each source; empty where it cannot say."""
    found: dict[str, tuple[bool, ...]] = {}
    enforcers: list[str] = []
    for line in page.splitlines():
        if line.startswith("| "):
            row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if row == "objective":
                enforcers = [cell.strip("`") for cell in cells]
                continue
            name = row.replace(" with a critic", "+critic").replace("`", "")
            for enforcer, cell in zip(enforcers, cells, strict=True):
                trains = (cell == "yes" or (cell.startswith("in part") and f"on {s}" not in cell) for s in SOURCES)
                found[f"{name}-{enforcer}"] = () if cell.startswith("if installed") else tuple(trains)
    return found


def outcomes() -> Iterator[tuple[Pair, Sequence[str]]]:
    """Each pair with what came of it on each source."""
    for pair in pairs():
        reasons = []
        for source in range(len(SOURCES)):
            with tempfile.TemporaryDirectory() as folder:
                reasons.append(pair.outcome(Path(folder), source))
        yield pair, reasons


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table(outcomes()), encoding="utf-8")
