"""The pytest plugin: ``pytest --conformance NAME`` runs the suite on a distribution or a plugin, without a test file.

It is loaded wherever pytest starts, so it imports nothing heavy until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ipmgan.testing.suite import Case


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--conformance``."""
    group = parser.getgroup("ipmgan")
    group.addoption(
        "--conformance",
        action="append",
        default=[],
        metavar="NAME",
        help="run ipmgan's conformance suite on a distribution or plugin; may be given several times",
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a test for each plugin and property that was asked for."""
    names = config.getoption("--conformance")
    if not names:
        return
    from ipmgan.errors import IpmganError
    from ipmgan.testing.suite import cases

    try:
        found = cases(*names)
    except IpmganError as error:
        raise pytest.UsageError(str(error)) from error
    items.extend(ConformanceItem.from_parent(session, name=str(case), case=case) for case in found)


class ConformanceItem(pytest.Item):
    """One property of one plugin."""

    def __init__(self, *, case: Case, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case

    def runtest(self) -> None:
        """Check the property; a failure is one line."""
        outcome = self.case.run()
        if outcome.result == "fail":
            pytest.fail(outcome.reason, pytrace=False)
        if outcome.result == "skip":
            pytest.skip(outcome.reason)

    def reportinfo(self) -> tuple[str, None, str]:
        """Where the test is said to be."""
        return "ipmgan.testing", None, self.name
