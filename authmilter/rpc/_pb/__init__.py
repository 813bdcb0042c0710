"""Generated from `proto/` by `make proto`; not edited by hand, and compared in the tests."""
