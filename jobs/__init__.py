"""What one starts: the Flink job, the agent, the simulator, the local stack and the command line."""
