"""LUXI, the protocol between Ganeti's tools and its master: server and clients.

``framing`` and ``documents`` are about bytes and JSON, ``messages`` about requests and
replies; these three know no transport. ``server`` answers, ``client`` (Deferreds)
and ``blocking`` (plain sockets) ask.
"""
