"""`python -m authmilter`."""

from authmilter.cli.main import main

main()
