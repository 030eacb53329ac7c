"""`convlab parity`: do the backends of this machine compute the same? See `convlab.parity.run.run_plan`."""
