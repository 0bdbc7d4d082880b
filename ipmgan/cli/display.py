"""What a person sees of a run: a live line on a terminal, plain lines elsewhere, and where everything lies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ipmgan.cli.output import plain, print_json, say, shown
from ipmgan.engine.loop import Trainer
from ipmgan.engine.plan import MIB, Plan
from ipmgan.engine.replicates import Replicates
from ipmgan.engine.signals import stopping
from ipmgan.reports.curves import draw_curves

Record = Mapping[str, Any]


def follow(trainer: Trainer | Replicates) -> int:
    """Train while showing how it goes, say where everything lies, and return the exit code."""
    for warning in trainer.warnings:
        say(f"warning: {warning}", err=True)
    path, total = shown(trainer.run_dir.path), trainer.config.schedule.steps
    already = f", from step {trainer.step}" if trainer.step else ""
    seeds = f" of {len(trainer.trainers)} seeds" if isinstance(trainer, Replicates) else ""
    say(f"{trainer.config.title}: {total} steps{already}{seeds}, run directory {path}")
    if trainer.way != "off":
        say("a long run: its step is compiled first, which takes a while (--compile off: as it stands)")
    console = Console()
    start, first = time.monotonic(), trainer.step
    try:
        with stopping(trainer) as caught:
            for _ in _live(trainer, console) if console.is_terminal else _plain(trainer):
                pass
    except KeyboardInterrupt:
        say(f"stopped at once; go on from the last checkpoint with: ipmgan resume {path}", err=True)
        return 130
    if caught.signal is not None and not trainer.finished:
        say(f"stopped and saved at step {trainer.step}; go on with: ipmgan resume {path}")
        return caught.exit_code
    say(f"done: {trainer.step - first} steps in {time.monotonic() - start:.0f} s")
    if isinstance(trainer, Replicates):
        _compare(trainer)
    else:
        _summary(trainer)
    return 0


def _live(trainer: Trainer | Replicates, console: Console) -> Iterator[None]:
    columns = (
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
    )
    progress = Progress(
        *columns,
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        console=console,
        refresh_per_second=2,  # Drawing takes milliseconds of the core that launches the steps.
    )
    with progress:
        task = progress.add_task("", total=trainer.config.schedule.steps, completed=trainer.step, rate="", state="")
        for record in trainer:
            progress.update(task, completed=trainer.step)
            if record is not None:
                progress.update(task, rate=_rate(record), state=plain(_short(trainer, record)))
            yield


def _plain(trainer: Trainer | Replicates) -> Iterator[None]:
    total = trainer.config.schedule.steps
    for record in trainer:
        if record is not None:
            left = f"{(total - record['step']) / record['steps_per_second']:.0f} s left"
            say(f"step {record['step']}/{total}  {_rate(record)}  {left}  {_state(trainer, record)}")
        yield


def _rate(record: Record) -> str:
    return f"{record['steps_per_second']:.3g} steps/s"


def _short(trainer: Trainer | Replicates, record: Record) -> str:
    """What leaves the live line within 80 columns."""
    return f"{trainer.config.objective.estimates.name} {record['held_out_estimate']:.3g} held out"


def _state(trainer: Trainer | Replicates, record: Record) -> str:
    name = trainer.config.objective.estimates.name
    parts = [f"{name} {record.get('estimate', float('nan')):.4g} (held out {record['held_out_estimate']:.4g})"]
    parts += [f"{metric.name} {record[metric.name]:.4g}" for metric in trainer.config.metrics if metric.name in record]
    return "  ".join(parts)


def _compare(replicates: Replicates) -> None:
    """The mean, the spread and the worst of the seeds."""
    records = replicates.run_dir.metrics()
    names = ["held_out_estimate", *(metric.name for metric in replicates.config.metrics)]
    for name in (name for name in names if records and name in records[-1]):
        last, worst = records[-1], records[-1]["worst"][name]
        spread = f"mean {_number(last[name])}, standard deviation {_number(last['sd'][name])}"
        _line(name, f"{spread}, worst {_number(worst['value'])} (seed {worst['seed']})")
    for seed, why in replicates.diverged.items():
        _line(f"seed {seed}", f"given up: {why}")
    _line("means", shown(replicates.run_dir.metrics_file))
    _line("each seed", shown(replicates.trainers[0].run_dir.path))


def _summary(trainer: Trainer) -> None:
    run = trainer.run_dir
    records = run.metrics()
    if records:
        for label, value in _results(trainer, records[-1]):
            _line(label, value)
        _line("curves", shown(draw_curves(run.path)))
    pictures = sorted(run.samples.glob("*.png"))
    if pictures:
        _line("samples", shown(pictures[-1]))
    _line("metrics", shown(run.metrics_file))
    _line("more samples", f"ipmgan sample {shown(run.path)}")


def _results(trainer: Trainer, last: Record) -> Iterator[tuple[str, str]]:
    quantity = trainer.config.objective.estimates
    bound = f"; {quantity.bound}" if quantity.bound else ""
    held_out = _number(last["held_out_estimate"])
    yield "estimate", f"{quantity.name} = {held_out} on held-out data, in {quantity.unit}{bound}"
    certificate = trainer.certificate()
    if certificate is not None:
        bounded = f"the critic's Lipschitz constant is at most {certificate.bound:.4g}"
        yield "certified bound", "; ".join(certificate.unbounded) or bounded
    for metric in trainer.config.metrics:
        if metric.name in last:
            yield "metric", f"{metric.name} = {_number(last[metric.name])}, in {metric.measures.unit}"


def _line(label: str, value: str) -> None:
    say(f"  {label:<16} {value}")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print a plan: the resolved configuration, parameter counts and memory."""
    if as_json:
        print_json(plan.table())
        return
    say(plan.config.toml())
    say(f"# device: {plan.device}")
    say(f"# generator: {plan.generator_parameters:,} parameters")
    say(f"# critic: {plan.critic_parameters:,} parameters")
    say(f"# training data: {plan.data}")
    for part, size in plan.memory.items():
        say(f"# memory, {part}: {size / MIB:.1f} MiB")
    say(f"# memory in all: {plan.total_memory / MIB:.1f} MiB")
    for warning in plan.warnings:
        say(f"# warning: {warning}")
