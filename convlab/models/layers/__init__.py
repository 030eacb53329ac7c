"""Layers, described independently of a framework."""
