"""The programs themselves, a file a family: read as text and run in the sandbox, never here."""
