"""Collectors, which read a compute node's figures from the kernel, from libvirt or by an operator's own class.

Nothing here sends anything: a collector returns readings, and the caller decides what to do with them.
"""
