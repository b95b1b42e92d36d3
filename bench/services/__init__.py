"""What a service of ours gains by computing requests together, and costs over the bare library call: as ratios."""
