"""Serving across machines, on Ray Serve.

There is an application for each deployment, and a *site router* for each site. A request enters at the router of its
source and carries its whole route along, so that routers share no state. A replica returns its output to the router of
its site, which sends it to the next replica. Each output crosses each link once, in the direction given by the plan.
"""
