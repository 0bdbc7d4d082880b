"""``ipmgan audit``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ipmgan.lipschitz.audit import Audit


def audit(
    run: Annotated[Path, typer.Argument(help="The directory of a run.")],
    checkpoint: Annotated[int | None, typer.Option(help="The checkpoint's step; else the last.")] = None,
    samples: Annotated[int, typer.Option(help="Held-out and generated samples that the ascent begins at.")] = 64,
    steps: Annotated[int, typer.Option(help="Steps of the ascent.")] = 20,
    seed: Annotated[int, typer.Option(help="Decides its random directions.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bound how steep a run's critic is, from above by proof and from below by search."""
    from ipmgan.cli.output import print_json
    from ipmgan.engine.audit import audit_run

    found = audit_run(run, checkpoint=checkpoint, samples=samples, steps=steps, seed=seed, device=device)
    if json:
        print_json(found.table())
    else:
        print_audit(found)


def print_audit(found: Audit) -> None:
    """Print an audit for a person to read."""
    from ipmgan.cli.output import print_table, say

    upper = found.certificate.bound
    top = f"{upper:.6g} (certified); the lower is {found.tightness:.1%} of it" if math.isfinite(upper) else "no bound"
    say(f"{found.empirical:.6g} (found)  <=  Lipschitz constant  <=  {top}")
    for reason in found.certificate.unbounded:
        say(f"no certified bound: {reason}")
    if found.at_edge is not None:
        say(f"weights at the edge of the clipping box: {found.at_edge:.1%}")
    say("")
    slopes = found.slopes.items()
    print_table(
        [
            {"ascent from": kind, "largest slope there": f"{slope.start:.6g}", "found": f"{slope.found:.6g}"}
            for kind, slope in slopes
        ],
        wraps="ascent from",
    )
    say("")
    rows = [
        {
            "layer": f"{layer.name} ({layer.layer})",
            "bound": "" if layer.bound is None else f"{layer.bound:.6g}",
            "Frobenius norm": f"{layer.frobenius:.6g}",
            "largest weight": f"{layer.largest:.6g}",
        }
        | ({} if layer.at_edge is None else {"at the edge": f"{layer.at_edge:.1%}"})
        for layer in found.layers
    ]
    print_table(rows, wraps="layer")
