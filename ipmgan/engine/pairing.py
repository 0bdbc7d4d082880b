"""Which plugins fit together: asks the checks that stand before every run."""

from __future__ import annotations

from typing import Any

from ipmgan.config import configure
from ipmgan.engine.checks import check
from ipmgan.errors import UsageError
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.plugin import Plugin
from ipmgan.registry import registry

PARTNERS = {"objective": "lipschitz", "lipschitz": "objective"}
"""The kinds whose pairs are checked by name; whatever else is chosen goes with whatever is of its shape."""
WITH_CRITIC = "with a critic"
"""Said of an objective that can do without."""
SOURCE = "ring8"


def refusal(**settings: Any) -> str:
    """Why a run with these settings, on a toy source unless they say otherwise, is refused; empty where it trains.

    >>> refusal(objective="wgan", lipschitz="clip")
    ''
    >>> refusal(objective="wgan", lipschitz="none").partition(":")[0]
    'wgan means nothing over all functions'
    """
    try:
        check(configure(**{"source": SOURCE} | settings))
    except UsageError as error:
        return " ".join(str(error).split())
    # Somebody else's code, which another's page must not fail by.
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return ""


def pairs(plugin: type[Plugin]) -> dict[str, str]:
    """The plugins that one meets in a run, by name, and why it does not fit each; empty where it does.

    An objective meets the enforcers, an enforcer the objectives, a network the objectives whose critic it may be.
    """
    if plugin.kind == "network":
        return _critics(plugin)
    partner = PARTNERS.get(plugin.kind)
    if partner is None:
        return {}
    found = {}
    for other in registry().entries(partner):
        objective = plugin if plugin.kind == "objective" else other.plugin
        names = {plugin.kind: plugin.name, partner: other.plugin.name}
        found[other.plugin.name] = refusal(**names)
        if getattr(objective, "critic", None) is CriticKind.NONE:
            found[f"{other.plugin.name} {WITH_CRITIC}"] = refusal(**names, critic="mlp")
    return found


def _critics(network: type[Plugin]) -> dict[str, str]:
    try:
        family: Any = registry().make("network", network.name)
    except UsageError as error:
        return {"critic": str(error)}
    kinds: frozenset[CriticKind] = family.critic_kinds
    can = ", ".join(sorted(kind.value for kind in kinds)) or "nothing: it has no critic"
    fits = {}
    for entry in registry().entries("objective"):
        needed = entry.plugin.critic if issubclass(entry.plugin, Objective) else CriticKind.NONE
        needed = CriticKind.FEATURES if needed is CriticKind.NONE else needed
        refused = f"it needs a critic that puts out {needed.value}; this one, as it is by default, puts out {can}"
        fits[entry.plugin.name] = "" if needed in kinds else refused
    return fits
