"""Programs that run in Nova's environment (requirements/nova.lock) and print JSON; ours in them is the adapter.

What is not Nova's own in them is in ``stage`` alone, which lists it.
"""

from nova import monkey_patch

# As nova.cmd.scheduler does, and as early: before anything that might import eventlet.
monkey_patch.patch(backend="threading")
