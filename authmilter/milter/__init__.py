"""The milter door: one session, two engines."""
