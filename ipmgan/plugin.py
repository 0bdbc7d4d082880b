"""What every kind of plugin shares: a name, its sources, its options, and the training settings that its paper used."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from ipmgan.errors import UsageError, choose_from
from ipmgan.references import Reference


@attrs.frozen(kw_only=True)
class Quantity:
    """What a number estimates: its name, unit, possible range, and on which side of the truth it falls."""

    name: str
    unit: str
    low: float = -math.inf
    high: float = math.inf
    bound: str = ""


@attrs.frozen(kw_only=True)
class Training:
    """The settings that a paper trained with; None leaves a setting to whoever speaks before.

    Selections are written as on the command line: ``critic="autoencoder:code=32"``,
    ``critic_optimizer="RMSprop:lr=5e-5"``, ``latent="uniform:dim=10"``.
    """

    steps: int | None = None
    batch: int | None = None
    n_critic: int | None = None
    generator: str | None = None
    critic: str | None = None
    latent: str | None = None
    generator_optimizer: str | None = None
    critic_optimizer: str | None = None

    def settings(self) -> dict[str, int | str]:
        """The settings that are given, by name.

        >>> Training(batch=64, critic="mlp").settings()
        {'batch': 64, 'critic': 'mlp'}
        """
        return attrs.asdict(self, filter=lambda _, value: value is not None)


class Plugin(ABC):
    """The parent of all kinds. A leaf is `@attrs.frozen(kw_only=True)`; its fields, made by `option`, its options."""

    kind: ClassVar[str]
    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[tuple[Reference, ...]] = ()
    defaults: ClassVar[Training] = Training()


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,
    choices: tuple[str, ...] = (),
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field of a plugin: its default, what it means, and what it may be (checked when the plugin is made).

    Numbers, and the numbers in a tuple, must be finite and inside the limits.

    >>> import attrs
    >>> @attrs.frozen(kw_only=True)
    ... class Box:
    ...     c: float = option(0.01, help="half the box's width", above=0)
    >>> Box(c=-1.0)
    Traceback (most recent call last):
    ipmgan.errors.UsageError: c = -1.0: must be above 0
    """
    limits = {"choices": choices, "above": above, "at_least": at_least, "at_most": at_most}
    metadata = {"help": help} | {name: limit for name, limit in limits.items() if limit not in (None, ())}

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        for item in value if isinstance(value, tuple) else (value,):
            _check_one(attribute.name, item, metadata)

    return attrs.field(default=default, validator=check, metadata=metadata)


def _check_one(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if value is None:
        return
    if "choices" in limits and value not in limits["choices"]:
        raise UsageError(choose_from(name, value, limits["choices"]))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    allowed = limits_text(limits)
    low, least, most = (limits.get(key) for key in ("above", "at_least", "at_most"))
    outside = (low is not None and value <= low) or (least is not None and value < least)
    if not math.isfinite(value) or outside or (most is not None and value > most):
        raise UsageError(f"{name} = {value}: must be {allowed or 'a finite number'}")


def limits_text(limits: Mapping[str, Any]) -> str:
    """What an option may be, in words.

    >>> limits_text({"above": 0, "at_most": 1})
    'above 0 and at most 1'
    """
    if "choices" in limits:
        return "one of " + ", ".join(limits["choices"])
    words = {"above": "above", "at_least": "at least", "at_most": "at most"}
    return " and ".join(f"{word} {limits[key]}" for key, word in words.items() if key in limits)
