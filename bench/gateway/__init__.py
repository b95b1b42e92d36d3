"""What a gateway costs: modelgrid, nginx and the routers of others in front of the same upstream, in one run."""
