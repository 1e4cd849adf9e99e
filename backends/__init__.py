"""What each target can do, and how a rewritten graph gets there."""
