"""``python -m ipmgan`` is the command ``ipmgan``."""

from ipmgan.cli.app import main

main()
