"""No constraint."""

from __future__ import annotations

import attrs

from ipmgan.lipschitz.base import LipschitzEnforcer


@attrs.frozen(kw_only=True)
class NoEnforcer(LipschitzEnforcer):
    """Leaves the critic alone.

        f is any function that the critic can be

    For objectives that need no Lipschitz critic (f-divergences, energies with a margin) or no critic at all. Over all
    functions, an integral probability metric is 0 or infinite: objectives that are one refuse this.
    """

    name = "none"
    enforces = False
