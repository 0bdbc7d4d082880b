"""``ipmgan evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ipmgan.evaluation.evaluate import Evaluator
    from ipmgan.evaluation.results import Evaluation, Result

SELECTION = "name:key=value,..."


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run, or a .npy, .npz or .safetensors file, or a folder of images.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="What to compute; may be repeated. Else all that apply.", metavar=SELECTION)
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Samples of either side in a draw; else each metric's own.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Draws, over which the standard error is taken.")] = 5,
    split: Annotated[str, typer.Option(help="Where real samples come from: held-out or train.")] = "held-out",
    source: Annotated[str | None, typer.Option(help="The real samples; else the run's.", metavar=SELECTION)] = None,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    average: Annotated[bool, typer.Option(help="Use the averaged generator where the run has one.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="The JSON file; else evaluation.json in the run.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute metrics of a run's generator, or of stored samples, each over repeated draws."""
    from ipmgan.cli.output import print_json, say, shown
    from ipmgan.evaluation.evaluate import Evaluator, place

    evaluator = Evaluator(
        run,
        metrics=metric or (),
        samples=samples,
        repeats=repeats,
        split=split,
        source=source,
        seed=seed,
        average=average,
        device=device,
    )
    _compute(evaluator)
    evaluation = evaluator.evaluation()
    target = place(evaluator, out)
    if target is not None:
        evaluation.save(target)
    if json:
        print_json(evaluation.table())
        return
    _print(evaluation)
    if target is not None:
        say(f"written to {shown(target)}")


def _compute(evaluator: Evaluator) -> None:
    """Compute everything while showing how far it is: a live line on a terminal, else a line a metric."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ipmgan.cli.output import say

    console = Console(stderr=True)
    if not console.is_terminal:
        for number, what in enumerate(evaluator):
            say(f"{number}/{len(evaluator)}  {what}", err=True)
        return
    columns = (BarColumn(bar_width=10), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console) as progress:
        task = progress.add_task("", total=len(evaluator))
        for number, what in enumerate(evaluator):
            progress.update(task, completed=number, description=what)
        progress.update(task, completed=len(evaluator), description="done")


def _print(evaluation: Evaluation) -> None:
    from ipmgan.cli.output import print_table, say, shown

    step = "" if evaluation.step is None else f", step {evaluation.step}"
    against = f"{evaluation.source['name']}, {evaluation.results[0].split}" if evaluation.results else "nothing"
    draws = "one draw" if evaluation.repeats == 1 else f"means over {evaluation.repeats} draws"
    say(f"{shown(evaluation.subject)}{step}, against {against}; {draws}")
    print_table([row for result in evaluation.results for row in _rows(result)], wraps="unit")
    for note in dict.fromkeys(note for result in evaluation.results for note in _notes(result)):
        names = [result.title for result in evaluation.results if note in _notes(result)]
        say(f"{note}: {', '.join(names)}")
    for name, reason in evaluation.skipped.items():
        say(f"left out {name}: {reason}", err=True)


def _rows(result: Result) -> list[dict[str, str]]:
    samples = {f"{count:,}" for count in (result.generated, result.real)}
    first = {
        "metric": result.title,
        "quantity": result.measures.name,
        "value": _number(result.value),
        "std. error": _number(result.standard_error),
        "samples": samples.pop() if len(samples) == 1 else f"{result.generated:,} / {result.real:,}",
        "unit": result.measures.unit,
    }
    rows = [first]
    for name, estimate in result.more.items():
        told = {"quantity": f"  {name}", "value": _number(estimate.value)}
        rows.append(dict.fromkeys(first, "") | told | {"std. error": _number(estimate.standard_error)})
    return rows


def _notes(result: Result) -> list[str]:
    """What holds of several results, and is said once."""
    notes = []
    if result.network != "none":
        resizing = "" if result.resizing == "none" else f", {result.resizing}"
        notes.append(f"by features of {result.network} ({result.checksum[:8]}){resizing}")
    for side, how in (("real", result.real_draws), ("generated", result.generated_draws)):
        if how in ("all", "overlapping") and len(result.values) > 1:
            words = "all that there are" if how == "all" else "from sets that overlap"
            notes.append(f"{side} samples are {words} in every draw, so the standard error is too small")
    return notes


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
