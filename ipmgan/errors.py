"""What can go wrong, by who can mend it. Each message says what was found, what is allowed, and the nearest match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class IpmganError(Exception):
    """The parent of every error that ipmgan raises on purpose; its text is meant for the user."""

    exit_code: ClassVar[int] = 1


class UsageError(IpmganError):
    """A name, value, flag or file key that does not exist or is out of range."""

    exit_code = 2


class PairingError(UsageError):
    """Parts that are fine alone but meaningless, or wrong, together."""


class PluginError(UsageError):
    """A plugin that could not be loaded, or that broke its contract."""


class DataError(IpmganError):
    """Data that is missing, unreadable or too small."""

    exit_code = 3


class CheckpointError(IpmganError):
    """A run or checkpoint that is missing, damaged, locked or belongs to something else."""

    exit_code = 4


class DivergedError(IpmganError):
    """A loss, gradient or weight that stopped being finite."""

    exit_code = 5


def choose_from(kind: str, got: object, allowed: Iterable[str]) -> str:
    """The sentence for a name that is not among the allowed ones, with the nearest of them.

    >>> choose_from("objective", "wgna", ["mmd", "wgan"])
    "no objective 'wgna': did you mean 'wgan'? Allowed: mmd, wgan"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(str(got), names, n=1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    return f"no {kind} {got!r}{hint} Allowed: {', '.join(names) or 'none'}"
