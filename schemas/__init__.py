"""What the events and the tables look like."""
