"""Before a run: will it fit, how long will it take, what will it cost. Arithmetic only; no weight is loaded."""
