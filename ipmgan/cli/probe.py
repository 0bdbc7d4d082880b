"""``ipmgan probe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ipmgan.evaluation.probe import Probe

SELECTION = "name:key=value,..."


def probe(
    run: Annotated[Path, typer.Argument(help="The directory of a run.")],
    objective: Annotated[
        str, typer.Option(help="What the critic is trained for.", metavar=SELECTION)
    ] = "nonsaturating",
    critic: Annotated[
        str | None, typer.Option(help="The critic; else the run's, where it fits.", metavar=SELECTION)
    ] = None,
    lipschitz: Annotated[
        str | None, typer.Option(help="Its constraint; else the run's, where one is needed.", metavar=SELECTION)
    ] = None,
    critic_optimizer: Annotated[
        str | None, typer.Option(help="One of torch's; else the objective's.", metavar=SELECTION)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Critic steps; else 4000.")] = None,
    every: Annotated[int | None, typer.Option(help="Critic steps between records; else 10.")] = None,
    draws: Annotated[int | None, typer.Option(help="Generator batches behind each gradient; else 4.")] = None,
    checkpoint: Annotated[int | None, typer.Option(help="The checkpoint's step; else the last.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides the critic's weights and every draw.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    name: Annotated[str | None, typer.Option(help="The directory under the run's probes.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Train a fresh critic against a run's frozen generator, and record the gradients that it would pass on."""
    given: dict[str, Any] = {key: value for key, value in locals().items() if key not in ("run", "json")}
    from ipmgan.cli.output import print_json, say, shown
    from ipmgan.evaluation.probe import Probe

    made = Probe(run, **given)
    marks = {round(len(made) * tenth / 10) for tenth in range(1, 11)}
    for number, record in enumerate(made, 1):
        if number in marks:
            say(f"{record['step']}/{made.settings.steps}  loss {record['loss']:.4g}", err=True)
    picture = made.plot()
    if json:
        print_json(made.table() | {"path": str(made.path), "records": made.records})
        return
    print_probe(made)
    say(f"written to {shown(made.path)}, drawn to {shown(picture)}")


def print_probe(made: Probe) -> None:
    """Print some of a probe's records, as far apart as their steps allow, for a person to read."""
    from ipmgan.cli.output import print_table, say, shown

    say(f"{shown(made.run.path)}, step {made.step}: {made.config.objective.name} critic against the frozen generator")
    count = len(made.records)
    chosen = sorted({0, *(round((count - 1) ** (k / 8)) for k in range(1, 9) if count > 1)})
    print_table([_row(made.records[index]) for index in chosen], wraps="step")


def _row(record: dict[str, Any]) -> dict[str, str]:
    shown = {key: value for key, value in record.items() if not key.startswith(("gradient_variance", "held_out_loss"))}
    return {
        key.replace("gradient_norm_", "‖∇‖ ").replace("_", " "): str(value) if key == "step" else _number(value)
        for key, value in shown.items()
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
