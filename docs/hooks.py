"""Makes the pages of the built-in plugins and the list of presets from the package, when the site is built."""

from __future__ import annotations

import inspect
from pathlib import PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from ipmgan.config import load_preset, presets
from ipmgan.registry import Entry, registry
from ipmgan.reports.describe import page

KINDS = {
    "objective": ("Objectives", "The distance that training minimises: `--objective`."),
    "lipschitz": ("Enforcers", "What holds the critic's Lipschitz constant down: `--lipschitz`."),
    "network": ("Networks", "Families of generators and critics: `--generator` and `--critic`."),
    "source": ("Sources", "Where real samples come from: `--source`."),
    "metric": ("Metrics", "Numbers about samples that no critic has a hand in: `metrics` in a configuration file."),
    "perturbation": ("Perturbations", "What is done to everything that the critic sees: `--perturbation`."),
    "tracker": ("Trackers", "Where metrics and pictures are sent besides the run's directory: `--tracker`."),
}


def builtins(kind: str) -> list[Entry]:
    """The plugins of a kind that come with the package, whatever else is installed."""
    return [entry for entry in registry().entries(kind) if entry.distribution == "ipmgan"]


def path_of(entry: Entry) -> str:
    """Where the page of a plugin lies."""
    return f"plugins/{entry.plugin.kind}/{entry.plugin.name}.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the plugins into the navigation."""
    sections = [
        {title: [{entry.plugin.name: path_of(entry)} for entry in builtins(kind)]} for kind, (title, _) in KINDS.items()
    ]
    config.nav = [
        {"Plugins": [{"All of them": "plugins/index.md"}, *sections]} if "Plugins" in item else item
        for item in config.nav or ()
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each plugin, and one that lists them."""
    files.append(File.generated(config, "plugins/index.md", content=index()))
    for kind in KINDS:
        for entry in builtins(kind):
            files.append(File.generated(config, path_of(entry), content=page(entry)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Append the presets to their page."""
    if page.file.src_uri != "presets.md":
        return markdown
    return "\n\n".join(
        [markdown, *(f"## {name}\n\n```toml\n{load_preset(name)[0].rstrip()}\n```" for name in presets())]
    )


def index() -> str:
    """The page that lists the plugins by kind, each with its first line."""
    lines = [
        "# Plugins",
        "",
        "Everything that a run is made of, with a page made from its class. The same text is printed by",
        "`ipmgan plugins show NAME`, for plugins of other distributions too.",
        "",
    ]
    for kind, (title, what) in KINDS.items():
        lines += [f"## {title}", "", what, "", "| name | what it is |", "|---|---|"]
        for entry in builtins(kind):
            target = PurePosixPath(path_of(entry)).relative_to("plugins")
            summary = (inspect.getdoc(entry.plugin) or "").split("\n", 1)[0].replace("|", "\\|")
            lines.append(f"| [{entry.plugin.name}]({target}) | {summary} |")
        lines.append("")
    return "\n".join(lines)
