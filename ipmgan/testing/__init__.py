"""The conformance suite: what every plugin must do, checked by the same code for built-ins and for everybody else's.

A distribution's whole test file::

    from ipmgan.testing import conformance

    test_conformance = conformance("my-distances")

gives one test for each of its plugins and properties. ``ipmgan plugins check`` and ``pytest --conformance`` run the
same without a file. Names are imported when first used, so that pytest's start does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipmgan.testing.base import ConformanceError, NotApplicable
    from ipmgan.testing.suite import Case, Outcome, cases, conformance, properties

__all__ = ["Case", "ConformanceError", "NotApplicable", "Outcome", "cases", "conformance", "properties"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in __all__:
        raise AttributeError(f"module 'ipmgan.testing' has no attribute {name!r}")
    module = "base" if name in ("ConformanceError", "NotApplicable") else "suite"
    return getattr(importlib.import_module(f"ipmgan.testing.{module}"), name)
