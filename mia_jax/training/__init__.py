"""M runs of a learner as one program, their checkpoints, and the queries to the finished models."""
