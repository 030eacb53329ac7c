"""Where a kernel meets an image: sizes, strides, paddings, dilations."""
