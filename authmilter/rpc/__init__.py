"""The gRPC door: messages on the wire to the one road and back."""
