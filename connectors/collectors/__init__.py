"""What a compute node's figures are read from: the kernel, libvirt, or a class of an operator's own.

Nothing here sends anything: a collector returns readings, and whoever asked for them decides what becomes of them.
"""
