"""Proves or tests that what is clipped for one unit depends on that unit's rows only.

Why it matters: private training clips the gradient of every unit (an example, or a user's rows) to
a norm C and adds noise in proportion to C. This is private only if one unit can change one clipped
gradient. A network that mixes the examples of a batch, as batch normalization does, breaks this:
then one example changes the gradients of all others, and no bound on the clipped sum holds.

What is done about it:

- `proof.meeting` analyzes the program of the clipped sum without running it (`walk`). It either
  proves that units stay separate or names the operation in which they may meet.
- Without a proof, vmap computes each gradient from a batch that holds one unit only. The bound then
  holds whatever the network does across a batch.
- `trials.tried` runs the loss on small batches and compares bits. This can only show that examples
  are mixed, never that they are not. A network that is shown to mix them is refused by every
  method, because batches of one unit would train another function than the one that is evaluated.

Reading order: values (intervals of units), walk (the analysis), rules, algebra, indexing and
control_flow (one rule per primitive), programs (reading jaxprs), proof and trials (the two checks).
"""
