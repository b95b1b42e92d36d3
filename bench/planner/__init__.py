"""``make bench-planner``: modelgrid's planner beside the ways of others, in one world."""
