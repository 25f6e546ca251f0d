"""The commands of calibration: one options class each, which runs what its options say."""
