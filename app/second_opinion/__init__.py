"""Between a flag and a refusal: another way of asking whether a flagged question is in scope."""
