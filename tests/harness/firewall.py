"""A network that swallows packets: nftables drops what goes to and comes from a port of this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def silence(port: int) -> Iterator[None]:
    """Drops every packet of a port while the context lasts: nobody is told, connections stay as they are.

    Skips the test where that takes root or nftables, which are not there.
    """
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        pytest.skip("dropping packets takes nftables")
    table = f"vacancy_test_{port}"
    rules = f"""
table inet {table} {{
  chain swallow {{
    type filter hook input priority -300;
    meta l4proto {{ tcp, udp }} th dport {port} drop
    meta l4proto {{ tcp, udp }} th sport {port} drop
  }}
}}
"""
    made = subprocess.run([program, "-f", "-"], input=rules, text=True, capture_output=True, check=False, timeout=30)
    if "Operation not permitted" in made.stderr:
        pytest.skip("dropping packets takes root")
    assert made.returncode == 0, made.stderr
    try:
        yield
    finally:
        subprocess.run([program, "delete", "table", "inet", table], check=True, timeout=30)
