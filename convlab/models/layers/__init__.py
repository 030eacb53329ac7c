"""Layers, independent of a framework."""
