"""What is not any more as it was measured: noticed, audited, measured again."""
