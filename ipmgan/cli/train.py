"""``ipmgan train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SELECTION = "name:key=value,..."
NOT_SETTINGS = ("out", "replicates", "dry_run", "json")


def train(
    objective: Annotated[str | None, typer.Option(help="The distance to minimise.", metavar=SELECTION)] = None,
    lipschitz: Annotated[str | None, typer.Option(help="The constraint on the critic.", metavar=SELECTION)] = None,
    source: Annotated[str | None, typer.Option(help="The real samples.", metavar=SELECTION)] = None,
    generator: Annotated[str | None, typer.Option(help="The generator's network.", metavar=SELECTION)] = None,
    critic: Annotated[str | None, typer.Option(help="The critic's network.", metavar=SELECTION)] = None,
    latent: Annotated[str | None, typer.Option(help="normal or uniform, with dim=.", metavar=SELECTION)] = None,
    perturbation: Annotated[
        str | None, typer.Option(help="What is done to all that the critic sees.", metavar=SELECTION)
    ] = None,
    tracker: Annotated[
        list[str] | None, typer.Option(help="Also send metrics there; may be repeated.", metavar=SELECTION)
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Start from a preset (see: ipmgan presets list).")] = None,
    config: Annotated[Path | None, typer.Option(help="Start from a TOML file, such as a run's config.toml.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's directory; else a new one under runs/.")] = None,
    steps: Annotated[int | None, typer.Option(help="Generator steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of both optimisers.")] = None,
    n_critic: Annotated[int | None, typer.Option(help="Critic steps before each generator step.")] = None,
    critic_warmup: Annotated[
        bool | None, typer.Option(help="100 critic steps in the first 25 generator steps and at every 500th.")
    ] = None,
    generator_optimizer: Annotated[str | None, typer.Option(help="One of torch's.", metavar=SELECTION)] = None,
    critic_optimizer: Annotated[str | None, typer.Option(help="One of torch's.", metavar=SELECTION)] = None,
    average: Annotated[float | None, typer.Option(help="Decay of an averaged generator; 0 for none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides weights, data order and every draw.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, or bf16 for the networks' forward passes.")] = None,
    compile: Annotated[
        str | None, typer.Option(help="Compile the step: on, off, graph (CUDA), or auto for long runs.")
    ] = None,
    replicates: Annotated[int, typer.Option(help="So many seeds at once, from --seed on.", min=1)] = 1,
    log_every: Annotated[int | None, typer.Option(help="Steps between lines of metrics.")] = None,
    sample_every: Annotated[int | None, typer.Option(help="Steps between pictures and metrics.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    keep: Annotated[int | None, typer.Option(help="Checkpoints kept.")] = None,
    workers: Annotated[int | None, typer.Option(help="Loader processes for a source that streams.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: print the plan as JSON.")] = False,
) -> None:
    """Train a run.

    What is not given comes from the preset, the file, and the defaults of the papers behind the chosen plugins.
    """
    settings: dict[str, Any] = {key: value for key, value in locals().items() if key not in NOT_SETTINGS}
    from ipmgan.config import configure

    resolved = configure(**settings)
    if dry_run:
        from ipmgan.cli.display import print_plan
        from ipmgan.engine.plan import plan

        print_plan(plan(resolved), as_json=json)
        return
    from ipmgan.cli.display import follow
    from ipmgan.engine.loop import Trainer

    raise typer.Exit(follow(Trainer(resolved, out=out, replicates=replicates)))
