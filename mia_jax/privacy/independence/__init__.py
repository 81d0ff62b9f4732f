"""Checks that what is clipped for one unit depends on that unit's rows only, which every bound on a
clipped sum takes for granted.

`proof.meeting` follows the program that makes the clipped sum (`walk`) and can prove it. Where it
cannot, vmap computes each gradient from a batch of its own rows, so that the bound holds whatever
the net does across a batch. `trials.tried` runs the loss on small batches and compares bits: it can
only show that examples are mixed, never that they are not. A net that is shown to mix them is
refused by every method, because batches of one unit would train another function than the one that
is evaluated.
"""
