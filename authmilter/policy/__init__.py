"""The policy language: pure, total, explainable."""
