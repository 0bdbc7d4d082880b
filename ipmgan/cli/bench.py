"""``ipmgan bench``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipmgan.cli.train import SELECTION

if TYPE_CHECKING:
    from ipmgan.bench.ceilings import Ceilings
    from ipmgan.bench.report import Result
    from ipmgan.config import RunConfig


def bench(
    workload: Annotated[
        list[str] | None, typer.Option(help="A named workload, or several; else the quick ones.", metavar="NAME")
    ] = None,
    mode: Annotated[
        list[str] | None, typer.Option(help="A way to run the step, or several; else all.", metavar="NAME")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="plain: race a workload's loop as written by hand.", metavar="NAME")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.0, help="Of each mode in each round.")] = 1.0,
    preset: Annotated[str | None, typer.Option(help="Time a preset instead of workloads.")] = None,
    config: Annotated[Path | None, typer.Option(help="Time the run of a TOML file instead.")] = None,
    objective: Annotated[str | None, typer.Option(help="As in train, and so on down.", metavar=SELECTION)] = None,
    lipschitz: Annotated[str | None, typer.Option(metavar=SELECTION)] = None,
    source: Annotated[str | None, typer.Option(metavar=SELECTION)] = None,
    generator: Annotated[str | None, typer.Option(metavar=SELECTION)] = None,
    critic: Annotated[str | None, typer.Option(metavar=SELECTION)] = None,
    latent: Annotated[str | None, typer.Option(metavar=SELECTION)] = None,
    batch: Annotated[int | None, typer.Option()] = None,
    n_critic: Annotated[int | None, typer.Option()] = None,
    generator_optimizer: Annotated[str | None, typer.Option(metavar=SELECTION)] = None,
    critic_optimizer: Annotated[str | None, typer.Option(metavar=SELECTION)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bf16.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this machine's ceilings, and how near training comes to them.

    Without settings of a run, named workloads are timed: toy-gp, toy-clip, small-toy, image-mlp; and, where named,
    dcgan and dcgan-gp.
    """
    shared = {"device": device, "precision": precision}
    settings: dict[str, Any] = {
        key: value
        for key, value in locals().items()
        if key not in ("workload", "mode", "against", "rounds", "seconds", "json", "shared", *shared)
    }
    from ipmgan.bench.ceilings import machine, measure_ceilings
    from ipmgan.bench.modes import modes
    from ipmgan.bench.report import bench as measure
    from ipmgan.bench.report import check_against
    from ipmgan.cli.output import print_json
    from ipmgan.engine.build import choose_device

    place = choose_device(device or "auto")
    chosen = modes(mode or [], place)
    with tempfile.TemporaryDirectory() as folder:
        configs = _configs(workload, settings, {**shared, "device": str(place)}, Path(folder))
        for name in configs:
            check_against(name, against)
        ceilings = measure_ceilings(place)
        if not json:
            _print_ceilings(machine(place), ceilings)
        results = []
        for name, run in configs.items():
            results.append(measure(name, run, chosen, ceilings, against=against, rounds=rounds, seconds=seconds))
            if not json:
                _print_result(results[-1])
    if json:
        workloads = [result.table() for result in results]
        print_json({"machine": machine(place), "ceilings": ceilings.table(), "workloads": workloads})


def _configs(
    workloads: list[str] | None, settings: dict[str, Any], shared: dict[str, Any], folder: Path
) -> dict[str, RunConfig]:
    """What is to be timed, by name: the run of these settings, or else the workloads."""
    from ipmgan.bench.workloads import QUICK, workload
    from ipmgan.config import configure
    from ipmgan.errors import UsageError

    given = [key for key, value in settings.items() if value is not None]
    if not given:
        return {name: workload(name).config(folder, **shared) for name in workloads or QUICK}
    if workloads:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        raise UsageError(f"a workload's settings are its own: give --workload or {flags}, not both")
    run = configure(**settings, **shared)
    return {settings["preset"] or run.title: run}


def _print_ceilings(machine: dict[str, Any], ceilings: Ceilings) -> None:
    from ipmgan.cli.output import say
    from ipmgan.engine.plan import MIB

    facts = f"{machine['threads']} threads, {machine['instructions']}, torch {machine['torch']}"
    say(f"{machine['name']} ({machine['device']}), {facts}")
    for name, compute in (("float32", ceilings.float32), ("bf16", ceilings.bf16)):
        if compute is None:
            say(f"  {name:<8} no {name} units")
        else:
            say(
                f"  {name:<8} matrix products {compute.matmul / 1e9:,.0f} GFLOP/s, "
                f"convolutions {compute.convolution / 1e9:,.0f} GFLOP/s"
            )
    sets = (f"{ceilings.bandwidth_at(size) / 1e9:,.0f} in {size // MIB} MiB" for size, _ in ceilings.bandwidth)
    say(f"  {'memory':<8} GB/s: {', '.join(sets)}")


def _print_result(result: Result) -> None:
    from ipmgan.bench.race import Spread
    from ipmgan.cli.output import print_table, say

    work, limit = result.work, result.limit
    say(
        f"\n{result.workload}, {result.precision}: {work.flops / 1e9:,.2f} GFLOP and {work.bytes / 1e6:,.1f} MB an "
        f"iteration; at most {limit.rate:,.4g} iterations a second, by {limit.bound}"
    )
    rows = []
    for name, rates in result.rates.items():
        rate, ratio = Spread.of(rates), result.ratio(name)
        row: dict[str, str] = {
            "mode": name,
            "it/s": f"{rate.median:.4g} ({rate.low:.4g} to {rate.high:.4g})",
            "of the limit": f"{result.fraction(name):.1%}",
        }
        if ratio is not None:
            row["to plain"] = f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        rows.append(row)
    print_table([{key: row.get(key, "") for key in rows[0]} for row in rows], wraps="mode")
