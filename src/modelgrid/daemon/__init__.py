"""Builds every object once, wires them, handles signals.

``python -m modelgrid.daemon`` becomes one of the supervisor's children, so importing the package costs nothing.
"""
