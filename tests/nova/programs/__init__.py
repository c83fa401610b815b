"""Programs that run in Nova's environment (requirements/nova.lock) and print JSON; they test Vacancy's adapter.

All stubs are in ``stage``, which lists them; the rest is Nova's own code.
"""

from nova import monkey_patch

# Like nova.cmd.scheduler, this comes before any import that might import eventlet.
monkey_patch.patch(backend="threading")
