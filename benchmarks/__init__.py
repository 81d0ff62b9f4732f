"""Holds the benchmarks, one script per claim; each prints ratios that one run measured."""
