"""The guard as an HTTP service. Run as `trajguard serve`."""
