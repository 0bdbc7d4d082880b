"""What ipmgan asks of every plugin."""

from __future__ import annotations

from ipmgan.testing import conformance

test_conformance = conformance("ipmgan-classic")
