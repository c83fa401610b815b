"""The command line: a module for each command, which only parses flags, wires parts together and prints.

What a command does that something else could use is in another folder. Nothing outside imports a command.
"""
