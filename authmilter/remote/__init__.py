"""The parts of `authmilter.client`: a client of the gRPC service."""
