"""The scheduler adapter: requests in, claims out, and how full a host is for schedulers that rank by themselves.

``ranking`` needs the standard library alone, since Nova's environment imports it. Nothing here knows one scheduler
among others.
"""
