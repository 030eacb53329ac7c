"""Each way to correlate, written once over the operations of `convlab.contract`."""
