"""Header text in, header text out."""
