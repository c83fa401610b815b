"""The scheduler adapter: requests in, claims out, and how full a host is for schedulers that rank by themselves.

``ranking`` needs only the standard library, since Nova's environment imports it. Nothing here is specific to one
scheduler.
"""
