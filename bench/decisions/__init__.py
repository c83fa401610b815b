"""How fresh a scheduling table must be: real claims on a real table, before a fleet of which the truth is known."""
