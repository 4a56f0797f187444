"""Control loop that keeps SLOs met: policies as pure functions, and the controller that carries them out."""
