"""What a person sees: a live line on a terminal, plain lines elsewhere, tables and JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ipmgan.engine.loop import Trainer
from ipmgan.engine.plan import MIB, Plan
from ipmgan.engine.signals import stopping
from ipmgan.reports.curves import draw_curves

Record = Mapping[str, Any]


def follow(trainer: Trainer) -> int:
    """Train while showing how it goes, say where everything lies, and return the exit code."""
    for warning in trainer.warnings:
        typer.echo(f"warning: {warning}", err=True)
    path = trainer.run_dir.path
    typer.echo(f"{trainer.config.title}: {trainer.config.schedule.steps} steps, run directory {path}")
    console = Console()
    start, first = time.monotonic(), trainer.step
    try:
        with stopping(trainer) as caught:
            for _ in _live(trainer, console) if console.is_terminal else _plain(trainer):
                pass
    except KeyboardInterrupt:
        typer.echo(f"stopped at once; go on from the last checkpoint with: ipmgan resume {path}", err=True)
        return 130
    if caught.signal is not None and not trainer.finished:
        typer.echo(f"stopped and saved at step {trainer.step}; go on with: ipmgan resume {path}")
        return caught.exit_code
    _summary(trainer, time.monotonic() - start, trainer.step - first)
    return 0


def _live(trainer: Trainer, console: Console) -> Iterator[None]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[state]}"), console=console)
    with progress:
        task = progress.add_task("", total=trainer.config.schedule.steps, completed=trainer.step, rate="", state="")
        for record in trainer:
            progress.update(task, completed=trainer.step)
            if record is not None:
                progress.update(task, rate=f"{record['steps_per_second']:g} steps/s", state=_state(trainer, record))
            yield


def _plain(trainer: Trainer) -> Iterator[None]:
    total = trainer.config.schedule.steps
    for record in trainer:
        if record is not None:
            rate = record["steps_per_second"]
            left = f"{(total - record['step']) / rate:.0f} s left" if rate else ""
            typer.echo(f"step {record['step']}/{total}  {rate:g} steps/s  {left}  {_state(trainer, record)}")
        yield


def _state(trainer: Trainer, record: Record) -> str:
    name = trainer.config.objective.estimates.name
    parts = [f"{name} {record.get('estimate', float('nan')):.4g} (held out {record['held_out_estimate']:.4g})"]
    parts += [f"{metric.name} {record[metric.name]:.4g}" for metric in trainer.config.metrics if metric.name in record]
    return "  ".join(parts)


def _summary(trainer: Trainer, seconds: float, done: int) -> None:
    run = trainer.run_dir
    records = run.metrics()
    if records:
        last = records[-1]
        quantity = trainer.config.objective.estimates
        typer.echo(f"{done} steps in {seconds:.0f} s")
        held_out, unit = last["held_out_estimate"], quantity.unit
        typer.echo(f"{quantity.name}: {_number(held_out)} {unit} on held-out data ({quantity.bound or 'no bound'})")
        certificate = trainer.certificate()
        if certificate is not None:
            why = f" ({certificate.unbounded[0]})" if certificate.unbounded else ""
            typer.echo(f"certified Lipschitz bound of the critic: {_number(last['lipschitz_bound'])}{why}")
        for metric in trainer.config.metrics:
            if metric.name in last:
                typer.echo(f"{metric.name}: {_number(last[metric.name])} {metric.measures.unit}")
        typer.echo(f"curves: {draw_curves(run.path)}")
    pictures = sorted(run.samples.glob("*.png"))
    if pictures:
        typer.echo(f"samples: {pictures[-1]}")
    typer.echo(f"metrics: {run.metrics_file}")
    typer.echo(f"more samples with: ipmgan sample {run.path}")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print a plan: the resolved configuration, parameter counts and memory."""
    if as_json:
        print_json(plan.table())
        return
    typer.echo(plan.config.toml())
    typer.echo(f"# device: {plan.device}")
    typer.echo(f"# generator: {plan.generator_parameters:,} parameters")
    typer.echo(f"# critic: {plan.critic_parameters:,} parameters")
    typer.echo(f"# training data: {plan.data}")
    for part, size in plan.memory.items():
        typer.echo(f"# memory, {part}: {size / MIB:.1f} MiB")
    typer.echo(f"# memory in all: {plan.total_memory / MIB:.1f} MiB")
    for warning in plan.warnings:
        typer.echo(f"# warning: {warning}")


def print_table(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows of equal keys as a table, or as JSON."""
    if as_json:
        print_json(list(rows))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for key in rows[0] if rows else ():
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console().print(table)


def print_json(value: Any) -> None:
    """Print plain values as JSON; what JSON has no word for becomes a string."""
    typer.echo(json.dumps(value, indent=2, default=str))
