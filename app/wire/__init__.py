"""What goes over the wire: pure pydantic, one file a contract, no torch and no behaviour."""
