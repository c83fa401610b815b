"""Programs that run in Nova's environment (requirements/nova.lock) and print JSON: they import nothing of ours but the adapter.

What is not Nova's own in them is in ``stage`` alone: its functions say what they stand in for.
"""
