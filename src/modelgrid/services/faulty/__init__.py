"""The test engine: an engine as the gateway meets it, a real process, that fails in the ways it is told.

``python -m modelgrid.services.faulty --port 8001 --crash-after 3``. Counts start at the first POST, so the first
real request that makes a replica ready is number one: ``--crash-after 1`` serves that one and dies at the next.
Each way to answer (`ways.py`) is an argument of the process, and a key of the header ``x-faulty`` for one request.
Only the standard library is used, so that it starts in a tenth of a second.
"""
