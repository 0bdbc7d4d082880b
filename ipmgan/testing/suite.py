"""The suite: which properties each kind has, cases of one plugin and one property, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import attrs
import torch

from ipmgan.errors import DataError, PluginError, UsageError
from ipmgan.plugin import Plugin
from ipmgan.registry import Entry, Registry, registry
from ipmgan.selection import Table, build, fields_of, parse_selection
from ipmgan.testing import (
    common,
    constraints,
    enforcers,
    estimates,
    metrics,
    modes,
    networks,
    objectives,
    perturbations,
    sources,
    training,
)
from ipmgan.testing.base import ConformanceError, NotApplicable, Property, first_line

ONCE: tuple[Property, ...] = (
    *(common.documented, common.options, training.resumes, training.leaves_no_trace),
    *(networks.bounds, networks.seeded_weights, networks.no_waiting, networks.autocast),
)
"""Properties that are checked of the plugin as it stands; the others with each choice of each option too."""
PROPERTIES: Mapping[str, Mapping[str, Property]] = {
    "objective": {
        "orientation": objectives.orientation,
        "scalars": objectives.scalars,
        "gradients": objectives.gradients,
        "means": objectives.means,
        "no-draws": objectives.no_draws,
        "inputs-unchanged": objectives.inputs_unchanged,
        "no-waiting": objectives.no_waiting,
        "whole-batch": objectives.whole_batch,
        "min-batch": objectives.min_batch,
        "generator-uses-real": objectives.generator_uses_real,
        "needs-code": objectives.needs_code,
        "needs-lipschitz": objectives.needs_lipschitz,
        "estimate-range": estimates.estimate_range,
        "estimate-bound": estimates.estimate_bound,
        "state": objectives.state,
        "autocast": modes.autocast_losses,
        "vectorised": modes.vectorised_losses,
    },
    "lipschitz": {
        "orientation": enforcers.holds_down,
        "scalars": enforcers.penalty_is_scalar,
        "gradients": enforcers.penalty_gradients,
        "means": enforcers.penalty_is_mean,
        "no-draws": enforcers.no_draws,
        "inputs-unchanged": enforcers.inputs_unchanged,
        "in-place": enforcers.projects_in_place,
        "elementwise": enforcers.elementwise,
        "no-waiting": enforcers.no_waiting,
        "per-sample": constraints.per_sample,
        "needs-double-backward": constraints.needs_double_backward,
        "scalar-critic": constraints.scalar_critic,
        "certified": constraints.certified,
        "state": constraints.state,
        "autocast": modes.autocast_penalty,
        "vectorised": modes.vectorised_penalty,
    },
    "network": {
        "shapes": networks.shapes,
        "bounds": networks.bounds,
        "seeded": networks.seeded_weights,
        "gradients": networks.gradients,
        "inputs-unchanged": networks.inputs_unchanged,
        "no-waiting": networks.no_waiting,
        "per-sample": networks.per_sample,
        "autocast": networks.autocast,
        "vectorised": networks.vectorised,
    },
    "source": {
        "as-specified": sources.as_specified,
        "same-every-time": sources.same_every_time,
        "splits-apart": sources.splits_apart,
    },
    "metric": {
        "scalars": metrics.scalars,
        "range": metrics.measured_range,
        "direction": metrics.direction,
        "no-draws": metrics.no_draws,
        "inputs-unchanged": metrics.inputs_unchanged,
        "order": metrics.order,
    },
    "perturbation": {
        "shapes": perturbations.shapes,
        "gradients": perturbations.gradients,
        "no-draws": perturbations.no_draws,
        "inputs-unchanged": perturbations.inputs_unchanged,
        "no-waiting": perturbations.no_waiting,
        "vectorised": perturbations.vectorised,
    },
    "tracker": {"no-trace": training.leaves_no_trace},
}


def properties(kind: str) -> dict[str, Property]:
    """The properties of a kind of plugin by their names, those of every kind first and last."""
    first: dict[str, Property] = {"documented": common.documented, "options": common.options}
    return {**first, **PROPERTIES[kind], "resumes": training.resumes}


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of a property: ``pass``, ``fail``, or ``skip`` where it says nothing about the plugin; and why."""

    kind: str
    plugin: str
    property: str
    result: Literal["pass", "fail", "skip"]
    reason: str = ""


@attrs.frozen(kw_only=True)
class Case:
    """One property of one plugin; without the plugin where it needs options, and only its class can be looked at."""

    title: str
    cls: type[Plugin]
    property: str
    plugin: Plugin | None

    def __str__(self) -> str:
        return f"{self.cls.kind}-{self.title}-{self.property}"

    def run(self) -> Outcome:
        """Check the property; whatever the plugin raises is a failure. Global generators are left as they were."""
        with torch.random.fork_rng(devices=[]):
            result, reason = self._verdict(properties(self.cls.kind)[self.property])
        return Outcome(kind=self.cls.kind, plugin=self.title, property=self.property, result=result, reason=reason)

    def _verdict(self, check: Property) -> tuple[Literal["pass", "fail", "skip"], str]:
        if self.plugin is None and check is not common.documented:
            return "skip", f"it needs options: check {self.title}:option=value"
        plugins = [("", self.plugin or self.cls)]
        if self.plugin is not None and check not in ONCE:
            plugins = list(common.variants(self.plugin))
        reasons = []
        for choice, plugin in plugins:
            try:
                check(plugin)
            except NotApplicable as error:
                reasons.append(str(error))
            except DataError as error:
                reasons.append(f"its data is not here: {str(error).splitlines()[0]}")
            except ConformanceError as error:
                return "fail", f"{choice}: {error}" if choice else str(error)
            # A plugin is somebody else's code, which may raise anything.
            except Exception as error:  # noqa: BLE001
                return "fail", f"{choice}: {first_line(error)}" if choice else first_line(error)
        return ("skip", reasons[0]) if len(reasons) == len(plugins) else ("pass", "")


def cases(*names: str, among: Registry | None = None) -> list[Case]:
    """A case for each property of each plugin: of all, or of what is named.

    A name is a distribution, or a plugin as on the command line, ``name:key=value``. Raises `UsageError` for a name
    that nobody has, and `PluginError` for a distribution that could not be loaded.
    """
    known = among or registry()
    found: dict[tuple[str, str], Case] = {}
    for entry, title, plugin in _chosen(names, known):
        for name in properties(entry.plugin.kind):
            case = Case(title=title, cls=entry.plugin, property=name, plugin=plugin)
            found.setdefault((str(case), entry.distribution), case)
    return list(found.values())


def _chosen(names: tuple[str, ...], known: Registry) -> Iterator[tuple[Entry, str, Plugin | None]]:
    """The plugins that are named, each with its title, and None where it needs options that were not given."""
    entries = known.entries()
    if not names:
        yield from map(_as_it_stands, entries)
    for name in names:
        for broken in known.broken:
            if _normal(broken.distribution) == _normal(name):
                raise PluginError(f"{broken.distribution} {broken.version} could not be loaded: {broken.error}")
        offered = [entry for entry in entries if _normal(entry.distribution) == _normal(name)]
        if offered:
            yield from map(_as_it_stands, offered)
            continue
        table = parse_selection(name)
        wanted = table.pop("name", "")
        called = [entry for entry in entries if wanted in (entry.plugin.name, *entry.plugin.aliases)]
        if not called:
            everybody = {word for entry in entries for word in (entry.distribution, entry.plugin.name)}
            raise known.unknown("plugin or distribution", wanted, everybody)
        yield from _with_options(called, name, table) if table else map(_as_it_stands, called)


def _as_it_stands(entry: Entry) -> tuple[Entry, str, Plugin | None]:
    needy = any(field.default is attrs.NOTHING for field in fields_of(entry.plugin).values())
    return entry, entry.plugin.name, None if needy else entry.plugin()


def _with_options(entries: Sequence[Entry], title: str, table: Table) -> list[tuple[Entry, str, Plugin | None]]:
    """The plugins of one name, of several kinds perhaps, that have these options."""
    found: list[tuple[Entry, str, Plugin | None]] = []
    refusals = []
    for entry in entries:
        try:
            plugin = build(entry.plugin, table, what=f"{entry.plugin.kind} {entry.plugin.name}")
        except UsageError as error:
            refusals.append(error)
        else:
            found.append((entry, title, plugin))
    if not found:
        raise refusals[0]
    return found


def _normal(distribution: str) -> str:
    return distribution.replace("_", "-").replace(".", "-").lower()


def conformance(*names: str) -> Callable[..., None]:
    """A test function for pytest with one test for each plugin of these distributions and each property.

    ::

        from ipmgan.testing import conformance

        test_conformance = conformance("my-distances")

    A plugin with options of its own is named as on the command line: ``conformance("energy-gap:power=1.5")``.
    Raises as `cases` does, so that a distribution that does not load is an error and no test the less.
    """
    import pytest

    found = cases(*names)

    @pytest.mark.parametrize("case", found, ids=str)
    def test(case: Case) -> None:
        outcome = case.run()
        if outcome.result == "fail":
            pytest.fail(outcome.reason, pytrace=False)
        if outcome.result == "skip":
            pytest.skip(outcome.reason)

    test.__doc__ = "A property of a plugin."
    return test
