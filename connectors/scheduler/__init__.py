"""The scheduler adapter: requests in, claims out, and the fullness of hosts for schedulers with their own ranking.

``ranking`` needs only the standard library, since Nova's environment imports it. Nothing here is specific to one
scheduler.
"""
