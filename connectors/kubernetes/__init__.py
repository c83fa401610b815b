"""The scheduler extender for kube-scheduler: its protocol, and its verdicts by the table."""
