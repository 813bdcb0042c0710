"""The parts of the parent process, each with one job; `authmilter.supervisor` puts them together."""
