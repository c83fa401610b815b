"""The command line: a module for each command, which only parses flags, wires parts together and prints.

Code that others could use as well is in another folder. Nothing outside this folder imports a command.
"""
