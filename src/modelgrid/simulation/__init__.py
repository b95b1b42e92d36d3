"""The world in virtual time: the same planner over a trace of requests and a description of machines."""
