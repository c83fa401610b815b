"""The scheduler extender for kube-scheduler: its protocol, and how it filters and scores nodes by the table."""
