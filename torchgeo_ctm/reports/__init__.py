"""What the commands describe and stats report."""
