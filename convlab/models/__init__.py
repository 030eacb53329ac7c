"""Layers and stacks of layers of any framework: read, built elsewhere, compared, saved.

`layers` says what a layer computes, in no framework's words; each adapter's module `models` reads its framework's
layers into them and builds its own from them. Everything else here is written once, on what they give.
"""
