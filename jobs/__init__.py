"""The programs: the command line, the Flink job, the local stack, the reporters of hosts and the simulator.

The modules at this level are shared by them: settings, command-line options, logs, signals, rendering, jars, ports.
"""
