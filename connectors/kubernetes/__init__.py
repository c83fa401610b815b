"""The scheduler extender for kube-scheduler: its protocol, and its answers from the table."""
