"""Getting a model: its weights and fingerprint, its tokenizer, the threads it runs on."""
