"""DKIM signing of outbound mail: which mail, with which keys, and the life of a key."""
