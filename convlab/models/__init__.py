"""Layers and models of any framework: they are read, ported to another framework, compared and saved.

`layers` describes what a layer computes, independently of a framework. Each adapter's module `models` reads its
framework's layers into these descriptions, and builds its own layers from them. Everything else here is written once,
for the descriptions.
"""
