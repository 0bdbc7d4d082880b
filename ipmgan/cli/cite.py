"""``ipmgan cite``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def cite(run: Annotated[Path, typer.Argument(help="The run's directory.")]) -> None:
    """Print BibTeX for everything that a run used."""
    from ipmgan.engine.run import load

    references = {ref.key: ref for plugin in load(run).config.plugins for ref in plugin.references}
    typer.echo("\n\n".join(references[key].bibtex() for key in sorted(references)))
