"""iprev, RFC 8601 section 2.7.3."""
