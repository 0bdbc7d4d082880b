"""``ipmgan distance``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ipmgan.evaluation.bracket import Bracket, End
    from ipmgan.evaluation.distance import Distance

SELECTION = "name:key=value,..."
NOT_SETTINGS = ("real", "fake", "plot", "json")
Side = Annotated[str, typer.Argument(help="A source, a .npy/.npz/.safetensors file, a folder of images, or run:DIR.")]


def distance(
    real: Side,
    fake: Side,
    method: Annotated[
        str, typer.Option(help="critic, exact, sinkhorn, sliced, energy or mmd.", metavar=SELECTION)
    ] = "critic",
    objective: Annotated[
        str | None, typer.Option(help="What the critic estimates; else wgan.", metavar=SELECTION)
    ] = None,
    lipschitz: Annotated[
        str | None, typer.Option(help="The constraint on the critic; else gp where one is needed.", metavar=SELECTION)
    ] = None,
    critic: Annotated[str | None, typer.Option(help="The critic's network; else an mlp.", metavar=SELECTION)] = None,
    critic_optimizer: Annotated[str | None, typer.Option(help="One of torch's.", metavar=SELECTION)] = None,
    perturbation: Annotated[
        str | None,
        typer.Option(help="Done to both sides: the distance is between the laws after it.", metavar=SELECTION),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples a side, at most; else 10000.")] = None,
    matrix_samples: Annotated[
        int | None, typer.Option(help="Samples a side, at most, wherever all pairs are compared; else 2000.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of sources: all, train or held-out (so beside a run).")] = None,
    permutations: Annotated[int | None, typer.Option(help="Test 'no difference' by so many relabellings.")] = None,
    confidence: Annotated[float | None, typer.Option(help="Of the interval and the bracket; else 0.99.")] = None,
    steps: Annotated[int | None, typer.Option(help="Critic steps, at most; else 5000.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples a batch of either side; else 256.")] = None,
    check_every: Annotated[int | None, typer.Option(help="Steps between looks at held-out samples; else 50.")] = None,
    patience: Annotated[int | None, typer.Option(help="Looks in vain after which training stops; else 20.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every draw.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the witness to this .png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure how far apart two sets of samples are.

    A critic is trained between them on one part, until it stops improving on a second; what is told is of a third.
    """
    settings: dict[str, Any] = {key: value for key, value in locals().items() if key not in NOT_SETTINGS}
    from ipmgan.cli.output import print_json, shown
    from ipmgan.evaluation.distance import distance as measure

    if plot is not None and (plot.suffix != ".png" or not plot.parent.is_dir()):
        raise typer.BadParameter(f"{plot}: must end in .png, in a folder that exists", param_hint="--plot")
    found = measure(real, fake, **settings)
    if plot is not None:
        found.plot(plot)
    if json:
        print_json(found.table() | ({} if plot is None else {"plot": str(plot)}))
        return
    print_distance(found)
    if plot is not None:
        _line("witness", shown(plot))


def print_distance(found: Distance) -> None:
    """Print a distance for a person to read."""
    from ipmgan.cli.output import say

    say(f"{found.real.label} against {found.fake.label}, by {found.method}")
    for note in found.notes:
        say(f"note: {note}")
    counts, sure = found.counts, f"{100 * found.confidence:g} %"
    untouched = "untouched " if found.steps else ""
    bound = f"; {found.quantity.bound}" if found.quantity.bound else ""
    _line("estimate", f"{found.quantity.name} = {found.estimate:.4g}, in {found.quantity.unit}{bound}")
    _line("interval", f"{found.interval[0]:.4g} to {found.interval[1]:.4g} ({sure})")
    _line("samples", f"{counts['real']:,} and {counts['fake']:,} {untouched}ones")
    if found.p_value is not None:
        _line("no difference", f"p = {found.p_value:.4g}, by {found.settings['permutations']:,} permutations")
    if found.steps:
        _line("critic", f"best after {found.best_step} of {found.steps} steps; held-out estimate {found.held_out:.4g}")
    if found.certificate is not None and not found.certificate.unbounded:
        _line("certified bound", f"the critic's Lipschitz constant is at most {found.certificate.bound:.4g}")
    if found.bracket is not None:
        _bracket(found.bracket, sure)


def _bracket(ends: Bracket, sure: str) -> None:
    _line("W1 of the laws", f"between {ends.low:.4g} and {ends.high:.4g} ({sure})")
    for name, end in (("critic", ends.critic), ("sliced", ends.sliced)):
        if end is not None:
            what = "gap / bound" if name == "critic" else "sliced W1, untouched"
            _line("  at least", f"{_limit(end)}: {what} = {end.value:.4g}")
    exact = f"exact W1 of {ends.samples:,} samples a side = {ends.exact.value:.4g}"
    _line("  at most", f"{_limit(ends.exact)}: {exact}")
    _line("  its bias", f"about {ends.bias:.4g} where the laws are equal: W1 between two halves of the first side")


def _limit(end: End) -> str:
    return f"{end.limit:.4g}"


def _line(label: str, value: str) -> None:
    from ipmgan.cli.output import say

    say(f"  {label:<16} {value}")
