"""From what happened to what goes over the wire, one file a contract."""
