"""The service over HTTP, with the real engine on a tiny model."""
