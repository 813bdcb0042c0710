"""ARC, RFC 8617: chains validated, trusted where the administrator says so, and sealed."""
