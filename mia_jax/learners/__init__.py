"""Learning rules, one file each with make(...) -> Learner; plan.py (which rows when), stopping.py and schedules.py are their parts."""
