"""The fleet page: the live table in a browser, read-only.

``table`` reads what changed, ``fleet`` keeps every host's figures and levels, ``frames`` turns them into bytes for
browsers, ``questions`` asks the database what a person wants to know, ``application`` answers requests, ``guard``
decides which it answers at all, and ``server`` runs all of it. ``static`` is the page itself.

What always holds: one look at the database serves all browsers, and nothing here writes.
"""
