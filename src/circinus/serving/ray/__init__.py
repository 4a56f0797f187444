"""Serving across machines, on Ray Serve.

One application for each deployment, and one *site router* for each site. A request enters at the router of its source
and carries its whole route along, so that routers need to agree on nothing; outputs go from a replica to the router of
its site and from there to the next replica, crossing each link once and in the direction that the plan says.
"""
