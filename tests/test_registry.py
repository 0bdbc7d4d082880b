"""Plugins of other distributions: found, kept apart when broken, never able to take a built-in's place."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import ipmgan
from ipmgan.cli.app import main
from ipmgan.errors import PluginError, UsageError
from ipmgan.registry import SWITCH, Registry, registry, table_of, versions

HEAD = """
import attrs
from ipmgan import CriticKind, LipschitzEnforcer, Objective, Quantity, hookimpl, option
"""


def objective(name: str, cls: str = "Gap", extra: str = "") -> str:
    """The source of an objective."""
    return f'''
@attrs.frozen(kw_only=True)
class {cls}(Objective):
    """The gap between two means."""

    name = "{name}"
    critic = CriticKind.SCORE
    estimates = Quantity(name="gap", unit="data units")
    scale: float = option(1.0, help="a factor", above=0)
    {extra}

    def critic_loss(self, real, fake):
        return fake.mean() - real.mean()

    def generator_loss(self, real, fake):
        return -fake.mean()

    def estimate(self, real, fake):
        return real.mean() - fake.mean()
'''


def offering(*classes: str) -> str:
    return f"\n@hookimpl\ndef ipmgan_objectives():\n    return [{', '.join(classes)}]\n"


GOOD = HEAD + objective("gap") + offering("Gap")


class Site:
    """A folder of installed distributions, as pip leaves them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, name: str, modules: Mapping[str, str], version: str = "1.2", metadata: bool = True) -> None:
        """A distribution with an entry point for each of its modules."""
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        if metadata:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{module} = {module}" for module in modules]
        (info / "entry_points.txt").write_text("\n".join(["[ipmgan]", *lines]) + "\n")
        for module, source in modules.items():
            (self.path / f"{module}.py").write_text(textwrap.dedent(source))

    def registry(self) -> Registry:
        points = [
            point
            for distribution in importlib.metadata.distributions(path=[str(self.path)])
            for point in distribution.entry_points
            if point.group == "ipmgan"
        ]
        return Registry(reversed(points))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(SWITCH, raising=False)
    registry.cache_clear()
    yield Site(tmp_path)
    registry.cache_clear()
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def names_of(made: Registry) -> set[tuple[str, str]]:
    return {(entry.distribution, entry.plugin.name) for entry in made.entries()}


BUILT_IN = names_of(Registry())


def test_builtins_alone_have_every_kind_and_nothing_broken() -> None:
    made = Registry()
    assert {entry.distribution for entry in made.entries()} == {"ipmgan"}
    kinds = {"objective", "lipschitz", "network", "source", "metric", "perturbation", "tracker"}
    assert {entry.plugin.kind for entry in made.entries()} == kinds
    assert made.broken == []
    assert made.find("objective", "nsgan") is made.find("objective", "nonsaturating")


def test_every_builtin_turns_into_a_table_and_back() -> None:
    made = Registry()
    for entry in made.entries():
        try:
            plugin = made.make(entry.plugin.kind, entry.plugin.name)
        except UsageError as error:
            assert "needs" in str(error)  # noqa: PT017  (an option without a default, such as a path)
            continue
        assert made.make(entry.plugin.kind, table_of(plugin)) == plugin


def test_good_plugin_is_found_and_made(site: Site) -> None:
    site.install("acme-gap", {"acme_gap": GOOD})
    made = site.registry()
    assert names_of(made) == BUILT_IN | {("acme-gap", "gap")}
    plugin = made.make("objective", "gap:scale=2")
    assert (plugin.name, table_of(plugin)) == ("gap", {"name": "gap", "scale": 2.0})
    with pytest.raises(UsageError, match="objective gap: scale = -1"):
        made.make("objective", "gap:scale=-1")


def test_versions_name_the_distribution(site: Site) -> None:
    site.install("acme-gap", {"acme_gap": GOOD}, version="3.1")
    assert versions([registry().make("objective", "gap")])["acme-gap"] == "3.1"


BROKEN = {
    "raises": ("raise RuntimeError('no licence\\nfound')", "RuntimeError: no licence found"),
    "exits": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "exits-silently": ("raise SystemExit", "SystemExit"),
    "syntax": ("def (", "SyntaxError"),
    "missing-import": ("import no_such_module_anywhere", "ModuleNotFoundError"),
    "signature": (HEAD + "@hookimpl\ndef ipmgan_objectives(registry):\n    return []", "PluginValidationError"),
    "hook-raises": (HEAD + "@hookimpl\ndef ipmgan_objectives():\n    1 / 0", "ZeroDivisionError"),
    "hook-exits": (HEAD + "@hookimpl\ndef ipmgan_objectives():\n    raise SystemExit(3)", "SystemExit: 3"),
    "nothing": (HEAD + "@hookimpl\ndef ipmgan_objectives():\n    pass", "must return a sequence of classes, not None"),
    "number": (HEAD + "@hookimpl\ndef ipmgan_objectives():\n    return 3", "must return a sequence of classes, not 3"),
    "no-class": (HEAD + offering("'gap'"), "attrs classes derived from Objective, not 'gap'"),
    "instance": (GOOD.replace("return [Gap]", "return [Gap()]"), "attrs classes derived from Objective, not Gap"),
    "other-kind": (GOOD.replace("ipmgan_objectives", "ipmgan_lipschitz"), "derived from LipschitzEnforcer"),
    "unknown-hook": (GOOD.replace("ipmgan_objectives", "ipmgan_objectivs"), "unknown hook 'ipmgan_objectivs'"),
    "no-hook": (HEAD + objective("gap"), "implements no hook"),
    "abstract": (GOOD.replace("def estimate", "def estimates_of"), "Gap lacks estimate"),
    "no-estimates": (GOOD.replace("    estimates = ", "    reads = "), "Gap lacks estimates"),
    "no-name": (GOOD.replace('    name = "gap"\n', ""), "Gap lacks name"),
    "bad-name": (GOOD.replace('"gap"', '"../gap"'), "'../gap' is no name"),
    "name-not-text": (GOOD.replace('name = "gap"', "name = 7"), "7 is no name"),
    "aliases-a-string": (GOOD.replace("critic =", 'aliases = "gap2"; critic ='), "aliases must be a tuple"),
    "type-unknown": (GOOD.replace("scale: float", "scale: 'Flaot'"), "NameError"),
    "taken": (HEAD + objective("wgan") + offering("Gap"), "the objective name 'wgan' belongs to ipmgan itself"),
    "taken-alias": (HEAD + objective("gap", extra='aliases = ("nsgan",)') + offering("Gap"), "'nsgan' belongs"),
    "twice": (HEAD + objective("gap") + offering("Gap", "Gap"), "offers the objective 'gap' twice"),
    "own-alias": (HEAD + objective("gap", extra='aliases = ("gap",)') + offering("Gap"), "'gap' twice"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_listed_and_leaves_the_rest_alone(site: Site, case: str) -> None:
    source, reason = BROKEN[case]
    site.install("a-broken", {"a_broken": source})
    site.install("good", {"good_gap": GOOD.replace('"gap"', '"good-gap"')})
    made = site.registry()
    assert names_of(made) == BUILT_IN | {("good", "good-gap")}
    (broken,) = made.broken
    assert (broken.distribution, broken.version) == ("a-broken", "1.2")
    assert reason in broken.error
    assert "\n" not in broken.error
    with pytest.raises(UsageError, match=r"perhaps what you want: a-broken 1\.2") as refused:
        made.find("objective", "nothing-like-it")
    assert len(str(refused.value).splitlines()) == 2
    assert made.find("objective", "wgan").distribution == "ipmgan"


def test_half_good_distribution_leaves_nothing(site: Site) -> None:
    site.install("half", {"half_a": GOOD, "half_b": BROKEN["raises"][0]})
    made = site.registry()
    assert names_of(made) == BUILT_IN
    assert [broken.distribution for broken in made.broken] == ["half"]
    half = GOOD + "\n@hookimpl\ndef ipmgan_lipschitz():\n    raise ValueError('late')\n"
    site.install("later", {"later": half})
    assert names_of(site.registry()) == BUILT_IN


def test_interrupt_during_an_import_is_not_swallowed(site: Site) -> None:
    site.install("slow", {"slow_import": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        site.registry()


def test_name_claimed_twice_fails_only_when_selected(site: Site) -> None:
    site.install("acme", {"acme": GOOD + objective("only", "Only") + offering("Gap", "Only")})
    site.install("zeta", {"zeta": GOOD})
    made = site.registry()
    assert made.broken == []
    assert made.find("objective", "only").distribution == "acme"
    with pytest.raises(PluginError, match=f"'gap' is offered by acme and zeta.*{SWITCH}"):
        made.find("objective", "gap")


def test_entry_points_of_one_name_are_all_loaded(site: Site) -> None:
    """From two distributions, or twice in one: none is skipped, and one given twice counts once."""
    site.install("one", {"one_gap": GOOD})
    site.install("two", {"two_gap": GOOD.replace('"gap"', '"gap-two"')})
    (site.path / "three_gap.py").write_text(GOOD.replace('"gap"', '"gap-three"'))
    for info, lines in (("one", "main = one_gap"), ("two", "main = two_gap\nmain = three_gap\nmain = two_gap")):
        (site.path / f"{info}-1.2.dist-info" / "entry_points.txt").write_text(f"[ipmgan]\n{lines}\n")
    made = site.registry()
    assert made.broken == []
    assert names_of(made) - BUILT_IN == {("one", "gap"), ("two", "gap-two"), ("two", "gap-three")}


def test_distribution_without_metadata_is_named_by_its_module(site: Site) -> None:
    site.install("bare", {"bare_gap": GOOD}, metadata=False)
    made = site.registry()
    assert names_of(made) - BUILT_IN == {("bare_gap", "gap")}
    assert made.find("objective", "gap").version == "unknown"


def test_object_whose_name_is_another_class_is_refused(site: Site) -> None:
    site.install("acme", {"acme": GOOD})
    made = registry()
    mine = made.make("objective", "gap")
    del sys.modules["acme"]
    registry.cache_clear()
    with pytest.raises(PluginError, match="give yours another name"):
        registry().entry_of(mine)
    assert made.entry_of(mine).distribution == "acme"


CANARY = "from pathlib import Path\nPath(__file__).with_suffix('.imported').touch()\n" + GOOD


@pytest.mark.parametrize(
    ("switch", "imported"),
    [
        ("none", []),
        ("acme-gap", ["acme_gap"]),
        (" Acme_Gap ", ["acme_gap"]),
        ("acme-gap,other.one", ["acme_gap", "other_one"]),
        ("all", ["acme_gap", "other_one"]),
        ("", ["acme_gap", "other_one"]),
    ],
)
def test_switch_decides_what_is_imported(
    site: Site, monkeypatch: pytest.MonkeyPatch, switch: str, imported: list[str]
) -> None:
    site.install("acme-gap", {"acme_gap": CANARY})
    site.install("other-one", {"other_one": CANARY.replace('"gap"', '"other"')})
    monkeypatch.setenv(SWITCH, switch)
    made = registry()
    assert sorted(path.stem for path in site.path.glob("*.imported")) == imported
    offered = {distribution for distribution, _ in names_of(made) - BUILT_IN} & {"acme-gap", "other-one"}
    assert {name.replace("-", "_") for name in offered} == set(imported)


def test_switch_with_an_unknown_name_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("acme-gap", {"acme_gap": CANARY})
    monkeypatch.setenv(SWITCH, "acme-gpa")
    with pytest.raises(UsageError, match=r"did you mean 'acme-gap'\?"):
        registry()
    assert not list(site.path.glob("*.imported"))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ipmgan", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_command_line_lists_broken_plugins(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("nasty", {"nasty": "raise RuntimeError('[bold]x\\x1b[2Jy')"})
    site.install("acme-gap", {"acme_gap": GOOD})
    assert command(monkeypatch, "plugins", "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {
        "kind": "",
        "name": "",
        "also": "",
        "status": "broken",
        "what": "",
        "estimates": "",
        "from": "nasty 1.2",
        "error": "RuntimeError: [bold]x\x1b[2Jy",
    } in rows
    assert any((row["name"], row["status"], row["from"]) == ("gap", "ok", "acme-gap 1.2") for row in rows)
    assert command(monkeypatch, "plugins", "list") == 0
    listed = capsys.readouterr().out
    assert "RuntimeError: [bold]x\\x1b[2Jy" in listed
    assert "\x1b" not in listed
    for arguments in (["train", "--objective", "nastier"], ["plugins", "show", "nastier"]):
        assert command(monkeypatch, *arguments) == 2
        message = capsys.readouterr().err
        assert "nasty 1.2: RuntimeError" in message
        assert "\x1b" not in message
        assert len(message.splitlines()) == 2
    assert command(monkeypatch, "plugins", "show", "gap", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["distribution"] == "acme-gap"


def test_help_works_whatever_is_installed(site: Site) -> None:
    """In a process of its own, where an exit at import would end it; and without importing any plugin."""
    site.install("nasty", {"nasty": "import os; os._exit(9)"})
    environment = {**os.environ, "PYTHONPATH": str(site.path)}
    done = subprocess.run(
        [sys.executable, "-c", "from ipmgan.cli.app import main; main()", "train", "--help"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "--objective" in done.stdout) == (0, True)
    broken = subprocess.run(
        [sys.executable, "-c", "import ipmgan.registry as r; r.registry()"], env=environment, capture_output=True
    )
    assert broken.returncode == 9


# What the command line says of plugins


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert command(monkeypatch, "plugins", "show", *arguments, "--json") == 0
    (about,) = json.loads(capsys.readouterr().out)
    return dict(about)


@pytest.mark.parametrize(
    ("name", "fits", "refused"),
    [
        ("wgan", {"clip", "gp", "sphere"}, {"none": "means nothing over all functions"}),
        ("minimax", {"clip", "gp", "none"}, {}),
        (
            "mmd --kind objective",
            {"none", "clip with a critic"},
            {"clip": "constrains a critic", "gp with a critic": "one number"},
        ),
        ("gp", {"wgan", "ebgan"}, {"mmd": "constrains a critic", "mmd with a critic": "one number"}),
        ("mlp", {"wgan", "minimax", "mmd"}, {}),
        ("autoencoder", {"ebgan"}, {"wgan": "puts out score"}),
    ],
)
def test_what_a_plugin_goes_with(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    fits: set[str],
    refused: dict[str, str],
) -> None:
    monkeypatch.setenv(SWITCH, "none")
    pairs = shown(monkeypatch, capsys, *name.split())["pairs"]
    assert fits <= {partner for partner, reason in pairs.items() if not reason}
    for partner, reason in refused.items():
        assert reason in pairs[partner], partner
    assert command(monkeypatch, "plugins", "show", *name.split()) == 0
    page = capsys.readouterr().out
    for partner in refused:
        assert f"- not `{partner.split()[0]}`" in page


def test_somebody_else_s_failure_is_no_end_of_a_page(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needy = GOOD.replace('option(1.0, help="a factor", above=0)', 'option(help="a factor")')
    broken = GOOD.replace('"gap"', '"odd"', 1).replace(
        "critic =", "needs_code = property(lambda self: 1 / 0)\n    critic ="
    )
    site.install("needy", {"needy": needy})
    site.install("odd", {"odd": broken})
    pairs = shown(monkeypatch, capsys, "clip")["pairs"]
    assert (pairs["wgan"], pairs["odd"]) == ("", "ZeroDivisionError: division by zero")
    assert pairs["gap"] == "objective gap needs scale: write gap:scale=..."


def test_pages_and_lists_are_laid_out_on_a_terminal(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line is cut or longer than the terminal, no mark of Markdown is left, and nobody else steers the terminal."""
    site.install("acme-gap", {"acme_gap": GOOD.replace("two means.", "two means \\x1b[2J.\n\n        m = E[f]\n")})
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    for arguments in (["show", "gp"], ["show", "gap"], ["list"]):
        assert command(monkeypatch, "plugins", *arguments) == 0
        out = capsys.readouterr().out
        assert "\x1b[" in out
        assert "\x1b[2J" not in out
        text = re.sub(r"\x1b\[[0-9;]*m", "", out)
        assert max(map(len, text.splitlines())) <= 80
        assert "|---" not in text
        assert "`" not in text or arguments == ["list"]
    assert "acme-gap" in text


def test_every_plugin_has_a_row_with_what_it_estimates(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SWITCH, "none")
    assert command(monkeypatch, "plugins", "list", "--json") == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["status"] != "off"]
    assert {(row["kind"], row["name"]) for row in rows} == {
        (e.plugin.kind, e.plugin.name) for e in Registry().entries()
    }
    for row in rows:
        assert bool(row["estimates"]) == (row["kind"] in ("objective", "metric")), row["name"]
        assert (row["status"], row["error"]) == ("ok", "")


def test_cite_a_plugin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "cite", "gp") == 0
    done = capsys.readouterr().out
    assert done.startswith("% lipschitz gp\n@inproceedings{gulrajani2017improved,")
    assert command(monkeypatch, "cite", "nsgan") == 0
    assert "% objective nonsaturating\n@inproceedings{goodfellow2014generative," in capsys.readouterr().out
    assert command(monkeypatch, "cite", "none") == 0
    assert "nothing to cite: lipschitz none" in capsys.readouterr().err
    assert command(monkeypatch, "cite", "wgna") == 4
    error = capsys.readouterr().err
    assert error == "error: no run is in 'wgna', and no plugin 'wgna': did you mean 'wgan'? See: ipmgan plugins list\n"
    assert len(error.splitlines()) == 1


def test_cite_says_what_each_paper_is_cited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run, and of replicates; each paper once."""
    tiny: dict[str, Any] = {"generator": "mlp:width=4,depth=1", "batch": 4, "n_critic": 1, "steps": 1, "device": "cpu"}
    settings = {"objective": "wgan", "lipschitz": "gp", "source": "ring8", "perturbation": "noise", **tiny}
    ipmgan.train(out=tmp_path / "one", **settings)
    ipmgan.train(out=tmp_path / "two", replicates=2, **settings)
    for name in ("one", "two"):
        assert command(monkeypatch, "cite", str(tmp_path / name)) == 0
        cited = capsys.readouterr().out
        assert re.search(r"% lipschitz gp, .*source ring8.*\n@inproceedings\{gulrajani2017improved,", cited)
        assert re.search(r"% objective wgan.*\n@inproceedings\{arjovsky2017wasserstein,", cited), cited
        assert "perturbation noise" in cited
        assert cited.count("{gulrajani2017improved,") == 1
    assert command(monkeypatch, "cite", str(tmp_path)) == 4


@pytest.mark.parametrize(
    ("venue", "start"),
    [
        (
            "International Conference on Machine Learning",
            "@inproceedings{k,\n  title = {{T}},\n  author = {A B and C D}",
        ),
        ("Journal of Machine Learning Research", "@article{k,"),
        ("Studia Mathematica", "@article{k,"),
        ("arXiv preprint", "@misc{k,"),
    ],
)
def test_bibtex(venue: str, start: str) -> None:
    entry = ipmgan.Reference(key="k", title="T", authors=("A B", "C D"), year=2000, venue=venue, arxiv="1.2").bibtex()
    assert entry.startswith(start)
    assert f"{{{venue}}}" in entry
    assert entry.count("{") == entry.count("}")
    assert "eprint = {1.2}" in entry
