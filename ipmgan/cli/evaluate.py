"""``ipmgan evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ipmgan.evaluation.evaluate import Evaluator
    from ipmgan.evaluation.results import Evaluation, Result, SeedsEvaluation, SeedsResult, Spread

SELECTION = "name:key=value,..."
SETTINGS = ("samples", "repeats", "split", "source", "seed", "average", "device")


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run, replicates, a .npy, .npz or .safetensors file, or a folder.")],
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
    """Compute metrics of a run's generator, or of stored samples, each over repeated draws.

    Of replicates every seed is evaluated, and mean and standard deviation over the seeds are shown.
    """
    settings: dict[str, Any] = {key: value for key, value in locals().items() if key in SETTINGS}
    settings["metrics"] = metric or ()
    from ipmgan.cli.output import print_json, say, shown
    from ipmgan.engine.rundir import seeds_at
    from ipmgan.evaluation.evaluate import FILE, Evaluator, place
    from ipmgan.evaluation.results import SeedsEvaluation

    found: Evaluation | SeedsEvaluation
    target: Path | None
    places = seeds_at(run)
    if places:
        found, target = _evaluate_seeds(run, places, settings), out or run / FILE
    else:
        evaluator = Evaluator(run, **settings)
        _compute(evaluator)
        found, target = evaluator.evaluation(), place(evaluator, out)
    if target is not None:
        found.save(target)
    if json:
        print_json(found.table())
        return
    if isinstance(found, SeedsEvaluation):
        _print_seeds(found)
    else:
        _print(found)
    if target is not None:
        say(f"written to {shown(target)}")


def _evaluate_seeds(run: Path, places: Sequence[Path], settings: Mapping[str, Any]) -> SeedsEvaluation:
    """Evaluate one seed after another, each into its own directory; seeds without a checkpoint are left out."""
    from ipmgan.cli.output import say, shown
    from ipmgan.errors import CheckpointError
    from ipmgan.evaluation.evaluate import FILE, Evaluator
    from ipmgan.evaluation.results import SeedsEvaluation

    done, problems = [], []
    for place in places:
        try:
            evaluator = Evaluator(place, **settings)
        except CheckpointError as error:
            problems.append(error)
            say(f"left out {shown(place)}: {error}", err=True)
            continue
        _compute(evaluator, f"{place.name}, ")
        done.append(evaluator.evaluation())
        done[-1].save(place / FILE)
    if not done:
        raise problems[-1]
    return SeedsEvaluation(subject=str(run), seeds=tuple(done))


def _compute(evaluator: Evaluator, before: str = "") -> None:
    """Compute everything while showing how far it is: a live line on a terminal, else a line a metric."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ipmgan.cli.output import say

    console = Console(stderr=True)
    if not console.is_terminal:
        for number, what in enumerate(evaluator):
            say(f"{number}/{len(evaluator)}  {before}{what}", err=True)
        return
    columns = (BarColumn(bar_width=10), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console) as progress:
        task = progress.add_task("", total=len(evaluator))
        for number, what in enumerate(evaluator):
            progress.update(task, completed=number, description=f"{before}{what}")
        progress.update(task, completed=len(evaluator), description="done")


def _print(evaluation: Evaluation) -> None:
    from ipmgan.cli.output import shown

    step = "" if evaluation.step is None else f", step {evaluation.step}"
    rows = [row for result in evaluation.results for row in _rows(result)]
    _tell(f"{shown(evaluation.subject)}{step}", evaluation, rows, _notes)


def _print_seeds(found: SeedsEvaluation) -> None:
    from ipmgan.cli.output import shown

    steps = sorted({evaluation.step or 0 for evaluation in found.seeds})
    reached = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    rows = [row for result in found.results for row in _seed_rows(result)]
    _tell(f"{shown(found.subject)}, {len(found.seeds)} seeds, {reached}", found.seeds[0], rows, _by)


def _tell(
    subject: str, evaluation: Evaluation, rows: Sequence[Mapping[str, str]], notes: Callable[[Result], list[str]]
) -> None:
    """The table, what it is about, and what must be known to read it."""
    from ipmgan.cli.output import print_table, say

    results = evaluation.results
    against = f"{evaluation.source['name']}, {results[0].split}" if results else "nothing"
    draws = "one draw" if evaluation.repeats == 1 else f"means over {evaluation.repeats} draws"
    say(f"{subject}, against {against}; {draws}")
    print_table(rows, wraps="unit")
    for note in dict.fromkeys(note for result in results for note in notes(result)):
        say(f"{note}: {', '.join(result.title for result in results if note in notes(result))}")
    for name, reason in evaluation.skipped.items():
        say(f"left out {name}: {reason}", err=True)


def _seed_rows(result: SeedsResult) -> list[dict[str, str]]:
    named = {"metric": result.first.title, "quantity": result.first.measures.name}
    first = named | _spread(result.value) | {"unit": result.first.measures.unit}
    blank = dict.fromkeys(first, "")
    return [first, *(blank | {"quantity": f"  {name}"} | _spread(spread) for name, spread in result.more.items())]


def _spread(spread: Spread) -> dict[str, str]:
    lowest, highest = min(spread.values), max(spread.values)
    told = {"mean": spread.mean, "sd": spread.sd, "lowest": lowest, "highest": highest}
    return {key: _number(value) for key, value in told.items()}


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
    notes = _by(result)
    for side, how in (("real", result.real_draws), ("generated", result.generated_draws)):
        if how in ("all", "overlapping") and len(result.values) > 1:
            words = "all that there are" if how == "all" else "from sets that overlap"
            notes.append(f"{side} samples are {words} in every draw, so the standard error is too small")
    return notes


def _by(result: Result) -> list[str]:
    if result.network == "none":
        return []
    resizing = "" if result.resizing == "none" else f", {result.resizing}"
    return [f"by features of {result.network} ({result.checksum[:8]}){resizing}"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
