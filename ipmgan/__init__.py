"""Learn a distribution by minimising a distance between it and the model's.

The public names are those of `ipmgan.api`; they are imported when first used, so that help does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipmgan.api import *  # noqa: F403
    from ipmgan.api import __all__ as __all__
else:
    # Out of sight of type checkers, to which it would make every name a good one.
    def __getattr__(name: str) -> Any:
        import importlib.util

        # `from ipmgan import config` asks here first; the import system finds modules by itself.
        special = name.startswith("__") and name != "__all__"
        if special or importlib.util.find_spec(f"ipmgan.{name}"):
            raise AttributeError(name)
        try:
            return getattr(importlib.import_module("ipmgan.api"), name)
        except AttributeError:
            raise AttributeError(f"module 'ipmgan' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    import importlib

    return sorted({*globals(), *importlib.import_module("ipmgan.api").__all__})
