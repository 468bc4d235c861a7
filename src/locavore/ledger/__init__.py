"""What happened and what it cost: an append-only journal in front of a store that adds up."""
