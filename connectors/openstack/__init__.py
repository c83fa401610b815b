"""What OpenStack says about its hosts: notifications, Ceilometer's samples, the APIs of Nova, Placement and Cinder.

Nothing here sends events. Code that runs inside Nova's own services is in ``connectors.nova``.
"""
