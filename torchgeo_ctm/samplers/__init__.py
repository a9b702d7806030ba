"""Which ground is trained on, and which windows are drawn from it."""
