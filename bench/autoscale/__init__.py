"""Autoscaling against fixed numbers of replicas and against a target of ongoing requests, in simulation."""
