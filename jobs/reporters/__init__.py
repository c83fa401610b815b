"""The long-running processes that report hosts: the agent of one node, the bridge and the storage reporter of a cloud.

A reporter decides when to read and what to send. How to read is in ``connectors``.
"""
